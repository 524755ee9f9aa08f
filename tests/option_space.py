"""Random requests over the whole space of options, for a runner with the toy model, and the round trip of one.

A round trip: a picture is made, its file is read into a request, and that makes the same picture again, bit for bit.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from tiny_model import METADATA, TEXT, mask_bytes, picture_bytes, tiny_weights, write_checkpoint

from webui.checkpoints import keys
from webui.engine.executor import Control
from webui.engine.reproduce import Reproduction
from webui.engine.resolve import read_back
from webui.engine.runner import Runner
from webui.images.pixels import read_pixels
from webui.metadata.completing import completed
from webui.metadata.files import encode_picture, read_picture_texts
from webui.metadata.foreign import tell
from webui.metadata.recipe import Recipe, request_of_one
from webui.metadata.verdict import Outcome
from webui.request import (
    Compatibility,
    Emphasis,
    GenerationRequest,
    Guidance,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    Noise,
    RandomSource,
    Refiner,
    RefinerPasses,
    ResizeMode,
    SamplerOptions,
    Sampling,
    SecondPass,
    Size,
    SoftInpainting,
    StartImage,
    TokenMerging,
)
from webui.result import Pixels

T = TypeVar("T")
WORDS = ("a red cat", "blue sky", "(sea:1.3)", "[old] house", "[day:night:0.5]", "[x:y:2]", "[a|b|]", "blot", "BREAK")
LATENT_UPSCALERS = ("Latent", "Latent (bicubic)", "Latent (nearest-exact)", "Latent (antialiased)")


@dataclass(frozen=True)
class Space:
    """Draws requests; pictures and files are those that :func:`furnish` puts beside the toy model."""

    draw: random.Random
    runner: Runner
    start: str
    mask: str

    def maybe(self, share: float, value: Callable[[], T], otherwise: T) -> T:
        """``value()`` in that share of all cases."""
        return value() if self.draw.random() < share else otherwise

    def share(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number that a text can say exactly."""
        return round(self.draw.uniform(low, high), self.draw.choice((1, 2, 16)))

    def flag(self, share: float = 0.2) -> bool:
        """True in that share of all cases."""
        return self.draw.random() < share

    def request(self) -> GenerationRequest:
        """One of all."""
        draw, number = self.draw, self.share
        second = self.maybe(0.3, self.second_pass, None)
        start = None if second else self.maybe(0.45, self.start_image, None)
        return GenerationRequest(
            prompt=self.prompt() + self.maybe(0.15, lambda: f" <lora:ink:{number(0, 1)}>", ""),
            negative_prompt=self.maybe(0.7, self.prompt, ""),
            size=Size(width=draw.choice((64, 72, 96)), height=draw.choice((64, 80))),
            sampling=self.sampling(),
            seed=draw.randrange(2**32),
            noise=self.noise(),
            batch_size=draw.choice((1, 1, 2)),
            clip_skip=draw.choice((1, 1, 2)),
            emphasis=self.maybe(0.3, lambda: draw.choice([*Emphasis]), Emphasis.ORIGINAL),
            comma_backtrack=self.maybe(0.1, lambda: draw.randrange(75), 20),
            checkpoint=draw.choice(("tiny", "other")),
            vae=draw.choice(("None", "Automatic", "sea")),
            tiling=self.flag(),
            second_pass=second,
            refiner=self.maybe(0.2, self.refiner, None),
            start=start,
            token_merging=TokenMerging(
                ratio=self.maybe(0.2, lambda: number(0, 0.9), 0.0),
                second_pass=self.maybe(0.2, lambda: number(0, 0.9), 0.0),
            ),
            compatibility=Compatibility(
                old_prompt_editing=self.flag(),
                downcast_alphas=self.flag(),
                old_karras=self.flag(0.1),
                whole_timesteps=self.flag(0.1),
            ),
        )

    def prompt(self) -> str:
        """A few words of the prompt language."""
        words = self.draw.sample(WORDS, self.draw.randint(1, 4))
        return self.draw.choice((", ", " ", ",\n", " AND ")).join(words)

    def name(self, names: Any) -> str:
        """One of the registered names."""
        return self.draw.choice(sorted(names))

    def sampling(self) -> Sampling:
        """A sampler, a schedule and their options."""
        number, flag = self.share, self.flag
        plugins = self.runner.plugins
        options = SamplerOptions(
            s_churn=self.maybe(0.2, lambda: number(0, 20), 0.0),
            s_tmin=self.maybe(0.1, lambda: number(0, 2), 0.0),
            s_tmax=self.maybe(0.1, lambda: number(2, 20), 0.0),
            s_noise=self.maybe(0.1, lambda: number(0.9, 1.1), 1.0),
            sigma_min=self.maybe(0.1, lambda: number(0.03, 0.2), 0.0),
            sigma_max=self.maybe(0.1, lambda: number(5, 14), 0.0),
            rho=self.maybe(0.2, lambda: number(1, 9), 0.0),
            beta_alpha=self.maybe(0.3, lambda: number(0.5, 1), 0.6),
            beta_beta=self.maybe(0.3, lambda: number(0.5, 1), 0.6),
            discard_penultimate=flag(),
            full_noise=flag(),
            zero_terminal_snr=flag(0.1),
            unipc_order=self.maybe(0.1, lambda: self.draw.choice((1, 2)), 3),
        )
        guidance = Guidance(
            min_sigma=self.maybe(0.2, lambda: number(0, 4), 0.0),
            min_sigma_all=flag(),
            skip_early=self.maybe(0.2, number, 0.0),
            rescale=self.maybe(0.2, number, 0.0),
            pad=flag(),
            pad_v0=flag(0.1),
        )
        return Sampling(
            sampler=self.name(plugins.samplers),
            schedule=self.maybe(0.6, lambda: self.name(plugins.schedules), "Automatic"),
            steps=self.draw.choice((2, 3, 4)),
            cfg_scale=number(0, 9),
            eta=self.maybe(0.3, number, None),
            options=options,
            guidance=guidance,
        )

    def noise(self) -> Noise:
        """Where the noise comes from."""
        varied = self.flag()
        resized = self.flag()
        return Noise(
            source=self.draw.choice([*RandomSource]),
            variation_seed=self.draw.randrange(2**32) if varied else None,
            variation_strength=self.share() if varied else 0.0,
            from_width=self.draw.choice((64, 128)) if resized else 0,
            from_height=self.draw.choice((64, 56)) if resized else 0,
            later_offset=self.maybe(0.2, lambda: 31337, 0),
            extra=self.maybe(0.2, self.share, 0.0),
        )

    def second_pass(self) -> SecondPass:
        """Hires fix."""
        draw, plugins = self.draw, self.runner.plugins
        upscaler = draw.choice((*LATENT_UPSCALERS, "None", "Lanczos", "Nearest"))
        return SecondPass(
            upscaler=upscaler,
            scale=draw.choice((1.0, 1.25, 1.5)),
            width=self.maybe(0.2, lambda: 96, 0),
            height=self.maybe(0.2, lambda: 104, 0),
            steps=draw.choice((0, 2, 3)),
            denoising_strength=self.share(),
            cfg_scale=self.maybe(0.3, lambda: self.share(1, 9), None),
            sampler=self.maybe(0.4, lambda: self.name(plugins.samplers), None),
            schedule=self.maybe(0.4, lambda: self.name(plugins.schedules), None),
            eta=self.maybe(0.2, self.share, None),
            prompt=self.maybe(0.3, self.prompt, ""),
            negative_prompt=self.maybe(0.3, self.prompt, ""),
            checkpoint=self.maybe(0.3, lambda: "other", None),
            reuse_conditioning=self.flag(0.1),
        )

    def refiner(self) -> Refiner:
        """Another checkpoint on the way."""
        passes = self.draw.choice([*RefinerPasses])
        return Refiner(checkpoint="other", switch_at=self.share(), by_steps=self.flag(0.5), passes=passes)

    def start_image(self) -> StartImage:
        """img2img, or with a mask inpainting."""
        return StartImage(
            image=self.start,
            denoising_strength=self.share(),
            resize_mode=self.draw.choice([*ResizeMode]),
            mask=self.maybe(0.6, self.inpainting, None),
            upscaler=self.draw.choice(("None", "Lanczos")),
            noise_multiplier=self.maybe(0.2, lambda: self.share(0.5, 1.5), 1.0),
            exact_steps=self.flag(),
            background=self.draw.choice(("#ffffff", "#102030")),
            color_correction=self.flag(),
        )

    def inpainting(self) -> Mask:
        """A mask and what becomes of it."""
        draw, number = self.draw, self.share
        soft = SoftInpainting(
            schedule_bias=number(0, 3),
            preservation_strength=number(0, 3),
            transition_contrast_boost=number(1, 9),
            mask_influence=number(),
            difference_threshold=number(0, 3),
            difference_contrast=number(0, 3),
        )
        return Mask(
            image=self.mask,
            blur=draw.choice((0, 4, 9)),
            mode=draw.choice([*MaskMode]),
            content=draw.choice([*MaskedContent]),
            area=draw.choice([*InpaintArea]),
            padding=draw.choice((0, 8, 32)),
            blur_y=self.maybe(0.2, lambda: 3, None),
            round=not self.flag(),
            overlay=not self.flag(),
            soft=self.maybe(0.2, lambda: soft, None),
        )


