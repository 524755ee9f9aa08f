from __future__ import annotations

import base64
import io
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from embedding_pictures import (
    FIRST_NUMBERS,
    embedding_data,
    plain_picture,
    random_numbers,
    with_hidden,
    with_text,
)

from webui.checkpoints.pictures import embedding_in

VECTORS = np.random.default_rng(1).normal(size=(3, 32)).round(6).tolist()


def found_in(folder: Path, data: bytes, name: str = "x.png") -> object:
    (folder / name).write_bytes(data)
    return embedding_in(folder / name)


def test_the_numbers_on_the_blocks_are_the_known_ones() -> None:
    assert tuple(islice(random_numbers(), len(FIRST_NUMBERS))) == FIRST_NUMBERS


@pytest.mark.parametrize("form", ["text", "hidden", "hidden in a WebP", "hidden with a black frame"])
def test_a_pictures_vectors_are_read(tmp_path: Path, form: str) -> None:
    data = embedding_data(VECTORS)
    made = {
        "text": lambda: with_text(data),
        "hidden": lambda: with_hidden(data),
        "hidden in a WebP": lambda: with_hidden(data, "WEBP"),
        "hidden with a black frame": lambda: with_hidden(data, margin=5),
    }[form]()
    found = found_in(tmp_path, made)
    assert found is not None
    assert found.word == "Blot" and found.vectors.dtype == np.float32  # type: ignore[attr-defined]
    assert np.array_equal(found.vectors, np.float32(VECTORS))  # type: ignore[attr-defined]


def test_the_text_counts_where_the_pixels_say_something_else(tmp_path: Path) -> None:
    found = found_in(tmp_path, with_text(embedding_data([[1.0, 2.0]], name="other")))
    assert found.word == "other" and found.vectors.tolist() == [[1.0, 2.0]]  # type: ignore[union-attr, attr-defined]


def plain() -> bytes:
    stream = io.BytesIO()
    plain_picture().save(stream, "PNG")
    return stream.getvalue()


NONE = {
    "a plain picture": plain(),
    "no picture": b"<html>",
    "nothing": b"",
    "a cut off picture": with_text(embedding_data(VECTORS))[:-200],
    "text that is no base64": with_text("!!"),
    "text that is no JSON": with_text(base64.b64encode(b"{").decode()),
    "JSON nested a million times": with_text(base64.b64encode(b"[" * 10**6).decode()),
    "two words": with_text(embedding_data(VECTORS, words=2)),
    "ragged vectors": with_text(embedding_data([[1.0], [1.0, 2.0]])),
    "vectors of texts": with_text(embedding_data([["a"]])),  # type: ignore[list-item]
    "an empty table": with_text({"string_to_param": {}}),
    "another table": with_text({"name": "x"}),
    "a bomb in the pixels": with_hidden(b" " * 100_000_000),
    "hidden text that is no JSON": with_hidden(b"hello"),
}


@pytest.mark.parametrize("case", NONE)
def test_all_others_hold_none(tmp_path: Path, case: str) -> None:
    assert found_in(tmp_path, NONE[case]) is None


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert found_in(tmp_path, plain()) is None
    assert found_in(tmp_path, with_text(embedding_data(VECTORS))) is not None
    (tmp_path / "x.png").unlink()
    assert embedding_in(tmp_path / "x.png") is None


def test_the_bomb_is_one() -> None:
    assert len(zlib.compress(b" " * 100_000_000, 9)) < 100_000
