"""The extensions below ``hostile/``, what the program says about each, and the table in ``extensions/HOSTILE.md``.

A case is a file ``hostile/<name>.py.txt``, whose first line tells what it does; the suffix keeps it from being imported
or linted by accident.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "hostile"


@dataclass(frozen=True)
class Case:
    """``said``: words of the sentences about it.  ``ends``: it ends a process, or blocks one inside of C."""

    name: str
    said: tuple[str, ...]
    ends: bool = False

    @property
    def code(self) -> str:
        return (FOLDER / f"{self.name}.py.txt").read_text("utf-8")

    @property
    def does(self) -> str:
        return self.code.partition("\n")[0].removeprefix("# ")


CASES = (
    Case("syntax_error", ("was left out: SyntaxError", "(syntax_error.py, line 2)")),
    Case("import_error", ("was left out: ModuleNotFoundError: No module named 'no_such_package'",)),
    Case("exits_at_import", ("was left out: SystemExit: 3 (exits_at_import.py, line 4)",)),
    Case("base_exception_at_import", ("was left out: Gone: not even an Exception",)),
    Case("deletes_itself", ("was left out: ZeroDivisionError",)),
    Case("loops_at_import", ("was left out: its import took more than", "and was ended (loops_at_import.py, line")),
    Case("ends_process_at_import", ("ended with code 7 within its import",), ends=True),
    Case("crashes_at_import", ("was ended by signal 11 within its import",), ends=True),
    Case("holds_at_import", ("did not come back within its import",), ends=True),
    Case("patches_program", ("replaced webui.images.pixels.check_size", "it was put back")),
    Case("wrapper", ("was left out", "before_job cannot wrap other hooks")),
    Case("unknown_hook", ("uses hooks that do not exist: before_everything",)),
    Case("unknown_argument", ("was left out", "engine")),
    Case("registers_number", ("register_schedules returned a int, expected a list",)),
    Case("registers_generator", ("register_upscalers returned a generator, expected a list",)),
    Case("registers_everything_wrong", ("returned a object without name", "failed 3 times and is switched off")),
    Case("registers_raising", ("register_preprocessors failed: ValueError: nothing today",)),
    Case("name_clash", ('register "Euler"', "name_clash.py")),
    Case("name_garbage", ("register_samplers returned a Sampler named", "a name has 1 to 100 letters")),
    Case("name_no_text", ("a Sampler whose name is a list, expected a str",)),
    Case("part_traps", ("a Trap that cannot be looked at (RuntimeError: do not look at me)",)),
    Case("raises_everywhere", ("before_job failed: ValueError: in before_job", "failed 3 times and is switched off")),
    Case("exits_in_hook", ("before_job failed: SystemExit: 3 (exits_in_hook.py, line 7)",)),
    Case("interrupts", ("before_job failed: KeyboardInterrupt",)),
    Case("base_exception", ("before_job failed: Odd: (its words cannot be read)",)),
    Case("recursion", ("before_job failed: RecursionError",)),
    Case("loops_in_hook", ("before_job took more than", "(loops_in_hook.py, line 7)", "hung and is switched off")),
    Case("stubborn_loop", ("before_job took more than", "hung and is switched off")),
    Case("sleeps", ("before_job took more than", "hung and is switched off")),
    Case("holds_in_hook", ("did not come back within its after_job (holds_in_hook.py, line",), ends=True),
    Case("ends_process_in_hook", ("ended with code 9 within its write_infotext",), ends=True),
    Case("crashes_in_hook", ("was ended by signal 11 within its rewrite_picture",), ends=True),
    Case("request_wrong_type", ("rewrite_request returned a str, expected a GenerationRequest",)),
    Case("request_impossible", ('what rewrite_request returned was ignored: There is no sampler named "Nonesuch"',)),
    Case("picture_wrong_type", ("rewrite_picture returned a ndarray of float64",)),
    Case("picture_huge", ("what rewrite_picture returned was ignored: The picture has 100000x100000 pixels",)),
    Case("picture_empty", ("what rewrite_picture returned was ignored: The picture has 64x0 pixels",)),
    Case("picture_in_place", ("rewrite_picture failed: ValueError: cannot set WRITEABLE flag",)),
    Case("request_in_place", ("before_job changed the request that it was shown; that was ignored",)),
    Case("infotext_list", ("write_infotext returned a list, expected a mapping",)),
    Case("infotext_huge", ("write_infotext returned 2000004 characters, at most 100000 are taken",)),
    Case("infotext_traps", ("what write_infotext returned cannot be read and was ignored: RuntimeError: no text",)),
    Case("threads", ("before_job failed: ValueError: and still there",)),
    Case("prints_garbage", ("before_job failed: ValueError: after printing",)),
    Case("name_path", ("register_ui_tabs returned a Tab whose id is not made of letters",)),
)

AT_INSTALLATION = (
    ("A zip with names that lead out of its folder (`../`, absolute, with drives, with backslashes)", "refused"),
    ("A zip whose common folder leads out", "refused"),
    ("A zip with symbolic links or devices", "refused"),
    ("A zip that inflates to more than is taken, or lies about its sizes", "refused"),
    ("A zip of very many files, or whose list of files would fill the memory", "refused"),
    ("A damaged zip, and a large file that is called one", "refused"),
    ("A folder with links, sockets, too many or too large files", "refused"),
    ("A repository with links, submodules, or names that lead out of it", "refused"),
    ("A repository that does not arrive, or fills the disk while it does", "stopped"),
    ("Files that were changed after they were shown (tampered hash)", "refused"),
    ("Packages that conflict with those of the program", "refused"),
)
"""What ``test_install_hostile.py``, ``test_install.py`` and ``test_install_packages.py`` cover."""


def table() -> str:
    """``extensions/HOSTILE.md``."""
    rows = [f"| `{case.name}` | {case.does} | {'; '.join(f'“{words}”' for words in case.said)} |" for case in CASES]
    refused = [f"| {does} | {outcome} |" for does, outcome in AT_INSTALLATION]
    return "\n".join(
        [
            "# What hostile and broken extensions can do",
            "",
            f"With each of these {len(CASES)} extensions the program starts, makes the same picture, bit for bit,",
            "as without any, and says what happened. `tests/plugins/test_hostile.py` tries them one by one, and all of",
            "them together with a real worker process. What each file contains is in `tests/plugins/hostile/`.",
            "",
            "| extension | what it does | what is said about it |",
            "|---|---|---|",
            *rows,
            "",
            "Not even installed are (see `test_install_hostile.py`, `test_install.py` and `test_install_packages.py`):",
            "",
            "| what is offered | outcome |",
            "|---|---|",
            *refused,
            "",
            "What this is not: a sandbox. An extension runs with all rights of the program; one that means harm can",
            "read your files and send them away. Install those you trust.",
            "",
        ]
    )
