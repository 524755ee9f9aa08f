"""``extensions/README.md`` tells the truth: its headings, its words, its links; and every example is run for real.

Each ``test_hook_<name>`` installs that hook's example and reaches it by the way the application does.
"""

from __future__ import annotations

import ast
import inspect
import io
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from plugin_app import App
from safetensors.torch import load_file, save_file
from scripts_loaded import put_scripts
from tiny_model import METADATA, TEXT, tiny_weights, write_checkpoint

from webui import hooks
from webui.checkpoints.library import Library
from webui.device import Compute
from webui.faces import FaceWork, restored
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture
from webui.metadata.verdict import Outcome
from webui.plugins.manager import SERVER_PACKAGES
from webui.result import Pixels
from webui.training.moments import Exported
from webui.training.request import Data, TrainingRequest
from webui.training.session import Place, teach
from webui.upscalers import find_upscaler, upscaled

FOLDER = Path(__file__).resolve().parents[2] / "extensions"
README = (FOLDER / "README.md").read_text("utf-8")
HOOKS = {
    node.name: node for node in ast.walk(ast.parse(inspect.getsource(hooks.Hooks))) if isinstance(node, ast.FunctionDef)
}
SECTIONS = {
    heading.partition("(")[0]: (heading, body)
    for heading, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, flags=re.MULTILINE | re.DOTALL)
}


