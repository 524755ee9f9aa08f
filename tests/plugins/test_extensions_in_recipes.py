"""A picture's recipe names each extension that took part with its version and the hash of its files, and
``reproduce`` says when one is missing or another one, whether a bit of the picture changes by it or not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from plugin_app import App, Done
from tiny_model import picture_bytes

from webui.metadata.verdict import Outcome
from webui.plugins.tree_hash import tree_hash

FRAME = """
import numpy as np
from webui.hooks import hookimpl

__version__ = "{version}"

@hookimpl
def rewrite_picture(pixels):
    return {returns}
"""
INVERTS, NOTHING = "255 - pixels", "None"
SAMPLER = """
from webui.hooks import hookimpl
from webui.samplers import Sampler, Step

__version__ = "2.1"

def formula(denoise, x, sigmas, noise, *, eta):
    for sigma in sigmas[:-1]:
        x = denoise(x, sigma)
        yield Step(x, x, sigma)

@hookimpl
def register_samplers():
    return [Sampler(name="Mine", integrate=formula)]
"""


UPSCALER = """
import numpy as np
from webui.hooks import hookimpl
from webui.upscalers import Upscaler

def enlarge(pixels, scale, work):
    return np.zeros((2 * pixels.shape[0], 2 * pixels.shape[1], 3), np.uint8)

@hookimpl
def register_upscalers():
    return [Upscaler(name="Night", scale=2, enlarge=enlarge)]
"""
ATTENTION = """
from webui.hooks import hookimpl
from webui.networks.attention_kinds import AttentionKind

def attend(q, k, v, bias):
    return v.mean(dim=2, keepdim=True).expand_as(q)

@hookimpl
def register_attention_kinds():
    return [AttentionKind(name="even", attend=attend)]
"""
TIRED = """
from webui.hooks import hookimpl

@hookimpl
def rewrite_noise(noise):
    return noise * 0.5

@hookimpl
def rewrite_picture(pixels):
    raise ValueError("tired")
"""


def another(app: App, folder: Path, **extensions: str) -> App:
    """The application on the same models and pictures, with other extensions."""
    folder.mkdir()
    other = App(folder, app.settings.models_dir)
    for name, code in extensions.items():
        other.install(f"{name}/__init__.py", code)
    return other


def made(app: App, **extensions: str) -> Done:
    for name, code in extensions.items():
        app.install(f"{name}/__init__.py", code)
    return app.make(**({"sampling": {"sampler": "Mine", "steps": 2}} if "mine" in extensions else {}))


def test_the_recipe_has_name_version_and_hash(app: App) -> None:
    done = made(app, frame=FRAME.format(version="1.2", returns=INVERTS), mine=SAMPLER, idle="__version__ = '9'\n")
    assert [(one.name, one.version, one.digest) for one in done.recipe.plugins] == [
        ("frame", "1.2", tree_hash(app.settings.extensions_dir / "frame")),
        ("mine", "2.1", tree_hash(app.settings.extensions_dir / "mine")),
    ]
    verdict = app.reproduce(done.file)
    assert (verdict.outcome, verdict.reasons) == (Outcome.BIT_EXACT, ())


def test_one_that_is_missing(app: App, tmp_path: Path) -> None:
    done = made(app, frame=FRAME.format(version="1.2", returns=INVERTS))
    verdict = another(app, tmp_path / "other").reproduce(done.file)
    assert verdict.outcome is Outcome.DIFFERENT
    assert "The extension frame 1.2 took part and is not installed here." in verdict.reasons


def test_one_without_which_it_cannot_be_made(app: App, tmp_path: Path) -> None:
    done = made(app, mine=SAMPLER)
    verdict = another(app, tmp_path / "other").reproduce(done.file)
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert verdict.reasons == (
        'The sampler "Mine" is not known here.',
        "The extension mine 2.1 took part and is not installed here.",
    )


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("1.3", "The extension frame is 1.3 here, was 1.2."),
        ("1.2", "The extension frame has other files here"),
    ],
)
def test_one_that_is_another(app: App, tmp_path: Path, version: str, says: str) -> None:
    done = made(app, frame=FRAME.format(version="1.2", returns=INVERTS))
    changed = FRAME.format(version=version, returns="255 - pixels[::-1]")
    verdict = another(app, tmp_path / "other", frame=changed).reproduce(done.file)
    assert verdict.outcome is Outcome.DIFFERENT
    (said,) = [reason for reason in verdict.reasons if "extension" in reason]
    assert said.startswith(says)


def test_one_that_changed_no_bit_is_said_to_be_missing_all_the_same(app: App, tmp_path: Path) -> None:
    done = made(app, frame=FRAME.format(version="1.2", returns=NOTHING))
    verdict = another(app, tmp_path / "other").reproduce(done.file)
    assert verdict.outcome is Outcome.BIT_EXACT
    assert verdict.reasons == ("The extension frame 1.2 took part and is not installed here.",)


def test_a_file_beside_the_code_counts(app: App, tmp_path: Path) -> None:
    done = made(app, frame=FRAME.format(version="1.2", returns=NOTHING))
    other = another(app, tmp_path / "other")
    shutil.copytree(app.settings.extensions_dir / "frame", other.settings.extensions_dir / "frame")
    (other.settings.extensions_dir / "frame" / "table.bin").write_bytes(b"\0")
    (said,) = other.reproduce(done.file).reasons
    assert "has other files here" in said


def test_a_sampler_of_the_second_pass_counts(app: App) -> None:
    app.install("mine/__init__.py", SAMPLER)
    done = app.make(second_pass={"upscaler": "Latent", "sampler": "Mine", "steps": 2})
    assert [one.name for one in done.recipe.plugins] == ["mine"]


def test_an_upscaler_of_the_start_image_counts(app: App) -> None:
    app.install("night/__init__.py", UPSCALER)
    digest = app.runner.inputs.put(picture_bytes(32, 32))
    done = app.make(start={"image": digest, "upscaler": "Night"})
    assert [one.name for one in done.recipe.plugins] == ["night"]


def test_a_kind_of_attention_takes_part_in_the_reproduction_too(app: App) -> None:
    app.settings = replace(app.settings, attention="even")
    done = made(app, even=ATTENTION, frame=FRAME.format(version="1.2", returns=NOTHING))
    assert [one.name for one in done.recipe.plugins] == ["even", "frame"]
    shutil.rmtree(app.settings.extensions_dir / "frame")
    app.install("bright/__init__.py", FRAME.format(version="1", returns=INVERTS))
    verdict = app.started_anew().reproduce(done.file)
    assert verdict.outcome is Outcome.DIFFERENT
    assert [reason for reason in verdict.reasons if "extension" in reason] == [
        "The extension frame 1.2 took part and is not installed here.",
        "The extension bright is installed here and did not take part.",
    ]


def test_one_that_is_switched_off_on_the_way_had_its_part(app: App) -> None:
    app.settings = replace(app.settings, extension_failures=1)
    done = made(app, tired=TIRED)
    assert "switched off" in app.runner.plugins.problems[-1]
    assert [one.name for one in done.recipe.plugins] == ["tired"]
    assert app.make().recipe.plugins == (), "and in the next job none any more"
