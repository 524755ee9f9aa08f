"""X-ray: how a picture came to be.  A conditioning module that only looks on, and a tab that shows what it saw.

The flow: ``tab`` (server) queues a job with the module on; ``module`` and ``recorder`` (worker) write what they see
into the job's scratch folder as ``capture`` lays it out; ``tab`` reads it back, and ``document`` makes a page of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webui.hooks import hookimpl
from webui.ui.tabs import Tab

from .module import XRay

if TYPE_CHECKING:
    from webui.ui.context import PageContext

__version__ = "1.0"


@hookimpl
def register_conditioning_modules() -> list[XRay]:
    """The module that looks on."""
    return [XRay()]


@hookimpl
def register_ui_tabs() -> list[Tab]:
    """The tab."""
    return [Tab(id="xray", label="X-ray", order=60, build=_build)]


def _build(context: PageContext) -> None:
    from .tab import build

    build(context)
