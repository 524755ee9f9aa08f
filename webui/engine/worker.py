"""A worker process: hears orders on standard input, computes them, reports on standard output.

``python -m webui.engine.worker generate`` makes pictures, ``… teach`` teaches.

One thread computes, one listens, so that a wish to stop arrives while a step is under way.  When the server is gone
(end of input) the process ends at once; what it had saved is whole.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol

from webui.engine.executor import GENERATING, TEACHING, Control, Order, Report, Tell
from webui.engine.wire import Wire
from webui.errors import WebUIError
from webui.plugins.call_record import CallRecord
from webui.settings import Settings

log = logging.getLogger("webui.worker")


TEACHING_NICENESS = 5
"""A training takes what the page, and whatever else a person does, leave."""


class Computer(Protocol):
    """What computes the orders."""

    def run(self, order: Order, tell: Tell, control: Control) -> None:
        """Compute an order; tells how it ends and never raises for a job's own failure."""
        ...

    def warm_up(self) -> None:
        """Get ready for the first order."""
        ...

    def close(self) -> None:
        """Tell whoever wants to hear of it that the process ends; an order may be under way."""
        ...


@dataclass
class Worker:
    """The two ends of the pipe, and the orders that came, each with what is wished of it meanwhile."""

    incoming: Wire
    outgoing: Wire
    role: str = GENERATING.name
    held: Event = field(default_factory=Event)
    orders: SimpleQueue[tuple[Order, Control] | None] = field(default_factory=SimpleQueue)
    controls: dict[str, Control] = field(default_factory=dict)
    computer: Computer | None = None

    def serve(self) -> None:
        """Compute orders until the server is gone."""
        received = self.incoming.receive()
        if received is None:
            return
        settings = Settings.from_dict(received[0]["settings"])
        record = CallRecord.open(Path(received[0]["record"])) if "record" in received[0] else None
        Thread(target=self._listen, name="orders", daemon=True).start()
        try:
            computer = self.computer = self._computer(settings, record)
        except WebUIError as error:
            self.outgoing.send({"type": "fatal", "error": str(error)})
            raise
        self._status("ready")
        while True:
            wanted = self.orders.get()
            self._status("busy")
            if wanted is None:
                computer.warm_up()
            else:
                order, control = wanted
                computer.run(order, partial(self._tell, order.job), control)
                if self.controls.get(order.job) is control:  # not yet ordered again
                    del self.controls[order.job]
            self._status("ready")

    def _computer(self, settings: Settings, record: CallRecord | None) -> Computer:
        """What this role computes with; imports torch."""
        if self.role == TEACHING.name:
            from webui.engine.teaching import Teacher

            if hasattr(os, "nice"):
                os.nice(TEACHING_NICENESS)
            return Teacher.start(settings, record)
        from webui.engine.runner import Runner

        return Runner.start(settings, record)

    def _listen(self) -> None:
        while (received := self.incoming.receive()) is not None:
            self._obey(received[0])
        if self.computer is not None:
            self.computer.close()
        os._exit(0)

    def _obey(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "run":
            order = Order(**message["order"])
            control = self.controls[order.job] = Control(held=self.held)
            if message.get("unwanted"):
                control.interrupted.set()
            self.orders.put((order, control))
        elif kind == "warm up":
            self.orders.put(None)
        elif kind == "hold":
            (self.held.set if message["on"] else self.held.clear)()
        elif wished := self.controls.get(message["job"]):
            (wished.interrupted if kind == "interrupt" else wished.skipped).set()

    def _tell(self, job: str, report: Report) -> None:
        message = {"type": "report", "job": job, "kind": report.kind, "data": dict(report.data)}
        self.outgoing.send(message, report.blob)

    def _status(self, status: str) -> None:
        self.outgoing.send({"type": "status", "status": status})


def main() -> int:
    """Run the worker; standard output carries messages only, so prints of libraries go to standard error.

    Ctrl+C and a supervisor's SIGTERM reach every process of the server; this one waits for the server to end it, so
    that the job under way goes back into the queue instead of failing.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        Worker(Wire(sys.stdin.buffer), Wire(outgoing), role=(sys.argv[1:2] or [GENERATING.name])[0]).serve()
    except WebUIError as error:
        log.error("%s", error)
        return 2
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # the listening thread still waits for standard input
