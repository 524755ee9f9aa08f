"""Finds built-in parts and extensions, and calls their hooks so that one that fails is named and left out.

An extension is a ``.py`` file or a folder with ``__init__.py`` in the extensions folder, or an installed package with
a ``webui`` entry point.  Built-in parts are the modules of the drop-in folders; they register through the same hooks.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from webui import hooks
from webui.result import Plugin

if TYPE_CHECKING:
    from webui.conditioning import ConditioningModule
    from webui.diffusion.schedules import Schedule
    from webui.families import ModelFamily
    from webui.preprocessors import Preprocessor
    from webui.samplers import Sampler
    from webui.ui.tabs import Tab

log = logging.getLogger(__name__)

DROP_IN_PACKAGES = ("webui.samplers", "webui.families", "webui.conditioning", "webui.preprocessors")
BUILT_IN_MODULES = ("webui.diffusion.schedules",)
EXTENSION_PACKAGE = "webui_extensions"
"""Prefix of the module names under which extensions are imported."""


class Named(Protocol):
    """Anything a registration hook returns: it has the name that people choose it by."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


@dataclass
class Plugins:
    """The loaded plugins.  ``problems`` are sentences about extensions that were left out or failed."""

    manager: pluggy.PluginManager
    problems: list[str] = field(default_factory=list)
    extensions: list[Plugin] = field(default_factory=list)

    @classmethod
    def load(cls, extensions_dir: Path | None, *, packages: Sequence[str] = DROP_IN_PACKAGES) -> Plugins:
        """Load the built-in parts, then the extensions of the folder (None: no extensions at all)."""
        manager = pluggy.PluginManager(hooks.PROJECT)
        manager.add_hookspecs(hooks.Hooks)
        plugins = cls(manager)
        for name in (*BUILT_IN_MODULES, *_modules_of(packages)):
            manager.register(importlib.import_module(name), name)
        if extensions_dir is not None:
            plugins._load_folder(extensions_dir)
            plugins._load_entry_points()
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
    def tabs(self) -> list[Tab]:
        """Registered tabs of the page in their order."""
        tabs: dict[str, Tab] = {}
        for plugin, result in self._collect("register_ui_tabs"):
            for tab in result:
                if tab.id in tabs:
                    self._problem(f'Two tabs are called "{tab.id}"; the one of {plugin} was left out.')
                else:
                    tabs[tab.id] = tab
        return sorted(tabs.values(), key=lambda tab: tab.order)

    def registered(self, hook: str) -> dict[str, Any]:
        """What a registration hook returns over all plugins, by name; of two of one name the first is kept."""
        found: dict[str, Any] = {}
        owner: dict[str, str] = {}
        for plugin, result in self._collect(hook):
            for item in result:
                if item.name in found:
                    self._problem(
                        f'Both {owner[item.name]} and {plugin} register "{item.name}" ({hook}); '
                        f"the one of {plugin} was left out."
                    )
                    continue
                found[item.name], owner[item.name] = item, plugin
        return found

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call an event hook of every plugin; one that raises is named and the others are still called."""
        for _ in self.each(hook, **arguments):
            pass

    def rewrite(self, hook: str, name: str, value: Any, **arguments: Any) -> Any:
        """Pass ``value`` through every plugin's rewrite hook; None keeps it.  A plugin that raises changes nothing."""
        for implementation in self._implementations(hook):
            result = self._call(hook, implementation, {**arguments, name: value})
            if result is None:
                continue
            if type(result) is not type(value):
                self._problem(
                    f"{_owner(implementation)}: {hook} returned {type(result).__name__}, "
                    f"expected {type(value).__name__}; it was ignored."
                )
                continue
            value = result
        return value

    def each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """(plugin, result) of every implementation that did not raise and returned something."""
        for implementation in self._implementations(hook):
            result = self._call(hook, implementation, arguments)
            if result is not None:
                yield _owner(implementation), result

    def _collect(self, hook: str) -> Iterator[tuple[str, Iterable[Any]]]:
        for plugin, result in self.each(hook):
            if isinstance(result, list | tuple):
                yield plugin, result
            else:
                self._problem(f"{plugin}: {hook} returned {type(result).__name__}, expected a list; it was left out.")

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        return caller.get_hookimpls()

    def _call(self, hook: str, implementation: pluggy.HookImpl, arguments: dict[str, Any]) -> Any:
        try:
            return implementation.function(*(arguments[name] for name in implementation.argnames))
        except Exception as error:
            self._problem(f"{_owner(implementation)}: {hook} failed: {_where(error)}")
            return None

    def _load_folder(self, folder: Path) -> None:
        candidates = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in candidates:
            source = path / "__init__.py" if path.is_dir() else path
            if source.suffix != ".py" or not source.is_file() or path.name.startswith((".", "_")):
                continue
            self._load_extension(path.stem, partial(_import_file, source), _digest(path))

    def _load_entry_points(self) -> None:
        for entry in importlib.metadata.entry_points(group=hooks.PROJECT):
            version = entry.dist.version if entry.dist else ""
            self._load_extension(entry.name, entry.load, f"{entry.name} {version}")

    def _load_extension(self, name: str, load: Callable[[], ModuleType], digest: str) -> None:
        had_torch = "torch" in sys.modules
        try:
            module = load()
            self.manager.register(module, f"extension {name}")
        except Exception as error:
            self._problem(f"The extension {name} was left out: {_where(error)}")
            return
        unknown = [impl for impl in _hook_names(module) if not hasattr(hooks.Hooks, impl)]
        if unknown:
            self._problem(f"The extension {name} uses hooks that do not exist: {', '.join(unknown)}.")
        if "torch" in sys.modules and not had_torch:
            log.info("The extension %s imports torch at its top, which delays the start; import it in functions.", name)
        self.extensions.append(Plugin(name=name, version=str(getattr(module, "__version__", "")), digest=digest))

    def _problem(self, sentence: str) -> None:
        log.warning("%s", sentence)
        if sentence not in self.problems:
            self.problems.append(sentence)


def _modules_of(packages: Sequence[str]) -> Iterator[str]:
    for package in packages:
        module = importlib.import_module(package)
        for info in pkgutil.iter_modules(module.__path__, prefix=f"{package}."):
            yield info.name


def _import_file(source: Path) -> ModuleType:
    """Import an extension under a name of its own; its folder does not go onto ``sys.path``."""
    name = source.parent.name if source.name == "__init__.py" else source.stem
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


def _hook_names(module: ModuleType) -> list[str]:
    marker = f"{hooks.PROJECT}_impl"
    return [name for name, value in vars(module).items() if callable(value) and hasattr(value, marker)]


def _owner(implementation: pluggy.HookImpl) -> str:
    return str(implementation.plugin_name)


def _where(error: BaseException) -> str:
    """The error with the innermost file and line, for a person who can look there."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename).name}, line {error.lineno})"
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
