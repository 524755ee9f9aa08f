"""The Train tab's fields and a training request say the same thing, and everything that is shown is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.engine.engine import Engine
from webui.engine.executor import Executor
from webui.engine.jobs import Job, JobState, Progress
from webui.errors import RequestError
from webui.settings import Settings
from webui.training.kinds import TrainingKind
from webui.training.request import (
    OPTIMISERS,
    PREDICTIONS,
    RATE_SCHEDULES,
    Data,
    Noise,
    Optimiser,
    Samples,
    TrainingRequest,
)
from webui.ui import training_texts
from webui.ui.training_form import (
    Holds,
    initial_values,
    option_fields,
    ordered,
    plain_from_values,
    recommended,
    request_fields,
    sections,
    values_from_plain,
)

HOSTILE = (
    st.text() | st.just("<script>alert(1)</script>") | st.just("\" onmouseover='x' {{x}} ${x} <img src=x onerror=y>")
)


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    """Something of every type that a form can hold.

    size: how large
        it may become
    ratio: a share
    words: one a line
    nothing: may stay empty
    """

    size: int = 8
    ratio: float = 0.5
    on: bool = True
    word: str = ""
    words: str = "first\nsecond"
    nothing: float | None = None
    way: Literal["up", "down"] = "up"
    table: Mapping[str, int] | None = None


def kind(name: str = "toy", **more: Any) -> TrainingKind:
    facts: dict[str, Any] = {
        "name": name,
        "label": name.title(),
        "summary": f"Teach {name}.",
        "folder": "lora",
        "options": ToyOptions,
        "begin": lambda *_: None,
        "defaults": {"optimiser.rate": 5e-3, "steps": 700},
    }
    return TrainingKind(**{**facts, **more})


KINDS = {one.name: one for one in (kind(), kind("lora", defaults={"optimiser.rate": 1e-4}))}
LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30)
SHARE = st.floats(0, 1)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.integers(-100, 10**12),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "on": st.booleans(),
        "word": LINE,
        "words": st.lists(LINE).map("\n".join),
        "nothing": st.none() | st.floats(0, 1e9),
        "way": st.sampled_from(["up", "down"]),
    },
)
REQUESTS = st.builds(
    TrainingRequest,
    kind=st.sampled_from(sorted(KINDS)),
    name=st.text("abc -_09", min_size=1, max_size=20),
    data=st.builds(
        Data,
        folder=LINE.filter(str.strip),
        size=st.none() | st.integers(1, 32).map(lambda steps: steps * 64),
        buckets=st.booleans(),
        flip=st.booleans(),
        caption=LINE,
        prefix=LINE,
        repeats=st.integers(1, 10_000),
        class_folder=LINE,
        class_caption=LINE,
        class_weight=st.floats(0, 100),
        control_folder=LINE,
    ),
    steps=st.integers(1, 100_000_000),
    batch_size=st.integers(1, 4096),
    checkpoint=st.none() | st.text("abc", min_size=1),
    seed=st.integers(0, 2**63 - 1),
    optimiser=st.builds(
        Optimiser,
        name=st.sampled_from(OPTIMISERS),
        rate=st.floats(0, 10),
        schedule=st.sampled_from(RATE_SCHEDULES),
        warmup=st.integers(0, 1000),
        ema=st.floats(0, 0.9999),
    ),
    noise=st.builds(
        Noise,
        prediction=st.sampled_from(PREDICTIONS),
        offset=SHARE,
        caption_dropout=SHARE,
        min_snr_gamma=st.floats(0, 9),
    ),
    samples=st.builds(
        Samples,
        prompts=st.lists(LINE.map(str.strip).filter(bool), max_size=8).map(tuple),
        every=st.integers(0, 10**9),
        cfg_scale=st.floats(1, 30),
        seed=st.integers(0, 2**40),
    ),
    options=OPTIONS,
    precision=st.sampled_from(["auto", "fp32", "bf16"]),
    parts=st.integers(1, 64),
    save_every_s=st.floats(1, 1e9),
)


@given(REQUESTS)
def test_a_request_survives_the_form(request_: TrainingRequest) -> None:
    shown = json.loads(json.dumps(values_from_plain(request_.to_dict())))  # what goes to the browser and comes back
    assert all(isinstance(value, str | bool) for value in shown.values())
    assert TrainingRequest.from_dict(plain_from_values(shown, KINDS)) == request_


@given(REQUESTS, st.sampled_from(sorted(KINDS)))
def test_the_options_of_other_kinds_do_not_reach_the_request(request_: TrainingRequest, other: str) -> None:
    shown = {**values_from_plain(request_.to_dict()), "kind": other}
    options = plain_from_values(shown, KINDS)["options"]
    assert options == (dict(request_.options) if other == request_.kind else {})


def test_every_leaf_of_a_request_is_on_the_form_once_and_has_words() -> None:
    def leaves(plain: Mapping[str, Any], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in plain.items():
            found |= leaves(value, f"{name}.") if isinstance(value, dict) and value else {prefix + name}
        return found

    request_ = TrainingRequest(kind="toy", name="a", data=Data(folder="b"))
    wanted = leaves(request_.to_dict()) - {"kind", "options"}
    placed = [name for section in sections() for name in section.names]
    assert sorted(placed) == sorted(wanted)
    assert all(section.names for section in sections())


def test_a_fresh_form_asks_for_what_the_kind_recommends() -> None:
    values = {**initial_values(KINDS["toy"]), "name": "a", "data.folder": "b"}
    plain = plain_from_values(values, KINDS)
    assert (plain["steps"], plain["optimiser"]["rate"]) == (700, 5e-3)
    expected = TrainingRequest(kind="toy", name="a", data=Data(folder="b"), steps=700, optimiser=Optimiser(rate=5e-3))
    assert TrainingRequest.from_dict(plain) == expected
    assert recommended(KINDS["lora"]) == {"optimiser.rate": "0.0001"}


def test_options_come_from_the_record_with_their_help() -> None:
    found = {field.name.removeprefix("options.toy."): field for field in option_fields(KINDS["toy"])}
    assert {name: field.holds for name, field in found.items()} == {
        "size": Holds.WHOLE,
        "ratio": Holds.NUMBER,
        "on": Holds.SWITCH,
        "word": Holds.TEXT,
        "words": Holds.LINES,
        "nothing": Holds.NUMBER,
        "way": Holds.CHOICE,
    }
    assert found["size"].help == "how large it may become"
    assert (found["way"].choices, found["nothing"].empty, found["on"].default) == (("up", "down"), True, True)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("steps", "", "Max steps is empty; type a number."),
        ("steps", "20.5", 'Max steps is "20.5"; it must be a whole number.'),
        ("steps", "1e999", 'Max steps is "1e999"; it must be a whole number.'),
        ("optimiser.rate", "fast", 'Learning rate is "fast"; it must be a number.'),
        ("optimiser.rate", "nan", 'Learning rate is "nan"; it must be a number.'),
        ("options.toy.size", None, "Size is empty; type a number."),
        ("kind", "none", "Choose what to teach first."),
    ],
)
def test_a_wrong_field_is_one_sentence(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        plain_from_values({**initial_values(KINDS["toy"]), field: value}, KINDS)
    assert str(caught.value) == sentence


@given(
    st.dictionaries(
        st.sampled_from(sorted([*request_fields(), "options.toy.size"])), st.text() | st.none() | st.integers()
    )
)
def test_whatever_the_browser_sends_is_a_request_or_one_sentence(values: dict[str, Any]) -> None:
    try:
        TrainingRequest.from_dict(plain_from_values({"kind": "toy", **values}, KINDS))
    except RequestError as error:
        assert str(error)


class Seen(HTMLParser):
    """Collects tags, attributes and text as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.handlers: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def job(**more: Any) -> Job:
    facts: dict[str, Any] = {
        "id": "a1",
        "kind": "train",
        "state": JobState.PAUSED,
        "progress": Progress(step=3, steps=9),
    }
    return Job(**{**facts, "request": {"name": "dog", "kind": "lora"}, **more})


