"""What scripts make of a request; oracles are AUTOMATIC1111's answers in the golden folder, written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts_loaded import SCRIPTS, file
from tiny_model import tiny_request

from webui.errors import RequestError
from webui.plugins.manager import Plugins
from webui.request import Mask, MaskedContent, Refiner, ScriptUse, SecondPass, Size, StartImage
from webui.scripts import Expansion, expanded
from webui.upscalers import upscaled_by

loopback, prompt_matrix, prompts_from_file = file("loopback"), file("prompt_matrix"), file("prompts_from_file")
sd_upscale, xyz_plot = file("sd_upscale"), file("xyz_plot")
UPSCALERS = list(Plugins.load(None, packages=("webui.upscalers",)).upscalers.values())


def expansion(name: str, options: dict[str, Any], *, drawn: bool = False, **request: Any) -> Expansion:
    use = ScriptUse(name=name, options=options, drawn=drawn)
    return expanded(replace(tiny_request(**request), script=use), SCRIPTS, lambda _: (128, 96))


def xyz(
    x: tuple[str, str], y: tuple[str, str] = ("Nothing", ""), z: tuple[str, str] = ("Nothing", ""), **more: Any
) -> Expansion:
    named = {"x_axis": x[0], "x_values": x[1], "y_axis": y[0], "y_values": y[1], "z_axis": z[0], "z_values": z[1]}
    flags = {key: more.pop(key) for key in list(more) if key in xyz_plot.Options.__dataclass_fields__}
    return expansion("X/Y/Z plot", {**named, **flags}, **more)


def test_a_matrix_has_every_combination() -> None:
    made = expansion("prompt matrix", {}, prompt="a cat|red|on a chair", seed=1234)
    assert [one.prompt for one in made.requests] == [
        "a cat",
        "a cat, red",
        "a cat, on a chair",
        "a cat, red, on a chair",
    ]
    assert {one.seed for one in made.requests} == {1234} and all(one.script is None for one in made.requests)
    (page,) = made.sheets[0].pages
    assert [[label.on for label in labels] for labels in page.top] == [[False], [True]]
    assert page.columns == 2 and page.left[1][0].text == "on a chair"


def test_commas_at_the_ends_of_a_matrix_part_are_left_out() -> None:
    """Else joining by commas would write two (AUTOMATIC1111 strips them from every part but the first)."""
    made = expansion("Prompt matrix", {}, prompt="a cat|red,|,tall,")
    assert [one.prompt for one in made.requests] == ["a cat", "a cat, red", "a cat, tall", "a cat, red, tall"]


def test_a_matrix_of_the_negative_prompt_with_seeds_and_spaces() -> None:
    options = {"which": "negative", "joining": "space", "different_seeds": True, "parts_first": True}
    made = expansion("Prompt matrix", options, negative_prompt="a|b", seed=1)
    assert [(one.negative_prompt, one.seed) for one in made.requests] == [("a", 1), ("b a", 2)]


def test_prompts_of_lines() -> None:
    lines = 'a blue dog\n\n--prompt "a green bird" --steps 3 --seed 5'
    made = expansion("Prompts from file or textbox", {"lines": lines}, prompt="on a chair", seed=1234, steps=4)
    assert [one.prompt for one in made.requests] == ["a blue dog on a chair", "a green bird on a chair"]
    assert [(one.sampling.steps, one.seed) for one in made.requests] == [(4, 1234), (3, 5)]


def test_every_name_of_a_line_is_read() -> None:
    line = (
        "--prompt a dog --negative_prompt bad --styles one,two --seed 3 --subseed 4 --subseed_strength 0.5 "
        "--seed_resize_from_w 64 --seed_resize_from_h 128 --sampler_name DDIM --batch_size 2 --n_iter 3 --steps 9 "
        "--cfg_scale 2.5 --width 128 --height 192 --tiling true --sd_model other --outpath_samples x "
        "--prompt_for_display y --restore_faces false --do_not_save_grid true"
    )
    (made,) = expansion("prompts from file or textbox", {"lines": line}, prompt="").requests
    assert (made.prompt, made.negative_prompt, made.styles) == ("a dog", "bad", ("one", "two"))
    assert (made.seed, made.noise.variation_seed, made.noise.variation_strength) == (3, 4, 0.5)
    assert (made.noise.from_width, made.noise.from_height, made.batch_size, made.batch_count) == (64, 128, 2, 3)
    assert (made.sampling.sampler, made.sampling.steps, made.sampling.cfg_scale) == ("DDIM", 9, 2.5)
    assert (made.size, made.tiling, made.checkpoint) == (Size(width=128, height=192), True, "other")


@pytest.mark.parametrize("line", ["--nothing 1", "--steps", "--steps many", '--prompt "open', "--tiling perhaps"])
def test_a_line_that_means_nothing(line: str) -> None:
    with pytest.raises(RequestError):
        expansion("prompts from file or textbox", {"lines": line})


def test_seeds_of_lines() -> None:
    lines = "a\nb\nc"
    counted = expansion("prompts from file or textbox", {"lines": lines, "iterate_seeds": True}, seed=7).requests
    assert [one.seed for one in counted] == [7, 8, 9]
    drawn = expansion("prompts from file or textbox", {"lines": lines}, seed=7, drawn=True).requests
    assert len({one.seed for one in drawn}) == 3
    same = expansion("prompts from file or textbox", {"lines": lines, "same_seed": True}, seed=7, drawn=True).requests
    assert {one.seed for one in same} == {7}


def test_counted_seeds_step_over_a_lines_pictures() -> None:
    """Upstream adds batch size times batch count of the job; a line's own seed stays, also where it is the job's."""
    options = {"lines": "a\nb\n--prompt c --seed 7\n--prompt d --n_iter 1", "iterate_seeds": True}
    made = expansion("prompts from file or textbox", options, seed=7, batch_size=2, batch_count=3).requests
    assert [one.seed for one in made] == [7, 13, 7, 25]


def test_a_line_that_wants_any_seed_gets_another_one_than_the_next() -> None:
    options = {"lines": "--prompt a --seed -1\n--prompt a --seed -1"}
    first, second = expansion("prompts from file or textbox", options, seed=7).requests
    assert len({first.seed, second.seed, 7}) == 3


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("1, 2,3", [1, 2, 3]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("1-5 (+2)", [1, 3, 5]),
        ("10-4(-3)", [10, 7, 4]),
        ("1-10 [5]", [1, 3, 5, 7, 10]),
        ("-1-1", [-1, 0, 1]),
        ("1-3, 9", [1, 2, 3, 9]),
    ],
)
def test_whole_numbers_are_written_in_these_ways(written: str, values: list[int]) -> None:
    assert list(xyz_plot.whole_numbers([word.strip() for word in written.split(",")])) == values


def test_numbers_are_written_in_these_ways() -> None:
    assert list(xyz_plot.numbers(["0-1 (+0.25)"])) == [0, 0.25, 0.5, 0.75, 1]
    assert list(xyz_plot.numbers(["1-2 [3]", "7.5"])) == [1, 1.5, 2, 7.5]


@pytest.mark.parametrize("written", ["x", "1-2 (+0)", "1-2000000", "1-5 [0]", "1-9 (-1)", "nan"])
def test_values_that_are_none(written: str) -> None:
    with pytest.raises(RequestError):
        xyz(("Steps", written))


@given(st.text(max_size=60), st.sampled_from([axis.name for axis in xyz_plot.AXES]))
def test_any_values_are_read_or_refused_in_a_sentence(written: str, axis: str) -> None:
    try:
        made = xyz((axis, written))
    except RequestError as error:
        assert str(error)
    else:
        assert made.pictures >= 1


def test_a_plot_counts_x_fastest_and_keeps_what_is_dear() -> None:
    made = xyz(("Checkpoint name", "a,b"), ("CFG Scale", "3,9"), ("Steps", "1,2"), sub_sheets=True)
    assert [(one.checkpoint, one.sampling.cfg_scale, one.sampling.steps) for one in made.requests[:3]] == [
        ("a", 3, 1),
        ("b", 3, 1),
        ("a", 9, 1),
    ]
    checkpoints = [made.requests[place].checkpoint for place in made.order]
    assert checkpoints == ["a"] * 4 + ["b"] * 4 and sorted(made.order) == list(range(8))
    assert [len(sheet.pages) for sheet in made.sheets] == [2, 1, 1] and not made.with_pictures


def test_the_text_of_a_plot_is_upstreams() -> None:
    made = xyz(("CFG Scale", "3,9"), ("Seed", "1,2"))
    assert made.sheets[0].pairs == {
        "Script": "X/Y/Z plot",
        "X Type": "CFG Scale",
        "X Values": "3,9",
        "Y Type": "Seed",
        "Y Values": "1,2",
        "Fixed Y Values": "1, 2",
    }
    (page,) = made.sheets[0].pages
    assert [labels[0].text for labels in page.top] == ["CFG Scale: 3.0", "CFG Scale: 9.0"]


def test_words_are_searched_and_put_in_order() -> None:
    made = xyz(("Prompt S/R", 'red,blue,"green, dark"'), prompt="a red square")
    assert [one.prompt for one in made.requests] == ["a red square", "a blue square", "a green, dark square"]
    with pytest.raises(RequestError, match="did not find"):
        xyz(("Prompt S/R", "yellow,blue"), prompt="a red square")
    ordered = xyz(("Prompt order", "red,old"), prompt="a red, very old square").requests
    assert [one.prompt for one in ordered] == ["a red, very old square", "a old, very red square"]


def test_seeds_of_a_plot() -> None:
    drawn = xyz(("Seed", "-1,-1"), ("Steps", "1,2")).requests
    assert drawn[0].seed == drawn[2].seed != drawn[1].seed, "one seed for each -1"
    assert [one.seed for one in xyz(("Seed", "-1,-1"), ("Steps", "1,2")).requests] == [one.seed for one in drawn]
    kept = xyz(("Seed", "-1,-1"), ("Steps", "1,2"), keep_random=True).requests
    assert len({one.seed for one in kept}) == 4
    varied = xyz(("Steps", "1,2"), ("CFG Scale", "1,2"), vary_x=True, vary_y=True, seed=10).requests
    assert [one.seed for one in varied] == [10, 11, 12, 13]


EXAMPLES = {
    "Sampler": "Euler,DDIM", "Schedule type": "Karras,Beta", "Styles": "one,two", "Size": "64x128,128x64",
    "RNG source": "CPU,NV", "Face restore": "None,GFPGAN", "Refiner checkpoint": "other,third", "VAE": "None,other",
    "Hires upscaler": "Latent,Lanczos", "Hires sampler": "Euler,DDIM", "Checkpoint name": "a,b",
    "Prompt S/R": "red,blue", "Prompt order": "a,red", "Always discard next-to-last sigma": "True,False",
    "SGM noise multiplier": "True,False", "Seed": "1,2", "Var. seed": "1,2", "Steps": "3,4", "Hires steps": "3,4",
    "Clip skip": "1,2", "UniPC Order": "2,4", "FP8 mode": "", "Image CFG Scale": "", "Cond. Image Mask Weight": "",
}  # fmt: skip


@pytest.mark.parametrize("axis", [axis.name for axis in xyz_plot.AXES[1:]])
def test_every_axis_changes_the_request(axis: str) -> None:
    written = EXAMPLES.get(axis, "0.1,0.2")
    if not written:
        with pytest.raises(RequestError, match="no meaning"):
            xyz((axis, "1,2"))
        return
    extra: dict[str, Any] = {"refiner": Refiner(checkpoint="r"), "second_pass": SecondPass()}
    if axis == "Initial noise multiplier":
        extra = {"start": StartImage(image="0" * 64)}
    first, second = xyz((axis, written), prompt="a red square", **extra).requests
    assert first != second and replace(first, script=None) == first


def test_clients_name_an_axis_by_its_number() -> None:
    args = [6, "3,9", [], 1, "1,2", [], 0, "", [], True, False, False, False, False, False, False, 0, True]
    options = xyz_plot.options_from(args, False)
    assert (options["x_axis"], options["y_axis"], options["z_axis"]) == ("CFG Scale", "Seed", "Nothing")
    picked = xyz_plot.options_from(["Sampler", "", ["Euler", "DPM++ 2M"]], False)
    assert (picked["x_values"], picked["legend"], picked["y_axis"]) == ("Euler,DPM++ 2M", True, "Nothing")
    assert xyz_plot.offered(True)[6].name == "Image CFG Scale"
    assert prompt_matrix.options_from([False, False, "positive", "comma", 0], False)["joining"] == "comma"
    assert prompts_from_file.options_from([False, False, "start", "a"], False)["lines"] == "a"
    with pytest.raises(RequestError):
        xyz_plot.options_from([99], False)


def test_other_options_are_refused() -> None:
    with pytest.raises(RequestError, match="do not fit"):
        expansion("X/Y/Z plot", {"w_axis": "Seed"})
    with pytest.raises(RequestError, match="X/Y/Z plot"):
        expansion("XYZ", {})
    with pytest.raises(RequestError, match="pictures"):
        xyz(("Steps", "1-100"), ("Seed", "1-100"))


START = StartImage(image="a" * 64, denoising_strength=0.3)


def test_sd_upscale_paints_every_tile_with_its_seed() -> None:
    options = {"upscaler": "Lanczos", "scale": 2.0, "overlap": 64}
    size = Size(width=128, height=128)
    made = expansion("SD upscale", options, start=START, size=size, seed=1234, batch_count=2)
    start = made.start
    assert start is not None and (start.tiles.width, start.tiles.height) == (256, 192)
    assert (start.tiles.lefts, start.tiles.tops) == ((0, 64, 128), (0, 64))
    assert [request.seed for request in made.requests] == [*range(1234, 1240), *range(1235, 1241)]
    assert all(request.script is None and request.pictures == 1 for request in made.requests)
    assert [sheet.pages[0].cells for sheet in made.sheets] == [tuple(range(6)), tuple(range(6, 12))]
    assert made.sheets[0].pairs == {"SD upscale overlap": "64", "SD upscale upscaler": "Lanczos"}


@pytest.mark.parametrize(
    ("options", "more", "sentence"),
    [
        ({"scale": 2.0}, {}, "belongs to img2img"),
        ({"scale": 2.0}, {"start": START, "size": Size(width=512, height=512)}, "fewer than a tile of 512x512"),
        ({"overlap": 64}, {"start": START, "size": Size(width=64, height=64)}, "must be less"),
        ({"scale": 9.0}, {"start": START}, "Scale factor"),
        ({}, {"start": replace(START, mask=Mask(image="b" * 64))}, "take the mask away"),
    ],
)
def test_an_upscale_that_cannot_be_is_a_sentence(options: dict[str, Any], more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        expansion("SD upscale", options, **more)


@given(st.integers(8, 400), st.integers(8, 400), st.floats(1, 4))
def test_the_enlarged_size_is_what_the_upscaler_makes(width: int, height: int, scale: float) -> None:
    (lanczos,) = (one for one in UPSCALERS if one.name == "Lanczos")
    pixels = np.zeros((height, width, 3), np.uint8)
    wanted = sd_upscale.enlarged_size((width, height), sd_upscale.Options(upscaler="Lanczos", scale=scale))
    assert upscaled_by(pixels, scale, lanczos).shape == (wanted[1], wanted[0], 3)
    as_it_is = sd_upscale.Options(upscaler="None", scale=scale)
    assert sd_upscale.enlarged_size((width, height), as_it_is) == (width, height)


def test_sd_upscale_by_position() -> None:
    assert sd_upscale.options_from([None, 32, "Lanczos", 1.5], True) == {
        "overlap": 32,
        "upscaler": "Lanczos",
        "scale": 1.5,
    }
    with pytest.raises(RequestError, match="name it"):
        sd_upscale.options_from([None, 32, 2, 1.5], True)


@pytest.mark.parametrize(
    ("curve", "strengths"),
    [("Linear", [0.3, 0.5, 0.7]), ("Aggressive", [0.3, 0.582842712, 0.7]), ("Lazy", [0.3, 0.417157288, 0.7])],
)
def test_a_loopback_goes_along_its_curve(curve: str, strengths: list[float]) -> None:
    start = replace(START, mask=Mask(image="b" * 64, content=MaskedContent.FILL))
    options = {"loops": 3, "final_strength": 0.7, "curve": curve}
    made = expansion("Loopback", options, start=start, seed=10, batch_count=2)
    starts = [request.start for request in made.requests if request.start is not None]
    assert [one.denoising_strength for one in starts] == pytest.approx(strengths * 2)
    assert [one.mask.content for one in starts if one.mask] == [MaskedContent.FILL, *2 * [MaskedContent.ORIGINAL]] * 2
    assert [request.seed for request in made.requests] == list(range(10, 16))
    assert made.follows == {1: 0, 2: 1, 4: 3, 5: 4}
    assert made.sheets[0].pages[0].cells == (2, 5)


def test_a_loopback_of_one_loop_is_one_picture_without_a_sheet() -> None:
    made = expansion("Loopback", {"loops": 1}, start=START, seed=10)
    assert len(made.requests) == 1 and not made.sheets
    with pytest.raises(RequestError, match="CLIP"):
        loopback.options_from([4, 0.5, "Linear", "CLIP"], True)
    with pytest.raises(RequestError, match="curve"):
        expansion("Loopback", {"curve": "Steep"}, start=START)


# --- batch ------------------------------------------------------------------------------------------------------

A, B = "ab" * 32, "cd" * 32


def test_a_batch_starts_from_each_picture_with_the_same_seed() -> None:
    made = expansion("Batch", {"pictures": [A, B]}, start=START, seed=10, batch_count=2)
    assert [one.start.image for one in made.requests if one.start] == [A, B]
    assert [(one.seed, one.batch_count, one.script) for one in made.requests] == [(10, 2, None)] * 2
    drawn = expansion("Batch", {"pictures": [A, B]}, drawn=True, start=START, seed=10)
    assert len({one.seed for one in drawn.requests}) == 2


def test_a_batch_has_masks_and_sizes_of_its_own() -> None:
    start = replace(START, mask=Mask(image=A, blur=7))
    made = expansion("Batch", {"pictures": [A, B], "masks": [B, A], "sizes": [[64, 72], [80, 64]]}, start=start)
    masks = [one.start.mask for one in made.requests if one.start and one.start.mask]
    assert [(mask.image, mask.blur) for mask in masks] == [(B, 7), (A, 7)]
    assert [(one.size.width, one.size.height) for one in made.requests] == [(64, 72), (80, 64)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "has no pictures"),
        ({"pictures": ["x"]}, "SHA-256"),
        ({"pictures": [5]}, "SHA-256"),
        ({"pictures": A}, "must be a list"),
        ({"pictures": [A, B], "masks": [A]}, "The batch has 2 pictures and 1 masks; give one for each."),
        ({"pictures": [A], "sizes": [64]}, "must be a width and a height"),
        ({"pictures": [A], "sizes": [["64", 64]]}, "Width is '64'; it must be a whole number"),
    ],
)
def test_what_is_no_batch_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        expansion("Batch", options, start=START)
