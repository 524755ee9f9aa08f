"""The journey of a person through the page, in Chromium, against a real server on the embedded model."""

from __future__ import annotations

import base64
import io
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser

PROMPT = "a red apple on a blue background"
FEW_STEPS = 4


def fill(page: Page, field: str, value: object, tab: str = "txt2img") -> None:
    """Type into a number box or a prompt of a tab."""
    kind = "textarea" if field.endswith("prompt") else "input[type=number]"
    box = page.locator(f"#{tab}_{field} {kind}")
    box.fill(str(value))
    box.press("Tab")


def value(page: Page, field: str, tab: str = "txt2img") -> str:
    kind = "textarea" if field.endswith("prompt") else "input[type=number]"
    return page.locator(f"#{tab}_{field} {kind}").input_value()


def wait_value(page: Page, field: str, wanted: object, tab: str = "txt2img") -> None:
    from playwright.sync_api import expect

    kind = "textarea" if field.endswith("prompt") else "input[type=number]"
    expect(page.locator(f"#{tab}_{field} {kind}")).to_have_value(str(wanted), timeout=60_000)


def choose(page: Page, selector: str, name: str) -> None:
    """Choose from a dropdown by what it shows."""
    page.click(f"{selector} input")
    page.get_by_role("option", name=name, exact=True).click()
    page.wait_for_selector("[role=option]", state="detached")


def generate(page: Page, tab: str = "txt2img") -> None:
    """Press Generate and wait until the new picture stands in the gallery."""
    before = shown(page, tab)
    page.click(f"#{tab}_generate")
    wait_for_pictures(page, before, tab)


def shown(page: Page, tab: str = "txt2img") -> str:
    """The job whose pictures stand in the gallery."""
    return page.locator(f"#{tab}_live .live-card").get_attribute("data-shown") or ""


def wait_for_pictures(page: Page, before: str, tab: str = "txt2img") -> None:
    """Wait until the gallery shows another job's pictures than ``before``'s and nothing runs."""
    page.wait_for_function(
        """([tab, before]) => !document.body.classList.contains(`running-${tab}`)
            && (document.querySelector(`#${tab}_live .live-card`).dataset.shown || "") !== before""",
        arg=[tab, before],
    )
    page.wait_for_selector(f"#{tab}_gallery img")


def open_tab(page: Page, label: str) -> None:
    """Open a tab of the page; on a narrow screen the last ones are in a menu beside the others."""
    tab = page.get_by_role("tab", name=label, exact=True).first
    if tab.count() == 0:
        page.locator("#tabs .overflow-menu > button").first.click()
        tab = page.locator("#tabs .overflow-dropdown button", has_text=label).first
    tab.click()


def ask(server: Server, path: str) -> Any:
    with urllib.request.urlopen(f"{server.address}api/v1/{path}", timeout=30) as answer:
        return json.load(answer)


def newest(server: Server) -> dict[str, Any]:
    job: dict[str, Any] = ask(server, "jobs?limit=1")[0]
    return job


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def drop_file(page: Page, selector: str, path: Path) -> None:
    """What the browser tells a page when a file from the disk is let go over an element."""
    page.evaluate(
        """([selector, text, name]) => {
            const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
            const carrier = new DataTransfer();
            carrier.items.add(new File([bytes], name, { type: "image/png" }));
            const drop = new DragEvent("drop", { dataTransfer: carrier, bubbles: true, cancelable: true });
            document.querySelector(selector).dispatchEvent(drop);
        }""",
        [selector, base64.b64encode(path.read_bytes()).decode(), path.name],
    )


