"""The Extras tab without a browser: what its fields mean, and which files its boxes name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_model import picture_bytes

from webui.errors import PictureError, RequestError
from webui.extras import Enlargement, ExtrasRequest, Target
from webui.ui.extras import BATCH, DIRECTORY, SINGLE, pictures_of, request_from_values

FRESH: dict[str, Any] = {
    "upscaler": "None", "second": "None", "second_visibility": 0, "scale": "Scale by", "by": 4, "max_side": 0,
    "width": 512, "height": 512, "crop": True, "gfpgan_visibility": 0, "codeformer_visibility": 0,
    "codeformer_weight": 0, "faces_first": False,
}  # fmt: skip
DIGEST = "0" * 64


def asked(**changes: Any) -> ExtrasRequest:
    return request_from_values({**FRESH, **changes}, [DIGEST], ["a.png"])


def test_fresh_fields_mean_the_defaults() -> None:
    assert asked() == ExtrasRequest(images=(DIGEST,), names=("a.png",))


def test_scale_to_means_a_size_and_scale_by_a_factor() -> None:
    assert asked(scale="Scale to", width=640.0, crop=False).upscale.to == Target(width=640, crop=False)
    changed = asked(by=2.5, max_side=1024.0, upscaler="Lanczos", second="Nearest", second_visibility=0.5, width=640)
    assert changed.upscale == Enlargement(
        upscaler="Lanczos", by=2.5, max_side=1024, second="Nearest", second_visibility=0.5
    )


def test_faces() -> None:
    request = asked(gfpgan_visibility=1, codeformer_visibility=0.5, codeformer_weight=0.25, faces_first=True)
    faces = (request.gfpgan_visibility, request.codeformer_visibility, request.codeformer_weight, request.faces_first)
    assert faces == (1, 0.5, 0.25, True)


@pytest.mark.parametrize("wrong", [{"by": None}, {"scale": "Scale to", "width": 0.5}, {"max_side": -8}])
def test_what_no_request_can_have_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        asked(**wrong)


def test_the_boxes_name_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(picture_bytes(16, 16))
    (tmp_path / "folder.png").mkdir()
    assert pictures_of(SINGLE, "/x/a.png", ["/y/b.png"], str(tmp_path)) == [Path("/x/a.png")]
    assert pictures_of(BATCH, "/x/a.png", ["/y/b.png", "/y/c.png"], "") == [Path("/y/b.png"), Path("/y/c.png")]
    assert pictures_of(DIRECTORY, None, None, f" {tmp_path} ") == [tmp_path / "a.jpg", tmp_path / "b.PNG"]


@pytest.mark.parametrize(
    ("mode", "folder", "sentence"),
    [
        (SINGLE, "", "There is no picture; choose one"),
        (BATCH, "", "There are no pictures; choose some"),
        (DIRECTORY, "", 'There is no folder ""'),
        (DIRECTORY, "/nowhere", 'There is no folder "/nowhere"'),
        (DIRECTORY, "EMPTY", "holds 0 pictures"),
    ],
)
def test_without_pictures_a_sentence(mode: str, folder: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=sentence):
        pictures_of(mode, None, None, str(tmp_path) if folder == "EMPTY" else folder)
