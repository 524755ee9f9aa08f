"""One training step beside diffusers' networks and scheduler, with the same weights, noise and timesteps.

What diffusers' loop computes is written here as in huggingface/diffusers ``examples/text_to_image/
train_text_to_image.py`` (loss, min-SNR, noise offset) and ``examples/dreambooth/train_dreambooth.py`` (prior
preservation).  Ours is the task itself, fed with the same draws.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_model import CONFIG, TEXT, UNET, VAE
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent.parent / "networks"))
import oracles

from webui.device import choose
from webui.diffusion.prediction import Prediction
from webui.diffusion.schedules import NoiseTable
from webui.training.captions import Captions
from webui.training.kinds.checkpoint import CheckpointOptions, CheckpointTask
from webui.training.kinds.vae import VaeOptions, VaeTask
from webui.training.latents import Latents
from webui.training.loop import Run, generator
from webui.training.objective import Objective, Question
from webui.training.order import Order
from webui.training.request import Data, Noise, Optimiser, Samples, TrainingRequest

TABLE = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ITEMS = (0, 1, 2, 3)
CLOSE = 1e-5
KEY_BIASES = ("k_proj.bias", "attn_1.k.bias")
SCALE = 0.18215


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Remembering(Objective):
    """Keeps what it asked, so that diffusers may be asked the same; how a question comes about stays ours."""

    asked: list[tuple[Tensor, Tensor, Tensor]]

    def question(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Question:
        self.asked.append((latents, noise, timesteps))
        return super().question(latents, noise, timesteps)


def checkpoint_task(
    prediction: Prediction, noise: Noise, *, train_text: bool, class_weight: float = 1.0
) -> CheckpointTask:
    """A task on random networks and latents; the last two of its four pictures are class pictures."""
    unet, text = oracles.unet(UNET), oracles.clip(TEXT)
    trained = {f"unet.{name}": parameter.requires_grad_(True) for name, parameter in unet.named_parameters()}
    text.requires_grad_(train_text)
    if train_text:
        trained |= {f"text.{name}": parameter for name, parameter in text.named_parameters()}
    request = TrainingRequest(
        kind="checkpoint", name="x", data=Data(folder="x", class_weight=class_weight), noise=noise, batch_size=4
    )
    items = [SimpleNamespace(width=64, height=64, repeats=1, is_class=item >= 2, caption="") for item in ITEMS]
    random = torch.Generator().manual_seed(5)
    mean = torch.randn(4, 4, 8, 8, generator=random) / SCALE
    moments = torch.cat([mean, torch.full_like(mean, -3.0)], dim=1).half()
    tokens = torch.full((4, 77), 49407, dtype=torch.int32)
    tokens[:, 0] = 49406
    tokens[:, 1:9] = torch.randint(300, 40000, (4, 8), generator=random).int()
    objective = Objective.of(prediction, NoiseTable.scaled_linear(), noise)
    remembering = Remembering(**vars(objective))
    object.__setattr__(remembering, "asked", [])
    materials: Any = SimpleNamespace(
        request=request, data=SimpleNamespace(items=items, size=64), compute=choose("cpu", "fp32", 1)
    )
    return CheckpointTask(
        materials=materials,
        options=CheckpointOptions(train_text=train_text),
        model=SimpleNamespace(unet=unet, text_encoder=text),  # type: ignore[arg-type]
        objective=remembering,
        latents=Latents({"64x64": moments}, {item: ("64x64", item) for item in ITEMS}, False, SCALE),
        captions=Captions(tokens),
        trained=trained,
        initial={},
        config=CONFIG,
    )


class Diffusers:
    """diffusers' side: copies of the task's networks, and the loss as its examples write it."""

    def __init__(self, task: CheckpointTask) -> None:
        self.unet = apart(oracles.diffusers_unet(task.model.unet))
        self.text = apart(oracles.transformers_clip(task.model.text_encoder))

    def loss(
        self,
        asked: tuple[Tensor, Tensor, Tensor],
        tokens: Tensor,
        prediction: str,
        snr_gamma: float | None,
        prior_loss_weight: float | None,
    ) -> Tensor:
        from diffusers import DDPMScheduler
        from diffusers.training_utils import compute_snr

        latents, noise, timesteps = asked
        scheduler = DDPMScheduler(**TABLE, prediction_type=prediction)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        context = self.text(tokens).last_hidden_state
        target = noise if prediction == "epsilon" else scheduler.get_velocity(latents, noise, timesteps)
        answer = self.unet(noisy, timesteps, context).sample
        if prior_loss_weight is not None:
            instance, prior = (F.mse_loss(*halves) for halves in zip(answer.chunk(2), target.chunk(2), strict=True))
            return instance + prior_loss_weight * prior
        if snr_gamma is None:
            return F.mse_loss(answer, target)
        snr = compute_snr(scheduler, timesteps)
        weights = torch.stack([snr, snr_gamma * torch.ones_like(timesteps)], dim=1).min(dim=1)[0]
        weights = weights / (snr if prediction == "epsilon" else snr + 1)
        return (F.mse_loss(answer, target, reduction="none").mean(dim=[1, 2, 3]) * weights).mean()

    def gradients(self) -> dict[str, Tensor]:
        """By our names."""
        names = oracles.unet_names(UNET)
        ours = {oracles._rename(name, names, oracles.UNET_LAYERS): f"unet.{name}" for name in oracles.shapes_of(tiny())}
        text = {name if "text_model." in name else f"text_model.{name}": g for name, g in
                named_gradients(self.text).items()}  # fmt: skip
        return {ours[name]: g for name, g in named_gradients(self.unet).items()} | {
            f"text.{name}": g for name, g in text.items()
        }


def tiny() -> nn.Module:
    with torch.device("meta"):
        from webui.networks.unet import UNet

        return UNet(UNET)


def apart(network: Any) -> Any:
    """The network with weights of its own, to learn."""
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().clone())
    return network


def named_gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Each tensor's error, by norm, is at most CLOSE of its norm.

    A bias of keys moves all logits of a query alike, which softmax does not see: its gradient is rounding alone.
    """
    whole = math.sqrt(sum(float(expected[name].double().square().sum()) for name in names))
    assert whole > 0
    for name in names:
        if name.endswith(KEY_BIASES):
            assert max(found[name].norm(), expected[name].norm()) < 1e-6 * whole, name
            continue
        error = (found[name].double() - expected[name].double()).norm()
        assert error <= CLOSE * expected[name].double().norm(), name


