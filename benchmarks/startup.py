"""From the start of the process to the page, to the loaded model, and from a click to the first picture.

    python benchmarks/startup.py [--runs N] [--files 1 10000] [--starter FILE] [--serve OPTION ...]

Every run starts ``webui serve`` anew (never the first start: one goes before, uncounted), asks for ``/health`` and
``/`` until both answer 200, waits until the model is loaded, and has the embedded model draw a picture in 20 steps.
Beside each, in turn, a Gradio page with nothing on it and ``import torch`` are timed on the same machine, so that the
figures are ratios, too.  With ``--files 10000`` the models folder holds that many checkpoint and LoRA files more.
Prints Markdown table rows: seconds, median (smallest to largest).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from server_process import STARTER, ask, cpu_seconds, free_port, models_folder, program, server, spread

TARGETS_S = {"page, 1 file": 4.0, "page, 10000 files": 5.0, "click to picture": 5.0}
GRADIO = """
import sys
import gradio as gr
with gr.Blocks(analytics_enabled=False) as page:
    gr.Textbox()
page.launch(server_port=int(sys.argv[1]), inbrowser=False, quiet=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--files", type=int, nargs="+", default=[1, 10000])
    parser.add_argument("--starter", type=Path, default=STARTER, help="the embedded model's file")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="picture side in pixels")
    parser.add_argument("--serve", nargs="*", default=[], help="more options for webui serve, without their dashes")
    arguments = parser.parse_args()
    options = [f"--{option}" for option in arguments.serve]
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        folders = {
            count: models_folder(folder / f"models-{count}", arguments.starter, count if count > 1 else 0)
            for count in arguments.files
        }
        for run in range(arguments.runs + 1):
            counted = found if run else {}
            gradio_page(counted)
            note(counted, "import torch", import_torch())
            for count, models in folders.items():
                one_start(counted, folder, models, count, arguments, options)
    bases = {cpu: statistics.median(found[f"empty Gradio page{cpu}"]) for cpu in ("", ": CPU time")}
    print(f"| seconds | median (smallest to largest) of {arguments.runs} | × empty Gradio page | target |")
    print("|---|---|---|---|")
    for what, values in found.items():
        target = f"≤ {TARGETS_S[what]:g} s" if what in TARGETS_S else ""
        base = bases[": CPU time" if "CPU" in what else ""]
        print(f"| {what} | {spread(values)} | {statistics.median(values) / base:.2f} | {target} |")


def one_start(
    found: dict[str, list[float]],
    folder: Path,
    models: Path,
    count: int,
    arguments: argparse.Namespace,
    options: list[str],
) -> None:
    """Start once with these models and note how long each thing took."""
    files = "1 file" if count == 1 else f"{count} files"
    request = {
        "prompt": "a red apple on a blue background",
        "checkpoint": "starter",
        "size": {"width": arguments.size, "height": arguments.size},
        "sampling": {"sampler": "Euler", "steps": arguments.steps},
    }
    with server(folder, models, *options) as running:
        health = running.wait_for("/health")
        page = running.wait_for("/")
        note(found, f"health, {files}", health)
        note(found, f"page, {files}", page)
        note(found, f"page, {files}: CPU time of the server", cpu_seconds(running.process.pid))
        if count == 1:
            note(found, "page to model ready", max(0.0, running.wait_ready() - page))
            note(found, "click to picture", running.seconds_to_done(request))
            note(found, "click to picture, the second", running.seconds_to_done(request))


def note(found: dict[str, list[float]], what: str, seconds: float) -> None:
    found.setdefault(what, []).append(seconds)


def gradio_page(found: dict[str, list[float]]) -> None:
    """Note the time from the start of the process until an empty Gradio page answers."""
    port = free_port()
    started = time.perf_counter()
    with program(GRADIO, str(port), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1") as process:
        while process.poll() is None:
            try:
                if ask(port, "/")[0] == 200:
                    note(found, "empty Gradio page", time.perf_counter() - started)
                    note(found, "empty Gradio page: CPU time", cpu_seconds(process.pid))
                    return
            except OSError:
                time.sleep(0.01)
    raise RuntimeError("the empty Gradio page did not start")


def import_torch() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
