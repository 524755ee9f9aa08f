"""The packages an extension needs: seen before, never in the way of the program's own, wheels alone.

The package index is a folder of wheels made here; the resolver is the real pip.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from extension_sources import files, wheel, write

from webui.errors import InstallError
from webui.plugins import dependencies
from webui.plugins.install import Installer
from webui.plugins.manager import Plugins
from webui.plugins.sources import source_of

NUMPY = importlib.metadata.version("numpy")


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[Installer]:
    made = Installer(tmp_path / "extensions", tmp_path / "state")
    yield made
    made.close()


def extension(folder: Path, name: str, needs: str, code: str = "", version: str = "1") -> Path:
    more = f"dependencies = [{needs}]\n"
    return write(folder / name, {**files(name, version, more), "__init__.py": code or "loaded = True\n"})


def plan_for(installer: Installer, tmp_path: Path, needs: str, name: str = "sky", code: str = "") -> dict[str, str]:
    plan = installer.plan(source_of(str(extension(tmp_path, name, needs, code))))
    return {package.name: package.version for package in plan.packages}


def install(installer: Installer, place: Path) -> None:
    plan = installer.plan(source_of(str(place)))
    installer.confirm(plan.id, plan.tree_hash)


def refused(installer: Installer, tmp_path: Path, needs: str, *said: str) -> None:
    with pytest.raises(InstallError) as caught:
        plan_for(installer, tmp_path, needs)
    assert [word for word in said if word not in str(caught.value)] == [] and "\n" not in str(caught.value)


def test_what_is_here_already_asks_no_resolver(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    needs = '"numpy>=1", "Pillow", "nowhere; python_version < \'3\'"'
    assert plan_for(installer, tmp_path, needs) == {}


def test_they_are_seen_before_and_imported_after(installer: Installer, tmp_path: Path, index: Path) -> None:
    wheel(index, "cloud_shapes", "1.5", ("rain_drops>=2",))
    wheel(index, "rain_drops", "2.5", (f"numpy=={NUMPY}",))
    code = "import cloud_shapes, rain_drops\n__version__ = cloud_shapes.version + rain_drops.version\n"
    place = extension(tmp_path, "sky", '"cloud-shapes"', code)
    plan = installer.plan(source_of(str(place)))
    assert [(one.name, one.version) for one in plan.packages] == [("cloud-shapes", "1.5"), ("rain-drops", "2.5")]
    assert not installer.folder.exists()
    installer.confirm(plan.id, plan.tree_hash)
    plugins = Plugins.load(installer.folder, packages=())
    assert plugins.problems == []
    import cloud_shapes  # type: ignore[import-not-found]

    assert Path(cloud_shapes.__file__).is_relative_to(installer.folder)
    alone = subprocess.run([sys.executable, "-c", "import cloud_shapes"], check=False, capture_output=True)
    assert b"ModuleNotFoundError" in alone.stderr  # the environment is as it was
    for name in ("cloud_shapes", "rain_drops"):
        del sys.modules[name]


def test_another_version_of_what_the_program_runs_on_is_refused(installer: Installer, tmp_path: Path) -> None:
    refused(
        installer, tmp_path, '"numpy<1", "pillow<2"', f"numpy<1, and this program runs on numpy {NUMPY}", "pillow<2"
    )


def test_a_package_that_needs_another_version_is_refused(installer: Installer, tmp_path: Path, index: Path) -> None:
    wheel(index, "cloud_shapes", "1.5", ("numpy<1",))
    refused(installer, tmp_path, '"cloud-shapes"', f"numpy {NUMPY}", "cloud-shapes 1.5 depends on numpy<1")


def test_what_is_nowhere_is_said(installer: Installer, tmp_path: Path, index: Path) -> None:
    refused(installer, tmp_path, '"cloud-shapes"', "cannot be had together, as wheels", "cloud-shapes")
    wheel(index, "cloud_shapes", "1.5")
    refused(installer, tmp_path, '"cloud-shapes>=2"', "cannot be had together, as wheels", "cloud-shapes>=2")


def test_no_setup_script_runs(installer: Installer, tmp_path: Path, index: Path) -> None:
    setup = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    write(tmp_path / "cloud_shapes-1.5", {"setup.py": setup, "PKG-INFO": "Name: cloud_shapes\nVersion: 1.5\n"})
    with tarfile.open(index / "cloud_shapes-1.5.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cloud_shapes-1.5", "cloud_shapes-1.5")
    refused(installer, tmp_path, '"cloud-shapes"', "as wheels")
    assert not (tmp_path / "ran").exists()


def test_a_wheel_cannot_take_the_place_of_the_programs_own(installer: Installer, tmp_path: Path, index: Path) -> None:
    wheel(index, "cloud_shapes", "1.5")
    path = index / "cloud_shapes-1.5-py3-none-any.whl"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("numpy/__init__.py", "stolen = True\n")
        archive.writestr("evil.pth", f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    uses = "import cloud_shapes, numpy\nassert not hasattr(numpy, 'stolen')\n"
    install(installer, extension(tmp_path, "sky", '"cloud-shapes"', uses))
    code = "import sys\nfrom pathlib import Path\nfrom webui.plugins.manager import Plugins\n"
    code += "problems = Plugins.load(Path(sys.argv[1]), packages=()).problems\nassert not problems, problems\n"
    command = [sys.executable, "-c", code, str(installer.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_wheel_that_changed_after_the_preview_is_refused(installer: Installer, tmp_path: Path, index: Path) -> None:
    wheel(index, "cloud_shapes", "1.5")
    plan = installer.plan(source_of(str(extension(tmp_path, "sky", '"cloud-shapes"'))))
    wheel(index, "cloud_shapes", "1.5", content="stolen = True\n")
    with pytest.raises(InstallError, match="could not be installed"):
        installer.confirm(plan.id, plan.tree_hash)
    assert not (installer.folder / "sky").exists() and not list(installer.folder.glob(".webui/packages/*"))


def test_what_another_extension_brought_stays_as_it_is(installer: Installer, tmp_path: Path, index: Path) -> None:
    wheel(index, "cloud_shapes", "1.5")
    install(installer, extension(tmp_path, "first", '"cloud-shapes"'))
    wheel(index, "cloud_shapes", "2.0")
    wheel(index, "rain_drops", "2.5", ("cloud_shapes",))
    assert plan_for(installer, tmp_path, '"rain-drops"', "second") == {"cloud-shapes": "1.5", "rain-drops": "2.5"}
    refused(installer, tmp_path, '"cloud-shapes>=2"', "another extension brought cloud-shapes 1.5")


def test_they_go_with_it_and_come_back(installer: Installer, tmp_path: Path, index: Path) -> None:
    for version in ("1.5", "2.0"):
        wheel(index, "cloud_shapes", version)
    place = extension(tmp_path, "sky", '"cloud-shapes<2"')
    install(installer, place)
    extension(tmp_path, "sky", '"cloud-shapes>=2"', version="2")
    plan = installer.plan_update("sky")
    assert [one.version for one in plan.packages] == ["2.0"]
    installer.confirm(plan.id, plan.tree_hash)

    def brought() -> dict[str, str]:
        with pytest.MonkeyPatch.context() as patching:
            patching.setattr(sys, "path", [path for path in sys.path if not path.startswith(str(tmp_path))])
            Plugins.load(installer.folder, packages=())
            return dependencies.packages_in(path for path in sys.path if path.startswith(str(tmp_path)))

    assert brought() == {"cloud-shapes": "2.0"}
    installer.roll_back("sky")
    assert brought() == {"cloud-shapes": "1.5"}
    trash_id = installer.uninstall("sky")
    assert brought() == {}
    installer.restore(trash_id)
    assert brought() == {"cloud-shapes": "1.5"}
    installer.uninstall("sky")
    installer.empty_trash()
    assert list((installer.folder / ".webui" / "packages").iterdir()) == []
