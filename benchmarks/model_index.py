"""How long the cards of ten thousand model files take: the first time, when the program starts again, and in use.

    python benchmarks/model_index.py [--files 10000] [--tensors 240] [--runs 3] [--beside]

Writes that many files with a header and empty data (nine LoRAs for each checkpoint, in 40 folders), a third with notes
and a small preview beside them when ``--beside`` is given.  *Cold* lists the folder, reads every header and remembers
it; *warm* is a new process that lists the folder again and has every card.  Both in processes of their own, the files
in the system's cache.  Prints Markdown table rows: seconds, median (smallest to largest).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

TARGETS_S = {"cold": 30.0, "warm": 1.0}
LAYER = "lora_unet_down_blocks_{}_attentions_0_transformer_blocks_0_attn2_to_k"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--tensors", type=int, default=240, help="tensors a file names")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--beside", action="store_true", help="a third of the files with notes and a preview")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measured(chosen.measure)))
        return
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder / "models", chosen.files, chosen.tensors, beside=chosen.beside)
        for _ in range(chosen.runs):
            for remembered in folder.glob("*.sqlite3*"):
                remembered.unlink()
            for start in ("cold", "warm"):
                for what, seconds in in_own_process(folder).items():
                    found.setdefault(f"{start}{what}", []).append(seconds)
    print(f"| {chosen.files:,} files of {chosen.tensors} tensors | seconds, median of {chosen.runs} | target |")
    print("|---|---|---|")
    for what, values in found.items():
        target = f"≤ {TARGETS_S[what]:g} s" if what in TARGETS_S else ""
        print(f"| {what} | {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}) | {target} |")


def in_own_process(folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(folder)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measured(folder: Path) -> dict[str, float]:
    """Seconds until every card is there with all that its header says, then of what a person does with them."""
    from webui.checkpoints.hashes import HashCache
    from webui.checkpoints.library import Library
    from webui.engine.cards import SHOWN, CardQuery, Cards

    seconds: dict[str, float] = {}

    def timed(what: str, act: Callable[[], object]) -> None:
        start, processor = time.perf_counter(), time.process_time()
        act()
        seconds[what] = time.perf_counter() - start
        if not what:
            seconds[": CPU time"] = time.process_time() - processor

    library = Library(folder / "models", HashCache(folder / "hashes.sqlite3"))
    cards = Cards(library, folder)

    def everything() -> None:
        for kind in SHOWN:
            cards.page(CardQuery(kind=kind))
        cards.read(cards.unread(SHOWN))

    timed("", everything)
    timed(": a page of 120 cards by date", lambda: cards.page(CardQuery(kind="lora", sort="modified"), 4000, 120))
    timed(": the first search", lambda: cards.page(CardQuery(kind="lora", search="tag 3")))
    timed(": a search", lambda: cards.page(CardQuery(kind="lora", search="tag 31")))
    timed(": the folders", lambda: cards.folders("lora"))
    timed(": a LoRA by the name its trainer gave it", lambda: library.find("out_77", "lora"))
    return seconds


def write_files(models: Path, count: int, tensors: int, *, beside: bool) -> None:
    """``count`` header-only files; the data are holes, which take no room on the disk."""
    from PIL import Image

    both = (("down", [4, 768]), ("up", [320, 4]))
    names = ((LAYER.format(number), which, shape) for number in range(tensors // 2) for which, shape in both)
    shapes = {f"{layer}.lora_{which}.weight": shape for layer, which, shape in names}
    for number in range(count):
        kind = "Stable-diffusion" if number % 10 == 0 else "Lora"
        path = models / kind / f"set {number % 40}" / f"model {number:05d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = {"10_x": {f"tag {number % 50} {place}": place + 1 for place in range(60)}}
        metadata = {"ss_output_name": f"out_{number}", "ss_base_model_version": "sd_v1"}
        write_header(path, {**metadata, "ss_tag_frequency": json.dumps(tags)}, shapes)
        if beside and number % 3 == 0:
            path.with_suffix(".json").write_text(json.dumps({"activation text": f"style {number}", "notes": "n" * 200}))
            Image.new("RGB", (32, 48), (number % 256, 90, 90)).save(path.with_suffix(".png"))


def write_header(path: Path, metadata: dict[str, str], shapes: dict[str, list[int]]) -> None:
    header: dict[str, object] = {"__metadata__": metadata}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + position)


if __name__ == "__main__":
    main()
