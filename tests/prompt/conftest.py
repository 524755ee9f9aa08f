from __future__ import annotations

import pytest

from webui.prompt.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer()
