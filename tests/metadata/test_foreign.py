"""Other programs' texts, in files as they write them, read into requests.

The texts are those programs' formats with contents of our own; sd-parsers, a reader from the package registry, is asked
what it finds in the same pictures.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from typing import Any

import numpy as np
import piexif
import piexif.helper
import pytest
import sd_parsers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from webui.metadata.files import read_picture_texts
from webui.metadata.foreign import Told, names, read_foreign, readers, tell
from webui.metadata.foreign.weights import from_invoke, from_novelai
from webui.metadata.reading import ReadBack, to_request
from webui.plugins.manager import Plugins
from webui.request import BUILT_IN_VAE, GenerationRequest, RandomSource, Size


def png(**texts: str) -> bytes:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_itxt(keyword.replace("__", " "), text)
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def png_of(texts: dict[str, str]) -> bytes:
    return png(**{keyword.replace(" ", "__"): text for keyword, text in texts.items()})


def back(data: bytes) -> tuple[Told, ReadBack]:
    told = tell(read_picture_texts(data))
    assert told is not None
    return told, to_request(told.infotext, GenerationRequest())


NOVELAI = {
    "Software": "NovelAI",
    "Title": "AI generated image",
    "Description": "1girl, {{red hair}}, [hat], (sea)",
    "Source": "Stable Diffusion XL 9CC2F394",
    "Comment": json.dumps(
        {
            "prompt": "1girl, {{red hair}}, [hat], (sea)",
            "uc": "lowres, {bad}",
            "steps": 28,
            "scale": 5.0,
            "seed": 1234567,
            "sampler": "k_euler_ancestral",
            "noise_schedule": "karras",
            "width": 832,
            "height": 1216,
            "sm": True,
            "cfg_rescale": 0.2,
        }
    ),
}


def test_novelai() -> None:
    told, read = back(png_of(NOVELAI))
    request = read.request
    assert told.program == "NovelAI"
    assert request.prompt == r"1girl, (red hair:1.1025), (hat:0.9524), \(sea\)"
    assert request.negative_prompt == "lowres, (bad:1.05)"
    sampling = request.sampling
    assert (sampling.sampler, sampling.schedule, sampling.steps) == ("Euler a", "Karras", 28)
    assert (sampling.cfg_scale, sampling.guidance.rescale) == (5, 0.2)
    assert (request.seed, request.size) == (1234567, Size(width=832, height=1216))
    assert (request.clip_skip, request.noise.later_offset, request.noise.source) == (2, 31337, RandomSource.GPU)
    assert told.unmapped == ["Source: Stable Diffusion XL 9CC2F394", "sm: True"]
    assert read.unmapped == ()


def test_novelai_since_version_4() -> None:
    comment = {
        "prompt": "sea",
        "uc": "bad",
        "steps": 23,
        "scale": 5,
        "seed": 1,
        "sampler": "k_dpmpp_2m",
        "v4_prompt": {
            "caption": {
                "base_caption": "2girls, 1.5::sea::",
                "char_captions": [{"char_caption": "girl, red hair", "centers": []}, {"char_caption": "girl, hat"}],
            }
        },
        "v4_negative_prompt": {"caption": {"base_caption": "bad", "char_captions": [{"char_caption": ""}]}},
    }
    _, read = back(png(Software="NovelAI", Comment=json.dumps(comment)))
    assert read.request.prompt == "2girls, (sea:1.5), girl, red hair, girl, hat"
    assert read.request.negative_prompt == "bad"


def hidden(texts: str, *, packed: bool, alpha: bool, size: tuple[int, int] = (96, 64)) -> bytes:
    """A picture with a text in its lowest bits, written bit by bit in the order of the published description."""
    name = f"stealth_{'png' if alpha else 'rgb'}{'comp' if packed else 'info'}"
    body = gzip.compress(texts.encode()) if packed else texts.encode()
    message = name.encode() + (len(body) * 8).to_bytes(4, "big") + body
    bits = iter("".join(f"{byte:08b}" for byte in message))
    image = Image.new("RGBA" if alpha else "RGB", size, (10, 20, 30, 255) if alpha else (10, 20, 30))
    pixels = image.load()
    assert pixels is not None
    for x in range(size[0]):
        for y in range(size[1]):
            pixel = list(pixels[x, y])
            for channel in (3,) if alpha else (0, 1, 2):
                bit = next(bits, None)
                if bit is not None:
                    pixel[channel] = pixel[channel] & ~1 | int(bit)
            pixels[x, y] = tuple(pixel)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_text_hidden_in_the_lowest_bits(packed: bool, alpha: bool) -> None:
    text = "a cat\nSteps: 3, Sampler: Euler, Seed: 5, Größe: 猫"
    assert read_picture_texts(hidden(text, packed=packed, alpha=alpha)) == {"parameters": text}
    told, read = back(hidden(json.dumps(NOVELAI), packed=True, alpha=alpha))
    assert (told.program, read.request.seed) == ("NovelAI", 1234567)


def test_a_hidden_text_that_lies_about_its_length_is_none() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(hidden("x" * 50, packed=False, alpha=True)))).copy()
    plane = pixels[..., 3].T.reshape(-1).copy()
    plane[120:152] |= 1
    pixels[..., 3] = plane.reshape(pixels.shape[1], pixels.shape[0]).T
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    assert read_picture_texts(stream.getvalue()) == {}


INVOKE = {
    "app_version": "4.2.0",
    "generation_mode": "txt2img",
    "positive_prompt": "a cat++ and (a red dog)0.8",
    "negative_prompt": "blurry",
    "width": 768,
    "height": 512,
    "seed": 356120443,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "steps": 50,
    "scheduler": "dpmpp_2m_sde_k",
    "clip_skip": 1,
    "model": {"key": "1", "hash": "sha256:" + "ab" * 32, "name": "star", "base": "sd-1", "type": "main"},
    "loras": [{"model": {"name": "shine"}, "weight": 0.75}],
    "vae": {"model_name": "sd-vae-ft-mse", "base_model": "sd-1"},
    "controlnets": [{"control_model": {"name": "canny"}}],
}


def test_invokeai() -> None:
    told, read = back(png(invokeai_metadata=json.dumps(INVOKE)))
    request = read.request
    assert told.program == "InvokeAI"
    assert request.prompt == "a (cat:1.21) and (a red dog:0.8) <lora:shine:0.75>"
    assert request.negative_prompt == "blurry"
    assert (request.sampling.sampler, request.sampling.schedule) == ("DPM++ 2M SDE", "Karras")
    assert (request.sampling.steps, request.sampling.cfg_scale, request.seed) == (50, 7.5, 356120443)
    assert (request.size.width, request.size.height, request.clip_skip) == (768, 512, 2)
    assert (request.checkpoint, request.vae) == ("star [ababababab]", "sd-vae-ft-mse")
    assert request.noise.source is RandomSource.CPU
    assert [item.partition(":")[0] for item in told.unmapped] == ["controlnets"]


def test_invokeai_before_version_3() -> None:
    image = {
        "prompt": [{"prompt": "a cat [blurry, [dark]]", "weight": 1}],
        "steps": 20,
        "cfg_scale": 7,
        "seed": 9,
        "width": 512,
        "height": 640,
        "sampler": "k_lms",
        "postprocessing": None,
    }
    text = json.dumps({"model_weights": "star", "model_hash": "cd" * 32, "image": image})
    told, read = back(png_of({"sd-metadata": text}))
    assert (read.request.prompt, read.request.negative_prompt) == ("a cat [blurry, ]", "dark")
    assert (read.request.sampling.sampler, read.request.checkpoint) == ("LMS", "star [cdcdcdcdcd]")
    assert read.request.size == Size(width=512, height=640)
    dream = '"a cat [blurry]" -s 30 -S 77 -W 512 -H 704 -C 7.5 -A k_euler_a --seamless -G 0.8'
    told, read = back(png(Dream=dream))
    assert (read.request.prompt, read.request.negative_prompt) == ("a cat", "blurry")
    assert (read.request.sampling.sampler, read.request.sampling.steps, read.request.seed) == ("Euler a", 30, 77)
    assert read.request.size == Size(width=512, height=704)
    assert told.unmapped == ["--seamless: True", "-G: 0.8"]


FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "juggernaut",
    "base_model_hash": "aeb7e9e689",
    "clip_skip": 2,
    "full_negative_prompt": ["lowres", "blurry"],
    "full_prompt": ["cinematic cat", "cat, sharp"],
    "guidance_scale": 4,
    "loras": [["shine.safetensors", 0.5, "a1b2c3"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "lowres",
    "performance": "Speed",
    "prompt": "cat",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "resolution": "(1152, 896)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "5544",
    "sharpness": 2,
    "steps": 30,
    "styles": "['Fooocus V2']",
    "vae": "Default (model)",
    "version": "Fooocus v2.4.3",
}


def exif(tags: dict[int, Any], comment: str) -> bytes:
    return piexif.dump(
        {"0th": tags, "Exif": {0x9286: piexif.helper.UserComment.dump(comment, encoding="unicode"), 0x927C: b"fooocus"}}
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_fooocus(kind: str) -> None:
    text = json.dumps(FOOOCUS)
    if kind == "PNG":
        data = png(parameters=text, fooocus_scheme="fooocus")
    else:
        stream = io.BytesIO()
        block = exif({0x0131: b"Fooocus v2.4.3"}, text)
        Image.new("RGB", (64, 64)).save(stream, kind, exif=block)
        data = stream.getvalue()
    told, read = back(data)
    request = read.request
    assert told.program == "Fooocus"
    assert request.prompt == "cinematic cat, cat, sharp <lora:shine:0.5>"
    assert request.negative_prompt == "lowres, blurry"
    assert (request.sampling.sampler, request.sampling.schedule) == ("DPM++ 2M SDE", "Karras")
    assert (request.size.width, request.size.height, request.seed) == (1152, 896, 5544)
    assert (request.checkpoint, request.clip_skip, request.refiner) == ("juggernaut [aeb7e9e689]", 2, None)
    assert {item.partition(":")[0] for item in told.unmapped} == {"adm_guidance", "performance", "sharpness", "styles"}


def test_the_other_scheme_of_fooocus_is_that_of_automatic1111() -> None:
    text = (
        "cat\nNegative prompt: lowres\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 5, Size: 1152x896, CFG scale: 4, "
        "Sharpness: 2, Model: juggernaut, Model hash: aeb7e9e689, Version: Fooocus v2.4.3"
    )
    _, read = back(png(parameters=text, fooocus_scheme="a1111"))
    assert (read.program, read.request.checkpoint) == ("Fooocus v2.4.3", "juggernaut [aeb7e9e689]")
    assert read.unmapped == ("Sharpness: 2",)


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


COMFY: dict[str, Any] = {
    "3": node(
        "KSampler",
        seed=156680208700286,
        steps=20,
        cfg=8,
        sampler_name="dpmpp_2m",
        scheduler="karras",
        denoise=1,
        model=["12", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["5", 0],
    ),
    "4": node("CheckpointLoaderSimple", ckpt_name="sub\\star.safetensors"),
    "5": node("EmptyLatentImage", width=768, height=512, batch_size=1),
    "6": node("CLIPTextEncode", text="a cat [x], (sea:1.2), embedding:shiny", clip=["10", 0]),
    "7": node("CLIPTextEncode", text=["30", 0], clip=["10", 0]),
    "8": node("VAEDecode", samples=["3", 0], vae=["11", 0]),
    "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    "10": node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["12", 1]),
    "11": node("VAELoader", vae_name="sea.safetensors"),
    "12": node("LoraLoader", lora_name="b.safetensors", strength_model=0.8, strength_clip=0.8, model=["13", 0]),
    "13": node("LoraLoader", lora_name="a.safetensors", strength_model=1, strength_clip=0.5, model=["4", 0]),
    "30": node("PrimitiveString", value="blurry"),
}


def test_comfyui() -> None:
    told, read = back(png(prompt=json.dumps(COMFY), workflow="{}"))
    request = read.request
    assert told.program == "ComfyUI"
    assert request.prompt == r"a cat \[x\], (sea:1.2), shiny <lora:a:0.5:1> <lora:b:0.8>"
    assert request.negative_prompt == "blurry"
    sampling = request.sampling
    assert (sampling.sampler, sampling.schedule, sampling.steps) == ("DPM++ 2M", "Karras", 20)
    assert (sampling.cfg_scale, request.seed, request.clip_skip) == (8, 156680208700286, 2)
    assert (request.size, request.checkpoint, request.vae) == (Size(width=768, height=512), "star", "sea")
    assert request.noise.source is RandomSource.CPU
    assert (told.unmapped, read.unmapped, read.start) == ([], (), {})


def test_comfyui_second_pass_image_and_refiner() -> None:
    second = node(
        "KSampler",
        seed=1,
        steps=10,
        cfg=8,
        sampler_name="euler",
        scheduler="simple",
        denoise=0.5,
        model=["12", 0],
        positive=["6", 0],
        negative=["7", 0],
        latent_image=["41", 0],
    )
    larger = node("LatentUpscaleBy", upscale_method="bicubic", scale_by=1.5, samples=["3", 0])
    told, read = back(png(prompt=json.dumps({**COMFY, "40": second, "41": larger})))
    assert read.request.second_pass is not None
    pass_ = read.request.second_pass
    assert (pass_.upscaler, pass_.scale, pass_.steps) == ("Latent (bicubic)", 1.5, 10)
    assert (pass_.denoising_strength, pass_.sampler, pass_.schedule, pass_.prompt) == (0.5, "Euler", "Simple", "")
    assert told.unmapped == []

    from_picture = {
        **COMFY,
        "3": node("KSampler", **{**COMFY["3"]["inputs"], "latent_image": ["50", 0], "denoise": 0.6}),
        "50": node("VAEEncode", pixels=["51", 0], vae=["4", 2]),
        "51": node("LoadImage", image="cat.png"),
    }
    told, read = back(png(prompt=json.dumps(from_picture)))
    assert read.start == {"denoising_strength": 0.6}
    assert told.unmapped == ["LoadImage: cat.png"]

    shared = {"steps": 20, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "positive": ["6", 0]}
    base = node("KSamplerAdvanced", **shared, noise_seed=5, model=["4", 0], negative=["7", 0], latent_image=["5", 0])
    fine = node(
        *("KSamplerAdvanced",),
        **{**shared, "noise_seed": 5, "model": ["60", 0], "negative": ["7", 0], "latent_image": ["3", 0]},
        start_at_step=16,
    )
    refiner = node("CheckpointLoaderSimple", ckpt_name="fine.safetensors")
    _, read = back(png(prompt=json.dumps({**COMFY, "3": base, "40": fine, "60": refiner})))
    assert read.request.refiner is not None
    assert (read.request.refiner.checkpoint, read.request.refiner.switch_at) == ("fine", 0.8)
    assert read.request.refiner.by_steps


def test_comfyui_custom_sampler_and_controlnet() -> None:
    graph = {
        **COMFY,
        "3": node(
            "SamplerCustomAdvanced",
            noise=["70", 0],
            guider=["71", 0],
            sampler=["72", 0],
            sigmas=["73", 0],
            latent_image=["5", 0],
        ),
        "70": node("RandomNoise", noise_seed=99),
        "71": node("CFGGuider", model=["4", 0], positive=["74", 0], negative=["74", 1], cfg=4.5),
        "72": node("KSamplerSelect", sampler_name="heun"),
        "73": node("BasicScheduler", scheduler="sgm_uniform", steps=12, denoise=1, model=["4", 0]),
        "74": node(
            "ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=0.7, control_net=["75", 0]
        ),
        "75": node("ControlNetLoader", control_net_name="canny.pth"),
    }
    told, read = back(png(prompt=json.dumps(graph)))
    request = read.request
    assert (request.seed, request.sampling.sampler, request.sampling.schedule) == (99, "Heun", "SGM Uniform")
    assert (request.sampling.steps, request.sampling.cfg_scale, request.negative_prompt) == (12, 4.5, "blurry")
    assert request.prompt.startswith("a cat") and "blurry" not in request.prompt
    assert told.unmapped == ["ControlNet: canny, strength 0.7"]


def test_comfyui_workflow_of_the_page() -> None:
    """In a WebP of ComfyUI both graphs are in Exif tags, the values of widgets by place only."""
    links = [[1, 4, 0, 3, 0, "MODEL"], [2, 6, 0, 3, 1, "C"], [3, 7, 0, 3, 2, "C"], [4, 5, 0, 3, 3, "LATENT"]]
    inputs = [{"name": name, "link": i + 1} for i, name in enumerate(("model", "positive", "negative", "latent_image"))]
    nodes = [
        {"id": 3, "type": "KSampler", "inputs": inputs, "widgets_values": [8, "fixed", 9, 6.5, "euler", "normal", 1]},
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["star.ckpt"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [512, 640, 1]},
        {"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a cat"]},
        {"id": 7, "type": "CLIPTextEncode", "widgets_values": ["bad"]},
    ]
    stream = io.BytesIO()
    tag = b"workflow:" + json.dumps({"nodes": nodes, "links": links}).encode()
    Image.new("RGB", (64, 64)).save(stream, "WEBP", exif=piexif.dump({"0th": {0x010F: tag}}))
    _, read = back(stream.getvalue())
    request = read.request
    assert (request.prompt, request.negative_prompt, request.seed) == ("a cat", "bad", 8)
    assert (request.size, request.checkpoint, request.sampling.steps) == (Size(width=512, height=640), "star", 9)
    assert (request.sampling.schedule, request.sampling.cfg_scale) == ("Normal", 6.5)


def test_the_texts_for_automatic1111s_readers_come_before_the_graph() -> None:
    text = "a dog\nSteps: 3, Sampler: Euler, Seed: 5"
    _, read = back(png(parameters=text, prompt=json.dumps(COMFY)))
    assert read.request.prompt == "a dog"


OTHERS = {
    "StableSwarmUI": {
        "parameters": json.dumps(
            {
                "sui_image_params": {
                    "prompt": "a cat",
                    "negativeprompt": "bad",
                    "model": "sub/star.safetensors",
                    "seed": 5,
                    "steps": 9,
                    "cfgscale": 6.5,
                    "width": 512,
                    "height": 640,
                    "sampler": "dpmpp_2m",
                    "scheduler": "karras",
                    "loras": ["shine"],
                    "loraweights": ["0.5"],
                }
            }
        )
    },
    "Easy Diffusion": {
        "prompt": "a cat",
        "negative_prompt": "bad",
        "seed": "5",
        "use_stable_diffusion_model": "sub/star",
        "sampler_name": "dpmpp_2m",
        "num_inference_steps": "9",
        "guidance_scale": "6.5",
        "width": "512",
        "height": "640",
        "use_lora_model": "shine",
        "lora_alpha": "0.5",
    },
    "Draw Things": {
        "XML:com.adobe.xmp": '<x:xmpmeta><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">'
        + json.dumps(
            {
                "c": "a cat",
                "uc": "bad",
                "model": "star.ckpt",
                "seed": 5,
                "steps": 9,
                "scale": 6.5,
                "size": "512x640",
                "sampler": "DPM++ 2M Karras",
                "strength": 1,
                "lora": [{"model": "shine.ckpt", "weight": 0.5}],
            }
        ).replace('"', "&quot;")
        + "</rdf:li></rdf:Alt></exif:UserComment></x:xmpmeta>"
    },
}


@pytest.mark.parametrize("program", OTHERS)
def test_other_programs(program: str) -> None:
    told, read = back(png_of(OTHERS[program]))
    request = read.request
    assert told.program == program
    assert (request.prompt, request.negative_prompt) == ("a cat <lora:shine:0.5>", "bad")
    assert (request.sampling.sampler, request.sampling.steps) == ("DPM++ 2M", 9)
    assert (request.sampling.cfg_scale, request.seed, request.checkpoint) == (6.5, 5, "star")
    assert request.size == Size(width=512, height=640)
    assert (told.unmapped, read.unmapped) == ([], ())


def test_a_text_beside_a_picture_is_read_and_other_files_are_not() -> None:
    text = "a cat\nSteps: 3, Sampler: Euler, Seed: 5, Model: star, Version: v1.10.1"
    _, read = back(text.encode())
    assert (read.request.seed, read.request.vae) == (5, BUILT_IN_VAE)
    _, read = back(json.dumps(COMFY).encode())
    assert read.request.seed == 156680208700286
    for data in (b"just words", b"\xff\xfe\x00", b"%PDF-1.4", b""):
        with pytest.raises(Exception, match="does not tell"):
            read_picture_texts(data)


@pytest.mark.parametrize(
    ("texts", "generator"),
    [
        (NOVELAI, "NOVELAI"),
        ({"invokeai_metadata": json.dumps(INVOKE)}, "INVOKEAI"),
        ({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}, "FOOOCUS"),
        ({"prompt": json.dumps(COMFY), "workflow": json.dumps({"nodes": [], "links": []})}, "COMFYUI"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sd_parsers_finds_the_same(texts: dict[str, str], generator: str) -> None:
    """Where both know the word; the grammar of prompts it leaves alone, so words without weights are compared."""
    found = sd_parsers.ParserManager().parse(Image.open(io.BytesIO(png_of(texts))))
    assert found is not None
    assert found.generator.name == generator
    _, read = back(png_of(texts))
    for prompts, ours in ((found.prompts, read.request.prompt), (found.negative_prompts, read.request.negative_prompt)):
        theirs = set(re.findall(r"[a-z]{4,}", " ".join(prompt.value for prompt in prompts))) - {"embedding"}
        assert theirs <= set(re.findall(r"[a-z]{4,}", ours))
    sampler = found.samplers[0]
    assert names.sampler(sampler.name)[0] == read.request.sampling.sampler
    assert int(sampler.parameters.get("seed", read.request.seed)) == read.request.seed


def test_every_name_is_one_of_ours() -> None:
    plugins = Plugins.load(None)
    assert set(names.SAMPLERS.values()) <= plugins.samplers.keys()
    assert set(names.SCHEDULES.values()) <= plugins.schedules.keys() | {"Automatic"}


def test_every_file_of_the_folder_has_its_reader() -> None:
    assert len(readers()) == 7


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
GRAPH_KEYS = ["seed", "noise", "steps", "cfg", "sampler", "sigmas", "model", "positive", "negative", "latent_image"]
links = st.tuples(st.sampled_from(["1", "2", "3", "4"]), st.integers(0, 2)).map(list) | values
graphs = st.dictionaries(
    st.sampled_from(["1", "2", "3", "4"]),
    st.fixed_dictionaries(
        {
            "class_type": st.sampled_from(["KSampler", "LatentUpscale", "CLIPTextEncode", "VAEDecode", "LoraLoader"]),
            "inputs": st.dictionaries(
                st.sampled_from(
                    [
                        *GRAPH_KEYS,
                        "guider",
                        "conditioning",
                        "text",
                        "clip",
                        "width",
                        "height",
                        "samples",
                        "vae",
                        "lora_name",
                    ]
                ),
                links,
                max_size=10,
            ),
        }
    ),
)
hostile = {
    "NovelAI": st.fixed_dictionaries({}, optional=dict.fromkeys(json.loads(NOVELAI["Comment"]), values)).map(
        lambda comment: {"Software": "NovelAI", "Comment": json.dumps(comment)}
    ),
    "InvokeAI": st.fixed_dictionaries({}, optional=dict.fromkeys(INVOKE, values)).map(
        lambda data: {"invokeai_metadata": json.dumps(data)}
    ),
    "sd-metadata": values.map(lambda value: {"sd-metadata": json.dumps({"image": {"prompt": value, "seed": value}})}),
    "Dream": st.text(alphabet=" -\"'[]sSWHCA0123=a", max_size=40).map(lambda text: {"Dream": text}),
    "Fooocus": st.dictionaries(st.sampled_from([*FOOOCUS]), values).map(
        lambda data: {"parameters": json.dumps({"base_model": "star", "prompt": "cat", **data})}
    ),
    "ComfyUI": graphs.map(lambda graph: {"prompt": json.dumps(graph)}),
    "workflow": values.map(lambda value: {"workflow": json.dumps({"nodes": value, "links": value})}),
    "StableSwarmUI": st.dictionaries(st.sampled_from(["prompt", "loras", "seed", "width", "sampler"]), values).map(
        lambda data: {"parameters": json.dumps({"sui_image_params": data})}
    ),
}


@pytest.mark.parametrize("program", hostile)
@given(data=st.data())
def test_no_text_crashes_a_reader(program: str, data: st.DataObject) -> None:
    texts = data.draw(hostile[program])
    told = read_foreign(texts)
    if told is not None:
        back = to_request(told.infotext, GenerationRequest())
        assert isinstance(back.request, GenerationRequest)


def test_long_and_circular_graphs_end() -> None:
    chain = {str(i): node("Any", model=[str(i + 1), 0], samples=[str(i + 1), 0]) for i in range(15_000)}
    chain |= {"s": node("KSampler", model=["0", 0], positive=["s", 0], latent_image=["0", 0], seed=["s", 0])}
    chain |= {"14999": node("Any", model=["0", 0], samples=["0", 0])}
    told = read_foreign({"prompt": json.dumps(chain)})
    assert told is not None
    assert told.program == "ComfyUI"
    assert read_foreign({"prompt": "[" * 100_000}) is None


prompts = st.text(alphabet="ab {}[]()\\:+-.,0123", max_size=60)


@given(prompts)
def test_weights_of_other_programs_never_fail_and_keep_the_words(text: str) -> None:
    for convert in (from_novelai, from_invoke):
        assert re.sub(r"[^ab]", "", convert(text)) == re.sub(r"[^ab]", "", text)


@pytest.mark.parametrize("text", ["{" * 100_000, "(" * 100_000, "1::" * 30_000, "(a)" * 30_000, "a" * 100_000 + "+"])
def test_long_prompts_of_other_programs_end(text: str) -> None:
    from_novelai(text)
    from_invoke(text)
