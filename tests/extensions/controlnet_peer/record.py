"""Writes ``numbers.json`` beside itself: the answers of controlnet_aux's networks (see README.md)."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from peer_weights import PICTURE, sampled, seeded  # noqa: E402


def networks_of(file: Path) -> Any:
    """A file of the package as a module of its own, without what only its downloads and pictures need."""
    text = re.sub(r"^from (einops|huggingface_hub|\.\S*|PIL) .*$", "", file.read_text("utf-8"), flags=re.MULTILINE)
    module = ModuleType(file.parent.name)
    exec(compile(text, str(file), "exec"), module.__dict__)
    return module


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """The network with the weights that the test draws, too."""
    network.load_state_dict(seeded({name: tuple(one.shape) for name, one in network.state_dict().items()}))
    return network.eval()


def main(package: Path) -> None:
    """Run each network on the picture."""
    rgb = torch.from_numpy(PICTURE.copy()).permute(2, 0, 1)[None].float()
    height, width = PICTURE.shape[:2]
    with torch.inference_mode():
        sides = filled(networks_of(package / "hed" / "__init__.py").ControlNetHED_Apache2())(rgb)
        resized = [cv2.resize(side.numpy()[0, 0], (width, height), interpolation=cv2.INTER_LINEAR) for side in sides]
        hed = 1 / (1 + np.exp(-np.mean(np.stack(resized, axis=2), axis=2).astype(np.float64)))
        lines = filled(networks_of(package / "lineart" / "__init__.py").Generator(3, 1, 3))(rgb / 255)
        pidi = filled(networks_of(package / "pidi" / "model.py").pidinet())(rgb.flip(1) / 255)[-1]
    answers = {"hed": hed, "line_drawing": lines[0, 0].numpy(), "pidinet": pidi[0, 0].numpy()}
    numbers = {name: sampled(answer) for name, answer in answers.items()}
    (HERE / "numbers.json").write_text(json.dumps(numbers) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
