"""What a pasted text or a dropped picture puts into the fields, and what is told about the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from module_toy import TINT
from tiny_model import picture_bytes

from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.prompt.styles import Style, Styles
from webui.request import GenerationRequest, ModuleUse, Noise, Refiner, Sampling, SecondPass
from webui.samplers import find_sampler
from webui.settings import Settings
from webui.ui.fields import SAME_SAMPLER, SAME_SCHEDULE
from webui.ui.lists import known
from webui.ui.relevance import relevant
from webui.ui.restoring import fitting, from_request, from_text

TEXT = "a cat\nSteps: 3, Sampler: k_euler_a, Schedule type: karras, CFG scale: 3, Seed: 4, Size: 64x128"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    folders = {name: tmp_path / name for name in ("models", "outputs", "extensions")}
    for folder in folders.values():
        folder.mkdir()
    engine = Engine.create(
        Settings(models_dir=folders["models"], outputs_dir=folders["outputs"], extensions_dir=folders["extensions"]),
        cast(Executor, None),
    )
    yield engine
    engine.store.close()


def test_names_are_those_that_are_known_here(engine: Engine) -> None:
    values, words = fitting(engine, from_text(engine, TEXT, "txt2img"), "txt2img")
    assert (values["sampler"], values["schedule"]) == ("Euler a", "Karras")
    assert words == ""
    assert known(engine, "sampler", "nobody's") is None
    assert known(engine, "hr_sampler", SAME_SAMPLER) == SAME_SAMPLER
    assert known(engine, "hr_upscaler", "Latent (nearest)") == "Latent (nearest)"
    assert known(engine, "vae", "Automatic") == "Automatic" and known(engine, "vae", "gone") is None


def test_what_is_not_here_and_what_has_no_place_is_told(engine: Engine) -> None:
    found = from_text(engine, f"{TEXT.replace('k_euler_a', 'Eulerest')}, Model: gone, Flux capacitor: on", "txt2img")
    values, words = fitting(engine, found, "txt2img")
    assert "sampler" not in values and "checkpoint" not in values
    assert words == (
        'Not here, and left as it was: the sampler "Eulerest", the checkpoint "gone". '
        "Without a place here: Flux capacitor: on."
    )


def test_each_tab_takes_its_own_fields(engine: Engine) -> None:
    found = from_text(engine, f"{TEXT}, Denoising strength: 0.3", "img2img")
    assert "hr_scale" not in fitting(engine, found, "img2img")[0]
    assert fitting(engine, found, "img2img")[0]["denoising_strength"] == 0.3
    assert "denoising_strength" not in fitting(engine, found, "txt2img")[0]


def test_modules_come_back_as_far_as_they_are_here(engine: Engine) -> None:
    (engine.settings.extensions_dir / "tint.py").write_text(TINT, "utf-8")
    engine = Engine.create(engine.settings, cast(Executor, None))
    picture = engine.put_input(picture_bytes())
    options = {"image": picture, "mask": "ab" * 32, "model": "gone", "strength": 0.5, "tokens": 99, "older": 1}
    uses = (ModuleUse(name="Tint", options=options), ModuleUse(name="Elsewhere"))
    found = from_request(engine, GenerationRequest(seed=1, modules=uses), "img2img")
    values, words = fitting(engine, found, "img2img")
    assert values["modules"] == [{"name": "Tint", "options": {"image": picture, "strength": 0.5}}]
    assert words == (
        f"Not here, and left out: Tint of it: Mask {'ab' * 20}…, Tint of it: Model gone, "
        "Tint of it: How many tokens 99, Tint of it: older 1, the module Elsewhere."
    )
    engine.store.close()


def test_a_text_without_modules_clears_them(engine: Engine) -> None:
    (engine.settings.extensions_dir / "tint.py").write_text(TINT, "utf-8")
    engine = Engine.create(engine.settings, cast(Executor, None))
    assert from_text(engine, TEXT, "txt2img").values["modules"] == []
    assert "modules" not in from_text(engine, "just words", "txt2img").values
    found = from_text(engine, f'{TEXT}, Tint: "Strength: 0.5, Colour: red", Other: enabled', "txt2img")
    values, words = fitting(engine, found, "txt2img")
    assert [(use["name"], use["options"]["strength"]) for use in values["modules"]] == [("Tint", 0.5)]
    assert words == "Without a place here: Tint: Colour: red, Other: enabled."
    engine.store.close()


def test_a_refiner_that_is_not_here_is_switched_off_and_told(engine: Engine) -> None:
    request = GenerationRequest(refiner=Refiner(checkpoint="gone"), seed=1)
    values, words = fitting(engine, from_request(engine, request, "txt2img"), "txt2img")
    assert values["enable_refiner"] is False
    assert 'the refiner "gone"' in words


def test_a_recorded_request_is_shown_as_it_would_be_chosen(engine: Engine) -> None:
    request = GenerationRequest(
        sampling=Sampling(sampler="Euler a", schedule="Uniform", eta=1.0),
        second_pass=SecondPass(sampler="Euler a", schedule="Uniform", eta=1.0),
        noise=Noise(variation_seed=3, variation_strength=0.5),
        seed=1,
        batch_count=3,
    )
    values = from_request(engine, request, "txt2img").values
    assert (values["eta"], values["hr_eta"]) == ("", "")
    assert (values["hr_sampler"], values["hr_schedule"]) == (SAME_SAMPLER, SAME_SCHEDULE)
    assert values["subseed_show"] is True and values["enable_hr"] is True
    assert "batch_count" not in values
    other = GenerationRequest(sampling=Sampling(sampler="DDIM", eta=1.0), seed=1)
    assert from_request(engine, other, "txt2img").values["eta"] == "1.0"


def test_styles_that_a_prompt_carries_are_chosen_again(engine: Engine) -> None:
    engine.save_styles(Styles({"oil": Style("oil", "oil painting", "photo")}))
    text = TEXT.replace("a cat", "a cat, oil painting\nNegative prompt: photo")
    values = from_text(engine, text, "txt2img").values
    assert (values["prompt"], values["negative_prompt"], values["styles"]) == ("a cat", "", ["oil"])
    assert from_text(engine, TEXT, "txt2img").values["styles"] == []


@pytest.mark.parametrize(
    ("sampler", "schedule", "shown", "hidden"),
    [
        ("Euler", "Karras", {"s_churn", "s_tmin", "sigma_min", "rho"}, {"eta", "unipc_order", "beta_alpha", "ensd"}),
        ("Euler a", "Beta", {"eta", "ensd", "beta_alpha", "beta_beta"}, {"s_churn", "s_noise", "rho"}),
        ("DDIM", "Karras", {"eta"}, {"rho", "sigma_min", "s_churn", "sgm_noise_multiplier"}),
        ("UniPC", "Automatic", {"unipc_order"}, {"s_churn", "eta"}),
        ("DPM++ 2M", "Automatic", {"rho", "discard_penultimate"}, {"eta", "s_churn", "s_noise"}),
    ],
)
def test_fields_that_a_sampler_does_not_look_at_are_hidden(
    engine: Engine, sampler: str, schedule: str, shown: set[str], hidden: set[str]
) -> None:
    from webui.diffusion.schedules import resolve_schedule

    chosen = find_sampler(sampler, engine.samplers())
    found = relevant([chosen], [resolve_schedule(chosen, schedule, engine.schedules())])
    assert {name for name in shown | hidden if found[name]} == shown


def test_what_either_pass_looks_at_is_shown(engine: Engine) -> None:
    samplers = [find_sampler(name, engine.samplers()) for name in ("Euler", "Euler a")]
    found = relevant(samplers, engine.schedules())
    assert found["eta"] and found["s_churn"]


@pytest.mark.parametrize(
    ("sampler", "resolved", "chosen"),
    [
        ("Euler", "Uniform", "Automatic"),
        ("Euler", "Karras", "Karras"),
        ("DPM++ 2M", "Karras", "Automatic"),
        ("DPM++ 2M", "Uniform", "Uniform"),
        ("gone", "Uniform", "Uniform"),
    ],
)
def test_a_samplers_own_schedule_comes_back_as_automatic(
    engine: Engine, sampler: str, resolved: str, chosen: str
) -> None:
    request = GenerationRequest(sampling=Sampling(sampler=sampler, schedule=resolved))
    assert from_request(engine, request, "txt2img").values["schedule"] == chosen
