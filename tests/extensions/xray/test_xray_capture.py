"""What the module sees and writes: it changes no pixel, and what it writes is what really happened."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import picture_bytes, tiny_request
from torch import Tensor

from webui import families
from webui.checkpoints.formats import BUILT_IN
from webui.conditioning import Contribution
from webui.device import choose
from webui.diffusion.guidance import Guiding
from webui.engine.engine import Engine
from webui.engine.jobs import Job, JobState
from webui.families.sd15 import StableDiffusion1
from webui.images.pixels import read_pixels
from webui.metadata.files import read_picture_texts
from webui.networks.unet import Attend, Attending, Openings
from webui.pipeline.denoising import prepare
from webui.pipeline.run import run_group
from webui.plugins.manager import Plugins
from webui.prompt.chunks import chunks
from webui.prompt.tokenizer import Tokenizer
from webui.request import GenerationRequest, ModuleUse, Noise, Refiner, SecondPass, StartImage

PROMPT = "a (red:1.3) square, blorptastic"


def using(request: GenerationRequest, **options: Any) -> GenerationRequest:
    return replace(request, modules=(*request.modules, ModuleUse(name="xray", options=options)))


def made(engine: Engine, request: GenerationRequest) -> Job:
    job = over(engine, engine.submit(request))
    assert job.state is JobState.DONE, job.error
    return job


def over(engine: Engine, job: Job) -> Job:
    deadline = time.monotonic() + 120
    while not engine.job(job.id).state.is_over:
        assert time.monotonic() < deadline, "the job did not come to an end"
        time.sleep(0.01)
    return engine.job(job.id)


def file_of(engine: Engine, job: Job, number: int = 0) -> bytes:
    return engine.output_path(job.outputs[number].id).read_bytes()


def folder_of(engine: Engine, job: Job) -> Path:
    return engine.settings.state_dir / "modules" / "xray" / job.id


REQUESTS = {
    "plain": tiny_request(prompt=PROMPT, negative_prompt="blue"),
    "scale one": tiny_request(prompt=PROMPT, cfg_scale=1.0),
    "two calls a step": tiny_request(prompt=PROMPT, sampler="Heun"),
    "editing and AND": tiny_request(prompt="a [red:blue:0.5] square AND a cat :0.7"),
    "two chunks": tiny_request(prompt="red BREAK square", negative_prompt="blue"),
    "stochastic": tiny_request(prompt=PROMPT, sampler="Euler a"),
    "two pictures": replace(tiny_request(prompt=PROMPT), batch_size=2),
    "second pass": replace(tiny_request(prompt=PROMPT), second_pass=SecondPass(scale=1.5)),
    "refiner": replace(tiny_request(prompt=PROMPT, steps=4), refiner=Refiner(checkpoint="tiny", switch_at=0.5)),
    "variation": tiny_request(prompt=PROMPT, noise=Noise(variation_strength=0.3, variation_seed=5)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_picture_is_bit_identical_with_and_without_and_reproduces(engine: Engine, name: str) -> None:
    request = REQUESTS[name]
    plain, seen = made(engine, request), made(engine, using(request))
    for number in range(request.pictures):
        one, other = file_of(engine, plain, number), file_of(engine, seen, number)
        assert np.array_equal(read_pixels(one), read_pixels(other))
        assert read_picture_texts(one) == read_picture_texts(other), "it is in no recipe and no text"
    verdict = over(engine, engine.reproduce(file_of(engine, seen), "picture.png")).verdict
    assert verdict is not None and verdict["outcome"] == "bit-exact", verdict
    assert (folder_of(engine, seen) / "pass-1" / "facts.json").is_file()
    assert not folder_of(engine, plain).exists()


def test_a_start_image_is_seen_too(engine: Engine) -> None:
    start = StartImage(image=engine.put_input(picture_bytes()), denoising_strength=0.5)
    request = replace(tiny_request(prompt=PROMPT, steps=6), start=start)
    plain, seen = made(engine, request), made(engine, using(request))
    assert np.array_equal(read_pixels(file_of(engine, plain)), read_pixels(file_of(engine, seen)))
    assert facts_of(engine, seen)["frames"]


def facts_of(engine: Engine, job: Job, number: int = 1) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder_of(engine, job) / f"pass-{number}" / "facts.json").read_text())
    return facts


def test_passes_are_those_of_a_job(engine: Engine, xray: SimpleNamespace) -> None:
    for name, count in (("plain", 1), ("two pictures", 1), ("second pass", 2), ("refiner", 2)):
        kept = xray.capture.passes(folder_of(engine, made(engine, using(REQUESTS[name]))))
        assert [one.number for one in kept] == list(range(1, count + 1)), name
        assert all(one.frames for one in kept), name
    assert kept[0].frames[-1]["call"] < kept[1].frames[0]["call"], "the refiner goes on where the other left off"


@pytest.mark.parametrize("text", ["a (red:1.3) square, blorptastic", "red BREAK (blue square:0.5)", "", "word " * 90])
def test_tokens_chunks_and_weights_are_the_tokenizers(engine: Engine, text: str) -> None:
    facts = facts_of(engine, made(engine, using(tiny_request(prompt=text))))
    (span,) = facts["prompts"][0]["spans"]
    expected = chunks(text, Tokenizer())
    assert len(span["chunks"]) == len(expected)
    for shown, chunk in zip(span["chunks"], expected, strict=True):
        used = shown["length"]
        assert chunk.tokens[1 : 1 + used] == tuple(shown["ids"])
        assert chunk.weights[1 : 1 + used] == pytest.approx(shown["weights"], abs=1e-4)
        assert set(chunk.tokens[1 + used :]) == {49407}


def test_words_are_put_together_of_their_tokens(xray: SimpleNamespace) -> None:
    tokenizer = Tokenizer()
    found = chunks("a (red:1.3) square, blorptastic BREAK cats", tokenizer)
    words = xray.words.words([xray.words.plain_chunk(chunk, tokenizer) for chunk in found])
    assert [word.text for word in words] == ["a", "red", "square", "blorptastic", "cats"]
    assert [word.weight for word in words] == [1.0, 1.3, 1.0, 1.0, 1.0]
    assert [words[1].places, words[4].places] == [(2,), (78,)]
    assert len(words[3].places) == len(tokenizer.tokenise("blorptastic")) > 1


def test_an_embedding_is_one_word_of_several_vectors(xray: SimpleNamespace) -> None:
    from webui.prompt.chunks import Word

    tokenizer = Tokenizer()
    word = Word("mint", tuple(tokenizer.tokenise("mint")), 3)
    (chunk,) = chunks("a mint mint leaf", tokenizer, [word])
    words = xray.words.words([xray.words.plain_chunk(chunk, tokenizer)])
    assert [(one.text, one.places) for one in words] == [
        ("a", (1,)), ("mint", (2, 3, 4)), ("mint", (5, 6, 7)), ("leaf", (8,))
    ]  # fmt: skip


def independent(attending: Attending, row: int) -> np.ndarray:
    """softmax(q k / sqrt(d)) in float64, head by head, place by place: (T, h, w), the mean over heads."""
    query, key = attending.query[row].double().numpy(), attending.key[row].double().numpy()
    heads, width = attending.heads, query.shape[1] // attending.heads
    total = np.zeros((query.shape[0], key.shape[0]))
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for place, one in enumerate(query[:, part]):
            weights = np.exp([float(one @ other) / math.sqrt(width) for other in key[:, part]])
            total[place] += weights / weights.sum() / heads
    return total.T.reshape(-1, *attending.size)


def enlarged(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (T, n, n) at another size, linear between the middles of the places."""
    places = (np.arange(side) + 0.5) * maps.shape[1] / side - 0.5
    known = np.arange(maps.shape[1])
    rows = np.apply_along_axis(lambda line: np.interp(places, known, line), 1, maps)
    return np.apply_along_axis(lambda line: np.interp(places, known, line), 2, rows)


