"""The guarded fetcher against local servers: what it must fetch, and what nobody may make it fetch."""

from __future__ import annotations

import ipaddress
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from picture_server import leads_to, sends, server
from tiny_model import picture_bytes

from webui.engine import fetch
from webui.engine.fetch import FetchRules, fetch_picture, is_public
from webui.errors import FetchError

LOCAL = FetchRules(local=True, seconds=5)


@pytest.fixture
def public_name(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``picture.example`` is a public address for the check, and this computer when it is connected to."""
    connected: list[str] = []
    look_up, connect = socket.getaddrinfo, socket.create_connection

    def found(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        if host == "picture.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]
        return look_up(host, port, *arguments, **named)

    def connecting(address: tuple[str, int], *arguments: Any, **named: Any) -> socket.socket:
        connected.append(address[0])
        return connect(("127.0.0.1", address[1]), *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(fetch.socket, "create_connection", connecting)
    return connected


def test_a_picture_comes_whole(public_name: list[str]) -> None:
    with server(sends(picture_bytes())) as (address, asked):
        port = address.rpartition(":")[2]
        assert fetch_picture(f"http://picture.example:{port}/a.png?x=1#f", FetchRules()) == picture_bytes()
    assert asked == ["/a.png?x=1"] and public_name == ["93.184.216.34"]  # the checked address, not the name


@pytest.mark.parametrize("rules", [FetchRules()])
def test_local_addresses_are_refused_before_anything_is_sent(rules: FetchRules) -> None:
    with server(sends(picture_bytes())) as (address, asked):
        port = address.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(FetchError):
                fetch_picture(f"http://{host}:{port}/", rules)
    assert asked == []


def test_a_public_server_cannot_lead_to_a_local_one(public_name: list[str]) -> None:
    with server(sends(picture_bytes())) as (secret, asked), server(leads_to(f"{secret}/secret")) as (address, _):
        port = address.rpartition(":")[2]
        with pytest.raises(FetchError, match="local resource"):
            fetch_picture(f"http://picture.example:{port}/", FetchRules())
    assert asked == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://picture.example/", "gopher://x", "//user:pw@host/"])
def test_a_redirect_out_of_http_is_refused(target: str) -> None:
    with server(leads_to(target)) as (address, _), pytest.raises(FetchError):
        fetch_picture(address, LOCAL)


def test_redirects_come_to_an_end() -> None:
    with server(leads_to("/again")) as (address, asked), pytest.raises(FetchError, match="more than 5"):
        fetch_picture(address, LOCAL)
    assert len(asked) == 6


def test_one_local_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(0, 0, 0, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(FetchError, match="local resource"):
        fetch_picture("http://picture.example/", FetchRules())


def test_more_bytes_than_allowed_are_not_read() -> None:
    with server(sends(b"x" * 5_000_000)) as (address, _), pytest.raises(FetchError, match="larger"):
        fetch_picture(address, FetchRules(local=True, max_bytes=1_000_000))


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
    for _ in range(600):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def test_a_server_that_drips_bytes_is_left() -> None:
    with server(drips) as (address, _), pytest.raises(FetchError, match="seconds"):
        fetch_picture(address, FetchRules(local=True, seconds=0.7))


@pytest.mark.parametrize("data", [b"<html>", b"", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_not_passed_on(data: bytes) -> None:
    with server(sends(data)) as (address, _), pytest.raises(FetchError, match="no picture"):
        fetch_picture(address, LOCAL)


def test_other_answers_are_no_pictures() -> None:
    with server(sends(picture_bytes(), status=404)) as (address, _), pytest.raises(FetchError, match="404"):
        fetch_picture(address, LOCAL)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "http://a:99999/", "http://u:p@a/", "http://a/\r\nX: y", "http://ä/", "http://[x/"]
)
def test_what_is_no_address_of_a_picture(url: str) -> None:
    with pytest.raises(FetchError):
        fetch_picture(url, FetchRules(seconds=2))


PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1"),
    *("64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "192.0.2.1", "2001:db8::1"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_no_such_address_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_these_are(address: str) -> None:
    assert is_public(address)
    ipaddress.ip_address(address)
