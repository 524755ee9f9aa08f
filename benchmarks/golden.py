"""Replays the golden cases of AUTOMATIC1111 and Forge against this program, and prints a table of the differences.

    python benchmarks/golden.py [CASE_OR_GROUP ...] [--peer a1111|forge|both] [--golden FOLDER] [--json FILE]

The golden folder (``--golden``, else ``WEBUI_GOLDEN``, else ``../shared/golden`` beside this repository) holds what the
peers answered and the script that writes their weights.  The weights (2.3 GB) are made once into the cache folder
(``--cache``, else ``WEBUI_GOLDEN_CACHE``, else ``~/.cache/webui-golden``), and their SHA-256 is checked.  A
server is started on them at full fp32 in a process of its own, with empty folders.  Exit code 1 when a case is outside
the tolerance that the golden README gives.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("a1111", "forge")
WEIGHTS = {
    "oracle-sd15": "Stable-diffusion",
    "oracle-lora": "Lora",
    "oracle-locon": "Lora",
    "oracle-ti": "embeddings",
    "oracle-vae": "VAE",
}
"""The weight files and the model folders they belong to."""
STYLES = (("oracle suffix", "soft light, oil painting", "grain"), ("oracle wrap", "portrait of {prompt}, 4k", ""))
TOLERANCE = (0.25, 3)
"""Mean and largest difference in grey levels that an equal picture may have."""
TOLERANCE_START = (0.6, 6)
"""The same where a start picture went through the VAE."""
START_GROUPS = ("img2img", "inpaint")
PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
THIRD = (
    *("base", "base_nv", "batch_2_euler_a", "clip_skip_2", "eta_1_ddim", "hr_cfg_7", "hr_lanczos_cfg_7"),
    *("i2i_denoise_0_75", "i2i_rgba", "infotext_and_fields", "infotext_only", "inpaint_default_fields"),
    *("inpaint_fill_latent_noise", "inpaint_full_res_original", "lora_1", "prompt_and_neg", "prompt_attn_break"),
    *("prompt_edit_remove", "sampler_dpmpp_2m", "sampler_dpmpp_sde", "sampler_unipc", "sched_karras__euler"),
    *("sched_sgm_uniform__dpmpp_2m", "send_images_false", "styles_two", "subseed_0_3", "ti_weighted"),
)
"""A representative third of the cases."""


@dataclass(frozen=True)
class Case:
    """One recorded request with what a peer answered."""

    peer: str
    name: str
    folder: Path

    @property
    def asked(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "request.json").read_text("utf-8")))

    @property
    def answered(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "response.json").read_text("utf-8")))

    @property
    def info(self) -> dict[str, Any] | None:
        path = self.folder / "info.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    @property
    def pictures(self) -> list[bytes]:
        found = sorted(self.folder.glob("image-*.png"), key=lambda path: int(path.stem.split("-")[1]))
        return [path.read_bytes() for path in found]

    @property
    def tolerance(self) -> tuple[float, int]:
        return TOLERANCE_START if self.asked["group"] in START_GROUPS else TOLERANCE


@dataclass(frozen=True, kw_only=True)
class Row:
    """How far our answer is from the peer's; ``problem`` is said where they cannot be compared at all."""

    case: str
    peer: str
    equal: float = 0.0
    mean: float = 0.0
    largest: int = 0
    fields: tuple[str, ...] = ()
    problem: str = ""
    seconds: float = 0.0
    tolerance: tuple[float, int] = TOLERANCE

    @property
    def same_picture(self) -> bool:
        return not self.problem and self.mean <= self.tolerance[0] and self.largest <= self.tolerance[1]

    @property
    def good(self) -> bool:
        return self.same_picture and not self.fields


@dataclass
class Server:
    """A server on the golden weights, at full fp32."""

    address: str
    process: subprocess.Popen[bytes]
    folder: Path
    log: Path = field(default_factory=Path)

    def call(self, path: str, body: Any = None, timeout: float = 1800) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raw = error.read()
            try:
                return error.code, json.loads(raw)
            except ValueError:
                return error.code, {"raw": raw.decode("utf-8", "replace")[:500]}


def golden_folder(given: str | None = None) -> Path:
    return Path(given or os.environ.get("WEBUI_GOLDEN") or ROOT.parent / "shared" / "golden")


def cache_folder(given: str | None = None) -> Path:
    return Path(given or os.environ.get("WEBUI_GOLDEN_CACHE") or Path.home() / ".cache" / "webui-golden")


