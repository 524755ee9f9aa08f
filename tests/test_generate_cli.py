"""``webui generate``: every field of the request can be set, and what a person misspells is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import tiny_checkpoint, tiny_settings  # noqa: F401

from webui.cli import main
from webui.images.pixels import read_pixels
from webui.metadata.files import read_picture_texts


@pytest.fixture
def command(tmp_path: Path, tiny_checkpoint: Path) -> list[str]:  # noqa: F811
    settings = tiny_settings(tmp_path, tiny_checkpoint)
    (settings.models_dir.parent / "styles.csv").write_text("name,prompt,negative_prompt\nink,in ink,\n")
    return [
        *("generate", "--prompt", "a cat", "--seed", "7", "--steps", "2", "--width", "64", "--height", "64"),
        *("--models-dir", str(settings.models_dir), "--outputs-dir", str(settings.outputs_dir)),
        *("--device", "cpu", "--precision", "fp32", "--threads", "1", "--no-extensions"),
        *("--out", str(tmp_path / "out.png")),
    ]


def made(command: list[str], *options: str) -> tuple[tuple[int, ...], dict[str, object]]:
    assert main([*command, *options]) == 0
    data = Path(command[-1]).read_bytes()
    return read_pixels(data).shape, json.loads(read_picture_texts(data)["recipe"])["request"]


def test_any_field_is_set_by_its_name(command: list[str]) -> None:
    shape, request = made(
        command,
        *("--set", "second_pass.scale=2", "--set", "second_pass.steps=1", "--set", "noise.source=NV"),
        *("--set", "sampling.options.s_noise=0.9", "--style", "ink"),
    )
    assert shape == (128, 128, 3)
    assert request["noise"]["source"] == "NV" and request["sampling"]["options"]["s_noise"] == 0.9  # type: ignore[index]
    assert request["prompt"] == "a cat, in ink" and request["sampling"]["steps"] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        ("tiling", "must be NAME=VALUE"),
        ("prompt.x=1", '"prompt" is one value'),
        ("sampling.stepz=3", "stepz"),
        ("second_pass.scale=99", "from 1 to 8"),
    ],
)
def test_a_field_that_is_wrong_is_told(
    command: list[str], capsys: pytest.CaptureFixture[str], pair: str, told: str
) -> None:
    assert main([*command, "--set", pair]) == 2
    assert told in capsys.readouterr().err
