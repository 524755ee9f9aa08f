"""Which of a checkpoint's names are weights, and whether they are the ones a network wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from webui.errors import CheckpointError

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
CLIP_PREFIX = "cond_stage_model.transformer."
NOT_WEIGHTS = (
    "model_ema.", "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "logvar", "lvlb_weights",
    "model_ema", "first_stage_model.loss.", "denoiser.sigmas", "v_pred", "ztsnr", "cond_stage_model.logit_scale",
)  # fmt: skip
"""Names (or starts of names) in CompVis checkpoints that no network reads: training state and constants."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class KeyReport:
    """How a file's tensors fit a network: names that are missing, unexpected, or of another shape."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether every tensor the network needs is there in its shape; unexpected ones do no harm."""
        return not self.missing and not self.misshapen

    def sentence(self, file_name: str) -> str:
        """The report in words, with counts and the first names of each kind."""
        parts = [
            f"{len(names)} {word} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for word, names in (
                ("missing", self.missing),
                ("of another shape", self.misshapen),
                ("unexpected", self.unexpected),
            )
            if names
        ]
        return f"{file_name}: tensors {'; '.join(parts) or 'all present'}."


def compare(found: Shapes, wanted: Shapes) -> KeyReport:
    """How the tensors found fit those wanted; ``position_ids`` are a by-product of saving and never unexpected."""
    return KeyReport(
        missing=tuple(name for name in wanted if name not in found),
        unexpected=tuple(name for name in found if name not in wanted and not name.endswith("position_ids")),
        misshapen=tuple(
            f"{name} is {list(found[name])}, expected {list(wanted[name])}"
            for name in wanted
            if name in found and found[name] != wanted[name]
        ),
    )


def require(report: KeyReport, file_name: str) -> None:
    """Raise CheckpointError with the report unless the file can be used."""
    if not report.usable:
        raise CheckpointError(
            report.sentence(file_name) + " The file is incomplete or of another model family; fetch it again."
        )


def left_over(names: Mapping[str, object]) -> list[str]:
    """Names outside the three networks that are not known by-products of training."""
    prefixes = (UNET_PREFIX, VAE_PREFIX, CLIP_PREFIX, *NOT_WEIGHTS)
    return [name for name in names if not name.startswith(prefixes)]
