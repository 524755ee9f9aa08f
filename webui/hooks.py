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
    from torch import Tensor

    from webui.api.extending import ApiRoutes
    from webui.checkpoints.loaders import Loader
    from webui.conditioning import ConditioningModule
    from webui.conditioning.extra_networks import ExtraNetworkKind
    from webui.diffusion.guidance import Guiding, NetworkCall
    from webui.diffusion.schedules import Schedule
    from webui.faces import FaceRestorer
    from webui.families import ModelFamily
    from webui.metadata.fields import InfotextField
    from webui.networks.attention_kinds import AttentionKind
    from webui.pipeline.moments import Stepped
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
    def register_loaders(self) -> Sequence[Loader]:
        """Return forms of model files: each knows its files by their beginning, and reads their header and tensors.

        Server and worker, once at start.  Raising registers nothing; a file whose loader raises, or whose tensors are
        not those of its header, is refused with a sentence that names the extension.
        """
        raise NotImplementedError

    @hookspec
    def register_conditioning_modules(self) -> Sequence[ConditioningModule]:
        """Return conditioning modules: each has an options record and a ``prepare`` that fills openings of the UNet.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_extra_network_kinds(self) -> Sequence[ExtraNetworkKind]:
        """Return kinds of networks: each adds a word to the tags of a prompt, as in ``<word:name:arguments>``.

        Server and worker, once at start.  Raising registers nothing.  A word that is taken, as ``lora`` and
        ``hypernet`` are, is refused with a sentence that names both plugins; a ``prepare`` that raises, or gives no
        contribution, fails the job with one that names the extension.
        """
        raise NotImplementedError

    @hookspec
    def register_preprocessors(self) -> Sequence[Preprocessor]:
        """Return preprocessors, which turn a picture into a control picture when a conditioning module asks for it.

        Server and worker, once at start.  Raising registers nothing.
        """
        raise NotImplementedError

    @hookspec
    def register_attention_kinds(self) -> Sequence[AttentionKind]:
        """Return ways to compute attention, which ``--attention`` chooses by name.

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
    def rewrite_prompt(self, prompt: str, negative: bool, request: GenerationRequest) -> str | None:
        """Return a new prompt, or None to leave it.

        Asked for the prompt and, with ``negative``, for the negative one, after ``rewrite_request``; what comes back is
        recorded as the request's own.  Worker, once a job for each of the two.  Raising, or returning anything else,
        leaves the prompt as it is.
        """

    @hookspec
    def before_batch(self, request: GenerationRequest, indices: Sequence[int]) -> None:
        """Tell that the pictures ``indices`` of a job are about to be made together.

        Worker, once for each such group.  Raising is reported and changes nothing.
        """

    @hookspec
    def rewrite_noise(self, noise: Tensor, request: GenerationRequest, indices: Sequence[int]) -> Tensor | None:
        """Return new initial noise, or None to leave it.

        ``noise`` is (B, C, h, w) of unit variance, row j for picture ``indices[j]``; return a tensor of the same shape
        and dtype.  Worker, once a pass of each batch.  Raising, or returning anything else, leaves the noise as it is.
        """

    @hookspec
    def rewrite_start(
        self, latent: Tensor, sigmas: Sequence[float], request: GenerationRequest, indices: Sequence[int]
    ) -> Tensor | None:
        """Return the noisy latent that sampling begins with, or None to leave it.

        ``latent`` is (B, C, h, w) under noise of deviation ``sigmas[0]``; ``sigmas`` are all levels of the walk.
        Worker, once a pass of each batch, before its first step.  Raising, or returning anything else, leaves the
        latent as it is.
        """

    @hookspec
    def rewrite_call(self, call: NetworkCall, request: GenerationRequest) -> NetworkCall | None:
        """Return another question to the network, or None to leave it.

        ``call`` holds the scaled latents, the timestep, the contexts and which rows have the prompt; never change its
        tensors in place.  What comes back has the same shapes and types; a context may have other tokens.  Worker, once
        each call of the UNet.  Raising, or returning anything else, leaves the call as it is.
        """

    @hookspec
    def rewrite_guided(self, guiding: Guiding, request: GenerationRequest) -> Tensor | None:
        """Return what is made of the answers with and without the prompt, or None to leave it.

        ``guiding`` has both answers, the CFG scale and what was made of them so far, all (B, C, h, w) clean latents.
        Worker, once each call of the denoiser.  Raising, or returning anything else, leaves the result as it is.
        """

    @hookspec
    def rewrite_denoised(self, denoised: Tensor, sigma: float, request: GenerationRequest) -> Tensor | None:
        """Return a new clean latent, or None to leave it.

        ``denoised`` (B, C, h, w) is what the guided model sees at noise level ``sigma``, before the sampler goes on
        from it.  Worker, once each call of the denoiser.  Raising, or returning anything else, leaves it as it is.
        """

    @hookspec
    def rewrite_blend(
        self, blended: Tensor, original: Tensor, mask: Tensor, level: float, request: GenerationRequest
    ) -> Tensor | None:
        """Return how a masked latent is put together, or None to leave it.

        ``blended`` (B, C, h, w) was made of the new latent where ``mask`` (1, 1, h, w) is 1 and of ``original`` where
        it is 0; ``level`` is the noise level, a timestep for samplers on timesteps.  Worker, once each call of the
        denoiser in inpainting.  Raising, or returning anything else, leaves it as it is.
        """

    @hookspec
    def step_done(self, step: Stepped, request: GenerationRequest) -> None:
        """Tell that a sampling step is done.

        ``step`` has the pictures' indices, the step's number, how many there are, and the clean latent (B, C, h, w).
        Worker, once a step of each batch.  Raising is reported and changes nothing.
        """

    @hookspec
    def rewrite_second_start(self, latent: Tensor, request: GenerationRequest, indices: Sequence[int]) -> Tensor | None:
        """Return the enlarged latent that the second pass begins with, or None to leave it.

        ``latent`` (B, C, h, w) is clean; ``request`` is that of the second pass.  Worker, once a batch with a second
        pass.  Raising, or returning anything else, leaves it as it is.
        """

    @hookspec
    def rewrite_latent(self, latent: Tensor, request: GenerationRequest, index: int) -> Tensor | None:
        """Return a new finished latent, or None to leave it.

        ``latent`` (1, C, h, w) is about to be decoded.  Worker, once a picture.  Raising, or returning anything else,
        leaves it as it is.
        """

    @hookspec
    def rewrite_decoded(self, pixels: Pixels, request: GenerationRequest, index: int) -> Pixels | None:
        """Return new pixels of a picture that was just decoded, or None to leave it.

        ``pixels`` is (H, W, 3) uint8, read-only, as the VAE made it: before faces are restored, colours corrected and
        what lies outside a mask is pasted back; the size must stay.  Worker, once a picture.  Raising, or returning
        anything else, leaves it as it is.
        """

    @hookspec
    def rewrite_picture(self, pixels: Pixels, request: GenerationRequest, index: int) -> Pixels | None:
        """Return new pixels for a finished picture, or None to leave it.

        ``pixels`` is (H, W, 3) uint8 and read-only; return an array of the same kind, of any height and width.
        ``index`` counts from 0 over the job.  Worker, once a picture before it is saved, and again when it is
        reproduced.  Raising, or returning anything else, leaves the picture as it is.
        """

    @hookspec
    def after_batch(self, request: GenerationRequest, indices: Sequence[int]) -> None:
        """Tell that the pictures ``indices`` of a job are made.

        Worker, once for each group that ``before_batch`` announced and that was not interrupted or skipped.  Raising is
        reported and changes nothing.
        """

    @hookspec
    def before_save(self, pixels: Pixels, infotext: str, request: GenerationRequest, index: int) -> None:
        """Tell that a picture is about to be saved.

        ``pixels`` is (H, W, 3) uint8 and read-only, ``infotext`` its ``parameters`` text.  Worker, once a picture.
        Raising is reported, and the picture is saved.
        """

    @hookspec
    def after_save(self, path: str, infotext: str, request: GenerationRequest, index: int) -> None:
        """Tell that a picture is saved.

        ``path`` is its file, already complete on the disk.  Worker, once a picture.  Raising is reported and changes
        nothing.
        """

    @hookspec
    def rewrite_grid(self, pixels: Pixels, request: GenerationRequest) -> Pixels | None:
        """Return a new overview of a script's pictures, or None to leave it.

        ``pixels`` is (H, W, 3) uint8 and read-only; return an array of the same kind, of any height and width.
        Worker, once a sheet of a scripted job.  Raising, or returning anything else, leaves it as it is.
        """

    @hookspec
    def after_job(self, request: GenerationRequest, paths: Sequence[str], settings: OwnSettings) -> None:
        """Tell that a job is done.

        ``paths`` are the files it wrote, in order, ``settings`` those of plugins as the job began.  Worker, once a job
        that came to its end or was interrupted, not one that failed.  Raising is reported and changes nothing.
        """

    @hookspec
    def progress(self, phase: str, step: int, steps: int, request: GenerationRequest) -> None:
        """Tell how far a job is.

        ``phase`` is what is done now, such as ``sampling``; ``step`` of ``steps`` counts over the whole job.  Worker,
        once for each change that the page is told of.  Raising is reported and changes nothing.
        """

    @hookspec
    def shutdown(self) -> None:
        """Tell that the program ends.

        Worker and server, once each, when they end orderly.  Raising is reported and changes nothing.
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
