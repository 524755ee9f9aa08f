"""Where an extension comes from: a Git repository, a zip or a folder; and its files, written into a folder of ours."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from webui.errors import InstallError
from webui.plugins import git
from webui.plugins.trees import TreeWriter, copy_folder, read_plainly
from webui.plugins.zips import copy_zip


class Kind(StrEnum):
    """The kinds of places an extension comes from."""

    GIT = "git"
    ZIP = "zip"
    FOLDER = "folder"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place: ``location`` is an address (git) or a path; ``ref`` a commit, tag or branch of a repository.

    ``label`` is what people are shown in its place, for an uploaded zip: the name it had on their computer.
    """

    kind: Kind
    location: str
    ref: str = ""
    label: str = ""

    def sentence(self, commit: str = "") -> str:
        """The place as people read it."""
        at = f" at {commit[:12]}" if commit else ""
        branch = f" ({self.ref})" if self.ref and self.ref != commit else ""
        return f"{self.kind} {self.label or self.location}{branch}{at}"

    @property
    def can_be_asked_again(self) -> bool:
        """Whether a newer version may be found there: not of an upload, which is gone."""
        return not self.label


def source_of(text: str, ref: str = "") -> Source:
    """What a person means by an address or a path.  Raises InstallError when it is neither."""
    text = text.strip()
    if not text:
        raise InstallError("Name what to install: the address of a Git repository, a zip file or a folder.")
    if "://" in text and not text.startswith("file://"):
        git.check_address(text)
        return Source(kind=Kind.GIT, location=text, ref=ref)
    path = Path(unquote(urlsplit(text).path) if text.startswith("file://") else text).expanduser()
    path = path.absolute()
    if not path.exists():
        raise InstallError(
            f'There is no "{text[:300]}" on this computer; use https://… or the path of a zip or folder.'
        )
    if path.is_dir() and (text.startswith("file://") or ref or (path / ".git").exists() or _is_bare(path)):
        return Source(kind=Kind.GIT, location=path.resolve().as_uri(), ref=ref)
    if ref:
        raise InstallError("Only a Git repository has commits, tags and branches; leave them out for a zip or folder.")
    if path.suffix.lower() == ".zip":
        return Source(kind=Kind.ZIP, location=str(path))
    if path.is_dir() or path.suffix == ".py":
        return Source(kind=Kind.FOLDER, location=str(path))
    raise InstallError(f'"{path.name[:100]}" is no zip, no folder and no Python file.')


def _is_bare(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()


@dataclass(frozen=True)
class Arrived:
    """What came: the folder or ``.py`` file it was written to, the name that the place suggests, and its commit."""

    path: Path
    name: str
    commit: str = ""


def bring(source: Source, into: Path) -> Arrived:
    """Write the source's files below the new folder ``into``.  Nothing of it is run.  Raises InstallError."""
    into.mkdir(parents=True)
    tree = into / "tree"
    match source.kind:
        case Kind.GIT:
            commit = git.fetch(source.location, source.ref, into / "repository")
            git.copy_commit(into / "repository", commit, TreeWriter(tree))
            name = (
                urlsplit(source.location).path.rstrip("/").removesuffix("/.git").rpartition("/")[2].removesuffix(".git")
            )
            return Arrived(tree, unquote(name), commit)
        case Kind.ZIP:
            copy_zip(Path(source.location), TreeWriter(tree))
            return Arrived(tree, Path(source.label or source.location).stem)
        case Kind.FOLDER:
            path = Path(source.location)
            if path.suffix == ".py" and not path.is_dir():
                TreeWriter(tree).write(path.name, read_plainly(path, path.name))
                return Arrived(tree / path.name, path.stem)
            copy_folder(path, TreeWriter(tree))
            return Arrived(tree, path.resolve().name)
