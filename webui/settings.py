"""Settings, read once at start from the command line, frozen, handed down.  Nothing here changes a pixel's meaning
except through ``device``, ``precision``, ``attention`` and ``threads``, which every picture's recipe records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this computer that nobody else can reach."""
PROJECT_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Folders, address and device.  ``threads`` None lets torch use every core.

    ``extension_start_s`` is how long an extension may take to be loaded and for each registration, ``extension_call_s``
    for each later call of it (0: no limit); after ``extension_failures`` it is switched off for the session.
    ``extension_flags`` are what was said of plugins' own flags, by group and field.
    ``extensions_off`` are not loaded at all: those that ended an earlier worker process of this session.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    models_dir: Path = PROJECT_ROOT / "models"
    outputs_dir: Path = PROJECT_ROOT / "outputs"
    extensions_dir: Path = PROJECT_ROOT / "extensions"
    device: str = "auto"
    precision: str = "auto"
    attention: str = "auto"
    threads: int | None = None
    password: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    load_extensions: bool = True
    extension_start_s: float = 20.0
    extension_call_s: float = 30.0
    extension_failures: int = 3
    extensions_off: tuple[str, ...] = ()
    extension_flags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    insecure_extension_access: bool = False
    background_hashing: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for the worker process."""
        data = asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in data.items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        folders = {name: Path(data[name]) for name in ("models_dir", "outputs_dir", "extensions_dir")}
        return cls(**{**data, **folders, **{name: tuple(data[name]) for name in ("allowed_hosts", "extensions_off")}})

    @property
    def state_dir(self) -> Path:
        """Where the job store, the hash cache and input pictures live: beside the pictures."""
        return self.outputs_dir / ".webui"

    @property
    def styles_file(self) -> Path:
        """``styles.csv``, beside the models folder."""
        return self.models_dir.parent / "styles.csv"
