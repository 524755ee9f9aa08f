"""file bytes -> pixels, within limits.

Called wherever a picture comes from outside: uploads, start images, masks, pictures to reproduce.  Sizes are checked
in the file's header before a pixel is decoded, so that a small file cannot fill the memory.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from webui.errors import PictureError
from webui.result import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64 * 1024 * 1024
MAX_SIDE = 32_768
MAX_BYTES = 128 * 1024 * 1024
BACKGROUND = "#ffffff"
"""What shines through transparent parts of a start image, as AUTOMATIC1111's ``img2img_background_color``."""


def read_pixels(data: bytes, *, background: str = BACKGROUND) -> Pixels:
    """The picture (H, W, 3) uint8 RGB, upright, laid on ``background``; of an animation the first frame.

    Raises PictureError for damaged files, unknown formats and pictures beyond the limits of this module.
    """
    return np.array(flatten(open_picture(data), background))


def picture_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels as the picture will be read (upright), from the header and without decoding."""
    with _opened(data) as image:
        try:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception:  # a damaged Exif block turns nothing, as in ``open_picture``
            turned = False
        return (image.height, image.width) if turned else image.size


def open_picture(data: bytes) -> Image.Image:
    """The decoded picture, upright, in mode L, RGB or RGBA (whenever anything in it is transparent).

    Raises PictureError as :func:`read_pixels` does.
    """
    with _opened(data) as image:
        try:
            image.load()
            return _plain(_upright(image))
        except MemoryError as error:
            raise PictureError("The picture is too large for the memory of this computer.") from error
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
            raise PictureError(f"The picture is damaged: {error}.") from error


def flatten(image: Image.Image, background: str = BACKGROUND) -> Image.Image:
    """The picture in mode RGB, its transparent parts showing ``background`` (as AUTOMATIC1111 ``images.flatten``)."""
    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, background)
        ground.paste(image, mask=image)
        image = ground
    return image.convert("RGB")


def check_size(width: int, height: int) -> None:
    """Raise PictureError for a picture of no pixels, or of more than are handled."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise PictureError(
            f"The picture has {width}x{height} pixels; at most {MAX_PIXELS // 1024**2} megapixels "
            f"and {MAX_SIDE} a side are read. Make it smaller first."
        )
    if min(width, height) < 1:
        raise PictureError(f"The picture has {width}x{height} pixels; it must have one at least.")


def unwritable(pixels: Pixels) -> Pixels:
    """The same picture in memory that nobody can write to, whatever flags are set."""
    return np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape)


def _opened(data: bytes) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise PictureError(f"The picture has {len(data)} bytes; at most {MAX_BYTES} are read.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(f"The picture is larger than {MAX_PIXELS // 1024**2} megapixels.") from error
    except Exception as error:
        raise PictureError(
            f"This is not a picture that can be read; accepted are {', '.join(FORMATS)}, whole and undamaged."
        ) from error
    check_size(*image.size)
    return image


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its Exif orientation says; a damaged Exif block turns nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel
        levels = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "1"):
        return image.convert("L")
    return image.convert("RGB")
