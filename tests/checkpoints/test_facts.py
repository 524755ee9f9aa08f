from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from embedding_pictures import embedding_data, plain_picture, with_text
from header_files import header_file
from hypothesis import given
from hypothesis import strategies as st

from webui.checkpoints.facts import FactCache, ModelFacts, read_facts
from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.hashes import HashCache, both_sha256, file_sha256
from webui.checkpoints.library import Library, ModelEntry
from webui.errors import RequestError, WebUIError

TAGS = {"10_cat": {"cat": 12, "on a mat": 3}, "2_dog": {"dog": 7, "on a mat": 6}}
KOHYA = {
    "ss_output_name": "ink style", "ss_base_model_version": "sdxl_base_v1-0", "ss_network_module": "networks.lora",
    "ss_network_dim": "16", "ss_network_alpha": "8.0", "ss_tag_frequency": json.dumps(TAGS), "ss_clip_skip": "None",
    "sshs_model_hash": "AB" * 32, "modelspec.title": "Ink", "modelspec.trigger_phrase": "inkstyle",
    "modelspec.author": "A. Person", "modelspec.description": "Thick\nlines", "other": "x",
}  # fmt: skip


def entry(path: Path) -> ModelEntry:
    stat = path.stat()
    return ModelEntry("lora", path.stem, path, stat.st_size, stat.st_mtime_ns)


def test_a_lora_file_of_the_usual_trainer(tmp_path: Path) -> None:
    facts = read_facts(header_file(tmp_path / "a.safetensors", KOHYA))
    assert facts == ModelFacts(
        alias="ink style",
        title="Ink",
        base="SDXL",
        author="A. Person",
        description="Thick lines",
        trigger="inkstyle",
        tags=(("cat", 12), ("on a mat", 9), ("dog", 7)),
        network_hash="ab" * 32,
        details={"module": "networks.lora", "rank": "16", "alpha": "8.0"},
    )
    assert ModelFacts.from_json(facts.to_json()) == facts


LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(
    ("metadata", "shapes", "base"),
    [
        ({"ss_base_model_version": "sd_v1"}, {}, "SD1"),
        ({"ss_base_model_version": "sd_v2_768_v"}, {}, "SD2"),
        ({"ss_v2": "True"}, {}, "SD2"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, {}, "SDXL"),
        ({"modelspec.architecture": "stable-diffusion-v1/lora"}, {}, "SD1"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, {}, "Flux"),
        ({}, {f"{LAYER}.lora_A.weight": [4, 768], f"{LAYER}.lora_B.weight": [320, 4], "x": [1], "y": [1]}, "SD1"),
        ({}, {f"{LAYER}.lora_down.weight": [4, 1024], f"{LAYER}.lora_up.weight": [320, 4], "x": [1]}, "SD2"),
        ({}, {f"{LAYER}.weight": [640, 2048], "x": [1], "y": [1]}, "SDXL"),
        ({}, {"emb_params": [3, 768]}, "SD1"),
        ({}, {"clip_l": [3, 768], "clip_g": [3, 1280]}, "SDXL"),
        ({}, {"first_stage_model.x": [768, 768], "b": [1], "c": [1]}, ""),
    ],
)
def test_the_kind_of_model_it_was_made_for(
    tmp_path: Path, metadata: dict[str, str], shapes: dict[str, list[int]], base: str
) -> None:
    assert read_facts(header_file(tmp_path / "a.safetensors", metadata, shapes)).base == base


def test_a_file_that_torch_saved_and_embeddings_in_pictures(tmp_path: Path) -> None:
    saved = tmp_path / "word.pt"
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "word"}, saved)
    assert read_facts(saved).base == "SD1"
    picture = tmp_path / "picture.png"
    picture.write_bytes(with_text(embedding_data([[0.5] * 4], name="Blot")))
    assert read_facts(picture) == ModelFacts(alias="Blot")
    plain_picture().save(picture)
    os.utime(picture, ns=(1, 1))
    assert not read_facts(picture).is_model


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "garbage": b"garbage of all kinds",
    "a length beyond the file": struct.pack("<Q", 2**60) + b"{}",
    "a cut file": struct.pack("<Q", 40) + b'{"a": {"dtype": "F16", "shape"',
    "a list": struct.pack("<Q", 4) + b"[{}]",
    "deep": struct.pack("<Q", 200_001) + b'{"a":' + b"[" * 199_996,
    "a tensor that is none": struct.pack("<Q", 10) + b'{"a": null}'[:10],
    "metadata that is none": struct.pack("<Q", 23) + b'{"__metadata__": [1,2]}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_use_has_a_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(HOSTILE[name])
    assert read_facts(path).problem.startswith("a.safetensors")


def test_metadata_of_other_kinds_than_expected_is_no_trouble(tmp_path: Path) -> None:
    strange: dict[str, Any] = {
        "ss_tag_frequency": json.dumps({"a": {"x": True, "y": 10**400, "z": "1", "w": 2}, "b": [1], "c": None}),
        "ss_output_name": "n" * 100_000,
        "modelspec.description": "<script>" * 10_000,
    }
    facts = read_facts(header_file(tmp_path / "a.safetensors", strange))
    assert facts.tags == (("w", 2),)
    assert len(facts.alias) == 300 and len(facts.to_json()) < 5000
    assert read_facts(header_file(tmp_path / "b.safetensors", {"ss_tag_frequency": "[" * 100_000})).tags == ()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = st.dictionaries(
    st.sampled_from(["dtype", "shape", "data_offsets", "attn2"]),
    VALUES | st.lists(st.integers(0, 9), max_size=3),
    max_size=4,
)


