"""Extras as values: sizes, blending, order and words, against Pillow and the rules of AUTOMATIC1111."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.errors import PictureError, RequestError
from webui.extras import Enlargement, ExtrasRequest, Target, Tools, checked, process
from webui.faces import FaceRestorer, FaceWork
from webui.plugins.manager import Plugins
from webui.result import Pixels

DIGEST = "0" * 64
UPSCALERS = list(Plugins.load(None).upscalers.values())
PIXELS = np.random.default_rng(3).integers(0, 256, (40, 64, 3), dtype=np.uint8)


def darker(pixels: Pixels, work: FaceWork) -> Pixels:
    return pixels // 2


def wider(pixels: Pixels, work: FaceWork) -> Pixels:
    """Tells the weight that it was given."""
    return np.full_like(pixels, round(work.weight * 100))


RESTORERS = [FaceRestorer(name="GFPGAN", restore=darker), FaceRestorer(name="CodeFormer", restore=wider)]


def tools() -> Tools:
    faces = FaceWork(entries=(), folder=Path("models"), networks=None)  # type: ignore[arg-type]
    return Tools(upscalers=UPSCALERS, restorers=RESTORERS, faces=faces, after_tile=lambda done, total: None)


def request(upscale: Enlargement | None = None, **changes: Any) -> ExtrasRequest:
    return ExtrasRequest(images=(DIGEST,), upscale=upscale or Enlargement(), **changes)


def sized(*size: int, filter: Image.Resampling = Image.Resampling.LANCZOS) -> Pixels:
    return np.array(Image.fromarray(PIXELS).resize(size, filter))


def test_none_leaves_the_picture_as_it_is() -> None:
    pixels, done = process(PIXELS, request(), tools())
    assert np.array_equal(pixels, PIXELS) and done == {}


def test_by_a_factor() -> None:
    pixels, done = process(PIXELS, request(Enlargement(upscaler="Lanczos", by=2)), tools())
    assert np.array_equal(pixels, sized(128, 80))
    assert list(done.items()) == [("Postprocess upscale by", "2"), ("Postprocess upscaler", "Lanczos")]


def test_to_a_size_and_cropped() -> None:
    pixels, done = process(PIXELS, request(Enlargement(upscaler="Nearest", to=Target(width=96, height=96))), tools())
    covering = sized(int(64 * 2.4), 96, filter=Image.Resampling.NEAREST)
    covering = np.array(Image.fromarray(covering).resize((152, 96), Image.Resampling.LANCZOS))
    assert np.array_equal(pixels, covering[:, 28 : 28 + 96])
    assert done == {
        "Postprocess upscale to": "96x96",
        "Postprocess crop to": "96x96",
        "Postprocess upscaler": "Nearest",
    }


def test_to_a_size_without_cropping() -> None:
    how = Enlargement(upscaler="Lanczos", to=Target(width=96, height=96, crop=False))
    assert process(PIXELS, request(how), tools())[0].shape == (96, 152, 3)


@pytest.mark.parametrize(("side", "shape"), [(0, (160, 256)), (128, (80, 128)), (256, (160, 256)), (255, (152, 248))])
def test_max_side_length(side: int, shape: tuple[int, int]) -> None:
    pixels, done = process(PIXELS, request(Enlargement(upscaler="Lanczos", by=4, max_side=side)), tools())
    assert pixels.shape[:2] == shape
    assert done.get("Max side length") == (str(side) if 0 < side < 256 else None)


def test_two_upscalers_are_mixed() -> None:
    how = Enlargement(upscaler="Lanczos", by=2, second="Nearest", second_visibility=0.25)
    pixels, done = process(PIXELS, request(how), tools())
    first, second = sized(128, 80), sized(128, 80, filter=Image.Resampling.NEAREST)
    assert np.array_equal(pixels, np.array(Image.blend(Image.fromarray(first), Image.fromarray(second), 0.25)))
    assert done == {
        "Postprocess upscale by": "2",
        "Postprocess upscaler": "Lanczos",
        "Postprocess upscaler 2": "Nearest",
        "Postprocess upscaler 2 visibility": "0.25",
    }


def test_faces_are_mended_after_or_before_and_mixed() -> None:
    how = Enlargement(upscaler="Nearest", by=2)
    after, done = process(PIXELS, request(how, gfpgan_visibility=0.5, codeformer_visibility=1.0), tools())
    assert list(done) == [
        "Postprocess upscale by",
        "Postprocess upscaler",
        "GFPGAN visibility",
        "CodeFormer visibility",
        "CodeFormer weight",
    ]
    assert (after == 0).all(), "CodeFormer's weight 0 is handed on"
    half, _ = process(PIXELS, request(gfpgan_visibility=0.5), tools())
    assert np.array_equal(half, np.array(Image.blend(Image.fromarray(PIXELS), Image.fromarray(PIXELS // 2), 0.5)))
    first, done = process(PIXELS, request(how, gfpgan_visibility=1.0, faces_first=True), tools())
    assert np.array_equal(first, (PIXELS // 2).repeat(2, 0).repeat(2, 1)) and next(iter(done)) == "GFPGAN visibility"


def test_a_picture_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(PictureError, match="would have 17280x10800"):
        process(np.zeros((675, 1080, 3), np.uint8), request(Enlargement(upscaler="Lanczos", by=16)), tools())


def test_names_are_checked_and_completed() -> None:
    done = checked(request(Enlargement(upscaler="lanczos", second="nearest")), UPSCALERS, RESTORERS)
    assert (done.upscale.upscaler, done.upscale.second) == ("Lanczos", "Nearest")
    for how, sentence in (("Lancsoz", 'did you mean "Lanczos"'), ("Latent", "enlarges latents")):
        with pytest.raises(RequestError, match=sentence):
            checked(request(Enlargement(upscaler=how)), UPSCALERS, RESTORERS)
    with pytest.raises(RequestError, match='face restorer named "GFPGAN"'):
        checked(request(gfpgan_visibility=0.1), UPSCALERS, [])


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        ({"images": []}, "0 pictures"),
        ({"images": ["x"]}, "SHA-256"),
        ({"images": [DIGEST], "gfpgan_visibility": 1.5}, "GFPGAN visibility is 1.5"),
        ({"images": [DIGEST], "upscale": {"by": 0}}, "Resize is 0"),
        ({"images": [DIGEST], "upscale": {"to": {"width": 10**6}}}, "Width is 1000000"),
        ({"images": [DIGEST], "tile": 8}, "no use"),
        ({"images": [DIGEST], "sharpen": 1}, "unknown fields 'sharpen'"),
    ],
)
def test_what_cannot_be_asked_for(plain: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        ExtrasRequest.from_dict(plain)


@given(
    st.builds(
        ExtrasRequest,
        images=st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=3).map(tuple),
        names=st.lists(st.text("abc. /", max_size=5), max_size=3).map(tuple),
        upscale=st.builds(
            Enlargement,
            by=st.floats(0.05, 16),
            to=st.none() | st.builds(Target, width=st.integers(8, 9000), crop=st.booleans()),
            second_visibility=st.floats(0, 1),
        ),
        gfpgan_visibility=st.floats(0, 1),
        faces_first=st.booleans(),
    )
)
def test_there_and_back(request: ExtrasRequest) -> None:
    assert ExtrasRequest.from_dict(request.to_dict()) == request
