"""What the Train tab shows and does: the form, the check of a folder, starting, and using what came out.

Train only hands the fields to the engine; the live widget follows the training by itself.
"""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from webui.engine.jobs import TRAINING, Job
from webui.errors import NotFoundError, PictureError, RequestError, WebUIError
from webui.training.data import DataSet, read_data
from webui.training.kinds import TrainingKind
from webui.training.request import Data
from webui.ui import training_texts
from webui.ui.context import PageContext
from webui.ui.notices import connect, sentence
from webui.ui.training_form import chosen_kind, plain_from_values, values_from_plain
from webui.ui.widgets.training import TrainingForm, TrainingLive

if TYPE_CHECKING:
    from webui.engine.engine import Engine

THUMBNAILS = 6
THUMBNAIL_PX = 96
LOOKED_THROUGH = 500
"""So many of the newest jobs are looked through for trainings."""
LISTED = 12


def build_train(context: PageContext) -> None:
    """Create the tab's components and events inside the open tab."""
    TrainTab(context).build()


class TrainTab:
    """Builds the tab."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.engine: Engine = context.engine
        self.kinds: Mapping[str, TrainingKind] = {kind.name: kind for kind in self.engine.training_kinds()}

    def build(self) -> None:
        """Create the components and their events."""
        with gr.Row(elem_classes=["workbench"]):
            with gr.Column(elem_id="train_settings", elem_classes=["settings"], min_width=340):
                self.form = TrainingForm(
                    form=training_texts.form(self.kinds, self._checkpoints()), elem_id="train_form"
                )
            with gr.Column(elem_id="train_results", elem_classes=["results"], min_width=340):
                self.live = TrainingLive(elem_id="train_live", empty=_EMPTY)
                self.list = gr.HTML(elem_id="train_trainings")
        notice = self.context.notice
        connect(self.form.look, self._look, None, [self.form], notice)
        connect(self.form.begin, self._begin, None, [self.live], notice)
        connect(self.form.refresh, self._refresh, None, [self.form], notice)
        connect(self.live.changed, self._changed, None, [self.list, self.form], notice)
        connect(self.live.settings, self._settings, None, [self.form], notice)
        self.context.when_built(self._wire_use)

    def _wire_use(self) -> None:
        """What came out goes into the prompt of txt2img, where that tab is there."""
        if "txt2img" not in self.context.forms:
            return
        prompt = self.context.forms["txt2img"]["prompt"]
        outputs = [prompt, self.context.checkpoint, self.context.tabs]
        connect(self.live.use, self._use, prompt, outputs, self.context.notice)

    # --- what the events do -----------------------------------------------------------------------------------

    def _begin(self, event: gr.EventData) -> dict[str, Any]:
        try:
            job = self.engine.submit_training(plain_from_values(event.values, self.kinds))
        except WebUIError as error:
            return {"error": str(error), "at": time.time()}
        return {"job": job.id, "at": time.time()}

    def _look(self, event: gr.EventData) -> dict[str, Any]:
        html, items = self._checked(event.values)
        return {"checked": {"turn": event.turn, "html": html, "items": items}, "at": time.time()}

    def _checked(self, values: Mapping[str, Any]) -> tuple[str, int]:
        """What the named folders hold, for reading, and how many pictures an epoch has (0: unknown)."""
        try:
            kind = chosen_kind(values, self.kinds)
            data = _data(plain_from_values(values, self.kinds))
            needs = kind.needs_captions and not data.prefix.strip()
            size = data.size or self._native_size(values.get("checkpoint"))
            found = read_data(replace(data, prefix="", size=size), size, captions=needs)
        except WebUIError as error:
            return training_texts.problem(str(error)), 0
        html = training_texts.data_check(_facts(found, data), _thumbnails(found), found.left_out, data.prefix)
        return html, sum(item.repeats for item in found.items)

    def _native_size(self, name: Any) -> int:
        entries = self.engine.checkpoints()
        entry = next((one for one in entries if one.name == name), None) or next(iter(entries), None)
        if entry is None:
            raise NotFoundError("There is no model yet; a training begins from one.")
        return entry.native_size

    def _refresh(self) -> list[Any]:
        self.engine.refresh()
        found = self._checkpoints()
        word = f"{len(found)} checkpoint{'' if len(found) == 1 else 's'} found."
        return [{"checkpoints": found, "at": time.time()}, sentence(word, good=True)]

    def _changed(self) -> list[Any]:
        labels = {kind.name: kind.label for kind in self.kinds.values()}
        jobs = [job for job in self.engine.jobs(LOOKED_THROUGH) if job.kind == TRAINING][:LISTED]
        return [training_texts.trainings(jobs, labels), {"checkpoints": self._checkpoints(), "at": time.time()}]

    def _settings(self, event: gr.EventData) -> dict[str, Any]:
        return {"set": values_from_plain(self._training(event).request), "at": time.time()}

    def _use(self, prompt: str | None, event: gr.EventData) -> list[Any]:
        """Updates for txt2img's prompt, the checkpoint and the tabs."""
        job = self._training(event)
        if not job.files:
            raise NotFoundError("This training has made no file yet.")
        file = Path(job.files[-1])
        kind = self.kinds.get(str(job.request["kind"]))
        folder = kind.folder if kind else ""
        there = gr.Tabs(selected="txt2img")
        if folder == "checkpoint":
            self.engine.refresh()
            entry = next((one for one in self.engine.checkpoints() if one.name == file.stem), None)
            if entry is None:
                raise NotFoundError(f"{file.name} is not in the models folder any more.")
            return [gr.skip(), gr.Dropdown(choices=self._checkpoints(), value=entry.name), there]
        words = {"lora": f"<lora:{file.stem}:1>", "embedding": file.stem}.get(folder)
        if words is None:
            raise RequestError(f"{file.name} lies in the {file.parent.name} folder, where what needs it finds it.")
        return [_with_words(prompt or "", words), gr.skip(), there]

    def _training(self, event: gr.EventData) -> Job:
        job = self.engine.job(str(event.job))
        if job.kind != TRAINING:
            raise RequestError("This job is no training.")
        return job

    def _checkpoints(self) -> list[tuple[str, str]]:
        return [(entry.title, entry.name) for entry in self.engine.checkpoints()]


