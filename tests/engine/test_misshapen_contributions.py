"""What a module must not contribute ends its job with a sentence that names the module, not as a defect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_request, tiny_settings

from webui.conditioning import Contribution
from webui.engine.executor import Control, Order, Report
from webui.engine.runner import Runner
from webui.networks.unet import Openings
from webui.request import ModuleUse


@dataclass(frozen=True, kw_only=True)
class Options:
    pass


class Odd:
    name = "Odd"
    options = Options

    def __init__(self, contribution: object) -> None:
        self.contribution = contribution

    def prepare(self, *_: Any) -> Any:
        return self.contribution


def ending(runner: Runner, contribution: object) -> Report:
    runner.plugins.conditioning_modules["Odd"] = Odd(contribution)
    request = tiny_request(modules=(ModuleUse(name="Odd"),))
    reports: list[Report] = []
    runner.run(Order(job="1", kind="generate", request=request.to_dict()), reports.append, Control())
    return reports[-1]


@pytest.mark.parametrize(
    ("contribution", "said"),
    [
        (None, "Odd prepared nothing, expected a Contribution"),
        ((Openings(),), "Odd prepared a tuple, expected a Contribution"),
        (Contribution(None), "Odd contributes nothing, expected Openings"),
        (Contribution(lambda call: {}), "Odd fills a call with a dict, expected Openings"),
        (Contribution(Openings(), guide=lambda g: None), "Odd guides to nothing, expected a Tensor of torch.float32"),
        (
            Contribution(Openings(), guide=lambda g: g.guided[:, :1]),
            "Odd guides to a Tensor of torch.float32, (1, 1, 8, 8)",
        ),
        (Contribution(Openings(), guide=lambda g: g.guided.double()), "Odd guides to a Tensor of torch.float64"),
    ],
)
def test_it_is_named(runner: Runner, contribution: object, said: str) -> None:
    report = ending(runner, contribution)
    assert report.kind == "failed"
    assert said in report.data["error"]


def test_what_can_be_used_is_used(runner: Runner) -> None:
    used = Contribution(lambda call: Openings(merged_tokens=0.5), guide=lambda guiding: guiding.guided * 0.5)
    assert ending(runner, used).kind == "done"


SHAPELESS = """
from dataclasses import dataclass
from webui.conditioning import Contribution
from webui.hooks import hookimpl

@dataclass(frozen=True, kw_only=True)
class Options:
    pass

class Wide:
    name, options = "Wide", Options

    def prepare(self, options, model, request, pictures):
        import torch
        from webui.networks.unet import Openings
        return Contribution(Openings(extra_context=torch.zeros(1, 2, 7)))

@hookimpl
def register_conditioning_modules():
    return [Wide()]
"""


def test_what_fits_nowhere_names_the_extensions_that_took_part(tmp_path: Path, tiny_checkpoint: Path) -> None:
    settings = tiny_settings(tmp_path, tiny_checkpoint)
    settings.extensions_dir.mkdir()
    (settings.extensions_dir / "broad.py").write_text(SHAPELESS, "utf-8")
    runner = Runner.start(settings)
    reports: list[Report] = []
    for modules in ((ModuleUse(name="Wide"),), ()):
        request = tiny_request(modules=modules)
        runner.run(Order(job="1", kind="generate", request=request.to_dict()), reports.append, Control())
    failed = next(report for report in reports if report.kind == "failed")
    assert failed.data["error"].endswith("It was made with this extension: broad; try without.")
    assert reports[-1].kind == "done"
