"""The tab: choose a picture, have it made again with the module on, look.  Server process; no torch.

All that moves goes through two widgets: ``Live`` follows the job as on every tab, and ``pulse`` asks again while
something grows, remembers the job over a reload, and hands files to the browser.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from webui.engine import extras
from webui.engine.jobs import GENERATING, Job, JobState, Output
from webui.errors import MetadataError, NotFoundError, PictureError, WebUIError
from webui.images.pixels import read_pixels
from webui.metadata.files import pixel_digest, read_picture_texts
from webui.metadata.recipe import Recipe, request_of_one
from webui.request import GenerationRequest, ModuleUse
from webui.ui.context import PageContext
from webui.ui.notices import connect
from webui.ui.widgets.live import Live

from . import animation, capture, document, plan
from .module import DECODERS, MOST_FRAMES, NAME, VAE

if TYPE_CHECKING:
    from webui.engine.engine import Engine

RECENT = 12
LOOKED_THROUGH = 60
"""So many of the newest jobs are looked through for pictures."""
THUMBNAIL = 384
DROPPED = "dropped"
"""Chosen is what lies on the box."""


def build(context: PageContext) -> None:
    """Create the tab's components and events inside the open tab."""
    XRayTab(context).build()


class XRayTab:
    """Builds the tab."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.engine: Engine = context.engine

    def build(self) -> None:
        """Create the components and their events."""
        with gr.Row(elem_classes=["workbench"]):
            with gr.Column(scale=2, min_width=300, elem_id="xray_settings", elem_classes=["settings"]):
                self._build_choice()
            with gr.Column(scale=5, min_width=340, elem_id="xray_results", elem_classes=["results"]):
                self.live = Live(tab=NAME, elem_id="xray_live", empty=_HELP)
                self.view = gr.HTML(_styled(""), elem_id="xray_view", apply_default_css=False)
                with gr.Row(elem_id="xray_exports", elem_classes=["image-buttons"]):
                    self.as_html = gr.Button("Save as one HTML file", size="sm", elem_id="xray_save_html")
                    self.as_gif = gr.Button("Save as GIF", size="sm", elem_id="xray_save_gif")
        self.chosen = gr.Textbox("", visible=False)  # what is to be made again: an output's id, or DROPPED
        self.ids = gr.JSON([], visible=False)  # the ids of the newest pictures
        self.shown = gr.Textbox("", visible=False)  # the id of the job that is looked at
        self.pulse = gr.HTML(html_template=_PULSE, js_on_load=_SCRIPT, elem_id="xray_pulse", apply_default_css=False)
        self._wire()

    def _build_choice(self) -> None:
        self.recent = gr.Gallery(
            label="Newest pictures",
            show_label=False,
            elem_id="xray_recent",
            columns=4,
            height="auto",
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
        )
        self.picture = gr.Image(
            type="filepath",
            image_mode=None,  # keeps the uploaded bytes as they are, text chunks included
            sources=["upload", "clipboard"],
            label="Picture",
            interactive=True,
            elem_id="xray_image",
            elem_classes=["drop-image"],
            height=240,
            buttons=[],
        )
        self.go = gr.Button("X-ray this picture", variant="primary", elem_id="xray_generate")
        with gr.Row(elem_classes=["while-running"]):
            gr.Button("Interrupt", variant="stop", elem_id="xray_interrupt", min_width=60)
        self.attach = gr.Button("Look at the job that runs now", size="sm", elem_id="xray_attach")
        with gr.Row():
            self.frames = gr.Slider(
                2, MOST_FRAMES, value=8, step=1, label="Pictures on the way", interactive=True,
                elem_id="xray_frames", buttons=[],
            )  # fmt: skip
            self.decoder = gr.Radio(
                list(DECODERS), value=VAE, label="Decoder", interactive=True, elem_id="xray_decoder", min_width=140
            )

    # --- events -------------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        looked = [self.view, self.shown, self.pulse]
        picked = [self.chosen, self.picture]
        begin = [self.chosen, self.picture, self.ids, self.frames, self.decoder]
        self._on(self.go.click, self._begin, begin, [self.live, *looked, *picked])
        self._on(self.attach.click, self._attach, None, looked)
        self._on(self.recent.select, self._pick, self.ids, [*picked, *looked])
        self._on(self.picture.upload, self._drop, self.picture, [self.chosen, *looked])
        self._on(self.picture.clear, lambda: "", None, [self.chosen])
        self._on(self.live.finished, self._finished, self.shown, [*looked, self.recent, self.ids])
        self._on(self.pulse.tick, self._tick, None, [*looked, *picked])
        self._on(self.pulse.opened, self._opened, self.shown, [self.recent, self.ids, self.live, *looked])
        self._on(self.as_html.click, self._save_html, self.shown, [self.pulse])
        self._on(self.as_gif.click, self._save_gif, self.shown, [self.pulse])

    def _on(self, trigger: Any, event: Any, inputs: Any, outputs: list[Any]) -> None:
        connect(trigger, event, inputs, outputs, self.context.notice)

    def _begin(self, chosen: str, picture: str | None, newest: list[str], frames: float, decoder: str) -> list[Any]:
        """Make the chosen picture again under X-ray, or the newest one when none is chosen.

        ``picture`` is where Gradio keeps what lies on the box, the only path that a client can mean.
        """
        picked = [gr.skip(), gr.skip()]
        try:
            if not chosen and newest:
                chosen = f"output:{newest[0]}"
                picked = [chosen, str(self.engine.output_path(newest[0]))]
            request, pixels = self._asked(self._file(chosen, picture))
            use = ModuleUse(name=NAME, options={"frames": int(frames), "decoder": decoder, "source": pixels})
            others = tuple(one for one in request.modules if one.name != NAME)
            job = self.engine.submit(replace(request, modules=(*others, use)))
        except WebUIError as error:
            return [{"error": str(error), "at": time.time()}, gr.skip(), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        return [{"job": job.id, "at": time.time()}, *self._looked(job), *picked]

    def _asked(self, file: Path) -> tuple[GenerationRequest, str]:
        """The request of the chosen picture alone, and the digest of its pixels."""
        data = file.read_bytes()
        texts = read_picture_texts(data)
        if extras.is_extras(texts.get("recipe", "")):
            raise MetadataError("This picture was made of another one (Extras), so no walk from noise led to it.")
        if "recipe" in texts:
            recipe = Recipe.from_json(texts["recipe"])
            return request_of_one(recipe), recipe.pixels
        back = self.engine.read_infotext(data)
        if back.start:
            raise MetadataError("It was made from another picture, which its text does not hold.")
        return replace(back.request, batch_size=1, batch_count=1), pixel_digest(read_pixels(data))

    def _file(self, chosen: str, picture: str | None) -> Path:
        """The file of the chosen picture.  Raises PictureError when there is none, NotFoundError when it is gone."""
        kind, _, output_id = chosen.partition(":")
        if kind == "output":
            return self.engine.output_path(output_id)
        if chosen != DROPPED or not picture:
            raise PictureError("There is no picture yet; make one, or drop one with its recipe on the box.")
        return Path(picture)

    def _attach(self) -> list[Any]:
        jobs = [job for job in self.engine.active() if job.kind == GENERATING]
        if not jobs:
            raise NotFoundError("No picture is being made now; press Generate on another tab first.")
        return self._looked(jobs[0])

    def _pick(self, ids: list[str], event: gr.SelectData) -> list[Any]:
        output = self.engine.output(ids[int(event.index)])
        path = self.engine.output_path(output.id)
        job = self._job_of(output.id)
        looked = self._looked(job) if job is not None else [gr.skip()] * 3
        return [f"output:{output.id}", str(path), *looked]

    def _job_of(self, output_id: str) -> Job | None:
        jobs = self.engine.jobs(LOOKED_THROUGH)
        return next((job for job in jobs if any(output.id == output_id for output in job.outputs)), None)

    def _drop(self, path: str | None) -> list[Any]:
        if not path:
            return ["", gr.skip(), gr.skip(), gr.skip()]
        request, _ = self._asked(Path(path))
        html = _styled(
            _note(_PRESS) + document.fragment([plan.known(request, self.engine, self.context.tokenizer)], None)
        )
        return [DROPPED, html, "", gr.skip()]

    def _finished(self, shown: str, event: gr.EventData) -> list[Any]:
        """A job is over: its view, unless another one was begun meanwhile, which is looked at instead."""
        if shown and shown != str(event.job):
            return [gr.skip(), gr.skip(), gr.skip(), *self._newest()]
        return [*self._looked(self.engine.job(str(event.job))), *self._newest()]

    def _tick(self, event: gr.EventData) -> list[Any]:
        """What is new of the job that is looked at; when it has ended without X-ray, its picture is chosen."""
        job = self.engine.job(str(event.job))
        looked = self._looked(job, seen=str(event.mark))
        if job.state is JobState.DONE and not _is_seen(job) and job.outputs:
            output = job.outputs[0]
            return [*looked, f"output:{output.id}", str(self.engine.output_path(output.id))]
        return [*looked, gr.skip(), gr.skip()]

    def _opened(self, shown: str, event: gr.EventData) -> list[Any]:
        """The tab came onto the screen: the newest pictures, and after a reload the job that was looked at."""
        try:
            job = self.engine.job(str(event.job)) if event.job and not shown else None
        except NotFoundError:
            job = None
        if job is None:
            return [*self._newest(), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        follow = {"job": job.id, "at": time.time()} if _is_seen(job) and not job.state.is_over else gr.skip()
        return [*self._newest(), follow, *self._looked(job)]

    def _newest(self) -> list[Any]:
        """Updates for the newest pictures and their ids."""
        found: list[tuple[Path, Output]] = []
        for job in self.engine.jobs(LOOKED_THROUGH):
            if job.kind != GENERATING:
                continue
            for output in reversed(job.outputs):
                if output.index >= 0 and len(found) < RECENT and (path := self._path(output.id)) is not None:
                    found.append((path, output))
        return [gr.Gallery(value=[str(path) for path, _ in found], selected_index=None), [one.id for _, one in found]]

    def _path(self, output_id: str) -> Path | None:
        try:
            return self.engine.output_path(output_id)
        except NotFoundError:
            return None

    # --- what is shown ------------------------------------------------------------------------------------------

    def _looked(self, job: Job, seen: str = "") -> list[Any]:
        """Updates for the view, the job that is shown, and the pulse; the view is left alone where it was ``seen``."""
        passes = self._passes(job.id)
        known = ".".join(str(len(one.frames)) for one in passes)
        mark = f"{job.state} {known} {job.progress.step if not passes else ''}"
        pulse = json.dumps({"job": job.id, "running": not job.state.is_over, "mark": mark, "at": time.time()})
        return [gr.skip() if mark == seen else _styled(self._html(job, passes)), job.id, pulse]

    def _html(self, job: Job, passes: list[capture.Pass]) -> str:
        running = not job.state.is_over
        if passes:
            return self._verdict(job) + document.fragment(passes, self._final(job, passes), running=running)
        if _is_seen(job) and running:
            return ""
        if job.kind != GENERATING or job.request.get("script"):
            return _note("This job makes more than one kind of picture; choose one of its pictures instead.")
        request = GenerationRequest.from_dict(job.request)
        one = plan.known(request, self.engine, self.context.tokenizer, steps_done=job.progress.step if running else 0)
        note = _GONE if _is_seen(job) else _ATTACHED if running else _PRESS
        return _note(note) + self._preview(job) + document.fragment([one], None)

    def _preview(self, job: Job) -> str:
        data = self.engine.preview(job.id) if not job.state.is_over else None
        return "" if data is None else document.picture(data, "The rough picture as it is now")

    def _verdict(self, job: Job) -> str:
        """Whether the picture that was made again is the chosen one."""
        source = _options(job).get("source", "")
        final = next(iter(job.outputs), None)
        if not source or job.state is not JobState.DONE or final is None or (path := self._path(final.id)) is None:
            return ""
        same = pixel_digest(read_pixels(path.read_bytes())) == source
        return _note(_SAME, "good") if same else _note(_OTHER, "warn")

    def _passes(self, job_id: str) -> list[capture.Pass]:
        folder = capture.folder_of(self.engine.settings.state_dir / "modules" / NAME, job_id)
        return capture.passes(folder) if folder is not None else []

    def _final(self, job: Job, passes: list[capture.Pass]) -> bytes | None:
        """The picture that was seen, small, as a JPEG; None while it is not there."""
        index = passes[-1].facts["picture"]
        output = next((one for one in job.outputs if one.index == index), None)
        path = self._path(output.id) if output is not None else None
        if path is None:
            return None
        picture = Image.fromarray(read_pixels(path.read_bytes()))
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=90)
        return stream.getvalue()

    # --- files --------------------------------------------------------------------------------------------------

    def _save_html(self, shown: str) -> str:
        job, passes = self._exported(shown)
        text = document.document(
            f"X-ray of a picture, seed {passes[0].facts['seed']}", passes, self._final(job, passes)
        )
        return _download(f"xray-{passes[0].facts['seed']}.html", "text/html", text.encode())

    def _save_gif(self, shown: str) -> str:
        job, passes = self._exported(shown)
        data = animation.gif(passes, self._final(job, passes))
        if not data:
            raise NotFoundError("There are no pictures of the way yet.")
        return _download(f"xray-{passes[0].facts['seed']}.gif", "image/gif", data)

    def _exported(self, shown: str) -> tuple[Job, list[capture.Pass]]:
        passes = self._passes(shown) if shown else []
        if not passes:
            raise NotFoundError("There is no X-ray to save yet; choose a picture and press X-ray this picture.")
        return self.engine.job(shown), passes


def _is_seen(job: Job) -> bool:
    """Whether a job is made with the module on."""
    return any(use["name"] == NAME for use in job.request.get("modules", ()))


def _options(job: Job) -> Mapping[str, Any]:
    return next((use["options"] for use in job.request.get("modules", ()) if use["name"] == NAME), {})


def _download(name: str, kind: str, data: bytes) -> str:
    """The value that makes the pulse hand a file to the browser."""
    file = {"name": name, "type": kind, "data": base64.b64encode(data).decode()}
    return json.dumps({"file": file, "at": time.time()})


def _styled(html: str) -> str:
    return f"<style>{document.style()}</style>{html}"


def _note(text: str, kind: str = "") -> str:
    return f'<p class="x-said {kind}">{text}</p>'


_PRESS = (
    "This is what its recipe tells. Press <b>X-ray this picture</b> to have it made again and look inside: "
    "the picture on its way, where each word looked, what CFG did."
)
_ATTACHED = (
    "This job runs without X-ray. Known of it meanwhile are its prompt, the levels it is to come down, how far it is, "
    "and the rough preview. The rest can be seen when the picture is made again: wait for it, then press "
    "<b>X-ray this picture</b>."
)
_GONE = "What was seen of this job is not kept any more. Press <b>X-ray this picture</b> to look again."
_SAME = "Made again bit for bit: every pixel is the same as in the picture you chose."
_OTHER = (
    "The picture made now is not the one you chose, down to the last bit (another device, version or extension). "
    "What you see is how this one came to be."
)
_HELP = (
    '<div class="empty-art"></div><p>Look inside a picture.</p><p class="muted">Make a picture, then choose it here '
    "and press <b>X-ray this picture</b>. It is made again, to the same pixels, while each step is watched: how the "
    "prompt was read, the noise it came down, where each word looked, what CFG did. "
    "A file with a recipe can be dropped, too.</p>"
)
_PULSE = '<span class="x-pulse" style="display:block;height:1px"></span>'
_SCRIPT = """
const KEY = "webui.xray";
let timer = null, first = true;
const recall = () => { try { return sessionStorage.getItem(KEY) || ""; } catch { return ""; } };
const keep = (job) => { try { sessionStorage.setItem(KEY, job); } catch { /* storage is switched off */ } };
watch("value", () => {
  const value = props.value ? JSON.parse(props.value) : {};
  if (value.file) return save(value.file);
  clearTimeout(timer);
  if (!value.job) return;
  keep(value.job);
  if (value.running) timer = setTimeout(() => trigger("tick", { job: value.job, mark: value.mark }), 1200);
});
function save(file) {
  const bytes = Uint8Array.from(atob(file.data), (letter) => letter.charCodeAt(0));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: file.type }));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
new IntersectionObserver((seen) => {
  if (!seen.some((one) => one.isIntersecting)) return;
  trigger("opened", { job: first ? recall() : "" });
  first = false;
}, { rootMargin: "20000px" }).observe(element);  // wherever on the tab it stands
"""
