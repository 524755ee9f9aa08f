"""The engine: the job queue, the models folder and the plugins, behind one object that page, API and CLI call.

Imports no torch: networks are computed behind an :class:`Executor`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library, ModelEntry
from webui.conditioning import ConditioningModule, Palette
from webui.conditioning.extra_networks import NetworkKind
from webui.conditioning.modules import in_order
from webui.diffusion.schedules import Schedule
from webui.engine import extras
from webui.engine.background import BackgroundReader
from webui.engine.cards import Cards
from webui.engine.catalogue import CheckpointEntry, with_advice
from webui.engine.control_pictures import full_names, in_server, needs_worker, registered, run_here
from webui.engine.errands import Errands
from webui.engine.events import Events
from webui.engine.executor import Executor, Order, Report, Trainer, TrainerProcess
from webui.engine.extensions_health import ExtensionsHealth
from webui.engine.inputs import InputStore, reproduction_store
from webui.engine.jobs import GENERATING, TRAINING, Event, Job, JobState, Output, Progress
from webui.engine.ledger import Ledger, told_again
from webui.engine.module_options import listed, module_named, module_pictures, with_stored_pictures
from webui.engine.outputs import OutputFolder
from webui.engine.palettes import palette
from webui.engine.plugin_settings import open_options, own_settings
from webui.engine.resolve import read_back, resolve, styled
from webui.engine.store import JobStore
from webui.engine.training import TrainingQueue, read_request
from webui.engine.training_view import TrainingView, TrainingViews
from webui.errors import (
    DEFECT,
    ExtensionCrashError,
    InstallError,
    MetadataError,
    NotFoundError,
    OutputError,
    RequestError,
    WebUIError,
)
from webui.extras import ExtrasRequest
from webui.faces import FaceRestorer
from webui.images.pixels import picture_size, read_pixels
from webui.metadata.completing import completed
from webui.metadata.files import encode_picture, read_picture_texts
from webui.metadata.foreign import Told, tell
from webui.metadata.reading import OURS, ReadBack
from webui.metadata.recipe import Recipe, input_digests, request_of_one
from webui.option_boxes import Box
from webui.plugins.conduct import MAX_PROBLEMS
from webui.plugins.install import Installer
from webui.plugins.manager import SERVER_PACKAGES, Plugins
from webui.preprocessors import KIND as PREPROCESSOR
from webui.preprocessors import Preprocessor, usable
from webui.prompt.styles import Styles
from webui.request import GenerationRequest
from webui.result import Pixels
from webui.samplers import Sampler
from webui.scripts import Expansion, Script, expanded
from webui.settings import Settings
from webui.training.kinds import TrainingKind
from webui.upscalers import Upscaler, find_upscaler
from webui.upscalers.files import KIND as UPSCALER
from webui.upscalers.files import all_upscalers

log = logging.getLogger(__name__)

KEPT_PREVIEWS = 50
DISK_WAIT_S = 5.0


@dataclass
class Engine:
    """Jobs wait in the store; one thread hands them to the executor and records what it hears.

    Trainings have a queue and a process of their own (:class:`TrainingQueue`), which waits while pictures are made.
    """

    settings: Settings
    executor: Executor
    plugins: Plugins
    library: Library
    store: JobStore
    inputs: InputStore
    trainer: Trainer
    events: Events = field(default_factory=Events)

    def __post_init__(self) -> None:
        self._ledger = Ledger(self.store, self.events)
        self._training = TrainingQueue(self._ledger, self.trainer, self.library.refresh, self._note_problem)
        self._views = TrainingViews(self.settings.outputs_dir)
        self.cards = Cards(self.library, self.settings.state_dir)
        self._background = BackgroundReader(self.cards, self._is_busy, hashing=self.settings.background_hashing)
        self._thread: threading.Thread | None = None
        self._previews: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._lock = self._ledger.lock
        self._wake = threading.Event()
        self._errands = Errands(self.executor, self._wake.set, self._hear_extensions, self._without)
        self._sharing = threading.Lock()
        self._closed = False
        self._problems: list[str] = []
        self._unwanted: set[str] = set()
        self._extensions = ExtensionsHealth(self.plugins)
        self._to_reproduce = reproduction_store(self.settings)
        self.options = open_options(self.settings, self.plugins)
        self.own_settings = own_settings(self.options, self.settings, self.plugins)
        self.installer = Installer(self.settings.extensions_dir, self.settings.state_dir)

    @classmethod
    def create(
        cls,
        settings: Settings,
        executor: Executor,
        trainer: Trainer | None = None,
        unloadable: Mapping[str, str] | None = None,
    ) -> Engine:
        """An engine on the folders of the settings, with the job list of an earlier run taken up again.

        ``trainer`` None teaches in a process of its own, which is started with the first training.  ``unloadable`` are
        extensions that would harm this process, each with a sentence (``engine.trial``).
        """
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        plugins = Plugins.start(settings, packages=SERVER_PACKAGES, abandons=True, unloadable=unloadable)
        hashes = HashCache(settings.state_dir / "hashes.sqlite3")
        library = Library(settings.models_dir, hashes, plugins.formats, plugins.extra_network_kinds.file_kinds)
        store = JobStore(settings.state_dir / "jobs.sqlite3")
        inputs = InputStore(settings.state_dir / "inputs")
        return cls(settings, executor, plugins, library, store, inputs, trainer or TrainerProcess(settings))

    def start(self) -> None:
        """Take up unfinished jobs, load the default model, and begin to work."""
        OutputFolder(self.settings.outputs_dir).clean()
        self._clean_extensions()
        self._ledger.begin()
        for digest in self._to_reproduce.digests():
            self._drop(digest)
        self.executor.warm_up()
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)
        self._thread.start()
        self._training.start()
        self._background.start()
        self._share()

    def close(self) -> None:
        """Stop working.  A job under way goes back into the queue for the next start; a training saves first."""
        self._closed = True
        self._errands.close()
        self._wake.set()
        self._background.close()
        self.executor.close()
        self._training.close()
        self.installer.close()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self.plugins.shutdown()
        self.store.close()

    def _clean_extensions(self) -> None:
        """Remove what an installation that was killed left behind."""
        try:
            self.installer.clean_up()
        except InstallError as error:
            self._note_problem(str(error))

    def submit(self, request: GenerationRequest) -> Job:
        """Queue a request, its styles applied.  Raises RequestError when it names something that is not here."""
        if request.script is not None:
            return self._submit_script(request)
        request = styled(request, self.styles()) if request.styles else request
        try:
            resolved = resolve(request, self.plugins, self.library)
        except RequestError:
            self.library.refresh()
            resolved = resolve(request, self.plugins, self.library)
        self._check_inputs(resolved)
        return self._queue(GENERATING, resolved.to_dict(), pictures=resolved.pictures)

    def _submit_script(self, request: GenerationRequest) -> Job:
        """Queue what a script makes of a request, as one job; each of its requests is looked at before."""
        request = request.settled(self.find_model(request.checkpoint).name)
        expansion = self.expansion(request)
        if expansion.start is not None and find_upscaler(expansion.start.upscaler, self.upscalers()).is_latent:
            raise RequestError(f"{expansion.start.upscaler} enlarges latents; choose an upscaler of pictures.")
        styles = self.styles()
        for one in expansion.requests:
            resolve(styled(one, styles) if one.styles else one, self.plugins, self.library)
        self._check_inputs(request)
        return self._queue(GENERATING, request.to_dict(), pictures=expansion.pictures)

    def expansion(self, request: GenerationRequest) -> Expansion:
        """What a request with a script becomes.  Raises RequestError for an unknown script or options of another."""
        return expanded(request, self.plugins.scripts.values(), self._measured)

    def _measured(self, digest: str) -> tuple[int, int]:
        """Width and height of a stored picture.  Raises NotFoundError."""
        return picture_size(self.inputs.get(digest))

    def scripts(self) -> list[Script]:
        """Every script, in the order of registration."""
        return list(self.plugins.scripts.values())

    def _check_inputs(self, request: GenerationRequest) -> None:
        for digest in input_digests(request):
            self.inputs.path(digest)
        for digest in module_pictures(request, self.plugins.conditioning_modules):
            self.inputs.path(digest)

    def submit_plain(self, body: Any) -> Job:
        """Queue a request given as plain values; what they leave out is as the model recommends, as on the page.

        Pictures that stand in the options of conditioning modules themselves are stored.  Raises RequestError as
        :meth:`submit` and ``GenerationRequest.from_dict`` do.
        """
        named = body.get("checkpoint") if isinstance(body, Mapping) else None
        if isinstance(body, Mapping) and isinstance(named, str | None):
            with suppress(RequestError, NotFoundError):  # a checkpoint that is not here: submit says so
                body = with_advice(body, CheckpointEntry(self.library.find(named), self.plugins))
        body = with_stored_pictures(body, self.plugins.conditioning_modules, self.put_input)
        return self.submit(GenerationRequest.from_dict(body))

    def submit_extras(self, request: ExtrasRequest) -> Job:
        """Queue pictures to be made larger or mended.

        Raises RequestError for an upscaler that is not here, NotFoundError for a picture that is not stored.
        """
        self.library.refresh(UPSCALER)
        request = extras.check(request, self.plugins, self.library)
        for digest in request.images:
            self.inputs.path(digest)
        return self._queue(extras.KIND, request.to_dict(), pictures=len(request.images))

    def reproduce(self, data: bytes, filename: str) -> Job:
        """Queue the reproduction of a picture file.  Raises MetadataError or PictureError when it tells nothing."""
        read_pixels(data)
        texts = read_picture_texts(data)
        if extras.is_extras(texts.get("recipe", "")):
            request = extras.ExtrasRecipe.from_json(texts["recipe"]).request.to_dict()
        elif "recipe" in texts:
            request = request_of_one(Recipe.from_json(texts["recipe"])).to_dict()
        elif (told := tell(texts)) is not None:
            request = replace(
                read_back(told, self.plugins, self.library).request, batch_size=1, batch_count=1
            ).to_dict()
        else:
            raise MetadataError(f"{filename} carries no recipe and no parameters, so it does not tell how it was made.")
        with self._lock:  # another job about the same file does not drop it in between
            return self._queue("reproduce", request, picture=self._to_reproduce.put(data))

    def submit_training(self, plain: Any) -> Job:
        """Queue a training given as plain values; what they leave out is as its kind recommends.

        Raises RequestError when it names a kind, a folder or a checkpoint that is not here.
        """
        self.library.refresh()
        request = read_request(plain, self.plugins.training_kinds, self.library)
        job = self._ledger.add(TRAINING, request.to_dict(), Progress(steps=request.steps))
        self._training.wake()
        return job

    def pause(self, job_id: str) -> None:
        """Let a training wait, with a checkpoint on disk, until :meth:`go_on`.  Raises NotFoundError, RequestError."""
        self._training.pause(job_id)

    def go_on(self, job_id: str) -> None:
        """Queue a training that was paused or interrupted, or that failed, again: from its last checkpoint.

        Raises NotFoundError, and RequestError for a job that cannot go on.
        """
        self._training.go_on(job_id)

    def training(self, job_id: str) -> TrainingView:
        """What a training shows: losses, samples, files.  Raises NotFoundError, and RequestError for other jobs."""
        return self._views.view(self.job(job_id))

    def sample_path(self, job_id: str, step: int) -> Path:
        """The picture with a training's samples after a step.  Raises NotFoundError."""
        return self._views.sample(self.job(job_id), step)

    def training_kinds(self) -> list[TrainingKind]:
        """What can be taught, in the order of registration."""
        return list(self.plugins.training_kinds.values())

    def job(self, job_id: str) -> Job:
        """A job as it stands now.  Raises NotFoundError."""
        return self._ledger.job(job_id)

    def jobs(self, limit: int = 50) -> list[Job]:
        """The newest jobs first."""
        return self._ledger.recent(limit)

    def active(self) -> list[Job]:
        """The running jobs, then the queued ones in order, then paused trainings."""
        return self._ledger.active()

    def interrupt(self, job_id: str) -> None:
        """Stop a running job between two steps, or take a queued one out of the queue.  Raises NotFoundError."""
        if self.job(job_id).kind == TRAINING:
            self._training.interrupt(job_id)
            return
        with self._lock:
            job = self.job(job_id)
            if job.state is JobState.QUEUED:
                self._finish(job, JobState.INTERRUPTED, {})
                return
            self._unwanted.add(job_id)
        self.executor.interrupt(job_id)

    def skip(self, job_id: str) -> None:
        """Leave out the picture under way.  Raises NotFoundError."""
        self.job(job_id)
        self.executor.skip(job_id)

    def preview(self, job_id: str) -> bytes | None:
        """The newest preview of a job, a JPEG, None when there is none."""
        with self._lock:
            found = self._previews.get(job_id)
        return found[1] if found else None

    def output(self, output_id: str) -> Output:
        """A picture's record.  Raises NotFoundError."""
        return self.store.output(output_id)

    def output_path(self, output_id: str) -> Path:
        """The file of a picture.  Raises NotFoundError when it was deleted."""
        path = self.settings.outputs_dir / self.store.output(output_id).path
        if not path.is_file():
            raise NotFoundError(f"The picture file {path.name} is not there any more.")
        return path

    def forget_pictures(self, job_id: str) -> None:
        """Delete the pictures of a job that is over, for a caller that has them and wants none kept."""
        with self._lock:
            job = self.job(job_id)
            for output in job.outputs:
                (self.settings.outputs_dir / output.path).unlink(missing_ok=True)
            self.store.drop_outputs(job_id)
            self._ledger.keep(replace(job, outputs=()))

    def save_grid(self, data: bytes, job: Job, *, seed: int) -> Path:
        """Keep the overview of a job's pictures (a PNG file) in the folder for those; returns its path."""
        kind = "img2img" if job.request.get("start") else "txt2img"
        return OutputFolder(self.settings.outputs_dir).save_sheet(data, kind=kind, seed=seed)

    def put_input(self, data: bytes) -> str:
        """Keep a start image, mask or other picture; returns its SHA-256.  Raises PictureError."""
        read_pixels(data)
        return self.inputs.put(data)

    def input_path(self, sha256: str) -> Path:
        """The file of a stored input picture.  Raises NotFoundError."""
        return self.inputs.path(sha256)

    def checkpoints(self) -> list[CheckpointEntry]:
        """The checkpoints of the models folder, the default first."""
        entries = self.library.entries()
        if not entries:
            return []
        default = self.library.default_checkpoint()
        ordered = sorted(entries, key=lambda entry: entry is not default)
        return [CheckpointEntry(entry, self.plugins) for entry in ordered]

    def find_model(self, name: str | None, kind: str = "checkpoint") -> ModelEntry:
        """The model file that a person names; a file that is new is found, too.  Raises RequestError."""
        try:
            return self.library.find(name, kind)
        except RequestError:
            self.library.refresh(kind)
            return self.library.find(name, kind)

    def refresh(self) -> None:
        """Look at the models folder again."""
        self.library.refresh()

    def read_cards(self) -> None:
        """Read the headers of files whose cards are looked at, now rather than when there is nothing else to do."""
        self._background.wake()

    def samplers(self) -> list[Sampler]:
        """Every sampler, DPM++ 2M first as AUTOMATIC1111 has it."""
        first = GenerationRequest().sampling.sampler
        return sorted(self.plugins.samplers.values(), key=lambda sampler: (sampler.name != first, sampler.name))

    def schedules(self) -> list[Schedule]:
        """Every schedule, in the order of registration."""
        return list(self.plugins.schedules.values())

    def network_kinds(self) -> list[NetworkKind]:
        """Every kind of networks that a prompt's tags name, beside LoRAs."""
        return list(self.plugins.extra_network_kinds.kinds.values())

    def modules(self) -> list[ConditioningModule]:
        """Every conditioning module, in the order of the page."""
        return in_order(self.plugins.conditioning_modules.values())

    def control_picture(self, name: str, options: Mapping[str, Any]) -> bytes:
        """A PNG of the control picture that a module's options mean.  Raises RequestError, NotFoundError."""
        module = module_named(name, self.plugins.conditioning_modules)
        given = full_names(module, options, self.plugins, self.library)
        if needs_worker(module, given, self.plugins):
            return self._errands.ask({"module": name, "options": given})
        pixels = in_server(self.plugins, self.library, self.inputs.get).of_module(module, given)
        return encode_picture(pixels, ".png", {})

    def preprocessors(self) -> dict[str, Preprocessor]:
        """The preprocessors that can be used: those whose model file is there, or that need none, by name."""
        return usable(self.plugins.preprocessors.values(), self.library.entries(PREPROCESSOR))

    def preprocess(self, name: str, pixels: Pixels, options: Mapping[str, Any]) -> Pixels:
        """The control picture (H, W, 3) uint8 that a preprocessor makes; of the worker's ones after a job's end.

        Raises RequestError for an unknown one, or one whose model file is missing.
        """
        one = registered(name, self.plugins)
        if not one.needs_worker:
            return run_here(name, pixels, options, self.plugins)
        one.file(self.library.entries(PREPROCESSOR))
        # The text keeps two errands of the same picture apart: each drops its own file.
        stored = self._to_reproduce.put(encode_picture(pixels, ".png", {"errand": uuid.uuid4().hex}))
        try:
            return read_pixels(self._errands.ask({"preprocessor": name, "options": dict(options)}, stored))
        finally:
            self._to_reproduce.drop(stored)

    def palette(self, name: str, options: Mapping[str, Any], request: GenerationRequest) -> Palette:
        """The colours that a module's picture can be painted with.  Raises RequestError, ExtensionError."""
        module = module_named(name, self.plugins.conditioning_modules)
        request = styled(request, self.styles()) if request.styles else request
        return palette(module, options, request, self.plugins, self.library)

    def listed(self, box: Box) -> list[str] | None:
        """What a module's box of model files or preprocessors can hold, "" for none first; None for other boxes."""
        return listed(box, self.plugins, self.library)

    def upscalers(self) -> list[Upscaler]:
        """Every upscaler: of latents, those without weights, then one for each model file."""
        return all_upscalers(self.plugins.upscalers.values(), self.library.entries(UPSCALER), None)

    def face_restorers(self) -> list[FaceRestorer]:
        """Every face restorer, whether its model file is there or not."""
        return list(self.plugins.face_restorers.values())

    def styles(self) -> Styles:
        """The styles of ``styles.csv``.  Raises RequestError when it is no table of styles."""
        return Styles.read([self.settings.styles_file])

    def save_styles(self, styles: Styles) -> None:
        """Write ``styles.csv``, the one before kept as ``.bak``.  Raises RequestError when that fails."""
        try:
            styles.write(self.settings.styles_file)
        except OSError as error:
            raise RequestError(f"{self.settings.styles_file.name} could not be written: {error.strerror}.") from error

    def problems(self) -> list[str]:
        """Sentences about extensions that were left out or failed."""
        return list(dict.fromkeys([*self.plugins.problems, *self._problems]))

    def extensions_health(self) -> list[dict[str, Any]]:
        """How each extension behaves: on or off, the time of its hooks in server and worker, what went wrong."""
        return self._extensions.told()

    def tabs(self) -> list[Any]:
        """The page's tabs in their order."""
        return list(self.plugins.tabs)

    def read_infotext(self, data: bytes) -> ReadBack:
        """What a picture's text says, as a request; its recipe, when it has one, adds what no text says."""
        texts = read_picture_texts(data)
        if "parameters" not in texts and extras.is_extras(texts.get("recipe", "")):
            raise MetadataError("This picture was made of another one (Extras), which did not tell how it was made.")
        if "recipe" in texts and "parameters" not in texts:
            return ReadBack(request_of_one(Recipe.from_json(texts["recipe"])), {}, (), OURS)
        told = tell(texts)
        if told is None:
            raise MetadataError("The picture carries no parameters; it was not made here, or its text was removed.")
        back = read_back(told, self.plugins, self.library)
        recorded = _recorded(texts.get("recipe", ""))
        if recorded is None:
            return back
        return replace(back, request=completed(back.request, back.start, recorded))

    def read_parameters(self, text: str) -> ReadBack:
        """What a ``parameters`` text, or another program's JSON, says as a request; plugins may add to it."""
        return read_back(tell({"parameters": text}) or Told("", text), self.plugins, self.library)

    def worker_status(self) -> str:
        """One word about the executor."""
        return self.executor.status()

    async def follow(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """The events of a job as they happen; those of a job from before a restart are told from the store."""
        job = await asyncio.to_thread(self.job, job_id)
        if job.state.is_over and not self.events.knows(job_id):
            for event in told_again(job):
                if event.number > after:
                    yield event
            return
        async for event in self.events.follow(job_id, after):
            yield event

    def _queue(self, kind: str, request: Mapping[str, Any], *, pictures: int = 1, picture: str = "") -> Job:
        job = self._ledger.add(kind, request, Progress(pictures=pictures), picture)
        self._share()
        self._wake.set()
        return job

    def _is_busy(self) -> bool:
        """Whether a job is under way or waits, or the program still gets ready for one."""
        running = self.store.wants_pictures() or bool(self.store.in_state(JobState.RUNNING))
        return running or self.executor.status() == "starting"

    def _share(self) -> None:
        """Let trainings wait while pictures are wanted: both compute on the same device."""
        with self._sharing:
            self.trainer.hold(self.store.wants_pictures())

    def _drop(self, digest: str) -> None:
        """Forget a file that was sent to be reproduced, unless a job still needs it."""
        with self._lock:
            if not self.store.needs_picture(digest):
                self._to_reproduce.drop(digest)

    def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                if self._ledger.save_late():
                    self._share()
                self._errands.run()
                job = self.store.next_queued()
                if job is not None:
                    self._compute(job)
                else:
                    self._wake.wait(timeout=60)
            except OutputError as error:
                log.error("%s", error)  # the job list cannot be used: wait for the disk, nothing is lost
                self._wake.wait(timeout=DISK_WAIT_S)

    def _compute(self, job: Job) -> None:
        started = self._ledger.start(job)
        if started is None:
            return
        job = started
        try:
            self._run(job)
        except Exception as error:
            if self._closed:
                self.store.release(job)
                return
            if not isinstance(error, WebUIError):
                log.exception("job %s", job.id)
            sentence = str(error) if isinstance(error, WebUIError) else DEFECT
            self._finish(self._ledger.live(job.id), JobState.FAILED, {"error": sentence})

    def _run(self, job: Job) -> None:
        """Have a job computed; one whose worker was lost to an extension goes on without that extension."""
        blamed: list[str] = []

        def hear(report: Report) -> None:
            if report.kind == "failed" and blamed:
                report = replace(report, data={**report.data, "error": " ".join([*blamed, str(report.data["error"])])})
            self._hear(job.id, report)

        while True:
            try:
                self.executor.run(self._order(self._ledger.live(job.id)), hear)
                return
            except ExtensionCrashError as error:
                blamed.append(str(error))
                self._without(error)
                if job.id in self._unwanted:
                    self._finish(self._ledger.live(job.id), JobState.INTERRUPTED, {})
                    return
            finally:
                self._unwanted.discard(job.id)

    def _order(self, job: Job) -> Order:
        return Order(
            job=job.id,
            kind=job.kind,
            request=job.request,
            done=tuple(output.index for output in job.outputs),
            paths=tuple(output.path for output in job.outputs),
            picture=self.store.picture(job.id),
        )

    def _hear(self, job_id: str, report: Report) -> None:
        job = self._ledger.live(job_id)
        data = dict(report.data)
        if report.kind in ("progress", "preview"):
            self._progress(job, report)
        elif report.kind == "picture":
            output = Output(**data)
            self.store.add_output(job_id, output)
            self._ledger.keep(replace(job, outputs=(*job.outputs, output)))
            self.events.tell(job_id, "picture", data)
        elif report.kind == "request":
            self._ledger.keep(replace(job, request=data))
        elif report.kind == "verdict":
            self._ledger.keep(replace(job, verdict=data))
        elif report.kind in ("problem", "extensions"):
            self._hear_extensions(report)
        elif report.kind == "done":
            self._finish(job, JobState.DONE, dict(job.verdict or {}))
        elif report.kind == "interrupted":
            self._finish(job, JobState.INTERRUPTED, {})
        elif report.kind == "failed":
            self._finish(job, JobState.FAILED, {"error": str(data["error"])})

    def _hear_extensions(self, report: Report) -> None:
        """What is told about extensions, of a job or an errand."""
        if report.kind == "problem":
            self._note_problem(str(report.data["sentence"]))
        elif report.kind == "extensions":
            self._extensions.hear(report.data["reports"])

    def _without(self, error: ExtensionCrashError) -> None:
        """Go on without the extension that the worker was lost to."""
        self._note_problem(str(error))
        self._extensions.switch_off(error.extension, str(error))

    def _progress(self, job: Job, report: Report) -> None:
        progress = Progress(**report.data)
        self._ledger.keep(replace(job, progress=progress))
        if report.kind == "preview":
            with self._lock:
                self._previews[job.id] = (progress.preview, report.blob)
                while len(self._previews) > KEPT_PREVIEWS:
                    self._previews.popitem(last=False)
        self.events.tell(job.id, "preview" if report.kind == "preview" else "step", asdict(progress))

    def _finish(self, job: Job, state: JobState, data: Mapping[str, Any]) -> None:
        if not self._ledger.finish(job, state, data):
            self._wake.set()
            return
        try:
            if job.kind == "reproduce":
                self._drop(self.store.picture(job.id))
            self._share()
        except OutputError as error:
            log.error("%s", error)

    def _note_problem(self, sentence: str) -> None:
        if sentence not in self._problems and len(self._problems) < MAX_PROBLEMS:
            self._problems.append(sentence)


def _recorded(recipe: str) -> GenerationRequest | None:
    """The request of a recipe's picture, None where there is no recipe that can be read."""
    if not recipe or extras.is_extras(recipe):
        return None
    try:
        return request_of_one(Recipe.from_json(recipe))
    except MetadataError:
        return None  # the picture's text is all that is left of it
