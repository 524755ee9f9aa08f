"""What strangers may try with a repository, a zip or a folder: refused with one sentence, and nothing is written."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from extension_sources import commit, files, git, repository, write, zipped

from webui.errors import InstallError
from webui.plugins import git as git_module
from webui.plugins import trees, zips
from webui.plugins.install import Installer
from webui.plugins.sources import source_of


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[Installer]:
    made = Installer(tmp_path / "extensions", tmp_path / "state")
    yield made
    made.close()


def refused(installer: Installer, place: Path | str, said: str, ref: str = "") -> None:
    """The plan is refused with one sentence, and neither the extensions folder nor the staging holds anything."""
    with pytest.raises(InstallError) as caught:
        installer.plan(source_of(str(place), ref))
    sentence = str(caught.value)
    assert said in sentence and "\n" not in sentence and sentence.endswith(".")
    assert not installer.folder.exists()
    assert [path for path in (installer.state_dir / "extension-staging").rglob("*") if path.is_file()] == [
        *(installer.state_dir / "extension-staging").glob("*.lock")
    ]


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo("x")
    made.filename = made.orig_filename = name
    made.external_attr = mode << 16
    return made


NAMES = {
    "../evil.py": "leads out of its folder",
    "part/../../evil.py": "leads out of its folder",
    "/etc/evil.py": "leads out of its folder",
    "C:/evil.py": "leads out of its folder",
    "..\\evil.py": "not every system can keep",
    "part\\..\\..\\evil.py": "not every system can keep",
    "part//evil.py": "not every system can keep",
    "./evil.py": "not every system can keep",
    "con.py": "not every system can keep",
    "part/AUX/evil.py": "not every system can keep",
    "evil.py ": "not every system can keep",
    "evil.py:stream": "not every system can keep",
    "ev\nil.py": "not every system can keep",
    "evil\u202e.py": "not every system can keep",
    "__INIT__.py": "one name on some disks",
    "Part/other.csv": "one name on some disks",
    "part": "one name on some disks",
    "a" * 250: "longer than 240",
    "__init__.py": "one name on some disks",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_lead_elsewhere_in_a_zip(name: str, installer: Installer, tmp_path: Path) -> None:
    path = zipped(tmp_path / "sky.zip", files())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry(name), "evil")
    refused(installer, path, NAMES[name])
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("top", ["../", "/", "./", "../../"])
def test_a_common_folder_that_leads_out(top: str, installer: Installer, tmp_path: Path) -> None:
    refused(installer, zipped(tmp_path / "sky.zip", files(), top), "")
    assert not (tmp_path / "__init__.py").exists()


def test_a_name_behind_a_nul(installer: Installer, tmp_path: Path) -> None:
    path = zipped(tmp_path / "sky.zip", {**files(), "good.pyXevil": ""})
    path.write_bytes(path.read_bytes().replace(b"good.pyXevil", b"good.py\0evil"))
    refused(installer, path, "not every system can keep")


KINDS = {"link": stat.S_IFLNK | 0o777, "device": stat.S_IFCHR | 0o666, "block": stat.S_IFBLK, "pipe": stat.S_IFIFO}


@pytest.mark.parametrize("kind", KINDS)
def test_links_and_devices_in_a_zip(kind: str, installer: Installer, tmp_path: Path) -> None:
    path = zipped(tmp_path / "sky.zip", files())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry("thing", KINDS[kind]), "/etc/passwd")
    refused(installer, path, "holds a link" if kind == "link" else "no plain file")


def zip_of(tmp_path: Path, **more: bytes) -> Path:
    path = zipped(tmp_path / "sky.zip", files())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in more.items():
            archive.writestr(name, content)
    return path


def test_a_zip_that_inflates_to_more_than_is_taken(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(zips, "MAX_BYTES", 1_000_000)
    path = zip_of(tmp_path, big=bytes(2_000_000))
    assert path.stat().st_size < 10_000
    refused(installer, path, "larger than 0 MB together")


def test_a_zip_that_lies_about_its_sizes(installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both headers say ten bytes and the data inflate to two million: no more than ten may be written."""
    monkeypatch.setattr(trees, "MAX_BYTES", 1_000_000)
    path = zip_of(tmp_path, big=bytes(2_000_000))
    data = path.read_bytes()
    assert data.count(struct.pack("<I", 2_000_000)) == 2
    path.write_bytes(data.replace(struct.pack("<I", 2_000_000), struct.pack("<I", 10)))
    refused(installer, path, "The zip is damaged")


