"""Several pictures as one: the overview that a batch ends with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from webui.result import Pixels


def grid(pictures: Sequence[Pixels], rows: int | None = None) -> Pixels:
    """The pictures row by row on black, in ``rows`` rows; without a number, in round(sqrt(n)) rows.

    Every cell has the size of the largest picture.  At least one picture is needed.
    """
    rows = rows or round(math.sqrt(len(pictures)))
    columns = math.ceil(len(pictures) / rows)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    result = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        result[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return result
