"""The engine: the job queue, the models folder and the plugins, behind one object that page, API and CLI call.

Imports no torch: networks are computed behind an :class:`Executor`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.diffusion.schedules import Schedule
from webui.engine.catalogue import CheckpointEntry, with_advice
from webui.engine.events import Events
from webui.engine.executor import Executor, Order, Report
from webui.engine.inputs import InputStore, reproduction_store
from webui.engine.jobs import Event, Job, JobState, Output, Progress
from webui.engine.outputs import OutputFolder
from webui.engine.resolve import read_back, resolve
from webui.engine.store import JobStore
from webui.errors import DEFECT, MetadataError, NotFoundError, OutputError, RequestError, WebUIError
from webui.images.pixels import read_pixels
from webui.metadata import infotext
from webui.metadata.files import read_picture_texts
from webui.metadata.recipe import Recipe, request_of_one
from webui.plugins.manager import DROP_IN_PACKAGES, MAX_PROBLEMS, TAB_PACKAGE, Plugins
from webui.request import GenerationRequest
from webui.samplers import Sampler
from webui.settings import Settings

log = logging.getLogger(__name__)

SERVER_PACKAGES = (*DROP_IN_PACKAGES, TAB_PACKAGE)
KEPT_PREVIEWS = 50
DISK_WAIT_S = 5.0
TOLD_AGAIN = 10**15
"""Event numbers of a job told from the store begin here.

