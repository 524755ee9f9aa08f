"""Computes jobs: the code that runs in the worker process, on the command line and in tests.

Holds the loaded model.  Everything else it needs comes with the order.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from webui import __version__, device
from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library, ModelEntry
from webui.conditioning import Contribution, Encode, Pictures
from webui.conditioning.extra_networks import HOOK as NETWORK_KINDS
from webui.conditioning.modules import options_of
from webui.device import Compute
from webui.engine import errands, extras
from webui.engine.contributions import checked
from webui.engine.control_pictures import ControlPictures, registered
from webui.engine.executor import Control, Order, Report, Tell
from webui.engine.extra_files import EMBEDDING, ExtraFiles, NetworkUses
from webui.engine.inputs import InputStore, reproduction_store
from webui.engine.job_files import KINDS, VAE, JobFiles, Recorded
from webui.engine.jobs import Output
from webui.engine.models import LoadedModels
from webui.engine.outputs import OutputFolder
from webui.engine.picture_tools import PictureTools
from webui.engine.plugin_settings import open_options, own_settings
from webui.engine.preparing import Preparation
from webui.engine.preprocessing import Preprocessing
from webui.engine.progress import Clock, Previews
from webui.engine.reproduce import Reproduction
from webui.engine.resolve import as_recorded, resolve, styled, uncommented, walks
from webui.engine.scripted import ScriptRun
from webui.errors import DEFECT, NotFoundError, RequestError, WebUIError
from webui.images.masks import MaskPixels, read_mask
from webui.images.pixels import check_size, read_pixels, unwritable
from webui.metadata import module_texts, writing
from webui.metadata.files import encode_picture, pixel_digest
from webui.metadata.recipe import Recipe, input_digests
from webui.metadata.verdict import Verdict
from webui.model import Model
from webui.networks.attention import attention_kind
from webui.networks.attention_kinds import AUTO
from webui.networks.restoration import PictureNetworks
from webui.pipeline.denoising import Setup
from webui.pipeline.hires import Second
from webui.pipeline.img2img import Beginning, StartPictures, begin
from webui.pipeline.moments import Decoding, Enlarging, Made, Moment, Stepped
from webui.pipeline.run import run_group
from webui.plugins.call_record import CallRecord
from webui.plugins.manager import Plugins
from webui.plugins.own_fields import registered_fields
from webui.plugins.own_settings import OwnSettings
from webui.preprocessors import KIND as PREPROCESSOR
from webui.prompt.dynamic import with_choices
from webui.prompt.styles import Styles
from webui.prompt.wildcards import Wildcards
from webui.request import BUILT_IN_VAE, GenerationRequest
from webui.result import Environment, MadePicture, ModelFile, Pixels
from webui.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What the pictures of a job have in common; ``inputs`` are the digests of all pictures that were read for it.

    The set-ups' models are the checkpoints with the VAE and the LoRAs of the request.  ``files`` are all model files
    that were used, for the recipe, ``loaders`` those of extensions that read any of them, ``networks`` the kinds of
    networks that tags name.
    """

    setup: Setup
    second: Second | None
    beginning: Beginning | None
    inputs: tuple[str, ...]
    extras: ExtraFiles
    files: tuple[ModelFile, ...]
    loaders: Set[str]
    networks: Set[str]

    @property
    def families(self) -> frozenset[str]:
        """Of all models that take part."""
        passes = [self.setup, *([self.second.setup] if self.second else [])]
        setups = [*passes, *(one.refiner for one in passes if one.refiner)]
        return frozenset(setup.model.family for setup in setups)


