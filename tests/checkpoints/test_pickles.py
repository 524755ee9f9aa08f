from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from webui.checkpoints.formats import BUILT_IN
from webui.errors import CheckpointError, UnsafeFileError

CPU = torch.device("cpu")
BASE = torch.arange(200, dtype=torch.float32).view(10, 20)
TENSORS = {
    "plain": BASE / 7,
    "half": BASE[0].half(),
    "bf16": BASE[:2, :2].bfloat16(),
    "double": BASE.double(),
    "whole numbers": torch.arange(5),
    "true or false": torch.tensor([True, False]),
    "one number": torch.tensor(2.5),
    "none": torch.empty(0, 3),
    "transposed": BASE.t(),
    "rows of another": BASE[3:5],
    "columns of another": BASE[:, 3:7],
    "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}
NEW = {"fp8": torch.ones(4).to(torch.float8_e4m3fn), "unsigned": torch.arange(3).to(torch.uint16)}


def saved(path: Path, data: Any, *, as_zip: bool = True) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(data, path, _use_new_zipfile_serialization=as_zip)
    return path


def load(path: Path) -> dict[str, Tensor]:
    return BUILT_IN.open(path).load("", torch.float32, CPU)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".safetensors"])
def test_what_torch_saves_is_what_torch_would_load(tmp_path: Path, as_zip: bool, suffix: str) -> None:
    path = saved(tmp_path / f"x{suffix}", {**TENSORS, **(NEW if as_zip else {})}, as_zip=as_zip)
    theirs = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    ours = load(path)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        expected = tensor.detach().float() if tensor.is_floating_point() else tensor
        assert ours[name].dtype == expected.dtype and torch.equal(ours[name], expected), name
        assert ours[name].is_contiguous()


@pytest.mark.parametrize("as_zip", [True, False])
def test_wrappers_are_taken_off_and_plain_values_told(tmp_path: Path, as_zip: bool) -> None:
    inside = OrderedDict(a=torch.ones(2), b=torch.zeros(3))
    for wrapped in ({"state_dict": inside}, {"params": {"x": torch.ones(1)}, "params_ema": inside}, {"model": inside}):
        path = saved(tmp_path / "x.pth", {"epoch": 3, "note": "hi", "sizes": [1, 2.5, 1], **wrapped}, as_zip=as_zip)
        header = BUILT_IN.read_header(path)
        assert header.shapes() == {"a": (2,), "b": (3,)}
        assert header.metadata == {"epoch": "3", "note": "hi", "sizes": "[1, 2.5, 1]"}
        path.unlink()


@pytest.mark.parametrize("as_zip", [True, False])
def test_nested_data_is_named_by_its_path(tmp_path: Path, as_zip: bool) -> None:
    words = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 4))})
    path = saved(tmp_path / "a.pt", {"string_to_param": words, 768: ({"w": torch.ones(1)}, [TENSORS["half"]])})
    assert set(BUILT_IN.read_header(path).tensors) == {"string_to_param.*", "768.0.w", "768.1.0"}
    assert list(BUILT_IN.read_header(saved(tmp_path / "b.pt", torch.ones(2), as_zip=as_zip)).tensors) == [""]


def test_two_names_for_the_same_bytes_are_two_tensors(tmp_path: Path) -> None:
    loaded = load(saved(tmp_path / "x.pt", {"a": BASE, "b": BASE, "c": BASE[1]}))
    assert torch.equal(loaded["a"], loaded["b"]) and torch.equal(loaded["c"], BASE[1])


