"""The README's promises that a machine can check: its links, its options, its extension."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from webui.plugins.manager import Plugins

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
PLACEHOLDER = re.compile(r"\b(?:TABLE|REPOSITORY|TODO|FIXME|TBD|XXX)\b")


def documents() -> list[Path]:
    """Every Markdown file of the product: the tracked ones, or all outside hidden folders when there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    found = [ROOT / name for name in listed if name] or ROOT.rglob("*.md")
    inside = (path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))
    return sorted(path for path in inside if path.is_file())


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_document_links_to_is_there_and_nothing_is_left_open(document: Path) -> None:
    text = document.read_text("utf-8")
    assert [link for link in LINK.findall(text) if not (document.parent / link).exists()] == []
    assert PLACEHOLDER.findall(text) == []


def test_its_options_are_those_of_the_page() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "webui", "serve", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    table = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `--")]
    options = [option for cell in table for option in re.findall(r"`(--[\w-]+)`", cell)]
    assert {"--host", "--port", "--allow-host", "--no-browser", "--models-dir", "--device"} <= set(options)
    assert {"--precision", "--threads"} <= set(options)
    assert not [option for option in options if not re.search(rf"{option}\b", shown)]


def test_its_extension_loads_and_meets_its_order(tmp_path: Path) -> None:
    """For Gaussian data of deviation s the clean value is x·s²/(s²+σ²), and the exact path x·√((s²+σ²)/(s²+σ₀²)).

    The midpoint rule is of second order, its local error h³·(a''/24 + a·a'/4 + a³/6) for dx/dσ = a·x.  Here
    a = σ/(s²+σ²), for which the bracket is exactly zero: twice the steps divide the error by eight.
    """
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 15
    (tmp_path / "midpoint.py").write_text(code, "utf-8")
    plugins = Plugins.load(tmp_path)
    assert plugins.problems == []
    sampler = plugins.samplers["Midpoint"]

    def error(steps: int, s: float = 0.7, start: float = 10.0, end: float = 0.5) -> float:
        sigmas = [start * (end / start) ** (i / steps) for i in range(steps + 1)]
        *_, last = sampler.integrate(lambda x, sigma: x * s**2 / (s**2 + sigma**2), 10.0, sigmas, None, eta=0.0)  # type: ignore[arg-type,return-value,operator]
        return abs(float(last.x) - 10.0 * ((s**2 + end**2) / (s**2 + start**2)) ** 0.5)

    assert error(200) / error(400) == pytest.approx(8.0, rel=0.01)