@dataclass
class Runner:
    """Runs orders one after the other, with the models of one job loaded."""

    settings: Settings
    plugins: Plugins
    library: Library
    compute: Compute
    models: LoadedModels
    _problems_told: int = 0
    _job: str = "unqueued"

    @classmethod
    def start(cls, settings: Settings, record: CallRecord | None = None) -> Runner:
        """Load plugins and choose the device; ``record`` is told which extension is called."""
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        plugins = Plugins.start(settings, record=record)
        hashes = HashCache(settings.state_dir / "hashes.sqlite3")
        library = Library(settings.models_dir, hashes, plugins.formats, plugins.extra_network_kinds.file_kinds)
        compute = device.choose(settings.device, settings.precision, settings.threads)
        return cls(settings, plugins, library, compute, LoadedModels(plugins, library))

    def warm_up(self) -> None:
        """Load the default model, if there is one, so that the first job does not wait for it."""
        try:
            self.models.checkpoint(self.library.default_checkpoint(), self.compute)
        except WebUIError as error:
            log.warning("%s", error)

    def close(self) -> None:
        """Tell the plugins that the process ends."""
        self.plugins.shutdown()

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
            sentence = _too_large(order) if is_memory else self._defect(order)
            ending = Report("failed", {"error": sentence, "status": 507 if is_memory else 500})
        self._tell_extensions(tell)
        tell(ending)

    def _defect(self, order: Order) -> str:
        """That something went wrong, and which extensions took part: what one of them gave may fit nowhere."""
        try:
            request = GenerationRequest.from_dict(order.request)
        except RequestError:
            return DEFECT  # no job of pictures
        names = [one.name for one in self.plugins.taking_part(request, (), self.settings.attention)]
        one = "this extension" if len(names) == 1 else "these extensions"
        return f"{DEFECT} It was made with {one}: {', '.join(names)}; try without." if names else DEFECT

    def _tell_extensions(self, tell: Tell) -> None:
        """Tell what is new about the extensions: while the job runs, because one of them may end this process."""
        problems = self.plugins.problems
        for sentence in problems[self._problems_told :]:
            tell(Report("problem", {"sentence": sentence}))
        self._problems_told = len(problems)
        if reports := self.plugins.report():
            tell(Report("extensions", {"reports": [report.to_dict() for report in reports]}))

    def _run(self, order: Order, tell: Tell, control: Control) -> Report:
        self._job = order.job
        if order.kind == "reproduce":
            verdict = self.reproduce(reproduction_store(self.settings).get(order.picture), tell, control)
            tell(Report("verdict", verdict.to_dict()))
            return Report("interrupted" if control.interrupted.is_set() else "done")
        if order.kind == extras.KIND:
            extras.ExtrasRun(self, tell, control).run(order.request, order.done)
            return Report("interrupted" if control.interrupted.is_set() else "done")
        if order.kind == errands.KIND:
            pixels = self._control_picture(order)
            tell(Report(errands.KIND, blob=encode_picture(pixels, ".png", {})))
            return Report("done")
        request = GenerationRequest.from_dict(order.request)
        made = dict(zip(order.done, order.paths, strict=False))
        for _ in self.generate(request, tell, control, done=order.done, made=made):
            pass
        return Report("interrupted" if control.interrupted.is_set() else "done")

    @cached_property
    def networks(self) -> PictureNetworks:
        """The networks of upscalers and face restorers, of which the last one used stays loaded."""
        return PictureNetworks(self.compute, self.library.formats)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Preprocessors, of which the network of the last one used stays loaded."""
        return Preprocessing(self.plugins, self.library.formats, self.compute.device)

    @property
    def inputs(self) -> InputStore:
        """Stored start images, masks and control pictures."""
        return InputStore(self.settings.state_dir / "inputs")

    @property
    def wildcards(self) -> Wildcards:
        """The files of choices as they are now: in the folder ``wildcards`` beside that of the models."""
        return Wildcards((self.settings.models_dir.parent / "wildcards",))

    def generate(
        self,
        request: GenerationRequest,
        tell: Tell,
        control: Control,
        done: Sequence[int] = (),
        save: Callable[[bytes, MadePicture, str], Path] | None = None,
        suffix: str = ".png",
        made: Mapping[int, str] | None = None,
        is_scripts: bool = False,
    ) -> Iterator[Path]:
        """Make and save every picture of a request that is not ``done`` yet; yields each file's path.

        ``save`` (encoded file, picture, kind) -> path replaces the numbered file in the outputs folder.  ``made`` are
        the paths, relative to that folder, of those that are done: a script's overview shows them, too.  A request that
        ``is_scripts`` is numbered among others, so that plugins may not change how many pictures it makes.
        """
        if request.script is not None:
            run = ScriptRun(self, tell, control, request.settled(self.library.find(request.checkpoint).name))
            yield from run.run(made or {}, save, suffix)
            return
        clock = Clock(request.pictures, len(done))
        tell = self._heard(tell, request)
        tell(Report("progress", asdict(clock.phase("preparing"))))
        request = self._rewritten(self._resolved(request), is_scripts)
        clock.pictures = request.pictures
        tell(Report("request", request.to_dict()))
        settings = self._own_settings()
        self.plugins.tell("before_job", request=request, settings=settings)
        files = JobFiles.of(request, self.library)
        if not self.models.has(files.checkpoint, self.compute):
            tell(Report("progress", asdict(clock.phase("loading the model"))))
        paths: list[str] = []
        wanted = [index for index in range(request.pictures) if index not in done]
        for chosen, indices in with_choices(request, wanted, self.wildcards):
            if control.interrupted.is_set():
                break
            prepared = self._prepared(chosen, files, self.compute, tell)
            for picture in self._pictures(chosen, prepared, clock, tell, control, indices, made=len(paths)):
                tell(Report("progress", asdict(clock.phase("saving"))))
                output, path = self._save(picture, chosen, prepared, save, suffix)
                paths.append(str(path))
                tell(Report("picture", asdict(output)))
                yield path
        self._tell_extensions(tell)
        self.plugins.tell("after_job", request=request, paths=tuple(paths), settings=settings)

    def reproduce(self, data: bytes, tell: Tell, control: Control) -> Verdict:
        """Run the recipe in a picture file again and compare.  Raises MetadataError when the file tells nothing."""
        return Reproduction(self, tell, control).run(data)

    def make_one(
        self,
        request: GenerationRequest,
        index: int,
        files: JobFiles,
        compute: Compute,
        clock: Clock,
        tell: Tell,
        control: Control,
        recorded: Recorded | None = None,
    ) -> MadePicture | None:
        """Picture ``index`` of a resolved request, None when interrupted.

        ``recorded`` are the files that its prompts name; without them the models folder is asked.
        """
        prepared = self._prepared(request, files, compute, tell, recorded)
        return next(self._pictures(request, prepared, clock, tell, control, (index,)), None)

    def _prepared(
        self,
        request: GenerationRequest,
        files: JobFiles,
        compute: Compute,
        tell: Tell,
        recorded: Recorded | None = None,
    ) -> Prepared:
        """What the pictures of a job have in common."""
        self.library.refresh(EMBEDDING)  # a word is no error, so nothing else would notice a new file
        self.models.wanted = files.paths
        inputs = list(input_digests(request))
        module_files: dict[ModelFile, Path] = {}
        contribute = partial(self._contributions, inputs, module_files, recorded or {})
        tools = PictureTools(self.plugins, self.library, self.networks, self.settings.models_dir, recorded)
        making = Preparation(
            self.plugins,
            self.library,
            self.models,
            files,
            compute,
            contribute,
            tools=tools,
            recorded=recorded,
            two_passes=request.second_pass is not None,
            attention=self.settings.attention,
        )
        with torch.inference_mode(), self.plugins.blaming():
            setup, extras = making.first(request)
            second = making.second(request, setup)
            beginning = self._beginning(request, setup.model, tools)
        for problem in dict.fromkeys(making.problems):
            tell(Report("problem", {"sentence": problem}))
        used = tuple(dict.fromkeys((*files.used(self.library), *making.used, *tools.used, *module_files)))
        paths = (*files.paths, *making.paths, *tools.paths, *module_files.values())
        loaders = self.library.formats.added_for(paths)
        networks = frozenset(making.networks)
        return Prepared(setup, second, beginning, tuple(dict.fromkeys(inputs)), extras, used, loaders, networks)

    def _pictures(
        self,
        request: GenerationRequest,
        prepared: Prepared,
        clock: Clock,
        tell: Tell,
        control: Control,
        wanted: Sequence[int],
        made: int = 0,
    ) -> Iterator[MadePicture]:
        """The pictures ``wanted``, after the plugins' rewriting; stops when interrupted.

        ``made`` counts those that this run has made already.
        """
        made += clock.done_before
        previews = Previews(tell, clock, prepared.setup.model)
        for group in _groups(request, wanted, prepared.setup.model.compute):
            if control.interrupted.is_set():
                return
            self.plugins.tell("before_batch", request=request, indices=group)
            with torch.inference_mode(), self.plugins.blaming():
                pictures = self._group(request, prepared, group, made, previews, control)
            if pictures:
                self.plugins.tell("after_batch", request=request, indices=group)
            made += len(group)
            yield from pictures

    def _group(
        self,
        request: GenerationRequest,
        prepared: Prepared,
        group: tuple[int, ...],
        made: int,
        previews: Previews,
        control: Control,
    ) -> list[MadePicture]:
        """The pictures made together, none of them when interrupted or skipped meanwhile."""
        control.skipped.clear()
        pictures = []
        recorded = as_recorded(request, self.plugins)
        attention = self.settings.attention
        loaders, networks = prepared.loaders, prepared.networks
        taking = tuple(self.plugins.taking_part(recorded, prepared.families, attention, loaders, networks))
        for moment in run_group(request, prepared.setup, prepared.beginning, group, prepared.second):
            if isinstance(moment, Made):
                pictures.append(self._finished(replace(moment.picture, plugins=taking), request))
                continue  # a finished picture is kept, whatever was wished meanwhile
            if control.interrupted.is_set() or control.skipped.is_set():
                break
            if isinstance(moment, Stepped) and self.plugins.has("step_done"):
                shown = replace(moment, denoised=moment.denoised.clone())  # the sampler goes on from its own
                self.plugins.tell("step_done", step=shown, request=request)
            self._tell_moment(moment, made, previews)
        return pictures

    def _finished(self, picture: MadePicture, request: GenerationRequest) -> MadePicture:
        """A picture as the plugins leave it, which see pixels that cannot be written to."""
        pixels = self.plugins.rewrite(
            "rewrite_picture",
            "pixels",
            unwritable(picture.pixels),
            check=lambda pixels: check_size(pixels.shape[1], pixels.shape[0]),
            request=request,
            index=picture.index,
        )
        return replace(picture, pixels=pixels)

    def _heard(self, tell: Tell, request: GenerationRequest) -> Tell:
        """``tell``, with the plugins hearing of the progress, too."""
        if not self.plugins.has("progress"):
            return tell

        def both(report: Report) -> None:
            tell(report)
            if report.kind == "progress":
                seen = {name: report.data[name] for name in ("phase", "step", "steps")}
                self.plugins.tell("progress", **seen, request=request)

        return both

    def _tell_moment(self, moment: Moment, made: int, previews: Previews) -> None:
        if isinstance(moment, Stepped):
            previews.tell(Report("progress", asdict(previews.clock.stepped(moment, made))))
            previews.offer(moment)
        elif isinstance(moment, Enlarging):
            previews.tell(Report("progress", asdict(previews.clock.phase("upscaling"))))
        elif isinstance(moment, Decoding):
            previews.tell(Report("progress", asdict(previews.clock.phase("decoding"))))

    def _contributions(
        self,
        read: list[str],
        files: dict[ModelFile, Path],
        recorded: Recorded,
        request: GenerationRequest,
        networks: Sequence[NetworkUses],
        model: Model,
        encode: Encode,
        second_pass: bool,
    ) -> list[Contribution]:
        """What the modules and the networks of a prompt's tags contribute.

        Noted are the digests of the pictures that they read for it, in ``read``, and the model files with where they
        lie, in ``files``.
        """

        def load(sha256: str) -> Pixels:
            read.append(sha256)
            return read_pixels(self.inputs.get(sha256))

        def model_file(kind: str, name: str) -> Path:
            entry = recorded.get((kind, name)) or self.library.find(name, kind)
            files[ModelFile(role=kind, name=name, sha256=self.library.sha256(entry))] = entry.path
            return entry.path

        def mask(sha256: str) -> MaskPixels:
            read.append(sha256)
            return read_mask(self.inputs.get(sha256))

        def model_entries(kind: str) -> list[ModelEntry]:
            return [
                *(replace(entry, name=name) for (role, name), entry in recorded.items() if role == kind),
                *self.library.entries(kind),
            ]

        def preprocess(name: str, pixels: Pixels, options: Mapping[str, Any]) -> Pixels:
            return self.preprocessing.run(name, pixels, options, model_entries(PREPROCESSOR), model_file)

        pictures = Pictures(
            load,
            preprocess,
            model_file,
            encode,
            mask=mask,
            preprocessor=lambda name: registered(name, self.plugins),
            model_entries=model_entries,
            second_pass=second_pass,
            formats=self.library.formats,
        )
        contributions = []
        for use in request.modules:
            module = self.plugins.conditioning_modules[use.name]
            scratch = scratch_folder(self.settings.state_dir, use.name, self._job)
            given = replace(pictures, scratch=scratch)
            prepared: object = module.prepare(options_of(module, use.options), model, request, given)
            contributions.append(checked(prepared, f"The module {use.name}", "leave the module out of the request"))
        for each in networks:
            prepared = each.kind.part.prepare(each.uses, model, request, pictures)
            who = f"The kind of networks {each.kind.name} of {self.plugins.owner(NETWORK_KINDS, each.kind.name)}"
            contributions.append(checked(prepared, who, "take its tags out of the prompt"))
        return contributions

    def _own_settings(self) -> OwnSettings:
        """The settings of plugins as they are now; they stay so for the job."""
        return own_settings(open_options(self.settings, self.plugins), self.settings, self.plugins)

    def _control_picture(self, order: Order) -> Pixels:
        """The control picture (H, W, 3) uint8 of a module's options, or of a preprocessor and a stored picture."""
        library, wanted = self.library, order.request
        library.refresh(PREPROCESSOR)

        def preprocess(name: str, pixels: Pixels, options: Mapping[str, Any]) -> Pixels:
            def model_file(kind: str, file: str) -> Path:
                return library.find(file, kind).path

            return self.preprocessing.run(name, pixels, options, library.entries(PREPROCESSOR), model_file)

        with self.plugins.blaming():
            if "preprocessor" in wanted:
                pixels = read_pixels(reproduction_store(self.settings).get(order.picture))
                return preprocess(wanted["preprocessor"], pixels, wanted["options"])
            making = ControlPictures(plugins=self.plugins, library=library, read=self.inputs.get, preprocess=preprocess)
            return making.of_module(self.plugins.conditioning_modules[wanted["module"]], wanted["options"])

    def _beginning(self, request: GenerationRequest, model: Model, tools: PictureTools) -> Beginning | None:
        start = request.start
        if start is None:
            return None
        image = read_pixels(self.inputs.get(start.image), background=start.background)
        mask = self.inputs.get(start.mask.image) if start.mask else None
        latent = self.inputs.get(start.mask.latent) if start.mask and start.mask.latent else None
        return begin(request, model, StartPictures(image, mask, tools.upscaler(start.upscaler), latent))

    def _rewritten(self, request: GenerationRequest, is_scripts: bool) -> GenerationRequest:
        """The request after the plugins, resolved anew: what they return may have styles and names of its own."""

        def check(wanted: GenerationRequest) -> None:
            if wanted.script is not None:
                raise RequestError("a request that is made already cannot get a script; take it away.")
            if is_scripts and wanted.pictures != request.pictures:
                raise RequestError(
                    f"it makes {wanted.pictures} pictures where the script counts {request.pictures}; keep its batches."
                )
            self._resolved(wanted)

        rewritten: GenerationRequest = self.plugins.rewrite("rewrite_request", "request", request, check)
        rewritten = self._resolved(rewritten) if rewritten != request else request
        return self._with_rewritten_prompt(self._with_rewritten_prompt(rewritten, negative=False), negative=True)

    def _with_rewritten_prompt(self, request: GenerationRequest, *, negative: bool) -> GenerationRequest:
        def prompted(text: str) -> GenerationRequest:
            changed = replace(request, negative_prompt=text) if negative else replace(request, prompt=text)
            return self._resolved(changed)

        prompt = request.negative_prompt if negative else request.prompt
        text: str = self.plugins.rewrite(
            "rewrite_prompt", "prompt", prompt, prompted, negative=negative, request=request
        )
        return request if text == prompt else prompted(text)

    def _resolved(self, request: GenerationRequest) -> GenerationRequest:
        """Resolved against the models folder; looks at it again for a name that was not there before."""
        if request.styles:
            request = styled(request, Styles.read([self.settings.styles_file]))
        try:
            return resolve(request, self.plugins, self.library)
        except (RequestError, NotFoundError):
            self.library.refresh()
            return resolve(request, self.plugins, self.library)

    def environment(self, compute: Compute) -> Environment:
        """The facts outside a request that can change a bit of its pictures."""
        attention = self.settings.attention
        return Environment(
            webui=__version__,
            torch=torch.__version__,
            transformers=_installed_version("transformers"),
            device=device.device_name(compute),
            dtype=compute.dtype_name,
            attention=attention_kind(compute) if attention == AUTO else attention,
            threads=compute.threads,
            cpu=device.cpu_name(),
        )

    def _save(
        self,
        picture: MadePicture,
        request: GenerationRequest,
        prepared: Prepared,
        save: Callable[[bytes, MadePicture, str], Path] | None,
        suffix: str,
    ) -> tuple[Output, Path]:
        kind, model = "img2img" if request.start else "txt2img", prepared.setup.model
        request = as_recorded(request, self.plugins)
        recipe = Recipe(
            request=request,
            index=picture.index,
            models=prepared.files,
            inputs=prepared.inputs,
            environment=self.environment(model.compute),
            plugins=picture.plugins,
            pixels=pixel_digest(picture.pixels),
        )
        text = self._infotext(picture, request, prepared)
        data = encode_picture(picture.pixels, suffix, {"parameters": text, "recipe": recipe.to_json()})
        told = {"infotext": text, "request": request, "index": picture.index}
        self.plugins.tell("before_save", pixels=picture.pixels, **told)
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
        self.plugins.tell("after_save", path=str(path), **told)
        return output, path

    def _infotext(self, picture: MadePicture, request: GenerationRequest, prepared: Prepared) -> str:
        model, extras = prepared.setup.model, prepared.extras
        walk, second_walk = walks(request, self.plugins)
        hashes = {(file.role, file.name): file.sha256 for file in prepared.files}
        vae = None if request.vae == BUILT_IN_VAE else self.library.find(request.vae, VAE)
        facts = writing.InfotextFacts(
            model_name=model.name,
            model_hash=model.sha256,
            seed=picture.seed,
            variation_seed=request.variation_seed_of(picture.index),
            walk=walk,
            second_walk=second_walk,
            vae=vae.path.name if vae else "",
            vae_hash=hashes.get((VAE, request.vae), ""),
            titles={name: writing.title(name, sha256) for (role, name), sha256 in hashes.items() if role in KINDS},
            lora_hashes=extras.lora_hashes,
            embedding_hashes=extras.embedding_hashes,
            padded=prepared.setup.pads or (prepared.second is not None and prepared.second.setup.pads),
            modules=module_texts.pairs(request.modules, self.plugins.conditioning_modules, self.plugins.ask_module),
            fields=registered_fields(self.plugins),
            extra={**picture.infotext_extra, **self.plugins.pairs("write_infotext", request=request)},
        )
        return writing.write(uncommented(request), facts)


def scratch_folder(state_dir: Path, module: str, job: str) -> Path:
    """The folder of a conditioning module for one job."""
    return state_dir / "modules" / re.sub(r"[^\w-]", "_", module) / job


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


def _too_large(order: Order) -> str:
    if order.kind == extras.KIND:
        return "There is not enough memory for a picture that large; choose a smaller factor, or close other programs."
    size = order.request.get("size", {})
    return (
        f"There is not enough memory for a picture of {size.get('width', '?')}x{size.get('height', '?')}; "
        "try a smaller size or batch, or close other programs."
    )
