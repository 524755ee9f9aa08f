"""The installer: nothing before it is confirmed, everything or nothing after, and a way back from each change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from extension_sources import commit, files, git, repository, write, zipped

from webui.errors import InstallError, NotFoundError
from webui.plugins import shelf
from webui.plugins.discovery import BUNDLED
from webui.plugins.install import Installer
from webui.plugins.manager import Plugins
from webui.plugins.sources import Kind, Source, source_of
from webui.plugins.switches import disabled_names
from webui.plugins.tree_hash import tree_hash


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[Installer]:
    made = Installer(tmp_path / "extensions", tmp_path / "state")
    yield made
    made.close()


def install(installer: Installer, place: Path | str, ref: str = "") -> str:
    """Install as somebody does who says yes to everything; the tree hash."""
    plan = installer.plan(source_of(str(place), ref))
    return installer.confirm(plan.id, plan.tree_hash).tree_hash


def update(installer: Installer, name: str) -> None:
    plan = installer.plan_update(name)
    installer.confirm(plan.id, plan.tree_hash)


def loaded(installer: Installer) -> dict[str, str]:
    """What the next start would load: versions by name."""
    plugins = Plugins.load(installer.folder, packages=(), disabled=disabled_names(installer.state_dir))
    assert plugins.problems == []
    return {one.name: one.version for one in plugins.extensions}


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for locks."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith("lock")}


PLACES: dict[str, Callable[[Path], Path]] = {
    "repository": lambda folder: repository(folder / "sky.git", files()),
    "zip": lambda folder: zipped(folder / "sky.zip", files()),
    "zip of one folder": lambda folder: zipped(folder / "download.zip", files(), top="sky-main/"),
    "folder": lambda folder: write(folder / "somewhere", files()),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_shown_before_and_there_after(place: str, installer: Installer, tmp_path: Path) -> None:
    more = '[permissions]\nnetwork = true\nfiles = ["models/sky"]\n'
    source = source_of(str(PLACES[place](tmp_path)))
    plan = installer.plan(source)
    assert not installer.folder.exists()
    assert plan.manifest.name == "sky" and plan.difference is None and plan.packages == ()
    assert {file.name: file.size for file in plan.files} == {name: len(text) for name, text in files().items()}
    assert plan.tree_hash == tree_hash(write(tmp_path / "same", files()))
    installer.confirm(plan.id, plan.tree_hash)
    assert tree_hash(installer.folder / "sky") == plan.tree_hash
    assert loaded(installer) == {"sky": "1.0"}
    assert more not in (installer.folder / "sky" / "extension.toml").read_text()


def test_permissions_and_what_will_not_run_are_said_before(installer: Installer, tmp_path: Path) -> None:
    more = '[permissions]\nnetwork = true\nfiles = ["models/sky"]\n'
    place = write(tmp_path / "sky", files(more=more, install__py="import pathlib; pathlib.Path('ran').touch()"))
    plan = installer.plan(source_of(str(place)))
    assert plan.to_dict()["permissions"] == ["use the network", "read and write files in models/sky"]
    assert plan.notes == ("Its install.py will not be run.",)


def test_a_commit_is_pinned_and_a_branch_or_tag_can_be_chosen(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files(version="1.0"))
    first = git(place, "rev-parse", "HEAD")
    git(place, "tag", "v1")
    second = commit(place, files(version="2.0"))
    git(place, "checkout", "--quiet", "-b", "next")
    third = commit(place, files(version="3.0"))
    git(place, "checkout", "--quiet", "main")
    for ref, expected, version in (
        ("v1", first, "1.0"), (first, first, "1.0"), ("next", third, "3.0"), ("main", second, "2.0"),
        ("", second, "2.0"),
    ):  # fmt: skip
        plan = installer.plan(source_of(str(place), ref))
        assert (plan.commit, plan.manifest.version) == (expected, version)


def test_a_single_file_and_a_folder_without_a_manifest(installer: Installer, tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("__version__ = '3'\n")
    install(installer, tmp_path / "small.py")
    plan = installer.plan(source_of(str(write(tmp_path / "plain", {"__init__.py": ""}))))
    assert plan.notes == ("It has no extension.toml: who wrote it, and what it asks for, is not said.",)
    installer.confirm(plan.id, plan.tree_hash)
    assert loaded(installer) == {"plain": "", "small": "3"}
    assert (installer.folder / "small.py").is_file()


def test_nothing_of_it_runs_while_it_is_installed(installer: Installer, tmp_path: Path) -> None:
    touch = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    scripts = dict.fromkeys(("__init__.py", "install.py", "setup.py", "conftest.py", "sitecustomize.py"), touch)
    place = repository(tmp_path / "sky", {**files(), **scripts})
    (place / ".gitattributes").write_text("* filter=evil\n")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "filters")
    for hook in ("post-checkout", "post-merge", "pre-auto-gc", "reference-transaction", "post-upload-pack"):
        path = place / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
        path.chmod(0o755)
    git(place, "config", "filter.evil.smudge", f"touch {tmp_path / 'ran'}")
    git(place, "config", "uploadpack.packObjectsHook", f"touch {tmp_path / 'ran'};")
    install(installer, place)
    assert not (tmp_path / "ran").exists()
    assert not os.access(installer.folder / "sky" / "install.py", os.X_OK)


def test_compiled_files_do_not_come_along(installer: Installer, tmp_path: Path) -> None:
    place = write(tmp_path / "sky", {**files(), "__pycache__/__init__.cpython-311.pyc": "code", "part/.git": "x"})
    install(installer, place)
    assert set(everything(installer.folder / "sky")) == set(files())


def test_the_name_must_be_free(installer: Installer, tmp_path: Path) -> None:
    install(installer, write(tmp_path / "one", files("sky")))
    (installer.folder / "hand.py").write_text("")
    for name, said in (
        ("sky", "named sky already; update it"),
        ("Sky", "named sky; Sky differs from it in upper and lower case only"),
        ("hand", "named hand already"),
        (BUNDLED[0], f"named {BUNDLED[0]} already"),
    ):
        with pytest.raises(InstallError, match=said):
            installer.plan(source_of(str(write(tmp_path / f"new-{name}", files(name)))))


def test_a_name_taken_between_preview_and_confirmation_is_refused(installer: Installer, tmp_path: Path) -> None:
    plan = installer.plan(source_of(str(write(tmp_path / "one", files()))))
    write(installer.folder / "sky", {"__init__.py": "mine = True\n"})
    before = everything(installer.folder)
    with pytest.raises(InstallError, match="named sky already"):
        installer.confirm(plan.id, plan.tree_hash)
    assert everything(installer.folder) == before


def staged(installer: Installer) -> Path:
    (path,) = (installer.state_dir / "extension-staging").glob("*/*/named/sky")
    return path


TAMPERING: dict[str, Callable[[Path], object]] = {
    "another byte": lambda tree: (tree / "__init__.py").write_text("loaded = 1234\n"),
    "a file more": lambda tree: (tree / "more.py").write_text(""),
    "a file less": lambda tree: (tree / "part" / "table.csv").unlink(),
    "a link": lambda tree: (tree / "link.py").symlink_to("/etc/hostname"),
    "all gone": lambda tree: shutil.rmtree(tree),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_what_changed_after_the_preview_is_refused(how: str, installer: Installer, tmp_path: Path) -> None:
    plan = installer.plan(source_of(str(write(tmp_path / "one", files()))))
    TAMPERING[how](staged(installer))
    with pytest.raises(InstallError):
        installer.confirm(plan.id, plan.tree_hash)
    assert everything(installer.folder) == {}


def test_the_hash_that_was_seen_must_be_given(installer: Installer, tmp_path: Path) -> None:
    plan = installer.plan(source_of(str(write(tmp_path / "one", files()))))
    with pytest.raises(InstallError, match="not that of the files that were shown"):
        installer.confirm(plan.id, "0" * 64)
    with pytest.raises(NotFoundError):
        installer.confirm("no such plan", plan.tree_hash)
    assert not installer.folder.exists()


def test_changes_of_the_source_after_the_preview_do_not_matter(installer: Installer, tmp_path: Path) -> None:
    place = write(tmp_path / "one", files())
    plan = installer.plan(source_of(str(place)))
    shutil.rmtree(place)
    installer.confirm(plan.id, plan.tree_hash)
    assert loaded(installer) == {"sky": "1.0"}


def test_an_update_shows_its_difference_and_can_be_taken_back(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files(version="1.0", old__py="x = 1\n", same__py="y = 1\n"))
    one = install(installer, place)
    git(place, "rm", "--quiet", "old.py")
    newer = files(version="2.0", more="[permissions]\nsubprocess = true\n", new__py="z = 1\n", same__py="y = 1\n")
    commit(place, newer)
    plan = installer.plan_update("sky")
    difference = plan.difference
    assert difference is not None and plan.notes == ()
    assert (difference.from_version, plan.manifest.version) == ("1.0", "2.0")
    assert (difference.added, difference.removed, difference.changed) == (("new.py",), ("old.py",), ("extension.toml",))
    assert (difference.permissions_added, difference.permissions_removed) == (("start other programs",), ())
    assert '-version = "1.0"' in difference.lines and '+version = "2.0"' in difference.lines
    assert "+z = 1" in difference.lines and "-x = 1" in difference.lines and "y = 1" not in difference.lines
    assert loaded(installer) == {"sky": "1.0"}
    installer.confirm(plan.id, plan.tree_hash)
    assert loaded(installer) == {"sky": "2.0"}
    installer.roll_back("sky")
    assert loaded(installer) == {"sky": "1.0"} and tree_hash(installer.folder / "sky") == one
    installer.roll_back("sky")
    assert loaded(installer) == {"sky": "2.0"} and tree_hash(installer.folder / "sky") == plan.tree_hash
    with pytest.raises(InstallError, match=f"up to date \\(2.0 at {plan.commit[:12]}"):
        installer.plan_update("sky")


def test_one_version_before_is_kept(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files(version="1"))
    install(installer, place)
    for version in ("2", "3", "4"):
        commit(place, files(version=version))
        update(installer, "sky")
    assert len(list((installer.folder / ".webui" / "previous" / "sky").iterdir())) == 1
    installer.roll_back("sky")
    assert loaded(installer) == {"sky": "3"}


def test_an_update_from_a_branch_follows_that_branch(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files(version="1"))
    git(place, "checkout", "--quiet", "-b", "stable")
    install(installer, place, "stable")
    git(place, "checkout", "--quiet", "main")
    commit(place, files(version="9"))
    with pytest.raises(InstallError, match="up to date"):
        installer.plan_update("sky")


def test_changes_by_hand_are_told_and_kept(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files(version="1"))
    install(installer, place)
    (installer.folder / "sky" / "mine.py").write_text("mine = True\n")
    commit(place, files(version="2"))
    plan = installer.plan_update("sky")
    assert plan.notes == ("Its files were changed by hand here; they are kept as the version before.",)
    (installer.folder / "sky" / "mine.py").write_text("mine = False\n")
    with pytest.raises(InstallError, match="changed after the difference was shown"):
        installer.confirm(plan.id, plan.tree_hash)
    update(installer, "sky")
    installer.roll_back("sky")
    assert (installer.folder / "sky" / "mine.py").read_text() == "mine = False\n"


def test_an_update_needs_a_place_and_the_same_name(installer: Installer, tmp_path: Path) -> None:
    write(installer.folder / "hand", {"__init__.py": ""})
    with pytest.raises(InstallError, match="not known where hand came from"):
        installer.plan_update("hand")
    other = source_of(str(write(tmp_path / "other", files("other"))))
    with pytest.raises(InstallError, match="called other, not hand"):
        installer.plan_update("hand", other)
    plan = installer.plan_update("hand", source_of(str(write(tmp_path / "newer", files("hand", "2")))))
    installer.confirm(plan.id, plan.tree_hash)
    assert loaded(installer) == {"hand": "2"}
    upload = Source(kind=Kind.ZIP, location=str(zipped(tmp_path / "x.zip", files("up"))), label="up.zip")
    plan = installer.plan(upload)
    installer.confirm(plan.id, plan.tree_hash)
    with pytest.raises(InstallError, match="upload the newer one"):
        installer.plan_update("up")


def test_uninstall_and_restore(installer: Installer, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files(version="1"))
    install(installer, place)
    commit(place, files(version="2"))
    update(installer, "sky")
    before = everything(installer.folder)
    trash_id = installer.uninstall("sky")
    assert loaded(installer) == {} and [one.name for one in shelf.trash(installer.folder)] == ["sky"]
    assert shelf.trash(installer.folder)[0].since
    assert installer.restore(trash_id) == "sky"
    assert everything(installer.folder) == before and shelf.trash(installer.folder) == []
    installer.roll_back("sky")
    assert loaded(installer) == {"sky": "1"}
    with pytest.raises(NotFoundError):
        installer.restore(trash_id)


def test_one_that_was_off_is_off_when_it_is_restored_and_on_when_it_is_installed_anew(
    installer: Installer, tmp_path: Path
) -> None:
    place = write(tmp_path / "sky", files(version="1"))
    install(installer, place)
    installer.switch("sky", on=False)
    installer.restore(installer.uninstall("sky"))
    assert disabled_names(installer.state_dir) == {"sky"} and loaded(installer) == {}
    installer.uninstall("sky")
    install(installer, place)
    assert disabled_names(installer.state_dir) == frozenset() and loaded(installer) == {"sky": "1"}


def test_what_was_installed_anew_is_not_overwritten_by_the_trash(installer: Installer, tmp_path: Path) -> None:
    place = write(tmp_path / "sky", files(version="1"))
    install(installer, place)
    first = installer.uninstall("sky")
    write(place, files(version="2"))
    install(installer, place)
    with pytest.raises(InstallError, match="named sky already"):
        installer.restore(first)
    installer.uninstall("sky")
    assert len(shelf.trash(installer.folder)) == 2
    installer.restore(first)
    assert loaded(installer) == {"sky": "1"}
    installer.empty_trash()
    assert shelf.trash(installer.folder) == []


def test_enable_and_disable(installer: Installer, tmp_path: Path) -> None:
    install(installer, write(tmp_path / "sky", files()))
    installer.switch("sky", on=False)
    assert loaded(installer) == {}
    installer.switch("sky", on=True)
    assert loaded(installer) == {"sky": "1.0"}
    with pytest.raises(NotFoundError, match='"nothing"'):
        installer.switch("nothing", on=False)


def test_what_comes_with_the_program_is_switched_off_and_not_removed(installer: Installer) -> None:
    write(installer.folder / BUNDLED[0], {"__init__.py": ""})
    installer.switch(BUNDLED[0], on=False)
    assert loaded(installer) == {}
    for change in (installer.uninstall, installer.roll_back, installer.plan_update):
        with pytest.raises(InstallError, match="comes with the program"):
            change(BUNDLED[0])


def ends_at(rename: int, change: Callable[[], object]) -> bool:
    """Make a change in a process that ends, without any clean-up, before so many renames; whether it came so far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    done = 0
    real = Path.rename

    def counting(self: Path, target: Path) -> Path:
        nonlocal done
        if done == rename:
            os._exit(9)
        done += 1
        return real(self, target)

    try:
        with pytest.MonkeyPatch.context() as patching:
            patching.setattr(Path, "rename", counting)
            change()
        os._exit(0)
    finally:
        os._exit(1)


