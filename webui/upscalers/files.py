"""One upscaler for each model file in the models folder, of every architecture in ``webui.networks.restoration``.

A picture is enlarged tile by tile, as AUTOMATIC1111 ``modules/upscaler_utils.py`` (``upscale_with_model``) does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from webui.images.tiles import tiles_of
from webui.upscalers import Upscaler, Work

if TYPE_CHECKING:
    from webui.checkpoints.library import ModelEntry
    from webui.networks.restoration import PictureNetworks
    from webui.result import Pixels

KIND = "upscaler"
"""What the library calls these files."""
KNOWN_NAMES = {
    "ESRGAN": "ESRGAN_4x",
    "RealESRGAN_x4plus": "R-ESRGAN 4x+",
    "RealESRGAN_x4plus_anime_6B": "R-ESRGAN 4x+ Anime6B",
    "RealESRGAN_x2plus": "R-ESRGAN 2x+",
    "realesr-animevideov3": "R-ESRGAN AnimeVideo",
    "realesr-general-x4v3": "R-ESRGAN General 4xV3",
    "realesr-general-wdn-x4v3": "R-ESRGAN General WDN 4xV3",
    "DAT_x2": "DAT x2",
    "DAT_x3": "DAT x3",
    "DAT_x4": "DAT x4",
    "scunet_color_real_gan": "ScuNET GAN",
    "ScuNET": "ScuNET GAN",
    "scunet_color_real_psnr": "ScuNET PSNR",
    "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN": "SwinIR 4x",
    "SwinIR_4x": "SwinIR 4x",
}
"""Name in AUTOMATIC1111, and in the text of its pictures, by the stem of the file that it downloads."""
USUAL_SCALE = 4.0
_SCALE = re.compile(r"(\d+)[xX]|[xX](\d+)")


def file_upscalers(entries: Iterable[ModelEntry], networks: PictureNetworks | None) -> list[Upscaler]:
    """The upscalers of the library's files, by name; each also answers to its file's name and path.

    ``networks`` None is for lists alone: such an upscaler is not run.  Nothing is read before a picture is enlarged.
    """
    files = list(entries)
    stems = Counter(Path(entry.name).name for entry in files)
    upscalers: dict[str, Upscaler] = {}
    for entry in files:
        stem = Path(entry.name).name
        name = KNOWN_NAMES.get(stem, stem) if stems[stem] == 1 else entry.name
        upscalers.setdefault(
            name,
            Upscaler(
                name=name,
                scale=stated_scale(name),
                enlarge=partial(_enlarge, networks, entry.path),
                aliases=(stem, entry.name, stem + entry.path.suffix),
                path=str(entry.path),
            ),
        )
    return sorted(upscalers.values(), key=lambda upscaler: upscaler.name.casefold())


def all_upscalers(
    registered: Iterable[Upscaler], entries: Iterable[ModelEntry], networks: PictureNetworks | None
) -> list[Upscaler]:
    """Every upscaler: those of latents, those registered, then those of files; of two of one name the first."""
    latents_first = sorted(registered, key=lambda upscaler: not upscaler.is_latent)
    found: dict[str, Upscaler] = {}
    for upscaler in (*latents_first, *file_upscalers(entries, networks)):
        found.setdefault(upscaler.name, upscaler)
    return list(found.values())


def stated_scale(name: str) -> float:
    """The factor that a name tells ("4x-UltraSharp", "DAT x2"), 4 when it tells none."""
    match = _SCALE.search(name)
    told = float(match[1] or match[2]) if match else USUAL_SCALE
    return told if 1 <= told <= 16 else USUAL_SCALE


def _enlarge(networks: PictureNetworks | None, path: Path, pixels: Pixels, scale: float, work: Work) -> Pixels:
    """The picture as the network of a file makes it, whatever ``scale`` is.

    Levels are rounded tile by tile, and the network is shown BGR, both as in AUTOMATIC1111 1.10.
    """
    assert networks is not None, "an upscaler that is only listed"
    network = networks.load(path)
    height, width = pixels.shape[:2]
    side = work.tile or max(width, height)
    tiles = tiles_of(width, height, side, side, work.overlap)
    small = tiles.cut(pixels)
    large: list[Pixels] = []
    for number, tile in enumerate(small, 1):
        large.append(network(tile, bgr=True))
        work.after_tile(number, len(small))
    return tiles.enlarged(network.scale).join(large)


def uses_file(upscaler: Upscaler, entries: Sequence[ModelEntry]) -> ModelEntry | None:
    """The file that an upscaler reads, None for one that needs none."""
    return next((entry for entry in entries if str(entry.path) == upscaler.path), None)
