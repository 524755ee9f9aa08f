from __future__ import annotations

import pytest
import torch
from oracles import diffusers_vae, relative_error, shapes_of, vae

from webui.errors import CheckpointError
from webui.networks.vae import AutoencoderKL, Posterior, VAEConfig

TOY = VAEConfig(channels=(16, 32, 32), blocks=1, norm_groups=4)
EMBEDDED = VAEConfig(channels=(16, 32, 64, 64), norm_groups=4)
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def check_against_diffusers(config: VAEConfig, latent_size: tuple[int, int], batch: int) -> None:
    ours = vae(config)
    theirs = diffusers_vae(ours)
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(batch, config.latent_channels, *latent_size, generator=generator)
    assert relative_error(ours.decode(latent), theirs.decode(latent).sample) < TOLERANCE
    height, width = (side * config.factor for side in latent_size)
    pixels = torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
    found, expected = ours.encode(pixels), theirs.encode(pixels).latent_dist
    assert found.mean.shape == latent.shape
    assert relative_error(found.mean, expected.mean) < TOLERANCE
    assert relative_error(found.logvar, expected.logvar) < TOLERANCE
    assert torch.equal(found.mode, found.mean)
    noise = torch.randn(latent.shape, generator=generator)
    assert relative_error(found.sample(noise), expected.mean + expected.std * noise) < TOLERANCE


@pytest.mark.parametrize(("size", "batch"), [((13, 7), 2), ((24, 26), 1)])
@pytest.mark.parametrize("config", [TOY, EMBEDDED])
def test_equals_diffusers(config: VAEConfig, size: tuple[int, int], batch: int) -> None:
    check_against_diffusers(config, size, batch)


@pytest.mark.slow
def test_equals_diffusers_at_the_true_sd15_shapes() -> None:
    check_against_diffusers(VAEConfig(), (12, 17), 1)


def test_sd15_has_as_many_tensors_and_parameters_as_the_published_model() -> None:
    with torch.device("meta"):
        network = AutoencoderKL(VAEConfig())
    assert len(network.state_dict()) == 248
    assert sum(parameter.numel() for parameter in network.parameters()) == 83_653_863


@pytest.mark.parametrize("config", [VAEConfig(), TOY, EMBEDDED, VAEConfig(latent_channels=3, inner_channels=8)])
def test_config_is_read_off_the_shapes(config: VAEConfig) -> None:
    with torch.device("meta"):
        shapes = shapes_of(AutoencoderKL(config))
    assert VAEConfig.from_shapes(shapes, norm_groups=config.norm_groups) == config


def test_a_missing_tensor_is_named() -> None:
    shapes = shapes_of(vae(TOY))
    del shapes["post_quant_conv.weight"]
    with pytest.raises(CheckpointError, match="post_quant_conv"):
        VAEConfig.from_shapes(shapes, norm_groups=4)


def test_norm_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(CheckpointError, match="32 groups"):
        VAEConfig.from_shapes(shapes_of(vae(EMBEDDED)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.2), (torch.float16, 0.03)])
def test_half_precision_stays_near_fp32(dtype: torch.dtype, tolerance: float) -> None:
    ours = vae(EMBEDDED)
    latent = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    expected = ours.decode(latent)
    found = ours.to(dtype).decode(latent)
    assert found.dtype is latent.dtype
    assert relative_error(found, expected) < tolerance


def test_a_posterior_sample_has_its_mean_and_deviation() -> None:
    posterior = Posterior(torch.full((1, 1, 200, 200), 3.0), torch.full((1, 1, 200, 200), 2 * torch.tensor(0.5).log()))
    drawn = posterior.sample(torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0)))
    assert drawn.mean().item() == pytest.approx(3, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.01)
