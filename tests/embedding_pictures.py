"""Pictures with an embedding in them, written from the description in ``webui/checkpoints/pictures.py``.

The random numbers on the blocks are those that AUTOMATIC1111 ``image_embedding.py`` states for its own check.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

FIRST_NUMBERS = (253, 242, 127, 44, 157, 27, 239, 133, 38, 79, 167, 4, 177, 95, 130, 79, 78, 14, 52, 215)


def random_numbers() -> Iterator[int]:
    seed = 0
    while True:
        seed = (1664525 * seed + 1013904223) % 2**32
        yield seed % 255


def embedding_data(vectors: list[list[float]], name: str = "Blot", words: int = 1) -> dict[str, Any]:
    params = {"*" * (i + 1): {"TORCHTENSOR": vectors} for i in range(words)}
    return {"string_to_token": {"*": 265}, "string_to_param": params, "name": name, "step": 7, "sd_checkpoint": None}


def plain_picture(width: int = 40, height: int = 48) -> Image.Image:
    colours = np.random.default_rng(3).integers(40, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(colours | 1)  # no black column of its own


def with_text(data: dict[str, Any] | str) -> bytes:
    text = data if isinstance(data, str) else base64.b64encode(json.dumps(data).encode()).decode()
    info = PngInfo()
    info.add_text("sd-ti-embedding", text)
    stream = io.BytesIO()
    plain_picture().save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def with_hidden(data: dict[str, Any] | bytes, kind: str = "PNG", margin: int = 0) -> bytes:
    packed = zlib.compress(data if isinstance(data, bytes) else json.dumps(data).encode(), 9)
    picture = plain_picture()
    rows = picture.height
    columns = -(-len(packed) // (3 * rows)) + 1
    padded = (packed * (3 * rows * columns // len(packed) + 1))[: 3 * rows * columns]
    whole = Image.new("RGB", (2 * columns + picture.width + 2, rows))
    for digit, left in ((0, 0), (1, columns + picture.width + 2)):
        covered = [(byte >> 4 * digit & 15) ^ (number & 15) for byte, number in zip(padded, random_numbers())]  # noqa: B905
        pattern = np.random.default_rng(digit).integers(1, 16, len(covered), dtype=np.uint8) << 4
        block = (np.array(covered, dtype=np.uint8) | pattern).reshape(rows, columns, 3)
        whole.paste(Image.fromarray(block), (left, 0))
    whole.paste(picture, (columns + 1, 0))
    framed = Image.new("RGB", (whole.width + 2 * margin, whole.height + 2 * margin))
    framed.paste(whole, (margin, margin))
    stream = io.BytesIO()
    framed.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()
