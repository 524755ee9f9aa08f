"""A unit -> what the UNet's openings are filled with in each call, and what becomes of the clean latent.

What a unit's model file is decides how; all kinds share weight, steps, control mode, region and pass.  Rules and
numbers are those of Mikubill/sd-webui-controlnet (``scripts/hook.py``).  The model's tensors are read, never written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from webui.checkpoints.formats import WeightsFile
from webui.conditioning import Contribution, Pictures
from webui.diffusion.guidance import Guide, Guiding, NetworkCall
from webui.errors import RequestError, WebUIError
from webui.latents import codec
from webui.model import Model
from webui.networks.clip_image import ClipImageEncoder
from webui.networks.controlnet import ControlNet
from webui.networks.unet import Openings
from webui.request import GenerationRequest

from .clip_vision import config_of, load_encoder, plain_shapes
from .fitting import Levels
from .ip_adapter import IPAdapter, load_adapter, pairs_of, tokens_of
from .ip_adapter import openings as ip_openings
from .networks import (
    POOLED,
    ModelKind,
    Networks,
    expand_control_lora,
    kind_of,
    load_controlnet,
    load_t2i_adapter,
    tensors_of,
)
from .preprocessors import slider_values
from .reference import bank_of, sites_within
from .reference import openings as reference_openings
from .sources import Hint, hint_of, region_of, source_of
from .unit import NAME, ControlMode, HiresOption, Unit

SOFTER = 0.825
"""What each layer further from the middle is multiplied by where prompt or control is more important."""
T2I_SOFT = (0.25, 0.62, 0.825, 1.0)
FORCED_SOFT = ("canny", "mlsd")
"""In a second pass residuals of these thin lines are always soft, or they leave artifacts (upstream)."""
REFERENCE = "reference_only"
INPAINT_ONLY = "inpaint_only"
COLOUR_FIX = "tile_colorfix"
Fill = Callable[[NetworkCall], Openings]
NOTHING = Openings()


@dataclass(frozen=True, eq=False)
class Job:
    """What a unit's parts have in common: the unit, the model and request of the pass, pictures and loaded networks."""

    unit: Unit
    model: Model
    request: GenerationRequest
    pictures: Pictures
    networks: Networks

    @property
    def is_second_pass(self) -> bool:
        """Whether this is the second of two passes."""
        return self.pictures.second_pass

    @property
    def works(self) -> bool:
        """Whether the unit is wanted in this pass."""
        if self.is_second_pass:
            return self.unit.hr_option is not HiresOption.LOW
        return self.request.second_pass is None or self.unit.hr_option is not HiresOption.HIGH

    @property
    def only_with_prompt(self) -> bool:
        """Whether rows with the negative prompt go without control."""
        return self.unit.control_mode is ControlMode.CONTROL

    @property
    def is_soft(self) -> bool:
        """Whether layers far from the middle count less."""
        forced = self.is_second_pass and any(name in self.unit.preprocessor for name in FORCED_SOFT)
        return self.unit.control_mode is not ControlMode.BALANCED or forced

    def tensor(self, levels: Levels) -> Tensor:
        """A picture or a mask as (1, 3 or 1, H, W) from 0 to 1, in the model's precision."""
        planes = torch.from_numpy(levels if levels.ndim == 3 else levels[:, :, None]).permute(2, 0, 1)[None]
        return planes.to(self.model.compute.device, torch.float32) / 255

    def open(self, path: Path) -> WeightsFile:
        """A model file.  Raises CheckpointError, NotFoundError."""
        return self.pictures.formats.open(path)

    @property
    def region(self) -> Tensor | None:
        """Where the unit works, (1, 1, H, W) from 0 to 1; None for everywhere."""
        region = region_of(self.unit, self.request, self.pictures)
        return None if region is None else self.tensor(region)

    def latent(self, pixels: Levels) -> Tensor:
        """The latent (1, C, h, w) of a picture, drawn with the request's seed."""
        assert self.request.seed is not None
        return codec.sample(codec.encode(pixels, self.model), self.model, self.request.seed)


