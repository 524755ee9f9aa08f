"""The scripts of AUTOMATIC1111's pages: one request made into several, each script a file with its ``SCRIPT``.

``canvas`` and ``spectrum`` are what the two outpainting scripts are made of.
"""

from __future__ import annotations

from collections.abc import Sequence

from webui.hooks import hookimpl
from webui.scripts import Script

from . import (
    batch,
    loopback,
    outpainting_mk2,
    poor_mans_outpainting,
    prompt_matrix,
    prompts_from_file,
    sd_upscale,
    xyz_plot,
)


@hookimpl
def register_scripts() -> Sequence[Script]:
    """In the order in which the Script list shows them."""
    outpainting = (outpainting_mk2, poor_mans_outpainting)
    files = (batch, loopback, *outpainting, prompt_matrix, prompts_from_file, sd_upscale, xyz_plot)
    return [file.SCRIPT for file in files]
