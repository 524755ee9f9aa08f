"""Sets up and starts the web UI.

    python launch.py [options]          set up what is missing, start the page, open the browser
    python launch.py COMMAND [...]      another command: generate, reproduce, info, models
    python launch.py test [...]         set up what tests need, run all checks; the rest goes to pytest

    --torch-index URL    take torch from this package index (a CUDA, ROCm or XPU build, for example
                         https://download.pytorch.org/whl/cu130); remembered.  Or the variable WEBUI_TORCH_INDEX.
    WEBUI_VENV=FOLDER    use this virtual environment in place of .venv.  A torch already in it is kept.

The first start makes the environment from requirements.lock.  Later starts compare that file with the copy left in the
environment and hand over at once: no pip, no network.
"""

# Runs before every start, so it imports little at the top.  Has to get as far as the version check on every Python 3.6
# or later that a machine may have: no newer syntax anywhere, no newer annotation above the check.

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def version_problem(major: int, minor: int) -> str:
    """What to tell somebody whose Python does not fit; empty when it does."""
    if (3, 11) <= (major, minor) <= (3, 13):
        return ""
    return (
        f"This is Python {major}.{minor}, and the web UI needs Python 3.11, 3.12 or 3.13: install one from "
        "https://www.python.org/downloads/ or start with one that is there, for example: python3.12 launch.py"
    )


if version_problem(*sys.version_info[:2]):
    sys.exit(version_problem(*sys.version_info[:2]))

OLDEST_TORCH = (2, 6)
ALONE = ("spandrel",)  # asks for a torchvision that may not fit this torch, and needs none (networks/restoration.py)
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class SetupError(Exception):
    """Set-up cannot go on; the text is one sentence for the person at the terminal."""


def main(argv: list[str]) -> int:
    """The exit code.  On POSIX a start that works does not come back: the process becomes the application."""
    venv = Path(os.environ.get("WEBUI_VENV") or ROOT / ".venv").absolute()
    try:
        torch_index, command, arguments = split_arguments(argv, os.environ.get("WEBUI_TORCH_INDEX", ""))
        if command == "help":
            print(__doc__)
            if not is_set_up(venv, "") or not venv_python(venv).exists():
                print("Once set up, this text also lists the options of the page.")
                return 0
            return hand_over(venv, ["serve", "--help"])
        set_up(venv, torch_index)
        if command == "test":
            set_up_tests(venv)
            return run_checks(venv, arguments)
        return hand_over(venv, [command, *arguments])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the next start continues from here.", file=sys.stderr)
        return 130


def split_arguments(argv: list[str], torch_index: str = "") -> tuple[str, str, list[str]]:
    """The torch index asked for (or the one given), the command and what belongs to the command.

    Without a command word the command is ``serve`` and --torch-index may stand anywhere; before a command word it is
    ours, and after it everything is the command's own.
    """
    ours: list[str] = []
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        ours.append(rest.pop(0))
        if ours[-1] == "--torch-index" and rest:
            ours.append(rest.pop(0))
        elif not ours[-1].startswith("--torch-index"):
            ours, rest = ours + rest, []  # an option of serve: no command word follows, only its values
    if "-h" in ours or "--help" in ours:
        return torch_index, "help", []
    arguments: list[str] = []
    while ours:
        word = ours.pop(0)
        name, equals, value = word.partition("=")
        if name != "--torch-index":
            arguments.append(word)
            continue
        torch_index = value if equals else (ours.pop(0) if ours else "")
        if not torch_index or torch_index.startswith("-"):
            raise SetupError("--torch-index needs the address of a package index after it.")
    if rest:
        return torch_index, rest[0], rest[1:]
    return torch_index, "serve", arguments


