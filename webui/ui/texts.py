"""Pieces of HTML that the page shows, from plain values.  Everything a person or a file wrote is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from webui.request import Size

VERDICT_WORDS = {
    "bit-exact": "Every pixel is the same as in this file.",
    "equal within 1/255": "No value differs by more than one step of 255.",
    "visually close": "The pictures look alike, but their numbers differ.",
    "different": "The picture made here is another one.",
    "cannot run": "It cannot be made again here.",
}
"""The five verdicts and what each says to a person."""


EXAMPLES_SHOWN = 4

_RECIPE_GROUPS = {
    "request": "What was asked",
    "models": "Model files",
    "inputs": "Pictures that went in (SHA-256)",
    "environment": "Where it was made",
    "plugins": "Extensions that took part",
    "pixels": "Pixels (SHA-256)",
}


def model_note(*, note: str, examples: Sequence[str], folder: str) -> str:
    """The strip about the embedded model: what it is, prompts to click, how to get a full-size one; "" if no note."""
    if not note:
        return ""
    chips = "".join(
        f'<button type="button" class="chip" data-prompt="{escape(example)}">{escape(example)}</button>'
        for example in examples[:EXAMPLES_SHOWN]
    )
    tries = f'<div class="chips"><span class="muted">Try</span>{chips}</div>' if chips else ""
    return (
        f'<div class="strip"><p><strong>Built-in model.</strong> '
        f'<span class="about" title="{escape(note)}">{escape(note)}</span> '
        f'<span class="muted">For a full-size model put a checkpoint into <code>{escape(folder)}</code> '
        f"and press Refresh.</span></p>{tries}</div>"
    )


def no_model(folder: str) -> str:
    """The strip that stands where a model should be."""
    return (
        '<div class="strip warn"><p><strong>There is no model yet.</strong> Put a checkpoint into '
        f"<code>{escape(folder)}</code> and press Refresh.</p></div>"
    )


def problems(sentences: Iterable[str]) -> str:
    """One dismissible line for each broken extension; "" when there is none."""
    return "".join(
        f'<div class="strip warn problem" role="alert"><p>{escape(sentence)}</p>'
        '<button type="button" class="close" data-close=".problem" aria-label="Dismiss">×</button></div>'
        for sentence in sentences
    )


def token_counter(count: int, room: int) -> str:
    """How many tokens the prompt has, of how many fit in the chunks it takes (75 each)."""
    return f'<span title="Tokens of the prompt, and how many fit in its chunks of 75">{count}/{room}</span>'


def resulting_size(first: Size, second: Size) -> str:
    """What a hires fix makes of the size."""
    return header_note(f"from {first.width}x{first.height} to {second.width}x{second.height}")


def header_note(sentence: str) -> str:
    """A few words in the header of an accordion."""
    return f'<span class="note" title="{escape(sentence)}">{escape(sentence)}</span>'


def scaled_size(before: tuple[int, int], after: tuple[int, int]) -> str:
    """What "Resize by" makes of the size."""
    return f'<p class="muted">from {before[0]}x{before[1]} to {after[0]}x{after[1]}</p>'


def infotext(text: str) -> str:
    """A picture's ``parameters`` text for reading: prompt, negative prompt, then the settings; "" for no text."""
    if not text.strip():
        return ""
    *lines, last = text.strip().split("\n")
    if not last.startswith("Steps: "):
        lines, last = [*lines, last], ""
    whole = "\n".join(lines)
    prompt, found, negative = whole.partition("\nNegative prompt:")
    if not found and whole.startswith("Negative prompt:"):
        prompt, negative = "", whole.removeprefix("Negative prompt:")
    parts = [f'<p class="info-prompt">{escape(prompt)}</p>'] if prompt else []
    if negative:
        parts.append(f'<p class="info-negative"><b>Negative prompt:</b> {escape(negative.strip())}</p>')
    if last:
        parts.append(f'<p class="info-settings">{escape(last)}</p>')
    copy = f'<button type="button" class="copy" data-copy="{escape(text)}">Copy</button>'
    return f'<div class="infotext">{copy}{"".join(parts)}</div>'


def recipe(record: Mapping[str, Any]) -> str:
    """A recipe as a table that can be opened: a group for each part of it, one row a fact."""
    groups = {word: record[name] for name, word in _RECIPE_GROUPS.items() if record.get(name)}
    others = {name: value for name, value in record.items() if name not in _RECIPE_GROUPS}
    rows = "".join(_group(word, value) for word, value in [*groups.items(), ("Also", others)])
    return f'<details class="recipe"><summary>Recipe: what made these pixels</summary><table>{rows}</table></details>'


def _group(word: str, value: Any) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in _facts(value) if text)
    return f'<tr class="group"><th colspan="2">{escape(word)}</th></tr>{rows}' if rows else ""


def notes(sentences: Iterable[str]) -> str:
    """Remarks on what could not be read or is not known here."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="notes">{items}</ul>' if items else ""


def verdict(
    word: str,
    *,
    reasons: Iterable[str],
    ssim: float | None = None,
    psnr: float | None = None,
    largest: int | None = None,
) -> str:
    """The card that says how the picture made again compares: the word, its meaning, figures and reasons."""
    figures = []
    if ssim is not None:
        figures.append(f"SSIM {ssim:.4f}")
    if psnr is not None:
        figures.append(f"PSNR {psnr:.1f} dB")
    if largest is not None:
        figures.append(f"largest difference {largest}/255")
    kind = word.replace(" ", "-").replace("/", "-")
    shown_figures = f'<p class="figures">{" · ".join(figures)}</p>' if figures else ""
    return (
        f'<div class="verdict verdict-{escape(kind)}"><h3>{escape(word)}</h3>'
        f"<p>{escape(VERDICT_WORDS.get(word, ''))}</p>{shown_figures}{notes(reasons)}</div>"
    )


def _facts(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _facts(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _facts(item, f"{path} {index + 1}".strip())
    elif value is not None:
        yield path, str(value)
