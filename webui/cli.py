"""The command line: serve, generate, reproduce, train, info, models, extensions.

Results go to standard output, progress and errors to standard error.  Exit codes: 0 done, 1 done with another outcome
than hoped for (a picture that was not reproduced bit-exactly), 2 an error that a person can act on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, TextIO, get_args, get_origin, get_type_hints

from webui import __version__, extension_commands
from webui.errors import PictureError, RequestError, WebUIError
from webui.records import plain
from webui.request import (
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ResizeMode,
    Sampling,
    StartImage,
)
from webui.settings import PROJECT_ROOT, Settings
from webui.training.request import Data, Noise, Optimiser, Samples, TrainingRequest

if TYPE_CHECKING:
    from webui.conditioning import ConditioningModule
    from webui.engine.executor import Report
    from webui.engine.runner import Runner
    from webui.engine.teaching import Teacher
    from webui.plugins.manager import Plugins
    from webui.result import MadePicture
    from webui.training.kinds import TrainingKind
    from webui.training.moments import Moment, Stepped

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
HELP = {"-h", "--help"}
TRAINING_PARTS = {"data": Data, "optimiser": Optimiser, "noise": Noise, "samples": Samples}
TRAINING_FLAGS: Mapping[tuple[str, ...], str] = {
    ("data", "folder"): "--data",
    ("optimiser", "name"): "--optimiser",
    ("samples", "prompts"): "--sample-prompt",
}
"""Command-line options of ``train`` that are not called as their field."""
TOLD_EVERY_S = 10.0
"""Where there is no terminal, a training tells how far it is so often."""


def console() -> int:
    """The command ``webui``: :func:`main` in a process of its own, with the memory settings of the worker."""
    computes = sys.argv[1:2] in (["generate"], ["reproduce"])
    if computes and sys.platform.startswith("linux") and "MALLOC_ARENA_MAX" not in os.environ:
        from webui.engine.executor import MALLOC

        # glibc reads these before a program begins: start over with them, once
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**MALLOC, **os.environ})
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for chatty in ("httpx", "httpx2", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        parsed = _parser(arguments).parse_args(arguments)
        code: int = parsed.run(parsed)
        return code
    except WebUIError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def _parser(
    arguments: Sequence[str] = (), modules: Sequence[ConditioningModule] | None = None
) -> argparse.ArgumentParser:
    """The parser; options of a kind of training are known once ``arguments`` name it.

    Those of conditioning modules are: ``modules`` None looks for them where ``arguments`` ask for what nothing else is.
    """
    parser = argparse.ArgumentParser(prog="webui", description="Pictures from prompts, on your own machine.")
    parser.add_argument("--version", action="version", version=f"webui {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands, arguments[1:] if arguments[:1] == ["serve"] else ())
    _add_generate(commands, modules, arguments[1:] if arguments[:1] == ["generate"] else ())
    reproduce = _command(
        commands, "reproduce", _reproduce, "make pictures again and say whether they came out the same"
    )
    reproduce.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reproduce.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    _add_folders(reproduce)
    _add_compute(reproduce)
    _add_train(commands, arguments[1:] if arguments[:1] == ["train"] else None)
    info = _command(commands, "info", _info, "show how a picture was made")
    info.add_argument("file", type=Path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="print everything the file carries as JSON")
    models = _command(commands, "models", _models, "list the files of the models folder")
    models.add_argument("--json", action="store_true", help="print the list as JSON")
    models.add_argument("--hash", action="store_true", help="compute missing SHA-256 hashes (reads every file)")
    _add_folders(models)
    extension_commands.add_commands(commands)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=run)
    return parser


def _add_folders(parser: argparse.ArgumentParser) -> None:
    defaults = Settings()
    for name, what in (
        ("models", "models folder; an AUTOMATIC1111 one works as it is"),
        ("outputs", "where pictures and the job list are kept"),
        ("extensions", "extensions folder"),
    ):
        default = getattr(defaults, f"{name}_dir")
        parser.add_argument(f"--{name}-dir", type=Path, default=default, metavar="FOLDER", help=what)
    parser.add_argument("--no-extensions", action="store_true", help="safe mode: load no extension")
    for name, what in (("start", "being loaded, and each registration,"), ("call", "each later call")):
        parser.add_argument(
            f"--extension-{name}-seconds",
            type=float,
            default=getattr(defaults, f"extension_{name}_s"),
            metavar="S",
            help=f"{what} of an extension may take so long (default: %(default)g; 0: no limit)",
        )


def _add_compute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps or xpu")
    parser.add_argument(
        "--attention", default="auto", help="how attention is computed: auto, sdpa, split, or an extension's"
    )
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: one a core)")


def _add_serve(commands: Any, arguments: Sequence[str]) -> None:
    """``arguments`` are those after ``serve``; the flags of plugins are added where one is used, or help."""
    serve = _command(commands, "serve", _serve, "start the page and the API")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer alone)")
    serve.add_argument("--port", type=int, default=7860)
    serve.add_argument("--no-browser", action="store_true", help="do not open the browser")
    serve.add_argument("--password", help="ask for this password; needed with a --host other than this computer")
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name this server is known by"
    )
    serve.add_argument(
        "--enable-insecure-extension-access",
        action="store_true",
        help="let whoever can use the page install extensions, from other computers too; they are programs",
    )
    serve.add_argument("--no-hashing", action="store_true", help="hash model files only when they are used")
    _add_folders(serve)
    _add_compute(serve)
    own = set(serve._option_string_actions)
    asked = {word.partition("=")[0] for word in arguments if word.startswith("--") or word in HELP}
    if asked & HELP or asked - own:
        from webui.plugins.own_flags import add_own_flags

        add_own_flags(serve, _plugins(arguments))


def _add_generate(
    commands: Any, modules: Sequence[ConditioningModule] | None = None, arguments: Sequence[str] = ()
) -> None:
    """``arguments`` are those after ``generate``, none for another command.

    The flags of conditioning modules are added where one is used, or help: finding modules takes a moment.
    """
    generate = _command(commands, "generate", _generate, "make pictures; prints the path of each")
    request, sampling = GenerationRequest(), Sampling()
    generate.add_argument("--prompt", required=True, metavar="TEXT")
    generate.add_argument("--negative", default="", metavar="TEXT")
    generate.add_argument("--sampler", metavar="NAME", help=f"default: the model's own, else {sampling.sampler}")
    generate.add_argument("--schedule", metavar="NAME", help="default: the model's own, else Automatic")
    generate.add_argument("--steps", type=int, metavar="N", help=f"default: the model's own, else {sampling.steps}")
    generate.add_argument("--cfg-scale", type=float, metavar="X", help="default: the model's own, else 7")
    generate.add_argument("--eta", type=float, metavar="X", help="noise added anew by the sampler, 0 to 1")
    generate.add_argument("--seed", type=int, metavar="N", help="default: random")
    generate.add_argument("--width", type=int, metavar="W", help="default: the size the model was trained at")
    generate.add_argument("--height", type=int, metavar="H", help="default: the size the model was trained at")
    generate.add_argument("--batch-size", type=int, default=request.batch_size, metavar="N")
    generate.add_argument("--batch-count", type=int, default=request.batch_count, metavar="N")
    generate.add_argument("--clip-skip", type=int, default=request.clip_skip, metavar="N")
    generate.add_argument("--checkpoint", metavar="NAME", help="default: the first that is not the embedded one")
    generate.add_argument("--init-image", type=Path, metavar="FILE", help="start from this picture (img2img)")
    generate.add_argument("--mask", type=Path, metavar="FILE", help="paint only where this picture is light (inpaint)")
    generate.add_argument("--denoise", type=float, default=0.75, metavar="X", help="0 keeps the picture, 1 replaces it")
    for option, choices in (
        ("resize-mode", ResizeMode), ("mask-mode", MaskMode),
        ("masked-content", MaskedContent), ("inpaint-area", InpaintArea),
    ):  # fmt: skip
        generate.add_argument(f"--{option}", choices=[member.value for member in choices], metavar="WORDS")
    generate.add_argument("--mask-blur", type=int, default=4, metavar="PIXELS")
    generate.add_argument("--padding", type=int, default=32, metavar="PIXELS", help="around an area painted alone")
    generate.add_argument("--style", action="append", metavar="NAME", help="a style of styles.csv; may be repeated")
    generate.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="any field of the request by its name in the API (/docs), for example second_pass.scale=2, "
        "noise.variation_strength=0.2 or tiling=true; may be repeated",
    )
    generate.add_argument("--out", type=Path, metavar="FILE_OR_FOLDER", help="default: the outputs folder")
    _add_folders(generate)
    _add_compute(generate)
    own = set(generate._option_string_actions)
    asked = {word.partition("=")[0] for word in arguments if word.startswith("--") or word in HELP}
    if modules is None and not (asked & HELP or asked - own):
        return
    from webui.conditioning.modules import in_order
    from webui.module_flags import add_flags

    found = _plugins(arguments).conditioning_modules.values() if modules is None else modules
    add_flags(generate, in_order(found), {name.lstrip("-") for name in own})


def _add_train(commands: Any, arguments: Sequence[str] | None) -> None:
    """``arguments`` are those after ``train``, None for another command: kinds are looked up for this one alone."""
    train = _command(commands, "train", _train, "teach a model something; prints the path of the file that comes out")
    kinds = {} if arguments is None else _plugins(arguments).training_kinds
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    train.epilog = "kinds:\n" + "\n".join(f"  {kind.name:<12} {kind.summary}" for kind in kinds.values())
    train.add_argument("kind", nargs="?", metavar="KIND", help="comes first; KIND --help lists its options")
    train.add_argument("--config", type=Path, metavar="FILE", help="a request as JSON, which options change")
    train.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with the run in this folder")
    train.add_argument(
        "--run", dest="folder", type=Path, metavar="FOLDER", help="where the run is kept; one begun there is resumed"
    )
    kind = kinds.get(arguments[0]) if arguments else None
    for option in _training_options(kind):
        option.add_to(train, kind)
    _add_folders(train)
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps or xpu")
    train.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: one a core)")


def _plugins(arguments: Sequence[str]) -> Plugins:
    """The plugins of the folders that the arguments of a command name."""
    from webui.plugins.manager import Plugins

    folders = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    _add_folders(folders)
    settings = _settings(folders.parse_known_args(arguments)[0])
    return Plugins.start(settings)


@dataclass(frozen=True)
class _TrainingOption:
    """A field of the training request, or of a kind's options, as an option.  ``place`` is its path in the request."""

    flag: str
    place: tuple[str, ...]
    field: Field[Any]
    kind: Any
    help: str = ""

    def add_to(self, parser: argparse.ArgumentParser, kind: TrainingKind | None) -> None:
        """Add it; what is not said does not come up in the parsed values."""
        default = (kind.defaults if kind else {}).get(".".join(self.place), self.field.default)
        is_told = isinstance(default, int | float | str) and default != ""
        said = (self.help + (f" (default: {default})" if is_told else "")).strip().replace("%", "%%")
        shared: dict[str, Any] = {"dest": ".".join(self.place), "default": argparse.SUPPRESS, "help": said or None}
        kinds = [kind for kind in get_args(self.kind) if kind is not type(None)]
        if self.kind is bool:
            parser.add_argument(self.flag, action=argparse.BooleanOptionalAction, **shared)
        elif get_origin(self.kind) is Literal:
            parser.add_argument(self.flag, choices=kinds, **shared)
        elif get_origin(self.kind) is tuple:
            parser.add_argument(self.flag, action="append", metavar="TEXT", **shared)
        else:
            plain = next((one for one in (int, float) if one in (self.kind, *kinds)), str)
            parser.add_argument(self.flag, type=plain, metavar={int: "N", float: "X", str: "TEXT"}[plain], **shared)


