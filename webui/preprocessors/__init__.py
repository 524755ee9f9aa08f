"""picture -> control picture.  A drop-in folder; conditioning modules and the training of control adapters use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webui.result import Pixels


@dataclass(frozen=True, kw_only=True)
class Slider:
    """A number among a preprocessor's options: its name there, the words for people, its default and its range."""

    key: str
    label: str
    default: float
    low: float
    high: float
    step: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Preprocessor:
    """A named function from a picture (H, W, 3) uint8 and its options to a control picture of the same kind.

    ``aliases`` are other names that programs and pictures' texts use.  ``sliders`` are the numbers it reads from its
    options, ``scaled`` tells whether its result depends on the size at which it sees the picture, so that the shorter
    side is worth choosing.  ``tags`` say what it is for ("Canny", "Lineart"), ``reads_mask`` that a mask belongs to it,
    and ``needs_model`` is False where the control picture is used without a control network.  One that is ``in_worker``
    computes with a network: it runs in the worker process alone, so that the page's Preview cannot show what it makes.
    """

    name: str
    run: Callable[[Pixels, Mapping[str, Any]], Pixels]
    aliases: tuple[str, ...] = ()
    sliders: tuple[Slider, ...] = ()
    scaled: bool = False
    tags: tuple[str, ...] = ()
    reads_mask: bool = False
    needs_model: bool = True
    in_worker: bool = False
