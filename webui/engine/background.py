"""What is read of the models folder while nothing else is to be done: headers for the cards, then hashes.

One thread of low priority.  It begins when nothing ran for a while, rests while a job is under way, takes at most half
of the disk's time, and keeps each result at once, so that it can end at any moment.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from webui.checkpoints.hashes import both_sha256
from webui.checkpoints.library import ModelEntry
from webui.checkpoints.safetensors import MAX_HEADER
from webui.engine.cards import Cards

log = logging.getLogger(__name__)

IDLE_S = 10.0
"""The thread begins after so long."""
LOOK_AGAIN_S = 60.0
BATCH = 64
"""So many headers are read at a time."""
TAKE_HASHES_S = 10.0
"""How often the library hears of new hashes."""
_LOWEST = 19


class _Stopped(Exception):
    """The program ends."""


class BackgroundReader:
    """Reads headers and, with ``hashing``, hashes files, while ``busy`` says that no job runs."""

    def __init__(self, cards: Cards, busy: Callable[[], bool], *, hashing: bool) -> None:
        self._cards = cards
        self._library = cards.library
        self._busy = busy
        self._hashing = hashing
        self._closed = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused: set[tuple[Path, int]] = set()

    def start(self) -> None:
        """Begin, after a while."""
        self._thread = threading.Thread(target=self._work, name="background", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End after the piece under way."""
        self._closed.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def wake(self) -> None:
        """Begin at once: somebody looks at cards."""
        self._wake.set()

    def _work(self) -> None:
        _lower_priority()
        wait_s = IDLE_S
        while not self._closed.is_set():
            self._wake.wait(timeout=wait_s)
            wait_s = LOOK_AGAIN_S
            try:
                self._rest()
                self.read_headers()
                if self._hashing:
                    self.hash_files()
            except _Stopped:
                return
            except Exception:
                log.exception("reading the models folder")

    def read_headers(self) -> None:
        """Read the headers of the files that the page has cards of, those not read yet."""
        cards = self._cards.unread(self._cards.shown)
        for start in range(0, len(cards), BATCH):
            self._rest()
            self._cards.read(cards[start : start + BATCH])

    def hash_files(self) -> None:
        """Hash the files that were not hashed yet, the smallest first."""
        entries = {
            entry.path: entry
            for kind in self._library.folders
            for entry in self._library.entries(kind)
            if not entry.sha256
        }
        told = time.monotonic()
        for entry in sorted(entries.values(), key=lambda entry: entry.size):
            self._hash(entry)
            if time.monotonic() - told > TAKE_HASHES_S:
                self._library.take_hashes()
                told = time.monotonic()
        if entries:
            self._library.take_hashes()

    def _hash(self, entry: ModelEntry) -> None:
        if (entry.path, entry.mtime_ns) in self._refused:
            return
        pace = _Pace(self._rest, self._closed)
        try:
            whole, data = both_sha256(entry.path, _data_start(entry.path), pace)
            stat = entry.path.stat()
        except OSError:
            self._refused.add((entry.path, entry.mtime_ns))
            return
        if (stat.st_size, stat.st_mtime_ns) != (entry.size, entry.mtime_ns):
            return  # changed while it was read
        self._library.hashes.remember(entry.path.resolve(), entry.size, entry.mtime_ns, whole)
        if entry.kind == "lora" and entry.path.suffix.lower() == ".safetensors":
            facts = self._library.facts.of([entry])[str(entry.path)]
            if not facts.network_hash and not facts.problem:
                self._library.facts.remember([(entry, replace(facts, network_hash=data))])

    def _rest(self) -> None:
        """Wait while a job runs; read meanwhile what somebody looks at."""
        self._serve()
        while self._busy():
            self._wake.wait(0.5)
            self._serve()

    def _serve(self) -> None:
        """Read the headers of the kinds of files that were looked at, when somebody waits for them."""
        asked = self._wake.is_set() and not self._closed.is_set()
        self._wake.clear()
        cards = self._cards.unread() if asked else []
        for start in range(0, len(cards), BATCH):
            if self._closed.is_set():
                break
            self._cards.read(cards[start : start + BATCH])
        if self._closed.is_set():
            raise _Stopped


class _Pace:
    """Called between two pieces of a file: rests as long as the piece took."""

    def __init__(self, rest: Callable[[], None], closed: threading.Event) -> None:
        self._rest = rest
        self._closed = closed
        self._last = time.monotonic()

    def __call__(self) -> None:
        self._closed.wait(min(time.monotonic() - self._last, 1.0))
        self._rest()
        self._last = time.monotonic()


def _data_start(path: Path) -> int:
    """Where the tensors of a safetensors file begin; 0 for a file of another form."""
    if path.suffix.lower() != ".safetensors":
        return 0
    with path.open("rb") as file:
        prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    return 8 + int(length) if length <= MAX_HEADER else 0


def _lower_priority() -> None:
    """Let this thread give way to others, where the system has priorities of threads (Linux)."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
    except (OSError, AttributeError):
        return