def example(hook: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", SECTIONS[hook][1], flags=re.DOTALL)
    return str(code)


def signature(node: ast.FunctionDef) -> str:
    """The hook as an extension's author sees it: without ``self``."""
    arguments = ", ".join(f"{one.arg}: {ast.unparse(one.annotation)}" for one in node.args.args[1:] if one.annotation)
    assert node.returns is not None
    return f"{node.name}({arguments}) -> {ast.unparse(node.returns)}"


def words(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def test_the_headings_are_the_signatures() -> None:
    assert [heading for heading, _ in SECTIONS.values()] == [signature(node) for node in HOOKS.values()]


@pytest.mark.parametrize("hook", HOOKS)
def test_the_sections_say_what_the_docstrings_say(hook: str) -> None:
    docstring = words(ast.get_docstring(HOOKS[hook]) or "")
    assert words(SECTIONS[hook][1]).startswith(docstring)
    for fact in (
        "Server" if "read" in hook or "register" in hook else "Worker",
        "once" if "read" not in hook else "each",
    ):
        assert fact in docstring
    assert "Raising" in docstring


@pytest.mark.parametrize("hook", HOOKS)
def test_the_links_lead_to_where_the_hook_is_used(hook: str) -> None:
    (link,) = re.findall(r"^Used in \[.*?\]\((.*?)\)", SECTIONS[hook][1], flags=re.MULTILINE)
    source = (FOLDER / link).read_text("utf-8")
    part = re.sub(r"register_(model_|ui_)?", "", hook)
    assert f'"{hook}"' in source or re.search(rf"(plugins|engine)\.{part}\b", source)
    for target in re.findall(r"\]\(([^)#]+)\)", SECTIONS[hook][1]):
        assert (FOLDER / target).is_file()


@pytest.mark.parametrize("hook", HOOKS)
def test_the_examples_are_complete_and_short(hook: str) -> None:
    code = example(hook)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert re.search(rf"^@hookimpl.*\ndef {hook}\(", code, flags=re.MULTILINE)
    assert max(map(len, code.splitlines())) <= 120


def test_all_examples_together_load_without_torch(tmp_path: Path) -> None:
    """As the server process loads them, in a process of its own."""
    for hook in HOOKS:
        (tmp_path / f"{hook}.py").write_text(example(hook), "utf-8")
    code = (
        "import sys; from pathlib import Path; from webui.plugins.manager import Plugins\n"
        f"plugins = Plugins.load(Path({str(tmp_path)!r}), packages={SERVER_PACKAGES!r})\n"
        "print(plugins.problems, len(plugins.extensions), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[] {len(HOOKS)} False"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    assert f"test_hook_{hook}" in globals()


class Tireless:
    """Wishes nothing of a run."""

    def stop(self) -> bool:
        return False

    def pause(self) -> bool:
        return False


def encode_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def install(app: App, hook: str) -> None:
    app.install(f"{hook}.py", example(hook))


def test_hook_register_samplers(app: App, plain_pixels: Pixels) -> None:
    install(app, "register_samplers")
    done = app.make(sampling={"sampler": "ralston", "steps": 2, "cfg_scale": 3.0})
    assert "Sampler: Ralston," in done.parameters
    assert not np.array_equal(done.pixels, plain_pixels)
    assert [plugin.name for plugin in done.recipe.plugins] == ["register_samplers"]
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT
    assert "Ralston" in {sampler.name for sampler in app.engine.samplers()}
    assert [plugin.name for plugin in app.make().recipe.plugins] == []


def test_the_sampler_of_the_example_is_of_second_order(app: App) -> None:
    """Gaussian data of deviation s: the clean value is x·s²/(s²+σ²), the exact path x·√((s²+σ²)/(s²+σ₀²))."""
    install(app, "register_samplers")
    sampler = app.runner.plugins.samplers["Ralston"]

    def error(steps: int, s: float = 0.7, start: float = 10.0, end: float = 0.5) -> float:
        sigmas = [start * (end / start) ** (i / steps) for i in range(steps + 1)]
        *_, last = sampler.integrate(lambda x, sigma: x * s**2 / (s**2 + sigma**2), 10.0, sigmas, None, eta=0.0)  # type: ignore[arg-type,return-value,operator]
        return abs(float(last.x) - 10.0 * ((s**2 + end**2) / (s**2 + start**2)) ** 0.5)

    assert error(200) / error(400) == pytest.approx(4.0, rel=0.05)


def test_hook_register_schedules(app: App, plain_pixels: Pixels) -> None:
    install(app, "register_schedules")
    schedule = app.runner.plugins.schedules["Straight"]
    from webui.diffusion.schedules import NoiseTable

    table = NoiseTable.scaled_linear()
    assert schedule.sigmas(table, 5)[:-1] == pytest.approx(np.linspace(table.sigma_max, table.sigma_min, 5))
    done = app.make(sampling={"sampler": "Euler", "schedule": "straight", "steps": 3, "cfg_scale": 3.0})
    assert "Schedule type: Straight," in done.parameters
    assert not np.array_equal(done.pixels, plain_pixels)
    assert [plugin.name for plugin in done.recipe.plugins] == ["register_schedules"]
    assert "Straight" in {one.name for one in app.engine.schedules()}


def test_hook_register_model_families(app: App, tmp_path: Path, plain_pixels: Pixels) -> None:
    install(app, "register_model_families")
    metadata = {**METADATA, "modelspec.resolution": "96x96"}
    app.settings = replace(app.settings, models_dir=tmp_path / "models")
    write_checkpoint(tmp_path / "models" / "Stable-diffusion" / "tiny.safetensors", tiny_weights(), metadata)
    assert app.engine.checkpoints()[0].native_size == 96
    done = app.make()
    assert [plugin.name for plugin in done.recipe.plugins] == ["register_model_families"]
    assert np.array_equal(done.pixels, plain_pixels), "the same weights by the same code"


def test_hook_register_loaders(app: App, plain_pixels: Pixels, tmp_path: Path) -> None:
    install(app, "register_loaders")
    write_checkpoint(tmp_path / "models" / "Stable-diffusion" / "tiny.safetensors", tiny_weights())
    app.settings = replace(app.settings, models_dir=tmp_path / "models")
    vectors = np.random.default_rng(1).normal(size=(2, TEXT.width)).astype(np.float16)
    (tmp_path / "embeddings").mkdir()
    np.savez(tmp_path / "embeddings" / "blot.npz", emb_params=vectors)
    plain, done = app.make(), app.make(prompt="a red apple, blot")
    assert np.array_equal(plain.pixels, plain_pixels) and [*plain.recipe.plugins] == []
    assert not np.array_equal(done.pixels, plain_pixels)
    assert [plugin.name for plugin in done.recipe.plugins] == ["register_loaders"]
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT
    (card,) = app.engine.library.entries("embedding")
    assert card.name == "blot"
    save_file({"emb_params": torch.from_numpy(vectors)}, tmp_path / "embeddings" / "blot.safetensors")
    app.runner.library.refresh()
    again = app.make(prompt="a red apple, blot")
    assert np.array_equal(again.pixels, done.pixels) and [*again.recipe.plugins] == []


def test_hook_register_conditioning_modules(app: App, plain_pixels: Pixels) -> None:
    install(app, "register_conditioning_modules")
    fog = app.make(modules=[{"name": "Second prompt", "options": {"text": "fog"}}])
    rain = app.make(modules=[{"name": "Second prompt", "options": {"text": "rain"}}])
    assert not np.array_equal(fog.pixels, plain_pixels)
    assert not np.array_equal(fog.pixels, rain.pixels)
    skipping = app.make(modules=[{"name": "Second prompt", "options": {"text": "fog", "clip_skip": 2}}])
    assert not np.array_equal(skipping.pixels, fog.pixels)
    assert 'Second prompt: "Text: fog, Clip skip of the text: 2"' in skipping.parameters
    assert [plugin.name for plugin in fog.recipe.plugins] == ["register_conditioning_modules"]
    assert app.reproduce(fog.file).outcome is Outcome.BIT_EXACT
    assert np.array_equal(app.make().pixels, plain_pixels), "the model is the same, bit for bit, afterwards"
    wrong = app.make(modules=[{"name": "Second prompt", "options": {"texts": "fog"}}])
    assert wrong.ending.kind == "failed" and 'named "texts"; did you mean "text"?' in wrong.ending.data["error"]


def test_hook_register_extra_network_kinds(app: App, plain_pixels: Pixels) -> None:
    install(app, "register_extra_network_kinds")
    red, blue = (app.make(prompt=f"a red apple<tint:{name}:0.5>") for name in ("red", "blue"))
    assert not np.array_equal(red.pixels, plain_pixels) and not np.array_equal(red.pixels, blue.pixels)
    assert red.parameters.startswith("a red apple<tint:red:0.5>\n")
    assert np.array_equal(app.make(prompt="a red apple<tint:strength=0.5:red>").pixels, red.pixels)
    assert [plugin.name for plugin in red.recipe.plugins] == ["register_extra_network_kinds"]
    assert app.reproduce(red.file).outcome is Outcome.BIT_EXACT
    plain = app.make()
    assert np.array_equal(plain.pixels, plain_pixels) and plain.recipe.plugins == ()
    wrong = app.make(prompt="a red apple<tint:bleu>")
    assert 'There is no colour named "bleu"; did you mean "blue"?' in wrong.ending.data["error"]


ASKS = """
from dataclasses import dataclass
from webui.conditioning import Contribution
from webui.hooks import hookimpl

@dataclass(frozen=True)
class Options:
    image: str
    preprocessor: str

class Asks:
    name, options = "Asks", Options
    def prepare(self, options, model, request, pictures):
        import torch
        from webui.networks.unet import Openings
        control = pictures.preprocess(options.preprocessor, pictures.load(options.image), {"steps": 2})
        assert set(control.flat) == {0, 255}
        tokens = torch.full((1, 1, 32), control.mean() / 255)
        return Contribution(Openings(extra_context=tokens))

@hookimpl
def register_conditioning_modules():
    return [Asks()]
"""


def test_hook_register_preprocessors(app: App, plain_pixels: Pixels) -> None:
    install(app, "register_preprocessors")
    app.install("asks.py", ASKS)
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    steps = app.runner.plugins.preprocessors["Brightness steps"].run(ramp, {"steps": 2})
    assert np.array_equal(steps, np.where(ramp < 128, 0, 255))
    image = app.runner.inputs.put(encode_picture(ramp, ".png", {}))
    options = {"image": image, "preprocessor": "Brightness steps"}
    done = app.make(modules=[{"name": "Asks", "options": options}])
    assert not np.array_equal(done.pixels, plain_pixels)
    assert {plugin.name for plugin in done.recipe.plugins} == {"asks", "register_preprocessors"}
    wrong = app.make(modules=[{"name": "Asks", "options": {**options, "preprocessor": "Brightnes steps"}}])
    assert 'did you mean "Brightness steps"?' in wrong.ending.data["error"]


def test_hook_register_attention_kinds(app: App, plain_pixels: Pixels) -> None:
    install(app, "register_attention_kinds")
    app.settings = replace(app.settings, attention="plain")
    done = app.make()
    assert np.abs(done.pixels.astype(int) - plain_pixels).max() <= 1
    assert done.recipe.environment.attention == "plain"
    assert [plugin.name for plugin in done.recipe.plugins] == ["register_attention_kinds"]
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT


@pytest.mark.parametrize("kind", ["sdpa", "split"])
def test_the_built_in_kinds_of_attention_give_the_same_picture(app: App, plain_pixels: Pixels, kind: str) -> None:
    app.settings = replace(app.settings, attention=kind)
    done = app.make()
    assert np.abs(done.pixels.astype(int) - plain_pixels).max() <= 1 and done.recipe.environment.attention == kind


def test_an_unknown_kind_of_attention_is_one_sentence(app: App) -> None:
    app.settings = replace(app.settings, attention="spda")
    ending = app.make().ending
    assert ending.kind == "failed" and 'did you mean "sdpa"' in ending.data["error"]


def test_hook_register_upscalers(app: App) -> None:
    install(app, "register_upscalers")
    upscaler = find_upscaler("scale2x", app.engine.upscalers())
    corner = np.zeros((8, 8, 3), np.uint8)
    corner[4:, 4:] = 255
    large = upscaled(corner, 16, 16, upscaler)
    assert large.shape == (16, 16, 3)
    assert large[9, 9].tolist() == [255, 255, 255] and large[8, 8].tolist() == [0, 0, 0], "the corner is rounded"
    assert app.runner.plugins.upscalers["Scale2x"].scale == 2


def test_hook_register_scripts(app: App) -> None:
    install(app, "register_scripts")
    assert [script.name for script in app.engine.scripts()][-1] == "Clip skips"
    done = app.make(script={"name": "clip skips", "options": {"clip_skips": 2}})
    first, second, sheet = (read_pixels(file.read_bytes()) for file in done.files)
    assert first.tolist() != second.tolist() and sheet.tolist() == np.hstack([first, second]).tolist()


def test_hook_register_face_restorers(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    install(app, "register_face_restorers")
    (restorer,) = [one for one in app.engine.face_restorers() if one.name == "Smooth skin"]
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    face = np.array([[54, 38], [74, 38], [64, 50], [56, 60], [72, 60]], np.float32)
    monkeypatch.setattr("webui.faces.detection._detect", lambda pixels, work: [face])
    work = FaceWork(entries=(), folder=app.settings.models_dir, networks=app.runner.networks)
    mended = restored(noise, restorer, work)
    assert mended[45:55, 60:68].std() < noise[45:55, 60:68].std(), "smoother where the face is"
    assert np.array_equal(mended[:, :10], noise[:, :10]) and np.array_equal(mended[:, -10:], noise[:, -10:])
    assert np.array_equal(restored(noise, restorer, work, visibility=0), noise)


def test_hook_register_training_kinds(app: App, tmp_path: Path) -> None:
    install(app, "register_training_kinds")
    (tmp_path / "lessons").mkdir()
    for number in range(2):
        pixels = np.full((64, 64, 3), 100 * number, np.uint8)
        (tmp_path / "lessons" / f"{number}.png").write_bytes(encode_png(pixels))
    request = TrainingRequest(
        kind="biases",
        name="tinted",
        data=Data(folder=str(tmp_path / "lessons"), size=64, caption="a square"),
        steps=1,
        batch_size=2,
        precision="fp32",
    )
    plugins, base = app.engine.plugins, app.engine.library.default_checkpoint().path
    own = tmp_path / "models" / "Stable-diffusion"
    own.mkdir(parents=True)
    (own / base.name).symlink_to(base)  # what is taught does not join the models of other tests
    library = Library(own.parent, app.engine.library.hashes)
    compute = Compute(torch.device("cpu"), torch.float32, torch.float32, torch.get_num_threads())
    place = Place(
        folder=tmp_path / "run",
        library=library,
        kinds=plugins.training_kinds,
        families=plugins.families,
        compute=compute,
    )
    *_, last = teach(request, place, Tireless())
    assert isinstance(last, Exported)
    before, after = load_file(base), load_file(last.path)
    changed = {name for name in after if not torch.equal(after[name], before[name].to(after[name].dtype))}
    assert changed and all(name.endswith(".bias") for name in changed)


def test_hook_register_infotext_fields(app: App, plain_pixels: Pixels) -> None:
    install(app, "register_infotext_fields")
    done = app.make(comma_backtrack=7)
    assert "Comma search: 7" in done.parameters and "Guidance" not in done.parameters
    assert "Comma search" not in app.make().parameters, "at its default"
    assert app.engine.read_parameters(done.parameters).request.comma_backtrack == 7
    text = "a cat\nSteps: 5, Sampler: Euler, Guidance: 9.5, Comma search: many, Seed: 3, Size: 64x64"
    back = app.engine.read_parameters(text)
    assert (back.request.sampling.cfg_scale, back.request.comma_backtrack) == (9.5, 20)
    assert back.unmapped == ("Comma search: many",)


def test_hook_register_settings(app: App, tmp_path: Path) -> None:
    install(app, "register_settings")
    (tmp_path / "copies").mkdir()
    app.make()
    assert list((tmp_path / "copies").iterdir()) == []
    app.engine.options.change({"copies_folder": str(tmp_path / "copies")})
    done = app.make()
    (copied,) = (tmp_path / "copies").iterdir()
    assert copied.read_bytes() == done.file.read_bytes()
    assert done.recipe.plugins == (), "what is set changes no picture"


def test_hook_register_cli_options(app: App, caplog: pytest.LogCaptureFixture) -> None:
    install(app, "register_cli_options")
    app.settings = replace(app.settings, extension_flags={"journal": {"every": 2}})
    app.make()
    app.make(batch_count=2)
    assert [record.getMessage() for record in caplog.records if record.name == "journal"] == ["2 pictures"]


def test_hook_register_ui_tabs(app: App) -> None:
    import gradio as gr

    from webui.ui.app import build_page

    install(app, "register_ui_tabs")
    app.install(
        "broken_tab.py", example("register_ui_tabs").replace('"jobs"', '"torn"').replace("gr.HTML()", "gr.Torn()")
    )
    job = app.engine.submit(app.make().recipe.request)
    page = build_page(app.engine)
    tabs = [block for block in page.blocks.values() if isinstance(block, gr.Tab)]
    shown = [tab.id for tab in tabs if not isinstance(tab.id, int)]
    assert shown[-5:] == ["jobs", "torn", "train", "extensions", "settings"]
    (event,) = [fn.fn for fn in page.fns.values() if fn.name == "jobs"]
    assert event()[0] == f"<p>{job.state}: a red apple</p>"
    notes = [str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML)]
    assert any("torn" in note and "Torn" in note for note in notes)


def test_hook_register_ui_panels(app: App) -> None:
    import gradio as gr

    from webui.ui.app import build_page

    install(app, "register_ui_panels")
    page = build_page(app.engine)
    (panel,) = [block for block in page.blocks.values() if block.elem_id == "txt2img_panel_louder"]
    (button,) = [b for b in page.blocks.values() if isinstance(b, gr.Button) and b.value == "Louder"]
    assert isinstance(panel, gr.Accordion) and button.parent.parent is panel
    (event,) = [fn for fn in page.fns.values() if (button._id, "click") in fn.targets]
    assert event.fn("a cat")[0] == "A CAT"
    assert event.outputs[0].elem_id == "txt2img_prompt"
    assert app.engine.problems() == []


def test_hook_register_api_routes(app: App) -> None:
    from fastapi.testclient import TestClient

    from webui.api.app import build_app

    install(app, "register_api_routes")
    client = TestClient(build_app(app.engine))
    job = client.post("/orchard/apples?colour=green").json()["job"]
    assert client.get(f"/api/v1/jobs/{job}").json()["request"]["prompt"] == "a green apple"
    assert client.get("/openapi.json").json()["paths"]["/orchard/apples"]["post"]
    assert app.engine.problems() == []


def test_hook_before_job(app: App, caplog: pytest.LogCaptureFixture) -> None:
    install(app, "before_job")
    app.make(batch_count=2)
    lines = [record.getMessage() for record in caplog.records if record.name == "journal"]
    assert lines == ["2 pictures of 'a red apple'"]


def test_hook_rewrite_request(app: App) -> None:
    install(app, "rewrite_request")
    colour = random.Random(7).choice(["red", "green", "blue"])
    done = app.make(prompt="a __colour__ apple")
    assert done.parameters.startswith(f"a {colour} apple\n")
    assert done.recipe.request.prompt == f"a {colour} apple"
    assert [r.data["prompt"] for r in done.reports if r.kind == "request"] == [f"a {colour} apple"]
    assert [plugin.name for plugin in done.recipe.plugins] == ["rewrite_request"]
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT


def test_hook_rewrite_picture(app: App, plain_pixels: Pixels) -> None:
    install(app, "rewrite_picture")
    done = app.make()
    assert done.pixels.shape == (80, 80, 3)
    assert np.array_equal(done.pixels[8:-8, 8:-8], plain_pixels)
    assert (done.pixels[:8] == 255).all() and (done.pixels[:, -8:] == 255).all()
    (output,) = [report.data for report in done.reports if report.kind == "picture"]
    assert (output["width"], output["height"]) == (80, 80)
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT


NEEDS: dict[str, dict[str, Any]] = {
    "rewrite_second_start": {"second_pass": {"upscaler": "Latent", "scale": 2.0, "denoising_strength": 0.7}},
}
"""What a request needs for a hook to be called."""


def plain(app: App, **needs: Any) -> Pixels:
    """The picture of a request without the extension that ``app`` has."""
    folder = app.settings.extensions_dir.parent / "without"
    folder.mkdir()
    return App(folder, app.settings.models_dir).make(**needs).pixels


@pytest.mark.parametrize(
    "hook",
    ["noise", "start", "call", "guided", "denoised", "second_start", "latent", "decoded"],
)
def test_a_moment_changes_the_picture_and_is_in_its_recipe(app: App, hook: str) -> None:
    name = f"rewrite_{hook}"
    install(app, name)
    needs = NEEDS.get(name, {})
    done = app.make(**needs)
    assert app.runner.plugins.problems == []
    assert not np.array_equal(done.pixels, plain(app, **needs))
    assert [plugin.name for plugin in done.recipe.plugins] == [name]
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT


RESULTS = {
    "rewrite_noise": "noise[:1, :, :2]",
    "rewrite_start": "latent.double()",
    "rewrite_call": "call.x",
    "rewrite_guided": "7",
    "rewrite_denoised": "denoised[0]",
    "rewrite_latent": "latent.numpy()",
    "rewrite_decoded": "pixels[:8]",
}


@pytest.mark.parametrize("hook", RESULTS)
@pytest.mark.parametrize("body", ["return {}", "raise KeyError('oops')"])
def test_a_moment_that_fails_changes_nothing_and_is_named(app: App, hook: str, body: str) -> None:
    arguments = [one.arg for one in HOOKS[hook].args.args[1:]]
    lines = ["from webui.hooks import hookimpl", "@hookimpl", f"def {hook}({', '.join(arguments)}):"]
    app.install("broken.py", "\n".join([*lines, f"    {body.format(RESULTS[hook])}"]))
    done = app.make()
    assert np.array_equal(done.pixels, plain(app))
    assert any("extension broken" in problem and hook in problem for problem in app.runner.plugins.problems)


def test_what_a_moment_changes_in_place_is_not_seen(app: App) -> None:
    code = "from webui.hooks import hookimpl\n@hookimpl\ndef rewrite_denoised(denoised):\n    denoised.zero_()\n"
    app.install("careless.py", code)
    assert np.array_equal(app.make().pixels, plain(app)) and app.runner.plugins.problems == []


def lines_of(name: str) -> list[str]:
    return Path(name).read_text().splitlines()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which the examples write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_hook_rewrite_prompt(app: App) -> None:
    install(app, "rewrite_prompt")
    done = app.make(prompt="pic of a cat", negative_prompt="red")
    assert done.parameters.startswith("picture of a cat\nNegative prompt: red, blurry\n")
    assert [r.data["prompt"] for r in done.reports if r.kind == "request"] == ["picture of a cat"]
    assert app.reproduce(done.file).outcome is Outcome.BIT_EXACT


def test_hook_before_batch(app: App, here: Path) -> None:
    install(app, "before_batch")
    app.make(batch_count=2)
    assert lines_of("batches.txt") == ["begun: [0]", "begun: [1]"]


def test_hook_after_batch(app: App, here: Path) -> None:
    install(app, "after_batch")
    app.make(batch_count=2)
    assert lines_of("batches.txt") == ["made: [0]", "made: [1]"]


def test_hook_rewrite_noise(app: App) -> None:
    install(app, "rewrite_noise")
    mirrored, plain_one = app.make().pixels, plain(app)
    same = app.make(sampling={"sampler": "Euler", "steps": 2, "cfg_scale": 3.0}).pixels
    assert np.array_equal(mirrored, same) and not np.array_equal(mirrored, plain_one)


def test_hook_rewrite_start(app: App) -> None:
    install(app, "rewrite_start")
    assert not np.array_equal(app.make().pixels, plain(app))


def test_hook_rewrite_call(app: App) -> None:
    install(app, "rewrite_call")
    assert not np.array_equal(app.make().pixels, plain(app))


def test_hook_rewrite_guided(app: App) -> None:
    install(app, "rewrite_guided")
    one_step = {"sampling": {"sampler": "Euler", "steps": 1, "cfg_scale": 3.0}}
    at_scale_one = {"sampling": {"sampler": "Euler", "steps": 1, "cfg_scale": 1.0}}
    first, prompt_alone = app.make(**one_step).pixels, app.make(**at_scale_one).pixels
    assert np.abs(first.astype(int) - prompt_alone).max() <= 1, "the first call has no guidance"


def test_hook_rewrite_denoised(app: App) -> None:
    install(app, "rewrite_denoised")
    assert not np.array_equal(app.make().pixels, plain(app))


def test_hook_rewrite_blend(app: App) -> None:
    install(app, "rewrite_blend")
    picture = np.zeros((64, 64, 3), np.uint8)
    digest = app.runner.inputs.put(encode_png(picture + 90))
    mask = app.runner.inputs.put(encode_png(np.full_like(picture, 255)))
    needs = {"start": {"image": digest, "mask": {"image": mask, "blur": 0}}}
    changed = app.make(**needs)
    assert [plugin.name for plugin in changed.recipe.plugins] == ["rewrite_blend"]
    assert app.runner.plugins.problems == []
    assert app.reproduce(changed.file).outcome is Outcome.BIT_EXACT


def test_hook_step_done(app: App, here: Path) -> None:
    install(app, "step_done")
    app.make()
    assert [line.split(":")[0] for line in lines_of("steps.txt")] == ["1 of 2", "2 of 2"]


def test_hook_rewrite_second_start(app: App) -> None:
    install(app, "rewrite_second_start")
    assert app.make(**NEEDS["rewrite_second_start"]).pixels.shape == (128, 128, 3)
    assert app.runner.plugins.problems == []


def test_hook_rewrite_latent(app: App) -> None:
    install(app, "rewrite_latent")
    assert not np.array_equal(app.make().pixels, plain(app))


def test_hook_rewrite_decoded(app: App, plain_pixels: Pixels) -> None:
    install(app, "rewrite_decoded")
    assert np.array_equal(app.make().pixels, 255 - plain_pixels)


def test_hook_before_save(app: App, here: Path, plain_pixels: Pixels) -> None:
    install(app, "before_save")
    app.make()
    assert lines_of("brightness.txt") == [f"0: {plain_pixels.mean():.1f} a red apple"]


def test_hook_after_save(app: App, here: Path) -> None:
    install(app, "after_save")
    done = app.make()
    assert (here / "copies" / done.file.name).read_bytes() == done.file.read_bytes()


def test_hook_rewrite_grid(app: App) -> None:
    install(app, "rewrite_grid")
    put_scripts(app.settings.extensions_dir)
    done = app.make(prompt="a|b", script={"name": "Prompt matrix", "options": {}})
    (sheet,) = [report.data for report in done.reports if report.kind == "picture" and report.data["index"] < 0]
    pixels = read_pixels((done.folder / sheet["path"]).read_bytes())
    assert (pixels[:4] == 0).all() and (pixels[:, -4:] == 0).all() and pixels[4:-4, 4:-4].any()
    assert (sheet["width"], sheet["height"]) == (pixels.shape[1], pixels.shape[0])


def test_hook_progress(app: App, here: Path) -> None:
    install(app, "progress")
    app.make()
    assert Path("progress.txt").read_text() == "saving 2/2"


def test_hook_shutdown(app: App, here: Path) -> None:
    install(app, "shutdown")
    app.runner.close()
    assert Path("ended.txt").read_text() == "orderly"
    Path("ended.txt").unlink()
    app.engine.close()
    assert Path("ended.txt").read_text() == "orderly"


def test_hook_after_job(app: App) -> None:
    install(app, "after_job")
    done = app.make(batch_size=2)
    assert [file.with_suffix(".txt").read_text("utf-8") for file in done.files] == ["a red apple"] * 2


def test_hook_write_infotext(app: App, plain_pixels: Pixels) -> None:
    install(app, "write_infotext")
    done = app.make()
    assert "Prompt words: 3" in done.parameters
    assert np.array_equal(done.pixels, plain_pixels)
    assert done.recipe.plugins == ()


def test_hook_read_infotext(app: App) -> None:
    install(app, "read_infotext")
    text = "a cat\nSteps: 5, Sampler: Euler, Guidance: 9.5, Seed: 3, Size: 64x64"
    data = encode_picture(np.zeros((64, 64, 3), np.uint8), ".png", {"parameters": text})
    assert read_pixels(data).shape == (64, 64, 3)
    request = app.engine.read_infotext(data).request
    assert (request.prompt, request.sampling.steps, request.sampling.cfg_scale) == ("a cat", 5, 9.5)