def test_from_a_prompt_to_a_file_that_is_reproduced_bit_for_bit(page: Page, server: Server, tmp_path: Path) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "steps", 6)
    page.wait_for_selector("#txt2img_token_counter span:has-text('7/75')")
    page.press("#txt2img_prompt textarea", "Control+Enter")
    page.wait_for_selector("#txt2img_interrupt")
    page.wait_for_function("/step \\d+ of 6/.test(document.querySelector('#txt2img_live .live-phase').textContent)")
    page.wait_for_function("document.querySelector('#txt2img_live [role=progressbar]').ariaValueNow > 0")
    wait_for_pictures(page, "")

    with page.expect_download() as download:
        page.click("#txt2img_gallery button[aria-label='Download']")
    copy = tmp_path / download.value.suggested_filename
    download.value.save_as(copy)
    [output] = newest(server)["outputs"]
    saved = server.outputs / output["path"]
    assert copy.name == saved.name
    assert copy.read_bytes() == saved.read_bytes()
    assert page.locator("#html_info_txt2img .info-settings").inner_text() in output["infotext"]
    with urllib.request.urlopen(f"{server.address}api/v1/pictures/{output['id']}", timeout=30) as answer:
        assert answer.read() == saved.read_bytes()

    open_tab(page, "PNG Info")
    page.set_input_files("#pnginfo_image input[type=file]", copy)
    page.wait_for_selector(f"#pnginfo_html_info .info-prompt:has-text('{PROMPT}')")
    page.click("#pnginfo_html_info summary")
    assert "sha256" in page.locator("#pnginfo_html_info .recipe").inner_text()
    page.click("#pnginfo_reproduce")
    page.wait_for_selector("#pnginfo_verdict .verdict")
    assert page.locator("#pnginfo_verdict h3").inner_text().lower() == "bit-exact"

    page.click("#pnginfo_send_to_txt2img")
    wait_value(page, "seed", output["seed"])


