"""``webui extensions``: the installer on the command line.  What would happen is shown, then asked for, then done."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from webui.errors import InstallError, NotFoundError
from webui.plugins import shelf
from webui.plugins.install import Installer
from webui.plugins.listing import listed
from webui.plugins.plan import Plan
from webui.plugins.sources import source_of
from webui.settings import Settings

MAX_LINES = 200
"""So much of a difference, and so many files, are printed."""
NEXT_START = "It takes effect at the next start."


def add_commands(commands: Any) -> None:
    """Add ``extensions`` with its commands to those of the program."""
    summary = "list, install, update and remove extensions"
    parser: argparse.ArgumentParser = commands.add_parser("extensions", help=summary, description=summary)
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    shown = _add(inner, "list", _list, "list the extensions and the trash")
    shown.add_argument("--json", action="store_true", help="print the list as JSON")
    install = _add(inner, "install", _install, "install from a Git repository, a zip or a folder")
    install.add_argument("source", metavar="SOURCE", help="https://… or a path")
    update = _add(inner, "update", _update, "get the newest version from where an extension came from")
    update.add_argument("name", metavar="NAME")
    update.add_argument("source", metavar="SOURCE", nargs="?", help="from here instead: https://… or a path")
    for command in (install, update):
        command.add_argument("--ref", default="", metavar="REF", help="commit, tag or branch of the repository")
        command.add_argument("--yes", action="store_true", help="do it without asking")
    for name, run, summary in (
        ("enable", _enable, "load an extension again"),
        ("disable", _disable, "do not load an extension"),
        ("rollback", _roll_back, "exchange an extension and the version before it"),
        ("uninstall", _uninstall, "put an extension into the trash"),
        ("restore", _restore, "take an extension out of the trash"),
    ):
        command = _add(inner, name, run, summary)
        command.add_argument("name", metavar="NAME")


def _add(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    defaults = Settings()
    parser.add_argument("--extensions-dir", type=Path, default=defaults.extensions_dir, metavar="FOLDER")
    parser.add_argument("--outputs-dir", type=Path, default=defaults.outputs_dir, metavar="FOLDER")
    return parser


def _installer(parsed: argparse.Namespace) -> Installer:
    outputs: Path = parsed.outputs_dir.expanduser().resolve()
    folder: Path = parsed.extensions_dir.expanduser().resolve()
    return Installer(folder, Settings(outputs_dir=outputs, extensions_dir=folder).state_dir)


def _list(parsed: argparse.Namespace) -> int:
    installer = _installer(parsed)
    rows = listed(installer.folder, installer.state_dir)
    trash = shelf.trash(installer.folder)
    if parsed.json:
        thrown = [{"id": kept.id, "name": kept.name, "since": kept.since} for kept in trash]
        print(json.dumps({"extensions": [row.to_dict() for row in rows], "trash": thrown}, indent=2))
        return 0
    for row in rows:
        print(f"{row.name:<24} {row.version or '-':<12} {row.state:<10} {row.source}")
        for line in (*row.problems, *(f"It says it will {one}." for one in row.permissions)):
            print(f"    {line}")
    for kept in trash:
        print(f"{kept.name:<24} {kept.record.version if kept.record else '-':<12} {'in trash':<10} {kept.id}")
    if not rows and not trash:
        print(f"There are no extensions in {installer.folder}.", file=sys.stderr)
    return 0


def _install(parsed: argparse.Namespace) -> int:
    installer = _installer(parsed)
    return _ask(installer, installer.plan(source_of(parsed.source, parsed.ref)), parsed.yes)


def _update(parsed: argparse.Namespace) -> int:
    installer = _installer(parsed)
    if parsed.ref and parsed.source is None:
        raise InstallError("--ref needs the repository it belongs to; name it after the extension.")
    source = None if parsed.source is None else source_of(parsed.source, parsed.ref)
    return _ask(installer, installer.plan_update(parsed.name, source), parsed.yes)


def _ask(installer: Installer, plan: Plan, yes: bool) -> int:
    """Show a plan and do it, after a yes; 1 without one."""
    try:
        for line in _told(plan):
            print(line)
        question, done = ("Update", "Updated") if plan.difference else ("Install", "Installed")
        if not yes:
            if not sys.stdin.isatty():
                raise InstallError("Nothing was changed; say --yes to do what is shown above.")
            if input(f"{question} it? [y/N] ").strip().lower() not in ("y", "yes"):
                print("Nothing was changed.", file=sys.stderr)
                return 1
        installer.confirm(plan.id, plan.tree_hash)
    finally:
        installer.close()
    print(f"{done} {plan.manifest.name}. {NEXT_START}")
    return 0


def _told(plan: Plan) -> Iterator[str]:
    """What a plan would do, line by line."""
    manifest = plan.manifest
    yield f"{manifest.name} {manifest.version}".rstrip() + (f": {manifest.description}" if manifest.description else "")
    yield f"  from {plan.source.sentence(plan.commit)}"
    yield f"  tree {plan.tree_hash}"
    if manifest.authors or manifest.licence:
        yield f"  by {', '.join(manifest.authors) or 'somebody'}, licence {manifest.licence or 'not said'}"
    for permission in manifest.permissions.sentences():
        yield f"  says it will {permission}"
    for package in plan.packages:
        yield f"  installs the package {package.name} {package.version}, for itself"
    for note in plan.notes:
        yield f"  {note}"
    if plan.difference is not None:
        yield from _difference(plan)
        return
    yield f"  {len(plan.files)} files, {plan.bytes} bytes"
    yield from _cut([f"    {file.size:>10} {file.name}" for file in plan.files])


def _difference(plan: Plan) -> Iterator[str]:
    difference = plan.difference
    assert difference is not None
    yield f"  version {difference.from_version or '-'} -> {plan.manifest.version or '-'}"
    if difference.from_commit and plan.commit:
        yield f"  commit {difference.from_commit[:12]} -> {plan.commit[:12]}"
    for permission in difference.permissions_added:
        yield f"  new: says it will {permission}"
    for permission in difference.permissions_removed:
        yield f"  no longer: {permission}"
    for sign, names in (("+", difference.added), ("-", difference.removed), ("~", difference.changed)):
        for name in names:
            yield f"  {sign} {name}"
    yield from _cut(difference.lines.splitlines())


def _cut(lines: list[str]) -> list[str]:
    printable = ["".join(letter if letter.isprintable() else "?" for letter in line) for line in lines]
    return (
        printable if len(lines) <= MAX_LINES else [*printable[:MAX_LINES], f"… and {len(lines) - MAX_LINES} lines more"]
    )


def _enable(parsed: argparse.Namespace) -> int:
    _installer(parsed).switch(parsed.name, on=True)
    print(f"Enabled {parsed.name}. {NEXT_START}")
    return 0


def _disable(parsed: argparse.Namespace) -> int:
    _installer(parsed).switch(parsed.name, on=False)
    print(f"Disabled {parsed.name}. {NEXT_START}")
    return 0


def _roll_back(parsed: argparse.Namespace) -> int:
    installer = _installer(parsed)
    installer.roll_back(parsed.name)
    print(
        f"{parsed.name} is {installer.find(parsed.name).manifest.version or 'the version before'} again. {NEXT_START}"
    )
    return 0


def _uninstall(parsed: argparse.Namespace) -> int:
    trash_id = _installer(parsed).uninstall(parsed.name)
    print(f"Uninstalled {parsed.name}; it is in the trash as {trash_id}. {NEXT_START}")
    return 0


def _restore(parsed: argparse.Namespace) -> int:
    installer = _installer(parsed)
    ids = [kept.id for kept in shelf.trash(installer.folder) if parsed.name in (kept.name, kept.id)]
    if not ids:
        raise NotFoundError(f'There is no "{parsed.name}" in the trash.')
    print(f"Restored {installer.restore(ids[0])}. {NEXT_START}")
    return 0
