"""The start picture of img2img: the tabs img2img, Sketch, Inpaint, Inpaint sketch and Batch above its settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from webui.engine.engine import Engine
from webui.errors import NotFoundError, PictureError, RequestError, WebUIError
from webui.images.pixels import picture_size
from webui.request import ScriptUse
from webui.ui import sections, texts
from webui.ui.inputs import Inputs
from webui.ui.widgets.canvas import Paint, PictureCanvas

BATCH = "batch"
BATCH_SCRIPT = "Batch"
"""The script that makes several requests of one, each with a start picture of its own."""
MAX_PICTURES = 1000


@dataclass(frozen=True)
class Place:
    """A tab with a canvas: its words, and element ids as AUTOMATIC1111 has them."""

    label: str
    tab: str
    canvas: str
    paint: Paint
    title: str

    @property
    def is_masked(self) -> bool:
        """Whether what is painted says what changes."""
        return self.paint in (Paint.MASK, Paint.COLOUR_AND_MASK)


PLACES: Mapping[str, Place] = {
    "img2img": Place("img2img", "img2img_img2img_tab", "img2img_image", Paint.NOTHING, "Start image"),
    "sketch": Place("Sketch", "img2img_img2img_sketch_tab", "img2img_sketch", Paint.COLOUR, "Picture to paint on"),
    "inpaint": Place("Inpaint", "img2img_inpaint_tab", "img2maskimg", Paint.MASK, "Picture to inpaint"),
    "inpaint_sketch": Place(
        "Inpaint sketch",
        "img2img_inpaint_sketch_tab",
        "inpaint_sketch",
        Paint.COLOUR_AND_MASK,
        "Picture to paint on: what is painted is made anew",
    ),
}
"""The tabs with a canvas by mode, in their order."""


@dataclass(frozen=True)
class Start:
    """What a picture starts from: digests of stored pictures."""

    image: str
    mask: str | None = None


class StartPicture:
    """The components.  ``inputs`` are what :meth:`start` and :meth:`batch` read, in this order."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.canvases: dict[str, Any] = {}
        self.copies: list[tuple[Any, str, str]] = []

    def build(self, inputs: Inputs) -> None:
        """Create the tabs, and the settings of inpainting below them."""
        self.mode = gr.Textbox("img2img", visible=False)
        tabs = {}
        with gr.Tabs(elem_id="mode_img2img", selected="img2img") as self.modes:
            for mode, place in PLACES.items():
                with gr.Tab(place.label, id=mode, elem_id=place.tab) as tabs[mode]:
                    self.canvases[mode] = PictureCanvas(paint=place.paint, label=place.title, elem_id=place.canvas)
                    self._build_copies(mode)
            with gr.Tab("Batch", id=BATCH, elem_id="img2img_batch_tab") as tabs[BATCH]:
                self._build_batch()
        with gr.Column(visible=False, elem_id="inpaint_controls", min_width=200) as self.masking:
            sections.inpaint(inputs)
        for mode, tab in tabs.items():
            tab.select(None, None, self.mode, js=f"() => '{mode}'", api_visibility="private")

    def _build_copies(self, mode: str) -> None:
        with gr.Row(elem_classes=["copy-to"]):
            gr.HTML("Copy image to", elem_classes=["copy-to-words"], min_width=90)
            for other, place in PLACES.items():
                if other != mode:
                    button = gr.Button(place.label, size="sm", elem_id=f"{mode}_copy_to_{other}", min_width=80)
                    self.copies.append((button, mode, other))

    def _build_batch(self) -> None:
        words = "Each picture is a start of its own, all with the settings below; one progress bar for all of them."
        gr.HTML(f'<p class="muted">{words}</p>')
        common: dict[str, Any] = {"file_count": "multiple", "file_types": ["image"], "interactive": True}
        self.files = gr.File(label="Pictures", elem_id="img2img_batch", height=160, **common)
        with gr.Accordion("Inpaint: masks", open=False, elem_id="img2img_batch_masks"):
            hint = "One for all pictures, or one of the same name for each; white is made anew."
            self.masks = gr.File(label=hint, elem_id="img2img_batch_inpaint_mask", height=120, **common)

    @property
    def inputs(self) -> list[Any]:
        """What the functions below read."""
        return [self.mode, *self.canvases.values(), self.files, self.masks]

    @property
    def places(self) -> list[Any]:
        """What restoring a picture fills (:meth:`shown`)."""
        return [self.mode, self.modes, *self.canvases.values()]

    def on_screen(self) -> list[tuple[int, str]]:
        """The places of the canvases among :attr:`inputs`, and their element ids."""
        return [(at, place.canvas) for at, place in enumerate(PLACES.values(), 1)]

    def measuring(self) -> str:
        """JavaScript of (mode, canvases in their order, width, height): the size of the start picture."""
        names = ", ".join(f"{mode}: canvases[{at}]" for at, mode in enumerate(PLACES))
        return (
            "(mode, ...rest) => { const [width, height] = rest.slice(-2), canvases = rest;"
            f" const start = {{ {names} }}[mode];"
            " const fit = (side) => Math.min(2048, Math.max(64, Math.round(side / 8) * 8));"
            " return start?.width ? [fit(start.width), fit(start.height)] : [width, height]; }"
        )

    # --- what is asked for -----------------------------------------------------------------------------------

    def start(self, values: Sequence[Any]) -> Start:
        """The start picture that the values of :attr:`inputs` mean; of a batch its first.  Raises RequestError."""
        mode, *rest = values
        if mode == BATCH:
            pictures, masks = self._batch(rest)
            return Start(pictures[0], masks[0] if masks else None)
        shown = rest[list(PLACES).index(mode)]
        if not isinstance(shown, dict) or not shown.get("image"):
            raise RequestError("There is no start image; choose one first, or drop it on the box.")
        image = str(shown.get("painted") or shown["image"])
        if not PLACES[mode].is_masked:
            return Start(image)
        if not shown.get("mask"):
            raise RequestError("Nothing is masked; paint over the part of the picture that should change.")
        return Start(image, str(shown["mask"]))

    def batch(self, values: Sequence[Any], scale: float | None) -> ScriptUse | None:
        """The script that makes all pictures of a batch, each ``scale`` times its size; None in the other tabs."""
        mode, *rest = values
        if mode != BATCH:
            return None
        pictures, masks = self._batch(rest)
        sizes = [list(self.sizes(digest, scale)[1]) for digest in pictures] if scale is not None else []
        return ScriptUse(name=BATCH_SCRIPT, options={"pictures": pictures, "masks": masks, "sizes": sizes})

    def _batch(self, rest: Sequence[Any]) -> tuple[list[str], list[str]]:
        """Digests of the batch's pictures, stored, and of the mask of each, none when there are no masks."""
        files, masks = ([Path(str(one)) for one in given or ()] for given in rest[-2:])
        if not 1 <= len(files) <= MAX_PICTURES:
            found = f"{len(files)} pictures are chosen" if files else "No pictures are chosen"
            raise RequestError(f"{found}; a batch has from 1 to {MAX_PICTURES}.")
        pictures = [self._put(file) for file in files]
        if not masks:
            return pictures, []
        named = {mask.stem: self._put(mask) for mask in masks}
        if len(named) == 1:
            return pictures, list(named.values()) * len(pictures)
        missing = [file.name for file in files if file.stem not in named]
        if missing:
            raise RequestError(f"There is no mask for {', '.join(missing[:3])}; give one of that name, or one for all.")
        return pictures, [named[file.stem] for file in files]

    def _put(self, file: Path) -> str:
        try:
            return self.engine.put_input(file.read_bytes())
        except PictureError as error:
            raise RequestError(f"{file.name} cannot be used: {error}") from error

    def sizes(self, digest: str, scale: float) -> tuple[tuple[int, int], tuple[int, int]]:
        """A stored picture's size, and that times ``scale`` in multiples of 8 from 64 on."""
        width, height = picture_size(self.engine.input_path(digest).read_bytes())
        wide, high = (max(64, int(side * scale) // 8 * 8) for side in (width, height))
        return (width, height), (wide, high)

    def scaled(self, values: Sequence[Any], scale: float) -> str:
        """What size the start picture will have, in words."""
        mode, *rest = values
        if mode == BATCH:
            return '<p class="muted">Each picture will have that share of its own size.</p>'
        shown = rest[list(PLACES).index(mode)]
        if not isinstance(shown, dict) or not shown.get("image"):
            return '<p class="muted">There is no start image yet.</p>'
        return texts.scaled_size(*self.sizes(str(shown["image"]), scale))

    # --- what is shown ----------------------------------------------------------------------------------------

    def shown(self, mode: str, picture: Mapping[str, Any]) -> list[Any]:
        """Updates for :attr:`places`: the tab of a mode, with a picture on its canvas."""
        stamped = {**picture, "at": time.time()}
        return [mode, gr.Tabs(selected=mode), *(stamped if one == mode else gr.skip() for one in PLACES)]

    def restored(self, values: Mapping[str, Any]) -> list[Any]:
        """Updates for :attr:`places` that bring back the start image and mask that field values name, if stored."""
        digest, mask = values.get("image"), values.get("mask")
        if not digest or not self.is_stored(digest):
            return [gr.skip()] * len(self.places)
        picture = {"image": digest, "name": "", "mask": mask if mask and self.is_stored(mask) else None}
        return self.shown("inpaint" if mask else "img2img", picture)

    def lost(self, values: Mapping[str, Any]) -> str:
        """A sentence about pictures that field values name and that are no longer stored; "" when all are."""
        pictures = {"image": "the start image", "mask": "the mask"}
        lost = [word for name, word in pictures.items() if values.get(name) and not self.is_stored(values[name])]
        return f"No longer here: {', '.join(lost)}." if lost else ""

    def is_stored(self, digest: str) -> bool:
        """Whether a picture of this digest is in the input store."""
        try:
            return bool(self.engine.input_path(digest))
        except WebUIError:
            return False

    def copier(self, mode: str) -> Callable[[Any], list[Any]]:
        """What puts a canvas' picture, with the colours on it, on that of another mode."""

        def copy(picture: Any) -> list[Any]:
            if not isinstance(picture, dict) or not picture.get("image"):
                raise NotFoundError("There is no picture to copy; choose one first.")
            image = picture.get("painted") or picture["image"]
            return self.shown(mode, {"image": image, "name": picture.get("name") or ""})

        return copy
