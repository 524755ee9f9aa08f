"""A module may read a prompt of its own: as the request's own is read, at every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_model import tiny_request

from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.request import Emphasis, ModuleUse
from webui.settings import Settings

OTHER_PROMPT = """
from dataclasses import dataclass, replace
from webui.conditioning import Contribution
from webui.hooks import hookimpl

@dataclass(frozen=True)
class Options:
    text: str = ""

class OtherPrompt:
    name, options = "Other prompt", Options

    def prepare(self, options, model, request, pictures):
        import torch
        from webui.networks.unet import Openings

        if "<" in request.prompt or "#" in request.prompt:
            raise ValueError(f"tags and comments are still in {request.prompt!r}")
        prompt = pictures.encode(options.text)

        def openings(call):
            rows = torch.tensor(call.conditional)[:, None, None]

            def wrap(attending, attend):
                if not attending.is_cross:
                    return attend(attending)
                both = zip(attending.read(prompt.at(call.number)), (attending.key, attending.value))
                key, value = (torch.where(rows, theirs, own) for theirs, own in both)
                return attend(replace(attending, key=key, value=value))

            return Openings(attention_wraps=(wrap,))

        return Contribution(openings)

@hookimpl
def register_conditioning_modules():
    return [OtherPrompt()]
"""


@pytest.fixture
def runner(settings: Settings) -> Runner:
    settings.extensions_dir.mkdir()
    (settings.extensions_dir / "other.py").write_text(OTHER_PROMPT, "utf-8")
    return Runner.start(settings)


@pytest.mark.parametrize(
    "text", ["a (blue:1.4) circle", "a [blue:red:0.5] circle", "a [blue|red] circle", "a circle [in rain:2]"]
)
@pytest.mark.parametrize("emphasis", [Emphasis.ORIGINAL, Emphasis.NO_NORM])
def test_the_picture_is_that_of_the_other_prompt(runner: Runner, text: str, emphasis: Emphasis) -> None:
    def made(prompt: str, *modules: ModuleUse) -> NDArray[np.uint8]:
        request = tiny_request(prompt=prompt, modules=modules, emphasis=emphasis, steps=4)
        (path,) = runner.generate(request, lambda report: None, Control())
        return np.asarray(Image.open(Path(path)))

    asked = made("a red square <nothing:1>\n# a comment", ModuleUse(name="Other prompt", options={"text": text}))
    assert np.array_equal(asked, made(text))
    assert not np.array_equal(asked, made("a red square"))
