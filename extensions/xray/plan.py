"""a request -> what is known of its walk before anything was computed, in the shape of a capture.  No torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from webui.diffusion.schedules import NoiseTable
from webui.diffusion.start import start_from_noise
from webui.prompt.chunks import chunks
from webui.prompt.comments import without_comments
from webui.prompt.compose import parts
from webui.prompt.extra_networks import extract
from webui.prompt.schedule import Timeline, schedule
from webui.prompt.tokenizer import Tokenizer
from webui.request import GenerationRequest

from .capture import Pass
from .words import plain_chunk

if TYPE_CHECKING:
    from webui.engine.engine import Engine


def known(request: GenerationRequest, engine: Engine, tokenizer: Tokenizer, steps_done: int = 0) -> Pass:
    """The prompt's tokens, and for pictures from noise the planned levels on Stable Diffusion 1's noise table.

    Words of embeddings are spelled as words, for which vectors they become is known to the worker alone.
    """
    sampling = request.sampling
    plain = extract(without_comments(request.prompt)).text
    prompts = [_prompt(part.text, part.weight, request, tokenizer) for part in parts(plain)]
    negative = _prompt(extract(without_comments(request.negative_prompt)).text, 1.0, request, tokenizer)
    sigmas = _levels(request, engine)
    facts: dict[str, Any] = {
        "model": request.checkpoint or "",
        "sampler": sampling.sampler,
        "schedule": sampling.schedule,
        "cfg_scale": sampling.cfg_scale,
        "size": [request.size.width, request.size.height],
        "picture": 0,
        "pictures": 1,
        "sigmas": sigmas,
        "trained": [sigmas[-2], sigmas[0]] if sigmas else [],
        "prompts": [*prompts, {**negative, "negative": True}],
        "asked": [[step, sigma] for step, sigma in enumerate(sigmas[:steps_done])],
        "frames": [],
    }
    return Pass(Path("known") / "pass-1", facts)


def _prompt(text: str, weight: float, request: GenerationRequest, tokenizer: Tokenizer) -> dict[str, Any]:
    spans = schedule(text, Timeline(request.sampling.steps))
    emphasis, reach = request.emphasis, request.comma_backtrack
    said = [
        {
            "last": span.last,
            "text": span.text,
            "chunks": [plain_chunk(chunk, tokenizer) for chunk in chunks(span.text, tokenizer, (), emphasis, reach)],
        }
        for span in spans[:40]
    ]
    return {"weight": weight, "negative": False, "spans": said}


def _levels(request: GenerationRequest, engine: Engine) -> list[float]:
    """The planned levels; none where they begin from a picture, or a name is not known here."""
    plugins, sampling = engine.plugins, request.sampling
    sampler, plan = plugins.samplers.get(sampling.sampler), plugins.schedules.get(sampling.schedule)
    if request.start is not None or sampler is None or plan is None:
        return []
    return list(start_from_noise(sampler, plan, NoiseTable.scaled_linear(), sampling.steps).sigmas)
