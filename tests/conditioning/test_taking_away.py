"""Every registered conditioning module, used in a job and taken away again, leaves the model bit-identical.

The modules of the program and of the extensions that come with it, each as its own defaults or :data:`GIVEN` have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_request, tiny_settings
from torch import nn

from webui.engine.executor import Control, Order, Report
from webui.engine.runner import Runner
from webui.plugins.manager import Plugins
from webui.request import ModuleUse
from webui.settings import PROJECT_ROOT

EXTENSIONS = PROJECT_ROOT / "extensions"
MODULES = sorted(Plugins.load(EXTENSIONS).conditioning_modules)
GIVEN: dict[str, dict[str, Any]] = {}
"""Options for modules that do nothing by default."""
NEEDS_FILES = frozenset({"ControlNet"})
"""Modules that have nothing to compute with here: they are refused, and that must leave no trace either."""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Runner]:
    before = torch.get_num_threads()
    settings = tiny_settings(tmp_path_factory.mktemp("taking"), tiny_checkpoint)
    yield Runner.start(replace(settings, extensions_dir=EXTENSIONS))
    torch.set_num_threads(before)


def run(runner: Runner, *modules: ModuleUse) -> list[Report]:
    reports: list[Report] = []
    request = tiny_request(modules=modules)
    runner.run(Order(job="1", kind="generate", request=request.to_dict()), reports.append, Control())
    return reports


def networks(runner: Runner) -> dict[str, nn.Module]:
    model = runner.models.checkpoint(runner.library.default_checkpoint(), runner.compute)
    return {"unet": model.unet, "vae": model.vae, "text": model.text_encoder}


def state(runner: Runner) -> dict[str, str]:
    """Of each tensor its bytes, and of each part of a network its class, its hooks and what else hangs on it."""
    found = {}
    for network, module in networks(runner).items():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            found[f"{network}.{name}"] = sha256(tensor.detach().contiguous().view(torch.uint8).numpy()).hexdigest()
        for name, part in module.named_modules():
            hooks = [len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks)]
            found[f"{network}.{name}:part"] = f"{type(part).__qualname__} {hooks} {sorted(vars(part))}"
    return found


def test_there_are_modules() -> None:
    assert MODULES
    assert set(GIVEN) | NEEDS_FILES <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_model_is_as_it_was(name: str, runner: Runner) -> None:
    plain = picture(run(runner), runner)
    before, ids = state(runner), {key: id(network) for key, network in networks(runner).items()}
    reports = run(runner, ModuleUse(name=name, options=GIVEN.get(name, {})))
    if name in NEEDS_FILES:
        assert reports[-1].kind == "failed" and reports[-1].data["status"] < 500, reports[-1].data
    else:
        assert reports[-1].kind == "done", reports[-1].data
    assert {key: id(network) for key, network in networks(runner).items()} == ids
    assert state(runner) == before
    assert picture(run(runner), runner) == plain


def picture(reports: list[Report], runner: Runner) -> bytes:
    assert reports[-1].kind == "done", reports[-1].data
    (made,) = [report for report in reports if report.kind == "picture"]
    return (runner.settings.outputs_dir / made.data["path"]).read_bytes()
