"""A training from its request to the finished file: reads the pictures, loads the base, runs, exports.

Called by the engine's training process and by the command line, which hear its moments.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch import Tensor

from webui import families
from webui.checkpoints.formats import WeightsFile
from webui.checkpoints.hashes import file_sha256
from webui.checkpoints.library import Library
from webui.device import Compute
from webui.errors import JobCancelled, unknown_name
from webui.families import ModelFamily, find_family
from webui.preprocessors import Preprocessor
from webui.training import state
from webui.training.data import DataSet, read_data
from webui.training.export import TrainingRecipe, export, option_files, require_free
from webui.training.kinds import Materials, Task, TrainingKind, read_options
from webui.training.loop import POLL_S, Run, Wishes
from webui.training.moments import LeftOut, Moment, Phase
from webui.training.order import Order
from webui.training.request import TrainingRequest

CHECKED_AT_ONCE = 256
TELL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run takes place: its own folder, the models, and what is registered."""

    folder: Path
    library: Library
    kinds: Mapping[str, TrainingKind]
    families: Mapping[str, ModelFamily]
    compute: Compute
    preprocessors: Mapping[str, Preprocessor] = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """Where latents are kept, for all runs."""
        return self.folder.parent / ".cache"


def teach(request: TrainingRequest, place: Place, wishes: Wishes) -> Iterator[Moment]:
    """The moments of a run; one that was stopped goes on when it is taught again in the same folder.

    Raises errors for people: RequestError (settings, pictures), CheckpointError (files), OutputError (disk),
    TrainingError (the loss is no number any more, or another trainer works in that folder).
    """
    with state.only_trainer(place.folder):
        yield from _taught(request, place, wishes)


def _taught(request: TrainingRequest, place: Place, wishes: Wishes) -> Iterator[Moment]:
    kind, options = kind_of(request, place.kinds)
    entry = place.library.find(request.checkpoint)
    file = place.library.formats.open(entry.path)
    yield Phase("reading the pictures")
    data = read_data(request.data, training_size(request, file, place), captions=kind.needs_captions)
    digest = data.digest
    checked, sentences = _checked(data, digest, place.cache, wishes)
    if sentences:
        yield LeftOut(sentences)
    if wishes.stop():
        return
    base_sha256 = place.library.sha256(entry)
    compute = _compute(request, place.compute)
    files = {name: file_sha256(path) for name, path in option_files(request).items()}
    identity = state.identity(request, digest, base_sha256, files, compute)
    target = place.library.root / place.library.folders[kind.folder][0]
    made = TrainingRecipe(request, digest, len(checked.items), entry.name, base_sha256, request.steps)
    require_free(target / f"{request.name}.safetensors", made)
    yield Phase("loading the model")
    model = families.load(file, place.families, replace(compute, dtype=torch.float32, vae_dtype=torch.float32))
    told: SimpleQueue[str] = SimpleQueue()
    materials = Materials(
        request=request,
        data=checked,
        model=model,
        base=file,
        base_sha256=base_sha256,
        families=place.families,
        preprocessors=place.preprocessors,
        compute=compute,
        cache=place.cache,
        formats=place.library.formats,
        tell=lambda text: _tell(told, text, wishes),
    )
    task = yield from _begun(kind, options, materials, told)
    if task is None:
        return
    order = Order.of(checked.items, request.batch_size, request.seed)

    def write(trained: Mapping[str, Tensor], step: int) -> Path:
        suffix = "" if step == request.steps else f"-{step:06d}"
        return export(target / f"{request.name}{suffix}.safetensors", task.weights(trained), replace(made, steps=step))

    run = Run(
        request=request,
        task=task,
        order=order,
        folder=place.folder,
        identity=identity,
        export=write,
        threads=compute.threads,
    )
    yield Phase("training")
    yield from run.go(wishes)


def kind_of(request: TrainingRequest, kinds: Mapping[str, TrainingKind]) -> tuple[TrainingKind, Any]:
    """The kind that a request names, and its options record.  Raises RequestError."""
    if request.kind not in kinds:
        raise unknown_name("kind of training", request.kind, kinds)
    kind = kinds[request.kind]
    return kind, read_options(kind, request.options)


def training_size(request: TrainingRequest, file: WeightsFile, place: Place) -> int:
    """The side in pixels that pictures are shown at: the request's, else the model's own."""
    if request.data.size is not None:
        return request.data.size
    family = find_family(file.header, place.families)
    return family.native_size(file.header) if family else 512


def _checked(data: DataSet, digest: str, cache: Path, wishes: Wishes) -> tuple[DataSet, tuple[str, ...]]:
    """The data without pictures that do not decode; what was found out is kept for the next time."""
    path = cache / f"checked-{digest[:20]}.json"
    known = _known_bad(path)
    bad = known or {}
    if known is None:
        with ThreadPoolExecutor() as threads:
            for start in range(0, len(data.items), CHECKED_AT_ONCE):
                if wishes.stop():
                    return data, data.left_out
                part = range(start, min(start + CHECKED_AT_ONCE, len(data.items)))
                bad |= {index: found for index, found in zip(part, threads.map(data.check, part), strict=True) if found}
        state.write_whole(path, json.dumps(bad).encode())
    checked = data.without(bad) if bad else data
    return checked, checked.left_out


def _known_bad(path: Path) -> dict[int, str] | None:
    """What an earlier run found out, None when there was none or its file is not whole."""
    try:
        return {int(index): str(sentence) for index, sentence in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return None


def _compute(request: TrainingRequest, compute: Compute) -> Compute:
    """Where and in what dtype the networks compute: as the request says, else bf16 where generation would not be fp32.

    fp16 has too little range for gradients without scaling them; bf16 has that of fp32.
    """
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}.get(request.precision)
    if wanted is None:
        wanted = torch.float32 if compute.dtype is torch.float32 else torch.bfloat16
    return replace(compute, dtype=wanted, vae_dtype=wanted)


def _begun(
    kind: TrainingKind, options: Any, materials: Materials, told: SimpleQueue[str]
) -> Generator[Moment, None, Task | None]:
    """Make the task, telling its phases meanwhile; None when it was stopped."""
    with ThreadPoolExecutor(1) as thread:
        making = thread.submit(kind.begin, options, materials)
        while not making.done() or not told.empty():
            with suppress(Empty):
                yield Phase(told.get(timeout=TELL_S))
    try:
        return making.result()
    except JobCancelled:
        return None


def _tell(told: SimpleQueue[str], text: str, wishes: Wishes) -> None:
    while wishes.pause() and not wishes.stop():
        time.sleep(POLL_S)
    if wishes.stop():
        raise JobCancelled
    told.put(text)
