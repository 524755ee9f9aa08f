"""``webui extensions``: what would happen is shown, and happens after a yes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from webui.cli import main

sys.path.append(str(Path(__file__).resolve().parent / "plugins"))
from extension_sources import commit, files, repository, write, zipped

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    folders = ["--extensions-dir", str(tmp_path / "extensions"), "--outputs-dir", str(tmp_path / "outputs")]

    def running(*arguments: str) -> tuple[int, str, str]:
        code = main(["extensions", *arguments, *folders])
        said = capsys.readouterr()
        return code, said.out, said.err

    return running


def test_the_whole_life_of_an_extension(run: Run, tmp_path: Path) -> None:
    assert run("list")[0] == 0
    place = repository(tmp_path / "sky", files(more='licence = "MIT"\n[permissions]\nnetwork = true\n'))
    code, out, _ = run("install", str(place), "--yes")
    assert code == 0 and "says it will use the network" in out and "licence MIT" in out
    assert "Installed sky. It takes effect at the next start." in out
    assert (tmp_path / "extensions" / "sky" / "__init__.py").exists()
    assert "sky" in run("list")[1]
    later = commit(place, files(version="2.0"))
    code, out, _ = run("update", "sky", "--yes")
    assert code == 0 and "version 1.0 -> 2.0" in out and f"-> {later[:12]}" in out
    assert "no longer: use the network" in out and "~ extension.toml" in out and '+version = "2.0"' in out
    assert "sky is 1.0 again." in run("rollback", "sky")[1]
    assert run("disable", "sky")[0] == 0
    assert json.loads(run("list", "--json")[1])["extensions"][0]["state"] == "off"
    assert run("enable", "sky")[0] == 0
    assert "is in the trash as sky~" in run("uninstall", "sky")[1]
    assert "in trash" in run("list")[1] and not (tmp_path / "extensions" / "sky").exists()
    assert "Restored sky." in run("restore", "sky")[1]


def test_without_a_yes_nothing_is_installed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(zipped(tmp_path / "sky.zip", files()))
    code, out, err = run("install", place)
    assert code == 2 and "tree " in out and "say --yes" in err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    asked: list[str] = []
    for answer, expected in (("", 1), ("n", 1), ("y", 0)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: asked.append(question) or answer)
        code, out, err = run("install", place)
        assert code == expected
        assert (tmp_path / "extensions" / "sky").exists() == (expected == 0)
    assert asked == ["Install it? [y/N] "] * 3
    assert not list((tmp_path / "outputs").rglob("named"))


def test_what_is_wrong_is_one_sentence(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "extensions" / "xray", {"__init__.py": ""})
    for arguments, said in (
        (["install", "http://example.org/x.git", "--yes"], "no address to install from"),
        (["install", str(tmp_path / "nowhere"), "--yes"], "There is no"),
        (["update", "nothing", "--yes"], "no extension named"),
        (["update", "xray", "--yes"], "comes with the program"),
        (["update", "xray", "--ref", "v1"], "--ref needs the repository"),
        (["uninstall", "xray"], "comes with the program"),
        (["rollback", "nothing"], "no extension named"),
        (["restore", "nothing"], 'no "nothing" in the trash'),
        (["enable", "nothing"], "no extension named"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and err.startswith("error: ") and said in err and err.count("\n") == 1


def test_a_file_name_cannot_write_to_the_terminal(run: Run, tmp_path: Path) -> None:
    text = files(note__txt="\x1b]0;gotcha\x07 red \x1b[31m\n")
    place = write(tmp_path / "sky", files())
    run("install", str(place), "--yes")
    write(place, text)
    code, out, _ = run("update", "sky", "--yes")
    assert code == 0 and "gotcha" in out and "\x1b" not in out and "\x07" not in out
