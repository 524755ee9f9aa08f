"""Finds built-in parts and extensions, and calls their hooks so that one that fails is named and left out.

An extension is a ``.py`` file or a folder with ``__init__.py`` in the extensions folder, or an installed package with
a ``webui`` entry point.  Built-in parts are the modules of the drop-in folders; they register through the same hooks.
Hooks run in the order of registration: built-in parts, the folder's extensions by name where their ``extension.toml``
asks for no other order, installed packages.  With
``WEBUI_TRACE_HOOKS=1`` every call is printed to standard error with its result.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from webui import hooks
from webui.conditioning.modules import problem_of
from webui.errors import ExtensionError, InstallError, WebUIError
from webui.plugins.discovery import discover, in_load_order
from webui.plugins.manifest import Manifest
from webui.plugins.moves import finish_interrupted
from webui.plugins.shelf import offer_packages
from webui.plugins.switches import disabled_names
from webui.result import Plugin
from webui.settings import Settings

if TYPE_CHECKING:
    from webui.conditioning import ConditioningModule
    from webui.diffusion.schedules import Schedule
    from webui.faces import FaceRestorer
    from webui.families import ModelFamily
    from webui.preprocessors import Preprocessor
    from webui.request import GenerationRequest
    from webui.samplers import Sampler
    from webui.scripts import Script
    from webui.training.kinds import TrainingKind
    from webui.ui.tabs import Tab
    from webui.upscalers import Upscaler

log = logging.getLogger(__name__)

DROP_IN_PACKAGES = (
    "webui.samplers",
    "webui.families",
    "webui.conditioning",
    "webui.preprocessors",
    "webui.upscalers",
    "webui.faces",
    "webui.scripts",
    "webui.training.kinds",
)
BUILT_IN_MODULES = ("webui.diffusion.schedules",)
TAB_PACKAGE = "webui.ui.tabs"
"""Its tabs, and those of extensions, are wanted in the server process alone."""
EXTENSION_PACKAGE = "webui_extensions"
"""Prefix of the module names under which extensions are imported."""


TRACE_VARIABLE = "WEBUI_TRACE_HOOKS"
PARTS = {
    "register_samplers": ("name", "integrate"),
    "register_schedules": ("name", "key", "sigmas"),
    "register_model_families": ("name", "detect", "native_size", "build"),
    "register_conditioning_modules": ("name", "options", "prepare"),
    "register_preprocessors": ("name", "run"),
    "register_upscalers": ("name", "scale", "enlarge", "resize_latent"),
    "register_face_restorers": ("name", "restore", "find_file"),
    "register_scripts": ("name", "options", "expand", "from_start", "arguments", "options_from"),
    "register_training_kinds": ("name", "label", "summary", "folder", "options", "begin"),
    "register_ui_tabs": ("id", "label", "order", "build"),
}
"""What the things a registration hook returns have; the first is the name that people choose them by."""
MODULES = "register_conditioning_modules"
REWRITING = ("rewrite_request", "rewrite_picture")
MAX_PROBLEMS = 100
"""So many sentences are kept; an extension's may name pictures or numbers, so that no two are alike."""
_FAILED = object()
TRACED_CHARACTERS = 200
"""How much of an argument or result is printed."""


