"""Pieces of HTML that the Train tab shows, from plain values.  Everything a person or a file wrote is escaped here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape

from webui.engine.jobs import Job, JobState
from webui.errors import ExtensionError
from webui.training.kinds import TrainingKind
from webui.ui.training_form import (
    Field,
    Holds,
    Section,
    Value,
    initial_values,
    option_fields,
    ordered,
    recommended,
    request_fields,
    sections,
)

SENTENCES_SHOWN = 8
MOVING = (JobState.QUEUED, JobState.RUNNING)
SPANS = {
    "name": "tf-half",
    "checkpoint": "tf-half",
    "data.folder": "tf-wide",
    "data.prefix": "tf-half",
    "data.caption": "tf-half",
    "data.control_folder": "tf-wide",
    "data.class_folder": "tf-wide",
    "samples.prompts": "tf-most",
}
"""How much of a line a field takes that takes more than a third."""


def form(kinds: Mapping[str, TrainingKind], checkpoints: Sequence[tuple[str, str]]) -> str:
    """The form with every field; ``checkpoints`` are (title, name).  Safe inside a template: no brace is left."""
    chosen = ordered(kinds)[0]
    values = initial_values(chosen)
    top, *further = sections()
    options = "".join(_options(kind, kind is chosen) for kind in ordered(kinds))
    html = (
        f'<form class="train-form" autocomplete="off" novalidate>{_kinds(kinds, chosen)}'
        f"{_section(top, values, checkpoints)}"
        f"{options}{''.join(_section(section, values, checkpoints) for section in further)}</form>"
    )
    return html.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def _kinds(kinds: Mapping[str, TrainingKind], chosen: TrainingKind) -> str:
    buttons = "".join(
        f'<label class="tf-kind"><input type="radio" name="kind" value="{escape(kind.name)}" '
        f'data-recommended="{escape(json.dumps(recommended(kind)))}" data-summary="{escape(kind.summary)}"'
        f"{' checked' if kind is chosen else ''}><span>{escape(kind.label)}</span></label>"
        for kind in ordered(kinds)
    )
    return (
        f'<div role="radiogroup" aria-label="What to teach" class="tf-kinds">{buttons}</div>'
        f'<p class="tf-summary">{escape(chosen.summary)}</p>'
    )


def _options(kind: TrainingKind, shown: bool) -> str:
    try:
        inner = "".join(_field(field, field.default) for field in option_fields(kind))
    except ExtensionError as error:
        inner = problem(str(error))
    return (
        f'<fieldset class="tf-grid" data-kind="{escape(kind.name)}"{"" if shown else " hidden"}>'
        f"<legend>{escape(kind.label)}</legend>{inner}</fieldset>"
    )


def _section(section: Section, values: Mapping[str, Value], checkpoints: Sequence[tuple[str, str]]) -> str:
    known = request_fields()
    shown = []
    for name in section.names:
        shown.append(_model(known[name], checkpoints) if name == "checkpoint" else _field(known[name], values[name]))
        if name == "data.folder":
            shown.append('<div class="tf-data tf-wide" role="status" aria-live="polite"></div>')
        if name == "precision":
            shown.append('<p class="tf-epochs tf-wide muted" role="status"></p>')
    grid = f'<div class="tf-grid">{"".join(shown)}</div>'
    if not section.title:
        return grid
    return (
        f'<details class="tf-more" id="train_{section.id}"><summary>{escape(section.title)}</summary>{grid}</details>'
    )


def _field(field: Field, value: Value) -> str:
    about = f' name="{escape(field.name)}" id="{_id(field)}" data-default="{escape(str(field.default))}"'
    hint = f'<small id="{_id(field)}_help">{escape(field.help)}</small>' if field.help else ""
    about += f' aria-describedby="{_id(field)}_help"' if field.help else ""
    if field.holds is Holds.SWITCH:
        on = " checked" if value is True else ""
        words = f"<span>{escape(field.label)}{hint}</span>"
        return f'<label class="tf-switch"><input type="checkbox"{about}{on}>{words}</label>'
    text = escape(str(value))
    span = SPANS.get(field.name, "tf-wide" if field.holds in (Holds.LINES, Holds.LIST) else "")
    if field.holds in (Holds.LINES, Holds.LIST):
        control = f'<textarea rows="3"{about}>\n{text}</textarea>'
    elif field.holds is Holds.CHOICE:
        marks = "".join(
            f'<option value="{escape(one)}"{" selected" if one == value else ""}>{escape(one)}</option>'
            for one in field.choices
        )
        control = f"<select{about}>{marks}</select>"
    elif field.holds is Holds.TEXT:
        control = f'<input type="text" spellcheck="false"{about} value="{text}">'
    else:
        mode = "numeric" if field.holds is Holds.WHOLE else "decimal"
        control = f'<input type="text" inputmode="{mode}"{about} value="{text}">'
    label = f'<label for="{_id(field)}">{escape(field.label)}</label>'
    return f'<div class="tf-field {span}">{label}{control}{hint}</div>'


def _model(field: Field, checkpoints: Sequence[tuple[str, str]]) -> str:
    marks = "".join(f'<option value="{escape(name)}">{escape(title)}</option>' for title, name in checkpoints)
    return (
        f'<div class="tf-field {SPANS[field.name]}"><label for="{_id(field)}">{escape(field.label)}</label>'
        f'<div class="tf-beside"><select name="checkpoint" id="{_id(field)}" data-default="">{marks}</select>'
        '<button type="button" class="tool icon-refresh" id="train_refresh" aria-label="Look for models again">'
        f"Look for models again</button></div><small>{escape(field.help)}</small></div>"
    )


def _id(field: Field) -> str:
    return "train_" + escape(field.name.replace(".", "_"))


def data_check(
    facts: Sequence[str], thumbnails: Iterable[tuple[str, str]], left_out: Sequence[str], prefix: str
) -> str:
    """What was found in the folder: facts, some pictures (data address, caption) and why files are left out."""
    pictures = "".join(
        f'<figure><img src="{escape(address)}" alt=""><figcaption title="{escape(caption)}">'
        f"{escape(caption) or '<em>no caption</em>'}</figcaption></figure>"
        for address, caption in thumbnails
    )
    begins = f'<p class="muted">Every caption begins with: {escape(prefix)}</p>' if prefix.strip() else ""
    return (
        f'<p class="tf-facts">{" · ".join(map(escape, facts))}</p>'
        f'<div class="tf-pictures">{pictures}</div>{begins}{sentences(left_out)}'
    )


def sentences(left_out: Sequence[str]) -> str:
    """The sentences about files that are left out, the first few of them; "" for none."""
    shown = "".join(f"<li>{escape(sentence)}</li>" for sentence in left_out[:SENTENCES_SHOWN])
    more = len(left_out) - SENTENCES_SHOWN
    if more > 0:
        shown += f"<li>and {more} more</li>"
    return f'<ul class="notes">{shown}</ul>' if shown else ""


def problem(sentence: str) -> str:
    """A sentence that says why the folder cannot be used."""
    return f'<p class="tf-problem" role="alert">{escape(sentence)}</p>'


def trainings(jobs: Sequence[Job], labels: Mapping[str, str]) -> str:
    """The recent trainings with their state, and what can be done with each; "" for none."""
    rows = "".join(_row(job, labels) for job in jobs)
    return f'<div class="train-list"><h3>Trainings</h3><ul>{rows}</ul></div>' if rows else ""


def _row(job: Job, labels: Mapping[str, str]) -> str:
    kind = str(job.request.get("kind", ""))
    begun = datetime.fromtimestamp(job.created).strftime("%d %b %H:%M")
    step, steps = job.progress.step, job.progress.steps
    far = f"{steps} steps" if job.state in MOVING or step == steps else f"step {step} of {steps}"
    words = [labels.get(kind, kind), job.state.value, far, begun]
    orders = [("show", "Show"), ("settings", "Use its settings")]
    if job.state in (JobState.PAUSED, JobState.INTERRUPTED, JobState.FAILED):
        orders.insert(0, ("goOn", "Go on"))
    buttons = "".join(
        f'<button type="button" data-training="{escape(job.id)}" data-do="{do}">{word}</button>' for do, word in orders
    )
    return (
        f'<li data-state="{job.state.value}" data-job="{escape(job.id)}"><div><strong>'
        f"{escape(str(job.request.get('name', '')))}</strong>"
        f'<span class="muted">{escape(" · ".join(words))}</span></div><div class="train-orders">{buttons}</div></li>'
    )
