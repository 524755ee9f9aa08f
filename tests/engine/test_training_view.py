from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.engine.events import PASSING, Events
from webui.engine.training_view import MAX_POINTS, LossLog, curve
from webui.training.loop import LossFile

ROWS = st.lists(st.floats(0, 10), min_size=1, max_size=1800)


@given(ROWS)
def test_a_curve_is_short_and_keeps_the_mean(losses: list[float]) -> None:
    rows = [(step + 1, loss, 0.1) for step, loss in enumerate(losses)]
    points = curve(rows)
    together = -(-len(rows) // MAX_POINTS)
    assert len(points) == -(-len(rows) // together) <= MAX_POINTS
    assert points[-1].step == len(rows)
    sizes = [together] * (len(points) - 1) + [len(rows) - together * (len(points) - 1)]
    total = sum(point.loss * size for point, size in zip(points, sizes, strict=True))
    assert math.isclose(total, sum(losses), rel_tol=1e-9, abs_tol=1e-9)
    assert all(min(losses) - 1e-9 <= point.smooth <= max(losses) + 1e-9 for point in points)


def test_a_steady_loss_is_smooth_from_the_beginning() -> None:
    points = curve([(step, 0.25, 0.1) for step in range(1, 1001)])
    assert [point.smooth for point in points] == pytest.approx([0.25] * 500)
    assert curve([]) == ()


def test_a_log_is_read_on_and_anew_when_lost_steps_were_taken_out(tmp_path: Path) -> None:
    """Against what the training loop itself writes."""
    path = tmp_path / "losses.csv"
    log = LossLog(path)
    assert list(log.read()) == []
    file = LossFile(path, 0)
    for step in range(1, 31):
        file.write(step, {"loss": 1 / step, "gradient": 3.0}, 0.01, 0.5)
        if step % 7 == 0:
            assert [row[0] for row in log.read()] == list(range(1, step + 1))
    again = LossFile(path, 20)  # killed, and taken up again from the checkpoint of step 20
    for step in range(21, 33):
        again.write(step, {"loss": 2.0, "gradient": 3.0}, 0.01, 0.5)
    rows = list(log.read())
    assert [row[0] for row in rows] == list(range(1, 33))
    assert [row[1] for row in rows[20:]] == [2.0] * 12
    assert rows == list(LossLog(path).read())


def test_a_line_being_written_and_losses_that_are_no_number_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("step,loss,rate,seconds\n1,0.5,0.1,1\n2,nan,0.1,1\n3,inf,0.1,1\n4,,0.1,1\n5,0.2")
    log = LossLog(path)
    assert list(log.read()) == [(1, 0.5, 0.1)]
    with path.open("a") as file:
        file.write(",0.1,1\n")
    assert list(log.read()) == [(1, 0.5, 0.1), (5, 0.2, 0.1)]


def test_the_newest_losses_are_kept_for_late_listeners() -> None:
    events = Events()
    for number in range(100):
        events.tell("job", "loss", {"points": [[number, 0.1, 0.1]]})
        events.tell("job", "saved", {"step": number})
    kept = events.since("job")
    assert [event.data["points"][0][0] for event in kept if event.kind == "loss"] == list(range(80, 100))
    assert [event.data["step"] for event in kept if event.kind == "saved"] == [99]
    assert PASSING["loss"] == 20
