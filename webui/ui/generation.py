"""The form of txt2img and img2img: prompts, settings, live progress and gallery, and what their events do.

Generate only builds the request and hands it to the engine; the live widget follows the job by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from webui.engine.extra_files import count_tokens
from webui.engine.extras import is_extras
from webui.engine.jobs import GENERATING, Job, Output
from webui.errors import NotFoundError, WebUIError
from webui.metadata import infotext
from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe
from webui.request import InpaintArea, MaskedContent, MaskMode, ResizeMode
from webui.ui import texts
from webui.ui.cards import add_cards
from webui.ui.context import PageContext, Target
from webui.ui.form import FIELDS, START_FIELDS, request_from_values, stated_values, values_from_request
from webui.ui.notices import connect, sentence
from webui.ui.widgets.canvas import PictureCanvas
from webui.ui.widgets.live import Live

if TYPE_CHECKING:
    from webui.engine.engine import Engine

SLIDERS: Mapping[str, tuple[float, float, float, str]] = {
    "steps": (1, 150, 1, "Sampling steps"),
    "cfg_scale": (1, 30, 0.5, "CFG Scale"),
    "width": (64, 2048, 8, "Width"),
    "height": (64, 2048, 8, "Height"),
    "batch_count": (1, 100, 1, "Batch count"),
    "batch_size": (1, 8, 1, "Batch size"),
    "clip_skip": (1, 12, 1, "Clip skip"),
    "denoising_strength": (0, 1, 0.01, "Denoising strength"),
    "mask_blur": (0, 64, 1, "Mask blur"),
    "padding": (0, 256, 4, "Only masked padding, pixels"),
}
"""Lowest, highest, step and label.  A value read from a picture may lie outside: the slider then grows to hold it."""
AUTOMATIC = "Automatic"
"""The schedule type that each sampler answers itself."""
ELEMENT_IDS = {
    "negative_prompt": "neg_prompt",
    "sampler": "sampling",
    "schedule": "scheduler",
    "masked_content": "inpainting_fill",
    "inpaint_area": "inpaint_full_res",
    "padding": "inpaint_full_res_padding",
    "mask_mode": "mask_mode",
}
"""Where an element id of AUTOMATIC1111 differs from our field's name."""