def test_img2img_then_inpaint_changes_only_what_is_painted(page: Page, server: Server) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "steps", FEW_STEPS)
    generate(page)
    page.click("#txt2img_send_to_img2img")
    page.wait_for_selector("#img2img_image .has-picture")
    wait_value(page, "prompt", PROMPT, "img2img")
    generate(page, "img2img")
    request = newest(server)["request"]
    [first] = ask(server, "jobs?limit=2")[1]["outputs"]
    with urllib.request.urlopen(f"{server.address}api/v1/inputs/{request['start']['image']}", timeout=30) as answer:
        assert answer.read() == (server.outputs / first["path"]).read_bytes()
    assert request["start"]["mask"] is None

    page.click("#img2img_send_to_inpaint")
    page.wait_for_selector("#img2maskimg .has-picture")
    start = server.outputs / newest(server)["outputs"][0]["path"]
    page.click("#img2img_generate")
    page.wait_for_selector("#img2img_live .live-error:has-text('Nothing is masked')")

    canvas = page.locator("#img2maskimg canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.12, box["y"] + box["height"] * 0.12)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3, steps=6)
    page.mouse.up()
    fill(page, "mask_blur", 0, "img2img")
    page.locator("#img2img_inpainting_fill").get_by_text("latent noise").click()
    fill(page, "seed", 7, "img2img")
    generate(page, "img2img")
    job = newest(server)
    digest = job["request"]["start"]["mask"]["image"]
    with urllib.request.urlopen(f"{server.address}api/v1/inputs/{digest}", timeout=30) as answer:
        mask = np.asarray(Image.open(io.BytesIO(answer.read())).convert("L"))
    before, after = pixels(start), pixels(server.outputs / job["outputs"][0]["path"])
    assert mask.shape == before.shape[:2] == after.shape[:2]
    height, width = mask.shape
    assert mask[height // 5, width // 5] == 255, "the stroke goes from an eighth to a third of the picture"
    assert mask[height // 2 :, width // 2 :].max() == 0
    assert np.array_equal(before[height // 2 :, width // 2 :], after[height // 2 :, width // 2 :])
    assert not np.array_equal(before[mask == 255], after[mask == 255])


def test_an_xyz_plot_of_four_pictures_and_its_sheet_stand_in_the_gallery(page: Page, server: Server) -> None:
    fill(page, "prompt", PROMPT)
    panel = "#script_txt2img_xyz_plot_panel"
    assert page.locator(panel).count() == 0, "what is not chosen is not on the page"
    choose(page, "#txt2img_script_list", "X/Y/Z plot")
    page.wait_for_selector(panel)
    assert page.locator("#script_txt2img_prompt_matrix_panel").count() == 0
    for axis, name, values in (("x", "Steps", "1, 2"), ("y", "CFG Scale", "3, 6.5")):
        choose(page, f"#script_txt2img_xyz_plot_{axis}_axis", name)
        page.fill(
            f"#script_txt2img_xyz_plot_{axis}_values textarea, #script_txt2img_xyz_plot_{axis}_values input", values
        )
    generate(page)
    job = newest(server)
    script = job["request"]["script"]
    assert script["name"] == "X/Y/Z plot"
    assert script["options"].items() >= {"x_axis": "Steps", "x_values": "1, 2", "y_axis": "CFG Scale"}.items()
    assert sorted(output["index"] for output in job["outputs"]) == [-1, 0, 1, 2, 3]
    thumbnails = page.locator("#txt2img_gallery .grid-wrap button.thumbnail-item")
    assert thumbnails.count() == 5
    thumbnails.first.click()
    page.wait_for_selector("#html_info_txt2img .info-settings:has-text('X Type: Steps')")

    choose(page, "#txt2img_script_list", "None")
    page.wait_for_selector(panel, state="detached")
    fill(page, "steps", 1)
    generate(page)
    assert newest(server)["request"]["script"] is None


def test_undo_and_clear_take_strokes_back(page: Page, server: Server, tmp_path: Path) -> None:
    picture = tmp_path / "start.png"
    Image.new("RGB", (96, 64), "gray").save(picture)
    open_tab(page, "img2img")
    open_tab(page, "Inpaint")
    page.wait_for_selector("#img2maskimg canvas", state="attached")
    drop_file(page, "#img2maskimg .canvas-box", picture)
    page.wait_for_selector("#img2maskimg .has-picture")
    page.click("#img2img_detect_image_size_btn")
    wait_value(page, "width", 96, "img2img")
    wait_value(page, "height", 64, "img2img")
    canvas = page.locator("#img2maskimg canvas")
    canvas.click()
    canvas.click(position={"x": 20, "y": 20})
    assert page.locator("#img2maskimg .has-mask").count() == 1
    page.click("#img2maskimg [data-do=undo]")
    assert page.locator("#img2maskimg .has-mask").count() == 1
    page.click("#img2maskimg [data-do=undo]")
    assert page.locator("#img2maskimg .has-mask").count() == 0
    canvas.click()
    page.click("#img2maskimg [data-do=clear]")
    assert page.locator("#img2maskimg .has-mask").count() == 0
    page.click("#img2maskimg [data-do=remove]")
    page.click("#img2img_generate")
    page.wait_for_selector("#img2img_live .live-error:has-text('There is no start image')")


def test_a_mask_from_a_file_and_both_pictures_come_back_from_the_result(
    page: Page, server: Server, tmp_path: Path
) -> None:
    picture, mask = tmp_path / "start.png", tmp_path / "mask.png"
    Image.effect_noise((96, 64), 60).convert("RGB").save(picture)
    half = Image.new("L", (96, 64), 0)
    half.paste(255, (0, 0, 48, 64))
    half.save(mask)
    open_tab(page, "img2img")
    open_tab(page, "Inpaint")
    page.set_input_files("#img2maskimg .canvas-file", picture)
    page.wait_for_selector("#img2maskimg .has-picture")
    page.set_input_files("#img2maskimg .canvas-mask-file", mask)
    page.wait_for_selector("#img2maskimg .has-mask")
    page.click("#img2img_detect_image_size_btn")
    wait_value(page, "width", 96, "img2img")
    fill(page, "steps", 2, "img2img")
    fill(page, "prompt", PROMPT, "img2img")
    generate(page, "img2img")
    job = newest(server)
    start = job["request"]["start"]
    with urllib.request.urlopen(f"{server.address}api/v1/inputs/{start['mask']['image']}", timeout=30) as answer:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.read())).convert("L")), np.asarray(half))

    page.click("#img2maskimg [data-do=remove]")
    page.wait_for_selector("#img2maskimg .has-picture", state="detached")
    drop_file(page, "#img2img_prompt textarea", server.outputs / job["outputs"][0]["path"])
    page.wait_for_selector("#img2maskimg .has-picture.has-mask")
    generate(page, "img2img")
    assert newest(server)["request"]["start"] == start


def test_interrupt_keeps_what_is_finished(page: Page, server: Server) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "steps", FEW_STEPS)
    fill(page, "batch_count", 100)
    page.click("#txt2img_generate")
    page.wait_for_function("document.querySelectorAll('#txt2img_live .live-strip img').length >= 2")
    page.keyboard.press("Escape")
    wait_for_pictures(page, "")
    job = newest(server)
    assert job["state"] == "interrupted"
    assert 2 <= len(job["outputs"]) < 100
    assert page.locator("#txt2img_gallery .grid-wrap button.thumbnail-item").count() == len(job["outputs"])


