from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from webui import device
from webui.errors import RequestError


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_precision_by_name_and_the_vae_is_never_fp16() -> None:
    assert device.choose("cpu", "fp32").dtype is torch.float32
    assert device.choose("cpu", "bf16").vae_dtype is torch.bfloat16
    assert device.choose("cpu", "fp16").vae_dtype is torch.float32


def test_auto_on_a_cpu_is_bf16_only_where_the_cpu_multiplies_it() -> None:
    listing = Path("/proc/cpuinfo")
    flags = listing.read_text() if listing.exists() else ""
    if "flags" not in flags:
        pytest.skip("this system does not list the processor's instructions")
    expected = torch.bfloat16 if "avx512_bf16" in flags else torch.float32
    assert device.choose("cpu").dtype is expected


def test_threads_are_those_asked_for_and_by_default_those_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.choose("cpu", "fp32", 1).threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert device.choose("cpu", "fp32").threads == 3
    assert device.choose("cpu", "fp32", 1).threads == 1, "what is asked for here goes before the environment"
    monkeypatch.delenv("OMP_NUM_THREADS")
    if hasattr(os, "sched_getaffinity"):
        assert device.choose("cpu", "fp32").threads == len(os.sched_getaffinity(0))


def test_on_a_cpu_every_picture_goes_alone() -> None:
    assert device.choose("cpu", "fp32").images_at_once(8) == 1


@pytest.mark.parametrize(
    ("name", "precision", "sentence"),
    [("gpu", "auto", 'There is no device "gpu"'), ("cpu", "int4", 'There is no precision "int4"')],
)
def test_unknown_names_are_one_sentence(name: str, precision: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        device.choose(name, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device that is missing elsewhere")
def test_a_device_that_is_not_here_names_those_that_are() -> None:
    with pytest.raises(RequestError, match="not available here; this torch offers cpu"):
        device.choose("cuda")
