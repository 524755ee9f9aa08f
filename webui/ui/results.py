"""The right side of txt2img and img2img: the job that runs, the finished pictures, and where they can be sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from webui.engine.extras import is_extras
from webui.engine.jobs import GENERATING, Job, Output
from webui.errors import NotFoundError, RequestError
from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe, request_of_one
from webui.request import GenerationRequest
from webui.ui import texts
from webui.ui.gallery_settings import NAME as GALLERY
from webui.ui.gallery_settings import GallerySettings
from webui.ui.widgets.live import Live

if TYPE_CHECKING:
    from webui.engine.engine import Engine

SHOWN = 5
"""How many components :meth:`Results.shown` fills."""
_SEND_LABELS = {
    "img2img": "Send to img2img",
    "inpaint": "Send to inpaint",
    "extras": "Send to Extras",
    "pnginfo": "Send to PNG Info",
}


class Results:
    """Live progress, gallery, buttons and the text of the selected picture.

    ``outputs`` holds the ids of the pictures in the gallery, ``selected`` the place of the chosen one.
    """

    def __init__(self, engine: Engine, tab: str, empty: str) -> None:
        self.engine = engine
        self.tab = tab
        self._build(empty)

    @property
    def filled(self) -> list[Any]:
        """The components that :meth:`shown` fills."""
        return [self.live, self.gallery, self.outputs, self.selected, self.info]

    def _build(self, empty: str) -> None:
        self.live = Live(
            tab=self.tab,
            elem_id=f"{self.tab}_live",
            empty=f'<div class="empty-art"></div><p>{empty}</p><p class="muted">It appears here as it takes shape.</p>',
        )
        self.gallery = gr.Gallery(
            label="Output",
            show_label=False,
            elem_id=f"{self.tab}_gallery",
            columns=4,
            height="auto",
            object_fit="contain",
            preview=False,
            interactive=False,
            buttons=["download", "download_all", "fullscreen"],
        )
        tabs = {tab.id for tab in self.engine.tabs()}
        offered = [name for name in _SEND_LABELS if name in {*tabs, "inpaint"}]
        with gr.Row(elem_id=f"image_buttons_{self.tab}", elem_classes=["image-buttons"]):
            self.sends = {
                name: gr.Button(
                    _SEND_LABELS[name],
                    size="sm",
                    elem_id=f"{self.tab}_send_to_{name}",
                    elem_classes=[f"icon-{name}"],
                )
                for name in offered
            }
            self.upscale = gr.Button(
                "Hires. fix this", size="sm", elem_id=f"{self.tab}_upscale", visible=self.tab == "txt2img"
            )
        self.info = gr.HTML(elem_id=f"html_info_{self.tab}", elem_classes=["picture-info"])
        self.outputs = gr.JSON([], visible=False, elem_id=f"generation_info_{self.tab}")
        self.selected = gr.Number(0, visible=False, precision=0)

    # --- what the events do -----------------------------------------------------------------------------------

    def finished(self, event: gr.EventData) -> list[Any]:
        """Updates for a job that is over."""
        return self.shown(self.engine.job(str(event.job)))

    def shown(self, job: Job) -> list[Any]:
        """Updates that put the job's pictures into the gallery, a script's sheets first; deleted files keep out."""
        ordered = sorted(job.outputs, key=lambda output: (output.index >= 0, abs(output.index)))
        there = [(path, output) for output in ordered if (path := self._file(output)) is not None]
        if not there:
            return [{"shown": job.id}, gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        how: GallerySettings = self.engine.options.settings_of(GALLERY)
        alone = len(there) == 1 or how.open_first
        gallery = gr.Gallery(
            value=[str(path) for path, _ in there],
            selected_index=0 if alone else None,
            preview=alone,
            columns=min(how.columns, len(there)),
        )
        ids = [output.id for _, output in there]
        return [{"shown": job.id}, gallery, ids, 0, texts.infotext(there[0][1].infotext)]

    def select(self, ids: Sequence[str], event: gr.SelectData) -> tuple[int, str]:
        """The place and text of a picture that was clicked."""
        index = int(event.index)
        return index, texts.infotext(self.output(ids, index).infotext)

    def latest(self, job: Job) -> Job | None:
        """Of this job and the newest ones the first that is over and made pictures of this tab's kind."""
        from_picture = self.tab == "img2img"
        return next(
            (
                one
                for one in [job, *self.engine.jobs()]
                if one.state.is_over
                and one.kind == GENERATING
                and one.outputs
                and bool(one.request.get("start")) == from_picture
            ),
            None,
        )

    def seed(self, ids: Sequence[str], index: float | None) -> int:
        """The seed of the selected picture, or of the last one made."""
        if not ids and (last := self.last()) is not None:
            return last.seed
        return self.output(ids, index).seed

    def variation_seed(self, ids: Sequence[str], index: float | None) -> int:
        """The variation seed of the selected picture; its seed when it had none."""
        output = self.output(ids, index)
        found = self._request(output).noise.variation_seed
        return output.seed if found is None else found

    def request(self, ids: Sequence[str], index: float | None) -> GenerationRequest:
        """The request that makes just the selected picture."""
        return self._request(self.output(ids, index))

    def path(self, ids: Sequence[str], index: float | None) -> Path:
        """The file of the selected picture."""
        return self.engine.output_path(self.output(ids, index).id)

    def output(self, ids: Sequence[str], index: float | None) -> Output:
        """The record of the selected picture.  Raises NotFoundError when there is none."""
        if not ids:
            raise NotFoundError("There is no picture yet; generate one first.")
        place = int(index or 0)
        if not 0 <= place < len(ids):
            raise NotFoundError("This picture is no longer known; generate it again.")
        return self.engine.output(str(ids[place]))

    def last(self) -> Output | None:
        """The picture that was generated last."""
        return next((job.outputs[-1] for job in self.engine.jobs() if job.kind == GENERATING and job.outputs), None)

    def _request(self, output: Output) -> GenerationRequest:
        found = read_picture_texts(self.engine.output_path(output.id).read_bytes())
        if "recipe" not in found or is_extras(found["recipe"]):
            raise RequestError("This picture has no recipe, so it cannot be made again.")
        return request_of_one(Recipe.from_json(found["recipe"]))

    def _file(self, output: Output) -> Path | None:
        try:
            return self.engine.output_path(output.id)
        except NotFoundError:
            return None