class Reduced:
    """Pickles as a call."""

    def __init__(self, called: Any, *arguments: Any) -> None:
        self.call = (called, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_files_of_lightning_and_numpy_load(tmp_path: Path) -> None:
    """Names of packages that are not installed stand for nothing, and numpy's numbers are left alone."""
    body = pickle.dumps({"state_dict": {"a": 1}, "seen": 2}, 2)
    names = (
        b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n",
        b"cpytorch_lightning.utilities.parsing\nAttributeDict\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"cnumpy.dtypes\nFloat64DType\n",
    )
    program = body[:-1] + b"(" + b"".join(name + b")R" for name in names) + b"l0."
    path = zipped(tmp_path / "x.ckpt", program)
    assert BUILT_IN.read_header(path).metadata == {"seen": "2"}


def zipped(path: Path, program: bytes, records: dict[str, bytes] | None = None, root: str = "archive") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", program)
        for name, data in (records or {}).items():
            archive.writestr(name, data)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def calling(marker: Path) -> dict[str, bytes]:
    """Programs that would make the file ``marker`` if they ran."""
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"

    def evil(called: Any, *arguments: Any, protocol: int = 2) -> bytes:
        return pickle.dumps({"state_dict": {"a": Reduced(called, *arguments)}}, protocol)

    return {
        "os.system": evil(os.system, command),
        "os.system, protocol 4": evil(os.system, command, protocol=4),
        "eval": evil(builtins.eval, code),
        "exec": evil(builtins.exec, code),
        "subprocess": evil(subprocess.Popen, ["touch", str(marker)]),
        "a chain of calls": evil(builtins.getattr, Reduced(builtins.__import__, "os"), "system"),
        "a call of a call": pickle.dumps(Reduced(Reduced, Reduced(os.system, command)), 2),
        "names from the stack": b"\x80\x04" + stack_global("os", "system") + text(command) + b"\x85R.",
        "a dotted name": b"\x80\x04" + stack_global("torch", "serialization.os.system") + text(command) + b"\x85R.",
        "a dotted name of an inert package": b"\x80\x04" + stack_global("numpy", "testing.run") + b")R.",
        "a name put together": b"\x80\x02" + b"ctorch._utils.sys.modules\nos\n.",
        "an old class": b"\x80\x02(" + text(command) + b"ios\nsystem\n.",
        "an object by mark": b"\x80\x02(cos\nsystem\n" + text(command) + b"o.",
        "a new object": b"\x80\x02cos\nsystem\n" + text(command) + b"\x85\x81.",
        "an extension": b"\x80\x02\x82\x01.",
        "a state set on a name": b"\x80\x02ctorch\nTensor\ncos\nsystem\nb.",
        "a tensor's hook": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\nt.",
        "torch.load itself": b"\x80\x02ctorch.serialization\nload\n" + text(str(marker)) + b"\x85R.",
        "a text called": b"\x80\x02" + text("os.system") + text(command) + b"\x85R.",
        "an import": b"\x80\x02cevil_on_import\nanything\n.",
    }


@pytest.mark.parametrize("form", ["zip", "five pickles", "bare"])
@pytest.mark.parametrize("attack", calling(Path("x")))
def test_nothing_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str, form: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "bad.ckpt"
    (tmp_path / "evil_on_import.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    program = calling(marker)[attack]
    if form == "zip":
        zipped(path, program)
    elif form == "five pickles":
        head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + program + pickle.dumps([], 2))
    else:
        path.write_bytes(program)
    with pytest.raises(CheckpointError) as caught:
        BUILT_IN.read_header(path)
    assert "bad.ckpt" in str(caught.value) and len(str(caught.value)) < 500
    assert not marker.exists() and "evil_on_import" not in sys.modules


def test_the_sentence_names_what_the_file_wanted(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bad.pt", pickle.dumps({"a": Reduced(os.system, "x")}, 2))
    with pytest.raises(UnsafeFileError, match=r"bad\.pt asks for '(posix|nt)\.system', which no file of weights needs"):
        BUILT_IN.read_header(path)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    for record in ("archive/code/__torch__.py", "archive/constants.pkl"):
        path = zipped(tmp_path / "script.pt", pickle.dumps({}, 2), {record: b"x"})
        with pytest.raises(UnsafeFileError, match=r"script\.pt is a TorchScript file, which holds a program"):
            BUILT_IN.read_header(path)
        path.unlink()


def tensor_program(count: int = 4, shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), offset: int = 0,
                   key: str = "0") -> bytes:  # fmt: skip
    """{"a": a tensor of that description}"""
    stored = pickle.dumps(("storage", "TYPE", key, "cpu", count), 2)[2:-1].replace(
        text("TYPE"), b"ctorch\nFloatStorage\n"
    )
    parts = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, shape, strides, False, None))
    return b"\x80\x02}" + text("a") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + b"Q" + parts + b"tRs."


