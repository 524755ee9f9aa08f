"""Errors meant for a person become one sentence on the page.

Gradio's own notices travel through its queue, which this page does not use; so every event has the notice widget as
its last output.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from webui.errors import WebUIError

log = logging.getLogger(__name__)

EVENT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How every event of the page is registered: at once, and not as a part of Gradio's API."""


def connect(
    trigger: Callable[..., Any], event: Callable[..., Any], inputs: Any, outputs: Sequence[Any], notice: Any, **how: Any
) -> None:
    """Let ``trigger`` (such as ``button.click``) run ``event``; what it raises is shown by the widget ``notice``.

    ``event`` returns one value for each of ``outputs`` (a list or tuple when there are several, and then perhaps one
    more: a :func:`sentence` to show).
    """
    trigger(_telling(event, len(outputs)), inputs, [*outputs, notice], **EVENT, **how)


def sentence(text: str, *, good: bool = False) -> dict[str, Any]:
    """The value that makes the notice widget show ``text``."""
    return {"text": text, "good": good, "at": time.time()}


def _telling(event: Callable[..., Any], outputs: int) -> Callable[..., list[Any]]:
    @functools.wraps(event)
    def telling(*arguments: Any, **named: Any) -> list[Any]:
        try:
            result = event(*arguments, **named)
        except WebUIError as error:
            return [*(gr.skip() for _ in range(outputs)), sentence(str(error))]
        except Exception:
            log.exception("event %s of the page", getattr(event, "__qualname__", event))
            return [*(gr.skip() for _ in range(outputs)), sentence(_DEFECT)]
        values = [result] if outputs == 1 else list(result)
        return values if len(values) > outputs else [*values, gr.skip()]

    return telling


_DEFECT = "Something went wrong inside the program; the log names the place."
