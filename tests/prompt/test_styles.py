from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import RequestError
from webui.prompt.styles import Style, Styles, Unstyled, merged

FILE = """name,prompt,negative_prompt
suffix,"soft light, oil painting",grain
wrap,"portrait of {prompt}, 4k",
none,,
"""


@pytest.fixture
def styles(tmp_path: Path) -> Styles:
    path = tmp_path / "styles.csv"
    path.write_text(FILE, encoding="utf-8-sig")
    return Styles.read([path, tmp_path / "absent.csv"])


def test_styles_are_applied_in_their_order(styles: Styles) -> None:
    told = styles.apply(["suffix", "wrap"], "a red cat", "blurry, lowres")
    assert told == ("portrait of a red cat, soft light, oil painting, 4k", "blurry, lowres, grain")
    assert styles.apply(["none"], " a ", "") == ("a", "")
    assert styles.apply([], " a ", "b") == (" a ", "b")


def test_styles_are_found_in_prompts(styles: Styles) -> None:
    told = styles.apply(["suffix", "wrap"], "a red  cat", "blurry")
    assert styles.extract(*told) == Unstyled("a red cat", "blurry", ("suffix", "wrap"))
    assert styles.extract("a cat, soft light, oil painting", "blurry") == Unstyled(
        "a cat, soft light, oil painting", "blurry", ()
    )  # both sides must carry the style


def test_an_unknown_style_is_an_error(styles: Styles) -> None:
    with pytest.raises(RequestError, match="no style"):
        styles.apply(["nobody"], "a", "")


def test_old_and_odd_files(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_text('name,text\na,"one\ntwo"\n,lost\nb\n', encoding="utf-8")
    assert dict(Styles.read([path]).by_name) == {"a": Style("a", "one\ntwo"), "b": Style("b")}
    path.write_bytes(b"")
    assert Styles.read([path]).by_name == {}
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(RequestError, match="no column"):
        Styles.read([path])


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(texts, texts, texts), max_size=4))
def test_files_keep_everything(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    folder = tmp_path_factory.mktemp("styles")
    styles = Styles({row[0]: Style(*row) for row in rows if row[0]})
    styles.write(folder / "styles.csv")
    assert Styles.read([folder / "styles.csv"]) == styles


def test_the_file_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "styles.csv"
    path.write_text(FILE)
    Styles({"a": Style("a", "b")}).write(path)
    assert (tmp_path / "styles.csv.bak").read_text() == FILE
    assert sorted(file.name for file in tmp_path.iterdir()) == ["styles.csv", "styles.csv.bak"]


@given(texts, texts)
def test_merging_loses_nothing(style: str, prompt: str) -> None:
    told = merged(style, prompt)
    assert prompt.strip() in told or "{prompt}" in prompt
    assert merged("", prompt) == prompt.strip()
