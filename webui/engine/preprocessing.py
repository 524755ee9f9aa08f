"""Preprocessors in the process that computes: those of the server, and those that compute with a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from webui.checkpoints.formats import Formats
from webui.checkpoints.library import ModelEntry
from webui.engine.control_pictures import checked_picture, registered
from webui.errors import NotFoundError
from webui.plugins.manager import Plugins
from webui.preprocessors import KIND, Preprocessor
from webui.result import Pixels


@dataclass
class Preprocessing:
    """Runs preprocessors; the network used last stays loaded until its file changes or another one is wanted."""

    plugins: Plugins
    formats: Formats
    device: torch.device
    _key: tuple[Any, ...] = ()
    _network: Any = None

    def run(
        self,
        name: str,
        pixels: Pixels,
        options: Mapping[str, Any],
        entries: Sequence[ModelEntry],
        model_file: Callable[[str, str], Path],
    ) -> Pixels:
        """The control picture (H, W, 3) uint8 that a registered preprocessor makes.

        ``entries`` are the files of preprocessors that there are, ``model_file(kind, name)`` where the one that is used
        lies.  Raises RequestError for an unknown preprocessor or a missing file, CheckpointError for a damaged one, and
        ExtensionError for what is no picture.
        """
        one = registered(name, self.plugins)
        file = one.file(entries)
        if file is None:
            return checked_picture(one.run(pixels, options), name)
        network = self._loaded(one, model_file(KIND, file.name))
        with torch.inference_mode():
            return checked_picture(one.run(pixels, options, network), name)

    def _loaded(self, one: Preprocessor, path: Path) -> Any:
        assert one.weights is not None
        try:
            stat = path.stat()
        except OSError:
            raise NotFoundError(f"The model file {path.name} is not there any more; press Refresh.") from None
        key = (one.weights.build, path, stat.st_mtime_ns, stat.st_size)
        if self._key != key:
            self._network, self._key = None, ()  # makes room before the next one is read
            self._network = one.weights.build(self.formats.open(path), self.device)
            self._key = key
        return self._network
