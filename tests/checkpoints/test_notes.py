from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.checkpoints.notes import Beside, Notes, notes_path, preview_target, read_notes, write_notes
from webui.errors import RequestError

A1111 = {
    "description": "d", "sd version": "SD1", "activation text": "inkstyle", "preferred weight": 0.75,
    "negative text": "photo", "notes": "n", "vae": "mse.safetensors",
}  # fmt: skip
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "ink v1.5.safetensors"
    path.write_bytes(b"x")
    return path


def test_notes_of_automatic1111_are_read(model: Path) -> None:
    assert read_notes(model) == Notes()
    (model.parent / "ink v1.5.json").write_text(json.dumps(A1111))
    assert read_notes(model) == Notes(
        description="d", sd_version="SD1", activation_text="inkstyle", preferred_weight=0.75, negative_text="photo",
        notes="n", vae="mse.safetensors",
    )  # fmt: skip


def test_a_change_keeps_what_others_wrote(model: Path) -> None:
    others = {"civitai": {"id": 7}, "notes": "old", "activation text": "inkstyle", "ä": ["ß"]}
    notes_path(model).write_text(json.dumps(others))
    notes = write_notes(model, {"notes": "neu ✓", "preferred_weight": 0.8})
    assert (notes.notes, notes.preferred_weight, notes.activation_text) == ("neu ✓", 0.8, "inkstyle")
    written = json.loads(notes_path(model).read_text("utf-8"))
    assert written == others | {"notes": "neu ✓", "preferred weight": 0.8}
    assert read_notes(model) == notes
    assert sorted(path.name for path in model.parent.iterdir()) == ["ink v1.5.json", "ink v1.5.safetensors"]


@pytest.mark.parametrize("text", ["[1, 2]", "{", "[" * 100_000, '"text"', "{}" + " " * 1_100_000])
def test_a_file_that_is_no_table_is_left_alone(model: Path, text: str) -> None:
    notes_path(model).write_text(text)
    assert read_notes(model) == Notes()
    with pytest.raises(RequestError, match="no table of notes"):
        write_notes(model, {"notes": "new"})
    assert notes_path(model).read_text() == text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "x"}, 'no note called "path"'),
        ({"notes": 7}, "must be a text"),
        ({"preferred_weight": "1"}, "must be a number"),
        ({"preferred_weight": True}, "must be a number"),
        ({"preferred_weight": float("nan")}, "must be a number"),
        ({"preferred_weight": 1e9}, "must be a number"),
        ({"notes": "x" * 1_200_000}, "at most 1048576"),
    ],
)
def test_what_cannot_be_noted_is_refused(model: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        write_notes(model, change)
    assert not notes_path(model).exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be written"):
        write_notes(tmp_path / "absent" / "a.safetensors", {"notes": "x"})


@given(st.dictionaries(st.sampled_from([*A1111, "other"]), PLAIN))
def test_no_table_breaks_the_reader(table: dict[str, object]) -> None:
    notes = Notes.from_table(table)
    assert isinstance(notes.preferred_weight, float) and isinstance(notes.activation_text, str)


# --- the picture that shows a model ---


def names(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        (["ink.preview.png", "ink.png"], "ink.png"),
        (["ink.preview.png", "ink.jpg"], "ink.preview.png"),
        (["ink.preview.WEBP", "inked.png"], "ink.preview.WEBP"),
        (["ink.jpeg"], "ink.jpeg"),
        (["ink.gif", "ink.preview.svg"], None),
    ],
)
def test_which_picture_shows_a_model(tmp_path: Path, files: list[str], shown: str | None) -> None:
    names(tmp_path, *files)
    found = Beside.of(str(tmp_path)).preview("ink", "ink.safetensors")
    assert (found and Path(found[0]).name) == shown


def test_an_embedding_that_is_a_picture_shows_itself_but_is_never_overwritten(tmp_path: Path) -> None:
    names(tmp_path, "blot.png")
    beside = Beside.of(str(tmp_path)).preview("blot", "blot.png")
    assert beside is not None and Path(beside[0]).name == "blot.png"
    assert preview_target(tmp_path / "blot.png", "embedding").name == "blot.preview.png"
    names(tmp_path, "blot.preview.png")
    beside = Beside.of(str(tmp_path)).preview("blot", "blot.png")
    assert beside is not None and Path(beside[0]).name == "blot.preview.png"


@pytest.mark.parametrize(
    ("kind", "there", "target"),
    [
        ("lora", [], "ink.png"),
        ("lora", ["ink.preview.png"], "ink.png"),
        ("embedding", [], "ink.preview.png"),
        ("embedding", ["ink.png"], "ink.png"),
        ("hypernet", ["ink.jpg"], "ink.preview.png"),
    ],
)
def test_a_new_preview_is_the_one_that_is_shown(tmp_path: Path, kind: str, there: list[str], target: str) -> None:
    names(tmp_path, *there)
    model = tmp_path / "ink.safetensors"
    assert preview_target(model, kind).name == target
    names(tmp_path, target)
    shown = Beside.of(str(tmp_path)).preview("ink", "ink.safetensors")
    assert shown is not None and Path(shown[0]).name == target
