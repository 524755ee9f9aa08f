from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import MetadataError
from webui.metadata.recipe import MAX_RECIPE, Recipe, input_digests, request_of_one
from webui.request import GenerationRequest, Mask, Sampling, StartImage
from webui.result import Environment, ModelFile, Plugin, TensorCounts

DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
ENVIRONMENTS = st.builds(
    Environment,
    webui=TEXT,
    torch=TEXT,
    transformers=st.none() | TEXT,
    device=TEXT,
    dtype=TEXT,
    attention=TEXT,
    threads=st.integers(1, 512),
    cpu=TEXT,
)
STARTS = st.none() | st.builds(StartImage, image=DIGEST, mask=st.none() | st.builds(Mask, image=DIGEST))
COUNTS = st.builds(TensorCounts, used=st.integers(0), unknown=st.integers(0), misshapen=st.integers(0))
MODELS = st.builds(ModelFile, role=st.just("checkpoint"), name=TEXT, sha256=DIGEST, tensors=st.none() | COUNTS)
RECIPES = st.builds(
    Recipe,
    request=st.builds(
        GenerationRequest,
        prompt=TEXT,
        negative_prompt=TEXT,
        sampling=st.builds(Sampling, cfg_scale=st.floats(0, 100), eta=st.floats(0, 1)),
        seed=st.integers(0, 2**40),
        batch_count=st.just(5),
        checkpoint=TEXT,
        vae=TEXT.filter(lambda name: name != "Automatic"),
        start=STARTS,
    ),
    index=st.integers(0, 4),
    models=st.lists(MODELS, min_size=1, max_size=2).map(tuple),
    inputs=st.lists(DIGEST, max_size=2).map(tuple),
    environment=ENVIRONMENTS,
    plugins=st.lists(st.builds(Plugin, name=TEXT, version=TEXT, digest=DIGEST), max_size=2).map(tuple),
    pixels=DIGEST,
)  # fmt: skip
ONE = Recipe(
    request=GenerationRequest(prompt="ü", seed=5, checkpoint="m", sampling=Sampling(eta=0.0), batch_size=3),
    index=2,
    models=(ModelFile(role="checkpoint", name="m", sha256="0" * 64),),
    inputs=(),
    environment=Environment(
        webui="1", torch="2", transformers=None, device="cpu", dtype="fp32", attention="sdpa", threads=2, cpu="x"
    ),
    plugins=(),
    pixels="1" * 64,
)


@given(RECIPES)
def test_a_recipe_survives_its_text(recipe: Recipe) -> None:
    text = recipe.to_json()
    again = Recipe.from_json(text)
    assert again == recipe
    assert again.to_json() == text


@given(RECIPES)
def test_the_text_is_canonical(recipe: Recipe) -> None:
    """Keys sorted, no spaces, as RFC 8785 has it for what stands in it; any JSON of the same meaning becomes it."""
    text = recipe.to_json()
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    shuffled = json.dumps(dict(reversed(data.items())), indent=3)
    assert Recipe.from_json(shuffled).to_json() == text


def test_the_text_keeps_letters_as_they_are() -> None:
    assert '"prompt":"ü"' in ONE.to_json()


def test_the_request_of_one_picture_is_its_own_seed_alone() -> None:
    request = request_of_one(ONE)
    assert (request.seed, request.batch_size, request.pictures) == (7, 1, 1)


def test_the_pictures_that_were_read() -> None:
    start = StartImage(image="a" * 64, mask=Mask(image="b" * 64))
    assert input_digests(ONE.request) == ()
    assert input_digests(replace(ONE.request, start=replace(start, mask=None))) == ("a" * 64,)
    assert input_digests(replace(ONE.request, start=start)) == ("a" * 64, "b" * 64)


def changed(**changes: Any) -> str:
    data = json.loads(ONE.to_json())
    for place, value in changes.items():
        *parents, name = place.split("__")
        inner = data
        for parent in parents:
            inner = inner[parent]
        if value is KeyError:
            del inner[name]
        else:
            inner[name] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "5",
        '"recipe"',
        "{}",
        "[" * 100_000,
        '{"format":1}',
        ONE.to_json()[:-1],
        "9" * 10_000,
        " " * (MAX_RECIPE + 1),
        changed(format=2),
        changed(format=[]),
        changed(index=-1),
        changed(index=3),
        changed(index=True),
        changed(index="0"),
        changed(request=None),
        changed(request__seed=None),
        changed(request__seed=-1),
        changed(request__checkpoint=None),
        changed(request__sampling__eta=None),
        changed(request__sampling__steps=10**9),
        changed(request__wings=2),
        changed(models=[]),
        changed(models=None),
        changed(models=[5]),
        changed(models=[{"role": "lora", "name": "x", "sha256": "0"}]),
        changed(models=[{"role": "checkpoint", "name": [], "sha256": "0"}]),
        changed(inputs=[5]),
        changed(environment=KeyError),
        changed(environment__threads=0),
        changed(environment__threads="2"),
        changed(environment__threads=KeyError),
        changed(environment__dtype=16),
        changed(environment__wings="x"),
        changed(plugins=[{"name": "x"}]),
        changed(plugins={"a": 1}),
        changed(pixels=None),
    ],
    ids=lambda text: text[:30] + text[-20:],
)
def test_a_damaged_recipe_is_one_sentence(text: str) -> None:
    with pytest.raises(MetadataError) as caught:
        Recipe.from_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(MetadataError):
        Recipe.from_json(text)


@given(st.data())
def test_a_recipe_with_a_byte_changed_is_read_or_refused(data: st.DataObject) -> None:
    text = ONE.to_json()
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8"))
    with suppress(MetadataError):
        Recipe.from_json(text[:place] + letter + text[place + 1 :])