CASES = {
    "plain": Noise(caption_dropout=0.0),
    "min-SNR": Noise(caption_dropout=0.0, min_snr_gamma=5.0),
    "noise offset": Noise(caption_dropout=0.0, offset=0.1),
    "caption dropout": Noise(caption_dropout=0.5),
    "all at once": Noise(caption_dropout=0.3, min_snr_gamma=5.0, offset=0.05),
}


@pytest.mark.parametrize("prediction", list(Prediction), ids=lambda prediction: prediction.name)
@pytest.mark.parametrize(
    ("case", "train_text"), [*((case, False) for case in CASES), ("plain", True), ("all at once", True)]
)
def test_a_step_is_diffusers(prediction: Prediction, case: str, train_text: bool) -> None:
    noise = CASES[case]
    task = checkpoint_task(prediction, noise, train_text=train_text)
    theirs = Diffusers(task)
    loss = task.loss(ITEMS, 0, generator(3, 0, 0))["loss"]
    found = dict(
        zip(task.trained, torch.autograd.grad(loss, list(task.trained.values()), allow_unused=True), strict=True)
    )
    kind = "epsilon" if prediction is Prediction.EPSILON else "v_prediction"
    expected = theirs.loss(task.objective.asked[0], seen_tokens(task), kind, noise.min_snr_gamma or None, None)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=CLOSE)
    gradients = theirs.gradients()
    names = [name for name, gradient in found.items() if gradient is not None]
    assert len(names) == len(found)
    assert_close(found, gradients, names)


def seen_tokens(task: CheckpointTask) -> Tensor:
    """The token ids that the step's draws give."""
    random = generator(3, 0, 0)
    latents = task.latents.batch(ITEMS, random)
    task.objective.ask(latents, random)
    task.objective.asked.pop()
    return task.captions.batch(ITEMS, task.materials.request.noise.caption_dropout, random)


def test_dropped_captions_are_empty_ones() -> None:
    task = checkpoint_task(Prediction.EPSILON, CASES["caption dropout"], train_text=False)
    task.loss(ITEMS, 0, generator(3, 0, 0))
    empty = (seen_tokens(task)[:, 1:] == 49407).all(dim=1)
    assert 0 < empty.sum() < 4, "both kinds of caption are compared"


def test_a_noise_offset_is_diffusers() -> None:
    """``noise += offset * randn(B, C, 1, 1)`` with the same draws."""
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, offset = (
        Remembering(**vars(Objective.of(Prediction.EPSILON, NoiseTable.scaled_linear(), Noise(offset=value))))
        for value in (0.0, 0.1)
    )
    for objective in (plain, offset):
        object.__setattr__(objective, "asked", [])
        objective.ask(latents, generator(1, 0, 0))
    random = generator(1, 0, 0)
    plain.timesteps(4, random)
    torch.randn(latents.shape, generator=random)
    expected = plain.asked[0][1] + 0.1 * torch.randn(4, 4, 1, 1, generator=random)
    assert torch.equal(offset.asked[0][1], expected)


@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_prior_preservation_is_diffusers(weight: float) -> None:
    """diffusers adds the means of both halves, we take the mean of all: half as much, and so with the gradients."""
    task = checkpoint_task(Prediction.EPSILON, CASES["plain"], train_text=True, class_weight=weight)
    theirs = Diffusers(task)
    loss = task.loss(ITEMS, 0, generator(3, 0, 0))["loss"]
    found = dict(zip(task.trained, torch.autograd.grad(loss, list(task.trained.values())), strict=True))
    expected = theirs.loss(task.objective.asked[0], seen_tokens(task), "epsilon", None, weight) / 2
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=CLOSE)
    assert_close(found, theirs.gradients(), list(found))