@given(HOSTILE, HOSTILE)
def test_every_fragment_escapes_what_it_is_given(first: str, second: str) -> None:
    hostile = {first: kind(first, label=second, summary=first)}
    fragments = [
        training_texts.form(hostile, [(first, second)]),
        training_texts.data_check([first], [("data:image/jpeg;base64,AA==", second)], [first] * 20, second),
        training_texts.problem(first),
        training_texts.trainings([job(request={"name": first, "kind": second})], {second: first}),
    ]
    for fragment in fragments:
        seen = Seen(fragment)
        assert not {tag for tag, _ in seen.tags} & {"script", "iframe", "svg", "a", "style"}
        assert all(attrs["src"] == "data:image/jpeg;base64,AA==" for tag, attrs in seen.tags if tag == "img")
        assert not seen.handlers
    assert not set("{}$") & set(fragments[0]), "Gradio's templates would read them"


def test_the_form_has_an_input_for_every_field_and_shows_only_the_first_kinds_options() -> None:
    seen = Seen(training_texts.form(KINDS, [("starter.safetensors", "starter")]))
    names = [attrs["name"] for _, attrs in seen.tags if "name" in attrs]
    options = [field.name for one in KINDS.values() for field in option_fields(one)]
    assert sorted(names) == sorted([*request_fields(), *options, *["kind"] * len(KINDS)])
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    labelled = [attrs["for"] for tag, attrs in seen.tags if tag == "label" and "for" in attrs]
    assert len(ids) == len(set(ids)) and set(labelled) <= set(ids)
    panels = {attrs["data-kind"]: "hidden" in attrs for tag, attrs in seen.tags if tag == "fieldset"}
    assert panels == {"lora": False, "toy": True}
    assert [one.name for one in ordered(KINDS)] == ["lora", "toy"]