def _data(plain: Mapping[str, Any]) -> Data:
    known = {entry.name for entry in fields(Data)}
    return Data(**{name: value for name, value in plain.get("data", {}).items() if name in known})


def _facts(found: DataSet, data: Data) -> list[str]:
    """What a person wants to know about the pictures, each fact a few words."""
    own = [item for item in found.items if not item.is_class]
    classes = len(found.items) - len(own)
    captions = sum(bool(item.caption) and item.caption != data.caption.strip() for item in own)
    shapes = Counter((item.width, item.height) for item in found.items)
    facts = [f"{len(own)} picture{'' if len(own) == 1 else 's'}"]
    if classes:
        facts.append(f"{classes} of the class")
    if found.left_out:
        facts.append(f"{len(found.left_out)} left out")
    facts.append(f"captions found: {captions}")
    ordered = sorted(shapes.items(), key=lambda one: (-one[1], one[0]))
    return [*facts, ", ".join(f"{width}×{height}: {count}" for (width, height), count in ordered)]


def _thumbnails(found: DataSet) -> list[tuple[str, str]]:
    """(data address, caption) of some pictures from all over the folder, as they are cut for training."""
    own = [index for index, item in enumerate(found.items) if not item.is_class]
    thumbnails = []
    for index in own[:: max(1, len(own) // THUMBNAILS)][:THUMBNAILS]:
        try:
            picture = Image.fromarray(found.pixels(index))
        except PictureError:
            continue  # the training itself names what does not decode
        picture.thumbnail((THUMBNAIL_PX * 2, THUMBNAIL_PX))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        address = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        thumbnails.append((address, found.items[index].caption))
    return thumbnails


def _with_words(prompt: str, words: str) -> str:
    """The prompt with words at its end, unless they are in it."""
    if words in prompt:
        return prompt
    plain = prompt.rstrip()
    return f"{plain}{'' if not plain else ' ' if plain.endswith(',') else ', '}{words}"


_EMPTY = (
    '<div class="train-help"><div class="empty-art"></div><p>Teach the model your own pictures.</p>'
    '<p class="muted">Ten to thirty pictures of one subject or style are enough for a LoRA. '
    "Put them into a folder, each with a caption of the same name:</p>"
    "<pre>my-dog/\n  garden.jpg   garden.txt   sks dog in a garden\n  sofa.jpg     sofa.txt     sks dog on a sofa\n"
    "  …</pre>"
    '<p class="muted">Name the folder, give a name, press Train. It goes on when this page is closed.</p></div>'
)
