"""Every registered conditioning module and kind of networks, used in a job and taken away again, leaves the model
bit-identical.

Those of the program and of the extensions that come with it, each as its own defaults or :data:`GIVEN` have it, and a
kind of an extension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from network_toy import STYLE, write_hypernet, write_style
from tiny_model import tiny_request, tiny_settings
from torch import nn

from webui.engine.executor import Control, Order, Report
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.plugins.manager import Plugins
from webui.request import ModuleUse
from webui.settings import PROJECT_ROOT

EXTENSIONS = PROJECT_ROOT / "extensions"
MODULES = sorted(Plugins.load(EXTENSIONS).conditioning_modules)
TAGS = {"hypernet": "<hypernet:ink:0.8>", "style": "<style:ink:0.8:Hard>"}
"""A tag of each kind of networks whose file is there."""
GIVEN: dict[str, dict[str, Any]] = {}
"""Options for modules that do nothing by default."""
NEEDS_FILES = frozenset({"ControlNet"})
"""Modules that have nothing to compute with here: they are refused, and that must leave no trace either."""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Iterator[Runner]:
    before = torch.get_num_threads()
    settings = tiny_settings(tmp_path_factory.mktemp("taking"), tiny_checkpoint)
    write_hypernet(settings.models_dir / "hypernetworks" / "ink.pt")
    write_style(settings.models_dir / "styles" / "ink.safetensors")
    extensions = tmp_path_factory.mktemp("extensions")
    for folder in (path for path in EXTENSIONS.iterdir() if path.is_dir() and path.name[0] not in "._"):
        (extensions / folder.name).symlink_to(folder)
    (extensions / "style.py").write_text(STYLE, "utf-8")
    yield Runner.start(replace(settings, extensions_dir=extensions))
    torch.set_num_threads(before)


def run(runner: Runner, *modules: ModuleUse, tag: str = "") -> list[Report]:
    reports: list[Report] = []
    request = tiny_request(prompt=f"a red square{tag}", modules=modules)
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


def test_every_kind_of_networks_has_a_tag(runner: Runner) -> None:
    assert set(runner.plugins.extra_network_kinds.kinds) == set(TAGS)


@pytest.mark.parametrize("kind", TAGS)
def test_the_model_is_as_it_was_after_a_tag(kind: str, runner: Runner) -> None:
    plain = picture(run(runner), runner)
    before, ids = state(runner), {key: id(network) for key, network in networks(runner).items()}
    tagged = picture(run(runner, tag=TAGS[kind]), runner)
    assert read_pixels(tagged).tolist() != read_pixels(plain).tolist()
    assert {key: id(network) for key, network in networks(runner).items()} == ids
    assert state(runner) == before
    assert picture(run(runner), runner) == plain


def picture(reports: list[Report], runner: Runner) -> bytes:
    assert reports[-1].kind == "done", reports[-1].data
    (made,) = [report for report in reports if report.kind == "picture"]
    return (runner.settings.outputs_dir / made.data["path"]).read_bytes()
