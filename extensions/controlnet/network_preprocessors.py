"""Control pictures that networks make: listed while their file lies in ``models/ControlNetPreprocessor``.

Names, order of steps and numbers are those of Mikubill/sd-webui-controlnet (``scripts/preprocessor``, ``annotator``).
The networks are in ``depth``, ``hed``, ``line_drawing`` and ``pidinet``, which only the worker reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from webui.preprocessors import Preprocessor, Weights, file_called

from .depth_folders import DEPTH_ANYTHING, DPT, WEIGHTS, folder_of
from .preprocessors import checked, grey

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from webui.checkpoints.formats import WeightsFile
    from webui.checkpoints.library import ModelEntry
    from webui.result import Pixels

    Shares = NDArray[np.floating[Any]]
    """Numbers (H, W) from 0 to 1."""

SIDE = 64
"""Networks see pictures whose sides are multiples of so many pixels."""
STEPS = 2
"""The safe soft edges have so many levels above black."""
STROKE = 3.0
"""The Gaussian of a scribble's strokes, in pixels."""
STRONG = 127
"""A scribble is drawn along edges above this level."""


def at_padded(pixels: Pixels, shares: Callable[[Pixels], Shares]) -> Shares:
    """What ``shares`` makes of a picture whose border pixels are repeated up to a multiple of 64, cut back again."""
    import numpy as np

    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % SIDE), (0, -width % SIDE), (0, 0)), mode="edge")
    return shares(padded)[:height, :width]


def in_steps(shares: Shares) -> Shares:
    """Black, grey or white: edges in which no picture can hide."""
    import numpy as np

    return (shares.astype(np.float32) * (STEPS + 1)).astype(np.int32).astype(np.float32) / STEPS


def scribble(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Thick white strokes on black along the ridges of soft edges (H, W).

    A ridge is a maximum, after a Gaussian, along any of the four directions of a square of 3 x 3.
    """
    import cv2
    import numpy as np

    soft = cv2.GaussianBlur(levels.astype(np.float32), (0, 0), STROKE)
    middle, slope = np.zeros((3, 3), np.uint8), np.eye(3, dtype=np.uint8)
    middle[1] = 1
    ridge = np.zeros(levels.shape, bool)
    for direction in (middle, middle.T.copy(), slope, slope[:, ::-1].copy()):
        ridge |= cv2.dilate(soft, direction) == soft
    drawn = np.where(ridge & (soft > STRONG), 255, 0).astype(np.uint8)
    strokes = cv2.GaussianBlur(drawn, (0, 0), STROKE)
    return np.where(strokes > 4, 255, 0).astype(np.uint8)


def in_levels(shares: Shares) -> NDArray[np.uint8]:
    """Shares as levels from 0 to 255, rounded down as upstream does."""
    import numpy as np

    return (shares * 255).clip(0, 255).astype(np.uint8)


def softedge_safe(shares: Shares) -> NDArray[np.uint8]:
    """Soft edges of three levels."""
    return in_levels(in_steps(shares))


def scribbled(shares: Shares) -> NDArray[np.uint8]:
    """Soft edges as strokes."""
    return scribble(in_levels(shares))


def inverted(shares: Shares) -> NDArray[np.uint8]:
    """A drawing on white paper as white lines on black."""
    return 255 - in_levels(shares)


Seen = Callable[[Any, "Pixels"], "Shares"]
Find = Callable[["Sequence[ModelEntry]"], "ModelEntry | None"]


def _made(
    name: str, alias: str, file: str, part: str, look: str, finish: Callable[[Any], Any], *tags: str
) -> Preprocessor:
    """A preprocessor that asks the network of ``part`` for shares by its function ``look``, and finishes them."""

    def run(pixels: Pixels, options: Mapping[str, Any], network: Any) -> Pixels:
        checked(name, (), options)
        seen: Seen = getattr(import_module(f".{part}", __package__), look)
        return grey(finish(at_padded(pixels, lambda padded: seen(network, padded))))

    return Preprocessor(
        name=name,
        run=run,
        aliases=(alias,) if alias else (),
        scaled=True,
        tags=tags,
        weights=Weights(file=file, find=file_called(file), build=BUILDERS[part]),
    )


def _builder(part: str) -> Callable[[WeightsFile, torch.device], Any]:
    def build(file: WeightsFile, device: torch.device) -> Any:
        return import_module(f".{part}", __package__).load(file, device)

    return build


BUILDERS = {part: _builder(part) for part in ("depth", "hed", "line_drawing", "pidinet")}
"""How the network of each part is built: one function a part, so that a loaded network serves all that share it."""
HED = "ControlNetHED.pth"
PIDINET = "table5_pidinet.pth"
STROKES = ("Scribble", "Sketch")


def _depth(name: str, alias: str, model: str, find: Find) -> Preprocessor:
    """A preprocessor that asks a network of depth; near is white.  It sees the picture at a size of its own."""

    def run(pixels: Pixels, options: Mapping[str, Any], network: Any) -> Pixels:
        checked(name, (), options)
        nearness: Seen = import_module(".depth", __package__).nearness
        return grey(in_levels(nearness(network, pixels)))

    return Preprocessor(
        name=name,
        run=run,
        aliases=(alias,) if alias else (),
        scaled=True,
        tags=("Depth",),
        weights=Weights(file=FILE_OF_DEPTH.format(model), find=find, build=BUILDERS["depth"]),
    )


FILE_OF_DEPTH = f"{WEIGHTS} of a {{}} model (with its config.json, in a folder of its own)"


def network_preprocessors() -> list[Preprocessor]:
    """All of them, in the order in which they are listed, whether their file is there or not."""
    first, second = (folder_of(DEPTH_ANYTHING, second=version) for version in (False, True))
    return [
        _depth("depth_anything", "", "Depth Anything", first),
        _depth("depth_anything_v2", "", "Depth Anything V2", second),
        _depth("depth_midas", "depth", "DPT depth", folder_of(DPT)),
        _made("lineart_coarse", "", "sk_model2.pth", "line_drawing", "drawing", inverted, "Lineart"),
        _made("lineart_realistic", "lineart", "sk_model.pth", "line_drawing", "drawing", inverted, "Lineart"),
        _made("scribble_hed", "", HED, "hed", "edges", scribbled, *STROKES),
        _made("scribble_pidinet", "pidinet_scribble", PIDINET, "pidinet", "edges", scribbled, *STROKES),
        _made("softedge_hed", "hed", HED, "hed", "edges", in_levels, "SoftEdge"),
        _made("softedge_hedsafe", "hed_safe", HED, "hed", "edges", softedge_safe, "SoftEdge"),
        _made("softedge_pidinet", "pidinet", PIDINET, "pidinet", "edges", in_levels, "SoftEdge"),
        _made("softedge_pidisafe", "pidinet_safe", PIDINET, "pidinet", "edges", softedge_safe, "SoftEdge"),
    ]
