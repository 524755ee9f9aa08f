"""Every error a person can meet, each one clear sentence: what was found, what was expected, what to do.

Raised anywhere below the user interface; the page, the API and the command line show ``str(error)`` and nothing else.
An exception that is *not* a :class:`WebUIError` is a defect of ours: it is logged with its traceback, and the person
is told so in one sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class WebUIError(Exception):
    """Base of all errors that are meant for a person.  ``status`` is the HTTP status that the API answers."""

    status: ClassVar[int] = 400


class RequestError(WebUIError):
    """A request that cannot mean anything: a number out of range, an unknown name, fields that contradict."""

    status = 422


class NotFoundError(WebUIError):
    """A job, picture, model or file that was named and is not there."""

    status = 404


class CheckpointError(WebUIError):
    """A model file that cannot be used: damaged, incomplete, of an unknown family."""

    status = 422


class UnsafeFileError(CheckpointError):
    """A file that asks for more than weights (a call, a program), refused; nothing of it was run."""


class PictureError(WebUIError):
    """A picture that cannot be read, or is larger than the limits."""

    status = 422


class FetchError(WebUIError):
    """A picture that may not, or could not, be fetched from the address that was given."""

    status = 500


class MetadataError(WebUIError):
    """A picture whose text does not tell how it was made, or tells it in a damaged form."""

    status = 422


class OutputError(WebUIError):
    """A finished picture could not be written (disk full, folder not writable)."""

    status = 507


class NumbersError(WebUIError):
    """A network answered what is no number (NaN or infinite): values too large for the precision, or bad weights."""

    status = 422


class TrainingError(WebUIError):
    """A training that cannot go on: its loss is no number any more, or nothing is left to learn from."""

    status = 422


class ExtensionError(WebUIError):
    """An extension failed; the sentence names the extension, the hook and the file."""

    status = 500


class InstallError(WebUIError):
    """An extension that was not installed, updated or removed; what was there before is still there."""

    status = 422


class RightsError(WebUIError):
    """Something that this person, from this place, may not do on this server."""

    status = 403


class WorkerError(WebUIError):
    """The worker process ended or could not be started while a job was under way."""

    status = 503


class ExtensionCrashError(WorkerError):
    """The worker process was lost within an extension's call; that extension is switched off, the job may go on."""

    def __init__(self, sentence: str, extension: str) -> None:
        super().__init__(sentence)
        self.extension = extension


class JobCancelled(Exception):
    """Raised between two sampling steps when the job was interrupted.  Not an error: finished pictures are kept."""


DEFECT = "Something went wrong inside the program; the log names the place. The next jobs go on."
"""What a person is told about an exception that is not meant for people."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """The error for a name that is in no registry, with the nearest known name as a suggestion.

    >>> str(unknown_name("sampler", "Eulr", ["Euler", "Heun"]))
    'There is no sampler named "Eulr"; did you mean "Euler"? Known: Euler, Heun.'
    """
    names = sorted(known)
    lowered = {candidate.casefold(): candidate for candidate in names}
    near = difflib.get_close_matches(name.casefold(), lowered, n=1, cutoff=0.5)
    guess = f'; did you mean "{lowered[near[0]]}"?' if near else "."
    return RequestError(f'There is no {kind} named "{name}"{guess} Known: {", ".join(names) or "none"}.')
