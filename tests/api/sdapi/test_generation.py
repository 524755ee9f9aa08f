from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from picture_server import sends, server
from PIL import Image
from tiny_model import mask_bytes, picture_bytes

from webui.api.sdapi.models import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img
from webui.api.sdapi.translation import settings_of, to_request
from webui.engine.engine import Engine
from webui.metadata.infotext import parse
from webui.request import (
    Emphasis,
    InpaintArea,
    MaskedContent,
    MaskMode,
    RandomSource,
    ResizeMode,
    SoftInpainting,
)

SMALL = {"prompt": "a red square", "steps": 2, "width": 64, "height": 64, "seed": 5}
INFO_KEYS = [
    *("prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed", "all_seeds", "subseed"),
    *("all_subseeds", "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps", "batch_size"),
    *("restore_faces", "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name", "sd_vae_hash"),
    *("seed_resize_from_w", "seed_resize_from_h", "denoising_strength", "extra_generation_params"),
    *("index_of_first_image", "infotexts", "styles", "job_timestamp", "clip_skip"),
    *("is_using_inpainting_conditioning", "version"),
]


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def generated(client: TestClient, route: str = "txt2img", **body: Any) -> dict[str, Any]:
    answer = client.post(f"/sdapi/v1/{route}", json={**SMALL, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def opened(image: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image)))


def meant(engine: Engine, **body: Any) -> Any:
    kind = StableDiffusionProcessingImg2Img if "init_images" in body else StableDiffusionProcessingTxt2Img
    parsed = kind(**{**SMALL, **body})
    return to_request(parsed, settings_of(parsed, engine), engine)


def test_pictures_come_with_their_text_and_every_key_of_info(client: TestClient) -> None:
    answer = generated(client, batch_size=2, n_iter=2)
    info = json.loads(answer["info"])
    assert list(info) == INFO_KEYS
    assert len(answer["images"]) == 4 and info["all_seeds"] == [5, 6, 7, 8]
    for image, text in zip(answer["images"], info["infotexts"], strict=True):
        with opened(image) as picture:
            assert picture.format == "PNG" and picture.size == (64, 64)
            assert picture.info["parameters"] == text
    assert info["sd_model_name"] == "tiny" and len(info["sd_model_hash"]) == 10
    assert answer["parameters"]["steps"] == 2 and "hr_cfg" not in answer["parameters"]


def test_defaults_are_those_of_the_api_not_of_the_page(engine: Engine) -> None:
    body = StableDiffusionProcessingTxt2Img()
    request = to_request(body, settings_of(body, engine), engine)
    assert (request.sampling.steps, request.sampling.sampler, request.sampling.cfg_scale) == (50, "Euler", 7.0)
    assert request.noise.source is RandomSource.GPU and request.seed is None
    start = meant(engine, init_images=[base64_of(picture_bytes())], mask=base64_of(mask_bytes())).start
    assert start.denoising_strength == 0.75 and start.resize_mode is ResizeMode.JUST_RESIZE
    mask = start.mask
    assert (mask.content, mask.area, mask.padding) == (MaskedContent.FILL, InpaintArea.ONLY_MASKED, 0)
    assert (mask.blur, mask.blur_y, mask.round, mask.mode) == (4, None, True, MaskMode.MASKED)


def test_every_setting_that_changes_pixels_reaches_the_request(engine: Engine) -> None:
    request = meant(
        engine,
        sampler_name="DPM++ 2M Karras",
        override_settings={
            "CLIP_stop_at_last_layers": 2,
            "randn_source": "NV",
            "emphasis": "No norm",
            "comma_padding_backtrack": 5,
            "eta_noise_seed_delta": 31337,
            "sigma_max": 10,
            "always_discard_next_to_last_sigma": True,
            "sd_noise_schedule": "Zero Terminal SNR",
            "s_min_uncond_all": True,
            "token_merging_ratio": 0.4,
            "token_merging_ratio_hr": 0.3,
            "use_old_scheduling": True,
            "sd_vae": "None",
            "nobody knows this": 1,
        },
        s_min_uncond=1.5,
        s_churn=0.2,
        tiling=True,
        restore_faces=True,
        subseed=9,
        subseed_strength=0.25,
        seed_resize_from_w=128,
        seed_resize_from_h=64,
    )
    assert (request.sampling.sampler, request.sampling.schedule) == ("DPM++ 2M", "Automatic")
    assert (request.clip_skip, request.noise.source, request.emphasis) == (2, RandomSource.NV, Emphasis.NO_NORM)
    assert (request.comma_backtrack, request.noise.later_offset, request.vae) == (5, 31337, "None")
    sampler, guidance = request.sampling.options, request.sampling.guidance
    assert (sampler.sigma_max, sampler.s_churn, sampler.discard_penultimate) == (10, 0.2, True)
    assert sampler.zero_terminal_snr and (guidance.min_sigma, guidance.min_sigma_all) == (1.5, True)
    assert (request.token_merging.ratio, request.token_merging.second_pass) == (0.4, 0.3)
    assert request.compatibility.old_prompt_editing and request.tiling
    assert request.face_restoration.model == "CodeFormer"
    assert (request.noise.variation_seed, request.noise.variation_strength) == (9, 0.25)
    assert (request.noise.from_width, request.noise.from_height) == (128, 64)


