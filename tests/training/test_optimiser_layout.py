"""How tensors lie in memory changes nothing: torch's fused AdamW on a CPU reads them in order, whatever the strides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from webui.training.optimisers import ADAM_BETAS, Learner
from webui.training.request import Optimiser

SHAPE = (8, 4, 3, 3)


@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("gradients", [torch.contiguous_format, torch.channels_last])
def test_adamw_is_torchs_plain_one_in_any_layout(weights: torch.memory_format, gradients: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(SHAPE, generator=generator)
    steps = [torch.randn(SHAPE, generator=generator) for _ in range(4)]
    plain = nn.Parameter(first.clone())
    oracle = torch.optim.AdamW([plain], lr=0.1, betas=ADAM_BETAS, weight_decay=0.01, fused=False)
    for gradient in steps:
        plain.grad = gradient
        oracle.step()

    settings = Optimiser(clip=0.0, weight_decay=0.01)

    def learner() -> Learner:
        return Learner({"w": nn.Parameter(first.clone(memory_format=weights))}, {}, settings)

    whole, before, resumed = learner(), learner(), learner()
    for gradient in steps:
        whole.step({"w": gradient.clone(memory_format=gradients)}, 0.1)
    for gradient in steps[:2]:
        before.step({"w": gradient.clone(memory_format=gradients)}, 0.1)
    resumed.restore({name: tensor.contiguous() for name, tensor in before.state().items()})  # as a file holds them
    for gradient in steps[2:]:
        resumed.step({"w": gradient.clone(memory_format=gradients)}, 0.1)
    assert torch.allclose(whole.trained["w"], plain, atol=1e-6)
    assert torch.equal(whole.trained["w"], resumed.trained["w"])
