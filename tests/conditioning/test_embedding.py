"""Embeddings: where their vectors go, transformers with a larger vocabulary as oracle, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from embedding_pictures import embedding_data, with_text
from hypothesis import given
from hypothesis import strategies as st
from oracles import relative_error, transformers_clip
from safetensors.torch import save_file
from torch import Tensor

from webui.conditioning import embedding
from webui.conditioning.text import encode
from webui.errors import CheckpointError
from webui.model import Model
from webui.networks.clip import ClipTextConfig, ClipTextEncoder
from webui.prompt.chunks import Word, chunks, count_tokens, words_in
from webui.prompt.tokenizer import BOS, EOS, Tokenizer

CAT, DOG = 2368, 1929


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def word(tokenizer: Tokenizer, name: str, vectors: int) -> Word:
    return Word(name, tuple(tokenizer.tokenise(name)), vectors)


def save(path: Path, name: str = "emb_params", shape: tuple[int, ...] = (3, 32)) -> Path:
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    save_file({name: vectors}, path)
    return path


def test_a_word_takes_as_many_places_as_it_has_vectors(tokenizer: Tokenizer) -> None:
    ink = word(tokenizer, "My-Ink", 3)
    assert len(ink.tokens) == 3
    (chunk,) = chunks("cat (MY-ink:1.5) dog my - ink", tokenizer, [ink])
    assert chunk.tokens[:10] == (BOS, CAT, 0, 0, 0, DOG, 0, 0, 0, EOS)
    assert chunk.weights[:6] == (1.0, 1.0, 1.5, 1.5, 1.5, 1.0)
    assert chunk.placed == ((2, "My-Ink"), (6, "My-Ink"))
    assert count_tokens("cat my-ink <lora:x:1>", tokenizer, [ink]) == (4, 75)


def test_the_longest_name_wins_and_brackets_end_a_name(tokenizer: Tokenizer) -> None:
    names = ["cat", "cat dog", "dog cat cat", "bird"]
    assert words_in("cat cat dog (cat) dog", tokenizer, names) == ["cat", "cat dog"]
    assert words_in("a catalogue of birds", tokenizer, names) == []
    assert words_in("CAT\n DoG", tokenizer, names) == ["cat dog"]
    assert words_in(r"cat \(v2\)", tokenizer, ["cat (v2)"]) == ["cat (v2)"]


def test_an_embedding_is_never_in_two_chunks_and_moves_behind_a_comma(tokenizer: Tokenizer) -> None:
    ink = word(tokenizer, "ink", 10)
    first, second = chunks("cat " * 70 + "ink", tokenizer, [ink])
    assert first.placed == () and second.placed == ((1, "ink"),)
    first, second = chunks("cat " * 60 + ", ink" + " cat" * 4 + " dog", tokenizer, [ink])
    assert first.placed == () and first.tokens[62] == EOS
    assert second.placed == ((1, "ink"),) and second.tokens[1:16] == (*[0] * 10, *[CAT] * 4, DOG)


@given(st.lists(st.sampled_from(["cat", "ink", ",", "BREAK", "(ink:1.2)", "inkwell"]), max_size=150))
def test_placeholders_and_words_agree_in_any_prompt(tokenizer: Tokenizer, parts: list[str]) -> None:
    ink = word(tokenizer, "ink", 7)
    made = chunks(" ".join(parts), tokenizer, [ink])
    assert sum(len(chunk.placed) for chunk in made) == sum(part in ("ink", "(ink:1.2)") for part in parts)
    for chunk in made:
        assert len(chunk.tokens) == len(chunk.weights) == 77
        places = [place for start, _ in chunk.placed for place in range(start, start + 7)]
        assert [place for place, token in enumerate(chunk.tokens) if token == 0] == places


def test_equals_transformers_with_a_larger_vocabulary(model: Model, tmp_path: Path) -> None:
    """The vectors as rows appended to the token embedding, their new ids in the prompt's place."""
    path = save(tmp_path / "ink.safetensors")
    (ink,) = embedding.words(["a cat, ink"], model.tokenizer, {"ink": path, "other": tmp_path / "not there"})
    loaded = embedding.load(ink, path, model)
    before = {name: tensor.clone() for name, tensor in model.text_encoder.state_dict().items()}
    with torch.inference_mode():
        found = encode("a (ink:1.3) cat", model, 1, [loaded])
        plain = encode("a (ink:1.3) cat", model, 1)

        size = ClipTextConfig(**{**vars(model.text_encoder.config), "vocabulary": 49408 + 3})
        rows = model.text_encoder.text_model.embeddings.token_embedding.weight
        weights = dict(model.text_encoder.state_dict())
        weights["text_model.embeddings.token_embedding.weight"] = torch.cat([rows, loaded.vectors])
        with torch.device("meta"):
            larger = ClipTextEncoder(size)
        larger.load_state_dict(weights, assign=True)
        (tokens,) = (chunk.tokens for chunk in chunks("a cat", model.tokenizer))
        ids = torch.tensor([[BOS, tokens[1], 49408, 49409, 49410, CAT, *[EOS] * 71]])
        hidden = transformers_clip(larger)(ids).last_hidden_state
    scale = torch.ones(77, 1)
    scale[2:5] = 1.3
    expected = hidden * scale
    expected = expected * (hidden.mean() / expected.mean())
    assert relative_error(found, expected) < 1e-4 and relative_error(plain, expected) > 0.01
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.text_encoder.state_dict().items())


