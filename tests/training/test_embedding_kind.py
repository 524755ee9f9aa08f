from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from training_cases import Begin

from webui.conditioning import embedding as conditioning
from webui.conditioning import text
from webui.errors import RequestError
from webui.prompt.chunks import Word
from webui.training.captions import context
from webui.training.export import TrainingRecipe, export
from webui.training.kinds.embedding import TRAINED, EmbeddingOptions, EmbeddingTask, spelled
from webui.training.loop import generator
from webui.training.request import Noise, Samples

VOCABULARY = 49408


def loss(task: EmbeddingTask, step: int = 0) -> Tensor:
    return task.loss((0, 1, 2, 3), step, generator(0, step, 0))["loss"]


def table(task: EmbeddingTask) -> Tensor:
    return task.model.text_encoder.text_model.embeddings.token_embedding.weight


def test_only_the_vectors_learn_and_their_gradient_is_the_slope(begin: Begin) -> None:
    task = begin("embedding", {"vectors": 2}, noise=Noise(caption_dropout=0.0))
    (vectors,) = task.trained.values()
    before = [{name: tensor.clone() for name, tensor in part.state_dict().items()} for part in parts(task)]
    value = loss(task)
    value.backward()
    assert vectors.grad.shape == (2, 32) and vectors.grad.abs().sum(dim=1).min() > 0
    direction = vectors.grad / vectors.grad.norm()
    with torch.no_grad():
        step = 1e-2
        vectors += step * direction
        above = loss(task)
        vectors -= 2 * step * direction
        below = loss(task)
    assert float(above - below) / (2 * step) == pytest.approx(float(vectors.grad.norm()), rel=0.02)
    for part, kept in zip(parts(task), before, strict=True):
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in part.parameters())
        assert all(torch.equal(tensor, kept[name]) for name, tensor in part.state_dict().items())


def parts(task: EmbeddingTask) -> list[Any]:
    return [task.model.unet, task.model.text_encoder]


def test_in_half_precision_the_vectors_stay_exact(begin: Begin) -> None:
    task, exact = begin("embedding", precision="bf16"), begin("embedding")
    assert task.trained[TRAINED].dtype is torch.float32
    loss(task).backward()
    loss(exact).backward()
    ours, theirs = (each.trained[TRAINED].grad.flatten() for each in (task, exact))
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.95


def test_the_context_is_what_a_prompt_with_the_file_gives(begin: Begin, tmp_path: Path) -> None:
    task = begin("embedding", {"vectors": 3, "templates": "a photo of {word}, {caption}"}, name="zorp")
    recipe = TrainingRecipe(task.materials.request, "d" * 64, 4, "tiny", "0" * 64, 2)
    path = export(tmp_path / "zorp.safetensors", task.weights({TRAINED: task.trained[TRAINED]}), recipe)
    with safe_open(path, "pt") as file:
        assert list(file.keys()) == ["emb_params"] and file.get_tensor("emb_params").shape == (3, 32)
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    caption = task.materials.data.items[1].caption
    prompt = f"a photo of zorp, {caption}"
    files = {"zorp": path}
    (word,) = conditioning.words([prompt], task.model.tokenizer, files)
    assert word.vectors == 3
    with torch.no_grad():
        expected = text.encode(prompt, task.model, 1, [conditioning.load(word, path, task.model)])
        task.trained[TRAINED].copy_(task.trained[TRAINED].half())
        tokens, overrides = task._overridden(task.captions.tokens[1:2].long())
        found = context(task.model.text_encoder, tokens, embeddings=overrides)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_samples_read_the_word_as_the_vectors_so_far(begin: Begin) -> None:
    samples = Samples(prompts=("a photo of made", "a photo of nothing"), steps=2)
    task = begin("embedding", samples=samples)
    first = task.samples()
    with torch.no_grad():
        task.trained[TRAINED].mul_(-20.0)
    then = task.samples()
    assert (first[0] != then[0]).any() and (first[1] == then[1]).all()


def test_first_vectors(begin: Begin) -> None:
    task = begin("embedding", {"vectors": 64})
    first, words = task.trained[TRAINED].detach(), table(task)
    assert torch.allclose(first.std(), words.std(), rtol=0.1)
    assert (first.mean(dim=0) - words.mean(dim=0)).abs().max() < 4 * words.std() / 8
    assert torch.equal(first, begin("embedding", {"vectors": 64}).trained[TRAINED])
    assert not torch.equal(first, begin("embedding", {"vectors": 64}, seed=1).trained[TRAINED])
    said = begin("embedding", {"vectors": 4, "initial": "red dog"})
    red, dog = said.model.tokenizer.tokenise("red dog")
    assert torch.equal(said.trained[TRAINED], table(said)[[red, red, dog, dog]])
    with pytest.raises(RequestError, match="has 3 tokens, but there are 2 vectors"):
        begin("embedding", {"vectors": 2, "initial": "a red dog"})


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red square", ["a photo of {word}, a red square", "{word}"]),
        ("", ["a photo of {word}", "{word}"]),
        ("a Zorp in the snow", ["a {word} in the snow"] * 2),
        ("{word}: red", ["{word}: red"] * 2),
        ("zorps", ["a photo of {word}, zorps", "{word}"]),
    ],
)
def test_how_captions_come_to_the_word(caption: str, expected: list[str]) -> None:
    assert spelled(caption, "zorp", ("a photo of {word}, {caption}", "{word}")) == expected


def test_a_word_that_is_called_word() -> None:
    assert spelled("a {word}, word", "word", ("{word}",)) == ["a {word}, {word}"]


def test_tokens_of_a_caption_with_the_word_and_of_a_long_one(begin: Begin) -> None:
    task = begin("embedding", {"vectors": 2, "templates": "{caption} {word}\n{word}"}, data={"caption": "x"})
    square = task.model.tokenizer.tokenise("green, square")
    assert task.captions.tokens[2, : len(square) + 4].tolist() == [49406, *square, VOCABULARY, VOCABULARY + 1, 49407]
    assert task.captions.tokens[3, :4].tolist() == [49406, VOCABULARY, VOCABULARY + 1, 49407]
    assert len(task.captions.tokens) == 8
    long = begin("embedding", {"vectors": 2, "templates": "{caption} {word}"}, data={"prefix": "far " * 90})
    for row in long.captions.tokens.tolist():
        assert row[74:77] == [VOCABULARY, VOCABULARY + 1, 49407]


def test_pictures_need_no_captions_and_class_pictures_lack_the_word(begin: Begin, painted: Path) -> None:
    task = begin("embedding", data={"class_folder": str(painted / "general")})
    held = (task.captions.tokens >= VOCABULARY).any(dim=1).view(6, -1)
    assert held[:4].all() and not held[4:].any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"vectors": 0}, "Vectors are 0"),
        ({"vectors": 76}, "from 1 to 75"),
        ({"templates": "a photo"}, "has no {word}"),
        ({"templates": " \n"}, "no template"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        EmbeddingOptions(**options)


def test_a_word_that_no_prompt_can_spell(begin: Begin) -> None:
    with pytest.raises(RequestError, match="cannot be written in a prompt"):
        begin("embedding", name=" ")


def test_words_of_several_names(begin: Begin) -> None:
    task = begin("embedding", {"word": "sks"}, name="my thing")
    assert isinstance(Word("sks", tuple(task.model.tokenizer.tokenise("sks")), 4), Word)
    assert task.captions.tokens.max() == VOCABULARY + 3
