"""pixels and texts <-> picture files, for every format that pictures are saved in or read from.

The order in which texts are looked for is AUTOMATIC1111's (``modules/images.py``, ``read_info_from_image``): the text
chunks of PNG, the Exif comment above them, the comment of a GIF.  Last comes a text hidden in the pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from PIL import Image

from webui.errors import MetadataError, OutputError
from webui.metadata import exif, png
from webui.metadata.infotext import parse
from webui.metadata.stealth import read_hidden
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
    """The texts of a picture or of a text beside one by keyword (``parameters``, ``recipe``, ...), possibly none.

    Raises MetadataError for other files than PNG, JPEG, WebP, AVIF, GIF and text, and for damaged ones.
    """
    if data.startswith(png.SIGNATURE):
        texts = {**png.read_texts(data), **_texts_of(png.read_exif_block(data))}
        return texts if _TELLING & texts.keys() else {**texts, **read_hidden(data)}
    if data.startswith(b"\xff\xd8"):
        return _texts_of(exif.jpeg_block(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _texts_of(exif.webp_block(data)) or read_hidden(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif_texts(data)
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return _avif_texts(data)
    text = _plain_text(data)
    if text is not None:
        return {"parameters": text}
    raise MetadataError(
        "This is not a PNG, JPEG, WebP, AVIF or GIF file, nor a text, so it does not tell how a picture was made."
    )


_TELLING = frozenset(
    {
        *("parameters", "recipe", "Comment", "prompt", "workflow", "invokeai_metadata", "sd-metadata", "Dream"),
        *("use_stable_diffusion_model", "Stable Diffusion model"),
    }
)
"""Keywords of texts that tell how a picture was made; without them there may be a hidden one."""


def _plain_text(data: bytes) -> str | None:
    """The text of a file beside a picture, which AUTOMATIC1111 may write; None for a file that is none."""
    if len(data) > png.MAX_TEXT or b"\0" in data:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    is_object = text.lstrip().startswith("{")
    return text if is_object or parse(text).fields else None


def _avif_texts(data: bytes) -> dict[str, str]:
    try:
        with Image.open(io.BytesIO(data), formats=("AVIF",)) as image:
            block = image.info.get("exif")
    except Exception as error:  # Pillow's reader raises OSError, SyntaxError, ValueError and more
        raise MetadataError(f"The AVIF file is damaged: {error}.") from error
    return _texts_of(block)


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
