"""Chooses the pipeline that a request means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from webui.pipeline import inpaint
from webui.pipeline.denoising import Setup
from webui.pipeline.hires import Second, hires
from webui.pipeline.img2img import Beginning
from webui.pipeline.moments import Moment
from webui.pipeline.txt2img import txt2img
from webui.request import GenerationRequest


def run_group(
    request: GenerationRequest,
    setup: Setup,
    beginning: Beginning | None,
    indices: Sequence[int],
    second: Second | None = None,
) -> Iterator[Moment]:
    """The moments of making the pictures ``indices`` of a request together, or one by one for samplers that ask so."""
    one_by_one = setup.sampler.one_by_one or (second is not None and second.setup.sampler.one_by_one)
    for group in [[index] for index in indices] if one_by_one else [indices]:
        if beginning is not None:
            yield from inpaint.run(request, setup, beginning, group)
        elif second is not None:
            yield from hires(request, setup, second, group)
        else:
            yield from txt2img(request, setup, group)
