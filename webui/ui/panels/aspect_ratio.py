"""Buttons that set width and height to a common ratio, with as many pixels as before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.panels import Panel

if TYPE_CHECKING:
    from webui.ui.panels import PanelContext

RATIOS = ((1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (4, 5), (3, 4), (2, 3), (9, 16))
STEP = 8
"""Pixels of the picture for one of the latent; sides are multiples of it."""
SIDES = (64, 2048)


def sides(width: float, height: float, ratio: tuple[int, int]) -> tuple[int, int]:
    """Width and height in this ratio and of about the same area.

    >>> sides(512, 512, (16, 9))
    (680, 384)
    """
    area = max(width, 1) * max(height, 1)
    exact = (math.sqrt(area * ratio[0] / ratio[1]), math.sqrt(area * ratio[1] / ratio[0]))
    rounded = [min(max(round(side / STEP) * STEP, SIDES[0]), SIDES[1]) for side in exact]
    return rounded[0], rounded[1]


def build(context: PanelContext) -> None:
    """A button for each ratio."""
    import gradio as gr

    from webui.ui.notices import connect

    size = [context.fields["width"], context.fields["height"]]
    with gr.Row(elem_classes=["ratios"]):
        for ratio in RATIOS:
            name = f"{ratio[0]}:{ratio[1]}"
            button = gr.Button(name, size="sm", min_width=50, elem_id=f"{context.tab}_ratio_{name.replace(':', '_')}")
            connect(button.click, _setter(ratio), size, size, context.notice)


def _setter(ratio: tuple[int, int]) -> Callable[[float | None, float | None], tuple[int, int]]:
    def set_ratio(width: float | None, height: float | None) -> tuple[int, int]:
        return sides(width or SIDES[0], height or SIDES[0], ratio)

    return set_ratio


@hookimpl
def register_ui_panels() -> Sequence[Panel]:
    """The panel of txt2img and img2img."""
    return [Panel(id="aspect_ratio", label="Aspect ratio", order=10, build=build)]
