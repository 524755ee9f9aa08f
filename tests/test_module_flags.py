"""``webui generate`` has flags for every option of every module, made from the records."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from module_toy import TINT
from tiny_model import picture_bytes, tiny_checkpoint, tiny_settings  # noqa: F401

from webui.cli import main
from webui.metadata.files import read_picture_texts


@pytest.fixture
def command(tmp_path: Path, tiny_checkpoint: Path) -> list[str]:  # noqa: F811
    settings = tiny_settings(tmp_path, tiny_checkpoint)
    settings.extensions_dir.mkdir()
    (settings.extensions_dir / "tint.py").write_text(TINT, "utf-8")
    return [
        *("generate", "--prompt", "a cat", "--seed", "7", "--steps", "2", "--width", "64", "--height", "64"),
        *("--models-dir", str(settings.models_dir), "--outputs-dir", str(settings.outputs_dir)),
        *("--extensions-dir", str(settings.extensions_dir), "--device", "cpu", "--precision", "fp32", "--threads", "1"),
        *("--out", str(tmp_path / "out.png")),
    ]


def modules(command: list[str], *options: str) -> list[dict[str, Any]]:
    assert main([*command, *options]) == 0
    recipe = json.loads(read_picture_texts(Path(command[-1]).read_bytes())["recipe"])
    found: list[dict[str, Any]] = recipe["request"]["modules"]
    return found


def test_every_kind_of_option_has_a_flag(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(picture_bytes())
    (use,) = modules(
        command,
        *("--tint-image", str(tmp_path / "picture.png"), "--tint-preprocessor", "negative", "--tint-strength", "0.5"),
        *("--tint-tokens", "2", "--tint-words", "fog", "--tint-mode", "Hard", "--tint-inverted"),
        *("--tint-places", "[0.25, 1]"),
    )
    assert use["name"] == "Tint" and use["options"] == {
        "image": hashlib.sha256(picture_bytes()).hexdigest(), "mask": "", "preprocessor": "negative", "model": "",
        "strength": 0.5, "tokens": 2, "words": "fog", "mode": "Hard", "softness": 0.5, "inverted": True,
        "places": [0.25, 1.0],
    }  # fmt: skip


def test_a_second_use_and_one_without_options(command: list[str]) -> None:
    first, second = modules(command, "--tint", "--tint2-strength", "0.25")
    assert (first["options"]["strength"], second["options"]["strength"]) == (1.0, 0.25)
    assert modules(command) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--tint-strength", "3"), "Tint: Strength is 3.0; it must be a number from 0 to 2."),
        (("--tint-preprocessor", "negativ"), 'did you mean "negative"?'),
        (("--tint-model", "canny"), "Tint: Model: There is no controlnet named"),
        (("--tint-image", "nowhere.png"), "nowhere.png"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(
    command: list[str], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], told: str
) -> None:
    assert main([*command, *options]) == 2
    assert told in capsys.readouterr().err


def test_a_word_that_is_no_choice_is_refused_by_the_parser(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--tint-mode", "Loud"])
    assert "invalid choice: 'Loud'" in capsys.readouterr().err


def test_help_has_a_group_for_each_module(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "the module Tint of it:" in told and "--tint-strength X Strength, 0 to 2 (default: 1.0)" in told
    assert "--tint-mode WORDS Mode: Soft, Hard (default: Soft)" in told and "--tint2 use it a 2. time" in told


def test_flags_that_others_have_get_a_prefix(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(command[command.index("--extensions-dir") + 1])
    (folder / "mask.py").write_text(TINT.replace('"Tint"', '"Mask"').replace('"negative"', '"other"'), "utf-8")
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    told = capsys.readouterr().out
    assert "--module-mask-strength" in told and "--tint-strength" in told and "--mask FILE" in told


def test_modules_are_looked_for_without_torch_and_only_where_they_are_asked_for(command: list[str]) -> None:
    code = (
        "import sys; from webui.cli import _parser\n"
        f"_parser({command!r}).parse_args({command!r}); print('webui.plugins.manager' in sys.modules)\n"
        f"asked = {[*command, '--tint']!r}\n"
        "_parser(asked).parse_args(asked); print('webui.plugins.manager' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
