"""The data set of the embedded model: what captions and facts say is in the pixels, and the files are reproducible.

The drawings are discs made here; nothing is downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from webui.training.starter_data import artwork
from webui.training.starter_data.__main__ import main
from webui.training.starter_data.artwork import FLAT, SOLID, ArtworkError, Package
from webui.training.starter_data.captions import caption
from webui.training.starter_data.compose import ARRANGEMENTS, example, picture
from webui.training.starter_data.dataset import Order, Sprites, write, write_sprites
from webui.training.starter_data.scene import Facts, drawn_facts
from webui.training.starter_data.sprites import Rgba, SpriteBox, rasterised, recoloured
from webui.training.starter_data.vocabulary import (
    COLOUR_NAMES,
    COLOURS,
    DRAWINGS,
    NUMBERS,
    OBJECTS,
    PLACES,
    RECOLOURABLE,
    SCENES,
    SHAPES,
    SIZES,
    STYLES,
    SYNONYMS,
    held_out_backgrounds,
    held_out_colours,
    held_out_counts,
    held_out_pairs,
    plural,
)

FIRST_EDITION = [
    "cat", "panda", "frog", "penguin", "fish", "butterfly", "dinosaur", "apple", "pizza", "mushroom",
    "tree", "tulip", "star", "heart", "car", "rocket", "house", "balloon", "umbrella", "robot",
]  # fmt: skip
FIRST_EDITION_RECOLOURED = [
    "cat", "fish", "butterfly", "dinosaur", "apple", "mushroom", "tulip", "star", "heart", "car", "balloon", "umbrella",
]  # fmt: skip
MAGENTA = (255, 0, 255)


def disc(colour: tuple[int, int, int], side: int = 64) -> Rgba:
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[np.hypot(rows, columns) <= side / 2] = (*colour, 255)
    return pixels


@pytest.fixture(scope="module")
def sprites() -> Sprites:
    return {name: {"3d": disc(MAGENTA), "flat": disc(MAGENTA)} for name in DRAWINGS}


@pytest.fixture(scope="module")
def box(sprites: Sprites) -> SpriteBox:
    return SpriteBox(sprites)


@pytest.fixture(scope="module")
def facts() -> list[Facts]:
    return [drawn_facts(Random(f"7:{index}")) for index in range(3000)]


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* (D65) of sRGB 0 to 255, IEC 61966-2-1 and CIE 15."""
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = linear @ matrix.T / (matrix.sum(1))
    root = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], -1
    )