def test_eta_goes_to_the_sampler_that_has_one(engine: Engine) -> None:
    assert meant(engine, sampler_name="Euler a").sampling.eta == 1
    assert meant(engine, sampler_name="DDIM").sampling.eta == 0
    assert meant(engine, sampler_name="Euler a", eta=0.5).sampling.eta == 0.5
    assert meant(engine, sampler_name="DDIM", override_settings={"eta_ddim": 0.3}).sampling.eta == 0.3
    assert meant(engine, sampler_name="Euler", eta=0.5).sampling.eta is None


def test_a_second_pass(engine: Engine) -> None:
    second = meant(engine, enable_hr=True, hr_sampler_name="Use same sampler", hr_scheduler="Karras").second_pass
    assert (second.upscaler, second.scale, second.denoising_strength) == ("Latent", 2.0, 0.75)
    assert (second.sampler, second.schedule, second.cfg_scale) == (None, "Karras", None)
    old = meant(engine, enable_hr=True, width=128, height=192, firstphase_width=64, firstphase_height=96)
    assert (old.size.width, old.size.height, old.second_pass.width, old.second_pass.height) == (64, 96, 128, 192)


def test_masks_and_soft_inpainting(engine: Engine) -> None:
    start = meant(
        engine,
        init_images=[f"data:image/png;base64,{base64_of(picture_bytes())}"],
        mask=base64_of(mask_bytes()),
        mask_blur_x=2,
        mask_blur_y=6,
        inpainting_fill=3,
        inpaint_full_res=False,
        inpainting_mask_invert=1,
        resize_mode=2,
        alwayson_scripts={"Soft Inpainting": {"args": [True, 2, 0.25]}},
    ).start
    assert start.resize_mode is ResizeMode.FILL
    assert (start.mask.blur, start.mask.blur_y, start.mask.mode) == (2, 6, MaskMode.NOT_MASKED)
    assert start.mask.content is MaskedContent.LATENT_NOTHING and start.mask.area is InpaintArea.WHOLE
    assert start.mask.soft == SoftInpainting(schedule_bias=2, preservation_strength=0.25)


def test_img2img_answers_without_its_start_picture_unless_asked(client: TestClient) -> None:
    image = base64_of(picture_bytes())
    answer = generated(client, "img2img", init_images=[image], mask=base64_of(mask_bytes()))
    assert answer["parameters"]["init_images"] is None and answer["parameters"]["mask"] is None
    assert json.loads(answer["info"])["denoising_strength"] == 0.75
    shown = generated(client, "img2img", init_images=[image], include_init_images=True)
    assert shown["parameters"]["init_images"] == [image]


def test_pictures_are_kept_only_when_they_shall_be(client: TestClient, engine: Engine) -> None:
    generated(client, seed=100)
    assert not list(engine.settings.outputs_dir.rglob("*-100.png")) and engine.jobs(1)[0].outputs == ()
    answer = generated(client, seed=200, save_images=True, n_iter=2)
    assert len(answer["images"]) == 3 and json.loads(answer["info"])["index_of_first_image"] == 1
    with opened(answer["images"][0]) as grid:
        assert grid.size == (128, 64)
    assert len(list(engine.settings.outputs_dir.rglob("*-200.png"))) == 2  # one is the grid's
    assert len(list(engine.settings.outputs_dir.rglob("*-grids/*/*.png"))) == 1
    assert len(engine.jobs(1)[0].outputs) == 2


def test_send_images_false(client: TestClient) -> None:
    answer = generated(client, send_images=False)
    assert answer["images"] == [] and len(json.loads(answer["info"])["infotexts"]) == 1


