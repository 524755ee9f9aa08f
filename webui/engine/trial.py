"""Tries extensions that are new here in a process of their own, before the server loads them.

The server can leave a call behind that does not end, but it cannot be saved from an extension that ends the process
(``os._exit``, a crash inside of C) or holds the interpreter while it is loaded.  So an extension whose files are not
known yet is loaded once by ``python -m webui.engine.trial``; the hash of those that can be loaded is kept.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from webui.engine.culprits import Culprits, watch
from webui.engine.processes import exit_words, python_path
from webui.plugins.call_record import CallRecord
from webui.plugins.calling import IMPORT
from webui.plugins.conduct import State
from webui.plugins.discovery import BUNDLED, discover
from webui.plugins.manager import Plugins
from webui.plugins.switches import disabled_names, write_whole
from webui.plugins.tree_hash import tree_hash
from webui.settings import PROJECT_ROOT, Settings

log = logging.getLogger(__name__)

FILE = "extensions-tried.json"
DOES = "tries it out"


def unloadable(settings: Settings, packages: Sequence[str]) -> dict[str, str]:
    """The extensions that cannot be loaded without harm to the process, each with a sentence that says so.

    Nothing is started when all extensions are known.  What was tried and went well is remembered in the state folder.
    """
    if not settings.load_extensions:
        return {}
    here = _hashes(settings)
    known = _known(settings.state_dir / FILE)
    culprits = Culprits()
    while new := [name for name in here if known.get(name) != here[name] and name not in culprits.off]:
        others = tuple(name for name in here if name not in new)
        before = len(culprits.off)
        is_over = _try(replace(settings, extensions_off=others), packages, culprits)
        if is_over:
            known = {name: digest for name, digest in here.items() if name not in culprits.off}
            _remember(settings.state_dir / FILE, known)
        if is_over or len(culprits.off) == before:
            break
    return culprits.off


def _hashes(settings: Settings) -> dict[str, str]:
    """The hash of each extension that is to be loaded and did not come with the program, by name."""
    off = disabled_names(settings.state_dir) | set(settings.extensions_off)
    own = PROJECT_ROOT / "extensions"
    hashes = {}
    for one in discover(settings.extensions_dir):
        if one.problem or one.name in off or (one.name in BUNDLED and one.path.parent == own):
            continue
        try:
            hashes[one.name] = tree_hash(one.path)
        except OSError as error:
            log.warning("The files of the extension %s cannot be read: %s", one.name, error)
    return hashes


def _try(settings: Settings, packages: Sequence[str], culprits: Culprits) -> bool:
    """Load the extensions in a process, which adds to the ``culprits``; whether it came to its end."""
    record = CallRecord.create()
    order = {"settings": settings.to_dict(), "packages": list(packages), "record": str(record.path)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "webui.engine.trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the server says it again
        start_new_session=True,
        env={**os.environ, **python_path()},
    )
    Thread(target=watch, args=(process, record), name="trial watch", daemon=True).start()
    told, _ = process.communicate(json.dumps(order).encode())
    call = record.read()
    record.drop()
    if call is not None:
        how = "did not come back" if call.is_overdue else exit_words(process.returncode)
        culprits.lost(call, how, DOES)
        return False
    if process.returncode != 0:
        log.error("The process that tries new extensions %s, in none of them.", exit_words(process.returncode))
        return False
    culprits.off |= json.loads(told)
    return True


def hung(plugins: Plugins) -> dict[str, str]:
    """The extensions whose loading took too long: the server need not wait for them once more."""
    return {
        report.name: report.why
        for report in plugins.report()
        if report.state == State.SWITCHED_OFF or (report.state == State.LEFT_OUT and f"its {IMPORT} took" in report.why)
    }


def _known(file: Path) -> Mapping[str, Any]:
    try:
        known = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read (%s); every extension is tried again.", file, error)
        return {}
    return known if isinstance(known, dict) else {}


def _remember(file: Path, hashes: Mapping[str, str]) -> None:
    try:
        write_whole(file, json.dumps(hashes, indent=2).encode())
    except OSError as error:
        log.warning("%s cannot be written (%s); its extensions are tried again at the next start.", file, error)


def main() -> None:
    """Load the extensions that the order on standard input names; the answer goes where standard output was."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # extensions may print
    order = json.loads(sys.stdin.buffer.read())
    record = CallRecord.open(Path(order["record"]))
    plugins = Plugins.start(Settings.from_dict(order["settings"]), packages=order["packages"], record=record)
    answer.write(json.dumps(hung(plugins)).encode())
    answer.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # threads of extensions may go on for ever
