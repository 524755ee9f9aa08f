"""Finds built-in parts and extensions, and calls their hooks so that one that fails is named and left out.

An extension is a ``.py`` file or a folder with ``__init__.py`` in the extensions folder, or an installed package with
a ``webui`` entry point.  Built-in parts are the modules of the drop-in folders; they register through the same hooks.
Hooks run in the order of registration: built-in parts, the folder's extensions by name where their ``extension.toml``
asks for no other order, installed packages.  With
``WEBUI_TRACE_HOOKS=1`` every call is printed to standard error with its result.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pluggy

from webui import hooks
from webui.checkpoints.formats import Formats
from webui.conditioning.extra_networks import HOOK as NETWORK_KINDS
from webui.conditioning.extra_networks import NetworkKinds
from webui.conditioning.modules import problem_of
from webui.errors import ExtensionError, InstallError, WebUIError
from webui.plugins.call_record import CallRecord
from webui.plugins.calling import FAILED, IMPORT, Bound, Budgets, Caller
from webui.plugins.conduct import Conduct, ExtensionReport, Journal, Problem, place_of, printable, said
from webui.plugins.discovery import Found, discover, in_load_order
from webui.plugins.guarded_loaders import LOADERS, GuardedLoader, suffixes_of
from webui.plugins.manifest import Manifest
from webui.plugins.moves import finish_interrupted
from webui.plugins.own_networks import registered_kinds
from webui.plugins.patches import bindings, put_back
from webui.plugins.shelf import offer_packages
from webui.plugins.switches import disabled_names
from webui.plugins.tree_hash import tree_hash
from webui.plugins.watchdog import HookTimeout
from webui.result import Plugin
from webui.settings import Settings

if TYPE_CHECKING:
    from webui.conditioning import ConditioningModule
    from webui.diffusion.schedules import Schedule
    from webui.faces import FaceRestorer
    from webui.families import ModelFamily
    from webui.networks.attention_kinds import AttentionKind
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
    "webui.training.kinds",
)
BUILT_IN_MODULES = (
    "webui.checkpoints.formats",
    "webui.diffusion.schedules",
    "webui.networks.attention_kinds",
    "webui.server_flags",
    "webui.ui.gallery_settings",
    "webui.metadata.fields",
)
TAB_PACKAGE = "webui.ui.tabs"
ROUTES_PACKAGE = "webui.api.routers"
SERVER_PACKAGES = (*DROP_IN_PACKAGES, ROUTES_PACKAGE, TAB_PACKAGE, "webui.ui.panels")
SERVER_HOOKS = frozenset({"register_ui_tabs", "register_ui_panels", "register_api_routes"})
"""Registrations that are wanted in the server process alone."""
BUILT_IN_FIRST = frozenset(
    {"register_api_routes", "register_settings", "register_cli_options", "register_infotext_fields"}
    | {LOADERS, NETWORK_KINDS}
)
"""Registrations in which an extension can take nothing from a built-in part, not even with ``tryfirst``."""
EXTENSION_PACKAGE = "webui_extensions"
"""Prefix of the module names under which extensions are imported."""


PARTS = {
    "register_samplers": ("name", "integrate"),
    "register_schedules": ("name", "key", "sigmas"),
    "register_model_families": ("name", "detect", "native_size", "build"),
    LOADERS: ("name", "suffixes", "recognises", "header", "read"),
    "register_conditioning_modules": ("name", "options", "prepare"),
    NETWORK_KINDS: ("name", "title", "folders", "options", "prepare"),
    "register_preprocessors": ("name", "run"),
    "register_attention_kinds": ("name", "attend"),
    "register_upscalers": ("name", "scale", "enlarge", "resize_latent"),
    "register_face_restorers": ("name", "restore", "find_file"),
    "register_scripts": ("name", "options", "expand", "from_start", "arguments", "options_from"),
    "register_training_kinds": ("name", "label", "summary", "folder", "options", "begin"),
    "register_ui_tabs": ("id", "label", "order", "build"),
    "register_settings": ("name", "label", "options", "guarded"),
    "register_cli_options": ("name", "label", "options"),
    "register_infotext_fields": ("key", "path", "read", "write"),
    "register_ui_panels": ("id", "label", "tabs", "order", "build"),
    "register_api_routes": ("prefix", "build"),
}
"""What the things a registration hook returns have; the first is the name that people choose them by."""
MODULES = "register_conditioning_modules"
REWRITING = (
    "rewrite_request",
    "rewrite_prompt",
    "rewrite_noise",
    "rewrite_start",
    "rewrite_call",
    "rewrite_guided",
    "rewrite_denoised",
    "rewrite_blend",
    "rewrite_second_start",
    "rewrite_latent",
    "rewrite_decoded",
    "rewrite_picture",
)
"""Hooks by which an extension can change a pixel of any picture."""
MAX_GRACE_S = 5.0
MAX_PARTS = 1000
"""So many things of one registration are looked at."""
MAX_NAME = 100
MAX_PAIRS_CHARACTERS = 100_000
"""So much text may a plugin add to a picture."""
GUARDED = frozenset(
    {"before_job", "rewrite_request", "rewrite_prompt", "before_batch", "rewrite_picture", "after_batch"}
    | {"before_save", "after_save", "rewrite_grid", "after_job", "write_infotext"}
)
"""Hooks called once a job or picture: they see a copy of the request, which is frozen; Python has ways around that."""
TEXTS = {"register_ui_tabs": ("id",), "register_ui_panels": ("id",), "register_training_kinds": ("folder",)}
"""Texts of parts that become parts of paths and addresses."""


@dataclass
class Plugins:
    """The loaded plugins.  ``problems`` are sentences about extensions that were left out or failed."""

    manager: pluggy.PluginManager
    caller: Caller = field(default_factory=lambda: Caller(Journal()))
    extensions: list[Plugin] = field(default_factory=list)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    """What each of ``extensions`` says of itself, by name."""
    disabled: frozenset[str] = frozenset()
    """Names of extensions that are switched off; they are not imported."""
    _parts: dict[str, dict[str, tuple[Any, str]]] = field(default_factory=dict)
    _bound: dict[str, tuple[Bound, ...]] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        settings: Settings,
        *,
        packages: Sequence[str] = DROP_IN_PACKAGES,
        abandons: bool = False,
        record: CallRecord | None = None,
        unloadable: Mapping[str, str] | None = None,
    ) -> Plugins:
        """Load what the settings say: the built-in parts, and the extensions that are not switched off.

        ``abandons`` and ``record`` are those of :class:`Caller`.  ``unloadable`` are left out, each with a sentence.
        """
        start_s, call_s = settings.extension_start_s, settings.extension_call_s
        grace_s = min(start_s or MAX_GRACE_S, call_s or MAX_GRACE_S, MAX_GRACE_S)
        budgets = Budgets(start_s=start_s, call_s=call_s, grace_s=grace_s, failures=settings.extension_failures)
        return cls.load(
            settings.extensions_dir if settings.load_extensions else None,
            packages=packages,
            disabled=disabled_names(settings.state_dir) | set(settings.extensions_off),
            caller=Caller(Journal(budgets.failures), budgets, abandons, record),
            unloadable=unloadable or {},
        )

    @classmethod
    def load(
        cls,
        extensions_dir: Path | None,
        *,
        packages: Sequence[str] = DROP_IN_PACKAGES,
        disabled: frozenset[str] = frozenset(),
        caller: Caller | None = None,
        unloadable: Mapping[str, str] | None = None,
    ) -> Plugins:
        """Load the built-in parts, then the extensions of the folder (None: no extensions at all).

        ``caller`` calls their hooks, and says what they may take.
        """
        manager = pluggy.PluginManager(hooks.PROJECT)
        manager.add_hookspecs(hooks.Hooks)
        plugins = cls(manager, caller or Caller(Journal()), disabled=disabled)
        for name in (*BUILT_IN_MODULES, *_modules_of(packages)):
            manager.register(importlib.import_module(name), name)
        if extensions_dir is not None:
            plugins._load_folder(extensions_dir.absolute(), unloadable or {})
            plugins._load_entry_points()
        for hook in PARTS:
            if hook not in SERVER_HOOKS or TAB_PACKAGE in packages:
                plugins._owned(hook)
        return plugins

    @property
    def journal(self) -> Journal:
        """How the extensions behaved in this process."""
        return self.caller.journal

    @property
    def problems(self) -> list[str]:
        """Sentences about extensions that were left out or failed, in the order in which they came up."""
        return [problem.sentence for problem in self.journal.problems]

    def report(self) -> list[ExtensionReport]:
        """Every extension that was found: on or off, the time of each of its hooks, and what went wrong."""
        return self.journal.report()

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
    def formats(self) -> Formats:
        """The forms of model files: the built-in ones, and those of extensions, which are guarded."""
        built_in, added = [], []
        for name, (loader, owner) in self._owned(LOADERS).items():
            conduct = self.journal.conducts.get(extension_named(owner) or "")
            if conduct is None:
                built_in.append(loader)
                continue
            suffixes = self.run(owner, LOADERS, partial(suffixes_of, loader))
            if suffixes is not FAILED:
                added.append(GuardedLoader(loader, name, suffixes, owner, conduct, self.caller))
        return Formats(tuple(built_in), tuple(added))

    @cached_property
    def conditioning_modules(self) -> dict[str, ConditioningModule]:
        """Registered conditioning modules by name."""
        return self.registered("register_conditioning_modules")

    @cached_property
    def extra_network_kinds(self) -> NetworkKinds:
        """Registered kinds of networks that a prompt's tags name; those whose words are taken are named."""
        return registered_kinds(self)

    @cached_property
    def preprocessors(self) -> dict[str, Preprocessor]:
        """Registered preprocessors by name."""
        return self.registered("register_preprocessors")

    @cached_property
    def attention_kinds(self) -> dict[str, AttentionKind]:
        """Registered ways to compute attention by name."""
        return self.registered("register_attention_kinds")

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

    def owned(self, hook: str) -> dict[str, tuple[Any, str]]:
        """As :meth:`registered`, each with the name of the plugin that registered it (see :func:`extension_named`)."""
        return dict(self._owned(hook))

    def owner(self, hook: str, name: str) -> str:
        """Who registered the part of a name, with the file."""
        return self.named(self._owned(hook)[name][1])

    def named(self, owner: str) -> str:
        """A plugin with its file, for a person who looks for it; a built-in part's name says where it is."""
        conduct = self.journal.conducts.get(owner.removeprefix(_extension("")))
        return f"{owner} ({conduct.root.name})" if conduct is not None and conduct.root is not None else owner

    def note(self, owner: str, hook: str, sentence: str) -> None:
        """Keep a sentence about what a plugin did; it does not count as a failure."""
        self.journal.note(Problem(sentence=sentence, extension=extension_named(owner) or owner, hook=hook))

    def failure(self, owner: str, hook: str, doing: str, error: BaseException) -> str:
        """The sentence, kept and logged, about code of a plugin that raised outside a hook."""
        conduct = self.journal.conducts.get(extension_named(owner) or "")
        place = place_of(error, conduct)
        sentence = f"The {owner} failed at {doing}: {said(error)}{place}."
        log.error("%s", sentence, exc_info=error)
        name = extension_named(owner) or owner
        self.journal.note(Problem(sentence=sentence, extension=name, hook=hook, file=place.file, line=place.line))
        return sentence

    def why_off(self, owner: str) -> str:
        """The sentence that says why an extension is switched off, empty for one that is not."""
        conduct = self.journal.conducts.get(extension_named(owner) or "")
        return conduct.why if conduct is not None and conduct.is_off else ""

    def taking_part(
        self,
        request: GenerationRequest,
        families: Collection[str],
        attention: str = "",
        loaders: Collection[str] = (),
        networks: Collection[str] = (),
    ) -> list[Plugin]:
        """The extensions that can change a pixel of a request's pictures: by rewriting, or by a part that is used.

        ``families`` are those of its models, ``attention`` the kind that was chosen for the whole program, ``loaders``
        are those that read its model files, ``networks`` the kinds that its prompts' tags name.
        """
        second, start, face = request.second_pass, request.start, request.face_restoration
        used: dict[str, Collection[str | None]] = {
            "register_samplers": {request.sampling.sampler, second.sampler if second else None},
            "register_schedules": {request.sampling.schedule, second.schedule if second else None},
            "register_model_families": set(families),
            LOADERS: set(loaders),
            "register_attention_kinds": {attention},
            "register_conditioning_modules": {use.name for use in request.modules},
            NETWORK_KINDS: networks,
            "register_preprocessors": set(self.preprocessors) if request.modules else set(),
            "register_upscalers": {second.upscaler if second else None, start.upscaler if start else None},
            "register_face_restorers": {face.model if face else None},
        }
        rewriting = {
            bound.owner
            for hook in REWRITING
            for bound in self._implementations(hook)
            if bound.conduct is None or not bound.conduct.is_off
        }
        owners = {_extension(plugin.name) for plugin in self.using(used)} | rewriting
        return [plugin for plugin in self.extensions if _extension(plugin.name) in owners]

    def using(self, used: Mapping[str, Collection[str | None]]) -> list[Plugin]:
        """The extensions that registered one of these things: names by registration hook."""
        owners = {
            owner for hook, names in used.items() for name, (_, owner) in self._owned(hook).items() if name in names
        }
        return [plugin for plugin in self.extensions if _extension(plugin.name) in owners]

    def shutdown(self) -> None:
        """Tell every plugin that this process ends."""
        self.tell("shutdown")

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call an event hook of every plugin; one that fails is named and the others are still called."""
        for _ in self.each(hook, **arguments):
            pass

    def has(self, hook: str) -> bool:
        """Whether anybody implements a hook; those of each step are not called otherwise."""
        return bool(self._implementations(hook))

    def derive(self, hook: str, value: Any, arguments: Callable[[Any], dict[str, Any]]) -> Any:
        """Pass an array or tensor through every plugin's hook, called with ``arguments`` of the value so far.

        None keeps it; what is not of the same type, dtype and shape is named and changes nothing.
        """
        for bound in self._implementations(hook):
            result = self.caller.call(bound, arguments(value))
            if result is None or result is FAILED:
                continue
            if _exact_kind(result) != _exact_kind(value):
                found, wanted = _exact_kind(result), _exact_kind(value)
                self.caller.refuse(bound, f"{hook} returned {found}, expected {wanted}; it was ignored.")
                continue
            value = result
        return value

    def rewrite(
        self,
        hook: str,
        name: str,
        value: Any,
        check: Callable[[Any], object] = lambda value: None,
        **arguments: Any,
    ) -> Any:
        """Pass ``value`` through every plugin's rewrite hook; None keeps it.

        A plugin that fails, or returns what ``check`` refuses with a WebUIError, changes nothing.
        """
        given = {**arguments, name: value}
        for bound, result in self._results(hook, given):
            if result is None:
                continue
            if _kind(result) != _kind(value):
                self.caller.refuse(bound, f"{hook} returned {_kind(result)}, expected {_kind(value)}; it was ignored.")
                continue
            try:
                check(result)
            except WebUIError as error:
                self.caller.refuse(bound, f"what {hook} returned was ignored: {error}")
                continue
            value = given[name] = result
        return value

    def amend(
        self, hook: str, name: str, value: dict[str, Any], check: Callable[[dict[str, Any]], object], **arguments: Any
    ) -> dict[str, Any]:
        """``value`` as every plugin's hook changes it in place.

        A plugin that fails, or leaves what ``check`` refuses with a WebUIError, is named and changes nothing.
        """
        for bound in self._implementations(hook):
            draft = deepcopy(value)
            if self.caller.call(bound, {**arguments, name: draft}) is FAILED:
                continue
            try:
                draft = deepcopy(draft)  # what the plugin still holds of it stays its own
                check(draft)
            except (WebUIError, TypeError, RecursionError) as error:
                self.caller.refuse(bound, f"what {hook} did was ignored: {error}")
                continue
            value = draft
        return value

    def each(self, hook: str, **arguments: Any) -> Iterator[tuple[str, Any]]:
        """(plugin, result) of every implementation that did not fail and returned something."""
        for bound, result in self._results(hook, arguments):
            if result is not None:
                yield bound.owner, result

    def pairs(self, hook: str, **arguments: Any) -> dict[str, str]:
        """The key and value pairs that every plugin's hook returns, as texts; of two of one key the last is kept."""
        merged: dict[str, str] = {}
        for bound, result in self._results(hook, arguments):
            if result is None:
                continue
            if not isinstance(result, Mapping):
                self.caller.refuse(bound, f"{hook} returned {_kind(result)}, expected a mapping; it was ignored.")
                continue
            try:
                pairs = {str(key): str(value) for key, value in result.items()}
            except Exception as error:  # a mapping, keys and values of the extension's own making
                self.caller.refuse(bound, f"what {hook} returned cannot be read and was ignored: {said(error)}")
                continue
            length = sum(len(key) + len(value) for key, value in pairs.items())
            if length > MAX_PAIRS_CHARACTERS:
                self.caller.refuse(
                    bound,
                    f"{hook} returned {length} characters, at most {MAX_PAIRS_CHARACTERS} are taken; it was ignored.",
                )
                continue
            merged.update(pairs)
        return merged

    def ask_module(self, module: ConditioningModule, function: str, arguments: tuple[Any, ...]) -> Any:
        """What a function of a conditioning module answers; None when it failed, which names its extension."""
        owner = self._owned(MODULES).get(module.name, (module, f"the module {module.name}"))[1]
        conduct = self.journal.conducts.get(extension_named(owner) or "")
        asked = f"{function} of {module.name}"
        answer = self.caller.call(
            self.caller.bind(asked, owner, lambda: getattr(module, function)(*arguments), (), conduct), {}
        )
        return None if answer is FAILED else answer

    def ask(self, hook: str, name: str, doing: str, function: Callable[[], Any]) -> Any:
        """What ``function``, code of the part ``name`` that ``hook`` registered, gives within the budget of a call.

        ``doing`` is what the call is named by.  Raises what the part says to the user (a WebUIError), and
        ExtensionError when it raises anything else, takes too long or is of an extension that is switched off.
        """
        owner = self._owned(hook)[name][1]
        conduct = self.journal.conducts.get(extension_named(owner) or "")
        if conduct is None:
            return function()

        def outcome() -> tuple[Any, WebUIError | None]:
            try:
                return function(), None
            except WebUIError as error:
                return None, error

        found = self.caller.run(conduct, doing, outcome)
        if found is FAILED:
            raise ExtensionError(self.why_off(owner) or conduct.failure or f"The {owner} failed at {doing}.")
        answer, refusal = found
        if refusal is not None:
            raise refusal
        return answer

    def run(self, owner: str, hook: str, function: Callable[[], Any]) -> Any:
        """What a function of the plugin ``owner`` gives, timed and within the budget of ``hook``, or FAILED."""
        conduct = self.journal.conducts.get(owner.removeprefix(_extension("")))
        return function() if conduct is None else self.caller.run(conduct, hook, function)

    def _results(self, hook: str, arguments: dict[str, Any]) -> Iterator[tuple[Bound, Any]]:
        """(implementation, result) of those that did not fail; ``arguments`` may be changed between two of them."""
        call, request, handed = self.caller.call, None, None
        for bound in self._implementations(hook):
            if bound.conduct is None or hook not in GUARDED or "request" not in bound.arguments:
                result = call(bound, arguments)
            else:
                if request is not arguments["request"]:
                    request = arguments["request"]
                    handed = deepcopy(request)
                result = call(bound, {**arguments, "request": handed})
                if not _same(handed, request):
                    self.caller.refuse(bound, f"{hook} changed the request that it was shown; that was ignored.")
                    request, result = None, FAILED
                elif result is handed:
                    result = request
            if result is not FAILED:
                yield bound, result

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Name the extension whose code raises inside, outside a hook (a sampler's formula): as an ExtensionError."""
        try:
            yield
        except (WebUIError, KeyboardInterrupt, GeneratorExit, HookTimeout):
            raise
        except BaseException as error:  # SystemExit among them
            sentence = self._fault(error)
            if sentence is None:
                raise
            log.exception("%s", sentence)
            raise ExtensionError(sentence) from error

    def _fault(self, error: BaseException) -> str | None:
        """A sentence when an extension's code was running; None when none was, or memory did not suffice."""
        if isinstance(error, MemoryError) or "memory" in str(error).lower():
            return None
        found = None
        trace = error.__traceback__
        while trace is not None:  # the last one met is the innermost
            filename = trace.tb_frame.f_code.co_filename
            found = next((one for one in self.journal.conducts.values() if one.owns(filename)), found)
            trace = trace.tb_next
        if found is None:
            return None
        place = place_of(error, found)
        sentence = f"The extension {found.name} failed: {said(error)}{place}."
        found.failures += 1
        self.journal.note(Problem(sentence=sentence, extension=found.name, file=place.file, line=place.line))
        return sentence

    def _owned(self, hook: str) -> dict[str, tuple[Any, str]]:
        """(thing, plugin) by name for a registration hook, which is called once."""
        if hook in self._parts:
            return self._parts[hook]
        found: dict[str, tuple[Any, str]] = {}
        collected = list(self._collect(hook))
        if hook in BUILT_IN_FIRST:
            collected.sort(key=lambda pair: pair[0].conduct is not None)
        for bound, item in collected:
            name = getattr(item, PARTS[hook][0])
            if name in found:
                both = f"Both {self.named(found[name][1])} and {self.named(bound.owner)}"
                sentence = f'{both} register "{name}" ({hook}); the one of {bound.owner} was left out.'
                self.journal.note(self.caller.problem(bound, sentence))
            else:
                found[name] = (item, bound.owner)
        self._parts[hook] = found
        return found

    def _collect(self, hook: str) -> Iterator[tuple[Bound, Any]]:
        for bound, result in self._results(hook, {}):
            if result is None:
                continue
            if not isinstance(result, list | tuple):
                self.caller.refuse(bound, f"{hook} returned {_kind(result)}, expected a list; it was left out.")
                continue
            for item in list(result[:MAX_PARTS]):
                wrong = _wrong_part(hook, item)
                if wrong:
                    self.caller.refuse(bound, f"{hook} returned {wrong}; it was left out.")
                else:
                    yield bound, item

    def _implementations(self, hook: str) -> tuple[Bound, ...]:
        """A hook's implementations in their order, made once."""
        if hook not in self._bound:
            caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
            ordered = sorted(caller.get_hookimpls(), key=lambda one: (not one.tryfirst, one.trylast))
            self._bound[hook] = tuple(self._bind(hook, one) for one in ordered)
        return self._bound[hook]

    def _bind(self, hook: str, one: pluggy.HookImpl) -> Bound:
        owner = str(one.plugin_name)
        conduct = self.journal.conducts.get(owner.removeprefix(_extension("")))
        return self.caller.bind(hook, owner, one.function, tuple(one.argnames), conduct)

    def _load_folder(self, folder: Path, unloadable: Mapping[str, str]) -> None:
        try:
            finish_interrupted(folder)
        except InstallError as error:
            self.journal.note(Problem(sentence=str(error)))
        found, sentences = in_load_order(discover(folder))
        for sentence in sentences:
            self.journal.note(Problem(sentence=sentence))
        for one in found:
            if one.name not in self.disabled:
                offer_packages(folder, one.name)
                self._load_found(one, unloadable.get(one.name, ""))

    def _load_found(self, one: Found, unloadable: str) -> None:
        conduct = Conduct(name=one.name, root=one.path, version=one.manifest.version)
        if not (one.problem or unloadable):
            self._load_extension(conduct, one.manifest, partial(_import_file, one.source, one.name))
            return
        sentence = unloadable or f"The extension {one.name} was left out: {one.problem}"
        self.journal.conducts.setdefault(one.name, conduct)
        told = Problem(sentence=sentence, extension=one.name, hook=IMPORT, file=one.path.name)
        if self.journal.conducts[one.name] is conduct:
            self.journal.left_out(conduct, told)
        else:
            self.journal.note(told)

    def _load_entry_points(self) -> None:
        for entry in importlib.metadata.entry_points(group=hooks.PROJECT):
            if entry.name in self.disabled:
                continue
            manifest = Manifest(name=entry.name, version=entry.dist.version if entry.dist else "")
            known = self.journal.conducts.get(entry.name)
            if known is not None:
                sentence = (
                    f"The extension {entry.name} of the installed package was left out: "
                    f"{known.root.name if known.root else 'another package'} has that name."
                )
                self.journal.note(Problem(sentence=sentence, extension=entry.name, hook=IMPORT))
                continue
            self._load_extension(Conduct(name=entry.name, version=manifest.version), manifest, entry.load)

    def _load_extension(self, conduct: Conduct, manifest: Manifest, load: Callable[[], ModuleType]) -> None:
        self.journal.conducts[conduct.name] = conduct
        had_torch = "torch" in sys.modules
        before = bindings()
        loaded = self.caller.run(conduct, IMPORT, partial(self._loaded, conduct, load))
        for replaced in put_back(before):
            sentence = f"The extension {conduct.name} replaced {replaced} while it was loaded; it was put back."
            self.journal.failed(conduct, Problem(sentence=sentence, extension=conduct.name, hook=IMPORT))
        if loaded is FAILED:
            return
        marked, version, digest = loaded
        unknown = [hook for hook in marked if not hasattr(hooks.Hooks, hook)]
        if unknown:
            names = ", ".join(map(printable, unknown))
            self.journal.note(
                Problem(
                    sentence=f"The extension {conduct.name} uses hooks that do not exist: {names}.",
                    extension=conduct.name,
                )
            )
        if "torch" in sys.modules and not had_torch:
            log.info(
                "The extension %s imports torch at its top, which delays the start; import it in functions.",
                conduct.name,
            )
        conduct.version = conduct.version or version
        self.extensions.append(Plugin(name=conduct.name, version=conduct.version, digest=digest))
        self.manifests[conduct.name] = manifest

    def _loaded(self, conduct: Conduct, load: Callable[[], ModuleType]) -> tuple[list[str], str, str]:
        """The hooks that an extension names, its version and digest, after it was imported and registered."""
        digest = tree_hash(conduct.root) if conduct.root is not None else f"{conduct.name} {conduct.version}"
        module = load()
        if conduct.root is None and getattr(module, "__file__", None):
            conduct.root = Path(module.__file__ or "")
        marked = _marked(module)
        wrappers = [hook for hook, options in marked.items() if options["wrapper"] or options["hookwrapper"]]
        if wrappers:
            raise ExtensionError(f"{', '.join(wrappers)} cannot wrap other hooks; return a value instead.")
        if not conduct.is_off:  # given up meanwhile
            self.manager.register(module, _extension(conduct.name))
        return list(marked), printable(getattr(module, "__version__", "")), digest


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


def extension_named(owner: str) -> str | None:
    """The name of the extension that a plugin is, None for a built-in part."""
    start = _extension("")
    return owner.removeprefix(start) if owner.startswith(start) else None


def _kind(value: Any) -> str:
    """What a rewritten value must have in common with the old one: its type, and an array's dtype and channels."""
    name = printable(type(value).__name__)
    if not isinstance(value, np.ndarray):
        return f"a {name}"
    axes = [*("HW"[: value.ndim]), *map(str, value.shape[2:])]
    return f"a {name} of {value.dtype}, ({', '.join(axes)})"


def _exact_kind(value: Any) -> str:
    """As :func:`_kind`, with the whole shape."""
    if not hasattr(value, "dtype"):
        return _kind(value)
    return f"a {printable(type(value).__name__)} of {value.dtype}, {tuple(value.shape)}"


def _wrong_part(hook: str, item: Any) -> str:
    """What is wrong with a thing that a registration hook returned, empty when nothing is."""
    kind = f"a {printable(type(item).__name__)}"
    try:
        lacking = [name for name in PARTS[hook] if not hasattr(item, name)]
        if lacking:
            return f"{kind} without {', '.join(lacking)}"
        name = getattr(item, PARTS[hook][0])
        if type(name) is not str:
            return f"{kind} whose {PARTS[hook][0]} is {_kind(name)}, expected a str"
        if name != printable(name) or not 0 < len(name) <= MAX_NAME:
            return f'{kind} named "{printable(name)[:MAX_NAME]}"; a name has 1 to {MAX_NAME} letters that can be shown'
        if hook == MODULES and (reason := problem_of(item)):
            return f'"{name}", but {reason}'
        wrong = [one for one in TEXTS.get(hook, ()) if not re.fullmatch(r"[\w-]+", getattr(item, one))]
        if wrong:
            return f"{kind} whose {wrong[0]} is not made of letters, digits, - and _"
    except Exception as error:  # attributes may be code
        return f"{kind} that cannot be looked at ({said(error)})"
    return ""


def _same(first: Any, second: Any) -> bool:
    try:
        return bool(first == second)
    except Exception:  # a field was replaced by something that does not compare
        return False
