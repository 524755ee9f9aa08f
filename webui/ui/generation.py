"""The form of txt2img and img2img: prompts, settings and results, and what their events do.

Generate only builds the request and hands it to the engine; the live widget follows the job by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from webui.diffusion.schedules import resolve_schedule
from webui.engine.extra_files import count_tokens
from webui.errors import NotFoundError, RequestError, WebUIError
from webui.request import GenerationRequest, ScriptUse
from webui.samplers import Sampler
from webui.ui import lists, module_panels, sections, texts
from webui.ui.cards import add_cards
from webui.ui.context import PageContext, Target
from webui.ui.fields import TOP, fields_of
from webui.ui.form import START_FIELDS, request_from_values
from webui.ui.inputs import Inputs, field_update, panel_update
from webui.ui.notices import connect, sentence
from webui.ui.panel_places import add_panels, panel_context
from webui.ui.relevance import relevant
from webui.ui.restoring import Found, fitting, from_picture, from_request, from_text
from webui.ui.results import SHOWN, Results
from webui.ui.scripts import ScriptPanels
from webui.ui.sections import tool
from webui.ui.start_picture import BATCH, PLACES, StartPicture

_RESULTING = ("enable_hr", "width", "height", "hr_upscaler", "hr_scale", "hr_width", "hr_height")
"""The fields that the size after a hires fix hangs on."""


class GenerationTab:
    """Builds one of the two tabs; ``name`` is "txt2img" or "img2img"."""

    def __init__(self, context: PageContext, name: str) -> None:
        self.context = context
        self.engine = context.engine
        self.name = name
        self.has_start = name == "img2img"
        choices = {field: entries(self.engine) for field, entries in lists.LISTS.items()}
        self.inputs = Inputs(name, context.initial, choices)
        self.fields = self.inputs.made
        self.names = (*TOP, *fields_of(name))
        self.start = StartPicture(self.engine)
        self.scripts = ScriptPanels(name, self.engine.scripts(), choices)

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
                panels = gr.Column(elem_id=self._id("panels"), elem_classes=["panels"], min_width=340)
            with gr.Column(elem_id=self._id("results"), elem_classes=["results"], min_width=340):
                empty = (
                    "Choose a picture and describe what it should become." if self.has_start else "Describe a picture."
                )
                self.results = Results(self.engine, self.name, empty)
        self.fields |= self.context.top
        with panels:
            add_panels(self.engine, panel_context(self.context, self.name, self.fields, self.results))
        self.context.forms[self.name] = self.fields
        self.context.follow_lists({name: self.fields[name] for name in lists.FOLDER_LISTS if name in self.fields})
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
                    "what the picture shows. Ctrl+Enter generates; drop a picture here to restore.",
                ),
                ("negative_prompt", "Negative prompt", 2, "what it should not show."),
            ):
                with gr.Group(elem_classes=["prompt-box"]):
                    self.inputs.text(field, show_label=False, placeholder=f"{label}: {hint}", lines=lines, max_lines=12)
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
                self._tool("Earlier prompts", "prompt_history", icon="history")
                self.apply_styles = self._tool("Write the chosen styles into the prompts", "style_apply", icon="apply")
                self.edit_styles = self._tool("Edit styles", "styles_edit_button", icon="edit")
            self.inputs.dropdown(
                "styles",
                multiselect=True,
                show_label=False,
                container=False,
                elem_classes=["styles"],
            )
            self.dropped = gr.File(
                elem_id=self._id("prompt_image"), visible="hidden", interactive=True, file_types=["image"]
            )

    def _build_start(self) -> None:
        self.start.build(self.inputs)
        self.inputs.radio("resize_mode")

    def _build_settings(self) -> None:
        with gr.Row(elem_id=self._id("sampler_row")):
            self.inputs.dropdown("sampler")
            self.inputs.dropdown("schedule")
        self.inputs.slider("steps")
        with gr.Column(elem_id=self._id("accordions"), elem_classes=["accordions"]):
            if not self.has_start:
                sections.hires(self.inputs)
            sections.refiner(self.inputs)
        sections.checkboxes(self.inputs)
        with gr.Row(elem_classes=["dimensions"], elem_id=self._id("dimensions")):
            with gr.Column(min_width=180, scale=4):
                self._build_size()
            with gr.Column(min_width=40, scale=0, elem_classes=["between"]):
                self.swap = self._tool("Swap width and height", "res_switch_btn", icon="swap")
                if self.has_start:
                    self.measure = self._tool("Take the size of the start image", "detect_image_size_btn", icon="ruler")
            with gr.Column(min_width=150, scale=3):
                self.inputs.slider("batch_count")
                self.inputs.slider("batch_size")
        self.inputs.slider("cfg_scale")
        if self.has_start:
            self.inputs.slider("denoising_strength")
        with gr.Row(elem_classes=["seed-row"], elem_id=self._id("seed_row")):
            self.inputs.number("seed")
            self.dice = self._tool("Random seed", "random_seed", icon="dice")
            self.recycle = self._tool("Reuse the seed of the selected picture", "reuse_seed", icon="recycle")
            self.inputs.switch("subseed_show", "subseed_show", min_width=80, scale=0)
        self.subdice, self.subrecycle = sections.seed_extras(self.inputs)
        if self.has_start:
            sections.picture_options(self.inputs)
        sections.sampler_parameters(self.inputs)
        sections.more_options(self.inputs)
        listed = module_panels.listed_by(self.engine.listed, self.inputs.choices)
        self.inputs.modules(module_panels.panels(self.name, self.engine.modules(), listed))
        self.scripts.build()

    def _build_size(self) -> None:
        if not self.has_start:
            self.inputs.slider("width")
            self.inputs.slider("height")
            return
        self.resize_by = gr.Textbox("to", visible=False)
        with gr.Tabs(elem_id="img2img_tabs_resize", selected="to", elem_classes=["small-tabs"]):
            with gr.Tab("Resize to", id="to", elem_id="img2img_tab_resize_to") as to:
                self.inputs.slider("width")
                self.inputs.slider("height")
            with gr.Tab("Resize by", id="by", elem_id="img2img_tab_resize_by") as by:
                self.scale = gr.Slider(
                    0.05, 4, value=1, step=0.05, label="Scale", interactive=True, elem_id="img2img_scale", buttons=[]
                )
                self.scaled = gr.HTML(elem_id="img2img_scale_resolution_preview")
        to.select(None, None, self.resize_by, js="() => 'to'", api_visibility="private")
        by.select(None, None, self.resize_by, js="() => 'by'", api_visibility="private")

    def _id(self, suffix: str) -> str:
        return f"{self.name}_{suffix}"

    def _tool(self, label: str, suffix: str, icon: str | None = None) -> Any:
        return tool(self.name, label, suffix, icon)

    # --- events -----------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        fields, results = self.fields, self.results
        self._wire_generate()
        restored = self._restorable()
        picked = [results.outputs, results.selected]
        self._on(results.live.finished, results.finished, None, results.filled)
        self._on(results.live.attached, self._attach, None, [*results.filled, *restored])
        self._on(results.gallery.select, results.select, results.outputs, [results.selected, results.info])
        self._on(self.paste.click, self._paste, fields["prompt"], restored)
        self._on(self.dropped.upload, self._read_dropped, self.dropped, [self.dropped, *restored])
        self._on(self.recycle.click, results.seed, picked, [fields["seed"]])
        self._on(self.subrecycle.click, results.variation_seed, picked, [fields["variation_seed"]])
        self._wire_prompts()
        self._wire_switches()
        self.scripts.wire(self.context.notice)
        self._wire_in_browser()
        self._offer_as_target()
        self.context.when_built(self._wire_others)

    def _wire_generate(self) -> None:
        fields = [self.fields[name] for name in self.names]
        everything = [*fields, *self.scripts.components]
        if not self.has_start:
            self._on(self.generate.click, self._generate, everything, [self.results.live], js=self._as_on_screen(0))
            picked = [self.results.outputs, self.results.selected]
            self._on(self.results.upscale.click, self._upscale, [*picked, *fields], [self.results.live])
            return
        self._on(
            self.generate.click,
            self._generate_from_picture,
            [*self.start.inputs, self.resize_by, self.scale, *everything],
            [self.results.live],
            js=self._as_on_screen(len(self.start.inputs) + 2, *self.start.on_screen()),
        )
        for button, mode, other in self.start.copies:
            js = f"async (value) => [await window.webui.canvas('{PLACES[mode].canvas}', value)]"
            self._on(button.click, self.start.copier(other), self.start.canvases[mode], self.start.places, js=js)
        self._on(self.start.mode.change, _masking, self.start.mode, [self.start.masking])

    def _as_on_screen(self, before: int, *canvases: tuple[int, str]) -> str:
        """JavaScript that puts, into an event's inputs, pictures and modules as they are on the screen, masks stored.

        ``before`` counts the inputs before the fields; ``canvases`` are places and element ids.
        """
        place = before + self.names.index("modules")
        asked = [f"values[{at}] = await window.webui.canvas('{name}', values[{at}]);" for at, name in canvases]
        asked.append(f"values[{place}] = await window.webui.modulesOf('{self.name}', values[{place}]);")
        return f"async (...values) => {{ {' '.join(asked)} return values; }}"

    def _wire_prompts(self) -> None:
        fields = self.fields
        prompts = [fields["prompt"], fields["negative_prompt"]]
        counted = [*prompts, fields["styles"]]
        counters = [self.counters["prompt"], self.counters["negative_prompt"]]
        self._on_any(counted, self._count, counted, counters)
        self._on(self.apply_styles.click, self._apply_styles, counted, [*prompts, fields["styles"]])

    def _wire_switches(self) -> None:
        """What a switch opens, which fields mean something, and what size comes out."""
        fields = self.fields
        for name, panel in self.inputs.panels.items():
            self._on(fields[name].input, _opener(panel), fields[name], [panel])
            if isinstance(panel, gr.Accordion):
                panel.expand(None, None, fields[name], js="() => true", api_visibility="private")
                panel.collapse(None, None, fields[name], js="() => false", api_visibility="private")
        asked = [fields[name] for name in ("sampler", "schedule", "hr_sampler", "hr_schedule") if name in fields]
        relevance = self._relevant(self.context.initial["sampler"], self.context.initial["schedule"])
        hidden = [fields[name] for name in relevance]
        for name, shown in relevance.items():
            fields[name].visible = shown
        self._on_any(asked, self._hide, asked, hidden)
        if not self.has_start:
            sized = [fields[name] for name in _RESULTING]
            self._on_any(sized, self._resulting_size, sized, [self.inputs.note])
            return
        changing = (self.scale, self.start.mode, *self.start.canvases.values(), self.resize_by)
        self._on_any(changing, self._scaled_size, [*self.start.inputs, self.scale], [self.scaled])

    def _wire_in_browser(self) -> None:
        """What needs no server."""
        fields = self.fields
        size = [fields["width"], fields["height"]]
        prompts = [fields["prompt"], fields["negative_prompt"]]
        self.clear.click(None, None, prompts, js="() => ['', '']", api_visibility="private")
        self.swap.click(None, size, size, js="(width, height) => [height, width]", api_visibility="private")
        self.dice.click(None, None, fields["seed"], js="() => -1", api_visibility="private")
        self.subdice.click(None, None, fields["variation_seed"], js="() => -1", api_visibility="private")
        if self.has_start:
            self.measure.click(
                None,
                [self.start.mode, *self.start.canvases.values(), *size],
                size,
                js=self.start.measuring(),
                api_visibility="private",
            )

    def _offer_as_target(self) -> None:
        for mode in PLACES if self.has_start else ("txt2img",):
            self.context.targets[mode] = Target(outputs=tuple(self._restorable()), receive=self._receiver(mode))

    def _wire_others(self) -> None:
        for name, button in self.results.sends.items():
            if (target := self.context.targets.get(name)) is not None:
                outputs = [*target.outputs, self.context.tabs]
                picked = [self.results.outputs, self.results.selected]
                self._on(button.click, self._sender(name, target), picked, outputs)
        editor, fields = self.context.styles_editor, self.fields
        editor.watch(fields["styles"])
        editor.open_from(self.edit_styles, fields["styles"], fields["prompt"], fields["negative_prompt"])

    def _on(self, trigger: Any, event: Callable[..., Any], inputs: Any, outputs: Sequence[Any], **how: Any) -> None:
        connect(trigger, event, inputs, outputs, self.context.notice, **how)

    def _on_any(
        self, components: Sequence[Any], event: Callable[..., Any], inputs: Any, outputs: Sequence[Any]
    ) -> None:
        """Let a change of any of ``components`` run ``event``, one run at a time and the last change always.

        One event for all of them: answers of several could overtake each other, and an old one would stay.
        """
        any_change = partial(gr.on, [component.change for component in components])
        self._on(any_change, event, inputs, outputs, trigger_mode="always_last")

    def _restorable(self) -> list[Any]:
        """Every component that a text or picture may fill."""
        places = self.start.places if self.has_start else []
        return [*places, *(self.fields[name] for name in self.names), *self.inputs.panels.values()]

    # --- what the events do -----------------------------------------------------------------------------------

    def _generate(self, *values: Any) -> dict[str, Any]:
        own = len(self.names)
        return self._submit(self._asked(values[:own]), values[own:])

    def _asked(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.names, values, strict=True))

    def _generate_from_picture(self, *values: Any) -> dict[str, Any]:
        count = len(self.start.inputs)
        given, (resize_by, scale), rest = values[:count], values[count : count + 2], values[count + 2 :]
        own = len(self.names)
        fields = self._asked(rest[:own])
        scaled = scale if resize_by == "by" else None
        try:
            start = self.start.start(given)
            fields["image"], fields["mask"] = start.image, start.mask
            if scaled is not None:
                _, (fields["width"], fields["height"]) = self.start.sizes(start.image, scaled)
            return self._submit(fields, rest[own:], self.start.batch(given, scaled))
        except WebUIError as error:
            return _refusal(str(error))

    def _submit(
        self, values: Mapping[str, Any], script: Sequence[Any], batch: ScriptUse | None = None
    ) -> dict[str, Any]:
        """Queue what the fields and the script's boxes ask for; a ``batch`` is a script, too."""
        try:
            chosen = self.scripts.asked(script)
            if chosen is not None and batch is not None:
                raise RequestError(f'A batch cannot run the script "{chosen.name}" as well; set Script to None.')
            return self._queue(replace(request_from_values(values), script=batch or chosen))
        except WebUIError as error:
            return _refusal(str(error))

    def _queue(self, request: GenerationRequest) -> dict[str, Any]:
        return {"job": self.engine.submit(request).id, "at": time.time()}

    def _upscale(self, ids: Sequence[str], index: float, *values: Any) -> dict[str, Any]:
        """The selected picture made again with the hires fix of the form, whether that is switched on or not."""
        try:
            request = self.results.request(ids, index)
            if request.start is not None:
                raise RequestError("This picture was made from another one; hires fix belongs to txt2img.")
            wanted = request_from_values({**self._asked(values), "enable_hr": True}).second_pass
            return self._queue(replace(request, second_pass=wanted))
        except WebUIError as error:
            return _refusal(str(error))

    def _count(self, prompt: str | None, negative: str | None, styles: Sequence[str] | None) -> list[str]:
        """The counters' texts; what the chosen styles add is counted."""
        said = (prompt or "", negative or "")
        with suppress(WebUIError):  # Generate says what is wrong with a style
            said = self.engine.styles().apply(styles or (), *said)
        tokenizer, library = self.context.tokenizer, self.engine.library
        return [texts.token_counter(*count_tokens(text, library, tokenizer)) for text in said]

    def _apply_styles(self, prompt: str | None, negative: str | None, styles: Sequence[str] | None) -> list[Any]:
        if not styles:
            raise NotFoundError("No style is chosen; choose one in the list first.")
        return [*self.engine.styles().apply(styles, prompt or "", negative or ""), []]

    def _relevant(self, sampler: str, schedule: str, hr_sampler: str = "", hr_schedule: str = "") -> dict[str, bool]:
        """Field -> whether it means something; the names of the hires pass count where they are its own."""
        samplers = {one.name: one for one in self.engine.samplers()}
        schedules = self.engine.schedules()
        known = {"Automatic", *(one.name for one in schedules)}
        chosen: list[Sampler] = [samplers[name] for name in (sampler, hr_sampler) if name in samplers]
        named = [name for name in (schedule, hr_schedule) if name in known]
        return relevant(chosen, [resolve_schedule(one, name, schedules) for one in chosen for name in named])

    def _hide(self, *names: str | None) -> list[Any]:
        return [gr.update(visible=shown) for shown in self._relevant(*(name or "" for name in names)).values()]

    def _resulting_size(self, *values: Any) -> str:
        """What comes out of a hires fix, in words; "" when it is off or its numbers are not whole yet."""
        asked = dict(zip(_RESULTING, values, strict=True))
        if not asked["enable_hr"]:
            return ""
        try:
            request = request_from_values(asked)
        except WebUIError as error:
            return texts.header_note(str(error))
        second = request.second_pass
        return texts.resulting_size(request.size, second.size(request.size)) if second else ""

    def _scaled_size(self, *values: Any) -> str:
        return self.start.scaled(values[:-1], values[-1])

    def _attach(self, event: gr.EventData) -> list[Any]:
        try:
            job = self.engine.job(str(event.job))
        except NotFoundError:
            return [gr.skip()] * (SHOWN + len(self._restorable()))
        latest = self.results.latest(job)
        shown = self.results.shown(latest) if latest is not None else [gr.skip()] * SHOWN
        request = GenerationRequest.from_dict(job.request)
        found = from_request(self.engine, request, self.name)
        batch = {"seed": gr.skip(), "batch_count": request.batch_count, "batch_size": request.batch_size}
        return [*shown, *self._restored(replace(found, values={**found.values, **batch}, homeless=()))]

    def _paste(self, prompt: str | None) -> list[Any]:
        if (prompt or "").strip():
            return self._restored(from_text(self.engine, prompt or "", self.name))
        last = self.results.last()
        if last is None:
            raise NotFoundError("There is no picture yet, and the prompt is empty: there is nothing to read.")
        return self._restored(self._read(self.engine.output_path(last.id).read_bytes()))

    def _read(self, data: bytes) -> Found:
        return from_picture(self.engine, data, self.name)

    def _read_dropped(self, path: str) -> list[Any]:
        return [None, *self._restored(self._read(Path(path).read_bytes()))]

    def _restored(self, found: Found) -> list[Any]:
        """Updates for the start image and every field, and a notice about what is not here."""
        values, words = fitting(self.engine, found, self.name)
        places = self.start.restored(found.values) if self.has_start else []
        pictures = self.start.lost(found.values) if self.has_start else ""
        words = " ".join(filter(None, (words, pictures)))
        return [*places, *self._updates(values), *([sentence(words)] if words else [])]

    def _updates(self, values: Mapping[str, Any]) -> list[Any]:
        """Updates for every field in the order of the tab's inputs, then for what the switches open."""
        shown: dict[str, bool] = {}
        if "sampler" in values:
            chosen = (str(values.get(name, "")) for name in ("sampler", "schedule", "hr_sampler", "hr_schedule"))
            shown = self._relevant(*chosen)
        fields = [
            field_update(name, values[name], shown.get(name)) if name in values else gr.skip() for name in self.names
        ]
        panels = [
            panel_update(panel, bool(values[name])) if name in values else gr.skip()
            for name, panel in self.inputs.panels.items()
        ]
        return [*fields, *panels]

    def _receiver(self, mode: str) -> Callable[[Path], tuple[Any, ...]]:
        def receive(path: Path) -> tuple[Any, ...]:
            data = path.read_bytes()
            try:
                found = self._read(data)
            except WebUIError:
                found = Found({})  # a picture without text is still a picture to start from
            values, _ = fitting(self.engine, found, self.name)
            if not self.has_start:
                return tuple(self._updates(values))
            picture = {"image": self.engine.put_input(data), "name": path.name}
            kept = {name: value for name, value in values.items() if name not in START_FIELDS}
            return (*self.start.shown(mode, picture), *self._updates(kept))

        return receive

    def _sender(self, name: str, target: Target) -> Callable[[str, float], list[Any]]:
        tab = "img2img" if name in PLACES else name

        def send(ids: Sequence[str], index: float) -> list[Any]:
            return [*target.receive(self.results.path(ids, index)), gr.Tabs(selected=tab)]

        return send


def _masking(mode: str) -> Any:
    """Whether the settings of inpainting are shown."""
    return gr.update(visible=mode == BATCH or (mode in PLACES and PLACES[mode].is_masked))


def _opener(panel: Any) -> Callable[[bool], Any]:
    return lambda on: panel_update(panel, bool(on))


def _refusal(sentence: str) -> dict[str, Any]:
    return {"error": sentence, "at": time.time()}
