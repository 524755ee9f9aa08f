"""A unit's other forms: what clients of sd-webui-controlnet send, and what pictures' texts say."""

from __future__ import annotations

from typing import Any

import pytest
from controlnet_parts import part, plugins
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import RequestError
from webui.option_boxes import Kind, all_boxes, checked, problem
from webui.records import plain

unit_part, infotext = part("unit"), part("infotext")
Unit, Mode, Hires = unit_part.Unit, unit_part.ControlMode, unit_part.HiresOption
Resize = part("fitting").ResizeMode
MODULE = plugins().conditioning_modules["ControlNet"]


def meant(**unit: Any) -> dict[str, Any]:
    """The options that one unit of a client becomes, checked as the program does."""
    (options,) = MODULE.always_on([unit])
    return plain(checked(Unit, options, "ControlNet"))


def test_the_record_is_one_that_panels_and_schemas_can_be_made_of() -> None:
    assert problem(Unit, ("controlnet", "clip_vision")) is None
    assert MODULE.units == 3
    assert {box.name for box in all_boxes(Unit)} >= {"image", "mask", "module", "model", "weight", "control_mode"}
    drawn = [box.name for box in all_boxes(Unit) if box.kind is Kind.MASK and box.of]
    assert drawn == ["mask"]  # one picture of the page has one mask drawn on it


def test_a_clients_unit_means_the_same_here() -> None:
    options = meant(
        enabled=True,
        module="canny",
        model="control_v11p_sd15_canny [d14c016b]",
        weight=0.8,
        resize_mode="Resize and Fill",
        control_mode="My prompt is more important",
        guidance_start=0.1,
        guidance_end=0.9,
        pixel_perfect=True,
        processor_res=768,
        threshold_a=50,
        threshold_b=150.0,
        hr_option="Low res only",
        save_detected_map=False,
        low_vram=True,
        something_new=3,
    )
    assert (options["module"], options["model"]) == ("canny", "control_v11p_sd15_canny")
    assert (options["weight"], options["processor_res"], options["threshold_a"]) == (0.8, 768, 50.0)
    assert (options["resize_mode"], options["control_mode"]) == ("Resize and Fill", "My prompt is more important")
    assert (options["hr_option"], options["pixel_perfect"]) == ("Low res only", True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"input_image": "x"}, {"image": "x"}),
        ({"image": {"image": "x", "mask": "y"}}, {"image": "x", "mask": "y"}),
        ({"image": ["x", "y"]}, {"image": "x", "mask": "y"}),
        ({"image": [{"image": "x", "mask": "y"}]}, {"image": "x", "mask": "y"}),
        ({"image": "x", "mask_image": "y"}, {"image": "x", "mask": "y"}),
        ({"guidance": 0.5}, {"guidance_end": 0.5}),
        ({"lowvram": True}, {}),
        ({"resize_mode": 2}, {"resize_mode": "Resize and Fill"}),
        ({"resize_mode": "Inner Fit (Scale to Fit)"}, {"resize_mode": "Crop and Resize"}),
        ({"resize_mode": "Envelope (Outer Fit)"}, {"resize_mode": "Resize and Fill"}),
        ({"control_mode": 2}, {"control_mode": "ControlNet is more important"}),
        ({"module": "invert"}, {"module": "invert (from white bg & black line)"}),
        ({"module": "lineart_standard"}, {"module": "lineart_standard (from white bg & black line)"}),
        ({"module": "inpaint"}, {"module": "inpaint_global_harmonious"}),
        ({"module": None}, {"module": "none"}),
        ({"model": "None"}, {"model": ""}),
        ({"processor_res": 0}, {"processor_res": -1}),
    ],
)
def test_old_names_numbers_and_forms_are_taken(given: dict[str, Any], expected: dict[str, Any]) -> None:
    (options,) = MODULE.always_on([given])
    assert {key: options.get(key) for key in expected} == expected


