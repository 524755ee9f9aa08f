"""Model files of every kind in a form that an extension reads make the picture that they make as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import LOADER, write_archive
from fastapi.testclient import TestClient
from plugin_app import App, Done
from safetensors.torch import save_file
from tiny_model import METADATA, TEXT, UNET, picture_bytes, tiny_weights
from torch import Tensor

from webui.api.app import build_app
from webui.checkpoints import keys
from webui.cli import main
from webui.engine.executor import Order
from webui.engine.runner import Control
from webui.extras import Enlargement, ExtrasRequest
from webui.metadata.files import read_picture_texts
from webui.metadata.verdict import Outcome
from webui.networks.clip import ClipTextEncoder
from webui.networks.layer_names import lora_targets
from webui.networks.restoration import spandrel
from webui.networks.unet import UNet as UNetNetwork
from webui.result import Pixels

PROMPT = "a red apple, blot<lora:ink:0.8><hypernet:wash:0.5>"
KINDS = ("Stable-diffusion/tiny", "VAE/other", "Lora/ink", "../embeddings/blot", "hypernetworks/wash")


def lora() -> dict[str, Tensor]:
    with torch.device("meta"):
        targets = lora_targets(UNetNetwork(UNET), ClipTextEncoder(TEXT), convolutions=True)
    random = torch.Generator().manual_seed(3)
    made = {}
    for name, target in targets.items():
        made[f"{name}.lora_down.weight"] = torch.randn(2, *target.shape[1:], generator=random) * 0.2
        made[f"{name}.lora_up.weight"] = torch.randn(target.shape[0], 2, generator=random) * 0.2
    return {name: tensor.half() for name, tensor in made.items()}


def hypernetwork() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(4)
    shapes = {"linear.0.weight": (32, 16), "linear.0.bias": (32,), "linear.1.weight": (16, 32), "linear.1.bias": (16,)}
    return {
        f"16.{place}.{name}": torch.randn(*shape, generator=random) * 0.2
        for place in (0, 1)
        for name, shape in shapes.items()
    }


def weights(kind: str) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors of one of ``KINDS``, and its metadata."""
    if kind.startswith("Stable"):
        return tiny_weights(), METADATA
    if kind.startswith("VAE"):
        prefix = keys.VAE_PREFIX
        return {n.removeprefix(prefix): t for n, t in tiny_weights(5).items() if n.startswith(prefix)}, METADATA
    if kind.startswith("Lora"):
        return lora(), {"ss_output_name": "ink_out", "ss_base_model_version": "sd_v1"}
    if kind.startswith("hyper"):
        return hypernetwork(), {"layer_structure": "[1, 2, 1]", "activation_func": "linear"}
    return {"emb_params": torch.randn(2, TEXT.width, generator=torch.Generator().manual_seed(6))}, {}


def put(models: Path, kind: str, form: str) -> Path:
    tensors, metadata = weights(kind)
    path = models / f"{kind}.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "npz":
        return write_archive(path, tensors, metadata)
    save_file(tensors, path, dict(metadata))
    return path


def application(folder: Path, *, archives: tuple[str, ...] = (), loader: bool = True) -> App:
    """The application with a file of each of ``KINDS``, those named in ``archives`` as numpy's."""
    (folder / "app").mkdir(parents=True)
    for kind in KINDS:
        put(folder / "models", kind, "npz" if kind in archives else "safetensors")
    app = App(folder / "app", folder / "models")
    if loader:
        app.install("numpy_loader.py", LOADER)
    return app


def make(app: App, **changes: Any) -> Done:
    return app.make(**{"prompt": PROMPT, "vae": "other", **changes})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """What all files make as safetensors, without any extension."""
    return make(application(tmp_path_factory.mktemp("plain"), loader=False))


def test_every_file_is_read_to_the_same_bits(tmp_path: Path, expected: Done) -> None:
    app = application(tmp_path, archives=KINDS)
    done = make(app)
    assert np.array_equal(done.pixels, expected.pixels)
    assert [(plugin.name, plugin.version) for plugin in done.recipe.plugins] == [("numpy_loader", "1.5")]
    verdict = app.reproduce(done.file)
    assert verdict.outcome is Outcome.BIT_EXACT and verdict.reasons == ()


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_alone_is_noted_where_it_took_part(tmp_path: Path, expected: Done, kind: str) -> None:
    app = application(tmp_path, archives=(kind,))
    done = make(app)
    assert np.array_equal(done.pixels, expected.pixels)
    assert [plugin.name for plugin in done.recipe.plugins] == ["numpy_loader"]
    again = make(app)  # everything is loaded already
    assert [plugin.name for plugin in again.recipe.plugins] == ["numpy_loader"]
    if kind != KINDS[0]:
        plain = app.make()
        assert [*plain.recipe.plugins] == []


