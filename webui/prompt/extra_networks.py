"""Tags in a prompt that name networks, ``<lora:name:0.8>``, ``<hypernet:name:1>``, and the prompt without them.

Rules of AUTOMATIC1111 ``modules/extra_networks.py`` and ``extensions-builtin/Lora/extra_networks_lora.py``: a tag is
``<word:arguments>``, arguments are divided by colons, one with a single ``=`` is named, the rest counts by place.  For
a LoRA ``te=``, ``unet=`` and ``dyn=`` may be named; ``lbw=``, ``w=`` or an argument by place that can be nothing else
are weights by block (``block_weights.py``).  ``lyco`` is another word for ``lora``.  A LoRA's tag without a name, or
with an argument that is no number, stays text.  What the tags of other words mean is said by whoever registered the
word (``conditioning.extra_networks``).  Called by the engine for the prompt, never the negative one, and by the token
counter.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from webui.prompt.block_weights import block_weights

LORA_WORDS = ("lora", "lyco")
_TAG = re.compile(r"<(\w+):([^>]+)>")


@dataclass(frozen=True)
class LoraTag:
    """``<lora:name:text_weight:unet_weight:ranks:lbw=blocks>``; ``ranks`` keeps only the first so many of every pair.

    ``blocks`` are factors for each of ``block_weights.BLOCKS``, ``unused`` the named arguments that mean nothing here.
    """

    name: str
    text_weight: float = 1.0
    unet_weight: float = 1.0
    ranks: int | None = None
    blocks: tuple[float, ...] | None = None
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkTag:
    """``<word:arguments>`` of any other word; ``arguments`` are what stands between its colons."""

    word: str
    arguments: tuple[str, ...]

    @property
    def text(self) -> str:
        """The tag as it is written."""
        return f"<{self.word}:{':'.join(self.arguments)}>"

    @property
    def by_place(self) -> list[str]:
        """The arguments that are not named, the network's name first."""
        return [item for item in self.arguments if item.count("=") != 1]

    @property
    def named(self) -> list[tuple[str, str]]:
        """The names and values of the others."""
        pairs = (item.partition("=") for item in self.arguments if item.count("=") == 1)
        return [(name, value) for name, _, value in pairs]


@dataclass(frozen=True)
class Extracted:
    """A prompt without its tags: those of LoRAs in their order, and those of other words, known or not, in theirs."""

    text: str
    loras: tuple[LoraTag, ...] = ()
    tags: tuple[NetworkTag, ...] = ()


def extract(prompt: str) -> Extracted:
    """Take the tags out of a prompt.  Linear time, never fails.

    >>> extract("a cat <lora:ink:0.8> in rain").loras
    (LoraTag(name='ink', text_weight=0.8, unet_weight=0.8, ranks=None),)
    """
    loras: list[LoraTag] = []
    tags: list[NetworkTag] = []

    def take(found: re.Match[str]) -> str:
        if found[1] not in LORA_WORDS:
            tags.append(NetworkTag(found[1], tuple(found[2].split(":"))))
            return ""
        tag = _lora(found[2].split(":"))
        if tag is None:
            return found[0]
        loras.append(tag)
        return ""

    end = prompt.rfind(">") + 1  # behind it no tag ends, and each "<a:" would be followed to the end of the text
    text = _TAG.sub(take, prompt[:end]) + prompt[end:]
    return Extracted(text, tuple(loras), tuple(tags))


def _lora(items: list[str]) -> LoraTag | None:
    """The tag with these arguments, None when they mean none."""
    named = dict(item.split("=") for item in items if item.count("=") == 1)
    name, *places = [item for item in items if item.count("=") != 1] or [""]
    lists = [weights for item in places if (weights := block_weights(item)) is not None]
    places = [item for item in places if block_weights(item) is None]
    told = named.get("lbw", named.get("w"))
    blocks = block_weights(told) if told is not None else next(iter(lists), None)
    te, unet, dyn = (*places[:3], None, None, None)[:3]
    try:
        text_weight = _weight(named.get("te", te), 1.0)
        unet_weight = _weight(named.get("unet", unet), text_weight)
        ranks = named.get("dyn", dyn)
        kept = None if ranks is None else int(ranks)
    except ValueError:
        return None
    if not name or (kept is not None and kept < 1):
        return None
    understood = {"te", "unet", "dyn", *(("lbw", "w") if blocks is not None else ())}
    unused = tuple(f"{word}={value}" for word, value in named.items() if word not in understood)
    return LoraTag(name, text_weight, unet_weight, kept, blocks, unused)


def _weight(text: str | None, default: float) -> float:
    weight = default if text is None else float(text)
    if not math.isfinite(weight):
        raise ValueError(text)
    return weight
