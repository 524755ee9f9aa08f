"""Reading pictures: what the pixels are, and that nothing hostile gets through as anything but PictureError."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.errors import PictureError
from webui.images.pixels import MAX_BYTES, MAX_PIXELS, picture_size, read_pixels

SCENE = np.random.default_rng(1).integers(0, 256, (6, 4, 3), dtype=np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_png_is_read_as_it_is() -> None:
    pixels = read_pixels(saved(Image.fromarray(SCENE)))
    assert pixels.dtype == np.uint8 and pixels.flags.writeable
    assert np.array_equal(pixels, SCENE)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read_pixels(saved(Image.fromarray(SCENE), kind, **options)), SCENE)


TURNED = {
    1: SCENE,
    2: SCENE[:, ::-1],
    3: SCENE[::-1, ::-1],
    4: SCENE[::-1],
    5: SCENE.transpose(1, 0, 2),
    6: np.rot90(SCENE, -1),
    7: SCENE[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(SCENE),
}
"""What each value of Exif's Orientation means (CIPA DC-008, 4.6.4)."""


@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(SCENE), exif=exif)
    assert np.array_equal(read_pixels(data), TURNED[orientation])
    assert picture_size(data) == TURNED[orientation].shape[1::-1]


def test_transparency_shows_the_background() -> None:
    colours = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    data = saved(Image.fromarray(colours))
    assert read_pixels(data).tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]
    assert read_pixels(data, background="#000000")[0, 1].tolist() == [0, 0, 0]


def test_a_transparent_palette_shows_the_background() -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    data = saved(image, transparency=bytes([0, 255]))
    assert read_pixels(data).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_sixteen_bits_keep_their_brightness() -> None:
    grey = np.array([[0, 257 * 100, 65535]], np.uint16)
    assert read_pixels(saved(Image.fromarray(grey)))[0, :, 0].tolist() == [0, 100, 255]


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_pixels(data)[0, 0].tolist() == [255, 0, 0]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and has none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8193, 8192), (40_000, 1), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_by_the_header(size: tuple[int, int]) -> None:
    assert size[0] * size[1] > MAX_PIXELS or max(size) > 32_768
    for read in (read_pixels, picture_size):
        with pytest.raises(PictureError, match="megapixels"):
            read(png_of_size(*size))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(PictureError, match="bytes"):
        read_pixels(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"not a picture", b"\x00\x00\x00\x1cftypavif", b"%PDF-1.4"]
)
def test_no_picture(data: bytes) -> None:
    with pytest.raises(PictureError):
        read_pixels(data)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]), st.data())
def test_damage_is_a_picture_error(kind: str, data: st.DataObject) -> None:
    whole = bytearray(saved(Image.fromarray(SCENE), kind))
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[position] = data.draw(st.integers(0, 255))
    part = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        pixels = read_pixels(part)
    except PictureError:
        return
    assert pixels.ndim == 3 and pixels.dtype == np.uint8
