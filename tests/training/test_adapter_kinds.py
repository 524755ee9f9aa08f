from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_model import tiny_checkpoint  # noqa: F401 - a fixture

from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.hashes import HashCache
from webui.checkpoints.keys import compare
from webui.checkpoints.library import Library
from webui.device import choose
from webui.errors import RequestError
from webui.families.sd15 import StableDiffusion1
from webui.networks.controlnet import ControlNet, ControlNetConfig
from webui.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from webui.preprocessors.canny import register_preprocessors
from webui.training.control import ControlTask, as_hint
from webui.training.data import read_data
from webui.training.export import TrainingRecipe, export
from webui.training.kinds import Materials, TrainingKind, controlnet, t2i_adapter
from webui.training.loop import generator
from webui.training.moments import Moment, Stepped
from webui.training.request import Data, Noise, Samples, TrainingRequest
from webui.training.session import Place, teach

KINDS = [controlnet.register_training_kinds()[0], t2i_adapter.register_training_kinds()[0]]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
Begin = Callable[..., ControlTask]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``pictures`` with captions and, under the same names, ``control``: a bright box on black, its left half."""
    root = tmp_path_factory.mktemp("adapter-data")
    for folder in ("pictures", "control"):
        (root / folder).mkdir()
    for number in range(4):
        pixels = np.full((64, 64, 3), 40, np.uint8)
        pixels[8 : 24 + 8 * number, 4 : 20 + 4 * number] = (250, 180, 40 * number)
        Image.fromarray(pixels).save(root / "pictures" / f"{number}.png")
        (root / "pictures" / f"{number}.txt").write_text(f"box {number}", "utf-8")
        hint = np.zeros_like(pixels)
        hint[:, :32] = np.where(pixels[:, :32] > 100, 255, 0)
        Image.fromarray(hint).save(root / "control" / f"{number}.png")
    return root


@pytest.fixture
def begin(pictures: Path, tiny_checkpoint: Path, tmp_path: Path) -> Begin:  # noqa: F811
    def make(kind: TrainingKind, precision: str = "fp32", options: Any = None, **changes: Any) -> ControlTask:
        data = changes.pop("data", {})
        request = TrainingRequest(
            kind=kind.name,
            name="control",
            data=Data(folder=str(pictures / "pictures"), size=64, **data),
            precision=precision,
            **changes,
        )
        compute = choose("cpu", precision, 1)
        base = BUILT_IN.open(tiny_checkpoint)
        materials = Materials(
            request=request,
            data=read_data(request.data, 64),
            model=StableDiffusion1().build(base, choose("cpu", "fp32", 1)),
            base=base,
            base_sha256="0" * 64,
            families={},
            compute=compute,
            cache=tmp_path,
            tell=lambda sentence: None,
            preprocessors={part.name: part for part in register_preprocessors()},
        )
        return kind.begin(options or kind.options(), materials)

    return make


def loss(task: ControlTask, step: int = 0) -> torch.Tensor:
    return task.loss((0, 1, 2, 3), step, generator(0, step, 0))["loss"]


def learn(task: ControlTask, steps: int, rate: float) -> tuple[float, float]:
    """The loss of the same questions before and after so many steps of Adam on them."""
    optimiser = torch.optim.Adam(task.trained.values(), lr=rate)
    losses = []
    for _ in range(steps + 1):
        optimiser.zero_grad()
        value = loss(task)
        value.backward()
        losses.append(value.item())
        optimiser.step()
    return losses[0], losses[-1]


@each_kind
def test_the_adapter_learns_and_the_model_stays_as_it_is(kind: TrainingKind, begin: Begin) -> None:
    task = begin(kind)
    frozen = [task.model.unet, task.model.text_encoder, task.model.vae]
    before = [{name: tensor.clone() for name, tensor in part.state_dict().items()} for part in frozen]
    first, last = learn(task, 25, 3e-3)
    assert last < 0.9 * first
    for part, kept in zip(frozen, before, strict=True):
        assert all(torch.equal(tensor, kept[name]) for name, tensor in part.state_dict().items())
        assert all(parameter.grad is None for parameter in part.parameters())
    assert all(parameter.grad is not None for parameter in task.trained.values())


def test_a_fresh_controlnets_loss_is_the_models_own(begin: Begin) -> None:
    task = begin(KINDS[0])
    with torch.no_grad():
        random = generator(0, 0, 0)
        torch.randint(1, (4,), generator=random)
        latents = torch.cat([task.sides[0].batch([item], random) for item in range(4)])
        question = task.objective.ask(latents, random)
        tokens = task.captions.batch(range(4), task.materials.request.noise.caption_dropout, random)
        answer = task.model.unet(question.noisy, question.timesteps, task.model.text_encoder(tokens))
        assert torch.equal(loss(task), task.objective.loss(question, answer))


@each_kind
def test_adapters_meet_the_context_of_drawing(kind: TrainingKind, begin: Begin) -> None:
    for short in (False, True):
        task, lengths = begin(kind, noise=Noise(short_captions=short)), []
        task.model.unet.register_forward_pre_hook(lambda module, given, seen=lengths: seen.append(given[2].shape[1]))
        with torch.no_grad():
            for step in range(6):
                loss(task, step)
        assert max(lengths) <= 77 and (min(lengths) < 77) is short


@each_kind
def test_the_same_seed_gives_the_same_loss_and_another_hint_another(kind: TrainingKind, begin: Begin) -> None:
    task, again = begin(kind), begin(kind)
    learn(task, 2, 1e-2)
    learn(again, 2, 1e-2)
    from_folder = begin(kind, data={"control_folder": str(Path(task.materials.request.data.folder).parent / "control")})
    for name, tensor in task.trained.items():
        from_folder.trained[name].data.copy_(tensor)
    with torch.no_grad():
        assert torch.equal(loss(task), loss(again))
        assert not torch.equal(loss(task, 1), loss(task, 0))
        assert not torch.equal(loss(task), loss(from_folder))


def test_control_pictures_are_mirrored_with_their_pictures(begin: Begin, pictures: Path) -> None:
    task = begin(KINDS[0], data={"flip": True, "control_folder": str(pictures / "control")})
    assert len(task.sides) == 2
    hints = task.hints.batch((0, 1), (0, 1))
    straight = as_hint([np.array(Image.open(pictures / "control" / f"{number}.png")) for number in (0, 1)])
    assert torch.equal(hints[0], straight[0])
    assert torch.equal(hints[1], straight[1].flip(2))
    assert hints.max() == 1.0
    plain, mirrored = (side.moments["64x64"][1, :4].float() for side in task.sides)
    assert not torch.equal(plain, mirrored)
    from webui.latents.codec import encode

    pixels = np.array(Image.open(pictures / "pictures" / "1.png"))
    for found, picture in ((plain, pixels), (mirrored, pixels[:, ::-1])):
        assert torch.allclose(found, encode(picture, task.model).mean[0], atol=2e-2)


@each_kind
def test_without_a_folder_hints_are_the_preprocessors(kind: TrainingKind, begin: Begin) -> None:
    task = begin(kind)
    hint = task.hints.pixels(2)
    assert set(np.unique(hint)) == {0, 255}
    assert hint[:, 40:].sum() == 0
    with pytest.raises(RequestError, match='preprocessor named "cany"; did you mean "canny"'):
        begin(kind, options=kind.options(preprocessor="cany"))


@each_kind
def test_another_prediction_than_the_models_is_refused(kind: TrainingKind, begin: Begin) -> None:
    with pytest.raises(RequestError, match="predicts epsilon"):
        begin(kind, noise=Noise(prediction="V"))


@pytest.mark.parametrize(
    ("kind", "prefix", "build", "architecture"),
    [
        (KINDS[0], "control_model.", (ControlNetConfig, ControlNet), "stable-diffusion-v1/controlnet"),
        (KINDS[1], "", (T2IAdapterConfig, T2IAdapter), "stable-diffusion-v1/t2i-adapter"),
    ],
)
def test_the_file_loads_as_published_ones_do(
    kind: TrainingKind, prefix: str, build: Any, architecture: str, begin: Begin, tmp_path: Path
) -> None:
    task = begin(kind)
    learn(task, 2, 1e-2)
    recipe = TrainingRecipe(task.materials.request, "d" * 64, 4, "tiny", "0" * 64, 2)
    path = export(tmp_path / "out.safetensors", task.weights(task.trained), recipe)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert metadata["modelspec.architecture"] == architecture
    assert metadata["webui.preprocessor"] == "canny"
    sizes = json.loads(metadata["starter.config"])["unet"]
    shapes = {name.removeprefix(prefix): tuple(tensor.shape) for name, tensor in tensors.items()}
    assert all(name.startswith(prefix) for name in tensors)
    config_kind, network_kind = build
    heads = (sizes["num_heads"], sizes["norm_groups"]) if network_kind is ControlNet else ()
    network = network_kind(config_kind.from_shapes(shapes, *heads))
    assert compare(shapes, {name: tuple(t.shape) for name, t in network.state_dict().items()}).usable
    network.load_state_dict({name.removeprefix(prefix): tensor.float() for name, tensor in tensors.items()})
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor, task.trained[f"adapter.{name}"], atol=1e-3), name


@each_kind
def test_samples_show_the_hint_and_what_is_drawn_after_it(kind: TrainingKind, begin: Begin) -> None:
    task = begin(kind, samples=Samples(prompts=("a", "b"), steps=2, cfg_scale=3.0))
    before = task.samples()
    assert [picture.shape for picture in before] == [(64, 128, 3)] * 2
    assert np.array_equal(before[1][:, :64], task.hints.pixels(1))
    learn(task, 6, 3e-2)
    after = task.samples()
    assert np.array_equal(before[0][:, :64], after[0][:, :64])
    assert not np.array_equal(before[0][:, 64:], after[0][:, 64:])


def test_a_fresh_controlnets_sample_is_the_models_own(begin: Begin) -> None:
    from webui.training.sampling import draw

    task = begin(KINDS[0], samples=Samples(prompts=("a box",), steps=2))
    plain = draw(task.materials.request.samples, task.model, task.materials.compute, side=64)
    assert np.array_equal(task.samples()[0][:, 64:], plain[0])


@each_kind
def test_half_precision_trains_near_fp32(kind: TrainingKind, begin: Begin) -> None:
    exact, half = begin(kind), begin(kind, "bf16")
    assert {tensor.dtype for tensor in half.trained.values()} == {torch.bfloat16}
    assert all(tensor.dtype is torch.float32 for tensor in half.initial.values())
    assert half.initial.keys() == half.trained.keys()
    with torch.no_grad():
        assert abs(loss(half) / loss(exact) - 1) < 0.1


class StopAt:
    """Wishes that end a run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.is_over = False

    def stop(self) -> bool:
        return self.is_over

    def pause(self) -> bool:
        return False

    def hear(self, moment: Moment) -> None:
        self.is_over = isinstance(moment, Stepped) and moment.step == self.step


