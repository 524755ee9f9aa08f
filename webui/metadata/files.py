"""pixels and texts <-> picture files, for every format that pictures are saved in or read from.

The order in which texts are looked for is AUTOMATIC1111's (``modules/images.py``, ``read_info_from_image``): the text
chunks of PNG, the Exif comment above them, the comment of a GIF.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from PIL import Image

from webui.errors import MetadataError, OutputError
from webui.metadata import exif, png
from webui.result import Pixels

QUALITY = 95


def encode_picture(pixels: Pixels, format: str, texts: Mapping[str, str], quality: int = QUALITY) -> bytes:
    """A file of the picture (H, W, 3) with ``texts`` in it; ``format`` is png, jpeg (or jpg) or webp.

    ``quality`` 1 to 100 counts for JPEG and WebP; WebP of quality 100 is lossless, as PNG is.  Raises OutputError when
    the format cannot hold the picture or the texts.
    """
    kind = format.lower().removeprefix(".").replace("jpg", "jpeg")
    if kind == "png":
        return png.write_png(pixels, texts)
    if kind not in ("jpeg", "webp"):
        raise OutputError(f'Pictures cannot be saved as "{format}"; choose png, jpeg or webp.')
    block = exif.write_block(texts)
    if kind == "jpeg" and len(block) > exif.MAX_JPEG_BLOCK:
        raise OutputError(
            f"The prompt and the recipe take {len(block)} bytes; a JPEG file holds {exif.MAX_JPEG_BLOCK}. "
            "Save the picture as PNG or WebP."
        )
    options = {"lossless": True} if kind == "webp" and quality >= 100 else {"quality": quality}
    stream = io.BytesIO()
    try:
        Image.fromarray(pixels).save(stream, kind.upper(), exif=block, **options)
    except (OSError, ValueError) as error:
        raise OutputError(f"The picture cannot be saved as {kind}: {error}. Save it as PNG.") from error
    return stream.getvalue()


def read_picture_texts(data: bytes) -> dict[str, str]:
    """The texts of a PNG, JPEG, WebP or GIF file by keyword (``parameters``, ``recipe``, ...), possibly none.

    Raises MetadataError for other files and for damaged ones.
    """
    if data.startswith(png.SIGNATURE):
        return {**png.read_texts(data), **_texts_of(png.read_exif_block(data))}
    if data.startswith(b"\xff\xd8"):
        return _texts_of(exif.jpeg_block(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _texts_of(exif.webp_block(data))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif_texts(data)
    raise MetadataError("This is not a PNG, JPEG, WebP or GIF file, so it carries no text about how it was made.")


def _texts_of(block: bytes | None) -> dict[str, str]:
    return exif.read_block(block) if block else {}


def _gif_texts(data: bytes) -> dict[str, str]:
    try:
        with Image.open(io.BytesIO(data), formats=("GIF",)) as image:
            comment = image.info.get("comment", b"")
    except Exception as error:  # Pillow's reader raises OSError, SyntaxError, EOFError, struct.error and more
        raise MetadataError(f"The GIF file is damaged: {error}.") from error
    return {"parameters": comment.decode("utf-8", "replace")} if comment else {}


def pixel_digest(pixels: Pixels) -> str:
    """The SHA-256 (64 hexadecimal digits) of a picture's size and pixels, whatever file they are in."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"RGB8 {width}x{height}\n".encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()
