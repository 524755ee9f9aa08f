"""Which files of the models folder a restorer works with: they are in a picture's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from webui.faces import FaceRestorer, files_of
from webui.faces.restorers import register_face_restorers


@dataclass(frozen=True)
class Entry:
    name: str

    @property
    def path(self) -> Path:
        return Path(f"{self.name}.pth")


def entries(*names: str) -> Any:
    return [cast(Any, Entry(name)) for name in names]


def names(restorer: FaceRestorer, found: Any) -> list[str]:
    return [entry.name for entry in files_of(restorer, found)]


def test_the_network_and_the_detector_that_is_there() -> None:
    gfpgan = next(one for one in register_face_restorers() if one.name == "GFPGAN")
    there = entries("GFPGANv1.3", "GFPGANv1.4", "detection_Resnet50_Final", "codeformer-v0.1.0")
    assert names(gfpgan, there) == ["GFPGANv1.4", "detection_Resnet50_Final"]
    assert names(gfpgan, entries("codeformer-v0.1.0")) == []


def test_a_restorer_of_an_extension_may_have_no_files() -> None:
    dimmer = FaceRestorer(name="Dimmer", restore=lambda pixels, work: pixels // 2)
    assert names(dimmer, entries("GFPGANv1.4", "detection_Resnet50_Final")) == []
