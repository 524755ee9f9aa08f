"""Chooses the pipeline that a request means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from webui.pipeline import inpaint
from webui.pipeline.denoising import Setup
from webui.pipeline.img2img import Beginning
from webui.pipeline.moments import Moment
from webui.pipeline.txt2img import txt2img
from webui.request import GenerationRequest


def run_group(
    request: GenerationRequest, setup: Setup, beginning: Beginning | None, indices: Sequence[int]
) -> Iterator[Moment]:
    """The moments of making the pictures ``indices`` of a request together."""
    if beginning is None:
        return txt2img(request, setup, indices)
    return inpaint.run(request, setup, beginning, indices)