def test_a_kind_whose_options_cannot_be_read_does_not_take_the_form_with_it() -> None:
    @dataclass(frozen=True)
    class Broken:
        what: Nowhere = None  # type: ignore[name-defined]  # noqa: F821

    html = training_texts.form({**KINDS, "broken": kind("broken", options=Broken)}, [])
    assert "cannot be shown (NameError" in html


def test_a_stopped_training_can_go_on_and_a_finished_one_cannot() -> None:
    def orders(state: JobState) -> list[str | None]:
        seen = Seen(training_texts.trainings([job(state=state)], {}))
        return [attrs["data-do"] for tag, attrs in seen.tags if tag == "button"]

    assert "goOn" in orders(JobState.PAUSED) and "goOn" in orders(JobState.FAILED)
    assert "goOn" not in orders(JobState.DONE) and "goOn" not in orders(JobState.RUNNING)
    assert training_texts.trainings([], {}) == ""


# --- the tab ------------------------------------------------------------------------------------------------------


class Teaching:
    """What the tab asks of an engine."""

    def __init__(self, *jobs: Job) -> None:
        self.known = {one.id: one for one in jobs}
        self.submitted: list[Mapping[str, Any]] = []

    def training_kinds(self) -> list[TrainingKind]:
        return list(KINDS.values())

    def checkpoints(self) -> list[Any]:
        return [SimpleNamespace(name="starter", title="starter.safetensors", native_size=64)]

    def submit_training(self, plain: Mapping[str, Any]) -> Job:
        self.submitted.append(plain)
        TrainingRequest.from_dict(plain)
        return job(id="new")

    def job(self, job_id: str) -> Job:
        return self.known[job_id]


