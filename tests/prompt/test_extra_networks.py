"""Network tags: the cases of AUTOMATIC1111's rules, and that no text is a problem."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt.block_weights import block_weights
from webui.prompt.extra_networks import LoraTag, NetworkTag, extract

SEVENTEEN = ",".join(f"{number / 10:g}" for number in range(17))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:ink>", LoraTag("ink")),
        ("<lora:ink:0.8>", LoraTag("ink", 0.8, 0.8)),
        ("<lyco:ink:.5:-2>", LoraTag("ink", 0.5, -2.0)),
        ("<lora:ink:1:0.5:4>", LoraTag("ink", 1.0, 0.5, 4)),
        ("<lora:ink:te=0.5>", LoraTag("ink", 0.5, 0.5)),
        ("<lora:ink:unet=0.5>", LoraTag("ink", 1.0, 0.5)),
        ("<lora:unet=0.5:ink:0.7:dyn=8>", LoraTag("ink", 0.7, 0.5, 8)),
        ("<lora:ink:0.5:lbw=INS>", LoraTag("ink", 0.5, 0.5, None, block_weights("INS"))),
        ("<lora:ink:1:OUTALL>", LoraTag("ink", 1.0, 1.0, None, block_weights("OUTALL"))),
        ("<lora:ink:1:0.5:ALL0.5:8>", LoraTag("ink", 1.0, 0.5, 8, block_weights("ALL0.5"))),
        (f"<lora:ink:{SEVENTEEN}>", LoraTag("ink", 1.0, 1.0, None, block_weights(SEVENTEEN))),
        (f"<lora:ink:te=0.5:w={SEVENTEEN}>", LoraTag("ink", 0.5, 0.5, None, block_weights(SEVENTEEN))),
        ("<lora:ink:lbw=1,R:start=4>", LoraTag("ink", unused=("lbw=1,R", "start=4"))),
        ("<lora:folder/my ink v2 (x):1:1:2:ignored>", LoraTag("folder/my ink v2 (x)", 1.0, 1.0, 2)),
    ],
)
def test_arguments(tag: str, expected: LoraTag) -> None:
    found = extract(f"a {tag} cat")
    assert found.text == "a  cat" and found.loras == (expected,) and found.tags == ()


@pytest.mark.parametrize(
    "text",
    [
        "<lora:ink", "lora:ink>", "<lora>", "<lora:>", "<lora::0.5>", "<lora:ink:strong>", "<lora:ink:nan>",
        "<lora:ink:1:inf>", "<lora:ink:1:1:0>", "<lora:ink:1:1:1.5>", "<lora:te=1>", "< lora:ink>", "a < b: c > d",
    ],
)  # fmt: skip
def test_malformed_tags_stay_text(text: str) -> None:
    found = extract(f"x {text} y")
    assert found.text == f"x {text} y" and found.loras == ()


def test_several_at_once_and_tags_of_other_words() -> None:
    found = extract("<lora:a:1>b<style:c:0.5><lora:a:0.5>\n<hypernet:d:x=1:2=3=4><lora:d>")
    assert found.text == "b\n"
    assert [tag.name for tag in found.loras] == ["a", "a", "d"]
    style, hypernet = found.tags
    assert style == NetworkTag("style", ("c", "0.5")) and style.text == "<style:c:0.5>"
    assert (hypernet.text, hypernet.by_place) == ("<hypernet:d:x=1:2=3=4>", ["d", "2=3=4"])
    assert hypernet.named == [("x", "1")]


@given(st.text(alphabet="<>:=.lora 1\n\\(é", max_size=60) | st.text(max_size=60))
def test_any_text_has_a_meaning(text: str) -> None:
    found = extract(text)
    for tag in found.loras:
        assert tag.name and math.isfinite(tag.text_weight) and math.isfinite(tag.unet_weight)
    whole = re.findall(r"<\w+:[^>]+>", text)  # AUTOMATIC1111's pattern
    assert len(found.loras) + len(found.tags) <= len(whole) and all(tag.text in whole for tag in found.tags)
    if not whole:
        assert found.text == text


@pytest.mark.parametrize("piece", ["<a:", "<a", "<lora:x:y>", "<a:>"])
def test_long_texts_take_linear_time(piece: str) -> None:
    """A quadratic reading of a million characters would not end within any test run."""
    assert extract(piece * 300_000).loras == ()