def _training_options(kind: TrainingKind | None) -> Iterator[_TrainingOption]:
    """The options of every training, and of a kind's own."""
    taken = set()
    for part, record in ({"": TrainingRequest, **TRAINING_PARTS}).items():
        kinds = get_type_hints(record)
        for entry in fields(record):
            place = (part, entry.name) if part else (entry.name,)
            if place[0] in ("kind", "options") or place[-1] in TRAINING_PARTS:
                continue
            name = f"{'sample-' if part == 'samples' else ''}{entry.name}".replace("_", "-")
            flag = TRAINING_FLAGS.get(place, f"--{name}")
            taken.add(flag)
            yield _TrainingOption(flag, place, entry, kinds[entry.name])
    if kind is None:
        return
    said = dict(line.strip().split(": ", 1) for line in (kind.options.__doc__ or "").splitlines() if ": " in line)
    kinds = get_type_hints(kind.options)
    for entry in fields(kind.options):
        flag = f"--{entry.name.replace('_', '-')}"
        flag = f"--{kind.name}-{flag[2:]}" if flag in taken else flag
        yield _TrainingOption(flag, ("options", entry.name), entry, kinds[entry.name], said.get(entry.name, ""))


def _settings(parsed: argparse.Namespace) -> Settings:
    settings = Settings(
        models_dir=parsed.models_dir.expanduser().resolve(),
        outputs_dir=parsed.outputs_dir.expanduser().resolve(),
        extensions_dir=parsed.extensions_dir.expanduser().resolve(),
        load_extensions=not parsed.no_extensions,
        extension_start_s=parsed.extension_start_seconds,
        extension_call_s=parsed.extension_call_seconds,
    )
    if not hasattr(parsed, "device"):
        return settings
    if parsed.threads is not None and parsed.threads < 1:
        raise RequestError(f"--threads is {parsed.threads}; it must be at least 1.")
    precision = getattr(parsed, "precision", "auto")  # of a training only when said
    return replace(
        settings,
        device=parsed.device,
        precision=precision,
        attention=getattr(parsed, "attention", "auto"),
        threads=parsed.threads,
    )


