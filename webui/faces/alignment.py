"""A face cut out upright and laid back: the geometry that face restorers were trained with.

The places of the points are those of the FFHQ crops, the soft edge that of ``xinntao/facexlib``
``utils/face_restoration_helper.py`` (without its parsing network), as AUTOMATIC1111 uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from webui.faces.detection import Points

if TYPE_CHECKING:
    from webui.result import Pixels

SIDE = 512
PLACES = np.array(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043],
     [313.08905, 371.15118]], np.float32,
)  # fmt: skip
"""Where the five points of a face lie in its crop of 512x512."""
OUTSIDE = (132, 133, 135)
"""The grey that a crop shows beyond the picture's edge."""


def mend(pixels: Pixels, faces: Sequence[Points], repair: Callable[[Pixels], Pixels]) -> Pixels:
    """The picture (H, W, 3) with each face as ``repair`` makes it of its crop (512, 512, 3); edges fade."""
    import cv2

    result = pixels.astype(np.float32)
    for face in faces:
        into, _ = cv2.estimateAffinePartial2D(face, PLACES, method=cv2.LMEDS)
        if into is None or not np.isfinite(into).all() or abs(np.linalg.det(into[:, :2])) < 1e-9:
            continue  # points in one place are no face
        crop = cv2.warpAffine(
            np.ascontiguousarray(pixels), into, (SIDE, SIDE), borderMode=cv2.BORDER_CONSTANT, borderValue=OUTSIDE
        )
        result = _laid_back(result, repair(crop), cv2.invertAffineTransform(into))
    return result.round().clip(0, 255).astype(np.uint8)


def _laid_back(
    picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    crop: Pixels,
    back: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The picture with a crop laid over its place, within which it fades by a tenth of the face's side."""
    import cv2

    size = (picture.shape[1], picture.shape[0])
    face = cv2.warpAffine(crop, back, size).astype(np.float32)
    inside = cv2.erode(cv2.warpAffine(np.ones((SIDE, SIDE), np.float32), back, size), np.ones((2, 2), np.uint8))
    edge = int(float(inside.sum()) ** 0.5) // 20
    middle = cv2.erode(inside, np.ones((edge * 2, edge * 2), np.uint8)) if edge else inside
    soft = cv2.GaussianBlur(middle, (edge * 2 + 1, edge * 2 + 1), 0)[:, :, None]
    mixed: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = soft * inside[:, :, None] * face + (1 - soft) * picture
    return mixed
