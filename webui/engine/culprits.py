"""Which extension a worker process was lost to, and which ones its successors therefore leave out.

A worker writes down whose code it calls (``plugins.call_record``); whoever started it looks there when it hangs or has
ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from subprocess import Popen
from typing import Any

from webui.plugins.call_record import CallRecord, RecordedCall
from webui.plugins.conduct import State
from webui.settings import Settings

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often a worker's call is looked at."""


@dataclass
class Culprits:
    """The extensions that are off for the rest of the session, each with the sentence that says why."""

    off: dict[str, str] = field(default_factory=dict)

    def without(self, settings: Settings) -> Settings:
        """The settings of a worker that starts now."""
        return replace(settings, extensions_off=(*settings.extensions_off, *self.off))

    def hear(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Remember what a worker switched off itself, so that the next one does not begin from nothing."""
        for report in reports:
            if report["state"] == State.SWITCHED_OFF:
                self.off.setdefault(report["name"], report["why"])

    def lost(self, call: RecordedCall | None, how: str, does: str) -> str:
        """The sentence about a process that ended within an extension's call; empty when it was in none."""
        if call is None or call.extension in self.off:
            return ""
        place = f" ({call.place})" if call.place else ""
        sentence = (
            f"The extension {call.extension} is switched off until the next start: "
            f"the process that {does} {how} within its {call.hook}{place}."
        )
        self.off[call.extension] = sentence
        return sentence


def watch(process: Popen[bytes], record: CallRecord) -> None:
    """End a process whose call of an extension does not come back.

    The worker tells such a call to end by itself; this is for one that waits inside of C, and so hears nothing.
    """
    while process.poll() is None:
        call = record.read()
        if call is not None and call.is_overdue:
            log.error("The extension %s does not come back from %s; its process is ended.", call.extension, call.hook)
            process.kill()
            return
        time.sleep(LOOK_S)
