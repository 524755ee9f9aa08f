"""Where the faces of a picture are: five points each, by whichever detector a person has put into the models folder.

RetinaFace finds the faces that AUTOMATIC1111 finds; YuNet (through OpenCV) is small and fast; OpenCV 4 brings Haar
cascades along, which see only upright faces from the front and no points, so that these are guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from webui.errors import CheckpointError
from webui.faces import FaceWork, file_named, missing

if TYPE_CHECKING:
    from webui.checkpoints.library import ModelEntry
    from webui.result import Pixels

Points = NDArray[np.float32]
"""(5, 2): x and y of the eye on the picture's left, the other eye, the nose's tip, and the mouth's two corners."""
RETINAFACE_FILE = "detection_Resnet50_Final.pth"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_SCORE = 0.7
YUNET_OVERLAP = 0.3
YUNET_SIDE = 1280
"""A larger picture is shown to YuNet made smaller to this side."""
SMALLEST_EYES = 5.0
"""A face whose eyes are fewer pixels apart is left alone (facexlib's ``eye_dist_threshold`` in AUTOMATIC1111)."""
_IN_A_HAAR_BOX = np.array([[0.31, 0.38], [0.69, 0.38], [0.5, 0.58], [0.35, 0.77], [0.65, 0.77]], np.float32)


def find_faces(pixels: Pixels, work: FaceWork) -> list[Points]:
    """The points of each face in a picture (H, W, 3), the largest face first; possibly none.

    Raises NotFoundError when there is no detector: a sentence that names the file to get.
    """
    faces = _detect(pixels, work)
    apart = [float(np.linalg.norm(face[0] - face[1])) for face in faces]
    order = sorted(range(len(faces)), key=lambda number: -apart[number])
    return [faces[number] for number in order if apart[number] >= SMALLEST_EYES]


def retinaface_file(entries: Sequence[ModelEntry]) -> ModelEntry | None:
    """RetinaFace's file, which goes before the other detectors; None when it is not there."""
    return file_named(entries, "detection_resnet50")


def _detect(pixels: Pixels, work: FaceWork) -> list[Points]:
    retinaface = retinaface_file(work.entries)
    if retinaface is not None:
        return _by_retinaface(pixels, retinaface, work)
    yunet = _yunet_file(work.folder)
    if yunet is not None:
        return by_yunet(pixels, yunet)
    haar = _haar_file()
    if haar is not None:
        return by_haar(pixels, haar)
    raise missing("Finding faces", f"{RETINAFACE_FILE} (or {YUNET_FILE})", work.folder / "face")


def _by_retinaface(pixels: Pixels, entry: ModelEntry, work: FaceWork) -> list[Points]:
    from webui.networks.retinaface import find, load

    return find(pixels, load(entry.path, work.networks.compute, work.networks.formats))


def _yunet_file(folder: Path) -> Path | None:
    found = (path for name in ("face", "GFPGAN", "Codeformer") for path in sorted((folder / name).glob("*yunet*.onnx")))
    return next(found, None)


def by_yunet(pixels: Pixels, file: Path) -> list[Points]:
    """The faces that YuNet sees (Wu, Peng, Yu 2023, doi:10.1007/s11633-023-1423-y), through OpenCV."""
    import cv2

    height, width = pixels.shape[:2]
    shrink = min(1.0, YUNET_SIDE / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = cv2.resize(np.ascontiguousarray(pixels[:, :, ::-1]), size, interpolation=cv2.INTER_AREA)
    try:
        detector = cv2.FaceDetectorYN.create(str(file), "", size, YUNET_SCORE, YUNET_OVERLAP)
        _, found = detector.detect(small)
    except cv2.error as error:
        raise CheckpointError(f"{file.name} cannot be used: OpenCV reads no YuNet detector from it.") from error
    rows = found if found is not None else np.zeros((0, 15), np.float32)
    factor = np.array([width / size[0], height / size[1]], np.float32)
    return [row[4:14].reshape(5, 2).astype(np.float32) * factor for row in rows]


def _haar_file() -> Path | None:
    """The cascade that ships inside OpenCV 4; OpenCV 5 has none."""
    import cv2

    data = getattr(cv2, "data", None)
    file = Path(data.haarcascades) / "haarcascade_frontalface_default.xml" if data else None
    return file if file is not None and hasattr(cv2, "CascadeClassifier") and file.is_file() else None


def by_haar(pixels: Pixels, file: Path) -> list[Points]:
    """The faces that a Haar cascade sees (Viola, Jones 2001), their points where they usually are in its box."""
    import cv2

    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    cascade: Any = cv2.CascadeClassifier  # type: ignore[attr-defined, unused-ignore]  # of OpenCV 4
    boxes: Sequence[Sequence[int]] = cascade(str(file)).detectMultiScale(grey, 1.1, 5, minSize=(24, 24))
    return [points_of_box(*box) for box in boxes]


def points_of_box(left: int, top: int, width: int, height: int) -> Points:
    """Where the five points of an upright face usually are in the box of a Haar cascade."""
    return _IN_A_HAAR_BOX * np.array([width, height], np.float32) + np.array([left, top], np.float32)
