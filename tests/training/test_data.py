from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from webui.errors import PictureError, RequestError
from webui.training import data as data_module
from webui.training.data import DataSet, buckets, nearest, read_data
from webui.training.request import Data

Levels = NDArray[np.uint8]


def noise(width: int, height: int, seed: int = 0) -> Levels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def put(path: Path, levels: Levels | None = None, caption: str | None = "a thing", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(64, 64) if levels is None else levels).save(path, **options)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def read(folder: Path, size: int = 64, **options: Any) -> DataSet:
    return read_data(Data(folder=str(folder), **options), size)


def captions(data: DataSet) -> dict[str, str]:
    return {item.name: item.caption for item in data.items}


def test_captions_come_from_text_files_then_metadata_then_folder_names_then_the_request(tmp_path: Path) -> None:
    put(tmp_path / "a.png", caption="\ufeffone\n two ")
    put(tmp_path / "b.png", caption=None).with_suffix(".caption").write_text("from caption")
    put(tmp_path / "sub" / "c.png", caption=None)
    put(tmp_path / "sub" / "d.PNG", caption=None)
    put(tmp_path / "10_sks dog" / "e.png", caption=None)
    put(tmp_path / "2024_holiday" / "f.png", caption=None)
    put(tmp_path / "g.png", caption="")
    rows = [
        {"file_name": "a.png", "text": "text file wins"},
        {"file_name": "sub/c.png", "text": "above"},
        {"file_name": "./sub/d.PNG", "caption": "other key"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "sub" / "metadata.jsonl").write_text('{"file_name": "c.png", "text": "nearest"}\n\n')
    data = read(tmp_path, caption="for all", repeats=2)
    assert data.left_out == ()
    assert captions(data) == {
        "10_sks dog/e.png": "sks dog",
        "2024_holiday/f.png": "for all",
        "a.png": "one two",
        "b.png": "from caption",
        "g.png": "",
        "sub/c.png": "nearest",
        "sub/d.PNG": "other key",
    }
    assert [item.repeats for item in data.items] == [20, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("prefix", "wanted"), [("sks", "sks, dog"), ("sks ", "sks dog"), ("sks,", "sks,dog"), ("", "dog")]
)
def test_a_prefix_is_put_before_every_caption(tmp_path: Path, prefix: str, wanted: str) -> None:
    put(tmp_path / "a.png", caption="dog")
    assert captions(read(tmp_path, prefix=prefix)) == {"a.png": wanted}


def test_pictures_without_a_caption_are_left_out_unless_none_is_needed(tmp_path: Path) -> None:
    put(tmp_path / "a.png", caption=None)
    put(tmp_path / "b.png")
    assert read(tmp_path).left_out == (
        "a.png has no caption: put it into a .txt file beside it, or give one for all pictures.",
    )
    assert captions(read(tmp_path, prefix="sks")) == {"a.png": "sks", "b.png": "sks, a thing"}
    assert captions(read_data(Data(folder=str(tmp_path)), 64, captions=False)) == {"a.png": "", "b.png": "a thing"}


def test_lines_of_metadata_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "MAX_LINE", 200)
    root = tmp_path / "root"
    put(tmp_path / "outside.png", caption=None)
    put(root / "a.png", caption=None)
    put(root / "in" / "b.png", caption=None)
    lines = [
        '{"file_name": "../outside.png", "text": "x"}',
        json.dumps({"file_name": str(tmp_path / "outside.png"), "text": "x"}),
        '{"file_name": "C:\\\\a.png", "text": "x"}',
        '{"file_name": "in\\\\..\\\\..\\\\outside.png", "text": "x"}',
        "not json",
        "[" * 190,
        json.dumps({"file_name": "a.png", "text": "x" * 1000}),
        '{"file_name": "gone.png", "text": "x"}',
        '{"file_name": "nul\\u0000.png", "text": "x"}',
        '{"text": "x"}',
        '{"file_name": "a.png", "text": 3}',
        '{"file_name": "a.png", "width": 3}',
        '{"file_name": "a.png", "text": "good"}',
        '{"file_name": "in\\\\b.png", "text": "written on Windows"}',
    ]
    (root / "metadata.jsonl").write_text("\n".join(lines))
    data = read(root)
    assert captions(data) == {"a.png": "good", "in/b.png": "written on Windows"}
    assert [sentence.split(" of ")[0] for sentence in data.left_out] == [f"Line {n}" for n in range(1, 12)]
    for sentence, word in zip(
        data.left_out,
        [*["outside of its"] * 4, *["not JSON"] * 2, "200 bytes", *["not there"] * 2, 'no "file_name"', "no text"],
        strict=True,
    ):
        assert word in sentence


