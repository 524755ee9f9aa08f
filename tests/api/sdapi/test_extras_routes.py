from __future__ import annotations

import base64
import io

from fastapi.testclient import TestClient
from PIL import Image
from tiny_model import picture_bytes

from webui.engine.engine import Engine

PICTURE = base64.b64encode(picture_bytes()).decode()


def size(image: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(image))) as picture:
        return picture.size


def test_one_picture_by_a_factor_and_to_a_size(client: TestClient, engine: Engine) -> None:
    answer = client.post(
        "/sdapi/v1/extra-single-image", json={"image": PICTURE, "upscaler_1": "Lanczos", "upscaling_resize": 2}
    )
    assert answer.status_code == 200, answer.text
    assert size(answer.json()["image"]) == (128, 128) and "html_info" in answer.json()
    body = {"image": PICTURE, "upscaler_1": "Nearest", "resize_mode": 1, "upscaling_resize_w": 96}
    cropped = client.post("/sdapi/v1/extra-single-image", json={**body, "upscaling_resize_h": 64}).json()
    assert size(cropped["image"]) == (96, 64)
    assert not list((engine.settings.outputs_dir / "extras-images").rglob("*.png"))


def test_several_pictures(client: TestClient) -> None:
    files = [{"data": PICTURE, "name": "a.png"}, {"data": PICTURE, "name": "b.png"}]
    answer = client.post("/sdapi/v1/extra-batch-images", json={"imageList": files, "upscaler_1": "Lanczos"}).json()
    assert [size(image) for image in answer["images"]] == [(128, 128)] * 2


def test_wrong_ones(client: TestClient) -> None:
    assert client.post("/sdapi/v1/extra-single-image", json={}).status_code == 500
    unknown = client.post("/sdapi/v1/extra-single-image", json={"image": PICTURE, "upscaler_1": "Lancos"})
    assert unknown.status_code == 422 and "Lanczos" in unknown.json()["detail"]
    assert client.post("/sdapi/v1/extra-single-image", json={"resize_mode": 2}).status_code == 422
