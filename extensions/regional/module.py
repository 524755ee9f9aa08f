"""The conditioning module: options -> texts, places, shares -> what enters the calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from webui.conditioning import Contribution, Paint, Palette, Pictures, Place
from webui.errors import RequestError
from webui.option_boxes import Kind, option
from webui.prompt.compose import parts
from webui.request import GenerationRequest
from webui.result import Pixels

from . import grid, infotext, painting, prompts, shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from webui.model import Model

    from .coupling import Side

ATTENTION, LATENT = "Attention", "Latent"
MAX_WEIGHT = 10.0
PREVIEW_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class Options:
    """The prompt itself holds the texts of the regions; see README.md."""

    mode: str = option(grid.COLUMNS, "Divide mode", choices=(grid.COLUMNS, grid.ROWS))
    ratios: str = option("", "Ratios", hint=f"{grid.EXAMPLE}; empty: divided evenly", beside=True)
    mask: str = option("", "Painted regions", kind=Kind.PAINT)
    separator: str = option(prompts.BREAK, "Regions are divided by", choices=(prompts.BREAK, prompts.LINES))
    method: str = option(ATTENTION, "Calculation", choices=(ATTENTION, LATENT), beside=True)
    use_common: bool = option(False, "Use common prompt")
    use_base: bool = option(False, "Use base prompt", beside=True)
    use_common_negative: bool = option(False, "Use common negative prompt", beside=True)
    base_ratio: str = option("0.2", "Base ratio", hint="0.2, or one for each region: 0.2,0.5")
    weights: str = option("1", "Region weights", hint="1, or one for each region: 1,0.5", beside=True)


class Regional:
    """Prompts for parts of the picture."""

    name = "Regional"
    label = "Regional prompts"
    order = 100
    options: type = Options

    def prepare(self, options: Options, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """The texts of both prompts, coupled.  Raises RequestError when texts and regions do not fit each other."""
        from .coupling import Coupling

        texts = _texts(options, request)
        places = self._places(options, texts, request, pictures)
        count = len(texts.regions)
        weights = shares.per_region(options.weights, "Region weights", count, MAX_WEIGHT)
        ratios = None if texts.base is None else shares.per_region(options.base_ratio, "Base ratio", count, 1.0)
        positive = _side(texts, shares.shares(places, weights, ratios), model, pictures)
        negative = prompts.split(
            request.negative_prompt,
            prompts.BREAK,
            common=options.use_common_negative,
            base=False,
            new_band=_new_band(options),
        )
        coupling = Coupling(positive, self._negative(negative, places, weights, model, pictures))
        if options.method == LATENT:
            return Contribution(coupling.latent, guide=coupling.mixed)
        return Contribution(coupling.attention)

    def write_infotext(self, options: Options, number: int) -> Mapping[str, str]:
        """The pairs that Regional Prompter writes."""
        return infotext.write(options)

    def read_infotext(self, fields: dict[str, str]) -> list[dict[str, Any]]:
        """What Regional Prompter, or this module, wrote."""
        return infotext.read(fields)

    def palette(self, options: Options, request: GenerationRequest) -> Palette:
        """A paint for each text of the prompt, with its place in the grid; what does not fit is its problem."""
        try:
            texts = _texts(options, request)
        except RequestError as error:
            return Palette(paints=(), problem=str(error))
        places: list[tuple[Place, ...]] = [()] * len(texts.regions)
        problem = ""
        try:
            bands = grid.bands_for(options.ratios, options.mode, len(texts.regions), texts.bands)
            places = [(place,) for place in grid.places(bands, options.mode)]
        except RequestError as error:
            problem = str(error)
        paints = (_paint(*one) for one in zip(range(len(places)), texts.own, places, strict=True))
        rest = f"as region 1, {painting.name(0)}" if texts.base is None else texts.base
        return Palette(paints=tuple(paints), rest=rest, problem=problem)

    def preview(self, options: Options, pictures: Pictures) -> Pixels:
        """The regions in their colours: what is painted, or the ratios' grid.  Raises RequestError without both."""
        if options.mask:
            pixels = pictures.load(options.mask)
            return np.where((painting.painted(pixels, 1) >= 0)[..., None], pixels, np.uint8(255))
        if not options.ratios.strip():
            raise RequestError(
                f"Regional: write Ratios such as {grid.EXAMPLE} to see the regions; while empty, the picture is "
                "divided evenly, into as many as the prompt has texts."
            )
        places = grid.masks(grid.parse(options.ratios, options.mode), options.mode, PREVIEW_SIDE, PREVIEW_SIDE)
        colours = np.array([painting.colour(region) for region in range(len(places))], np.float32)
        shown: Pixels = np.einsum("rhw,rc->hwc", places, colours).round().astype(np.uint8)
        return shown

    def _places(
        self, options: Options, texts: prompts.Texts, request: GenerationRequest, pictures: Pictures
    ) -> NDArray[np.float32]:
        """Where each text holds, (regions, height, width)."""
        size, count = request.size, len(texts.regions)
        if options.mask:
            return painting.masks(pictures.load(options.mask), count, size.width, size.height)
        bands = grid.bands_for(options.ratios, options.mode, count, texts.bands)
        return grid.masks(bands, options.mode, size.width, size.height)

    def _negative(
        self,
        texts: prompts.Texts,
        places: NDArray[np.float32],
        weights: NDArray[np.float64],
        model: Model,
        pictures: Pictures,
    ) -> Side | None:
        """The negative prompt's texts; None for one that holds everywhere."""
        count = len(texts.regions)
        if count == 1:
            return None
        if count != len(places):
            raise RequestError(
                f"Regional: the negative prompt has {count} texts and the prompt {len(places)}; write as many, or one "
                "for all regions (without BREAK)."
            )
        return _side(texts, shares.shares(places, weights, None), model, pictures)


def _texts(options: Options, request: GenerationRequest) -> prompts.Texts:
    """The texts of the prompt.  Raises RequestError for AND."""
    if len(parts(request.prompt)) > 1:
        raise RequestError("Regional: AND cannot be used together with regions; write BREAK between their texts.")
    return prompts.split(
        request.prompt,
        options.separator,
        common=options.use_common,
        base=options.use_base,
        new_band=_new_band(options),
    )


def _new_band(options: Options) -> str:
    """The word that begins another row, or column."""
    return prompts.ROW if options.mode == grid.COLUMNS else prompts.COLUMN


def _paint(region: int, text: str, places: tuple[Place, ...]) -> Paint:
    return Paint(
        colour=painting.written(painting.colour(region)),
        shown=painting.written(painting.shown(region)),
        name=painting.name(region),
        text=text,
        places=places,
    )


def _side(texts: prompts.Texts, parts: NDArray[np.float32], model: Model, pictures: Pictures) -> Side:
    """Texts with their shares (base and regions, height, width) over the latent."""
    import torch
    import torch.nn.functional as F

    from .coupling import Side

    factor = model.vae.config.factor
    height, width = parts.shape[1:]
    pooled = F.adaptive_avg_pool2d(torch.from_numpy(parts), (height // factor, width // factor))
    kept = [(texts.base, pooled[0]), *zip(texts.regions, pooled[1:], strict=True)]
    found = [(pictures.encode(text), share) for text, share in kept if text is not None and bool((share > 0).any())]
    return Side(tuple(text for text, _ in found), torch.stack([share for _, share in found]).to(model.compute.device))
