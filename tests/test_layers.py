"""The map in webui/__init__.py is true: imports point upwards, and the server process comes up without torch.

Read from the source with ``ast``, so that an import inside a function counts as well.  Imports for type checking only
(``if TYPE_CHECKING:``) are free.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import webui
from webui.plugins import manager

ROOT = Path(webui.__file__).parent
HEAVY = {"torch", "torchvision", "diffusers", "transformers", "safetensors.torch"}
TORCH_FREE = ("ui", "api", "cli", "server", "__main__")
"""Parts in which torch is not named at all, not even inside a function."""

# An entry of the map is a name at the start of a line, or a second one after a gap: "api/   REST            ui/  ...".
MAP = re.findall(r"(?:^    |\S {3,})(\w+)(?:/|\.py)", webui.__doc__ or "", flags=re.MULTILINE)
ORDER = [*MAP, "__main__"]
DROP_IN = re.findall(r"^    (\w+)/ *\*", webui.__doc__ or "", flags=re.MULTILINE)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def part(module: str) -> str:
    """The entry of the map a module belongs to: ``webui.samplers.euler`` -> ``samplers``; empty for webui itself."""
    return module.split(".")[1] if "." in module else ""


def nodes(tree: ast.AST, *, inside_functions: bool) -> Iterator[ast.AST]:
    """The nodes that run: all but ``if TYPE_CHECKING:``, and function bodies only where asked for."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from nodes(other, inside_functions=inside_functions)
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            continue
        yield child
        yield from nodes(child, inside_functions=inside_functions)


def imported(module: str, source: str, *, is_package: bool, inside_functions: bool) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import; ``from a import b`` gives ``a`` and ``a.b``."""
    for node in nodes(ast.parse(source), inside_functions=inside_functions):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@cache
def imports_of(module: str, inside_functions: bool) -> tuple[tuple[int, str], ...]:
    path = MODULES[module]
    is_package = path.name == "__init__.py"
    return tuple(imported(module, path.read_text("utf-8"), is_package=is_package, inside_functions=inside_functions))


def is_heavy(name: str) -> bool:
    return any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)


def test_the_reader_sees_what_runs_and_only_that() -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import a
else:
    import b
try:
    from . import c
except ImportError:
    from ..d import e
class C:
    import f
    def method(self): import g
"""

    def names(inside_functions: bool) -> set[str]:
        found = imported("webui.ui.app", source, is_package=False, inside_functions=inside_functions)
        return {name for _, name in found} - {"typing", "typing.TYPE_CHECKING"}

    assert names(False) == {"b", "webui.ui", "webui.ui.c", "webui.d", "webui.d.e", "f"}
    assert names(True) == names(False) | {"g"}


def test_the_map_names_every_part_once() -> None:
    assert len(MAP) == len(set(MAP))
    assert {"errors", "api", "ui", "server", "cli"} <= set(MAP)
    assert {part(module) for module in MODULES} - {""} <= set(ORDER)
    assert set(DROP_IN) <= set(MAP) and DROP_IN


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_upwards(module: str) -> None:
    here = part(module)
    for line, name in imports_of(module, True):
        there = part(name) if name.startswith("webui.") else ""
        if there not in ORDER or not here:  # not ours, or a name of webui itself, such as __version__
            continue
        where = f"{MODULES[module].relative_to(ROOT.parent)}:{line}"
        assert ORDER.index(there) <= ORDER.index(here), f"{where} imports {name}, which stands below {here} in the map"
        assert {here, there} != {"ui", "api"}, f"{where}: ui and api must not see each other"


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in TORCH_FREE])
def test_the_outside_never_names_torch(module: str) -> None:
    named = [f"line {line}: {name}" for line, name in imports_of(module, True) if is_heavy(name)]
    assert not named, f"{module} imports {named}"


def server_process() -> list[str]:
    """Modules that the server process imports: the shells, the built-in parts it loads by name, recipes, settings."""
    return [
        module
        for module in MODULES
        if part(module) in {*TORCH_FREE, *DROP_IN, "scripts", "metadata", "plugins", "settings", "hooks"}
        or module in manager.BUILT_IN_MODULES
    ]


@pytest.mark.parametrize("start", server_process())
def test_the_server_process_comes_up_without_torch(start: str) -> None:
    """Follows imports at module level through all of webui; the failure names the whole chain."""
    seen = {start}
    waiting = [(start,)]
    while waiting:
        chain = waiting.pop()
        for line, name in imports_of(chain[-1], False):
            assert not is_heavy(name), f"{' -> '.join(chain)}:{line} imports {name} when the page starts"
            packages = [".".join(name.split(".")[: depth + 1]) for depth in range(name.count(".") + 1)]
            for reached in packages:
                if reached in MODULES and reached not in seen:
                    seen.add(reached)
                    waiting.append((*chain, reached))


def test_torch_is_not_loaded_by_a_server_that_is_imported() -> None:
    """The same from outside, in a process of its own: whatever a library may do on import."""
    wanted = [module for module in server_process() if part(module) != "__main__"]
    code = f"import importlib, sys\nfor name in {wanted}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"
