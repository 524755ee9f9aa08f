"""An Executor without a process of its own, for tests and for programs that use the engine as a library."""

from __future__ import annotations

from webui.engine.executor import Control, Order, Tell
from webui.engine.runner import Runner


class InProcess:
    """Computes orders on the thread that hands them over.

    Nothing stands between its caller and a crash of the networks; the server uses ``executor.WorkerProcess``.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._control = Control()
        self._job = ""
        self._unwanted = ""

    def run(self, order: Order, tell: Tell) -> None:
        """See Executor."""
        self._control = Control()
        self._job = order.job
        if self._unwanted == order.job:
            self._control.interrupted.set()
        try:
            self.runner.run(order, tell, self._control)
        finally:
            self._job = ""

    def interrupt(self, job: str) -> None:
        """See Executor."""
        self._unwanted = job
        if job == self._job:
            self._control.interrupted.set()

    def skip(self, job: str) -> None:
        """See Executor."""
        if job == self._job:
            self._control.skipped.set()

    def warm_up(self) -> None:
        """See Executor; loading waits for the first order here."""

    def status(self) -> str:
        """See Executor."""
        return "busy" if self._job else "ready"

    def close(self) -> None:
        """See Executor; the order under way is stopped between two steps."""
        self._control.interrupted.set()
