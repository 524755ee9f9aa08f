from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from embedding_pictures import embedding_data, plain_picture, with_text
from header_files import header_file
from PIL import Image

from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.engine import cards as cards_module
from webui.engine.cards import SHOWN, CardQuery, Cards
from webui.errors import NotFoundError, PictureError, RequestError

INK = {
    "ss_output_name": "ink_out",
    "ss_tag_frequency": json.dumps({"1": {"quill": 4}}),
    "ss_base_model_version": "sd_v1",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "Lora"
    for name, time in (("ink", 30), ("styles/soft 2", 20), ("styles/soft 10", 10), ("styles/deep/soft 2", 40)):
        path = header_file(folder / f"{name}.safetensors", INK if name == "ink" else None)
        os.utime(path, ns=(time, time))
    notes = {"description": "Thick lines", "activation text": "inkstyle", "preferred weight": 0.8}
    (folder / "ink.json").write_text(json.dumps(notes))
    Image.new("RGB", (900, 1200), "red").save(folder / "ink.preview.png")
    return tmp_path / "models"


@pytest.fixture
def cards(root: Path, tmp_path: Path) -> Cards:
    return Cards(Library(root, HashCache(tmp_path / "hashes.sqlite3")), tmp_path / "state")


def listed(cards: Cards, kind: str = "lora", **query: Any) -> list[str]:
    page = cards.page(CardQuery(kind=kind, **query))
    assert page.total == len(page.cards)
    return [card.entry.name for card in page.cards]


def one(cards: Cards, name: str, kind: str = "lora") -> Any:
    return next(card for card in cards.page(CardQuery(kind=kind)).cards if card.entry.name == name)


def test_names_are_there_before_a_header_was_read(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.checkpoints.facts.read_facts", lambda path: pytest.fail("a header was read"))
    page = cards.page(CardQuery(kind="lora"))
    assert [card.entry.name for card in page.cards] == ["ink", "styles/deep/soft 2", "styles/soft 2", "styles/soft 10"]
    assert page.unread == 4
    assert page.place == cards.library.root / "Lora"
    ink = page.cards[0].to_dict()
    assert (ink["activation_text"], ink["preferred_weight"], ink["description"]) == ("inkstyle", 0.8, "Thick lines")
    assert ink["thumbnail"] and not ink["read"]


def test_what_headers_say_comes_later_and_is_remembered(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    cards.read(cards.unread(["lora"]))
    assert cards.page(CardQuery(kind="lora")).unread == 0
    assert one(cards, "ink").to_dict()["base"] == "SD1"
    monkeypatch.setattr("webui.checkpoints.facts.read_facts", lambda path: pytest.fail("a header was read again"))
    monkeypatch.setattr(cards_module, "read_notes", lambda path: pytest.fail("notes were read again"))
    again = Cards(Library(cards.library.root, cards.library.hashes), cards.library.root.parent / "state")
    assert again.page(CardQuery(kind="lora")).unread == 0
    assert one(again, "ink").facts.alias == "ink_out"
    assert one(again, "ink").notes.activation_text == "inkstyle"


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("ink", ["ink"]),
        ("SOFT deep", ["styles/deep/soft 2"]),
        ("quill", ["ink"]),  # a tag of its captions
        ("ink_out", ["ink"]),
        ("thick LINES", ["ink"]),
        ("inkstyle quill", ["ink"]),
        ("ink nothing", []),
        ("  ", ["ink", "styles/deep/soft 2", "styles/soft 2", "styles/soft 10"]),
    ],
)
def test_a_search_looks_through_names_metadata_and_notes(cards: Cards, search: str, found: list[str]) -> None:
    cards.read(cards.unread(["lora"]))
    assert listed(cards, search=search) == found


def test_folders_and_order(cards: Cards) -> None:
    assert cards.folders("lora") == {"styles": 3, "styles/deep": 1}
    assert listed(cards, folder="styles") == ["styles/deep/soft 2", "styles/soft 2", "styles/soft 10"]
    assert listed(cards, folder="styles/deep") == ["styles/deep/soft 2"]
    assert listed(cards, folder="style") == []
    by_time = ["styles/soft 10", "styles/soft 2", "ink", "styles/deep/soft 2"]
    assert listed(cards, sort="modified") == by_time
    assert listed(cards, sort="modified", descending=True) == by_time[::-1]
    assert listed(cards, sort="name")[-1] == "styles/soft 10"
    assert sorted(listed(cards, sort="created")) == sorted(by_time)
    page = cards.page(CardQuery(kind="lora"), offset=1, limit=2)
    assert (page.total, [card.stem for card in page.cards]) == (4, ["soft 2", "soft 2"])
    for wrong in ({"kind": "nothing"}, {"kind": "lora", "sort": "size"}):
        with pytest.raises(RequestError):
            cards.page(CardQuery(**wrong))


def test_a_card_writes_the_shortest_name_that_finds_its_file(cards: Cards) -> None:
    written = {card.entry.name: card.insert for card in cards.page(CardQuery(kind="lora")).cards}
    assert written == {
        "ink": "ink", "styles/deep/soft 2": "styles/deep/soft 2", "styles/soft 2": "styles/soft 2",
        "styles/soft 10": "soft 10",
    }  # fmt: skip
    for name, insert in written.items():
        assert cards.library.find(insert, "lora").name == name


def test_the_folder_is_looked_at_again_when_the_library_did(cards: Cards) -> None:
    first = one(cards, "ink").id
    header_file(cards.library.root / "Lora" / "new.safetensors")
    assert "new" not in listed(cards)
    cards.library.refresh()
    assert "new" in listed(cards)
    assert one(cards, "ink").id == first
    (cards.library.root / "Lora" / "ink.safetensors").unlink()
    cards.library.refresh()
    with pytest.raises(NotFoundError, match="press Refresh"):
        cards.card(first)


def test_of_the_pictures_beside_embeddings_only_embeddings_have_cards(cards: Cards) -> None:
    folder = cards.library.root / "embeddings"
    header_file(folder / "easy.safetensors", {}, {"emb_params": [2, 768]})
    plain_picture().save(folder / "easy.preview.png")
    plain_picture().save(folder / "holiday.png")
    (folder / "file name.png").write_bytes(with_text(embedding_data([[0.5] * 4], name="Blot")))
    assert listed(cards, "embedding") == ["easy"]
    cards.read(cards.unread(["embedding"]))
    assert {card.insert for card in cards.page(CardQuery(kind="embedding")).cards} == {"easy", "Blot"}


def test_a_damaged_file_has_a_card_with_a_sentence(cards: Cards) -> None:
    (cards.library.root / "Lora" / "bad.safetensors").write_bytes(b"x")
    cards.library.refresh()
    detail = cards.detail(one(cards, "bad").id)
    assert detail["facts"]["problem"] == detail["problem"] != ""
    assert detail["metadata"] == {}
    assert listed(cards, search="bad") == ["bad"]


def test_all_that_is_known_about_a_file(cards: Cards) -> None:
    detail = cards.detail(one(cards, "ink").id)
    path = cards.library.root / "Lora" / "ink.safetensors"
    assert detail["path"] == str(path) and detail["size"] == path.stat().st_size and detail["sha256"] is None
    assert detail["metadata"] == {**INK, "ss_tag_frequency": {"1": {"quill": 4}}}
    assert detail["facts"]["tags"] == (("quill", 4),)
    digest = cards.library.hashes.sha256(path)
    cards.library.take_hashes()
    assert cards.detail(one(cards, "ink").id)["sha256"] == digest


def test_long_metadata_is_cut(cards: Cards) -> None:
    header_file(cards.library.root / "Lora" / "long.safetensors", {"key": "x" * 30_000})
    cards.library.refresh()
    assert cards.detail(one(cards, "long").id)["metadata"]["key"].endswith(" … (10000 more characters)")


def test_notes_are_written_beside_the_file(cards: Cards) -> None:
    ink = one(cards, "ink")
    changed = cards.note(ink.id, {"activation_text": "quill", "sd_version": "SDXL"})
    assert changed.notes.activation_text == "quill" and changed.to_dict()["base"] == "SDXL"
    assert listed(cards, search="quill") == ["ink"]
    table = json.loads((cards.library.root / "Lora" / "ink.json").read_text())
    assert table["activation text"] == "quill" and table["description"] == "Thick lines"
    cards.library.refresh()
    assert one(cards, "ink").notes == changed.notes
    for wrong in (["x"], "x", None, {"vae": 1}):
        with pytest.raises(RequestError):
            cards.note(ink.id, wrong)


def test_a_thumbnail_is_small_made_once_and_changes_with_the_preview(
    cards: Cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    ink = one(cards, "ink")
    data, key = cards.thumbnail(ink.id)
    assert key == ink.to_dict()["thumbnail"]
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (320, 427))
    with monkeypatch.context() as patch:
        patch.setattr(cards_module, "open_picture", lambda data: pytest.fail("the preview was decoded again"))
        assert cards.thumbnail(ink.id) == (data, key)
    preview = cards.library.root / "Lora" / "ink.preview.png"
    Image.new("RGB", (64, 64), "blue").save(preview)
    os.utime(preview, ns=(5, 5))
    cards.library.refresh()
    changed, other = cards.thumbnail(ink.id)
    assert other != key and changed != data
    assert len(list((cards.library.root.parent / "state").rglob("*.webp"))) == 1
    with pytest.raises(NotFoundError, match="no preview"):
        cards.thumbnail(one(cards, "styles/soft 10").id)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"<svg/>"])