def _serve(parsed: argparse.Namespace) -> int:
    from webui.plugins.own_flags import said
    from webui.server import serve

    settings = replace(
        _settings(parsed),
        host=parsed.host,
        port=parsed.port,
        password=parsed.password,
        allowed_hosts=tuple(parsed.allow_host),
        background_hashing=not parsed.no_hashing,
        extension_flags=said(parsed),
        insecure_extension_access=parsed.enable_insecure_extension_access,
    )
    return serve(settings, open_browser=not parsed.no_browser)


def _generate(parsed: argparse.Namespace) -> int:
    runner = _runner(parsed)
    request = _request(parsed, runner)
    from webui.engine.executor import Control

    save, suffix = _target(parsed.out, request.pictures)
    with closing(runner):
        for path in runner.generate(request, _Progress(sys.stderr), Control(), save=save, suffix=suffix):
            print(path, flush=True)
    return 0


def _runner(parsed: argparse.Namespace) -> Runner:
    from webui.engine.runner import Runner

    return Runner.start(_settings(parsed))


def _request(parsed: argparse.Namespace, runner: Runner) -> GenerationRequest:
    """The request that the options mean; what was not said comes from the model's own recommendations."""
    from webui.engine.catalogue import CheckpointEntry, with_advice
    from webui.module_flags import said

    model = CheckpointEntry(runner.library.find(parsed.checkpoint), runner.plugins)
    sampling = {name: getattr(parsed, name) for name in ("sampler", "schedule", "steps", "cfg_scale", "eta")}
    size = {"width": parsed.width, "height": parsed.height}
    start = _start(parsed, runner)
    body: dict[str, Any] = {
        "prompt": parsed.prompt,
        "negative_prompt": parsed.negative,
        "styles": parsed.style or [],
        "size": {name: value for name, value in size.items() if value is not None},
        "sampling": {name: value for name, value in sampling.items() if value is not None},
        "seed": None if parsed.seed in (None, -1) else parsed.seed,
        "batch_size": parsed.batch_size,
        "batch_count": parsed.batch_count,
        "clip_skip": parsed.clip_skip,
        "checkpoint": parsed.checkpoint,
        "start": plain(start) if start else None,
        "modules": said(
            parsed, runner.plugins.conditioning_modules.values(), lambda path: runner.inputs.put(_read(path))
        ),
    }
    for pair in parsed.set or ():
        _set(body, pair)
    return GenerationRequest.from_dict(with_advice(body, model))


