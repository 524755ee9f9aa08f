from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from webui.engine.claim import claim
from webui.errors import OutputError

HOLD = """
import sys, pathlib
from webui.engine.claim import claim
held = claim(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_server_is_told_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    state = tmp_path / "outputs" / ".webui"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match="Another server already works on"):
        claim(state)
    holder.kill()
    holder.wait()
    claim(state).release()


def test_released_and_claimed_again(tmp_path: Path) -> None:
    claim(tmp_path).release()
    lock = claim(tmp_path)
    lock.release()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be used"):
        claim(tmp_path / "file" / ".webui")
