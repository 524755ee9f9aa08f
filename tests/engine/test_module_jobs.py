"""A job with a conditioning module: what was asked for is checked at once, spelled out, recorded, read back."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from module_toy import TINT
from tiny_model import picture_bytes, tiny_request
from waiting import finished

from webui.engine.engine import Engine
from webui.engine.executor import Control
from webui.engine.runner import Runner
from webui.errors import NotFoundError, RequestError
from webui.metadata.files import read_picture_texts
from webui.metadata.verdict import Outcome
from webui.request import ModuleUse
from webui.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.extensions_dir.mkdir()
    (settings.extensions_dir / "tint.py").write_text(TINT, "utf-8")
    controlnets = settings.models_dir / "ControlNet"
    controlnets.mkdir()
    (controlnets / "edges.safetensors").write_bytes(b"12345")
    return settings


def tint(**options: Any) -> ModuleUse:
    return ModuleUse(name="Tint", options=options)


@pytest.mark.parametrize(
    ("uses", "told"),
    [
        ((ModuleUse(name="Tin"),), 'did you mean "Tint"?'),
        ((tint(strenght=1),), 'There is no option of Tint named "strenght"; did you mean "strength"?'),
        ((tint(strength=5),), "Tint: Strength is 5; it must be a number from 0 to 2."),
        ((tint(model="edge"),), 'Tint: Model: There is no controlnet named "edge"; did you mean "edges"?'),
        ((tint(preprocessor="x"),), 'Tint: Preprocessor: There is no preprocessor named "x"'),
        ((tint(image="x.png"),), "Tint: Picture (image) must be named by the SHA-256"),
        ((tint(), tint(), tint()), "Tint can be used 2 times in a request; here it is used 3 times."),
    ],
)
def test_a_wrong_use_is_refused_when_it_is_asked_for(engine: Engine, uses: tuple[ModuleUse, ...], told: str) -> None:
    with pytest.raises(RequestError) as caught:
        engine.submit(tiny_request(modules=uses))
    assert told in str(caught.value)
    assert engine.jobs() == []


def test_a_picture_that_is_not_stored_is_refused(engine: Engine) -> None:
    with pytest.raises(NotFoundError):
        engine.submit(tiny_request(modules=(tint(image="ab" * 32),)))


def test_options_are_spelled_out_and_recorded(engine: Engine, runner: Runner, settings: Settings) -> None:
    (settings.models_dir / "ControlNet" / "lines.safetensors").write_bytes(b"123456")  # after the last look
    picture = engine.put_input(picture_bytes())
    asked = (tint(image=picture, preprocessor="negative", model="lines.safetensors", words="a, b"), tint(strength=2))
    job = finished(engine, engine.submit(tiny_request(modules=asked)))
    data = engine.output_path(job.outputs[0].id).read_bytes()
    texts = read_picture_texts(data)
    recipe = json.loads(texts["recipe"])
    first, second = (use["options"] for use in recipe["request"]["modules"])
    assert job.request["modules"][0]["options"] == first
    assert first == {
        "image": picture, "mask": "", "preprocessor": "negative", "model": "lines", "strength": 1.0, "tokens": 1,
        "words": "a, b", "mode": "Soft", "softness": 0.5, "inverted": False, "places": [],
    }  # fmt: skip
    assert (second["strength"], second["words"]) == (2.0, "")
    files = [(model["role"], model["name"], model["sha256"]) for model in recipe["models"]]
    assert ("controlnet", "lines", hashlib.sha256(b"123456").hexdigest()) in files
    assert recipe["inputs"] == [picture] and [plugin["name"] for plugin in recipe["plugins"]] == ["tint"]
    assert 'Preprocessor: negative, Model: lines, Words: \\"a, b\\""' in texts["parameters"]
    assert 'Tint 2: "Strength: 2.0"' in texts["parameters"]
    back = engine.read_parameters(texts["parameters"])
    assert back.request.to_dict()["modules"] == recipe["request"]["modules"] and back.unmapped == ()
    (settings.models_dir / "ControlNet" / "lines.safetensors").rename(settings.models_dir / "ControlNet" / "x.pt")
    runner.library.refresh()
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT, "found by its hash"


def test_a_preprocessor_is_known_by_its_other_names(engine: Engine) -> None:
    negative = engine.plugins.preprocessors["negative"]
    engine.plugins.preprocessors["negative"] = replace(negative, aliases=("Inverted colours",))
    job = engine.submit(tiny_request(modules=(tint(preprocessor="inverted colours"),)))
    assert job.request["modules"][0]["options"]["preprocessor"] == "negative"


def test_every_option_changes_the_picture(runner: Runner, settings: Settings) -> None:
    picture = runner.inputs.put(picture_bytes())
    made = set()
    options: list[dict[str, Any]] = [
        {}, {"strength": 0.5}, {"image": picture}, {"image": picture, "preprocessor": "negative"}, {"model": "edges"},
        {"tokens": 3}, {"words": "xx"}, {"mode": "Hard"}, {"inverted": True}, {"places": [0.3]},
    ]  # fmt: skip
    for each in options:
        request = tiny_request(modules=(tint(**each),))
        (path,) = runner.generate(request, lambda report: None, Control())
        made.add(json.loads(read_picture_texts(path.read_bytes())["recipe"])["pixels"])
    assert len(made) == len(options)


def test_pictures_may_stand_in_the_request_themselves(engine: Engine) -> None:
    body = tiny_request().to_dict()
    text = base64.b64encode(picture_bytes()).decode()
    body["modules"] = [{"name": "Tint", "options": {"image": text, "mask": f"data:image/png;base64,{text}"}}]
    digest = hashlib.sha256(picture_bytes()).hexdigest()
    options = engine.submit_plain(body).request["modules"][0]["options"]
    assert options["image"] == options["mask"] == digest
    assert engine.input_path(digest).read_bytes() == picture_bytes()
    for wrong in ("nothing", base64.b64encode(b"no picture").decode()):
        body["modules"] = [{"name": "Tint", "options": {"image": wrong}}]
        with pytest.raises(RequestError, match=r"^Tint: a picture must be the SHA-256 of a stored one"):
            engine.submit_plain(body)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("units, order", "unit, order"), None),
        (('"Tint of it", 2,', '"Tint of it", 0,'), "its units are 0; it must be a whole number from 1 to 16"),
        (('of="controlnet"', 'of="nets"'), 'its option model names the kind of models "nets"'),
        (("def prepare(", "def always_on(self, args): pass\n    write_infotext = 5\n    def prepare("), "be called"),
        (
            ("def prepare(", "def write_infotext(self, options, number): pass\n    def prepare("),
            "it has only one of write_infotext and read_infotext",
        ),
        (("Kind.PICTURE", "Kind.PAINT"), "it has an option to be painted and no palette"),
        (("@dataclass(frozen=True, kw_only=True)", ""), "its options are no dataclass"),
    ],
)
def test_a_module_that_is_declared_wrongly_is_named(
    settings: Settings, change: tuple[str, str], told: str | None
) -> None:
    (settings.extensions_dir / "tint.py").write_text(TINT.replace(*change), "utf-8")
    plugins = Runner.start(settings).plugins
    assert bool(plugins.conditioning_modules) == (told is None)
    problems = [problem for problem in plugins.problems if "extension tint" in problem]
    assert len(problems) == (told is not None) and all(str(told) in problem for problem in problems)


def test_a_text_function_that_fails_is_named_and_the_job_goes_on(settings: Settings) -> None:
    failing = """
    def write_infotext(self, options, number): raise KeyError("no")
    def read_infotext(self, fields): return []
    def prepare("""
    (settings.extensions_dir / "tint.py").write_text(TINT.replace("\n    def prepare(", failing), "utf-8")
    runner = Runner.start(settings)
    (path,) = runner.generate(tiny_request(modules=(tint(strength=0.5),)), lambda report: None, Control())
    assert 'Tint: "Strength: 0.5"' in read_picture_texts(path.read_bytes())["parameters"]
    assert any("write_infotext of Tint failed: KeyError" in problem for problem in runner.plugins.problems)
