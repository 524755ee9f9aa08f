"""The networks in memory: checkpoints, VAEs from files of their own, and checkpoints with LoRAs merged.

Only what the current job names is kept; the one owner of weights, called by the runner.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from webui import device, families
from webui.checkpoints.library import Library, ModelEntry
from webui.conditioning import lora
from webui.conditioning.lora import Applied, LoraUse
from webui.device import Compute
from webui.engine import memory
from webui.model import Model
from webui.networks.vae import AutoencoderKL
from webui.plugins.manager import Plugins

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Adapted:
    """A model with LoRAs merged, and how each file fitted."""

    model: Model
    applied: tuple[Applied, ...]


@dataclass
class LoadedModels:
    """What is loaded.  A file that was changed on disk is read again.

    ``wanted`` are the files that the current job needs: loading one of them keeps the others.
    """

    plugins: Plugins
    library: Library
    wanted: Collection[Path] = ()
    _checkpoints: dict[Key, Model] = field(default_factory=dict)
    _vaes: dict[Key, AutoencoderKL] = field(default_factory=dict)
    _adapted: dict[Key, Adapted] = field(default_factory=dict)

    def has(self, entry: ModelEntry, compute: Compute) -> bool:
        """Whether :meth:`checkpoint` would answer from memory."""
        return _key(entry, compute) in self._checkpoints

    def checkpoint(self, entry: ModelEntry, compute: Compute) -> Model:
        """The model of a file, from memory when it is loaded; those that are not wanted are dropped first."""
        key = _key(entry, compute)
        if key not in self._checkpoints:
            self._make_room()
            device.release_memory(compute)
            with self.plugins.blaming():
                model = families.load(self.library.formats.open(entry.path), self.plugins.families, compute)
            key = _key(entry, compute)
            self._checkpoints[key] = replace(model, name=entry.name, sha256=self.library.sha256(entry))
            memory.give_back()
        return replace(self._checkpoints[key], compute=compute)

    def with_vae(self, model: Model, entry: ModelEntry | None) -> Model:
        """The model with the VAE of a file, or as it is."""
        if entry is None:
            return model
        from webui.families import vae

        key = _key(entry, model.compute)
        if key not in self._vaes:
            self._vaes.clear()
            self._vaes[key] = vae.load(entry.path, model.compute, formats=self.library.formats)
        return replace(model, vae=self._vaes[key])

    def adapted(self, model: Model, loras: Sequence[LoraUse], keep: int = 1) -> Adapted:
        """The loaded model with LoRAs merged, and how each fitted; from memory when a late job merged the same.

        ``model`` itself is never changed.  At most ``keep`` merged models are held.  Raises CheckpointError for a LoRA
        that does not fit.
        """
        if not loras:
            return Adapted(model, ())
        key = (id(model.unet), model.sha256, model.compute.dtype, *(use.effect for use in loras))
        if key not in self._adapted:
            while len(self._adapted) >= keep:  # makes room before the next one is merged
                self._adapted.pop(next(iter(self._adapted)))
            device.release_memory(model.compute)
            self._adapted[key] = Adapted(*lora.adapted(model, loras, self.library.formats))
        found = self._adapted[key]
        names = {use.sha256: use.name for use in loras}
        applied = tuple(replace(file, name=names[file.sha256]) for file in found.applied)
        return Adapted(replace(found.model, compute=model.compute, vae=model.vae), applied)

    def drop(self) -> None:
        """Forget everything that is loaded."""
        self._checkpoints.clear()
        self._vaes.clear()
        self._adapted.clear()
        memory.give_back()

    def _make_room(self) -> None:
        kept = {key: model for key, model in self._checkpoints.items() if key[0] in self.wanted}
        if len(kept) < len(self._checkpoints) or not kept:
            self._adapted.clear()
        self._checkpoints = kept


def _key(entry: ModelEntry, compute: Compute) -> Key:
    """What tells one loaded model from another: the file as it is now, and where and how it computes."""
    try:
        stat = entry.path.stat()
    except OSError:
        return (entry.path,)
    return (entry.path, stat.st_mtime_ns, stat.st_size, str(compute.device), compute.dtype, compute.vae_dtype)