def test_maps_sum_to_one_and_match_an_independent_computation(
    tiny_checkpoint: Path, tmp_path: Path, xray: SimpleNamespace
) -> None:
    model = families.load(BUILT_IN.open(tiny_checkpoint), {"SD1": StableDiffusion1()}, choose("cpu", "fp32", 1))
    plugins = Plugins.load(None)
    request = tiny_request(prompt=PROMPT, negative_prompt="blue").resolved(
        checkpoint="tiny", vae="None", sampler="Euler", schedule="Karras", eta=0.0
    )
    recorder = xray.recorder.Recorder(model, request, tmp_path / "job", 3)
    expected: list[list[np.ndarray]] = []
    calls: list[Guiding] = []

    def listen(attending: Attending, attend: Attend) -> Tensor:
        if attending.is_cross:
            assert attending.query.shape[0] == 2, "cond, then uncond"
            expected[-1].append(independent(attending, 0))
        return attend(attending)

    def fresh(call: object) -> Openings:
        expected.append([])
        return Openings(attention_wraps=(listen,))

    def keep(guiding: Guiding) -> Tensor:
        calls.append(guiding)
        return guiding.guided

    seen = Contribution(recorder.openings, guide=recorder.see, begin=recorder.begin)
    with torch.inference_mode():
        setup = prepare(
            request,
            model,
            plugins.samplers["Euler"],
            plugins.schedules["Karras"],
            [seen, Contribution(fresh, guide=keep)],
        )
        for _ in run_group(request, setup, None, [0]):
            pass
    (kept,) = xray.capture.passes(tmp_path / "job")
    assert [frame["call"] for frame in kept.frames] == [0, 1, 2]
    per_call = []
    for number, sites in enumerate(expected):
        mean = np.mean([enlarged(site, 8) for site in sites], axis=0)
        found = kept.maps(number)[0]
        assert found.shape == (78, 8, 8)
        assert np.allclose(found.sum(axis=0), 1, atol=2e-3), "at every place the shares of all tokens sum to 1"
        assert np.allclose(found[:77], mean, atol=1e-3)
        per_call.append(found)
    assert {site.shape[1] for sites in expected for site in sites} == {4, 8}
    assert np.allclose(kept.maps()[0], np.mean(per_call, axis=0), atol=1e-3)
    assert kept.facts["sigmas"] == pytest.approx([*(call.sigma for call in calls), 0.0], abs=1e-5)
    assert kept.facts["asked"] == [[call.call, pytest.approx(call.sigma, abs=1e-5)] for call in calls]
    for frame, call in zip(kept.frames, calls, strict=True):
        rms = float((call.cond - call.uncond).square().mean().sqrt())
        assert frame["difference"] == pytest.approx(rms, rel=1e-4)


