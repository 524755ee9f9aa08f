"""Records of options: what is refused is refused in one sentence that says what was found and expected."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest

from webui.errors import RequestError
from webui.option_boxes import Kind, all_boxes, boxes, checked, option, problem, schema, with_pictures
from webui.records import plain

DIGEST = "ab" * 32


class Shape(StrEnum):
    ROUND = "round"
    SQUARE = "square"


@dataclass(frozen=True)
class Part:
    x: int = 0


@dataclass(frozen=True, kw_only=True)
class Options:
    image: str = option("", "Control picture", kind=Kind.PICTURE)
    mask: str = option("", "Mask", kind=Kind.MASK, of="image")
    painted: str = option("", "Painting", kind=Kind.PAINT)
    model: str = option("", "Model", kind=Kind.MODEL, of="controlnet")
    weight: float = option(1.0, "Weight", low=0, high=2, step=0.05)
    count: int = option(3, "Count", low=1)
    most: float = option(0.0, "Most", high=5, shown=False)
    flag: bool = False
    text: str = option("", "Words", hint="a few")
    mode: str = option("Balanced", "Mode", choices=("Balanced", "Prompt"))
    size: Literal[512, 1024] = 512
    shape: Shape = Shape.ROUND
    perhaps: int | None = None
    parts: tuple[Part, ...] = field(default=(Part(x=1),))
    names: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"wieght": 1}, 'There is no option of Tint named "wieght"; did you mean "weight"?'),
        ({"weight": 3}, "Tint: Weight is 3; it must be a number from 0 to 2."),
        ({"weight": "1"}, "Tint: Weight is '1'; it must be a number from 0 to 2."),
        ({"weight": float("nan")}, "Tint: Weight is nan; it must be a number from 0 to 2."),
        ({"weight": True}, "Tint: Weight is True; it must be a number from 0 to 2."),
        ({"count": 1.0}, "Tint: Count is 1.0; it must be a whole number from 1 on."),
        ({"count": 0}, "Tint: Count is 0; it must be a whole number from 1 on."),
        ({"most": 6.0}, "Tint: Most is 6.0; it must be a number up to 5."),
        ({"flag": 1}, "Tint: Flag is 1; it must be true or false."),
        ({"text": 1}, "Tint: Words (text) is 1; it must be text."),
        ({"mode": "prompt"}, 'Tint: Mode is \'prompt\'; it must be one of "Balanced", "Prompt".'),
        ({"size": 513}, "Tint: Size is 513; it must be one of 512, 1024."),
        ({"shape": "oval"}, 'Tint: Shape is \'oval\'; it must be one of "round", "square".'),
        ({"perhaps": "x"}, "Tint: Perhaps is 'x'; it must be a whole number."),
        ({"parts": 5}, "Tint: Parts must be a list."),
        ({"parts": [{"y": 1}]}, "Tint: Parts[0] has unknown fields 'y'; known are x."),
        ({"painted": "x.png"}, "Tint: Painting (painted) must be named by the SHA-256 of a stored picture"),
        ({"image": "x.png"}, "Tint: Control picture (image) must be named by the SHA-256 of a stored picture"),
    ],
)
def test_what_does_not_fit_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError) as caught:
        checked(Options, given, "Tint")
    assert str(caught.value).startswith(told)


def test_what_fits_becomes_the_record() -> None:
    given = {"weight": 2, "shape": "square", "perhaps": None, "parts": [{"x": 4}], "image": DIGEST, "size": 1024}
    made = checked(Options, given, "Tint")
    assert made == Options(weight=2.0, shape=Shape.SQUARE, parts=(Part(x=4),), image=DIGEST, size=1024)
    assert isinstance(made.weight, float)
    assert checked(Options, plain(made), "Tint") == made


def test_a_record_that_refuses_speaks_for_itself() -> None:
    @dataclass(frozen=True)
    class Ends:
        start: float
        end: float = 1.0

        def __post_init__(self) -> None:
            if self.start > self.end:
                raise ValueError("it ends before it starts")

    with pytest.raises(RequestError, match=r"^The options of Tint do not fit: it ends before it starts\.$"):
        checked(Ends, {"start": 2.0}, "Tint")
    with pytest.raises(RequestError, match=r"^Tint lacks start\.$"):
        checked(Ends, {}, "Tint")


def test_the_page_shows_plain_values() -> None:
    shown = {box.name: box for box in boxes(Options)}
    assert list(shown) == [
        "image", "mask", "painted", "model", "weight", "count", "flag", "text", "mode", "size", "shape",
    ]  # fmt: skip
    assert shown["flag"].label == "Flag" and shown["text"].label == "Words"
    assert shown["shape"].default == "round" and shown["shape"].choices_for(False) == ["round", "square"]
    assert [box.name for box in all_boxes(Options)][-3:] == ["perhaps", "parts", "names"]


def test_the_schema_says_what_the_check_says() -> None:
    table = schema(Options, lambda box: ["", "canny"] if box.kind is Kind.MODEL else None)
    told = table["properties"]
    assert table["type"] == "object" and table["additionalProperties"] is False and "required" not in table
    assert told["weight"] == {"title": "Weight", "type": "number", "default": 1.0, "minimum": 0, "maximum": 2}
    assert told["count"] == {"title": "Count", "type": "integer", "default": 3, "minimum": 1}
    assert told["model"] == {
        "title": "Model", "type": "string", "default": "", "x-kind": "model", "x-of": "controlnet",
        "enum": ["", "canny"],
    }  # fmt: skip
    assert told["shape"] == {"title": "Shape", "default": "round", "enum": ["round", "square"]}
    assert told["text"]["description"] == "a few" and told["image"]["x-kind"] == "picture"
    assert told["painted"]["x-kind"] == "paint" and told["painted"]["description"] == told["mask"]["description"]
    assert told["parts"]["default"] == [{"x": 1}] and "default" in told["perhaps"]
    assert json.loads(json.dumps(table)) == table
    defaults = {name: value["default"] for name, value in told.items()}
    assert checked(Options, defaults, "Tint") == Options()


def test_pictures_that_are_sent_are_kept() -> None:
    given = {"image": "aGk=", "painted": "aGk=", "mask": DIGEST, "text": "aGk=", "weight": 1}
    kept = {**given, "image": "=kGa", "painted": "=kGa"}
    assert with_pictures(Options, given, lambda text: text[::-1]) == kept
    assert with_pictures(Options, {"image": "", "mask": 5}, str.upper) == {"image": "", "mask": 5}


def test_a_record_that_is_declared_wrongly_is_told() -> None:
    @dataclass(frozen=True)
    class Foreign:
        model: str = option("", "Model", kind=Kind.MODEL, of="xyz")

    @dataclass(frozen=True)
    class Lost:
        mask: str = option("", "Mask", kind=Kind.MASK, of="picture")

    @dataclass(frozen=True)
    class Hidden:
        more: str = option("", "More", when=("mode", "x"))

    assert problem(Options, ["controlnet"]) is None
    assert problem(dict, ["controlnet"]) == "its options are no dataclass"
    assert problem(Foreign, ["controlnet"]) == 'its option model names the kind of models "xyz"; known are controlnet'
    assert problem(Lost, []) == 'its option mask belongs to "picture", which it does not have'
    assert problem(Hidden, []) == 'its option more is there for a value of "mode", which it does not have'
