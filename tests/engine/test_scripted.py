"""A job with a script goes on after a restart where it was, and stops when it is interrupted."""

from __future__ import annotations

from dataclasses import replace

from tiny_model import tiny_request
from waiting import finished

from webui.engine.engine import Engine
from webui.engine.executor import Control, Order, Report
from webui.engine.runner import Runner
from webui.request import ScriptUse

USE = ScriptUse(name="X/Y/Z plot", options={"x_axis": "Seed", "x_values": "1,2", "y_axis": "Steps", "y_values": "1,2"})


def test_pictures_that_are_done_are_not_made_again(engine: Engine, runner: Runner) -> None:
    request = replace(tiny_request(), script=USE)
    job = finished(engine, engine.submit(request))
    assert [output.index for output in sorted(job.outputs, key=lambda one: one.index)] == [-1, 0, 1, 2, 3]
    known = [output for output in job.outputs if output.index in (0, 2)]
    reports: list[Report] = []
    order = Order(
        job="again",
        kind="generate",
        request=job.request,
        done=tuple(output.index for output in known),
        paths=tuple(output.path for output in known),
    )
    runner.run(order, reports.append, Control())
    assert [report.data["index"] for report in reports if report.kind == "picture"] == [1, 3, -1]
    sheets = [engine.output_path(output.id) for output in job.outputs if output.index == -1]
    again = [report.data["path"] for report in reports if report.kind == "picture"][-1]
    assert (runner.settings.outputs_dir / again).read_bytes() == sheets[0].read_bytes()
    steps = [(report.data["step"], report.data["steps"]) for report in reports if report.kind == "progress"]
    assert all(step <= total for step, total in steps)


def test_an_interrupted_job_has_no_overview(runner: Runner) -> None:
    control, reports = Control(), []

    def tell(report: Report) -> None:
        reports.append(report)
        if report.kind == "picture":
            control.interrupted.set()

    order = Order(job="1", kind="generate", request=replace(tiny_request(), script=USE).to_dict())
    runner.run(order, tell, control)
    assert [report.data["index"] for report in reports if report.kind == "picture"] == [0]
    assert reports[-1].kind == "interrupted"
