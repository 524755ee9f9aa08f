from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.safetensors import write_file
from webui.errors import CheckpointError, NotFoundError

CPU = torch.device("cpu")


def written(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def tensor(begin: int, end: int, dtype: Any = "U8", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


ENTRY = json.dumps({"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}).encode()
ATTACKS: dict[str, tuple[Any, bytes]] = {
    "two tensors on the same bytes": ({"a": tensor(0, 4), "b": tensor(2, 6)}, b"123456"),
    "a gap": ({"a": tensor(0, 2), "b": tensor(4, 6)}, b"123456"),
    "bytes after the last tensor": ({"a": tensor(0, 2)}, b"123456"),
    "less data than said": ({"a": tensor(0, 8)}, b"123"),
    "an end before its begin": ({"a": tensor(4, 0, shape=[0])}, b"1234"),
    "negative offsets": ({"a": tensor(-4, 0)}, b"1234"),
    "an unknown dtype": ({"a": tensor(0, 4, "F12")}, b"1234"),
    "a dtype that is a list": ({"a": tensor(0, 4, ["F32"])}, b"1234"),
    "a shape of other size": ({"a": tensor(0, 4, "F32", [2])}, b"1234"),
    "a shape that overflows": ({"a": tensor(0, 4, "F32", [2**40, 2**40])}, b"1234"),
    "a negative shape": ({"a": tensor(0, 4, "F32", [-1, -1])}, b"1234"),
    "a shape of truths": ({"a": tensor(0, 4, "F32", [True])}, b"1234"),
    "a shape of fractions": ({"a": tensor(0, 4, "F32", [1.0])}, b"1234"),
    "a shape that is a text": ({"a": tensor(0, 4, "F32", "1")}, b"1234"),
    "three offsets": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"1"),
    "an entry without dtype": ({"a": {"shape": [1], "data_offsets": [0, 1]}}, b"1"),
    "an entry that is a number": ({"a": 5}, b""),
    "a header that is a list": ([1, 2], b""),
    "metadata of numbers": ({"__metadata__": {"x": 1}}, b""),
    "metadata that is a list": ({"__metadata__": ["x"]}, b""),
    "a name twice": (b'{"a":%s,"a":%s}' % (ENTRY, ENTRY), b"1"),
    "no JSON": (b"hello, world", b""),
    "no UTF-8": (b'{"\xff\xfe": 1}', b""),
    "a JSON bomb": (b'{"a":' + b"[" * 200_000, b""),
    "a number of 10,000 digits": (b'{"a":' + b"9" * 10_000 + b"}", b""),
    "an empty header": (b"", b""),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_lies_is_refused_in_one_sentence(tmp_path: Path, attack: str) -> None:
    path = written(tmp_path / "bad.safetensors", *ATTACKS[attack])
    with pytest.raises(CheckpointError) as caught:
        BUILT_IN.read_header(path)
    assert "bad.safetensors" in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 101 * 1024 * 1024, 10_000])
def test_a_header_length_beyond_the_file_reads_nothing(tmp_path: Path, length: int) -> None:
    path = written(tmp_path / "long.safetensors", {}, length=length)
    with pytest.raises(CheckpointError, match=f"claims {length} bytes"):
        BUILT_IN.read_header(path)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with NamedTemporaryFile(suffix=".safetensors") as file:
        file.write(data)
        file.flush()
        with pytest.raises(CheckpointError):
            BUILT_IN.read_header(Path(file.name))


@given(st.data())
def test_a_cut_off_file_is_refused(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "cut.safetensors")
        save_file({"a": torch.ones(5), "b": torch.zeros(3, 2)}, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(CheckpointError):
            BUILT_IN.read_header(path)


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x10280])
def test_a_header_length_that_looks_like_a_pickle_is_none(tmp_path: Path, length: int) -> None:
    """640 bytes of header are the bytes 80 02, as a pickle of protocol 2 begins."""
    entry = json.dumps({"a": tensor(0, 1)}).encode()
    path = written(tmp_path / "unlucky.safetensors", entry.ljust(length), b"1")
    assert path.read_bytes()[:1] == b"\x80"
    assert BUILT_IN.read_header(path).tensors["a"].shape == (1,)


def test_a_file_that_went_away_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Refresh"):
        BUILT_IN.read_header(tmp_path / "gone.safetensors")


def test_a_folder_of_that_name_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        BUILT_IN.read_header(tmp_path / "folder.safetensors")


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_load_to_the_wanted_dtype(tmp_path: Path, stored: torch.dtype, wanted: torch.dtype) -> None:
    weights = {"net.a": torch.randn(7, 3).to(stored), "net.b": torch.tensor(1.5).to(stored), "other": torch.ones(2)}
    weights |= {"net.empty": torch.empty(0, 4).to(stored), "net.count": torch.arange(3)}
    save_file(weights, tmp_path / "x.safetensors")
    loaded = BUILT_IN.open(tmp_path / "x.safetensors").load("net.", wanted, CPU)
    assert set(loaded) == {"a", "b", "empty", "count"}
    for name, found in loaded.items():
        expected = weights[f"net.{name}"]
        assert torch.equal(found, expected.to(wanted) if name != "count" else expected)
        assert found.dtype == (wanted if name != "count" else torch.int64)


def test_tensors_larger_than_a_piece_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webui.checkpoints.pieces.PIECE_BYTES", 24)
    weights = {"a": torch.randn(5, 7), "b": torch.randn(6).half(), "c": torch.arange(11)}
    save_file(weights, tmp_path / "x.safetensors")
    loaded = BUILT_IN.open(tmp_path / "x.safetensors").load("", torch.float32, CPU)
    assert all(torch.equal(loaded[name], weights[name].to(loaded[name].dtype)) for name in weights)


def test_a_file_cut_off_after_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.randn(1000)}, path)
    file = BUILT_IN.open(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="changed meanwhile"):
        file.load("", torch.float32, CPU)


