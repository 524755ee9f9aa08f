"""What a route of an extension may ask the program for: a few functions, not the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webui.checkpoints.library import ModelEntry
    from webui.conditioning import ConditioningModule
    from webui.engine.engine import Engine
    from webui.engine.jobs import Event, Job
    from webui.plugins.own_settings import OwnSettings
    from webui.preprocessors import Preprocessor
    from webui.result import Pixels


@dataclass(frozen=True, kw_only=True)
class Access:
    """Handed to whoever answers for an extension in the server process.  Every function may be called on any thread.

    - ``submit(body)`` queues a request given as plain values, as ``POST /api/v1/jobs`` takes them; returns the job.
    - ``job(id)`` is a job as it stands now, ``interrupt(id)`` stops it, ``follow(id)`` are its events as they happen.
    - ``output(id)`` is the file of a finished picture (``Job.outputs``).
    - ``models(kind)`` lists the files of a kind ("checkpoint", "lora", "controlnet", …) by name; ``find_model(name,
      kind)`` is the one that a person names; ``refresh()`` looks at the models folder again.
    - ``put_input(data)`` keeps a picture file and returns the SHA-256 by which requests name it; ``input(sha256)`` is
      its file.
    - ``preprocessors()`` and ``modules()`` are what can be used, by name; ``preprocess(name, pixels, options)`` is the
      control picture, (H, W, 3) uint8, that a preprocessor makes.  One with a network waits for the worker.
    - ``settings.settings_of(name)`` and ``settings.cli_of(name)`` are the values of plugins' settings and flags.

    What is not there raises NotFoundError or RequestError, whose sentence a route need not catch: it is the answer.
    """

    submit: Callable[[Any], Job]
    job: Callable[[str], Job]
    interrupt: Callable[[str], None]
    follow: Callable[[str], AsyncIterator[Event]]
    output: Callable[[str], Path]
    models: Callable[[str], Sequence[ModelEntry]]
    find_model: Callable[[str, str], ModelEntry]
    refresh: Callable[[], None]
    put_input: Callable[[bytes], str]
    input: Callable[[str], Path]
    preprocessors: Callable[[], Mapping[str, Preprocessor]]
    modules: Callable[[], Mapping[str, ConditioningModule]]
    settings: OwnSettings
    preprocess: Callable[[str, Pixels, Mapping[str, Any]], Pixels]


def access_to(engine: Engine) -> Access:
    """What may be asked of an engine."""

    return Access(
        submit=engine.submit_plain,
        job=engine.job,
        interrupt=engine.interrupt,
        follow=engine.follow,
        output=engine.output_path,
        models=engine.library.entries,
        find_model=engine.find_model,
        refresh=engine.refresh,
        put_input=engine.put_input,
        input=engine.input_path,
        preprocessors=engine.preprocessors,
        modules=lambda: engine.plugins.conditioning_modules,
        settings=engine.own_settings,
        preprocess=engine.preprocess,
    )
