"""What an extension says of itself: ``extension.toml`` in its folder, read before anything of it is imported.

Read by ``discovery`` at each start and by ``install`` before a stranger's folder is moved in.  An extension without the
file is one that says nothing: it has a name, and asks for nothing in particular.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from webui.errors import ExtensionError, RequestError
from webui.hooks import API_VERSION
from webui.records import build, check_flag, check_text, plain, shown

FILE = "extension.toml"
MAX_FILE = 64 * 1024
"""Bytes; a manifest is some lines."""
MAX_TEXT = 500
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""It becomes a folder, a module's name, a part of an address: letters, digits, ``_`` and ``-``."""


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """What an extension tells people it will do; it is said before it is installed, and nothing holds it to that.

    ``files`` are the folders that it reads or writes outside its own, as it names them.
    """

    network: bool = False
    files: tuple[str, ...] = ()
    subprocess: bool = False

    def __post_init__(self) -> None:
        check_flag("permissions.network", self.network)
        check_flag("permissions.subprocess", self.subprocess)
        _check_texts("permissions.files", self.files)

    def sentences(self) -> list[str]:
        """What is asked for, each as people read it; empty when nothing is."""
        asked = ["use the network"] if self.network else []
        asked += [f"read and write files in {folder}" for folder in self.files]
        return asked + (["start other programs"] if self.subprocess else [])


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The facts of one extension.

    ``api`` is the range of hook contract versions it was written for (``>=1,<2``; empty: any), ``dependencies`` are
    PEP 508 requirements, ``before`` and ``after`` name extensions that it wants to be loaded before and after.
    Raises RequestError when a field holds what it cannot.
    """

    name: str
    version: str = ""
    description: str = ""
    authors: tuple[str, ...] = ()
    licence: str = ""
    api: str = ""
    dependencies: tuple[str, ...] = ()
    permissions: Permissions = field(default_factory=Permissions)
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for one in ("name", "version", "description", "licence", "api"):
            _check_line(one, getattr(self, one))
        for one in ("authors", "dependencies", "before", "after"):
            _check_texts(one, getattr(self, one))
        try:
            SpecifierSet(self.api)
        except InvalidSpecifier as error:
            raise RequestError(f"api is {shown(self.api)}; it must be a range of versions such as >=1,<2.") from error
        for line in self.dependencies:
            _check_requirement(line)

    def accepts_api(self) -> bool:
        """Whether it was written for the hook contract of this program."""
        return SpecifierSet(self.api).contains(Version(str(API_VERSION)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = plain(self)
        return values


def read_manifest(path: Path) -> Manifest:
    """The manifest of the extension in a folder or file; one without ``extension.toml`` has its name alone.

    Raises ExtensionError, a sentence without the extension's name, when the file is broken or asks for another version
    of the hook contract.
    """
    file = path / FILE
    if path.suffix == ".py" or not file.is_file():
        return nameless_manifest(path)
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise ExtensionError(f"{FILE} cannot be read: {error.strerror}.") from error
    return parse_manifest(text)


def nameless_manifest(path: Path) -> Manifest:
    """The manifest of an extension that says nothing: the name of its folder or file."""
    name = "".join(letter if letter.isprintable() else "?" for letter in path.stem)
    return Manifest(name=name[:MAX_TEXT])


def parse_manifest(text: bytes) -> Manifest:
    """The manifest that the bytes of an ``extension.toml`` say.  Raises ExtensionError as :func:`read_manifest`."""
    if len(text) > MAX_FILE:
        raise ExtensionError(f"{FILE} is larger than {MAX_FILE // 1024} kB.")
    try:
        values = tomllib.loads(text.decode())
        manifest = _manifest(values)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ExtensionError(f"{FILE} is no TOML: {error or 'nested too deeply'}.") from error
    except RequestError as error:
        raise ExtensionError(f"{FILE}: {error}") from error
    if not manifest.accepts_api():
        raise ExtensionError(
            f"it was written for version {manifest.api} of the hooks, and this program has version {API_VERSION}; "
            "get the extension's version for it."
        )
    return manifest


def _manifest(values: Mapping[str, Any]) -> Manifest:
    if "license" in values and "licence" not in values:
        values = {("licence" if name == "license" else name): value for name, value in values.items()}
    missing = [name for name in ("name", "version", "api") if not values.get(name)]
    if missing:
        raise RequestError(f"it lacks {', '.join(missing)}.")
    manifest: Manifest = build(Manifest, values, "the file")
    if not NAME.fullmatch(manifest.name):
        raise RequestError(
            f"name is {shown(manifest.name)}; it must begin with a letter and have up to 64 letters, digits, _ and -."
        )
    return manifest


def _check_line(field: str, value: str) -> None:
    check_text(field, value)
    if len(value) > MAX_TEXT or not value.isprintable():
        raise RequestError(f"{field} must be one line of up to {MAX_TEXT} characters.")


def _check_texts(field: str, values: tuple[str, ...]) -> None:
    for value in values:
        _check_line(field, value)


def _check_requirement(line: str) -> None:
    try:
        requirement = Requirement(line)
    except InvalidRequirement as error:
        raise RequestError(f"dependencies holds {shown(line)}; it must be a requirement such as numpy>=2.") from error
    if requirement.url:
        raise RequestError(
            f"dependencies names {requirement.name} by an address; only packages of the index are taken."
        )
