"""One request -> several, and how their pictures are laid out: what a script registers (:class:`Script`) and returns.

The scripts themselves are an extension, ``extensions/scripts``.

A script is a pure function: what it makes of a request depends on nothing else, so that a job that was interrupted by a
restart is made into the same requests again.  It runs within one job, from page, API and command line alike
(``GenerationRequest.script``).  :func:`option`, which gives a script's options their words, is that of
``webui.option_boxes``; it can be imported from here as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from webui.diffusion.schedules import lookup
from webui.errors import RequestError
from webui.images.masks import MaskPixels
from webui.images.tiles import Tiles
from webui.option_boxes import Box as Box
from webui.option_boxes import Kind as Kind
from webui.option_boxes import boxes as boxes
from webui.option_boxes import option as option
from webui.request import RANDOM_SEED_RANGE, GenerationRequest
from webui.result import Pixels

MAX_PICTURES = 5000
"""So many pictures may one job make."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One of a script's positional arguments as AUTOMATIC1111's clients know it, for ``/sdapi/v1/script-info``."""

    label: str
    value: Any = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: Sequence[str] | None = None


@dataclass(frozen=True)
class Label:
    """A text beside a row or above a column; ``on`` False strikes it through."""

    text: str
    on: bool = True


@dataclass(frozen=True, kw_only=True)
class Page:
    """A table of pictures: ``cells`` are places in ``Expansion.requests``, row by row; the first picture of each.

    With ``tiles`` they are no table, but put together to the picture that these cover.
    """

    cells: tuple[int, ...]
    columns: int
    top: tuple[tuple[Label, ...], ...] = ()
    left: tuple[tuple[Label, ...], ...] = ()
    title: str = ""
    tiles: Tiles | None = None


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """An overview that the job ends with: pages side by side; ``pairs`` are added to the text of its first picture.

    ``margin`` is the space between pictures in pixels.  With ``all_texts`` the sheet carries the texts of all its
    pictures, one below the other.
    """

    pages: tuple[Page, ...]
    margin: int = 0
    pairs: Mapping[str, str] = field(default_factory=dict)
    all_texts: bool = False


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """The start image, ``scale`` times as large by an upscaler and cut into ``tiles``: what the requests start from.

    The request at place ``i`` starts from tile ``i``, counted from the beginning again when there are more requests.
    """

    upscaler: str
    scale: float
    tiles: Tiles


@dataclass(frozen=True, eq=False, kw_only=True)
class Begun:
    """What a request begins with: a picture (H, W, 3) uint8, and what of it is painted anew.

    ``mask`` and ``latent`` are (H, W) uint8, light where it is, and take the places of ``Mask.image`` and
    ``Mask.latent``; None leaves these as they are.
    """

    image: Pixels
    mask: MaskPixels | None = None
    latent: MaskPixels | None = None


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """What becomes of a request.  ``order`` (empty: as they stand) is that in which the requests are best computed.

    With a ``start`` the requests name the job's start image, and the tiles take its place when it is computed.
    ``follows`` holds, by place, the place of an earlier request whose first picture takes the start image's place.
    ``prepared`` holds, by place, a pure function of the picture that the request would begin with; what it gives back
    is stored as the request's start image and masks.  ``finished`` are the places whose pictures an API client is
    answered with (empty: all), the others being stages on the way; with ``with_pictures`` False it is answered with
    the sheets alone.
    """

    requests: tuple[GenerationRequest, ...]
    sheets: tuple[Sheet, ...] = ()
    order: tuple[int, ...] = ()
    start: Enlarged | None = None
    follows: Mapping[int, int] = field(default_factory=dict)
    prepared: Mapping[int, Callable[[Pixels], Begun]] = field(default_factory=dict)
    finished: tuple[int, ...] = ()
    with_pictures: bool = True

    @property
    def pictures(self) -> int:
        """How many pictures are made, sheets not counted."""
        return sum(request.pictures for request in self.requests)

    def first_index(self, place: int) -> int:
        """The number, over the whole job, of the first picture of the request at ``place``."""
        return sum(request.pictures for request in self.requests[:place])

    def is_sent(self, number: int) -> bool:
        """Whether an API client is answered with the picture of this number, over the whole job."""
        places = self.finished or range(len(self.requests))
        firsts = {place: self.first_index(place) for place in places}
        return any(first <= number < first + self.requests[place].pictures for place, first in firsts.items())


Size = tuple[int, int]
"""Width and height of a start image."""
Expand = Callable[[GenerationRequest, Any], Expansion]
ExpandStart = Callable[[GenerationRequest, Any, Size], Expansion]


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script as it is registered.

    ``options`` is a frozen dataclass of plain values, every field with a default (see :func:`option`); ``expand`` takes
    a request whose seed is set and an instance of it.  ``arguments`` and ``options_from`` serve clients that send
    positional lists; ``options_from`` also hears whether there is a start image.  A script ``from_start`` is for
    img2img alone; its ``expand`` also hears the size of the start image.  One that is not ``listed`` has a place of its
    own on the page and is left out of the Script list.
    """

    name: str
    options: type
    expand: Expand | ExpandStart
    from_start: bool = False
    listed: bool = True
    arguments: Callable[[bool], Sequence[Argument]] = lambda img2img: ()
    options_from: Callable[[Sequence[Any], bool], Mapping[str, Any]] = lambda given, img2img: {}


def find_script(name: str, scripts: Iterable[Script]) -> Script:
    """The script with this name, whatever its case; RequestError when there is none."""
    return lookup("script", name, (((script.name,), script) for script in scripts))


def expanded(request: GenerationRequest, scripts: Iterable[Script], measure: Callable[[str], Size]) -> Expansion:
    """What a request with a script and a seed becomes; ``measure`` tells the size of a stored picture.

    Raises RequestError for options that do not fit.
    """
    assert request.script is not None and request.seed is not None
    script = find_script(request.script.name, scripts)
    try:
        options = script.options(**request.script.options)
    except TypeError as error:
        raise RequestError(f"The options of {script.name} do not fit: {error}.") from error
    if not script.from_start:
        expansion = cast(Expand, script.expand)(request, options)
    elif request.start is None:
        raise RequestError(f"{script.name} begins with a picture; it belongs to img2img.")
    else:
        expansion = cast(ExpandStart, script.expand)(request, options, measure(request.start.image))
    if not 1 <= expansion.pictures <= MAX_PICTURES:
        raise RequestError(
            f"{script.name} would make {expansion.pictures} pictures; a job makes from 1 to {MAX_PICTURES}."
        )
    return expansion


def drawn_seed(request: GenerationRequest, place: object) -> int:
    """A seed for a place of an expansion that asks for a random one: always the same for the same request."""
    return random.Random(f"{request.seed} {place}").randrange(RANDOM_SEED_RANGE)


def padded(arguments: Sequence[Any], known: Sequence[Argument]) -> list[Any]:
    """Positional arguments with those that were left out, or null, as the page would have sent them."""
    if len(arguments) > len(known):
        raise RequestError(f"There are {len(arguments)} script arguments; at most {len(known)} are known.")
    given = [known[place].value if value is None else value for place, value in enumerate(arguments)]
    return [*given, *(one.value for one in known[len(given) :])]
