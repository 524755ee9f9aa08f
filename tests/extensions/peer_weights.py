"""Random weights and a random picture, drawn from seeds: of the tests, and of what another program answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

PICTURE = np.random.default_rng(5).integers(0, 256, (64, 96, 3), dtype=np.uint8)
MEAN = "norm"
"""HED's mean of levels, which is about 120 in the published file."""
TAMED = ("projection", "classifier")
"""Last layers, kept so weak that what follows, a sigmoid, does not saturate."""


def seeded(shapes: Mapping[str, tuple[int, ...]], seed: int = 7) -> dict[str, Tensor]:
    """A tensor for each name and shape, in the order of the names, about as strong as a trained one."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in sorted(shapes.items()):
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        tensor = torch.randn(shape, generator=generator) * fan_in**-0.5
        if name == MEAN:
            tensor = 120 + 20 * tensor
        made[name] = tensor * 0.1 if any(word in name for word in TAMED) else tensor
    return made


def sampled(answer: np.ndarray) -> dict[str, Any]:
    """Every eighth row and column of numbers (H, W), and the mean of all."""
    rows = answer[::8, ::8].astype(np.float64)
    return {"mean": float(answer.astype(np.float64).mean()), "sample": np.round(rows, 8).tolist()}
