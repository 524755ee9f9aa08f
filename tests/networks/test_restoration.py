"""Picture networks: the three stand-ins against Pillow and torch; random networks built from their tensors alone."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import conv2d

from webui.device import Compute
from webui.errors import CheckpointError, NotFoundError, UnsafeFileError
from webui.networks.restoration import (
    InterpolationMode,
    PictureNetwork,
    PictureNetworks,
    build,
    normalize,
    read_tensors,
    rotate,
    spandrel,
)

COMPUTE = Compute(torch.device("cpu"), torch.bfloat16, torch.bfloat16, 1)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)


def random_esrgan(seed: int = 0, **sizes: int) -> torch.nn.Module:
    """An ESRGAN of 8 filters and 1 block whose random weights make pictures, not grey."""
    spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(seed)
    model = ESRGAN(**{"in_nc": 3, "out_nc": 3, "num_filters": 8, "num_blocks": 1, "scale": 4, **sizes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    *_, bias = model.parameters()
    torch.nn.init.constant_(bias, 0.5)
    return model.eval()


def test_without_torchvision_spandrel_loads_and_nothing_is_left_of_the_stand_in() -> None:
    code = (
        "import sys, importlib.util as u; from webui.networks import restoration as r; r.spandrel()\n"
        "import spandrel.architectures.RestoreFormer as f\n"
        "print(len(list(r.spandrel().MAIN_REGISTRY)) > 30, u.find_spec('torchvision'), 'torchvision' in sys.modules,\n"
        "      f.tv_normalize is r.normalize)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "None", "False", "True"]


@pytest.mark.parametrize("broken", [True, False])
def test_a_torchvision_that_loads_is_used_and_one_that_breaks_is_not(broken: bool, tmp_path: Path) -> None:
    folder = tmp_path / "torchvision" / "transforms"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('no operator nms')" if broken else "")
    (folder / "__init__.py").write_text("")
    (folder / "functional.py").write_text("normalize = rotate = InterpolationMode = 'real'")
    code = (
        "from webui.networks.restoration import spandrel; spandrel()\n"
        "import spandrel.architectures.RestoreFormer as f; print(f.tv_normalize == 'real')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(not broken)


def test_normalize() -> None:
    x = torch.rand(2, 3, 4, 5)
    expected = torch.stack([(x[:, c] - m) / s for c, (m, s) in enumerate([(0.1, 0.5), (0.2, 0.4), (0.3, 2.0)])], 1)
    assert torch.allclose(normalize(x, [0.1, 0.2, 0.3], [0.5, 0.4, 2.0]), expected)
    assert normalize(x, [0, 0, 0], [2, 2, 2], inplace=True) is x


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, -1])
def test_rotate_by_quarters(quarters: int) -> None:
    x = torch.rand(2, 3, 9, 9)
    assert torch.allclose(rotate(x, 90.0 * quarters), torch.rot90(x, quarters, (2, 3)), atol=1e-5)


@pytest.mark.parametrize("angle", [10.0, -33.0, 120.0])
def test_rotate_by_any_angle_is_pillows(angle: float) -> None:
    x = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(1)), 3, 1, 1)
    turned = rotate(x, torch.tensor(angle), InterpolationMode.BILINEAR, fill=0)[0, 0]
    pillow = np.array(Image.fromarray(x[0, 0].numpy(), "F").rotate(angle, Image.Resampling.BILINEAR))
    rows, columns = np.mgrid[:48, :64]
    middle = (rows - 23.5) ** 2 + (columns - 31.5) ** 2 < 20**2
    assert np.abs(turned.numpy() - pillow)[middle].max() < 1e-4
    assert rotate(x, angle, InterpolationMode.BILINEAR, fill=7)[0, 0, 0, 0] == pytest.approx(7)


@pytest.mark.parametrize("wrapped", ["", "params_ema", "params", "state_dict", "model"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_small_esrgan_is_recognised_by_its_tensors(wrapped: str, scale: int, tmp_path: Path) -> None:
    model = random_esrgan(scale=scale)
    state: Any = dict(model.state_dict())
    torch.save({wrapped: state, "iteration": 7} if wrapped else state, tmp_path / "small.pth")
    network = build(read_tensors(tmp_path / "small.pth"), "small.pth", COMPUTE)
    assert (network.architecture, network.scale) == ("ESRGAN", scale)
    x = torch.from_numpy(PIXELS).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        expected = (model(x)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    assert len(np.unique(expected)) > 20, "the picture is not flat"
    assert np.array_equal(network(PIXELS), expected), "in fp32, although the device would compute in bf16"
    assert np.array_equal(network(PIXELS[:, :, ::-1], bgr=True), expected[:, :, ::-1])


def test_sides_are_padded_to_what_a_network_needs_and_cut_again() -> None:
    """Real-ESRGAN of factor 2 folds 2x2 pixels into channels and needs multiples of 4."""
    network = build(random_esrgan(in_nc=12, shuffle_factor=2, scale=4).state_dict(), "x2plus", COMPUTE)
    assert network.scale == 2 and network.descriptor.size_requirements.multiple_of == 4
    assert network(PIXELS[:17, :19]).shape == (34, 38, 3)


def small_networks() -> dict[str, torch.nn.Module]:
    """Small random networks of other families, by spandrel's name for the family."""
    spandrel()
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.DAT import DAT
    from spandrel.architectures.SCUNet import SCUNet
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(3)
    swin: dict[str, Any] = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8, "upscale": 2}
    dat: dict[str, Any] = {"embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [4, 8], "upscale": 2}
    return {
        "SwinIR": SwinIR(**swin, upsampler="pixelshuffle"),
        "DAT": DAT(**dat, upsampler="pixelshuffledirect"),
        "SCUNet": SCUNet(config=[1, 1, 1, 1, 1, 1, 1], dim=64),
        "Compact": Compact(num_feat=8, num_conv=2, upscale=2),
    }


@pytest.mark.parametrize("family", ["SwinIR", "DAT", "SCUNet", "Compact"])
def test_other_families_are_recognised_and_take_any_size(family: str) -> None:
    network = build(small_networks()[family].state_dict(), f"{family}.pth", COMPUTE)
    assert network.architecture == family
    made = network(PIXELS[:19, :27])
    assert made.shape == (19 * network.scale, 27 * network.scale, 3)
    assert network.scale == (1 if family == "SCUNet" else 2)


def test_a_network_of_grey_pictures_sees_each_channel_as_one() -> None:
    network = build(random_esrgan(in_nc=1, out_nc=1).state_dict(), "grey", COMPUTE)
    whole = network(PIXELS)
    for channel in range(3):
        assert np.array_equal(whole[:, :, channel], network(PIXELS[:, :, [channel] * 3])[:, :, 0])


class Halved:
    """A descriptor whose fp16 overflows."""

    input_channels, device, dtype = 3, torch.device("cpu"), torch.float16

    def float(self) -> None:
        self.dtype = torch.float32  # type: ignore[misc]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return conv2d(x.float(), torch.eye(3)[:, :, None, None]).to(x.dtype) + (
            float("inf") if self.dtype is torch.float16 else 0
        )