def test_a_whole_step_of_the_loop_is_torchs_adamw_on_diffusers_gradients(tmp_path: Path) -> None:
    """The batch in two parts, clipped, and stepped: the weights that come out are those of the plain loop."""
    task = checkpoint_task(Prediction.EPSILON, CASES["plain"], train_text=True)
    theirs = Diffusers(task)
    settings = Optimiser(rate=1e-3, warmup=0, schedule="Constant", clip=1.0, weight_decay=0.01)
    request = TrainingRequest(
        kind="checkpoint", name="x", data=Data(folder="x"), steps=1, batch_size=4, parts=2, optimiser=settings,
        noise=CASES["plain"], samples=Samples(every=0),
    )  # fmt: skip
    task.materials.request = request  # type: ignore[misc]
    first = {name: tensor.detach().clone() for name, tensor in task.trained.items()}
    order = Order.of(task.materials.data.items[:2] * 2, 4, 0)
    run = Run(request, task, order, tmp_path, "x", lambda *_: tmp_path, 1)
    items = order.batch(0)
    list(run.go(SimpleNamespace(stop=lambda: False, pause=lambda: False)))  # type: ignore[arg-type]

    asked = {tuple(task.latents.place[item][1] for item in items[part::2]): part for part in (0, 1)}
    parts = []
    for share, part in asked.items():
        random = generator(request.seed, 0, part)
        latents = task.latents.batch(list(share), random)
        task.objective.ask(latents, random)
        parts.append((task.objective.asked.pop(), task.captions.batch(list(share), 0.0, random)))
    loss = sum(theirs.loss(draws, tokens, "epsilon", None, None) / 2 for draws, tokens in parts)
    assert isinstance(loss, Tensor)
    loss.backward()
    gradients = theirs.gradients()
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert norm > 1.0, "clipping takes part"
    for name in (name for name in first if not name.endswith(KEY_BIASES)):
        plain = nn.Parameter(first[name])
        plain.grad = gradients[name] / norm
        torch.optim.AdamW([plain], lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01).step()
        # Adam's first step is the gradient's sign, which means nothing where the gradient is nothing but rounding
        told = plain.grad.abs() > 1e-4 * plain.grad.abs().max()
        assert (task.trained[name] - plain)[told].detach().abs().max() < 1e-5, name


def test_the_vae_loss_is_the_formula_on_diffusers_autoencoder() -> None:
    ours = oracles.vae(VAE)
    theirs = apart(oracles.diffusers_vae(ours))
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    options = VaeOptions(crop=0, squared=4.0, edges=1.0, divergence=0.1, latent_noise=0.02)
    levels = ((pictures + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    request = TrainingRequest(kind="vae", name="x", data=Data(folder="x"))
    data = SimpleNamespace(
        items=[SimpleNamespace(width=64, height=64)] * 2, pixels=lambda item, flip=False: levels[item]
    )
    materials: Any = SimpleNamespace(
        request=request, data=data, compute=choose("cpu", "fp32", 1), model=SimpleNamespace(scale_factor=SCALE)
    )
    trained = dict(ours.requires_grad_(True).named_parameters())
    task = VaeTask(materials, options, ours, trained, {})
    losses = task.loss((0, 1), 0, generator(0, 0, 0))
    found = dict(zip(trained, torch.autograd.grad(losses["loss"], list(trained.values())), strict=True))

    x = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1
    posterior = theirs.encode(x).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator(0, 0, 0))
    spread = torch.hypot(posterior.std, torch.tensor(0.02 / SCALE))  # of a sum of independent normal variables
    y = theirs.decode(posterior.mean + spread * noise).sample
    across, down = (y[..., 1:] - y[..., :-1]) - (x[..., 1:] - x[..., :-1]), (y - x)[:, :, 1:] - (y - x)[:, :, :-1]
    # diffusers' own KL is that of latents of the file's scale, and a sum; here that of unit-variance ones, a mean
    mean, variance = posterior.mean * SCALE, posterior.var * SCALE**2
    divergence = 0.5 * (mean**2 + variance - 1 - torch.log(variance)).mean()
    expected = (y - x).abs().mean() + 4 * (y - x).pow(2).mean() + across.abs().mean() + down.abs().mean()
    expected = expected + 0.1 * divergence
    expected.backward()
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=CLOSE)
    assert losses["divergence"].item() == pytest.approx(divergence.item(), rel=CLOSE)
    psnr = 10 * math.log10(4 / (y - x).pow(2).mean().item())
    assert float(losses["psnr"]) == pytest.approx(psnr, abs=1e-4)
    gradients = {name: g.reshape(found[name].shape) for name, g in vae_gradients(theirs).items()}
    assert_close(found, gradients, list(found))


def vae_gradients(network: nn.Module) -> dict[str, Tensor]:
    """By our names."""
    names = oracles.vae_names(VAE)
    found = named_gradients(network)
    return {
        name: found[oracles._rename(name, names, oracles.VAE_LAYERS)] for name in oracles.shapes_of(oracles.vae(VAE))
    }