def test_bad_files_are_left_out_by_name_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "MAX_BYTES", 200_000)
    monkeypatch.setattr(data_module, "MAX_PIXELS", 512 * 512)
    frames = [Image.fromarray(noise(64, 64, seed)) for seed in (1, 2)]
    put(tmp_path / "good.png")
    put(tmp_path / "small.png", noise(15, 64))
    put(tmp_path / "heavy.bmp", noise(300, 300))
    put(tmp_path / "vast.png", np.zeros((600, 600, 3), np.uint8))
    put(tmp_path / "moving.png")
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    put(tmp_path / "moving.gif")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    put(tmp_path / "print.tiff")
    put(tmp_path / "binary.png").with_suffix(".txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "empty.txt").write_text("x")
    (tmp_path / "._good.png").write_bytes(b"a computer's own notes")
    (tmp_path / "notes.md").write_text("no picture, and no complaint about it")
    data = read(tmp_path)
    assert list(captions(data)) == ["good.png"]
    sentences = {sentence.split(" ")[0]: sentence for sentence in data.left_out}
    expected = {
        "small.png": "15x64 pixels would be enlarged 4.3 times; at most 4 times",
        "heavy.bmp": "too large: 270054 bytes",
        "vast.png": "too large: at most",
        "moving.png": "is animated",
        "moving.gif": "is animated",
        "print.tiff": "is a .tiff file; accepted are PNG",
        "binary.png": "not UTF-8",
        "empty.png": "is not a picture",
    }
    assert set(sentences) == set(expected)
    assert all(words in sentences[name] for name, words in expected.items())


def test_damage_deep_in_a_file_is_found_by_check_and_the_item_goes(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    whole = put(tmp_path / "b.png", noise(64, 64, 1)).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    put(tmp_path / "c.png", noise(64, 64, 2))
    data = read(tmp_path)
    put(tmp_path / "c.png", noise(64, 64, 3))
    assert len(data.items) == 3
    found = {index: sentence for index in range(3) if (sentence := data.check(index))}
    assert list(found) == [1, 2]
    assert found[1].startswith("b.png cannot be used.")
    assert found[2] == "c.png was changed after the training had begun."
    with pytest.raises(PictureError, match=r"b\.png"):
        data.pixels(1)
    rest = data.without(found)
    assert list(captions(rest)) == ["a.png"]
    assert rest.left_out == (found[1], found[2])
    assert rest.digest != data.digest
    with pytest.raises(RequestError, match=r"3 left out, the first because: b\.png"):
        rest.without({0: "bad"})


def test_nothing_to_learn_from_is_an_error_that_names_the_folder_and_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no folder"):
        read(tmp_path / "gone")
    with pytest.raises(RequestError, match="There is no picture in"):
        read(tmp_path)
    put(tmp_path / "a.png", caption=None)
    with pytest.raises(RequestError, match=r"no usable picture in .*: 1 left out, the first because: a\.png has no"):
        read(tmp_path)
    with pytest.raises(RequestError, match="multiple of 64"):
        read_data(Data(folder=str(tmp_path)), 100)


@given(st.integers(1, 32).map(lambda n: 64 * n))
def test_buckets_are_as_large_as_the_area_allows(size: int) -> None:
    found = buckets(size)
    assert (size, size) in found
    assert set(found) == {(height, width) for width, height in found}
    for width, height in found:
        assert width % 64 == height % 64 == 0
        assert width * height <= size * size
        assert max(width, height) <= 2 * min(width, height)
        for wider, higher in ((width + 64, height), (width, height + 64)):
            assert wider * higher > size * size or max(wider, higher) > 2 * min(wider, higher)


def test_buckets_of_512_are_those_counted_by_hand() -> None:
    assert buckets(512) == ((384, 640), (448, 576), (512, 512), (576, 448), (640, 384))
    assert nearest(buckets(512), 1920, 1080) == (640, 384)
    assert nearest(buckets(512), 100, 900) == (384, 640)
    assert nearest(buckets(512), 1000, 999) == (512, 512)


def test_a_picture_of_the_buckets_size_keeps_every_level(tmp_path: Path) -> None:
    levels = noise(256, 128)
    put(tmp_path / "a.png", levels)
    data = read(tmp_path, 192)
    assert (data.items[0].width, data.items[0].height) == (256, 128)
    assert np.array_equal(data.pixels(0), levels)
    assert np.array_equal(data.pixels(0, flip=True), levels[:, ::-1])


@pytest.mark.parametrize(("crop", "left"), [((0.0, 0.5), 0), ((0.5, 0.5), 20), ((1.0, 0.0), 40)])
def test_what_stands_over_is_cut_off_without_resampling(tmp_path: Path, crop: tuple[float, float], left: int) -> None:
    levels = noise(168, 128)
    put(tmp_path / "a.png", levels)
    data = read(tmp_path, 128, buckets=False)
    assert np.array_equal(data.pixels(0, crop=crop), levels[:, left : left + 128])


@given(st.integers(32, 700), st.integers(32, 700), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_any_picture_covers_its_bucket(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, x: float, y: float, flip: bool
) -> None:
    """A plain picture stays plain to its borders: nothing from outside of it is ever shown."""
    folder = tmp_path_factory.mktemp("plain")
    put(folder / "a.png", np.full((height, width, 3), (200, 40, 90), np.uint8))
    data = read(folder, 128)
    pixels = data.pixels(0, flip, (x, y))
    assert pixels.shape == (data.items[0].height, data.items[0].width, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (200, 40, 90)).all()


def test_proportions_are_kept_when_a_picture_is_resized(tmp_path: Path) -> None:
    """A ramp from left to right, twice as wide as the square: its middle half is shown, still a ramp."""
    ramp = np.broadcast_to(np.linspace(0, 255, 512)[None, :, None], (256, 512, 3)).astype(np.uint8)
    put(tmp_path / "a.png", np.ascontiguousarray(ramp))
    shown = read(tmp_path, 128, buckets=False).pixels(0)[64, :, 0].astype(int)
    expected = 255 / 511 * (128 + 2 * np.arange(128) + 0.5)
    assert np.abs(shown - expected).max() <= 2


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_pictures_are_turned_upright_as_their_exif_says(tmp_path: Path, suffix: str) -> None:
    levels = np.zeros((128, 256, 3), np.uint8)
    levels[:, 128:] = 255  # white at the right of the file; orientation 6 turns right to bottom
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path / f"a.{suffix}", levels, exif=exif)
    data = read(tmp_path, 192)
    assert (data.items[0].width, data.items[0].height) == (128, 256)
    assert data.pixels(0)[:120].mean() < 5
    assert data.pixels(0)[136:].mean() > 250


def test_transparent_and_other_modes_become_rgb_on_white(tmp_path: Path) -> None:
    for name, image in {
        "rgba": Image.new("RGBA", (64, 64), (255, 0, 0, 0)),
        "grey": Image.new("L", (64, 64), 255),
        "palette": Image.new("P", (64, 64), 0),
        "deep": Image.new("I;16", (64, 64), 65535),
    }.items():
        image.save(tmp_path / f"{name}.png")
    data = read(tmp_path, caption="x")
    shown = {item.name: data.pixels(index) for index, item in enumerate(data.items)}
    assert all(pixels.shape == (64, 64, 3) for pixels in shown.values())
    assert all((shown[f"{name}.png"] == 255).all() for name in ("rgba", "grey", "deep"))


def test_class_pictures_have_their_caption_no_prefix_and_share_the_buckets(tmp_path: Path) -> None:
    put(tmp_path / "own" / "a.png", noise(192, 192), caption=None)
    put(tmp_path / "own" / "class" / "x.png", noise(384, 192), caption=None)
    data = read(
        tmp_path / "own",
        192,
        caption="sks dog",
        prefix="photo",
        repeats=3,
        class_folder=str(tmp_path / "own" / "class"),
        class_caption="dog",
    )
    assert [(i.name, i.caption, i.is_class, i.repeats, i.width, i.height) for i in data.items] == [
        ("a.png", "photo, sks dog", False, 3, 192, 192),
        ("x.png", "dog", True, 1, 192, 192),
    ]
    with pytest.raises(RequestError, match="no usable picture in the training folder"):
        data.without({0: "bad"})


def test_control_pictures_are_found_by_name_and_cut_alike(tmp_path: Path) -> None:
    levels = noise(168, 128)
    put(tmp_path / "own" / "a.png", levels)
    put(tmp_path / "own" / "sub" / "b.jpg")
    put(tmp_path / "own" / "lonely.png")
    put(tmp_path / "control" / "a.webp", levels, caption=None, lossless=True)
    put(tmp_path / "control" / "b.png", noise(64, 64), caption=None)
    data = read(tmp_path / "own", 128, buckets=False, control_folder=str(tmp_path / "control"))
    assert [item.control and item.control.name for item in data.items] == ["a.webp", "b.png"]
    assert data.left_out == ("lonely.png has no control picture of the same name.",)
    assert np.array_equal(data.control_pixels(0, flip=True), data.pixels(0, flip=True))
    whole = (tmp_path / "control" / "a.webp").read_bytes()
    (tmp_path / "control" / "a.webp").write_bytes(whole[:100])
    assert "the control picture of a.png" in str(data.check(0))
    with pytest.raises(RequestError, match="not both"):
        read(tmp_path / "own", control_folder=str(tmp_path / "control"), class_folder=str(tmp_path / "own"))


def test_links_are_followed_to_files_only(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "a.png", caption=None)
    root = tmp_path / "root"
    root.mkdir()
    try:
        (root / "file.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    except OSError:
        pytest.skip("links cannot be made here")
    (root / "folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "broken.png").symlink_to(root / "gone.png")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.png")
    data = read(root, caption="x")
    assert list(captions(data)) == ["file.png"]
    assert all("is not a file" in sentence for sentence in data.left_out)
    assert len(data.left_out) == (3 if hasattr(os, "mkfifo") else 2)


def test_the_digest_tells_any_change_and_no_place(tmp_path: Path) -> None:
    for place in ("one", "two"):
        put(tmp_path / place / "a.png", noise(192, 128))
        put(tmp_path / place / "b.png", noise(64, 64))
    first = read(tmp_path / "one", 192)
    digest = first.digest
    assert digest == read(tmp_path / "two", 192).digest
    assert digest != read(tmp_path / "one", 192, buckets=False).digest
    assert digest != read(tmp_path / "one", 192, prefix="x").digest
    (tmp_path / "two" / "b.txt").write_text("another")
    assert digest != read(tmp_path / "two", 192).digest
    stream = io.BytesIO()
    Image.fromarray(noise(64, 64, 9)).save(stream, "PNG")
    (tmp_path / "one" / "b.png").write_bytes(stream.getvalue())
    assert digest == first.digest != read(tmp_path / "one", 192).digest
