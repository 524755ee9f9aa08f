"""How extensions behave in this session: the time of their calls, what went wrong, and who is switched off.

Filled by ``calling``; shown by the page, the API and ``Plugins.report``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

MAX_PROBLEMS = 100
"""So many sentences are kept; an extension's may name pictures or numbers, so that no two are alike."""
SHOWN_CHARACTERS = 300
"""How much of an error's own words is shown."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A sentence about an extension that was left out or failed, and the place it speaks of."""

    sentence: str
    extension: str = ""
    hook: str = ""
    file: str = ""
    line: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(kw_only=True)
class HookTime:
    """The calls of one hook of one extension in this process."""

    calls: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a call."""
        self.calls += 1
        self.total_s += seconds
        self.longest_s = max(self.longest_s, seconds)


class State(StrEnum):
    """What has become of an extension in this session."""

    ON = "on"
    LEFT_OUT = "left out"
    SWITCHED_OFF = "switched off"


@dataclass(kw_only=True)
class Conduct:
    """One extension in this process.

    ``root`` is its file or folder, which tells its frames in a traceback from those of others; ``why`` is the sentence
    that goes with a ``state`` other than ON, ``failure`` the one about what went wrong last.
    """

    name: str
    root: Path | None = None
    version: str = ""
    state: State = State.ON
    why: str = ""
    failure: str = ""
    failures: int = 0
    times: dict[str, HookTime] = field(default_factory=dict)

    @property
    def is_off(self) -> bool:
        """Whether its hooks are not called any more."""
        return self.state is not State.ON

    def owns(self, filename: str) -> bool:
        """Whether a source file is one of the extension's."""
        if self.root is None:
            return False
        return Path(filename) == self.root or self.root in Path(filename).parents


@dataclass(frozen=True, kw_only=True)
class ExtensionReport:
    """What a person is shown about an extension: how it stands, how long its hooks took, what went wrong."""

    name: str
    version: str
    state: str
    why: str
    failures: int
    hooks: Mapping[str, Mapping[str, float]]
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass
class Journal:
    """Every extension's conduct, and the problems in the order they came up.

    ``failures_allowed`` is how many a session bears; a success in between does not make up for one.
    """

    failures_allowed: int = 3
    problems: list[Problem] = field(default_factory=list)
    conducts: dict[str, Conduct] = field(default_factory=dict)

    def note(self, problem: Problem) -> None:
        """Log a problem, and keep it if it is new."""
        log.warning("%s", problem.sentence)
        known = any(problem.sentence == other.sentence for other in self.problems)
        if not known and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def failed(self, conduct: Conduct | None, problem: Problem, *, at_once: bool = False) -> None:
        """Note a failure; the extension that has failed too often, or hung (``at_once``), is switched off."""
        self.note(problem)
        if conduct is None:
            return
        conduct.failures += 1
        conduct.failure = problem.sentence
        if not conduct.is_off and (at_once or conduct.failures >= self.failures_allowed):
            times = "hung" if at_once else f"failed {conduct.failures} times"
            self.switch_off(conduct, f"The extension {conduct.name} {times} and is switched off until the next start.")

    def switch_off(self, conduct: Conduct, sentence: str) -> None:
        """Call no hook of the extension any more."""
        conduct.state, conduct.why = State.SWITCHED_OFF, sentence
        self.note(Problem(sentence=sentence, extension=conduct.name))

    def left_out(self, conduct: Conduct, problem: Problem) -> None:
        """Note that an extension could not be loaded."""
        conduct.state, conduct.why = State.LEFT_OUT, problem.sentence
        conduct.failures += 1
        self.note(problem)

    def report(self) -> list[ExtensionReport]:
        """Every extension that was found, in the order of loading."""
        return [self._report(conduct) for conduct in list(self.conducts.values())]

    def _report(self, conduct: Conduct) -> ExtensionReport:
        return ExtensionReport(
            name=conduct.name,
            version=conduct.version,
            state=conduct.state.value,
            why=conduct.why,
            failures=conduct.failures,
            hooks={hook: asdict(time) for hook, time in list(conduct.times.items())},
            problems=tuple(problem for problem in self.problems if problem.extension == conduct.name),
        )


@dataclass(frozen=True)
class Place:
    """Where something went wrong: a file's name and a line of it, as far as known."""

    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        return f" ({self.file}, line {self.line})" if self.file else ""


def place_of(error: BaseException, conduct: Conduct | None) -> Place:
    """The innermost line of the extension on the way to an error; the innermost of all when it has none there."""
    if isinstance(error, SyntaxError) and error.filename:
        return Place(Path(error.filename).name, error.lineno)
    found = innermost(error.__traceback__, conduct) or innermost(error.__traceback__, None)
    return found or Place()


def innermost(trace: TracebackType | None, conduct: Conduct | None) -> Place | None:
    """The last line of a traceback that is the extension's (``conduct`` None: anybody's)."""
    found = None
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if conduct is None or conduct.owns(filename):
            found = Place(Path(filename).name, trace.tb_lineno)
        trace = trace.tb_next
    return found


def said(error: BaseException) -> str:
    """The kind of an error and its own words, in one line, of an error that may be anything."""
    kind = printable(type(error).__name__)
    try:
        words = printable(error.msg if isinstance(error, SyntaxError) else str(error))
    except BaseException:  # an extension's own class of errors: its words may do whatever they like
        words = "(its words cannot be read)"
    return f"{kind}: {words}"


def printable(text: object) -> str:
    """A text that may come from anywhere, in one line of bounded length."""
    line = " ".join(str(text).split())
    line = "".join(letter if letter.isprintable() else "�" for letter in line[: 2 * SHOWN_CHARACTERS])
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"
