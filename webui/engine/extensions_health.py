"""How the extensions behave in the server and in the worker process, put together for page and API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webui.plugins.conduct import State
from webui.plugins.manager import Plugins


@dataclass
class ExtensionsHealth:
    """``plugins`` are the server's; of the worker it is what the last job with an extension told."""

    plugins: Plugins
    _worker: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def hear(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Take what the worker tells; what it switched off is switched off here as well."""
        self._worker |= {str(report["name"]): report for report in reports}
        for report in reports:
            if report["state"] == State.SWITCHED_OFF:
                self.switch_off(str(report["name"]), str(report["why"]))

    def switch_off(self, name: str, why: str) -> None:
        """Call no hook of an extension in the server any more."""
        conduct = self.plugins.journal.conducts.get(name)
        if conduct is not None and not conduct.is_off:
            self.plugins.journal.switch_off(conduct, why)

    def told(self) -> list[dict[str, Any]]:
        """Plain JSON values, one for each extension.

        ``hooks`` has "server" and "worker", each with calls, total_s and longest_s by hook; ``problems`` are those of
        both, each sentence once.
        """
        return [self._one(report.to_dict()) for report in self.plugins.report()]

    def _one(self, here: dict[str, Any]) -> dict[str, Any]:
        there = self._worker.get(here["name"], {})
        off = here if here["state"] != State.ON else there
        problems = {problem["sentence"]: problem for problem in (*here["problems"], *there.get("problems", ()))}
        return {
            **here,
            "state": off.get("state", here["state"]),
            "why": off.get("why", here["why"]),
            "failures": max(here["failures"], there.get("failures", 0)),
            "hooks": {"server": here["hooks"], "worker": there.get("hooks", {})},
            "problems": list(problems.values()),
        }
