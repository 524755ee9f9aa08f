"""Settings -> fields of a request: what AUTOMATIC1111 reads from its settings while it computes, said beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from webui.engine.options import CHECKPOINT, Snapshot
from webui.request import (
    AUTOMATIC_VAE,
    Compatibility,
    Emphasis,
    FaceRestoration,
    GenerationRequest,
    Guidance,
    RandomSource,
    RefinerPasses,
    SamplerOptions,
    TokenMerging,
)


def with_settings(request: GenerationRequest, options: Snapshot, *, default_eta: float | None) -> GenerationRequest:
    """The request with every field that is a setting there as ``options`` say.

    ``default_eta`` is the sampler's own: it tells which of the two settings for eta counts.  What the request's parts
    (second pass, refiner, start image, mask) take from settings is set as far as it has them; tiling and face
    restoration are added where a setting asks for them, never taken away.
    """
    sampling = replace(
        request.sampling,
        eta=_eta(options, default_eta),
        options=sampler_options(options),
        guidance=guidance(options),
    )
    noise = replace(
        request.noise,
        source=RandomSource(options["randn_source"]),
        later_offset=options["eta_noise_seed_delta"],
        extra=options["img2img_extra_noise"],
    )
    return replace(
        request,
        sampling=sampling,
        noise=noise,
        clip_skip=options["CLIP_stop_at_last_layers"],
        emphasis=Emphasis(options["emphasis"]),
        comma_backtrack=options["comma_padding_backtrack"],
        checkpoint=options[CHECKPOINT] or request.checkpoint,
        vae=options["sd_vae"] or AUTOMATIC_VAE,
        tiling=request.tiling or options["tiling"],
        token_merging=token_merging(options, img2img=request.start is not None),
        compatibility=compatibility(options),
        face_restoration=request.face_restoration
        or (face_restoration(options) if options["face_restoration"] else None),
        **_parts(request, options),
    )


def _eta(options: Snapshot, default_eta: float | None) -> float | None:
    """The samplers that add no noise by default (DDIM) have a setting of their own; those that never do, none."""
    if default_eta is None:
        return None
    return float(options["eta_ancestral"] if default_eta else options["eta_ddim"])


def sampler_options(options: Snapshot) -> SamplerOptions:
    """The numbers that samplers and schedules read from settings."""
    return SamplerOptions(
        s_churn=options["s_churn"],
        s_tmin=options["s_tmin"],
        s_tmax=options["s_tmax"],
        s_noise=options["s_noise"],
        sigma_min=options["sigma_min"],
        sigma_max=options["sigma_max"],
        rho=options["rho"],
        beta_alpha=options["beta_dist_alpha"],
        beta_beta=options["beta_dist_beta"],
        discard_penultimate=options["always_discard_next_to_last_sigma"],
        full_noise=options["sgm_noise_multiplier"],
        zero_terminal_snr=options["sd_noise_schedule"] == "Zero Terminal SNR",
        unipc_order=options["uni_pc_order"],
    )


def guidance(options: Snapshot) -> Guidance:
    """When the negative prompt is asked."""
    return Guidance(
        min_sigma=options["s_min_uncond"],
        min_sigma_all=options["s_min_uncond_all"],
        skip_early=options["skip_early_cond"],
        pad=options["pad_cond_uncond"],
        pad_v0=options["pad_cond_uncond_v0"],
    )


def token_merging(options: Snapshot, *, img2img: bool) -> TokenMerging:
    """The ratios; that of img2img, where it is set, counts there instead of the common one."""
    common = options["token_merging_ratio"]
    first = (options["token_merging_ratio_img2img"] or common) if img2img else common
    return TokenMerging(ratio=first, second_pass=options["token_merging_ratio_hr"])


def compatibility(options: Snapshot) -> Compatibility:
    """The old behaviours that settings ask for."""
    return Compatibility(
        old_prompt_editing=options["use_old_scheduling"],
        downcast_alphas=options["use_downcasted_alpha_bar"],
        old_karras=options["use_old_karras_scheduler_sigmas"],
        whole_timesteps=options["enable_quantization"],
    )


def face_restoration(options: Snapshot) -> FaceRestoration:
    """What "restore faces" means."""
    return FaceRestoration(model=options["face_restoration_model"], weight=options["code_former_weight"])


def _parts(request: GenerationRequest, options: Snapshot) -> dict[str, Any]:
    """The parts that a request may have, each with what it takes from settings."""
    changed: dict[str, Any] = {}
    if request.second_pass is not None:
        changed["second_pass"] = replace(
            request.second_pass, reuse_conditioning=options["hires_fix_use_firstpass_conds"]
        )
    if request.refiner is not None:
        changed["refiner"] = replace(
            request.refiner,
            by_steps=options["refiner_switch_by_sample_steps"],
            passes=RefinerPasses(options["hires_fix_refiner_pass"]),
        )
    if request.start is not None:
        start = request.start
        mask = None if start.mask is None else replace(start.mask, overlay=options["overlay_inpaint"])
        changed["start"] = replace(
            start,
            upscaler=options["upscaler_for_img2img"] or "None",
            noise_multiplier=options["initial_noise_multiplier"],
            exact_steps=options["img2img_fix_steps"],
            background=options["img2img_background_color"],
            color_correction=options["img2img_color_correction"],
            mask=mask,
        )
    return changed
