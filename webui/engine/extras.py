"""Computes Extras jobs: stored pictures in, saved pictures out, each with a recipe that can be run again.

The recipe stands under the keyword ``recipe``, as that of a generated picture does, with ``"kind": "extras"`` and a
format of its own, which earlier versions refuse in a sentence instead of misreading it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from webui import extras
from webui.engine.executor import Control, Report, Tell
from webui.engine.jobs import Output, Progress
from webui.engine.outputs import OutputFolder
from webui.errors import JobCancelled, MetadataError, NotFoundError, RequestError, WebUIError
from webui.extras import ExtrasRequest, Tools
from webui.faces import KIND as FACE
from webui.faces import FaceRestorer, FaceWork, files_of
from webui.images.pixels import read_pixels
from webui.metadata.files import encode_picture, pixel_digest, read_picture_texts
from webui.metadata.infotext import quote
from webui.metadata.verdict import Outcome, Verdict, compare, differences, plugin_differences
from webui.plugins.guarded_loaders import LOADERS
from webui.result import Environment, ModelFile, Pixels, Plugin
from webui.upscalers import Upscaler, find_upscaler
from webui.upscalers.files import KIND as UPSCALER
from webui.upscalers.files import all_upscalers, uses_file

if TYPE_CHECKING:
    from webui.checkpoints.library import Library, ModelEntry
    from webui.engine.runner import Runner
    from webui.plugins.manager import Plugins

KIND = "extras"
"""The kind of these jobs, and of their recipes."""
FORMAT = 2
OWN_TEXTS = ("recipe", "extras", "postprocessing")
"""Texts of the picture that went in which no longer hold for the one that comes out; it carries on all others."""
_SEED = re.compile(r"(?:^|[\n,]) ?Seed: (\d{1,16})(?=,|\n|$)")
_NO_NAME = re.compile(r"[^\w.() -]+")
MAX_NAME = 100


@dataclass(frozen=True, kw_only=True)
class ExtrasRecipe:
    """How one picture was made of another: ``request`` names that one picture."""

    request: ExtrasRequest
    models: tuple[ModelFile, ...]
    environment: Environment
    plugins: tuple[Plugin, ...]
    pixels: str

    def to_json(self) -> str:
        """The canonical text."""
        data = {
            "format": FORMAT,
            "kind": KIND,
            "request": self.request.to_dict(),
            "models": [asdict(model) for model in self.models],
            "inputs": list(self.request.images),
            "environment": self.environment.to_dict(),
            "plugins": [asdict(plugin) for plugin in self.plugins],
            "pixels": self.pixels,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a recipe that :func:`is_extras` accepted.  Raises MetadataError when it is damaged."""
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ValueError(f"it has format {data['format']}, expected was {FORMAT}")
            recipe = cls(
                request=ExtrasRequest.from_dict(data["request"]),
                models=tuple(ModelFile(**model) for model in data["models"]),
                environment=Environment(**data["environment"]),
                plugins=tuple(Plugin(**plugin) for plugin in data["plugins"]),
                pixels=data["pixels"],
            )
            if len(recipe.request.images) != 1 or not all(isinstance(model.sha256, str) for model in recipe.models):
                raise ValueError("it is not about one picture")
            return recipe
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError, RequestError) as error:
            raise MetadataError(f"The picture's recipe is damaged ({error}).") from error


def is_extras(recipe: str) -> bool:
    """Whether a recipe's text is one of these."""
    try:
        data = json.loads(recipe)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("kind") == KIND


def check(request: ExtrasRequest, plugins: Plugins, library: Library) -> ExtrasRequest:
    """The request with the full names of what is here.  Raises RequestError for an unknown upscaler or restorer."""
    upscalers = all_upscalers(plugins.upscalers.values(), library.entries(UPSCALER), None)
    return extras.checked(request, upscalers, list(plugins.face_restorers.values()))


