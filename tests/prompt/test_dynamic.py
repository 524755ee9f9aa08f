from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import RequestError
from webui.prompt.dynamic import MAX_LENGTH, is_dynamic, resolve
from webui.prompt.wildcards import Wildcards

NONE = Wildcards()
COLOURS = ("red", "green", "blue")


def outcomes(template: str, wildcards: Wildcards = NONE, seeds: int = 600) -> Counter[str]:
    return Counter(resolve(template, seed, wildcards) for seed in range(seeds))


def test_every_option_comes_as_often_as_the_others() -> None:
    found = outcomes("a {red|green|blue} cat", seeds=3000)
    assert set(found) == {f"a {colour} cat" for colour in COLOURS}
    assert all(abs(count - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for count in found.values())


def test_weights_are_odds() -> None:
    found = outcomes("{0.5::a|2::b|0::c}", seeds=3000)
    assert set(found) == {"a", "b"}
    assert abs(found["b"] - 2400) < 4 * (3000 * 0.16) ** 0.5


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{2$$a|b}", {"a,b", "b,a"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{2$$$$a|b}", {"ab", "ba"}),
        ("{1-2$$a|b}", {"a", "b", "a,b", "b,a"}),
        ("{-1$$a|b}", {"", "a", "b"}),
        ("{2-$$a|b}", {"a,b", "b,a"}),
        ("{2-1$$a|b}", {"a", "b", "a,b", "b,a"}),
        ("{9$$a|b}", {"a,b", "b,a"}),
        ("{0$$a|b}", {""}),
        ("{a}", {"a"}),
        ("x{}y", {"xy"}),
        ("{|a}", {"", "a"}),
        ("{a|{b|c}d}", {"a", "bd", "cd"}),
        ("{{a|b} {c|d}|e}", {"a c", "a d", "b c", "b d", "e"}),
        ("[{a|b}:{c|d}:{3|0.5}]", {f"[{x}:{y}:{z}]" for x in "ab" for y in "cd" for z in ("3", "0.5")}),
        ("<lora:{ink|oil}:1>", {"<lora:ink:1>", "<lora:oil:1>"}),
        ("{a|b} # {c|d}", {"a \n", "b \n"}),
        ("a [b|c] | d", {"a [b|c] | d"}),
        ("a {b|c", {"a {b|c"}),
        ("{a|b", {"{a|b"}),
        ("a } b {c|d}", {"a } b c", "a } b d"}),
        ("a {b|{c|d}", {"a {b|c", "a {b|d"}),
        (r"\{a|b\} {c|d}", {r"\{a|b\} c", r"\{a|b\} d"}),
        ("__unknown__ a_b __", {"__unknown__ a_b __"}),
        ("____", {"____"}),
    ],
)
def test_choices(template: str, expected: set[str]) -> None:
    assert set(outcomes(template)) == expected


def test_the_seed_makes_the_prompt() -> None:
    template = "{a|b|c|d|e|f|g|h} {a|b|c|d|e|f|g|h}"
    assert resolve(template, 5, NONE) == resolve(template, 5, NONE)
    assert len(outcomes(template, seeds=40)) > 20
    told = [resolve("{a|b}", seed, NONE) == resolve("{a|b}", seed, NONE, stream="negative") for seed in range(64)]
    assert 16 < sum(told) < 48
    state = random.getstate()
    resolve(template, 5, NONE)
    assert random.getstate() == state


KEPT = ["e 6,3,5", "g 2,5,6", "g 4,2,3"]


