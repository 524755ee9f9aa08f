"""Computes jobs: the code that runs in the worker process, and in-process for the command line and tests.

Holds the loaded model.  Everything else it needs comes with the order.
"""

from __future__ import annotations

import importlib.metadata
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from webui import __version__, device, families
from webui.checkpoints.formats import SafetensorsFile
from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library, ModelEntry
from webui.conditioning import Contribution, Pictures
from webui.device import Compute
from webui.engine.executor import Control, Order, Report, Tell
from webui.engine.inputs import InputStore
from webui.engine.jobs import Output, Progress
from webui.engine.outputs import OutputFolder
from webui.engine.resolve import resolve, schedule_label
from webui.errors import DEFECT, MetadataError, NotFoundError, RequestError, WebUIError, unknown_name
from webui.images.pixels import read_pixels
from webui.latents.preview import preview_jpeg
from webui.metadata import infotext
from webui.metadata.files import encode_picture, pixel_digest, read_picture_texts
from webui.metadata.recipe import Recipe, input_digests
from webui.metadata.verdict import Outcome, Verdict, compare, differences, plugin_differences
from webui.model import Model
from webui.networks.attention import attention_kind
from webui.pipeline.denoising import Setup, prepare
from webui.pipeline.img2img import StartPictures
from webui.pipeline.moments import Decoding, Made, Moment, Stepped
from webui.pipeline.run import run_group
from webui.plugins.manager import Plugins
from webui.request import GenerationRequest
from webui.result import Environment, MadePicture, ModelFile, Pixels
from webui.settings import Settings

log = logging.getLogger(__name__)

PREVIEW_INTERVAL_S = 0.4
PREVIEW_SHARE = 0.03
"""Previews may take this share of the job's time; a slower preview comes less often."""
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


@dataclass
class Clock:
    """Progress of a job in model steps, with the time left from the steps of this job so far."""

    pictures: int
    done_before: int
    started: float = field(default_factory=time.monotonic)
    steps_per_picture: int = 0
    at: Progress = field(default_factory=Progress)
    _first_step: float | None = None
    _steps_timed: int = 0

    def stepped(self, moment: Stepped, made: int) -> Progress:
        """The progress after a step; ``made`` pictures were finished before this group."""
        now = time.monotonic()
        together = len(moment.indices)
        self.steps_per_picture = moment.steps
        total = moment.steps * self.pictures
        done = moment.steps * made + moment.step * together
        if self._first_step is None:
            self._first_step = now
        else:
            self._steps_timed += together
        eta = (total - done) * (now - self._first_step) / self._steps_timed if self._steps_timed else None
        return self._note(step=done, steps=total, picture=made + 1, eta_s=eta, phase="sampling")

    def phase(self, phase: str) -> Progress:
        """The same progress in another phase."""
        return self._note(phase=phase)

    def preview(self) -> Progress:
        """The progress with one more preview."""
        return self._note(preview=self.at.preview + 1)

    def _note(self, **changes: Any) -> Progress:
        self.at = replace(self.at, pictures=self.pictures, **changes)
        return self.at


