from __future__ import annotations

import errno
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_model import mask_bytes, picture_bytes, tiny_request, tiny_settings, tiny_weights, write_checkpoint
from waiting import finished, wait_for

from webui.checkpoints.hashes import file_sha256
from webui.conditioning import Contribution, Pictures
from webui.engine.engine import Engine
from webui.engine.executor import Control, Report
from webui.engine.jobs import JobState
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture, read_picture_texts
from webui.metadata.verdict import Outcome, Verdict
from webui.networks.unet import Openings
from webui.request import GenerationRequest, InpaintArea, Mask, MaskedContent, ModuleUse, SecondPass, StartImage
from webui.settings import Settings

A1111 = (
    "a red square\nNegative prompt: blurry\nSteps: 3, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, "
    "Seed: 7, Size: 64x64, Model hash: {hash}, Model: {name}, Version: v1.10.1"
)
"""A text as AUTOMATIC1111 1.10.1 writes it."""


def make(runner: Runner, request: GenerationRequest, suffix: str = ".png") -> list[bytes]:
    paths = runner.generate(request, lambda report: None, Control(), suffix=suffix)
    return [path.read_bytes() for path in paths]


def again(runner: Runner, data: bytes) -> Verdict:
    return runner.reproduce(data, lambda report: None, Control())


def start_of(runner: Runner, mask: dict[str, Any] | None = None) -> StartImage:
    inpainted = None if mask is None else Mask(image=runner.inputs.put(mask_bytes()), **mask)
    return StartImage(image=runner.inputs.put(picture_bytes()), mask=inpainted)


