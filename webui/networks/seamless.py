"""A network whose pictures have no edges: each side continues on the opposite one, so that copies laid in rows fit.

As AUTOMATIC1111's "Tiling" (``modules/sd_hijack.py``, apply_circular): all two-dimensional convolutions of UNet and VAE
pad with the opposite edge.  The VAE's way down has a padding of its own, zeros at right and bottom, and keeps it.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def seamless(network: Network) -> Network:
    """The same network with circular padding; it shares every tensor with the given one, which stays as it is."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    wrapped = copy.deepcopy(network, memo=dict(shared))
    for layer in wrapped.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = "circular"
    return wrapped