def test_units_that_are_off_do_nothing() -> None:
    assert MODULE.always_on([None, {"enabled": False, "module": "canny"}]) == []
    assert len(MODULE.always_on([{"enabled": True}, {}])) == 2


@pytest.mark.parametrize("args", [["canny"], [3], [{"image": ["a", "b", "c"]}], [{"ipadapter_input": ["x"]}]])
def test_what_is_no_unit_is_refused(args: list[Any]) -> None:
    with pytest.raises(RequestError, match="ControlNet"):
        MODULE.always_on(args)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(RequestError, match="behind the ending step"):
        Unit(guidance_start=0.6, guidance_end=0.5)


def test_the_text_is_upstreams() -> None:
    unit = Unit(module="canny", model="control_v11p_sd15_canny")
    text = infotext.write(unit, 0, plugins().preprocessors["canny"], "d14c016b")
    assert text == {
        "ControlNet 0": "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, "
        "Resize Mode: Crop and Resize, Processor Res: 512, Threshold A: 100.0, Threshold B: 200.0, "
        "Guidance Start: 0.0, Guidance End: 1.0, Pixel Perfect: False, Control Mode: Balanced"
    }


units = st.builds(
    Unit,
    module=st.sampled_from(sorted(plugins().preprocessors)),
    model=st.sampled_from(["", "control_v11p_sd15_canny", "folder/my model 1.5"]),
    weight=st.sampled_from([0.0, 0.35, 1.0, 2.0]),
    guidance_start=st.sampled_from([0.0, 0.25]),
    guidance_end=st.sampled_from([0.25, 0.5, 1.0]),
    pixel_perfect=st.booleans(),
    processor_res=st.sampled_from([64, 512, 1024]),
    control_mode=st.sampled_from(list(Mode)),
    resize_mode=st.sampled_from(list(Resize)),
    hr_option=st.sampled_from(list(Hires)),
    inpaint_crop_input_image=st.booleans(),
)


@given(unit=units, number=st.integers(0, 2), short=st.sampled_from(["", "d14c016b"]))
def test_what_is_written_is_read_back(unit: Any, number: int, short: str) -> None:
    preprocessor = plugins().preprocessors[unit.module]
    fields = {"Steps": "20", **infotext.write(unit, number, preprocessor, short)}
    (options,) = MODULE.read_infotext(fields)
    assert fields == {"Steps": "20"}
    back = checked(Unit, options, "ControlNet")
    sliders = part("preprocessors").slider_values
    for name in (
        "module",
        "model",
        "weight",
        "guidance_start",
        "guidance_end",
        "pixel_perfect",
        "processor_res",
        "control_mode",
        "resize_mode",
        "hr_option",
        "inpaint_crop_input_image",
    ):
        assert getattr(back, name) == getattr(unit, name), name
    assert sliders(preprocessor, back.threshold_a, back.threshold_b) == sliders(
        preprocessor, unit.threshold_a, unit.threshold_b
    )


def test_older_pictures_are_read() -> None:
    fields = {
        "ControlNet 0": "preprocessor: invert (from white bg & black line), "
        "model: control_v11p_sd15_lineart [43d4be0d], weight: 0.7, starting/ending: (0.1, 0.9), "
        "resize mode: Just Resize, pixel perfect: True, "
        "control mode: Balanced, preprocessor params: (640, 1, 2)",
        "ControlNet 1": "Module: depth_midas, Model: x [0], Weight: 1.0, Guidance End: nonsense",
    }
    first, second = MODULE.read_infotext(fields)
    assert first["module"] == "invert (from white bg & black line)"
    assert first["model"] == "control_v11p_sd15_lineart"
    assert (first["weight"], first["guidance_start"], first["guidance_end"]) == (0.7, 0.1, 0.9)
    assert (first["processor_res"], first["resize_mode"], first["pixel_perfect"]) == (640, "Just Resize", True)
    assert (second["module"], second["guidance_end"]) == ("depth_midas", 1.0)
    assert fields == {}
