"""Gradio is imported without writing its stubs, and works as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
from webui.ui import quick_import
before, touched = len(sys.meta_path), []
sys.addaudithook(lambda event, what: touched.append(what[0]) if event == "open" and ".pyi" in str(what[0]) else None)
import gradio as gr
from webui.ui.widgets.live import Live
with gr.Blocks() as page:
    box = gr.Textbox()
    box.change(lambda text: text, box, box)
quick_import.skip_stubs()
found = hasattr(sys.modules[quick_import.MODULE], quick_import.FUNCTION)
print(touched, before - len(sys.meta_path), found, len(page.fns))
"""


def test_no_stub_is_written_and_components_have_their_events() -> None:
    """In a process of its own; the finder is gone afterwards, and the function it replaces is still called so."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1 True 1"
