"""where each text holds -> how much it counts at each place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from webui.errors import RequestError

from .grid import numbers


def per_region(text: str, label: str, regions: int, most: float) -> NDArray[np.float64]:
    """One number for each region, said once for all or one by one between commas.  Raises RequestError."""
    try:
        found = numbers(text)
    except ValueError:
        found = ()
    if len(found) not in (1, regions) or max(found) > most:
        raise RequestError(
            f'Regional: {label} is "{text}"; it must be one number from 0 to {most:g}, or {regions} with commas.'
        )
    return np.full(regions, found) if len(found) == 1 else np.array(found)


def shares(
    masks: NDArray[np.float32],
    weights: NDArray[np.float64],
    base_ratios: NDArray[np.float64] | None,
) -> NDArray[np.float32]:
    """(regions + 1, H, W): how much the base, and then each region, counts at a place; they add up to 1 everywhere.

    Where regions overlap they count by their ``weights`` (regions,).  ``base_ratios`` (regions,) is how much of each
    region the base takes; where there is no region the base holds alone.  Without a base (None) that is region 1's.
    """
    weighted = masks * weights[:, None, None]
    total = weighted.sum(axis=0)
    empty = total <= 0
    parts = np.where(empty, 0, weighted / np.where(empty, 1, total))
    if base_ratios is None:
        parts[0] += empty
        return np.concatenate([np.zeros_like(parts[:1]), parts]).astype(np.float32)
    kept = parts * (1 - base_ratios)[:, None, None]
    return np.concatenate([1 - kept.sum(axis=0, keepdims=True), kept]).astype(np.float32)