def test_a_preview_that_is_no_picture_is_refused(cards: Cards, data: bytes) -> None:
    (cards.library.root / "Lora" / "ink.png").write_bytes(data)
    cards.library.refresh()
    with pytest.raises(PictureError):
        cards.thumbnail(one(cards, "ink").id)


def test_a_huge_picture_is_refused_before_it_is_decoded(cards: Cards, tmp_path: Path) -> None:
    Image.new("1", (9_000, 9_000)).save(cards.library.root / "Lora" / "ink.png")
    cards.library.refresh()
    with pytest.raises(PictureError, match="9000x9000"):
        cards.thumbnail(one(cards, "ink").id)


def test_a_picture_becomes_the_preview(cards: Cards, tmp_path: Path) -> None:
    finished = tmp_path / "finished.png"
    Image.new("RGB", (8, 8), "green").save(finished)
    soft = one(cards, "styles/soft 10")
    changed = cards.show_with(soft.id, finished)
    written = cards.library.root / "Lora" / "styles" / "soft 10.png"
    assert written.read_bytes() == finished.read_bytes()
    assert changed.thumbnail == one(cards, "styles/soft 10").thumbnail is not None
    jpeg = tmp_path / "finished.jpg"
    Image.new("RGB", (8, 8), "green").save(jpeg)
    cards.show_with(soft.id, jpeg)
    with Image.open(written) as picture:
        assert picture.format == "PNG"
    with pytest.raises(NotFoundError):
        cards.show_with(soft.id, tmp_path / "absent.png")


def test_every_kind_that_is_shown_can_be_empty(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    cards = Cards(Library(tmp_path / "models", HashCache(tmp_path / "hashes.sqlite3")), tmp_path)
    for kind in SHOWN:
        page = cards.page(CardQuery(kind=kind))
        assert (page.total, page.unread) == (0, 0) and str(page.place).startswith(str(tmp_path / "models"))
        assert cards.folders(kind) == {}
