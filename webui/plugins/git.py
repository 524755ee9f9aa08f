"""An extension from a Git repository: one commit is fetched into a bare repository, and its blobs are written by us.

Nothing is checked out, so no hook, filter, attribute, link or submodule of the repository does anything.  ``git`` runs
without the person's configuration and credentials, never asks for any, and speaks the one protocol that the address
names (gitprotocol and GIT_ALLOW_PROTOCOL: git(1), "Environment variables").
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from webui.errors import InstallError
from webui.plugins.trees import BLOCK, MAX_BYTES, MAX_FILES, TreeWriter, is_link, shown, too_large, too_many

TIMEOUT_S = 300.0
MAX_FETCHED = 2 * MAX_BYTES
"""Bytes that a fetch may bring onto the disk."""
MAX_PRINTED = 16 * 1024**2
"""Bytes of a commit's list of files; some hundred each."""
LOOK_EVERY_S = 0.1
REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")
KEPT = (
    "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LANG", "LC_ALL",
    "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
    "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
)  # fmt: skip
"""What git is told of the environment: where programs are, and how to reach the network."""
CONFIGURATION = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "credential.helper=", "core.askPass=", "gc.auto=0",
    "maintenance.auto=false", "submodule.recurse=false", "fetch.recurseSubmodules=false", "protocol.version=2",
    "advice.detachedHead=false",
)  # fmt: skip
_TREE = ("ls-tree", "-r", "-z", "-l", "--full-tree")
_LINK, _SUBMODULE = "120000", "160000"


@dataclass(frozen=True)
class Blob:
    """A file of a commit: its name, mode and size in bytes, and the object that holds it."""

    name: str
    mode: str
    size: int
    object: str


def check_address(address: str) -> str:
    """The protocol of a repository's address.  Raises InstallError for all but ``https://`` and ``file://``."""
    protocol, colon, rest = address.partition("://")
    if not colon or protocol.lower() not in ("https", "file") or not rest or not address.isprintable():
        raise InstallError(f'"{address[:200]}" is no address to install from; use https://… or the path of a folder.')
    if protocol.lower() == "https" and "@" in rest.partition("/")[0]:
        raise InstallError("The address holds a name or password; repositories are read without logging in.")
    return protocol.lower()


def check_ref(ref: str) -> None:
    """Refuse what is no commit, tag or branch.  Raises InstallError."""
    if ref and (not REF.fullmatch(ref) or ".." in ref or "//" in ref or ref.endswith((".lock", "/", "."))):
        raise InstallError(f'"{ref[:200]}" is no commit, tag or branch.')


def fetch(address: str, ref: str, repository: Path) -> str:
    """Fetch ``ref`` (empty: the main branch) into a new bare repository; the commit, 40 or 64 hexadecimal digits."""
    protocol = check_address(address)
    check_ref(ref)
    _run(["init", "--quiet", "--bare", "--template=", "--", str(repository)], protocol, repository.parent)
    _run(
        ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", address, ref or "HEAD"],
        protocol,
        repository,
    )
    return _run(["rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}"], protocol, repository).strip()


def copy_commit(repository: Path, commit: str, writer: TreeWriter) -> None:
    """Write a commit's files.  Raises InstallError for links, submodules and whatever the writer refuses."""
    blobs = [_blob(line) for line in _run([*_TREE, commit], "file", repository).split("\0") if line]
    for blob in blobs:
        if blob.mode == _LINK:
            raise is_link(blob.name)
        if blob.mode == _SUBMODULE:
            raise InstallError(f"It holds another repository, {shown(blob.name)}; submodules are not installed.")
    if len(blobs) > MAX_FILES:
        raise too_many()
    if sum(blob.size for blob in blobs) > MAX_BYTES:
        raise too_large()
    with _objects(repository) as (asked, answers):
        for blob in blobs:
            writer.write(blob.name, _asked_for(blob, asked, answers))


def _blob(line: str) -> Blob:
    """One line of ``git ls-tree -l``: mode, type, object, size, tab, name."""
    facts, _, name = line.partition("\t")
    mode, _, object_name, size = facts.split()
    return Blob(name=name, mode=mode, size=0 if size == "-" else int(size), object=object_name)


def _asked_for(blob: Blob, asked: IO[bytes], answers: IO[bytes]) -> Iterator[bytes]:
    """The blob's blocks.  git is asked when the first is wanted: an answer nobody reads would stand before the next."""
    asked.write(f"{blob.object}\n".encode())
    asked.flush()
    yield from _content(answers, blob)


def _content(answers: IO[bytes], blob: Blob) -> Iterator[bytes]:
    """The blob's blocks from ``git cat-file --batch``: a header with the size, the content, a newline."""
    header = answers.readline().split()
    left = int(header[2]) if len(header) == 3 and header[1] == b"blob" else -1
    if left != blob.size:
        raise InstallError(f"The repository is damaged: {shown(blob.name)} is not there as it says.")
    while left:
        block = answers.read(min(left, BLOCK))
        if not block:
            raise InstallError(f"The repository is damaged: {shown(blob.name)} ends too early.")
        left -= len(block)
        yield block
    answers.read(1)


@contextlib.contextmanager
def _objects(repository: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The pipes of ``git cat-file --batch``."""
    command = _command(["cat-file", "--batch"])
    with subprocess.Popen(
        command, cwd=repository, env=_environment("file", repository), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            yield process.stdin, process.stdout
        finally:
            process.kill()


def _run(arguments: list[str], protocol: str, folder: Path) -> str:
    """What git prints.  Raises InstallError when it fails, takes too long, or brings too much onto the disk."""
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            _command(arguments), cwd=folder, env=_environment(protocol, folder), stdin=subprocess.DEVNULL,
            stdout=printed, stderr=told, start_new_session=True,
        )  # fmt: skip
        try:
            _wait(process, folder)
        finally:
            if process.poll() is None:
                _kill(process)
        if printed.seek(0, os.SEEK_END) > MAX_PRINTED:
            raise too_many()
        printed.seek(0)
        told.seek(0)
        if process.returncode != 0:
            raise InstallError(f"Git could not get it: {_reason(told.read(100_000))}.")
        return printed.read().decode("utf-8", "surrogateescape")


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY_S)
            return
        if time.monotonic() > deadline:
            raise InstallError(f"The repository did not arrive within {TIMEOUT_S:.0f} seconds.")
        if _bytes_below(folder) > MAX_FETCHED:
            raise too_large()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End git and the programs it started, which make up a session of their own."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _bytes_below(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):  # git renames its own files meanwhile
                total += Path(place, name).lstat().st_size
    return total


def _command(arguments: list[str]) -> list[str]:
    program = shutil.which("git")
    if program is None:
        raise InstallError("Git is not installed on this computer; install it, or use a zip of the repository.")
    return [program, *(word for setting in CONFIGURATION for word in ("-c", setting)), *arguments]


def _environment(protocol: str, folder: Path) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    nothing = os.devnull
    return {
        **kept,
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": nothing,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "GIT_ALLOW_PROTOCOL": protocol,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def _reason(told: bytes) -> str:
    """Git's own reason, one line of it."""
    lines = [line.strip() for line in told.decode("utf-8", "replace").splitlines() if line.strip()]
    worst = (
        [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ERROR"))] or lines or ["no reason"]
    )
    text = "".join(letter for letter in worst[0] if letter.isprintable())
    return text.partition(": ")[2][:300].rstrip(".") or text[:300]
