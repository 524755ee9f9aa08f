"""What weight, steps, control mode, region and pass do to a unit, by closed forms; the model stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from controlnet_bench import IMAGE, MASK, REGION, Bench, apart, half, picture, resolved
from controlnet_parts import part
from safetensors.torch import save_file
from test_controlnet_numbers import clip_weights, control_weights, low_rank, meta, pairs, plain_projection
from torch import Tensor

from webui.diffusion.guidance import Guiding, NetworkCall
from webui.diffusion.prediction import Prediction, c_in
from webui.errors import CheckpointError, NotFoundError, RequestError
from webui.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig
from webui.networks.unet import Openings
from webui.request import SecondPass, Size

unit_part = part("unit")
Mode, Hires = unit_part.ControlMode, unit_part.HiresOption


def call(bench: Bench, conditional: tuple[bool, ...] = (True, False), step: int = 1, steps: int = 10) -> NetworkCall:
    generator = torch.Generator().manual_seed(3)
    rows = len(conditional)
    return NetworkCall(
        x=torch.randn(rows, 4, 8, 8, generator=generator),
        timestep=500.0,
        sigma=2.0,
        context=torch.randn(rows, 7, 32, generator=generator),
        image=(0,) * rows,
        conditional=conditional,
        steps_done=step,
        steps=steps,
    )


def filled(bench: Bench, asked: NetworkCall, second_pass: bool = False, **options: Any) -> Openings:
    with torch.inference_mode():
        return bench.contribution(bench.unit(**options), second_pass=second_pass).openings_for(asked)


@pytest.fixture
def control(bench: Bench) -> Bench:
    bench.save("controlnet", "control", control_weights(bench.model.unet))
    return bench


def test_soft_modes_weigh_each_layer_by_its_distance_from_the_middle(control: Bench) -> None:
    plain = filled(control, call(control), model="control")
    soft = filled(control, call(control), model="control", control_mode=Mode.PROMPT, weight=0.5)
    layers = (*plain.skip_residuals, plain.middle_residual)
    for layer, (one, other) in enumerate(zip(layers, (*soft.skip_residuals, soft.middle_residual), strict=True)):
        assert torch.allclose(other, 0.5 * 0.825 ** (len(layers) - 1 - layer) * one, atol=1e-6)


def test_controlnet_is_more_important_leaves_the_negative_prompt_alone(control: Bench) -> None:
    asked = call(control, (True, False, True, False))
    prompt = filled(control, asked, model="control", control_mode=Mode.PROMPT)
    alone = filled(control, asked, model="control", control_mode=Mode.CONTROL)
    for one, other in zip(prompt.skip_residuals, alone.skip_residuals, strict=True):
        assert not other[1].any() and not other[3].any()
        assert torch.allclose(one[[0, 2]], other[[0, 2]], atol=1e-6)
    assert filled(control, call(control, (False,)), model="control", control_mode=Mode.CONTROL) == Openings()


def test_it_works_from_its_first_step_to_its_last(control: Bench) -> None:
    def works(step: int) -> bool:
        asked = call(control, step=step)
        return bool(filled(control, asked, model="control", guidance_start=0.2, guidance_end=0.6).skip_residuals)

    assert [works(step) for step in range(10)] == [False, False, True, True, True, True, True, False, False, False]


def test_the_steps_of_a_walk_are_counted_as_upstream_does(control: Bench) -> None:
    """A1111 hears of a step after its first call: calls of a walk of four steps are at 0, 0, 1, 2 of 4."""
    from controlnet_parts import plugins

    from webui.diffusion.schedules import resolve_schedule
    from webui.pipeline.denoising import denoiser, prepare

    for name, expected in (("Euler", [0, 0, 1, 2]), ("Heun", [0, 0, 0, 1, 1, 2, 2, 3])):
        sampler = plugins().samplers[name]
        seen: list[tuple[int, int]] = []
        with torch.inference_mode():
            schedule = resolve_schedule(sampler, "Uniform", plugins().schedules.values())
            from webui.conditioning import Contribution

            def openings(asked: NetworkCall, seen: list[tuple[int, int]] = seen) -> Openings:
                seen.append((asked.steps_done, asked.steps))
                return Openings()

            setup = prepare(resolved(), control.model, sampler, schedule, [Contribution(openings)])
            for number in range(len(expected)):
                denoiser(resolved(), setup, number)(torch.zeros(1, 4, 8, 8), 2.0)
        assert seen == [(done, 4) for done in expected]


@pytest.mark.parametrize(
    ("option", "first", "second"), [(Hires.BOTH, True, True), (Hires.LOW, True, False), (Hires.HIGH, False, True)]
)
def test_the_hires_option_chooses_the_pass(control: Bench, option: object, first: bool, second: bool) -> None:
    both = resolved(second_pass=SecondPass(width=128, height=128))
    unit = control.unit(model="control", hr_option=option)
    asked = call(control)
    with torch.inference_mode():
        in_first = control.contribution(unit, both).openings_for(asked)
        in_second = control.contribution(unit, resolved(), second_pass=True).openings_for(asked)
        alone = control.contribution(unit).openings_for(asked)
    assert bool(in_first.skip_residuals) is first
    assert bool(in_second.skip_residuals) is second
    assert alone.skip_residuals  # a picture of one pass does not ask


def test_thin_lines_are_soft_in_a_second_pass(control: Bench) -> None:
    plain = filled(control, call(control), second_pass=True, model="control")
    lines = filled(control, call(control), second_pass=True, model="control", module="canny")
    again = filled(control, call(control), model="control", module="canny")
    assert not torch.allclose(lines.skip_residuals[0], again.skip_residuals[0])
    assert torch.allclose(
        lines.skip_residuals[0], 0.825 ** len(plain.skip_residuals) * again.skip_residuals[0], atol=1e-6
    )


def test_the_region_masks_every_residual(control: Bench) -> None:
    everywhere = filled(control, call(control), model="control")
    left = filled(control, call(control), model="control", effective_region_mask=REGION)
    assert torch.equal(left.skip_residuals[0][..., :3], everywhere.skip_residuals[0][..., :3])
    assert not left.skip_residuals[0][..., 5:].any()


def test_a_shuffle_net_is_averaged_over_the_picture_and_leaves_the_negative_prompt_alone(bench: Bench) -> None:
    weights = control_weights(bench.model.unet)
    bench.save("controlnet", "control", weights)
    bench.save("controlnet", "control_shuffle", weights)
    plain = filled(bench, call(bench), model="control")
    pooled = filled(bench, call(bench), model="control_shuffle")
    one, other = plain.skip_residuals[1], pooled.skip_residuals[1]
    assert torch.allclose(other[0], one[0].mean(dim=(1, 2), keepdim=True).expand_as(one[0]), atol=1e-6)
    assert not other[1].any()


def test_weights_of_each_layer_replace_the_weight(control: Bench) -> None:
    plain = filled(control, call(control), model="control")
    count = len(plain.skip_residuals) + 1
    own = tuple(0.1 * number for number in range(count))
    weighted = filled(control, call(control), model="control", advanced_weighting=own, weight=2.0)
    assert torch.allclose(weighted.middle_residual, own[-1] * plain.middle_residual, atol=1e-6)
    assert torch.allclose(weighted.skip_residuals[2], own[2] * plain.skip_residuals[2], atol=1e-6)
    with pytest.raises(RequestError, match=f"has 2 numbers; this model needs {count}"):
        filled(control, call(control), model="control", advanced_weighting=(1.0, 1.0))


def test_reference_only_reads_the_keys_and_values_of_both(bench: Bench) -> None:
    """K = [K, K_ref], V = [V, V_ref] at every self-attention, and f * plain + (1 - f) * both without the prompt."""
    unet, asked = bench.model.unet, call(bench)
    fidelity = 0.25
    options = {"module": "reference_only", "threshold_a": fidelity}
    found = filled(bench, asked, **options)
    reference = part("reference")
    with torch.inference_mode():
        job = part("steering").Job(bench.unit(**options), bench.model, resolved(), bench.pictures(), bench.networks)
        latent = job.latent(bench.stored[IMAGE])
        noise = reference.noise_for(latent, resolved().seed, asked.sigma)
        kept: dict[str, tuple[Tensor, Tensor]] = {}

        def keep(attending: Any, attend: Any) -> Tensor:
            kept[attending.site] = (attending.key, attending.value)
            return attend(attending)

        noisy = ((latent + asked.sigma * noise) * c_in(asked.sigma)).expand(2, -1, -1, -1)
        unet(noisy, torch.full((2,), 500.0), asked.context, Openings(attention_wraps=(keep,)))

        def expected(attending: Any, attend: Any) -> Tensor:
            if attending.is_cross:
                return attend(attending)
            q, k, v = (
                one.view(*one.shape[:2], attending.heads, -1).transpose(1, 2)
                for one in (
                    attending.query,
                    torch.cat([attending.key, kept[attending.site][0]], dim=1),
                    torch.cat([attending.value, kept[attending.site][1]], dim=1),
                )
            )
            both = (torch.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, -1) @ v).transpose(1, 2).flatten(2)
            mixed = both.clone()
            mixed[1] = fidelity * attend(attending)[1] + (1 - fidelity) * both[1]
            return mixed

        timesteps = torch.full((2,), 500.0)
        theirs = unet(asked.x, timesteps, asked.context, Openings(attention_wraps=(expected,)))
        ours = unet(asked.x, timesteps, asked.context, found)
        plain = unet(asked.x, timesteps, asked.context)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_reference_only_reaches_the_widest_attentions_first(bench: Bench) -> None:
    sites = part("reference").sites_within
    unet = bench.model.unet
    all_sites = [name for name, _ in unet.named_modules() if name.endswith(".attn1")]
    assert sites(unet, 1.0) == set(all_sites) and not sites(unet, 0.0)
    width = {name: dict(unet.named_modules())[name].to_q.weight.shape[1] for name in all_sites}
    some = sites(unet, 0.5)
    assert min(width[name] for name in some) >= max(width[name] for name in set(all_sites) - some)


def test_what_inpaint_only_does_not_paint_stays_what_it_was(bench: Bench) -> None:
    contribution = bench.contribution(bench.unit(module="inpaint_only", mask=MASK, weight=0.75))
    guided = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        job = part("steering").Job(bench.unit(), bench.model, resolved(), bench.pictures(), bench.networks)
        original = job.latent(bench.stored[IMAGE])
        found = contribution.guide(guiding(guided))  # type: ignore[misc]
    assert torch.allclose(found[..., :4], guided[..., :4])
    assert torch.allclose(found[..., 6:], 0.75 * original[..., 6:] + 0.25 * guided[..., 6:], atol=1e-6)


def guiding(guided: Tensor, uncond: Tensor | None = None, cfg_scale: float = 3.0) -> Guiding:
    return Guiding(
        x=guided,
        sigma=1.0,
        cond=guided,
        uncond=guided if uncond is None else uncond,
        guided=guided,
        cfg_scale=cfg_scale,
        call=0,
        calls=4,
        prediction=Prediction.EPSILON,
        ask=lambda *arguments: guided,
    )


def test_tile_colorfix_keeps_the_large_colours(bench: Bench) -> None:
    contribution = bench.contribution(bench.unit(module="tile_colorfix", threshold_a=3))
    guided = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        job = part("steering").Job(bench.unit(), bench.model, resolved(), bench.pictures(), bench.networks)
        original = job.latent(bench.stored[IMAGE])
        found = contribution.guide(guiding(guided))  # type: ignore[misc]

        def low(latent: Tensor) -> Tensor:
            return F.avg_pool2d(F.pad(latent, (3, 3, 3, 3), mode="replicate"), 7, stride=1)

    assert torch.allclose(found, guided - low(guided) + low(original), atol=1e-5)


def save_all(bench: Bench) -> list[Any]:
    """A unit of every kind."""
    unet = bench.model.unet
    bench.save("controlnet", "control", control_weights(unet))
    bench.save("controlnet", "lora", low_rank(unet)[0])
    adapter = meta(lambda: T2IAdapter(T2IAdapterConfig(channels=unet.config.channels)))
    bench.save(
        "controlnet", "t2i", {name: torch.ones(tensor.shape) * 0.01 for name, tensor in adapter.state_dict().items()}
    )
    projection = {f"image_proj.{name}": tensor for name, tensor in plain_projection().items()}
    bench.save("controlnet", "ip", projection | pairs(unet))
    bench.save("clip_vision", "encoder", clip_weights())
    units = [bench.unit(model=name) for name in ("control", "lora", "t2i", "ip")]
    units += [bench.unit(module="inpaint_only", mask=MASK), bench.unit(module="tile_colorfix+sharp")]
    return [*units, bench.unit(module="reference_only")]


def test_the_model_is_bit_identical_after_units_of_every_kind(bench: Bench) -> None:
    units = save_all(bench)
    networks = (bench.model.unet, bench.model.vae, bench.model.text_encoder)
    before = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]
    plain = bench.make()
    for unit in units:
        assert not np.array_equal(bench.make(unit), plain), unit
    assert not np.array_equal(bench.make(*units), plain)
    assert np.array_equal(bench.make(), plain)
    for network, weights in zip(networks, before, strict=True):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_the_same_request_makes_the_same_picture(bench: Bench) -> None:
    units = save_all(bench)
    first = bench.make(*units)
    bench.networks = part("networks").Networks()
    assert np.array_equal(bench.make(*units), first)


def test_files_of_no_kind_are_refused_in_one_sentence(bench: Bench) -> None:
    bench.save("controlnet", "nothing", {"a.weight": torch.zeros(2)})
    bench.save("controlnet", "lllite", {"lllite_unet_x.weight": torch.zeros(2)})
    bench.save(
        "controlnet",
        "faceid",
        {"image_proj.proj.0.weight": torch.zeros(2, 2), "ip_adapter.1.to_k_ip.weight": torch.zeros(2, 2)},
    )
    wide = control_weights(bench.model.unet)
    wide["input_hint_block.0.weight"] = torch.zeros(1, 3, 3, 3)
    bench.save("controlnet", "odd", wide)
    bench.save("controlnet", "half", {name: t for name, t in wide.items() if not name.startswith("zero_convs.1")})
    for name, words in (
        ("nothing", "no ControlNet, Control-LoRA, T2I-Adapter or IP-Adapter"),
        ("lllite", "LLLite"),
        ("faceid", "not supported"),
        ("odd", "does not fit"),
        ("half", "is missing"),
    ):
        with pytest.raises(CheckpointError, match=words) as told:
            filled(bench, call(bench), model=name)
        assert str(told.value).count("\n") == 0
    with pytest.raises(RequestError, match="choose a model"):
        filled(bench, call(bench), module="canny")
    with pytest.raises(NotFoundError):
        filled(bench, call(bench), model="absent")


def test_an_ip_adapter_asks_for_its_encoder(bench: Bench) -> None:
    projection = {f"image_proj.{name}": tensor for name, tensor in plain_projection().items()}
    bench.save("controlnet", "ip", projection | pairs(bench.model.unet))
    with pytest.raises(RequestError, match="models/clip_vision"):
        filled(bench, call(bench), model="ip")
    bench.save("clip_vision", "a_wrong_one", {"x": torch.zeros(1)})
    bench.save("clip_vision", "right", clip_weights())
    assert filled(bench, call(bench), model="ip").attention_wraps


def test_inpainting_asks_for_a_mask(control: Bench) -> None:
    with pytest.raises(RequestError, match="needs a mask"):
        filled(control, call(control), model="control", module="inpaint_global_harmonious")


def test_loaded_networks_stay_within_their_budget(bench: Bench) -> None:
    networks = part("networks").Networks(budget=3000)
    built = []
    for name in ("a", "b", "c"):
        path = bench.folder / f"{name}.safetensors"
        save_file({"x": torch.zeros(500)}, path)
        for _ in range(2):
            networks.get(
                path, bench.model.compute, "x", lambda name=name: (built.append(name), {"x": torch.zeros(500)})[1]
            )
    assert built == ["a", "b", "c"]
    assert len(networks._held) == 1  # 2000 bytes each: two are too many
    networks.get(path, bench.model.compute, "x", lambda: pytest.fail("it is still there"))


def test_a_control_picture_of_another_size_is_fitted(control: Bench) -> None:
    control.stored[IMAGE] = picture(100, 37)
    wide = resolved(size=Size(width=96, height=64))
    control.stored[REGION] = half(10, 10)
    found = control.make(control.unit(model="control", effective_region_mask=REGION), request=wide)
    assert found.shape == (64, 96, 3)
    assert apart(found, control.make(request=wide)) > 0