def _set(body: dict[str, Any], pair: str) -> None:
    """Put one ``NAME=VALUE`` of ``--set`` into the plain request; the name is a path with dots."""
    path, equals, text = pair.partition("=")
    if not equals or not all(path.split(".")):
        raise RequestError(f'--set {pair}: it must be NAME=VALUE, for example "second_pass.scale=2".')
    *parents, last = path.split(".")
    part: Any = body
    for name in parents:
        if part.get(name) is None:
            part[name] = {}
        part = part[name]
        if not isinstance(part, dict):
            raise RequestError(f'--set {pair}: "{name}" is one value and has no parts.')
    try:
        part[last] = json.loads(text)
    except ValueError:
        part[last] = text


def _start(parsed: argparse.Namespace, runner: Runner) -> StartImage | None:
    if parsed.init_image is None:
        if parsed.mask is not None:
            raise RequestError("--mask needs the picture it belongs to; give it with --init-image.")
        return None
    mask = None
    if parsed.mask is not None:
        mask = Mask(
            image=runner.inputs.put(_read(parsed.mask)),
            blur=parsed.mask_blur,
            mode=MaskMode(parsed.mask_mode or MaskMode.MASKED),
            content=MaskedContent(parsed.masked_content or MaskedContent.ORIGINAL),
            area=InpaintArea(parsed.inpaint_area or InpaintArea.WHOLE),
            padding=parsed.padding,
        )
    return StartImage(
        image=runner.inputs.put(_read(parsed.init_image)),
        denoising_strength=parsed.denoise,
        resize_mode=ResizeMode(parsed.resize_mode or ResizeMode.JUST_RESIZE),
        mask=mask,
    )


