"""Batch: img2img of many pictures with the same settings, each with a mask where there are masks.

As in AUTOMATIC1111 1.10 (``modules/img2img.py``, ``process_batch``) a seed that was given is that of every picture, so
that the frames of a film stay alike; one left to chance is another for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from webui.errors import RequestError
from webui.records import check_digest, shown
from webui.request import GenerationRequest, Mask, Size
from webui.scripts import Expansion, Script, drawn_seed


@dataclass(frozen=True, kw_only=True)
class Options:
    """``pictures`` are SHA-256 digests of stored pictures, ``masks`` those of their masks, one each, or none.

    ``sizes`` are (width, height) of each result; without them all have the size of the request.
    """

    pictures: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("pictures", "masks", "sizes"):
            given = getattr(self, name)
            if not isinstance(given, list | tuple):
                raise RequestError(f"The {name} of a batch are {shown(given)}; they must be a list.")
            object.__setattr__(self, name, tuple(given))
        for digest in (*self.pictures, *self.masks):
            check_digest("A picture of the batch", digest)
        if not self.pictures:
            raise RequestError("The batch has no pictures; choose some.")
        for name, count in (("masks", len(self.masks)), ("sizes", len(self.sizes))):
            if count not in (0, len(self.pictures)):
                raise RequestError(
                    f"The batch has {len(self.pictures)} pictures and {count} {name}; give one for each."
                )


def expand(request: GenerationRequest, options: Options, size: tuple[int, int]) -> Expansion:
    """A request for each picture, in their order."""
    if request.start is None:
        raise RequestError("A batch begins with pictures; it belongs to img2img.")
    requests = []
    for place, picture in enumerate(options.pictures):
        start = replace(request.start, image=picture)
        if options.masks:
            start = replace(start, mask=replace(start.mask or Mask(image=""), image=options.masks[place]))
        one = replace(request, script=None, start=start)
        if options.sizes:
            one = replace(one, size=_size(options.sizes[place]))
        if request.script is not None and request.script.drawn:
            one = replace(one, seed=drawn_seed(request, place))
        requests.append(one)
    return Expansion(requests=tuple(requests))


def _size(given: object) -> Size:
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise RequestError(f"A size of the batch is {shown(given)}; it must be a width and a height.")
    width, height = given
    return Size(width=width, height=height)


SCRIPT = Script(name="Batch", options=Options, expand=expand, from_start=True, listed=False)
