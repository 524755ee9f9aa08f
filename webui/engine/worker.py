"""The worker process: hears orders on standard input, computes them, reports on standard output.

One thread computes, one listens, so that a wish to stop arrives while a step is under way.  When the server is gone
(end of input) the process ends at once; what it had saved is whole.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import Any

from webui.engine.executor import Order, Report
from webui.engine.wire import Wire
from webui.errors import WebUIError
from webui.settings import Settings

log = logging.getLogger("webui.worker")


@dataclass
class Worker:
    """The two ends of the pipe and the job under way."""

    incoming: Wire
    outgoing: Wire
    orders: SimpleQueue[Order | None] = field(default_factory=SimpleQueue)

    def serve(self) -> None:
        """Compute orders until the server is gone."""
        received = self.incoming.receive()
        if received is None:
            return
        settings = Settings.from_dict(received[0]["settings"])
        from webui.engine.runner import Control, Runner  # torch

        self.control = Control()
        self.running = ""
        Thread(target=self._listen, name="orders", daemon=True).start()
        runner = Runner.start(settings)
        self._status("ready")
        while True:
            order = self.orders.get()
            self._status("busy")
            if order is None:
                runner.warm_up()
            else:
                runner.run(order, self._tell, self.control)
            self._status("ready")

    def _listen(self) -> None:
        while (received := self.incoming.receive()) is not None:
            self._obey(received[0])
        os._exit(0)

    def _obey(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "run":
            order = Order(**message["order"])
            self.running = order.job
            self.control.interrupted.clear()
            self.control.skipped.clear()
            self.orders.put(order)
        elif kind == "warm up":
            self.orders.put(None)
        elif kind == "interrupt" and message["job"] == self.running:
            self.control.interrupted.set()
        elif kind == "skip" and message["job"] == self.running:
            self.control.skipped.set()

    def _tell(self, report: Report) -> None:
        self.outgoing.send({"type": "report", "kind": report.kind, "data": dict(report.data)}, report.blob)

    def _status(self, status: str) -> None:
        self.outgoing.send({"type": "status", "status": status})


def main() -> int:
    """Run the worker; standard output carries messages only, so prints of libraries go to standard error."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    outgoing = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        Worker(Wire(sys.stdin.buffer), Wire(outgoing)).serve()
    except WebUIError as error:
        log.error("%s", error)
        return 2
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