def contribution(job: Job) -> Contribution:
    """What a unit contributes to a pass.  Raises RequestError and CheckpointError in one sentence."""
    if not job.works:
        return Contribution(NOTHING)
    name = job.unit.preprocessor
    if name == REFERENCE:
        return Contribution(_while_active(job.unit, reference_fill(job)))
    guide = guide_of(job)
    if not job.unit.model:
        if guide is None:
            raise RequestError(f'{NAME}: choose a model; the preprocessor "{name}" makes a picture for one.')
        return Contribution(NOTHING, guide=guide)
    path = job.pictures.model_file("controlnet", job.unit.model)
    fill = FILLS[kind_of(job.open(path).header, path.name)](job, path)
    return Contribution(_while_active(job.unit, fill), guide=guide)


def _while_active(unit: Unit, fill: Fill) -> Fill:
    """``fill`` from the unit's first step to its last, nothing before and after."""

    def filled(call: NetworkCall) -> Openings:
        done = call.steps_done / call.steps
        return fill(call) if unit.guidance_start <= done <= unit.guidance_end else NOTHING

    return filled


def hint_tensor(job: Job, hint: Hint) -> Tensor:
    """The control picture (1, 3, H, W) from 0 to 1; what inpainting paints anew is -1, as its ControlNet was trained.

    Raises RequestError when inpainting has no mask.
    """
    tensor = job.tensor(hint.pixels)
    if not job.pictures.preprocessor(job.unit.preprocessor).reads_mask:
        return tensor
    mask = (job.tensor(_mask(job, hint)) > 0.5).to(tensor)
    return tensor * (1 - mask) - mask


def _mask(job: Job, hint: Hint) -> Levels:
    if hint.mask is None:
        raise RequestError(
            f'{NAME}: "{job.unit.preprocessor}" needs a mask of what is painted anew; draw one on its picture, '
            "or use inpainting."
        )
    return hint.mask


def control_fill(job: Job, path: Path) -> Fill:
    """The residuals of a ControlNet, whose answer depends on the call."""
    unet, compute = job.model.unet, job.model.compute
    key = ("ControlNet", unet.config)
    network = job.networks.get(path, compute, key, lambda: load_controlnet(job.open(path), unet, compute))
    return residuals_fill(job, network, path)


def control_lora_fill(job: Job, path: Path) -> Fill:
    """As :func:`control_fill`, of the ControlNet that a Control-LoRA makes of this model's own way down."""
    compute = job.model.compute
    tensors = job.networks.get(path, compute, "Control-LoRA", lambda: tensors_of(job.open(path), compute))
    return residuals_fill(job, expand_control_lora(tensors, job.model.unet, path.name), path)


def residuals_fill(job: Job, network: ControlNet, path: Path) -> Fill:
    """The residuals of a network in each call, each times its layer's weight."""
    features = network.hint_features(hint_tensor(job, hint_of(job.unit, job.request, job.pictures)))
    is_pooled = POOLED in path.name.casefold()
    scales = layer_weights(job, len(network.skip_channels))
    region = job.region

    def fill(call: NetworkCall) -> Openings:
        rows = _rows(call, with_prompt=job.only_with_prompt or is_pooled)
        if not rows:
            return NOTHING
        timesteps = torch.full((len(rows),), call.timestep, dtype=torch.float32, device=call.x.device)
        x = call.x[rows, : network.config.in_channels]
        control = network.control(x, features, timesteps, call.context[rows])
        made = [
            _in_rows(_weighted(residual, scale, region, is_pooled), rows, len(call.x))
            for residual, scale in zip((*control.skips, control.middle), scales, strict=True)
        ]
        return Openings(skip_residuals=tuple(made[:-1]), middle_residual=made[-1])

    return fill


def _rows(call: NetworkCall, *, with_prompt: bool) -> list[int]:
    """The rows of a call that are controlled: all, or those with the prompt."""
    return [row for row, conditional in enumerate(call.conditional) if conditional or not with_prompt]


def _weighted(residual: Tensor, scale: float, region: Tensor | None, is_pooled: bool) -> Tensor:
    residual = residual * scale
    if is_pooled:
        residual = residual.mean(dim=(2, 3), keepdim=True).expand_as(residual)
    return residual if region is None else residual * _at(region, residual).to(residual)


