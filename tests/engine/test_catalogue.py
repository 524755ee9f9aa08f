from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from webui.checkpoints.library import ModelEntry
from webui.engine.catalogue import CheckpointEntry, with_advice
from webui.plugins.manager import Plugins
from webui.settings import PROJECT_ROOT

STARTER = PROJECT_ROOT / "models" / "Stable-diffusion" / "starter.safetensors"


@pytest.fixture(scope="module")
def starter() -> CheckpointEntry:
    stat = STARTER.stat()
    return CheckpointEntry(
        ModelEntry("checkpoint", "starter", STARTER, stat.st_size, stat.st_mtime_ns), Plugins.load(None)
    )


def test_what_was_not_said_is_as_the_model_recommends(starter: CheckpointEntry) -> None:
    filled = with_advice({"prompt": "a cat", "sampling": {"steps": 7}, "size": {"width": 64}}, starter)
    assert filled["prompt"] == "a cat"
    assert filled["sampling"] == {**starter.defaults, "steps": 7}
    assert filled["size"] == {"width": 64, "height": 128}


@pytest.mark.parametrize("part", [None, 3, "large", [1]])
def test_parts_that_are_no_objects_are_left_to_be_refused(starter: CheckpointEntry, part: Any) -> None:
    assert with_advice({"size": part, "sampling": part}, starter) == {"size": part, "sampling": part}


def test_the_embedded_model_says_what_it_is(starter: CheckpointEntry) -> None:
    assert starter.native_size == 128
    assert "eighty objects" in starter.note
    assert len(starter.examples) >= 4
    assert set(starter.defaults) == {"sampler", "schedule", "steps", "cfg_scale"}


def test_a_file_that_is_gone_recommends_nothing() -> None:
    entry = CheckpointEntry(ModelEntry("checkpoint", "gone", Path("gone.safetensors"), 1, 1), Plugins.load(None))
    assert (entry.native_size, entry.note, entry.examples, dict(entry.defaults)) == (512, "", (), {})
