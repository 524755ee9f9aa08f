"""What a network's output means: from its answer to the clean latent it sees."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Prediction(StrEnum):
    """What the network was trained to answer."""

    EPSILON = "epsilon"
    """The noise (DDPM, arXiv:2006.11239)."""

    V = "v"
    """The velocity sqrt(a) * noise - sqrt(1 - a) * x0 (arXiv:2202.00512, appendix D)."""


def c_in(sigma: float) -> float:
    """What a latent of noise level ``sigma`` is multiplied by to have the unit variance the network was trained on."""
    return 1.0 / math.sqrt(sigma * sigma + 1.0)


def denoised(prediction: Prediction, x: Tensor, sigma: float, output: Tensor) -> Tensor:
    """The clean latent c_skip * x + c_out * output (arXiv:2206.00364, equation 7) in the dtype of ``x``.

    ``x`` is x0 + sigma * noise, not yet scaled by :func:`c_in`; ``output`` is the network's answer to c_in * x.
    """
    output = output.to(x.dtype)
    if prediction is Prediction.EPSILON:
        return x - sigma * output
    return x / (sigma * sigma + 1.0) - (sigma * c_in(sigma)) * output


def network_output(prediction: Prediction, x: Tensor, sigma: float, clean: Tensor) -> Tensor:
    """The answer that :func:`denoised` makes ``clean`` of; ``sigma`` above 0."""
    if prediction is Prediction.EPSILON:
        return (x - clean) / sigma
    return (x / (sigma * sigma + 1.0) - clean) / (sigma * c_in(sigma))
