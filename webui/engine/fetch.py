"""The one place that fetches a picture from an address that somebody else wrote.

An address can name a machine that only this one reaches (a router, a cloud's metadata service, another program on this
computer), so: http and https alone; every address that the name stands for must be a public one; the connection goes
to an address that was checked, not to the name, so that a name server cannot answer otherwise the second time; each
redirect is checked the same way; size and total time are limited; what comes must be a picture.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Timer
from urllib.parse import SplitResult, urljoin, urlsplit

from webui.errors import FetchError, PictureError
from webui.images.pixels import read_pixels

MAX_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CHUNK = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class FetchRules:
    """What may be fetched.  ``local`` allows addresses that are not public; ``agent`` is the User-Agent header."""

    local: bool = False
    agent: str = ""
    max_bytes: int = 64 * 1024 * 1024
    seconds: float = 30.0


def is_address(text: str) -> bool:
    """Whether a text that should be a picture is the address of one."""
    return text[:8].lower().startswith(("http://", "https://"))


def fetch_picture(url: str, rules: FetchRules) -> bytes:
    """The bytes of the picture at ``url``.  Raises FetchError for all that the rules forbid, PictureError."""
    deadline = time.monotonic() + rules.seconds
    for _ in range(MAX_REDIRECTS + 1):
        data, onward = _one(_checked(url), rules, deadline)
        if onward is None:
            try:
                read_pixels(data)
            except PictureError as error:
                raise FetchError(f"What {_host(url)} sent is no picture: {error}") from error
            return data
        url = urljoin(url, onward)
    raise FetchError(f"{_host(url)} leads on more than {MAX_REDIRECTS} times.")


def _checked(url: str) -> SplitResult:
    """The parts of an address that may be fetched at all."""
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError as error:
        raise FetchError(f"The address of the picture is not valid: {error}.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_number:
        raise FetchError("Pictures are fetched from http:// and https:// addresses alone.")
    if parts.username is not None or parts.password is not None:
        raise FetchError("The address of the picture holds a name and a password; none are sent.")
    if not url.isascii() or any(character <= " " for character in url):
        raise FetchError("The address of the picture holds characters that an address cannot hold.")
    return parts


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "the server")[:80]


def _one(parts: SplitResult, rules: FetchRules, deadline: float) -> tuple[bytes, str | None]:
    """One request: the body, or where it leads on."""
    connection = _Connection(parts, _address(parts, rules), max(deadline - time.monotonic(), 0.01))
    watch = Timer(max(deadline - time.monotonic(), 0.01), connection.cut)  # bytes that drip keep any other timeout off
    watch.daemon = True
    watch.start()
    try:
        path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        headers = {"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": rules.agent}
        connection.request("GET", path, headers={key: value for key, value in headers.items() if value})
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308) and answer.getheader("Location"):
            return b"", str(answer.getheader("Location"))
        if answer.status != 200:
            raise FetchError(f"{parts.hostname} answered {answer.status} instead of a picture.")
        return _body(answer, rules, deadline), None
    except FetchError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        if time.monotonic() >= deadline:
            raise FetchError(f"{parts.hostname} did not send the picture in {rules.seconds:g} seconds.") from error
        raise FetchError(f"The picture could not be fetched from {parts.hostname}: {error}.") from error
    finally:
        watch.cancel()
        connection.close()


def _body(answer: http.client.HTTPResponse, rules: FetchRules, deadline: float) -> bytes:
    data = bytearray()
    while part := answer.read1(_CHUNK):
        data += part
        if len(data) > rules.max_bytes:
            raise FetchError(f"The picture is larger than {rules.max_bytes // 1024**2} MB.")
        if time.monotonic() > deadline:
            raise TimeoutError
    if time.monotonic() >= deadline:  # the watch cut it off: a stream that ends early is no whole picture
        raise TimeoutError
    return bytes(data)


def _address(parts: SplitResult, rules: FetchRules) -> str:
    """The address to connect to, every one that the name stands for having been checked."""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"There is no address for {parts.hostname}.") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not rules.local and not all(map(is_public, addresses)):
        raise FetchError("Request to local resource not allowed: pictures are fetched from public addresses alone.")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public network, whatever it is wrapped in."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is None and int(ip) >> 32 == 0:  # IPv4-compatible, an old form
            return False
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class _Connection(http.client.HTTPConnection):
    """A connection to a checked address, under the name that the address was found for."""

    def __init__(self, parts: SplitResult, address: str, timeout: float) -> None:
        default = 443 if parts.scheme == "https" else 80
        super().__init__(parts.hostname or "", parts.port or default, timeout=timeout)
        self._address = address
        self._secure = parts.scheme == "https"
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        self._raw = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._raw
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self._raw, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock.do_handshake()

    def cut(self) -> None:
        """End the connection from another thread."""
        for one in (self._raw, self.sock):
            shut: Callable[[int], None] | None = getattr(one, "shutdown", None)
            if shut is not None:
                try:
                    shut(socket.SHUT_RDWR)
                except OSError:
                    continue  # not connected any more
