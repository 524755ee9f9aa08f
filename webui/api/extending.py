"""What an extension returns to answer web addresses of its own (the hook ``register_api_routes``).

Imports no FastAPI: the worker process imports extensions, too, and answers nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter

    from webui.engine.access import Access


@dataclass(frozen=True, kw_only=True)
class ApiRoutes:
    """Routes below ``prefix``, such as "/controlnet" or "/ext/<name of the extension>".

    ``build`` makes the router once, when the server starts; its paths begin below the prefix.
    """

    prefix: str
    build: Callable[[Access], APIRouter]
