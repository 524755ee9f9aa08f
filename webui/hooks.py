"""The extension contract on one page: two markers and every hook.

``@hookimpl`` marks a function of an extension that has the name of a hook below; it may take any of the hook's
arguments, by name.  Built-in samplers, families and tabs register through the same hooks.  A hook that raises is
named with its extension and file; the rest of the application goes on.  Examples: ``extensions/README.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from webui.conditioning import ConditioningModule
    from webui.diffusion.schedules import Schedule
    from webui.families import ModelFamily
    from webui.preprocessors import Preprocessor
    from webui.request import GenerationRequest
    from webui.result import Pixels
    from webui.samplers import Sampler
    from webui.ui.tabs import Tab

PROJECT = "webui"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """Every hook.  ``register_*`` runs once at start in each process and returns a list; it must not import torch."""

    @hookspec
    def register_samplers(self) -> Sequence[Sampler]:
        """Return samplers; each appears in the page, the API, the command line and the accuracy tests."""
        raise NotImplementedError

    @hookspec
    def register_schedules(self) -> Sequence[Schedule]:
        """Return noise schedules, offered beside every sampler that takes one."""
        raise NotImplementedError

    @hookspec
    def register_model_families(self) -> Sequence[ModelFamily]:
        """Return model families; the first whose ``detect`` accepts a checkpoint's header builds the model."""
        raise NotImplementedError

    @hookspec
    def register_conditioning_modules(self) -> Sequence[ConditioningModule]:
        """Return conditioning modules: each has an options record and a ``prepare`` that fills openings of the UNet."""
        raise NotImplementedError

    @hookspec
    def register_preprocessors(self) -> Sequence[Preprocessor]:
        """Return preprocessors that turn a picture into a control picture."""
        raise NotImplementedError

    @hookspec
    def register_ui_tabs(self) -> Sequence[Tab]:
        """Return tabs of the page.  Runs in the server process only, before the page is built."""
        raise NotImplementedError

    @hookspec
    def before_job(self, request: GenerationRequest) -> None:
        """Tell that a job starts, with its resolved request.  Worker, once a job; raising does not stop the job."""

    @hookspec
    def rewrite_request(self, request: GenerationRequest) -> GenerationRequest | None:
        """Return a new request instead of the resolved one, or None to leave it.  Worker, once a job.

        What it changes is in the picture's metadata, because the rewritten request is what is recorded.
        """

    @hookspec
    def rewrite_picture(self, pixels: Pixels, request: GenerationRequest, index: int) -> Pixels | None:
        """Return new pixels (H, W, 3) uint8 before the picture is saved, or None.  Worker, once a picture."""

    @hookspec
    def after_job(self, request: GenerationRequest, paths: Sequence[str]) -> None:
        """Tell that a job is done and which files it wrote.  Worker, once a job; raising is reported only."""

    @hookspec
    def write_infotext(self, request: GenerationRequest) -> Mapping[str, str] | None:
        """Return more ``Key: value`` pairs for the picture's ``parameters`` text, or None.  Worker, once a picture."""

    @hookspec
    def read_infotext(self, fields: Mapping[str, str], request: dict[str, Any]) -> None:
        """Change ``request`` (plain values as in ``GenerationRequest.to_dict``) by the text's ``fields``.

        Server, each time a picture's text is read into the form.
        """
