"""Weights by block: the lists of sd-webui-lora-block-weight, spread over the 26 blocks of its ``to26``."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt.block_weights import BLOCKS, PRESETS, block_weights

SHORT = {
    12: "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05",
    17: "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
    20: "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08",
    26: " ".join(BLOCKS),
}


@pytest.mark.parametrize("count", SHORT)
def test_lists_of_every_length(count: int) -> None:
    """``BLOCKID12``, ``BLOCKID17``, ``BLOCKID20`` and ``BLOCKID26`` of the extension."""
    numbers = [round(0.5 - index / 10, 1) for index in range(count)]
    found = block_weights(", ".join(map(str, numbers)))
    assert found is not None and len(found) == len(BLOCKS) == 26
    expected = dict(zip(SHORT[count].split(), numbers, strict=True))
    assert dict(zip(BLOCKS, found, strict=True)) == {block: expected.get(block, 0.0) for block in BLOCKS}


def test_lists_by_name() -> None:
    ones = {
        "NONE": "",
        "ALL": SHORT[17],
        "INS": "BASE IN01 IN02 IN04",
        "IND": "BASE IN05 IN07 IN08",
        "INALL": "BASE IN01 IN02 IN04 IN05 IN07 IN08",
        "MIDD": "BASE IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06",
        "OUTD": "BASE OUT03 OUT04 OUT05 OUT06",
        "OUTS": "BASE OUT07 OUT08 OUT09 OUT10 OUT11",
        "OUTALL": "BASE OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
    }
    for name, blocks in ones.items():
        found = block_weights(name)
        assert found is not None
        assert [block for block, weight in zip(BLOCKS, found, strict=True) if weight == 1] == blocks.split()
    assert {*ones, "ALL0.5"} == PRESETS.keys()


@given(st.text(alphabet="0123456789.,-eRUinfa ALINS", max_size=80) | st.text(max_size=30))
def test_any_text_is_a_list_or_none(text: str) -> None:
    found = block_weights(text)
    assert found is None or (len(found) == 26 and all(map(math.isfinite, found)))
