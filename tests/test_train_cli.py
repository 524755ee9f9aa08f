from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from threading import Thread

import pytest
from teaching_toy import toy_pictures, toy_settings
from tiny_model import tiny_checkpoint  # noqa: F401

from webui import cli
from webui.settings import Settings
from webui.training.request import Data, Noise, Optimiser, Samples, TrainingRequest


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path) -> Settings:  # noqa: F811
    return toy_settings(tmp_path, tiny_checkpoint)


@pytest.fixture
def train(settings: Settings) -> Callable[..., int]:
    """Runs ``webui train`` with these options on the settings' folders; returns its exit code."""
    folders = [f"--{name}-dir={getattr(settings, f'{name}_dir')}" for name in ("models", "outputs", "extensions")]
    return lambda *options: cli.main(["train", *map(str, options), *folders, "--device=cpu", "--threads=1"])


def test_a_training_from_the_command_line(
    train: Callable[..., int], tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = toy_pictures(tmp_path / "pictures")
    (pictures / "broken.png").write_bytes(b"nothing")
    options = ("--data", pictures, "--name", "my thing", "--steps", 3, "--width", 4, "--caption", "a thing")
    assert train("toy", *options, "--sample-every", 2, "--sample-prompt", "one", "--sample-prompt", "two") == 0
    printed = capsys.readouterr()
    assert Path(printed.out.strip()) == settings.models_dir / "Lora" / "my thing.safetensors"
    assert Path(printed.out.strip()).is_file()
    assert "step 3/3  loss" in printed.err and "left out: " in printed.err and "broken.png" in printed.err
    (folder,) = (path for path in (settings.outputs_dir / "training").iterdir() if path.name.startswith("my thing-"))
    asked = json.loads((folder / "request.json").read_text("utf-8"))
    assert asked["options"] == {"sleep_s": 0.01, "width": 4}
    assert asked["samples"]["prompts"] == ["one", "two"]
    assert asked["optimiser"]["rate"] == 0.05 and asked["batch_size"] == 2, "as the kind recommends"
    assert asked["checkpoint"] == "tiny" and asked["data"]["folder"] == str(pictures)


def test_ctrl_c_saves_and_says_how_to_go_on(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = toy_pictures(tmp_path / "pictures")
    request = TrainingRequest(
        kind="toy", name="toy", data=Data(folder=str(pictures)), steps=60, options={"sleep_s": 0.02, "width": 8}
    )
    config = tmp_path / "config.json"
    config.write_text(json.dumps(request.to_dict()))
    assert train("--config", config, "--run", tmp_path / "whole") == 0
    made = Path(capsys.readouterr().out.strip())
    whole = made.read_bytes()
    made.unlink()
    run = tmp_path / "the run"

    def press() -> None:
        while not (run / "losses.csv").exists() or len((run / "losses.csv").read_text().splitlines()) < 6:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    pressing = Thread(target=press)
    pressing.start()
    assert train("--config", config, "--run", run) == 130
    pressing.join()
    assert not made.exists()
    command = capsys.readouterr().err.strip().rpartition("Go on with: ")[2]
    words = shlex.split(command)
    assert words[:3] == ["python", "launch.py", "train"] and len((run / "losses.csv").read_text().splitlines()) < 61
    assert signal.getsignal(signal.SIGINT) is before
    assert train(*words[3:]) == 0
    assert made.read_bytes() == whole
    assert len((run / "losses.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["tyo", "--data", "x", "--name", "y"], 'no kind of training named "tyo"; did you mean "toy"'),
        (["toy", "--name", "y"], "needs its pictures and a name"),
        (["toy", "--data", "/absent", "--name", "y"], "There is no folder /absent"),
        (["--resume", "/absent"], "request.json cannot be read"),
        (["--resume", "/absent", "--steps", "4"], "takes no other settings"),
        (["--config", "/absent"], "/absent cannot be read"),
    ],
)
def test_what_cannot_be_taught_is_said(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert train(*options) == 2
    assert sentence in capsys.readouterr().err


def test_a_file_of_settings_is_changed_by_options(tmp_path: Path) -> None:
    plain = {"kind": "toy", "data": {"folder": "x", "flip": True}, "optimiser": {"rate": 0.5}}
    changed = cli._with_said(plain, {"optimiser.ema": 0.9, "name": "y", "data.folder": "z"})
    assert changed == {
        "kind": "toy", "name": "y", "data": {"folder": "z", "flip": True}, "optimiser": {"rate": 0.5, "ema": 0.9},
    }  # fmt: skip


def test_every_field_of_a_request_is_an_option() -> None:
    flags = {".".join(option.place): option.flag for option in cli._training_options(None)}
    nested = {"data": Data(folder="x"), "optimiser": Optimiser(), "noise": Noise(), "samples": Samples()}
    own = set(asdict(TrainingRequest(kind="k", name="n", data=nested["data"]))) - {*nested, "kind", "options"}  # type: ignore[arg-type]
    inner = {f"{part}.{name}" for part, record in nested.items() for name in asdict(record)}  # type: ignore[call-overload]
    assert set(flags) == own | inner
    assert len(set(flags.values())) == len(flags)


def test_the_readme_s_training_command_is_understood() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    (command,) = re.findall(r"^python launch.py (train .*)$", readme, flags=re.MULTILINE)
    words = shlex.split(command)
    parsed = vars(cli._parser(words).parse_args(words))
    assert parsed["kind"] == "lora" and parsed["data.folder"] and parsed["name"] in readme.split("<lora:")[1]


@pytest.mark.parametrize(
    ("seconds", "told"), [(3.4, "3 s"), (119, "119 s"), (150, "2 min"), (7100, "118 min"), (11100, "3 h 05 min")]
)
def test_times_that_people_read(seconds: float, told: str) -> None:
    assert cli._duration(seconds) == told
