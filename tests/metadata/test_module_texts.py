"""Any options of a module come back exactly from a picture's text, and what is not understood is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_request

from webui.conditioning.modules import full_options
from webui.metadata import module_texts, writing
from webui.metadata.infotext import parse
from webui.metadata.reading import Known, ReadBack, to_request
from webui.option_boxes import Kind, option
from webui.request import GenerationRequest, ModuleUse


class Shape(StrEnum):
    ROUND = "round"
    COMMA = "a, b: c"


@dataclass(frozen=True, kw_only=True)
class Options:
    image: str = option("", "Picture", kind=Kind.PICTURE)
    weight: float = option(1.0, "Weight")
    count: int = option(3, "Weight")  # two of one label
    words: str = option("x", 'Strange: "words", (all)')
    y: str = ""
    flag: bool = option(True, "Flag")
    shape: Shape = Shape.ROUND
    perhaps: str | None = option(None, "Perhaps")
    places: tuple[float, ...] = (0.5,)
    table: Mapping[str, Any] = field(default_factory=dict)


def module(name: str = "Tint", **more: Any) -> Any:
    return SimpleNamespace(**{"name": name, "options": Options, "units": 3, **more})


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e290, max_value=1e290)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ANY_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "image": st.sampled_from(["", "ab" * 32]),
        "weight": NUMBERS,
        "count": st.integers(-(10**18), 10**18),
        "words": TEXT,
        "y": TEXT,
        "flag": st.booleans(),
        "shape": st.sampled_from(["round", "a, b: c"]),
        "perhaps": st.none() | TEXT,
        "places": st.lists(NUMBERS, max_size=3),
        "table": st.dictionaries(TEXT, PLAIN, max_size=3),
    },
)
FACTS = writing.InfotextFacts(model_name="tiny", model_hash="0" * 64, seed=7, walk=writing.Walk(label="Automatic"))


def text_of(uses: tuple[ModuleUse, ...], modules: Mapping[str, Any]) -> str:
    request = tiny_request(modules=uses)
    facts = writing.InfotextFacts(**{**vars(FACTS), "modules": module_texts.pairs(uses, modules)})
    return writing.write(request, facts)


def back(text: str, modules: Mapping[str, Any]) -> ReadBack:
    known = Known(modules=lambda fields: module_texts.read(fields, modules))
    return to_request(parse(text), GenerationRequest(modules=(ModuleUse(name="stale"),)), known)


@pytest.mark.parametrize("name", ["Tint", "Tint (of it): v2", "T", "Seed"])
@given(options=st.lists(ANY_OPTIONS, max_size=3))
def test_any_options_come_back(name: str, options: list[dict[str, Any]]) -> None:
    tint = module(name)
    uses = tuple(ModuleUse(name=name, options=full_options(tint, one)) for one in options)
    read = back(text_of(uses, {name: tint}), {name: tint})
    assert read.request.modules == uses, "and without any, none is left from before"
    assert read.unmapped == ()


def wordy(name: str) -> Any:
    """A module that writes two keys of its own for its one use."""

    def take(fields: dict[str, str]) -> list[dict[str, Any]]:
        return [{"weight": float(fields.pop(f"{name} B"))}] if fields.pop(f"{name} A", None) else []

    write = {"write_infotext": lambda options, _: {f"{name} A": "on", f"{name} B": str(options.weight)}}
    return module(name, units=1, read_infotext=take, **write)


@pytest.mark.parametrize(
    "names", [("Tint", "Blur"), ("Blur", "Tint"), ("Tint", "Own", "Blur", "Tint"), ("Own", "Tint", "Blur", "Blur")]
)
def test_uses_come_back_in_their_order(names: tuple[str, ...]) -> None:
    modules = {"Blur": module("Blur"), "Own": wordy("Own"), "Tint": module("Tint")}
    uses = tuple(
        ModuleUse(name=name, options=full_options(modules[name], {"weight": float(place)}))
        for place, name in enumerate(names)
    )
    read = back(text_of(uses, modules), modules)
    assert read.request.modules == uses
    assert read.unmapped == ()


def test_only_what_is_changed_is_written() -> None:
    uses = (
        ModuleUse(name="Tint", options={"weight": 0.5, "count": 3, "words": "a, b", "flag": False}),
        ModuleUse(name="Tint", options={}),
    )
    assert module_texts.pairs(uses, {"Tint": module()}) == {
        "Tint": 'Weight: 0.5, Strange   words    all: "a, b", Flag: False',
        "Tint 2": "enabled",
    }
    assert 'Tint: "Weight: 0.5' in text_of(uses, {"Tint": module()})


@pytest.mark.parametrize(
    ("value", "weight", "unmapped"),
    [
        ("Weight: 0.5, Colour: red", 0.5, ("Tint: Colour: red",)),
        ("Weight: much, Flag: False", 1.0, ("Tint: Weight: much",)),
        ("Weight: 0.5, Flag: 1", 0.5, ("Tint: Flag: 1",)),
        ("Weight: nan", 1.0, ("Tint: Weight: nan",)),
        ("Weight: 0.5, Picture: x.png", 0.5, ("Tint: Picture: x.png",)),
        ("who knows", None, ("Tint: who knows",)),
    ],
)
def test_what_is_not_understood_is_told(value: str, weight: float | None, unmapped: tuple[str, ...]) -> None:
    text = f'a cat\nSteps: 20, Sampler: Euler, Seed: 3, Size: 64x64, Tint: "{value}", Other 1: "a: b"'
    read = back(text, {"Tint": module()})
    assert [use.options["weight"] for use in read.request.modules] == ([] if weight is None else [weight])
    assert read.unmapped == (*unmapped, "Other 1: a: b")


def test_more_uses_than_units_are_told() -> None:
    text = "a cat\nSteps: 20, Sampler: Euler, Seed: 3, Tint: enabled, Tint 2: enabled"
    read = back(text, {"Tint": module(units=1)})
    assert len(read.request.modules) == 1 and read.unmapped == ("Tint 2: enabled",)


def old_text(write: Any = None, read: Any = None) -> Any:
    def write_infotext(options: Options, number: int) -> dict[str, str]:
        return {f"Old {number}": f"w={options.weight}"}

    def read_infotext(fields: dict[str, str]) -> list[dict[str, Any]]:
        keys = [key for key in fields if key.startswith("Old ")]
        return [{"weight": float(fields.pop(key)[2:])} for key in keys]

    return module(write_infotext=write or write_infotext, read_infotext=read or read_infotext)


def test_a_module_may_have_a_text_of_its_own() -> None:
    tint = old_text()
    uses = tuple(ModuleUse(name="Tint", options=full_options(tint, {"weight": weight})) for weight in (0.25, 4.0))
    assert module_texts.pairs(uses, {"Tint": tint}) == {"Old 0": "w=0.25", "Old 1": "w=4.0"}
    read = back(text_of(uses, {"Tint": tint}), {"Tint": tint})
    assert read.request.modules == uses and read.unmapped == ()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ([{"weight": "x"}], ("Old 0: w=1", "Tint: Weight is 'x'; it must be a number.")),
        (["x"], ("Old 0: w=1", "Tint read options from the text that are no named values.")),
        ([{}] * 4, ("Old 0: w=1",)),
        (None, ("Old 0: w=1",)),
    ],
)
def test_what_a_module_reads_wrongly_is_told(answer: Any, told: tuple[str, ...]) -> None:
    def read(fields: dict[str, str]) -> Any:
        fields.pop("Old 0")
        return answer

    tint = old_text(read=read)
    found = back('a cat\nSteps: 20, Sampler: Euler, Seed: 3, Old 0: "w=1"', {"Tint": tint})
    assert found.unmapped == told
    assert len(found.request.modules) == (3 if answer == [{}] * 4 else 0)


def test_a_module_that_fails_to_write_leaves_the_common_text() -> None:
    failed: list[str] = []

    def ask(tint: Any, function: str, arguments: tuple[Any, ...]) -> None:
        failed.append(function)

    uses = (ModuleUse(name="Tint", options={"weight": 0.5}),)
    assert module_texts.pairs(uses, {"Tint": old_text()}, ask) == {"Tint": "Weight: 0.5"}
    assert failed == ["write_infotext"]
