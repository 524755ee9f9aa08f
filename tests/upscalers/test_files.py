"""Model files as upscalers: their names, and that tiles make the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.device import Compute
from webui.errors import JobCancelled
from webui.networks.restoration import PictureNetworks, spandrel
from webui.plugins.manager import Plugins
from webui.result import Pixels
from webui.upscalers import Upscaler, Work, find_upscaler, upscaled, upscaled_by
from webui.upscalers.files import all_upscalers, stated_scale, uses_file

COMPUTE = Compute(torch.device("cpu"), torch.float32, torch.float32, 1)


def smooth(width: int, height: int) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / a) + np.cos(columns / b) for a, b in ((5, 7), (9, 4), (3, 11))]
    return np.stack([(wave + 2) / 4 * 255 for wave in waves], 2).astype(np.uint8)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Two random ESRGANs of 8 filters and 1 block, and files that are only listed."""
    spandrel()
    from spandrel.architectures.ESRGAN import ESRGAN

    root = tmp_path_factory.mktemp("models")
    for folder in ("ESRGAN/anime", "RealESRGAN", "HAT", "ScuNET", "DAT", "SwinIR"):
        (root / folder).mkdir(parents=True)
    torch.manual_seed(1)
    state = ESRGAN(num_filters=8, num_blocks=1, scale=4).state_dict()
    save_file({name: tensor * 2 for name, tensor in state.items()}, root / "ESRGAN" / "4x-Small.safetensors")
    torch.save({"params_ema": state}, root / "RealESRGAN" / "RealESRGAN_x4plus.pth")
    for name in ("ESRGAN/anime/same.pth", "HAT/same.pth", "ScuNET/ScuNET.pth", "DAT/DAT_x2.pth"):
        (root / name).write_bytes(b"")
    return Library(root, HashCache(root / "hashes.sqlite3"))


@pytest.fixture(scope="module")
def upscalers(library: Library) -> list[Upscaler]:
    registered = Plugins.load(None).upscalers.values()
    return all_upscalers(registered, library.entries("upscaler"), PictureNetworks(COMPUTE))


def test_files_are_listed_under_the_names_that_pictures_tell(upscalers: list[Upscaler], library: Library) -> None:
    assert [upscaler.name for upscaler in upscalers if not upscaler.is_latent] == [
        "None",
        "Lanczos",
        "Nearest",
        "4x-Small",
        "anime/same",
        "DAT x2",
        "R-ESRGAN 4x+",
        "same",
        "ScuNET GAN",
    ]
    found = find_upscaler("RealESRGAN_x4plus.pth", upscalers)
    assert (found.name, found.scale) == ("R-ESRGAN 4x+", 4)
    entry = uses_file(found, library.entries("upscaler"))
    assert entry is not None and entry.path.name == "RealESRGAN_x4plus.pth"
    assert uses_file(find_upscaler("Lanczos", upscalers), library.entries("upscaler")) is None


@pytest.mark.parametrize(
    ("name", "scale"), [("4x-UltraSharp", 4), ("DAT x3", 3), ("2xNomos", 2), ("ScuNET", 4), ("99x-hope", 4), ("0x", 4)]
)
def test_the_factor_that_a_name_tells(name: str, scale: float) -> None:
    assert stated_scale(name) == scale


@pytest.mark.parametrize("size", [(100, 60), (33, 70), (40, 40)])
def test_tiles_make_the_whole(upscalers: list[Upscaler], size: tuple[int, int]) -> None:
    """Beyond the 10 pixels that this network sees, only the overlaps differ, and there by little: it is smooth."""
    upscaler, pixels = find_upscaler("4x-Small", upscalers), smooth(*size)
    told: list[tuple[int, int]] = []
    whole = upscaled_by(pixels, 4, upscaler, Work(tile=0, overlap=0))
    tiled = upscaled_by(pixels, 4, upscaler, Work(tile=32, overlap=16, after_tile=lambda *n: told.append(n)))
    assert whole.shape == tiled.shape == (size[1] * 4 // 8 * 8, size[0] * 4 // 8 * 8, 3)
    assert whole.std() > 2, "the picture is not flat"
    difference = np.abs(whole.astype(int) - tiled)
    assert difference.mean() < 0.5 and difference.max() <= 12
    assert told == [(n, len(told)) for n in range(1, len(told) + 1)] and len(told) > 1


def test_the_size_asked_for_is_reached(upscalers: list[Upscaler]) -> None:
    upscaler = find_upscaler("4x-Small", upscalers)
    assert upscaled(smooth(20, 20), 50, 47, upscaler).shape == (47, 50, 3)
    assert upscaled_by(smooth(24, 16), 1.5, upscaler).shape == (24, 32, 3), "1.5 x 24 = 36, rounded down to 32"


def test_a_wish_to_stop_is_heard_between_tiles(upscalers: list[Upscaler]) -> None:
    def stop(done: int, total: int) -> None:
        raise JobCancelled

    with pytest.raises(JobCancelled):
        upscaled_by(smooth(64, 64), 4, find_upscaler("4x-Small", upscalers), Work(tile=32, after_tile=stop))


def test_a_file_put_there_later_is_found(library: Library, tmp_path: Path) -> None:
    later = Library(tmp_path, HashCache(tmp_path / "hashes.sqlite3"))
    assert later.entries("upscaler") == ()
    (tmp_path / "ESRGAN").mkdir()
    (tmp_path / "ESRGAN" / "2x-Late.pth").write_bytes(b"")
    later.refresh("upscaler")
    assert [upscaler.name for upscaler in all_upscalers((), later.entries("upscaler"), None)] == ["2x-Late"]
