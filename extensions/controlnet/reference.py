"""Reference-only: self-attention that also reads a reference picture under the same noise, without any weights.

The rules are those of Mikubill/sd-webui-controlnet (``scripts/hook.py``): in each call the UNet first sees the
reference picture's latent at the call's noise level, and what each self-attention would have read there is kept; then
the picture itself reads both.  Rows of the negative prompt read the reference to the share 1 - fidelity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from webui.diffusion.guidance import NetworkCall
from webui.diffusion.prediction import c_in
from webui.networks.unet import Attend, Attending, Openings, UNet

Bank = dict[str, tuple[Tensor, Tensor]]
"""Keys and values (B, T, width) of the reference picture by self-attention."""


def sites_within(unet: UNet, weight: float) -> frozenset[str]:
    """The self-attentions that read the reference: a share of all, the widest first, that grows with ``weight``.

    The one of rank i among N counts while i / N < weight.
    """
    modules = dict(unet.named_modules())
    sites = [name for name in modules if name.endswith(".attn1")]
    ranked = sorted(sites, key=lambda site: -modules[site].to_q.weight.shape[1])
    return frozenset(site for rank, site in enumerate(ranked) if rank / len(ranked) < weight)


def bank_of(unet: UNet, latent: Tensor, call: NetworkCall, sites: frozenset[str], seed: int) -> Bank:
    """What self-attention reads of the reference ``latent`` (1, C, h, w) at the noise level of a call.

    The noise is drawn anew in each call, from ``seed`` and the noise level; it is the same for all rows.
    """
    bank: Bank = {}

    def keep(attending: Attending, attend: Attend) -> Tensor:
        if attending.site in sites:
            bank[attending.site] = (attending.key, attending.value)
        return attend(attending)

    noise = noise_for(latent, seed, call.sigma)
    noisy = ((latent + call.sigma * noise) * c_in(call.sigma)).to(call.x).expand(len(call.x), -1, -1, -1)
    timesteps = torch.full((len(call.x),), call.timestep, dtype=torch.float32, device=call.x.device)
    unet(noisy, timesteps, call.context, Openings(attention_wraps=(keep,)))
    return bank


def noise_for(latent: Tensor, seed: int, sigma: float) -> Tensor:
    """Normal noise shaped like ``latent``, on its device; the same for the same seed and level, on every device."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + round(sigma * 100_000)) % 2**63)
    return torch.randn(latent.shape, generator=generator).to(latent)


def openings(bank: Bank, fidelity: float, conditional: Sequence[bool]) -> Openings:
    """The openings of a call that reads a ``bank``.

    A row with the negative prompt takes ``fidelity`` * without + (1 - fidelity) * with the reference; rows with the
    prompt read the reference in full.
    """

    def read(attending: Attending, attend: Attend) -> Tensor:
        if attending.site not in bank:
            return attend(attending)
        keys, values = (part.to(attending.key) for part in bank[attending.site])
        with_reference = attend(
            replace(
                attending,
                key=torch.cat([attending.key, keys], dim=1),
                value=torch.cat([attending.value, values], dim=1),
            )
        )
        if fidelity <= 0 or all(conditional):
            return with_reference
        share = torch.tensor([0.0 if one else fidelity for one in conditional]).to(with_reference)[:, None, None]
        return share * attend(attending) + (1 - share) * with_reference

    return Openings(attention_wraps=(read,))
