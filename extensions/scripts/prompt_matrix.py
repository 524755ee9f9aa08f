"""Prompt matrix: every combination of the parts of a prompt that ``|`` divides; the first part is always there.

Order, joining and layout of AUTOMATIC1111 1.10 (``scripts/prompt_matrix.py``): 2**n pictures; a bit of a picture's
number says whether a part is in its prompt; the first half of the parts goes along the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from webui.errors import RequestError
from webui.records import check_flag, check_whole
from webui.request import GenerationRequest
from webui.scripts import Argument, Expansion, Label, Page, Script, Sheet, option, padded

MAX_PARTS = 10
PROMPTS = ("positive", "negative")
JOININGS = ("comma", "space")


@dataclass(frozen=True, kw_only=True)
class Options:
    """``which`` is "positive" or "negative", the prompt that is divided; ``joining`` "comma" or "space"."""

    parts_first: bool = option(False, "Put variable parts at start of prompt")
    different_seeds: bool = option(False, "Use different seed for each picture")
    which: str = option("positive", "Select prompt", choices=lambda _: PROMPTS)
    joining: str = option("comma", "Select joining char", choices=lambda _: JOININGS, beside=True)
    margin: int = option(0, "Grid margins (px)", low=0, high=500, step=2)

    def __post_init__(self) -> None:
        check_flag("Put variable parts at start of prompt", self.parts_first)
        check_flag("Use different seed for each picture", self.different_seeds)
        if self.which not in PROMPTS or self.joining not in JOININGS:
            raise RequestError(
                'A prompt matrix divides the "positive" or "negative" prompt and joins by comma or space.'
            )
        check_whole("Grid margins", self.margin, 0, 500)


def expand(request: GenerationRequest, options: Options) -> Expansion:
    """One picture for every combination."""
    negative = options.which == "negative"
    first, *parts = (request.negative_prompt if negative else request.prompt).split("|")
    if len(parts) > MAX_PARTS:
        raise RequestError(f"The prompt has {len(parts)} variable parts; at most {MAX_PARTS} are combined.")
    parts = [part.strip() for part in parts]
    glue = ", " if options.joining == "comma" else " "
    requests = []
    for number in range(2 ** len(parts)):
        chosen = [part.strip(",") for bit, part in enumerate(parts) if number & 1 << bit]
        text = glue.join([*chosen, first] if options.parts_first else [first, *chosen])
        seed = request.seed + number if options.different_seeds and request.seed is not None else request.seed
        one = replace(request, script=None, seed=seed, batch_size=1, batch_count=1)
        requests.append(replace(one, negative_prompt=text) if negative else replace(one, prompt=text))
    return Expansion(requests=tuple(requests), sheets=(_sheet(parts, options.margin),))


def _sheet(parts: Sequence[str], margin: int) -> Sheet:
    boundary = ceil(len(parts) / 2)
    columns = 2**boundary
    page = Page(
        cells=tuple(range(2 ** len(parts))),
        columns=columns,
        top=_labels(parts[:boundary]),
        left=_labels(parts[boundary:]),
    )
    return Sheet(pages=(page,), margin=margin)


def _labels(parts: Sequence[str]) -> tuple[tuple[Label, ...], ...]:
    """The texts of each row or column: every part, struck through where it is not in the prompt."""
    return tuple(
        tuple(Label(part, bool(number & 1 << bit)) for bit, part in enumerate(parts))
        for number in range(2 ** len(parts))
    )


def arguments(img2img: bool) -> Sequence[Argument]:
    """The positional arguments."""
    return (
        Argument(label="Put variable parts at start of prompt", value=False),
        Argument(label="Use different seed for each picture", value=False),
        Argument(label="Select prompt", value="positive", choices=PROMPTS),
        Argument(label="Select joining char", value="comma", choices=JOININGS),
        Argument(label="Grid margins (px)", value=0, minimum=0, maximum=500, step=2),
    )


def options_from(given: Sequence[Any], img2img: bool) -> Mapping[str, Any]:
    """The options that positional arguments mean."""
    first, different, which, joining, margin = padded(given, arguments(img2img))
    return {
        "parts_first": first,
        "different_seeds": different,
        "which": which,
        "joining": joining,
        "margin": margin,
    }


SCRIPT = Script(name="Prompt matrix", options=Options, expand=expand, arguments=arguments, options_from=options_from)
