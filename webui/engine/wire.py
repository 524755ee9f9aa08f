"""Messages between the server and its worker process: JSON and an optional block of bytes, over a pipe.

No pickle: whatever a message says, reading it cannot run code.
"""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from threading import Lock
from typing import Any, BinaryIO

_LENGTHS = struct.Struct(">II")


class Wire:
    """One direction of a pipe.  ``send`` may be called from several threads."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = Lock()

    def send(self, message: dict[str, Any], blob: bytes = b"") -> None:
        """Write a message.  Raises OSError (a broken pipe) when the other side is gone."""
        text = json.dumps(message, separators=(",", ":")).encode()
        with self._lock:
            if self._stream.closed:
                raise BrokenPipeError("the pipe is closed")
            self._stream.write(_LENGTHS.pack(len(text), len(blob)) + text + blob)
            self._stream.flush()

    def close(self) -> None:
        """Close the pipe; what could not be sent any more is lost."""
        with self._lock, suppress(OSError):
            self._stream.close()

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message, or None when the other side is gone."""
        lengths = self._read(_LENGTHS.size)
        if lengths is None:
            return None
        text_length, blob_length = _LENGTHS.unpack(lengths)
        text, blob = self._read(text_length), self._read(blob_length)
        if text is None or blob is None:
            return None
        return json.loads(text), blob

    def _read(self, length: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < length:
            part = self._stream.read(length - len(parts))
            if not part:
                return None
            parts += part
        return bytes(parts)
