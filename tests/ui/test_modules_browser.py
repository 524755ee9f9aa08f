"""Panels of conditioning modules in Chromium: an extension's toy module with every kind of option."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from module_toy import TINT
from tiny_model import mask_bytes, picture_bytes, tiny_weights, write_checkpoint

from webui.metadata.files import read_picture_texts

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser
PANEL = "#txt2img_module_tint"


@pytest.fixture(scope="module")
def server(
    serving: Callable[..., AbstractContextManager[Server]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("modules")
    write_checkpoint(folder / "models" / "Stable-diffusion" / "tiny.safetensors", tiny_weights())
    (folder / "models" / "ControlNet").mkdir()
    (folder / "models" / "ControlNet" / "edges.safetensors").write_bytes(b"12345")
    (folder / "extensions").mkdir()
    (folder / "extensions" / "tint.py").write_text(TINT, "utf-8")
    with serving(folder, folder / "models", "--extensions-dir", str(folder / "extensions")) as running:
        yield running


def field(name: str, unit: int = 0, panel: str = PANEL) -> str:
    return f"{panel}_{unit}_{name}"


def ask(server: Server, path: str) -> Any:
    with urllib.request.urlopen(f"{server.address}api/v1/{path}", timeout=30) as answer:
        return json.load(answer)


def generated(page: Page, server: Server, tab: str = "txt2img") -> tuple[dict[str, Any], dict[str, str]]:
    """Press Generate; the job that is done, and the texts of its picture."""
    before = page.locator(f"#{tab}_live .live-card").get_attribute("data-shown") or ""
    page.click(f"#{tab}_generate")
    page.wait_for_function(
        """([tab, before]) => !document.body.classList.contains(`running-${tab}`)
            && (document.querySelector(`#${tab}_live .live-card`).dataset.shown || "") !== before""",
        arg=[tab, before],
    )
    job = ask(server, "jobs?limit=1")[0]
    return job, read_picture_texts((server.outputs / job["outputs"][0]["path"]).read_bytes())


def prompt(page: Page, text: str, tab: str = "txt2img") -> None:
    box = page.locator(f"#{tab}_prompt textarea")
    box.fill(text)
    box.press("Tab")


def paste(page: Page, text: str) -> None:
    prompt(page, text)
    page.click("#txt2img_paste")


def shown(page: Page, selector: str) -> str:
    value: str = page.input_value(selector)
    return value


def test_a_module_from_its_panel_to_the_picture_and_back(page: Page, server: Server, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    picture, mask = tmp_path / "control.png", tmp_path / "mask.png"
    picture.write_bytes(picture_bytes())
    mask.write_bytes(mask_bytes())
    prompt(page, "a cat")
    assert page.locator(f"{PANEL} .mod-unit").count() == 0, "a panel is empty until it is opened"
    job, _ = generated(page, server)
    assert job["request"]["modules"] == []

    page.click(f"{PANEL} summary")
    page.fill(f"{field('strength')} input[type=number]", "0.25")
    job, _ = generated(page, server)
    assert job["request"]["modules"] == [], "what is not enabled does not count"

    page.check(f"{PANEL} .mod-unit[data-unit='0'] .mod-enable input")
    page.set_input_files(f"{field('image')} .canvas-file", picture)
    page.wait_for_selector(f"{field('image')} .has-picture")
    page.set_input_files(f"{field('image')} .canvas-mask-file", mask)
    page.wait_for_selector(f"{field('image')} .has-mask")
    page.select_option(f"{field('preprocessor')} select", label="negative")
    page.select_option(f"{field('model')} select", label="edges")
    page.fill(f"{field('tokens')} input[type=number]", "2")
    page.fill(f"{field('words')} input", 'fog, "{thick}" & <b>')
    page.check(f"{field('inverted')} input")
    expect(page.locator(field("softness"))).to_be_visible()
    page.click(f"{field('mode')} .mod-choice:has-text('Hard')")
    expect(page.locator(field("softness"))).to_be_hidden()
    page.click(f"{PANEL} .mod-tabs [data-unit='1']")
    page.check(f"{PANEL} .mod-unit[data-unit='1'] .mod-enable input")
    expect(page.locator(f"{PANEL} .mod-count")).to_have_text("2 on")

    job, texts = generated(page, server)
    recipe = json.loads(texts["recipe"])
    assert recipe["request"]["modules"] == job["request"]["modules"]
    first, second = job["request"]["modules"]
    pictures = first["options"]["image"], first["options"]["mask"]
    assert first == {"name": "Tint", "options": {
        "image": pictures[0], "mask": pictures[1], "preprocessor": "negative", "model": "edges", "strength": 0.25,
        "tokens": 2, "words": 'fog, "{thick}" & <b>', "mode": "Hard", "softness": 0.5, "inverted": True, "places": [],
    }}  # fmt: skip
    assert second["options"]["strength"] == 1.0 and second["options"]["image"] == ""
    assert set(recipe["inputs"]) == set(pictures)
    with urllib.request.urlopen(f"{server.address}api/v1/inputs/{pictures[0]}", timeout=30) as answer:
        assert answer.read() == picture_bytes()
    assert "Strength: 0.25" in texts["parameters"] and "Tint 2: enabled" in texts["parameters"]

    page.reload()
    page.wait_for_selector(f"{field('image')} .has-picture.has-mask")
    assert shown(page, f"{field('strength')} input[type=number]") == "0.25"
    assert shown(page, f"{field('words')} input") == 'fog, "{thick}" & <b>'
    expect(page.locator(f"{PANEL} .mod-count")).to_have_text("2 on")
    again, _ = generated(page, server)
    assert again["request"]["modules"] == job["request"]["modules"]

    settings = "Steps: 2, Sampler: Euler, CFG scale: 3, Seed: 4, Size: 64x64"
    paste(page, f'a dog\n{settings}, Tint: "Strength: 1.5, Mode: Soft, Nonsense: 1"')
    expect(page.locator(f"{PANEL} .mod-count")).to_have_text("1 on")
    expect(page.locator("#notice")).to_contain_text("Tint: Nonsense: 1")
    assert shown(page, f"{field('strength')} input[type=number]") == "1.5"
    assert page.locator(f"{field('image')} .has-picture").count() == 0, "nothing stays of the picture before"
    job, _ = generated(page, server)
    (use,) = job["request"]["modules"]
    assert (use["options"]["strength"], use["options"]["image"], use["options"]["inverted"]) == (1.5, "", False)

    paste(page, f"a bird\n{settings}")
    expect(page.locator(f"{PANEL} .mod-count")).to_have_text("")
    job, _ = generated(page, server)
    assert job["request"]["modules"] == []


def test_a_value_that_does_not_fit_is_told(page: Page, server: Server) -> None:
    prompt(page, "a cat")
    page.click(f"{PANEL} summary")
    page.check(f"{PANEL} .mod-enable input >> nth=0")
    page.fill(f"{field('tokens')} input[type=number]", "99")
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_live .live-error:has-text('Tint: How many tokens (tokens) is 99; it must be')")
    page.fill(f"{field('tokens')} input[type=number]", "")
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_live .live-error:has-text('(tokens) is empty; it must be a whole number from 1')")


def test_a_control_picture_is_shown_before_it_is_used(page: Page, server: Server, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    picture = tmp_path / "control.png"
    picture.write_bytes(picture_bytes(96, 64))
    page.click(f"{PANEL} summary")
    expect(page.locator(f"{PANEL} .mod-enable input >> nth=0")).not_to_be_checked()
    page.set_input_files(f"{field('image')} .canvas-file", picture)
    expect(page.locator(f"{PANEL} .mod-enable input >> nth=0")).to_be_checked()
    page.wait_for_selector(f"{field('image')} .has-picture")
    page.select_option(f"{field('preprocessor')} select", label="canny")
    page.click(f"{PANEL} [data-do=preview] >> nth=0")
    image = page.locator(f"{PANEL} .mod-preview img >> nth=0")
    expect(image).to_be_visible()
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [96, 64]
    expect(page.locator(f"{PANEL} .mod-error >> nth=0")).to_have_text("")


def test_img2img_and_send_to_have_the_module_too(page: Page, server: Server) -> None:
    from playwright.sync_api import expect

    prompt(page, "a cat")
    page.click(f"{PANEL} summary")
    page.check(f"{PANEL} .mod-enable input >> nth=0")
    page.fill(f"{field('words')} input", "fog")
    job, _ = generated(page, server)
    page.click("#txt2img_send_to_img2img")
    page.wait_for_selector("#img2img_image .has-picture")
    there = "#img2img_module_tint"
    expect(page.locator(f"{there} .mod-count")).to_have_text("1 on")
    assert shown(page, f"{field('words', panel=there)} input") == "fog"
    sent, texts = generated(page, server, "img2img")
    assert sent["request"]["modules"] == job["request"]["modules"] and sent["request"]["start"]
    assert 'Tint: "Words: fog"' in texts["parameters"]


def test_a_model_that_is_new_is_listed_when_the_panel_is_opened(page: Page, server: Server) -> None:
    from playwright.sync_api import expect

    folder = server.outputs.parent / "models" / "ControlNet"
    shutil.copy(folder / "edges.safetensors", folder / "fresh.safetensors")
    page.click(f"{PANEL} summary")
    expect(page.locator(f"{field('model')} option")).to_have_text(["None", "edges", "fresh"])