def test_a_zip_of_many_files(installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MAX_FILES", 50)
    monkeypatch.setattr(zips, "MAX_FILES", 50)
    path = zipped(tmp_path / "sky.zip", {**files(), **{f"f{number}": "" for number in range(60)}})
    refused(installer, path, "more than 5")  # fifty, as the test sets it


def test_a_zip_whose_list_would_fill_the_memory(installer: Installer, tmp_path: Path) -> None:
    path = zipped(tmp_path / "sky.zip", {**files(), **{f"{'f' * 200}{number}": "" for number in range(40_000)}})
    refused(installer, path, "more than 5000 files")
    with zipfile.ZipFile(tmp_path / "64.zip", "w") as archive:
        for number in range(66_000):
            archive.writestr(str(number), "")
    refused(installer, tmp_path / "64.zip", "more than 5000 files")


def test_a_large_file_that_is_called_a_zip(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zips, "MAX_ZIP", 100)
    refused(installer, zipped(tmp_path / "sky.zip", files()), "The zip is larger than")


_HEADER = b"PK\x01\x02\x14\x03\x14\x00"
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "This is no zip file"),
    "no zip": (lambda data: b"#!/bin/sh\n" * 100, "This is no zip file"),
    "cut": (lambda data: data[:-30], "This is no zip file"),
    "no directory": (lambda data: data[-22:], "damaged"),
    "another byte": (lambda data: data.replace(b"loaded", b"LOADED"), "damaged"),
    "encrypted": (lambda data: data.replace(_HEADER + b"\0", _HEADER + b"\1"), "password"),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_zips(how: str, installer: Installer, tmp_path: Path) -> None:
    change, said = DAMAGE[how]
    path = tmp_path / "sky.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files().items():
            archive.writestr(name, text)
    path.write_bytes(change(path.read_bytes()))
    refused(installer, path, said)


