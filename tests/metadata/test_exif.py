"""Exif texts in JPEG and WebP: piexif and Pillow read ours; and the files of all formats together."""

from __future__ import annotations

import hashlib
import io
import struct

import numpy as np
import piexif
import piexif.helper
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from webui.errors import MetadataError, OutputError
from webui.metadata import exif
from webui.metadata.files import encode_picture, pixel_digest, read_picture_texts

PIXELS = np.random.default_rng(5).integers(0, 256, (16, 24, 3), dtype=np.uint8)
TEXTS = {"parameters": 'a "猫" 😀\nNegative prompt: é\nSteps: 3', "recipe": '{"prompt":"猫 😀"}'}
FORMATS = ["png", "jpeg", "webp"]
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=2000)


@pytest.mark.parametrize("kind", FORMATS)
@given(texts, texts)
@example("", "")
@example("\ufeffa", "a")
@example("Ā", "")
def test_what_is_written_is_read(kind: str, parameters: str, recipe: str) -> None:
    written = {"parameters": parameters.removeprefix("\ufeff"), "recipe": recipe}
    assert read_picture_texts(encode_picture(PIXELS, kind, written)) == written


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_piexif_and_pillow_read_ours(kind: str) -> None:
    data = encode_picture(PIXELS, kind, TEXTS)
    tags = piexif.load(data)["Exif"]
    assert piexif.helper.UserComment.load(tags[piexif.ExifIFD.UserComment]) == TEXTS["parameters"]
    assert tags[piexif.ExifIFD.UserComment].startswith(b"UNICODE\0" + "a ".encode("utf-16-be"))
    assert tags[piexif.ExifIFD.MakerNote] == b"webui recipe\0" + TEXTS["recipe"].encode()
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == kind.upper() and image.size == (24, 16)
        assert image.getexif().get_ifd(0x8769)[0x9286] == tags[piexif.ExifIFD.UserComment]


def test_a_small_value_stands_in_its_field() -> None:
    """Values of at most 4 bytes have no offset of their own."""
    block = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: b"abc"}})
    assert exif.read_block(block) == {"parameters": "abc"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"UNICODE\0" + "a cat, é".encode("utf-16-le"), "a cat, é"),
        (b"UNICODE\0" + "\ufeffa cat".encode("utf-16-le"), "a cat"),
        (b"UNICODE\0" + "\ufeff猫".encode("utf-16-be"), "猫"),
        (b"ASCII\0\0\0a cat\0", "a cat"),
        (bytes(8) + "é".encode(), "é"),
        (b"no code at all", "no code at all"),
    ],
)
def test_comments_of_other_programs(value: bytes, text: str) -> None:
    block = piexif.dump({"Exif": {piexif.ExifIFD.UserComment: value}})
    assert exif.read_block(block) == {"parameters": text}


def test_little_endian_exif_is_read() -> None:
    pointer = struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    comment = struct.pack("<HHHIII", 1, 0x9286, 7, 14, 44, 0)
    block = b"Exif\0\0II*\0\x08\0\0\0" + pointer + comment + b"ASCII\0\0\0little"
    assert exif.read_block(block) == {"parameters": "little"}


def test_exif_of_a_png_stands_above_its_chunks() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", "chunk")
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", pnginfo=info, exif=exif.write_block({"parameters": "exif"}))
    assert read_picture_texts(stream.getvalue()) == {"parameters": "exif"}


def test_the_comment_of_a_gif() -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "GIF", comment="a cat 猫".encode())
    assert read_picture_texts(stream.getvalue()) == {"parameters": "a cat 猫"}
    assert read_picture_texts(stream.getvalue().replace("a cat 猫".encode(), b"\xff" * 9))["parameters"]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "PNG"])
def test_a_picture_without_text_has_none(kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind)
    assert read_picture_texts(stream.getvalue()) == {}


def test_what_does_not_fit_into_jpeg_fits_into_webp() -> None:
    long = {"parameters": "猫" * 30_000, "recipe": "{}"}
    most = (exif.MAX_JPEG_BLOCK - 200) // 2
    fits = {"parameters": "a" * most, "recipe": "{}"}
    assert read_picture_texts(encode_picture(PIXELS, "jpg", fits)) == fits
    assert read_picture_texts(encode_picture(PIXELS, "webp", {"parameters": "猫" * 90_000})) == {
        "parameters": "猫" * 90_000
    }
    for size in range(most, most + 200):  # up to the last byte it is our sentence, never the encoder's failure
        try:
            encode_picture(PIXELS, "jpeg", {"parameters": "a" * size})
        except OutputError as error:
            assert "PNG or WebP" in str(error)
    with pytest.raises(OutputError, match="JPEG file holds"):
        encode_picture(PIXELS, "jpeg", {"parameters": "猫" * 40_000})
    assert read_picture_texts(encode_picture(PIXELS, "jpeg", long)) == long


def test_what_cannot_be_saved_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="tiff"):
        encode_picture(PIXELS, "tiff", {})
    with pytest.raises(OutputError, match="workflow"):
        encode_picture(PIXELS, "jpeg", {"workflow": "{}"})
    with pytest.raises(OutputError, match="Save it as PNG"):
        encode_picture(np.zeros((1, 16_384, 3), np.uint8), "webp", {})


@pytest.mark.parametrize(("kind", "quality"), [("png", 1), (".PNG", 95), ("webp", 100)])
def test_lossless_files_keep_the_pixels(kind: str, quality: int) -> None:
    with Image.open(io.BytesIO(encode_picture(PIXELS, kind, TEXTS, quality))) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), PIXELS)


def test_the_digest_is_of_size_and_pixels() -> None:
    assert pixel_digest(PIXELS) == hashlib.sha256(b"RGB8 24x16\n" + PIXELS.tobytes()).hexdigest()
    assert pixel_digest(PIXELS[::-1]) == pixel_digest(PIXELS[::-1].copy())
    assert pixel_digest(PIXELS.reshape(24, 16, 3)) != pixel_digest(PIXELS)


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data())
def test_damage_is_a_metadata_error(kind: str, data: st.DataObject) -> None:
    whole = bytearray(encode_picture(PIXELS, kind, TEXTS))
    for position in data.draw(st.lists(st.integers(0, 400), max_size=5)):
        whole[position] = data.draw(st.integers(0, 255))
    try:
        read_picture_texts(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except MetadataError:
        return


@given(st.binary(max_size=200))
def test_any_bytes_are_a_metadata_error_at_worst(data: bytes) -> None:
    beginnings = (b"", b"\xff\xd8", b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPEXIF\x10\0\0\0", b"GIF89a")
    for file in (beginning + data for beginning in beginnings):
        try:
            read_picture_texts(file)
        except MetadataError:
            continue
    for block in (data, b"II*\0\x08\0\0\0" + data, b"MM\0*\0\0\0\x08" + data):
        try:
            exif.read_block(block)
        except MetadataError:
            continue