def test_the_same_choices_for_ever() -> None:
    """Pictures of today must come out of their templates tomorrow; these values may never change."""
    assert [resolve("{a|b|c|d|e|f|g|h} {3$$1|2|3|4|5|6}", seed, NONE) for seed in (0, 1, 2**53 - 1)] == KEPT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "animals").mkdir()
    (tmp_path / "colour.txt").write_text("# colours\nred\n\n  green \nblue\n", encoding="utf-8-sig")
    (tmp_path / "weighed.txt").write_text("0::never\n3::often\n1::{so|so}metimes\n")
    (tmp_path / "animals" / "cats.txt").write_text("tabby\r\n__colour__ cat\r\n")
    (tmp_path / "animals" / "dogs.txt").write_text("poodle")
    (tmp_path / "loop.txt").write_text("a __loop__")
    (tmp_path / "bomb.txt").write_text("__bomb2__ " * 50)
    (tmp_path / "bomb2.txt").write_text("__bomb3__ " * 50)
    (tmp_path / "bomb3.txt").write_text("x " * 900)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "note.md").write_text("no wildcard")
    return tmp_path


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a __colour__ cat", {f"a {colour} cat" for colour in COLOURS}),
        ("__animals/cats__", {"tabby", *(f"{colour} cat" for colour in COLOURS)}),
        ("__animals/*__", {"tabby", "poodle", *(f"{colour} cat" for colour in COLOURS)}),
        ("{2$$__colour__}", {f"{a},{b}" for a in COLOURS for b in COLOURS if a != b}),
        ("{2$$ or $$__colour__}", {f"{a} or {b}" for a in COLOURS for b in COLOURS if a != b}),
        ("__{colour|animals/dogs}__", {*COLOURS, "poodle"}),
        ("__weighed__", {"often", "sometimes"}),
        ("__empty__ __note__", {"__empty__ __note__"}),
        ("__nothing__colour__", {f"__nothing{colour}" for colour in COLOURS}),
    ],
)
def test_wildcards(folder: Path, template: str, expected: set[str]) -> None:
    assert set(outcomes(template, Wildcards((folder,)))) == expected


def test_the_first_folder_counts_and_given_lines_before_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "colour.txt").write_text("black")
    assert Wildcards((other, folder)).lines("colour") == ("black",)
    assert Wildcards((folder, other), {"colour": ("white",)}).lines("colour") == ("white",)


def test_no_file_outside_the_folder_is_read(folder: Path) -> None:
    secret = folder / "secret.txt"
    secret.write_text("key")
    inside = folder / "animals"
    (inside / "link.txt").symlink_to(secret)
    for name in ("../secret", "animals/../secret", "link", str(folder / "secret"), "../*"):
        assert Wildcards((inside,)).lines(name) == ()


@pytest.mark.parametrize("name", ["loop", "bomb"])
def test_wildcards_without_end_are_an_error(folder: Path, name: str) -> None:
    with pytest.raises(RequestError, match="wildcard"):
        resolve(f"__{name}__", 1, Wildcards((folder,)))


GIVEN = Wildcards(given={"a": ("x", "2::{y|z}", "__b__"), "b": ("", "#", "__", "{")})
marks = st.sampled_from([*"{}|$_:-12ab \\#\n", "__a__", "__b__", "$$", "2$$", "1-2$$", "0.5::", "{a|b}"])


@given(st.one_of(st.text(), st.lists(marks, max_size=40).map("".join)), st.integers(0, 2**53 - 1))
def test_any_template_has_a_prompt(template: str, seed: int) -> None:
    prompt = resolve(template, seed, GIVEN)
    assert prompt == resolve(template, seed, GIVEN)
    if not is_dynamic(template):
        assert prompt == template


@given(st.text(st.characters(exclude_characters="{}_#\\")))
def test_text_without_marks_stays(text: str) -> None:
    assert resolve(f"{text}{{a}}", 1, NONE) == f"{text}a"


@pytest.mark.parametrize(
    "template",
    [
        "{" * 100_000,
        "{a" * 33_000 + "}" * 33_000,
        "{" + "|" * 99_000 + "}",
        "{2$$" + "a|" * 49_000 + "b}",
        "_" * 100_000,
        "{" + "1" * 90_000 + "}",
        "{" + "1" * 90_000 + "$$a}",
        "{2$$" + "$" * 90_000 + "}",
    ],
)
def test_hostile_templates_end(template: str) -> None:
    assert len(resolve(template, 1, NONE)) <= MAX_LENGTH
