"""What twenty idle extensions cost a job: every moment hook in each of them, doing nothing.

    python benchmarks/hook_overhead.py [--runs N] [--extensions N] [--starter FILE]

Two runners in one process make the same picture of the embedded model in turn, one without extensions and one with;
the CPU time of the jobs is compared, so that a busy machine changes little.  Beside the ratio stands the time that the
calls themselves took by the program's own clock, with the calls' number and their price.  Prints Markdown table rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from server_process import STARTER

from webui import hooks
from webui.engine.executor import Control, Order, Report
from webui.engine.runner import Runner
from webui.request import GenerationRequest, Sampling, Size
from webui.settings import Settings

TARGET = 0.01
STEPS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--extensions", type=int, default=20)
    parser.add_argument("--starter", type=Path, default=STARTER, help="the embedded model's file")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        plain, idle = runners(Path(name), arguments.starter, arguments.extensions)
        for runner in (plain, idle):
            job_s(runner)
        before = calls(idle)
        pairs = [(job_s(plain), job_s(idle)) for _ in range(arguments.runs)]
        count, spent_s = (now - then for now, then in zip(calls(idle), before, strict=True))
    ratios = [with_them / without for without, with_them in pairs]
    jobs_s = [without for without, _ in pairs]
    print("| extensions | job, CPU s | with / without | least of each | calls a job | a call, µs | share | target |")
    print("|---|---|---|---|---|---|---|---|")
    least = min(with_them for _, with_them in pairs) / min(jobs_s)
    share = spent_s / arguments.runs / statistics.median(jobs_s)
    print(
        f"| {arguments.extensions} | {statistics.median(jobs_s):.2f} | {statistics.median(ratios):.4f} | {least:.4f} | "
        f"{count / arguments.runs:.0f} | {spent_s / max(count, 1) * 1e6:.1f} | {share:.2%} | ≤ {TARGET:.0%} |"
    )


def runners(folder: Path, starter: Path, extensions: int) -> tuple[Runner, Runner]:
    """One without extensions, one with so many idle ones, on the same model."""
    (folder / "models" / "Stable-diffusion").mkdir(parents=True)
    (folder / "models" / "Stable-diffusion" / starter.name).symlink_to(starter.resolve())
    (folder / "extensions").mkdir()
    for number in range(extensions):
        (folder / "extensions" / f"idle{number:02}.py").write_text(idle_code(), "utf-8")
    settings = Settings(
        models_dir=folder / "models",
        outputs_dir=folder / "outputs",
        extensions_dir=folder / "extensions",
        device="cpu",
        threads=1,
    )
    return Runner.start(replace(settings, load_extensions=False)), Runner.start(settings)


def idle_code() -> str:
    """An extension that has every hook but the registrations, and does nothing in it."""
    moments = [name for name in vars(hooks.Hooks) if not name.startswith(("_", "register_"))]
    functions = "".join(f"@hookimpl\ndef {name}({', '.join(_arguments(name))}):\n    pass\n\n\n" for name in moments)
    return f"from webui.hooks import hookimpl\n\n\n{functions}"


def _arguments(name: str) -> list[str]:
    code = getattr(hooks.Hooks, name).__code__
    return list(code.co_varnames[1 : code.co_argcount])


def job_s(runner: Runner) -> float:
    """The CPU time of a job, in seconds."""
    request = GenerationRequest(
        prompt="a red apple", seed=7, size=Size(width=128, height=128), sampling=Sampling(steps=STEPS)
    )
    reports: list[Report] = []
    started = time.process_time()
    runner.run(Order(job="1", kind="generate", request=request.to_dict()), reports.append, Control())
    spent = time.process_time() - started
    assert reports[-1].kind == "done", reports[-1]
    return spent


def calls(runner: Runner) -> tuple[int, float]:
    """How many calls of moment hooks there were, and the seconds that they took."""
    times = [
        time
        for report in runner.plugins.report()
        for hook, time in report.hooks.items()
        if hook != "import" and not hook.startswith("register_")
    ]
    return sum(int(time["calls"]) for time in times), sum(time["total_s"] for time in times)


if __name__ == "__main__":
    main()
