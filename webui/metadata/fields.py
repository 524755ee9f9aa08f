"""Keys of a ``parameters`` text that plugins give to fields of a request (the hook ``register_infotext_fields``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from webui.hooks import hookimpl
from webui.request import GenerationRequest


def plain_text(value: Any) -> str:
    """A value as AUTOMATIC1111 writes it: ``True``, ``7``, ``0.5``."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class InfotextField:
    """A key, and the field of the request that it stands for.

    ``path`` is dotted ("sampling.guidance.rescale").  The key is written where the field is not at its default, as
    ``write`` says it (None: never; the text of another program is only read), and read by ``read``, which raises
    ValueError for a text that means nothing.  Options of a conditioning module need none: their keys come from its
    record.
    """

    key: str
    path: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] | None = plain_text


BUILT_IN = (InfotextField(key="CFG rescale", path="sampling.guidance.rescale", read=float),)
"""A word of ours: AUTOMATIC1111 has no such option."""


@hookimpl
def register_infotext_fields() -> list[InfotextField]:
    """The built-in ones."""
    return list(BUILT_IN)


def value_at(record: Any, path: str) -> Any:
    """The value at a dotted path.  Raises LookupError where there is none."""
    for name in path.split("."):
        if not is_dataclass(record) or name not in {one.name for one in fields(record)}:
            raise LookupError(path)
        record = getattr(record, name)
    return record


def wrong(field: InfotextField) -> str | None:
    """Why a field cannot be used, None when it can."""
    if (
        not field.key
        or len(field.key) > 60
        or any(sign in field.key for sign in ',:"\n')
        or field.key.strip() != field.key
    ):
        return "a key is a few words without comma, colon and quotation mark"
    try:
        value = value_at(GenerationRequest(), field.path)
    except (LookupError, AttributeError):
        return f'no request has the field "{field.path}"'
    if is_dataclass(value) or isinstance(value, tuple):
        return f'the field "{field.path}" is no single value'
    return None


def pairs(request: GenerationRequest, known: Iterable[InfotextField]) -> Iterator[tuple[str, str]]:
    """The pairs of a request's text: of fields that are not at their default."""
    for field in known:
        value = value_at(request, field.path)
        if field.write is not None and value != value_at(_DEFAULT, field.path):
            yield field.key, field.write(value)


_DEFAULT = GenerationRequest()
