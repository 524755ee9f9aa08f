"""Makes a recorded picture again, under the recorded conditions as far as they are here, and compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from webui import device
from webui.checkpoints.library import ModelEntry
from webui.conditioning import lora
from webui.device import Compute
from webui.engine import extras
from webui.engine.executor import Control, Report, Tell
from webui.engine.extra_files import LORA, embedding_entries, short_hashes
from webui.engine.job_files import CHECKPOINT, KINDS, JobFiles, Recorded
from webui.engine.progress import Clock
from webui.engine.resolve import read_back, resolve
from webui.errors import MetadataError, NotFoundError, RequestError, WebUIError
from webui.images.pixels import read_pixels
from webui.metadata import infotext
from webui.metadata.files import pixel_digest, read_picture_texts
from webui.metadata.foreign import Told, tell
from webui.metadata.recipe import Recipe
from webui.metadata.verdict import Outcome, Verdict, compare, differences, missing_plugins, plugin_differences
from webui.request import GenerationRequest, RandomSource
from webui.result import Environment, MadePicture, ModelFile, Pixels

if TYPE_CHECKING:
    from webui.engine.runner import Runner

MAX_THREADS = 64
"""A recipe's number of threads is followed up to here."""
SHORTEST_HASH = 8
"""Digits of a hash that name a model for certain."""
NOT_RECORDED = (
    "the device and precision",
    "the processor and number of threads",
    "the versions of torch and of the program's parts",
    "the digest of the pixels",
)
"""What a picture that has AUTOMATIC1111's ``parameters`` and no recipe does not tell."""
INTERRUPTED = "It was interrupted."
OVERVIEW = "It is an overview of several pictures; each of those is a file of its own, which can be made again."
FROM_A_PICTURE = "It was made from another picture (Denoising strength is set), which its text does not hold."


