"""Prompts from file or textbox: one job a line; a line is a prompt, or ``--name value`` pairs that change the request.

The pairs are those of AUTOMATIC1111 1.10 (``scripts/prompts_from_file.py``).  A line is put before or behind the
request's own prompt, which is the negative prompt's rule, too, where the line has one.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from webui.errors import RequestError
from webui.records import check_flag, check_text, shown
from webui.request import GenerationRequest
from webui.scripts import Argument, Expansion, Page, Script, Sheet, drawn_seed, option, padded

MAX_LINES = 1000
IGNORED = frozenset(
    {"outpath_samples", "outpath_grids", "prompt_for_display", "do_not_save_samples", "do_not_save_grid"}
)
"""Names that say where and whether files are written: that is not a line's to say here."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """``place`` is where a line goes: "start" or "end" of the request's own prompt."""

    iterate_seeds: bool = option(False, "Iterate seed every line")
    same_seed: bool = option(False, "Use same random seed for all lines")
    place: str = option("start", "Insert prompts at the", choices=lambda _: ("start", "end"))
    lines: str = option("", "List of prompt inputs", hint='a prompt a line, or --prompt "…" --steps 20 …', lines=6)

    def __post_init__(self) -> None:
        check_flag("Iterate seed every line", self.iterate_seeds)
        check_flag("Use same random seed for all lines", self.same_seed)
        if self.place not in ("start", "end"):
            raise RequestError('Prompts are inserted at the "start" or "end".')
        check_text("The list of prompts", self.lines)


def expand(request: GenerationRequest, options: Options) -> Expansion:
    """One request a line that is not empty."""
    lines = [line.strip() for line in options.lines.splitlines() if line.strip()]
    if not 1 <= len(lines) <= MAX_LINES:
        raise RequestError(f"There are {len(lines)} lines of prompts; from 1 to {MAX_LINES} are made in one job.")
    requests = []
    for place, line in enumerate(lines):
        seeded = replace(request, script=None, seed=_seed_of(request, place, options))
        requests.append(_of_line(seeded, line, options, place))
    sheets: tuple[Sheet, ...] = ()
    if len(requests) > 1:
        cells = tuple(range(len(requests)))
        sheets = (Sheet(pages=(Page(cells=cells, columns=_columns(len(cells))),), all_texts=True),)
    return Expansion(requests=tuple(requests), sheets=sheets)


def _seed_of(request: GenerationRequest, place: int, options: Options) -> int:
    """The seed of a line that says none: counted up, or the same, or where none was chosen a new one.

    It counts the pictures of a line that leaves batches as they are, so that no two of them have one seed.
    """
    seed = request.seed
    assert seed is not None
    if options.iterate_seeds:
        return seed + place * request.pictures
    drawn = request.script is not None and request.script.drawn and not options.same_seed
    return drawn_seed(request, place) if drawn else seed


def _columns(pictures: int) -> int:
    return -(-pictures // max(1, round(math.sqrt(pictures))))


def _of_line(request: GenerationRequest, line: str, options: Options, place: int) -> GenerationRequest:
    if not line.startswith("--"):
        return replace(request, prompt=_joined(line, request.prompt, options))
    said = arguments_of(line)
    if "prompt" in said:
        said["prompt"] = _joined(said["prompt"], request.prompt, options)
    if "negative_prompt" in said and request.negative_prompt:
        said["negative_prompt"] = _joined(said["negative_prompt"], request.negative_prompt, options)
    for name, value in said.items():
        try:
            request = CHANGES[name](request, value, place)
        except ValueError as error:
            raise RequestError(f"The line {shown(line)} says --{name} {value}, which is not valid.") from error
    return request


def _joined(line: str, own: str, options: Options) -> str:
    return " ".join(filter(None, (line, own) if options.place == "start" else (own, line)))


def arguments_of(line: str) -> dict[str, str]:
    """The pairs of a line by name.  Raises RequestError for a name that is not known, or one without a value."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise RequestError(f"The line {shown(line)} cannot be read: {error}.") from error
    said: dict[str, str] = {}
    place = 0
    while place < len(words):
        name = words[place].removeprefix("--")
        if not words[place].startswith("--") or (name not in CHANGES and name not in IGNORED):
            raise RequestError(
                f"The line {shown(line)} says {shown(words[place])}; known are --{', --'.join(CHANGES)}."
            )
        if place + 1 >= len(words):
            raise RequestError(f"The line {shown(line)} ends in --{name} without a value.")
        value = words[place + 1]
        place += 2
        while name in ("prompt", "negative_prompt") and place < len(words) and not words[place].startswith("--"):
            value += f" {words[place]}"  # without quotes a prompt goes on to the next name
            place += 1
        if name not in IGNORED:
            said[name] = value
    return said


