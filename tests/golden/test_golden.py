"""A representative third of the golden cases of AUTOMATIC1111, against a real server at full fp32.

All of them, with a table: ``python benchmarks/golden.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import golden

FOLDER = golden.golden_folder()
CASES = golden.cases(FOLDER, ("a1111",), golden.THIRD) if (FOLDER / "a1111").is_dir() else []
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES, reason=f"the golden folder {FOLDER} is not beside this checkout (WEBUI_GOLDEN)"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[golden.Server]:
    weights = golden.weights(FOLDER, golden.cache_folder())
    with golden.serving(tmp_path_factory.mktemp("golden"), weights) as server:
        yield server


@pytest.mark.parametrize("case", CASES or [golden.Case("a1111", "none", Path())], ids=lambda case: case.name)
def test_the_picture_and_its_text_are_upstreams(server: golden.Server, case: golden.Case) -> None:
    status, answer, _ = golden.replay(case, server)
    row = golden.compared(case, status, answer)
    assert row.same_picture, golden.told(row)
    assert not row.fields, golden.told(row)