def _in_rows(part: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """``part`` at the ``rows`` of a batch of ``count``, zeros in the others."""
    if len(rows) == count:
        return part
    whole = part.new_zeros(count, *part.shape[1:])
    whole[list(rows)] = part
    return whole


def _at(region: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(region, like.shape[2:], mode="bilinear")


def layer_weights(job: Job, skips: int) -> tuple[float, ...]:
    """What each of the ``skips`` residuals and the middle one is multiplied by.  Raises RequestError."""
    own = job.unit.advanced_weighting
    if own:
        if len(own) != skips + 1:
            raise RequestError(f"{NAME}: advanced_weighting has {len(own)} numbers; this model needs {skips + 1}.")
        return own
    weight = job.unit.weight
    return tuple(weight * SOFTER ** (skips - layer) if job.is_soft else weight for layer in range(skips + 1))


def t2i_fill(job: Job, path: Path) -> Fill:
    """The features of a T2I-Adapter, which depend on the control picture alone."""
    unet, compute = job.model.unet, job.model.compute
    key = ("T2I-Adapter", unet.config)
    network = job.networks.get(path, compute, key, lambda: load_t2i_adapter(job.open(path), unet, compute))
    features = network(hint_tensor(job, hint_of(job.unit, job.request, job.pictures)))
    region, weights = job.region, _t2i_weights(job, len(features))
    weighted = [_weighted(one, weight, region, False) for one, weight in zip(features, weights, strict=True)]
    places = unet.config.last_input_blocks

    def fill(call: NetworkCall) -> Openings:
        rows = _rows(call, with_prompt=job.only_with_prompt)
        made = [_in_rows(one.expand(len(rows), -1, -1, -1), rows, len(call.x)) for one in weighted] if rows else []
        return Openings(input_residuals=dict(zip(places, made, strict=False)))

    return fill


def _t2i_weights(job: Job, levels: int) -> Sequence[float]:
    own = job.unit.advanced_weighting
    if own:
        if len(own) not in (levels, levels + 1):
            raise RequestError(f"{NAME}: advanced_weighting has {len(own)} numbers; this adapter needs {levels + 1}.")
        return own[:levels]
    return [job.unit.weight * (soft if job.is_soft else 1.0) for soft in T2I_SOFT[-levels:]]


def ip_adapter_fill(job: Job, path: Path) -> Fill:
    """The tokens of an IP-Adapter, read by cross-attention beside the prompt's."""
    compute, unet = job.model.compute, job.model.unet
    adapter: IPAdapter = job.networks.get(path, compute, "IP-Adapter", lambda: load_adapter(job.open(path), compute))
    encoder = clip_encoder(job, adapter, path.name)
    hint = source_pixels(job)
    pairs = pairs_of(adapter, tokens_of(adapter, encoder, hint, compute, path.name), unet, path.name)
    region, weights = job.region, _site_weights(job, [name for name, _ in unet.named_modules() if name in pairs])
    return lambda call: ip_openings(pairs, call.conditional, weights.__getitem__, region)


def source_pixels(job: Job) -> Levels:
    """The unit's picture as it was given: CLIP brings it to its own size."""
    return source_of(job.unit, job.request, job.pictures).pixels


def _site_weights(job: Job, sites: Sequence[str]) -> dict[str, float]:
    """The weight of each cross-attention, in the order in which a call passes them."""
    own = job.unit.advanced_weighting
    if own and len(own) != len(sites):
        raise RequestError(f"{NAME}: advanced_weighting has {len(own)} numbers; this adapter needs {len(sites)}.")
    return dict(zip(sites, own or [job.unit.weight] * len(sites), strict=True))


def clip_encoder(job: Job, adapter: IPAdapter, name: str) -> ClipImageEncoder:
    """The CLIP image encoder that the unit names, else the first file in the folder that fits the adapter."""
    wanted = job.unit.clip_vision or _fitting_encoder(job, adapter, name)
    path = job.pictures.model_file("clip_vision", wanted)
    compute = job.model.compute
    key = "CLIP vision"
    encoder: ClipImageEncoder = job.networks.get(path, compute, key, lambda: load_encoder(job.open(path), compute))
    return encoder


def _fitting_encoder(job: Job, adapter: IPAdapter, name: str) -> str:
    files = job.pictures.model_entries("clip_vision")
    for file in files:
        if _encoder_width(job, file.path, adapter) == adapter.clip_width:
            return file.name
    raise RequestError(
        f"{NAME}: {name} needs the CLIP image encoder that it was trained with, one that gives {adapter.clip_width} "
        f"numbers; put it into models/clip_vision and press Refresh ({len(files)} files are there)."
    )


def _encoder_width(job: Job, path: Path, adapter: IPAdapter) -> int:
    """How wide a file's answer is, of the kind that the adapter reads; 0 for a file that holds no encoder."""
    try:
        config = config_of(plain_shapes(job.open(path).header.shapes()))
    except WebUIError:
        return 0
    return config.width if adapter.reads_tokens else config.projection


FILLS: dict[ModelKind, Callable[[Job, Path], Fill]] = {
    ModelKind.CONTROLNET: control_fill,
    ModelKind.CONTROL_LORA: control_lora_fill,
    ModelKind.T2I_ADAPTER: t2i_fill,
    ModelKind.IP_ADAPTER: ip_adapter_fill,
}


def reference_fill(job: Job) -> Fill:
    """What self-attention reads of the reference picture under the noise of the call."""
    unet, seed = job.model.unet, job.request.seed
    assert seed is not None
    latent = job.latent(hint_of(job.unit, job.request, job.pictures).pixels)
    sites = sites_within(unet, job.unit.weight)
    fidelity = reference_fidelity(job)

    def fill(call: NetworkCall) -> Openings:
        return reference_openings(bank_of(unet, latent, call, sites, seed), fidelity, call.conditional)

    return fill


def reference_fidelity(job: Job) -> float:
    """The share to which rows with the negative prompt go without the reference."""
    if job.unit.control_mode is ControlMode.CONTROL:
        return 1.0
    if job.unit.control_mode is ControlMode.PROMPT or job.is_second_pass:
        return 0.0
    return _numbers(job)["fidelity"]


def _numbers(job: Job) -> dict[str, float]:
    """What the unit's sliders say."""
    preprocessor = job.pictures.preprocessor(job.unit.preprocessor)
    return slider_values(preprocessor, job.unit.threshold_a, job.unit.threshold_b)


def guide_of(job: Job) -> Guide | None:
    """What becomes of the clean latent: what is not painted stays, or large colours stay; None for nothing.

    Upstream does both to the answers with and without the prompt; guidance is linear, so once afterwards is the same.
    """
    if job.unit.preprocessor == INPAINT_ONLY:
        return _keep_outside(job)
    return _keep_colours(job) if job.unit.preprocessor.startswith(COLOUR_FIX) else None


def _keep_outside(job: Job) -> Guide:
    hint = hint_of(job.unit, job.request, job.pictures)
    mask = F.max_pool2d(job.tensor(_mask(job, hint)), 10, stride=8, padding=1)
    original, share = job.latent(hint.pixels), min(1.0, job.unit.weight)

    def guide(guiding: Guiding) -> Tensor:
        kept = guiding.guided * mask + original * (1 - mask)
        return share * kept + (1 - share) * guiding.guided

    return guide


def _keep_colours(job: Job) -> Guide:
    numbers = _numbers(job)
    reach = int(numbers["variation"]) * (2 if job.is_second_pass else 1)
    original, share = job.latent(hint_of(job.unit, job.request, job.pictures).pixels), min(1.0, job.unit.weight)
    sharpness = 0.01 * numbers.get("sharpness", 0.0)

    def guide(guiding: Guiding) -> Tensor:
        def fixed(latent: Tensor) -> Tensor:
            return latent - blurred(latent, reach) + blurred(original, reach)

        result = fixed(guiding.guided)
        if sharpness:  # the answer without the prompt is softened, so that guidance leads away from softness
            plain = fixed(guiding.uncond)
            result = result + (1 - guiding.cfg_scale) * sharpness * (blurred(plain, reach) - plain)
        return share * result + (1 - share) * guiding.guided

    return guide


def blurred(latent: Tensor, reach: int) -> Tensor:
    """The mean over a square of 2 * ``reach`` + 1 places, the border repeated."""
    return F.avg_pool2d(F.pad(latent, (reach,) * 4, mode="replicate"), 2 * reach + 1, stride=1)
