"""Who may change which extensions are installed: an extension has all rights of the program, so this is who owns it.

Without further words only the person at this computer, on a server that nobody else can reach.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from webui.errors import RightsError
from webui.settings import LOOPBACK, Settings

OPTION = "--enable-insecure-extension-access"
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers that a proxy adds; behind one, everybody seems to sit at this computer."""


def is_shared(settings: Settings) -> bool:
    """Whether others can reach the server: it listens on the network, or is known by another name."""
    return settings.host not in LOOPBACK or bool(settings.allowed_hosts)


def why_not(settings: Settings, client: str | None, headers: Mapping[str, str]) -> str:
    """Why whoever sent a request may not change extensions, a sentence; empty when they may.

    ``client`` is the address that the request came from.  A password, where there is one, has been checked before
    (``guard``): who gave it is the owner.
    """
    if settings.insecure_extension_access:
        return ""
    if is_shared(settings):
        return f"Others can reach this server, so extensions are changed on its command line, or after {OPTION}."
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    if not _is_loopback(client) or host not in LOOPBACK or any(name in headers for name in FORWARDED):
        return f"Extensions are changed at the computer that runs this server, not from elsewhere (or after {OPTION})."
    return ""


def check_owner(settings: Settings, client: str | None, headers: Mapping[str, str]) -> None:
    """Raises RightsError when :func:`why_not` has a reason."""
    reason = why_not(settings, client, headers)
    if reason:
        raise RightsError(reason)


def _is_loopback(client: str | None) -> bool:
    try:
        address = ipaddress.ip_address(client or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
