"""Jobs whose prompts hold choices and comments: what each picture records, and how it is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import tiny_request

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.metadata import infotext
from webui.metadata.files import read_picture_texts
from webui.metadata.reading import to_request
from webui.metadata.verdict import Outcome
from webui.prompt.dynamic import resolve
from webui.request import Emphasis, GenerationRequest, Template


@pytest.fixture
def folder(runner: Runner) -> Path:
    folder = runner.settings.models_dir.parent / "wildcards"
    folder.mkdir()
    (folder / "animal.txt").write_text("cat\ndog\nbird\nfish\n")
    return folder


def make(runner: Runner, request: GenerationRequest) -> list[bytes]:
    return [path.read_bytes() for path in runner.generate(request, lambda report: None, Control())]


def pixels(data: bytes) -> bytes:
    return read_pixels(data).tobytes()


def test_each_picture_chooses_by_its_seed_and_is_made_again_without_the_files(runner: Runner, folder: Path) -> None:
    template, negative = "a __animal__ in {sun|rain}", "{2$$ $$dull|dark|grey}"
    request = tiny_request(prompt=template, negative_prompt=negative, batch_size=2, batch_count=2)
    made = make(runner, request)
    assert len(made) == 4
    prompts = []
    for index, data in enumerate(made):
        texts = read_picture_texts(data)
        recipe = json.loads(texts["recipe"])["request"]
        parsed = infotext.parse(texts["parameters"])
        assert recipe["prompt"] == parsed.prompt == resolve(template, request.seed + index, runner.wildcards)
        assert recipe["negative_prompt"] == parsed.negative_prompt
        assert recipe["template"].items() >= {"prompt": template, "negative_prompt": negative}.items()
        assert (parsed.fields["Template"], parsed.fields["Negative Template"]) == (template, negative)
        prompts.append(parsed.prompt)
        back = to_request(parsed, request).request
        assert back.template == Template(prompt=template, negative_prompt=negative)
        assert (back.prompt, back.negative_prompt) == (parsed.prompt, parsed.negative_prompt)
    assert len(set(prompts)) > 1
    for file in folder.iterdir():
        file.unlink()
    verdict = runner.reproduce(made[2], lambda report: None, Control())
    assert verdict.outcome is Outcome.BIT_EXACT
    plain = tiny_request(
        prompt=prompts[0], negative_prompt=infotext.parse(read_picture_texts(made[0])["parameters"]).negative_prompt
    )
    assert pixels(make(runner, plain)[0]) == pixels(made[0])


def test_comments_are_not_drawn_and_not_recorded_in_the_text(runner: Runner) -> None:
    (commented,) = make(runner, tiny_request(prompt="a cat # not a dog", negative_prompt="# nothing\ndark"))
    (plain,) = make(runner, tiny_request(prompt="a cat", negative_prompt="dark"))
    assert pixels(commented) == pixels(plain)
    text = read_picture_texts(commented)["parameters"]
    assert "#" not in text
    assert "Template" not in text


def test_emphasis_is_recorded_where_it_matters(runner: Runner) -> None:
    asked = tiny_request(prompt="a (cat:1.4)", emphasis=Emphasis.NO_NORM)
    (data,) = make(runner, asked)
    parsed = infotext.parse(read_picture_texts(data)["parameters"])
    assert parsed.fields["Emphasis"] == "No norm"
    assert to_request(parsed, tiny_request()).request.emphasis is Emphasis.NO_NORM
    (plain,) = make(runner, tiny_request(prompt="a cat", emphasis=Emphasis.NO_NORM))
    assert "Emphasis" not in read_picture_texts(plain)["parameters"]
