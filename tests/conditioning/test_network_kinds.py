"""Tags of registered kinds: what their arguments mean, what is refused in one sentence, and which kinds cannot be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.conditioning.extra_networks import Meant, NetworkKind, NetworkKinds
from webui.conditioning.hypernetwork import Hypernetworks
from webui.conditioning.hypernetwork import Options as Multiplied
from webui.errors import RequestError
from webui.option_boxes import Kind, option
from webui.prompt.extra_networks import extract


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class Options:
    strength: float = option(0.3, "Strength", low=-2, high=2)
    count: int = option(1, "Count", low=1, high=9)
    mode: Literal["Soft", "Hard"] = "Soft"
    side: Side = Side.LEFT
    is_on: bool = False
    words: str = ""


class Toy:
    name, title, folders, aliases = "toy", "toy file", ("toys/small", "Toys"), ("plaything",)
    options: Any = Options

    def prepare(self, *given: object) -> None: ...


class Plain(Toy):
    name, title, folders, aliases, names = "plain", "colour", (), (), ("warm", "cool")


KINDS = NetworkKinds({kind.name: NetworkKind.of(kind) for kind in (Toy(), Plain(), Hypernetworks())})


def read(tag: str, kinds: NetworkKinds = KINDS) -> Any:
    (found,) = kinds.read(extract(f"a {tag} cat").tags)
    return (found.kind.name, found.name, found.options) if isinstance(found, Meant) else found.text


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<toy:ink>", Options()),
        ("<toy:ink:1>", Options(1.0)),
        ("<plaything: ink : -0.5 :3>", Options(-0.5, 3)),
        ("<toy:ink:1:2:Hard:right:yes:some words>", Options(1.0, 2, "Hard", Side.RIGHT, True, "some words")),
        ("<toy:ink:words=a, b:strength=2>", Options(2.0, words="a, b")),
        ("<toy:mode=Hard:ink:1: is_on = off >", Options(1.0, mode="Hard")),
        ("<toy:ink:is_on=1>", Options(is_on=True)),
    ],
)
def test_arguments_fill_the_record_by_place_and_by_name(tag: str, expected: Options) -> None:
    assert read(tag) == ("toy", "ink", expected)


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [
        ("<toy:ink:strong>", "<toy:ink:strong>: Strength is 'strong'; it must be a number from -2 to 2."),
        ("<toy:ink:3>", "<toy:ink:3>: Strength is 3.0; it must be a number from -2 to 2."),
        ("<toy:ink:nan>", "Strength is nan; it must be a number"),
        ("<toy:ink:1:1.5>", "Count is '1.5'; it must be a whole number from 1 to 9."),
        ("<toy:ink:mode=Loud>", 'Mode is \'Loud\'; it must be one of "Soft", "Hard".'),
        ("<toy:ink:side=up>", "up"),
        ("<toy:ink:is_on=perhaps>", "Is on is 'perhaps'; it must be true or false."),
        ("<toy:ink:strngth=1>", 'no option of <toy:ink:strngth=1> named "strngth"; did you mean "strength"?'),
        ("<toy:ink:1:strength=1>", "<toy:ink:1:strength=1> says strength twice; take one of them out."),
        ("<toy:ink:1:1:Soft:left:no:a:b:c>", "has 8 arguments behind its name; there are strength, count, mode,"),
        ("<toy:strength=1>", "<toy:strength=1> names nothing; write the name behind the first colon."),
        ("<toy: :1>", "<toy: :1> names nothing"),
        ("<plain:wrm:1>", 'There is no colour named "wrm"; did you mean "warm"?'),
        ("<toy:ink:words=" + "x" * 200 + ":strong>", "…>"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(tag: str, sentence: str) -> None:
    with pytest.raises(RequestError) as refused:
        read(tag)
    assert sentence in str(refused.value) and len(str(refused.value)) < 300


@pytest.mark.parametrize("tag", ["<other:ink:1>", "<Toy:ink>", "<PLAIN:warm>"])
def test_a_tag_of_an_unknown_word_stays_as_it_is(tag: str) -> None:
    assert read(tag) == tag


@given(st.text(alphabet="<>:=toyplainhyernk 01.-", max_size=40))
def test_any_arguments_mean_something_or_are_refused(text: str) -> None:
    for word in ("toy", "plain", "hypernet"):
        for tag in extract(f"<{word}:{text}>").tags:
            try:
                (found,) = KINDS.read([tag])
            except RequestError:
                continue
            assert isinstance(found, Meant) or found == tag


@pytest.mark.parametrize(
    ("tag", "name", "multiplier"),
    [
        ("<hypernet:ink>", "ink", 1.0),
        ("<hypernet:ink:0.8>", "ink", 0.8),
        ("<hypernet:folder/ink v2:-1:ignored>", "folder/ink v2", -1.0),
        ("<hypernet:a=b:ink:2>", "ink", 2.0),
    ],
)
def test_hypernetworks(tag: str, name: str, multiplier: float) -> None:
    assert read(tag) == ("hypernet", name, Multiplied(multiplier))


@pytest.mark.parametrize("tag", ["<hypernet::1>", "<hypernet:ink:strong>", "<hypernet:ink:nan>", "<hypernet:a=b>"])
def test_a_hypernetworks_tag_that_means_nothing_is_told_like_an_unknown_one(tag: str) -> None:
    assert read(tag) == tag


def test_the_words_say_what_is_known() -> None:
    assert NetworkKinds().usage == "<lora:name:weight>"
    assert KINDS.usage == (
        "<lora:name:weight>, <toy:name:strength:count:mode:side:is_on:words>, "
        "<plain:name:strength:count:mode:side:is_on:words> and <hypernet:name:multiplier>"
    )
    assert [(kind.name, kind.title, kind.folders) for kind in KINDS.file_kinds] == [
        ("toy", "toy file", ("toys/small", "Toys")),
        ("hypernet", "hypernetwork", ("hypernetworks",)),
    ]


@dataclass(frozen=True)
class WithPicture:
    image: str = option("", "Image", kind=Kind.PICTURE)


@dataclass(frozen=True)
class WithList:
    sizes: tuple[int, ...] = field(default=())


@dataclass(frozen=True)
class WithNumbers:
    size: Literal[1, 2] = 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": "a-b"}, 'its word "a-b" is not made of letters, digits and _'),
        ({"aliases": ("", "b")}, 'its word "" is not made of'),
        ({"aliases": "plaything"}, "its aliases are no texts in a list"),
        ({"title": ""}, "its title is no text of 1 to 60 letters"),
        ({"title": 3}, "its title is no text"),
        ({"folders": ("../secret",)}, 'its folder "../secret" does not lie below the models folder'),
        ({"folders": ("/etc",)}, "does not lie below"),
        ({"folders": ("C:\\models",)}, "does not lie below"),
        ({"folders": ("a\\..\\b",)}, "does not lie below"),
        ({"folders": ("",)}, "does not lie below"),
        ({"folders": [1]}, "its folders are no texts in a list"),
        ({"names": ("a",)}, "it has both folders and names"),
        ({"options": dict}, "its options are no dataclass"),
        ({"options": WithPicture}, "its option image is no flag, number, text or closed choice of texts"),
        ({"options": WithList}, "its option sizes is no flag"),
        ({"options": WithNumbers}, "its option size is no flag"),
        ({"prepare": 1}, "its prepare cannot be called"),
        ({"read": "x"}, "its read cannot be called"),
    ],
)
def test_kinds_that_cannot_be(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        NetworkKind.of(type("Wrong", (Toy,), wrong)())
