"""A run that was killed or stopped goes on to the same bytes as one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_cases import Going, asked, place, taught

from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.safetensors import write_file
from webui.errors import CheckpointError, TrainingError
from webui.training import latents, state
from webui.training.loop import read_losses
from webui.training.moments import Moment, Sampled, Saved, Stepped
from webui.training.request import Noise, Optimiser, Samples, TrainingRequest
from webui.training.session import teach

TESTS = Path(__file__).resolve().parent.parent
STEPS = 7
CHILD = """
import json, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:4]
import torch
torch.set_num_threads(1)
from training_cases import Going, place
from webui.training.moments import Saved, Stepped
from webui.training.request import TrainingRequest
from webui.training.session import teach

request = TrainingRequest.from_dict(json.loads(sys.argv[6]))
for moment in teach(request, place(Path(sys.argv[4]), Path(sys.argv[5]), request.parts), Going()):
    if isinstance(moment, Saved):
        print("saved", moment.step, flush=True)
    if isinstance(moment, Stepped):
        print("step", moment.step, flush=True)
        time.sleep({3: 1.1, 5: 600.0}.get(moment.step, 0.0))
"""


def request_for(kind: str, pictures: Path, **changes: Any) -> TrainingRequest:
    return asked(
        kind,
        pictures,
        **{
            "steps": STEPS,
            "optimiser": Optimiser(rate=1e-3, ema=0.9, warmup=2),
            "noise": Noise(offset=0.1, min_snr_gamma=5.0, caption_dropout=0.3),
            "data": {"flip": True, "repeats": 2},
            "samples": Samples(every=0),
            **changes,
        },
    )


def until(step: int) -> Going:
    return Going(lambda moment: isinstance(moment, Stepped) and moment.step == step)


def steps_told(folder: Path) -> list[int]:
    return [int(row["step"]) for row in read_losses(folder / "runs" / "run" / "losses.csv")]


def numbers(folder: Path) -> list[dict[str, str]]:
    """The losses without what depends on the clock."""
    rows = read_losses(folder / "runs" / "run" / "losses.csv")
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize(
    ("kind", "options", "parts"),
    [
        pytest.param("checkpoint", {"train_text": True}, 1, marks=pytest.mark.slow),
        ("lora", {"train_text": True, "convolutions": True}, 2),
    ],
    ids=["checkpoint", "lora in two parts"],
)
def test_killed(
    kind: str, options: dict[str, Any], parts: int, painted: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    request = request_for(kind, painted / "own", options=options, parts=parts, save_every_s=1.0)
    whole = taught(request, place(tmp_path / "whole", tiny_checkpoint, parts))
    killed = tmp_path / "killed"
    plain = json.dumps(request.to_dict())
    paths = [str(TESTS.parent), str(TESTS), str(TESTS / "training")]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *paths, str(killed), str(tiny_checkpoint), plain],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert child.stdout is not None
        heard = []
        for line in child.stdout:
            heard.append(line.strip())
            if heard[-1] == "step 5":
                break
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    saved = [int(line.split()[1]) for line in heard if line.startswith("saved")]
    assert 3 in saved  # on a slow machine others, too
    assert [line for line in heard if line.startswith("step")] == [f"step {n}" for n in range(1, 6)]
    assert steps_told(killed) == [1, 2, 3, 4, 5]
    moments: list[Moment] = []
    resumed = taught(request, place(killed, tiny_checkpoint, parts), Going(lambda moment: bool(moments.append(moment))))
    assert [moment.step for moment in moments if isinstance(moment, Stepped)] == list(range(max(saved) + 1, STEPS + 1))
    assert whole is not None and resumed is not None and whole.read_bytes() == resumed.read_bytes()
    assert numbers(killed) == numbers(tmp_path / "whole")
    assert steps_told(killed) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("kind", ["checkpoint", "lora", "embedding"])
@pytest.mark.parametrize("name", ["AdamW", "Muon"])
def test_stopped_again_and_again(kind: str, name: str, painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    optimiser = Optimiser(name=name, rate=1e-3, ema=0.5)
    request = request_for(kind, painted / "own", optimiser=optimiser, data={"class_folder": str(painted / "general")})
    whole = taught(request, place(tmp_path / "whole", tiny_checkpoint))
    stopped = place(tmp_path / "stopped", tiny_checkpoint)
    assert taught(request, stopped, until(1)) is None
    assert taught(request, stopped, until(5)) is None
    assert steps_told(tmp_path / "stopped") == [1, 2, 3, 4, 5]
    resumed = taught(request, stopped)
    assert whole is not None and resumed is not None and whole.read_bytes() == resumed.read_bytes()
    assert numbers(tmp_path / "stopped") == numbers(tmp_path / "whole")


def test_samples_change_no_bit_of_a_run(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = request_for("lora", painted / "own")
    drawing = request_for("lora", painted / "own", samples=Samples(prompts=("red", "grey"), every=3, steps=2))
    moments: list[Moment] = []
    hearing: Callable[[Moment], bool] = lambda moment: bool(moments.append(moment))  # noqa: E731
    silent = taught(plain, place(tmp_path / "silent", tiny_checkpoint))
    drawn = taught(drawing, place(tmp_path / "drawn", tiny_checkpoint), Going(hearing))
    assert [moment.step for moment in moments if isinstance(moment, Sampled)] == [3, 6, 7]
    assert all(moment.path.is_file() for moment in moments if isinstance(moment, Sampled))
    assert numbers(tmp_path / "silent") == numbers(tmp_path / "drawn")
    assert silent is not None and drawn is not None
    assert _tensors(silent) == _tensors(drawn)  # the recipe tells of the samples


def _tensors(path: Path) -> bytes:
    data = path.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def test_a_finished_run_makes_its_file_again(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    request = request_for("lora", painted / "own")
    where = place(tmp_path, tiny_checkpoint)
    first = taught(request, where)
    assert first is not None
    before = first.read_bytes()
    first.unlink()
    moments: list[Moment] = []
    again = taught(request, where, Going(lambda moment: bool(moments.append(moment))))
    assert again == first and again.read_bytes() == before
    assert not any(isinstance(moment, Stepped | Saved) for moment in moments)


@pytest.mark.parametrize("name", ["AdamW", "Muon"])
def test_a_finished_run_keeps_weights_alone(name: str, painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    request = request_for("lora", painted / "own", optimiser=Optimiser(name=name, ema=0.9), steps=2)
    where = place(tmp_path, tiny_checkpoint)
    kept = where.folder / state.FILE_NAME
    taught(request, where, until(1))
    assert {part.partition(".")[0] for part in load_file(kept)} > {"master", "average", "steps"}
    taught(request, where)
    assert {part.partition(".")[0] for part in load_file(kept)} == {"master", "average", "steps"}


def test_a_run_that_is_being_taught_is_not_taught_twice(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    request, where = request_for("lora", painted / "own"), place(tmp_path, tiny_checkpoint)
    going = teach(request, where, Going())
    while not isinstance(next(going), Stepped):
        pass
    with pytest.raises(TrainingError, match="Another trainer already works on the run"):
        taught(request, where)
    assert taught(request_for("lora", painted / "own"), replace(where, folder=tmp_path / "another")) is not None
    going.close()
    assert taught(request, where) is not None


def test_other_settings_do_not_go_on_with_a_run(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    where = place(tmp_path, tiny_checkpoint)
    taught(request_for("lora", painted / "own"), where, until(2))
    with pytest.raises(CheckpointError, match="other settings"):
        taught(request_for("lora", painted / "own", seed=1), where)


def test_another_file_that_an_option_names_does_not_go_on(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    where = place(tmp_path, tiny_checkpoint)
    first, moved = tmp_path / "vae.safetensors", tmp_path / "moved.safetensors"
    shutil.copy(tiny_checkpoint, first)
    taught(request_for("checkpoint", painted / "own", options={"vae": str(first)}), where, until(1))
    first.rename(moved)
    taught(request_for("checkpoint", painted / "own", options={"vae": str(moved)}), where, until(2))
    assert steps_told(tmp_path) == [1, 2]
    file = BUILT_IN.open(moved)
    tensors = file.load("", torch.float32, torch.device("cpu"), lambda name: True)
    write_file(moved, tensors, {**file.header.metadata, "another": "one"})
    with pytest.raises(CheckpointError, match="other settings"):
        taught(request_for("checkpoint", painted / "own", options={"vae": str(moved)}), where)


def test_what_was_found_out_about_pictures_may_be_damaged(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    where = place(tmp_path, tiny_checkpoint)
    taught(request_for("lora", painted / "own"), where, until(1))
    (found,) = where.cache.glob("checked-*.json")
    found.write_text('{"1": ', "utf-8")
    assert taught(request_for("lora", painted / "own"), where) is not None
    assert json.loads(found.read_text("utf-8")) == {}


def test_latents_are_of_their_precision_and_make_room(
    painted: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = place(tmp_path, tiny_checkpoint)
    for precision in ("fp32", "bf16"):
        taught(request_for("lora", painted / "own", precision=precision, name=precision), where, until(1))
        shutil.rmtree(where.folder, ignore_errors=True)
    first, second = sorted(where.cache.glob("latents-*.safetensors"), key=lambda path: path.stat().st_mtime)
    assert first.read_bytes() != second.read_bytes()
    monkeypatch.setattr(latents, "KEPT_BYTES", 0)
    taught(request_for("lora", painted / "own", data={"flip": False}), where, until(1))
    (left,) = where.cache.glob("latents-*.safetensors")
    assert left not in (first, second), "the others were not used for longer"