def test_a_closed_page_stops_nothing_and_finds_its_job_again(
    context: BrowserContext, page: Page, server: Server
) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "neg_prompt", "green")
    fill(page, "steps", 5)
    fill(page, "batch_count", 100)
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_live .live-strip img")
    page.close()
    running = newest(server)
    assert running["state"] == "running"

    again = context.new_page()
    again.goto(server.address)
    again.wait_for_selector("body.running-txt2img")
    again.wait_for_function("/of 500/.test(document.querySelector('#txt2img_live .live-phase').textContent)")
    again.wait_for_selector("#txt2img_live .live-strip img")
    wait_value(again, "prompt", PROMPT)
    wait_value(again, "neg_prompt", "green")
    wait_value(again, "steps", 5)
    assert newest(server)["id"] == running["id"]

    fill(again, "batch_count", 1)
    fill(again, "steps", 2)
    again.click("#txt2img_generate")
    again.wait_for_selector("#txt2img_live .live-phase:has-text('1 more queued')")
    queued = ask(server, f"jobs/{newest(server)['id']}")
    assert queued["state"] == "queued" and queued["ahead"] == 1
    again.click("#txt2img_interrupt")
    again.wait_for_function(f"document.querySelector('#txt2img_live .live-card').dataset.shown === '{queued['id']}'")
    assert newest(server)["state"] == "done"
    assert ask(server, f"jobs/{running['id']}")["state"] == "interrupted"


