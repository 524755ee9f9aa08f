"""Pictures as clients send them: base64, a data: URI or, where that is allowed, an address."""

from __future__ import annotations

import base64
import binascii
import re

from webui.api.sdapi.errors import UpstreamError
from webui.engine.engine import Engine
from webui.engine.fetch import FetchRules, fetch_picture, is_address
from webui.engine.options import Snapshot
from webui.errors import PictureError
from webui.images.pixels import read_pixels

_SPACE = re.compile(r"\s+")


def picture_bytes(text: str, options: Snapshot) -> bytes:
    """The file that ``text`` stands for, checked to be a picture.  Raises UpstreamError and FetchError (500)."""
    if is_address(text):
        if not options["api_enable_requests"]:
            raise UpstreamError(500, "Requests not allowed")
        rules = FetchRules(local=not options["api_forbid_local_requests"], agent=options["api_useragent"])
        return fetch_picture(text, rules)
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(_SPACE.sub("", text), validate=True)
        read_pixels(data)
    except (binascii.Error, ValueError, PictureError) as error:
        raise UpstreamError(500, "Invalid encoded image") from error
    return data


def stored(text: str, options: Snapshot, engine: Engine) -> str:
    """The SHA-256 under which the engine keeps the picture that ``text`` stands for."""
    return engine.put_input(picture_bytes(text, options))


def as_text(data: bytes) -> str:
    """A file as answers carry it: base64 without a prefix."""
    return base64.b64encode(data).decode()
