"""A training from the page, in Chromium, on the embedded model: started, watched, paused, found again, used."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
CAPTION = 'yellow dots <img src="x" onerror="alert(1)">'
PATIENCE_MS = 300_000
"""For what a training does on a machine that has other things to do."""


@pytest.fixture(scope="module")
def server(
    serving: Callable[[Path, Path], AbstractContextManager[Server]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a models folder of its own, for what is taught goes there."""
    folder = tmp_path_factory.mktemp("training-server")
    checkpoints = folder / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    shutil.copy(ROOT / "models" / "Stable-diffusion" / "starter.safetensors", checkpoints)
    with serving(folder, folder / "models") as running:
        yield running


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen pictures with captions, one file that is none, and one picture without a caption."""
    folder = tmp_path_factory.mktemp("dots")
    for number in range(12):
        picture = Image.new("RGB", (64, 64), (40, 60, 160))
        draw = ImageDraw.Draw(picture)
        for dot in range(4):
            x, y = (number * 17 + dot * 29) % 64, (number * 23 + dot * 13) % 64
            draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(240, 200, 40))
        picture.save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(CAPTION)
    Image.new("RGB", (64, 64)).save(folder / "silent.png")
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "broken.txt").write_text(CAPTION)
    return folder


def open_train(page: Page) -> None:
    page.get_by_role("tab", name="Train", exact=True).first.click()
    page.wait_for_selector("#train_data_folder")


def fill(page: Page, **values: object) -> None:
    for name, value in values.items():
        page.evaluate(
            "(id) => document.getElementById(id).closest('details')?.setAttribute('open', '')", f"train_{name}"
        )
        page.fill(f"#train_{name}", str(value))
        page.press(f"#train_{name}", "Tab")


def wait_state(page: Page, *states: str) -> None:
    selector = ", ".join(f".train-card[data-state={state}]" for state in states)
    page.wait_for_selector(selector, timeout=PATIENCE_MS)


def step(page: Page) -> int:
    found: int = page.evaluate(
        "Number(document.querySelector('.train-phase').textContent.match(/step (\\d+)/)?.[1] || 0)"
    )
    return found


def ask(server: Server, path: str) -> Any:
    with urllib.request.urlopen(f"{server.address}api/v1/{path}", timeout=30) as answer:
        return json.load(answer)


def test_an_empty_form_tells_what_a_folder_looks_like_and_what_is_missing(page: Page, tmp_path: Path) -> None:
    open_train(page)
    assert "each with a caption" in page.locator(".train-help").inner_text()
    page.click("#train_start")
    page.wait_for_selector("#train_live .live-error:has-text('No folder of training pictures was named.')")
    fill(page, name="dots", data_folder=tmp_path / "nowhere")
    page.wait_for_selector(".tf-data .tf-problem:has-text('There is no folder')")
    page.press("#train_name", "Control+Enter")
    page.wait_for_selector("#train_live .live-error:has-text('There is no folder')")


def test_choosing_a_kind_shows_its_options_and_what_it_recommends(page: Page) -> None:
    open_train(page)
    kinds = {
        kind["name"]: kind for kind in json.loads(page.evaluate("fetch('api/v1/training/kinds').then((a) => a.text())"))
    }
    fill(page, batch_size=7)
    for name in ("embedding", "checkpoint", "lora"):
        page.check(f"[name=kind][value={name}]", force=True)
        shown = page.locator(".train-form [data-kind]:visible")
        assert shown.evaluate_all("(all) => all.map((one) => one.dataset.kind)") == [name]
        assert float(page.input_value("#train_optimiser_rate")) == kinds[name]["defaults"]["optimiser.rate"]
        assert page.locator(".tf-summary").inner_text() == kinds[name]["summary"]
    assert page.input_value("#train_batch_size") == "7", "what a person wrote stays"
    page.reload()
    page.wait_for_selector("#txt2img_generate")
    open_train(page)
    assert page.input_value("#train_batch_size") == "7"


def test_a_lora_from_a_folder_to_the_prompt(
    context: BrowserContext, page: Page, server: Server, pictures: Path
) -> None:
    open_train(page)
    fill(page, name="dots", data_folder=pictures)
    page.wait_for_selector(".tf-pictures img")
    found = page.locator(".tf-data").inner_text()
    assert "12 pictures · 2 left out · captions found: 12" in found
    assert CAPTION in found, "a caption is text, whatever it says"
    assert "silent.png has no caption" in found and "broken.png is not a picture" in found
    fill(page, data_size=64, steps=2000, batch_size=1, options_lora_rank=2)
    fill(page, samples_prompts="yellow dots\na red apple", samples_every=3, samples_steps=2)
    page.wait_for_selector(".tf-epochs:has-text('2000 steps of 1 show every picture 167 times')")
    page.click("#train_start")

    wait_state(page, "running")
    page.wait_for_function(
        "/ left$/.test(document.querySelector('#train_live .live-eta').textContent)", timeout=PATIENCE_MS
    )
    page.wait_for_selector(".train-card.has-samples .train-samples img", timeout=PATIENCE_MS)
    page.wait_for_selector(".train-loss polyline.smooth", state="attached", timeout=PATIENCE_MS)
    page.wait_for_function("document.querySelector('.train-samples img').naturalWidth === 128")
    assert page.locator(".train-samples ol li").all_inner_texts() == ["yellow dots", "a red apple"]
    assert page.locator(".train-left-out summary").inner_text() == "2 files left out"

    page.click("#train_pause")
    wait_state(page, "paused")
    page.wait_for_selector("#train_trainings li[data-state=paused]")
    paused_at = step(page)
    assert paused_at >= 3
    page.click("#train_go_on")
    page.wait_for_function(
        "(before) => Number(document.querySelector('.train-phase').textContent.match(/step (\\d+)/)?.[1]) > before",
        arg=paused_at,
        timeout=PATIENCE_MS,
    )

    again = context.new_page()
    again.goto(server.address)
    again.wait_for_selector("#txt2img_generate")
    open_train(again)
    wait_state(again, "running")
    again.wait_for_selector(".train-loss polyline.smooth", state="attached")
    assert step(again) >= paused_at
    again.keyboard.press("Escape")
    again.click("#train_interrupt")
    wait_state(again, "interrupted")
    wait_state(page, "interrupted")
    again.click("[data-do=settings]")
    again.wait_for_function("document.getElementById('train_options_lora_rank').value === '2'")
    assert again.input_value("#train_samples_prompts") == "yellow dots\na red apple"

    fill(again, name="dots2", steps=3)
    again.click("#train_start")
    wait_state(again, "done")
    again.wait_for_selector(".train-file:has-text('dots2.safetensors')")
    assert [job["name"] for job in (one["request"] for one in ask(server, "jobs")[:2])] == ["dots2", "dots"]
    again.wait_for_selector("#train_trainings li[data-state=done]:has-text('dots2')")
    again.click("#train_use")
    again.wait_for_selector("#txt2img_generate")
    again.wait_for_function("document.querySelector('#txt2img_prompt textarea').value === '<lora:dots2:1>'")
    for field, value in (("steps", 2), ("seed", 1)):
        again.fill(f"#txt2img_{field} input[type=number]", str(value))
    again.click("#txt2img_generate")
    again.wait_for_selector("#txt2img_gallery img", timeout=PATIENCE_MS)
    [output] = ask(server, "jobs?limit=1")[0]["outputs"]
    assert "<lora:dots2:1>" in output["infotext"] and "Lora hashes" in output["infotext"]