def tab(*jobs: Job) -> Any:
    from webui.ui.training import TrainTab

    return TrainTab(cast(Any, SimpleNamespace(engine=Teaching(*jobs))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, size in enumerate([(64, 64), (80, 80), (128, 64)]):
        Image.new("RGB", size, "red").save(tmp_path / f"{number}.png")
    (tmp_path / "0.txt").write_text("a <b>red</b> square")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.txt").write_text("x")
    return tmp_path


def looked(folder: Path, **values: str) -> tuple[str, int]:
    form = {**initial_values(KINDS["toy"]), "data.folder": str(folder), **values}
    update = tab()._look(SimpleNamespace(values=form, turn=7))
    assert update["checked"]["turn"] == 7
    return update["checked"]["html"], update["checked"]["items"]


def test_the_check_of_a_folder_tells_what_a_training_would_find(folder: Path) -> None:
    html, items = looked(folder, **{"data.caption": "a square"})
    assert "3 pictures · 1 left out · captions found: 1 · 64×64: 3" in html
    assert "a &lt;b&gt;red&lt;/b&gt; square" in html and "<b>" not in html
    assert "broken.png is not a picture" in html
    assert html.count("data:image/jpeg;base64,") == items == 3


def test_pictures_without_a_caption_are_left_out_unless_something_stands_before_every_caption(folder: Path) -> None:
    html, items = looked(folder)
    assert items == 1 and "has no caption" in html
    html, items = looked(folder, **{"data.prefix": "sks"})
    assert items == 3 and "Every caption begins with: sks" in html


def test_a_folder_that_cannot_be_used_is_one_sentence(folder: Path) -> None:
    html, items = looked(folder / "<i>")
    assert items == 0 and "There is no folder" in html and "<i>" not in html
    assert "multiple of 64" in looked(folder, **{"data.size": "100"})[0]


def test_train_submits_the_fields_and_tells_why_not() -> None:
    built = tab()
    form = {**initial_values(KINDS["toy"]), "name": "dog", "data.folder": "/pictures"}
    assert built._begin(SimpleNamespace(values=form))["job"] == "new"
    assert built.engine.submitted[0]["data"]["folder"] == "/pictures"
    assert "multiple of 64" in built._begin(SimpleNamespace(values={**form, "data.size": "100"}))["error"]
    assert "cannot be a file name" in built._begin(SimpleNamespace(values={**form, "name": ""}))["error"]


def test_use_it_puts_the_lora_into_the_prompt_once() -> None:
    made = job(state=JobState.DONE, files=("/models/Lora/dog.safetensors",))
    event = SimpleNamespace(job="a1")
    with_kind = replace(made, request={"name": "dog", "kind": "lora"})
    assert tab(with_kind)._use("a cat", event)[0] == "a cat, <lora:dog:1>"
    assert tab(with_kind)._use("", event)[0] == "<lora:dog:1>"
    assert tab(with_kind)._use("<lora:dog:1> a cat", event)[0] == "<lora:dog:1> a cat"


def test_its_settings_come_back_into_the_form() -> None:
    request_ = TrainingRequest(kind="toy", name="dog", data=Data(folder="/pictures"), steps=12)
    found = tab(job(request=request_.to_dict()))._settings(SimpleNamespace(job="a1"))["set"]
    assert TrainingRequest.from_dict(plain_from_values(found, KINDS)) == request_


def test_the_page_holds_the_tab_in_few_components(tmp_path: Path) -> None:
    from webui.ui.app import build_page

    folders = {name: tmp_path / name for name in ("models", "outputs", "extensions")}
    for path in folders.values():
        path.mkdir()
    settings = Settings(**{f"{name}_dir": path for name, path in folders.items()})
    page = build_page(Engine.create(settings, cast(Executor, None)))
    config = page.get_config_file()
    components = {c["props"].get("elem_id"): c["props"] for c in config["components"]}
    assert {"tab_train", "train_form", "train_live", "train_trainings"} <= set(components)
    assert 'data-kind="checkpoint"' in components["train_form"]["html_template"]
    targets = {event for one in config["dependencies"] for _, event in one["targets"]}
    assert {"look", "begin", "refresh", "changed", "settings", "use"} <= targets