def venv_python(venv: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


# The stamp is a file in the environment: the torch index in the first line, then the lock that was installed.  While an
# installation runs there is no lock in it, so that a start after an interruption sees what happened.


def is_set_up(venv: Path, torch_index: str, lock: str = "") -> bool:
    """Whether the environment has this lock (default: requirements.lock), and torch from this index if one is named."""
    recorded_index, recorded_lock = read_stamp(venv)
    return recorded_lock == (lock or read_lock()) and torch_index in ("", recorded_index)


def read_stamp(venv: Path) -> tuple[str, str]:
    """(torch index, lock) of the last installation; both empty before the first, the lock empty after a broken one."""
    try:
        index, _, lock = (venv / "webui.stamp").read_text(encoding="utf-8").partition("\n")
    except OSError:
        return "", ""
    return index, lock


def write_stamp(venv: Path, torch_index: str, lock: str) -> None:
    """Records an installation: with an empty lock when it begins, with the lock when it is complete."""
    (venv / "webui.stamp").write_text(f"{torch_index}\n{lock}", encoding="utf-8")


def read_lock(name: str = "requirements.lock") -> str:
    """The text of a lock file beside this one."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{name} is missing beside launch.py: get the whole folder again.") from error


def set_up(venv: Path, torch_index: str) -> None:
    """Leaves a complete environment behind, or raises SetupError; does nothing when it is there already."""
    python, lock = venv_python(venv), read_lock()
    if is_set_up(venv, torch_index, lock) and python.exists():
        return
    recorded_index, recorded_lock = read_stamp(venv)
    if (venv / "webui.stamp").exists() and not recorded_lock:
        say("The last set-up did not finish; continuing it.")
        remove_half_installed(venv)
    make_venv(venv)
    torch = installed_torch(python)
    if torch and torch_index not in ("", recorded_index):
        say(f"Replacing torch {torch} by the build from {torch_index}")
        pip(python, "uninstall", "--yes", "--quiet", "torch")
        torch = ""
    torch_index = torch_index or recorded_index
    write_stamp(venv, torch_index, "")
    if torch and not keeps_torch(torch):
        say(f"Replacing torch {torch}, which is older than {'.'.join(map(str, OLDEST_TORCH))}")
        torch = ""
    elif torch:
        say(f"Keeping torch {torch}, which is there already")
    if not torch and torch_index:
        say(f"Installing torch from {torch_index}")
        pip(python, "install", torch_from_index(lock), "--index-url", torch_index)
        torch = installed_torch(python)
    say(f"Installing the packages of requirements.lock into {venv}: once, some minutes")
    requirements = venv / "requirements.txt"
    together, alone = split_lock(with_torch(lock, torch))
    requirements.write_text(together, encoding="utf-8")
    pip(python, "install", "--requirement", str(requirements))
    pip(python, "install", "--no-deps", *alone)
    write_stamp(venv, torch_index, lock)
    say("Set-up complete")


def make_venv(venv: Path) -> None:
    """A virtual environment with a working pip; what is there and works stays."""
    python = venv_python(venv)
    if python.exists() and run([str(python), "-c", "import pip"], quiet=True) == 0:
        return
    say(f"Making the environment {venv}")
    if run([sys.executable, "-m", "venv", "--clear", str(venv)]) != 0:
        raise SetupError(
            f"Python could not make a virtual environment in {venv}; its reason is above "
            "(on Debian and Ubuntu: apt install python3-venv)."
        )


def remove_half_installed(venv: Path) -> None:
    """Takes away the records of packages that pip was interrupted in, so that pip installs them again.

    pip writes INSTALLER after the last file of a package; without it the record speaks of files that may not be there.
    """
    for record in venv.glob("[Ll]ib/**/site-packages/*.dist-info"):
        if not (record / "INSTALLER").exists():
            import shutil

            shutil.rmtree(record)


def installed_torch(python: Path) -> str:
    """The version of torch in an environment, such as ``2.13.0+cpu``; empty when there is none."""
    import subprocess

    code = "from importlib.metadata import version; print(version('torch'))"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else ""


def keeps_torch(version: str) -> bool:
    """Whether a torch of this version may stay: not older than pyproject.toml asks."""
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= OLDEST_TORCH


def split_lock(lock: str) -> tuple[str, list[str]]:
    """The lock without the packages that are installed without what they ask for, and those packages."""
    lines = lock.splitlines()
    alone = [line for line in lines if line.split("==")[0] in ALONE]
    return "\n".join(line for line in lines if line not in alone) + "\n", alone


def with_torch(lock: str, torch: str) -> str:
    """The lock with its torch line naming this version; unchanged when torch is empty."""
    lines = lock.splitlines()
    return "\n".join(f"torch=={torch}" if torch and line.startswith("torch==") else line for line in lines) + "\n"


def torch_from_index(lock: str) -> str:
    """What to ask another index for: the locked torch, or the nearest earlier one that it has and that works."""
    locked = next(line for line in lock.splitlines() if line.startswith("torch==")).split("==")[1]
    return f"torch>={'.'.join(map(str, OLDEST_TORCH))},<={locked}"


def pip(python: Path, *arguments: str) -> None:
    """Runs pip in the environment, its progress visible."""
    command = [str(python), "-m", "pip", *arguments, "--disable-pip-version-check"]
    code = run(command)
    if code != 0:
        raise SetupError(
            f"pip could not finish (exit code {code}, its reason is above): check the network connection and the free "
            "disk space, then start again; what is installed stays."
        )


def hand_over(venv: Path, arguments: list[str]) -> int:
    """Becomes ``python -m webui ARGUMENTS`` of the environment; on Windows waits for it and gives its exit code."""
    path = os.environ.get("PYTHONPATH")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}
    # -P: a file named like a module in the folder that the person stands in must not be imported in its place.
    command = [str(venv_python(venv)), "-P", "-m", "webui", *arguments]
    sys.stdout.flush()
    if os.name == "nt":
        return run(command, environment=environment)
    try:
        os.execve(command[0], command, environment)
    except OSError as error:
        raise SetupError(f"{command[0]} does not start ({error.strerror}): delete {venv} and start again.") from error


def run(command: list[str], *, quiet: bool = False, environment: dict[str, str] | None = None) -> int:
    """The exit code of a command run in front of the person; 127 when there is no such program."""
    import subprocess

    sys.stdout.flush()
    silence = subprocess.DEVNULL if quiet else None
    try:
        with subprocess.Popen(command, stdout=silence, stderr=silence, env=environment) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal told the child as well: let it end in its own way
                process.wait()
                raise
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def say(text: str) -> None:
    """One line of progress."""
    print(f"== {text}", flush=True)


def set_up_tests(venv: Path) -> None:
    """Adds the packages of requirements-test.lock and, where it can, Chromium."""
    lock = read_lock("requirements-test.lock")
    stamp = venv / "webui-test.stamp"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != lock:
        say("Installing what the tests need (requirements-test.lock)")
        pip(venv_python(venv), "install", "--no-deps", "--requirement", str(ROOT / "requirements-test.lock"))
        stamp.write_text(lock, encoding="utf-8")
    if not find_chromium(venv):
        say("Installing Chromium for the browser tests")
        install_chromium(venv)
        if not find_chromium(venv):
            say("No Chromium here and none could be installed: the browser tests need CHROMIUM_BIN to name one")


def find_chromium(venv: Path) -> str:
    """The Chromium that browser tests use: CHROMIUM_BIN, one on PATH, or the one of playwright; empty without any."""
    import shutil
    import subprocess

    named = os.environ.get("CHROMIUM_BIN") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if named:
        return named
    code = (
        "from pathlib import Path\n"
        "from playwright.sync_api import sync_playwright\n"
        "with sync_playwright() as p: path = p.chromium.executable_path\n"
        "print(path if Path(path).exists() else '')"
    )
    found = subprocess.run([str(venv_python(venv)), "-c", code], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else ""


def install_chromium(venv: Path) -> None:
    """Tries the system's package manager where we may (Debian, as root), then playwright's own download."""
    import shutil

    if sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get"):
        packages = ["chromium", "fonts-liberation"]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        run(["apt-get", "update", "-qq"])
        if run(install, environment=environment) == 0 and run(["chromium", "--version"], quiet=True) == 0:
            return
    run([str(venv_python(venv)), "-m", "playwright", "install", "chromium"])


def test_processes() -> int:
    """Into how many processes the tests are shared out, file by file; each may start servers and a browser."""
    return min(os.cpu_count() or 1, 4)


def run_checks(venv: Path, pytest_arguments: list[str]) -> int:
    """Ruff, mypy and pytest, each whatever the others say; the worst exit code.  pytest's summary is the last line."""
    os.chdir(ROOT)
    checks = {
        "ruff check": ["ruff", "check", "."],
        "ruff format --check": ["ruff", "format", "--check", "."],
        "mypy --strict": ["mypy", "--strict"],
        "pytest": ["pytest", "-n", str(test_processes()), "--dist", "loadfile", *pytest_arguments],
    }
    codes: dict[str, int] = {}
    for name, arguments in checks.items():
        if name == "pytest":
            for earlier, code in codes.items():
                say(f"{earlier}: {'passed' if code == 0 else f'FAILED (exit code {code}, its reasons are above)'}")
        say(name)
        code = run([str(venv_python(venv)), "-m", *arguments])
        codes[name] = code if code >= 0 else 128 - code  # a signal, as a shell counts it
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
