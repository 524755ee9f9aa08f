"""prompt and pictures -> what the UNet reads.  A drop-in folder: a module fills typed openings, it never patches.

``option`` and ``Kind``, for a module's options record, are those of ``webui.option_boxes``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from webui.checkpoints.formats import BUILT_IN, Formats
from webui.option_boxes import Kind as Kind
from webui.option_boxes import option as option

if TYPE_CHECKING:
    from webui.checkpoints.library import ModelEntry
    from webui.conditioning.text import Timed
    from webui.diffusion.guidance import Guide, NetworkCall
    from webui.images.masks import MaskPixels
    from webui.model import Model
    from webui.networks.unet import Openings
    from webui.preprocessors import Preprocessor
    from webui.request import GenerationRequest
    from webui.result import Pixels


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What is known when a model begins to walk through noise levels, told to a contribution's ``begin``.

    Row j of all that follows is picture ``indices[j]`` of the job; ``sigmas`` are the planned noise levels, of which
    ``from_sigma`` is the one the model begins at (a refiner takes over on the way).  ``cond`` is what each of the
    prompts joined by AND says over the pass, with its weight, ``uncond`` what the negative prompt says.
    """

    indices: tuple[int, ...]
    sigmas: tuple[float, ...]
    from_sigma: float
    cond: tuple[tuple[Timed, float], ...]
    uncond: Timed


class Encode(Protocol):
    """A prompt without tags and comments, as it is over a pass."""

    def __call__(self, text: str) -> Timed:
        """Its contexts, call by call."""
        ...


@dataclass(frozen=True)
class Contribution:
    """What a module adds to the UNet calls whose noise level lies in ``sigma_range`` (low, high), both included.

    ``openings`` are the same in every such call, or a function of the call, asked once for each: a ControlNet answers
    what is in ``call.x``, and ``call.conditional`` tells which rows have the prompt.  ``guide`` changes the clean
    latent that is made of the answers with and without the prompt.  ``begin`` is told of each walk before its first
    call, on the thread that computes.  ``problems`` are sentences for the user about what had no effect.
    """

    openings: Openings | Callable[[NetworkCall], Openings]
    sigma_range: tuple[float, float] = (0.0, float("inf"))
    guide: Guide | None = None
    begin: Callable[[Walk], None] | None = None
    problems: tuple[str, ...] = ()

    def holds(self, sigma: float) -> bool:
        """Whether it has a say at this noise level."""
        low, high = self.sigma_range
        return low <= sigma <= high

    def openings_for(self, call: NetworkCall) -> Openings:
        """What it fills in this call."""
        return self.openings(call) if callable(self.openings) else self.openings


@dataclass(frozen=True)
class Pictures:
    """The pictures, files and prompts a module may ask for; pictures are (H, W, 3) uint8.

    ``load(sha256)`` reads a stored input picture; ``preprocess(name, pixels, options)`` is the control picture that the
    registered preprocessor of that name makes; ``model_file(kind, name)`` is where the model file of that kind lies.
    What is read is recorded in the picture.  All raise an error for people when there is none.  ``mask(sha256)`` reads
    a stored picture as a mask (H, W), ``preprocessor(name)`` is the registered preprocessor itself, and
    ``model_entries(kind)`` are the model files there are to choose from.  ``encode(text)`` is a prompt over the pass,
    read as the request's own is, with its embeddings, weights and editing; its context for a call is
    ``.at(call.number)``, (1, tokens, width).  ``second_pass`` tells whether this is the second of two passes; in the
    first one the request says that there is another.  ``scratch`` is a folder, made by whoever needs it, that is the
    module's own for this job (``modules/<module>/<job>`` in the state folder, where the server process finds it too);
    None where there is no job.  ``formats.open(path)`` reads a model file, whichever form it has.
    """

    load: Callable[[str], Pixels]
    preprocess: Callable[[str, Pixels, Mapping[str, Any]], Pixels]
    model_file: Callable[[str, str], Path]
    encode: Encode
    mask: Callable[[str], MaskPixels]
    preprocessor: Callable[[str], Preprocessor]
    model_entries: Callable[[str], Sequence[ModelEntry]]
    second_pass: bool = False
    scratch: Path | None = None
    formats: Formats = BUILT_IN


Place = tuple[float, float, float, float]
"""A rectangle (left, top, right, bottom) in shares of the picture's width and height, from 0 at its top left corner."""
_COLOUR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True, kw_only=True)
class Paint:
    """One colour of a picture that is painted on the page.

    ``colour`` is what stands in the picture, "#rrggbb" in small letters; the page shows it as ``shown`` where that is
    not empty.  ``name`` is what people call it, ``text`` what it stands for, and ``places`` where that holds while
    nothing is painted.  Raises ValueError for what is no colour or no place.
    """

    colour: str
    name: str
    text: str = ""
    shown: str = ""
    places: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        for one in filter(None, (self.colour, self.shown)):
            if not _COLOUR.fullmatch(one):
                raise ValueError(f'the colour "{one}" is not written as #rrggbb in small letters')
        for left, top, right, bottom in self.places:
            if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
                raise ValueError(f"the place {(left, top, right, bottom)} lies outside of the picture")


@dataclass(frozen=True, kw_only=True)
class Palette:
    """What a PAINT option can be painted with.

    ``rest`` is what holds where nothing is painted; ``problem`` says in one sentence why the paints have no places.
    """

    paints: tuple[Paint, ...]
    rest: str = ""
    problem: str = ""


class ConditioningModule(Protocol):
    """A conditioning module as it is registered.  ``options`` is its frozen options record (a dataclass).

    From the record, whose fields get their words from ``option``, are made: the module's panel on
    txt2img and img2img, its JSON schema (``GET /api/v1/modules``), the flags of ``webui generate``
    (``--<name>-<option>``) and its pairs in a picture's text.  A request's options are checked against it before the
    job is queued, and ``prepare`` gets an instance.  What else a module may have, all of it optional:

    - ``label``: what people read, ``name`` else; ``order``: its place on the page, from small to large (100).
    - ``units``: how often one request may use it at once, from 1 (the default) to 16.
    - ``write_infotext(options, number) -> {key: value}``: the pairs of a picture's text for the use ``number`` (from
      0), and ``read_infotext(fields) -> [options, ...]``, its inverse: a list of plain options by name.  ``fields`` is
      a dict of the pairs that mean nothing to the program; take out (``pop``) those that are understood, since what is
      left is shown as not understood.  Without these two the text is ``Name: "Key: value, ..."`` with what is not the
      default, ``Name 2`` from the second use on.
    - ``always_on(args) -> [options, ...]``: the uses that ``alwayson_scripts[name]["args"]`` of ``/sdapi/v1`` mean;
      without it each argument is an object with options by name.  Pictures may be in base64 there.
    - ``preview(options, pictures) -> pixels``: the control picture that the page's Preview shows; without it the
      record's preprocessor is run on its picture.  Server process: no torch.
    - ``palette(options, request) -> Palette``: the colours of its PAINT option, which goes with it; the request has the
      prompts, without comments and tags, and the size as they are on the page.  Asked while a person types, in the
      server process: no torch.  Raises RequestError when the prompts mean nothing to the module.
    - ``observes``: True is the promise that it changes no pixel: its use is left out of the picture's recipe and
      text, so that the picture reproduces without it.
    """

    name: str
    options: type

    def prepare(self, options: Any, model: Model, request: GenerationRequest, pictures: Pictures) -> Contribution:
        """The contribution for one job.  Pure: the model is bit-identical before and after."""
        ...
