"""request + files -> what the pictures of a job have in common: models, contexts, grids, what modules contribute.

Called by the runner once a job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from webui.checkpoints.library import Library, ModelEntry
from webui.conditioning import Contribution, Encode, embedding
from webui.conditioning.embedding import Embedding
from webui.device import Compute
from webui.engine.extra_files import EmbeddingUse, ExtraFiles, NetworkUses, extra_files
from webui.engine.job_files import JobFiles, Recorded
from webui.engine.models import LoadedModels
from webui.engine.picture_tools import PictureTools
from webui.engine.steering import steering
from webui.model import Model
from webui.networks.attention_kinds import AUTO, chosen_attention
from webui.networks.seamless import seamless
from webui.pipeline.denoising import Setup, calls, prepare, prompt_encoder
from webui.pipeline.hires import Second, second_request
from webui.plugins.manager import Plugins
from webui.prompt.schedule import Timeline
from webui.request import GenerationRequest, RefinerPasses
from webui.result import ModelFile

Contribute = Callable[[GenerationRequest, Sequence[NetworkUses], Model, Encode, bool], Sequence[Contribution]]
"""What the conditioning modules of a request, and the networks that its prompt's tags name, contribute to a model's
calls, in the second of two passes or not.

Its prompts have no tags and comments.
"""


@dataclass
class Preparation:
    """Makes the set-ups of one job.

    ``problems`` are sentences for the user, ``used`` the files that prompts name and ``paths`` where they lie,
    ``networks`` the kinds of networks that their tags name.
    """

    plugins: Plugins
    library: Library
    models: LoadedModels
    files: JobFiles
    compute: Compute
    contribute: Contribute
    tools: PictureTools
    recorded: Recorded | None = None
    two_passes: bool = False
    attention: str = AUTO
    problems: list[str] = field(default_factory=list)
    used: list[ModelFile] = field(default_factory=list)
    paths: set[Path] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)

    @property
    def set_ups(self) -> int:
        """How many set-ups the job has, each of which may have LoRAs of its own."""
        return (2 if self.two_passes else 1) * (2 if self.files.refiner else 1)

    def first(self, request: GenerationRequest) -> tuple[Setup, ExtraFiles]:
        """The set-up of the only or the first pass, and what its prompts name."""
        wanted = (RefinerPasses.FIRST, RefinerPasses.BOTH)
        refined = request.refiner is not None and (request.second_pass is None or request.refiner.passes in wanted)
        return self._with_refiner(request, self.files.checkpoint, None, refined=refined)

    def second(self, request: GenerationRequest, first: Setup) -> Second | None:
        """The second pass of a request that has one; ``first`` is the first one's set-up."""
        if request.second_pass is None:
            return None
        upscaler = self.tools.upscaler(request.second_pass.upscaler)
        later = second_request(request)
        sampler = self.plugins.samplers[later.sampling.sampler]
        if request.compatibility.old_prompt_editing:
            timeline = Timeline(calls(later, sampler))
        else:
            timeline = Timeline(calls(request, first.sampler), calls(later, sampler), is_second_pass=True)
        refined = request.refiner is not None and request.refiner.passes is not RefinerPasses.FIRST
        entry = self.files.second or self.files.checkpoint
        setup, _ = self._with_refiner(later, entry, timeline, refined=refined, second=True)
        if request.second_pass.reuse_conditioning:
            setup = replace(setup, cond=first.cond, uncond=first.uncond)
        return Second(request=later, setup=setup, upscaler=upscaler)

    def _with_refiner(
        self,
        request: GenerationRequest,
        entry: ModelEntry,
        timeline: Timeline | None,
        *,
        refined: bool,
        second: bool = False,
    ) -> tuple[Setup, ExtraFiles]:
        setup, extras = self._setup(request, entry, timeline, second)
        if refined and self.files.refiner:
            setup = replace(setup, refiner=self._setup(request, self.files.refiner, timeline, second)[0])
        if request.face_restoration is not None:
            setup = replace(setup, retouch=self.tools.retouch(request.face_restoration))
        return setup, extras

    def _setup(
        self, request: GenerationRequest, entry: ModelEntry, timeline: Timeline | None, second: bool
    ) -> tuple[Setup, ExtraFiles]:
        base = self.models.with_vae(self.models.checkpoint(entry, self.compute), self.files.vae)
        extras = extra_files(request, self.library, base.tokenizer, self.recorded, self.plugins.extra_network_kinds)
        adapted = self.models.adapted(base, extras.loras, keep=self.set_ups)
        self.problems += filter(None, (extras.problem, *(file.problem for file in adapted.applied)))
        extras = replace(extras, applied=adapted.applied)
        self.used += extras.used
        self.paths |= extras.paths
        self.networks |= {each.kind.name for each in extras.networks}
        model = adapted.model
        if request.tiling:
            model = replace(model, unet=seamless(model.unet), vae=seamless(model.vae))
        sampler = self.plugins.samplers[request.sampling.sampler]
        embeddings = [self._embedding(use, base) for use in extras.embeddings]
        timeline = timeline or Timeline(calls(request, sampler))
        encode = partial(prompt_encoder(request, model, embeddings).timed, timeline=timeline)
        contributions = self.contribute(extras.request, extras.networks, model, encode, second)
        self.problems += (problem for one in contributions for problem in one.problems)
        setup = prepare(
            extras.request,
            model,
            sampler,
            self.plugins.schedules[request.sampling.schedule],
            contributions,
            embeddings,
            timeline,
        )
        attend = chosen_attention(self.attention, self.plugins.attention_kinds)
        return replace(setup, steering=steering(self.plugins, request), attention=attend), extras

    def _embedding(self, use: EmbeddingUse, model: Model) -> Embedding:
        return embedding.load(use.word, use.path, model, bundled=use.bundled, formats=self.library.formats)