@pytest.mark.parametrize(("kind", "name"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_carry_the_text_too(client: TestClient, kind: str, name: str) -> None:
    answer = generated(client, override_settings={"samples_format": kind})
    with opened(answer["images"][0]) as picture:
        assert picture.format == name
    told = client.post("/sdapi/v1/png-info", json={"image": answer["images"][0]}).json()
    assert told["info"] == json.loads(answer["info"])["infotexts"][0]
    assert told["parameters"]["Size-1"] == "64" and told["parameters"]["Prompt"] == "a red square"


def test_infotext_fills_what_the_body_leaves_out(client: TestClient) -> None:
    text = "a bird\nNegative prompt: night\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, "
    text += "Seed: 99, Size: 64x128, Clip skip: 2, RNG: CPU"
    answer = client.post("/sdapi/v1/txt2img", json={"infotext": text, "seed": 3}).json()
    told = answer["parameters"]
    assert (told["prompt"], told["negative_prompt"], told["seed"]) == ("a bird", "night", 3)
    assert (told["steps"], told["width"], told["height"]) == (3, 64, 128)
    assert (told["sampler_name"], told["scheduler"]) == ("DPM++ 2M", "Automatic")
    assert told["override_settings"] == {"CLIP_stop_at_last_layers": 2, "randn_source": "CPU"}
    fields = parse(json.loads(answer["info"])["infotexts"][0]).fields
    assert (fields["Schedule type"], fields["Clip skip"], fields["Seed"]) == ("Karras", "2", "3")


def test_styles_are_put_around_the_prompts(client: TestClient) -> None:
    info = json.loads(generated(client, styles=["wrap"], negative_prompt="blurry")["info"])
    assert (info["prompt"], info["negative_prompt"]) == ("portrait of a red square, 4k", "blurry, grain")
    assert info["styles"] == ["wrap"]


def test_an_override_never_sticks(client: TestClient, engine: Engine) -> None:
    before = dict(engine.options.snapshot())
    generated(client, override_settings={"CLIP_stop_at_last_layers": 2}, override_settings_restore_afterwards=False)
    assert dict(engine.options.snapshot()) == before
    assert not engine.options.path.exists()


@pytest.mark.parametrize(
    ("route", "body", "status", "detail"),
    [
        ("txt2img", {"sampler_name": "Eulr"}, 400, "Sampler not found"),
        ("txt2img", {"scheduler": "Krras"}, 400, "Scheduler not found"),
        ("txt2img", {"script_name": "nothing"}, 422, "Script 'nothing' not found"),
        ("txt2img", {"alwayson_scripts": {"nothing": {"args": []}}}, 422, "Always on script nothing not found"),
        ("txt2img", {"alwayson_scripts": {"soft inpainting": {}}}, 422, "Always on script soft inpainting not found"),
        ("img2img", {}, 404, "Init image not found"),
        ("img2img", {"init_images": ["not base64!"]}, 500, "Invalid encoded image"),
        ("img2img", {"init_images": [base64_of(b"no picture")]}, 500, "Invalid encoded image"),
        ("txt2img", {"override_settings": {"sd_model_checkpoint": "no"}}, 500, "Unknown checkpoint: no"),
    ],
)
def test_errors_have_upstreams_status_and_body(
    client: TestClient, route: str, body: dict[str, Any], status: int, detail: str
) -> None:
    answer = client.post(f"/sdapi/v1/{route}", json={**SMALL, **body})
    assert answer.status_code == status
    told = answer.json()
    assert told["detail"] == detail and {"error", "detail", "body", "errors"} <= told.keys()


def test_what_is_no_body_is_refused_as_fastapi_does(client: TestClient) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={"steps": "many"})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "steps"]


def test_both_apis_build_the_same_request(client: TestClient, engine: Engine) -> None:
    generated(client, override_settings={"randn_source": "CPU"}, cfg_scale=4)
    ours = engine.jobs(1)[0]
    again = client.post("/api/v1/jobs", json=ours.request).json()
    assert again["request"] == ours.request


@pytest.mark.usefixtures("options")
def test_pictures_by_address_are_fetched_only_as_the_settings_say(client: TestClient, engine: Engine) -> None:
    with server(sends(picture_bytes())) as (address, asked):
        body = {"init_images": [f"{address}/a.png"]}
        refused = client.post("/sdapi/v1/img2img", json={**SMALL, **body})
        assert refused.status_code == 500 and "local resource" in refused.json()["detail"] and asked == []
        engine.options.change({"api_enable_requests": False})
        off = client.post("/sdapi/v1/img2img", json={**SMALL, **body})
        assert off.status_code == 500 and off.json()["detail"] == "Requests not allowed" and asked == []
        engine.options.change({"api_enable_requests": True, "api_forbid_local_requests": False})
        answer = client.post("/sdapi/v1/img2img", json={**SMALL, **body})
        assert answer.status_code == 200 and asked == ["/a.png"]
        sneaky = {**body, "override_settings": {"api_forbid_local_requests": False, "api_enable_requests": True}}
        engine.options.change({"api_forbid_local_requests": True})
        assert client.post("/sdapi/v1/img2img", json={**SMALL, **sneaky}).status_code == 500
    assert asked == ["/a.png"]