# --- folders ----------------------------------------------------------------------------------------------------------


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link out": (lambda folder: (folder / "l.py").symlink_to("/etc/passwd"), "holds a link"),
    "a link inside": (lambda folder: (folder / "l.py").symlink_to("__init__.py"), "holds a link"),
    "a linked folder": (lambda folder: (folder / "l").symlink_to("/etc"), "holds a link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "p"), "no plain file"),
    "no program": (lambda folder: (folder / "__init__.py").unlink(), "so it is no extension."),
    "of another program": (
        lambda folder: ((folder / "__init__.py").unlink(), write(folder, {"scripts/x.py": ""})),
        "looks like one for AUTOMATIC1111",
    ),
    "a broken manifest": (lambda folder: (folder / "extension.toml").write_text("name ="), "is no TOML"),
    "another contract": (
        lambda folder: (folder / "extension.toml").write_text('name = "a"\nversion = "1"\napi = ">=99"\n'),
        "version >=99 of the hooks",
    ),
    "a name that leads out": (
        lambda folder: (folder / "extension.toml").write_text('name = "../a"\nversion = "1"\napi = ">=1"\n'),
        "name is '../a'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FOLDERS)
def test_folders(what: str, installer: Installer, tmp_path: Path) -> None:
    change, said = FOLDERS[what]
    folder = write(tmp_path / "sky", files())
    change(folder)
    refused(installer, folder, said)


def test_a_socket_in_a_folder(installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "sky", files())
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
        refused(installer, folder, '"s" cannot be read')


def test_a_folder_of_many_or_large_files(installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "sky", {**files(), **{f"f{number}": "" for number in range(60)}})
    monkeypatch.setattr(trees, "MAX_FILES", 50)
    refused(installer, folder, "more than 50 files")
    monkeypatch.setattr(trees, "MAX_FILES", 5000)
    monkeypatch.setattr(trees, "MAX_BYTES", 1_000_000)
    (folder / "big").write_bytes(bytes(1_000_001))
    refused(installer, folder, "larger than 0 MB together")


@pytest.mark.parametrize("name", ["no name", "1st", "-x", "a.b", "ä", "x" * 70])
def test_a_folder_whose_name_is_none(name: str, installer: Installer, tmp_path: Path) -> None:
    refused(installer, write(tmp_path / name, {"__init__.py": ""}), "is no name for an extension")


# --- repositories -----------------------------------------------------------------------------------------------------


def test_a_link_in_a_repository(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files())
    (place / "l.py").symlink_to("/etc/passwd")
    commit(place, {})
    refused(installer, place, 'holds a link, "l.py"')


def test_a_submodule(installer: Installer, tmp_path: Path) -> None:
    other = repository(tmp_path / "other", {"x": ""})
    place = repository(tmp_path / "sky", files())
    git(place, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "inner")
    commit(place, {})
    refused(installer, place, 'holds another repository, "inner"')


def raw_tree(place: Path, name: str) -> None:
    """A commit on main with a file of a name that git itself would not add."""
    blob = git(place, "hash-object", "-w", "__init__.py")
    record = b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob)
    kept = bytes.fromhex(git(place, "rev-parse", "HEAD:__init__.py"))
    record = b"".join(sorted([record, b"100644 __init__.py\0" + kept], key=lambda line: line.split(b" ", 1)[1]))
    (place / "tree.bin").write_bytes(record)
    tree = git(place, "hash-object", "-t", "tree", "--literally", "-w", "tree.bin")
    git(place, "update-ref", "refs/heads/main", git(place, "commit-tree", tree, "-m", "x"))


@pytest.mark.parametrize("name", ["..", "../evil.py", "/evil.py", "a\\..\\b", "con"])
def test_names_that_lead_elsewhere_in_a_repository(name: str, installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files())
    raw_tree(place, name)
    refused(installer, place, "It holds a file")


def test_a_repository_folder_in_the_tree_is_passed_over(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files())
    raw_tree(place, ".GIT")
    assert [file.name for file in installer.plan(source_of(str(place))).files] == ["__init__.py"]


def test_a_repository_of_many_or_large_files(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = repository(tmp_path / "sky", {**files(), **{f"f{number}": "" for number in range(60)}})
    monkeypatch.setattr(git_module, "MAX_FILES", 50)
    refused(installer, place, "more than")
    monkeypatch.setattr(git_module, "MAX_FILES", 5000)
    monkeypatch.setattr(git_module, "MAX_BYTES", 1_000_000)
    commit(place, {"big": "0" * 1_000_001})
    refused(installer, place, "larger than")


def test_a_fetch_that_fills_the_disk_is_stopped(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = repository(tmp_path / "sky", files())
    (place / "big").write_bytes(os.urandom(40_000_000))
    commit(place, {})
    monkeypatch.setattr(git_module, "MAX_FETCHED", 1_000_000)
    monkeypatch.setattr(git_module, "LOOK_EVERY_S", 0.001)
    refused(installer, place, "larger than")


def test_a_repository_that_does_not_arrive(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_module, "TIMEOUT_S", 0.0)
    monkeypatch.setattr(git_module, "LOOK_EVERY_S", 0.0001)
    refused(installer, repository(tmp_path / "sky", files()), "did not arrive within 0 seconds")


ADDRESSES = [
    "ext::sh -c touch% ran", "http://example.org/x.git", "ssh://git@example.org/x.git", "git@example.org:x.git",
    "git://example.org/x.git", "ftp://example.org/x", "file:///no/such/folder", "--upload-pack=touch ran", "-x",
    "https://", "https://name:secret@example.org/x.git", "https://name@example.org/x.git", "", " ",
    "https://example.org/\x1b[2J", "file://server/share/x",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses(address: str, installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: started.append(arguments))
    with pytest.raises(InstallError) as caught:
        installer.plan(source_of(address))
    assert started == [] and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "ref", ["--upload-pack=x", "-x", "a..b", "a:b", "+main", "a b", "HEAD^", "@{-1}", "refs/*", "a.lock"]
)
def test_refs(ref: str, installer: Installer, tmp_path: Path) -> None:
    refused(installer, repository(tmp_path / "sky", files()), "is no commit, tag or branch", ref)


def test_what_is_not_in_the_repository(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files())
    refused(installer, place, "Git could not get it: couldn't find remote ref nowhere", "nowhere")
    refused(installer, place, "Git could not get it", "0" * 40)
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "--quiet")
    refused(installer, tmp_path / "empty", "Git could not get it")


def test_without_git(installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = repository(tmp_path / "sky", files())
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(installer, place, "Git is not installed on this computer")


def test_git_is_told_nothing_of_the_person_and_never_asks(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in git's place writes down how it was called."""
    place = repository(tmp_path / "sky", files())
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write(json.dumps([sys.argv, dict(os.environ)]) + '\\n')\n"
        "sys.exit('fatal: enough')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_SSH_COMMAND", "evil")
    refused(installer, place, "Git could not get it: enough")
    told = (tmp_path / "calls").read_text()
    assert "secret" not in told and "evil" not in told and "GIT_CONFIG_COUNT" not in told
    for expected in ('"GIT_TERMINAL_PROMPT": "0"', '"GIT_ALLOW_PROTOCOL": "file"', '"GIT_CONFIG_NOSYSTEM": "1"'):
        assert expected in told
    assert "core.hooksPath=/dev/null" in told
    assert f'"HOME": "{installer.state_dir}' in told
