"""Networks that make a picture larger or better, of every architecture that ``spandrel`` recognises by its tensors.

spandrel's RestoreFormer and LaMa take three functions from torchvision, which nothing else here asks for and whose
builds do not load beside every torch.  Where torchvision is missing or broken, these three stand in for it while
spandrel is imported, and only then, so that no other package takes them for torchvision.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from webui.checkpoints.formats import BUILT_IN, Formats
from webui.device import Compute
from webui.errors import CheckpointError, NotFoundError
from webui.result import Pixels

SETS = ("params_ema.", "params-ema.", "params.", "model_state_dict.", "net_g.")
"""Names that trainers of picture networks put before those of a set of weights, the best one first."""
FACE_CALLS: Mapping[str, Mapping[str, Any]] = {
    "GFPGAN": {"return_rgb": False, "randomize_noise": False},
    "CodeFormer": {"adain": True},
}
"""How networks of faces are called that see levels from -1 to 1.  GFPGAN's noise is the one in its file, not drawn anew
at each call as in AUTOMATIC1111: the same face is always mended the same way."""
MISSING = "This needs the Python package spandrel; install it: pip install --no-deps spandrel einops."


class InterpolationMode(Enum):
    """The two ways of :func:`rotate`, under torchvision's names."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


def normalize(tensor: Tensor, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> Tensor:
    """(x - mean) / std for each channel of (..., C, H, W)."""
    shift, scale = (
        torch.as_tensor(one, dtype=tensor.dtype, device=tensor.device)[:, None, None] for one in (mean, std)
    )
    return tensor.sub_(shift).div_(scale) if inplace else (tensor - shift) / scale


def rotate(
    img: Tensor, angle: float | Tensor, interpolation: InterpolationMode = InterpolationMode.NEAREST, fill: float = 0.0
) -> Tensor:
    """The pictures (B, C, H, W) turned counter-clockwise by ``angle`` degrees around their middle, of the same size.

    What was not there before is ``fill``.
    """
    height, width = img.shape[-2:]
    turn = math.radians(float(angle))
    cos, sin = math.cos(turn), math.sin(turn)
    places = torch.tensor([[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]])
    shape = [len(img), 1, height, width]
    grid = affine_grid(places.expand(len(img), 2, 3), shape, align_corners=False).to(img)
    turned = grid_sample(img, grid, mode=interpolation.value, align_corners=False)
    inside = grid_sample(img.new_ones(shape), grid, mode=interpolation.value, align_corners=False)
    return turned + (1 - inside) * fill


def _stand_ins() -> dict[str, ModuleType]:
    """What stands in for torchvision, by module name."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    package, transforms, functional = (ModuleType(name) for name in names)
    for function in (normalize, rotate, InterpolationMode):
        setattr(functional, function.__name__, function)
    package.transforms, transforms.functional = transforms, functional  # type: ignore[attr-defined]
    return dict(zip(names, (package, transforms, functional), strict=True))


@contextmanager
def torchvision_or_stand_in() -> Iterator[None]:
    """Let ``torchvision.transforms.functional`` be imported inside: the real one, or where it fails the stand-in."""
    try:
        importlib.import_module("torchvision.transforms.functional")
    except Exception:  # missing; or built for another torch, whose registration of operators then fails
        _forget_torchvision()
        sys.modules.update(_stand_ins())
        try:
            yield
        finally:
            _forget_torchvision()
        return
    yield


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


_importing = Lock()


def spandrel() -> Any:
    """The package, with the architectures of ``spandrel_extra_arches`` (CodeFormer) when a person installed them.

    Raises CheckpointError when it is not installed.
    """
    with _importing:
        if "spandrel" not in sys.modules:
            try:
                with torchvision_or_stand_in():
                    module = importlib.import_module("spandrel")
                    with suppress(ImportError):
                        importlib.import_module("spandrel_extra_arches").install(ignore_duplicates=True)
            except ImportError as error:
                raise CheckpointError(MISSING) from error
            return module
        return sys.modules["spandrel"]


@dataclass
class PictureNetwork:
    """A network from pictures (B, C, H, W) in [0, 1] to pictures ``scale`` times as large; sides are padded as needed.

    ``architecture`` is spandrel's name for it.
    """

    descriptor: Any
    name: str

    @property
    def scale(self) -> int:
        """How many times larger its pictures are; 1 for one that repairs."""
        return int(self.descriptor.scale)

    @property
    def architecture(self) -> str:
        """What kind of network it is: "ESRGAN", "SwinIR", "GFPGAN"."""
        return str(self.descriptor.architecture.id)

    def __call__(self, pixels: Pixels, *, bgr: bool = False) -> Pixels:
        """The picture (H * scale, W * scale, 3) uint8 of a picture (H, W, 3) uint8, levels rounded.

        ``bgr`` shows the network blue where it expects red, and takes its answer the same way round.
        """
        levels = np.ascontiguousarray(pixels[:, :, ::-1] if bgr else pixels)
        made = self.run(torch.from_numpy(levels).permute(2, 0, 1)[None].float() / 255)
        result: Pixels = (255.0 * made[0].clamp(0, 1).permute(1, 2, 0)).round().to(torch.uint8).numpy()
        return np.ascontiguousarray(result[:, :, ::-1]) if bgr else result

    def repaired(self, face: Pixels, weight: float) -> Pixels:
        """A face cut out upright, (512, 512, 3) uint8, mended; ``weight`` is CodeFormer's (0 strongest, 1 least)."""
        options = FACE_CALLS.get(self.architecture)
        if options is None:
            return self(face)
        if self.architecture == "CodeFormer":
            options = {**options, "weight": weight}
        x = torch.from_numpy(np.ascontiguousarray(face)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.inference_mode():
            made = self.descriptor.model(x.to(self.descriptor.device, self.descriptor.dtype), **options)[0]
        if not torch.isfinite(made).all():
            raise CheckpointError(f"{self.name} answered with values that are no numbers; its file may be damaged.")
        levels = (made[0].float().cpu().clamp(-1, 1) + 1) / 2 * 255
        result: Pixels = levels.permute(1, 2, 0).round().to(torch.uint8).numpy()
        return result

    def run(self, x: Tensor) -> Tensor:
        """The network's answer, float32 on the CPU; asked again in fp32 when fp16 was not wide enough."""
        y = self._run(x)
        if not torch.isfinite(y).all() and self.descriptor.dtype != torch.float32:
            self.descriptor.float()
            y = self._run(x)
        if not torch.isfinite(y).all():
            raise CheckpointError(f"{self.name} answered with values that are no numbers; its file may be damaged.")
        return y

    def _run(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        if self.descriptor.input_channels == 1:  # a network of grey pictures sees each channel as one
            x = x.reshape(batch * channels, 1, *x.shape[2:])
        try:
            with torch.inference_mode():
                y: Tensor = self.descriptor(x.to(self.descriptor.device, self.descriptor.dtype))
        except RuntimeError as error:
            if "memory" in str(error).lower():
                raise
            raise CheckpointError(f"{self.name} could not be run on this picture: {error}.") from error
        return y.reshape(batch, channels, *y.shape[2:]).float().cpu()


def build(tensors: Mapping[str, Tensor], name: str, compute: Compute) -> PictureNetwork:
    """The network of a file's tensors.

    fp16 on devices that compute so, if the network bears it; else fp32, on a CPU always: these networks are small, and
    bf16's 8 bits would show as steps in smooth colours.  Raises CheckpointError for what is no such network.
    """
    package = spandrel()
    try:
        state = package.canonicalize_state_dict(dict(tensors))
        descriptor = package.MAIN_REGISTRY.load(state)
    except Exception as error:  # spandrel looks for keys of some 40 architectures in whatever is in the file
        raise CheckpointError(
            f"{name} is no upscaler or restorer that is known here (ESRGAN, Real-ESRGAN, SwinIR, DAT, HAT, SCUNet, "
            "GFPGAN and some thirty more), or it is damaged."
        ) from error
    if not isinstance(descriptor, package.ImageModelDescriptor):
        raise CheckpointError(f"{name} is a network that fills holes ({descriptor.architecture.name}), no upscaler.")
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels not in ((3, 3), (1, 1)):
        raise CheckpointError(f"{name} makes {channels[1]} channels of {channels[0]}; pictures here have 3.")
    half = compute.device.type != "cpu" and compute.dtype is torch.float16 and descriptor.supports_half
    dtype = torch.float16 if half else torch.float32
    return PictureNetwork(descriptor.to(compute.device, dtype).eval(), name)


def read_tensors(path: Path, formats: Formats = BUILT_IN) -> dict[str, Tensor]:
    """The tensors of a model file of any form, on the CPU in fp32; nothing in it is run.

    Of a file with several sets of weights ("params" and "params_ema") the first of ``SETS`` is taken.  Raises
    UnsafeFileError for a pickle that asks for more than values, CheckpointError for a damaged file, NotFoundError.
    """
    tensors = formats.open(path).load("", torch.float32, torch.device("cpu"))
    for prefix in SETS:
        below = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if below:
            return below
    return tensors


@dataclass
class PictureNetworks:
    """Networks by their file; the one used last stays loaded until its file changes or another one is wanted."""

    compute: Compute
    formats: Formats = BUILT_IN
    _key: tuple[Any, ...] = ()
    _network: PictureNetwork | None = None

    def load(self, path: Path) -> PictureNetwork:
        """The network of a file.  Errors as :func:`read_tensors` and :func:`build`."""
        try:
            stat = path.stat()
        except OSError:
            raise NotFoundError(f"The model file {path.name} is not there any more; press Refresh.") from None
        key = (path, stat.st_mtime_ns, stat.st_size)
        if self._network is None or self._key != key:
            self._network, self._key = None, ()  # makes room before the next one is read
            self._network, self._key = build(read_tensors(path, self.formats), path.name, self.compute), key
        return self._network

    def drop(self) -> None:
        """Free the network that is loaded."""
        self._network, self._key = None, ()