def esrgan() -> dict[str, Tensor]:
    spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(1)
    return {name: 2 * tensor for name, tensor in ESRGAN(num_filters=8, num_blocks=1, scale=2).state_dict().items()}


def test_an_upscaler_in_the_second_pass_and_in_extras(tmp_path: Path) -> None:
    """Its pixels are those of the same weights as safetensors, and both recipes name the extension."""
    app = application(tmp_path)
    folder = app.settings.models_dir / "ESRGAN"
    folder.mkdir()
    save_file(esrgan(), folder / "plain.safetensors")
    write_archive(folder / "other.npz", esrgan())
    plain, other = (app.make(second_pass={"scale": 2.0, "upscaler": name, "steps": 1}) for name in ("plain", "other"))
    assert np.array_equal(plain.pixels, other.pixels)
    assert ([*plain.recipe.plugins], [one.name for one in other.recipe.plugins]) == ([], ["numpy_loader"])
    assert app.reproduce(other.file).outcome is Outcome.BIT_EXACT
    enlarged, recipe = _enlarged(app, "other")
    assert np.array_equal(enlarged, _enlarged(app, "plain")[0])
    assert [one["name"] for one in recipe["plugins"]] == ["numpy_loader"]


def _enlarged(app: App, upscaler: str) -> tuple[Pixels, Any]:
    """A picture of Extras and its recipe."""
    digest = app.runner.inputs.put(picture_bytes(32, 48, 1))
    request = ExtrasRequest(images=(digest,), upscale=Enlargement(upscaler=upscaler, by=2.0))
    done = Done(app.settings.outputs_dir)
    app.runner.run(Order(job="2", kind="extras", request=request.to_dict()), done.reports.append, Control())
    return done.pixels, json.loads(read_picture_texts(done.file.read_bytes())["recipe"])


def test_without_the_extension_its_picture_cannot_be_made_again(tmp_path: Path) -> None:
    done = make(application(tmp_path / "with", archives=KINDS[2:3]))
    (tmp_path / "without").mkdir()
    without = App(tmp_path / "without", tmp_path / "with" / "models")
    verdict = without.reproduce(done.file)
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert any('"ink" with SHA-256' in reason for reason in verdict.reasons)
    assert "The extension numpy_loader 1.5 took part and is not installed here." in verdict.reasons
    put(tmp_path / "with" / "models", KINDS[2], "safetensors")  # the same weights are other bytes
    assert without.reproduce(done.file).outcome is Outcome.CANNOT_RUN


def test_page_cards_and_sdapi_list_the_files(tmp_path: Path) -> None:
    app = application(tmp_path, archives=KINDS)
    try:
        engine = app.engine
        assert [entry.title for entry in engine.library.entries()] == ["tiny.npz"]
        (shown,) = engine.checkpoints()
        assert shown.native_size == 64 and shown.defaults["sampler"] == "Euler"
        client = TestClient(build_app(engine))
        (row,) = client.get("/sdapi/v1/loras").json()
        assert (row["alias"], row["metadata"]["ss_base_model_version"]) == ("ink_out", "sd_v1")
        assert client.get("/sdapi/v1/embeddings").json()["loaded"]["blot"]["shape"] == TEXT.width
        assert client.get("/api/v1/cards", params={"kind": "lora"}).json()["unread"] == 1
        engine.cards.read(engine.cards.unread())
        (card,) = client.get("/api/v1/cards", params={"kind": "lora"}).json()["cards"]
        assert (card["name"], card["base"], card["problem"]) == ("ink", "SD1", "")
        told = client.get(f"/api/v1/cards/{card['id']}").json()
        assert told["metadata"]["ss_output_name"] == "ink_out"
        assert engine.library.find("ink_out", "lora").path.suffix == ".npz"
    finally:
        app.close()


def test_of_two_files_of_one_name_that_of_a_built_in_form_is_meant(tmp_path: Path) -> None:
    app = application(tmp_path, archives=())
    put(tmp_path / "models", KINDS[2], "npz")
    found = app.runner.library.entries("lora")
    assert [entry.path.suffix for entry in found] == [".safetensors", ".npz"]
    assert app.runner.library.find("ink", "lora") == found[0]
    assert app.runner.library.find("ink.npz", "lora") == found[1]


def test_the_command_line_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = application(tmp_path, archives=KINDS)
    folders = ["--models-dir", str(app.settings.models_dir), "--extensions-dir", str(app.settings.extensions_dir)]
    outputs = ["--outputs-dir", str(app.settings.outputs_dir)]
    assert main(["models", "--json", *folders, *outputs]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == {"tiny", "other", "ink", "blot", "wash"}