REQUESTS: dict[str, Callable[[Runner], GenerationRequest]] = {
    "txt2img": lambda runner: tiny_request(seed=None),
    "a batch": lambda runner: tiny_request(batch_size=2, batch_count=2, sampler="Euler a"),
    "img2img": lambda runner: tiny_request(start=start_of(runner), batch_size=2),
    "inpaint": lambda runner: tiny_request(start=start_of(runner, {"content": MaskedContent.LATENT_NOISE})),
    "only masked": lambda runner: tiny_request(start=start_of(runner, {"area": InpaintArea.ONLY_MASKED, "padding": 4})),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_picture_made_here_is_made_again_bit_for_bit(runner: Runner, kind: str) -> None:
    pictures = make(runner, REQUESTS[kind](runner))
    assert len(set(pictures)) == len(pictures)
    for data in pictures:
        verdict = again(runner, data)
        assert verdict.outcome is Outcome.BIT_EXACT and verdict.reasons == () and verdict.largest_difference == 0


def test_the_recipe_holds_all_that_is_needed(runner: Runner, settings: Settings) -> None:
    (data,) = make(runner, tiny_request(seed=None, start=start_of(runner, {})))
    texts = read_picture_texts(data)
    recipe = json.loads(texts["recipe"])
    request = recipe["request"]
    assert request["seed"] is not None and request["checkpoint"] == "tiny" and request["sampling"]["eta"] is not None
    model = settings.models_dir / "Stable-diffusion" / "tiny.safetensors"
    assert recipe["models"] == [{"role": "checkpoint", "name": "tiny", "sha256": file_sha256(model)}]
    assert recipe["inputs"] == [hashlib.sha256(picture).hexdigest() for picture in (picture_bytes(), mask_bytes())]
    assert recipe["environment"]["dtype"] == "fp32" and recipe["environment"]["threads"] == 1
    assert f"Seed: {request['seed']}" in texts["parameters"]


def test_the_recorded_precision_is_used(runner: Runner, settings: Settings) -> None:
    (data,) = make(Runner.start(replace(settings, precision="bf16")), tiny_request())
    assert again(runner, data).outcome is Outcome.BIT_EXACT


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_lossy_file_is_told_from_the_picture_it_was(runner: Runner, suffix: str) -> None:
    (data,) = make(runner, tiny_request(), suffix)
    verdict = again(runner, data)
    assert verdict.outcome in (Outcome.CLOSE, Outcome.DIFFERENT, Outcome.WITHIN_ONE)
    assert verdict.ssim is not None and verdict.psnr_db is not None
    assert "bit for bit, the one that was recorded" in verdict.reasons[0] and "lossy" in verdict.reasons[0]


def test_edited_pixels_are_found(runner: Runner) -> None:
    (data,) = make(runner, tiny_request())
    pixels = read_pixels(data).copy()
    pixels[:32] = 0
    verdict = again(runner, encode_picture(pixels, ".png", read_picture_texts(data)))
    assert verdict.outcome is Outcome.DIFFERENT and "this file was changed after that" in verdict.reasons[0]


def test_a_text_moved_to_another_picture_is_found(runner: Runner) -> None:
    first, second = make(runner, tiny_request(batch_count=2))
    moved = encode_picture(read_pixels(second), ".png", read_picture_texts(first))
    verdict = again(runner, moved)
    assert verdict.outcome is Outcome.DIFFERENT and "changed" in verdict.reasons[0]


def altered(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    texts = read_picture_texts(data)
    recipe = json.loads(texts["recipe"])
    change(recipe)
    return encode_picture(read_pixels(data), ".png", {**texts, "recipe": json.dumps(recipe)})


def test_a_different_prompt_is_a_different_picture_and_says_what_else_differs(runner: Runner) -> None:
    def change(recipe: dict[str, Any]) -> None:
        recipe["request"]["prompt"] = "something else"
        recipe["environment"] |= {"torch": "2.0.0", "cpu": "another processor"}

    (data,) = make(runner, tiny_request())
    verdict = again(runner, altered(data, change))
    assert verdict.outcome is Outcome.DIFFERENT
    assert any("Torch was 2.0.0" in reason for reason in verdict.reasons)
    assert any("The processor was another processor" in reason for reason in verdict.reasons)


def test_what_is_missing_is_named(runner: Runner) -> None:
    (data,) = make(runner, tiny_request(start=start_of(runner)))

    def lacks(recipe: dict[str, Any]) -> None:
        recipe["models"][0]["sha256"] = "f" * 64
        recipe["inputs"] = recipe["inputs"][:1]
        recipe["request"]["sampling"] |= {"sampler": "Wings", "schedule": "Feathers"}
        recipe["request"]["modules"] = [{"name": "Beak", "options": {}}]

    (runner.settings.state_dir / "inputs" / hashlib.sha256(picture_bytes()).hexdigest()).unlink()
    verdict = again(runner, altered(data, lacks))
    assert verdict.outcome is Outcome.CANNOT_RUN
    told = " ".join(verdict.reasons)
    for name in ("f" * 64, "input picture with SHA-256", '"Wings"', '"Feathers"', '"Beak"'):
        assert name in told


def test_a_model_that_came_later_is_found_by_its_bytes(runner: Runner, settings: Settings, tmp_path: Path) -> None:
    (data,) = make(runner, tiny_request())
    folder = settings.models_dir / "Stable-diffusion"
    (folder / "tiny.safetensors").rename(tmp_path / "away")
    write_checkpoint(folder / "tiny.safetensors", tiny_weights(5))
    verdict = again(runner, data)
    assert verdict.outcome is Outcome.CANNOT_RUN and '"tiny"' in verdict.reasons[0]
    (folder / "below").mkdir()
    (tmp_path / "away").rename(folder / "below" / "renamed.safetensors")
    assert again(runner, data).outcome is Outcome.BIT_EXACT


@pytest.mark.parametrize("threads", [10**6, 3])
def test_a_recipes_thread_count_cannot_exhaust_the_machine(runner: Runner, threads: int) -> None:
    import torch

    (data,) = make(runner, tiny_request())
    before = torch.get_num_threads()
    verdict = again(runner, altered(data, lambda recipe: recipe["environment"].update(threads=threads)))
    assert verdict.outcome is not Outcome.CANNOT_RUN and torch.get_num_threads() == before


def with_text(pixels: np.ndarray[Any, Any], text: str) -> bytes:
    return encode_picture(pixels, ".png", {"parameters": text})


def test_an_automatic1111_picture_whose_model_is_missing_names_it(runner: Runner) -> None:
    verdict = again(runner, with_text(np.zeros((64, 64, 3), np.uint8), A1111.format(hash="c0ffee1234", name="v1-5")))
    assert verdict.outcome is Outcome.CANNOT_RUN
    assert verdict.reasons == ('The model "v1-5" [c0ffee1234] is not in the models folder.',)
    assert len(verdict.not_recorded) > 2


def test_an_automatic1111_picture_is_run_as_far_as_its_text_tells(runner: Runner, settings: Settings) -> None:
    digest = file_sha256(settings.models_dir / "Stable-diffusion" / "tiny.safetensors")
    (ours,) = make(runner, tiny_request(negative_prompt="blurry"))
    text = A1111.format(hash=digest[:10], name="other name") + ", Wings: 2"
    verdict = again(runner, with_text(read_pixels(ours), text))
    assert verdict.outcome is Outcome.BIT_EXACT
    assert any("precision" in fact for fact in verdict.not_recorded)
    assert any("Wings: 2" in reason for reason in verdict.reasons)
    by_name = again(runner, with_text(read_pixels(ours), A1111.format(hash="0123456789", name="tiny")))
    assert by_name.outcome is Outcome.BIT_EXACT
    assert 'by its name "tiny" only; its hash [0123456789] is another' in by_name.reasons[0]


def test_an_overview_of_several_pictures_is_not_taken_for_one(runner: Runner) -> None:
    text = "a cat\nSteps: 2, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Script: X/Y/Z plot, X Type: Seed"
    verdict = again(runner, with_text(np.zeros((90, 140, 3), np.uint8), text))
    assert verdict.outcome is Outcome.CANNOT_RUN and "overview of several pictures" in verdict.reasons[0]


def test_an_automatic1111_img2img_cannot_be_run(runner: Runner) -> None:
    text = A1111.format(hash="0123456789", name="tiny").replace("Size", "Denoising strength: 0.75, Size")
    verdict = again(runner, with_text(np.zeros((64, 64, 3), np.uint8), text))
    assert verdict.outcome is Outcome.CANNOT_RUN and "from another picture" in verdict.reasons[0]


def test_a_hires_fix_is_run_from_its_text_alone(runner: Runner) -> None:
    (ours,) = make(runner, tiny_request(second_pass=SecondPass(scale=1.5, denoising_strength=0.5, prompt="a blue dog")))
    text = read_picture_texts(ours)["parameters"]
    assert "Denoising strength: 0.5" in text and "Hires prompt: a blue dog" in text
    assert again(runner, with_text(read_pixels(ours), text)).outcome is Outcome.BIT_EXACT


def test_files_that_cannot_be_read_do_not_stand_in_the_way(
    runner: Runner, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = make(runner, tiny_request())
    folder = settings.models_dir / "Stable-diffusion"
    for name in ("a unreadable", "z unreadable"):
        (folder / f"{name}.safetensors").write_bytes(name.encode())
    digest = file_sha256(folder / "tiny.safetensors")
    real = file_sha256

    def reading(path: Path) -> str:
        if "unreadable" in path.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr("webui.checkpoints.hashes.file_sha256", reading)
    by_text = with_text(read_pixels(made), A1111.format(hash=digest[:10], name="other").replace("blurry", ""))
    for data in (made, by_text):
        (settings.state_dir / "hashes.sqlite3").unlink(missing_ok=True)
        assert again(runner, data).outcome is Outcome.BIT_EXACT


def test_the_model_that_is_named_is_looked_at_first_and_the_search_can_be_stopped(
    runner: Runner, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = settings.models_dir / "Stable-diffusion"
    for name in ("a.safetensors", "b.safetensors", "old.ckpt"):
        (folder / name).write_bytes(b"x")
    digest, hashed = file_sha256(folder / "tiny.safetensors"), []
    control = Control()

    def counted(path: Path) -> str:
        hashed.append(path.name)
        if path.name == "a.safetensors":
            control.interrupted.set()
        return file_sha256(path)

    monkeypatch.setattr("webui.checkpoints.hashes.file_sha256", counted)
    black = np.zeros((64, 64, 3), np.uint8)
    again(runner, with_text(black, A1111.format(hash=digest[:10], name="tiny")))
    assert hashed == ["tiny.safetensors"]
    told: list[Report] = []
    absent = with_text(black, A1111.format(hash="c0ffee1234", name="absent"))
    verdict = runner.reproduce(absent, told.append, control)
    assert hashed == ["tiny.safetensors", "a.safetensors"] and verdict.reasons == ("It was interrupted.",)
    assert "looking for the model" in [report.data["phase"] for report in told if report.kind == "progress"]


def test_pictures_that_a_conditioning_module_reads_are_recorded(runner: Runner) -> None:
    @dataclass(frozen=True)
    class Options:
        picture: str

    class Looking:
        name, options = "Looking", Options

        def prepare(self, options: Any, model: Any, request: Any, pictures: Pictures) -> Contribution:
            assert pictures.load(options.picture).shape == (64, 64, 3)
            return Contribution(Openings())

    runner.plugins.conditioning_modules["Looking"] = Looking()  # type: ignore[assignment]
    control = runner.inputs.put(picture_bytes(seed=5))
    use = ModuleUse(name="Looking", options={"picture": control})
    (made,) = make(runner, tiny_request(start=start_of(runner), modules=(use,)))
    recorded = json.loads(read_picture_texts(made)["recipe"])["inputs"]
    assert recorded == [hashlib.sha256(picture_bytes()).hexdigest(), control]
    assert again(runner, made).outcome is Outcome.BIT_EXACT
    runner.inputs.path(control).unlink()
    assert again(runner, made).reasons == (f"The input picture with SHA-256 {control} is not stored here.",)


def test_a_model_that_cannot_be_loaded_is_a_reason(runner: Runner, settings: Settings) -> None:
    (settings.models_dir / "Stable-diffusion" / "old.ckpt").write_bytes(b"\x80\x02")
    verdict = again(runner, with_text(np.zeros((64, 64, 3), np.uint8), A1111.format(hash="", name="old")))
    assert verdict.outcome is Outcome.CANNOT_RUN and "old.ckpt is damaged" in verdict.reasons[-1]


def test_the_engine_gives_the_verdict_with_the_job(engine: Engine) -> None:
    job = finished(engine, engine.submit(tiny_request(batch_count=2)))
    data = engine.output_path(job.outputs[1].id).read_bytes()
    reproduced = finished(engine, engine.reproduce(data, "x.png"))
    assert reproduced.verdict is not None and reproduced.verdict["outcome"] == "bit-exact"
    assert reproduced.kind == "reproduce" and reproduced.outputs == ()
    stopped = engine.reproduce(data, "x.png")
    engine.interrupt(stopped.id)
    assert finished(engine, stopped).state.is_over


def test_a_file_sent_to_be_reproduced_is_kept_until_no_job_needs_it(engine: Engine, settings: Settings) -> None:
    job = finished(engine, engine.submit(tiny_request()))
    data = engine.output_path(job.outputs[0].id).read_bytes()
    start = engine.put_input(data)
    jobs = [engine.reproduce(data, "x.png") for _ in range(3)]
    assert all(finished(engine, job).state is JobState.DONE for job in jobs)
    wait_for(lambda: list((settings.state_dir / "reproductions").iterdir()) == [])
    assert engine.input_path(start).read_bytes() == data


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--models-dir", str(folder / "models"), "--outputs-dir", str(folder / "outputs"), "--device", "cpu"]
    options += ["--precision", "fp32", "--threads", "1", "--no-extensions"]
    command = [sys.executable, "-m", "webui", *arguments, *(options if arguments[0] != "info" else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_line_makes_shows_and_makes_again(tmp_path: Path, tiny_checkpoint: Path) -> None:
    settings = tiny_settings(tmp_path, tiny_checkpoint)
    wanted = ["--prompt", "a red square", "--seed", "3", "--batch-count", "2"]
    made = cli(tmp_path, "generate", *wanted, "--out", str(tmp_path / "out"))
    assert made.returncode == 0, made.stderr
    paths = [Path(line) for line in made.stdout.splitlines()]
    assert [path.name for path in paths] == ["00001-3.png", "00002-4.png"] and all(path.is_file() for path in paths)
    assert "loading the model" in made.stderr and "Traceback" not in made.stderr
    assert Image.open(io.BytesIO(paths[0].read_bytes())).size == (64, 64)
    edited = read_pixels(paths[0].read_bytes()).copy()
    edited[:32] = 255
    (tmp_path / "edited.png").write_bytes(encode_picture(edited, ".png", read_picture_texts(paths[0].read_bytes())))
    exact = cli(tmp_path, "reproduce", str(paths[1]))
    assert exact.returncode == 0 and exact.stdout.startswith(f"{paths[1]}: bit-exact"), exact.stderr
    mixed = cli(tmp_path, "reproduce", "--json", str(paths[0]), str(tmp_path / "edited.png"))
    assert mixed.returncode == 1
    assert [verdict["outcome"] for verdict in json.loads(mixed.stdout)] == ["bit-exact", "different"]
    info = cli(tmp_path, "info", str(paths[1]), "--json")
    assert json.loads(info.stdout)["recipe"]["index"] == 1 and info.returncode == 0
    assert settings.models_dir.is_dir()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("generate", "--prompt", "x", "--sampler", "Eulr"), 'did you mean "Euler"'),
        (("generate", "--prompt", "x", "--steps", "0"), "Steps is 0"),
        (("generate", "--prompt", "x", "--width", "0"), "Width is 0"),
        (("generate", "--prompt", "x", "--checkpoint", "absent"), "no checkpoint named"),
        (("generate", "--prompt", "x", "--mask", "m.png"), "--init-image"),
        (("generate", "--prompt", "x", "--init-image", "absent.png"), "cannot be read"),
        (("generate", "--prompt", "x", "--out", "x.gif"), "ending .gif"),
        (("reproduce", "absent.png"), "cannot be read"),
        (("info", "absent.png"), "cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_on_the_command_line_are_one_sentence(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], sentence: str,
) -> None:  # fmt: skip
    from webui.cli import main

    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)  # a program that calls main() is not started over
    folders = ["--models-dir", str(settings.models_dir), "--outputs-dir", str(settings.outputs_dir), "--threads", "1"]
    assert main([*arguments, *(folders if arguments[0] != "info" else [])]) == 2
    told = capsys.readouterr()
    assert told.out == "" and sentence in told.err.splitlines()[-1] and told.err.splitlines()[-1].startswith("error: ")


def test_models_are_listed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    from webui.cli import main

    folders = ["--models-dir", str(settings.models_dir), "--outputs-dir", str(settings.outputs_dir)]
    assert main(["models", "--json", "--hash", *folders]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "tiny" and row["sha256"] == file_sha256(Path(row["path"]))
