"""Control pictures that the server makes itself: within a hook's time, and whatever a preprocessor does is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from webui.engine.control_pictures import run_here
from webui.errors import ExtensionError, RequestError
from webui.plugins.calling import Budgets, Caller
from webui.plugins.conduct import Journal
from webui.plugins.manager import Plugins

EXTENSION = """
from webui.errors import RequestError
from webui.hooks import hookimpl
from webui.preprocessors import Preprocessor

def for_ever(pixels, options):
    while True:
        pass

def raises(pixels, options):
    return pixels[options["no such option"]]

def refuses(pixels, options):
    raise RequestError("The picture is too small; give one of 64 pixels.")

@hookimpl
def register_preprocessors():
    runs = {"for ever": for_ever, "raises": raises, "refuses": refuses}
    runs["wrong"] = lambda pixels, options: pixels[0]
    runs["good"] = lambda pixels, options: 255 - pixels
    return [Preprocessor(name=name, run=run) for name, run in runs.items()]
"""
PIXELS = np.full((4, 6, 3), 200, np.uint8)


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    (tmp_path / "slow.py").write_text(EXTENSION, "utf-8")
    budgets = Budgets(start_s=20, call_s=0.3, grace_s=0.3)
    return Plugins.load(tmp_path, packages=(), caller=Caller(Journal(), budgets, abandons=True))


def test_a_good_one_is_run(plugins: Plugins) -> None:
    assert np.array_equal(run_here("good", PIXELS, {}, plugins), 255 - PIXELS)
    assert plugins.problems == []


def test_one_that_never_ends_is_left_behind_and_its_extension_switched_off(plugins: Plugins) -> None:
    with pytest.raises(ExtensionError, match="The extension slow hung and is switched off"):
        run_here("for ever", PIXELS, {}, plugins)
    assert "extension slow: preprocessor for ever took more than 0.3 s" in plugins.problems[0]
    with pytest.raises(ExtensionError, match="switched off"):
        run_here("good", PIXELS, {}, plugins)


def test_one_that_raises_is_named_with_its_line(plugins: Plugins) -> None:
    with pytest.raises(ExtensionError, match=r"extension slow: preprocessor raises failed: KeyError.*slow.py, line 11"):
        run_here("raises", PIXELS, {}, plugins)


def test_what_it_says_to_the_user_is_passed_on_and_no_failure(plugins: Plugins) -> None:
    with pytest.raises(RequestError, match="too small; give one of 64 pixels"):
        run_here("refuses", PIXELS, {}, plugins)
    assert plugins.problems == []


def test_what_is_no_picture_is_refused(plugins: Plugins) -> None:
    with pytest.raises(ExtensionError, match="preprocessor wrong gave no picture"):
        run_here("wrong", PIXELS, {}, plugins)
    with pytest.raises(RequestError, match='no preprocessor named "gone"'):
        run_here("gone", PIXELS, {}, plugins)
