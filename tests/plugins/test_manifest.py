"""``extension.toml`` is read and checked, and decides whether and in which order extensions are loaded."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plugin_app import App

from webui.errors import ExtensionError
from webui.hooks import API_VERSION
from webui.plugins.discovery import discover, in_load_order
from webui.plugins.manager import Plugins
from webui.plugins.manifest import Manifest, Permissions, parse_manifest, read_manifest
from webui.plugins.switches import disabled_names, switch
from webui.settings import Settings

FULL = f"""
name = "sky"
version = "1.2"
description = "Bluer skies"
authors = ["A. Painter <a@example.org>"]
licence = "MIT"
api = ">={API_VERSION},<{API_VERSION + 1}"
dependencies = ["numpy>=1.26", "tinycss2; python_version >= '3.11'"]
before = ["water"]
after = ["light"]

[permissions]
network = true
files = ["models/sky"]
subprocess = true
"""
LEAST = f'name = "sky"\nversion = "1"\napi = ">={API_VERSION}"\n'


def put(folder: Path, name: str, manifest: str = "", code: str = "loaded = True\n") -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "__init__.py").write_text(code, "utf-8")
    if manifest:
        (path / "extension.toml").write_text(manifest, "utf-8")
    return path


def named(name: str, more: str = "") -> str:
    return LEAST.replace("sky", name) + more


def test_every_field_is_read() -> None:
    manifest = parse_manifest(FULL.encode())
    assert manifest == Manifest(
        name="sky",
        version="1.2",
        description="Bluer skies",
        authors=("A. Painter <a@example.org>",),
        licence="MIT",
        api=f">={API_VERSION},<{API_VERSION + 1}",
        dependencies=("numpy>=1.26", "tinycss2; python_version >= '3.11'"),
        permissions=Permissions(network=True, files=("models/sky",), subprocess=True),
        before=("water",),
        after=("light",),
    )
    assert manifest.permissions.sentences() == [
        "use the network", "read and write files in models/sky", "start other programs",
    ]  # fmt: skip
    assert json.loads(json.dumps(manifest.to_dict()))["permissions"]["files"] == ["models/sky"]


def test_the_least_asks_for_nothing_and_the_other_spelling_is_known() -> None:
    manifest = parse_manifest(f'{LEAST}license = "MIT"\n'.encode())
    assert (manifest.licence, manifest.permissions.sentences(), manifest.dependencies) == ("MIT", [], ())


def test_a_folder_and_a_file_without_it_have_a_name_alone(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("")
    assert read_manifest(tmp_path / "one.py") == Manifest(name="one")
    assert read_manifest(put(tmp_path, "two")) == Manifest(name="two")


BROKEN = {
    "no toml": (b"name = ", "is no TOML"),
    "no text": (b'name = "\xff"', "is no TOML"),
    "too large": (b"#" * 70_000, "larger than 64 kB"),
    "nothing": (b"", "lacks name, version, api"),
    "no api": (b'name = "a"\nversion = "1"\n', "lacks api"),
    "unknown field": (f'{LEAST}depends = ["x"]\n'.encode(), "'depends'"),
    "unknown permission": (f"{LEAST}[permissions]\nroot = true\n".encode(), "'root'"),
    "a name that leads out": (named("../up").encode(), "'../up'"),
    "a number for a version": (LEAST.replace('"1"', "1").encode(), "version is 1; it must be text"),
    "a text for a list": (f'{LEAST}after = "x"\n'.encode(), "after must be a list"),
    "a number in a list": (f"{LEAST}after = [1]\n".encode(), "after is 1; it must be text"),
    "a text for a flag": (f'{LEAST}[permissions]\nnetwork = "yes"\n'.encode(), "permissions.network is 'yes'"),
    "two lines": (f'{LEAST}licence = "a\\nb"\n'.encode(), "licence must be one line"),
    "no range": (LEAST.replace(f">={API_VERSION}", "one").encode(), "api is 'one'"),
    "no requirement": (f'{LEAST}dependencies = ["-e ."]\n'.encode(), "'-e .'"),
    "an address": (f'{LEAST}dependencies = ["x @ https://example.org/x.whl"]\n'.encode(), "names x by an address"),
    "another contract": (LEAST.replace(f">={API_VERSION}", f">{API_VERSION}").encode(), f">{API_VERSION} of the hooks"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_one_sentence(case: str) -> None:
    text, said = BROKEN[case]
    with pytest.raises(ExtensionError) as caught:
        parse_manifest(text)
    assert said in str(caught.value) and "\n" not in str(caught.value).rstrip()


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_is_left_out_and_the_others_are_loaded(case: str, app: App) -> None:
    folder = app.settings.extensions_dir
    (put(folder, "bad") / "extension.toml").write_bytes(BROKEN[case][0])
    put(folder, "good", named("good"))
    plugins = Plugins.load(folder)
    assert [plugin.name for plugin in plugins.extensions] == ["good"]
    (sentence,) = plugins.problems
    assert "The extension bad was left out: " in sentence and BROKEN[case][1] in sentence


def test_what_is_loaded_says_its_manifest(app: App) -> None:
    put(app.settings.extensions_dir, "sky", FULL)
    put(app.settings.extensions_dir, "old", code='__version__ = "7"\n')
    plugins = Plugins.load(app.settings.extensions_dir)
    assert [(one.name, one.version) for one in plugins.extensions] == [("old", "7"), ("sky", "1.2")]
    assert plugins.manifests["sky"].licence == "MIT" and plugins.manifests["old"] == Manifest(name="old")


def test_the_manifest_names_it_whatever_the_folder_is_called(app: App) -> None:
    put(app.settings.extensions_dir, "sky-main", named("sky"))
    put(app.settings.extensions_dir, "sky-copy", named("sky"))
    plugins = Plugins.load(app.settings.extensions_dir)
    assert [one.name for one in plugins.extensions] == ["sky"]
    assert "webui_extensions.sky" in sys.modules
    assert plugins.problems == [
        "The extension sky was left out: it has the name of the one in sky-copy; rename one of them."
    ]


def order(folder: Path) -> tuple[list[str], list[str]]:
    ordered, sentences = in_load_order(discover(folder))
    return [one.name for one in ordered], sentences


def test_the_order_is_by_name_where_nothing_is_asked(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        put(tmp_path, name)
    assert order(tmp_path) == (["a", "b", "c"], [])


def test_before_and_after_are_kept_and_absent_ones_do_not_matter(tmp_path: Path) -> None:
    put(tmp_path, "a", named("a", 'after = ["d", "nowhere"]\n'))
    put(tmp_path, "b")
    put(tmp_path, "c", named("c", 'after = ["a"]\n'))
    put(tmp_path, "d")
    put(tmp_path, "z", named("z", 'before = ["b", "d"]\n'))
    assert order(tmp_path) == (["z", "b", "d", "a", "c"], [])


def test_a_circle_is_named_and_all_are_loaded(app: App) -> None:
    folder = app.settings.extensions_dir
    put(folder, "a", named("a", 'after = ["b"]\n'))
    put(folder, "b", named("b", 'after = ["c"]\n'))
    put(folder, "c", named("c", 'after = ["a"]\n'))
    put(folder, "e", named("e", 'after = ["c"]\n'))
    put(folder, "s", named("s", 'after = ["s"]\n'))
    plugins = Plugins.load(folder)
    assert [one.name for one in plugins.extensions] == ["a", "c", "b", "e", "s"]
    assert "circle, a after b after c after a; a was loaded first" in plugins.problems[0]
    assert "s asks to be loaded before or after itself" in plugins.problems[1]


def test_hooks_run_in_the_order_of_loading(app: App) -> None:
    writes = "from webui.hooks import hookimpl\n@hookimpl\ndef write_infotext():\n    return {'Last': __name__}\n"
    put(app.settings.extensions_dir, "a", named("a", 'after = ["b"]\n'), writes)
    put(app.settings.extensions_dir, "b", named("b"), writes)
    told = Plugins.load(app.settings.extensions_dir).pairs("write_infotext", request=None)
    assert told == {"Last": "webui_extensions.a"}


def test_one_that_is_switched_off_is_not_imported(tmp_path: Path) -> None:
    settings = Settings(outputs_dir=tmp_path / "outputs", extensions_dir=tmp_path / "extensions")
    for name in ("a", "b"):
        put(settings.extensions_dir, name, code=f"import pathlib\npathlib.Path({str(tmp_path)!r}, '{name}').touch()\n")
    switch(settings.state_dir, "a", on=False)
    assert [one.name for one in Plugins.start(settings).extensions] == ["b"]
    assert not (tmp_path / "a").exists() and (tmp_path / "b").exists()
    switch(settings.state_dir, "a", on=True)
    assert [one.name for one in Plugins.start(settings).extensions] == ["a", "b"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"disabled": "a"}', b'{"disabled": [1]}', b"[" * 9999]
)
def test_a_broken_file_of_switches_switches_nothing_off(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "extensions.json").write_bytes(content)
    assert disabled_names(tmp_path) == frozenset()
    switch(tmp_path, "a", on=False)
    assert disabled_names(tmp_path) == {"a"}
    assert {path.name for path in tmp_path.iterdir()} - {"extensions.lock"} == {"extensions.json"}, "no part is left"


def test_the_example_of_the_documentation_is_valid() -> None:
    readme = (Path(__file__).resolve().parents[2] / "extensions" / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", readme, flags=re.DOTALL)
    manifest = parse_manifest(example.encode())
    assert set(tomllib.loads(example)) == set(manifest.to_dict())


def test_no_switch_is_lost_among_several_at_once(tmp_path: Path) -> None:
    names = [f"extension_{number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda name: switch(tmp_path, name, on=False), names))
    assert disabled_names(tmp_path) == frozenset(names)