def test_the_handwritten_tensor_is_one(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.pt", tensor_program(), {"archive/data/0": struct.pack("<4f", 1, 2, 3, 4)})
    assert load(path)["a"].tolist() == [1, 2, 3, 4]


def laughing() -> bytes:
    """A list of ten times the same list of ten times the same list, and so on: 10^40 lists."""
    return b"]q\x00" + b"".join(b"0]q" + bytes([i]) + (b"h" + bytes([i - 1]) + b"a") * 10 for i in range(1, 41))


LIES: dict[str, Callable[[], bytes]] = {
    "a tensor larger than its storage": lambda: tensor_program(shape=(5,)),
    "a tensor of any size from one number": lambda: tensor_program(shape=(2**40,), strides=(0,)),
    "a tensor behind its storage": lambda: tensor_program(offset=1),
    "negative strides": lambda: tensor_program(strides=(-1,)),
    "an impossible shape": lambda: tensor_program(shape=(2**62, 2**62), strides=(1, 1)),
    "a shape of a million sides": lambda: tensor_program(shape=(1,) * 10**6, strides=(1,) * 10**6),
    "shape and strides that differ": lambda: tensor_program(shape=(2, 2), strides=(1,)),
    "a storage that is not there": lambda: tensor_program(key="../../etc/passwd"),
    "no end": lambda: tensor_program()[:-1],
    "a step too many": lambda: b"\x80\x020" * 3,
    "a place in memory far away": lambda: b"\x80\x02Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.",
    "a text of 4 GB": lambda: b"\x80\x02X\xff\xff\xff\xffabc.",
    "a text of 2**63 bytes": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"abc.",
    "a number of 10,000 digits": lambda: b"\x80\x02L" + b"9" * 10_000 + b"L\n.",
    "lists that hold each other": lambda: b"\x80\x02(]q\x00h\x00at.",
    "a list nested a million times": lambda: b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "a tuple nested a million times as a key": lambda: b"\x80\x02}" + b")" + b"\x85" * 10**6 + b"Ns.",
    "a laughing billion": lambda: b"\x80\x02" + laughing() + b".",
    "a storage named by lists that hold each other": lambda: b"\x80\x02(" + text("storage") + b"ctorch\nFloatStorage\n"
    + laughing() + text("cpu") + b"K\x04tQ.",
    "pairs that are long lists": lambda: b"\x80\x02ccollections\nOrderedDict\n" + b"(" + b"N" * 10**5 + b"lq\x00("
    + b"h\x00" * 10**5 + b"l\x85R.",
    "a long list of pairs, many times": lambda: b"\x80\x02(" + b"NN\x86" * 10**5 + b"l\x85q\x000("
    + b"ccollections\nOrderedDict\nh\x00R" * 10**4 + b"l.",
    "a long list made a set, many times": lambda: b"\x80\x02(" + b"N" * 10**5 + b"l\x85q\x000("
    + b"cbuiltins\nset\nh\x00R" * 10**5 + b"l.",
    "a name of a million letters": lambda: b"\x80\x02}" + text("a" * 10**6) + b"(" + b"N" * 10**5 + b"ls.",
    "many steps": lambda: b"\x80\x02" + b"N0" * 2_000_000 + b"N.",
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_program_that_lies_is_refused_or_holds_nothing(tmp_path: Path, lie: str) -> None:
    path = zipped(tmp_path / "bad.pt", LIES[lie](), {"archive/data/0": bytes(16), "../../evil": b"x"})
    try:
        assert not BUILT_IN.read_header(path).tensors
    except CheckpointError as error:
        assert "bad.pt" in str(error) and len(str(error)) < 500
    assert [each.name for each in tmp_path.iterdir()] == ["bad.pt"]


def test_storages_named_by_a_tuple_nested_a_million_times_are_refused(tmp_path: Path) -> None:
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {})
    keys = b"\x80\x02])" + b"\x85" * 10**6 + b"a."
    (tmp_path / "bad.pt").write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + keys + bytes(8))
    with pytest.raises(CheckpointError, match="storages that have no name"):
        BUILT_IN.read_header(tmp_path / "bad.pt")


