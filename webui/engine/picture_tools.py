"""The upscalers and face restorers of one job, with a note of the model files they read, for the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from webui.checkpoints.library import Library, ModelEntry
from webui.engine.job_files import Recorded
from webui.faces import KIND as FACE
from webui.faces import FaceWork, files_of, find_restorer, restored
from webui.networks.restoration import PictureNetworks
from webui.plugins.manager import Plugins
from webui.request import FaceRestoration
from webui.result import ModelFile, Pixels
from webui.upscalers import Upscaler, find_upscaler
from webui.upscalers.files import all_upscalers, uses_file

UPSCALER = "upscaler"


@dataclass
class PictureTools:
    """``recorded`` are the files of a picture that is made again; without them the models folder is asked.

    ``used`` are the files that were read, ``paths`` where they lie.
    """

    plugins: Plugins
    library: Library
    networks: PictureNetworks
    models_dir: Path
    recorded: Recorded | None = None
    used: list[ModelFile] = field(default_factory=list)
    paths: set[Path] = field(default_factory=set)

    def upscaler(self, name: str) -> Upscaler:
        """The upscaler of this name.  Raises RequestError when there is none."""
        entries = self._entries(UPSCALER)
        found = find_upscaler(name, all_upscalers(self.plugins.upscalers.values(), entries, self.networks))
        self._note(UPSCALER, uses_file(found, entries))
        return found

    def retouch(self, wanted: FaceRestoration) -> Callable[[Pixels], Pixels]:
        """The step that mends a decoded picture's faces.  Raises RequestError, NotFoundError without its file."""
        restorer = find_restorer(wanted.model, self.plugins.face_restorers.values())
        entries = self._entries(FACE)
        for entry in files_of(restorer, entries):
            self._note(FACE, entry)
        work = FaceWork(entries=entries, folder=self.models_dir, networks=self.networks, weight=wanted.weight)
        return lambda pixels: restored(pixels, restorer, work, wanted.visibility)

    def _entries(self, kind: str) -> Sequence[ModelEntry]:
        entries = self.library.entries(kind)
        by_name: Mapping[str, ModelEntry] = {
            name: replace(entry, name=name) for (role, name), entry in (self.recorded or {}).items() if role == kind
        }
        return [*by_name.values(), *(entry for entry in entries if entry.name not in by_name)]

    def _note(self, role: str, entry: ModelEntry | None) -> None:
        if entry is not None:
            self.paths.add(entry.path)
            self.used.append(ModelFile(role=role, name=entry.name, sha256=self.library.sha256(entry)))
