"""What the PNG Info tab shows and does: the file's text, its recipe, sending it on, and Reproduce."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from webui.engine.jobs import Job
from webui.errors import PictureError, WebUIError
from webui.metadata.files import read_picture_texts
from webui.metadata.infotext import layout, parse
from webui.ui import texts
from webui.ui.context import PageContext, Target
from webui.ui.notices import connect
from webui.ui.widgets.live import Live

if TYPE_CHECKING:
    from webui.engine.engine import Engine


def build_png_info(context: PageContext) -> None:
    """Create the tab's components and events inside the open tab."""
    engine = context.engine
    with gr.Row(elem_classes=["workbench"]):
        with gr.Column(min_width=340, elem_classes=["settings"]):
            # image_mode=None keeps the uploaded bytes as they are, text chunks included.
            picture = gr.Image(
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                label="Source",
                interactive=True,
                elem_id="pnginfo_image",
                elem_classes=["drop-image"],
                height=420,
                buttons=["fullscreen"],
            )
            with gr.Row(elem_id="pnginfo_buttons", elem_classes=["image-buttons"]):
                reproduce = gr.Button("Reproduce", variant="primary", elem_id="pnginfo_reproduce")
                sends = {
                    name: gr.Button(
                        f"Send to {'Extras' if name == 'extras' else name}",
                        size="sm",
                        elem_id=f"pnginfo_send_to_{name}",
                    )
                    for name in ("txt2img", "img2img", "inpaint", "extras")
                }
            gr.HTML('<p class="muted hint">Reproduce runs the recipe in this file again and compares every pixel.</p>')
        with gr.Column(min_width=340, elem_classes=["results"]):
            live = Live(tab="pnginfo", elem_id="pnginfo_live")
            verdict = gr.HTML(elem_id="pnginfo_verdict")
            info = gr.HTML(_HELP, elem_id="pnginfo_html_info", elem_classes=["picture-info"])

    def show(path: str | None) -> tuple[str, str, Any]:
        return (_describe(engine, Path(path)) if path else _HELP), "", {"shown": "", "at": time.time()}

    def run(path: str | None) -> tuple[Any, str]:
        source = _chosen(path)
        try:
            job = engine.reproduce(source.read_bytes(), source.name)
        except WebUIError as error:
            return gr.skip(), texts.verdict("cannot run", reasons=[str(error)])
        return {"job": job.id, "at": time.time()}, ""

    def finished(event: gr.EventData) -> tuple[Any, str]:
        job = engine.job(str(event.job))
        return {"shown": job.id, "at": time.time()}, _verdict(job)

    notice = context.notice
    connect(picture.change, show, picture, [info, verdict, live], notice)
    connect(reproduce.click, run, picture, [live, verdict], notice)
    connect(live.finished, finished, None, [live, verdict], notice)
    context.targets["pnginfo"] = Target(outputs=(picture,), receive=lambda path: (str(path),))

    def wire() -> None:
        for name, button in sends.items():
            target = context.targets[name]
            connect(button.click, _sender(name, target), picture, [*target.outputs, context.tabs], notice)

    context.when_built(wire)


def _sender(name: str, target: Target) -> Callable[[str | None], list[Any]]:
    tab = "img2img" if name == "inpaint" else name

    def send(path: str | None) -> list[Any]:
        return [*target.receive(_chosen(path)), gr.Tabs(selected=tab)]

    return send


def _chosen(path: str | None) -> Path:
    if not path:
        raise PictureError("There is no picture; choose one first, or drop it on the box.")
    return Path(path)


def _describe(engine: Engine, path: Path) -> str:
    """The file's text for reading; when there is none, the sentence that says so."""
    data = path.read_bytes()
    try:
        found = read_picture_texts(data)
        back = engine.read_infotext(data)
        recipe = texts.recipe(json.loads(found["recipe"])) if "recipe" in found else ""
    except (WebUIError, ValueError) as error:
        return texts.notes([str(error)])
    unmapped = [f"Not used here: {pair}" for pair in back.unmapped]
    if "postprocessing" in found:
        unmapped.insert(0, f"Afterwards: {found['postprocessing']}")
    text = found.get("parameters", "")
    if back.items and "recipe" not in found and back.items.items() - parse(text).fields.items():
        text = layout(back.request.prompt, back.request.negative_prompt, back.items)
        unmapped.insert(0, f"Read from what {back.program} wrote, in the words of AUTOMATIC1111.")
    return texts.infotext(text) + texts.notes(unmapped) + recipe


def _verdict(job: Job) -> str:
    if job.verdict is None:
        return texts.verdict("cannot run", reasons=[job.error or "It was interrupted."])
    found = job.verdict
    reasons = [
        *found.get("reasons", ()),
        *(f"Not recorded in the file: {fact}." for fact in found.get("not_recorded", ())),
    ]
    return texts.verdict(
        str(found["outcome"]),
        reasons=reasons,
        ssim=found.get("ssim"),
        psnr=found.get("psnr_db"),
        largest=found.get("largest_difference"),
    )


_TO_EXTRAS = ("extras", "Extras")
_HELP = (
    '<div class="info-help"><p>Drop a picture to read how it was made.</p><p class="muted">Files of this program, '
    "AUTOMATIC1111, Forge, ComfyUI, InvokeAI, Fooocus and NovelAI are read. A picture pasted from the clipboard has "
    "lost its text: browsers strip it."
    "</p></div>"
)
