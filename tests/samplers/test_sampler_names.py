from __future__ import annotations

import subprocess
import sys

import pytest

from webui.diffusion.schedules import register_schedules, resolve_schedule, split_sampler_name
from webui.errors import RequestError
from webui.samplers import Sampler, find_sampler


def test_names_are_those_of_automatic1111(samplers) -> None:
    menu = {sampler.name: (sampler.aliases, sampler.default_schedule) for sampler in samplers}
    assert menu == {
        "DPM++ 2M": (("k_dpmpp_2m",), "Karras"),
        "DPM++ SDE": (("k_dpmpp_sde",), "Karras"),
        "DPM++ 2M SDE": (("k_dpmpp_2m_sde",), "Exponential"),
        "DPM++ 2M SDE Heun": (("k_dpmpp_2m_sde_heun",), "Exponential"),
        "DPM++ 2S a": (("k_dpmpp_2s_a",), "Karras"),
        "DPM++ 3M SDE": (("k_dpmpp_3m_sde",), "Exponential"),
        "Euler a": (("k_euler_a", "k_euler_ancestral"), None),
        "Euler": (("k_euler",), None),
        "LMS": (("k_lms",), None),
        "Heun": (("k_heun",), None),
        "DPM2": (("k_dpm_2",), "Karras"),
        "DPM2 a": (("k_dpm_2_a",), "Karras"),
        "DPM fast": (("k_dpm_fast",), None),
        "DPM adaptive": (("k_dpm_ad",), None),
        "Restart": (("restart",), "Karras"),
        "HeunPP2": (("heunpp2",), None),
        "IPNDM": (("ipndm",), None),
        "IPNDM_V": (("ipndm_v",), None),
        "DEIS": (("deis",), None),
        "DDIM": (("ddim",), None),
        "DDIM CFG++": (("ddim_cfgpp",), None),
        "PLMS": (("plms",), None),
        "UniPC": (("unipc",), None),
        "LCM": (("k_lcm",), None),
        "DDPM": (("ddpm",), None),
    }
    assert {s.name for s in samplers if s.brownian} == {
        "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE",
    }  # fmt: skip
    assert {s.name for s in samplers if s.discards_penultimate} == {"DPM2", "DPM2 a", "DPM++ 3M SDE"}
    names = [name.casefold() for sampler in samplers for name in {n.casefold() for n in sampler.names}]
    assert len(names) == len(set(names)), "two samplers answer to one name"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Euler a", "Euler a"),
        ("euler A", "Euler a"),
        ("k_euler_ancestral", "Euler a"),
        ("K_DPMPP_2M", "DPM++ 2M"),
        (" ddim ", "DDIM"),
    ],
)
def test_find_sampler_by_name_or_alias(samplers, text: str, name: str) -> None:
    assert find_sampler(text, samplers).name == name


def test_unknown_sampler_suggests_the_nearest(samplers) -> None:
    with pytest.raises(RequestError, match='no sampler named "Eulr"; did you mean "Euler"'):
        find_sampler("Eulr", samplers)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("DPM++ 2M Karras", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M SGM Uniform", ("DPM++ 2M", "SGM Uniform")),
        ("DPM++ 2M SGMUniform", ("DPM++ 2M", "SGM Uniform")),
        ("Euler Uniform", ("Euler", "Uniform")),
        ("euler a karras", ("Euler a", "Karras")),
        ("k_heun sgm_uniform", ("Heun", "SGM Uniform")),
        ("DDIM", ("DDIM", "Automatic")),
        ("Euler DDIM", ("Euler", "DDIM")),
    ],
)
def test_old_combined_names(samplers, text: str, expected: tuple[str, str]) -> None:
    assert split_sampler_name(text, samplers, register_schedules()) == expected


@pytest.mark.parametrize("text", ["Karras", "Nothing Karras", "DPM++ 2M Caras"])
def test_combined_names_of_no_sampler(samplers, text: str) -> None:
    with pytest.raises(RequestError, match="no sampler named"):
        split_sampler_name(text, samplers, register_schedules())


def test_a_new_sampler_with_a_schedule_in_its_name_is_found_whole() -> None:
    new = Sampler(name="Restart Karras", integrate=lambda *a, **k: iter(()))
    assert split_sampler_name("restart karras", [new], register_schedules()) == ("Restart Karras", "Automatic")


def test_automatic_is_the_samplers_default_or_uniform(named) -> None:
    schedules = register_schedules()
    assert resolve_schedule(named("DPM++ 2M"), "Automatic", schedules).name == "Karras"
    assert resolve_schedule(named("Euler"), "automatic", schedules).name == "Uniform"
    assert resolve_schedule(named("DPM++ 2M"), "sgmuniform", schedules).name == "SGM Uniform"
    with pytest.raises(RequestError, match='no schedule named "Karas"; did you mean "Karras"'):
        resolve_schedule(named("Euler"), "Karas", schedules)


def test_importing_samplers_and_schedules_leaves_torch_out() -> None:
    code = (
        "import importlib, pkgutil, sys, webui.samplers, webui.diffusion.schedules, webui.diffusion.start,"
        " webui.diffusion.prediction\n"
        "for m in pkgutil.iter_modules(webui.samplers.__path__): importlib.import_module('webui.samplers.' + m.name)\n"
        "assert 'webui.samplers.euler' in sys.modules\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
