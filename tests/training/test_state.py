"""The run on disk: what was written comes back, whole or not at all, and only to the run it is of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from webui.device import Compute
from webui.errors import CheckpointError, OutputError, TrainingError
from webui.training import state
from webui.training.request import Data, Noise, Optimiser, Samples, TrainingRequest
from webui.training.state import RunState

REQUEST = TrainingRequest(kind="lora", name="made", data=Data(folder="pictures"))
TENSORS = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(3), "c": torch.zeros(0)}


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    assert state.load(folder, "x") is None
    state.save(folder, "x", RunState(7, TENSORS))
    found = state.load(folder, "x")
    assert found is not None and found.step == 7 and found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in found.tensors.items())
    assert [path.name for path in folder.iterdir()] == [state.FILE_NAME]


def test_another_runs_state_is_refused(tmp_path: Path) -> None:
    state.save(tmp_path, "x", RunState(7, TENSORS))
    with pytest.raises(CheckpointError, match="other settings, pictures or another base model"):
        state.load(tmp_path, "y")


@pytest.mark.parametrize("length", [0, 7, 40, -1])
def test_a_damaged_state_is_named(length: int, tmp_path: Path) -> None:
    state.save(tmp_path, "x", RunState(7, TENSORS))
    path = tmp_path / state.FILE_NAME
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="is damaged"):
        state.load(tmp_path, "x")


def test_writing_that_fails_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.save(tmp_path, "x", RunState(1, TENSORS))

    def full(path: Path, tensors: Any, metadata: Any) -> None:
        path.write_bytes(b"half of a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "write_file", full)
    with pytest.raises(OutputError, match="is the disk full"):
        state.save(tmp_path, "x", RunState(2, TENSORS))
    found = state.load(tmp_path, "x")
    assert found is not None and found.step == 1
    assert [path.name for path in tmp_path.iterdir()] == [state.FILE_NAME]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    old, new = (tmp_path / f".{state.FILE_NAME}.{process}.part" for process in (1, 2))
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (0, 0))
    state.save(tmp_path, "x", RunState(7, TENSORS))
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, state.FILE_NAME]


CPU = Compute(torch.device("cpu"), torch.float32, torch.float32, 2)


def identity(
    request: TrainingRequest = REQUEST,
    *,
    data: str = "data",
    base: str = "base",
    files: Mapping[str, str] | None = None,
    compute: Compute = CPU,
) -> str:
    return state.identity(request, data, base, files or {}, compute)


def test_identity_is_of_all_that_moves_a_weight() -> None:
    changes: list[dict[str, Any]] = [
        {"steps": 5},
        {"seed": 1},
        {"parts": 2},
        {"batch_size": 2},
        {"options": {"rank": 2}},
        {"optimiser": Optimiser(rate=1.0)},
        {"noise": Noise(offset=0.1)},
        {"noise": Noise(short_captions=True)},
    ]
    computes = [
        replace(CPU, dtype=torch.bfloat16),
        replace(CPU, device=torch.device("cuda")),
        replace(CPU, threads=1),
    ]
    others = [
        identity(data="other"),
        identity(base="other"),
        identity(files={"vae": "a"}),
        identity(files={"vae": "b"}),
        identity(files={"text_encoder": "a"}),
        *(identity(replace(REQUEST, **change)) for change in changes),
        *(identity(compute=compute) for compute in computes),
    ]
    assert len({identity(), *others}) == len(others) + 1


def test_identity_is_of_nothing_else() -> None:
    same = replace(REQUEST, samples=Samples(prompts=("x",)), save_every_s=5.0, export_every=3)
    assert identity(same) == identity()
    assert identity(replace(REQUEST, precision="fp32")) == identity(), 'what "auto" became'
    in_parts = replace(REQUEST, parts=2)
    assert identity(in_parts) == identity(in_parts, compute=replace(CPU, threads=8)), "each part computes alone"
    here, there = (replace(REQUEST, options={"vae": f"{folder}/a.safetensors"}) for folder in ("here", "there"))
    assert identity(here, files={"vae": "a"}) == identity(there, files={"vae": "a"}), "the file, wherever it is"


def test_a_folder_has_one_trainer_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with state.only_trainer(folder):
        with (
            pytest.raises(TrainingError, match="Another trainer already works on the run in"),
            state.only_trainer(folder),
        ):
            pass
        with state.only_trainer(tmp_path / "other"):
            pass
    with state.only_trainer(folder):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be used"), state.only_trainer(tmp_path / "file" / "run"):
        pass
