"""The VAE: pictures to latents and back, so that the UNet has little to look at.

The autoencoder of Rombach et al. 2022 (arXiv:2112.10752, section 3.1 and appendix G) with an edge term in place of the
perceptual and adversarial ones: mean absolute and squared error, the same of horizontal and vertical differences, and
the divergence from unit normal latents.  All in the model's own scale, where latents have about unit variance.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webui.errors import RequestError
from webui.hooks import hookimpl
from webui.training.kinds import Materials, Task, TrainingKind, Weights
from webui.training.request import in_range

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from webui.networks.vae import AutoencoderKL
    from webui.result import Pixels

MEASURED = 256
"""So many pictures tell the mean and deviation of latents, and how they look, for the file that comes out."""
SHOWN = 12
LARGEST_CROP = 2048
LARGEST_WEIGHT = 1e6


@dataclass(frozen=True, kw_only=True)
class VaeOptions:
    """How the VAE is taught.

    crop: side in pixels of the squares that are cut from the pictures; 0 takes them whole
    whole_share: share of the steps, the last ones, that take whole pictures (fewer at once)
    squared: weight of the squared error beside the absolute one
    edges: weight of the error of differences between neighbours
    divergence: weight of the latents' divergence from unit normal ones
    latent_noise: deviation of noise that latents are disturbed with before they are decoded
    fresh: begin with random weights instead of the base's
    decoder_only: leave the encoder as it is, so that latents keep their meaning for UNets that know them
    """

    crop: int = 64
    whole_share: float = 0.15
    squared: float = 4.0
    edges: float = 1.0
    divergence: float = 3e-4
    latent_noise: float = 0.02
    fresh: bool = False
    decoder_only: bool = False

    def __post_init__(self) -> None:
        in_range("Crop", self.crop, 0, LARGEST_CROP)
        in_range("Whole share", self.whole_share, 0.0, 1.0)
        for name in ("squared", "edges", "divergence", "latent_noise"):
            in_range(name.replace("_", " ").capitalize(), getattr(self, name), 0.0, LARGEST_WEIGHT)


@dataclass(frozen=True)
class VaeTask:
    """The VAE in the dtype it computes in."""

    materials: Materials
    options: VaeOptions
    vae: AutoencoderKL
    trained: Mapping[str, nn.Parameter]
    initial: Mapping[str, Tensor]

    def loss(self, items: Sequence[int], step: int, random: Generator) -> Mapping[str, Tensor]:
        """The sum of all terms; "psnr" in dB is that of the decoded training pictures."""
        import torch
        import torch.nn.functional as F

        options, compute = self.options, self.materials.compute
        pictures = self._pictures(items, step, random)
        with torch.set_grad_enabled(not options.decoder_only):
            posterior = self.vae.encode(pictures.to(compute.device, compute.vae_dtype))
        scale = self.materials.model.scale_factor
        mean, logvar = posterior.mean.float() * scale, posterior.logvar.float() + 2.0 * math.log(scale)
        spread = (logvar.exp() + options.latent_noise**2).sqrt()  # the two are independent: their variances add
        latent = mean + spread * torch.randn(mean.shape, generator=random).to(mean)
        decoded = self.vae.decode((latent / scale).to(compute.vae_dtype)).float()
        pictures = pictures.to(decoded)
        absolute, squared = F.l1_loss(decoded, pictures), F.mse_loss(decoded, pictures)
        edges = sum((F.l1_loss(decoded.diff(dim=dim), pictures.diff(dim=dim)) for dim in (2, 3)), start=torch.zeros(()))
        divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        total = absolute + options.squared * squared + options.edges * edges + options.divergence * divergence
        return {"loss": total, "psnr": -10.0 * (squared.detach() / 4.0).log10(), "divergence": divergence}

    def samples(self) -> list[Pixels]:
        """The first pictures, and below them what is left of them."""
        from webui.training.latents import to_pixels

        pictures = self._whole(self._measured()[:SHOWN])
        decoded = self.vae.decode(self.vae.encode(pictures).mean)
        return [*to_pixels(pictures), *to_pixels(decoded)]

    def weights(self, trained: Mapping[str, Tensor]) -> Weights:
        """The VAE in CompVis' layout, its latents brought to mean 0 and deviation 1 in the model's scale."""
        import torch

        from webui.training.networks import LATENT_RGB_KEY

        values = {**self.initial, **trained}
        vae = copy.deepcopy(self.vae).float()
        with torch.inference_mode():
            for name, parameter in vae.named_parameters():
                parameter.copy_(values[name])
            shown = [self._whole(self._measured()[first : first + 8]).float() for first in range(0, MEASURED, 8)]
            pictures = torch.cat([part for part in shown if len(part)])
            latents = torch.cat([vae.encode(part).mean for part in torch.split(pictures, 8)])
        mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
        if not self.options.decoder_only:
            values = _folded(values, mean, deviation * self.materials.model.scale_factor)
            latents = (latents - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)
        else:
            latents = latents * self.materials.model.scale_factor
        colours = _colours(latents, pictures)
        metadata = {"modelspec.architecture": "stable-diffusion-v1/vae", LATENT_RGB_KEY: json.dumps(colours)}
        return Weights(values, metadata)

    def _pictures(self, items: Sequence[int], step: int, random: Generator) -> Tensor:
        """Squares cut from pictures, or whole ones, (B, 3, H, W) in [-1, 1], half of them mirrored if so wished."""
        import numpy as np
        import torch

        from webui.training.latents import to_tensor

        request, data = self.materials.request, self.materials.data
        is_whole = not self.options.crop or step >= request.steps * (1.0 - self.options.whole_share)
        side = min(data.items[items[0]].width, data.items[items[0]].height)
        crop = side if is_whole else min(self.options.crop, side)
        if is_whole:
            items = items[: max(1, len(items) * self.options.crop**2 // side**2)] if self.options.crop else items
        cut = []
        for item in items:
            flip = request.data.flip and bool(torch.randint(2, (1,), generator=random))
            pixels = data.pixels(item, flip=flip)
            if not is_whole:
                top, left = (_place(length, crop, random) for length in pixels.shape[:2])
                pixels = pixels[top : top + crop, left : left + crop]
            cut.append(pixels)
        return to_tensor(np.stack(cut))

    def _measured(self) -> list[int]:
        """Items of the first one's size, spread over the data, at most MEASURED."""
        items = self.materials.data.items
        size = (items[0].width, items[0].height)
        same = [index for index, item in enumerate(items) if (item.width, item.height) == size]
        return same[:: max(1, len(same) // MEASURED)][:MEASURED]

    def _whole(self, items: Sequence[int]) -> Tensor:
        """Pictures of one size, (B, 3, H, W), in the dtype of the VAE; empty for no items."""
        import numpy as np
        import torch

        from webui.training.latents import to_tensor

        weight = next(self.vae.parameters())
        if not items:
            return torch.empty(0)
        pictures = np.stack([self.materials.data.pixels(item) for item in items])
        return to_tensor(pictures).to(weight.device, weight.dtype)


def _place(length: int, crop: int, random: Generator) -> int:
    """Where a cut begins: about the middle, where there is most to see, and sometimes at the edge."""
    import torch

    free = length - crop
    wished = free / 2 + float(torch.randn(1, generator=random)) * free / 3
    return int(min(max(wished, 0), free))


def _folded(values: Mapping[str, Tensor], mean: Tensor, factor: Tensor) -> dict[str, Tensor]:
    """The weights with latents less ``mean`` and divided by ``factor``, by the convolutions beside them."""
    import torch

    channels = len(mean)
    weight, bias = values["quant_conv.weight"].clone(), values["quant_conv.bias"].clone()
    weight[:channels] /= factor.view(-1, 1, 1, 1)
    bias[:channels] = (bias[:channels] - mean) / factor
    bias[channels:] -= 2.0 * factor.log()  # log variances
    back, back_bias = values["post_quant_conv.weight"], values["post_quant_conv.bias"]
    return {
        **values,
        "quant_conv.weight": weight,
        "quant_conv.bias": bias,
        "post_quant_conv.weight": back * factor.view(1, -1, 1, 1),
        "post_quant_conv.bias": back_bias + torch.mv(back[:, :, 0, 0], mean),
    }


def _colours(latents: Tensor, pictures: Tensor) -> dict[str, list[Any]]:
    """The matrix and bias that make a rough picture of latents of unit variance, by least squares."""
    import torch
    import torch.nn.functional as F

    small = F.adaptive_avg_pool2d(pictures, [*latents.shape[2:]]).permute(0, 2, 3, 1).reshape(-1, 3)  # type: ignore[arg-type]
    flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    known = torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
    rows = torch.linalg.lstsq(known, small).solution.tolist()
    rounded = [[round(value, 4) for value in row] for row in rows]
    return {"matrix": rounded[:-1], "bias": rounded[-1]}


def begin(options: VaeOptions, materials: Materials) -> Task:
    """Set out the VAE's tensors.  Raises RequestError for a crop that the VAE cannot take."""
    import torch

    from webui.networks.vae import AutoencoderKL
    from webui.training.networks import lowered

    vae = materials.model.vae
    if options.crop % vae.config.factor:
        raise RequestError(f"The crop is {options.crop} pixels; it must be a multiple of {vae.config.factor}.")
    if options.fresh:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(materials.request.seed)
            vae = AutoencoderKL(vae.config)
    vae, exact = lowered(vae, materials.compute, "")
    taught = ("decoder.", "post_quant_conv.") if options.decoder_only else ("",)
    trained = {name: tensor for name, tensor in vae.named_parameters() if name.startswith(taught)}
    for tensor in trained.values():
        tensor.requires_grad_(True)
    return VaeTask(materials, options, vae, trained, exact)


@hookimpl
def register_training_kinds() -> list[TrainingKind]:
    """The VAE."""
    return [
        TrainingKind(
            name="vae",
            label="VAE",
            summary="Teach the part that turns pictures into latents and back.",
            folder="vae",
            options=VaeOptions,
            begin=begin,
            defaults={"optimiser.rate": 1e-4, "batch_size": 16},
            needs_captions=False,
        )
    ]
