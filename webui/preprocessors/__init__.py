"""picture -> control picture.  A drop-in folder; conditioning modules and the training of control adapters use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webui.result import Pixels


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """A named function from a picture (H, W, 3) uint8 and its options to a control picture of the same shape."""

    name: str
    run: Callable[[Pixels, Mapping[str, Any]], Pixels]
