"""GFPGAN (Wang et al. 2021, arXiv:2101.04061), RestoreFormer (arXiv:2201.06374) and CodeFormer (arXiv:2206.11253).

One step around three networks: faces are found, cut out upright at 512x512, shown to the network, laid back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from webui.errors import CheckpointError
from webui.faces import FaceRestorer, FaceWork, file_named, missing
from webui.faces.alignment import mend
from webui.faces.detection import find_faces, retinaface_file
from webui.hooks import hookimpl

if TYPE_CHECKING:
    from webui.checkpoints.library import ModelEntry
    from webui.result import Pixels

FILES = {
    "CodeFormer": ("codeformer.pth", "Codeformer"),
    "GFPGAN": ("GFPGANv1.4.pth", "GFPGAN"),
    "RestoreFormer": ("RestoreFormer.pth", "face"),
}
"""By restorer: the model file that it needs, and the folder below the models folder where it is looked for first."""


def find_file(entries: Sequence[ModelEntry], name: str) -> ModelEntry | None:
    """The model file of a restorer, wherever among the face models it is; None when it is not there."""
    return file_named(entries, name.casefold())


def restore(pixels: Pixels, work: FaceWork, *, name: str) -> Pixels:
    """The picture with its faces as the network makes them.

    Raises NotFoundError when the network's or the detector's file is not there, CheckpointError for another network.
    """
    entry = find_file(work.entries, name)
    if entry is None:
        file, folder = FILES[name]
        raise missing(name, file, work.folder / folder)
    faces = find_faces(pixels, work)
    if not faces:
        return pixels
    network = work.networks.load(entry.path)
    if network.architecture != name:
        raise CheckpointError(f"{entry.path.name} is a network of the kind {network.architecture}, not {name}.")
    return mend(pixels, faces, lambda crop: network.repaired(crop, work.weight))


@hookimpl
def register_face_restorers() -> Sequence[FaceRestorer]:
    """The three, whether their files are there or not: without it a sentence says which one to get."""
    return [
        FaceRestorer(
            name=name,
            restore=partial(restore, name=name),
            find_file=partial(find_file, name=name),
            find_detector=retinaface_file,
        )
        for name in FILES
    ]