class GenerationTab:
    """Builds one of the two tabs; ``name`` is "txt2img" or "img2img"."""

    def __init__(self, context: PageContext, name: str) -> None:
        self.context = context
        self.engine = context.engine
        self.name = name
        self.has_start = name == "img2img"
        self.names = (*FIELDS, *START_FIELDS) if self.has_start else FIELDS
        self.fields: dict[str, Any] = {}

    def build(self) -> None:
        """Create the components and their events inside the open tab."""
        with gr.Row(elem_id=self._id("toprow"), elem_classes=["toprow"]):
            self._build_prompts()
            self._build_actions()
        add_cards(self.context, self.name)
        with gr.Row(elem_classes=["workbench"]):
            with gr.Column(elem_id=self._id("settings"), elem_classes=["settings"], min_width=340):
                if self.has_start:
                    self._build_start()
                self._build_settings()
            with gr.Column(elem_id=self._id("results"), elem_classes=["results"], min_width=340):
                self._build_results()
        self.context.forms[self.name] = self.fields
        self._wire()

    # --- components -------------------------------------------------------------------------------------------

    def _build_prompts(self) -> None:
        with gr.Column(scale=6, elem_classes=["prompts"], min_width=320):
            self.counters = {}
            for field, label, lines, hint in (
                (
                    "prompt",
                    "Prompt",
                    3,
                    "What the picture shows. Ctrl+Enter generates; drop a picture here to restore.",
                ),
                ("negative_prompt", "Negative prompt", 2, "What it should not show."),
            ):
                with gr.Group(elem_classes=["prompt-box"]):
                    self.fields[field] = gr.Textbox(
                        label=label,
                        show_label=False,
                        placeholder=f"{label}: {hint[0].lower()}{hint[1:]}",
                        lines=lines,
                        max_lines=12,
                        interactive=True,
                        elem_id=self._id(ELEMENT_IDS.get(field, field)),
                    )
                    suffix = "token_counter" if field == "prompt" else "negative_token_counter"
                    self.counters[field] = gr.HTML(
                        texts.token_counter(0, 75), elem_id=self._id(suffix), elem_classes=["token-counter"]
                    )

    def _build_actions(self) -> None:
        with gr.Column(scale=1, elem_id=self._id("actions"), elem_classes=["actions"], min_width=220):
            self.generate = gr.Button("Generate", variant="primary", elem_id=self._id("generate"))
            with gr.Row(elem_classes=["while-running"]):
                gr.Button("Interrupt", variant="stop", elem_id=self._id("interrupt"), min_width=60)
                gr.Button("Skip", elem_id=self._id("skip"), min_width=60)
            with gr.Row(elem_classes=["tools"]):
                self.paste = self._tool("Read generation parameters from the prompt or the last picture", "paste")
                self.clear = self._tool("Clear the prompts", "clear_prompt", icon="trash")
            self.dropped = gr.File(
                elem_id=self._id("prompt_image"), visible="hidden", interactive=True, file_types=["image"]
            )

    def _build_start(self) -> None:
        self.mode = gr.Textbox("img2img", visible=False)
        with gr.Tabs(elem_id="mode_img2img", selected="img2img") as self.modes:
            with gr.Tab("img2img", id="img2img", elem_id="img2img_img2img_tab") as plain:
                self.image = PictureCanvas(paint=False, label="Start image", elem_id="img2img_image")
            with gr.Tab("Inpaint", id="inpaint", elem_id="img2img_inpaint_tab") as inpaint:
                self.painted = PictureCanvas(paint=True, label="Picture to inpaint", elem_id="img2maskimg")
                self._slider("mask_blur")
                with gr.Row():
                    self._choice("mask_mode", "Mask mode", [mode.value for mode in MaskMode])
                    self._choice("inpaint_area", "Inpaint area", [area.value for area in InpaintArea])
                self._choice("masked_content", "Masked content", [content.value for content in MaskedContent])
                self._slider("padding")
        plain.select(None, None, self.mode, js="() => 'img2img'", api_visibility="private")
        inpaint.select(None, None, self.mode, js="() => 'inpaint'", api_visibility="private")
        self._choice("resize_mode", "Resize mode", [mode.value for mode in ResizeMode])

    def _build_settings(self) -> None:
        with gr.Row(elem_id=self._id("sampler_row")):
            self._dropdown("sampler", "Sampling method", [sampler.name for sampler in self.engine.samplers()])
            self._dropdown("schedule", "Schedule type", self._schedules())
        self._slider("steps")
        with gr.Row(elem_classes=["dimensions"], elem_id=self._id("dimensions")):
            with gr.Column(min_width=180, scale=4):
                self._slider("width")
                self._slider("height")
            with gr.Column(min_width=40, scale=0, elem_classes=["between"]):
                self.swap = self._tool("Swap width and height", "res_switch_btn", icon="swap")
                if self.has_start:
                    self.measure = self._tool("Take the size of the start image", "detect_image_size_btn", icon="ruler")
            with gr.Column(min_width=150, scale=3):
                self._slider("batch_count")
                self._slider("batch_size")
        self._slider("cfg_scale")
        if self.has_start:
            self._slider("denoising_strength")
        with gr.Row(elem_classes=["seed-row"], elem_id=self._id("seed_row")):
            self.fields["seed"] = gr.Number(
                label="Seed",
                value=self._initial("seed"),
                precision=0,
                interactive=True,
                elem_id=self._id("seed"),
                min_width=120,
            )
            self.dice = self._tool("Random seed", "random_seed", icon="dice")
            self.recycle = self._tool("Reuse the seed of the selected picture", "reuse_seed", icon="recycle")
        with gr.Accordion("Advanced", open=False, elem_id=self._id("advanced")), gr.Row():
            self._slider("clip_skip")
            self.fields["eta"] = gr.Number(
                label="Eta",
                value=None,
                placeholder="the sampler's own",
                minimum=0,
                maximum=1,
                step=0.05,
                interactive=True,
                elem_id=self._id("eta"),
            )

    def _build_results(self) -> None:
        empty = "Choose a picture and describe what it should become." if self.has_start else "Describe a picture."
        self.live = Live(
            tab=self.name,
            elem_id=self._id("live"),
            empty=f'<div class="empty-art"></div><p>{empty}</p><p class="muted">It appears here as it takes shape.</p>',
        )
        self.gallery = gr.Gallery(
            label="Output",
            show_label=False,
            elem_id=self._id("gallery"),
            columns=4,
            height="auto",
            object_fit="contain",
            preview=False,
            interactive=False,
            buttons=["download", "download_all", "fullscreen"],
        )
        with gr.Row(elem_id=f"image_buttons_{self.name}", elem_classes=["image-buttons"]):
            self.sends = {
                target: gr.Button(
                    f"Send to {label}",
                    size="sm",
                    elem_id=self._id(f"send_to_{target}"),
                    elem_classes=[f"icon-{target}"],
                )
                for target, label in (
                    ("img2img", "img2img"),
                    ("inpaint", "inpaint"),
                    ("extras", "Extras"),
                    ("pnginfo", "PNG Info"),
                )
            }
        self.info = gr.HTML(elem_id=f"html_info_{self.name}", elem_classes=["picture-info"])
        # The ids of the pictures in the gallery, in its order.
        self.outputs = gr.JSON([], visible=False, elem_id=f"generation_info_{self.name}")
        self.selected = gr.Number(0, visible=False, precision=0)

    # --- small makers -----------------------------------------------------------------------------------------

    def _id(self, suffix: str) -> str:
        return f"{self.name}_{suffix}"

    def _initial(self, field: str) -> Any:
        return self.context.initial[field]

    def _tool(self, label: str, suffix: str, icon: str | None = None) -> Any:
        classes = ["tool", f"icon-{icon or suffix}"]
        return gr.Button(label, size="sm", elem_id=self._id(suffix), elem_classes=classes, min_width=40, scale=0)

    def _slider(self, field: str) -> None:
        low, high, step, label = SLIDERS[field]
        self.fields[field] = gr.Slider(
            low,
            high,
            value=self._initial(field),
            step=step,
            label=label,
            interactive=True,
            elem_id=self._id(ELEMENT_IDS.get(field, field)),
            buttons=[],
        )

    def _dropdown(self, field: str, label: str, choices: Sequence[str]) -> None:
        self.fields[field] = gr.Dropdown(
            list(choices),
            value=self._initial(field),
            label=label,
            interactive=True,
            elem_id=self._id(ELEMENT_IDS.get(field, field)),
            min_width=140,
        )

    def _choice(self, field: str, label: str, choices: Sequence[str]) -> None:
        self.fields[field] = gr.Radio(
            list(choices),
            value=self._initial(field),
            label=label,
            interactive=True,
            elem_id=self._id(ELEMENT_IDS.get(field, field)),
        )

    # --- events -----------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        everything = [self.context.checkpoint, *(self.fields[name] for name in self.names)]
        if self.has_start:
            self._on(
                self.generate.click,
                self._generate_from_picture,
                [self.mode, self.image, self.painted, *everything],
                [self.live],
                js="async (mode, image, painted, ...rest) => [mode, await window.webui.canvas('img2img_image', image),"
                " await window.webui.canvas('img2maskimg', painted), ...rest]",
            )
        else:
            self._on(self.generate.click, self._generate, everything, [self.live])
        shown = [self.live, self.gallery, self.outputs, self.selected, self.info]
        restored = self._target_outputs()
        self._on(self.live.finished, self._show_finished, None, shown)
        self._on(self.live.attached, self._attach, None, [*shown, *restored])
        self._on(self.gallery.select, self._select, self.outputs, [self.selected, self.info])
        self._on(self.paste.click, self._paste, self.fields["prompt"], restored)
        self._on(self.dropped.upload, self._read_dropped, self.dropped, [self.dropped, *restored])
        self._on(self.recycle.click, self._selected_seed, [self.outputs, self.selected], [self.fields["seed"]])
        for name, counter in self.counters.items():
            self._on(self.fields[name].change, self._count, self.fields[name], [counter], trigger_mode="always_last")
        self._wire_in_browser()
        self._offer_as_target()
        self.context.when_built(self._wire_sending)

    def _wire_in_browser(self) -> None:
        """What needs no server."""
        fields = self.fields
        size = [fields["width"], fields["height"]]
        prompts = [fields["prompt"], fields["negative_prompt"]]
        self.clear.click(None, None, prompts, js="() => ['', '']", api_visibility="private")
        self.swap.click(None, size, size, js="(width, height) => [height, width]", api_visibility="private")
        self.dice.click(None, None, fields["seed"], js="() => -1", api_visibility="private")
        if self.has_start:
            self.measure.click(
                None,
                [self.mode, self.image, self.painted, *size],
                size,
                js="(mode, image, painted, width, height) => { const start = mode === 'inpaint' ? painted : image;"
                " const fit = (side) => Math.min(2048, Math.max(64, Math.round(side / 8) * 8));"
                " return start?.width ? [fit(start.width), fit(start.height)] : [width, height]; }",
                api_visibility="private",
            )

    def _offer_as_target(self) -> None:
        for mode in ("img2img", "inpaint") if self.has_start else ("txt2img",):
            self.context.targets[mode] = Target(outputs=tuple(self._target_outputs()), receive=self._receiver(mode))

    def _wire_sending(self) -> None:
        for name, button in self.sends.items():
            target = self.context.targets[name]
            outputs = [*target.outputs, self.context.tabs]
            self._on(button.click, self._sender(name, target), [self.outputs, self.selected], outputs)

    def _on(self, trigger: Any, event: Callable[..., Any], inputs: Any, outputs: Sequence[Any], **how: Any) -> None:
        connect(trigger, event, inputs, outputs, self.context.notice, **how)

    def _target_outputs(self) -> list[Any]:
        places = [self.mode, self.modes, self.image, self.painted] if self.has_start else []
        return [*places, self.context.checkpoint, *(self.fields[name] for name in self.names)]

    # --- what the events do -----------------------------------------------------------------------------------

    def _generate(self, checkpoint: str | None, *values: Any) -> dict[str, Any]:
        return self._submit({"checkpoint": checkpoint, **dict(zip(self.names, values, strict=True))})

    def _generate_from_picture(
        self, mode: str, image: Any, painted: Any, checkpoint: str | None, *values: Any
    ) -> dict[str, Any]:
        fields = {"checkpoint": checkpoint, **dict(zip(self.names, values, strict=True))}
        start = painted if mode == "inpaint" else image
        if not isinstance(start, dict) or not start.get("image"):
            return _refusal("There is no start image; choose one first, or drop it on the box.")
        fields["image"] = start["image"]
        if mode == "inpaint":
            fields["mask"] = start.get("mask")
            if not fields["mask"]:
                return _refusal("Nothing is masked; paint over the part of the picture that should change.")
        return self._submit(fields)

    def _submit(self, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            job = self.engine.submit(request_from_values(values))
        except WebUIError as error:
            return _refusal(str(error))
        return {"job": job.id, "at": time.time()}

    def _count(self, prompt: str | None) -> str:
        used, fit = count_tokens(prompt or "", self.engine.library, self.context.tokenizer)
        return texts.token_counter(used, fit)

    def _show_finished(self, event: gr.EventData) -> list[Any]:
        return self._shown(self.engine.job(str(event.job)))

    def _attach(self, event: gr.EventData) -> list[Any]:
        try:
            job = self.engine.job(str(event.job))
        except NotFoundError:
            return [gr.skip()] * (5 + len(self._target_outputs()))
        latest = next((one for one in [job, *self.engine.jobs()] if one.state.is_over and self._is_mine(one)), None)
        shown = self._shown(latest) if latest is not None else [gr.skip()] * 5
        values = {**values_from_request(job.request), "seed": gr.skip()}
        return [gr.skip(), *shown[1:], *self._places(values), *self._updates(values)]

    def _is_mine(self, job: Job) -> bool:
        """Whether the job made pictures, and is one that this tab could have started."""
        return job.kind == GENERATING and bool(job.outputs) and bool(job.request.get("start")) == self.has_start

    def _shown(self, job: Job) -> list[Any]:
        """Updates that put the job's pictures into the gallery; files that were deleted meanwhile keep out."""
        there = [(path, output) for output in job.outputs if (path := self._file(output)) is not None]
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

    def _file(self, output: Output) -> Path | None:
        try:
            return self.engine.output_path(output.id)
        except NotFoundError:
            return None

    def _select(self, ids: Sequence[str], event: gr.SelectData) -> tuple[int, str]:
        index = int(event.index)
        return index, texts.infotext(self._output(ids, index).infotext)

    def _selected_seed(self, ids: Sequence[str], index: float | None) -> int:
        if not ids and (last := self._last_output()) is not None:
            return last.seed
        return self._output(ids, index).seed

    def _output(self, ids: Sequence[str], index: float | None) -> Output:
        if not ids:
            raise NotFoundError("There is no picture yet; generate one first.")
        place = int(index or 0)
        if not 0 <= place < len(ids):
            raise NotFoundError("This picture is no longer known; generate it again.")
        return self.engine.output(str(ids[place]))

    def _last_output(self) -> Output | None:
        return next((job.outputs[-1] for job in self.engine.jobs() if job.kind == GENERATING and job.outputs), None)

    def _paste(self, prompt: str | None) -> list[Any]:
        if (prompt or "").strip():
            text = prompt or ""
            return self._restored(stated_values(self.engine.read_parameters(text), infotext.parse(text).fields))
        last = self._last_output()
        if last is None:
            raise NotFoundError("There is no picture yet, and the prompt is empty: there is nothing to read.")
        return self._restored(read_values(self.engine, self.engine.output_path(last.id).read_bytes()))

    def _read_dropped(self, path: str) -> list[Any]:
        return [None, *self._restored(read_values(self.engine, Path(path).read_bytes()))]

    def _restored(self, values: Mapping[str, Any]) -> list[Any]:
        """Updates for the start image, the checkpoint and every field, and a notice about what is not here."""
        missing = self._missing(values)
        return [*self._places(values), *self._updates(values), *([sentence(missing)] if missing else [])]

    def _places(self, values: Mapping[str, Any]) -> list[Any]:
        """Updates that bring back the start image and mask that ``values`` name, as far as they are still stored."""
        if not self.has_start:
            return []
        digest, mask = values.get("image"), values.get("mask")
        if not digest or not self._stored(digest):
            return [gr.skip()] * 4
        painted = mask if mask and self._stored(mask) else None
        picture = {"image": digest, "name": "", "mask": painted, "at": time.time()}
        if mask:
            return ["inpaint", gr.Tabs(selected="inpaint"), gr.skip(), picture]
        return ["img2img", gr.Tabs(selected="img2img"), picture, gr.skip()]

    def _stored(self, digest: str) -> bool:
        try:
            return bool(self.engine.input_path(digest))
        except WebUIError:
            return False

    def _missing(self, values: Mapping[str, Any]) -> str:
        names = {"sampler": "sampler", "schedule": "schedule type", "checkpoint": "checkpoint"}
        found = [
            f'the {word} "{values[field]}"'
            for field, word in names.items()
            if values.get(field) and self._known(field, values[field]) is None
        ]
        if self.has_start:
            pictures = {"image": "the start image", "mask": "the mask"}
            found += [word for field, word in pictures.items() if values.get(field) and not self._stored(values[field])]
        return f"Not here, and left as it was: {', '.join(found)}." if found else ""

    def _known(self, field: str, name: str) -> str | None:
        """The name as this program has it, by name, alias or hash; None when it is not here."""
        if field == "checkpoint":
            try:
                found: str = self.engine.library.find(name).name
            except WebUIError:
                return None
            return found
        if field == "schedule" and name == AUTOMATIC:
            return name
        records = self.engine.samplers() if field == "sampler" else self.engine.schedules()
        wanted = name.casefold()
        return next(
            (one.name for one in records if wanted in {alias.casefold() for alias in (one.name, *one.aliases)}), None
        )

    def _schedules(self) -> list[str]:
        return [AUTOMATIC, *(schedule.name for schedule in self.engine.schedules() if schedule.name != AUTOMATIC)]

    def _updates(self, values: Mapping[str, Any]) -> list[Any]:
        """Updates for the checkpoint and every field, in the order of the tab's inputs."""
        values = dict(values)
        for field in ("sampler", "schedule", "checkpoint"):
            if values.get(field) and (known := self._known(field, values[field])) is not None:
                values[field] = known
            else:
                values.pop(field, None)
        checkpoint = values.get("checkpoint", gr.skip())
        return [checkpoint, *(field_update(name, values[name]) if name in values else gr.skip() for name in self.names)]

    def _receiver(self, mode: str) -> Callable[[Path], tuple[Any, ...]]:
        def receive(path: Path) -> tuple[Any, ...]:
            data = path.read_bytes()
            try:
                values = read_values(self.engine, data)
            except WebUIError:
                values = {}  # a picture without text is still a picture to start from
            if not self.has_start:
                return tuple(self._updates(values))
            picture = {"image": self.engine.put_input(data), "name": path.name, "at": time.time()}
            places = (None, picture) if mode == "inpaint" else (picture, None)
            kept = {name: value for name, value in values.items() if name not in START_FIELDS}
            chosen = [gr.skip() if place is None else place for place in places]
            return (mode, gr.Tabs(selected=mode), *chosen, *self._updates(kept))

        return receive

    def _sender(self, name: str, target: Target) -> Callable[[str, float], list[Any]]:
        tab = "img2img" if name == "inpaint" else name

        def send(ids: Sequence[str], index: float) -> list[Any]:
            path = self.engine.output_path(self._output(ids, index).id)
            return [*target.receive(path), gr.Tabs(selected=tab)]

        return send


def field_update(name: str, value: Any) -> Any:
    """The update that puts ``value`` into a field; a slider grows when the value lies outside its range."""
    if name not in SLIDERS or not isinstance(value, int | float):
        return value
    low, high, _, _ = SLIDERS[name]
    if low <= value <= high:
        return value
    return gr.Slider(minimum=min(low, value), maximum=max(high, value), value=value)


def read_values(engine: Engine, data: bytes) -> dict[str, Any]:
    """The field values that a picture's file states.  Raises NotFoundError when it states none.

    ``image`` and ``mask`` are there when its recipe names them; a ``parameters`` text names no pictures.
    """
    found = read_picture_texts(data)
    text = found.get("parameters")
    values = stated_values(engine.read_infotext(data), None if text is None else infotext.parse(text).fields)
    if "recipe" in found and not is_extras(found["recipe"]):
        recorded = values_from_request(Recipe.from_json(found["recipe"]).request.to_dict())
        values |= {name: recorded[name] for name in ("image", "mask", *START_FIELDS) if name in recorded}
    return values


def _refusal(sentence: str) -> dict[str, Any]:
    return {"error": sentence, "at": time.time()}
