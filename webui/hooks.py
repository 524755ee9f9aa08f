"""The extension contract on one page: two markers and every hook.

``@hookimpl`` marks a function of an extension that has the name of a hook below; it may take any of the hook's
arguments, by name.  Built-in samplers, families and tabs register through the same hooks.  A hook that raises is named
with its extension and file; the rest of the application goes on.  Examples: ``extensions/README.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from webui.api.extending import ApiRoutes
    from webui.conditioning import ConditioningModule
    from webui.diffusion.schedules import Schedule
    from webui.faces import FaceRestorer
    from webui.families import ModelFamily
    from webui.metadata.fields import InfotextField
    from webui.plugins.own_settings import CliOptions, OwnSettings, SettingsSection
    from webui.preprocessors import Preprocessor
    from webui.request import GenerationRequest
    from webui.result import Pixels
    from webui.samplers import Sampler
    from webui.scripts import Script
    from webui.training.kinds import TrainingKind
    from webui.ui.panels import Panel
    from webui.ui.tabs import Tab
    from webui.upscalers import Upscaler

PROJECT = "webui"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
API_VERSION = 1
"""The version of this contract.  It rises when a hook goes, or changes what it is given or must return."""


class Hooks:
    """Every hook.

    ``register_*`` hooks run once at start, in the server process and in the worker process (some in the server alone,
    as they say), and must not import torch.  One that raises registers nothing; of two things of one name the first
    stays.  The others run in order: built-in parts, then the extensions by name.
    """

    @hookspec
    def register_samplers(self) -> Sequence[Sampler]:
        """Return samplers; each appears in the page, the API, the command line and the picture's text.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_schedules(self) -> Sequence[Schedule]:
        """Return noise schedules, offered beside every sampler that takes one.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_model_families(self) -> Sequence[ModelFamily]:
        """Return model families; the first whose ``detect`` accepts a checkpoint's header builds the model.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_conditioning_modules(self) -> Sequence[ConditioningModule]:
        """Return conditioning modules: each has an options record and a ``prepare`` that fills openings of the UNet.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_preprocessors(self) -> Sequence[Preprocessor]:
        """Return preprocessors, which turn a picture into a control picture when a conditioning module asks for it.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_upscalers(self) -> Sequence[Upscaler]:
        """Return upscalers, which make a picture or a latent larger for the second pass and for Extras.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_face_restorers(self) -> Sequence[FaceRestorer]:
        """Return face restorers, which mend the faces of a finished picture.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_scripts(self) -> Sequence[Script]:
        """Return scripts, each of which makes several requests of one, and says how their pictures are laid out.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_training_kinds(self) -> Sequence[TrainingKind]:
        """Return kinds of training: each says which tensors learn, what the loss of a batch is, what file comes out.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_infotext_fields(self) -> Sequence[InfotextField]:
        """Return keys of the picture's ``parameters`` text, each with the field of the request that it stands for.

        Server and worker, once at start.  Raising registers nothing; a value that cannot be read changes nothing and is
        listed.
        """
        raise NotImplementedError

    @hookspec
    def register_settings(self) -> Sequence[SettingsSection]:
        """Return settings that stay from one start to the next: a section of the Settings tab, made from a record.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_cli_options(self) -> Sequence[CliOptions]:
        """Return flags of ``python launch.py`` and ``webui serve``: a group of ``--help``, made from a record.

        Server and worker, once at start; ``--help`` asks, too.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_ui_tabs(self) -> Sequence[Tab]:
        """Return tabs of the page.

        Server alone, once at start, before the page is built.  Raising registers nothing; a tab whose ``build`` raises
        is left empty, with a sentence in it.
        """
        raise NotImplementedError

    @hookspec
    def register_ui_panels(self) -> Sequence[Panel]:
        """Return panels below the settings of txt2img, img2img or Extras: buttons and viewers, closed at first.

        Server alone, once at start, before the page is built.  Raising registers nothing; a panel whose ``build``
        raises leaves a sentence in its place.
        """
        raise NotImplementedError

    @hookspec
    def register_api_routes(self) -> Sequence[ApiRoutes]:
        """Return routes of the web server: a prefix, and a function that makes the FastAPI router below it.

        Server alone, once at start, before the page is built.  Raising registers nothing.  A prefix that the program,
        its page or another extension answers is refused; a route that raises answers 500 with a sentence that names
        the extension.
        """
        raise NotImplementedError

    @hookspec
    def before_job(self, request: GenerationRequest, settings: OwnSettings) -> None:
        """Tell that a job starts.

        ``request`` is the resolved and rewritten request, ``settings`` are those of plugins as the job begins.  Worker,
        once a job.  Raising does not stop the job.
        """

    @hookspec
    def rewrite_request(self, request: GenerationRequest) -> GenerationRequest | None:
        """Return a new request, or None to leave it.

        ``request`` is resolved: no field is left random or "default".  What the hook changes is in the picture's
        metadata, because the rewritten request is what is recorded; a reproduction starts from it and does not run the
        hook again.  Worker, once a job.  Raising, or returning anything else, leaves the request as it is.
        """

    @hookspec
    def rewrite_picture(self, pixels: Pixels, request: GenerationRequest, index: int) -> Pixels | None:
        """Return new pixels for a finished picture, or None to leave it.

        ``pixels`` is (H, W, 3) uint8 and read-only; return an array of the same kind, of any height and width.
        ``index`` counts from 0 over the job.  Worker, once a picture before it is saved, and again when it is
        reproduced.  Raising, or returning anything else, leaves the picture as it is.
        """

    @hookspec
    def after_job(self, request: GenerationRequest, paths: Sequence[str], settings: OwnSettings) -> None:
        """Tell that a job is done.

        ``paths`` are the files it wrote, in order, ``settings`` those of plugins as the job began.  Worker, once a job
        that came to its end or was interrupted, not one that failed.  Raising is reported and changes nothing.
        """

    @hookspec
    def write_infotext(self, request: GenerationRequest) -> Mapping[str, str] | None:
        """Return more ``Key: value`` pairs for the picture's ``parameters`` text, or None.

        Worker, once a picture.  Raising, or returning anything else, adds nothing.
        """

    @hookspec
    def read_infotext(self, fields: Mapping[str, str], request: dict[str, Any]) -> None:
        """Change ``request`` by what a picture's ``parameters`` text says.

        ``fields`` are the text's ``Key: value`` pairs, ``request`` the plain values of
        ``GenerationRequest.to_dict``, to be changed in place.  Server, each time a picture's text is read into a form.
        Raising, or leaving values that no request can have, undoes what this hook changed.
        """