Those of a job taken up again after a restart begin at the time in milliseconds: also above all that came before.
"""


@dataclass
class Engine:
    """Jobs wait in the store; one thread hands them to the executor and records what it hears."""

    settings: Settings
    executor: Executor
    plugins: Plugins
    library: Library
    store: JobStore
    inputs: InputStore
    events: Events = field(default_factory=Events)

    def __post_init__(self) -> None:
        self._live: OrderedDict[str, Job] = OrderedDict()
        self._unsaved: dict[str, Job] = {}
        self._thread: threading.Thread | None = None
        self._previews: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = False
        self._problems: list[str] = []
        self._to_reproduce = reproduction_store(self.settings)

    @classmethod
    def create(cls, settings: Settings, executor: Executor) -> Engine:
        """An engine on the folders of the settings, with the job list of an earlier run taken up again."""
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        plugins = Plugins.load(settings.extensions_dir if settings.load_extensions else None, packages=SERVER_PACKAGES)
        library = Library(settings.models_dir, HashCache(settings.state_dir / "hashes.sqlite3"))
        store = JobStore(settings.state_dir / "jobs.sqlite3")
        return cls(settings, executor, plugins, library, store, InputStore(settings.state_dir / "inputs"))

    def start(self) -> None:
        """Take up unfinished jobs, load the default model, and begin to work."""
        OutputFolder(self.settings.outputs_dir).clean()
        for job in self.store.recover():
            log.warning("job %s: %s", job.id, job.error)
        for job in self.store.in_state(JobState.QUEUED):
            self.events.begin(job.id, int(time.time() * 1000))
            self.events.tell(job.id, "queued", asdict(job.progress))
            for output in job.outputs:
                self.events.tell(job.id, "picture", asdict(output))
        for digest in self._to_reproduce.digests():
            self._drop(digest)
        self.executor.warm_up()
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop working.  A job under way goes back into the queue for the next start."""
        self._closed = True
        self._wake.set()
        self.executor.close()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self.store.close()

    def submit(self, request: GenerationRequest) -> Job:
        """Queue a request.  Raises RequestError when it names something that is not here."""
        try:
            resolved = resolve(request, self.plugins, self.library)
        except RequestError:
            self.library.refresh()
            resolved = resolve(request, self.plugins, self.library)
        if resolved.start is not None:
            self.inputs.path(resolved.start.image)
            if resolved.start.mask is not None:
                self.inputs.path(resolved.start.mask.image)
        return self._queue("generate", resolved.to_dict(), pictures=resolved.pictures)

    def submit_plain(self, body: Any) -> Job:
        """Queue a request given as plain values; what they leave out is as the model recommends, as on the page.

        Raises RequestError as :meth:`submit` and ``GenerationRequest.from_dict`` do.
        """
        named = body.get("checkpoint") if isinstance(body, Mapping) else None
        if isinstance(body, Mapping) and isinstance(named, str | None):
            with suppress(RequestError, NotFoundError):  # a checkpoint that is not here: submit says so
                body = with_advice(body, CheckpointEntry(self.library.find(named), self.plugins))
        return self.submit(GenerationRequest.from_dict(body))

    def reproduce(self, data: bytes, filename: str) -> Job:
        """Queue the reproduction of a picture file.  Raises MetadataError or PictureError when it tells nothing."""
        read_pixels(data)
        texts = read_picture_texts(data)
        if "recipe" in texts:
            request = request_of_one(Recipe.from_json(texts["recipe"])).to_dict()
        elif "parameters" in texts:
            request = replace(self.read_parameters(texts["parameters"]).request, batch_size=1, batch_count=1).to_dict()
        else:
            raise MetadataError(f"{filename} carries no recipe and no parameters, so it does not tell how it was made.")
        with self._lock:  # another job about the same file does not drop it in between
            return self._queue("reproduce", request, picture=self._to_reproduce.put(data))

    def job(self, job_id: str) -> Job:
        """A job as it stands now.  Raises NotFoundError."""
        with self._lock:
            live = self._live.get(job_id)
        job = live or self.store.job(job_id)
        return self._placed(job)

    def jobs(self, limit: int = 50) -> list[Job]:
        """The newest jobs first."""
        with self._lock:
            live = dict(self._live)
        return [self._placed(live.get(job.id, job)) for job in self.store.recent(limit)]

    def active(self) -> list[Job]:
        """The running job, then the queued ones in order."""
        found = self.store.in_state(JobState.RUNNING, JobState.QUEUED)
        running = [self.job(job.id) for job in found if job.state is JobState.RUNNING]
        queued = [job for job in found if job.state is JobState.QUEUED]
        return [job for job in running if not job.state.is_over] + [
            replace(job, ahead=len(running) + number) for number, job in enumerate(queued)
        ]

    def interrupt(self, job_id: str) -> None:
        """Stop a running job between two steps, or take a queued one out of the queue.  Raises NotFoundError."""
        with self._lock:
            job = self.job(job_id)
            if job.state is JobState.QUEUED:
                self._finish(job, JobState.INTERRUPTED, {})
                return
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

    def refresh(self) -> None:
        """Look at the models folder again."""
        self.library.refresh()

    def samplers(self) -> list[Sampler]:
        """Every sampler, DPM++ 2M first as AUTOMATIC1111 has it."""
        first = GenerationRequest().sampling.sampler
        return sorted(self.plugins.samplers.values(), key=lambda sampler: (sampler.name != first, sampler.name))

    def schedules(self) -> list[Schedule]:
        """Every schedule, in the order of registration."""
        return list(self.plugins.schedules.values())

    def problems(self) -> list[str]:
        """Sentences about extensions that were left out or failed."""
        return list(dict.fromkeys([*self.plugins.problems, *self._problems]))

    def tabs(self) -> list[Any]:
        """The page's tabs in their order."""
        return list(self.plugins.tabs)

    def read_infotext(self, data: bytes) -> infotext.ReadBack:
        """What a picture's text says, as a request: its recipe when it has one, else its parameters."""
        texts = read_picture_texts(data)
        if "recipe" in texts and "parameters" not in texts:
            return infotext.ReadBack(request_of_one(Recipe.from_json(texts["recipe"])), {}, ())
        if "parameters" not in texts:
            raise MetadataError("The picture carries no parameters; it was not made here, or its text was removed.")
        return self.read_parameters(texts["parameters"])

    def read_parameters(self, text: str) -> infotext.ReadBack:
        """What a ``parameters`` text says, as a request; plugins may add to it."""
        return read_back(infotext.parse(text), self.plugins)

    def worker_status(self) -> str:
        """One word about the executor."""
        return self.executor.status()

    async def follow(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """The events of a job as they happen; those of a job from before a restart are told from the store."""
        job = await asyncio.to_thread(self.job, job_id)
        if job.state.is_over and not self.events.knows(job_id):
            for event in _told_again(job):
                if event.number > after:
                    yield event
            return
        async for event in self.events.follow(job_id, after):
            yield event

    def _queue(self, kind: str, request: Mapping[str, Any], *, pictures: int = 1, picture: str = "") -> Job:
        job = Job(
            id=uuid.uuid4().hex,
            kind=kind,
            state=JobState.QUEUED,
            request=request,
            progress=Progress(pictures=pictures),
            created=time.time(),
        )
        self.store.add(job, picture)
        self.events.tell(job.id, "queued", asdict(job.progress))
        self._wake.set()
        return self.job(job.id)

    def _placed(self, job: Job) -> Job:
        """The job with its place in the queue."""
        return replace(job, ahead=self.store.ahead(job.id)) if job.state is JobState.QUEUED else job

    def _drop(self, digest: str) -> None:
        """Forget a file that was sent to be reproduced, unless a job still needs it."""
        with self._lock:
            if not self.store.needs_picture(digest):
                self._to_reproduce.drop(digest)

    def _work(self) -> None:
        while not self._closed:
            self._wake.clear()
            try:
                self._save_late()
                job = self.store.next_queued()
                if job is not None:
                    self._compute(job)
                else:
                    self._wake.wait(timeout=60)
            except OutputError as error:
                log.error("%s", error)  # the job list cannot be used: wait for the disk, nothing is lost
                self._wake.wait(timeout=DISK_WAIT_S)

    def _save_late(self) -> None:
        """Record how jobs ended that could not be recorded then."""
        for job in list(self._unsaved.values()):
            self.store.save(job)
            del self._unsaved[job.id]

    def _compute(self, job: Job) -> None:
        with self._lock:
            if self.store.job(job.id).state is not JobState.QUEUED:
                return
            job = replace(job, state=JobState.RUNNING, started=time.time(), ahead=0)
            self.store.begin(job)
            self._keep(job)
        self.events.tell(job.id, "started", asdict(job.progress))
        order = Order(
            job=job.id,
            kind=job.kind,
            request=job.request,
            done=tuple(output.index for output in job.outputs),
            picture=self.store.picture(job.id),
        )
        try:
            self.executor.run(order, lambda report: self._hear(job.id, report))
        except Exception as error:
            if self._closed:
                self.store.release(job)
                return
            if not isinstance(error, WebUIError):
                log.exception("job %s", job.id)
            sentence = str(error) if isinstance(error, WebUIError) else DEFECT
            self._finish(self._live[job.id], JobState.FAILED, {"error": sentence})

    def _hear(self, job_id: str, report: Report) -> None:
        job = self._live[job_id]
        data = dict(report.data)
        if report.kind in ("progress", "preview"):
            self._progress(job, report)
        elif report.kind == "picture":
            output = Output(**data)
            self.store.add_output(job_id, output)
            self._keep(replace(job, outputs=(*job.outputs, output)))
            self.events.tell(job_id, "picture", data)
        elif report.kind == "request":
            self._keep(replace(job, request=data))
        elif report.kind == "verdict":
            self._keep(replace(job, verdict=data))
        elif report.kind == "problem":
            if data["sentence"] not in self._problems and len(self._problems) < MAX_PROBLEMS:
                self._problems.append(str(data["sentence"]))
        elif report.kind == "done":
            self._finish(job, JobState.DONE, dict(job.verdict or {}))
        elif report.kind == "interrupted":
            self._finish(job, JobState.INTERRUPTED, {})
        elif report.kind == "failed":
            self._finish(job, JobState.FAILED, {"error": str(data["error"])})

    def _progress(self, job: Job, report: Report) -> None:
        progress = Progress(**report.data)
        self._keep(replace(job, progress=progress))
        if report.kind == "preview":
            with self._lock:
                self._previews[job.id] = (progress.preview, report.blob)
                while len(self._previews) > KEPT_PREVIEWS:
                    self._previews.popitem(last=False)
        self.events.tell(job.id, "preview" if report.kind == "preview" else "step", asdict(progress))

    def _finish(self, job: Job, state: JobState, data: Mapping[str, Any]) -> None:
        progress = replace(job.progress, eta_s=None, phase=state.value)
        job = replace(job, state=state, error=data.get("error"), finished=time.time(), ahead=0, progress=progress)
        self._keep(job)
        try:
            self.store.save(job)
            if job.kind == "reproduce":
                self._drop(self.store.picture(job.id))
        except OutputError as error:
            log.error("%s", error)
            self._unsaved[job.id] = job
            self._wake.set()
        self.events.tell(job.id, state.value, data)

    def _keep(self, job: Job) -> None:
        with self._lock:
            self._live[job.id] = job
            self._live.move_to_end(job.id)
            over = [kept.id for kept in self._live.values() if kept.state.is_over and kept.id not in self._unsaved]
            for old in over[: max(len(self._live) - KEPT_PREVIEWS, 0)]:
                del self._live[old]


def _told_again(job: Job) -> list[Event]:
    """The events that matter of a job that is over, from its record.

    Their numbers are above all that were told while it ran: a listener that resumes hears how it ended.
    """
    pictures = [
        Event(job.id, TOLD_AGAIN + number, "picture", asdict(output)) for number, output in enumerate(job.outputs)
    ]
    data: dict[str, Any] = {"error": job.error} if job.error else dict(job.verdict or {})
    return [*pictures, Event(job.id, TOLD_AGAIN + len(pictures), job.state.value, data)]
