"""Extensions to install, made in a test's folder: Git repositories, zips, folders, wheels."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from webui.hooks import API_VERSION

CODE = "loaded = True\n"


def manifest(name: str = "sky", version: str = "1.0", more: str = "") -> str:
    return f'name = "{name}"\nversion = "{version}"\napi = "=={API_VERSION}"\n{more}'


def files(name: str = "sky", version: str = "1.0", more: str = "", **others: str) -> dict[str, str]:
    """A small extension; keyword arguments are files, with ``__`` for a dot in their names."""
    named = {key.replace("__", "."): text for key, text in others.items()}
    return {"extension.toml": manifest(name, version, more), "__init__.py": CODE, "part/table.csv": "1,2\n", **named}


def write(folder: Path, contents: Mapping[str, str]) -> Path:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git as a person does, without the configuration of this machine."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def repository(folder: Path, contents: Mapping[str, str]) -> Path:
    """A repository with one commit on the branch main."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, contents)
    return folder


def commit(folder: Path, contents: Mapping[str, str]) -> str:
    write(folder, contents)
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "a change")
    return git(folder, "rev-parse", "HEAD")


def zipped(path: Path, contents: Mapping[str, str], top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in contents.items():
            archive.writestr(f"{top}{name}", text)
    return path


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), content: str = "") -> Path:
    """A wheel of one module ``name`` (PEP 427)."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    texts = {
        f"{name}.py": content or f"version = {version!r}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for file, text in texts.items():
        digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{file},sha256={digest},{len(text)}\n")
    texts[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    return zipped(folder / f"{name}-{version}-py3-none-any.whl", texts)
