"""The keys of a ``parameters`` text that stand for one field of a request each, and how their values are read.

Words of AUTOMATIC1111 1.10 (the infotext labels of ``modules/shared_options.py``).  A key that stands for a field is
written only where the field is not at its default, so a missing one means the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from webui.request import Emphasis, RandomSource

Record = TypeVar("Record")

HIRES_KEYS = ("Hires upscale", "Hires upscaler", "Hires resize", "First pass size")
"""Those that tell of a second pass."""


@dataclass(frozen=True)
class Plain:
    """A key, the dotted path of its field, and the field's value for a text (raises ValueError)."""

    key: str
    path: str
    read: Callable[[str], Any]


def flag(text: str) -> bool:
    """True or False.  Raises ValueError for any other word."""
    if text.casefold() not in ("true", "false"):
        raise ValueError("neither True nor False")
    return text.casefold() == "true"


def count(text: str) -> int:
    """A whole number, also one that was written as a float ("7.0").  Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def emphasis(text: str) -> Emphasis:
    """The mode of emphasis.  Raises ValueError."""
    return Emphasis(text)


def source(text: str) -> RandomSource:
    """Where noise comes from.  Raises ValueError."""
    return RandomSource(text)


PLAIN = (
    Plain("Clip skip", "clip_skip", count),
    Plain("ENSD", "noise.later_offset", count),
    Plain("Token merging ratio", "token_merging.ratio", float),
    Plain("Token merging ratio hr", "token_merging.second_pass", float),
    Plain("RNG", "noise.source", source),
    Plain("Tiling", "tiling", flag),
    Plain("Emphasis", "emphasis", emphasis),
    Plain("Old prompt editing timelines", "compatibility.old_prompt_editing", flag),
    Plain("Downcast alphas_cumprod", "compatibility.downcast_alphas", flag),
    Plain("Discard penultimate sigma", "sampling.options.discard_penultimate", flag),
    Plain("Schedule min sigma", "sampling.options.sigma_min", float),
    Plain("Schedule max sigma", "sampling.options.sigma_max", float),
    Plain("Schedule rho", "sampling.options.rho", float),
    Plain("Beta schedule alpha", "sampling.options.beta_alpha", float),
    Plain("Beta schedule beta", "sampling.options.beta_beta", float),
    Plain("SGM noise multiplier", "sampling.options.full_noise", flag),
    Plain("Sigma churn", "sampling.options.s_churn", float),
    Plain("Sigma tmin", "sampling.options.s_tmin", float),
    Plain("Sigma tmax", "sampling.options.s_tmax", float),
    Plain("Sigma noise", "sampling.options.s_noise", float),
    Plain("Extra noise", "noise.extra", float),
    Plain("Skip Early CFG", "sampling.guidance.skip_early", float),
    Plain("NGMS", "sampling.guidance.min_sigma", float),
    Plain("NGMS all steps", "sampling.guidance.min_sigma_all", flag),
    Plain("Pad conds", "sampling.guidance.pad", flag),
    Plain("Pad conds v0", "sampling.guidance.pad_v0", flag),
)

OTHER_SPELLINGS = {
    "Beta scheduler alpha": "Beta schedule alpha",
    "Beta scheduler beta": "Beta schedule beta",
    "CFG Rescale": "CFG rescale",
    "Negative Guidance minimum sigma": "NGMS",
    "Eta noise seed delta": "ENSD",
    "Sampler name": "Sampler",
    "Hires schedule": "Hires schedule type",
    "Hires sampler name": "Hires sampler",
}
"""Keys that mean another one: settings' labels that AUTOMATIC1111 registers for what it writes, and other programs'."""


def field(record: Any, path: str) -> Any:
    """The field of a record at a dotted path."""
    for name in path.split("."):
        record = getattr(record, name)
    return record


def changed(record: Record, path: str, value: Any) -> Record:
    """The record with another value at a dotted path.  Raises RequestError for a value that cannot be."""
    name, _, rest = path.partition(".")
    new = changed(getattr(record, name), rest, value) if rest else value
    return replace(record, **{name: new})  # type: ignore[type-var]
