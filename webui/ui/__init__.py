"""The page, made with Gradio: ``app`` assembles it, ``form`` translates widgets to requests, ``tabs/`` is drop-in."""

from __future__ import annotations

from webui.ui.quick_import import skip_stubs

skip_stubs()
