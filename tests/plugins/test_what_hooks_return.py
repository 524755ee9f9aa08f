"""What a hook returns and must not, or changes in place, is named or unseen, and costs neither job nor recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from plugin_app import App

from webui.metadata.verdict import Outcome
from webui.result import Pixels

HOOK = "from dataclasses import replace\nfrom webui.hooks import hookimpl\nfrom webui.request import ScriptUse\n"


def install(app: App, hook: str, arguments: str, body: str) -> None:
    app.install("wild.py", f"{HOOK}\n@hookimpl\ndef {hook}({arguments}):\n    {body}\n")


def test_a_look_at_a_step_changes_no_later_one(app: App, tmp_path: Path) -> None:
    """DPM++ 2M extrapolates from the clean latent of the step before."""
    sampling = {"sampler": "DPM++ 2M", "steps": 3}
    (tmp_path / "plain").mkdir()
    plain = App(tmp_path / "plain", app.settings.models_dir).make(sampling=sampling)
    install(app, "step_done", "step", "step.denoised.mul_(0.5)")
    assert np.array_equal(app.make(sampling=sampling).pixels, plain.pixels)


@pytest.mark.parametrize("name", ["guided", "cond", "uncond", "x"])
def test_what_is_guided_is_shown_as_a_copy(name: str, app: App, plain_pixels: Pixels) -> None:
    install(app, "rewrite_guided", "guiding", f"guiding.{name}.mul_(0.5)")
    assert np.array_equal(app.make().pixels, plain_pixels)


@pytest.mark.parametrize(
    "changes",
    [
        "x=call.x[:, :, :4]",
        "x=call.x.double()",
        "x=None",
        "context=call.context[:1]",
        "context=call.context[:, :, :4]",
        "timestep='late'",
        "sigma=float('nan')",
        "image=(0,)",
        "conditional=(True,)",
        "openings=None",
    ],
)
def test_a_question_of_another_kind_is_not_asked(changes: str, app: App, plain_pixels: Pixels) -> None:
    install(app, "rewrite_call", "call", f"return replace(call, {changes})")
    assert np.array_equal(app.make().pixels, plain_pixels)
    name = changes.partition("=")[0]
    assert any(
        f"extension wild: what rewrite_call returned was ignored: its {name} is" in told for told in problems(app)
    )


def test_a_context_may_have_more_tokens(app: App, plain_pixels: Pixels) -> None:
    install(app, "rewrite_call", "call", "return replace(call, context=call.context.repeat(1, 2, 1) * 1.5)")
    assert not np.array_equal(app.make().pixels, plain_pixels)
    assert problems(app) == []


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("'<lora:nope:1>'", 'There is no LoRA named "nope"'),
        ("'x' * 200_000", "at most 100000 are accepted"),
        ("'\\ud800'", "cannot be stored as text"),
    ],
)
def test_a_prompt_that_cannot_be_is_left_as_it_was(prompt: str, said: str, app: App, plain_pixels: Pixels) -> None:
    install(app, "rewrite_prompt", "prompt, negative", f"return None if negative else {prompt}")
    assert np.array_equal(app.make().pixels, plain_pixels)
    (told,) = problems(app)
    assert "extension wild: what rewrite_prompt returned was ignored" in told
    assert said in told


def test_styles_that_a_hook_adds_are_put_around_the_prompt(app: App) -> None:
    app.settings.styles_file.parent.mkdir(parents=True, exist_ok=True)
    app.settings.styles_file.write_text("name,prompt,negative_prompt\nbright,in bright light,\n", "utf-8")
    install(app, "rewrite_request", "request", "return replace(request, styles=('bright',))")
    done = app.make()
    assert done.recipe.request.prompt == "a red apple, in bright light"
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT


@pytest.mark.parametrize(
    ("changes", "said"),
    [("styles=('none such',)", "none such"), ("script=ScriptUse(name='X/Y/Z plot')", "cannot get a script")],
)
def test_a_request_that_no_recipe_can_hold_is_refused(changes: str, said: str, app: App, plain_pixels: Pixels) -> None:
    install(app, "rewrite_request", "request", f"return replace(request, {changes})")
    assert np.array_equal(app.make().pixels, plain_pixels)
    (told,) = problems(app)
    assert "extension wild: what rewrite_request returned was ignored" in told
    assert said in told


def problems(app: App) -> list[str]:
    return app.runner.plugins.problems


TWICE = """
from dataclasses import dataclass, replace
from webui.hooks import hookimpl
from webui.scripts import Expansion, Page, Script, Sheet

@dataclass(frozen=True, kw_only=True)
class Options:
    pass

def expand(request, options):
    one = replace(request, script=None)
    return Expansion(requests=(one, replace(one, seed=50)), sheets=(Sheet(pages=(Page(cells=(0, 1), columns=2),)),))

@hookimpl
def register_scripts():
    return [Script(name="Twice", options=Options, expand=expand)]
"""


def test_a_hook_cannot_take_the_place_of_a_scripts_next_picture(app: App) -> None:
    app.install("twice.py", TWICE)
    install(app, "rewrite_request", "request", "return replace(request, batch_count=2)")
    done = app.make(script={"name": "Twice"})
    made = [(report.data["index"], report.data["seed"]) for report in done.reports if report.kind == "picture"]
    assert made == [(0, 7), (1, 50), (-1, 7)]
    assert "makes 2 pictures where the script counts 1" in problems(app)[0]
