"""launch.py without installing anything: what it understands, what it remembers, what it leaves alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import launch

ROOT = Path(launch.__file__).parent
LOCK = "# a comment\ntorch==2.13.0\ngradio==6.31.0\n"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that launch.py would have run; none runs."""
    seen: list[list[str]] = []

    def run(command: list[str], **_: object) -> int:
        seen.append(command)
        return 0

    monkeypatch.setattr(launch, "run", run)
    return seen


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment with an interpreter and nothing else."""
    python = launch.venv_python(tmp_path)
    python.parent.mkdir(parents=True)
    python.touch()
    return tmp_path


def torch_versions(monkeypatch: pytest.MonkeyPatch, *versions: str) -> None:
    answers = iter(versions)
    monkeypatch.setattr(launch, "installed_torch", lambda python: next(answers))


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_a_python_that_fits_is_not_mentioned(version: tuple[int, int]) -> None:
    assert launch.version_problem(*version) == ""


@pytest.mark.parametrize("version", [(3, 6), (3, 10), (3, 14), (4, 0)])
def test_a_python_that_does_not_fit_gets_found_expected_and_what_to_do(version: tuple[int, int]) -> None:
    problem = launch.version_problem(*version)
    assert f"Python {version[0]}.{version[1]}," in problem
    assert "3.11, 3.12 or 3.13" in problem and "python.org" in problem


def test_nothing_newer_than_python_3_6_stands_in_the_way_of_the_version_check() -> None:
    import ast

    source = (ROOT / "launch.py").read_text("utf-8")
    before = source[: source.index("if version_problem(")]
    ast.parse(source, feature_version=(3, 7))
    assert "__future__" not in source
    assert not re.search(r"\w\[|\|", before.split('"""', 2)[2]), "no list[str] and no X | Y above the check"


def test_the_pinned_pythons_and_torch_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert f"torch>={'.'.join(map(str, launch.OLDEST_TORCH))}" in project["dependencies"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ("", "serve", [])),
        (["--port", "7000", "--no-browser"], ("", "serve", ["--port", "7000", "--no-browser"])),
        (["serve", "--port", "7000"], ("", "serve", ["--port", "7000"])),
        (["generate", "--prompt", "a fox"], ("", "generate", ["--prompt", "a fox"])),
        (["test", "-k", "layers", "-x"], ("", "test", ["-k", "layers", "-x"])),
        (["--torch-index", "https://x/cu130"], ("https://x/cu130", "serve", [])),
        (["--torch-index=https://x/cu130", "test", "-x"], ("https://x/cu130", "test", ["-x"])),
        (["--host", "::1", "--torch-index", "u", "--port", "1"], ("u", "serve", ["--host", "::1", "--port", "1"])),
        (["generate", "--prompt", "--torch-index"], ("", "generate", ["--prompt", "--torch-index"])),
        (["generate", "--help"], ("", "generate", ["--help"])),
        (["--help"], ("", "help", [])),
        (["--port", "1", "-h"], ("", "help", [])),
    ],
)
def test_arguments_are_split_between_us_and_the_command(argv: list[str], expected: tuple[str, str, list[str]]) -> None:
    assert launch.split_arguments(argv) == expected


def test_the_option_wins_over_the_variable() -> None:
    assert launch.split_arguments([], "from-variable")[0] == "from-variable"
    assert launch.split_arguments(["--torch-index", "from-option"], "from-variable")[0] == "from-option"


@pytest.mark.parametrize(
    "argv", [["--torch-index"], ["--torch-index="], ["--port", "1", "--torch-index", "--no-browser"]]
)
def test_an_index_without_an_address_is_one_sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(argv) == 1
    assert capsys.readouterr().err.strip() == "--torch-index needs the address of a package index after it."


def test_the_stamp_tells_a_new_a_finished_a_broken_and_an_outdated_environment(tmp_path: Path) -> None:
    assert not launch.is_set_up(tmp_path, "", LOCK)
    launch.write_stamp(tmp_path, "", "")
    assert launch.read_stamp(tmp_path) == ("", "")
    assert not launch.is_set_up(tmp_path, "", LOCK)
    launch.write_stamp(tmp_path, "", LOCK)
    assert launch.is_set_up(tmp_path, "", LOCK)
    assert not launch.is_set_up(tmp_path, "", LOCK.replace("6.31.0", "6.32.0"))
    assert not launch.is_set_up(tmp_path, "https://x/cu130", LOCK)
    launch.write_stamp(tmp_path, "https://x/cu130", LOCK)
    assert launch.is_set_up(tmp_path, "https://x/cu130", LOCK)
    assert launch.is_set_up(tmp_path, "", LOCK), "the index is remembered, not asked for at every start"


def test_a_second_start_runs_nothing(venv: Path, calls: list[list[str]]) -> None:
    launch.write_stamp(venv, "", launch.read_lock())
    launch.set_up(venv, "")
    assert calls == []


