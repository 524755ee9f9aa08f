"""Files that ``torch.save`` wrote (.ckpt, .pt, .pth, .bin): what they hold, found without running any of it.

A pickle is a program for a stack machine: it may name any function of any module and call it.  Here the program is
followed by a machine of our own that can only build dicts, lists, numbers and texts and note where a tensor's bytes
lie.  No name is ever looked up and nothing is called; a name outside of the short list of what such files need is
refused.  Torch is not imported, so that the server process can read shapes.

Formats: pytorch/pytorch ``torch/serialization.py`` (a zip since 1.6, before that five pickles and the storages behind
them), ``torch/_utils.py`` (how tensors are put together); opcodes: CPython ``Lib/pickletools.py``.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from webui.errors import CheckpointError, UnsafeFileError

MAX_PROGRAM = 64 * 1024 * 1024
"""Largest pickle in bytes that is followed; that of a checkpoint with its optimiser's state has about 5 MB."""
MAX_STEPS = 3_000_000
"""Most opcodes that are followed; a checkpoint with its optimiser's state has about a million."""
MAX_RECORDS = 200_000
MAX_SIDES = 16
MAGIC = 0x1950A86A20F9469CFC6C
"""The number that the form before 1.6 begins with."""

_DTYPES = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL", "Untyped": "U8",
}  # fmt: skip
_DTYPE_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint64": "U64", "uint32": "U32", "uint16": "U16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
_REBUILD = tuple(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_TYPED = "torch._tensor._rebuild_from_type_v2"
_DICTS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")
_SEQUENCES = tuple(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "list", "tuple"))
_PLAIN_NAMES = {
    *_REBUILD, *_PARAMETERS, _TYPED, *_DICTS, *_SEQUENCES,
    "torch.Tensor", "torch.Size", "torch.device", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer",
    "torch.nn.modules.container.ParameterDict", "torch.nn.modules.container.ParameterList",
    "builtins.object", "__builtin__.object", "copyreg._reconstructor", "copy_reg._reconstructor", "_codecs.encode",
    "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath",
    "numpy.dtype", "numpy.ndarray",
}  # fmt: skip
"""Names that files need.  Those not handled below stand for an inert :class:`Placeholder`."""
_INERT = re.compile(
    r"numpy\._?core\.multiarray\.(scalar|_reconstruct)|numpy\.dtypes\.\w+|numpy\._?core\.numeric\._frombuffer"
    r"|(pytorch_lightning|lightning|lightning_fabric|omegaconf)\.[\w.]+"
)
_STORAGE = re.compile(r"torch\.(?:storage\.)?(?:cuda\.)?_?(\w*?)Storage")
_DTYPE = re.compile(rf"torch\.({'|'.join(_DTYPE_NAMES)})")


@dataclass(frozen=True)
class Name:
    """A name that the program speaks of; never looked up."""

    text: str


@dataclass
class Placeholder:
    """What a class would have been: its name, what it was made from, its state, and what was put into it."""

    name: str
    arguments: Any = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> Mapping[Any, Any]:
        """The tensors of a ``ParameterDict``, whichever of torch's versions wrote it."""
        state = self.state if isinstance(self.state, dict) else {}
        held = state.get("_parameters", state)
        return self.items or (held if isinstance(held, dict) else {})


@dataclass(frozen=True)
class Storage:
    """A run of numbers somewhere in the file; ``offset`` is that of a view into it, in numbers."""

    key: str
    dtype: str
    count: int
    offset: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """A tensor: places in a storage, counted in numbers of ``dtype``."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Saved:
    """A file's content: dicts, lists and tuples of plain values, Placeholders and StoredTensors; and where the bytes of
    each storage begin and end in the file."""

    data: Any
    places: Mapping[str, tuple[int, int]]


def starts_like_pickle(start: bytes) -> bool:
    """Whether the first nine bytes of a file are those of a zip or a pickle, and not those of a safetensors file.

    A header's length may begin with the same bytes; but then the header follows, which begins with a brace.
    """
    return start[8:9] != b"{" and (start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5"))


def read(path: Path) -> Saved:
    """What a file holds.

    Raises UnsafeFileError for a file that asks for anything but tensors and plain values, naming it, and for a
    TorchScript program; CheckpointError for one that is damaged or that another program wrote; OSError.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        try:
            return _read_zip(path, file) if is_zip else _read_legacy(path, file)
        except (
            ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError, RecursionError,
            NotImplementedError, struct.error, zipfile.BadZipFile,
        ) as error:  # fmt: skip
            said = str(error)[:200] or type(error).__name__
            raise CheckpointError(
                f"{path.name} is damaged or was not written by torch ({said}); fetch it again."
            ) from error


