"""Faces found in a picture and mended.  A drop-in folder: each file registers a :class:`FaceRestorer`.

The pipeline ("restore faces") and Extras use them.  The built-in ones need a model file each, which a person puts into
the models folder; without it a sentence says which file goes where.  Importing these modules does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from webui.diffusion.schedules import lookup
from webui.errors import NotFoundError

if TYPE_CHECKING:
    from webui.checkpoints.library import ModelEntry
    from webui.networks.restoration import PictureNetworks
    from webui.result import Pixels

KIND = "face"
"""What the library calls the model files of restorers and detectors."""


@dataclass(frozen=True, kw_only=True)
class FaceWork:
    """What a restorer works with: the library's files of kind "face", and the networks that are loaded.

    ``folder`` is the models folder.  ``weight`` is CodeFormer's: 0 the strongest effect, 1 the most faithful.
    """

    entries: Sequence[ModelEntry]
    folder: Path
    networks: PictureNetworks
    weight: float = 0.5


@dataclass(frozen=True, kw_only=True)
class FaceRestorer:
    """A restorer: a picture (H, W, 3) uint8 -> the same with its faces mended.

    ``find_file`` names the model file among those of kind "face", None when it is not there; a restorer without files
    leaves it out.  ``find_detector`` does the same for the file that finds the faces.  Both are in a picture's recipe.
    """

    name: str
    restore: Callable[[Pixels, FaceWork], Pixels]
    find_file: Callable[[Sequence[ModelEntry]], ModelEntry | None] | None = None
    find_detector: Callable[[Sequence[ModelEntry]], ModelEntry | None] | None = None


def files_of(restorer: FaceRestorer, entries: Sequence[ModelEntry]) -> list[ModelEntry]:
    """Those of the files of kind "face" that a restorer works with, as far as they are there."""
    finding = (restorer.find_file, getattr(restorer, "find_detector", None))  # an extension's own class may lack it
    found = (find(entries) for find in finding if find is not None)
    return [entry for entry in found if entry is not None]


def find_restorer(name: str, restorers: Iterable[FaceRestorer]) -> FaceRestorer:
    """The face restorer with this name, whatever its case; RequestError when there is none."""
    return lookup("face restorer", name, (((restorer.name,), restorer) for restorer in restorers))


def restored(pixels: Pixels, restorer: FaceRestorer, work: FaceWork, visibility: float = 1.0) -> Pixels:
    """The picture with its faces mended, mixed with what it was before (``visibility`` 0: unchanged).

    A picture without a face stays as it is.  Raises NotFoundError when a model file is needed that is not there.
    """
    if visibility <= 0:
        return pixels
    mended = restorer.restore(pixels, work)
    if visibility >= 1:
        return mended
    return np.array(Image.blend(Image.fromarray(pixels), Image.fromarray(mended), visibility))


def file_named(entries: Sequence[ModelEntry], *beginnings: str) -> ModelEntry | None:
    """The last file, by name, whose name begins so, whatever its case (GFPGANv1.4 before GFPGANv1.3)."""
    found = [entry for entry in entries if Path(entry.name).name.casefold().startswith(beginnings)]
    return max(found, key=lambda entry: Path(entry.name).name.casefold(), default=None)


def missing(name: str, file: str, folder: Path) -> NotFoundError:
    """The error for a restorer or detector whose file is not there: which file to put where."""
    return NotFoundError(f"{name} needs a model file: put {file} into {folder}, then press Refresh.")