@dataclass
class ExtrasRun:
    """One job, by a runner."""

    runner: Runner
    tell: Tell
    control: Control
    pictures: int = 1
    picture: int = 0

    def run(self, plain: Mapping[str, Any], done: tuple[int, ...]) -> None:
        """Do every picture that is not ``done`` yet, and save it; stops between two tiles when interrupted."""
        request = self._checked(ExtrasRequest.from_dict(plain))
        self.tell(Report("request", request.to_dict()))
        self.pictures = len(request.images)
        for index in range(self.pictures):
            if index in done:
                continue
            self.picture = index + 1
            self.control.skipped.clear()
            try:
                self._after_tile(0, 0)
                self._save(self._made(request.alone(index)), index)
            except JobCancelled:
                if self.control.interrupted.is_set():
                    return

    def reproduce(self, recipe: str, expected: Pixels) -> Verdict:
        """Run a picture's recipe again and compare.  Raises MetadataError when it is damaged."""
        recorded = ExtrasRecipe.from_json(recipe)
        try:
            self.runner.inputs.path(recorded.request.images[0])
        except NotFoundError:
            reason = f"The picture with SHA-256 {recorded.request.images[0]} that went in is not stored here."
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=(reason,))
        try:
            pixels, again = self._made(self._checked(recorded.request))
        except JobCancelled:
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=("It was interrupted.",))
        except WebUIError as error:
            return Verdict(outcome=Outcome.CANNOT_RUN, reasons=(str(error),))
        verdict = compare(expected, pixels)
        if again.pixels == recorded.pixels == pixel_digest(expected):
            return verdict
        return Verdict(**{**vars(verdict), "reasons": (*verdict.reasons, *_reasons(recorded, again, expected))})

    def _checked(self, request: ExtrasRequest) -> ExtrasRequest:
        """The request with full names; looks at the models folder again, for files that came since."""
        self.runner.library.refresh(UPSCALER)
        self.runner.library.refresh(FACE)
        return check(request, self.runner.plugins, self.runner.library)

    def _made(self, request: ExtrasRequest) -> tuple[Pixels, ExtrasRecipe]:
        """The picture of a request for one, and its recipe; the pairs of its text are kept in ``done_pairs``."""
        runner, library = self.runner, self.runner.library
        upscalers = all_upscalers(runner.plugins.upscalers.values(), library.entries(UPSCALER), runner.networks)
        restorers = list(runner.plugins.face_restorers.values())
        faces = FaceWork(entries=library.entries(FACE), folder=runner.settings.models_dir, networks=runner.networks)
        tools = Tools(upscalers=upscalers, restorers=restorers, faces=faces, after_tile=self._after_tile)
        pixels = read_pixels(runner.inputs.get(request.images[0]))
        with runner.plugins.blaming():
            made, self.done_pairs = extras.process(pixels, request, tools)
        files = _files(request, upscalers, restorers, library)
        recipe = ExtrasRecipe(
            request=request,
            models=tuple(ModelFile(role=entry.kind, name=entry.name, sha256=library.sha256(entry)) for entry in files),
            environment=runner.environment(runner.compute),
            plugins=tuple(
                runner.plugins.using(
                    {
                        "register_upscalers": {request.upscale.upscaler, request.upscale.second},
                        "register_face_restorers": _restorers_used(request),
                        LOADERS: library.formats.added_for(entry.path for entry in files),
                    }
                )
            ),
            pixels=pixel_digest(made),
        )
        return made, recipe

    def _save(self, made: tuple[Pixels, ExtrasRecipe], index: int) -> None:
        pixels, recipe = made
        source = self.runner.inputs.get(recipe.request.images[0])
        try:
            before = read_picture_texts(source)
        except MetadataError:
            before = {}  # other formats carry none, and damaged texts are not handed on
        text = ", ".join(f"{key}: {quote(value)}" for key, value in self.done_pairs.items())
        kept = {key: value for key, value in before.items() if key not in OWN_TEXTS}
        texts = {**kept, **({"extras": text, "postprocessing": text} if text else {}), "recipe": recipe.to_json()}
        found = _SEED.search(before.get("parameters", ""))
        seed = int(found[1]) if found else 0
        self._tell("saving", 0, 0)
        folder = OutputFolder(self.runner.settings.outputs_dir)
        stem = _stem(recipe.request.names)
        path = folder.save(encode_picture(pixels, ".png", texts), kind=KIND, seed=seed, stem=stem)
        infotext = "\n".join(filter(None, (before.get("parameters", ""), text)))
        output = Output(
            id=uuid.uuid4().hex,
            path=path.relative_to(self.runner.settings.outputs_dir).as_posix(),
            index=index,
            seed=seed,
            width=pixels.shape[1],
            height=pixels.shape[0],
            infotext=infotext,
        )
        self.tell(Report("picture", asdict(output)))

    def _after_tile(self, done: int, total: int) -> None:
        if self.control.interrupted.is_set() or self.control.skipped.is_set():
            raise JobCancelled
        self._tell("enlarging", done, total)

    def _tell(self, phase: str, done: int, total: int) -> None:
        progress = Progress(step=done, steps=total, picture=self.picture, pictures=self.pictures, phase=phase)
        self.tell(Report("progress", asdict(progress)))


def _restorers_used(request: ExtrasRequest) -> set[str]:
    used = {extras.GFPGAN: request.gfpgan_visibility, extras.CODEFORMER: request.codeformer_visibility}
    return {name for name, visibility in used.items() if visibility > 0}


def _files(
    request: ExtrasRequest, upscalers: list[Upscaler], restorers: list[FaceRestorer], library: Library
) -> list[ModelEntry]:
    """The model files that a request reads."""
    names = (request.upscale.upscaler, request.upscale.second)
    found = [uses_file(find_upscaler(name, upscalers), library.entries(UPSCALER)) for name in names]
    for restorer in restorers:
        if restorer.name in _restorers_used(request):
            found += files_of(restorer, library.entries(FACE))
    return list(dict.fromkeys(entry for entry in found if entry is not None))


def _reasons(recorded: ExtrasRecipe, again: ExtrasRecipe, expected: Pixels) -> tuple[str, ...]:
    """Why the picture made again may differ."""
    reasons = [*differences(recorded.environment, again.environment)]
    reasons += plugin_differences(recorded.plugins, again.plugins)
    for model in recorded.models:
        if model not in again.models:
            reasons.append(
                f'The {model.role} "{model.name}" was a file with SHA-256 {model.sha256}; it is another here.'
            )
    if pixel_digest(expected) != recorded.pixels:
        reasons.append("This file's pixels are not the ones its recipe recorded.")
    return tuple(reasons)


def _stem(names: tuple[str, ...]) -> str:
    """What stands behind the number in a file's name: the name of the picture that went in, "" without one."""
    stem = Path(names[0].replace("\\", "/")).stem if names else ""
    return _NO_NAME.sub("_", stem).strip(" .")[:MAX_NAME]