@dataclass
class Runner:
    """Runs orders one after the other, with at most one checkpoint loaded."""

    settings: Settings
    plugins: Plugins
    library: Library
    compute: Compute
    _model: Model | None = None
    _model_key: tuple[Any, ...] = ()

    @classmethod
    def start(cls, settings: Settings) -> Runner:
        """Load plugins and choose the device."""
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        plugins = Plugins.load(settings.extensions_dir if settings.load_extensions else None)
        library = Library(settings.models_dir, HashCache(settings.state_dir / "hashes.sqlite3"))
        return cls(settings, plugins, library, device.choose(settings.device, settings.precision, settings.threads))

    def warm_up(self) -> None:
        """Load the default model, if there is one, so that the first job does not wait for it."""
        try:
            self._load(self.library.default_checkpoint(), self.compute)
        except WebUIError as error:
            log.warning("%s", error)

    def run(self, order: Order, tell: Tell, control: Control) -> None:
        """Compute an order; tells how it ends and never raises for a job's own failure."""
        try:
            ending = self._run(order, tell, control)
        except WebUIError as error:
            ending = Report("failed", {"error": str(error), "status": error.status})
        except BrokenPipeError:
            raise  # nobody listens any more
        except Exception as error:
            log.exception("job %s", order.job)
            is_memory = isinstance(error, MemoryError) or (
                isinstance(error, RuntimeError) and "memory" in str(error).lower()
            )
            sentence = _too_large(order) if is_memory else DEFECT
            ending = Report("failed", {"error": sentence, "status": 507 if is_memory else 500})
        for sentence in self.plugins.problems:
            tell(Report("problem", {"sentence": sentence}))
        tell(ending)

    def _run(self, order: Order, tell: Tell, control: Control) -> Report:
        if order.kind == "reproduce":
            verdict = self.reproduce(self.inputs.get(order.picture), tell, control)
            tell(Report("verdict", verdict.to_dict()))
            return Report("interrupted" if control.interrupted.is_set() else "done")
        request = GenerationRequest.from_dict(order.request)
        for _ in self.generate(request, tell, control, done=order.done):
            pass
        return Report("interrupted" if control.interrupted.is_set() else "done")

    @property
    def inputs(self) -> InputStore:
        """Stored start images, masks and pictures to reproduce."""
        return InputStore(self.settings.state_dir / "inputs")

    def generate(
        self,
        request: GenerationRequest,
        tell: Tell,
        control: Control,
        done: Sequence[int] = (),
        save: Callable[[bytes, MadePicture, str], Path] | None = None,
        suffix: str = ".png",
    ) -> Iterator[Path]:
        """Make and save every picture of a request that is not ``done`` yet; yields each file's path.

        ``save`` (encoded file, picture, kind) -> path replaces the numbered file in the outputs folder.
        """
        clock = Clock(request.pictures, len(done))
        tell(Report("progress", asdict(clock.phase("preparing"))))
        request = self._rewritten(self._resolved(request))
        clock.pictures = request.pictures
        tell(Report("request", request.to_dict()))
        self.plugins.tell("before_job", request=request)
        entry = self.library.find(request.checkpoint)
        if self._model_key != self._key(entry, self.compute):
            tell(Report("progress", asdict(clock.phase("loading the model"))))
        model = self._load(entry, self.compute)
        paths = []
        wanted = [index for index in range(request.pictures) if index not in done]
        for picture in self._pictures(request, model, clock, tell, control, wanted):
            tell(Report("progress", asdict(clock.phase("saving"))))
            output, path = self._save(picture, request, model, save, suffix)
            paths.append(str(path))
            tell(Report("picture", asdict(output)))
            yield path
        self.plugins.tell("after_job", request=request, paths=tuple(paths))

    def reproduce(self, data: bytes, tell: Tell, control: Control) -> Verdict:
        """Run the recipe in a picture file again and compare.  Raises MetadataError when the file tells nothing."""
        texts = read_picture_texts(data)
        expected = read_pixels(data)
        self.library.refresh()
        if "recipe" in texts:
            return self._reproduce_recipe(Recipe.from_json(texts["recipe"]), expected, tell, control)
        if "parameters" in texts:
            return self._reproduce_text(texts["parameters"], expected, tell, control)
        raise MetadataError("The picture carries no recipe and no parameters, so it does not tell how it was made.")

    def _reproduce_recipe(self, recipe: Recipe, expected: Pixels, tell: Tell, control: Control) -> Verdict:
        lacking = self._lacking(recipe)
        if lacking:
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=tuple(lacking))
        wanted = self._conditions_of(recipe.environment)
        checkpoint = next(model for model in recipe.models if model.role == "checkpoint")
        entry = self.library.by_sha256(checkpoint.sha256)
        assert entry is not None
        request = replace(recipe.request, checkpoint=entry.name)
        with _threads(wanted.threads, afterwards=self.compute.threads):
            try:
                model = self._load(entry, wanted)
                made = self._make_one(request, recipe.index, model, tell, control)
            except WebUIError as error:
                return Verdict(outcome=Outcome.CANNOT_RUN, reasons=(str(error),))
            here = self.environment(wanted)
        if made is None:
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=("It was interrupted.",))
        reasons = differences(recipe.environment, here) + plugin_differences(
            recipe.plugins, self.plugins.taking_part(recipe.request, model.family)
        )
        if pixel_digest(made.pixels) == recipe.pixels:
            reasons = ()  # nothing that differs here changed a bit
        if pixel_digest(expected) != recipe.pixels:
            if pixel_digest(made.pixels) == recipe.pixels:
                note = (
                    "The picture made again is, bit for bit, the one that was recorded; this file was changed "
                    "after that (edited, or saved in a lossy format)."
                )
                return replace(compare(expected, made.pixels), reasons=(note, *reasons))
            reasons = ("This file's pixels are not the ones its recipe recorded.", *reasons)
        verdict = compare(expected, made.pixels)
        return replace(verdict, reasons=(*verdict.reasons, *reasons))

    def _reproduce_text(self, text: str, expected: Pixels, tell: Tell, control: Control) -> Verdict:
        parsed = infotext.parse(text)
        back = infotext.to_request(parsed, GenerationRequest())
        if "Denoising strength" in parsed.fields:
            reason = "It was made from another picture (Denoising strength is set), which its text does not hold."
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=(reason,), not_recorded=NOT_RECORDED)
        entry, reasons = self._model_by_text(parsed.fields, back.request)
        if entry is None:
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=tuple(reasons), not_recorded=NOT_RECORDED)
        alone = replace(back.request, checkpoint=entry.name, batch_size=1, batch_count=1)
        try:
            request = resolve(alone, self.plugins, self.library)
            made = self._make_one(request, 0, self._load(entry, self.compute), tell, control)
        except WebUIError as error:
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=(*reasons, str(error)), not_recorded=NOT_RECORDED)
        if made is None:
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=("It was interrupted.",), not_recorded=NOT_RECORDED)
        verdict = compare(expected, made.pixels)
        reasons += [f"Not understood here: {item}." for item in back.unmapped]
        if parsed.fields.get("RNG", "GPU") != "CPU":
            reasons.append("Its noise came from a graphics card (RNG: GPU); here noise comes from the CPU generator.")
        return replace(verdict, reasons=(*verdict.reasons, *reasons), not_recorded=NOT_RECORDED)

    def _make_one(
        self, request: GenerationRequest, index: int, model: Model, tell: Tell, control: Control
    ) -> MadePicture | None:
        """Picture ``index`` of a request, None when interrupted."""
        return next(self._pictures(request, model, Clock(1, 0), tell, control, (index,)), None)

    def _pictures(
        self,
        request: GenerationRequest,
        model: Model,
        clock: Clock,
        tell: Tell,
        control: Control,
        wanted: Sequence[int],
    ) -> Iterator[MadePicture]:
        """The pictures ``wanted``, after the plugins' rewriting; stops when interrupted."""
        with torch.inference_mode(), self.plugins.blaming():
            sampler = self.plugins.samplers[request.sampling.sampler]
            schedule = self.plugins.schedules[request.sampling.schedule]
            setup = prepare(request, model, sampler, schedule, self._contributions(request, model))
            start = self._start_pictures(request)
        made = clock.done_before
        for group in _groups(request, wanted, model.compute):
            if control.interrupted.is_set():
                return
            with torch.inference_mode(), self.plugins.blaming():
                pictures = self._group(request, setup, start, group, made, clock, tell, control)
            made += len(group)
            yield from pictures

    def _group(
        self,
        request: GenerationRequest,
        setup: Setup,
        start: StartPictures | None,
        group: tuple[int, ...],
        made: int,
        clock: Clock,
        tell: Tell,
        control: Control,
    ) -> list[MadePicture]:
        """The pictures made together, none of them when interrupted or skipped meanwhile."""
        previews = Previews(tell, clock, setup.model)
        control.skipped.clear()
        pictures = []
        for moment in run_group(request, setup, start, group):
            if isinstance(moment, Made):
                moment.picture.pixels.setflags(write=False)  # an extension returns new pixels, or changes none
                pixels = self.plugins.rewrite(
                    "rewrite_picture", "pixels", moment.picture.pixels, request=request, index=moment.picture.index
                )
                pictures.append(replace(moment.picture, pixels=pixels))
                continue  # a finished picture is kept, whatever was wished meanwhile
            if control.interrupted.is_set() or control.skipped.is_set():
                break
            self._tell_moment(moment, made, clock, tell, previews)
        return pictures

    def _tell_moment(self, moment: Moment, made: int, clock: Clock, tell: Tell, previews: Previews) -> None:
        if isinstance(moment, Stepped):
            tell(Report("progress", asdict(clock.stepped(moment, made))))
            previews.offer(moment)
        elif isinstance(moment, Decoding):
            tell(Report("progress", asdict(clock.phase("decoding"))))

    def _contributions(self, request: GenerationRequest, model: Model) -> list[Contribution]:
        contributions = []
        for use in request.modules:
            module = self.plugins.conditioning_modules[use.name]
            try:
                options = module.options(**use.options)
            except TypeError as error:
                raise RequestError(f"The options of {use.name} do not fit: {error}.") from error
            pictures = Pictures(lambda sha256: read_pixels(self.inputs.get(sha256)), self._preprocess)
            contributions.append(module.prepare(options, model, request, pictures))
        return contributions

    def _preprocess(self, name: str, pixels: Pixels, options: Mapping[str, Any]) -> Pixels:
        if name not in self.plugins.preprocessors:
            raise unknown_name("preprocessor", name, self.plugins.preprocessors)
        return self.plugins.preprocessors[name].run(pixels, options)

    def _start_pictures(self, request: GenerationRequest) -> StartPictures | None:
        start = request.start
        if start is None:
            return None
        image = read_pixels(self.inputs.get(start.image))
        return StartPictures(image, self.inputs.get(start.mask.image) if start.mask else None)

    def _rewritten(self, request: GenerationRequest) -> GenerationRequest:
        rewritten: GenerationRequest = self.plugins.rewrite("rewrite_request", "request", request)
        return resolve(rewritten, self.plugins, self.library) if rewritten != request else request

    def _resolved(self, request: GenerationRequest) -> GenerationRequest:
        """Resolved against the models folder; looks at it again for a name that was not there before."""
        try:
            return resolve(request, self.plugins, self.library)
        except (RequestError, NotFoundError):
            self.library.refresh()
            return resolve(request, self.plugins, self.library)

    def _key(self, entry: ModelEntry, compute: Compute) -> tuple[Any, ...]:
        """What tells one loaded model from another: the file as it is now, and where and how it computes."""
        try:
            stat = entry.path.stat()
        except OSError:
            return ()
        return (entry.path, stat.st_mtime_ns, stat.st_size, str(compute.device), compute.dtype, compute.vae_dtype)

    def _load(self, entry: ModelEntry, compute: Compute) -> Model:
        """The model of a file, from memory when it is the one loaded; the old one is dropped first."""
        key = self._key(entry, compute)
        if self._model is not None and key and self._model_key == key:
            if self._model.compute != compute:
                self._model = replace(self._model, compute=compute)
            return self._model
        self._model, self._model_key = None, ()
        device.release_memory(compute)
        with self.plugins.blaming():
            model = families.load(SafetensorsFile.open(entry.path), self.plugins.families, compute)
        self._model = replace(model, name=Path(entry.name).name, sha256=self.library.sha256(entry))
        self._model_key = key
        return self._model

    def environment(self, compute: Compute) -> Environment:
        """The facts outside a request that can change a bit of its pictures."""
        return Environment(
            webui=__version__,
            torch=torch.__version__,
            transformers=_installed_version("transformers"),
            device=device.device_name(compute),
            dtype=compute.dtype_name,
            attention=attention_kind(compute),
            threads=compute.threads,
            cpu=device.cpu_name(),
        )

    def _save(
        self,
        picture: MadePicture,
        request: GenerationRequest,
        model: Model,
        save: Callable[[bytes, MadePicture, str], Path] | None,
        suffix: str,
    ) -> tuple[Output, Path]:
        kind = "img2img" if request.start else "txt2img"
        recipe = Recipe(
            request=request,
            index=picture.index,
            models=(ModelFile(role="checkpoint", name=model.name, sha256=model.sha256),),
            inputs=input_digests(request),
            environment=self.environment(model.compute),
            plugins=tuple(self.plugins.taking_part(request, model.family)),
            pixels=pixel_digest(picture.pixels),
        )
        text = self._infotext(picture, request, model)
        data = encode_picture(picture.pixels, suffix, {"parameters": text, "recipe": recipe.to_json()})
        if save is not None:
            path = save(data, picture, kind)
        else:
            path = OutputFolder(self.settings.outputs_dir).save(data, kind=kind, seed=picture.seed, suffix=suffix)
        height, width = picture.pixels.shape[:2]
        inside = path.is_relative_to(self.settings.outputs_dir)
        relative = path.relative_to(self.settings.outputs_dir).as_posix() if inside else str(path)
        output = Output(
            id=uuid.uuid4().hex,
            path=relative,
            index=picture.index,
            seed=picture.seed,
            width=width,
            height=height,
            infotext=text,
        )
        return output, path

    def _infotext(self, picture: MadePicture, request: GenerationRequest, model: Model) -> str:
        extra = {**picture.infotext_extra, **self.plugins.pairs("write_infotext", request=request)}
        facts = infotext.InfotextFacts(
            model_name=model.name,
            model_hash=model.sha256,
            schedule_label=schedule_label(request, self.plugins),
            default_eta=self.plugins.samplers[request.sampling.sampler].default_eta,
            seed=picture.seed,
            extra=extra,
        )
        return infotext.write(request, facts)

    def _lacking(self, recipe: Recipe) -> list[str]:
        """Sentences about what is needed to run a recipe and is not here."""
        reasons = [
            f'The {model.role} "{model.name}" with SHA-256 {model.sha256} is not in the models folder.'
            for model in recipe.models
            if self.library.by_sha256(model.sha256) is None
        ]
        for digest in recipe.inputs:
            try:
                self.inputs.path(digest)
            except NotFoundError:
                reasons.append(f"The input picture with SHA-256 {digest} is not stored here.")
        missing = recipe.request.sampling.sampler
        if missing not in self.plugins.samplers:
            reasons.append(f'The sampler "{missing}" is not known here.')
        if recipe.request.sampling.schedule not in self.plugins.schedules:
            reasons.append(f'The schedule "{recipe.request.sampling.schedule}" is not known here.')
        for use in recipe.request.modules:
            if use.name not in self.plugins.conditioning_modules:
                reasons.append(f'The conditioning module "{use.name}" is not known here.')
        return reasons

    def _conditions_of(self, recorded: Environment) -> Compute:
        """The Compute that comes nearest to the recorded one: its precision, and on a CPU its number of threads."""
        if recorded.dtype not in device.DTYPES:
            return self.compute
        kind = recorded.device.split(" ")[0].split(":")[0]
        place = kind if kind in device.available() else str(self.compute.device)
        threads = min(recorded.threads, MAX_THREADS) if place == "cpu" else None
        return device.choose(place, recorded.dtype, threads)

    def _model_by_text(
        self, fields: Mapping[str, str], request: GenerationRequest
    ) -> tuple[ModelEntry | None, list[str]]:
        """The checkpoint that a picture's plain text names, by hash, else by name; with what there is to say."""
        self.library.refresh()
        short, name = fields.get("Model hash", ""), fields.get("Model", "")
        for entry in self.library.entries():
            if len(short) >= SHORTEST_HASH and self.library.sha256(entry).startswith(short.casefold()):
                return entry, []
        if not name and not short:
            entry = self.library.default_checkpoint()
            return entry, [f"The text names no model; {entry.name} was used."]
        try:
            found = self.library.find(name)
        except RequestError:
            return None, [f"The model {_titled(name, short)} is not in the models folder."]
        if not short:
            return found, [f'The text names the model "{name}" without its hash.']
        return found, [f'The model was found by its name "{name}" only; its hash [{short}] is another here.']