def test_zips_that_are_none_of_torchs_are_refused(tmp_path: Path) -> None:
    program = tensor_program()
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    cases = {
        "nested": {"other/inner.zip": inner.getvalue()},
        "two roots": {"a/data.pkl": program, "b/data.pkl": program},
        "outside": {"../data.pkl": program, "/data.pkl": program},
        "deep": {"a/b/data.pkl": program},
    }
    for name, records in cases.items():
        path = tmp_path / f"{name}.pt"
        with zipfile.ZipFile(path, "w") as archive:
            for record, data in records.items():
                archive.writestr(record, data)
        if name == "outside":
            with pytest.raises(CheckpointError):
                load(path)
            continue
        with pytest.raises(CheckpointError, match=r"its zip holds no record data\.pkl"):
            BUILT_IN.read_header(path)
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", bytes(10**7))
    with pytest.raises(CheckpointError, match="compressed or encrypted"):
        BUILT_IN.read_header(bomb)


def test_tensors_that_share_their_bytes_too_often_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "many.pt", {str(i): BASE for i in range(200)})
    with pytest.raises(CheckpointError, match="its tensors are far larger than the file"):
        BUILT_IN.read_header(path)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, as_zip: bool) -> None:
    whole = saved(tmp_path / "x.ckpt", {"a": torch.ones(5), "b": {"c": torch.zeros(3, 2)}}, as_zip=as_zip).read_bytes()
    for length in range(0, len(whole), 7):
        path = tmp_path / f"cut{length}.ckpt"
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            BUILT_IN.read_header(path)
        path.unlink()


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_file_with_any_byte_changed_is_read_or_refused(tmp_path: Path, as_zip: bool) -> None:
    whole = saved(tmp_path / "x.ckpt", {"a": torch.ones(5), "b": {"c": torch.zeros(3, 2)}}, as_zip=as_zip).read_bytes()
    chance, refused = random.Random(0), 0
    for number in range(1500):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(whole))] = chance.randrange(256)
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(changed)
        try:
            load(path)
        except CheckpointError as error:
            refused += 1
            assert len(str(error)) < 500
        path.unlink()
    assert refused > 100


@pytest.mark.parametrize("start", [b"<!DOCTYPE html><html>", b"", b"(lp0\n."])
def test_what_is_no_file_of_torch_is_refused(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(start)
    with pytest.raises(CheckpointError, match=r"x\.ckpt is no file that torch saved"):
        BUILT_IN.read_header(tmp_path / "x.ckpt")


SERVER = """
import sys
from pathlib import Path
from webui.checkpoints.formats import BUILT_IN
print(len(BUILT_IN.read_header(Path(sys.argv[1])).tensors), "torch" in sys.modules)
"""


def test_shapes_are_known_without_torch(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.ckpt", TENSORS)
    answer = subprocess.run([sys.executable, "-c", SERVER, str(path)], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [str(len(TENSORS)), "False"]


def test_names_of_metadata_are_texts(tmp_path: Path) -> None:
    header = BUILT_IN.read_header(
        saved(tmp_path / "x.pt", {"a": torch.ones(1), "sizes": (1, 2), "on": True, "nested": {"b": 1}})
    )
    assert json.loads(header.metadata["sizes"]) == [1, 2] and header.metadata["on"] == "true"
    assert "nested" not in header.metadata
