"""The hash of a folder: the bytes and names of its files, and nothing else."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from webui.plugins.tree_hash import tree_files, tree_hash


def _tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_the_hash_is_the_documented_one(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "a", {"b.py": b"two", "a/z.py": b"one"})
    expected = sha256()
    for name, content in ((b"a/z.py", b"one"), (b"b.py", b"two")):
        expected.update(len(name).to_bytes(8, "big") + name)
        expected.update(len(content).to_bytes(8, "big") + sha256(content).digest())
    assert tree_hash(tree) == expected.hexdigest()


def test_names_are_ordered_as_whole_paths(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "a", {"a.py": b"", "a/b": b"", "a-b": b"", "é": b"", "Z": b""})
    assert [name for name, _ in tree_files(tree)] == ["Z", "a-b", "a.py", "a/b", "é"]


def test_a_copy_elsewhere_with_other_times_has_the_same_hash(tmp_path: Path) -> None:
    files = {"__init__.py": b"x = 1\n", "data/table.csv": b"1,2\n"}
    one, other = _tree(tmp_path / "one", files), _tree(tmp_path / "other", dict(reversed(files.items())))
    os.utime(other / "__init__.py", (1, 1))
    (other / "data/table.csv").chmod(0o600)
    assert tree_hash(one) == tree_hash(other)


def test_compiled_files_and_the_repository_do_not_count(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "a", {"__init__.py": b"x = 1\n"})
    before = tree_hash(tree)
    _tree(tree, {"__pycache__/x.pyc": b"1", "part/__pycache__/y.pyc": b"2", ".git/HEAD": b"ref"})
    assert tree_hash(tree) == before
    (tree / "part/.git").write_bytes(b"gitdir: elsewhere")  # a submodule's pointer
    assert tree_hash(tree) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"a.py": b"1", "b.py": b"3"},
        {"a.py": b"1", "c.py": b"2"},
        {"a.py": b"1"},
        {"a.py": b"1", "b.py": b"2", "c.py": b""},
        {"a.py": b"1", "b/b.py": b"2"},
        {"a.py": b"12", "b.py": b""},
    ],
)
def test_any_other_byte_or_name_changes_it(tmp_path: Path, changed: dict[str, bytes]) -> None:
    tree = _tree(tmp_path / "a", {"a.py": b"1", "b.py": b"2"})
    assert tree_hash(tree) != tree_hash(_tree(tmp_path / "b", changed))


def test_a_single_file_counts_under_its_own_name(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "a", {"one.py": b"x"})
    assert tree_hash(tree / "one.py") == tree_hash(tree)
    assert tree_hash(tree / "one.py") != tree_hash(_tree(tmp_path / "b", {"two.py": b"x"}) / "two.py")
