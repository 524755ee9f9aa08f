"""X/Y/Z plot: a picture for every combination of the values of up to three axes, laid out with their names.

Axes, their words, the ways to write values and the order of computing (what is dear to change stays longest) are those
of AUTOMATIC1111 1.10 (``scripts/xyz_grid.py``).
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from webui.errors import RequestError, unknown_name
from webui.records import check_flag, check_text, check_whole, shown
from webui.request import (
    MAX_SEED,
    FaceRestoration,
    GenerationRequest,
    RandomSource,
    Refiner,
    Size,
)
from webui.scripts import Argument, Expansion, Label, Page, Script, Sheet, drawn_seed, option, padded

NOTHING = "Nothing"
MAX_VALUES = 1000

_NUMBER = r"([+-]?\d+(?:\.\d*)?)"
_STEPPED = re.compile(rf"{_NUMBER}\s*-\s*{_NUMBER}(?:\s*\(\s*([+-]?\d+(?:\.\d*)?)\s*\))?")
_COUNTED = re.compile(rf"{_NUMBER}\s*-\s*{_NUMBER}\s*\[\s*(\d+)\s*\]")

Values = tuple[Any, ...]


def whole_numbers(words: Sequence[str]) -> Values:
    """Whole numbers: one by one, ``1-5``, ``1-5 (+2)``, ``1-10 [5]``."""
    found: list[int] = []
    for word in words:
        found += [round(value) for value in _range(word, whole=True)]
    return tuple(found)


def numbers(words: Sequence[str]) -> Values:
    """Numbers, written in the same ways."""
    return tuple(itertools.chain.from_iterable(_range(word, whole=False) for word in words))


def _range(word: str, *, whole: bool) -> list[float]:
    if counted := _COUNTED.fullmatch(word):
        first, last, count = float(counted[1]), float(counted[2]), int(counted[3])
        _few(count)
        points = [first + (last - first) * place / max(count - 1, 1) for place in range(count)]
        return [float(int(point)) for point in points] if whole else points
    if stepped := _STEPPED.fullmatch(word):
        first, last, step = float(stepped[1]), float(stepped[2]), float(stepped[3] or 1)
        if step == 0:
            raise RequestError(f"The values {shown(word)} never come to their end: their step is 0.")
        count = int((last - first) / step + 1e-9) + 1
        _few(count)
        return [round(first + step * place, 10) for place in range(count)]
    try:
        return [float(int(word)) if whole else float(word)]
    except ValueError as error:
        raise RequestError(f"The value {shown(word)} is no {'whole ' if whole else ''}number.") from error


def _few(count: int) -> None:
    if not 0 < count <= MAX_VALUES:
        raise RequestError(f"An axis would have {count} values; from 1 to {MAX_VALUES} are made.")


def texts(words: Sequence[str]) -> Values:
    """Texts as they are."""
    return tuple(words)


def orders(words: Sequence[str]) -> Values:
    """Every order of the words."""
    if len(words) > 6:
        raise RequestError(f"{len(words)} parts have too many orders; at most 6 parts are put in order.")
    return tuple(itertools.permutations(words))


def flags(words: Sequence[str]) -> Values:
    """True and False."""
    for word in words:
        if word.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise RequestError(f"The value {shown(word)} is neither True nor False.")
    return tuple(word.lower() in ("true", "yes", "1") for word in words)


Apply = Callable[[GenerationRequest, Any, Values], GenerationRequest]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Something that an axis can vary.

    ``cost`` orders the computing: the dearest changes last.  ``text2image`` and ``image2image`` say in which of the two
    it is offered.  ``bare`` values are shown without the axis's name.
    """

    name: str
    read: Callable[[Sequence[str]], Values]
    apply: Apply
    cost: float = 0.0
    text2image: bool = True
    image2image: bool = True
    bare: bool = False
    choices: tuple[str, ...] | None = None


def _top(name: str) -> Apply:
    return lambda request, value, _: replace(request, **{name: value})


def _part(part: str, name: str) -> Apply:
    return lambda request, value, _: replace(request, **{part: replace(getattr(request, part), **{name: value})})


