"""Sees one walk of one model from noise to picture and writes it down; changes nothing.  Worker process.

The order of a walk: ``begin`` once; then for each call of the denoiser ``openings`` for each question to the network,
and ``see`` when its answers have become one clean latent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from webui.conditioning import Walk
from webui.conditioning.text import Timed
from webui.diffusion.guidance import NO_OPENINGS, Guiding, NetworkCall
from webui.latents import codec
from webui.latents.preview import rough_picture
from webui.model import Model
from webui.networks.unet import Openings
from webui.request import GenerationRequest

from .attention import Looking, map_size
from .capture import Pass, new_pass
from .similarity import MOST_WORDS, similarity
from .words import CHUNK, plain_chunk, words

log = logging.getLogger(__name__)

LONGEST_SIDE = 384
"""Pixels of the pictures that are kept."""
MOST_CHUNKS = 4
"""Tokens of so many chunks have maps of their own."""
MOST_PROMPTS = 4
MOST_SPANS = 40
LEVEL = 1 + 1e-5
"""Noise levels that are so near to each other are the same."""


@dataclass
class Recorder:
    """The first picture of a walk, in ``frames`` pictures; ``folder`` is the job's."""

    model: Model
    request: GenerationRequest
    folder: Path
    frames: int
    by_vae: bool = True
    _kept: Pass | None = None
    _over: bool = False
    _looking: list[Looking] = field(default_factory=list)
    _means: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    _last: int = -1
    _steps: list[int] = field(default_factory=list)

    def begin(self, walk: Walk) -> None:
        """A model begins to walk; the first time it is written down, later ones (other pictures) are not."""
        self._over = self._over or self._kept is not None
        if not self._over:
            self._guarded(lambda: self._begin(walk))

    def openings(self, call: NetworkCall) -> Openings:
        """A wrap that looks at cross-attention where the call asks with the prompt for the first picture."""
        rows = [row for row, asks in enumerate(call.conditional) if asks and call.image[row] == 0]
        if self._over or self._kept is None or not rows or call.openings is not NO_OPENINGS:
            return NO_OPENINGS
        tokens = call.context.shape[1]
        looking = Looking(rows, tokens, MOST_CHUNKS * CHUNK, map_size(call.x.shape[2], call.x.shape[3]))
        self._looking.append(looking)
        return Openings(attention_wraps=(looking,))

    def see(self, guiding: Guiding) -> Tensor:
        """``guided``, unchanged."""
        self._over = self._over or guiding.call <= self._last
        looking, self._looking = self._looking, []
        if not self._over and self._kept is not None:
            self._last = guiding.call
            self._guarded(lambda: self._see(guiding, looking))
        return guiding.guided

    def _guarded(self, write: Callable[[], None]) -> None:
        """A disk that is full must not cost the picture."""
        try:
            write()
        except OSError as error:
            log.warning("the X-ray is not written any more: %s", error)
            self._over = True

    def _begin(self, walk: Walk) -> None:
        self._kept = new_pass(self.folder)
        if self._kept is None:
            self._over = True
            return
        self._steps = frame_steps(walk.sigmas, walk.from_sigma, self.frames)
        prompts = [
            *({"weight": weight, "negative": False, "spans": self._spans(timed)} for timed, weight in walk.cond),
            {"weight": 1.0, "negative": True, "spans": self._spans(walk.uncond)},
        ]
        table, sampling = self.model.noise_table, self.request.sampling
        self._kept.facts = {
            "version": 1,
            "model": self.model.name,
            "prompt": self.request.prompt,
            "negative_prompt": self.request.negative_prompt,
            "sampler": sampling.sampler,
            "schedule": sampling.schedule,
            "steps": sampling.steps,
            "cfg_scale": sampling.cfg_scale,
            "seed": None if self.request.seed is None else self.request.seed_of(walk.indices[0]),
            "size": [self.request.size.width, self.request.size.height],
            "picture": walk.indices[0],
            "pictures": self.request.pictures,
            "decoder": "VAE" if self.by_vae else "Quick",
            "wanted": self.frames,
            "sigmas": list(walk.sigmas),
            "from_sigma": walk.from_sigma,
            "trained": [float(table.sigmas[0]), float(table.sigmas[-1])],
            "prompts": prompts,
            "asked": [],
            "frames": [],
            "similarity": self._similarity(prompts),
        }
        self._kept.save_facts()

    def _spans(self, timed: Timed) -> list[dict[str, Any]]:
        """What a prompt says over the pass, with its chunks, as plain values."""
        spans = list(zip(timed.spans, timed.chunks, strict=True))[:MOST_SPANS]
        return [
            {
                "last": span.last,
                "text": span.text,
                "chunks": [plain_chunk(chunk, self.model.tokenizer) for chunk in chunks[:MOST_CHUNKS]],
                "left_out": max(0, len(chunks) - MOST_CHUNKS),
            }
            for span, chunks in spans
        ]

    def _similarity(self, prompts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """How alike the prompt's words are; without embeddings, which are no words to the encoder."""
        asked = [prompt for prompt in prompts if not prompt["negative"]]
        spoken = [word for prompt in asked for span in prompt["spans"] for word in words(span["chunks"])]
        texts = list(dict.fromkeys(word.text for word in spoken))[:MOST_WORDS]
        if len(texts) < 2:
            return {"words": texts, "values": [[1.0]] if texts else []}
        return {"words": texts, "values": similarity(texts, self.model, self.request.clip_skip)}

    def _see(self, guiding: Guiding, looking: Sequence[Looking]) -> None:
        assert self._kept is not None
        self._kept.facts["asked"].append([guiding.call, round(guiding.sigma, 6)])
        prompts = sum(not prompt["negative"] for prompt in self._kept.facts["prompts"])
        maps = [one for seen in looking for one in seen.maps()][: min(prompts, MOST_PROMPTS)]
        if maps:
            self._add(maps)
        reached = [step for step in self._steps if guiding.sigma <= self._kept.facts["sigmas"][step] * LEVEL]
        if reached:
            self._steps = [step for step in self._steps if step not in reached]
            self._keep_frame(self._kept, guiding, maps, reached[-1])

    def _add(self, maps: Sequence[Tensor]) -> None:
        """Into the running means of so many calls; one begins anew where the prompt grows or shrinks by a chunk."""
        for number, one in enumerate(maps):
            mean, count = self._means.get(number, (one, 0))
            if mean.shape != one.shape:
                mean, count = one, 0
            self._means[number] = (mean + (one - mean) / (count + 1), count + 1)

    def _keep_frame(self, kept: Pass, guiding: Guiding, maps: Sequence[Tensor], step: int) -> None:
        sigma = guiding.sigma
        x, guided, cond, uncond = (
            latent[:1].float() for latent in (guiding.x, guiding.guided, guiding.cond, guiding.uncond)
        )
        difference = (cond - uncond)[0].square().mean(dim=0).sqrt()
        latents = {"noisy": x * (1 + sigma**2) ** -0.5, "clean": guided, "noise": (x - guided) / max(sigma, 1e-6)}
        if guiding.cond is not guiding.uncond:
            latents |= {"cond": cond, "uncond": uncond}
            kept.save_picture(guiding.call, "difference", heat(difference.cpu().numpy()), lossless=True)
        for kind, latent in latents.items():
            kept.save_picture(guiding.call, kind, self._pixels(latent))
        if maps:
            kept.save_maps(guiding.call, _arrays(dict(enumerate(maps))))
            kept.save_maps(None, _arrays({number: mean for number, (mean, _) in self._means.items()}))
        kept.facts["frames"].append(
            {
                "call": guiding.call,
                "step": step + 1,
                "sigma": sigma,
                "guided": guiding.cond is not guiding.uncond,
                "difference": float(difference.square().mean().sqrt()),
                "highest": float(difference.max()),
                "cfg_scale": guiding.cfg_scale,
                "maps": bool(maps),
            }
        )
        kept.save_facts()

    def _pixels(self, latent: Tensor) -> NDArray[np.uint8]:
        """The picture (H, W, 3) of one latent (1, C, h, w), its longest side at most LONGEST_SIDE."""
        if self.by_vae:
            pixels = codec.decode(latent, self.model)
            wanted = min(LONGEST_SIDE, max(pixels.shape[:2]))
        else:
            pixels, wanted = rough_picture(latent, self.model), LONGEST_SIDE
        scale = wanted / max(pixels.shape[:2])
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        picture = Image.fromarray(pixels)
        return np.asarray(picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC))


def frame_steps(sigmas: Sequence[float], from_sigma: float, frames: int) -> list[int]:
    """The steps, from 0, of which pictures are kept: the first at ``from_sigma``, the last, and evenly between."""
    steps = [step for step, sigma in enumerate(sigmas[:-1]) if sigma <= from_sigma * LEVEL] or [0]
    chosen = np.linspace(0, len(steps) - 1, min(frames, len(steps))).round()
    return [steps[int(place)] for place in chosen]


def _arrays(maps: dict[int, Tensor]) -> dict[int, NDArray[np.float32]]:
    return {number: one.cpu().numpy() for number, one in maps.items()}


def heat(values: NDArray[np.float32], enlarged: int = 4) -> NDArray[np.uint8]:
    """Values (h, w) as a picture from black (0) over purple and orange to pale yellow (the largest)."""
    from .colours import INFERNO, coloured

    levels = values / max(float(values.max()), 1e-12)
    pixels = coloured(levels, INFERNO)
    size = (pixels.shape[1] * enlarged, pixels.shape[0] * enlarged)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
