"""Styles between the file, the engine and a job."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_model import tiny_request

from webui.engine.engine import Engine
from webui.engine.resolve import styled
from webui.errors import RequestError
from webui.prompt.styles import Style, Styles
from webui.request import GenerationRequest, SecondPass

STYLES = Styles({"oil": Style("oil", "oil, {prompt}", "grain"), "wide": Style("wide", "wide angle")})


def test_styles_are_kept_in_a_file_beside_the_models_folder(engine: Engine) -> None:
    assert engine.styles() == Styles()
    engine.save_styles(STYLES)
    assert engine.settings.styles_file == engine.settings.models_dir.parent / "styles.csv"
    assert engine.styles() == STYLES


def test_a_job_gets_the_prompts_with_its_styles(engine: Engine) -> None:
    engine.save_styles(STYLES)
    job = engine.submit(replace(tiny_request(), prompt="a cat", negative_prompt="", styles=("oil", "wide")))
    assert job.request["prompt"] == "oil, a cat, wide angle"
    assert job.request["negative_prompt"] == "grain"
    assert job.request["styles"] == []
    with pytest.raises(RequestError, match='There is no style "none"'):
        engine.submit(replace(tiny_request(), styles=("none",)))


def test_a_second_pass_has_them_around_its_own_prompts_only() -> None:
    own = styled(
        GenerationRequest(prompt="a cat", styles=("oil",), second_pass=SecondPass(prompt="a tiger")), STYLES
    ).second_pass
    assert own is not None and (own.prompt, own.negative_prompt) == ("oil, a tiger", "")
    none = styled(GenerationRequest(prompt="a cat", styles=("oil",), second_pass=SecondPass()), STYLES).second_pass
    assert none == SecondPass()
