"""The kinds of networks that plugins registered; what is wrong with one names its plugin."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from webui.conditioning.extra_networks import HOOK, ROLES, NetworkKind, NetworkKinds
from webui.plugins.calling import FAILED
from webui.plugins.conduct import printable
from webui.prompt.extra_networks import LORA_WORDS

if TYPE_CHECKING:
    from webui.plugins.manager import Plugins

LORAS = "webui.conditioning.lora"
"""Where the words of LoRAs belong, which are no registered kind."""


def registered_kinds(plugins: Plugins) -> NetworkKinds:
    """The kinds that can be used, in the order of registration; the others are named."""
    found: dict[str, NetworkKind] = {}
    claims = dict.fromkeys(LORA_WORDS, LORAS)
    for name, (part, owner) in plugins.owned(HOOK).items():
        kind = _kind(plugins, name, part, owner)
        if kind is None:
            continue
        taken = next((word for word in kind.words if word.casefold() in claims), None)
        if taken is not None:
            both = f"Both {plugins.named(claims[taken.casefold()])} and {plugins.named(owner)}"
            plugins.note(owner, HOOK, f'{both} register the word "{taken}" ({HOOK}); the one of {owner} was left out.')
            continue
        claims |= dict.fromkeys((word.casefold() for word in kind.words), owner)
        found[kind.name] = kind
    return NetworkKinds(found, partial(plugins.ask, HOOK))


def _kind(plugins: Plugins, name: str, part: Any, owner: str) -> NetworkKind | None:
    """What was registered, where it can be used."""
    from webui.plugins.manager import extension_named

    def looked_at() -> NetworkKind | str:
        if name.casefold() in ROLES and extension_named(owner) is not None:
            return "the program has files of its own that are called so"
        try:
            return NetworkKind.of(part)
        except ValueError as error:
            return str(error)

    told = plugins.run(owner, HOOK, looked_at)
    if isinstance(told, NetworkKind):
        return told
    if told is not FAILED:
        plugins.note(owner, HOOK, f"{owner}: the kind of networks {name} was left out: {printable(told)}.")
    return None