def _deeper(name: str) -> Apply:
    """A field of the sampler's options."""

    def apply(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
        options = replace(request.sampling.options, **{name: value})
        return replace(request, sampling=replace(request.sampling, options=options))

    return apply


def _guidance(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    guidance = replace(request.sampling.guidance, min_sigma=value)
    return replace(request, sampling=replace(request.sampling, guidance=guidance))


def _second(name: str) -> Apply:
    """A field of the second pass, which the request must have."""

    def apply(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
        if request.second_pass is None:
            raise RequestError("An axis varies the second pass (hires fix), which is switched off.")
        return replace(request, second_pass=replace(request.second_pass, **{name: value}))

    return apply


def _start(name: str) -> Apply:
    def apply(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
        if request.start is None:
            return request
        return replace(request, start=replace(request.start, **{name: value}))

    return apply


def _denoising(request: GenerationRequest, value: Any, values: Values) -> GenerationRequest:
    if request.start is not None:
        return _start("denoising_strength")(request, value, values)
    return _second("denoising_strength")(request, value, values)


def _sampler(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    return replace(request, sampling=replace(request.sampling, sampler=value, eta=None))


def _seed(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    return replace(request, seed=value)


def _searched(request: GenerationRequest, value: Any, values: Values) -> GenerationRequest:
    """The first value, replaced by another in both prompts."""
    first = values[0]
    if first not in request.prompt + request.negative_prompt:
        raise RequestError(f"Prompt S/R did not find {shown(first)} in prompt or negative prompt.")
    return replace(
        request,
        prompt=request.prompt.replace(first, value),
        negative_prompt=request.negative_prompt.replace(first, value),
    )


def _ordered(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    """The words of the prompt in another order, what stands between them staying in its place."""
    places = sorted((request.prompt.find(word), word) for word in value)
    rest, made = request.prompt, ""
    for (__, word), other in zip(places, value, strict=True):
        if word not in rest:
            raise RequestError(f"Prompt order did not find {shown(word)} in the prompt, apart from the other words.")
        before, rest = rest.split(word, maxsplit=1)
        made += before + other
    return replace(request, prompt=made + rest)


def _styles(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    return replace(request, styles=(*request.styles, *(name.strip() for name in value.split(","))))


def _face(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    if value.lower() in ("none", "false", "no", ""):
        return replace(request, face_restoration=None)
    weight = request.face_restoration.weight if request.face_restoration else 0.5
    return replace(request, face_restoration=FaceRestoration(model=value, weight=weight))


def _refiner(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    if value.lower() in ("none", ""):
        return replace(request, refiner=None)
    known = request.refiner or Refiner(checkpoint=value)
    return replace(request, refiner=replace(known, checkpoint=value))


def _switch(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    if request.refiner is None:
        raise RequestError("An axis varies where the refiner takes over, and there is no refiner.")
    return replace(request, refiner=replace(request.refiner, switch_at=value))


def _source(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    if value not in tuple(RandomSource):
        raise unknown_name("RNG source", value, tuple(RandomSource))
    return replace(request, noise=replace(request.noise, source=RandomSource(value)))


def _size(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
    found = re.fullmatch(r"(\d{1,5})\s*[x×]\s*(\d{1,5})", value)
    if not found:
        raise RequestError(f"The value {shown(value)} is no size such as 512x768.")
    return replace(request, size=Size(width=int(found[1]), height=int(found[2])))


def _missing(name: str) -> Apply:
    def apply(request: GenerationRequest, value: Any, _: Values) -> GenerationRequest:
        raise RequestError(f'The axis "{name}" has no meaning here; choose another one.')

    return apply


TRUTH = ("True", "False")
AXES = (
    Axis(name=NOTHING, read=texts, apply=lambda request, _, __: request, bare=True),
    Axis(name="Seed", read=whole_numbers, apply=_seed),
    Axis(name="Var. seed", read=whole_numbers, apply=_part("noise", "variation_seed")),
    Axis(name="Var. strength", read=numbers, apply=_part("noise", "variation_strength")),
    Axis(name="Steps", read=whole_numbers, apply=_part("sampling", "steps")),
    Axis(name="Hires steps", read=whole_numbers, apply=_second("steps"), image2image=False),
    Axis(name="CFG Scale", read=numbers, apply=_part("sampling", "cfg_scale")),
    Axis(name="Image CFG Scale", read=numbers, apply=_missing("Image CFG Scale"), text2image=False),
    Axis(name="Prompt S/R", read=texts, apply=_searched, bare=True),
    Axis(name="Prompt order", read=orders, apply=_ordered, bare=True),
    Axis(name="Sampler", read=texts, apply=_sampler, bare=True),
    Axis(name="Hires sampler", read=texts, apply=_second("sampler"), image2image=False),
    Axis(name="Checkpoint name", read=texts, apply=_top("checkpoint"), cost=1.0, bare=True),
    Axis(name="Negative Guidance minimum sigma", read=numbers, apply=_guidance),
    Axis(name="Sigma Churn", read=numbers, apply=_deeper("s_churn")),
    Axis(name="Sigma min", read=numbers, apply=_deeper("s_tmin")),
    Axis(name="Sigma max", read=numbers, apply=_deeper("s_tmax")),
    Axis(name="Sigma noise", read=numbers, apply=_deeper("s_noise")),
    Axis(name="Schedule type", read=texts, apply=_part("sampling", "schedule")),
    Axis(name="Schedule min sigma", read=numbers, apply=_deeper("sigma_min")),
    Axis(name="Schedule max sigma", read=numbers, apply=_deeper("sigma_max")),
    Axis(name="Schedule rho", read=numbers, apply=_deeper("rho")),
    Axis(name="Beta schedule alpha", read=numbers, apply=_deeper("beta_alpha")),
    Axis(name="Beta schedule beta", read=numbers, apply=_deeper("beta_beta")),
    Axis(name="Eta", read=numbers, apply=_part("sampling", "eta")),
    Axis(name="Clip skip", read=whole_numbers, apply=_top("clip_skip")),
    Axis(name="Denoising", read=numbers, apply=_denoising),
    Axis(name="Initial noise multiplier", read=numbers, apply=_start("noise_multiplier")),
    Axis(name="Extra noise", read=numbers, apply=_part("noise", "extra")),
    Axis(name="Hires upscaler", read=texts, apply=_second("upscaler"), image2image=False),
    Axis(name="Cond. Image Mask Weight", read=numbers, apply=_missing("Cond. Image Mask Weight"), text2image=False),
    Axis(name="VAE", read=texts, apply=_top("vae"), cost=0.7),
    Axis(name="Styles", read=texts, apply=_styles),
    Axis(name="UniPC Order", read=whole_numbers, apply=_deeper("unipc_order"), cost=0.5),
    Axis(name="Face restore", read=texts, apply=_face),
    Axis(name="Token merging ratio", read=numbers, apply=_part("token_merging", "ratio")),
    Axis(name="Token merging ratio high-res", read=numbers, apply=_part("token_merging", "second_pass")),
    Axis(name="Always discard next-to-last sigma", read=flags, apply=_deeper("discard_penultimate"), choices=TRUTH),
    Axis(name="SGM noise multiplier", read=flags, apply=_deeper("full_noise"), choices=TRUTH),
    Axis(name="Refiner checkpoint", read=texts, apply=_refiner, bare=True),
    Axis(name="Refiner switch at", read=numbers, apply=_switch),
    Axis(name="RNG source", read=texts, apply=_source, choices=tuple(RandomSource)),
    Axis(name="FP8 mode", read=texts, apply=_missing("FP8 mode"), cost=0.9),
    Axis(name="Size", read=texts, apply=_size),
)
SEED_AXES = ("Seed", "Var. seed")
WRITTEN = "with commas between; numbers also as 1-5, 1-5 (+2) or 1-10 [5]"


def offered(img2img: bool) -> tuple[Axis, ...]:
    """The axes in the order in which clients number them."""
    return tuple(axis for axis in AXES if (axis.image2image if img2img else axis.text2image))


def axis_names(img2img: bool) -> list[str]:
    """Their names."""
    return [axis.name for axis in offered(img2img)]


def find_axis(name: str) -> Axis:
    """The axis of this name.  Raises RequestError."""
    found = next((axis for axis in AXES if axis.name.casefold() == name.strip().casefold()), None)
    if found is None:
        raise unknown_name("axis", name, (axis.name for axis in AXES))
    return found


@dataclass(frozen=True, kw_only=True)
class Options:
    """Three axes by name with their values, written as one line with commas; ``margin`` in pixels.

    ``keep_random`` leaves -1 among seeds random for every picture (each -1 is otherwise one seed for its row).
    ``pictures`` sends API clients the pictures beside the sheet; the page shows them always.
    """

    x_axis: str = option(NOTHING, "X type", choices=axis_names)
    x_values: str = option("", "X values", hint=WRITTEN, beside=True)
    y_axis: str = option(NOTHING, "Y type", choices=axis_names)
    y_values: str = option("", "Y values", hint=WRITTEN, beside=True)
    z_axis: str = option(NOTHING, "Z type", choices=axis_names)
    z_values: str = option("", "Z values", hint=WRITTEN, beside=True)
    legend: bool = option(True, "Draw legend")
    pictures: bool = option(False, "Include Sub Images", shown=False)
    sub_sheets: bool = option(False, "Include Sub Grids")
    keep_random: bool = option(False, "Keep -1 for seeds")
    vary_x: bool = option(False, "Vary seeds for X")
    vary_y: bool = option(False, "Vary seeds for Y")
    vary_z: bool = option(False, "Vary seeds for Z")
    margin: int = option(0, "Grid margins (px)", low=0, high=500, step=2)

    def __post_init__(self) -> None:
        for name in ("x_axis", "y_axis", "z_axis", "x_values", "y_values", "z_values"):
            check_text(f"X/Y/Z plot's {name}", getattr(self, name))
        for name in ("legend", "pictures", "sub_sheets", "keep_random", "vary_x", "vary_y", "vary_z"):
            check_flag(f"X/Y/Z plot's {name}", getattr(self, name))
        check_whole("Grid margins", self.margin, 0, 500)


@dataclass(frozen=True)
class Chosen:
    """An axis with its values as written and as read."""

    axis: Axis
    written: str
    values: Values

    def label(self, value: Any) -> str:
        """A value as the sheet shows it."""
        if self.axis.name == NOTHING:
            return ""
        if isinstance(value, tuple):
            value = ", ".join(value)
        if isinstance(value, float):
            value = round(value, 8)
        if self.axis.name in ("Checkpoint name", "Refiner checkpoint"):
            value = re.split(r"[/\\]", value)[-1]
        return str(value) if self.axis.bare else f"{self.axis.name}: {value}"


def expand(request: GenerationRequest, options: Options) -> Expansion:
    """One request for every combination; x counts fastest, then y, then z."""
    x, y, z = (_chosen(request, options, letter) for letter in "xyz")
    combinations = list(itertools.product(enumerate(z.values), enumerate(y.values), enumerate(x.values)))
    if len(combinations) > MAX_VALUES * 5:
        raise RequestError(f"An X/Y/Z plot of {len(combinations)} pictures is too large.")
    requests = tuple(_request(request, options, (x, y, z), combination) for combination in combinations)
    costs = (z.axis.cost, y.axis.cost, x.axis.cost)
    dearest = sorted(range(3), key=lambda axis: -costs[axis])
    order = sorted(range(len(requests)), key=lambda place: [combinations[place][axis][0] for axis in dearest])
    pages = tuple(_page((x, y, z), options, depth) for depth in range(len(z.values)))
    pairs = _pairs((("X", x), ("Y", y), ("Z", z)), options)
    sheets = [Sheet(pages=pages, margin=options.margin, pairs=pairs)]
    if options.sub_sheets and len(pages) > 1:
        sheets += [Sheet(pages=(page,), margin=options.margin, pairs=pairs) for page in pages]
    return Expansion(requests=requests, sheets=tuple(sheets), order=tuple(order), with_pictures=options.pictures)


def _words(written: str) -> list[str]:
    """The values of a line: between commas, quoted where they hold one."""
    try:
        (row,) = csv.reader([" ".join(written.split())], skipinitialspace=True)
    except (csv.Error, ValueError) as error:
        raise RequestError(f"The values {shown(written)} cannot be read: {error or 'there are none'}.") from error
    return [word.strip() for word in row if word.strip()]


def _chosen(request: GenerationRequest, options: Options, letter: str) -> Chosen:
    axis = find_axis(getattr(options, f"{letter}_axis"))
    if axis.name == NOTHING:
        return Chosen(axis, "", ("",))
    written = getattr(options, f"{letter}_values")
    values = axis.read(_words(written))
    _few(len(values))
    if axis.name in SEED_AXES and not options.keep_random:
        values = tuple(drawn_seed(request, (letter, place)) if v < 0 else v for place, v in enumerate(values))
    return Chosen(axis, written, values)


Combination = tuple[tuple[int, Any], tuple[int, Any], tuple[int, Any]]


def _request(
    request: GenerationRequest, options: Options, axes: tuple[Chosen, Chosen, Chosen], combination: Combination
) -> GenerationRequest:
    (depth, z_value), (row, y_value), (column, x_value) = combination
    drawn = request.script is not None and request.script.drawn
    request = replace(request, script=None)
    x, y, z = axes
    for axis, value in ((x, x_value), (y, y_value), (z, z_value)):
        if axis.axis.name in SEED_AXES and value < 0:
            value = drawn_seed(request, (depth, row, column))
        request = axis.axis.apply(request, value, axis.values)
    wide = len(x.values) if options.vary_x else 1
    high = len(y.values) if options.vary_y else 1
    shift = column * options.vary_x + row * wide * options.vary_y + depth * wide * high * options.vary_z
    if options.keep_random and drawn:
        request = replace(request, seed=drawn_seed(request, (depth, row, column)))
    assert request.seed is not None
    return replace(request, seed=(request.seed + shift) % (MAX_SEED - 1000))


def _page(axes: tuple[Chosen, Chosen, Chosen], options: Options, depth: int) -> Page:
    x, y, z = axes
    each = len(x.values) * len(y.values)
    labelled = options.legend
    return Page(
        cells=tuple(range(depth * each, (depth + 1) * each)),
        columns=len(x.values),
        top=tuple((Label(x.label(value)),) for value in x.values) if labelled else (),
        left=tuple((Label(y.label(value)),) for value in y.values) if labelled else (),
        title=z.label(z.values[depth]) if labelled else "",
    )


def _pairs(axes: Sequence[tuple[str, Chosen]], options: Options) -> dict[str, str]:
    """What the sheet's text says about it, by upstream's keys."""
    pairs = {"Script": "X/Y/Z plot"}
    for letter, chosen in axes:
        if chosen.axis.name == NOTHING:
            continue
        pairs |= {f"{letter} Type": chosen.axis.name, f"{letter} Values": chosen.written}
        if chosen.axis.name in SEED_AXES and not options.keep_random:
            pairs[f"Fixed {letter} Values"] = ", ".join(map(str, chosen.values))
    return pairs


def arguments(img2img: bool) -> Sequence[Argument]:
    """The positional arguments: an axis is named by its number, or in words."""
    names = axis_names(img2img)
    rows = []
    for letter, first in (("X", "Seed"), ("Y", NOTHING), ("Z", NOTHING)):
        rows += [
            Argument(label=f"{letter} type", value=first, choices=names),
            Argument(label=f"{letter} values", value=""),
            Argument(label=f"{letter} values", choices=()),
        ]
    flags_ = (
        *(("Draw legend", True), ("Include Sub Images", False), ("Include Sub Grids", False)),
        *(("Keep -1 for seeds", False), ("Vary seeds for X", False), ("Vary seeds for Y", False)),
        ("Vary seeds for Z", False),
    )
    rows += [Argument(label=label, value=value) for label, value in flags_]
    rows.append(Argument(label="Grid margins (px)", value=0, minimum=0, maximum=500, step=2))
    return (*rows, Argument(label="Use text inputs instead of dropdowns", value=False))


def options_from(given: Sequence[Any], img2img: bool) -> Mapping[str, Any]:
    """The options that positional arguments mean."""
    values = padded(given, arguments(img2img))
    named: dict[str, Any] = {}
    for place, letter in enumerate("xyz"):
        axis, written, picked = values[3 * place : 3 * place + 3]
        named[f"{letter}_axis"] = _named_axis(axis, img2img)
        if picked:
            written = ",".join(f'"{word}"' if "," in str(word) else str(word) for word in picked)
        named[f"{letter}_values"] = str(written)
    flags_ = ("legend", "pictures", "sub_sheets", "keep_random", "vary_x", "vary_y", "vary_z", "margin")
    return {**named, **dict(zip(flags_, values[9:17], strict=True))}


def _named_axis(axis: Any, img2img: bool) -> str:
    names = axis_names(img2img)
    if isinstance(axis, int) and not isinstance(axis, bool):
        if not 0 <= axis < len(names):
            raise RequestError(f"There is no axis number {axis}; they are from 0 to {len(names) - 1}.")
        return names[axis]
    return str(axis)


SCRIPT = Script(name="X/Y/Z plot", options=Options, expand=expand, arguments=arguments, options_from=options_from)
