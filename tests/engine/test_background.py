from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from header_files import header_file
from waiting import wait_for

from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.hashes import HashCache, file_sha256
from webui.checkpoints.library import Library
from webui.engine import background
from webui.engine.background import BackgroundReader
from webui.engine.cards import CardQuery, Cards


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "IDLE_S", 0.01)


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    for number in range(3):
        header_file(tmp_path / f"models/Lora/{number}.safetensors", {"ss_output_name": f"name {number}"})
    header_file(tmp_path / "models/Lora/hashed.safetensors", {"sshs_model_hash": "aa" * 32})
    header_file(tmp_path / "models/Stable-diffusion/big.safetensors", {}, {"a": [5_000_000]})
    (tmp_path / "models/Lora/bad.safetensors").write_bytes(b"x")
    return Cards(Library(tmp_path / "models", HashCache(tmp_path / "hashes.sqlite3")), tmp_path)


Start = Callable[..., BackgroundReader]


@pytest.fixture
def start(cards: Cards) -> Iterator[Start]:
    started: list[BackgroundReader] = []

    def begin(busy: Callable[[], bool] = lambda: False, *, hashing: bool = True) -> BackgroundReader:
        started.append(BackgroundReader(cards, busy, hashing=hashing))
        started[-1].start()
        return started[-1]

    yield begin
    for reader in started:
        reader.close()


def hashed(cards: Cards) -> int:
    return len(cards.library.hashes.known())


def test_headers_are_read_and_files_hashed(cards: Cards, start: Start) -> None:
    start()
    wait_for(lambda: all(entry.sha256 for kind in ("lora", "checkpoint") for entry in cards.library.entries(kind)))
    for entry in (*cards.library.entries("lora"), *cards.library.entries("checkpoint")):
        assert entry.sha256 == file_sha256(entry.path)
    assert cards.page(CardQuery(kind="lora")).unread == 0
    path = cards.library.root / "Lora" / "1.safetensors"
    tail = hashlib.sha256(path.read_bytes()[BUILT_IN.read_header(path).data_start :]).hexdigest()
    facts = cards.library.facts.known(cards.library.entries("lora"))
    assert facts[str(path)].network_hash == tail and facts[str(path)].alias == "name 1"
    assert facts[str(path.with_name("hashed.safetensors"))].network_hash == "aa" * 32
    found = cards.library.by_network_hash(tail[:12])
    assert found is not None and found.name in {"0", "1", "2"}  # their tensors are the same


def test_it_waits_while_a_job_runs(cards: Cards, start: Start) -> None:
    asked, busy = threading.Event(), threading.Event()
    busy.set()

    def is_busy() -> bool:
        asked.set()
        return busy.is_set()

    start(is_busy)
    assert asked.wait(20)
    assert hashed(cards) == 0 and len(cards.unread(["lora"])) == 5
    busy.clear()
    wait_for(lambda: hashed(cards) == 6)


def test_somebody_who_looks_at_cards_does_not_wait_for_a_job(cards: Cards, start: Start) -> None:
    reader = start(lambda: True)
    assert cards.page(CardQuery(kind="lora")).unread == 5
    reader.wake()
    wait_for(lambda: cards.page(CardQuery(kind="lora")).unread == 0)
    assert hashed(cards) == 0


def test_hashing_can_be_switched_off(cards: Cards, start: Start) -> None:
    reader = start(hashing=False)
    wait_for(lambda: not cards.unread(["lora", "checkpoint"]))
    reader.close()
    assert hashed(cards) == 0


def test_it_ends_within_a_file(cards: Cards, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = threading.Event()

    def endless(path: Path, start: int, between: Callable[[], None]) -> tuple[str, str]:
        while True:
            between()
            piece.set()

    monkeypatch.setattr(background, "both_sha256", endless)
    reader = start()
    assert piece.wait(20)
    reader.close()
    assert not any(thread.name == "background" for thread in threading.enumerate())
    assert hashed(cards) == 0


def test_a_file_that_changes_while_it_is_read_is_hashed_again(
    cards: Cards, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(path: Path, start: int, between: Callable[[], None]) -> tuple[str, str]:
        path.write_bytes(path.read_bytes() + b"x")
        return "0" * 64, "0" * 64

    monkeypatch.setattr(background, "both_sha256", changing)
    reader = BackgroundReader(cards, lambda: False, hashing=True)
    reader.hash_files()
    assert hashed(cards) == 0