@pytest.mark.parametrize(
    ("name", "shape"), [("emb_params", (2, 32)), ("clip_l", (4, 32)), ("<ink>", (1, 32)), ("<ink>", (32,))]
)
def test_files_of_several_kinds(model: Model, tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "ink.safetensors", name, shape)
    (ink,) = embedding.words(["ink"], model.tokenizer, {"ink": path})
    vectors: Tensor = embedding.load(ink, path, model).vectors
    assert ink.vectors == len(vectors) == (shape[0] if len(shape) > 1 else 1) and vectors.shape[1] == 32


FORMS = {
    "AUTOMATIC1111": lambda vectors: {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "x"},
    "AUTOMATIC1111, older": lambda vectors: {
        "string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)}), "step": 3
    },
    "diffusers": lambda vectors: {"<ink>": vectors},
    "a tensor": lambda vectors: vectors,
    "a list of tensors": list,
    "a list of tables": lambda vectors: [{"<ink>": vectors[:1]}, {"<ink>": vectors[1:]}],
    "several text encoders": lambda vectors: {"clip_g": torch.ones(3, 40), "clip_l": vectors},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".pt", ".bin"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_pickled_files_of_every_kind(model: Model, tmp_path: Path, form: str, suffix: str, as_zip: bool) -> None:
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(5))
    path = tmp_path / f"ink{suffix}"
    torch.save(FORMS[form](vectors), path, _use_new_zipfile_serialization=as_zip)
    (ink,) = embedding.words(["ink"], model.tokenizer, {"ink": path})
    assert ink.vectors == 3
    assert torch.equal(embedding.load(ink, path, model).vectors, vectors)


def test_a_picture_is_a_file_like_any_other(model: Model, tmp_path: Path) -> None:
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(5))
    path = tmp_path / "drawing.png"
    path.write_bytes(with_text(embedding_data(vectors.tolist())))
    (ink,) = embedding.words(["ink"], model.tokenizer, {"ink": path})
    assert ink.vectors == 2 and torch.equal(embedding.load(ink, path, model).vectors, vectors)
    path.write_bytes(with_text(embedding_data(torch.ones(76, 32).tolist())))
    with pytest.raises(CheckpointError, match="at most 75"):
        embedding.words(["ink"], model.tokenizer, {"ink": path})


def test_a_file_of_two_words_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.ones(1, 4), "#": torch.ones(1, 4)}}, tmp_path / "ink.pt")
    with pytest.raises(CheckpointError, match=r"ink\.pt has 2 words \(string_to_param\.\*, .*an embedding has one"):
        embedding.words(["ink"], tokenizer, {"ink": tmp_path / "ink.pt"})


def test_a_file_for_another_model_is_refused_with_both_widths(model: Model, tmp_path: Path) -> None:
    path = save(tmp_path / "ink.safetensors", shape=(1, 768))
    (ink,) = embedding.words(["ink"], model.tokenizer, {"ink": path})
    with pytest.raises(CheckpointError, match=r'"ink" has vectors of 768 numbers, .* takes 32\.'):
        embedding.load(ink, path, model)


@pytest.mark.parametrize(("name", "shape"), [("emb_params", (2, 3, 4)), ("emb_params", (0, 32)), ("emb_params", ())])
def test_files_that_are_no_embeddings_are_named(
    tokenizer: Tokenizer, tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    path = save(tmp_path / "ink.safetensors", name, shape)
    with pytest.raises(CheckpointError, match=r"ink\.safetensors is no embedding"):
        embedding.words(["ink"], tokenizer, {"ink": path})


def test_too_many_vectors_and_damaged_files_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="at most 75"):
        embedding.words(["ink"], tokenizer, {"ink": save(tmp_path / "ink.safetensors", shape=(76, 32))})
    (tmp_path / "ink.pt").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"ink\.pt is no file that torch saved"):
        embedding.words(["ink"], tokenizer, {"ink": tmp_path / "ink.pt"})
    assert embedding.words(["nothing"], tokenizer, {"ink": tmp_path / "ink.pt"}) == ()
