"""A file that comes out takes no other's place: only one of the same run is written anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from training_cases import Going, asked, place, taught

from webui.errors import RequestError
from webui.training.moments import Stepped
from webui.training.request import Samples, TrainingRequest
from webui.training.session import Place

REFUSED = (
    r"There is already a file made\.safetensors in Lora, which this training did not make; give the training another"
)


def request_for(pictures: Path, seed: int = 0) -> TrainingRequest:
    return asked("lora", pictures, steps=2, seed=seed, samples=Samples(every=0))


def target(where: Place) -> Path:
    return where.library.root / "Lora" / "made.safetensors"


@pytest.mark.parametrize("content", [b"a person's notes", b"\x02\0\0\0\0\0\0\0{}"], ids=["no weights", "weights"])
def test_a_persons_file_is_not_replaced(content: bytes, painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    where = place(tmp_path, tiny_checkpoint)
    target(where).parent.mkdir(parents=True)
    target(where).write_bytes(content)
    with pytest.raises(RequestError, match=REFUSED):
        taught(request_for(painted / "own"), where)
    assert target(where).read_bytes() == content
    assert not (where.folder / "losses.csv").exists(), "refused before the first step"


def test_another_runs_file_is_not_replaced(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Two trainings of one name wait: the second is refused when its turn comes."""
    where = place(tmp_path, tiny_checkpoint)
    first = taught(request_for(painted / "own"), where)
    assert first == target(where)
    before = first.read_bytes()
    with pytest.raises(RequestError, match=REFUSED):
        taught(request_for(painted / "own", seed=1), replace(where, folder=where.folder.with_name("second")))
    assert first.read_bytes() == before


def test_a_file_that_came_meanwhile_is_not_replaced(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    where = place(tmp_path, tiny_checkpoint)
    request = request_for(painted / "own")

    def comes(moment: object) -> bool:
        if isinstance(moment, Stepped):
            target(where).parent.mkdir(parents=True, exist_ok=True)
            target(where).write_bytes(b"of a person")
        return False

    with pytest.raises(RequestError, match=REFUSED):
        taught(request, where, Going(comes))
    assert target(where).read_bytes() == b"of a person"
    target(where).unlink()
    assert taught(request, where) == target(where), "nothing is lost: the run makes its file when the name is free"


def test_a_file_of_the_same_run_is_replaced(painted: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    where = place(tmp_path, tiny_checkpoint)
    request = request_for(painted / "own")
    first = taught(request, where)
    assert first is not None
    before, node = first.read_bytes(), first.stat().st_ino
    assert taught(request, where) == first
    assert first.read_bytes() == before and first.stat().st_ino != node, "written anew"
