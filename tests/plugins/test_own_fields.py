"""Infotext fields of plugins: what cannot be is named, what fails changes nothing."""

from __future__ import annotations

import pytest
from plugin_app import App

from webui.metadata.fields import BUILT_IN
from webui.plugins.own_fields import registered_fields

FIELD = """
from webui.hooks import hookimpl
from webui.metadata.fields import InfotextField

def sulking(text):
    raise RuntimeError("no <idea>")

@hookimpl(tryfirst=True)
def register_infotext_fields():
    return [InfotextField(FIELD)]
"""


def install(app: App, field: str) -> None:
    app.install("mine.py", FIELD.replace("(FIELD)", f"({field})"))


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ("key='A, b', path='clip_skip', read=int", "without comma"),
        ("key='A: b', path='clip_skip', read=int", "without comma"),
        ("key='Skip', path='clip_skips', read=int", "clip_skips"),
        ("key='Skip', path='sampling.none', read=int", "sampling.none"),
        ("key='Skip', path='start.image', read=str", "start.image"),
        ("key='Skip', path='__class__.__name__', read=str", "__class__"),
        ("key='Skip', path='sampling', read=str", "no single value"),
        ("key='CFG rescale', path='sampling.cfg_scale', read=float", "webui.metadata.fields"),
    ],
)
def test_a_field_that_cannot_be_is_named(app: App, field: str, why: str) -> None:
    install(app, field)
    assert registered_fields(app.engine.plugins) == BUILT_IN
    (problem,) = app.engine.problems()
    assert "extension mine" in problem and why in problem


def test_what_fails_while_reading_is_named_and_listed(app: App) -> None:
    install(app, "key='Search', path='comma_backtrack', read=sulking")
    back = app.engine.read_parameters("a cat\nSteps: 5, Sampler: Euler, Search: 3, CFG rescale: 0.5, Size: 64x64")
    assert back.request.comma_backtrack == 20 and back.unmapped == ("Search: 3",)
    assert back.request.sampling.guidance.rescale == 0.5, "the built-in one goes the same way"
    (problem,) = app.engine.problems()
    assert "extension mine" in problem and "no <idea>" in problem and "mine.py" in problem


def test_what_fails_while_writing_is_left_out(app: App) -> None:
    install(app, "key='Search', path='comma_backtrack', read=int, write=sulking")
    done = app.make(comma_backtrack=3)
    assert "Search" not in done.parameters and done.ending.kind == "done"
    assert any("extension mine" in problem for problem in app.runner.plugins.problems)


def test_a_value_out_of_range_changes_nothing(app: App) -> None:
    install(app, "key='Search', path='comma_backtrack', read=int")
    back = app.engine.read_parameters("a cat\nSteps: 5, Sampler: Euler, Search: 5000, Size: 64x64")
    assert back.request.comma_backtrack == 20 and back.unmapped == ("Search: 5000",)


def test_a_key_of_the_program_stays_the_programs(app: App) -> None:
    install(app, "key='Clip skip', path='comma_backtrack', read=int")
    done = app.make(clip_skip=2, comma_backtrack=7)
    assert "Clip skip: 2" in done.parameters and "Clip skip: 7" not in done.parameters
    back = app.engine.read_parameters(done.parameters)
    assert (back.request.clip_skip, back.request.comma_backtrack) == (2, 20)
