"""LoRA files -> the model with their changes merged into copies of its weights.

Called by the engine once a job, before the prompts are encoded.  The base model is never touched: the networks of the
answer share all other tensors with it (see ``networks/lora.py``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from webui.checkpoints.formats import BUILT_IN, Formats
from webui.conditioning.embedding import BUNDLE
from webui.errors import CheckpointError
from webui.result import TensorCounts

if TYPE_CHECKING:
    from webui.model import Model
    from webui.networks.lora import Fitted

_STATED_HASH = "sshs_model_hash"


@dataclass(frozen=True)
class LoraUse:
    """A file and how strongly it acts; ``name`` is what the prompt calls it."""

    name: str
    path: Path
    sha256: str
    text_weight: float
    unet_weight: float
    ranks: int | None = None
    blocks: tuple[float, ...] | None = None

    @property
    def effect(self) -> tuple[object, ...]:
        """What decides about the merged weights."""
        return self.sha256, self.text_weight, self.unet_weight, self.ranks, self.blocks


@dataclass(frozen=True)
class Applied:
    """How a file's tensors fitted the model: so many used, and the names of those unknown or of another shape."""

    name: str
    sha256: str
    used: int
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def tensors(self) -> TensorCounts:
        """The counts alone, for the recipe."""
        return TensorCounts(used=self.used, unknown=len(self.unknown), misshapen=len(self.misshapen))

    @property
    def problem(self) -> str | None:
        """A sentence about what was left out; None when all of the file is used."""
        if not self.unknown and not self.misshapen:
            return None
        return f'Of the LoRA "{self.name}" {self.counts}.'

    @property
    def counts(self) -> str:
        """The numbers in words, with the first names of what was left out."""
        parts = [f"{self.used} tensors were used"]
        for names, word in ((self.misshapen, "have another shape"), (self.unknown, "are not known here")):
            if names:
                parts.append(f"{len(names)} {word} ({', '.join(names[:2])}{', …' if len(names) > 2 else ''})")
        return ", ".join(parts)


def combined(uses: Sequence[LoraUse]) -> tuple[LoraUse, ...]:
    """Each file once: the weights of one that is named several times add up.  The order is that of the hashes, so that
    the same set gives the same bits."""
    total: dict[tuple[object, ...], LoraUse] = {}
    for use in uses:
        same = (use.sha256, use.ranks, use.blocks)
        before = total.get(same)
        total[same] = use if before is None else replace(
            before,
            text_weight=before.text_weight + use.text_weight,
            unet_weight=before.unet_weight + use.unet_weight,
        )  # fmt: skip
    return tuple(sorted(total.values(), key=lambda use: (use.sha256, use.ranks or 0, use.blocks or ())))


def adapted(model: Model, uses: Sequence[LoraUse], formats: Formats = BUILT_IN) -> tuple[Model, tuple[Applied, ...]]:
    """The model with all files merged, and how each fitted.  ``uses`` come from :func:`combined`.

    Raises CheckpointError for a file that changes nothing in this model, and for one that cannot be read.
    """
    import torch

    from webui.networks import lora
    from webui.networks.layer_names import TEXT_ENCODER, UNET

    with torch.inference_mode(False), torch.no_grad():
        fitted = [_read(model, use, formats) for use in uses]
        weighed = [
            lora.Use(fit, use.text_weight, use.unet_weight, use.ranks, use.blocks)
            for use, fit in zip(uses, fitted, strict=True)
        ]
        changed = replace(
            model,
            unet=lora.merged(model.unet, lora.changes_of(UNET, weighed)),
            text_encoder=lora.merged(model.text_encoder, lora.changes_of(TEXT_ENCODER, weighed)),
        )
    applied = (
        Applied(use.name, use.sha256, fit.used, fit.unknown, fit.misshapen)
        for use, fit in zip(uses, fitted, strict=True)
    )
    return changed, tuple(applied)


def a1111_hash(path: Path, formats: Formats = BUILT_IN) -> str:
    """The hash by which AUTOMATIC1111 knows a LoRA: its metadata's, else the SHA-256 of what follows the header."""
    stat = path.stat()
    return _a1111_hash(path, stat.st_mtime_ns, stat.st_size, formats)


@lru_cache(maxsize=10_000)
def _a1111_hash(path: Path, mtime_ns: int, size: int, formats: Formats) -> str:
    """Of the file as it was at that time, so that a job does not read a whole LoRA again for its hash."""
    header = formats.read_header(path)
    if stated := header.metadata.get(_STATED_HASH):
        return stated
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(header.data_start)
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _read(model: Model, use: LoraUse, formats: Formats) -> Fitted:
    import torch

    from webui.networks.lora import fit

    file = formats.open(use.path)
    tensors = file.load("", torch.float32, model.compute.device, lambda name: not name.startswith(BUNDLE))
    fitted = fit(tensors, file.header.metadata, model.unet, model.text_encoder)
    if not fitted.changes:
        left = Applied(use.name, use.sha256, 0, fitted.unknown, fitted.misshapen)
        raise CheckpointError(
            f'The LoRA "{use.name}" changes nothing in the model {model.name}: {left.counts}. '
            "It was made for another kind of model; choose one that fits, or take its tag out of the prompt."
        )
    return fitted
