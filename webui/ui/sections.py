"""The parts of a tab's settings: what stands where, with AUTOMATIC1111's words and element ids.

Closed accordions are not on the page until they are opened, so that dozens of options cost its start nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from webui.extras import CODEFORMER
from webui.ui.fields import SWITCHES
from webui.ui.inputs import Inputs


@contextmanager
def _switched(inputs: Inputs, switch: str, element: str, note: str = "") -> Iterator[None]:
    """An accordion with the switch in its header: opening it turns the switch on, closing it off."""
    label = SWITCHES[switch][1]
    with gr.Column(elem_classes=["switched"], min_width=200):
        inputs.switch(switch, f"{element}-checkbox", elem_classes=["header-switch"])
        if note:
            inputs.note = gr.HTML(elem_id=note, elem_classes=["header-note"])
        with gr.Accordion(label, open=False, elem_id=f"{inputs.tab}_{element}") as panel:
            yield
    inputs.panels[switch] = panel


def hires(inputs: Inputs) -> None:
    """Hires. fix."""
    with _switched(inputs, "enable_hr", "hr", note="txtimg_hr_finalres"):
        with gr.Row(elem_id="txt2img_hires_fix_row1", elem_classes=["grid"]):
            inputs.dropdown("hr_upscaler")
            for name in ("hr_steps", "hr_denoising", "hr_scale", "hr_width", "hr_height"):
                inputs.slider(name)
        with gr.Accordion("Checkpoint, sampler and prompts of its own", open=False, elem_id="txt2img_hires_own"):
            with gr.Row(elem_id="txt2img_hires_fix_row3", elem_classes=["grid"]):
                inputs.dropdown("hr_checkpoint")
                inputs.dropdown("hr_sampler")
                inputs.dropdown("hr_schedule")
                inputs.text("hr_cfg_scale", max_lines=1)
                inputs.text("hr_eta", max_lines=1)
            with gr.Row(elem_id="txt2img_hires_fix_row4", elem_classes=["grid"]):
                inputs.text("hr_prompt", lines=2, max_lines=8, placeholder="as in the first pass")
                inputs.text("hr_negative_prompt", lines=2, max_lines=8, placeholder="as in the first pass")
            with gr.Row(elem_classes=["checks"]):
                inputs.check("hr_reuse_conditioning", container=False)


def refiner(inputs: Inputs) -> None:
    """Refiner."""
    with _switched(inputs, "enable_refiner", "enable"):
        with gr.Row(elem_classes=["grid"]):
            inputs.dropdown("refiner_checkpoint")
            inputs.slider("refiner_switch_at")
            if inputs.tab == "txt2img":
                inputs.radio("refiner_passes", elem_classes=["wide"])
        with gr.Row(elem_classes=["checks"]):
            inputs.check("refiner_by_steps", container=False)


def checkboxes(inputs: Inputs) -> None:
    """Restore faces and tiling."""
    restorers = inputs.choices.get("face_model") or [None]
    with gr.Row(elem_id=f"{inputs.tab}_checkboxes", elem_classes=["checkboxes"]):
        inputs.switch("restore_faces", "restore_faces")
        inputs.check("tiling", container=False)
    with gr.Row(visible=False, elem_id=f"{inputs.tab}_faces", elem_classes=["grid"]) as panel:
        inputs.dropdown("face_model", value=CODEFORMER if CODEFORMER in restorers else restorers[0])
        inputs.slider("face_visibility")
        inputs.slider("face_weight")
    inputs.panels["restore_faces"] = panel


def seed_extras(inputs: Inputs) -> tuple[Any, Any]:
    """Variation seed and resized noise; the buttons that draw a variation seed and take the selected picture's."""
    with gr.Column(visible=False, elem_id=f"{inputs.tab}_subseed_rows", min_width=200) as panel:
        with gr.Row(elem_classes=["seed-row"]):
            inputs.number("variation_seed")
            dice = tool(inputs.tab, "Random variation seed", "random_subseed", icon="dice")
            recycle = tool(inputs.tab, "Reuse the selected picture's variation seed", "reuse_subseed", icon="recycle")
            inputs.slider("variation_strength", min_width=160)
        with gr.Row():
            inputs.slider("seed_from_width", min_width=160)
            inputs.slider("seed_from_height", min_width=160)
    inputs.panels["subseed_show"] = panel
    return dice, recycle


