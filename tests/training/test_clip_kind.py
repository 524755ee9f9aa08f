from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_model import tiny_checkpoint  # noqa: F401 - a fixture

from webui.checkpoints.formats import BUILT_IN
from webui.device import choose
from webui.errors import CheckpointError, RequestError
from webui.families.sd15 import StableDiffusion1
from webui.prompt.tokenizer import EOS
from webui.training.contrastive import TABLE, TOKEN_ROWS, ContrastiveTask, contrastive_loss
from webui.training.data import read_data
from webui.training.export import TrainingRecipe, export
from webui.training.kinds import Materials
from webui.training.kinds.clip import ClipOptions, register_training_kinds
from webui.training.loop import generator
from webui.training.optimisers import Learner
from webui.training.request import Data, Optimiser, TrainingRequest
from webui.training.scoring import ClipScorer, caption_ends, shrunk, similarity

KIND = register_training_kinds()[0]
COLOURS = {"red": (220, 30, 30), "green": (20, 150, 40), "blue": (30, 50, 220), "white": (250, 250, 250)}
SMALL = ClipOptions(image_size=32, width=32, layers=2, heads=2, projection=16)
Begin = Callable[..., ContrastiveTask]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def caption(inner: str, outer: str) -> str:
    return f"a {inner} square on {outer}"