def test_what_overflows_in_fp16_is_computed_again_in_fp32() -> None:
    assert np.array_equal(PictureNetwork(Halved(), "half")(PIXELS), PIXELS)


class Torn(Halved):
    """A descriptor that does not run."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(self.sentence)


def test_a_network_that_does_not_run_is_said_but_memory_is_not_its_fault() -> None:
    with pytest.raises(CheckpointError, match=r"^torn.pth could not be run .*sizes do not fit"):
        PictureNetwork(Torn("sizes do not fit"), "torn.pth")(PIXELS)
    with pytest.raises(RuntimeError, match="out of memory"):
        PictureNetwork(Torn("CUDA out of memory"), "torn.pth")(PIXELS)


def test_values_that_are_no_numbers_are_said() -> None:
    state = dict(random_esrgan().state_dict())
    state["model.0.bias"] = torch.full_like(state["model.0.bias"], float("nan"))
    with pytest.raises(CheckpointError, match="no numbers"):
        build(state, "nan.pth", COMPUTE)(PIXELS)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({}, "no upscaler or restorer"),
        ({"weight": torch.zeros(3)}, "no upscaler or restorer"),
        ({"model.0.weight": torch.zeros(3)}, "no upscaler or restorer"),
    ],
)
def test_other_files_are_refused_in_one_sentence(state: dict[str, torch.Tensor], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        build(state, "other.pth", COMPUTE)


def test_a_network_of_other_channels_is_refused() -> None:
    with pytest.raises(CheckpointError, match="makes 4 channels of 4"):
        build(random_esrgan(in_nc=4, out_nc=4).state_dict(), "rgba.pth", COMPUTE)


def test_both_forms_of_a_file_are_read(tmp_path: Path) -> None:
    state = random_esrgan().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"params_ema": state}, tmp_path / "b.pth")
    networks = PictureNetworks(COMPUTE)
    first = networks.load(tmp_path / "a.safetensors")
    assert networks.load(tmp_path / "a.safetensors") is first, "it stays loaded"
    second = networks.load(tmp_path / "b.pth")
    assert np.array_equal(first(PIXELS), second(PIXELS))
    save_file(random_esrgan(1).state_dict(), tmp_path / "a.safetensors")
    assert not np.array_equal(networks.load(tmp_path / "a.safetensors")(PIXELS), first(PIXELS)), "it was replaced"
    with pytest.raises(NotFoundError):
        networks.load(tmp_path / "c.pth")


class Hostile:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.proof,))


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save({"params": Hostile(proof)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"params": Hostile(proof)}))
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # looks like TorchScript
        archive.writestr("script/code/__torch__.py", "raise SystemExit")
        archive.writestr("script/data.pkl", pickle.dumps(Hostile(proof)))
        archive.writestr("script/constants.pkl", pickle.dumps(()))
        archive.writestr("script/version", "3\n")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 and no more")
    for name in ("zip.pth", "bare.pth", "script.pt", "torn.pth"):
        with pytest.raises(CheckpointError, match=name) as caught:  # UnsafeFileError is one of them
            read_tensors(tmp_path / name)
        assert isinstance(caught.value, UnsafeFileError) or name in ("torn.pth", "bare.pth")
    assert not proof.exists()


def test_of_two_sets_of_weights_the_averaged_ones_are_taken(tmp_path: Path) -> None:
    first, second = random_esrgan(1).state_dict(), random_esrgan(2).state_dict()
    torch.save({"params": first, "params_ema": second}, tmp_path / "both.pth")
    taken = read_tensors(tmp_path / "both.pth")
    assert taken.keys() == second.keys() and all(torch.equal(taken[name], second[name]) for name in second)
