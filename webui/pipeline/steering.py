"""What may be changed and heard between two steps of the flow, by extensions.

The engine makes one of these for each pass from the hooks that are implemented; a field that is None costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from webui.diffusion.guidance import Guide, NetworkCall
from webui.result import Pixels

Indices = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Steering:
    """Functions from a value to the one to go on with; latents are (B, C, h, w), row j for picture ``indices[j]``.

    ``noise`` changes the unit noise that pictures begin with; ``start`` the noisy latent that the sampler begins with,
    told its sigmas; ``call`` each question to the network; ``guided`` what is made of the answers; ``denoised`` the
    clean latent seen at a sigma.  ``blended`` changes a masked latent, told the original, the mask (1, 1, h, w) and the
    level of noise.  ``second`` changes the enlarged latent before the second pass, ``final`` a picture's clean latent
    (1, C, h, w) before it is decoded, ``decoded`` its pixels after.
    """

    noise: Callable[[Tensor, Indices], Tensor] | None = None
    start: Callable[[Tensor, Sequence[float], Indices], Tensor] | None = None
    call: Callable[[NetworkCall], NetworkCall] | None = None
    guided: Guide | None = None
    denoised: Callable[[Tensor, float], Tensor] | None = None
    blended: Callable[[Tensor, Tensor, Tensor, float], Tensor] | None = None
    second: Callable[[Tensor, Indices], Tensor] | None = None
    final: Callable[[Tensor, int], Tensor] | None = None
    decoded: Callable[[Pixels, int], Pixels] | None = None


UNSTEERED = Steering()
