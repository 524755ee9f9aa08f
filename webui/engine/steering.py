"""hooks + a request -> what extensions change between two steps of the flow.  Called by the runner once a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from webui.diffusion.guidance import Guiding, NetworkCall
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
        rewritten: NetworkCall = self.plugins.rewrite("rewrite_call", "call", call, request=self.request)
        return rewritten

    def guided(self, guiding: Guiding) -> Tensor:
        guided: Tensor = self.plugins.derive(
            "rewrite_guided", guiding.guided, lambda value: {"guiding": guiding.after(value), "request": self.request}
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
        """The tensor after every plugin; each is handed a copy, so that what it changes in place is not seen."""
        given = {**arguments, "request": self.request}
        rewritten: Tensor = self.plugins.derive(hook, tensor, lambda value: {**given, name: value.clone()})
        return rewritten
