"""PNG texts: Pillow reads ours, we read Pillow's, and hostile files end in MetadataError."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from webui.errors import MetadataError
from webui.metadata.png import MAX_TEXT, SIGNATURE, read_texts, write_png

PIXELS = np.random.default_rng(4).integers(0, 256, (5, 7, 3), dtype=np.uint8)
TEXTS = {"parameters": "a cat\nSteps: 3", "recipe": '{"a":1}'}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


@given(texts, texts)
@example("猫 😀\r\n", "é")
def test_what_is_written_is_read_by_us_and_by_pillow(parameters: str, recipe: str) -> None:
    written = {"parameters": parameters, "recipe": recipe}
    data = write_png(PIXELS, written)
    assert read_texts(data) == written
    with Image.open(io.BytesIO(data)) as image:
        assert image.text == written
        assert np.array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize(("text", "kind"), [("café", b"tEXt"), ("猫", b"iTXt")])
def test_parameters_are_latin1_where_that_holds_them(text: str, kind: bytes) -> None:
    data = write_png(PIXELS, {"parameters": text})
    assert kind + b"parameters\0" in data
    assert b"iTXtrecipe\0" in write_png(PIXELS, {"recipe": "plain"})


def test_every_kind_of_text_that_pillow_writes() -> None:
    info = PngInfo()
    info.add_text("plain", "é" * 9)
    info.add_text("packed", "a" * 999, zip=True)
    info.add_itxt("utf8", "猫", lang="ja", tkey="題")
    info.add_itxt("packed utf8", "猫" * 99, zip=True)
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG", pnginfo=info)
    assert read_texts(stream.getvalue()) == {
        "plain": "é" * 9,
        "packed": "a" * 999,
        "utf8": "猫",
        "packed utf8": "猫" * 99,
    }


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zlib.compress(bytes(200 * 1024 * 1024), 9)
    for body in (b"k\0\0" + bomb,):
        with pytest.raises(MetadataError, match="limit"):
            read_texts(png(chunk(b"zTXt", body)))
    with pytest.raises(MetadataError, match="limit"):
        read_texts(png(chunk(b"iTXt", b"k\0\1\0\0\0" + bomb)))


def test_many_texts_have_a_limit_together() -> None:
    large = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * MAX_TEXT))
    assert len(read_texts(png(large, large))["k"]) == MAX_TEXT
    with pytest.raises(MetadataError, match="limit"):
        read_texts(png(large, large, large))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        SIGNATURE + b"\0",
        SIGNATURE + struct.pack(">I", 2**31) + b"IDATxxxxxxxx",
        png(chunk(b"tEXt", b"no end")),
        png(chunk(b"zTXt", b"k\0\1" + zlib.compress(b"a"))),
        png(chunk(b"zTXt", b"k\0\0not zlib")),
        png(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 99)[:-6])),
        png(chunk(b"iTXt", b"k\0\0\0\0\0\xff")),
        png(chunk(b"iTXt", b"k\0\2\0\0\0a")),
        png(chunk(b"iTXt", b"k\0")),
        png(chunk(b"tEXt", b"k\0a")[:-1] + b"!"),
    ],
)
def test_damaged_files(data: bytes) -> None:
    with pytest.raises(MetadataError):
        read_texts(data)


@given(st.data())
def test_damage_anywhere_is_a_metadata_error(data: st.DataObject) -> None:
    whole = bytearray(write_png(PIXELS, TEXTS))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    try:
        read = read_texts(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except MetadataError:
        return
    assert all(TEXTS.get(keyword) == text for keyword, text in read.items())  # the checksums let no wrong text through


@given(st.binary())
def test_any_bytes_are_a_metadata_error_at_worst(data: bytes) -> None:
    for file in (data, SIGNATURE + data, png(chunk(b"iTXt", data)), png(chunk(b"zTXt", data))):
        try:
            read_texts(file)
        except MetadataError:
            continue
