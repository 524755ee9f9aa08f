"""a capture -> HTML for the tab and for a file: pictures inside, no script anywhere, everything written escaped.

The page is chosen from with radio buttons that style sheets listen to, so that a file shared with others needs no
script at all, and the arrow keys work by themselves.  No torch.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np

from . import figures
from .capture import Maps, Pass
from .colours import overlay_png
from .words import Word, words

MOST_WORDS = 24
"""Words of a prompt that get a heat map."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Even if something got past the escaping, a browser would neither run nor fetch it."""


def document(title: str, passes: Sequence[Pass], final: bytes | None) -> str:
    """A whole HTML file about a job; ``final`` is its picture as a JPEG."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style()}</style></head>"
        f'<body class="x-alone">{fragment(passes, final)}</body></html>'
    )


def style() -> str:
    """The style sheet of all that is made here."""
    sheet = resources.files(__package__).joinpath("xray.css").read_text("utf-8")
    rules = [
        f".x-pick-{number}:checked ~ .x-panes > .x-pane-{number} {{ display: block; }}"
        f".x-pick-{number}:checked ~ .x-picks > .x-for-{number} "
        "{ background: var(--x-accent); border-color: var(--x-accent); color: #fff; }"
        f".x-pick-{number}:focus-visible ~ .x-picks > .x-for-{number} "
        "{ outline: 3px solid var(--x-accent-soft); outline-offset: 2px; }"
        for number in range(16)
    ]
    return sheet + "".join(rules)


def fragment(passes: Sequence[Pass], final: bytes | None, *, running: bool = False) -> str:
    """What is known of a job, pass by pass."""
    parts = []
    for number, one in enumerate(passes):
        last = number + 1 == len(passes)
        heading = f'<h2 class="x-walk">{_walk_name(one, number)}</h2>' if len(passes) > 1 else ""
        parts.append(heading + _pass(one, final if last else None))
    wait = '<p class="x-wait">The picture is still on its way; this grows with it.</p>' if running else ""
    return f'<div class="xray">{wait}{"".join(parts)}</div>'


def _walk_name(one: Pass, number: int) -> str:
    width, height = one.facts["size"]
    names = ("First walk", "Second walk", "Third walk", "Fourth walk")
    return f"{names[number]} · {escape(str(one.facts['model']))} · {width}×{height}"


def _pass(one: Pass, final: bytes | None) -> str:
    facts = one.facts
    pictures = int(facts.get("pictures", 1))
    which = f" It is picture {int(facts['picture']) + 1} of {pictures}." if pictures > 1 else ""
    return (
        _section("The prompt becomes tokens", _TOKENS, "".join(map(_prompt, facts["prompts"])))
        + _section("The noise it came down", _NOISE.format(sampler=escape(_walk_words(facts))) + which, _schedule(one))
        + _section("On its way", _WAY, _film(one))
        + _attention(one, final)
        + _guidance(one)
        + _alike(facts.get("similarity") or {})
    )


def _section(title: str, lead: str, body: str) -> str:
    return f'<section class="x-part"><h3>{title}</h3><p class="x-lead">{lead}</p>{body}</section>' if body else ""


def _walk_words(facts: Mapping[str, Any]) -> str:
    return f"{facts['sampler']} with the {facts['schedule']} schedule, {len(facts['sigmas']) - 1} steps"


def picture(data: bytes, alt: str) -> str:
    """A single JPEG."""
    return f'<img class="x-single" alt="{escape(alt)}" src="{_data(data, "jpeg")}">'


# --- tokens -------------------------------------------------------------------------------------------------------


def _prompt(prompt: Mapping[str, Any]) -> str:
    """One prompt: its spans over the steps, each with its chunks."""
    name = "Negative prompt" if prompt["negative"] else "Prompt"
    weight = "" if prompt["weight"] == 1 else f' <span class="x-weight">× {prompt["weight"]:g}</span>'
    spans, first, parts = prompt["spans"], 1, []
    for span in spans:
        when = f'<p class="x-when">calls {first} to {span["last"]}</p>' if len(spans) > 1 else ""
        parts.append(when + "".join(_chunk(chunk, number) for number, chunk in enumerate(span["chunks"], 1)))
        if span.get("left_out"):
            parts.append(f'<p class="x-when">and {int(span["left_out"])} more chunks</p>')
        first = int(span["last"]) + 1
    return f'<div class="x-prompt"><h4>{name}{weight}</h4>{"".join(parts)}</div>'


def _chunk(chunk: Mapping[str, Any], number: int) -> str:
    chips, begins = ['<span class="x-token x-mark" title="the begin mark">▸</span>'], True
    for place, text in enumerate(chunk["texts"]):
        weight, ends = float(chunk["weights"][place]), bool(chunk["ends"][place])
        edges = ("x-first " if begins else "") + ("x-last" if ends else "")
        badge = "" if weight == 1 or not ends else f"<b>{weight:.3g}</b>"
        title = f"token {int(chunk['ids'][place])}, weight {weight:.4g}"
        shown = escape(text) or "·"
        chips.append(f'<span class="x-token {edges}" style="{_tint(weight)}" title="{title}">{shown}{badge}</span>')
        begins = ends
    chips.append(
        f'<span class="x-token x-mark" title="the end mark, then padding">◂ {75 - chunk["length"]} empty</span>'
    )
    count = f'<span class="x-count">chunk {number}: {int(chunk["length"])} of 75</span>'
    return f'<div class="x-chunk">{count}{"".join(chips)}</div>'


def _tint(weight: float) -> str:
    """Warm for what is stronger than it stands there, cool for what is weaker."""
    if weight == 1:
        return ""
    share = min(abs(weight - 1) / 0.6, 1) * 100
    colour = "var(--x-accent)" if weight > 1 else "var(--x-cool)"
    return f"background:color-mix(in srgb, {colour} {20 + share * 0.35:.0f}%, var(--x-card))"


# --- noise and film -----------------------------------------------------------------------------------------------


def _schedule(one: Pass) -> str:
    facts = one.facts
    if not facts["sigmas"]:
        return ""
    asked = [sigma for _, sigma in facts["asked"]]
    kept = [frame["sigma"] for frame in one.frames]
    return figures.schedule(facts["sigmas"], asked, kept, facts["trained"]) + _LEGEND


def _film(one: Pass) -> str:
    rows = (
        ("noisy", "noisy picture", "x<sub>t</sub>"),
        ("clean", "clean picture seen in it", "predicted x<sub>0</sub>"),
        ("noise", "noise seen in it", "predicted ε"),
    )
    return _strip(one, one.frames, rows)


def _strip(one: Pass, frames: Sequence[Mapping[str, Any]], rows: Sequence[tuple[str, str, str]]) -> str:
    """A row of pictures for each kind, a column for each moment."""
    if not frames:
        return ""
    heads = "".join(
        f'<span class="x-moment">step {int(frame["step"])}<i>σ {float(frame["sigma"]):.3g}</i></span>'
        for frame in frames
    )
    lines = [f'<span class="x-corner"></span>{heads}']
    for kind, words_, sign in rows:
        cells = "".join(_frame(one, frame, kind, words_) for frame in frames)
        lines.append(f'<span class="x-row"><b>{sign}</b>{words_}</span>{cells}')
    return (
        f'<div class="x-strip" tabindex="0" role="region" aria-label="Pictures over the steps" '
        f'style="--x-columns:{len(frames)}">{"".join(lines)}</div>'
    )


def _frame(one: Pass, frame: Mapping[str, Any], kind: str, words_: str) -> str:
    data = one.picture(frame["call"], kind)
    if data is None:
        return '<span class="x-hole"></span>'
    alt = f"Step {int(frame['step'])}: {words_}"
    mime = "png" if kind == "difference" else "jpeg"
    return (
        f'<span class="x-slot"><img class="x-frame" tabindex="0" alt="{escape(alt)}" title="{escape(alt)}" '
        f'src="{_data(data, mime)}"></span>'
    )


def _data(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# --- attention ----------------------------------------------------------------------------------------------------


def _attention(one: Pass, final: bytes | None) -> str:
    frames = [frame for frame in one.frames if frame["maps"]]
    if not frames:
        return ""
    name = f"x-{one.folder.parent.name}-{one.number}"
    last = one.picture(frames[-1]["call"], "clean")
    panes = [("all steps", _pane(one, one.maps(), None, final or last))]
    for frame in frames:
        base = one.picture(frame["call"], "clean")
        panes.append((f"step {int(frame['step'])}", _pane(one, one.maps(frame["call"]), int(frame["call"]), base)))
    inputs, labels, bodies = [], [], []
    for number, (label, body) in enumerate(panes):
        checked = " checked" if number == 0 else ""
        ident = escape(f"{name}-{number}")
        inputs.append(
            f'<input class="x-pick x-pick-{number}" type="radio" name="{escape(name)}" id="{ident}" '
            f'aria-label="Where the words looked: {label}"{checked}>'
        )
        labels.append(f'<label class="x-for-{number}" for="{ident}">{label}</label>')
        bodies.append(f'<div class="x-pane x-pane-{number}">{body}</div>')
    body = (
        f'<div class="x-choice">{"".join(inputs)}<div class="x-picks">{"".join(labels)}</div>'
        f'<div class="x-panes">{"".join(bodies)}</div></div>'
    )
    return _section("Where each word looked", _LOOKED, body)


def _pane(one: Pass, maps: Maps, call: int | None, base: bytes | None) -> str:
    """A picture for each word of each prompt."""
    asked = [prompt for prompt in one.facts["prompts"] if not prompt["negative"]]
    parts = []
    for number, prompt in enumerate(asked):
        if number not in maps:
            continue
        spoken = words(_span(prompt["spans"], call)["chunks"])
        cards = "".join(_word(word, maps[number], base) for word in spoken[:MOST_WORDS])
        more = f'<p class="x-when">and {len(spoken) - MOST_WORDS} more words</p>' if len(spoken) > MOST_WORDS else ""
        head = f'<p class="x-when">prompt {number + 1}</p>' if len(asked) > 1 else ""
        parts.append(f'{head}<div class="x-words">{cards}</div>{more}')
    return "".join(parts) or '<p class="x-when">There are no words to look at.</p>'


def _span(spans: Sequence[Mapping[str, Any]], call: int | None) -> Mapping[str, Any]:
    """What the prompt says at a call (from 0), or (None) for the longest time."""
    if call is not None:
        return next((span for span in spans if call < span["last"]), spans[-1])
    starts = [0, *(span["last"] for span in spans)]
    lengths = [end - start for start, end in pairwise(starts)]
    return spans[int(np.argmax(lengths))]


def _word(word: Word, maps: Any, base: bytes | None) -> str:
    places = [place for place in word.places if place < maps.shape[0] - 1]
    if not places:
        return ""
    share = maps[places].sum(axis=0)
    peak, low = float(share.max()), float(share.min())
    overlay = overlay_png((share - low) / max(peak - low, 1e-9))
    under = f'<img class="x-under" alt="" src="{_data(base, "jpeg")}">' if base else ""
    alt = f"Where {word.text} looked; at most {peak:.1%} of a place"
    weight = "" if word.weight == 1 else f"<b>{word.weight:.3g}</b>"
    return (
        f'<figure class="x-look" tabindex="0">{under}'
        f'<img class="x-over" alt="{escape(alt)}" title="{escape(alt)}" src="{_data(overlay, "png")}">'
        f"<figcaption>{escape(word.text)}{weight}<i>{peak:.1%}</i></figcaption></figure>"
    )


# --- guidance and similarity ----------------------------------------------------------------------------------------


def _guidance(one: Pass) -> str:
    frames = [frame for frame in one.frames if frame["guided"]]
    if not frames:
        lead = "The scale is 1 (or the negative prompt was left out), so the prompt's answer was taken as it is."
        return _section("What CFG did", lead, " ") if one.frames else ""
    rows = (
        ("uncond", "with the negative prompt", "without"),
        ("cond", "with the prompt", "with"),
        ("difference", "how far apart", "difference"),
        ("clean", f"{float(one.facts['cfg_scale']):g} times the way", "result"),
    )
    values = [float(frame["difference"]) for frame in frames]
    drawn = figures.bars(values, [f"step {int(frame['step'])}" for frame in frames])
    lead = _CFG.format(scale=f"{float(one.facts['cfg_scale']):g}")
    return _section("What CFG did", lead, _strip(one, frames, rows) + drawn)


def _alike(similarity: Mapping[str, Any]) -> str:
    if len(similarity.get("words", ())) < 2:
        return ""
    return _section("How alike the words are", _ALIKE, figures.matrix(similarity["words"], similarity["values"]))


_TOKENS = (
    "The text encoder reads pieces of words, 75 in a chunk. Pieces of one word stand close together; "
    "a number is a weight, warm for stronger, cool for weaker."
)
_NOISE = "{sampler}. A point is a step; the large ones are those pictured below."
_LEGEND = (
    '<p class="x-legend"><span class="x-dot x-dot-kept"></span>pictured <span class="x-dot x-dot-asked"></span>walked '
    '<span class="x-dot"></span>planned</p>'
)
_WAY = (
    "In each step the model looks at a noisy picture and says which clean picture and which noise it sees in it; "
    "the sampler goes a part of the way there."
)
_LOOKED = (
    "Bright is where a word had most of the attention, each word on its own scale; the number is its largest share at "
    "a place. What the words do not have goes mostly to the begin mark and the padding."
)
_CFG = (
    "The model is asked twice, with the prompt and with the negative prompt, and the result goes {scale} times as far "
    "as the difference of the two answers. The bars say how far they are apart."
)
_ALIKE = "The cosine between the text encoder's vectors, each word read alone: bright words mean nearly the same to it."