def test_the_loaded_weights_do_not_change_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    loaded = BUILT_IN.open(path).load("", torch.float32, CPU)
    with path.open("r+b") as file:
        file.seek(-8, 2)
        file.write(b"\xff" * 8)
    assert torch.equal(loaded["a"], torch.ones(1000))


MEASURE = """
import sys, torch
from pathlib import Path
from webui.checkpoints.formats import BUILT_IN
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
warm = torch.ones(100_000).half().to(torch.bfloat16)
before = peak()
loaded = BUILT_IN.open(Path(sys.argv[1])).load("", torch.bfloat16, torch.device("cpu"))
size = sum(t.numel() * t.element_size() for t in loaded.values())
print((peak() - before) / size)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    "stored", [torch.float16, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (torch.float32, torch.bfloat16))]
)
def test_peak_memory_is_the_weights_own(tmp_path: Path, stored: torch.dtype) -> None:
    weights = {f"w{i}": torch.full((8, 1024, 1024), float(i)).to(stored) for i in range(8)}
    weights["embedding"] = torch.zeros(49408, 768).to(stored)
    save_file(weights, tmp_path / "large.safetensors")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "large.safetensors")]
    ratio = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.9 < ratio <= 1.15


def test_a_written_file_is_what_the_reference_implementation_reads_and_always_the_same_bytes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5).half(),
        "a": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0),
        "bf16": torch.randn(7).bfloat16(),
    }
    metadata = {f"key {number}": f"ü{number}" for number in range(20)}
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for path in paths:
        write_file(path, tensors, dict(reversed(metadata.items())))
        metadata = dict(reversed(metadata.items()))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safe_open(paths[0], framework="pt") as file:
        assert file.metadata() == metadata
        assert set(file.keys()) == set(tensors)
        for name, tensor_ in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor_) and file.get_tensor(name).dtype == tensor_.dtype
    again = BUILT_IN.open(paths[0]).load("", torch.float32, CPU)
    assert torch.equal(again["a"], tensors["a"])
