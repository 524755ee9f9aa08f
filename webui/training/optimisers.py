"""gradients -> weights: AdamW and Muon over fp32 masters, and the moving average of weights.

AdamW: Loshchilov & Hutter 2019 (arXiv:1711.05101), torch's.  Muon: Jordan et al. 2024
(KellerJordan/Muon, ``muon.py``): momentum, made orthogonal by five Newton-Schulz steps, for weights that are matrices;
all others take Adam.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import torch
from torch import Tensor, nn

from webui.training.request import Optimiser

TEXT_PREFIX = "text."
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""The quintic's coefficients, chosen there for the steepest slope at zero."""
NEWTON_SCHULZ_STEPS = 5
TOGETHER = 4
"""So many matrices of one shape go through the Newton-Schulz steps together; threads share such groups."""
LARGEST_MATRIX = 16384
"""A matrix with a longer side is a table (token embeddings), whose rows have nothing to be orthogonal to."""
ADAM_BETAS = (0.9, 0.99)


def rate_at(optimiser: Optimiser, step: int, steps: int) -> float:
    """The learning rate of a step (from 0) of a run of ``steps``."""
    warm = min(1.0, (step + 1) / (optimiser.warmup + 1))
    done = min(1.0, step / max(steps, 1))
    shape = {"Constant": 1.0, "Linear": 1.0 - done, "Cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    falling = shape[optimiser.schedule]
    return optimiser.rate * warm * (optimiser.final + (1.0 - optimiser.final) * falling)


class Learner:
    """fp32 masters of trained tensors, their optimiser's state and their moving average.

    ``trained`` may be in any dtype; after each step they hold the masters' values.  The masters begin as ``initial``
    where it has the name, else as the trained tensors are.
    """

    def __init__(
        self, trained: Mapping[str, nn.Parameter], initial: Mapping[str, Tensor], optimiser: Optimiser
    ) -> None:
        self.trained = dict(trained)
        self.optimiser = optimiser
        self.steps_made = 0
        with torch.no_grad():
            self.masters = {
                name: initial.get(name, tensor).detach().float().clone(memory_format=torch.contiguous_format)
                for name, tensor in self.trained.items()
            }
            averaged = optimiser.ema > 0.0
            self.averages = {name: master.clone() for name, master in self.masters.items()} if averaged else {}
        is_muon = optimiser.name == "Muon"
        self._matrices = {name for name, master in self.masters.items() if is_muon and _is_matrix(master)}
        self._momenta = {name: torch.zeros_like(self.masters[name]) for name in sorted(self._matrices)}
        self._adam = self._adam_for([name for name in self.masters if name not in self._matrices])

    def step(self, gradients: Mapping[str, Tensor], rate: float, threads: Executor | None = None) -> float:
        """Take one step down ``gradients`` (by name, fp32); returns their norm.  Left alone when it is not finite.

        ``threads`` share the work where it can be shared; the result does not depend on them.
        """
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients.values())))))
        if not math.isfinite(norm):
            return norm
        clip = self.optimiser.clip
        if clip and norm > clip:
            torch._foreach_mul_(list(gradients.values()), clip / norm)
        self._adam_step(gradients, rate)
        self._muon_step(gradients, rate, threads)
        self.steps_made += 1
        self._average()
        self.write()
        return norm

    @torch.no_grad()
    def write(self, *, averaged: bool = False) -> None:
        """Put the masters (or their moving averages, where there are some) into the trained tensors."""
        source = self.averages if averaged and self.averages else self.masters
        for name, tensor in self.trained.items():
            tensor.copy_(source[name])

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs, by name."""
        state = {**self.outcome(), **{f"momentum.{name}": tensor for name, tensor in self._momenta.items()}}
        if self._adam is not None:
            names = [name for name in self.masters if name not in self._matrices]
            for name in names:
                for part, value in self._adam.state.get(self.masters[name], {}).items():
                    state[f"adam.{part}.{name}"] = value
        return state

    def outcome(self) -> dict[str, Tensor]:
        """The part of the state that a run needs which made its last step: the weights and their averages."""
        outcome = {f"master.{name}": tensor for name, tensor in self.masters.items()}
        outcome |= {f"average.{name}": tensor for name, tensor in self.averages.items()}
        return outcome | {"steps": torch.tensor(self.steps_made)}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor], *, is_over: bool = False) -> None:
        """Take up a state, of a run that ``is_over`` its outcome alone; raises KeyError when it is of another run."""
        momenta = {} if is_over else self._momenta
        for prefix, tensors in (("master", self.masters), ("average", self.averages), ("momentum", momenta)):
            for name, tensor in tensors.items():
                tensor.copy_(state[f"{prefix}.{name}"])
        self.steps_made = int(state["steps"])
        if self._adam is not None and not is_over:
            for name in (name for name in self.masters if name not in self._matrices):
                parts = ("step", "exp_avg", "exp_avg_sq")
                found = {part: state[f"adam.{part}.{name}"].clone() for part in parts if f"adam.{part}.{name}" in state}
                self._adam.state.pop(self.masters[name], None)
                if found:
                    self._adam.state[self.masters[name]] = found
        self.write()

    def _adam_for(self, names: Sequence[str]) -> torch.optim.AdamW | None:
        if not names:
            return None
        share = self.optimiser.other_rate if self.optimiser.name == "Muon" else 1.0
        groups = []
        for is_text in (False, True):
            members = [self.masters[name] for name in names if name.startswith(TEXT_PREFIX) is is_text]
            if members:
                groups.append({"params": members, "share": share * (self.optimiser.text_rate if is_text else 1.0)})
        return torch.optim.AdamW(groups, lr=0.0, betas=ADAM_BETAS, weight_decay=self.optimiser.weight_decay, fused=True)

    def _adam_step(self, gradients: Mapping[str, Tensor], rate: float) -> None:
        if self._adam is None:
            return
        for group in self._adam.param_groups:
            group["lr"] = rate * group["share"]
        for name, master in self.masters.items():
            if name not in self._matrices:
                # torch's fused AdamW on a CPU reads memory in order, whatever the strides: all must have the same.
                master.grad = gradients[name].contiguous()
        self._adam.step()
        for name, master in self.masters.items():
            if name not in self._matrices:
                master.grad = None

    def _muon_step(self, gradients: Mapping[str, Tensor], rate: float, threads: Executor | None) -> None:
        """A few matrices of one shape are made orthogonal together, the costliest first."""
        by_shape: dict[tuple[int, int], list[str]] = {}
        for name in self._momenta:
            master = self.masters[name]
            by_shape.setdefault((master.shape[0], master[0].numel()), []).append(name)
        groups = [names[i : i + TOGETHER] for names in by_shape.values() for i in range(0, len(names), TOGETHER)]
        groups.sort(key=lambda names: -self.masters[names[0]].numel() * len(names))
        run = map if threads is None else threads.map
        for _ in run(lambda names: self._muon_group(names, gradients, rate), groups):
            pass

    @torch.no_grad()
    def _muon_group(self, names: Sequence[str], gradients: Mapping[str, Tensor], rate: float) -> None:
        updates = []
        for name in names:
            momentum, gradient = self._momenta[name], gradients[name]
            momentum.mul_(MOMENTUM).add_(gradient)
            updates.append(gradient.add(momentum, alpha=MOMENTUM).reshape(len(gradient), -1))
        for name, update in zip(names, orthogonal(torch.stack(updates)), strict=True):
            share = self.optimiser.text_rate if name.startswith(TEXT_PREFIX) else 1.0
            master = self.masters[name]
            if self.optimiser.weight_decay:
                master.mul_(1.0 - rate * share * self.optimiser.weight_decay)
            master.add_(update.view_as(master), alpha=-rate * share)

    @torch.no_grad()
    def _average(self) -> None:
        """The moving average follows closely at first, then with the request's decay."""
        if not self.averages:
            return
        decay = min(self.optimiser.ema, (1 + self.steps_made) / (10 + self.steps_made))
        torch._foreach_lerp_(list(self.averages.values()), list(self.masters.values()), 1.0 - decay)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest (about) matrices with orthonormal rows or columns, (N, rows, columns) fp32, computed in bf16."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).bfloat16()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.transpose(1, 2) if tall else x).float()
    return result


def _is_matrix(tensor: Tensor) -> bool:
    """Whether a tensor is a matrix, or a convolution's kernels, large enough to have directions."""
    if tensor.ndim < 2:
        return False
    rows, columns = tensor.shape[0], tensor[0].numel()
    return min(rows, columns) >= 8 and max(rows, columns) <= LARGEST_MATRIX
