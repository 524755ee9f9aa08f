"""Computes a request with a script: the requests it becomes, one after the other, then the sheets of their pictures.

One job: its pictures are numbered through, sheets have the numbers -1, -2, …; a restart goes on where it was.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from webui.engine.executor import Control, Report, Tell
from webui.engine.jobs import Output
from webui.engine.outputs import OutputFolder
from webui.engine.picture_tools import PictureTools
from webui.images.pixels import picture_size, read_pixels
from webui.images.sheet import labelled, side_by_side
from webui.metadata.files import encode_picture, read_picture_texts
from webui.metadata.infotext import quote
from webui.request import GenerationRequest, StartImage
from webui.result import MadePicture, Pixels
from webui.scripts import Begun, Expansion, Page, Sheet, expanded
from webui.upscalers import NONE, upscaled_by

if TYPE_CHECKING:
    from webui.engine.runner import Runner

Save = Callable[[bytes, MadePicture, str], Path]
VERSION_PAIR = re.compile(r", Version: [^\n]*$")


@dataclass
class ScriptRun:
    """One job, by a runner.  ``made`` are the pictures so far by number: path and text."""

    runner: Runner
    tell: Tell
    control: Control
    request: GenerationRequest
    made: dict[int, tuple[Path, str]] = field(default_factory=dict)
    steps_before: int = 0

    def run(self, done: Mapping[int, str], save: Save | None, suffix: str) -> Iterator[Path]:
        """Make what is not ``done`` (paths by number); yields the path of each new file."""
        self.tell(Report("request", self.request.to_dict()))
        expansion = self._started(expanded(self.request, self.runner.plugins.scripts.values(), self._measured))
        for number, path in done.items():
            self._remember(number, self.runner.settings.outputs_dir / path)
        for place in expansion.order or range(len(expansion.requests)):
            if self.control.interrupted.is_set():
                return
            yield from self._one(expansion, place, save, suffix)
        if self.control.interrupted.is_set():
            return
        for number, sheet in enumerate(expansion.sheets, 1):
            if -number not in self.made:
                yield from self._sheet(expansion, sheet, -number, save, suffix)

    def _measured(self, digest: str) -> tuple[int, int]:
        return picture_size(self.runner.inputs.get(digest))

    def _started(self, expansion: Expansion) -> Expansion:
        """The expansion with its requests started from the tiles of the enlarged start image, where it asks for them.

        Each tile is stored like any start image, so that its picture can be made again from its recipe.
        """
        start, enlarged, runner = self.request.start, expansion.start, self.runner
        if start is None or enlarged is None:
            return expansion
        pixels = read_pixels(runner.inputs.get(start.image), background=start.background)
        tools = PictureTools(runner.plugins, runner.library, runner.networks, runner.settings.models_dir)
        upscaler = tools.upscaler(enlarged.upscaler)
        if upscaler.name != NONE:
            pixels = upscaled_by(pixels, enlarged.scale, upscaler)
        tiles = [runner.inputs.put(encode_picture(tile, ".png", {})) for tile in enlarged.tiles.cut(pixels)]
        requests = tuple(
            replace(request, start=replace(request.start or start, image=tiles[place % len(tiles)]))
            for place, request in enumerate(expansion.requests)
        )
        return replace(expansion, requests=requests)

    def _remember(self, number: int, path: Path) -> None:
        if path.is_file():
            self.made[number] = (path, "")

    def _one(self, expansion: Expansion, place: int, save: Save | None, suffix: str) -> Iterator[Path]:
        """The pictures of one request; numbers and progress are those of the whole job."""
        request, first = expansion.requests[place], expansion.first_index(place)
        done = [number - first for number in self.made if first <= number < first + request.pictures]
        if len(done) == request.pictures:
            return
        if place in expansion.follows:
            number = expansion.first_index(expansion.follows[place])
            if request.start is None or number not in self.made or not self.made[number][0].is_file():
                return  # the picture that it would begin with was skipped, or is gone
            digest = self.runner.inputs.put(self.made[number][0].read_bytes())
            request = replace(request, start=replace(request.start, image=digest))
        if place in expansion.prepared and request.start is not None:
            request = replace(request, start=self._prepared(request.start, expansion.prepared[place]))
        steps = 0

        def tell(report: Report) -> None:
            nonlocal steps
            if report.kind == "request":
                return
            data = dict(report.data)
            if report.kind == "picture":
                data["index"] += first
            elif report.kind in ("progress", "preview"):
                steps = data["steps"]
                data = self._progress(data, expansion, request)
            if report.kind == "picture":
                path = Path(data["path"])
                outputs = self.runner.settings.outputs_dir
                self.made[data["index"]] = (path if path.is_absolute() else outputs / path, data["infotext"])
            self.tell(replace(report, data=data))

        yield from self.runner.generate(
            request, tell, self.control, done=done, save=save, suffix=suffix, is_scripts=True
        )
        self.steps_before += steps

    def _prepared(self, start: StartImage, prepare: Callable[[Pixels], Begun]) -> StartImage:
        """The start with the picture and masks that are made of its picture, all of them stored."""
        inputs = self.runner.inputs
        begun = prepare(read_pixels(inputs.get(start.image), background=start.background))
        mask = start.mask
        if mask is not None and begun.mask is not None:
            mask = replace(mask, image=inputs.put(_stored(begun.mask)))
        if mask is not None and begun.latent is not None:
            mask = replace(mask, latent=inputs.put(_stored(begun.latent)))
        return replace(start, image=inputs.put(_stored(begun.image)), mask=mask)

    def _progress(self, data: dict[str, Any], expansion: Expansion, request: GenerationRequest) -> dict[str, Any]:
        """A request's progress as that of the job: its steps count as those of all that are left, on the average."""
        pictures = max(data["pictures"], 1)
        data["steps"] = max(self.steps_before + data["steps"] // pictures * expansion.pictures, data["steps"])
        data["step"] = min(self.steps_before + data["step"], data["steps"])
        number = sum(made >= 0 for made in self.made)
        data |= {"picture": min(number + 1, expansion.pictures), "pictures": expansion.pictures, "eta_s": None}
        return data

    def _sheet(self, expansion: Expansion, sheet: Sheet, number: int, save: Save | None, suffix: str) -> Iterator[Path]:
        pages = [self._page(expansion, page, sheet.margin) for page in sheet.pages]
        known = [page for page in pages if page is not None]
        if not known:
            return
        pixels = self._rewritten(side_by_side(known, sheet.margin))
        text = self._text(expansion, sheet)
        data = encode_picture(pixels, suffix, {"parameters": text})
        assert self.request.seed is not None
        kind = "img2img" if self.request.start else "txt2img"
        picture = MadePicture(pixels=pixels, index=number, seed=self.request.seed)
        path = save(data, picture, kind) if save else self._saved(data, kind, suffix)
        outputs = self.runner.settings.outputs_dir
        relative = path.relative_to(outputs).as_posix() if path.is_relative_to(outputs) else str(path)
        output = Output(
            id=uuid.uuid4().hex,
            path=relative,
            index=number,
            seed=self.request.seed,
            width=pixels.shape[1],
            height=pixels.shape[0],
            infotext=text,
        )
        self.tell(Report("picture", asdict(output)))
        yield path

    def _rewritten(self, pixels: Pixels) -> Pixels:
        pixels.setflags(write=False)
        rewritten: Pixels = self.runner.plugins.rewrite("rewrite_grid", "pixels", pixels, request=self.request)
        return rewritten

    def _saved(self, data: bytes, kind: str, suffix: str) -> Path:
        assert self.request.seed is not None
        folder = OutputFolder(self.runner.settings.outputs_dir)
        return folder.save_sheet(data, kind=kind, seed=self.request.seed, suffix=suffix)

    def _page(self, expansion: Expansion, page: Page, margin: int) -> Pixels | None:
        """A page's pictures; one that was skipped is grey, and a page without any is left out."""
        found = [self._pixels(expansion.first_index(cell)) for cell in page.cells]
        known = [pixels for pixels in found if pixels is not None]
        if not known:
            return None
        blank: Pixels = np.full_like(known[0], 128)
        pictures = [blank if pixels is None else pixels for pixels in found]
        if page.tiles is not None:
            return page.tiles.join(pictures)
        top = [[(label.text, label.on) for label in labels] for labels in page.top]
        left = [[(label.text, label.on) for label in labels] for labels in page.left]
        return labelled(pictures, page.columns, top, left, page.title, margin)

    def _pixels(self, number: int) -> Pixels | None:
        if number not in self.made or not self.made[number][0].is_file():
            return None
        return read_pixels(self.made[number][0].read_bytes())

    def _text(self, expansion: Expansion, sheet: Sheet) -> str:
        cells = [expansion.first_index(cell) for page in sheet.pages for cell in page.cells]
        texts = [self._infotext(number) for number in cells if number in self.made]
        if sheet.all_texts:
            return "\n".join(texts)
        return with_pairs(texts[0], sheet.pairs) if texts else ""

    def _infotext(self, number: int) -> str:
        path, text = self.made[number]
        if not text and path.is_file():
            text = read_picture_texts(path.read_bytes()).get("parameters", "")
        return text


def _stored(pixels: Pixels) -> bytes:
    """A picture (H, W, 3) or a mask (H, W) as it is stored."""
    return encode_picture(pixels, ".png", {})


def with_pairs(text: str, pairs: Mapping[str, str]) -> str:
    """A picture's text with more pairs before its version."""
    if not pairs:
        return text
    more = "".join(f", {key}: {quote(value)}" for key, value in pairs.items())
    found = VERSION_PAIR.search(text)
    return text[: found.start()] + more + found[0] if found else text + more
