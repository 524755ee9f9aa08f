"""Depth from one picture, by the networks that transformers has: DPT (MiDaS 3) and Depth Anything.

A model is a folder as huggingface.co keeps it: ``model.safetensors`` with its ``config.json``, and mostly
``preprocessor_config.json``, which says how the network wants to see pictures.  Ranftl et al. 2021 (arXiv:2103.13413),
Yang et al. 2024 (arXiv:2401.10891, arXiv:2406.09414).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from webui.checkpoints.formats import WeightsFile
from webui.errors import CheckpointError

from .depth_folders import DEPTH_ANYTHING, DPT, settings_of
from .fitting import Levels

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNUSED = "neck.fusion_stage.layers.0.residual_layer1."
"""The first fusion has nothing to add to, so that published files of DPT leave these weights out."""
FLAT = 1e-5
"""Less than this share of the largest value is rounding."""
DEPTH_ANYTHING_SIDE, DEPTH_ANYTHING_PATCH = 518, 14


@dataclass(frozen=True)
class Sight:
    """How a network sees a picture: ``height`` and ``width`` in pixels, and what the levels are normed by.

    With ``keeps_shape`` the picture keeps its proportions and has about one of the two; its sides are multiples of
    ``multiple``.
    """

    height: int
    width: int
    keeps_shape: bool
    multiple: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, kind: str, config: Any, said: dict[str, Any]) -> Sight:
        """As ``preprocessor_config.json`` says, else as the published networks of this kind do.

        transformers' DPT takes squares of the size that it was trained with, and no others.
        """
        is_dpt = kind == DPT
        side = int(config.image_size) if is_dpt else DEPTH_ANYTHING_SIDE
        size = {"height": side, "width": side} if is_dpt else {"height": side, "width": side, **said.get("size", {})}
        mean, deviation = (HALF, HALF) if is_dpt else (IMAGENET_MEAN, IMAGENET_DEVIATION)
        return cls(
            int(size["height"]),
            int(size["width"]),
            keeps_shape=not is_dpt and bool(said.get("keep_aspect_ratio", True)),
            multiple=int(said.get("ensure_multiple_of", 1 if is_dpt else DEPTH_ANYTHING_PATCH)),
            mean=tuple(said.get("image_mean", mean)),
            deviation=tuple(said.get("image_std", deviation)),
        )

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which the network sees a picture: of the two factors the one nearer to 1 counts."""
        tall, wide = self.height / height, self.width / width
        if self.keeps_shape:
            tall = wide = wide if abs(1 - wide) < abs(1 - tall) else tall
        return self._rounded(tall * height), self._rounded(wide * width)

    def _rounded(self, side: float) -> int:
        return max(self.multiple, round(side / self.multiple) * self.multiple)

    def tensor(self, pixels: Levels) -> Tensor:
        """The picture (1, 3, h, w) as the network sees it."""
        height, width = self.size_for(*pixels.shape[:2])
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        levels = np.asarray(image, np.float32) / 255
        normed = (levels - np.array(self.mean, np.float32)) / np.array(self.deviation, np.float32)
        return torch.from_numpy(normed).permute(2, 0, 1)[None]


@dataclass(frozen=True, eq=False)
class DepthNetwork:
    """A network of depth, and how it sees."""

    model: nn.Module
    sight: Sight


def load(file: WeightsFile, device: torch.device) -> DepthNetwork:
    """The network of a folder; nothing in it is run, and nothing is fetched.  Raises CheckpointError."""
    from transformers import AutoConfig, AutoModelForDepthEstimation

    folder, name = file.path.parent, f"{file.path.parent.name}/{file.path.name}"
    said = settings_of(folder / "config.json")
    kind = said.get("model_type")
    if kind not in (DPT, DEPTH_ANYTHING):
        raise CheckpointError(f"{name} is no DPT or Depth Anything: its config.json says {kind!r}.")
    _require_whole(said, name)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, told = AutoModelForDepthEstimation.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{name} cannot be read as transformers' {kind}: {first[:200]}") from error
    missing = sorted(key for key in told["missing_keys"] if not key.startswith(UNUSED))
    if missing:
        raise CheckpointError(f"{name} is incomplete: {missing[0]} is missing ({len(missing)} tensors in all).")
    sight = Sight.of(kind, config, settings_of(folder / "preprocessor_config.json"))
    return DepthNetwork(model.to(device).requires_grad_(False).eval(), sight)


def _require_whole(said: Mapping[str, Any], name: str) -> None:
    """Refuse a network part of which lies elsewhere: transformers would fetch it."""
    if said.get("backbone") or said.get("use_pretrained_backbone"):
        asked = said.get("backbone") or "a pretrained one"
        raise CheckpointError(f"{name} asks for another model ({asked}), which is not fetched; take a whole one.")


def nearness(network: DepthNetwork, pixels: Levels) -> NDArray[np.float32]:
    """How near each pixel is, (H, W) from 0 (the farthest) to 1 (the nearest), of a picture (H, W, 3)."""
    height, width = pixels.shape[:2]
    parameter = next(network.model.parameters())
    found = network.model(network.sight.tensor(pixels).to(parameter)).predicted_depth
    near = F.interpolate(found[:, None].float(), (height, width), mode="bicubic", align_corners=False)[0, 0]
    lowest, span = near.min(), float(near.max() - near.min())
    if span <= FLAT * float(near.abs().max()):  # one depth everywhere, but for rounding
        return np.zeros((height, width), np.float32)
    made: NDArray[np.float32] = ((near - lowest) / span).cpu().numpy()
    return made