def border(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.asarray(np.median(edge, axis=0))


def components(mask: NDArray[np.bool_]) -> int:
    """Number of connected parts (4 neighbours)."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = 0
    while left:
        found += 1
        waiting = [left.pop()]
        while waiting:
            y, x = waiting.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    waiting.append(near)
    return found


def drawn(facts: Facts, box: SpriteBox, seed: int = 0) -> NDArray[np.uint8]:
    return np.asarray(picture(facts, Random(seed), box, 128))


def objects_mask(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.abs(pixels - border(pixels)).sum(-1) > 60
    return mask


def test_the_vocabulary_is_whole() -> None:
    assert len(DRAWINGS) >= 80 and len(set(OBJECTS)) == len(DRAWINGS) + 3
    assert set(RECOLOURABLE) <= set(OBJECTS) and set(SYNONYMS) <= {*OBJECTS, *COLOURS}
    words = [word for synonyms in SYNONYMS.values() for word in set(synonyms)]
    assert len(words) == len(set(words)), "a synonym of two words"
    assert not set(words) & {*OBJECTS, *COLOURS}


def test_the_first_editions_held_out_pairs_stay_held_out() -> None:
    backgrounds = {
        (name, COLOUR_NAMES[(5 * i + offset) % 12]) for i, name in enumerate(FIRST_EDITION) for offset in (2, 7)
    }
    colours = {(name, COLOUR_NAMES[(7 * i + 1) % 12]) for i, name in enumerate(FIRST_EDITION_RECOLOURED)}
    assert " ".join(COLOUR_NAMES) == "red orange yellow green cyan blue purple pink brown black white gray"
    assert backgrounds <= held_out_backgrounds()
    assert colours <= held_out_colours()
    assert {name for name, _ in held_out_backgrounds()} == set(OBJECTS)


def test_held_out_combinations_never_occur(facts: list[Facts]) -> None:
    for shown in facts:
        names = [shown.object, *filter(None, [shown.second])]
        behind = re.findall("|".join(COLOURS), shown.background_name) if shown.background != "scene" else []
        assert not {(name, colour) for name in names for colour in behind} & held_out_backgrounds()
        assert (shown.object, shown.colour) not in held_out_colours()
        assert (shown.second, shown.second_colour) not in held_out_colours()
        assert (shown.object, shown.count) not in held_out_counts()
        assert frozenset(names) not in held_out_pairs()


def test_the_shares_are_those_of_the_plan(facts: list[Facts]) -> None:
    def share(condition: list[bool]) -> float:
        return float(np.mean(condition))

    alone = [f.count == 1 and not (f.second or f.place or f.size) for f in facts]
    assert share(alone) >= 0.5
    assert share([f.background == "solid" for f in facts]) >= 0.55
    for wanted, got in (
        (0.45, share([f.style == "3d" for f in facts])),
        (0.30, share([f.style == "flat" for f in facts])),
        (0.09, share([f.count > 1 for f in facts])),
        (0.09, share([f.place is not None for f in facts])),
        (0.06, share([f.size is not None for f in facts])),
        (0.12, share([f.second is not None for f in facts])),
        (0.18, share([f.background == "scene" for f in facts])),
        (0.05, share([f.background == "gradient" for f in facts])),
    ):
        assert got == pytest.approx(wanted, abs=0.025)
    assert {f.object for f in facts} == set(OBJECTS)


def test_captions_say_what_the_facts_say(facts: list[Facts]) -> None:
    for index, shown in enumerate(facts):
        text = caption(shown, Random(index))
        for name, colour in shown.things:
            words = (name, *SYNONYMS.get(name, ()))
            assert any(plural(word) in text if shown.count > 1 else word in text for word in words), (text, shown)
            assert colour is None or any(word in text for word in (colour, *SYNONYMS.get(colour, ()))), (text, shown)
        assert (shown.count == 1) != (shown.count > 1 and text.find(NUMBERS[shown.count]) >= 0), (text, shown)
        assert shown.place is None or PLACES[shown.place] in text
        assert shown.size is None or any(word in text for word in SIZES[shown.size])
        assert ("background" in text) == (shown.background in ("solid", "gradient")), (text, shown)
        if shown.background == "scene":
            assert shown.background_name in text or any(phrase in text for phrase in SCENES[shown.background_name])
        for colour in shown.background_colours if shown.background != "plain" else ():
            assert any(word in text for word in (colour, *SYNONYMS.get(colour, ())))
        styles = [style for style, words in STYLES.items() if any(word in text for word in words)]
        assert styles == [shown.style] or (not styles and shown.style in ("3d", "flat")), (text, shown)
        assert not re.search(r"\ba [aeio]|\ban [^aeiou]| ,|, ,|  |^\W|\W$", text), text


def test_the_border_has_the_backgrounds_colour(box: SpriteBox, facts: list[Facts]) -> None:
    table = lab(np.array(list(COLOURS.values()), np.float64))
    solid = [shown for shown in facts if shown.background in ("solid", "plain")][:200]
    for index, shown in enumerate(solid):
        distances = np.linalg.norm(table - lab(border(drawn(shown, box, index))), axis=-1)
        assert COLOUR_NAMES[int(distances.argmin())] == shown.background_name
        assert distances.min() < 10, "the shade is drawn within 6 of 255 in each channel"


def test_as_many_objects_are_seen_as_are_counted(box: SpriteBox, facts: list[Facts]) -> None:
    clear = [f for f in facts if f.background == "solid" and f.style in ("3d", "flat")]
    several = [f for f in clear if f.count > 1 or f.second][:80]
    assert {f.count for f in several} == {1, 2, 3, 4}
    for index, shown in enumerate([*clear[:30], *several]):
        expected = 2 if shown.second else shown.count
        assert components(objects_mask(drawn(shown, box, index))) == expected, shown


@pytest.mark.parametrize("count", ARRANGEMENTS)
def test_counted_objects_never_touch_nor_leave_the_picture(box: SpriteBox, count: int) -> None:
    for seed in range(12):
        mask = objects_mask(drawn(Facts("square", "red", "solid", "white", "flat", count=count), box, seed))
        assert components(mask) == count
        assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()


@pytest.mark.parametrize("style", STYLES)
def test_place_and_size_are_in_the_pixels(box: SpriteBox, style: str) -> None:
    def seen(**asked: str) -> tuple[float, float, int]:
        rows, columns = np.nonzero(objects_mask(drawn(Facts("cat", None, "solid", "blue", style, **asked), box)))
        return float(columns.mean()) / 127 - 0.5, float(rows.mean()) / 127 - 0.5, int(np.ptp(columns))

    assert seen(place="left")[0] < -0.2 < 0.2 < seen(place="right")[0]
    assert seen(place="top")[1] < -0.2 < 0.2 < seen(place="bottom")[1]
    assert seen(size="small")[2] < 0.36 * 128 < 0.5 * 128 < seen()[2] < 0.82 * 128 < seen(size="big")[2]


def test_styles_are_what_they_are_called(box: SpriteBox) -> None:
    pixel = drawn(Facts("cat", None, "scene", "beach", "pixel"), box)
    blocks = pixel.reshape(32, 4, 32, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    line = drawn(Facts("cat", None, "plain", "white", "line"), box).astype(int)
    assert np.ptp(line[objects_mask(line.astype(np.uint8))], axis=-1).max() <= 12, "line art has no colours"
    assert line.min() < 60


def test_an_object_takes_the_colour_and_keeps_the_rest() -> None:
    pixels = disc((230, 40, 40))
    pixels[30:34, 30:34, :3] = 20
    blue = recoloured(pixels, COLOURS["blue"])
    assert np.abs(blue[10, 32, :3].astype(int) - COLOURS["blue"]).max() <= 3
    assert (blue[30:34, 30:34] == pixels[30:34, 30:34]).all()
    assert (blue[..., 3] == pixels[..., 3]).all()


@pytest.mark.parametrize("scene", SCENES)
def test_scenes_differ_from_each_other_and_from_themselves(box: SpriteBox, scene: str) -> None:
    shown = Facts("cat", None, "scene", scene, "flat")
    first = drawn(shown, box, 1)
    assert first.shape == (128, 128, 3)
    assert (first == drawn(shown, box, 1)).all() and (first != drawn(shown, box, 2)).any()
    for other in set(SCENES) - {scene}:
        assert np.abs(first.astype(int) - drawn(replace(shown, background_name=other), box, 1)).mean() > 3


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_files_depend_on_seed_and_number_alone(tmp_path: Path, sprites: Sprites, box: SpriteBox) -> None:
    write(sprites, Order(tmp_path / "one", 1006, 3, 32), workers=1)
    write(sprites, Order(tmp_path / "two", 1012, 3, 32), workers=2)
    fewer, more = files(tmp_path / "one"), files(tmp_path / "two")
    assert len(fewer) == 1006 and len(more) == 1012
    assert all(more[name] == data for name, data in fewer.items())
    lines = [(tmp_path / name / "metadata.jsonl").read_text("utf-8").splitlines() for name in ("one", "two")]
    assert len(lines[1]) == 1012 and lines[1][:1006] == lines[0]
    entry = json.loads(lines[0][1003])
    alone = example(3, 1003, SpriteBox(sprites), 32)
    assert entry["file_name"] == "001/001003.png" and entry["text"] == alone.caption
    assert Facts(**entry["facts"]) == alone.facts
    assert (np.asarray(Image.open(tmp_path / "one" / entry["file_name"])) == np.asarray(alone.picture)).all()
    assert example(4, 1003, box, 32).facts != alone.facts


def test_a_folder_is_added_to_but_never_mixed(tmp_path: Path, sprites: Sprites) -> None:
    write(sprites, Order(tmp_path, 3, 1, 32))
    write(sprites, Order(tmp_path, 5, 1, 32))
    assert len(files(tmp_path)) == 5
    about = json.loads((tmp_path / "dataset.json").read_text("utf-8"))
    assert about["count"] == 5 and about["sprites_sha256"] == SpriteBox(sprites).digest()
    assert [package["licence"] for package in about["packages"]] == ["MIT", "MIT"]
    for other in (Order(tmp_path, 5, 2, 32), Order(tmp_path, 5, 1, 64), Order(tmp_path, 4, 1, 32)):
        with pytest.raises(ArtworkError, match="empty or a new folder"):
            write(sprites, other)
    (tmp_path / "dataset.json").write_text("[1]", "utf-8")
    with pytest.raises(ArtworkError, match="empty or a new folder"):
        write(sprites, Order(tmp_path, 5, 1, 32))


def test_bare_sprites_are_written_in_both_finishes(tmp_path: Path, sprites: Sprites) -> None:
    write_sprites(sprites, tmp_path, 64)
    entries = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert len(entries) == 2 * len(OBJECTS)
    assert {(entry["facts"]["object"], entry["facts"]["style"]) for entry in entries} == {
        (name, style) for name in OBJECTS for style in ("3d", "flat")
    }
    pixels = np.asarray(Image.open(tmp_path / entries[0]["file_name"]))
    assert (pixels[0, 0] == COLOURS["white"]).all() and (pixels[32, 32] == MAGENTA).all()


def archive(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def pinned(data: bytes) -> Package:
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    return Package("@somebody/drawings", "1.0.0", f"sha512-{digest}", "MIT")


def test_unsafe_members_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = archive({"package/a.webp": b"drawing", "../evil": b"x", "/evil": b"x"}, {"package/b.webp": "/etc/passwd"})
    assert artwork.read_members(data, {"package/a.webp"}) == {"package/a.webp": b"drawing"}
    with pytest.raises(ArtworkError, match=r"lacks package/b\.webp"):
        artwork.read_members(data, {"package/a.webp", "package/b.webp"})
    assert not any(tmp_path.iterdir()) and not (tmp_path.parent / "evil").exists()


def test_a_member_larger_than_the_limit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artwork, "MAX_MEMBER_BYTES", 8)
    with pytest.raises(ArtworkError, match="lacks"):
        artwork.read_members(archive({"package/a": b"123456789"}), {"package/a"})


def test_a_damaged_archive_is_refused() -> None:
    whole = archive({"package/a": Random(1).randbytes(5000)})
    for damaged in (b"not an archive", whole[: len(whole) // 2]):
        with pytest.raises(ArtworkError, match="archive of drawings"):
            artwork.read_members(damaged, {"package/a"})


@pytest.fixture
def registry() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A registry on this computer: its address, and path -> content, filled by the test."""
    content: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = content.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", content
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_package_is_downloaded_once(tmp_path: Path, registry: tuple[str, dict[str, bytes]]) -> None:
    address, content = registry
    package = pinned(b"archive")
    content["/@somebody/drawings/-/drawings-1.0.0.tgz"] = b"archive"
    assert artwork.obtain(package, tmp_path / "cache", address) == b"archive"
    content.clear()
    assert artwork.obtain(package, tmp_path / "cache", address) == b"archive"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["somebody-drawings-1.0.0.tgz"]


def test_other_bytes_than_the_pinned_ones_are_refused(tmp_path: Path, registry: tuple[str, dict[str, bytes]]) -> None:
    address, content = registry
    package = pinned(b"archive")
    content["/@somebody/drawings/-/drawings-1.0.0.tgz"] = b"another archive"
    with pytest.raises(ArtworkError, match=r"is not @somebody/drawings 1\.0\.0"):
        artwork.obtain(package, tmp_path / "cache", address)
    assert not (tmp_path / "cache").exists()
    (tmp_path / package.file_name).write_bytes(b"tampered")
    with pytest.raises(ArtworkError, match="expected sha512-"):
        artwork.obtain(package, tmp_path, address)


def test_a_registry_that_is_not_there_costs_one_sentence(
    tmp_path: Path, registry: tuple[str, dict[str, bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / "out"), "--count", "1", "--cache", str(tmp_path), "--registry", registry[0]]
    assert main(given) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "could not be downloaded" in told and "npm pack" in told
    assert main([*given[:-1], "file:///somewhere"]) == 1
    assert "http or https" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_registry_is_the_configured_one(tmp_path: Path) -> None:
    assert artwork.configured_registry({}, tmp_path) == "https://registry.npmjs.org"
    (tmp_path / ".npmrc").write_text("fund=false\nregistry = https://mirror.example/npm/\n", "utf-8")
    assert artwork.configured_registry({}, tmp_path) == "https://mirror.example/npm/"
    assert artwork.configured_registry({"NPM_CONFIG_REGISTRY": "https://other.example"}, tmp_path) == (
        "https://other.example"
    )
    assert SOLID.url("https://mirror.example/npm/") == (
        "https://mirror.example/npm/@lobehub/fluent-emoji-3d/-/fluent-emoji-3d-1.1.0.tgz"
    )
    assert FLAT.file_name == "iconify-json-fluent-emoji-flat-1.2.6.tgz"


def test_packages_become_sprites_that_fill_their_square() -> None:
    pytest.importorskip("resvg_py", reason="the extra starter-data is not installed")
    drawing = io.BytesIO()
    Image.fromarray(np.pad(disc((250, 200, 40), 40), ((30, 10), (10, 50), (0, 0)))).save(drawing, "webp", lossless=True)
    solid = archive({f"package/assets/{d.code}.webp": drawing.getvalue() for d in DRAWINGS.values()})
    body = '<path fill="#1060d0" d="M8 4h8v16H8z"/>'
    flat = archive(
        {"package/icons.json": json.dumps({"icons": {d.icon: {"body": body} for d in DRAWINGS.values()}}).encode()}
    )
    made = rasterised(artwork.drawings(solid, flat))
    assert set(made) == set(DRAWINGS)
    round_, tall = made["cat"]["3d"], made["cat"]["flat"]
    assert round_.shape == tall.shape == (256, 256, 4)
    assert (round_[128, [1, 254], 3] > 100).all() and (round_[[1, 254], 128, 3] > 100).all()
    assert (tall[[1, 128, 254], 128] == (16, 96, 208, 255)).all()
    assert (tall[128, [30, 225], 3] == 0).all()


def test_shapes_need_no_drawing(box: SpriteBox) -> None:
    areas = {}
    for name in SHAPES:
        sprite = np.asarray(box.at(name, "flat", "green", 100, 2.0))
        areas[name] = float((sprite[..., 3] > 128).mean())
        assert (sprite[60, 50] == (*COLOURS["green"], 255)).all()
    assert areas["circle"] == pytest.approx(np.pi / 4, abs=0.02)
    assert areas["square"] == pytest.approx((12 / 14) ** 2, abs=0.02)
    assert areas["triangle"] == pytest.approx(7 / 16, abs=0.02)