def test_resampled_maps_keep_their_sums(xray: SimpleNamespace) -> None:
    shares = torch.softmax(torch.randn(12 * 20, 9, generator=torch.Generator().manual_seed(1)), dim=-1)
    for wanted in ((6, 10), (24, 40), (7, 9), (12, 20)):
        maps = xray.attention.at_size(shares, (12, 20), wanted)
        assert maps.shape == (9, *wanted)
        assert torch.allclose(maps.sum(dim=0), torch.ones(wanted), atol=1e-5)
    assert xray.attention.map_size(64, 96) == (21, 32) and xray.attention.map_size(8, 8) == (8, 8)


def test_shares_follow_the_bias(xray: SimpleNamespace) -> None:
    generator = torch.Generator().manual_seed(2)
    query, key = torch.randn(1, 4, 6, generator=generator), torch.randn(1, 3, 6, generator=generator)
    bias = torch.zeros(1, 1, 4, 3)
    bias[..., 1] = float("-inf")
    attending = Attending(site="x", is_cross=True, size=(2, 2), heads=2, query=query, key=key, value=key, bias=bias)
    found = xray.attention.shares(attending, 0)
    assert torch.equal(found[:, 1], torch.zeros(4)) and torch.allclose(found.sum(dim=1), torch.ones(4))


def test_similarity_is_the_cosine_of_the_words_alone(engine: Engine) -> None:
    facts = facts_of(engine, made(engine, using(tiny_request(prompt="red square red"))))
    values = np.array(facts["similarity"]["values"])
    assert facts["similarity"]["words"] == ["red", "square"]
    assert np.allclose(np.diag(values), 1, atol=1e-3) and np.allclose(values, values.T)
    assert -1 <= values[0, 1] < 0.9999


def test_what_is_kept_is_bounded(engine: Engine, xray: SimpleNamespace) -> None:
    job = made(engine, using(tiny_request(prompt="word " * 500, steps=30, sampler="Heun"), frames=4, decoder="Quick"))
    (kept,) = xray.capture.passes(folder_of(engine, job))
    assert len(kept.frames) == 4
    assert len(kept.facts["prompts"][0]["spans"][0]["chunks"]) == xray.recorder.MOST_CHUNKS
    assert kept.maps()[0].shape[0] == xray.recorder.MOST_CHUNKS * 77 + 1
    assert sum(path.stat().st_size for path in kept.folder.iterdir()) < 4_000_000


def test_old_captures_go_first(tmp_path: Path, xray: SimpleNamespace) -> None:
    for number in range(6):
        folder = tmp_path / f"job{number}"
        folder.mkdir()
        (folder / "data").write_bytes(bytes(100))
        os.utime(folder, (number, number))
    xray.capture.make_room(tmp_path / "job0", jobs=4, size=10_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job0", "job3", "job4", "job5"]
    xray.capture.make_room(tmp_path / "job0", jobs=4, size=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job0", "job5"]


def test_a_job_begun_again_by_another_process_starts_anew(tmp_path: Path, xray: SimpleNamespace) -> None:
    folder = tmp_path / "job"
    assert xray.capture.new_pass(folder).number == 1
    assert xray.capture.new_pass(folder).number == 2
    (folder / "process").write_text("another")
    assert xray.capture.new_pass(folder).number == 1
    for _ in range(xray.capture.MOST_PASSES - 1):
        assert xray.capture.new_pass(folder) is not None
    assert xray.capture.new_pass(folder) is None


def test_a_folder_that_cannot_be_written_costs_no_picture(engine: Engine) -> None:
    scratch = engine.settings.state_dir / "modules" / "xray"
    scratch.parent.mkdir(parents=True)
    scratch.write_text("a file where the folder should be")
    job = made(engine, using(tiny_request(prompt=PROMPT)))
    assert len(job.outputs) == 1


@pytest.mark.parametrize("job", ["../..", "a/b", "", "x" * 65, ".", "a.b"])
def test_a_job_id_is_never_a_path(tmp_path: Path, xray: SimpleNamespace, job: str) -> None:
    assert xray.capture.folder_of(tmp_path, job) is None