def furnish(runner: Runner, seed: int) -> Space:
    """A space of requests for a runner, with the files that they name beside its toy model."""
    models = runner.settings.models_dir
    folder = models / "Stable-diffusion"
    if not (folder / "other.safetensors").is_file():
        write_checkpoint(folder / "other.safetensors", tiny_weights(5))
        _write_vae(models / "VAE" / "sea.safetensors")
        _write_lora(models / "Lora" / "ink.safetensors")
        _write_embedding(models.parent / "embeddings" / "blot.safetensors")
        runner.library.refresh()
    draw = random.Random(seed)
    start, mask = picture_bytes(80, 72, seed=3), mask_bytes(80, 72, box=(20, 10, 60, 50))
    return Space(draw, runner, runner.inputs.put(start), runner.inputs.put(mask))


def _write_vae(path: Path) -> None:
    weights = tiny_weights(7).items()
    own = {name.removeprefix(keys.VAE_PREFIX): tensor for name, tensor in weights if name.startswith(keys.VAE_PREFIX)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(own, path, metadata=METADATA)


def _write_lora(path: Path) -> None:
    prefix, width = "lora_te_text_model_encoder_layers_0_mlp_fc1", TEXT.width
    draw = torch.Generator().manual_seed(2)
    tensors = {
        f"{prefix}.lora_down.weight": torch.randn(2, width, generator=draw),
        f"{prefix}.lora_up.weight": torch.randn(TEXT.mlp_width, 2, generator=draw),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def _write_embedding(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"emb_params": torch.randn(2, TEXT.width, generator=torch.Generator().manual_seed(9))}, path)


@dataclass(frozen=True)
class Trip:
    """What came of one round trip: whether the file's request, and its text alone, made the same pixels again.

    ``by_text`` is None where the text cannot say all: from a start image, or with an option that no text has.
    """

    asked: GenerationRequest
    told: GenerationRequest
    by_file: bool
    by_text: bool | None
    text: str


def round_trip(runner: Runner, request: GenerationRequest, last: bool = False) -> Trip:
    """Make a picture of a request (of a batch the first or the ``last``), and again from what its file says."""
    made = _made(runner, request)
    data = made[-1 if last else 0]
    texts, pixels = read_picture_texts(data), read_pixels(data)
    recorded = request_of_one(Recipe.from_json(texts["recipe"]))
    read = tell(texts)
    assert read is not None
    back = read_back(read, runner.plugins)
    told = completed(back.request, back.start, recorded)
    again = read_pixels(_made(runner, told)[0])
    by_text = _text_alone(runner, pixels, texts["parameters"]) if _says_all(back.request, recorded) else None
    return Trip(request, told, _same(pixels, again), by_text, texts["parameters"])


def _says_all(told: GenerationRequest, recorded: GenerationRequest) -> bool:
    return recorded.start is None and completed(told, {}, recorded) == told


def _text_alone(runner: Runner, pixels: Pixels, text: str) -> bool:
    file = encode_picture(pixels, ".png", {"parameters": text})
    verdict = Reproduction(runner, lambda report: None, Control()).run(file)
    return verdict.outcome is Outcome.BIT_EXACT


def _made(runner: Runner, request: GenerationRequest) -> list[bytes]:
    return [path.read_bytes() for path in runner.generate(request, lambda report: None, Control())]


def _same(first: Pixels, second: Pixels) -> bool:
    return first.shape == second.shape and bool((first == second).all())
