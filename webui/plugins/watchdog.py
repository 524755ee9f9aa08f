"""Ends calls of extensions that take longer than they may, from one thread that looks at the clock.

A call arms it by writing what runs and until when; nothing is started and nothing is locked for it.  On the main thread
a signal makes the call raise :class:`HookTimeout`, also where it sleeps or waits; on other threads the interpreter
raises it between two instructions, so that a call that waits inside of C goes on until it comes back.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import threading
import time
from dataclasses import dataclass, field
from math import inf
from types import CodeType, FrameType
from typing import Any

log = logging.getLogger(__name__)

TICK_S = 0.1
IDLE_TICKS = 50
"""The thread ends when nothing ran for so many looks, and is started again by the next call."""
SIGNAL = getattr(signal, "SIGURG", None)
"""Ignored wherever nobody handles it, and otherwise used for out-of-band data of sockets alone."""


class HookTimeout(BaseException):
    """Raised inside a call that takes too long; no ``except Exception`` of an extension keeps it."""


class Running:
    """One call under way.  ``code`` is that of the function that makes the call: whoever looks for it in a stack."""

    __slots__ = ("deadline", "fired", "firing", "is_over", "outer", "raised", "thread", "what")

    def __init__(self, what: str, thread: int, deadline: float, outer: Running | None) -> None:
        self.what = what
        self.thread = thread
        self.deadline = deadline
        self.outer = outer
        self.fired = 0
        self.firing = self.is_over = False
        self.raised = 0


@dataclass
class Watchdog:
    """Looks after the calls of one process.  ``grace_s`` after a call was told to end it is told again."""

    caller: CodeType
    grace_s: float = 5.0
    running: dict[int, Running | None] = field(default_factory=dict)
    is_awake: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _handles: bool = False

    def wake(self) -> None:
        """Start the thread if it does not run; on the main thread, see to the signal as well."""
        if not self._handles and SIGNAL is not None and threading.current_thread() is threading.main_thread():
            signal.signal(SIGNAL, _Handler(self.caller))
            self._handles = True
        with self._lock:
            if not self.is_awake:
                self.is_awake = True
                threading.Thread(target=self._watch, name="extension watchdog", daemon=True).start()

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(TICK_S)
            now = time.perf_counter()
            calls = [running for running in list(self.running.values()) if running is not None]
            for running in calls:
                self._look(running, now)
            idle = 0 if calls else idle + 1
            if idle > IDLE_TICKS and self._sleeps():
                return

    def _sleeps(self) -> bool:
        """Whether the thread may end: a call that begins meanwhile sees that it is not awake, or is seen here."""
        with self._lock:
            self.is_awake = False
            if any(self.running.values()):
                self.is_awake = True
            return not self.is_awake

    def _look(self, running: Running | None, now: float) -> None:
        """Tell the outermost call that is overdue to end."""
        overdue = None
        while running is not None:
            if running.deadline < now and not running.is_over:
                overdue = running
            running = running.outer
        if overdue is not None:
            self._tell(overdue, now)

    def _tell(self, running: Running, now: float) -> None:
        running.firing = True
        if not running.is_over:
            running.deadline = now + self.grace_s
            running.fired += 1
            if running.fired > 1:
                log.error("%s takes too long and does not end when it is told to.", running.what)
            if SIGNAL is not None and self._handles and running.thread == threading.main_thread().ident:
                signal.pthread_kill(running.thread, SIGNAL)
            else:
                _raise_in(running.thread, HookTimeout)
        running.firing = False


def settle(running: Running) -> None:
    """Make sure that nothing is raised any more for a call that is over.

    The watchdog may have looked at it just before it was over, and tell it only now: what is raised here is that, or is
    meant for a call around this one, which is told again.
    """
    while running.firing or running.fired:
        try:
            while running.firing:
                time.sleep(0.001)
            _raise_in(running.thread, None)
            return
        except HookTimeout:
            continue


@dataclass(frozen=True)
class _Handler:
    """Raises in the main thread when the call that was told to end is still in its stack."""

    caller: CodeType

    def __call__(self, number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is self.caller:
                running: Any = frame.f_locals.get("running")
                if running is not None and not running.is_over and running.raised < running.fired:
                    running.raised = running.fired
                    raise HookTimeout(running.what)
            frame = frame.f_back


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(kind) if kind is not None else ctypes.c_void_p()
    )


NEVER = inf
"""The deadline of a call that may take as long as it likes."""