Change = Callable[[GenerationRequest, str, int], GenerationRequest]
"""The request, the value, and the number of the line."""


def _top(name: str, convert: Callable[[str], Any]) -> Change:
    return lambda request, text, _: replace(request, **{name: convert(text)})


def _part(part: str, name: str, convert: Callable[[str], Any]) -> Change:
    def change(request: GenerationRequest, text: str, _: int) -> GenerationRequest:
        return replace(request, **{part: replace(getattr(request, part), **{name: convert(text)})})

    return change


def _sampler(request: GenerationRequest, text: str, _: int) -> GenerationRequest:
    return replace(request, sampling=replace(request.sampling, sampler=text, eta=None))


def _seed(request: GenerationRequest, text: str, place: int) -> GenerationRequest:
    seed = int(text)
    return replace(request, seed=drawn_seed(request, f"line {place}") if seed < 0 else seed)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def _faces(request: GenerationRequest, text: str, _: int) -> GenerationRequest:
    if _flag(text) and request.face_restoration is None:
        raise RequestError("A line asks for restore_faces; switch face restoration on for the job.")
    return request if _flag(text) else replace(request, face_restoration=None)


CHANGES: Mapping[str, Change] = {
    "prompt": _top("prompt", str),
    "negative_prompt": _top("negative_prompt", str),
    "styles": _top("styles", lambda text: tuple(filter(None, (name.strip() for name in text.split(","))))),
    "seed": _seed,
    "subseed_strength": _part("noise", "variation_strength", float),
    "subseed": _part("noise", "variation_seed", lambda text: None if int(text) < 0 else int(text)),
    "seed_resize_from_h": _part("noise", "from_height", lambda text: max(int(text), 0)),
    "seed_resize_from_w": _part("noise", "from_width", lambda text: max(int(text), 0)),
    "sampler_index": _sampler,
    "sampler_name": _sampler,
    "scheduler": _part("sampling", "schedule", str),
    "batch_size": _top("batch_size", int),
    "n_iter": _top("batch_count", int),
    "steps": _part("sampling", "steps", int),
    "cfg_scale": _part("sampling", "cfg_scale", float),
    "width": _part("size", "width", int),
    "height": _part("size", "height", int),
    "restore_faces": _faces,
    "tiling": _top("tiling", _flag),
    "sd_model": _top("checkpoint", str),
}
"""What each name changes."""


def arguments(img2img: bool) -> Sequence[Argument]:
    """The positional arguments."""
    return (
        Argument(label="Iterate seed every line", value=False),
        Argument(label="Use same random seed for all lines", value=False),
        Argument(label="Insert prompts at the", value="start", choices=("start", "end")),
        Argument(label="List of prompt inputs", value=""),
    )


def options_from(given: Sequence[Any], img2img: bool) -> Mapping[str, Any]:
    """The options that positional arguments mean."""
    iterate, same, place, lines = padded(given, arguments(img2img))
    return {"iterate_seeds": iterate, "same_seed": same, "place": place, "lines": lines}


SCRIPT = Script(
    name="Prompts from file or textbox",
    options=Options,
    expand=expand,
    arguments=arguments,
    options_from=options_from,
)
