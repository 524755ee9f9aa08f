"""What an extension's call in a worker process is, where the server can read it when the worker is gone or hangs.

A file that both processes map: the worker writes a few bytes into memory at each call, which outlive it however it ends
(``os._exit``, a crash inside of C, a kill), and the server looks when it has to.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkstemp
from typing import Self

SIZE = 1024
_HEAD = struct.Struct("<ddI")
"""When the call began on the clock ``time.perf_counter`` (0: no call), its limit in seconds, the length of its name."""
_BEGAN = struct.Struct("<d")


@dataclass(frozen=True)
class RecordedCall:
    """A call that was under way: whose, which, where it is written (as far as known), since when in seconds."""

    extension: str
    hook: str
    place: str
    running_s: float
    limit_s: float

    @property
    def is_overdue(self) -> bool:
        """Whether it should have been over, even after it was told to end."""
        return self.running_s > self.limit_s


@dataclass
class CallRecord:
    """One end of the record.  Only one thread of the worker calls extensions, and so writes."""

    path: Path
    _memory: mmap.mmap
    _outer: list[bytes] = field(default_factory=list)

    @classmethod
    def create(cls) -> Self:
        """A new record, the server's end."""
        handle, name = mkstemp(prefix="webui-call-")
        with os.fdopen(handle, "r+b") as file:
            file.write(bytes(SIZE))
            file.flush()
            return cls(Path(name), mmap.mmap(file.fileno(), SIZE))

    @classmethod
    def open(cls, path: Path) -> Self:
        """The worker's end of a record.  Raises OSError."""
        with path.open("r+b") as file:
            return cls(path, mmap.mmap(file.fileno(), SIZE))

    @staticmethod
    def mark(extension: str, hook: str, place: str, limit_s: float) -> bytes:
        """What is written at each call of an implementation, but for the time."""
        text = json.dumps([extension, hook, place]).encode()
        text = text if len(text) <= SIZE - _HEAD.size else json.dumps([extension[:80], hook[:80], ""]).encode()
        return _HEAD.pack(0.0, limit_s, len(text)) + text

    def begin(self, mark: bytes, started: float) -> int:
        """Write down that a call begins; how many calls are around it."""
        depth = len(self._outer)
        self._outer.append(self._memory[:SIZE] if self._memory[:8] != bytes(8) else b"")
        self._memory[: len(mark)] = mark
        _BEGAN.pack_into(self._memory, 0, started)
        return depth

    def end(self, depth: int) -> None:
        """Write down that the call with so many around it is over, and every one inside of it."""
        _BEGAN.pack_into(self._memory, 0, 0.0)
        around = self._outer[depth]
        del self._outer[depth:]
        if around:
            self._memory[:SIZE] = around

    def read(self) -> RecordedCall | None:
        """The call under way, None when there is none."""
        began, limit_s, length = _HEAD.unpack_from(self._memory)
        if began == 0.0:
            return None
        try:
            extension, hook, place = json.loads(self._memory[_HEAD.size : _HEAD.size + length])
        except ValueError:
            return None  # it was written just now
        return RecordedCall(extension, hook, place, time.perf_counter() - began, limit_s)

    def drop(self) -> None:
        """Delete the file; what is mapped already stays readable where the system allows it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
