"""What a kind of adapter has to offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, cast

from torch import Tensor

from webui.networks.adapters.parts import Parts


class Change(Protocol):
    """How one weight changes: a frozen dataclass of tensors and numbers.

    An ``additive`` change is the same for every weight of its shape, so several of them may be summed in any order.
    """

    @property
    def additive(self) -> bool:
        """Whether only the weight's shape counts."""

    def delta(self, weight: Tensor, multiplier: float = 1.0, ranks: int | None = None) -> Tensor:
        """``multiplier`` times (W' - W), float32, in the shape of ``weight``, which stays as it is.

        ``weight`` is float32 unless the change is additive.  ``ranks`` keeps only the first so many of a low-rank pair;
        other kinds have none.  Raises RuntimeError when the shapes do not fit.
        """


@dataclass(frozen=True)
class Kind:
    """A kind of adapter: any of the sets in ``needs`` tells it, ``takes`` are all the parts that it understands."""

    needs: tuple[frozenset[str], ...]
    takes: frozenset[str]
    make: Callable[[Parts], Change]


def on_meta(change: Change) -> Change:
    """The change without its numbers: shapes only."""
    record = cast(Any, change)
    moved = {field.name: _moved(getattr(record, field.name)) for field in fields(record)}
    return cast(Change, replace(record, **moved))


def _moved(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return on_meta(cast(Change, value)) if is_dataclass(value) and not isinstance(value, type) else value
