"""An example extension: one more noise schedule.  Copy it, or delete it; nothing depends on it.

"Cosine (example)" walks ln(sigma) along half a cosine wave, so that steps are close together at both ends, where the
layout of the picture and its finest detail are decided, and far apart between.  Pictures made with the other schedules
stay as they are.  Every hook, with an example for each: README.md in this folder.
"""

from __future__ import annotations

import math

from webui.diffusion.schedules import NoiseTable, Schedule
from webui.hooks import hookimpl

__version__ = "1.0"


def cosine(table: NoiseTable, n: int) -> list[float]:
    """n + 1 decreasing noise levels: the highest trained one first, the lowest last but one, then 0."""
    high, low = math.log(table.sigma_max), math.log(table.sigma_min)
    parts = [(1 - math.cos(math.pi * i / max(n - 1, 1))) / 2 for i in range(n)]
    return [*(math.exp(high + (low - high) * part) for part in parts), 0.0]


@hookimpl
def register_schedules() -> list[Schedule]:
    """Called once at start; what it returns is in the page, the API and the command line."""
    return [Schedule(name="Cosine (example)", key="cosine_example", sigmas=cosine)]
