"""The command line: serve, generate, reproduce, info, models.

Results go to standard output, progress and errors to standard error.  Exit codes: 0 done, 1 done with another outcome
than hoped for (a picture that was not reproduced bit-exactly), 2 an error that a person can act on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from webui import __version__
from webui.errors import PictureError, RequestError, WebUIError
from webui.request import (
    GenerationRequest,
    InpaintArea,
    Mask,
    MaskedContent,
    MaskMode,
    ResizeMode,
    Sampling,
    Size,
    StartImage,
)
from webui.settings import Settings

if TYPE_CHECKING:
    from webui.engine.executor import Report
    from webui.engine.runner import Runner
    from webui.result import MadePicture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


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
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
        return code
    except WebUIError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="webui", description="Pictures from prompts, on your own machine.")
    parser.add_argument("--version", action="version", version=f"webui {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_generate(commands)
    reproduce = _command(
        commands, "reproduce", _reproduce, "make pictures again and say whether they came out the same"
    )
    reproduce.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reproduce.add_argument("--json", action="store_true", help="print the verdicts as JSON")
    _add_folders(reproduce)
    _add_compute(reproduce)
    train = _command(commands, "train", _train, "teach a model something")
    train.add_argument("--config", type=Path, required=True, metavar="FILE", help="the training request as JSON")
    train.add_argument(
        "--run", dest="folder", type=Path, required=True, metavar="FOLDER", help="where the run is kept; resumed if begun"
    )
    _add_folders(train)
    _add_compute(train)
    info = _command(commands, "info", _info, "show how a picture was made")
    info.add_argument("file", type=Path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="print everything the file carries as JSON")
    models = _command(commands, "models", _models, "list the files of the models folder")
    models.add_argument("--json", action="store_true", help="print the list as JSON")
    models.add_argument("--hash", action="store_true", help="compute missing SHA-256 hashes (reads every file)")
    _add_folders(models)
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


def _add_compute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps or xpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: one a core)")


def _add_serve(commands: Any) -> None:
    serve = _command(commands, "serve", _serve, "start the page and the API")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this computer alone)")
    serve.add_argument("--port", type=int, default=7860)
    serve.add_argument("--no-browser", action="store_true", help="do not open the browser")
    serve.add_argument("--password", help="ask for this password; needed with a --host other than this computer")
    serve.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name this server is known by"
    )
    _add_folders(serve)
    _add_compute(serve)


def _add_generate(commands: Any) -> None:
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
    generate.add_argument("--out", type=Path, metavar="FILE_OR_FOLDER", help="default: the outputs folder")
    _add_folders(generate)
    _add_compute(generate)


def _settings(parsed: argparse.Namespace) -> Settings:
    settings = Settings(
        models_dir=parsed.models_dir.expanduser().resolve(),
        outputs_dir=parsed.outputs_dir.expanduser().resolve(),
        extensions_dir=parsed.extensions_dir.expanduser().resolve(),
        load_extensions=not parsed.no_extensions,
    )
    if not hasattr(parsed, "device"):
        return settings
    if parsed.threads is not None and parsed.threads < 1:
        raise RequestError(f"--threads is {parsed.threads}; it must be at least 1.")
    return replace(settings, device=parsed.device, precision=parsed.precision, threads=parsed.threads)


def _serve(parsed: argparse.Namespace) -> int:
    from webui.server import serve

    settings = replace(
        _settings(parsed),
        host=parsed.host,
        port=parsed.port,
        password=parsed.password,
        allowed_hosts=tuple(parsed.allow_host),
    )
    return serve(settings, open_browser=not parsed.no_browser)


def _generate(parsed: argparse.Namespace) -> int:
    runner = _runner(parsed)
    request = _request(parsed, runner)
    from webui.engine.executor import Control

    save, suffix = _target(parsed.out, request.pictures)
    for path in runner.generate(request, _Progress(sys.stderr), Control(), save=save, suffix=suffix):
        print(path, flush=True)
    return 0


def _runner(parsed: argparse.Namespace) -> Runner:
    from webui.engine.runner import Runner

    return Runner.start(_settings(parsed))


def _request(parsed: argparse.Namespace, runner: Runner) -> GenerationRequest:
    """The request that the options mean; what was not said comes from the model's own recommendations."""
    from webui.engine.catalogue import CheckpointEntry

    model = CheckpointEntry(runner.library.find(parsed.checkpoint), runner.plugins)
    defaults = Sampling()
    said = {
        "sampler": parsed.sampler,
        "schedule": parsed.schedule,
        "steps": parsed.steps,
        "cfg_scale": parsed.cfg_scale,
    }
    advised = {**{name: getattr(defaults, name) for name in said}, **model.defaults}
    sampling = Sampling(
        **{name: advised[name] if value is None else value for name, value in said.items()}, eta=parsed.eta
    )
    return GenerationRequest(
        prompt=parsed.prompt,
        negative_prompt=parsed.negative,
        size=Size(
            width=model.native_size if parsed.width is None else parsed.width,
            height=model.native_size if parsed.height is None else parsed.height,
        ),
        sampling=sampling,
        seed=None if parsed.seed in (None, -1) else parsed.seed,
        batch_size=parsed.batch_size,
        batch_count=parsed.batch_count,
        clip_skip=parsed.clip_skip,
        checkpoint=parsed.checkpoint,
        start=_start(parsed, runner),
    )


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
    import signal
    from threading import Event

    from webui.training.moments import Exported, LeftOut, Phase, Sampled, Saved, Stepped
    from webui.training.request import TrainingRequest
    from webui.training.session import Place, teach

    runner = _runner(parsed)
    request = TrainingRequest.from_dict(json.loads(_read(parsed.config)))
    place = Place(
        folder=parsed.folder.resolve(),
        library=runner.library,
        kinds=runner.plugins.training_kinds,
        families=runner.plugins.families,
        compute=runner.compute,
        preprocessors=runner.plugins.preprocessors,
    )
    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    wishes = _Wishes(stopped)
    for moment in teach(request, place, wishes):
        if isinstance(moment, Stepped) and moment.step % 25 == 0:
            losses = " ".join(f"{name} {value:.4f}" for name, value in moment.losses.items())
            print(
                f"step {moment.step}/{moment.steps} {losses} left {moment.eta_s or 0:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        elif isinstance(moment, Phase):
            print(moment.text, file=sys.stderr, flush=True)
        elif isinstance(moment, LeftOut):
            for sentence in moment.sentences:
                print(f"left out: {sentence}", file=sys.stderr)
        elif isinstance(moment, Sampled | Saved):
            print(f"{type(moment).__name__.lower()} at step {moment.step}", file=sys.stderr, flush=True)
        elif isinstance(moment, Exported):
            print(moment.path)
    return 0


class _Wishes:
    """What Ctrl+C means to a training: end with a checkpoint."""

    def __init__(self, stopped: Any) -> None:
        self._stopped = stopped

    def stop(self) -> bool:
        """See Wishes."""
        return bool(self._stopped.is_set())

    def pause(self) -> bool:
        """See Wishes."""
        return False


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
    from webui.checkpoints.library import FOLDERS, Library

    settings = _settings(parsed)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    library = Library(settings.models_dir, HashCache(settings.state_dir / "hashes.sqlite3"))
    entries = [entry for kind in FOLDERS for entry in library.entries(kind)]
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
    return _request(_parser().parse_args(["generate", *arguments]), runner)
