"""Embeddings inside of pictures, as AUTOMATIC1111 writes them when it trains one.

Facts: AUTOMATIC1111 ``modules/textual_inversion/image_embedding.py``.  A PNG holds JSON in base64 in its text chunk
``sd-ti-embedding``.  Where a picture lost its text, its pixels still tell: two blocks, left and right of the picture
and each a black column away from it, hold the low and the high halves of the bytes of compressed JSON, in the low four
bits of each colour, covered by a known sequence of random numbers.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.errors import PictureError
from webui.images.pixels import MAX_BYTES, picture_size

SUFFIXES = (".png", ".webp")
CHUNK = "sd-ti-embedding"
MAX_JSON = 64 * 1024 * 1024
"""Most bytes of JSON that a picture's pixels are unpacked to."""
_TENSOR = "TORCHTENSOR"


@dataclass(frozen=True)
class PictureEmbedding:
    """What a picture holds: the word that it states, "" when it states none, and vectors (n, width), float32."""

    word: str
    vectors: NDArray[np.float32]


def embedding_in(path: Path) -> PictureEmbedding | None:
    """The embedding in a picture; None for a picture that holds none, as most do, and for one that cannot be read."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _remembered(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _remembered(path: Path, size: int, mtime_ns: int) -> PictureEmbedding | None:
    try:
        data = _data(path)
        tensors = list(data["string_to_param"].values())
        vectors = np.atleast_2d(np.asarray(tensors[0][_TENSOR], dtype=np.float32))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError, zlib.error):
        return None
    name = data.get("name", "")
    if len(tensors) != 1 or vectors.ndim != 2:
        return None
    return PictureEmbedding(name if isinstance(name, str) else "", vectors)


def _data(path: Path) -> Any:
    """The JSON in a picture.  Raises ValueError, among others, when there is none."""
    with path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    try:
        picture_size(raw)  # within the limits for pictures
        with Image.open(io.BytesIO(raw), formats=("PNG", "WEBP")) as image:
            image.load()
            text: str | None = getattr(image, "text", {}).get(CHUNK)
            pixels = np.asarray(image.convert("RGB"))
    except (PictureError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return json.loads(_hidden(pixels) if text is None else base64.b64decode(text))


def _hidden(pixels: NDArray[np.uint8]) -> bytes:
    """The bytes hidden in a picture (H, W, 3)."""
    darkest = pixels.min(axis=2)
    rows, columns = np.flatnonzero(darkest.max(axis=1)), np.flatnonzero(darkest.max(axis=0))
    if not len(rows):
        raise ValueError("a black picture")
    low_bits: NDArray[np.uint8] = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] & np.uint8(15)
    black = np.flatnonzero(low_bits.max(axis=(0, 2)) == 0)
    if len(black) < 2:
        raise ValueError("no blocks beside the picture")
    low, high = (_uncovered(block) for block in (low_bits[:, : black[0]], low_bits[:, black[-1] + 1 :]))
    # The sequence of bytes ends within the blocks; what follows it is the sequence again.
    return zlib.decompressobj().decompress((high << 4 | low).tobytes(), MAX_JSON)


def _uncovered(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A block without the random numbers on it: s -> 1664525 s + 1013904223 modulo 2^32 from 0, then modulo 255.

    (Numerical Recipes, 2nd edition, section 7.1.)  The k-th is the increment times the first k powers of the factor.
    """
    factors = np.full(block.size, 1664525, dtype=np.uint32)
    factors[:1] = 1
    sums = np.add.accumulate(np.multiply.accumulate(factors, dtype=np.uint32), dtype=np.uint32)
    numbers = (sums * np.uint32(1013904223)) % np.uint32(255)
    uncovered: NDArray[np.uint8] = block.ravel() ^ (numbers & 15).astype(np.uint8)
    return uncovered
