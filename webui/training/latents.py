"""items -> latents, computed once and kept in a file, so that the VAE has no part in the steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Generator, Tensor

from webui.device import Compute
from webui.networks.kernels import arrange
from webui.networks.vae import AutoencoderKL
from webui.result import Pixels
from webui.training.data import DataSet
from webui.training.state import write_tensors

AT_ONCE = 16
"""So many pictures of 128 x 128 are encoded together, fewer larger ones."""
PIXELS_AT_ONCE = AT_ONCE * 128 * 128
KEPT_BYTES = 20 * 1024**3
"""Latents of all runs together take at most so much of the disk, those of one run alone as much as they need."""


@dataclass(frozen=True)
class Latents:
    """Means and log variances of every item's latent, fp16, by bucket; ``place`` is an item's bucket and row.

    With ``flips`` every bucket holds the mirrored pictures behind the others.
    """

    moments: Mapping[str, Tensor]
    place: Mapping[int, tuple[str, int]]
    flips: bool
    scale_factor: float

    def batch(self, items: Sequence[int], random: Generator) -> Tensor:
        """Unit-variance latents (B, C, h, w) fp32 of items of one bucket, drawn anew from their distributions."""
        bucket = self.place[items[0]][0]
        moments = self.moments[bucket]
        rows = torch.tensor([self.place[item][1] for item in items])
        if self.flips:
            mirrored = torch.randint(2, (len(items),), generator=random)
            rows = rows + mirrored * (len(moments) // 2)
        mean, logvar = moments[rows].float().chunk(2, dim=1)
        drawn = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=random)
        return drawn * self.scale_factor


@dataclass(frozen=True)
class LatentCache:
    """Encodes a data set with a VAE, or reads what was encoded before from ``folder``."""

    folder: Path
    vae: AutoencoderKL
    vae_digest: str
    scale_factor: float
    compute: Compute
    tell: Callable[[str], None]

    def latents(self, data: DataSet, *, flips: bool) -> Latents:
        """The latents of every item."""
        buckets: dict[str, list[int]] = {}
        for index, item in enumerate(data.items):
            buckets.setdefault(f"{item.width}x{item.height}", []).append(index)
        place = {item: (bucket, row) for bucket, items in buckets.items() for row, item in enumerate(items)}
        known = f"{data.digest} {self.vae_digest} {data.size} {flips} {self.compute.vae_dtype}"
        key = hashlib.sha256(known.encode()).hexdigest()[:20]
        path = self.folder / f"latents-{key}.safetensors"
        moments = _read(path, buckets)
        if moments is None:
            moments = self._encode(data, buckets, flips)
            write_tensors(path, moments, {"key": key})
            _make_room(self.folder, path)
        else:
            with suppress(OSError):  # a folder that can only be read
                path.touch()  # used last
        return Latents(moments, place, flips, self.scale_factor)

    def _encode(self, data: DataSet, buckets: Mapping[str, list[int]], flips: bool) -> dict[str, Tensor]:
        self.vae.to(self.compute.device, self.compute.vae_dtype)
        arrange(self.vae)
        total = len(data.items) * (1 + flips)
        done = 0
        encoded = {}
        for bucket, items in buckets.items():
            parts = []
            jobs = [(item, flip) for flip in (False, True)[: 1 + flips] for item in items]
            first = data.items[items[0]]
            count = max(1, PIXELS_AT_ONCE // (first.width * first.height))
            groups = [jobs[start : start + count] for start in range(0, len(jobs), count)]
            with ThreadPoolExecutor(max(1, self.compute.threads)) as threads:
                torch.set_num_threads(1)
                for part in threads.map(lambda group: self._group(data, group), groups):
                    parts.append(part)
                    done += len(part)
                    self.tell(f"encoding pictures {done} of {total}")
            torch.set_num_threads(self.compute.threads)
            encoded[bucket] = torch.cat(parts)
        return encoded

    def _group(self, data: DataSet, group: Sequence[tuple[int, bool]]) -> Tensor:
        torch.set_num_threads(1)
        with torch.inference_mode():
            pictures = np.stack([data.pixels(item, flip=flip) for item, flip in group])
            posterior = self.vae.encode(to_tensor(pictures).to(self.compute.device, self.compute.vae_dtype))
            return torch.cat([posterior.mean, posterior.logvar], dim=1).half().cpu()


def to_tensor(pictures: Pixels) -> Tensor:
    """Pictures (B, H, W, 3) uint8 as (B, 3, H, W) fp32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_pixels(pictures: Tensor) -> Pixels:
    """Pictures (B, 3, H, W) in about [-1, 1] as (B, H, W, 3) uint8."""
    levels = (pictures.float().clamp(-1.0, 1.0) + 1.0) * 127.5
    pixels: Pixels = levels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _make_room(folder: Path, kept: Path) -> None:
    """Remove the latents that were not used for longest, other than ``kept``, until all take at most KEPT_BYTES."""
    with suppress(OSError):  # another run removes them as well, or reads one, on a system that minds
        found = {path: path.stat() for path in folder.glob("latents-*.safetensors")}
        total = sum(about.st_size for about in found.values())
        for path in sorted(found.keys() - {kept}, key=lambda path: found[path].st_mtime):
            if total <= KEPT_BYTES:
                return
            path.unlink()
            total -= found[path].st_size


def _read(path: Path, buckets: Mapping[str, list[int]]) -> dict[str, Tensor] | None:
    """The moments kept in a file, None when it is not there or not whole."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError):
        return None  # a cache: what cannot be read is computed again
    return found if set(found) == set(buckets) else None
