"""What all tests share: the environment they run in, and the browser.

Nothing here seeds a random generator: a test that needs numbers makes its own generator.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # launch.py and webui, also when pytest is started by its own command

# Set before torch is imported, and inherited by every process that a test starts.  Test processes share the cores: two
# teams of threads that spin for the same cores make each other many times slower.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
os.environ["OMP_NUM_THREADS"] = str(max(1, CORES // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
os.environ.update(HF_HUB_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False", TOKENIZERS_PARALLELISM="false")

# No example is a failure because the machine is busy.
settings.register_profile("webui", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("webui")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser, and put it last: most of a run is over before the slowest tests begin."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium: CHROMIUM_BIN, one on PATH, or the one playwright downloaded.

    One for each file of tests: while playwright is open its event loop holds the main thread, in which no other can
    be started, and the next file may need one.
    Without any of them the test is skipped with that reason, or fails where REQUIRE_BROWSER=1 says there has to be one.
    """
    from playwright.sync_api import sync_playwright

    import launch

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = (
            os.environ.get("CHROMIUM_BIN")
            or next(filter(None, map(shutil.which, launch.CHROMIUM_NAMES)), None)
            or (own if Path(own).exists() else None)
        )
        if not found:
            missing = pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip
            missing("browser tests need Chromium: none on PATH, and CHROMIUM_BIN names none")
        chromium = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()
