"""The drawings of Microsoft Fluent Emoji, out of two npm packages of pinned versions.

A package is looked for in the cache folder, under the name that ``npm pack`` gives it, and downloaded when it is not
there.  Its SHA-512 digest must be the pinned one before a byte of it is interpreted.  Nothing is unpacked to disk: the
few members needed are read into memory, by name; all others, links and unsafe names among them, are passed over.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from webui.errors import WebUIError
from webui.training.starter_data.vocabulary import DRAWINGS, Drawing

MAX_PACKAGE_BYTES = 64 << 20
MAX_MEMBER_BYTES = 32 << 20
DEFAULT_REGISTRY = "https://registry.npmjs.org"


class ArtworkError(WebUIError):
    """The drawings of the embedded model's data set cannot be had, or are not the pinned ones."""


@dataclass(frozen=True)
class Package:
    """One npm package: name, version, SHA-512 in the notation of npm's ``dist.integrity``, licence."""

    name: str
    version: str
    integrity: str
    licence: str

    @property
    def file_name(self) -> str:
        """The name that ``npm pack`` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    def url(self, registry: str) -> str:
        """Where a registry of npm's layout keeps the archive."""
        return f"{registry.rstrip('/')}/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


SOLID = Package(
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    "MIT",
)
"""The 3D finish: WebP of 256 px with alpha, named by code point."""

FLAT = Package(
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    "MIT",
)
"""The flat finish: SVG bodies in one JSON file, named by icon."""


def configured_registry(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> str:
    """The npm registry in use: ``npm_config_registry``, else ``registry=`` of ~/.npmrc, else the public one."""
    for key, value in environment.items():
        if key.lower() == "npm_config_registry" and value:
            return value
    settings = (home or Path.home()) / ".npmrc"
    if settings.is_file():
        for line in settings.read_text("utf-8", errors="replace").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "registry" and value.strip():
                return value.strip()
    return DEFAULT_REGISTRY


def default_cache() -> Path:
    """The folder for downloads: below ``XDG_CACHE_HOME``, ``LOCALAPPDATA`` or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(root) if root else Path.home() / ".cache") / "webui" / "starter-data"


def obtain(package: Package, cache: Path, registry: str) -> bytes:
    """The archive's bytes, from the cache or else the registry; ArtworkError if unreachable or not the pinned ones."""
    kept = cache / package.file_name
    if kept.is_file():
        data = kept.read_bytes()
        verify(package, data, str(kept))
        return data
    url = package.url(registry)
    data = _download(package, url, kept)
    verify(package, data, url)
    cache.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(data)
    partial.replace(kept)
    return data


def _download(package: Package, url: str, kept: Path) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ArtworkError(f"The npm registry must be an http or https address, not {url!r}.")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read(MAX_PACKAGE_BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        raise ArtworkError(
            f"The drawings {package.name} {package.version} could not be downloaded from {url} ({error}); put the "
            f'archive, as "npm pack {package.name}@{package.version}" fetches it, at {kept}.'
        ) from error
    return data


def verify(package: Package, data: bytes, origin: str) -> None:
    """Raise ArtworkError unless the bytes have the package's pinned digest."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode("ascii")
    if found != package.integrity:
        raise ArtworkError(
            f"{origin} is not {package.name} {package.version}: its digest is {found}, expected {package.integrity}; "
            "delete it and start again, so that it is downloaded anew."
        )


def read_members(archive: bytes, wanted: Collection[str]) -> dict[str, bytes]:
    """The wanted members of a .tgz by name; only regular files of at most 32 MiB, nothing is written to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                if member.name in wanted and member.isreg() and member.size <= MAX_MEMBER_BYTES:
                    opened = tar.extractfile(member)
                    if opened is not None:
                        found[member.name] = opened.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArtworkError(f"The archive of drawings is damaged ({error}); delete it and start again.") from error
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise ArtworkError(f"The archive of drawings lacks {missing[0]} ({len(missing)} of {len(wanted)} are missing).")
    return found


def drawings(
    solid: bytes, flat: bytes, *, wanted: Mapping[str, Drawing] = MappingProxyType(DRAWINGS)
) -> dict[str, tuple[bytes, str]]:
    """Object -> (WebP of the 3D finish, SVG text of the flat finish), out of the two archives."""
    pictures = read_members(solid, {f"package/assets/{drawing.code}.webp" for drawing in wanted.values()})
    icons = json.loads(read_members(flat, {"package/icons.json"})["package/icons.json"])["icons"]
    found = {}
    for name, drawing in wanted.items():
        if drawing.icon not in icons:
            raise ArtworkError(f'The flat drawings lack the icon "{drawing.icon}".')
        icon = icons[drawing.icon]
        width, height = icon.get("width", 32), icon.get("height", 32)
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )
        found[name] = (pictures[f"package/assets/{drawing.code}.webp"], svg)
    return found
