"""hooks + a request -> what extensions change between two steps of the flow.  Called by the runner once a pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from webui.diffusion.guidance import Guiding, NetworkCall
from webui.errors import RequestError
from webui.networks.unet import Openings
from webui.pipeline.steering import Steering
from webui.plugins.manager import Plugins
from webui.request import GenerationRequest
from webui.result import Pixels


def steering(plugins: Plugins, request: GenerationRequest) -> Steering:
    """What is implemented of the hooks of a pass; a hook that nobody implements is not called at all."""
    steer = _Steer(plugins, request)
    return Steering(
        noise=steer.noise if plugins.has("rewrite_noise") else None,
        start=steer.start if plugins.has("rewrite_start") else None,
        call=steer.call if plugins.has("rewrite_call") else None,
        guided=steer.guided if plugins.has("rewrite_guided") else None,
        denoised=steer.denoised if plugins.has("rewrite_denoised") else None,
        blended=steer.blended if plugins.has("rewrite_blend") else None,
        second=steer.second if plugins.has("rewrite_second_start") else None,
        final=steer.final if plugins.has("rewrite_latent") else None,
        decoded=steer.decoded if plugins.has("rewrite_decoded") else None,
    )


@dataclass(frozen=True)
class _Steer:
    plugins: Plugins
    request: GenerationRequest

    def noise(self, noise: Tensor, indices: Sequence[int]) -> Tensor:
        return self._tensor("rewrite_noise", "noise", noise, indices=tuple(indices))

    def start(self, latent: Tensor, sigmas: Sequence[float], indices: Sequence[int]) -> Tensor:
        return self._tensor("rewrite_start", "latent", latent, sigmas=tuple(sigmas), indices=tuple(indices))

    def call(self, call: NetworkCall) -> NetworkCall:
        rewritten: NetworkCall = self.plugins.rewrite(
            "rewrite_call", "call", call, lambda wanted: _check_question(wanted, call), request=self.request
        )
        return rewritten

    def guided(self, guiding: Guiding) -> Tensor:
        guided: Tensor = self.plugins.derive(
            "rewrite_guided",
            guiding.guided,
            lambda value: {"guiding": _copied(guiding, value), "request": self.request},
        )
        return guided

    def denoised(self, denoised: Tensor, sigma: float) -> Tensor:
        return self._tensor("rewrite_denoised", "denoised", denoised, sigma=sigma)

    def blended(self, blended: Tensor, original: Tensor, mask: Tensor, level: float) -> Tensor:
        return self._tensor("rewrite_blend", "blended", blended, original=original, mask=mask, level=level)

    def second(self, latent: Tensor, indices: Sequence[int]) -> Tensor:
        return self._tensor("rewrite_second_start", "latent", latent, indices=tuple(indices))

    def final(self, latent: Tensor, index: int) -> Tensor:
        return self._tensor("rewrite_latent", "latent", latent, index=index)

    def decoded(self, pixels: Pixels, index: int) -> Pixels:
        pixels.setflags(write=False)
        given = {"request": self.request, "index": index}
        rewritten: Pixels = self.plugins.derive("rewrite_decoded", pixels, lambda value: {**given, "pixels": value})
        return rewritten

    def _tensor(self, hook: str, name: str, tensor: Tensor, **arguments: object) -> Tensor:
        """The tensor after every plugin; each is handed copies, so that what it changes in place is not seen."""

        def given(value: Tensor) -> dict[str, object]:
            shown = {**arguments, name: value, "request": self.request}
            return {key: one.clone() if isinstance(one, Tensor) else one for key, one in shown.items()}

        rewritten: Tensor = self.plugins.derive(hook, tensor, given)
        return rewritten


def _copied(guiding: Guiding, guided: Tensor) -> Guiding:
    """``guiding`` once ``guided`` was made of it, in tensors of its own."""
    x, cond, uncond = guiding.x.clone(), guiding.cond.clone(), guiding.uncond
    uncond = cond if uncond is guiding.cond else uncond.clone()
    return replace(guiding, x=x, cond=cond, uncond=uncond, guided=guided.clone())


def _check_question(wanted: NetworkCall, asked: NetworkCall) -> None:
    """Refuse a question that the network could not answer as it would the one ``asked``.  Raises RequestError."""
    rows = len(asked.x)
    for name, found, expected in (
        ("x", _described(wanted.x), _described(asked.x)),
        ("context", _described(wanted.context, any_axis=1), _described(asked.context, any_axis=1)),
        ("timestep", _is_number(wanted.timestep), True),
        ("sigma", _is_number(wanted.sigma), True),
        ("image", len(wanted.image), rows),
        ("conditional", len(wanted.conditional), rows),
        ("openings", isinstance(wanted.openings, Openings), True),
    ):
        if found != expected:
            raise RequestError(f"its {name} is not of the kind that it was given; change values, not shapes and types.")


def _described(value: object, any_axis: int | None = None) -> object:
    if not isinstance(value, Tensor):
        return type(value)
    return value.dtype, value.device, [size for axis, size in enumerate(value.shape) if axis != any_axis], value.ndim


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