def weights(golden: Path, cache: Path) -> Path:
    """The folder with the weight files, made when they are not there; their SHA-256 is checked once."""
    folder = cache / "weights"
    checked = folder / "checked"
    if not checked.is_file():
        if not all((folder / f"{name}.safetensors").is_file() for name in WEIGHTS):
            folder.mkdir(parents=True, exist_ok=True)
            script = golden / "make_sd15_random.py"
            subprocess.run([sys.executable, str(script), str(folder), "all", "--check"], check=True)
        _check(folder, golden)
        checked.write_text("every file has the SHA-256 of the golden manifest\n")
    return folder


def _check(folder: Path, golden: Path) -> None:
    import hashlib

    wanted = json.loads((golden / "a1111" / "manifest.json").read_text("utf-8"))["weights"]
    for name, digest in wanted.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise SystemExit(f"{folder / name} has the SHA-256 {found}, not {digest}: remove it and start again.")


@contextlib.contextmanager
def serving(folder: Path, files: Path, threads: int | None = None) -> Iterator[Server]:
    """A server on ``files`` with everything else empty below ``folder``."""
    models = folder / "models"
    for name, kind in WEIGHTS.items():
        (models / kind).mkdir(parents=True, exist_ok=True)
        link = models / kind / f"{name}.safetensors"
        if not link.exists():
            link.symlink_to(files.resolve() / link.name)
    with (folder / "styles.csv").open("w", encoding="utf-8-sig", newline="") as table:
        csv.writer(table).writerows([("name", "prompt", "negative_prompt"), *STYLES])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "webui", "serve", "--no-browser", "--no-extensions", "--port", str(port)]
    command += ["--device", "cpu", "--precision", "fp32", "--models-dir", str(models)]
    command += ["--outputs-dir", str(folder / "outputs")]
    command += ["--threads", str(threads)] if threads else []
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    server = Server(f"http://127.0.0.1:{port}", process, folder, log)
    try:
        _wait(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if server.call("/health", timeout=5)[0] == 200:
                return
        if server.process.poll() is not None:
            break
        time.sleep(0.2)
    raise SystemExit(f"The server did not answer; its log ends:\n{server.log.read_text('utf-8', 'replace')[-2000:]}")


def cases(golden: Path, peers: Sequence[str], wanted: Sequence[str] = ()) -> list[Case]:
    """The cases to run; those of Forge only where AUTOMATIC1111 has none of the name, unless Forge is asked alone."""
    found: list[Case] = []
    for peer in peers:
        for folder in sorted((golden / peer).iterdir()):
            if not (folder / "request.json").is_file():
                continue
            case = Case(peer, folder.name, folder)
            if case.answered["status"] != 200:
                continue  # a mistake of the peer, not to be repeated
            if len(peers) > 1 and any(other.name == case.name for other in found):
                continue
            if not wanted or case.name in wanted or case.asked["group"] in wanted:
                found.append(case)
    return found


def with_pictures(value: Any, folder: Path) -> Any:
    """A recorded body with its input pictures in place."""
    if isinstance(value, str) and "@inputs/" in value:
        return re.sub(
            r"@(inputs/[\w.-]+)", lambda found: base64.b64encode((folder / found[1]).read_bytes()).decode(), value
        )
    if isinstance(value, Mapping):
        return {key: with_pictures(item, folder) for key, item in value.items()}
    return [with_pictures(item, folder) for item in value] if isinstance(value, list) else value


def replay(case: Case, server: Server) -> tuple[int, dict[str, Any], float]:
    """Status, answer and seconds of a case's request."""
    asked = case.asked
    began = time.monotonic()
    status, answer = server.call(asked["endpoint"], with_pictures(asked["json"], case.folder.parent))
    return status, answer, time.monotonic() - began


def compared(case: Case, status: int, answer: Mapping[str, Any], seconds: float = 0.0) -> Row:
    """How far an answer is from what the peer answered."""
    base = {"case": case.name, "peer": case.peer, "seconds": seconds, "tolerance": case.tolerance}
    if status != 200:
        return Row(**base, problem=f"status {status}: {str(answer.get('detail') or answer)[:200]}")
    ours = [base64.b64decode(image) for image in answer["images"]]
    theirs = case.pictures
    if len(ours) != len(theirs):
        return Row(**base, problem=f"{len(ours)} pictures, not {len(theirs)}")
    equal, means, largest = [1.0], [0.0], [0]
    differing: set[str] = set()
    for mine, other in zip(ours, theirs, strict=True):
        (a, text_a), (b, text_b) = _read(mine), _read(other)
        differing |= fields_apart(text_a, text_b) if text_b else set()  # upstream leaves the text of overviews out
        if a.shape != b.shape:
            return Row(**base, problem=f"size {a.shape}, not {b.shape}", fields=tuple(sorted(differing)))
        if case.asked["group"] == "scripts":
            a, b = (_cells(pixels, case.asked["json"]) for pixels in (a, b))
        apart = np.abs(a - b)
        equal.append(float((apart == 0).mean()))
        means.append(float(apart.mean()))
        largest.append(int(apart.max()))
    return Row(**base, equal=min(equal), mean=max(means), largest=max(largest), fields=tuple(sorted(differing)))


def _read(data: bytes) -> tuple[np.ndarray[Any, Any], str]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16), str(image.info.get("parameters", ""))


