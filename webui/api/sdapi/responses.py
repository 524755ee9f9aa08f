"""What ``txt2img`` and ``img2img`` answer: the pictures, the body again, and ``info``, which is JSON as a text."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from webui import __version__
from webui.api.sdapi.errors import UpstreamError
from webui.api.sdapi.models import Generation, StableDiffusionProcessingImg2Img
from webui.api.sdapi.pictures import as_text
from webui.engine.engine import Engine
from webui.engine.jobs import Job, Output
from webui.engine.options import Snapshot
from webui.images.grid import grid
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture, read_picture_texts
from webui.metadata.infotext import parse
from webui.request import GenerationRequest

FORMATS = ("png", "jpg", "jpeg", "webp")
OWN_KEYS = frozenset(
    {
        *(
            "Steps",
            "Sampler",
            "CFG scale",
            "Image CFG scale",
            "Seed",
            "Face restoration",
            "Size",
            "Model hash",
            "Model",
        ),
        *(
            "VAE hash",
            "VAE",
            "Variation seed",
            "Variation seed strength",
            "Seed resize from",
            "Conditional mask weight",
        ),
        *("Clip skip", "ENSD", "Token merging ratio", "Token merging ratio hr", "Init image hash", "RNG", "Tiling"),
        *("Version", "User", "FP8 weight", "Cache FP16 weight for LoRA"),
    }
)
"""Keys of a picture's text that upstream writes itself; all others are ``extra_generation_params``."""
AUTOMATIC_SCHEDULE = ("Schedule type", "Automatic")
HIDDEN_UNLESS_SENT = ("hr_cfg",)


def parameters(body: Generation) -> dict[str, Any]:
    """The body as the answer repeats it, without its pictures unless they are asked for."""
    plain = body.model_dump()
    for name in HIDDEN_UNLESS_SENT:
        if name not in body.model_fields_set:
            plain.pop(name, None)
    if isinstance(body, StableDiffusionProcessingImg2Img) and not body.include_init_images:
        plain |= {"init_images": None, "mask": None}
    return plain


def encoded(data: bytes, options: Snapshot) -> str:
    """A picture's PNG file in the format that the settings say, with its text, as base64."""
    kind = options["samples_format"]
    if kind not in FORMATS:
        raise UpstreamError(500, "Invalid image format")
    if kind != "png":
        texts = {key: text for key, text in read_picture_texts(data).items() if key == "parameters"}
        quality = 100 if kind == "webp" and options["webp_lossless"] else options["jpeg_quality"]
        data = encode_picture(read_pixels(data), kind, texts, quality)
    return as_text(data)


@dataclass(frozen=True)
class Result:
    """What a job is answered with: PNG files, the overviews first, and the texts of all of them.

    ``request`` is that of the first picture; ``pictures`` are those that are no overviews, sent or not.
    """

    job: Job
    request: GenerationRequest
    images: tuple[bytes, ...]
    sheets: tuple[str, ...]
    pictures: tuple[Output, ...]


def result(engine: Engine, body: Generation, options: Snapshot, job: Job) -> Result:
    """The pictures of a job that is over, in upstream's order."""
    request = GenerationRequest.from_dict(job.request)
    pictures = tuple(sorted((one for one in job.outputs if one.index >= 0), key=lambda one: one.index))
    if request.script is not None:
        expansion = engine.expansion(request)
        pictures = tuple(one for one in pictures if expansion.is_sent(one.index))
        files = [engine.output_path(one.id).read_bytes() for one in pictures]
        sheets = sorted((one for one in job.outputs if one.index < 0), key=lambda one: -one.index)
        overviews = [engine.output_path(one.id).read_bytes() for one in sheets]
        sent = files if expansion.with_pictures or not sheets else []
        texts = tuple(one.infotext for one in sheets)
        return Result(job, expansion.requests[0], (*overviews, *sent), texts, pictures)
    files = [engine.output_path(one.id).read_bytes() for one in pictures]
    overview = _grid(engine, body, options, job, files) if pictures else None
    if overview is None:
        return Result(job, request, tuple(files), (), pictures)
    return Result(job, request, (overview, *files), (pictures[0].infotext,), pictures)


def _grid(engine: Engine, body: Generation, options: Snapshot, job: Job, files: Sequence[bytes]) -> bytes | None:
    """The overview of several pictures: upstream makes one where pictures are saved and the settings want it."""
    if not (body.save_images and options["return_grid"] and len(files) > 1):
        return None
    rows = options["n_rows"]
    rows = None if rows < 0 else rows or min(body.batch_size, len(files))
    data = encode_picture(
        grid([read_pixels(file) for file in files], rows), "png", {"parameters": job.outputs[0].infotext}
    )
    if options["grid_save"]:
        engine.save_grid(data, job, seed=job.outputs[0].seed)
    return data


def info(body: Generation, result: Result) -> str:
    """The facts about a finished job under upstream's names."""
    facts = _facts(body, result.request, result.pictures)
    texts = [*result.sheets, *(output.infotext for output in result.pictures)]
    facts |= {"index_of_first_image": len(result.sheets), "infotexts": texts}
    return json.dumps({**facts, **_last(body, result.request, result.job)})


def _facts(body: Generation, request: GenerationRequest, pictures: Sequence[Output]) -> dict[str, Any]:
    read = [parse(output.infotext) for output in pictures]
    fields = read[0].fields if read else {}
    varied = [request.variation_seed_of(output.index) for output in pictures]
    subseeds = [-1 if seed is None else seed for seed in varied]
    restoration = request.face_restoration
    return {
        "prompt": read[0].prompt if read else request.prompt,
        "all_prompts": [one.prompt for one in read],
        "negative_prompt": read[0].negative_prompt if read else request.negative_prompt,
        "all_negative_prompts": [one.negative_prompt for one in read],
        "seed": pictures[0].seed if pictures else request.seed,
        "all_seeds": [output.seed for output in pictures],
        "subseed": subseeds[0] if subseeds else -1,
        "all_subseeds": subseeds,
        "subseed_strength": body.subseed_strength,
        "width": request.size.width,
        "height": request.size.height,
        "sampler_name": request.sampling.sampler,
        "cfg_scale": request.sampling.cfg_scale,
        "steps": request.sampling.steps,
        "batch_size": request.batch_size,
        "restore_faces": restoration is not None,
        "face_restoration_model": restoration.model if restoration else None,
        "sd_model_name": fields.get("Model"),
        "sd_model_hash": fields.get("Model hash"),
        "sd_vae_name": fields.get("VAE"),
        "sd_vae_hash": fields.get("VAE hash"),
        "seed_resize_from_w": body.seed_resize_from_w,
        "seed_resize_from_h": body.seed_resize_from_h,
        "denoising_strength": _denoising(request),
        "extra_generation_params": _extra_params(fields),
    }


def _last(body: Generation, request: GenerationRequest, job: Job) -> dict[str, Any]:
    return {
        "styles": list(body.styles or []),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.started or job.created)),
        "clip_skip": request.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": f"webui {__version__}",
    }


def _denoising(request: GenerationRequest) -> float | None:
    if request.start is not None:
        return request.start.denoising_strength
    return request.second_pass.denoising_strength if request.second_pass else None


def _extra_params(fields: dict[str, str]) -> dict[str, Any]:
    pairs = [pair for pair in fields.items() if pair[0] not in OWN_KEYS and pair != AUTOMATIC_SCHEDULE]
    return {key: _number(value) for key, value in pairs}


def _number(text: str) -> Any:
    """A number as a number, other texts as they are."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