def _read_zip(path: Path, file: BinaryIO) -> Saved:
    size = _size(file)
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
    names = [record.filename for record in records]
    if len(names) > MAX_RECORDS or len(set(names)) != len(names):
        raise ValueError(f"its zip has {len(names)} records, or two of one name")
    roots = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) != 1:
        raise ValueError("its zip holds no record data.pkl")
    if any(name.startswith((f"{roots[0]}code/", f"{roots[0]}constants.pkl")) for name in names):
        raise UnsafeFileError(
            f"{path.name} is a TorchScript file, which holds a program beside its weights, so it was not opened. "
            "Use a file of the same model that holds weights only, best a .safetensors file."
        )
    places = {
        record.filename.removeprefix(roots[0]): _record_place(file, record, size)
        for record in records
        if record.filename.startswith(roots[0]) and not record.is_dir()
    }
    if "byteorder" in places and _piece(file, places["byteorder"], 16).strip() != b"little":
        raise ValueError("its numbers are stored most significant byte first")
    data = _Machine(path.name).run(io.BytesIO(_piece(file, places["data.pkl"], MAX_PROGRAM)))
    return Saved(data, {name.removeprefix("data/"): place for name, place in places.items() if "data/" in name})


def _size(file: BinaryIO) -> int:
    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(0)
    return size