def test_of_several_pages_only_those_on_the_screen_hold_a_connection(context: BrowserContext, server: Server) -> None:
    """A browser has six connections for one server; pages that kept one or two each would block Interrupt."""
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.add_init_script(
        """window.streams = [];
        window.EventSource = class extends EventSource {
            constructor(...words) { super(...words); window.streams.push(this); }
        };"""
    )
    pages = [context.new_page() for _ in range(3)]
    for one in pages:
        one.goto(server.address)
        one.wait_for_selector("#txt2img_generate")
    hidden, _, last = pages
    fill(hidden, "prompt", PROMPT)
    fill(hidden, "steps", FEW_STEPS)
    fill(hidden, "batch_count", 100)
    hidden.click("#txt2img_generate")
    open_streams = "window.streams.filter((one) => one.readyState !== EventSource.CLOSED).length"
    hidden.wait_for_function(f"{open_streams} === 1")
    look = """(state) => {
        Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    hidden.evaluate(look, "hidden")
    hidden.wait_for_function(f"{open_streams} === 0")
    hidden.wait_for_selector("#txt2img_live .live-strip img")
    assert hidden.evaluate(open_streams) == 0
    hidden.evaluate(look, "visible")
    hidden.wait_for_function(f"{open_streams} === 1")
    assert "after=0" not in hidden.evaluate("window.streams.at(-1).url")

    last.reload()
    last.wait_for_selector("body.running-txt2img")
    last.evaluate(
        """() => {
            window.truly = window.fetch;
            window.fetch = async (where, how) => {
                if (how?.method === "DELETE") throw new TypeError();
                return truly(where, how);
            };
        }"""
    )
    last.click("#txt2img_interrupt")
    last.wait_for_selector("#txt2img_live .live-error:has-text('press again')")
    last.evaluate("window.fetch = window.truly")
    last.click("#txt2img_interrupt")
    wait_for_pictures(last, "")
    wait_for_pictures(hidden, "")
    assert newest(server)["state"] == "interrupted"
    assert not [address for address in asked if "heartbeat" in address]


def test_escape_closes_what_is_open_before_it_interrupts(page: Page) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "steps", FEW_STEPS)
    fill(page, "batch_count", 100)
    page.click("#txt2img_generate")
    page.wait_for_selector("body.running-txt2img")
    page.click("#txt2img_sampling input")
    page.wait_for_selector(".options")
    page.keyboard.press("Escape")
    page.wait_for_selector(".options", state="detached")
    assert "Interrupting" not in page.locator("#txt2img_live .live-phase").inner_text()
    page.evaluate("document.querySelector('#txt2img_settings').classList.add('block', 'fullscreen')")
    page.keyboard.press("Escape")
    assert "Interrupting" not in page.locator("#txt2img_live .live-phase").inner_text()
    page.evaluate("document.querySelector('#txt2img_settings').classList.remove('fullscreen')")
    page.keyboard.press("Escape")
    wait_stopped = "!document.body.classList.contains('running-txt2img')"
    page.wait_for_function(wait_stopped)


def test_a_deleted_picture_keeps_out_of_the_gallery(page: Page, server: Server) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "steps", 2)
    fill(page, "batch_count", 2)
    generate(page)
    first, second = newest(server)["outputs"]
    (server.outputs / first["path"]).unlink()
    page.reload()
    page.wait_for_selector("#txt2img_gallery img")
    page.wait_for_selector("#html_info_txt2img .info-settings")
    assert f"Seed: {second['seed']}" in page.locator("#html_info_txt2img .info-settings").inner_text()
    page.wait_for_selector("#txt2img_live .live-empty", state="hidden")
    assert page.input_value("#txt2img_scheduler input") == "Automatic", "not what that came to be"
    page.click("#txt2img_reuse_seed")
    wait_value(page, "seed", second["seed"])


def test_fields_come_back_from_text_from_a_file_and_from_the_last_picture(page: Page, server: Server) -> None:
    text = (
        "two words\nNegative prompt: blue, dark\n"
        "Steps: 3, Sampler: Heun, Schedule type: Karras, CFG scale: 3.25, Seed: 42, Size: 128x64, Clip skip: 2"
    )
    page.fill("#txt2img_prompt textarea", text)
    page.click("#txt2img_paste")
    wait_value(page, "prompt", "two words")
    wait_value(page, "neg_prompt", "blue, dark")
    for field, wanted in (("steps", 3), ("cfg_scale", 3.25), ("seed", 42), ("width", 128), ("height", 64)):
        wait_value(page, field, wanted)
    assert page.locator("#txt2img_sampling input").input_value() == "Heun"
    assert page.locator("#txt2img_scheduler input").input_value() == "Karras"
    generate(page)
    job = newest(server)
    assert job["request"]["sampling"]["cfg_scale"] == 3.25
    assert job["request"]["clip_skip"] == 2
    saved = server.outputs / job["outputs"][0]["path"]

    page.reload()
    page.wait_for_selector("#txt2img_gallery img")
    page.click("#txt2img_clear_prompt")
    wait_value(page, "prompt", "")
    fill(page, "seed", -1)
    page.click("#txt2img_paste")
    wait_value(page, "prompt", "two words")
    wait_value(page, "seed", 42)

    page.click("#txt2img_res_switch_btn")
    wait_value(page, "width", 64)
    page.click("#txt2img_random_seed")
    wait_value(page, "seed", -1)
    page.fill("#txt2img_prompt textarea", "something else")
    drop_file(page, "#txt2img_prompt textarea", saved)
    wait_value(page, "prompt", "two words")
    wait_value(page, "width", 128)
    page.click("#txt2img_random_seed")
    page.click("#txt2img_reuse_seed")
    wait_value(page, "seed", 42)


def test_a_plain_prompt_is_not_taken_for_settings(page: Page) -> None:
    fill(page, "steps", 33)
    page.fill("#txt2img_prompt textarea", "just words")
    page.click("#txt2img_paste")
    page.wait_for_timeout(800)
    assert value(page, "steps") == "33"
    assert value(page, "prompt") == "just words"


def test_mistakes_are_one_sentence_on_the_page(page: Page, server: Server) -> None:
    jobs = len(ask(server, "jobs?limit=500"))
    fill(page, "width", 500)
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_live .live-error:has-text('Width is 500; it must be a multiple of 8')")
    open_tab(page, "PNG Info")
    page.click("#pnginfo_reproduce")
    page.wait_for_selector(".notice:has-text('There is no picture; choose one first')")
    assert len(ask(server, "jobs?limit=500")) == jobs


def test_keys_change_the_attention_of_the_words_under_the_cursor(page: Page) -> None:
    prompt = page.locator("#txt2img_prompt textarea")
    prompt.fill("a cat on a mat")
    prompt.evaluate("(area) => area.setSelectionRange(2, 5)")
    prompt.press("Control+ArrowUp")
    assert prompt.input_value() == "a (cat:1.1) on a mat"
    prompt.press("Control+ArrowUp")
    assert prompt.input_value() == "a (cat:1.2) on a mat"
    for _ in range(3):
        prompt.press("Control+ArrowDown")
    assert prompt.input_value() == "a (cat:0.9) on a mat"
    prompt.press("Control+ArrowUp")
    assert prompt.input_value() == "a cat on a mat"


def test_a_picture_of_the_page_can_be_dragged_onto_the_canvas(page: Page, server: Server) -> None:
    fill(page, "prompt", PROMPT)
    fill(page, "steps", 2)
    generate(page)
    saved = server.outputs / newest(server)["outputs"][0]["path"]
    source = page.locator("#txt2img_gallery img").first.get_attribute("src")
    assert source is not None
    open_tab(page, "img2img")
    page.wait_for_selector("#img2img_image .canvas-box")
    page.evaluate(
        """(source) => {
            const carrier = new DataTransfer();
            carrier.setData("text/uri-list", new URL(source, location.href).href);
            const drop = new DragEvent("drop", { dataTransfer: carrier, bubbles: true, cancelable: true });
            document.querySelector("#img2img_image .canvas-box").dispatchEvent(drop);
        }""",
        source,
    )
    page.wait_for_selector("#img2img_image .has-picture")
    fill(page, "prompt", PROMPT, "img2img")
    fill(page, "steps", 2, "img2img")
    generate(page, "img2img")
    digest = newest(server)["request"]["start"]["image"]
    with urllib.request.urlopen(f"{server.address}api/v1/inputs/{digest}", timeout=30) as answer:
        assert answer.read() == saved.read_bytes()


def test_the_embedded_model_introduces_itself(page: Page) -> None:
    chip = page.locator("#model_note .chip").first
    if not chip.count():
        pytest.skip("the chosen checkpoint is not the embedded one")
    chip.click()
    wait_value(page, "prompt", chip.inner_text())
    assert "models" in page.locator("#model_note code").inner_text()
    lines = "(node) => Math.round(node.offsetHeight / parseFloat(getComputedStyle(node).lineHeight))"
    assert page.locator("#model_note p").evaluate(lines) == 1


def test_a_narrow_dark_screen(browser: Any, server: Server) -> None:
    visitor = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    page = visitor.new_page()
    page.goto(server.address)
    page.wait_for_selector("#txt2img_generate")
    is_dark = "document.body.classList.contains('dark')"
    page.wait_for_function(is_dark)
    for label in ("txt2img", "img2img", "PNG Info"):
        open_tab(page, label)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, label
    open_tab(page, "txt2img")
    box = page.locator("#txt2img_generate").bounding_box()
    assert box is not None and box["height"] >= 44 and box["y"] + box["height"] < 844
    page.click("#theme_toggle")
    assert not page.evaluate(is_dark)
    page.reload()
    page.wait_for_selector("#txt2img_generate")
    page.wait_for_function(f"!{is_dark}")
    page.click("#theme_toggle")
    assert page.evaluate(is_dark) and "__theme" not in page.url
    visitor.close()


def test_the_page_is_light_and_its_buttons_have_names(page: Page, server: Server) -> None:
    with urllib.request.urlopen(f"{server.address}config", timeout=30) as answer:
        config = json.load(answer)
    assert len(config["components"]) < 1000, "most of them in panels that are not drawn until they are opened"
    assert page.evaluate("document.querySelectorAll('#tabs .block').length") < 60, "the rest waits until it is opened"
    nameless = page.evaluate(
        """[...document.querySelectorAll("button")].filter((one) =>
            !(one.textContent.trim() || one.getAttribute("aria-label") || one.title)).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    for suffix in (
        "prompt",
        "neg_prompt",
        "generate",
        "width",
        "height",
        "steps",
        "sampling",
        "scheduler",
        "cfg_scale",
    ):
        assert page.locator(f"#txt2img_{suffix}").count() == 1
    for suffix in ("seed", "batch_count", "batch_size", "gallery", "token_counter", "interrupt", "skip"):
        assert page.locator(f"#txt2img_{suffix}").count() == 1


def test_no_event_of_the_page_reads_a_file_that_was_not_uploaded(server: Server, tmp_path: Path) -> None:
    """Gradio checks paths on a mounted page only once ``has_launched`` is set; this fails when that gets lost."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    with urllib.request.urlopen(f"{server.address}config", timeout=30) as answer:
        config = json.load(answer)
    picture = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "pnginfo_image")
    event = next(d for d in config["dependencies"] if d["inputs"] == [picture])
    body = {
        "fn_index": event["id"],
        "session_hash": "stranger",
        "data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}],
    }
    call = urllib.request.Request(
        f"{server.address}gradio_api/run/predict",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(call, timeout=30)
    assert refused.value.code in (400, 403, 422, 500)
    assert not re.search(r"No parameters|carries no", refused.value.read().decode(), flags=re.IGNORECASE)
