"""The API's documentation page, rendered from our own files."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.browser
def test_the_api_documentation_lists_the_routes(page: Any, server: Any) -> None:
    page.goto(f"{server.address}docs")
    page.wait_for_selector(".opblock", timeout=20_000)
    assert page.locator(".opblock").count() >= 12
    assert "Unable to render" not in page.inner_text("body")
