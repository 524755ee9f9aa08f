"""A training reads its base and the files of its options in a form of an extension, to the same bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from archives import archive_formats, write_archive
from safetensors.torch import load_file
from tiny_model import METADATA, tiny_weights
from training_cases import asked, materials, paint, place, taught

from webui.checkpoints import keys
from webui.training.export import option_files
from webui.training.kinds.checkpoint import CheckpointOptions
from webui.training.networks import with_chosen_parts


def test_a_lora_learns_the_same_from_a_base_in_another_form(tmp_path: Path, tiny_checkpoint: Path) -> None:
    pictures = paint(tmp_path / "pictures", {"a red square": (200, 0, 0), "a blue square": (0, 0, 200)})
    request = asked("lora", pictures, steps=2, options={"rank": 2})
    plain = taught(request, place(tmp_path / "plain", tiny_checkpoint))
    archive = write_archive(tmp_path / "tiny.npz", tiny_weights(), METADATA)
    where = place(tmp_path / "other", archive)
    other = taught(
        request, replace(where, library=replace(where.library, formats=archive_formats(tmp_path / "extensions")))
    )
    assert plain is not None and other is not None
    first, second = load_file(plain), load_file(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("prefix", ["", keys.VAE_PREFIX])
def test_the_files_of_options_may_be_in_another_form(tmp_path: Path, tiny_checkpoint: Path, prefix: str) -> None:
    pictures = paint(tmp_path / "pictures", {"a red square": (200, 0, 0)})
    weights = {n.removeprefix(keys.VAE_PREFIX): t for n, t in tiny_weights(5).items() if n.startswith(keys.VAE_PREFIX)}
    archive = write_archive(tmp_path / "vae.npz", {prefix + name: tensor for name, tensor in weights.items()})
    request = asked("checkpoint", pictures, options={"vae": str(archive)})
    given = replace(
        materials(request, tiny_checkpoint, tmp_path / "cache"), formats=archive_formats(tmp_path / "extensions")
    )
    chosen = with_chosen_parts(CheckpointOptions(vae=str(archive)), given)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in chosen.model.vae.state_dict().items())
    assert option_files(request) == {"vae": archive}
