"""Kinds of networks of extensions, end to end: pictures, recipes, reproduction, and what is wrong is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from network_toy import STYLE, write_style
from plugin_app import App, Done
from tiny_model import tiny_request

from webui.api.app import build_app
from webui.errors import RequestError, WebUIError
from webui.metadata.verdict import Outcome
from webui.plugins.own_networks import registered_kinds
from webui.request import SecondPass
from webui.result import Pixels

TENSORS = 'pictures.formats.open(use.path).load("", model.compute.dtype, model.compute.device)'
PLAIN = STYLE.replace('("styles",)', "()").replace(TENSORS, "{'tokens': torch.full((8, 32), len(use.name) / 4)}")
"""The toy extension without files."""
MISSING = "The extension style 1.5 took part and is not installed here."


@pytest.fixture
def own(app: App, tmp_path: Path) -> App:
    """The application with the toy extension and a models folder of its own, in which a style is."""
    models = tmp_path / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    for path in (app.settings.models_dir / "Stable-diffusion").iterdir():
        (models / "Stable-diffusion" / path.name).symlink_to(path)
    app.settings = replace(app.settings, models_dir=models)
    app.install("style.py", STYLE)
    write_style(models / "styles" / "drawn" / "ink.safetensors")
    return app


def style(app: App, name: str = "drawn/ink.safetensors") -> Path:
    return app.settings.models_dir / "styles" / name


def error(done: Done) -> str:
    assert done.ending.kind == "failed", done.ending
    return str(done.ending.data["error"])


def problems(done: Done) -> list[str]:
    return [str(report.data["sentence"]) for report in done.reports if report.kind == "problem"]


def test_a_tag_changes_the_picture_which_tells_of_it_and_is_made_again(own: App, plain_pixels: Pixels) -> None:
    done = own.make(prompt="a red <style:ink:0.5>apple")
    assert not problems(done) and not np.array_equal(done.pixels, plain_pixels)
    assert np.array_equal(own.make(prompt="a red <look:drawn/ink:strength=0.5>apple").pixels, done.pixels)
    others = [own.make(prompt=f"a red <style:ink:0.5{more}>apple") for more in (":Hard", ":tokens=3", ":turned=yes")]
    assert len({done.pixels.tobytes(), *(other.pixels.tobytes() for other in others)}) == 4
    assert done.parameters.startswith("a red <style:ink:0.5>apple\n")
    (file,) = [model for model in done.recipe.models if model.role == "style"]
    assert (file.name, file.sha256) == ("ink", hashlib.sha256(style(own).read_bytes()).hexdigest())
    assert [(one.name, one.version) for one in done.recipe.plugins] == [("style", "1.5")]
    verdict = own.reproduce(done.file)
    assert (verdict.outcome, verdict.reasons) == (Outcome.BIT_EXACT, ())
    assert np.array_equal(own.make().pixels, plain_pixels) and own.make().recipe.plugins == ()


def test_several_tags_and_both_passes(own: App) -> None:
    write_style(style(own, "chalk.safetensors"), seed=1)
    both = own.make(prompt="a red apple<style:ink><style:chalk:0.5>")
    other = own.make(prompt="a red apple<style:chalk:0.5><style:ink>")
    assert [model.name for model in both.recipe.models if model.role == "style"] == ["ink", "chalk"]
    assert not np.array_equal(both.pixels, own.make(prompt="a red apple<style:ink>").pixels)
    assert [model.name for model in other.recipe.models if model.role == "style"] == ["chalk", "ink"]
    second = own.make(second_pass={"upscaler": "Latent", "steps": 2, "prompt": "a pear<style:ink>"})
    assert [model.name for model in second.recipe.models if model.role == "style"] == ["ink"]
    assert [one.name for one in second.recipe.plugins] == ["style"]
    assert own.reproduce(second.file).outcome is Outcome.BIT_EXACT


def test_a_file_is_found_again_by_its_hash_or_missed(own: App) -> None:
    done = own.make(prompt="a red apple<look:ink>")
    style(own).rename(style(own, "moved.safetensors"))
    write_style(style(own), seed=5)  # the name now means another file
    assert own.reproduce(done.file).outcome is Outcome.BIT_EXACT
    digest = hashlib.sha256(style(own, "moved.safetensors").read_bytes()).hexdigest()
    style(own, "moved.safetensors").unlink()
    verdict = own.reproduce(done.file)
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert verdict.reasons == (f'The style file "ink" with SHA-256 {digest} is not in the models folder.',)


def test_an_extension_that_is_missing_is_told(own: App) -> None:
    done = own.make(prompt="a red apple<style:ink>")
    (own.settings.extensions_dir / "style.py").unlink()
    verdict = own.started_anew().reproduce(done.file)
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert verdict.reasons == ('The tag <style:ink> is not known here; it named the file "ink".', MISSING)
    ignored = own.make(prompt="a red apple<style:ink>")
    assert problems(ignored) == [
        "The prompt's <style:ink> was taken out without effect: "
        "only <lora:name:weight> and <hypernet:name:multiplier> are known here."
    ]
    own.install("style.py", STYLE)
    verdict = own.started_anew().reproduce(ignored.file)
    assert verdict.outcome is Outcome.DIFFERENT
    assert "The extension style is installed here and did not take part." in verdict.reasons


def test_what_does_not_fit_is_refused_when_the_request_is_made(own: App) -> None:
    engine = own.engine
    for prompt, sentence in (
        ("<style:imk>", 'There is no style file named "imk"'),
        ("<style:ink:3>", "<style:ink:3>: Strength is 3.0; it must be a number from 0 to 2."),
        ("<style:ink:strenth=1>", 'no option of <style:ink:strenth=1> named "strenth"; did you mean "strength"?'),
        ("a {red|<style:imk>} apple", 'There is no style file named "imk"'),
    ):
        with pytest.raises(RequestError) as refused:
            engine.submit(tiny_request(prompt=prompt))
        assert sentence in str(refused.value)
        with pytest.raises(RequestError):
            engine.submit(tiny_request(second_pass=SecondPass(upscaler="Latent", prompt=prompt)))
    engine.submit(tiny_request(prompt="<style:ink:2><other:x:y>"))


def test_every_api_refuses_it_with_the_same_sentence(own: App) -> None:
    client = TestClient(build_app(own.engine), raise_server_exceptions=False)
    for path in ("/api/v1/jobs", "/sdapi/v1/txt2img"):
        answer = client.post(path, json={"prompt": "a cat <style:ink:3>"})
        assert answer.status_code >= 400
        assert "<style:ink:3>: Strength is 3.0; it must be a number from 0 to 2." in answer.text


def test_an_extension_that_is_missing_is_told_where_its_tag_named_no_file(app: App) -> None:
    app.install("style.py", PLAIN)
    done = app.make(prompt="a red apple<style:warm:0.5>")
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT and len(done.recipe.models) == 1
    (app.settings.extensions_dir / "style.py").unlink()
    verdict = app.started_anew().reproduce(done.file)
    assert verdict.outcome is not Outcome.BIT_EXACT and MISSING in verdict.reasons


def test_choices_are_made_before_arguments_are_read(own: App) -> None:
    done = own.make(prompt="a red apple<style:ink:{0.5|0.5}>")
    assert np.array_equal(done.pixels, own.make(prompt="a red apple<style:ink:0.5>").pixels)
    own.engine.submit(tiny_request(prompt="<style:ink:{7|8}>"))
    assert "Strength is" in error(own.make(prompt="a red apple<style:ink:{7|8}>"))


def test_what_a_kind_says_of_its_file_is_told(own: App) -> None:
    write_style(style(own), strange=torch.ones(1))
    done = own.make(prompt="a red apple<style:ink>")
    assert problems(done) == ['Of the style "ink", strange is not known.']


def test_files_are_listed_and_have_cards(own: App) -> None:
    entries = own.engine.library.entries("style")
    assert [(entry.kind, entry.name) for entry in entries] == [("style", "drawn/ink")]
    assert "style" in own.engine.cards.shown and own.engine.cards.folders("style") == {"drawn": 1}
    write_style(style(own, "chalk.safetensors"))
    own.engine.refresh()
    assert [entry.name for entry in own.engine.library.entries("style")] == ["chalk", "drawn/ink"]


def test_what_a_page_and_the_api_tell_of_a_kind(own: App) -> None:
    hypernet, style_kind = own.engine.network_kinds()
    assert (hypernet.strength, style_kind.strength) == ("1", "1")
    client = TestClient(build_app(own.engine))
    told = client.get("/api/v1/network-kinds").json()
    cards = client.get("/api/v1/cards", params={"kind": "style"}).json()["cards"]
    assert [kind["name"] for kind in told] == ["hypernet", "style"]
    assert told[1]["usage"] == "<style:name:strength:mode:tokens:turned>" and told[1]["folders"] == ["styles"]
    assert (told[1]["title"], told[1]["aliases"], told[1]["names"]) == ("style file", ["look"], None)
    assert told[1]["schema"]["properties"]["strength"]["maximum"] == 2
    assert [(card["kind"], card["insert"], card["folder"]) for card in cards] == [("style", "ink", "drawn")]


def other(name: str, more: str = "", flag: str = "") -> str:
    """Another extension with a kind of this name."""
    return STYLE.replace('"style", "style file", ("look",)', f'"{name}", "other", ({more})').replace(
        "@hookimpl\n", f"@hookimpl{flag}\n"
    )


@pytest.mark.parametrize(
    ("code", "first"),
    [
        (other("style"), "extension aaa (aaa.py)"),
        (other("own", "'look',"), "extension aaa (aaa.py)"),
        (other("own", "'LOOK',"), "extension aaa (aaa.py)"),
        (other("lora", flag="(tryfirst=True)"), "webui.conditioning.lora"),
        (other("own", "'lyco',"), "webui.conditioning.lora"),
        (other("Lora"), "webui.conditioning.lora"),
        (other("hypernet", flag="(tryfirst=True)"), "webui.conditioning.hypernetwork"),
    ],
)
def test_a_word_that_is_taken_is_refused_and_both_are_named(app: App, code: str, first: str) -> None:
    app.install("aaa.py", STYLE)
    app.install("zzz.py", code)
    plugins = app.runner.plugins
    kinds = registered_kinds(plugins).kinds
    assert list(kinds) == ["hypernet", "style"] and kinds["style"].title == "style file"
    (problem,) = plugins.problems
    assert problem.startswith(f"Both {first} and extension zzz (zzz.py) register ")
    assert problem.endswith("(register_extra_network_kinds); the one of extension zzz was left out.")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (other("vae"), "the kind of networks vae was left out: the program has files of its own that are called so."),
        (other("a b"), 'left out: its word "a b" is not made of letters, digits and _.'),
        (STYLE.replace('("styles",)', '("../styles",)'), "does not lie below the models folder."),
        (STYLE.replace('tokens: int = option(8, "Tokens", low=1, high=8)', "tokens: tuple = ()"), "option tokens is"),
        (STYLE.replace("    def prepare", "    def arrange"), "returned a Styles without prepare"),
        (STYLE.replace("return [Styles()]", "return Styles()"), "returned a Styles, expected a list"),
        (STYLE.replace("return [Styles()]", "return 1 / 0"), "ZeroDivisionError"),
    ],
)
def test_a_kind_that_cannot_be_is_named_and_left_out(app: App, code: str, sentence: str) -> None:
    app.install("wrong.py", code)
    assert list(app.runner.plugins.extra_network_kinds.kinds) == ["hypernet"]
    (problem,) = app.runner.plugins.problems
    assert "extension wrong" in problem and sentence in problem
    assert app.make().ending.kind == "done"


def hostile(body: str) -> str:
    start, _, rest = STYLE.partition("        import torch\n")
    return f"{start}        {body}\n\n@hookimpl{rest.partition('@hookimpl')[2]}"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 1 / 0", "The extension style failed: ZeroDivisionError"),
        (
            "return 3",
            "The kind of networks style of extension style (style.py) prepared a int, expected a Contribution",
        ),
        ("return None", "prepared nothing, expected a Contribution; take its tags out of the prompt."),
        ("return Contribution('x')", "(style.py) contributes a str, expected Openings"),
        ("return Contribution(lambda call: 'x')", "(style.py) fills a call with a str, expected Openings"),
        ("return Contribution(lambda call: 1 / 0)", "The extension style failed: ZeroDivisionError"),
        ("return Contribution(len, guide=4)", "(style.py) has for its guide a int, expected a function"),
        ("return Contribution(len, sigma_range=4)", "has for its sigma_range a int, expected two numbers"),
        ("return Contribution(len, problems='abc')", "has for its problems a str, expected a tuple of texts"),
        ("raise SystemExit(3)", "The extension style failed: SystemExit"),
    ],
)
def test_a_hostile_prepare_fails_its_job_alone(own: App, plain_pixels: Pixels, body: str, sentence: str) -> None:
    own.install("style.py", hostile(body))
    done = own.make(prompt="a red apple<style:ink>")
    assert sentence in error(done) and "style.py" in error(done)
    assert np.array_equal(own.make().pixels, plain_pixels)


READS = STYLE.replace("    def prepare", "    def read(self, arguments):\n        BODY\n\n    def prepare")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return 1 / 0", "ZeroDivisionError"),
        ("return 3", "it answered a int, expected a name and options, or None"),
        ("return 'ink', {'strength': 9}", "<style:ink>: Strength is 9; it must be a number from 0 to 2."),
        ("return 'ink', {'power': 1}", 'no option of <style:ink> named "power"'),
    ],
)
def test_a_kind_that_reads_its_tags_itself_and_wrongly(own: App, body: str, sentence: str) -> None:
    own.install("style.py", READS.replace("BODY", body))
    said = error(own.make(prompt="a red apple<style:ink>"))
    assert sentence in said and "style" in said and own.make().ending.kind == "done"


@pytest.mark.parametrize(
    ("raised", "sentence"),
    [
        ("ValueError('too soft')", "The options of <style:ink:0.5> do not fit: too soft."),
        ("KeyError('oops')", "extension style: options of style failed: KeyError: 'oops' (style.py, line"),
    ],
)
def test_a_record_with_checks_of_its_own(own: App, raised: str, sentence: str) -> None:
    check = f"    def __post_init__(self):\n        if self.strength < 1:\n            raise {raised}\n\nclass Styles:"
    own.install("style.py", STYLE.replace("class Styles:", check))
    with pytest.raises(WebUIError) as refused:
        own.engine.submit(tiny_request(prompt="<style:ink:0.5>"))
    assert sentence in str(refused.value)
    own.engine.submit(tiny_request(prompt="<style:ink:1>"))


def test_a_kind_that_reads_its_tags_itself(own: App) -> None:
    own.install(
        "style.py", READS.replace("BODY", "return (arguments[1], {'strength': 0.5}) if arguments[1:] else None")
    )
    done = own.make(prompt="a red apple<style:how:ink>")
    assert done.recipe.models[-1].name == "ink"
    assert "<style:ink> was taken out without effect" in problems(own.make(prompt="a red apple<style:ink>"))[0]