def picture(inner: str, outer: str, left: int = 16) -> np.ndarray:
    pixels = np.full((64, 64, 3), COLOURS[outer], np.uint8)
    pixels[16:48, left : left + 32] = COLOURS[inner]
    return pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of squares on backgrounds, and one of them again, its square elsewhere."""
    root = tmp_path_factory.mktemp("clip-data")
    shown = [(*pair, 16) for pair in permutations(COLOURS, 2)] + [("red", "green", 24)]
    for number, (inner, outer, left) in enumerate(shown):
        Image.fromarray(picture(inner, outer, left)).save(root / f"{number:02}.png")
        (root / f"{number:02}.txt").write_text(caption(inner, outer), "utf-8")
    return root


@pytest.fixture
def begin(folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> Begin:  # noqa: F811
    def make(options: ClipOptions = SMALL, *, same_words: bool = False, precision: str = "fp32") -> ContrastiveTask:
        request = TrainingRequest(kind="clip", name="clip", data=Data(folder=str(folder), size=64), seed=3)
        base = BUILT_IN.open(tiny_checkpoint)
        model = StableDiffusion1().build(base, choose("cpu", "fp32", 1))
        if same_words:
            with torch.no_grad():
                table = model.text_encoder.get_parameter(TABLE)
                table[:49406] = table[0].clone()
        materials = Materials(
            request=request,
            data=read_data(request.data, 64),
            model=model,
            base=base,
            base_sha256="0" * 64,
            families={},
            compute=choose("cpu", precision, 1),
            preprocessors={},
            cache=tmp_path,
            tell=lambda sentence: None,
        )
        task = KIND.begin(options, materials)
        assert isinstance(task, ContrastiveTask)
        return task

    return make


def exported(task: ContrastiveTask, path: Path, trained: Any = None) -> Path:
    materials = task.materials
    recipe = TrainingRecipe(materials.request, materials.data.digest, 13, "tiny", "0" * 64, 1)
    return export(path, task.weights(trained or {name: value.detach() for name, value in task.trained.items()}), recipe)


def learn(task: ContrastiveTask, steps: int) -> tuple[Learner, list[float]]:
    learner = Learner(task.trained, task.initial, Optimiser(rate=3e-3))
    losses = []
    for step in range(steps):
        found = task.loss(range(13), step, generator(3, step, 0))
        gradients = torch.autograd.grad(found["loss"], list(learner.trained.values()))
        learner.step({name: g.float() for name, g in zip(learner.trained, gradients, strict=True)}, 3e-3)
        losses.append(found["loss"].item())
    return learner, losses


@given(st.integers(1, 8), st.integers(0, 2**32))
def test_without_equal_captions_the_loss_is_that_of_the_paper(count: int, seed: int) -> None:
    logits = 5 * torch.randn(count, count, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    found = contrastive_loss(logits, torch.eye(count, dtype=torch.bool))
    assert torch.allclose(found, expected, atol=1e-5)


def test_equal_captions_are_no_wrong_pairs() -> None:
    equal = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    perfect = torch.where(equal, 50.0, -50.0)
    assert contrastive_loss(perfect, equal).item() == pytest.approx(2 / 3 * math.log(2))  # the share's own entropy
    logits = perfect.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(contrastive_loss(logits, equal), logits)
    assert gradient.abs().max() < 1e-6
    (punished,) = torch.autograd.grad(contrastive_loss(logits, torch.eye(3, dtype=torch.bool)), logits)
    assert torch.allclose(punished[:2, :2], torch.tensor([[-1.0, 1.0], [1.0, -1.0]]) / 6, atol=1e-6)


def test_it_learns_which_caption_belongs_to_which_picture(begin: Begin, tmp_path: Path) -> None:
    task = begin()
    before = task.loss(range(13), 0, generator(3, 0, 0))
    learner, losses = learn(task, 60)
    assert min(losses[:3]) > 2.0
    assert max(losses[-5:]) < 0.6
    assert before["accuracy"] < 0.5
    assert task.loss(range(13), 0, generator(3, 0, 0))["accuracy"] == 1.0
    scorer = ClipScorer.load(exported(task, tmp_path / "clip.safetensors", learner.masters))
    pairs = list(permutations(COLOURS, 2))
    pictures, captions = [picture(*pair) for pair in pairs], [caption(*pair) for pair in pairs]
    assert scorer.best(pictures, captions) == list(range(12))


def test_every_place_after_the_caption_tells_it(begin: Begin) -> None:
    task = begin()
    learn(task, 80)
    with torch.no_grad():
        tokens = task.captions.tokens[:12].long()
        pictures = task.picture_vectors(task.pictures.batch(range(12), False, torch.Generator()))
        for place in (9, 30, 76):
            found = (pictures @ task.caption_vectors(tokens, torch.full((12,), place)).T).argmax(dim=1)
            assert (found == torch.arange(12)).float().mean() > 0.9


def test_places_are_drawn_from_the_end_on(begin: Begin) -> None:
    tokens = torch.full((500, 20), EOS)
    lengths = torch.arange(500) % 19 + 1
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = 7
    assert torch.equal(caption_ends(tokens), lengths)
    places = begin()._places(tokens, torch.Generator().manual_seed(0))
    assert ((places >= lengths) & (places < 20)).all()
    assert set(places[lengths == 10].tolist()) == set(range(10, 20))
    assert torch.equal(begin(replace(SMALL, from_end=False))._places(tokens, torch.Generator()), lengths)


def test_the_file_is_transformers_clip(begin: Begin, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    task = begin()
    path = exported(task, tmp_path / "clip.safetensors")
    file = BUILT_IN.open(path)
    theirs = CLIPModel(CLIPConfig(**json.loads(file.header.metadata["config"]))).eval()
    theirs.load_state_dict(file.load("", torch.float32, torch.device("cpu")))
    ids = task.captions.tokens[:4].long()
    pictures = [picture("red", outer) for outer in ("green", "blue", "white")]
    captions = [task.materials.data.items[item].caption for item in range(4)]
    values = torch.stack([torch.from_numpy(shrunk(p, 32)).permute(2, 0, 1) / 127.5 - 1 for p in pictures])
    with torch.no_grad():
        out = theirs(input_ids=ids, pixel_values=values)
    found = similarity(path, pictures, captions)
    assert torch.allclose(found, out.image_embeds @ out.text_embeds.T, atol=1e-5)
    assert found.shape == (3, 4)
    assert math.exp(theirs.logit_scale.item()) == pytest.approx(1 / 0.07, rel=1e-3)


def test_the_text_tower_is_the_base_and_unused_words_stay(begin: Begin) -> None:
    task = begin()
    base = task.materials.base.load("cond_stage_model.transformer.", torch.float32, torch.device("cpu"))
    tensors = task.weights({name: value.detach() for name, value in task.trained.items()}).tensors
    assert {name: tuple(tensors[name].shape) for name in base} == {n: tuple(t.shape) for n, t in base.items()}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in base.items())
    learner, _ = learn(task, 2)
    after = task.weights(learner.masters).tensors[TABLE]
    changed = (after != base[TABLE]).any(dim=1).nonzero().flatten()
    assert set(changed.tolist()) == set(task.captions.tokens.flatten().tolist())


def test_words_never_taught_are_told_apart(begin: Begin) -> None:
    def distinct(task: ContrastiveTask) -> int:
        return len(task.trained[TOKEN_ROWS].detach().view(len(task.rows), -1).unique(dim=0))

    spread = begin(same_words=True)
    kept = begin(replace(SMALL, new_words="keep"), same_words=True)
    assert distinct(spread) == len(spread.rows)
    assert distinct(kept) == 3  # one for all words, and the two marks
    assert torch.equal(spread.trained[TOKEN_ROWS], begin(same_words=True).trained[TOKEN_ROWS])
    table = spread.weights({name: value.detach() for name, value in spread.trained.items()}).tensors[TABLE]
    assert len(table.unique(dim=0)) == len(spread.rows) + 1


def test_a_fresh_text_tower_forgets_the_base(begin: Begin) -> None:
    fresh, base = begin(replace(SMALL, fresh_text=True)), begin()
    for name in base.trained:
        if name.startswith("text.") and name.endswith(("proj.weight", "fc1.weight", "token_rows")):
            assert not torch.equal(fresh.trained[name], base.trained[name]), name
    _, losses = learn(fresh, 40)
    assert losses[-1] < losses[0] - 1.0


def test_an_image_tower_of_an_earlier_run(begin: Begin, tmp_path: Path) -> None:
    first = begin()
    path = exported(first, tmp_path / "clip.safetensors")
    again = begin(ClipOptions(image_tower=str(path)))
    for name, tensor in first.trained.items():
        if name.startswith("image."):
            assert torch.allclose(tensor, again.trained[name], atol=1e-3), name
    with pytest.raises(RequestError, match="no CLIP file"):
        begin(ClipOptions(image_tower=str(tmp_path / "none.safetensors")))


def test_a_checkpoint_is_no_clip(tiny_checkpoint: Path) -> None:  # noqa: F811
    with pytest.raises(CheckpointError):
        ClipScorer.load(tiny_checkpoint)


def test_bf16_gives_about_the_same_loss(begin: Begin) -> None:
    exact = begin().loss(range(13), 0, generator(3, 0, 0))["loss"].item()
    task = begin(precision="bf16")
    rounded = task.loss(range(13), 0, generator(3, 0, 0))["loss"].item()
    assert rounded == pytest.approx(exact, rel=0.03)
    assert task.trained["image.visual_projection.weight"].dtype is torch.bfloat16
    assert all(value.dtype is torch.float32 for value in task.initial.values())


def test_pictures_read_on_the_fly_are_those_kept(begin: Begin) -> None:
    kept = begin().pictures
    random = torch.Generator().manual_seed(1)
    found = kept.batch([5, 2], True, random)
    random.manual_seed(1)
    assert torch.equal(replace(kept, kept=None).batch([5, 2], True, random), found)
    assert found.min() >= -1.0
    assert 0.5 < found.max() <= 1.0
    assert found.shape == (2, 3, 32, 32)


def test_the_sample_is_a_sheet_of_bars(begin: Begin) -> None:
    (sheet,) = begin().samples()
    assert sheet.shape == (64 + 24 * 8, 300 + 68 * 8, 3)
    assert sheet.dtype == np.uint8


@pytest.mark.parametrize(
    "options", [{"patch": 7}, {"heads": 5}, {"layers": 0}, {"width": 1.5}, {"new_words": "sprawl"}, {"image_size": 8}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        ClipOptions(**options)
