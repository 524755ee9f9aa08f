"""Flags of the server itself that few people need, registered as an extension's are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from webui.hooks import hookimpl
from webui.option_boxes import option
from webui.plugins.own_settings import CliOptions

NAME = "server"


@dataclass(frozen=True)
class ServerFlags:
    """How long connections are kept, in seconds, and how many there may be."""

    keep_alive: int = option(5, "Seconds for which an idle connection is kept", low=1, high=3600)
    end: int = option(2, "Seconds that open streams have when the program ends", low=0, high=600)
    connections: int = option(0, "Connections at a time, 0 for any number", low=0, high=100_000)


@hookimpl
def register_cli_options() -> Sequence[CliOptions]:
    """The group of the server."""
    return [CliOptions(name=NAME, label="the server", options=ServerFlags)]