@given(st.dictionaries(st.text(max_size=6) | st.sampled_from(["__metadata__", "attn2.to_k.weight"]), ENTRIES | VALUES))
def test_no_header_breaks_the_index(header: dict[str, Any]) -> None:
    raw = json.dumps(header).encode()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(struct.pack("<Q", len(raw)) + raw)
        facts = read_facts(path)
        assert ModelFacts.from_json(facts.to_json()) == facts


@given(st.binary(max_size=200))
def test_no_bytes_break_the_index(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        for name in ("a.safetensors", "a.pt", "a.png"):
            path = Path(folder) / name
            path.write_bytes(data)
            read_facts(path)


def test_the_quick_look_sees_what_the_careful_one_sees(tmp_path: Path) -> None:
    for number, shapes in enumerate(({"a": [1]}, {"a": [2, 3], "b": [0], "c": []})):
        path = header_file(tmp_path / f"{number}.safetensors", {"k": "v"}, shapes)
        outline, header = BUILT_IN.read_outline(path), BUILT_IN.read_header(path)
        assert (outline.metadata, outline.shapes) == (header.metadata, header.shapes())
    path.write_bytes(path.read_bytes() + b"more")
    for read in (BUILT_IN.read_outline, BUILT_IN.read_header):
        with pytest.raises(WebUIError, match="4 bytes follow the last tensor"):
            read(path)


# --- remembered ---


def test_facts_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FactCache(tmp_path / "facts.sqlite3")
    path = header_file(tmp_path / "a.safetensors", {"ss_output_name": "one"})
    first = entry(path)
    assert cache.known([first]) == {}
    assert cache.of([first])[str(path)].alias == "one"
    monkeypatch.setattr("webui.checkpoints.facts.read_facts", lambda path: pytest.fail("the file was read again"))
    assert cache.of([first])[str(path)].alias == "one"
    monkeypatch.undo()
    header_file(path, {"ss_output_name": "two"})
    os.utime(path, ns=(first.mtime_ns + 1, first.mtime_ns + 1))
    assert cache.known([entry(path)]) == {}
    assert cache.of([entry(path)])[str(path)].alias == "two"


def test_a_database_that_is_none_is_no_trouble(tmp_path: Path) -> None:
    place = tmp_path / "facts.sqlite3"
    path = header_file(tmp_path / "a.safetensors", {"ss_output_name": "one"})
    place.write_bytes(b"this is no database " * 100)
    assert FactCache(place).of([entry(path)])[str(path)].alias == "one"
    assert FactCache(tmp_path / "absent" / "facts").of([entry(path)])[str(path)].alias == "one"


def test_both_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    path = header_file(tmp_path / "a.safetensors", {"k": "v"}, {"a": [3_000_000]})
    start = BUILT_IN.read_header(path).data_start
    calls: list[int] = []
    whole, data = both_sha256(path, start, lambda: calls.append(1))
    assert whole == file_sha256(path)
    assert data == hashlib.sha256(path.read_bytes()[start:]).hexdigest()
    assert len(calls) == 3


# --- names of LoRAs ---


@pytest.fixture
def library(tmp_path: Path) -> Library:
    folder = tmp_path / "models" / "Lora"
    header_file(folder / "ink_v3.safetensors", {"ss_output_name": "ink", "sshs_model_hash": "11" * 32})
    header_file(folder / "styles/soft.safetensors", {"ss_output_name": "Light", "sshs_model_hash": "22" * 32})
    header_file(folder / "ink.safetensors", {"ss_output_name": "another"})
    header_file(folder / "twice a.safetensors", {"ss_output_name": "twice"})
    header_file(folder / "twice b.safetensors", {"ss_output_name": "twice"})
    header_file(folder / "odd.safetensors", {"ss_output_name": 'GRÖSSE "X"'})
    (folder / "broken.safetensors").write_bytes(b"x")
    return Library(tmp_path / "models", HashCache(tmp_path / "hashes.sqlite3"))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("ink", "ink"),  # a file's name comes before what another was called in training
        ("another", "ink"),
        ("light", "styles/soft"),
        ("twice", "twice b"),
        ('Größe "x"', "odd"),
    ],
)
def test_a_lora_is_found_by_what_its_trainer_called_it(library: Library, wanted: str, found: str) -> None:
    assert library.find(wanted, "lora").name == found


def test_a_name_that_is_nobodys_is_refused(library: Library) -> None:
    for wanted in ("nobody", "", " "):
        with pytest.raises(RequestError, match="There is no LoRA named"):
            library.find(wanted, "lora")
    with pytest.raises(RequestError, match="no checkpoint named"):
        library.find("light")


def test_a_picture_that_names_a_lora_otherwise_finds_it_by_its_hash(library: Library) -> None:
    found = library.by_network_hash("2222222222")
    assert found is not None and found.name == "styles/soft"
    assert library.by_network_hash("222") is None  # too short to mean one file
    assert library.by_network_hash("33" * 6) is None
    assert library.lora_named("old name", "2" * 12) == "styles/soft"
    assert library.lora_named("Light", "2" * 12) == "Light"  # this name finds the file, too
    assert library.lora_named("ink", "2" * 12) == "styles/soft"  # the hash decides, as in AUTOMATIC1111
    assert library.lora_named("gone", "3" * 12) == "gone"
    assert library.lora_named("ink", '" or') == "ink"
