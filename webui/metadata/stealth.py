"""Text hidden in a picture's lowest bits, "stealth PNG info": NovelAI writes it, and Forge and AUTOMATIC1111 may.

A name of 15 bytes, the number of bits that follow (32 bits, big-endian) and the text, in the lowest bits of alpha, or
of red, green and blue, column by column (neggles/sd-webui-stealth-pnginfo, ``scripts/stealth_pnginfo.py``).
"""

from __future__ import annotations

import io
import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.metadata.png import MAX_TEXT

NAME_BYTES = 15
_NAMES = {b"stealth_pnginfo": False, b"stealth_pngcomp": True, b"stealth_rgbinfo": False, b"stealth_rgbcomp": True}
"""Whether the text is packed by gzip, by the name in front of it."""
MAX_PIXELS = 64 * 1024 * 1024
_MODES = ("RGB", "RGBA")
_GZIP = 31
"""zlib's window for data in gzip's form."""


def read_hidden(data: bytes) -> dict[str, str]:
    """The texts hidden in a PNG or WebP file; empty when nothing is hidden there, or it cannot be read."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "WEBP")) as image:
            if image.mode not in _MODES or image.width * image.height > MAX_PIXELS:
                return {}
            pixels = np.asarray(image)
    except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        return {}
    planes = [pixels[..., 3:]] if pixels.shape[2] == 4 else []
    for plane in [*planes, pixels[..., :3]]:
        text = _hidden_in(plane)
        if text is not None:
            return _texts(text)
    return {}


def _hidden_in(plane: NDArray[np.uint8]) -> str | None:
    """The text in the lowest bits of channels (H, W, C); None where no name of such a text begins them."""
    columns = plane.transpose(1, 0, 2)
    head = _bytes(columns, NAME_BYTES + 4)
    packed = _NAMES.get(head[:NAME_BYTES])
    if packed is None or len(head) < NAME_BYTES + 4:
        return None
    length = int.from_bytes(head[NAME_BYTES:], "big") // 8
    if length > MAX_TEXT:
        return None
    body = _bytes(columns, NAME_BYTES + 4 + length)[NAME_BYTES + 4 :]
    if packed:
        try:
            body = zlib.decompressobj(_GZIP).decompress(body, MAX_TEXT)
        except zlib.error:
            return None
    return body.decode("utf-8", "replace")


def _bytes(columns: NDArray[np.uint8], count: int) -> bytes:
    """The first bytes that the lowest bits spell, fewer where the picture ends."""
    _, height, channels = columns.shape
    needed = -(-count * 8 // max(1, height * channels))
    bits = columns[:needed].reshape(-1) & 1
    return np.packbits(bits[: count * 8]).tobytes()[: min(count, bits.size // 8)]


def _texts(text: str) -> dict[str, str]:
    """The texts by keyword: NovelAI hides a JSON object of them, others the ``parameters``."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return {"parameters": text}
    return {
        str(key): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in found.items()
    }