@dataclass
class Reproduction:
    """One picture's reproduction by a runner."""

    runner: Runner
    tell: Tell
    control: Control
    clock: Clock = field(default_factory=lambda: Clock(1, 0))

    def run(self, data: bytes) -> Verdict:
        """The verdict on a picture file.  Raises MetadataError when the file does not tell how it was made."""
        texts = read_picture_texts(data)
        expected = read_pixels(data)
        self.runner.library.refresh()
        if extras.is_extras(texts.get("recipe", "")):
            return extras.ExtrasRun(self.runner, self.tell, self.control).reproduce(texts["recipe"], expected)
        if "recipe" in texts:
            return self._by_recipe(Recipe.from_json(texts["recipe"]), expected)
        told = tell(texts)
        if told is not None and _is_overview(told.infotext.fields, expected):
            return _cannot_run(OVERVIEW)
        if told is not None:
            return replace(self._by_text(told, expected), not_recorded=NOT_RECORDED)
        raise MetadataError("The picture carries no recipe and no parameters, so it does not tell how it was made.")

    def _by_recipe(self, recipe: Recipe, expected: Pixels) -> Verdict:
        checkpoint = next(model for model in recipe.models if model.role == "checkpoint")
        found = {model: self._by_sha256(model.sha256, model.name, model.role) for model in recipe.models}
        if self.control.interrupted.is_set():
            return _cannot_run(INTERRUPTED)
        entry = found[checkpoint]
        reasons = self._lacking(recipe, found)
        if entry is None or reasons:
            return _cannot_run(*reasons)
        recorded = {(model.role, model.name): file for model, file in found.items() if file is not None}
        recorded[CHECKPOINT, recipe.request.checkpoint or ""] = entry
        wanted = self._conditions_of(recipe.environment)
        with _threads(wanted.threads, afterwards=self.runner.compute.threads):
            try:
                here = self.runner.environment(wanted)
                made = self._make(recipe.request, recipe.index, wanted, recorded)
            except WebUIError as error:
                return _cannot_run(str(error), *missing_plugins(recipe.plugins, self.runner.plugins.extensions))
        if made is None:
            return _cannot_run(INTERRUPTED)
        reasons = (
            *differences(recipe.environment, here),
            *plugin_differences(recipe.plugins, made.plugins),
        )
        always = missing_plugins(recipe.plugins, self.runner.plugins.extensions)
        return _verdict_on(recipe, expected, made.pixels, reasons, always)

    def _by_text(self, told: Told, expected: Pixels) -> Verdict:
        parsed = told.infotext
        back = read_back(told, self.runner.plugins)
        if "Denoising strength" in parsed.fields and back.request.second_pass is None:
            return _cannot_run(FROM_A_PICTURE)
        entry, reasons = self._model_by_text(parsed.fields)
        reasons += self._extras_by_text(parsed.fields)
        if self.control.interrupted.is_set():
            return _cannot_run(INTERRUPTED)
        if entry is None:
            return _cannot_run(*reasons)
        alone = replace(back.request, checkpoint=entry.name, batch_size=1, batch_count=1)
        try:
            request = resolve(alone, self.runner.plugins, self.runner.library)
            made = self._make(request, 0, self.runner.compute)
        except WebUIError as error:
            return _cannot_run(*reasons, str(error))
        if made is None:
            return _cannot_run(INTERRUPTED)
        verdict = compare(expected, made.pixels)
        reasons += [f"Not understood here: {item}." for item in back.unmapped]
        if back.request.noise.source is RandomSource.GPU and self.runner.compute.device.type == "cpu":
            reasons.append("Its noise came from a graphics card (RNG: GPU); here noise comes from the CPU generator.")
        return replace(verdict, reasons=(*verdict.reasons, *reasons))

    def _make(
        self, request: GenerationRequest, index: int, compute: Compute, recorded: Recorded | None = None
    ) -> MadePicture | None:
        """Picture ``index`` of a request, None when interrupted."""
        files = JobFiles.of(request, self.runner.library, recorded)
        if not self.runner.models.has(files.checkpoint, compute):
            self._phase("loading the model")
        return self.runner.make_one(request, index, files, compute, self.clock, self.tell, self.control, recorded)

    def _phase(self, phase: str) -> None:
        self.tell(Report("progress", asdict(self.clock.phase(phase))))

    def _by_sha256(self, sha256: str, name: str, kind: str = "checkpoint") -> ModelEntry | None:
        """The file with this SHA-256, or whose SHA-256 begins so: known ones, those of this name, all others."""
        kind = KINDS.get(kind, kind)
        if len(sha256) < SHORTEST_HASH or kind not in self.runner.library.folders:
            return None
        if not self.runner.library.knows_sha256(sha256, kind):
            self._phase("looking for the model")
        return self.runner.library.by_sha256(sha256, kind, likely=name, stopped=self.control.interrupted.is_set)

    def _model_by_text(self, fields: Mapping[str, str]) -> tuple[ModelEntry | None, list[str]]:
        """The checkpoint that a picture's plain text names, by hash, else by name; with what there is to say."""
        short, name = fields.get("Model hash", ""), fields.get("Model", "")
        entry = self._by_sha256(short, name)
        if entry is not None:
            return entry, []
        if not name and not short:
            entry = self.runner.library.default_checkpoint()
            return entry, [f"The text names no model; {entry.name} was used."]
        try:
            found = self.runner.library.find(name)
        except RequestError:
            return None, [f"The model {_titled(name, short)} is not in the models folder."]
        if not short:
            return found, [f'The text names the model "{name}" without its hash.']
        return found, [f'The model was found by its name "{name}" only; its hash [{short}] is another here.']

    def _extras_by_text(self, fields: Mapping[str, str]) -> list[str]:
        """What there is to say about the LoRAs and embeddings that a plain text names with their hashes."""
        library = self.runner.library
        reasons = []
        for name, short in short_hashes(fields.get(infotext.LORA_HASHES, "")).items():
            try:
                here = lora.a1111_hash(library.find(name, LORA).path, library.formats)
            except WebUIError:
                continue  # the prompt names it, too, and running it tells why it cannot be used
            if not here.startswith(short):
                reasons.append(f'The LoRA "{name}" was found by its name only; its hash [{short}] is another here.')
        entries = {name.casefold(): entry for name, entry in embedding_entries(library).items()}
        for name, short in short_hashes(fields.get(infotext.EMBEDDING_HASHES, "")).items():
            entry = entries.get(name.casefold())
            if entry is None:
                reasons.append(f'The embedding "{name}" [{short}] is not in the models folder; its word stayed a word.')
            elif not library.sha256(entry).startswith(short):
                reasons.append(f'The embedding "{name}" was found by its name; its hash [{short}] is another here.')
        return reasons

    def _lacking(self, recipe: Recipe, found: Mapping[ModelFile, ModelEntry | None]) -> tuple[str, ...]:
        """Sentences about what is needed to run a recipe and is not here; ``found`` are the models' files."""
        plugins, request = self.runner.plugins, recipe.request
        reasons = [self._missing(model) for model in recipe.models if found[model] is None]
        for digest in recipe.inputs:
            try:
                self.runner.inputs.path(digest)
            except NotFoundError:
                reasons.append(f"The input picture with SHA-256 {digest} is not stored here.")
        if request.sampling.sampler not in plugins.samplers:
            reasons.append(f'The sampler "{request.sampling.sampler}" is not known here.')
        if request.sampling.schedule not in plugins.schedules:
            reasons.append(f'The schedule "{request.sampling.schedule}" is not known here.')
        for use in request.modules:
            if use.name not in plugins.conditioning_modules:
                reasons.append(f'The conditioning module "{use.name}" is not known here.')
        if reasons:
            reasons += missing_plugins(recipe.plugins, plugins.extensions)
        return tuple(reasons)

    def _missing(self, model: ModelFile) -> str:
        """The sentence about a recorded file that was not found."""
        library = self.runner.library
        if KINDS.get(model.role, model.role) not in library.folders:
            return f'The tag <{model.role}:{model.name}> is not known here; it named the file "{model.name}".'
        spoken = library.spoken(model.role)
        return f'The {spoken} "{model.name}" with SHA-256 {model.sha256} is not in the models folder.'

    def _conditions_of(self, recorded: Environment) -> Compute:
        """The Compute that comes nearest to the recorded one: its precision, and on a CPU its number of threads."""
        if recorded.dtype not in device.DTYPES:
            return self.runner.compute
        kind = recorded.device.split(" ")[0].split(":")[0]
        place = kind if kind in device.available() else str(self.runner.compute.device)
        threads = min(recorded.threads, MAX_THREADS) if place == "cpu" else None
        return device.choose(place, recorded.dtype, threads)


