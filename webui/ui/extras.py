"""What the Extras tab shows and does.  Generate stores the pictures and queues one job for all of them.

Labels and element ids are those of AUTOMATIC1111.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from webui.engine.extras import KIND
from webui.engine.jobs import Job
from webui.errors import NotFoundError, PictureError, WebUIError
from webui.extras import MAX_PICTURES, Enlargement, ExtrasRequest
from webui.extras import Target as TargetSize
from webui.images.pixels import MAX_BYTES
from webui.ui import texts
from webui.ui.context import PageContext, Target
from webui.ui.notices import connect, sentence
from webui.ui.panel_places import add_panels, panel_context
from webui.ui.widgets.live import Live
from webui.upscalers import NONE

SINGLE, BATCH, DIRECTORY = "Single Image", "Batch Process", "Batch from Directory"
SCALE_BY, SCALE_TO = "Scale by", "Scale to"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
"""Files of a folder that are taken for pictures."""
SLIDERS: Mapping[str, tuple[float, float, float, float, str, str]] = {
    "by": (1, 8, 0.05, 4, "Resize", "upscaling_resize"),
    "width": (64, 8192, 8, 512, "Width", "upscaling_resize_w"),
    "height": (64, 8192, 8, 512, "Height", "upscaling_resize_h"),
    "second_visibility": (0, 1, 0.001, 0, "Upscaler 2 visibility", "upscaler_2_visibility"),
    "gfpgan_visibility": (0, 1, 0.001, 0, "GFPGAN visibility", "gfpgan_visibility"),
    "codeformer_visibility": (0, 1, 0.001, 0, "CodeFormer visibility", "codeformer_visibility"),
    "codeformer_weight": (
        0, 1, 0.001, 0, "CodeFormer weight (0 = maximum effect, 1 = minimum effect)", "codeformer_weight",
    ),
}  # fmt: skip
"""Lowest, highest, step, first value, label and element id."""
HELP = (
    '<div class="empty-art"></div><p>Choose a picture to make it larger.</p><p class="muted">Upscaler files go into '
    "models/ESRGAN, face restorers into models/GFPGAN and models/Codeformer.</p>"
)


def request_from_values(values: Mapping[str, Any], images: Sequence[str], names: Sequence[str]) -> ExtrasRequest:
    """The request that the tab's fields mean.  Raises RequestError for values out of range."""
    to = None
    if values["scale"] == SCALE_TO:
        to = TargetSize(width=_whole(values["width"]), height=_whole(values["height"]), crop=bool(values["crop"]))
    upscale = Enlargement(
        upscaler=values["upscaler"] or NONE,
        by=values["by"],
        to=to,
        max_side=_whole(values["max_side"] or 0),
        second=values["second"] or NONE,
        second_visibility=values["second_visibility"],
    )
    faces = {name: values[name] for name in ("gfpgan_visibility", "codeformer_visibility", "codeformer_weight")}
    return ExtrasRequest(
        images=tuple(images), names=tuple(names), upscale=upscale, faces_first=bool(values["faces_first"]), **faces
    )


def _whole(value: Any) -> Any:
    """A number box's value as a whole number, where it is one; the request refuses what is not."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def pictures_of(mode: str, single: str | None, batch: Sequence[str] | None, folder: str | None) -> list[Path]:
    """The picture files that the tab's boxes name.  Raises PictureError when there are none."""
    if mode == DIRECTORY:
        return _in_folder((folder or "").strip())
    if mode == BATCH and not batch:
        raise PictureError("There are no pictures; choose some first, or drop them on the box.")
    if mode == SINGLE and not single:
        raise PictureError("There is no picture; choose one first, or drop it on the box.")
    return [Path(path) for path in ((batch or ()) if mode == BATCH else (single,)) if path]


