"""The keys that Regional Prompter writes: its own texts are read, and ours come back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from regional_loaded import REGIONAL

from webui.metadata import infotext

Options = REGIONAL.options
THEIRS = (
    "RP Active: True, RP Divide mode: Matrix, RP Matrix submode: Rows, RP Mask submode: Mask, RP Prompt submode: "
    'Prompt, RP Calc Mode: Latent, RP Ratios: "1,3;2;1,1", RP Base Ratios: 0.2, RP Use Base: False, RP Use Common: '
    "True, RP Use Ncommon: False, RP LoRA Neg Te Ratios: 0, RP LoRA Neg U Ratios: 0, RP threshold: 0.4, "
    "RP LoRA Stop Step: 0, "
    "RP LoRA Hires Stop Step: 0, RP Flip: False"
)


def fields_of(text: str) -> dict[str, str]:
    return dict(infotext.parse(f"a BREAK b\nSteps: 20, {text}").fields)


def test_a_text_of_regional_prompter() -> None:
    fields = fields_of(THEIRS)
    (options,) = REGIONAL.read_infotext(fields)
    assert Options(**options) == Options(mode="Rows", method="Latent", ratios="1,3;2;1,1", use_common=True)
    assert fields == {"Steps": "20"}


def test_its_older_names_and_its_flip() -> None:
    fields = {"RP Active": "True", "RP Divide mode": "Vertical", "RP Ratios": "1,2;1", "RP Flip": "True"}
    assert REGIONAL.read_infotext(fields)[0]["mode"] == "Rows"
    assert fields == {}
    assert (
        REGIONAL.read_infotext({"RP Active": "True", "RP Ratios": "1,2;1", "RP Flip": "True"})[0]["ratios"] == "1;2,1"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"Steps": "20"},
        {"RP Active": "False", "RP Ratios": "1,1"},
        {"RP Active": "True", "RP Divide mode": "Prompt", "RP threshold": "0.4"},
    ],
)
def test_what_is_not_understood_is_left(fields: dict[str, str]) -> None:
    before = dict(fields)
    assert REGIONAL.read_infotext(fields) == [] and fields == before


def test_options_that_would_matter_are_left() -> None:
    fields = {"RP Active": "True", "RP LoRA Stop Step": "8"}
    assert len(REGIONAL.read_infotext(fields)) == 1 and fields == {"RP LoRA Stop Step": "8"}


@given(
    mode=st.sampled_from(["Columns", "Rows"]),
    ratios=st.sampled_from(["", "1,1", "1,2,1;2,1"]),
    mask=st.sampled_from(["", "ab" * 32]),
    separator=st.sampled_from(["BREAK", "Lines"]),
    method=st.sampled_from(["Attention", "Latent"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    base_ratio=st.sampled_from(["0.2", "0.1,0.9"]),
    weights=st.sampled_from(["1", "1,0.5"]),
)
def test_any_options_come_back(flags: tuple[bool, bool, bool], **options: Any) -> None:
    names = ("use_common", "use_base", "use_common_negative")
    written = Options(**options, **dict(zip(names, flags, strict=True)))
    text = infotext.layout("a BREAK b", "", REGIONAL.write_infotext(written, 0))
    fields = dict(infotext.parse(text).fields)
    (read,) = REGIONAL.read_infotext(fields)
    assert Options(**read) == written and not [key for key in fields if key.startswith("RP ")]