@each_kind
def test_a_run_stopped_and_resumed_learns_the_same(
    kind: TrainingKind,
    pictures: Path,
    tiny_checkpoint: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    request = TrainingRequest(
        kind=kind.name,
        name="edges",
        data=Data(folder=str(pictures / "pictures"), size=64, flip=True),
        steps=4,
        batch_size=2,
        precision="fp32",
        options={"preprocessor": "canny"},
    )
    written = []
    for name, ends in (("whole", [4]), ("stopped", [2, 4])):
        models = tmp_path / name / "models"
        (models / "Stable-diffusion").mkdir(parents=True)
        (models / "Stable-diffusion" / tiny_checkpoint.name).hardlink_to(tiny_checkpoint)
        place = Place(
            folder=tmp_path / name / "run",
            library=Library(models, HashCache(tmp_path / name / "hashes.sqlite3")),
            kinds={kind.name: kind},
            families={StableDiffusion1().name: StableDiffusion1()},
            compute=choose("cpu", "fp32", 1),
            preprocessors={part.name: part for part in register_preprocessors()},
        )
        file = models / "ControlNet" / "edges.safetensors"
        for end in ends:
            assert not file.exists()
            wishes = StopAt(end)
            for moment in teach(request, place, wishes):
                wishes.hear(moment)
        written.append(load_file(file))
    whole, resumed = written
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