CHANGES: dict[str, Callable[[Installer], object]] = {
    "update": lambda installer: update(installer, "sky"),
    "roll back": lambda installer: installer.roll_back("sky"),
    "uninstall": lambda installer: installer.uninstall("sky"),
    "restore": lambda installer: installer.restore(shelf.trash(installer.folder)[0].id),
    "install": lambda installer: install(installer, installer.state_dir.parent / "other"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is split in two")
def test_a_kill_at_any_point_leaves_the_old_or_the_new(change: str, tmp_path: Path) -> None:
    place = repository(tmp_path / "sky", files(version="1"))
    write(tmp_path / "gone", files("gone", version="5"))
    write(tmp_path / "other", files("other", version="7"))
    template = Installer(tmp_path / "template", tmp_path / "state")
    install(template, place)
    commit(place, files(version="2"))
    update(template, "sky")
    install(template, tmp_path / "gone")
    template.uninstall("gone")
    commit(place, files(version="3"))
    template.close()

    shutil.copytree(tmp_path / "template", tmp_path / "untouched")
    untouched = Installer(tmp_path / "untouched", tmp_path / "state")
    old = loaded(untouched)
    CHANGES[change](untouched)
    new = loaded(untouched)
    untouched.close()
    assert old != new

    outcomes = set()
    for rename in range(9):
        folder = tmp_path / f"killed-{rename}"
        shutil.copytree(tmp_path / "template", folder)
        installer = Installer(folder, tmp_path / f"state-{rename}" / "state")
        (tmp_path / f"state-{rename}" / "other").mkdir(parents=True)
        write(tmp_path / f"state-{rename}" / "other", files("other", version="7"))
        was_killed = ends_at(rename, partial(CHANGES[change], installer))
        after = loaded(Installer(folder, installer.state_dir))  # as the next start does
        assert after in (old, new)
        outcomes.add((was_killed, after == new))
        Installer(folder, installer.state_dir).clean_up()
        assert not (folder / ".webui" / "journal.json").exists()
        assert not list((folder / ".webui").glob("incoming/*"))
        assert loaded(installer) == after
        installer.close()
    assert (True, True) in outcomes and (False, True) in outcomes


def test_leftovers_of_a_killed_program_go_and_those_of_a_running_one_stay(tmp_path: Path) -> None:
    place = source_of(str(write(tmp_path / "sky", files())))
    killed, running = (Installer(tmp_path / "extensions", tmp_path / "state") for _ in range(2))
    killed.plan(place)
    plan = running.plan(place)
    assert killed._staging_lock is not None
    killed._staging_lock.release()  # as the system does when a process ends
    write(tmp_path / "extensions" / ".webui" / "incoming" / "x", {"tree/sky/__init__.py": ""})
    Installer(tmp_path / "extensions", tmp_path / "state").clean_up()
    assert not list((tmp_path / "extensions" / ".webui").glob("incoming/*"))
    assert len(list((tmp_path / "state" / "extension-staging").glob("*/*"))) == 1
    running.confirm(plan.id, plan.tree_hash)
    assert loaded(running) == {"sky": "1.0"}
    running.close()


def test_a_journal_that_leads_out_moves_nothing(installer: Installer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (installer.folder / ".webui").mkdir(parents=True)
    (installer.folder / ".webui" / "journal.json").write_text('[["../secret", "stolen.py"]]')
    plugins = Plugins.load(installer.folder, packages=())
    assert (tmp_path / "secret").exists() and "leads out of it" in plugins.problems[0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"source": 1}', '{"version": "1"}'])
def test_a_broken_record_only_forgets_where_it_came_from(content: str, installer: Installer, tmp_path: Path) -> None:
    install(installer, write(tmp_path / "sky", files()))
    (installer.folder / ".webui" / "records" / "sky.json").write_text(content)
    assert loaded(installer) == {"sky": "1.0"}
    with pytest.raises(InstallError, match="not known where"):
        installer.plan_update("sky")
    assert installer.restore(installer.uninstall("sky")) == "sky"


def test_few_plans_wait_at_a_time(installer: Installer, tmp_path: Path) -> None:
    place = source_of(str(write(tmp_path / "sky", files())))
    plans = [installer.plan(place) for _ in range(10)]
    assert len(list((installer.state_dir / "extension-staging").glob("*/*"))) == 8
    with pytest.raises(NotFoundError):
        installer.confirm(plans[0].id, plans[0].tree_hash)
    installer.discard(plans[9].id)
    with pytest.raises(NotFoundError):
        installer.discard(plans[9].id)
    installer.confirm(plans[8].id, plans[8].tree_hash)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file, no folder")
    installer = Installer(tmp_path / "extensions", tmp_path / "state")
    place = source_of(str(write(tmp_path / "sky", files())))
    with pytest.raises(InstallError, match="cannot be written to"):
        installer.plan(place)


@pytest.mark.parametrize("left_out", ["AAAA", "of another length"])
def test_a_file_that_is_left_out_does_not_stand_in_for_the_next(
    installer: Installer, tmp_path: Path, left_out: str
) -> None:
    contents = {**files("sky"), "__pycache__/a.pyc": left_out, "b.txt": "BBBB"}
    place = repository(tmp_path / "sky", contents)
    install(installer, place)
    for name, text in contents.items():
        if not name.startswith("__pycache__"):
            assert (installer.folder / "sky" / name).read_text() == text
    assert not (installer.folder / "sky" / "__pycache__").exists()