def _in_folder(named: str) -> list[Path]:
    folder = Path(named).expanduser()
    if not named or not folder.is_dir():
        raise PictureError(f'There is no folder "{named}"; write the path of one on the computer this program runs on.')
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not 1 <= len(found) <= MAX_PICTURES:
        raise PictureError(f'The folder "{named}" holds {len(found)} pictures; from 1 to {MAX_PICTURES} are taken.')
    return found


class ExtrasTab:
    """Builds the tab."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.engine = context.engine
        self.fields: dict[str, Any] = {}

    def build(self) -> None:
        """Create the components and their events inside the open tab."""
        with gr.Row(elem_classes=["workbench"]):
            with gr.Column(min_width=340, elem_id="extras_settings", elem_classes=["settings"]):
                self._build_pictures()
                self.generate = gr.Button("Generate", variant="primary", elem_id="extras_generate")
                with gr.Row(elem_classes=["while-running"]):
                    gr.Button("Interrupt", variant="stop", elem_id="extras_interrupt", min_width=60)
                    gr.Button("Skip", elem_id="extras_skip", min_width=60)
                self._build_upscale()
                self._build_faces()
                panels = gr.Column(elem_id="extras_panels", elem_classes=["panels"], min_width=340)
            with gr.Column(min_width=340, elem_id="extras_results", elem_classes=["results"]):
                self._build_results()
        with panels:
            add_panels(self.engine, panel_context(self.context, "extras", self.fields, self))
        self._wire()

    def _build_pictures(self) -> None:
        self.mode = gr.Textbox(SINGLE, visible=False)
        with gr.Tabs(elem_id="mode_extras", selected=SINGLE) as self.modes:
            with gr.Tab(SINGLE, id=SINGLE, elem_id="extras_single_tab") as single:
                self.picture = gr.Image(
                    type="filepath",
                    image_mode=None,  # keeps the uploaded bytes as they are, text chunks included
                    sources=["upload", "clipboard"],
                    label="Source",
                    interactive=True,
                    elem_id="extras_image",
                    elem_classes=["drop-image"],
                    height=320,
                    buttons=["fullscreen"],
                )
            with gr.Tab(BATCH, id=BATCH, elem_id="extras_batch_process_tab") as batch:
                self.batch = gr.File(
                    file_count="multiple",
                    file_types=["image"],
                    label=BATCH,
                    interactive=True,
                    elem_id="extras_image_batch",
                )
            with gr.Tab(DIRECTORY, id=DIRECTORY, elem_id="extras_batch_directory_tab") as directory:
                self.folder = gr.Textbox(
                    label="Input directory",
                    placeholder="A folder on the computer this program runs on",
                    elem_id="extras_batch_input_dir",
                    interactive=True,
                )
        for tab, name in ((single, SINGLE), (batch, BATCH), (directory, DIRECTORY)):
            tab.select(None, None, self.mode, js=f"() => '{name}'", api_visibility="private")

    def _build_upscale(self) -> None:
        with gr.Column(elem_id="extras_upscale", elem_classes=["extras-part"]):
            with gr.Row():
                self._upscaler("upscaler", "Upscaler 1", "extras_upscaler_1")
                self.refresh = gr.Button(
                    "Look for upscalers again",
                    size="sm",
                    elem_id="extras_refresh",
                    elem_classes=["tool", "icon-refresh"],
                    min_width=40,
                    scale=0,
                )
            with gr.Row():
                self._upscaler("second", "Upscaler 2", "extras_upscaler_2")
                self._slider("second_visibility")
            self.fields["scale"] = gr.Textbox(SCALE_BY, visible=False)
            with gr.Tabs(elem_id="extras_resize_mode", selected=SCALE_BY):
                with gr.Tab(SCALE_BY, id=SCALE_BY, elem_id="extras_scale_by_tab") as by, gr.Row():
                    self._slider("by")
                    self.fields["max_side"] = gr.Number(
                        label="Max side length (0: any)",
                        value=0,
                        minimum=0,
                        step=8,
                        precision=0,
                        interactive=True,
                        elem_id="extras_upscale_max_side_length",
                        min_width=130,
                    )
                with gr.Tab(SCALE_TO, id=SCALE_TO, elem_id="extras_scale_to_tab") as to:
                    self._slider("width")
                    self._slider("height")
                    with gr.Row():
                        self.swap = gr.Button(
                            "Swap width and height",
                            size="sm",
                            elem_id="extras_res_switch_btn",
                            elem_classes=["tool", "icon-swap"],
                            min_width=40,
                            scale=0,
                        )
                        self._checkbox("crop", "Crop to fit", True, "extras_upscaling_crop")
            by.select(None, None, self.fields["scale"], js=f"() => '{SCALE_BY}'", api_visibility="private")
            to.select(None, None, self.fields["scale"], js=f"() => '{SCALE_TO}'", api_visibility="private")

    def _build_faces(self) -> None:
        with gr.Column(elem_id="extras_faces", elem_classes=["extras-part"]):
            self._slider("gfpgan_visibility")
            with gr.Row():
                self._slider("codeformer_visibility")
                self._slider("codeformer_weight")
            self._checkbox("faces_first", "Restore faces before upscaling", False, "extras_faces_first")

    def _build_results(self) -> None:
        self.live = Live(tab="extras", elem_id="extras_live", empty=HELP)
        self.gallery = gr.Gallery(
            label="Output",
            show_label=False,
            elem_id="extras_gallery",
            columns=3,
            height="auto",
            object_fit="contain",
            preview=False,
            interactive=False,
            buttons=["download", "download_all", "fullscreen"],
        )
        with gr.Row(elem_id="image_buttons_extras", elem_classes=["image-buttons"]):
            self.sends = {
                name: gr.Button(
                    f"Send to {label}", size="sm", elem_id=f"extras_send_to_{name}", elem_classes=[f"icon-{name}"]
                )
                for name, label in (("img2img", "img2img"), ("inpaint", "inpaint"), ("pnginfo", "PNG Info"))
            }
        self.info = gr.HTML(elem_id="html_info_extras", elem_classes=["picture-info"])
        self.outputs = gr.JSON([], visible=False, elem_id="generation_info_extras")  # the ids of the gallery's pictures
        self.selected = gr.Number(0, visible=False, precision=0)

    def _slider(self, field: str) -> None:
        low, high, step, value, label, elem_id = SLIDERS[field]
        self.fields[field] = gr.Slider(
            low, high, value=value, step=step, label=label, interactive=True, elem_id=f"extras_{elem_id}", buttons=[]
        )

    def _upscaler(self, field: str, label: str, elem_id: str) -> None:
        self.fields[field] = gr.Dropdown(
            self._upscalers(), value=NONE, label=label, interactive=True, elem_id=elem_id, min_width=160
        )

    def _checkbox(self, field: str, label: str, value: bool, elem_id: str) -> None:
        self.fields[field] = gr.Checkbox(value, label=label, interactive=True, elem_id=elem_id)

    def _upscalers(self) -> list[str]:
        return [upscaler.name for upscaler in self.engine.upscalers() if not upscaler.is_latent]

    # --- events -------------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        shown = [self.live, self.gallery, self.outputs, self.selected, self.info]
        boxes = [self.mode, self.picture, self.batch, self.folder]
        self._on(self.generate.click, self._generate, [*boxes, *self.fields.values()], [self.live])
        self._on(self.live.finished, self._finished, None, shown)
        self._on(self.live.attached, self._attached, None, shown)
        self._on(self.gallery.select, self._select, self.outputs, [self.selected, self.info])
        lists = [self.fields["upscaler"], self.fields["second"]]
        self._on(self.refresh.click, self._look_again, lists, lists)
        size = [self.fields["width"], self.fields["height"]]
        self.swap.click(None, size, size, js="(width, height) => [height, width]", api_visibility="private")
        self.context.targets["extras"] = Target(
            outputs=(self.mode, self.modes, self.picture),
            receive=lambda path: (SINGLE, gr.Tabs(selected=SINGLE), str(path)),
        )
        self.context.when_built(self._wire_sending)

    def _wire_sending(self) -> None:
        for name, button in self.sends.items():
            target = self.context.targets[name]
            outputs = [*target.outputs, self.context.tabs]
            self._on(button.click, self._sender(name, target), [self.outputs, self.selected], outputs)

    def _on(self, trigger: Any, event: Callable[..., Any], inputs: Any, outputs: Sequence[Any]) -> None:
        connect(trigger, event, inputs, outputs, self.context.notice)

    def _generate(self, mode: str, single: Any, batch: Any, folder: str | None, *values: Any) -> dict[str, Any]:
        fields = dict(zip(self.fields, values, strict=True))
        try:
            files = pictures_of(mode, single, batch, folder)
            digests = list(self._stored(files))
            job = self.engine.submit_extras(request_from_values(fields, digests, [file.name for file in files]))
        except WebUIError as error:
            return {"error": str(error), "at": time.time()}
        return {"job": job.id, "at": time.time()}

    def _stored(self, files: Sequence[Path]) -> Iterator[str]:
        """The SHA-256 of each picture, stored.  Raises PictureError that names the file."""
        for file in files:
            try:
                if file.stat().st_size > MAX_BYTES:
                    raise PictureError(f"It has more than {MAX_BYTES} bytes.")
                yield self.engine.put_input(file.read_bytes())
            except OSError as error:
                raise PictureError(f"{file.name} cannot be read: {error.strerror or error}.") from error
            except PictureError as error:
                raise PictureError(f"{file.name}: {error}") from error

    def _finished(self, event: gr.EventData) -> list[Any]:
        return self._shown(self.engine.job(str(event.job)))

    def _attached(self, event: gr.EventData) -> list[Any]:
        try:
            jobs = [self.engine.job(str(event.job)), *self.engine.jobs()]
        except NotFoundError:
            return [gr.skip()] * 5
        latest = next((job for job in jobs if job.kind == KIND and job.state.is_over and job.outputs), None)
        return [gr.skip(), *(self._shown(latest)[1:] if latest else [gr.skip()] * 4)]

    def _shown(self, job: Job) -> list[Any]:
        """Updates that put the job's pictures into the gallery; files that were deleted meanwhile keep out."""
        there = [(path, output) for output in job.outputs if (path := self._file(output.id)) is not None]
        if not there:
            return [{"shown": job.id}, gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        alone = len(there) == 1
        gallery = gr.Gallery(
            value=[str(path) for path, _ in there],
            selected_index=0 if alone else None,
            preview=alone,
            columns=min(3, len(there)),
        )
        ids = [output.id for _, output in there]
        return [{"shown": job.id}, gallery, ids, 0, texts.infotext(there[0][1].infotext)]

    def _file(self, output_id: str) -> Path | None:
        try:
            return self.engine.output_path(output_id)
        except NotFoundError:
            return None

    def _select(self, ids: Sequence[str], event: gr.SelectData) -> tuple[int, str]:
        index = int(event.index)
        return index, texts.infotext(self.engine.output(ids[index]).infotext)

    def _look_again(self, first: str | None, second: str | None) -> list[Any]:
        self.engine.refresh()
        names = self._upscalers()
        lists = [gr.Dropdown(choices=names, value=name if name in names else NONE) for name in (first, second)]
        return [*lists, sentence(f"{len(names)} upscalers found.", good=True)]

    def _sender(self, name: str, target: Target) -> Callable[..., list[Any]]:
        tab = "img2img" if name == "inpaint" else name

        def send(ids: Sequence[str], index: float | None) -> list[Any]:
            place = int(index or 0)
            if not 0 <= place < len(ids or ()):
                raise NotFoundError("There is no picture yet; press Generate first.")
            return [*target.receive(self.engine.output_path(str(ids[place]))), gr.Tabs(selected=tab)]

        return send
