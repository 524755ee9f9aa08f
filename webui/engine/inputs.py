"""Start images, masks and pictures to reproduce, kept by the SHA-256 of their bytes, exactly as they came."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from webui.engine.outputs import output_error, write_atomically
from webui.errors import NotFoundError
from webui.settings import Settings

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class InputStore:
    """Files in ``folder``, named by their digest."""

    folder: Path

    def put(self, data: bytes) -> str:
        """Keep the bytes; returns their SHA-256.  Putting the same bytes twice keeps one file."""
        digest = hashlib.sha256(data).hexdigest()
        target = self.folder / digest
        if target.exists():
            return digest
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(target, data)
        except OSError as error:
            raise output_error(self.folder, error) from error
        return digest

    def path(self, digest: str) -> Path:
        """Where the bytes with this digest are.  Raises NotFoundError."""
        target = self.folder / digest
        if not _DIGEST.fullmatch(digest) or not target.is_file():
            raise NotFoundError(f"The input picture {digest[:12]}… is not stored here; upload it again.")
        return target

    def get(self, digest: str) -> bytes:
        """The bytes with this digest.  Raises NotFoundError."""
        return self.path(digest).read_bytes()

    def drop(self, digest: str) -> None:
        """Forget the bytes with this digest, if they are here."""
        with suppress(OSError):  # the next start tries again
            (self.folder / digest).unlink(missing_ok=True)

    def digests(self) -> list[str]:
        """What is kept here."""
        if not self.folder.is_dir():
            return []
        return [path.name for path in self.folder.iterdir() if _DIGEST.fullmatch(path.name)]


def reproduction_store(settings: Settings) -> InputStore:
    """Where files that were sent to be reproduced wait, apart from other pictures: they go when their job is over."""
    return InputStore(settings.state_dir / "reproductions")
