"""Loopback: img2img of its own result, again and again, while the denoising strength goes along a curve.

Curves, seeds (one more for every picture) and words of AUTOMATIC1111 1.10 (``scripts/loopback.py``).  Unlike there,
the colour correction of a picture is that of the one before it, and every picture is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from webui.errors import RequestError, unknown_name
from webui.records import check_range, check_whole, shown
from webui.request import MAX_SEED, GenerationRequest, MaskedContent, StartImage
from webui.scripts import Argument, Expansion, Page, Script, Sheet, option, padded

CURVES: Mapping[str, Callable[[float], float]] = {
    "Aggressive": lambda progress: math.sin(progress * math.pi / 2),
    "Linear": lambda progress: progress,
    "Lazy": lambda progress: 1 - math.cos(progress * math.pi / 2),
}
"""Share of the loops that are over (0 to 1) -> share of the way to the final strength."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """``final_strength`` is the denoising strength of the last loop, the request's that of the first."""

    loops: int = option(4, "Loops", low=1, high=32, step=1)
    final_strength: float = option(0.5, "Final denoising strength", low=0, high=1, step=0.01, beside=True)
    curve: str = option("Linear", "Denoising strength curve", choices=lambda _: tuple(CURVES))

    def __post_init__(self) -> None:
        check_whole("Loops", self.loops, 1, 100)
        check_range("Final denoising strength", self.final_strength, 0, 1)
        if self.curve not in CURVES:
            raise unknown_name("denoising strength curve", self.curve, CURVES)


def expand(request: GenerationRequest, options: Options, size: tuple[int, int]) -> Expansion:
    """``loops`` requests, each of which starts from the picture before it, ``batch_count`` times."""
    if request.start is None or request.seed is None:
        raise RequestError("Loopback begins with a picture; choose a start image.")
    requests, follows = [], {}
    for place in range(options.loops * request.batch_count):
        loop = place % options.loops
        if loop:
            follows[place] = place - 1
        one = replace(request, script=None, batch_size=1, batch_count=1, seed=(request.seed + place) % MAX_SEED)
        requests.append(replace(one, start=_start(request.start, options, loop)))
    cells = tuple(range(len(requests)))
    if request.batch_count > 1:
        cells = cells[options.loops - 1 :: options.loops]
    pairs = {"Final denoising strength": f"{options.final_strength:g}", "Denoising curve": options.curve}
    sheet = Sheet(pages=(Page(cells=cells, columns=len(cells)),), pairs=pairs)
    return Expansion(requests=tuple(requests), follows=follows, sheets=(sheet,) if len(cells) > 1 else ())


def _start(start: StartImage, options: Options, loop: int) -> StartImage:
    """The start of a loop, from 0 on; after the first what is under the mask stays as it is."""
    share = CURVES[options.curve](loop / (options.loops - 1)) if options.loops > 1 else 0.0
    change = (options.final_strength - start.denoising_strength) * share
    mask = replace(start.mask, content=MaskedContent.ORIGINAL) if start.mask and loop else start.mask
    return replace(start, denoising_strength=min(max(start.denoising_strength + change, 0.0), 1.0), mask=mask)


def arguments(img2img: bool) -> Sequence[Argument]:
    """The positional arguments."""
    return (
        Argument(label="Loops", value=4, minimum=1, maximum=32, step=1),
        Argument(label="Final denoising strength", value=0.5, minimum=0, maximum=1, step=0.01),
        Argument(label="Denoising strength curve", value="Linear", choices=tuple(CURVES)),
        Argument(label="Append interrogated prompt at each iteration", value="None", choices=("None",)),
    )


def options_from(given: Sequence[Any], img2img: bool) -> Mapping[str, Any]:
    """The options that positional arguments mean.  Raises RequestError for an interrogated prompt."""
    loops, final, curve, interrogated = padded(given, arguments(img2img))
    if interrogated != "None":
        raise RequestError(f'Loopback appends no prompt of {shown(interrogated)}; say "None".')
    return {"loops": loops, "final_strength": final, "curve": curve}


SCRIPT = Script(
    name="Loopback",
    options=Options,
    expand=expand,
    from_start=True,
    arguments=arguments,
    options_from=options_from,
)