class _threads:
    """Compute with another number of threads for a while (a reproduction under the recorded conditions)."""

    def __init__(self, wanted: int, afterwards: int) -> None:
        self.wanted, self.afterwards = wanted, afterwards

    def __enter__(self) -> None:
        torch.set_num_threads(self.wanted)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.afterwards)


def _verdict_on(
    recipe: Recipe, expected: Pixels, made: Pixels, reasons: tuple[str, ...], always: tuple[str, ...]
) -> Verdict:
    """The verdict on the pixels made again; ``reasons`` are what differs here from the recorded conditions.

    Those of them that are ``always`` told are told even when nothing that differs here changed a bit.
    """
    as_recorded = pixel_digest(made) == recipe.pixels
    if as_recorded:
        reasons = always
    if pixel_digest(expected) != recipe.pixels:
        note = (
            "The picture made again is, bit for bit, the one that was recorded; this file was changed "
            "after that (edited, or saved in a lossy format)."
            if as_recorded
            else "This file's pixels are not the ones its recipe recorded."
        )
        reasons = (note, *reasons)
    verdict = compare(expected, made)
    if as_recorded:
        return replace(verdict, reasons=reasons)
    return replace(verdict, reasons=(*verdict.reasons, *reasons))


def _is_overview(fields: Mapping[str, str], pixels: Pixels) -> bool:
    """Whether a text is that of a script's sheet: it has the script's name, and the size of one of its pictures."""
    return "Script" in fields and fields.get("Size") != f"{pixels.shape[1]}x{pixels.shape[0]}"


def _cannot_run(*reasons: str) -> Verdict:
    return Verdict(outcome=Outcome.CANNOT_RUN, reasons=reasons)


def _titled(name: str, short: str) -> str:
    return " ".join(filter(None, (f'"{name}"' if name else "", f"[{short}]" if short else "")))