def _target(out: Path | None, pictures: int) -> tuple[Any, str]:
    """How to save: numbered in the outputs folder, numbered in a folder of the person's, or in one named file."""
    from webui.engine.outputs import OutputFolder, output_error, write_atomically

    if out is None:
        return None, ".png"
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES or out.is_dir():
        if suffix and not out.is_dir() and suffix not in SUFFIXES:
            raise RequestError(f"--out {out} has the ending {suffix}; use a folder or one of {', '.join(SUFFIXES)}.")
        return (lambda data, picture, kind: OutputFolder(out).save_here(data, seed=picture.seed)), ".png"

    def save(data: bytes, picture: MadePicture, kind: str) -> Path:
        target = out if pictures == 1 else out.with_stem(f"{out.stem}-{picture.index + 1:0{len(str(pictures))}d}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, data)
        except OSError as error:
            raise output_error(target.parent, error) from error
        return target

    return save, suffix


def _reproduce(parsed: argparse.Namespace) -> int:
    files = [(path, _read(path)) for path in parsed.files]
    runner = _runner(parsed)
    from webui.engine.executor import Control
    from webui.metadata.verdict import Outcome, Verdict

    verdicts: list[tuple[Path, Verdict]] = []
    for path, data in files:
        try:
            verdict = runner.reproduce(data, _Progress(sys.stderr), Control())
        except WebUIError as error:
            verdict = Verdict(outcome=Outcome.CANNOT_RUN, reasons=(str(error),))
        verdicts.append((path, verdict))
        if not parsed.json:
            _print_verdict(path, verdict)
    if parsed.json:
        print(json.dumps([{"file": str(path), **verdict.to_dict()} for path, verdict in verdicts], indent=2))
    return 0 if all(verdict.outcome is Outcome.BIT_EXACT for _, verdict in verdicts) else 1


def _print_verdict(path: Path, verdict: Any) -> None:
    print(f"{path}: {verdict.sentence()}", flush=True)
    for reason in verdict.reasons:
        print(f"  {reason}")
    if verdict.not_recorded:
        print(f"  Not recorded in the picture: {', '.join(verdict.not_recorded)}.")


def _train(parsed: argparse.Namespace) -> int:
    from webui.engine.teaching import Teacher

    teacher = Teacher.start(_settings(parsed))
    request, folder = _training(parsed, teacher)
    wishes = _UntilInterrupted()
    shown = _Steps(sys.stderr)
    done = None
    with wishes.heard():
        for moment in teacher.moments(request, folder, wishes):
            exported = shown.tell(moment)
            if exported is not None:
                print(exported, flush=True)
                done = exported
    if done is None or done.stem != request.name:
        program = "python launch.py" if (PROJECT_ROOT / "launch.py").exists() else "webui"
        command = f"{program} train --resume {shlex.quote(str(folder))}"
        print(f"Stopped, with a checkpoint.  Go on with: {command}", file=sys.stderr)
        return 130
    return 0


def _training(parsed: argparse.Namespace, teacher: Teacher) -> tuple[TrainingRequest, Path]:
    """The run that the options mean: what is asked for, and its folder."""
    from webui.engine.teaching import new_run_folder
    from webui.engine.training import read_request
    from webui.engine.training_view import REQUEST

    own = {entry.name for entry in fields(TrainingRequest)}
    said = {name: value for name, value in vars(parsed).items() if value is not None and ("." in name or name in own)}
    if parsed.resume is not None:
        folder = parsed.resume.expanduser().resolve()
        if said or parsed.config or parsed.folder:
            raise RequestError("--resume goes on with what was asked for; it takes no other settings of the training.")
        return TrainingRequest.from_dict(_json(folder / REQUEST)), folder
    plain = _with_said(_json(parsed.config) if parsed.config else {}, said)
    if parsed.config:
        request = TrainingRequest.from_dict(plain)
    elif "data" not in plain or "name" not in plain:
        raise RequestError("A training needs its pictures and a name: webui train KIND --data FOLDER --name NAME.")
    else:
        request = read_request(plain, teacher.plugins.training_kinds, teacher.library)
    if parsed.folder is not None:
        return request, parsed.folder.expanduser().resolve()
    return request, new_run_folder(teacher.settings.outputs_dir, request.name)


def _with_said(plain: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """A request's plain values with what was said on the command line in its places."""
    if not isinstance(plain, Mapping):
        raise RequestError("The file of --config must hold a table of names and values.")
    filled = dict(plain)
    for place, value in said.items():
        part, _, name = place.partition(".")
        filled[part] = {**filled.get(part, {}), name: value} if name else value
    return filled


def _json(path: Path) -> Any:
    try:
        return json.loads(path.expanduser().read_text("utf-8"))
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise RequestError(f"{path} is no JSON ({error}).") from error


@dataclass
class _UntilInterrupted:
    """The wishes of a person at a terminal: the first Ctrl+C ends the run with a checkpoint, the second at once."""

    _stopped: Event = field(default_factory=Event)

    def stop(self) -> bool:
        """Whether to end now, with a checkpoint."""
        return self._stopped.is_set()

    def pause(self) -> bool:
        """Whether to wait: never."""
        return False

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear Ctrl+C and a supervisor's wish to end, as long as the run goes on."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, *_: Any) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self._stopped.set()
        print("\nStopping after this step; once more stops at once and loses it.", file=sys.stderr, flush=True)


@dataclass
class _Steps:
    """Shows a training: one line that changes on a terminal, a line now and then elsewhere."""

    stream: TextIO
    _told: float = float("-inf")
    _is_open: bool = False

    def tell(self, moment: Moment) -> Path | None:
        """Show a moment; returns the file when one was made."""
        from webui.training.moments import Exported, LeftOut, Phase, Sampled, Stepped

        if isinstance(moment, Stepped):
            self._step(moment)
        elif isinstance(moment, Phase):
            self._line(moment.text)
        elif isinstance(moment, LeftOut):
            for sentence in moment.sentences:
                self._line(f"left out: {sentence}")
        elif isinstance(moment, Sampled):
            self._line(f"samples of step {moment.step}: {moment.path}")
        elif isinstance(moment, Exported):
            self._line("written")
            return moment.path
        return None

    def _step(self, moment: Stepped) -> None:
        losses = "  ".join(f"{name} {value:.4f}" for name, value in moment.losses.items())
        left = "" if moment.eta_s is None else f"  {_duration(moment.eta_s)} left"
        text = f"step {moment.step}/{moment.steps}  {losses}{left}"
        now = time.monotonic()
        if self.stream.isatty():
            self.stream.write(f"\r\033[K{text}")
            self.stream.flush()
            self._is_open = True
        elif now - self._told >= TOLD_EVERY_S or moment.step == moment.steps:
            self._line(text)
            self._told = now

    def _line(self, text: str) -> None:
        self.stream.write(f"{chr(10) if self._is_open else ''}{text}\n")
        self.stream.flush()
        self._is_open = False


def _duration(seconds: float) -> str:
    """A time that people read: "42 s", "12 min", "3 h 05 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _info(parsed: argparse.Namespace) -> int:
    from webui.metadata.files import read_picture_texts

    texts = read_picture_texts(_read(parsed.file))
    if parsed.json:
        shown = {name: _decoded(text) if name == "recipe" else text for name, text in texts.items()}
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    if not texts:
        print(f"{parsed.file} carries no text.", file=sys.stderr)
        return 1
    for name, text in texts.items():
        print(f"{name}:\n{json.dumps(_decoded(text), indent=2, ensure_ascii=False) if name == 'recipe' else text}\n")
    return 0


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _models(parsed: argparse.Namespace) -> int:
    from webui.checkpoints.hashes import HashCache
    from webui.checkpoints.library import Library
    from webui.plugins.manager import Plugins

    settings = _settings(parsed)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    plugins = Plugins.start(settings)
    library = Library(
        settings.models_dir,
        HashCache(settings.state_dir / "hashes.sqlite3"),
        plugins.formats,
        plugins.extra_network_kinds.file_kinds,
    )
    entries = [entry for kind in library.folders for entry in library.entries(kind)]
    hashes = [library.sha256(entry) if parsed.hash else entry.sha256 for entry in entries]
    if parsed.json:
        rows = [
            {"kind": entry.kind, "name": entry.name, "path": str(entry.path), "bytes": entry.size, "sha256": digest}
            for entry, digest in zip(entries, hashes, strict=True)
        ]
        print(json.dumps(rows, indent=2))
        return 0
    for entry, digest in zip(entries, hashes, strict=True):
        print(f"{entry.kind:<11} {entry.size / 2**20:>9.1f} MiB  {(digest or '')[:10]:<10}  {entry.name}")
    if not entries:
        print(f"There is no model file in {settings.models_dir}.", file=sys.stderr)
    return 0


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}.") from error


class _Progress:
    """Shows a job's progress in one line on a terminal, and phases as lines elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""

    def __call__(self, report: Report) -> None:
        if report.kind == "problem":
            self._line(str(report.data["sentence"]) + "\n")
        if report.kind != "progress":
            return
        data = report.data
        if self._stream.isatty():
            eta = f", {data['eta_s']:.0f} s left" if data["eta_s"] is not None else ""
            counted = f"  step {data['step']}/{data['steps']}, picture {data['picture']}/{data['pictures']}{eta}"
            over = data["phase"] == "saving" and data["step"] == data["steps"]
            self._line(f"\r\033[K{data['phase']}{counted if data['steps'] else ''}{chr(10) if over else ''}")
        elif data["phase"] != self._phase:
            self._phase = data["phase"]
            self._line(f"{self._phase}\n")

    def _line(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def build_request(arguments: Iterable[str], runner: Runner) -> GenerationRequest:
    """The request that ``webui generate`` with these arguments would run."""
    modules = list(runner.plugins.conditioning_modules.values())
    return _request(_parser((), modules).parse_args(["generate", *arguments]), runner)
