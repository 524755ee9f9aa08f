"""Loaders of extensions that do everything wrong: each is named with the file, nothing else is harmed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import archive_formats, write_archive
from safetensors.torch import save_file

from webui.checkpoints.facts import FactCache
from webui.checkpoints.formats import BUILT_IN
from webui.checkpoints.hashes import HashCache
from webui.checkpoints.library import Library
from webui.errors import CheckpointError, UnsafeFileError
from webui.plugins.calling import Caller
from webui.plugins.conduct import Journal
from webui.plugins.manager import SERVER_PACKAGES, Plugins

CPU = torch.device("cpu")
FRAME = """
import numpy as np
from webui.checkpoints.loaders import Header, TensorInfo
from webui.errors import CheckpointError
from webui.hooks import hookimpl

class Odd:
    name, suffixes = "odd form", {suffixes}

    def recognises(self, start, path):
        {recognises}

    def header(self, path):
        {header}

    def read(self, path, header, names, dtype, device):
        {read}

@hookimpl
def register_loaders():
    return [Odd()]
"""
GOOD_HEADER = 'return Header({"a": TensorInfo("F32", (2, 3)), "b": TensorInfo("I64", (2,))}, {"k": "v"})'
GOOD_READ = 'yield from {"a": np.ones((2, 3), np.float32), "b": np.arange(2)}.items()'


def loaded(folder: Path, recognises: str = "return True", header: str = GOOD_HEADER, read: str = GOOD_READ,
           suffixes: object = (".odd",), name: str = "odd", **options: Any) -> Plugins:  # fmt: skip
    extensions = folder / "extensions"
    extensions.mkdir(exist_ok=True)
    code = FRAME.format(recognises=recognises, header=header, read=read, suffixes=repr(suffixes))
    (extensions / f"{name}.py").write_text(code, "utf-8")
    return Plugins.load(extensions, caller=Caller(Journal()), **options)


def file(folder: Path, name: str = "x.odd", data: bytes = b"odd file") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_what_a_loader_says_is_what_the_program_reads(tmp_path: Path) -> None:
    opened = loaded(tmp_path).formats.open(file(tmp_path))
    assert opened.header.metadata == {"k": "v"} and opened.header.shapes() == {"a": (2, 3), "b": (2,)}
    tensors = opened.load("", torch.float16, CPU)
    assert tensors["a"].dtype is torch.float16 and torch.equal(tensors["a"], torch.ones(2, 3).half())
    assert tensors["b"].dtype is torch.int64 and tensors["b"].tolist() == [0, 1]


WRONG_HEADERS = {
    "raise ValueError('not today')": "failed: ValueError: not today (odd.py, line 14).",
    "raise CheckpointError('its middle is missing')": "refused by the loader odd form of the extension odd: its middle",
    "raise SystemExit(3)": "cannot be read as odd form: The extension odd failed",
    "return None": "answered a NoneType for a header",
    "return {'a': (2, 3)}": "answered a dict for a header",
    "return Header(5, {})": "no table",
    "return Header({'a': (2, 3)}, {})": "described the tensor 'a' as (2, 3)",
    "return Header({'a': TensorInfo('F12', (2,))}, {})": "no dtype that is known",
    "return Header({'a': TensorInfo('F32', (-1,))}, {})": "with the shape (-1,)",
    "return Header({'a': TensorInfo('F32', (2.0,))}, {})": "with the shape (2.0,)",
    "return Header({'a': TensorInfo('F32', None)}, {})": "failed: TypeError",
    "return Header({5: TensorInfo('F32', (2,))}, {})": "called a tensor 5, which is a int",
    "return Header({}, {'steps': 5})": "metadata in which 'steps' is a int",
}


@pytest.mark.parametrize("code", WRONG_HEADERS)
def test_a_header_that_is_wrong_is_an_error_of_the_file(tmp_path: Path, code: str) -> None:
    plugins = loaded(tmp_path, header=code)
    path = file(tmp_path)
    for ask in (plugins.formats.read_header, plugins.formats.read_outline, plugins.formats.open):
        with pytest.raises(CheckpointError) as caught:
            ask(path)
        assert WRONG_HEADERS[code] in str(caught.value)
        assert "x.odd" in str(caught.value) and "extension odd" in str(caught.value)


WRONG_READS = {
    "raise KeyError('a')": "failed: KeyError: 'a' (odd.py, line 17).",
    "raise CheckpointError('it ended too early'); yield": "extension odd: it ended too early",
    "return 5": "failed: TypeError",
    "return iter(())": "did not give 2 tensors that its header names ('a')",
    "yield 'a', np.ones((2, 3), np.float32)": "did not give 1 tensors that its header names ('b')",
    "yield 'a', np.ones((3, 2), np.float32)": "shape (3, 2); its header says torch.float32 of shape (2, 3)",
    "yield 'a', np.ones((2, 3), np.float64)": "as torch.float64 of shape (2, 3); its header says torch.float32",
    "yield 'b', np.ones(2, np.float32)": "as torch.float32 of shape (2,); its header says torch.int64",
    "yield 'a', [[1.0] * 3] * 2": "as a list, expected a tensor or an array",
    "yield 'a', np.full((2, 3), None)": "failed: TypeError",
    "yield 'c', np.ones(2)": "gave the tensor 'c', for which it was not asked",
    "yield from [('a', np.ones((2, 3), np.float32))] * 2": "gave the tensor 'a', for which it was not asked, or twice",
    "yield np.ones(2)": "gave a ndarray, expected pairs",
    "import torch; yield 'a', torch.ones(2, 3, device='meta')": "failed: NotImplementedError",
}


@pytest.mark.parametrize("code", WRONG_READS)
def test_a_loader_that_lies_about_tensors_is_found_out(tmp_path: Path, code: str) -> None:
    opened = loaded(tmp_path, read=code).formats.open(file(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        opened.load("", torch.float32, CPU)
    assert WRONG_READS[code] in str(caught.value)
    assert "x.odd" in str(caught.value) and "extension odd" in str(caught.value)


def test_failures_over_files_do_not_switch_the_extension_off(tmp_path: Path) -> None:
    plugins = loaded(tmp_path, header="raise ValueError(path.name)")
    for number in range(8):
        with pytest.raises(CheckpointError):
            plugins.formats.open(file(tmp_path, f"{number}.odd"))
    (report,) = plugins.report()
    assert report.state == "on" and [problem.hook for problem in report.problems] == ["register_loaders"] * 8


def test_one_that_ends_the_process_is_switched_off_and_says_so(tmp_path: Path) -> None:
    plugins = loaded(tmp_path, header="raise SystemExit(3)")
    path = file(tmp_path)
    for _ in range(3):
        with pytest.raises(CheckpointError, match="cannot be read as odd form"):
            plugins.formats.open(path)
    with pytest.raises(
        CheckpointError, match=r"x\.odd cannot .* failed 3 times and is switched off until the next start"
    ):
        plugins.formats.open(path)


def test_too_little_memory_stays_what_it_is(tmp_path: Path) -> None:
    opened = loaded(tmp_path, read="raise MemoryError; yield").formats.open(file(tmp_path))
    with pytest.raises(MemoryError):
        opened.load("", torch.float32, CPU)


def test_a_buffer_that_is_used_again_changes_nothing_that_was_given(tmp_path: Path) -> None:
    code = (
        "buffer = np.zeros(2, np.float32)\n        for n in names:\n"
        "            buffer[:] = float(n); buffer.setflags(write=False); yield n, buffer; buffer = buffer.copy()"
    )
    header = "return Header({n: TensorInfo('F32', (2,)) for n in '123'}, {})"
    tensors = loaded(tmp_path, header=header, read=code).formats.open(file(tmp_path)).load("", torch.float32, CPU)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {n: [float(n)] * 2 for n in "123"}


def test_tensors_that_ask_for_gradients_are_plain_afterwards(tmp_path: Path) -> None:
    read = "import torch; yield 'a', torch.nn.Parameter(torch.ones(2, 3)); yield 'b', torch.arange(2)"
    tensors = loaded(tmp_path, read=read).formats.open(file(tmp_path)).load("", torch.float32, CPU)
    assert type(tensors["a"]) is torch.Tensor and not tensors["a"].requires_grad and tensors["a"].grad_fn is None


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt", ".pth", ".bin"])
def test_no_loader_takes_files_of_the_built_in_forms(tmp_path: Path, suffix: str) -> None:
    """Nor does it ease their rules: a pickle that names a function is refused before anything else is asked."""
    plugins = loaded(tmp_path, suffixes=(suffix,))
    save_file({"own": torch.ones(1)}, tmp_path / f"plain{suffix}")
    torch.save({"own": torch.ones(1)}, tmp_path / f"saved{suffix}")
    file(tmp_path, f"bad{suffix}", pickle.dumps(print))
    assert [*plugins.formats.read_header(tmp_path / f"plain{suffix}").tensors] == ["own"]
    assert [*plugins.formats.read_header(tmp_path / f"saved{suffix}").tensors] == ["own"]
    with pytest.raises(UnsafeFileError):
        plugins.formats.read_header(tmp_path / f"bad{suffix}")
    assert [*plugins.formats.read_header(file(tmp_path, f"other{suffix}", b"GGML and more")).tensors] == ["a", "b"]


def test_the_suffix_decides_before_the_first_bytes_do(tmp_path: Path) -> None:
    formats = archive_formats(tmp_path / "extensions")
    path = write_archive(tmp_path / "x.npz", {"a": np.ones(2, np.float16)})
    assert formats.read_header(path).tensors["a"].dtype == "F16"
    with pytest.raises(CheckpointError, match=r"x\.npz"):
        BUILT_IN.read_header(path)
    with pytest.raises(CheckpointError, match=r"x\.odd is no whole safetensors file"):
        formats.read_header(file(tmp_path))
    with pytest.raises(CheckpointError, match=r"b\.npz is no NumPy archive file"):
        formats.read_header(file(tmp_path, "b.npz"))
    objects = tmp_path / "objects.npz"
    np.savez(objects, a=np.array([print, None], dtype=object))
    with pytest.raises(CheckpointError, match=r"objects\.npz cannot be read: .* extension numpy_loader .*allow_pickle"):
        formats.read_header(objects)


def test_recognising_may_fail_too(tmp_path: Path) -> None:
    plugins = loaded(tmp_path, recognises="return 1 // 0")
    with pytest.raises(
        CheckpointError, match=r"x\.odd cannot be read: the loader odd form of the extension odd failed"
    ):
        plugins.formats.open(file(tmp_path))


@pytest.mark.parametrize(
    ("suffixes", "said"),
    [
        (".odd", "no list of endings"),
        ((), "no list of endings"),
        (("odd",), "its suffix odd is not one of small letters"),
        ((".ODD",), "its suffix .ODD is not"),
        ((5,), "its suffix 5 is not"),
        ((".tar.gz",), "its suffix .tar.gz is not"),
        ((".png",), "files that end in .png lie beside models"),
        ((".json",), "files that end in .json lie beside models"),
    ],
)
def test_suffixes_that_make_no_sense_leave_the_loader_out(tmp_path: Path, suffixes: Any, said: str) -> None:
    plugins = loaded(tmp_path, suffixes=suffixes)
    assert plugins.formats.added == () and plugins.formats.suffixes == BUILT_IN.suffixes
    (problem,) = plugins.problems
    assert problem.startswith("extension odd: register_loaders failed: ") and said in problem


def test_a_built_in_name_cannot_be_taken(tmp_path: Path) -> None:
    extensions = tmp_path / "extensions"
    extensions.mkdir()
    code = FRAME.format(suffixes=(".odd",), recognises="return True", header=GOOD_HEADER, read=GOOD_READ)
    code = code.replace('"odd form"', '"safetensors"').replace("@hookimpl", "@hookimpl(tryfirst=True)")
    (extensions / "odd.py").write_text(code, "utf-8")
    plugins = Plugins.load(extensions)
    assert plugins.formats.added == () and len(plugins.formats.built_in) == 2
    assert any(
        'register "safetensors"' in problem and "of extension odd was left out" in problem
        for problem in plugins.problems
    )


def test_the_first_of_two_loaders_of_a_suffix_that_recognises_a_file_reads_it(tmp_path: Path) -> None:
    loaded(tmp_path, recognises="return start.startswith(b'odd')", name="a")
    second = FRAME.replace('"odd form"', '"even form"')
    code = second.format(suffixes=(".odd",), recognises="return True", header="return Header({}, {})", read=GOOD_READ)
    (tmp_path / "extensions" / "b.py").write_text(code, "utf-8")
    formats = Plugins.load(tmp_path / "extensions").formats
    paths = file(tmp_path), file(tmp_path, "y.odd", b"even")
    assert [formats.loader_of(path).name for path in paths] == ["odd form", "even form"]
    assert formats.added_for([paths[1], tmp_path / "gone.odd"]) == {"even form"}


def test_what_a_loader_refuses_is_asked_again_at_the_next_start(tmp_path: Path) -> None:
    """Another edition of the extension may read it; facts of files that it reads are remembered."""
    (tmp_path / "models" / "Lora").mkdir(parents=True)
    path = file(tmp_path / "models" / "Lora", "ink.odd")
    library = Library(tmp_path / "models", HashCache(tmp_path / "hashes"), loaded(tmp_path, header="1 / 0").formats)
    (entry,) = library.entries("lora")
    assert "extension odd failed: ZeroDivisionError" in library.facts.of([entry])[str(path)].problem
    mended = loaded(tmp_path, header="return Header({}, {'ss_output_name': 'pen'})").formats
    assert FactCache(library.facts.path, mended).of([entry])[str(path)].alias == "pen"
    assert library.facts.known([entry])[str(path)].alias == "pen"


def test_the_server_asks_on_a_thread_that_it_can_leave(tmp_path: Path) -> None:
    loaded(tmp_path)
    caller = Caller(Journal(), abandons=True)
    plugins = Plugins.load(tmp_path / "extensions", packages=SERVER_PACKAGES, caller=caller)
    assert [*plugins.formats.read_header(file(tmp_path)).tensors] == ["a", "b"]
