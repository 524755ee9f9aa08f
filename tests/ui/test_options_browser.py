"""The options of AUTOMATIC1111 in the browser: each reaches the job, and comes back from the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from test_page_browser import (
    PROMPT,
    drop_file,
    fill,
    generate,
    newest,
    open_tab,
    pixels,
    shown,
    value,
    wait_for_pictures,
    wait_value,
)

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from tests.ui.conftest import Server

pytestmark = pytest.mark.browser


def small(page: Page, steps: int = 2) -> None:
    """A picture that is soon made."""
    fill(page, "prompt", PROMPT)
    fill(page, "width", 64)
    fill(page, "height", 64)
    fill(page, "steps", steps)
    fill(page, "seed", 11)


def keep(page: Page, field: str, wanted: str) -> None:
    """Type into a box of a section that was just opened, again if what was typed is gone once the page is at rest.

    On a busy machine Gradio may still be drawing the section's boxes when the first of them takes keys.
    """
    for _ in range(3):
        fill(page, field, wanted)
        page.wait_for_timeout(300)
        if value(page, field) == wanted:
            break
    wait_value(page, field, wanted)


def choose(page: Page, element: str, choice: str) -> None:
    """Take an entry of a list."""
    page.click(f"#{element} input")
    page.click(f'.options [role=option][aria-label="{choice}"]')


def switch(page: Page, element: str) -> Locator:
    return page.locator(f"#txt2img_{element} input[type=checkbox]")


def wait_checked(page: Page, element: str, on: bool) -> None:
    from playwright.sync_api import expect

    expect(switch(page, element)).to_be_checked(checked=on)


def test_hires_fix_and_a_variation_come_back_from_the_picture_bit_for_bit(page: Page, server: Server) -> None:
    small(page)
    page.click("#txt2img_hr .label-wrap")
    wait_checked(page, "hr-checkbox", True)
    page.wait_for_selector("#txtimg_hr_finalres:has-text('from 64x64 to 128x128')")
    choose(page, "txt2img_hr_upscaler", "Latent (nearest)")
    fill(page, "hr_scale", 1.5)
    page.wait_for_selector("#txtimg_hr_finalres:has-text('from 64x64 to 96x96')")
    fill(page, "hires_steps", 2)
    fill(page, "denoising_strength", 0.5)
    page.click("#txt2img_hires_own .label-wrap")
    keep(page, "hires_prompt", "a green apple")
    switch(page, "subseed_show").click()
    fill(page, "subseed", 5)
    fill(page, "subseed_strength", 0.3)
    page.fill("#setting_CLIP_stop_at_last_layers input[type=number]", "2")
    page.click("#txt2img_sampler_parameters .label-wrap")
    fill(page, "s_churn", 4)
    generate(page)
    job = newest(server)
    request = job["request"]
    assert job["state"] == "done"
    assert request["second_pass"] | {"eta": None, "sampler": None, "schedule": None} == {
        "upscaler": "Latent (nearest)",
        "scale": 1.5,
        "width": 0,
        "height": 0,
        "steps": 2,
        "denoising_strength": 0.5,
        "cfg_scale": None,
        "sampler": None,
        "schedule": None,
        "eta": None,
        "prompt": "a green apple",
        "negative_prompt": "",
        "checkpoint": None,
        "reuse_conditioning": False,
    }
    assert request["noise"]["variation_seed"] == 5 and request["noise"]["variation_strength"] == 0.3
    assert request["clip_skip"] == 2
    assert request["sampling"]["options"]["s_churn"] == 4.0
    [output] = job["outputs"]
    made = server.outputs / output["path"]
    assert pixels(made).shape == (96, 96, 3)

    page.reload()
    page.wait_for_selector("#txt2img_gallery img")
    page.click("#txt2img_clear_prompt")
    wait_value(page, "prompt", "")
    fill(page, "steps", 9)
    page.click("#txt2img_paste")
    wait_value(page, "prompt", PROMPT)
    wait_value(page, "steps", 2)
    wait_value(page, "subseed", 5)
    wait_checked(page, "hr-checkbox", True)
    wait_checked(page, "subseed_show", True)
    wait_value(page, "hr_scale", 1.5)
    generate(page)
    again = newest(server)
    assert again["id"] != job["id"]
    assert again["request"] == request
    assert (pixels(made) == pixels(server.outputs / again["outputs"][0]["path"])).all()


def test_nothing_of_an_earlier_picture_stays(page: Page) -> None:
    page.click("#txt2img_hr .label-wrap")
    wait_checked(page, "hr-checkbox", True)
    page.click("#txt2img_hires_own .label-wrap")
    page.fill("#txt2img_hires_prompt textarea", "left from before")
    switch(page, "subseed_show").click()
    fill(page, "subseed_strength", 0.7)
    text = "a\nSteps: 3, Sampler: DPM++ 2M Karras, CFG scale: 3, Seed: 4, Size: 64x128, Flux capacitor: on"
    page.fill("#txt2img_prompt textarea", text)
    page.click("#txt2img_paste")
    wait_value(page, "prompt", "a")
    wait_value(page, "height", 128)
    wait_checked(page, "hr-checkbox", False)
    wait_checked(page, "subseed_show", False)
    assert page.locator("#txt2img_sampling input").input_value() == "DPM++ 2M"
    page.wait_for_selector(".notice:has-text('Flux capacitor: on')")
    page.wait_for_selector("#txt2img_hires_prompt", state="hidden")
    page.click("#txt2img_hr .label-wrap")
    page.wait_for_selector("#txt2img_hires_prompt")
    assert page.locator("#txt2img_hires_prompt textarea").input_value() == ""


def test_the_selected_picture_is_made_larger(page: Page, server: Server) -> None:
    small(page)
    generate(page)
    first = newest(server)
    before = shown(page)
    page.click("#txt2img_upscale")
    wait_for_pictures(page, before)
    second = newest(server)
    assert second["request"]["second_pass"]["scale"] == 2.0
    assert {**second["request"], "second_pass": None} == first["request"]
    assert second["outputs"][0]["width"] == 128


def test_styles_are_written_chosen_applied_and_deleted(page: Page, server: Server) -> None:
    small(page)
    page.click("#txt2img_styles_edit_button")
    page.wait_for_selector("#styles_editor")
    assert page.locator("#styles_edit_prompt textarea").input_value() == PROMPT
    page.fill("#styles_edit_select input", "painted")
    page.press("#styles_edit_select input", "Enter")
    page.fill("#styles_edit_prompt textarea", "painting of {prompt}, oil")
    page.fill("#styles_edit_neg_prompt textarea", "photo")
    page.click("#styles_edit_save")
    page.wait_for_selector(".notice:has-text('is saved')")
    page.click("#styles_edit_close")
    page.wait_for_selector("#styles_editor", state="hidden")
    file = server.outputs.parent / "styles.csv"
    assert 'painted,"painting of {prompt}, oil",photo' in file.read_text(encoding="utf-8-sig")

    choose(page, "txt2img_styles", "painted")
    page.keyboard.press("Escape")
    page.wait_for_selector("#txt2img_negative_token_counter span:has-text('1/75')")
    generate(page)
    request = newest(server)["request"]
    assert request["prompt"] == f"painting of {PROMPT}, oil"
    assert request["negative_prompt"] == "photo"

    page.click("#txt2img_style_apply")
    wait_value(page, "prompt", f"painting of {PROMPT}, oil")
    wait_value(page, "neg_prompt", "photo")
    assert page.locator("#txt2img_styles .token").count() == 0
    page.click("#txt2img_clear_prompt")
    wait_value(page, "prompt", "")
    page.click("#txt2img_paste")
    wait_value(page, "prompt", PROMPT)
    page.wait_for_selector("#txt2img_styles .token:has-text('painted')")

    page.click("#txt2img_styles_edit_button")
    page.wait_for_selector("#styles_editor")
    page.click("#styles_edit_delete")
    page.wait_for_selector(".notice:has-text('is deleted')")
    page.click("#styles_edit_close")
    page.wait_for_selector("#txt2img_styles .token", state="detached")


def test_a_cleared_prompt_is_found_among_the_earlier_ones(page: Page) -> None:
    fill(page, "prompt", "one prompt")
    fill(page, "neg_prompt", "its negative")
    page.click("#txt2img_clear_prompt")
    wait_value(page, "prompt", "")
    page.click("#txt2img_prompt_history")
    page.locator(".page-menu button").first.click()
    wait_value(page, "prompt", "one prompt")
    wait_value(page, "neg_prompt", "its negative")


def test_only_what_the_sampler_looks_at_is_shown(page: Page) -> None:
    page.click("#txt2img_sampler_parameters .label-wrap")
    choose(page, "txt2img_sampling", "Euler")
    page.wait_for_selector("#txt2img_s_churn")
    page.wait_for_selector("#txt2img_eta", state="detached")
    choose(page, "txt2img_sampling", "Euler a")
    page.wait_for_selector("#txt2img_eta")
    page.wait_for_selector("#txt2img_s_churn", state="detached")
    assert page.locator("#txt2img_eta input").input_value() == ""
    choose(page, "txt2img_scheduler", "Beta")
    page.wait_for_selector("#txt2img_beta_dist_alpha")
    choose(page, "txt2img_sampling", "UniPC")
    page.wait_for_selector("#txt2img_uni_pc_order")


def test_img2img_by_a_factor_with_its_options(page: Page, server: Server, tmp_path: Any) -> None:
    from PIL import Image

    picture = tmp_path / "start.png"
    Image.effect_noise((96, 64), 60).convert("RGB").save(picture)
    open_tab(page, "img2img")
    page.set_input_files("#img2img_image .canvas-file", picture)
    page.wait_for_selector("#img2img_image .has-picture")
    fill(page, "steps", 2, "img2img")
    open_tab(page, "Resize by")
    page.fill("#img2img_scale input[type=number]", "1.5")
    page.press("#img2img_scale input[type=number]", "Tab")
    page.wait_for_selector("#img2img_scale_resolution_preview:has-text('from 96x64 to 144x96')")
    page.click("#img2img_start_options .label-wrap")
    page.fill("#img2img_initial_noise_multiplier input[type=number]", "0.9")
    page.press("#img2img_initial_noise_multiplier input[type=number]", "Tab")
    page.click("#img2img_copy_to_inpaint")
    page.wait_for_selector("#img2maskimg .has-picture")
    page.click("#inpaint_copy_to_img2img")
    page.wait_for_selector("#img2img_image .has-picture")
    generate(page, "img2img")
    request = newest(server)["request"]
    assert request["size"] == {"width": 144, "height": 96}
    assert request["start"]["noise_multiplier"] == 0.9
    drop_file(page, "#img2img_prompt textarea", server.outputs / newest(server)["outputs"][0]["path"])
    open_tab(page, "Resize to")
    wait_value(page, "width", 144, "img2img")
    assert value(page, "height", "img2img") == "96"
