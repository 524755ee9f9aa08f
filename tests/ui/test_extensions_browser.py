"""The Extensions tab in Chromium: from a local Git repository through the page to something that works, and back."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_page_browser import open_tab

from webui.hooks import API_VERSION

sys.path.append(str(Path(__file__).resolve().parents[1] / "plugins"))
from extension_sources import commit, files, repository, write, zipped

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser

PATIENCE_MS = 120_000
EVIL = '<img src=x onerror="document.title=1">'
CODE = """
from webui.hooks import hookimpl
from webui.ui.tabs import Tab

def build(context):
    import gradio as gr
    gr.Markdown("hello from version VERSION", elem_id="sky_words")

@hookimpl
def register_ui_tabs():
    return [Tab(id="sky", label="Sky", order=95, build=build)]
"""


def version(number: str, more: str = "") -> dict[str, str]:
    return {**files("sky", number, more), "__init__.py": CODE.replace("VERSION", number)}


@contextmanager
def visiting(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of the server, on which no script fails."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(server.address)
    page.wait_for_selector("#txt2img_generate")
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def start(
    serving: Callable[..., AbstractContextManager[Server]], tmp_path: Path
) -> Callable[[], AbstractContextManager[Server]]:
    """Starts the program on the same folders each time."""
    (tmp_path / "models").mkdir()
    return lambda: serving(tmp_path, tmp_path / "models", "--extensions-dir", str(tmp_path / "extensions"))


def state(page: Page, name: str) -> str:
    return page.locator(f'.ext-card[data-name="{name}"] .ext-state').inner_text()


def act(page: Page, name: str, action: str) -> None:
    page.click(f'.ext-card[data-name="{name}"] [data-action="{action}"]')


def confirm(page: Page) -> None:
    page.click("#extensions_preview [data-action=confirm]")
    page.wait_for_selector("#extensions_preview", state="detached")


def test_the_whole_way_through_the_page(
    start: Callable[[], AbstractContextManager[Server]], browser: Browser, tmp_path: Path
) -> None:
    more = f"description = {json.dumps(EVIL)}\n[permissions]\nnetwork = true\n"
    place = repository(tmp_path / "sky", version("1.0", more))
    with start() as server, visiting(browser, server) as page:
        open_tab(page, "Extensions")
        page.wait_for_selector(".ext-empty:has-text('There are no extensions yet')")
        page.fill("#extensions_source", str(place))
        page.click("#extensions_look")
        shown = page.locator("#extensions_preview")
        shown.wait_for()
        text = shown.inner_text()
        assert "Install sky 1.0" in text and "use the network" in text and "part/table.csv" in text and EVIL in text
        assert not (tmp_path / "extensions" / "sky").exists()
        page.click("#extensions_preview [data-action=cancel]")
        page.wait_for_selector("#extensions_preview", state="detached")
        assert not (tmp_path / "extensions" / "sky").exists()
        page.click("#extensions_look")
        confirm(page)
        page.wait_for_selector('.ext-card[data-name="sky"]')
        assert state(page, "sky") == "starts at the next start"
        assert "then as before): sky" in page.locator(".ext-pending").inner_text()
        assert page.get_by_role("tab", name="Sky", exact=True).count() == 0

    commit(place, {**version("2.0", "[permissions]\nsubprocess = true\n"), "new.py": "added = True\n"})
    with start() as server, visiting(browser, server) as page:
        open_tab(page, "Sky")
        page.wait_for_selector("#sky_words:has-text('hello from version 1.0')")
        open_tab(page, "Extensions")
        page.wait_for_selector('.ext-card[data-name="sky"][data-state="on"]')
        times = page.locator('.ext-card[data-name="sky"] .ext-hooks')
        times.locator("summary").click()
        assert "register_ui_tabs" in times.inner_text() and " ms" in times.inner_text()
        act(page, "sky", "update")
        shown = page.locator("#extensions_preview")
        shown.wait_for()
        text = shown.inner_text()
        assert "1.0 → 2.0" in text and "start other programs" in text and "new.py" in text
        assert "+added = True" in page.locator(".ext-diff .added").all_inner_texts()[-1]
        confirm(page)
        page.wait_for_selector('.ext-card[data-name="sky"][data-state="changes at the next start"]')
        act(page, "sky", "update")
        page.wait_for_selector(".ext-error:has-text('sky is up to date (2.0')")

    with start() as server, visiting(browser, server) as page:
        open_tab(page, "Sky")
        page.wait_for_selector("#sky_words:has-text('hello from version 2.0')")
        open_tab(page, "Extensions")
        page.click('.ext-card[data-name="sky"] :text("Back to 1.0")')
        page.wait_for_selector('.ext-card[data-name="sky"][data-state="changes at the next start"]')

    with start() as server, visiting(browser, server) as page:
        open_tab(page, "Sky")
        page.wait_for_selector("#sky_words:has-text('hello from version 1.0')")
        open_tab(page, "Extensions")
        act(page, "sky", "disable")
        page.wait_for_selector('.ext-card[data-name="sky"][data-state="stops at the next start"]')
        act(page, "sky", "enable")
        page.wait_for_selector('.ext-card[data-name="sky"][data-state="on"]')
        act(page, "sky", "uninstall")
        page.wait_for_selector('.ext-thrown[data-name="sky"]')
        assert not (tmp_path / "extensions" / "sky").exists()
        page.click('.ext-thrown[data-name="sky"] [data-action=restore]')
        page.wait_for_selector('.ext-card[data-name="sky"][data-state="on"]')
        act(page, "sky", "uninstall")
        page.wait_for_selector('.ext-thrown[data-name="sky"]')

    with start() as server, visiting(browser, server) as page:
        open_tab(page, "Extensions")
        page.wait_for_selector(".ext-empty")
        assert page.get_by_role("tab", name="Sky", exact=True).count() == 0
        page.click("[data-action=empty]")
        page.wait_for_selector("#extensions_trash", state="hidden")


def ask(server: Server) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.address}api/v1/extensions", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_zips_and_what_is_refused(
    start: Callable[[], AbstractContextManager[Server]], browser: Browser, tmp_path: Path
) -> None:
    write(
        tmp_path / "extensions" / "bad", {"__init__.py": "", "extension.toml": f'name = "bad"\napi = ">={API_VERSION}"'}
    )
    with start() as server, visiting(browser, server) as page:
        open_tab(page, "Extensions")
        page.wait_for_selector(
            '.ext-card[data-name="bad"][data-state="left out"] .ext-problem:has-text("lacks version")'
        )
        page.fill("#extensions_source", "http://example.org/sky.git")
        page.click("#extensions_look")
        page.wait_for_selector(".ext-error:has-text('no address to install from')")
        page.set_input_files("#extensions_zip", zipped(tmp_path / "evil.zip", {**files(), "../evil.py": "x"}))
        page.wait_for_selector(".ext-error:has-text('leads out of its folder')")
        page.set_input_files("#extensions_zip", zipped(tmp_path / "sky.zip", files()))
        confirm(page)
        page.wait_for_selector('.ext-card[data-name="sky"]:has-text("zip sky.zip")')
        newer = zipped(tmp_path / "newer.zip", files(version="2.0"))
        page.set_input_files('.ext-card[data-name="sky"] input[type=file]', newer)
        page.wait_for_selector("#extensions_preview :text('1.0 → 2.0')")
        (staged,) = (tmp_path / "outputs" / ".webui" / "extension-staging").glob("*/*/named/sky")
        (staged / "__init__.py").write_text("tampered = True\n")
        page.click("#extensions_preview [data-action=confirm]")
        page.wait_for_selector(".ext-dialog-error:has-text('changed after they were shown')")
        page.click("#extensions_preview [data-action=cancel]")
        page.wait_for_selector("#extensions_preview", state="detached")
        assert {row["name"]: row["version"] for row in ask(server)["extensions"]} == {"bad": "", "sky": "1.0"}


def test_a_shared_server_only_shows_them(
    serving: Callable[..., AbstractContextManager[Server]], browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    write(tmp_path / "extensions" / "sky", version("1.0"))
    options = ("--extensions-dir", str(tmp_path / "extensions"), "--allow-host", "pictures.example.org")
    with serving(tmp_path, tmp_path / "models", *options) as server, visiting(browser, server) as page:
        open_tab(page, "Extensions")
        page.wait_for_selector('.ext-card[data-name="sky"]')
        assert "Others can reach this server" in page.locator(".ext-why").inner_text()
        assert not page.locator("#extensions_source").is_visible() and page.locator(".ext-actions").count() == 0
