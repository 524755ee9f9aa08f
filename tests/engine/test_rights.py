"""Who may change extensions: the person at this computer, unless the command line says otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from webui.engine.rights import check_owner, is_shared, why_not
from webui.errors import RightsError
from webui.settings import Settings

HERE = {"host": "127.0.0.1:7860"}
LOCAL = Settings()
SHARED = (
    Settings(host="0.0.0.0", password="secret"),
    Settings(host="192.168.1.5", password="secret"),
    Settings(allowed_hosts=("pictures.example.org",)),
)


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "[::1]:7860", "LOCALHOST:7860"])
@pytest.mark.parametrize("password", [None, "secret"])
def test_the_person_at_this_computer_may(client: str, host: str, password: str | None) -> None:
    assert why_not(replace(LOCAL, password=password), client, {"host": host}) == ""


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("192.168.1.7", HERE),
        ("::ffff:192.168.1.7", HERE),
        ("", HERE),
        (None, HERE),
        ("testclient", HERE),
        ("127.0.0.1", {}),
        ("127.0.0.1", {"host": "pictures.example.org"}),
        ("127.0.0.1", {**HERE, "x-forwarded-for": "10.0.0.1"}),
        ("127.0.0.1", {**HERE, "forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", {**HERE, "x-real-ip": "127.0.0.1"}),
    ],
)
def test_others_may_not(client: str | None, headers: dict[str, str]) -> None:
    with pytest.raises(RightsError, match="not from elsewhere") as caught:
        check_owner(LOCAL, client, headers)
    assert caught.value.status == 403


@pytest.mark.parametrize("settings", SHARED)
def test_on_a_shared_server_nobody_may_unless_the_command_line_says_so(settings: Settings) -> None:
    assert is_shared(settings)
    assert "Others can reach this server" in why_not(settings, "127.0.0.1", HERE)
    opened = replace(settings, insecure_extension_access=True)
    assert why_not(opened, "127.0.0.1", HERE) == why_not(opened, "192.168.1.7", {"host": "192.168.1.5"}) == ""


def test_the_settings_reach_the_worker_and_come_back() -> None:
    settings = replace(LOCAL, insecure_extension_access=True)
    assert Settings.from_dict(settings.to_dict()) == settings
