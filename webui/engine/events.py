"""One stream of events for the page and the API: numbered within a job, so that a listener can resume.

Events are told from the engine's threads and heard in the server's event loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from webui.engine.jobs import Event

KEPT_JOBS = 200
"""Histories of so many jobs stay in memory; older jobs are told from the store."""
PASSING = {"step": 1, "preview": 1, "loss": 20, "sample": 20, "saved": 1}
"""Kinds of which only so many of the newest matter to a listener that comes late."""


@dataclass
class _History:
    events: list[Event] = field(default_factory=list)
    count: int = 0
    listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=set)


class Events:
    """The histories of recent jobs and those who listen to them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._histories: OrderedDict[str, _History] = OrderedDict()

    def begin(self, job: str, number: int) -> None:
        """Count the job's events on from ``number`` (a job from before a restart, whose events were numbered there)."""
        with self._lock:
            history = self._histories.setdefault(job, _History())
            history.count = max(history.count, number)

    def tell(self, job: str, kind: str, data: Mapping[str, Any]) -> None:
        """Add an event and wake the job's listeners.  Any thread."""
        with self._lock:
            history = self._histories.setdefault(job, _History())
            history.count += 1
            if kind in PASSING:
                _drop_oldest(history, kind, PASSING[kind] - 1)
            history.events.append(Event(job, history.count, kind, dict(data)))
            listeners = list(history.listeners)
            self._forget_old()
        for loop, wake in listeners:
            with suppress(RuntimeError):  # the listener's event loop is closed
                loop.call_soon_threadsafe(wake.set)

    def reopen(self, job: str, number: int) -> None:
        """Take up a job that was over: its end is none any more, and events count on from ``number`` at least."""
        with self._lock:
            history = self._histories.setdefault(job, _History())
            history.events = [event for event in history.events if not event.is_last]
            history.count = max(history.count, number)

    def since(self, job: str, after: int = 0) -> list[Event]:
        """The kept events of a job with a number above ``after``."""
        with self._lock:
            history = self._histories.get(job)
            return [event for event in history.events if event.number > after] if history else []

    def knows(self, job: str) -> bool:
        """Whether the job's history is still kept."""
        with self._lock:
            return job in self._histories

    async def follow(self, job: str, after: int = 0) -> AsyncIterator[Event]:
        """The job's events after a number, then each new one as it happens, ending with the job's last.

        Nothing comes after the last: a listener that has seen it hears the end at once.
        """
        wake = asyncio.Event()
        listener = (asyncio.get_running_loop(), wake)
        with self._lock:
            self._histories.setdefault(job, _History()).listeners.add(listener)
        try:
            while True:
                wake.clear()
                for event in self.since(job, after):
                    after = event.number
                    yield event
                    if event.is_last:
                        return
                if self._is_over(job):
                    return
                await wake.wait()
        finally:
            with self._lock:
                if job in self._histories:
                    self._histories[job].listeners.discard(listener)

    def _is_over(self, job: str) -> bool:
        with self._lock:
            history = self._histories.get(job)
            return bool(history and history.events and history.events[-1].is_last)

    def _forget_old(self) -> None:
        for job in list(self._histories):
            if len(self._histories) <= KEPT_JOBS:
                return
            history = self._histories[job]
            if not history.listeners and history.events and history.events[-1].is_last:
                del self._histories[job]


def _drop_oldest(history: _History, kind: str, kept: int) -> None:
    """Forget all events of a kind but the newest ``kept``."""
    numbers = [event.number for event in history.events if event.kind == kind]
    gone = set(numbers[: max(len(numbers) - kept, 0)])
    if gone:
        history.events = [event for event in history.events if event.number not in gone]