@dataclass
class Plugins:
    """The loaded plugins.  ``problems`` are sentences about extensions that were left out or failed."""

    manager: pluggy.PluginManager
    problems: list[str] = field(default_factory=list)
    extensions: list[Plugin] = field(default_factory=list)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """What each of ``extensions`` says of itself, by name."""
    disabled: frozenset[str] = frozenset()
    """Names of extensions that are switched off; they are not imported."""
    trace: bool = field(default_factory=lambda: os.environ.get(TRACE_VARIABLE) == "1")
    _parts: dict[str, dict[str, tuple[Any, str]]] = field(default_factory=dict)

    @classmethod
    def start(cls, settings: Settings, *, packages: Sequence[str] = DROP_IN_PACKAGES) -> Plugins:
        """Load what the settings say: the built-in parts, and the extensions that are not switched off."""
        folder = settings.extensions_dir if settings.load_extensions else None
        return cls.load(folder, packages=packages, disabled=disabled_names(settings.state_dir))

    @classmethod
    def load(
        cls,
        extensions_dir: Path | None,
        *,
        packages: Sequence[str] = DROP_IN_PACKAGES,
        disabled: frozenset[str] = frozenset(),
    ) -> Plugins:
        """Load the built-in parts, then the extensions of the folder (None: no extensions at all)."""
        manager = pluggy.PluginManager(hooks.PROJECT)
        manager.add_hookspecs(hooks.Hooks)
        plugins = cls(manager, disabled=disabled)
        for name in (*BUILT_IN_MODULES, *_modules_of(packages)):
            manager.register(importlib.import_module(name), name)
        if extensions_dir is not None:
            plugins._load_folder(extensions_dir)
            plugins._load_entry_points()
        for hook in PARTS:
            if hook != "register_ui_tabs" or TAB_PACKAGE in packages:
                plugins._owned(hook)
        return plugins

    @cached_property
    def samplers(self) -> dict[str, Sampler]:
        """Registered samplers by name, built-in ones first."""
        return self.registered("register_samplers")

    @cached_property
    def schedules(self) -> dict[str, Schedule]:
        """Registered schedules by name."""
        return self.registered("register_schedules")

    @cached_property
    def families(self) -> dict[str, ModelFamily]:
        """Registered model families by name."""
        return self.registered("register_model_families")

    @cached_property
    def conditioning_modules(self) -> dict[str, ConditioningModule]:
        """Registered conditioning modules by name."""
        return self.registered("register_conditioning_modules")

    @cached_property
    def preprocessors(self) -> dict[str, Preprocessor]:
        """Registered preprocessors by name."""
        return self.registered("register_preprocessors")

    @cached_property
    def upscalers(self) -> dict[str, Upscaler]:
        """Registered upscalers by name; those made of model files are not among them (``webui.upscalers.files``)."""
        return self.registered("register_upscalers")

    @cached_property
    def face_restorers(self) -> dict[str, FaceRestorer]:
        """Registered face restorers by name."""
        return self.registered("register_face_restorers")

    @cached_property
    def scripts(self) -> dict[str, Script]:
        """Registered scripts by name."""
        return self.registered("register_scripts")

    @cached_property
    def training_kinds(self) -> dict[str, TrainingKind]:
        """Registered kinds of training by name."""
        return self.registered("register_training_kinds")

    @cached_property
    def tabs(self) -> list[Tab]:
        """Registered tabs of the page in their order."""
        return sorted(self.registered("register_ui_tabs").values(), key=lambda tab: tab.order)

    def registered(self, hook: str) -> dict[str, Any]:
        """What a registration hook returns over all plugins, by name; of two of one name the first is kept."""
        return {name: item for name, (item, _) in self._owned(hook).items()}

    def taking_part(self, request: GenerationRequest, family: str) -> list[Plugin]:
        """The extensions that can change a pixel of a request's pictures: by rewriting, or by a part that is used."""
        used: dict[str, set[str]] = {
            "register_samplers": {request.sampling.sampler},
            "register_schedules": {request.sampling.schedule},
            "register_model_families": {family},
            "register_conditioning_modules": {use.name for use in request.modules},
            "register_preprocessors": set(self.preprocessors) if request.modules else set(),
            "register_upscalers": {request.second_pass.upscaler} if request.second_pass else set(),
            "register_face_restorers": {request.face_restoration.model} if request.face_restoration else set(),
        }
        rewriting = {_owner(implementation) for hook in REWRITING for implementation in self._implementations(hook)}
        owners = {_extension(plugin.name) for plugin in self.using(used)} | rewriting
        return [plugin for plugin in self.extensions if _extension(plugin.name) in owners]

    def using(self, used: Mapping[str, set[str]]) -> list[Plugin]:
        """The extensions that registered one of these things: names by registration hook."""
        owners = {
            owner for hook, names in used.items() for name, (_, owner) in self._owned(hook).items() if name in names
        }
        return [plugin for plugin in self.extensions if _extension(plugin.name) in owners]

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call an event hook of every plugin; one that raises is named and the others are still called."""
        for _ in self.each(hook, **arguments):
            pass

    def rewrite(self, hook: str, name: str, value: Any, **arguments: Any) -> Any:
        """Pass ``value`` through every plugin's rewrite hook; None keeps it.  A plugin that raises changes nothing."""
        for implementation in self._implementations(hook):
            result = self._call(hook, implementation, {**arguments, name: value})
            if result is None or result is _FAILED:
                continue
            if _kind(result) != _kind(value):
                self._problem(
                    f"{_owner(implementation)}: {hook} returned {_kind(result)}, expected {_kind(value)}; "
                    "it was ignored."
                )
                continue
            value = result
        return value

    def amend(
        self, hook: str, name: str, value: dict[str, Any], check: Callable[[dict[str, Any]], object], **arguments: Any
    ) -> dict[str, Any]:
        """``value`` as every plugin's hook changes it in place.

        A plugin that raises, or leaves what ``check`` refuses with a WebUIError, is named and changes nothing.
        """
        for implementation in self._implementations(hook):
            draft = deepcopy(value)
            if self._call(hook, implementation, {**arguments, name: draft}) is _FAILED:
                continue
            try:
                check(draft)
            except WebUIError as error:
                self._problem(f"{_owner(implementation)}: what {hook} did was ignored: {error}")
                continue
            value = draft
        return value

    def each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """(plugin, result) of every implementation that did not raise and returned something."""
        for implementation in self._implementations(hook):
            result = self._call(hook, implementation, arguments)
            if result is not None and result is not _FAILED:
                yield _owner(implementation), result

    def pairs(self, hook: str, **arguments: Any) -> dict[str, str]:
        """The key and value pairs that every plugin's hook returns, as texts; of two of one key the last is kept."""
        merged: dict[str, str] = {}
        for plugin, result in self.each(hook, **arguments):
            if isinstance(result, Mapping):
                merged.update({str(key): str(value) for key, value in result.items()})
            else:
                self._problem(f"{plugin}: {hook} returned {_kind(result)}, expected a mapping; it was ignored.")
        return merged

    def ask_module(self, module: ConditioningModule, function: str, arguments: tuple[Any, ...]) -> Any:
        """What a function of a conditioning module answers; None when it raised, which names its extension."""
        try:
            return getattr(module, function)(*arguments)
        except Exception as error:
            owner = self._owned(MODULES).get(module.name, (module, f"the module {module.name}"))[1]
            self._problem(f"{owner}: {function} of {module.name} failed: {_where(error)}")
            return None

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Name the extension whose code raises inside, outside a hook (a sampler's formula): as an ExtensionError."""
        try:
            yield
        except WebUIError:
            raise
        except Exception as error:
            sentence = self._fault(error)
            if sentence is None:
                raise
            log.exception("%s", sentence)
            raise ExtensionError(sentence) from error

    def _fault(self, error: Exception) -> str | None:
        """A sentence when an extension's code was running; None when none was, or memory did not suffice."""
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return None
        names = {
            getattr(plugin, "__name__", ""): name
            for name, plugin in self.manager.list_name_plugin()
            if name.startswith(_extension(""))
        }
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            module = str(frame.f_globals.get("__name__", ""))
            for start, name in names.items():
                if module == start or module.startswith(f"{start}."):
                    place = f"{Path(frame.f_code.co_filename).name}, line {line}"
                    return f"The {name} failed: {type(error).__name__}: {error} ({place})."
        return None

    def _owned(self, hook: str) -> dict[str, tuple[Any, str]]:
        """(thing, plugin) by name for a registration hook, which is called once."""
        if hook in self._parts:
            return self._parts[hook]
        found: dict[str, tuple[Any, str]] = {}
        for plugin, item in self._collect(hook):
            name = getattr(item, PARTS[hook][0])
            if name in found:
                self._problem(
                    f'Both {found[name][1]} and {plugin} register "{name}" ({hook}); the one of {plugin} was left out.'
                )
            else:
                found[name] = (item, plugin)
        self._parts[hook] = found
        return found

    def _collect(self, hook: str) -> Iterator[tuple[str, Any]]:
        for plugin, result in self.each(hook):
            if not isinstance(result, list | tuple):
                self._problem(f"{plugin}: {hook} returned {_kind(result)}, expected a list; it was left out.")
                continue
            for item in result:
                lacking = [name for name in PARTS[hook] if not hasattr(item, name)]
                if lacking:
                    self._problem(
                        f"{plugin}: {hook} returned a {type(item).__name__} without {', '.join(lacking)}; "
                        "it was left out."
                    )
                elif hook == MODULES and (wrong := problem_of(item)):
                    self._problem(f'{plugin}: {hook} returned "{item.name}", but {wrong}; it was left out.')
                else:
                    yield plugin, item

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        return sorted(caller.get_hookimpls(), key=lambda one: (not one.tryfirst, one.trylast))

    def _call(self, hook: str, implementation: pluggy.HookImpl, arguments: dict[str, Any]) -> Any:
        """The hook's result, or _FAILED when it raised."""
        try:
            result = implementation.function(*(arguments[name] for name in implementation.argnames))
        except Exception as error:
            self._problem(f"{_owner(implementation)}: {hook} failed: {_where(error)}")
            result = _FAILED
        if self.trace:
            _print_call(hook, implementation, arguments, result)
        return result

    def _load_folder(self, folder: Path) -> None:
        try:
            finish_interrupted(folder)
        except InstallError as error:
            self._problem(str(error))
        found, sentences = in_load_order(discover(folder))
        for sentence in sentences:
            self._problem(sentence)
        for one in found:
            if one.name in self.disabled:
                continue
            if one.problem:
                self._problem(f"The extension {one.name} was left out: {one.problem}")
                continue
            offer_packages(folder, one.name)
            self._load_extension(one.manifest, partial(_import_file, one.source, one.name), partial(_digest, one.path))

    def _load_entry_points(self) -> None:
        for entry in importlib.metadata.entry_points(group=hooks.PROJECT):
            if entry.name in self.disabled:
                continue
            version = entry.dist.version if entry.dist else ""
            manifest = Manifest(name=entry.name, version=version)
            self._load_extension(manifest, entry.load, partial(str, f"{entry.name} {version}"))

    def _load_extension(self, manifest: Manifest, load: Callable[[], ModuleType], digest: Callable[[], str]) -> None:
        had_torch = "torch" in sys.modules
        name = manifest.name
        try:
            module = load()
            marked = _marked(module)
            wrappers = [hook for hook, options in marked.items() if options["wrapper"] or options["hookwrapper"]]
            if wrappers:
                raise ExtensionError(f"{', '.join(wrappers)} cannot wrap other hooks; return a value instead.")
            version = str(manifest.version or getattr(module, "__version__", ""))
            plugin = Plugin(name=name, version=version, digest=digest())
            self.manager.register(module, _extension(name))
        except (Exception, SystemExit) as error:
            self._problem(f"The extension {name} was left out: {_where(error)}")
            return
        unknown = [hook for hook in marked if not hasattr(hooks.Hooks, hook)]
        if unknown:
            self._problem(f"The extension {name} uses hooks that do not exist: {', '.join(unknown)}.")
        if "torch" in sys.modules and not had_torch:
            log.info("The extension %s imports torch at its top, which delays the start; import it in functions.", name)
        self.extensions.append(plugin)
        self.manifests[name] = manifest

    def _problem(self, sentence: str) -> None:
        log.warning("%s", sentence)
        if sentence not in self.problems and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(sentence)


def _modules_of(packages: Sequence[str]) -> Iterator[str]:
    for package in packages:
        module = importlib.import_module(package)
        for info in pkgutil.iter_modules(module.__path__, prefix=f"{package}."):
            yield info.name


def _import_file(source: Path, name: str) -> ModuleType:
    """Import an extension under a name of its own; its folder does not go onto ``sys.path``.

    The package that the name says it lies in is there too, empty, since ``from . import file`` asks for it.
    """
    if EXTENSION_PACKAGE not in sys.modules:
        sys.modules[EXTENSION_PACKAGE] = package = ModuleType(EXTENSION_PACKAGE)
        package.__path__ = []
    full_name = f"{EXTENSION_PACKAGE}.{name}"
    search = [str(source.parent)] if source.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(full_name, source, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module


def _digest(path: Path) -> str:
    """SHA-256 over the extension's Python files and their relative names, in name order."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path.parent).as_posix()}\n".encode())
        total.update(file.read_bytes())
    return total.hexdigest()


def _marked(module: ModuleType) -> dict[str, Mapping[str, Any]]:
    """The options given to ``@hookimpl`` by the name of the hook."""
    marker = f"{hooks.PROJECT}_impl"
    options = {
        name: getattr(value, marker)
        for name, value in vars(module).items()
        if inspect.isroutine(value) and hasattr(value, marker)
    }
    return {given["specname"] or name: given for name, given in options.items()}


def _extension(name: str) -> str:
    """The name under which an extension is registered."""
    return f"extension {name}"


def _owner(implementation: pluggy.HookImpl) -> str:
    return str(implementation.plugin_name)


def _kind(value: Any) -> str:
    """What a rewritten value must have in common with the old one: its type, and an array's dtype and channels."""
    if not hasattr(value, "dtype"):
        return f"a {type(value).__name__}"
    axes = [*("HW"[: value.ndim]), *map(str, value.shape[2:])]
    return f"a {type(value).__name__} of {value.dtype}, ({', '.join(axes)})"


def _print_call(hook: str, implementation: pluggy.HookImpl, arguments: Mapping[str, Any], result: Any) -> None:
    given = ", ".join(f"{name}={_short(arguments[name])}" for name in implementation.argnames)
    shown = "raised" if result is _FAILED else _short(result)
    print(f"{_owner(implementation)}: {hook}({given}) -> {shown}", file=sys.stderr, flush=True)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= TRACED_CHARACTERS else f"{text[: TRACED_CHARACTERS - 1]}…"


def _where(error: BaseException) -> str:
    """The error with the innermost file and line, for a person who can look there."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename).name}, line {error.lineno})"
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