@dataclass
class Previews:
    """Sends a rough picture now and then, within its share of the job's time."""

    tell: Tell
    clock: Clock
    model: Model
    spent_s: float = 0.0
    last: float = field(default_factory=time.monotonic)

    def offer(self, moment: Stepped) -> None:
        """Send a preview of this step if it is time for one; the last step needs none."""
        now = time.monotonic()
        allowed = PREVIEW_SHARE * (now - self.clock.started)
        if moment.step == moment.steps or now - self.last < PREVIEW_INTERVAL_S or self.spent_s > allowed:
            return
        jpeg = preview_jpeg(moment.denoised, self.model)
        self.tell(Report("preview", asdict(self.clock.preview()), jpeg))
        self.last = time.monotonic()
        self.spent_s += self.last - now


class _threads:
    """Compute with another number of threads for a while (a reproduction under the recorded conditions)."""

    def __init__(self, wanted: int, afterwards: int) -> None:
        self.wanted, self.afterwards = wanted, afterwards

    def __enter__(self) -> None:
        torch.set_num_threads(self.wanted)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.afterwards)


def _groups(request: GenerationRequest, wanted: Sequence[int], compute: Compute) -> Iterator[tuple[int, ...]]:
    """The indices to make, in groups that go through the network together and never cross a batch."""
    together = compute.images_at_once(request.batch_size)
    for batch in range(request.batch_count):
        first = batch * request.batch_size
        left = [index for index in wanted if first <= index < first + request.batch_size]
        for start in range(0, len(left), together):
            yield tuple(left[start : start + together])


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _titled(name: str, short: str) -> str:
    return " ".join(filter(None, (f'"{name}"' if name else "", f"[{short}]" if short else "")))


def _too_large(order: Order) -> str:
    size = order.request.get("size", {})
    return (
        f"There is not enough memory for a picture of {size.get('width', '?')}x{size.get('height', '?')}; "
        "try a smaller size or batch, or close other programs."
    )
