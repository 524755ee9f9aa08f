from __future__ import annotations

import pytest

from webui.checkpoints.keys import compare, left_over, require
from webui.errors import CheckpointError


def test_what_does_not_fit_is_reported_by_name_and_count() -> None:
    wanted = {f"layer.{i}": (2, 3) for i in range(6)}
    found = {"layer.0": (2, 3), "layer.1": (3, 2), "extra": (1,), "text_model.embeddings.position_ids": (1, 77)}
    report = compare(found, wanted)
    assert report.missing == ("layer.2", "layer.3", "layer.4", "layer.5")
    assert report.unexpected == ("extra",)
    assert report.misshapen == ("layer.1 is [3, 2], expected [2, 3]",)
    with pytest.raises(CheckpointError) as caught:
        require(report, "model.safetensors")
    sentence = str(caught.value)
    assert "model.safetensors" in sentence
    assert "4 missing (layer.2, layer.3, layer.4, …)" in sentence
    assert "1 of another shape (layer.1 is [3, 2], expected [2, 3])" in sentence
    assert "1 unexpected (extra)" in sentence


def test_unexpected_tensors_alone_do_no_harm() -> None:
    report = compare({"a": (1,), "b": (1,)}, {"a": (1,)})
    assert report.usable
    require(report, "model.safetensors")


def test_training_state_is_known_and_the_rest_is_told() -> None:
    names = dict.fromkeys(
        [
            "model.diffusion_model.x",
            "model_ema.x",
            "betas",
            "alphas_cumprod_prev",
            "first_stage_model.x",
            "v_pred",
            "lora.x",
        ]
    )
    assert left_over(names) == ["lora.x"]