def _cells(pixels: np.ndarray[Any, Any], asked: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The pictures of an overview without the names on its left and at its top: those are drawn in another font."""
    height, width = (pixels.shape[axis] // asked[side] * asked[side] for axis, side in enumerate(("height", "width")))
    return pixels[-height:, -width:]


def fields_apart(ours: str, theirs: str) -> set[str]:
    """The keys whose values differ; the prompts count as one, ``Version`` not at all."""
    mine, other = _fields(ours), _fields(theirs)
    return {key for key in mine.keys() | other.keys() if mine.get(key) != other.get(key)}


def _fields(text: str) -> dict[str, str]:
    lines = text.strip().split("\n")
    last = max((place for place, line in enumerate(lines) if line.startswith("Steps: ")), default=len(lines))
    fields = {"prompts": "\n".join(lines[:last])}
    if last < len(lines):
        fields |= {key: value for key, value in PAIR.findall(lines[last]) if key != "Version"}
    return fields


def told(row: Row) -> str:
    """A row of the table, in Markdown."""
    if row.problem:
        return f"| {row.case} | {row.peer} |  |  | {', '.join(row.fields)} | **{row.problem}** |"
    verdict = "same" if row.good else "picture same" if row.same_picture else "**differs**"
    texts = ", ".join(row.fields)
    return f"| {row.case} | {row.peer} | {row.mean:.4f} | {row.largest} | {texts} | {verdict} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wanted", nargs="*", metavar="CASE_OR_GROUP", help="default: all; 'third' for those of CI")
    parser.add_argument("--peer", choices=(*PEERS, "both"), default="both")
    parser.add_argument("--golden", metavar="FOLDER")
    parser.add_argument("--cache", metavar="FOLDER")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--keep", metavar="FOLDER", help="keep our pictures here")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows as JSON, too")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the server ends with this program
    golden = golden_folder(options.golden)
    if not golden.is_dir():
        raise SystemExit(f"There is no golden folder {golden}; name it with --golden or WEBUI_GOLDEN.")
    peers = PEERS if options.peer == "both" else (options.peer,)
    wanted = THIRD if options.wanted == ["third"] else options.wanted
    rows: list[Row] = []
    files = weights(golden, cache_folder(options.cache))
    with (
        tempfile.TemporaryDirectory(prefix="webui-golden-") as folder,
        serving(Path(folder), files, options.threads) as server,
    ):
        print(
            "| case | peer | mean | max | infotext fields that differ | verdict |\n|---|---|---|---|---|---|",
            flush=True,
        )
        for case in cases(golden, peers, wanted):
            status, answer, seconds = replay(case, server)
            rows.append(compared(case, status, answer, seconds))
            print(told(rows[-1]), flush=True)
            if options.keep and status == 200:
                _keep(Path(options.keep) / case.peer / case.name, answer)
    same, good = sum(row.same_picture for row in rows), sum(row.good for row in rows)
    print(f"\n{same} of {len(rows)} pictures within tolerance; {good} with the same text, too.")
    if options.json:
        options.json.write_text(json.dumps([vars(row) for row in rows], indent=1))
    return 0 if same == len(rows) else 1


def _keep(folder: Path, answer: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(answer["images"]):
        (folder / f"image-{number}.png").write_bytes(base64.b64decode(image))
    (folder / "info.json").write_text(json.dumps(json.loads(answer["info"]), indent=1))


if __name__ == "__main__":
    sys.exit(main())
