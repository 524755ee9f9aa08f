"""Errors meant for a person become one sentence on the page."""

from __future__ import annotations

import functools
from collections.abc import Callable
from html import escape
from typing import ParamSpec, TypeVar

import gradio as gr

from webui.errors import WebUIError

P = ParamSpec("P")
R = TypeVar("R")


def told(event: Callable[P, R]) -> Callable[P, R]:
    """``event`` with every :class:`WebUIError` shown as a notice, escaped because Gradio renders HTML."""

    @functools.wraps(event)
    def telling(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return event(*arguments, **named)
        except WebUIError as error:
            raise gr.Error(escape(str(error)), title="Not possible", duration=8, print_exception=False) from error

    return telling
