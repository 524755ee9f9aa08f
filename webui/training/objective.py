"""latents, noise and context -> the loss: what the UNet is asked in training, and what a wrong answer costs.

The forward process of DDPM (Ho et al. 2020, arXiv:2006.11239, equation 4) on a model's own noise table; targets epsilon
and v (Salimans & Ho 2022, arXiv:2202.00512, appendix D).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from webui.diffusion.prediction import Prediction
from webui.diffusion.schedules import NoiseTable
from webui.errors import RequestError
from webui.training.request import Noise

LATE_FROM = 0.55
"""The "noisier half" of the timesteps begins at this share of them."""


@dataclass(frozen=True)
class Question:
    """What the UNet is asked: ``noisy`` (B, C, h, w) at ``timesteps`` (B,), the right answer, and what each counts."""

    noisy: Tensor
    timesteps: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Objective:
    """Questions about latents, and their loss."""

    prediction: Prediction
    alphas_cumprod: Tensor
    noise: Noise

    @classmethod
    def of(cls, prediction: Prediction, table: NoiseTable, noise: Noise) -> Objective:
        """The objective on a model's noise table; the request may want another prediction than the model's."""
        wanted = {"Epsilon": Prediction.EPSILON, "V": Prediction.V}.get(noise.prediction, prediction)
        return cls(wanted, torch.from_numpy(table.alphas_cumprod).float(), noise)

    @classmethod
    def of_frozen(cls, prediction: Prediction, table: NoiseTable, noise: Noise) -> Objective:
        """The objective for what is added to a frozen model.  Raises RequestError for another prediction than its."""
        objective = cls.of(prediction, table, noise)
        if objective.prediction is not prediction:
            raise RequestError(
                f"The base model predicts {prediction.value} and stays as it is; choose that or the prediction "
                '"Model" to teach something for it.'
            )
        return objective

    def ask(self, latents: Tensor, random: Generator) -> Question:
        """A question about latents (B, C, h, w) of unit variance, its timesteps and noise drawn from ``random``."""
        timesteps = self.timesteps(len(latents), random)
        noise = torch.randn(latents.shape, generator=random)
        if self.noise.offset:
            noise = noise + self.noise.offset * torch.randn(*latents.shape[:2], 1, 1, generator=random)
        return self.question(latents, noise, timesteps)

    def question(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Question:
        """The question that this noise (B, C, h, w) at these timesteps (B,) makes."""
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        signal, level = alpha.sqrt(), (1.0 - alpha).sqrt()
        target = noise if self.prediction is Prediction.EPSILON else signal * noise - level * latents
        return Question(signal * latents + level * noise, timesteps, target, self._weights(timesteps))

    def loss(self, question: Question, answer: Tensor, counts: Tensor | None = None) -> Tensor:
        """The mean over the batch of the squared error times the timestep's weight, times ``counts`` (B,) if given."""
        each = (answer.float() - question.target).square().mean(dim=(1, 2, 3)) * question.weight
        return (each if counts is None else each * counts).mean()

    def timesteps(self, count: int, random: Generator) -> Tensor:
        """Timesteps (count,), spread evenly over the shares that the request names (stratified), in random order."""
        last, late = self.noise.last_share, self.noise.late_share
        n = len(self.alphas_cumprod)
        places = (torch.arange(count) + torch.rand(count, generator=random)) / count
        places = places[torch.randperm(count, generator=random)]
        everywhere = 1.0 - last - late
        first_late = int(LATE_FROM * n)
        in_late = first_late + (places - everywhere) / max(late, 1e-9) * (n - first_late)
        drawn = torch.where(places < everywhere, places / max(everywhere, 1e-9) * n, in_late)
        drawn = torch.where(places >= everywhere + late, torch.tensor(float(n - 1)), drawn) if last else drawn
        return drawn.long().clamp(0, n - 1)

    def _weights(self, timesteps: Tensor) -> Tensor:
        """Min-SNR weights (arXiv:2303.09556, section 3.4): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v."""
        gamma = self.noise.min_snr_gamma
        if not gamma:
            return torch.ones(len(timesteps))
        alpha = self.alphas_cumprod[timesteps]
        ratio = alpha / (1.0 - alpha)
        return ratio.clamp(max=gamma) / (ratio if self.prediction is Prediction.EPSILON else ratio + 1.0)
