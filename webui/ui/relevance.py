"""Which fields mean something for the chosen sampler and schedule; the page hides the others."""

from __future__ import annotations

from collections.abc import Iterable

from webui.diffusion.schedules import Schedule
from webui.samplers import Sampler

UNIPC = "UniPC"
"""The sampler whose formula has an order to choose, and no churn."""
CHURN = ("s_churn", "s_tmin", "s_tmax")
RANGE = ("sigma_min", "sigma_max")
RHO = ("Karras", "Polyexponential")
BETA = "Beta"


def relevant(samplers: Iterable[Sampler], schedules: Iterable[Schedule]) -> dict[str, bool]:
    """Field -> whether any of the samplers, or of the schedules, of the passes looks at it."""
    taken = list(samplers)
    scheduled = [schedule for schedule in schedules if any(sampler.grid is None for sampler in taken)]
    churned = any(sampler.tuned is not None and sampler.name != UNIPC for sampler in taken)
    noisy = any(sampler.default_eta is not None for sampler in taken)
    shown = dict.fromkeys(CHURN, churned) | dict.fromkeys(RANGE, bool(scheduled))
    return {
        **shown,
        "eta": noisy,
        "ensd": noisy,
        "s_noise": any(sampler.scales_noise for sampler in taken),
        "unipc_order": any(sampler.name == UNIPC for sampler in taken),
        "rho": any(schedule.name in RHO for schedule in scheduled),
        "beta_alpha": any(schedule.name == BETA for schedule in scheduled),
        "beta_beta": any(schedule.name == BETA for schedule in scheduled),
        "discard_penultimate": any(sampler.grid is None for sampler in taken),
        "sgm_noise_multiplier": any(sampler.grid is None for sampler in taken),
    }
