"""Whatever an extension does wrong is named, with its file, and left out; the application runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_app import PLAIN, App

from webui.errors import ExtensionError
from webui.metadata.files import encode_picture
from webui.plugins.manager import Plugins
from webui.result import Pixels

ROOT = Path(__file__).resolve().parents[2]
HOOK = "from webui.hooks import hookimpl\n"
SAMPLER = """
from webui.hooks import hookimpl
from webui.samplers import Sampler, Step

def formula(denoise, x, sigmas, noise, *, eta):
    for sigma in sigmas[:-1]:
        x = denoise(x, sigma)
        yield Step(x, x, sigma)

@hookimpl
def register_samplers():
    return [Sampler(name="NAME", integrate=formula)]
"""

# name -> (code, words that the sentence about it has)
AT_START = {
    "syntax": ("def broken(:\n", ["extension syntax was left out", "SyntaxError", "syntax.py, line 1"]),
    "imports": ("x = 1\nimport no_such_package\n", ["extension imports", "no_such_package", "imports.py, line 2"]),
    "exits": ("import sys\nsys.exit(3)\n", ["extension exits was left out", "SystemExit", "exits.py, line 2"]),
    "raises": (
        HOOK + "@hookimpl\ndef register_samplers():\n    return [1 / 0]\n",
        ["extension raises", "register_samplers failed", "ZeroDivisionError", "raises.py, line 4"],
    ),
    "number": (
        HOOK + "@hookimpl\ndef register_schedules():\n    return 5\n",
        ["extension number", "register_schedules", "a int, expected a list"],
    ),
    "parts": (
        HOOK + "@hookimpl\ndef register_samplers():\n    return ['Euler']\n",
        ["extension parts", "register_samplers", "a str without name, integrate"],
    ),
    "unknown": (
        HOOK + "@hookimpl\ndef register_sampler():\n    return []\n",
        ["extension unknown uses hooks that do not exist", "register_sampler"],
    ),
    "wrapper": (
        HOOK + "@hookimpl(wrapper=True)\ndef before_job(request):\n    yield\n",
        ["extension wrapper was left out", "before_job", "wrap"],
    ),
    "argument": (
        HOOK + "@hookimpl\ndef before_job(request, job):\n    pass\n",
        ["extension argument was left out", "before_job", "job"],
    ),
    "again": (
        SAMPLER.replace("NAME", "Euler"),
        ["webui.samplers.euler", "extension again", '"Euler"', "the one of extension again was left out"],
    ),
}


@pytest.mark.parametrize("name", AT_START)
def test_it_is_named_at_start_and_left_out(name: str, app: App) -> None:
    code, said = AT_START[name]
    app.install(f"{name}.py", code)
    plugins = Plugins.load(app.settings.extensions_dir)
    (sentence,) = plugins.problems
    assert [word for word in said if word not in sentence] == []
    alone = Plugins.load(None)
    assert (plugins.samplers, list(plugins.schedules)) == (alone.samplers, list(alone.schedules))


def test_two_things_of_one_name_name_both(app: App) -> None:
    app.install("first.py", SAMPLER.replace("NAME", "Twice"))
    app.install("second.py", SAMPLER.replace("NAME", "Twice"))
    plugins = Plugins.load(app.settings.extensions_dir)
    assert plugins.samplers["Twice"].integrate.__module__ == "webui_extensions.first"  # type: ignore[attr-defined]
    (sentence,) = plugins.problems
    assert "extension first" in sentence and "extension second" in sentence


def test_a_folder_imports_its_own_files(app: App) -> None:
    app.install("whole/part.py", SAMPLER.replace("NAME", "Of a part"))
    app.install("whole/__init__.py", "from . import part\nfrom .part import register_samplers\n")
    plugins = Plugins.load(app.settings.extensions_dir)
    assert plugins.problems == []
    assert plugins.samplers["Of a part"].integrate.__module__ == "webui_extensions.whole.part"  # type: ignore[attr-defined]


def test_a_file_and_a_folder_of_one_name(app: App) -> None:
    app.install("same/__init__.py", SAMPLER.replace("NAME", "Folder"))
    app.install("same.py", SAMPLER.replace("NAME", "File"))
    plugins = Plugins.load(app.settings.extensions_dir)
    assert "Folder" in plugins.samplers and "File" not in plugins.samplers
    (sentence,) = plugins.problems
    assert "extension same was left out" in sentence


def test_the_application_runs_with_all_of_them(app: App, plain_pixels: Pixels) -> None:
    for name, (code, _) in AT_START.items():
        app.install(f"{name}.py", code)
    done = app.make()
    assert np.array_equal(done.pixels, plain_pixels)
    told = [report.data["sentence"] for report in done.reports if report.kind == "problem"]
    assert len(told) == len(AT_START)
    problems = app.engine.problems()
    for name, (_, said) in AT_START.items():
        assert any(all(word in problem for word in said) for problem in problems), name


IN_A_JOB = {
    "before_job(request)": ("1 / 0", "ZeroDivisionError"),
    "after_job(request)": ("1 / 0", "ZeroDivisionError"),
    "rewrite_request(request)": ("return request.prompt", "returned a str, expected a GenerationRequest"),
    "rewrite_picture(request)": ("1 / 0", "ZeroDivisionError"),
    "rewrite_picture(index, pixels)": ("return pixels / 255", "of float64, (H, W, 3), expected"),
    "rewrite_picture(pixels, index)": ("return pixels[..., 0]", "of uint8, (H, W), expected"),
    "rewrite_picture(pixels)": ("pixels[:] = 0", "read-only"),
    "write_infotext(request)": ("return ['a', 'b']", "returned a list, expected a mapping"),
}


@pytest.mark.parametrize("hook", IN_A_JOB)
def test_a_hook_that_fails_in_a_job_changes_nothing(hook: str, app: App, plain_pixels: Pixels) -> None:
    body, said = IN_A_JOB[hook]
    app.install("broken.py", f"{HOOK}@hookimpl\ndef {hook}:\n    {body}\n")
    app.install("works.py", f"{HOOK}@hookimpl\ndef write_infotext():\n    return {{'Works': 'yes'}}\n")
    done = app.make()
    assert np.array_equal(done.pixels, plain_pixels)
    assert done.recipe.request.prompt == PLAIN["prompt"]
    assert "Works: yes" in done.parameters
    (sentence,) = [report.data["sentence"] for report in done.reports if report.kind == "problem"]
    assert "extension broken" in sentence and hook.partition("(")[0] in sentence and said in sentence


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("request['seed'] = 1\n    1 / 0", "ZeroDivisionError"),
        ("request['seed'] = 1\n    request['sampling']['steps'] = -4", "Steps is -4"),
        ("request['seed'] = 1\n    request['weather'] = 'fog'", "weather"),
    ],
)
def test_reading_undoes_what_a_hook_left_half_done(body: str, said: str, app: App) -> None:
    app.install("broken.py", f"{HOOK}@hookimpl\ndef read_infotext(fields, request):\n    {body}\n")
    app.install("works.py", f"{HOOK}@hookimpl\ndef read_infotext(request):\n    request['clip_skip'] = 2\n")
    text = "a cat\nSteps: 5, Sampler: Euler, Seed: 3, Size: 64x64"
    data = encode_picture(np.zeros((64, 64, 3), np.uint8), ".png", {"parameters": text})
    request = app.engine.read_infotext(data).request
    assert (request.seed, request.clip_skip) == (3, 2)
    (sentence,) = app.engine.problems()
    assert "extension broken" in sentence and said in sentence


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x = denoise(x, sigma)", "raise ValueError('no step today')"),
        ("x = denoise(x, sigma)", "x = denoise(x[0, 0], sigma)"),  # our own code raises, because of the extension
    ],
)
def test_a_formula_that_raises_fails_its_job_by_name(old: str, new: str, app: App, plain_pixels: Pixels) -> None:
    app.install("broken.py", SAMPLER.replace("NAME", "Broken").replace(old, new))
    failed = app.make(sampling={"sampler": "Broken", "steps": 2})
    assert failed.ending.kind == "failed" and failed.files == []
    assert "The extension broken failed" in failed.ending.data["error"]
    assert "broken.py, line 7" in failed.ending.data["error"]
    assert np.array_equal(app.make().pixels, plain_pixels)


def test_no_extensions_loads_none(app: App) -> None:
    app.install("shouts.py", "raise RuntimeError('here I am')\n")

    def listed(*more: str) -> subprocess.CompletedProcess[str]:
        folders: list[Any] = []
        for name in ("models", "outputs", "extensions"):
            folders += [f"--{name}-dir", str(getattr(app.settings, f"{name}_dir"))]
        command = [sys.executable, "-m", "webui", "generate", "--prompt", "x", "--steps", "1", *folders, *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "here I am" in listed().stderr
    assert "here I am" not in listed("--no-extensions").stderr


def test_calls_are_traced_when_asked_for(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app.install("journal.py", f"{HOOK}@hookimpl\ndef after_job(paths):\n    return len(paths)\n")
    monkeypatch.setenv("WEBUI_TRACE_HOOKS", "1")
    done = app.make()
    lines = capsys.readouterr().err.splitlines()
    assert f"extension journal: after_job(paths=('{done.file}',)) -> 1" in lines
    assert any(line.startswith("webui.samplers.heun: register_samplers() -> [Sampler(name='Heun'") for line in lines)


def test_whoever_asked_is_told_what_went_wrong_this_time(app: App) -> None:
    """A sentence that was kept before is not kept again, and another one is the last of those kept."""
    app.settings = replace(app.settings, extension_failures=9)
    app.install("mine.py", SAMPLER.replace("NAME", "Mine"))

    def fail(words: str) -> None:
        raise ValueError(words)

    for words in ("one", "two", "one"):
        with pytest.raises(ExtensionError, match=f"ValueError: {words}"):
            app.runner.plugins.ask("register_samplers", "Mine", "its part", partial(fail, words))
