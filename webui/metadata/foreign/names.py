"""Samplers and schedules by the names that ComfyUI, diffusers and InvokeAI give them -> AUTOMATIC1111's."""

from __future__ import annotations

SAMPLERS = {
    "euler": "Euler",
    "euler_cfg_pp": "Euler",
    "euler_ancestral": "Euler a",
    "euler_a": "Euler a",
    "k_euler": "Euler",
    "k_euler_ancestral": "Euler a",
    "k_euler_a": "Euler a",
    "heun": "Heun",
    "k_heun": "Heun",
    "heunpp2": "HeunPP2",
    "dpm_2": "DPM2",
    "k_dpm_2": "DPM2",
    "kdpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "k_dpm_2_ancestral": "DPM2 a",
    "k_dpm_2_a": "DPM2 a",
    "kdpm_2_a": "DPM2 a",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "lms": "LMS",
    "k_lms": "LMS",
    "dpm_fast": "DPM fast",
    "k_dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
    "k_dpm_adaptive": "DPM adaptive",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_2s_a": "DPM++ 2S a",
    "k_dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_2s": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE",
    "k_dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_2m_sde_heun_gpu": "DPM++ 2M SDE Heun",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_3m_sde_gpu": "DPM++ 3M SDE",
    "ddpm": "DDPM",
    "lcm": "LCM",
    "ipndm": "IPNDM",
    "ipndm_v": "IPNDM_V",
    "deis": "DEIS",
    "ddim": "DDIM",
    "nai_ddim": "DDIM",
    "ddim_v3": "DDIM",
    "nai_smea": "Euler a",
    "plms": "PLMS",
    "pndm": "PLMS",
    "uni_pc": "UniPC",
    "uni_pc_bh2": "UniPC",
    "unipc": "UniPC",
    "restart": "Restart",
}
SCHEDULES = {
    "normal": "Normal",
    "native": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "ddim_uniform": "DDIM",
    "ddim": "DDIM",
    "beta": "Beta",
    "kl_optimal": "KL Optimal",
    "align_your_steps": "Align Your Steps",
    "ays": "Align Your Steps",
    "gits": "Align Your Steps GITS",
    "turbo": "Turbo",
    "uniform": "Uniform",
    "automatic": "Automatic",
}
NEAREST = frozenset({"euler_cfg_pp", "nai_smea", "uni_pc_bh2", "dpmpp_2s"})
"""Samplers whose formula is not here; the entry is the nearest one."""


def sampler(name: str) -> tuple[str, str | None]:
    """A sampler and, where the name says one, its schedule; an unknown name is returned as it is.

    >>> sampler("dpmpp_2m_k"), sampler("euler")
    (('DPM++ 2M', 'Karras'), ('Euler', None))
    """
    plain = name.strip().casefold().replace(" ", "_").replace("++", "pp")
    for ending in ("_karras", "_k"):
        if plain.endswith(ending) and plain.removesuffix(ending) in SAMPLERS:
            return SAMPLERS[plain.removesuffix(ending)], "Karras"
    return SAMPLERS.get(plain, name), None


def schedule(name: str) -> str | None:
    """A schedule, None for a name that is not known."""
    return SCHEDULES.get(name.strip().casefold().replace(" ", "_"))
