"""The list of extensions: what is on the disk, what runs, and what the next start changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from extension_sources import commit, files, repository, write

from webui.errors import InstallError, NotFoundError
from webui.plugins.install import Installer
from webui.plugins.listing import Listed, State, listed
from webui.plugins.manager import Plugins
from webui.plugins.sources import source_of
from webui.plugins.switches import disabled_names
from webui.plugins.tree_hash import tree_hash


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return Installer(tmp_path / "extensions", tmp_path / "state")


def rows(installer: Installer, running: dict[str, str] | None = None, *problems: str) -> dict[str, Listed]:
    return {row.name: row for row in listed(installer.folder, installer.state_dir, running, problems)}


def digests(installer: Installer, *names: str) -> dict[str, str]:
    return {name: tree_hash(installer.find(name).path) for name in names}


def test_an_empty_folder_and_none(installer: Installer) -> None:
    assert rows(installer) == {}
    installer.folder.mkdir()
    assert rows(installer) == {}


def test_what_is_shown_of_an_installed_one(installer: Installer, tmp_path: Path) -> None:
    more = 'description = "Bluer"\nauthors = ["A", "B"]\nlicence = "MIT"\n[permissions]\nnetwork = true\n'
    place = repository(tmp_path / "sky", files(more=more))
    plan = installer.plan(source_of(str(place), "main"))
    installer.confirm(plan.id, plan.tree_hash)
    row = rows(installer)["sky"]
    assert (row.version, row.description, row.authors, row.licence) == ("1.0", "Bluer", ("A", "B"), "MIT")
    assert row.source == f"git {place.as_uri()} (main) at {plan.commit[:12]}"
    assert row.permissions == ("use the network",) and row.tree_hash == plan.tree_hash
    assert (row.removable, row.updatable, row.bundled, row.previous, row.changed_by_hand) == (
        True, True, False, None, False,
    )  # fmt: skip
    commit(place, files(version="2.0"))
    plan = installer.plan_update("sky")
    installer.confirm(plan.id, plan.tree_hash)
    (installer.folder / "sky" / "more.py").write_text("")
    row = rows(installer)["sky"]
    assert (row.version, row.previous, row.changed_by_hand) == ("2.0", "1.0", True)


def test_what_came_otherwise(installer: Installer) -> None:
    write(installer.folder / "controlnet", {"__init__.py": ""})
    write(installer.folder, {"hand.py": "", "README.md": ""})
    found = rows(installer)
    assert {name: row.source for name, row in found.items()} == {
        "controlnet": "comes with the program",
        "hand": "put there by hand",
    }
    assert [(row.bundled, row.removable, row.updatable) for row in found.values()] == [
        (True, False, False), (False, True, False),
    ]  # fmt: skip


def test_an_installed_package_with_an_entry_point(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = "Metadata-Version: 2.1\nName: webui-clouds\nVersion: 4.2\nSummary: Clouds\nLicense: MIT\n"
    entry_points = "[webui]\nclouds = webui_clouds\n"
    info = {
        "webui_clouds-4.2.dist-info/METADATA": metadata,
        "webui_clouds-4.2.dist-info/entry_points.txt": entry_points,
    }
    write(tmp_path / "site", {"webui_clouds.py": "", **info})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (row,) = rows(installer).values()
    assert (row.name, row.version, row.source) == ("clouds", "4.2", "installed package webui-clouds")
    assert (row.description, row.licence, row.removable, row.state) == ("Clouds", "MIT", False, State.ON)
    assert [one.name for one in Plugins.load(installer.folder, packages=()).extensions] == ["clouds"]
    installer.switch("clouds", on=False)
    off = disabled_names(installer.state_dir)
    assert Plugins.load(installer.folder, packages=(), disabled=off).extensions == []
    with pytest.raises(NotFoundError):
        installer.uninstall("clouds")
    with pytest.raises(InstallError, match="named clouds already"):
        installer.plan(source_of(str(write(tmp_path / "x", files("clouds")))))


def test_the_state_between_two_starts(installer: Installer) -> None:
    for name in ("runs", "off", "new", "stops", "changes", "gone", "broken", "fails"):
        write(installer.folder / name, files(name))
    running = digests(installer, "runs", "stops", "changes", "gone")
    installer.switch("off", on=False)
    installer.switch("stops", on=False)
    (installer.folder / "changes" / "__init__.py").write_text("x = 2\n")
    installer.uninstall("gone")
    (installer.folder / "broken" / "extension.toml").write_text("name =")
    said = "The extension fails was left out: no luck"
    found = rows(installer, running, said, "The extension fails-not has another name", "Nothing of the extension fail.")
    assert {name: row.state for name, row in found.items()} == {
        "runs": State.ON,
        "off": State.OFF,
        "new": State.STARTS,
        "stops": State.STOPS,
        "changes": State.CHANGES,
        "gone": State.STOPS,
        "broken": State.LEFT_OUT,
        "fails": State.LEFT_OUT,
    }
    assert found["fails"].problems == (said,)
    assert "is no TOML" in found["broken"].problems[0]
    assert found["gone"].source == "not on the disk any more" and not found["gone"].removable


def test_the_state_where_nothing_runs(installer: Installer) -> None:
    for name in ("a", "b", "c"):
        write(installer.folder / name, files(name))
    installer.switch("b", on=False)
    (installer.folder / "c" / "extension.toml").write_text("name =")
    assert [row.state for row in rows(installer).values()] == [State.ON, State.OFF, State.LEFT_OUT]


def test_a_file_that_cannot_be_read_is_a_problem_of_its_extension(installer: Installer) -> None:
    write(installer.folder / "a", files("a"))
    (installer.folder / "a" / "nowhere").symlink_to("/no/such/file")
    row = rows(installer)["a"]
    assert row.state is State.LEFT_OUT and "cannot be read" in row.problems[0]
