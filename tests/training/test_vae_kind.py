from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_cases import Begin, Going, asked, materials, place

from webui.checkpoints.formats import BUILT_IN
from webui.errors import RequestError
from webui.networks.vae import AutoencoderKL, VAEConfig
from webui.training.export import stored
from webui.training.kinds import vae as vae_kind
from webui.training.loop import generator
from webui.training.moments import Exported, Stepped
from webui.training.networks import LATENT_RGB_KEY
from webui.training.request import Optimiser
from webui.training.session import teach

KINDS = {kind.name: kind for kind in vae_kind.register_training_kinds()}


@pytest.fixture
def begin(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> Begin:
    def make(options: dict[str, Any]) -> Any:
        request = asked("vae", painted / "own", options=options)
        return vae_kind.begin(vae_kind.VaeOptions(**options), materials(request, tiny_checkpoint, tmp_path / "cache"))

    return make


def filled(task: Any, values: dict[str, torch.Tensor]) -> AutoencoderKL:
    vae = AutoencoderKL(task.vae.config).eval()
    vae.load_state_dict(values)
    return vae


def test_the_file_has_latents_of_unit_deviation_and_decodes_to_the_same_pictures(begin: Begin) -> None:
    task = begin({"crop": 0})
    exact = {name: tensor.clone() for name, tensor in task.initial.items()}
    weights = task.weights({name: tensor.float() for name, tensor in task.initial.items() if name in task.trained})
    before, after = filled(task, exact), filled(task, dict(weights.tensors))
    pictures = task._whole(task._measured()).float()
    with torch.inference_mode():
        old, new = before.encode(pictures), after.encode(pictures)
        scaled = new.mean * task.materials.model.scale_factor
        assert torch.allclose(scaled.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
        assert torch.allclose(scaled.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3)
        assert torch.allclose(after.decode(new.mean), before.decode(old.mean), atol=1e-4)
        noise = torch.randn(old.mean.shape, generator=generator(0, 0, 0))
        assert torch.allclose(after.decode(new.sample(noise)), before.decode(old.sample(noise)), atol=1e-3)
    colours = json.loads(weights.metadata[LATENT_RGB_KEY])
    assert len(colours["matrix"]) == 4 and all(len(row) == 3 for row in [*colours["matrix"], colours["bias"]])


def test_a_decoder_alone_learns_without_a_change_of_the_encoder(begin: Begin) -> None:
    task = begin({"crop": 0, "decoder_only": True})
    assert task.trained and all(name.startswith(("decoder.", "post_quant_conv.")) for name in task.trained)
    learnt = {name: tensor.float() + 0.01 for name, tensor in task.trained.items()}
    weights = task.weights(learnt)
    for name, tensor in weights.tensors.items():
        same = torch.equal(tensor, task.initial[name])
        assert same is (name not in task.trained), name
    losses = task.loss([0, 1], 0, generator(0, 0, 0))
    assert losses["loss"].requires_grad


def test_steps_bring_the_pictures_nearer(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    request = asked(
        "vae",
        painted / "own",
        options={"crop": 32},
        steps=30,
        batch_size=4,
        optimiser=Optimiser(name="Muon", rate=0.01, warmup=2),
    )
    where = replace(place(tmp_path, tiny_checkpoint), kinds=KINDS)
    moments = list(teach(request, where, Going()))
    losses = [moment.losses["loss"] for moment in moments if isinstance(moment, Stepped)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    (path,) = (moment.path for moment in moments if isinstance(moment, Exported))
    file = BUILT_IN.open(path)
    assert VAEConfig.from_shapes(file.header.shapes(), 8).channels == (16, 16, 16, 16)
    assert all(torch.equal(stored(tensor), tensor) for tensor in load_file(path).values())


def test_a_crop_that_the_vae_cannot_halve_is_refused(begin: Begin) -> None:
    with pytest.raises(RequestError, match=r"crop is 20 pixels; it must be a multiple of"):
        begin({"crop": 20})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"crop": -8}, "Crop is -8; it must be a number from 0"),
        ({"whole_share": 1.5}, r"Whole share is 1\.5; it must be a number from 0 to 1\."),
        ({"squared": -1.0}, "Squared is -1"),
        ({"edges": float("nan")}, "Edges is nan"),
        ({"divergence": -1e-9}, "Divergence is -1e-09"),
        ({"latent_noise": -0.1}, "Latent noise is -0.1"),
        ({"crop": "64"}, "Crop is '64'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        vae_kind.VaeOptions(**options)
