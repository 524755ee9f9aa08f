"""Installs, updates, rolls back, removes and restores extensions; the page, the API and the command line call it.

An installation has two halves.  ``plan`` brings the files into the state folder and finds out what they ask for;
nothing of them runs, and the extensions folder is not touched.  ``confirm`` takes the plan's id and tree hash, copies
the files beside their place, hashes the copy, and moves it in with one rename.  Every change takes effect at the next
start of the program, and is whole or absent whenever the program may be killed (``moves``).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from webui.errors import ExtensionError, InstallError, NotFoundError
from webui.hooks import PROJECT
from webui.plugins import shelf
from webui.plugins.dependencies import install, packages_in, resolve
from webui.plugins.discovery import BUNDLED, Found, discover
from webui.plugins.manifest import FILE, NAME, Manifest, read_manifest
from webui.plugins.moves import HIDDEN, INCOMING, Move, carry_out, changing
from webui.plugins.plan import Difference, Plan, compare, planned_files
from webui.plugins.sources import Arrived, Source, bring
from webui.plugins.switches import switch
from webui.plugins.tree_hash import tree_hash
from webui.plugins.trees import TreeWriter, copy_folder, read_plainly

MAX_PLANS = 8
"""So many plans wait at a time; a new one takes the place of the oldest."""
STAGING = "extension-staging"


class Installer:
    """The changes of one extensions folder.  Plans live as long as this object; their files are in the state folder."""

    def __init__(self, extensions_dir: Path, state_dir: Path) -> None:
        self.folder = extensions_dir
        self.state_dir = state_dir
        self._staging = state_dir / STAGING / uuid.uuid4().hex
        self._staging_lock: FileLock | None = None
        self._plans: dict[str, Plan] = {}
        self._changing_plans = threading.Lock()

    # --- the first half: what would happen ------------------------------------------------------------------------

    def plan(self, source: Source) -> Plan:
        """What installing from ``source`` would do.  Raises InstallError, a sentence, for what is refused."""
        with self._brought(source) as (plan_id, arrived):
            entry, manifest = _judged(arrived)
            self._check_free(manifest.name)
            return self._planned(plan_id, source, arrived, entry, manifest, None, ())

    def plan_update(self, name: str, source: Source | None = None) -> Plan:
        """What updating an extension would do; without ``source`` it is asked where it came from.

        Raises InstallError also when there is nothing newer, NotFoundError when there is no such extension.
        """
        current = self.find(name)
        self._check_own(current)
        record = shelf.record_of(self.folder, current.name)
        source = source or (record.source if record else None)
        if source is None:
            raise InstallError(f"It is not known where {name} came from; name a Git address, a zip or a folder.")
        if not source.can_be_asked_again and record is not None and source == record.source:
            raise InstallError(f"{name} came from a zip that was uploaded; upload the newer one to update it.")
        with self._brought(source) as (plan_id, arrived):
            entry, manifest = _judged(arrived)
            if manifest.name != current.name:
                raise InstallError(f"What is there now is called {manifest.name}, not {current.name}; install it anew.")
            now = tree_hash(current.path)
            if tree_hash(entry) == now:
                at = f" at {arrived.commit[:12]}" if arrived.commit else ""
                raise InstallError(f"{name} is up to date ({manifest.version or 'no version'}{at}).")
            notes: tuple[str, ...] = ()
            if record is None or record.tree_hash != now:
                notes = ("Its files were changed by hand here; they are kept as the version before.",)
            difference = compare(current.path, current.manifest, entry, manifest, now, record.commit if record else "")
            return self._planned(plan_id, source, arrived, entry, manifest, difference, notes)

    def discard(self, plan_id: str) -> None:
        """Forget a plan and remove its files.  Raises NotFoundError."""
        with self._changing_plans:
            plan = self._plans.pop(plan_id, None)
        if plan is None:
            raise _no_plan()
        shutil.rmtree(self._staging / plan_id, ignore_errors=True)

    @contextlib.contextmanager
    def _brought(self, source: Source) -> Iterator[tuple[str, Arrived]]:
        """The source's files in a staging folder of their own, which goes when what follows fails."""
        plan_id = uuid.uuid4().hex
        self._hold_staging()
        try:
            yield plan_id, bring(source, self._staging / plan_id)
        except BaseException as error:
            shutil.rmtree(self._staging / plan_id, ignore_errors=True)
            if isinstance(error, OSError):
                raise InstallError(f"Its files could not be read or kept: {error.strerror or error}.") from error
            raise
        shutil.rmtree(self._staging / plan_id / "repository", ignore_errors=True)

    def _planned(
        self,
        plan_id: str,
        source: Source,
        arrived: Arrived,
        entry: Path,
        manifest: Manifest,
        difference: Difference | None,
        notes: tuple[str, ...],
    ) -> Plan:
        packages = resolve(
            manifest.dependencies,
            self._program_packages(),
            self._packages_of_others(manifest.name),
            self._staging / plan_id / "resolver",
        )
        plan = Plan(
            id=plan_id,
            source=source,
            commit=arrived.commit,
            tree_hash=tree_hash(entry),
            manifest=manifest,
            files=planned_files(entry),
            packages=tuple(packages),
            difference=difference,
            notes=notes + _notes(entry, manifest),
        )
        with self._changing_plans:
            self._plans[plan_id] = plan
            oldest = list(self._plans)[:-MAX_PLANS]
        for one in oldest:
            with contextlib.suppress(NotFoundError):
                self.discard(one)
        return plan

    def _program_packages(self) -> Mapping[str, str]:
        """What the program runs on: every package that can be imported, but for those that extensions brought."""
        hidden = self.folder / HIDDEN
        return packages_in(path for path in sys.path if not Path(path).is_relative_to(hidden))

    def _packages_of_others(self, name: str) -> Mapping[str, str]:
        own = shelf.packages_folder(self.folder, name)
        below = self.folder / HIDDEN / "packages"
        folders = sorted(below.iterdir()) if below.is_dir() else []
        return packages_in(folder for folder in folders if folder != own)

    # --- the second half: it happens ------------------------------------------------------------------------------

    def confirm(self, plan_id: str, expected_hash: str) -> Plan:
        """Do what a plan says, provided its files are still those that were shown; the plan.

        Raises InstallError when they are not, or the place was taken meanwhile, NotFoundError for an unknown plan.
        """
        with self._changing_plans:
            plan = self._plans.get(plan_id)
        if plan is None:
            raise _no_plan()
        if expected_hash != plan.tree_hash:
            raise InstallError("The hash is not that of the files that were shown; look at them again.")
        with changing(self.folder):
            moves = self._moves_for(plan)
            carry_out(self.folder, moves)
            shelf.sweep(self.folder)
        if plan.difference is None:  # an earlier one of that name may have been switched off and put away
            with self._writing():
                switch(self.state_dir, plan.manifest.name, on=True)
        with contextlib.suppress(NotFoundError):
            self.discard(plan_id)
        return plan

    def _moves_for(self, plan: Plan) -> list[Move]:
        """Bring all that the plan needs onto the folder's own disk; what remains is to rename it."""
        name, new_id = plan.manifest.name, shelf.new_id()
        incoming = f"{HIDDEN}/{INCOMING}/{plan.id}"
        entry = self._copied(plan, self.folder / incoming / "tree")
        moves: list[Move] = []
        if plan.difference is None:
            self._check_free(name)
        else:
            current = self.find(name)
            self._check_own(current)
            if tree_hash(current.path) != plan.difference.from_hash:
                raise InstallError(f"{name} changed after the difference was shown; look at it again.")
            moves += shelf.putting_away(name, current.path, f"{HIDDEN}/previous/{name}/{new_id}")
        packages = ""
        if plan.packages:
            packages = f"{name}-{new_id}"
            install(plan.packages, self.folder / incoming / "packages", self.folder / incoming / "work")
            moves.append(Move(f"{incoming}/packages", f"{HIDDEN}/packages/{packages}"))
        record = shelf.Record(
            source=plan.source,
            version=plan.manifest.version,
            tree_hash=plan.tree_hash,
            commit=plan.commit,
            packages=packages,
            installed=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        (self.folder / incoming / shelf.RECORD).write_bytes(record.to_bytes())
        moves.append(Move(f"{incoming}/tree/{entry.name}", entry.name))
        moves.append(Move(f"{incoming}/{shelf.RECORD}", shelf.record_name(name)))
        return moves

    def _copied(self, plan: Plan, into: Path) -> Path:
        """A copy of the plan's files below ``into``, hashed after it was made."""
        staged = self._staging / plan.id / "named"
        try:
            (entry,) = staged.iterdir()
            if entry.is_dir():
                copy_folder(entry, TreeWriter(into / entry.name))
            else:
                TreeWriter(into).write(entry.name, read_plainly(entry, entry.name))
        except (OSError, ValueError) as error:
            raise InstallError("The files that were shown are not there any more; look at them again.") from error
        if tree_hash(into / entry.name) != plan.tree_hash:
            raise InstallError(
                f"The files of {plan.manifest.name} changed after they were shown; nothing was installed."
            )
        return into / entry.name

    # --- changes of what is installed -----------------------------------------------------------------------------

    def switch(self, name: str, *, on: bool) -> None:
        """Let an extension be loaded at the next start, or not.  Raises NotFoundError."""
        self.find_any(name)
        with self._writing():
            switch(self.state_dir, name, on=on)

    def roll_back(self, name: str) -> None:
        """Exchange an extension and the version before it.  Raises InstallError when there is none."""
        with changing(self.folder):
            current = self.find(name)
            self._check_own(current)
            before = shelf.previous(self.folder, current.name)
            if before is None:
                raise InstallError(f"There is no earlier version of {name} to go back to.")
            place = f"{HIDDEN}/previous/{current.name}/{shelf.new_id()}"
            away = shelf.putting_away(current.name, current.path, place)
            carry_out(self.folder, away + shelf.taking_back(current.name, before))
            shelf.sweep(self.folder)

    def uninstall(self, name: str) -> str:
        """Put an extension into the trash; its id there.  One that was switched off stays so when it is restored."""
        with changing(self.folder):
            current = self.find(name)
            self._check_own(current)
            trash_id = f"{current.name}~{shelf.new_id()}"
            place = f"{HIDDEN}/trash/{trash_id}"
            moves = shelf.putting_away(current.name, current.path, place)
            moves.append(Move(f"{HIDDEN}/previous/{current.name}", f"{place}/previous"))
            carry_out(self.folder, moves)
        return trash_id

    def restore(self, trash_id: str) -> str:
        """Take an extension out of the trash; its name.  Raises InstallError when the name is taken."""
        with changing(self.folder):
            kept = shelf.in_trash(self.folder, trash_id)
            self._check_free(kept.name)
            moves = shelf.taking_back(kept.name, kept)
            moves.append(Move(f"{kept.place}/previous", f"{HIDDEN}/previous/{kept.name}"))
            carry_out(self.folder, moves)
            shelf.sweep(self.folder)
        return kept.name

    def empty_trash(self) -> None:
        """Remove for good what was uninstalled."""
        with changing(self.folder):
            shutil.rmtree(self.folder / HIDDEN / "trash", ignore_errors=True)
            shelf.sweep(self.folder)

    # --- what is there --------------------------------------------------------------------------------------------

    def find(self, name: str) -> Found:
        """The extension of the folder with this name.  Raises NotFoundError."""
        for one in discover(self.folder):
            if one.name == name:
                return one
        raise NotFoundError(f'There is no extension named "{name[:100]}" in the extensions folder.')

    def find_any(self, name: str) -> None:
        """Raises NotFoundError when no extension has this name, neither of the folder nor as an installed package."""
        if name not in _entry_points():
            self.find(name)

    def _check_own(self, found: Found) -> None:
        if found.name in BUNDLED:
            raise InstallError(f"{found.name} comes with the program; it can be disabled, not replaced or removed.")

    def _check_free(self, name: str) -> None:
        """Refuse a name that is taken, or that some disks take for one that is."""
        there = {one.name for one in discover(self.folder)} | set(BUNDLED) | _entry_points()
        if self.folder.is_dir():
            there |= {path.stem for path in self.folder.iterdir() if not path.name.startswith(".")} - {"README"}
        for one in sorted(there):
            if one == name:
                raise InstallError(f"There is an extension named {name} already; update it, or uninstall it first.")
            if one.casefold() == name.casefold():
                raise InstallError(
                    f"There is an extension named {one}; {name} differs from it in upper and lower case only."
                )

    # --- leftovers ------------------------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Remove what killed programs left behind, and finish what they had begun.  Called when the server starts."""
        below = self.state_dir / STAGING
        for lock_file in below.glob("*.lock") if below.is_dir() else []:
            with contextlib.suppress(Timeout, OSError), FileLock(lock_file, timeout=0):
                shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
                lock_file.unlink(missing_ok=True)
        if (self.folder / HIDDEN).is_dir():
            with changing(self.folder):
                shelf.sweep(self.folder)

    def close(self) -> None:
        """Remove all plans."""
        self._plans.clear()
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._staging_lock is not None:
            self._staging_lock.release()
            Path(self._staging_lock.lock_file).unlink(missing_ok=True)
            self._staging_lock = None

    def _hold_staging(self) -> None:
        """Make the staging folder, with a lock that ends with this process: so that others know whose it is."""
        with self._changing_plans, self._writing():
            if self._staging_lock is None:
                self._staging.mkdir(parents=True)
                lock = FileLock(f"{self._staging}.lock")
                lock.acquire(timeout=0)
                self._staging_lock = lock

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InstallError(
                f"The folder {self.state_dir} cannot be written to: {error.strerror or error}."
            ) from error


def _judged(arrived: Arrived) -> tuple[Path, Manifest]:
    """What arrived, moved to where it bears its name, and its manifest.  Raises InstallError for what is none."""
    path = arrived.path
    if path.is_dir() and not (path / "__init__.py").is_file():
        foreign = (path / "scripts").is_dir() or (path / "install.py").is_file()
        hint = "; it looks like one for AUTOMATIC1111, which this program does not run" if foreign else ""
        raise InstallError(f"There is no __init__.py at its top, so it is no extension{hint}.")
    try:
        manifest = read_manifest(path)
    except ExtensionError as error:
        raise InstallError(f"It cannot be installed: {error}") from error
    if not (path / FILE).is_file():
        manifest = replace(manifest, name=arrived.name)
    if not NAME.fullmatch(manifest.name):
        raise InstallError(f'"{manifest.name[:100]}" is no name for an extension; name it in {FILE}.')
    named = path.parent.parent / "named" if path.is_file() else path.parent / "named"
    named.mkdir()
    entry = named / (path.name if path.is_file() else manifest.name)
    path.rename(entry)
    return entry, manifest


def _notes(entry: Path, manifest: Manifest) -> tuple[str, ...]:
    notes = []
    if not (entry / FILE).is_file():
        notes.append(f"It has no {FILE}: who wrote it, and what it asks for, is not said.")
    scripts = [name for name in ("install.py", "setup.py") if (entry / name).is_file()]
    if scripts:
        notes.append(f"Its {' and '.join(scripts)} will not be run.")
    return tuple(notes)


def _entry_points() -> set[str]:
    return {entry.name for entry in importlib.metadata.entry_points(group=PROJECT)}


def _no_plan() -> NotFoundError:
    return NotFoundError("That preview is not there any more; look at the extension again.")