def test_a_first_start_installs_the_lock_and_stamps_last(
    venv: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_versions(monkeypatch, "")
    monkeypatch.setattr(
        launch, "pip", lambda python, *arguments: calls.append([*arguments, launch.read_stamp(venv)[1]])
    )
    launch.set_up(venv, "")
    lock = launch.read_lock()
    (alone,) = re.findall(r"^spandrel==.*$", lock, flags=re.MULTILINE)
    assert calls[-2:] == [
        ["install", "--requirement", str(venv / "requirements.txt"), ""],
        ["install", "--no-deps", alone, ""],
    ]
    assert (venv / "requirements.txt").read_text("utf-8") == lock.replace(f"{alone}\n", "")
    assert launch.is_set_up(venv, "")


@pytest.mark.parametrize(
    ("version", "kept"),
    [("2.13.0+cpu", True), ("2.6.0", True), ("2.14.0a0+git1234", True), ("2.5.1+cu121", False), ("1.13.1", False)],
)
def test_a_torch_in_range_is_kept(
    version: str, kept: bool, venv: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_versions(monkeypatch, version)
    launch.set_up(venv, "")
    lines = (venv / "requirements.txt").read_text("utf-8").splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    assert (torch == f"torch=={version}") is kept
    assert len(lines) == len(launch.read_lock().splitlines()) - len(launch.ALONE)
    assert not any("uninstall" in call for call in calls)


def test_a_named_index_replaces_torch_once(venv: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    torch_versions(monkeypatch, "2.13.0+cpu", "2.11.0+cu130")
    launch.set_up(venv, "https://x/cu130")
    pip = [call[3:-1] for call in calls if call[1:3] == ["-m", "pip"]]
    assert pip[0] == ["uninstall", "--yes", "--quiet", "torch"]
    assert pip[1] == ["install", "torch>=2.6,<=2.13.0", "--index-url", "https://x/cu130"]
    assert "torch==2.11.0+cu130" in (venv / "requirements.txt").read_text("utf-8").splitlines()
    calls.clear()
    launch.set_up(venv, "https://x/cu130")
    assert calls == []


def test_a_broken_installation_is_said_and_goes_on(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch_versions(monkeypatch, "", "2.13.0")
    packages = venv / "lib" / "python3.11" / "site-packages"
    for name, files in {"whole-1.dist-info": ["METADATA", "INSTALLER"], "half-1.dist-info": ["METADATA"]}.items():
        (packages / name).mkdir(parents=True)
        for file in files:
            (packages / name / file).touch()
    monkeypatch.setattr(launch, "run", lambda command, **_: 0 if "import pip" in command else 2)
    with pytest.raises(launch.SetupError, match=r"^pip could not finish \(exit code 2.*start again"):
        launch.set_up(venv, "https://x/cu130")
    assert launch.read_stamp(venv) == ("https://x/cu130", ""), "the index of a broken installation is not forgotten"
    monkeypatch.setattr(launch, "run", lambda command, **_: 0)
    launch.set_up(venv, "")
    assert "did not finish; continuing it." in capsys.readouterr().out
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]
    assert launch.read_stamp(venv) == ("https://x/cu130", launch.read_lock())


def test_every_check_runs_and_the_worst_code_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    codes = {"ruff": 1, "mypy": -11, "pytest": 0}
    order: list[str] = []

    def run(command: list[str], **_: object) -> int:
        order.append(command[2])
        return codes[command[2]]

    monkeypatch.setattr(launch, "run", run)
    monkeypatch.chdir(ROOT)
    assert launch.run_checks(tmp_path, ["-x"]) == 139
    assert order == ["ruff", "ruff", "mypy", "pytest"]


@pytest.mark.skipif(os.name == "nt", reason="exec is for POSIX; Windows waits for a child")
def test_a_start_hands_over_the_process_with_its_arguments(tmp_path: Path) -> None:
    """The real thing with this interpreter: another folder, one with a misleading file in it, and the CLI answers."""
    venv = tmp_path / "venv"
    launch.venv_python(venv).parent.mkdir(parents=True)
    launch.venv_python(venv).symlink_to(sys.executable)
    (venv / "lib").symlink_to(Path(sys.prefix) / "lib")
    (venv / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text("utf-8"), "utf-8")
    launch.write_stamp(venv, "", launch.read_lock())
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')", "utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), "no-such-command"],
        env={**os.environ, "WEBUI_VENV": str(venv)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "no-such-command" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-test.lock"])
def test_the_locks_pin_every_version_and_no_accelerator_package(name: str) -> None:
    lines = [line for line in launch.read_lock(name).splitlines() if not line.startswith("#")]
    names = [line.split("==")[0].lower() for line in lines]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line) for line in lines)
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_lock_holds_what_the_project_asks_for() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = launch.read_lock() + launch.read_lock("requirements-test.lock")
    locked = {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, flags=re.MULTILINE)}
    for line in [
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
        *project["optional-dependencies"]["upscalers"],
    ]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(locked[wanted.name.lower()]), (
            f"{line}: locked is {locked[wanted.name.lower()]}"
        )
