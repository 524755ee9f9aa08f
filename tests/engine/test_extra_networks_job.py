"""Jobs whose prompts name a LoRA or an embedding: what the picture shows, records, and how it is made again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from embedding_pictures import embedding_data, with_text
from network_toy import write_hypernet
from safetensors.torch import load_file, save_file
from tiny_model import TEXT, UNET, picture_bytes, tiny_request

from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.conditioning.lora import a1111_hash
from webui.engine.engine import Engine
from webui.engine.executor import Control, Report
from webui.engine.extra_files import count_tokens
from webui.engine.runner import Runner
from webui.errors import CheckpointError, RequestError
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture, read_picture_texts
from webui.metadata.verdict import Outcome
from webui.networks.clip import ClipTextEncoder
from webui.networks.layer_names import lora_targets
from webui.networks.unet import UNet
from webui.prompt.tokenizer import Tokenizer
from webui.settings import Settings


def write_lora(path: Path, seed: int = 0, strange: int = 0) -> Path:
    with torch.device("meta"):
        targets = lora_targets(UNet(UNET), ClipTextEncoder(TEXT), convolutions=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"lora_te2_strange_{index}.alpha": torch.tensor(1.0) for index in range(strange)}
    for name, target in targets.items():
        tensors[f"{name}.lora_down.weight"] = torch.randn(2, *target.shape[1:], generator=generator) * 0.2
        tensors[f"{name}.lora_up.weight"] = torch.randn(target.shape[0], 2, generator=generator) * 0.2
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def write_embedding(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"emb_params": torch.randn(3, TEXT.width, generator=torch.Generator().manual_seed(9))}, path)
    return path


@pytest.fixture
def ink(settings: Settings) -> Path:
    return write_lora(settings.models_dir / "Lora" / "drawn" / "ink.safetensors")


@pytest.fixture
def blot(settings: Settings) -> Path:
    return write_embedding(settings.models_dir.parent / "embeddings" / "Blot.safetensors")


def make(runner: Runner, prompt: str, told: list[Report] | None = None, **changes: object) -> bytes:
    tell = (lambda report: None) if told is None else told.append
    (path,) = runner.generate(tiny_request(prompt=prompt, **changes), tell, Control())
    return path.read_bytes()


def pixels(data: bytes) -> bytes:
    return read_pixels(data).tobytes()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_hypernetwork_changes_the_picture_and_leaves_the_model(runner: Runner, settings: Settings) -> None:
    path = write_hypernet(settings.models_dir / "hypernetworks" / "drawn" / "ink.pt")
    plain = make(runner, "a square")
    model = runner.models.checkpoint(runner.library.find("tiny"), runner.compute)
    before = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
    data = make(runner, "a square<hypernet:ink:0.8>")
    assert pixels(data) != pixels(plain) and pixels(make(runner, "a square<hypernet:ink:0>")) == pixels(plain)
    assert pixels(make(runner, "a square<hypernet:ink>")) != pixels(data)
    twice = make(runner, "a square<hypernet:ink:0.8><hypernet:drawn/ink:0.8>")
    assert pixels(twice) not in (pixels(data), pixels(make(runner, "a square<hypernet:ink:1.6>")))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.unet.state_dict().items())
    assert pixels(make(runner, "a square")) == pixels(plain)
    texts = read_picture_texts(data)
    assert texts["parameters"].startswith("a square<hypernet:ink:0.8>\n") and "hashes" not in texts["parameters"]
    assert {"role": "hypernet", "name": "ink", "sha256": sha256(path)} in json.loads(texts["recipe"])["models"]
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT
    path.rename(path.with_name("moved.pt"))
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT
    path.with_name("moved.pt").unlink()
    verdict = runner.reproduce(data, lambda report: None, Control())
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert any('The hypernetwork "ink" with SHA-256' in reason for reason in verdict.reasons)


def test_what_of_a_hypernetwork_has_no_place_is_told_or_refused(runner: Runner, settings: Settings) -> None:
    folder = settings.models_dir / "hypernetworks"
    write_hypernet(folder / "part.pt", (32, 768, 1280))
    write_hypernet(folder / "none.pt", (768,))
    save_file({"x": torch.ones(1)}, folder / "other.safetensors")
    told: list[Report] = []
    make(runner, "a <hypernet:part> square", told)
    problems = [report.data["sentence"] for report in told if report.kind == "problem"]
    assert problems == ['Of the hypernetwork "part", the networks for 768, 1280 numbers have no place in this model.']
    with pytest.raises(CheckpointError, match='"none" changes nothing in the model tiny: it is for attention over 768'):
        make(runner, "a <hypernet:none> square")
    with pytest.raises(
        CheckpointError, match=r"other\.safetensors is no hypernetwork that can be used: it has no tens"
    ):
        make(runner, "a <hypernet:other> square")
    with pytest.raises(RequestError, match='There is no hypernetwork named "prt"; did you mean "part"'):
        make(runner, "a <hypernet:prt> square")


def test_a_lora_changes_the_picture_and_leaves_the_model(runner: Runner, ink: Path) -> None:
    plain = pixels(make(runner, "a red square"))
    strong = pixels(make(runner, "a red square<lora:ink:1>"))
    assert strong != plain
    assert pixels(make(runner, "a red square<lora:ink:0>")) == plain
    assert pixels(make(runner, "a red square<lora:drawn/ink:0.5><lyco:ink:0.5>")) == strong
    assert pixels(make(runner, "a red square<lora:ink:0:1>")) not in (plain, strong)
    assert pixels(make(runner, "a red square")) == plain


def test_a_lora_in_a_comment_or_a_choice_is_looked_for_when_it_is_meant(runner: Runner, ink: Path) -> None:
    strong = pixels(make(runner, "a red square<lora:ink:1>"))
    assert pixels(make(runner, "a red square<lora:ink:1># <lora:gone:1>")) == strong
    assert pixels(make(runner, "a red square<lora:{ink|drawn/ink}:1>")) == strong
    with pytest.raises(RequestError, match='There is no LoRA named "gone"'):
        make(runner, "a red square<lora:{gone|gone}:1>")


def test_weights_by_block_change_the_picture(runner: Runner, ink: Path) -> None:
    plain, whole = pixels(make(runner, "a square")), pixels(make(runner, "a square<lora:ink:1>"))
    ones = ",".join(["1"] * 26)
    assert pixels(make(runner, f"a square<lora:ink:1:lbw={ones}>")) == whole
    told: list[Report] = []
    none = ",".join(["0"] * 26)
    assert pixels(make(runner, f"a square<lora:ink:1:{none}>", told)) != whole
    assert not [report for report in told if report.kind == "problem"]
    some = pixels(make(runner, "a square<lora:ink:1:lbw=INS>"))
    assert some not in (plain, whole)
    assert pixels(make(runner, "a square<lora:ink:1:lbw=OUTS>")) not in (plain, whole, some)
    assert pixels(make(runner, "a square<lora:ink:1:lbw=STRANGE:start=5>", told)) == whole
    (sentence,) = [report.data["sentence"] for report in told if report.kind == "problem"]
    assert "lbw=STRANGE of ink, start=5 of ink had no effect" in sentence


def test_the_merged_model_is_kept_until_the_set_or_the_base_changes(runner: Runner, ink: Path) -> None:
    write_lora(ink.with_name("chalk.safetensors"), seed=1)
    make(runner, "<lora:ink:0.5><lora:chalk:0.3>")

    def held() -> list[UNet]:  # not their ids: what is freed leaves its own to the next one
        return [adapted.model.unet for adapted in runner.models._adapted.values()]

    kept = held()
    make(runner, "another <lora:chalk:0.3> prompt <lora:ink:0.5>")
    assert held() == kept and len(kept) == 1
    make(runner, "<lora:ink:0.6>")
    assert kept[0] not in held() and len(held()) == 1
    make(runner, "<lora:ink:0.7>")
    assert len(held()) == 1
    entry = runner.library.default_checkpoint()
    copy = entry.path.with_name("copy.safetensors")
    copy.write_bytes(entry.path.read_bytes())
    runner.library.refresh()
    runner.models.wanted = ()
    runner.models.checkpoint(runner.library.find("copy"), runner.compute)
    assert held() == []


def test_the_picture_tells_its_files(runner: Runner, ink: Path, blot: Path) -> None:
    data = make(runner, "a red <lora:ink:0.8> square", negative_prompt="blot")
    texts = read_picture_texts(data)
    assert texts["parameters"].startswith("a red <lora:ink:0.8> square\nNegative prompt: blot\n")
    assert f'Lora hashes: "ink: {a1111_hash(ink)[:12]}"' in texts["parameters"]
    assert f'TI hashes: "Blot: {sha256(blot)[:12]}"' in texts["parameters"]
    assert json.loads(texts["recipe"])["models"][1:] == [
        {
            "role": "lora",
            "name": "ink",
            "sha256": sha256(ink),
            "tensors": {"used": len(load_file(ink)), "unknown": 0, "misshapen": 0},
        },
        {"role": "embedding", "name": "Blot", "sha256": sha256(blot)},
    ]


def test_an_embedding_changes_the_picture_wherever_it_is_kept(runner: Runner, settings: Settings) -> None:
    plain = pixels(make(runner, "a blot"))
    beside = write_embedding(settings.models_dir.parent / "embeddings" / "blot.safetensors")
    changed = pixels(make(runner, "a BLOT"))
    assert changed != plain
    inside = settings.models_dir / "embeddings" / "blot.safetensors"
    inside.parent.mkdir()
    beside.rename(inside)
    assert pixels(make(runner, "a blot")) == changed


def test_pictures_are_made_again_bit_for_bit_also_after_renaming(
    runner: Runner, settings: Settings, ink: Path, blot: Path
) -> None:
    data = make(runner, "a blot <lora:ink:0.8:0.4>", seed=None)
    verdict = runner.reproduce(data, lambda report: None, Control())
    assert verdict.outcome is Outcome.BIT_EXACT and verdict.reasons == ()
    ink.rename(ink.with_name("renamed.safetensors"))
    blot.rename(blot.with_name("other.safetensors"))
    write_lora(ink, seed=5)  # the name now means another file
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT


def test_a_picture_is_an_embedding_by_the_word_it_states(runner: Runner, settings: Settings) -> None:
    plain = pixels(make(runner, "a Splash"))
    path = settings.models_dir.parent / "embeddings" / "drawing.png"
    path.parent.mkdir(exist_ok=True)
    vectors = torch.randn(2, TEXT.width, generator=torch.Generator().manual_seed(9)).tolist()
    path.write_bytes(with_text(embedding_data(vectors, name="Splash")))
    (path.parent / "photo.png").write_bytes(picture_bytes())
    data = make(runner, "a Splash, photo")
    assert pixels(data) != plain
    texts = read_picture_texts(data)
    assert f'TI hashes: "Splash: {sha256(path)[:12]}"' in texts["parameters"]
    assert {"role": "embedding", "name": "Splash", "sha256": sha256(path)} in json.loads(texts["recipe"])["models"]
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT
    text = encode_picture(read_pixels(data), ".png", {"parameters": texts["parameters"]})
    assert runner.reproduce(text, lambda report: None, Control()).outcome is Outcome.BIT_EXACT


@pytest.mark.parametrize("form", ["string_to_param.*", "clip_l"])
def test_a_lora_may_bring_words_of_its_own(runner: Runner, ink: Path, form: str) -> None:
    plain, without = make(runner, "a Swirl"), make(runner, "a Swirl<lora:ink>")
    vectors = torch.randn(2, TEXT.width, generator=torch.Generator().manual_seed(9))
    save_file({**load_file(ink), f"bundle_emb.Swirl.{form}": vectors}, ink)
    runner.library.refresh()
    told: list[Report] = []
    data = make(runner, "a Swirl<lora:ink>", told)
    assert not [report for report in told if report.kind == "problem"]
    assert pixels(data) != pixels(without) and pixels(make(runner, "a Swirl")) == pixels(plain)
    texts = read_picture_texts(data)
    assert "TI hashes" not in texts["parameters"]
    assert [model["role"] for model in json.loads(texts["recipe"])["models"]] == ["checkpoint", "lora"]
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT
    folder = runner.library.root / "embeddings"
    folder.mkdir()
    save_file({"emb_params": vectors}, folder / "Swirl.safetensors")
    with_file = make(runner, "a Swirl<lora:ink>")
    assert pixels(with_file) == pixels(data) and "TI hashes" in read_picture_texts(with_file)["parameters"]


def test_an_embedding_that_came_later_does_not_take_part(runner: Runner, settings: Settings) -> None:
    data = make(runner, "a blot")
    write_embedding(settings.models_dir / "embeddings" / "blot.safetensors")
    assert runner.reproduce(data, lambda report: None, Control()).outcome is Outcome.BIT_EXACT


@pytest.mark.parametrize("missing", ["ink", "blot"])
def test_a_missing_file_is_named(runner: Runner, ink: Path, blot: Path, missing: str) -> None:
    data = make(runner, "a blot <lora:ink:0.8>")
    path = {"ink": ink, "blot": blot}[missing]
    digest = sha256(path)
    path.unlink()
    verdict = runner.reproduce(data, lambda report: None, Control())
    kind = {"ink": 'LoRA "ink"', "blot": 'embedding "Blot"'}[missing]
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert verdict.reasons == (f"The {kind} with SHA-256 {digest} is not in the models folder.",)


def test_a_plain_text_finds_its_files_by_name_and_tells_other_bytes(runner: Runner, ink: Path, blot: Path) -> None:
    data = make(runner, "a blot <lora:ink:0.8>")
    text = encode_picture(read_pixels(data), ".png", {"parameters": read_picture_texts(data)["parameters"]})
    verdict = runner.reproduce(text, lambda report: None, Control())
    assert verdict.outcome is Outcome.BIT_EXACT and verdict.reasons == ()
    write_lora(ink, seed=5)
    blot.unlink()
    verdict = runner.reproduce(text, lambda report: None, Control())
    assert any('LoRA "ink" was found by its name only' in reason for reason in verdict.reasons)
    assert any('embedding "Blot"' in reason and "not in the models folder" in reason for reason in verdict.reasons)
    ink.unlink()
    verdict = runner.reproduce(text, lambda report: None, Control())
    assert verdict.outcome is Outcome.CANNOT_RUN and any('no LoRA named "ink"' in reason for reason in verdict.reasons)


def test_unknown_names_are_refused_when_the_job_is_made(engine: Engine, ink: Path) -> None:
    with pytest.raises(RequestError, match=r'There is no LoRA named "inc"; did you mean "drawn/ink"|Known: drawn/ink'):
        engine.submit(tiny_request(prompt="<lora:inc:0.8>"))


def test_what_has_no_effect_is_told_or_refused(runner: Runner, settings: Settings) -> None:
    write_lora(settings.models_dir / "LyCORIS" / "part.safetensors", strange=3)
    told: list[Report] = []
    for _ in range(2):  # the second time from memory
        told.clear()
        make(runner, "a <lora:part> <style:x:1> square", told)
        problems = [report.data["sentence"] for report in told if report.kind == "problem"]
        assert any('Of the LoRA "part"' in problem and "3 are not known here" in problem for problem in problems)
        assert any("<style:x:1>" in problem for problem in problems)
    save_file({"x": torch.ones(1)}, settings.models_dir / "LyCORIS" / "none.safetensors")
    runner.library.refresh()
    with pytest.raises(CheckpointError, match="changes nothing in the model tiny"):
        make(runner, "a <lora:none> square")


def test_the_token_counter_knows_how_many_places_an_embedding_takes(settings: Settings, blot: Path) -> None:
    library, tokenizer = Library(settings.models_dir, HashCache(settings.models_dir / "hashes.sqlite3")), Tokenizer()
    assert count_tokens("a Blot", library, tokenizer) == (4, 75)
    blot.write_bytes(b"no model file")
    assert count_tokens("a Blot", library, tokenizer) == (1 + len(tokenizer.tokenise("Blot")), 75)
