"""The packages an extension needs: found out before anything is written, installed as wheels into a folder of its own.

What the program itself runs on stays as it is: every package of the environment is a constraint for the resolver
(pip's ``install --dry-run --report``), and an extension that needs another version of one is refused.  The folder is
put at the end of ``sys.path``, so that nothing in it can take the place of a package of the program.  Wheels alone are
installed: no setup script of anybody runs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from webui.errors import InstallError

TIMEOUT_S = 900.0
QUIETLY = ("--progress-bar", "off", "--no-input", "--disable-pip-version-check", "--no-color", "--only-binary", ":all:")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that would be installed for an extension; ``sha256`` of its wheel."""

    name: str
    version: str
    sha256: str


def packages_in(folders: Iterable[str | Path]) -> dict[str, str]:
    """The versions of the packages installed in these folders, by canonical name; the first folder wins."""
    found: dict[str, str] = {}
    for one in importlib.metadata.distributions(path=[str(folder) for folder in folders]):
        name = one.metadata["Name"]
        if name and one.version:
            found.setdefault(canonicalize_name(name), one.version)
    return found


def resolve(needed: Sequence[str], present: Mapping[str, str], others: Mapping[str, str], work: Path) -> list[Package]:
    """The packages to install so that ``needed`` is met; empty when all is there.

    ``present`` are the versions of the program's own packages, ``others`` of those that other extensions brought;
    neither may change.  ``work`` is a folder for the resolver's files.  Raises InstallError, naming the packages that
    conflict.
    """
    wanted = [one for one in map(Requirement, needed) if one.marker is None or one.marker.evaluate()]
    conflicts = [_conflict(one, present, "this program runs on") for one in wanted]
    conflicts += [_conflict(one, others, "another extension brought") for one in wanted if one.name not in present]
    told = [sentence for sentence in conflicts if sentence]
    if told:
        raise InstallError(f"Its packages conflict with those here: {'; '.join(told)}.")
    if all(canonicalize_name(one.name) in present and not one.extras for one in wanted):
        return []
    work.mkdir(parents=True, exist_ok=True)
    constraints, report = work / "constraints.txt", work / "report.json"
    lines = [f"{name}=={version}" for name, version in {**others, **present}.items()]
    constraints.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, said = _pip(
        ["--dry-run", "--report", str(report), "--constraint", str(constraints), "--", *map(str, wanted)], work
    )
    if code != 0:
        raise _unresolved(said, present)
    return _packages(json.loads(report.read_text("utf-8")))


def install(packages: Sequence[Package], target: Path, work: Path) -> None:
    """Put the wheels of exactly these packages into the new folder ``target``.  Raises InstallError."""
    work.mkdir(parents=True, exist_ok=True)
    requirements = work / "requirements.txt"
    lines = [f"{one.name}=={one.version} --hash=sha256:{one.sha256}" for one in packages]
    requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, said = _pip(
        ["--no-deps", "--require-hashes", "--no-compile", "--target", str(target), "--requirement", str(requirements)],
        work,
    )
    if code != 0:
        raise InstallError(f"The packages it needs could not be installed: {_reason(said)}.")
    there = packages_in([target])
    if there != {canonicalize_name(one.name): one.version for one in packages}:
        raise InstallError("The packages that were installed for it are not those that were shown; nothing was kept.")


def _conflict(needed: Requirement, there: Mapping[str, str], whose: str) -> str:
    """A clause about a package that is there in another version than is needed, else nothing."""
    version = there.get(canonicalize_name(needed.name))
    if version is None or needed.specifier.contains(Version(version), prereleases=True):
        return ""
    return f"it needs {needed.name}{needed.specifier}, and {whose} {needed.name} {version}"


def _unresolved(said: str, present: Mapping[str, str]) -> InstallError:
    """What the resolver found impossible; packages of the program that stand in the way are named."""
    named = {canonicalize_name(name) for name in re.findall(r"\(constraint\) ([A-Za-z0-9._-]+?)==", said)}
    ours = sorted(f"{name} {present[name]}" for name in named & set(present))
    if ours:
        needs = re.findall(r"^\s+(\S+ \S+ depends on .+)$", said, flags=re.MULTILINE)
        why = f" ({needs[0].strip()})" if needs else ""
        return InstallError(f"Its packages conflict with those this program runs on: {', '.join(ours)}{why}.")
    return InstallError(f"The packages it needs cannot be had together, as wheels: {_reason(said)}.")


def _packages(report: Mapping[str, Any]) -> list[Package]:
    """pip's installation report (its "Installation report" specification, version 1)."""
    packages = []
    for entry in report["install"]:
        name, version = entry["metadata"]["name"], entry["metadata"]["version"]
        sha256 = entry["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha256:
            raise InstallError(f"The index does not say the SHA-256 of {name} {version}; it is not installed.")
        packages.append(Package(name=canonicalize_name(name), version=version, sha256=sha256))
    return sorted(packages, key=lambda one: one.name)


def _pip(arguments: Sequence[str], work: Path) -> tuple[int, str]:
    """pip's exit code and what it said.  The person's index and proxy settings hold; its cache is shared."""
    command = [sys.executable, "-P", "-m", "pip", "install", *QUIETLY, *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_TARGET")}
    try:
        done = subprocess.run(
            command, cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"The package index did not answer within {TIMEOUT_S:.0f} seconds.") from error
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def _reason(said: str) -> str:
    """pip's own reason, one line of it, without addresses (they may hold a password)."""
    errors = [line.partition("ERROR:")[2].strip() for line in said.splitlines() if "ERROR:" in line]
    lines = errors or [line.strip() for line in said.splitlines() if line.strip()] or ["pip gave no reason"]
    text = re.sub(r"\S+://\S+", "(an address)", lines[-1])
    return "".join(letter for letter in text if letter.isprintable())[:300].rstrip(".")
