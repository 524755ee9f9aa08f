from __future__ import annotations

import errno
import os
import threading
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from webui.engine.inputs import InputStore
from webui.engine.outputs import OutputFolder, write_atomically
from webui.errors import NotFoundError, OutputError


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_pictures_are_numbered_by_day(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    first = folder.save(b"1", kind="txt2img", seed=7)
    second = folder.save(b"2", kind="txt2img", seed=8, suffix=".webp")
    assert first == tmp_path / "txt2img-images" / date.today().isoformat() / "00001-7.png"
    assert second.name == "00002-8.webp" and first.read_bytes() == b"1"


def test_numbers_go_on_after_the_highest_and_beyond_five_digits(tmp_path: Path) -> None:
    (tmp_path / "99999-1.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert OutputFolder(tmp_path).save_here(b"x", seed=2).name == "100000-2.png"
    assert OutputFolder(tmp_path).save_here(b"x", seed=2).name == "100001-2.png"


def test_two_writers_never_overwrite_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(10):
            OutputFolder(tmp_path).save_here(str(number).encode(), seed=1)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(contents) == 40 and all(contents.count(str(number).encode()) == 10 for number in range(4))


@pytest.mark.parametrize("step", ["fsync", "link", "open"])
def test_a_full_disk_is_one_sentence_and_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = OutputFolder(tmp_path)
    folder.save_here(b"before", seed=1)
    with monkeypatch.context() as patch:
        if step == "open":
            patch.setattr(Path, "open", full)
        else:
            patch.setattr(os, step, full)
            patch.setattr(Path, "rename", full)
        with pytest.raises(OutputError, match=r"disk of .* is full; free some space"):
            folder.save_here(b"after", seed=2)
    assert files(tmp_path) == ["00001-1.png"]
    assert folder.save_here(b"later", seed=3).read_bytes() == b"later"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="could not be written"):
        OutputFolder(tmp_path / "file").save_here(b"x", seed=1)


def test_without_hard_links_a_name_is_still_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    folder = OutputFolder(tmp_path)
    assert [folder.save_here(b"x", seed=1).name for _ in range(2)] == ["00001-1.png", "00002-1.png"]
    assert not write_atomically(tmp_path / "00001-1.png", b"other", replace=False)
    assert files(tmp_path) == ["00001-1.png", "00002-1.png"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    picture = OutputFolder(tmp_path).save(b"1", kind="txt2img", seed=1)
    (picture.parent / ".tmp-leftover").write_bytes(b"half")
    (tmp_path / ".webui" / "inputs").mkdir(parents=True)
    (tmp_path / ".webui" / "inputs" / ".tmp-leftover").write_bytes(b"half")
    (tmp_path / ".tmp-folder").mkdir()
    OutputFolder(tmp_path).clean()
    assert files(tmp_path) == [picture.name] and (tmp_path / ".tmp-folder").is_dir()
    OutputFolder(tmp_path / "absent").clean()


def test_inputs_are_kept_byte_for_byte_under_their_digest(tmp_path: Path) -> None:
    store = InputStore(tmp_path / "inputs")
    digest = store.put(b"picture")
    assert store.put(b"picture") == digest and store.get(digest) == b"picture"
    assert files(tmp_path / "inputs") == [digest]


@pytest.mark.parametrize("digest", ["", "..", "../jobs.sqlite3", "0" * 64, "0" * 63 + "/", "A" * 64, "٣" * 64])
def test_only_a_stored_digest_names_an_input(tmp_path: Path, digest: str) -> None:
    store = InputStore(tmp_path / "inputs")
    store.put(b"picture")
    with pytest.raises(NotFoundError, match="upload it again"):
        store.get(digest)


def test_a_full_disk_stores_no_half_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="is full"):
        InputStore(tmp_path / "inputs").put(b"picture")
    assert files(tmp_path) == []