def _record_place(file: BinaryIO, record: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """Where a record's bytes begin and end.  Torch stores them as they are; nothing is ever unpacked."""
    if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 or record.file_size != record.compress_size:
        raise ValueError("its zip is compressed or encrypted, which torch's is not")
    file.seek(record.header_offset)
    signature, name_length, extra_length = struct.unpack("<4s22xHH", file.read(30))
    begin = record.header_offset + 30 + name_length + extra_length
    if signature != b"PK\x03\x04" or begin + record.file_size > size:
        raise ValueError("a record of its zip lies outside of the file")
    return begin, begin + record.file_size


def _piece(file: BinaryIO, place: tuple[int, int], limit: int) -> bytes:
    if place[1] - place[0] > limit:
        raise ValueError(f"a record has {place[1] - place[0]} bytes, at most {limit} are read")
    file.seek(place[0])
    return file.read(place[1] - place[0])


def _read_legacy(path: Path, file: BinaryIO) -> Saved:
    """The form before 1.6: number, version, facts of the system, the data, the storages' keys; then the storages."""
    size = _size(file)
    machine = _Machine(path.name)
    if machine.run(file) != MAGIC:
        raise ValueError("it is a pickle, but none of torch")
    machine.run(file)
    system = machine.run(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are stored most significant byte first")
    data = machine.run(file)
    places = {}
    for key in machine.run(file):
        (count,) = struct.unpack("<q", file.read(8))
        if not isinstance(key, str | int):  # a tuple may be nested so deep that hashing it ends the process
            raise ValueError("it lists storages that have no name")
        storage = machine.storages[str(key)]
        end = file.tell() + count * item_bytes(storage.dtype)
        if count < 0 or end > size:
            raise ValueError("it ends before its tensors do")
        places[storage.key] = (file.tell(), end)
        file.seek(end)
    return Saved(data, places)


def item_bytes(dtype: str) -> int:
    """The bytes of one number of a dtype as safetensors calls it: 2 for BF16, 1 for F8_E4M3."""
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) // 8 if digits else 1


class _Reader:
    """Hands a pickle's bytes to ``pickletools``, never more than a limit at once or in all."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_PROGRAM

    def read(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise ValueError(f"its pickle is larger than {MAX_PROGRAM} bytes")
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(4096)
        self._left -= len(line)
        return line


class _Machine:
    """Follows pickles.  Stack and memo hold plain values and the records above, nothing else."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self.storages: dict[str, Storage] = {}
        self.steps = 0

    def run(self, file: BinaryIO) -> Any:
        """The value that the pickle at the file's position leaves; the position is then behind it."""
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(_Reader(file)):  # type: ignore[arg-type]  # reads by read and readline
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise ValueError(f"its pickle has more than {MAX_STEPS} steps")
            if opcode.name == "STOP":
                return self.stack[-1]
            step = _STEPS.get(opcode.name)
            if step is None:
                raise ValueError(f"its pickle uses {opcode.name}, which torch does not")
            step(self, argument)
        raise EOFError("its pickle has no end")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def above_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def name(self, text: str) -> Name:
        """A name that files need; any other is refused."""
        needed = text in _PLAIN_NAMES or _INERT.fullmatch(text) or _DTYPE.fullmatch(text)
        storage = _STORAGE.fullmatch(text)
        if not needed and not (storage and (storage[1] or "Untyped") in _DTYPES):
            raise UnsafeFileError(
                f"{self.file_name} asks for {text[:100]!r}, which no file of weights needs and which could run a "
                "program, so it was not opened. Use the .safetensors form of the same model."
            )
        return Name(text)

    def tensor(self, arguments: Sequence[Any], dtype: str | None = None) -> StoredTensor:
        storage, offset, shape, strides = arguments[:4]
        if (
            not isinstance(storage, Storage)
            or not len(shape) == len(strides) <= MAX_SIDES
            or not _are_sizes((offset, *shape, *strides))
        ):
            raise ValueError("a tensor has impossible sizes")
        return StoredTensor(storage, dtype or storage.dtype, offset + storage.offset, tuple(shape), tuple(strides))

    def made(self, called: Any, arguments: Any) -> Any:
        """What a call in the program stands for."""
        name = called.text if isinstance(called, Name) else ""
        if not name or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no function")
        if name in _REBUILD:
            dtype = _DTYPE_NAMES[arguments[6].text.removeprefix("torch.")] if name.endswith("_v3") else None
            return self.tensor(arguments, dtype)
        if name in _PARAMETERS:
            return arguments[0]
        if name == _TYPED:
            return self.made(arguments[0], arguments[2]) if arguments[0].text != _TYPED else None
        if name in _DICTS:
            pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
            self.steps += len(pairs)
            return _with_items({}, [part for key, value in pairs for part in (key, value)])
        if name in _SEQUENCES or name == "torch.Size":
            return arguments[0] if arguments else []
        return Placeholder(name, arguments)

    def persistent(self, said: Any) -> Storage | Name:
        """A storage; or, in the form before 1.6, the class of a network, told with its source, which is not read."""
        if said[0] == "module" and isinstance(said[1], Name):
            return said[1]
        kind, storage_type, key, _, count = said[:5]
        found = _STORAGE.fullmatch(storage_type.text)
        view = said[5] if len(said) > 5 else None
        if kind != "storage" or found is None or not isinstance(key, str | int) or not _are_sizes((count,)):
            raise ValueError("it refers to something outside of the file")
        storage = Storage(str(key), _DTYPES[found[1] or "Untyped"], count)
        if (known := self.storages.setdefault(storage.key, storage)) != storage:
            raise ValueError(f"a storage is {known.dtype} here and {storage.dtype} there")
        if view is None:
            return storage
        if not _are_sizes(view[1:3]):
            raise ValueError("a view has impossible sizes")
        return Storage(storage.key, storage.dtype, view[2], view[1])


def _are_sizes(values: Iterable[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 2**62 for value in values)


def _with_items(holder: Any, parts: Sequence[Any]) -> Any:
    """``holder`` with keys and values, one after the other, put in."""
    items = holder.items if isinstance(holder, Placeholder) else holder
    if not isinstance(items, dict) or len(parts) % 2:
        raise ValueError("it puts items into what holds none")
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        # A tuple as a key may be nested so deep that hashing it ends the process.
        if not isinstance(key, str | int | float | bytes | Name | None):
            raise ValueError("a dictionary has keys that are neither texts nor numbers")
        items[key] = value
    return holder


def _appended(holder: Any, values: Sequence[Any]) -> Any:
    if isinstance(holder, Placeholder):
        return _with_items(holder, [part for pair in enumerate(values, len(holder.items)) for part in pair])
    if not isinstance(holder, list):
        raise ValueError("it appends to what is no list")
    holder.extend(values)
    return holder


def _built(machine: _Machine, _: Any) -> None:
    state = machine.pop()
    if isinstance(machine.stack[-1], Placeholder):
        machine.stack[-1].state = state


def _reduced(machine: _Machine, _: Any) -> None:
    arguments = machine.pop()
    machine.push(machine.made(machine.pop(), arguments))


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    machine.pop()
    _reduced(machine, None)


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError("it names something by what is no text")
    machine.push(machine.name(f"{module}.{name}"))


def _remembered(machine: _Machine, place: Any) -> None:
    machine.memo[len(machine.memo) if place is None else place] = machine.stack[-1]


def _items_set(machine: _Machine, parts: Sequence[Any]) -> None:
    _with_items(machine.stack[-1], parts)


def _pair_set(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    _items_set(machine, (key, value))


def _one_appended(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _appended(machine.stack[-1], (value,))


def _many_appended(machine: _Machine, _: Any) -> None:
    values = machine.above_mark()
    _appended(machine.stack[-1], values)


def _mark_dropped(machine: _Machine, _: Any) -> None:
    machine.above_mark()


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise ValueError("it takes more from its stack than is there")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return step


def _of_marked(make: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(make(machine.above_mark()))


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _nothing(machine: _Machine, _: Any) -> None:
    return


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
         "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
         "BINBYTES8", "BYTEARRAY8"),
        _Machine.push,
    ),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _remembered),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, place: machine.push(machine.memo[place])),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_SET": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": _mark_dropped,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "TUPLE": _of_marked(tuple),
    "LIST": _of_marked(list),
    "FROZENSET": _of_marked(list),
    "DICT": _of_marked(lambda parts: _with_items({}, parts)),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _one_appended,
    "APPENDS": _many_appended,
    "ADDITEMS": _many_appended,
    "SETITEM": _pair_set,
    "SETITEMS": lambda machine, _: _items_set(machine, machine.above_mark()),
    "GLOBAL": lambda machine, said: machine.push(machine.name(said.replace(" ", ".", 1))),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduced,
    "NEWOBJ": _reduced,
    "NEWOBJ_EX": _new_with_keywords,
    "BUILD": _built,
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.pop())),
}  # fmt: skip
"""What each opcode does here.  Those not named are refused: calls by class (INST, OBJ), extensions, buffers."""


def place_of(tensor: StoredTensor, places: Mapping[str, tuple[int, int]]) -> tuple[int, int, tuple[int, ...] | None]:
    """Where in the file a tensor's numbers begin and end, and its strides when they do not lie one after the other.

    Raises ValueError when they lie outside of its storage, or are more than that holds.
    """
    begin, end = places[tensor.storage.key]
    size = item_bytes(tensor.dtype)
    count = math.prod(tensor.shape)
    last = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True)) if count else -1
    first = begin + tensor.offset * size
    if first + (last + 1) * size > end or count * size > end - begin:
        raise ValueError("a tensor lies outside of its storage")
    contiguous = last == count - 1 and all(
        side == 1 or stride == math.prod(tensor.shape[i + 1 :])
        for i, (side, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True))
    )
    return first, first + (last + 1) * size, None if contiguous or not count else tensor.strides