def sampler_parameters(inputs: Inputs) -> None:
    """The numbers behind sampler, schedule, noise and guidance."""
    with gr.Accordion("Sampler parameters", open=False, elem_id=f"{inputs.tab}_sampler_parameters"):
        with gr.Row(elem_classes=["grid"]):
            inputs.text("eta", max_lines=1)
            for name in ("s_churn", "s_tmin", "s_tmax", "s_noise", "unipc_order"):
                inputs.slider(name)
            for name in ("sigma_min", "sigma_max", "rho"):
                inputs.number(name, minimum=0)
            for name in ("beta_alpha", "beta_beta", "s_min_uncond", "skip_early_cond", "cfg_rescale", "extra_noise"):
                inputs.slider(name)
            inputs.number("ensd", minimum=0)
            inputs.radio("rng")
        with gr.Row(elem_classes=["checks"]):
            for name in ("s_min_uncond_all", "discard_penultimate", "sgm_noise_multiplier", "zero_terminal_snr"):
                inputs.check(name, container=False)


def more_options(inputs: Inputs) -> None:
    """Prompts, token merging and the imitation of old versions."""
    with gr.Accordion("Prompt, speed and compatibility", open=False, elem_id=f"{inputs.tab}_compatibility"):
        with gr.Row(elem_classes=["grid"]):
            inputs.radio("emphasis", elem_classes=["wide"])
            inputs.slider("comma_backtrack")
            inputs.slider("token_merging_ratio")
            if inputs.tab == "txt2img":
                inputs.slider("token_merging_ratio_hr")
        with gr.Row(elem_classes=["checks"]):
            for name in (
                "pad_cond_uncond",
                "pad_cond_uncond_v0",
                "use_old_scheduling",
                "use_downcasted_alpha_bar",
                "use_old_karras_scheduler_sigmas",
                "enable_quantization",
            ):
                inputs.check(name, container=False)


def inpaint(inputs: Inputs) -> None:
    """What inpainting asks beside the mask."""
    with gr.Row():
        inputs.slider("mask_blur", min_width=160)
        inputs.slider("padding", min_width=160)
    with gr.Row():
        inputs.radio("mask_mode", min_width=200)
        inputs.radio("inpaint_area", min_width=200)
    inputs.radio("masked_content")
    with _switched(inputs, "soft_inpainting", "soft_inpainting"), gr.Row(elem_classes=["grid"]):
        for name in (
            "soft_schedule_bias",
            "soft_preservation",
            "soft_contrast",
            "soft_mask_influence",
            "soft_threshold",
            "soft_difference_contrast",
        ):
            inputs.slider(name)
    with gr.Accordion("More about the mask", open=False, elem_id="img2img_mask_more"), gr.Row(elem_classes=["checks"]):
        inputs.text("mask_blur_y", max_lines=1, min_width=140)
        inputs.check("mask_round", container=False)
        inputs.check("mask_overlay", container=False)


def picture_options(inputs: Inputs) -> None:
    """What becomes of the start image before and after."""
    with gr.Accordion("Start image options", open=False, elem_id="img2img_start_options"):
        with gr.Row():
            inputs.dropdown("img2img_upscaler")
            inputs.slider("noise_multiplier", min_width=160)
        with gr.Row(elem_classes=["checks"]):
            inputs.check("color_correction", container=False)
            inputs.check("exact_steps", container=False)
            inputs.text("background", max_lines=1, min_width=120, scale=0)


def tool(tab: str, label: str, suffix: str, icon: str | None = None, **more: Any) -> Any:
    """A button that shows an icon; its words are for screen readers and the tooltip."""
    classes = ["tool", f"icon-{icon or suffix}"]
    return gr.Button(label, size="sm", elem_id=f"{tab}_{suffix}", elem_classes=classes, min_width=40, scale=0, **more)
