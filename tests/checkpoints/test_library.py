from __future__ import annotations

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from webui.checkpoints.hashes import HashCache, file_sha256
from webui.checkpoints.library import Library
from webui.errors import NotFoundError, RequestError

A1111_FOLDER = (
    "models/Stable-diffusion/v1-5.safetensors",
    "models/Stable-diffusion/anime/best mix.v2.safetensors",
    "models/Stable-diffusion/old.ckpt",
    "models/Stable-diffusion/notes.txt",
    "models/Stable-diffusion/v1-5.vae.safetensors",
    "models/Stable-diffusion/.cache/hidden.safetensors",
    "models/VAE/ema.vae.pt",
    "models/VAE/mse.safetensors",
    "models/Lora/style.safetensors",
    "models/LyCORIS/other.safetensors",
    "models/ControlNet/canny.pth",
    "models/ESRGAN/4x.pth",
    "models/RealESRGAN/2x.pth",
    "embeddings/easy.pt",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in A1111_FOLDER:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    return tmp_path / "models"


@pytest.fixture
def library(root: Path, tmp_path: Path) -> Library:
    return Library(root, HashCache(tmp_path / "hashes.sqlite3"))


def names(library: Library, kind: str = "checkpoint") -> list[str]:
    return [entry.name for entry in library.entries(kind)]


def test_everything_in_an_automatic1111_folder_is_found(library: Library) -> None:
    assert names(library) == ["anime/best mix.v2", "old", "v1-5"]
    assert names(library, "vae") == ["ema.vae", "mse", "v1-5.vae"]
    assert names(library, "lora") == ["other", "style"]
    assert names(library, "controlnet") == ["canny"]
    assert names(library, "upscaler") == ["2x", "4x"]
    assert names(library, "embedding") == ["easy"]


@pytest.mark.parametrize(
    "wanted",
    [
        "anime/best mix.v2",
        "ANIME/Best Mix.v2",
        "anime/best mix.v2.safetensors",
        "best mix.v2",
        "anime/best mix.v2.safetensors [0123456789]",
        "best mix.v2 [0123456789]",
        "  best mix.v2 ",
    ],
)
def test_a_checkpoint_is_found_by_what_people_call_it(library: Library, wanted: str) -> None:
    assert library.find(wanted).name == "anime/best mix.v2"


def test_a_checkpoint_is_found_by_its_hash_once_that_is_known(library: Library, root: Path) -> None:
    digest = file_sha256(root / "Stable-diffusion/v1-5.safetensors")
    with pytest.raises(RequestError):
        library.find(digest[:10])
    found = library.by_sha256(digest)
    assert found is not None and found.name == "v1-5"
    library.refresh()
    for wanted in (digest, digest[:10], f"renamed model [{digest[:10]}]"):
        assert library.find(wanted).name == "v1-5"
    assert library.find("v1-5").title == f"v1-5.safetensors [{digest[:10]}]"
    assert library.by_sha256("0" * 64) is None


def test_a_name_that_is_not_there_gets_the_nearest(library: Library) -> None:
    with pytest.raises(RequestError, match='no checkpoint named "v1_5"; did you mean "v1-5"'):
        library.find("v1_5")


def test_the_default_is_anything_before_the_embedded_model(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    library = Library(tmp_path / "models", HashCache(tmp_path / "hashes"))
    with pytest.raises(NotFoundError, match=r"no model; put a checkpoint \(\.safetensors or \.ckpt\) into .*Stable"):
        library.default_checkpoint()
    (folder / "starter.safetensors").write_bytes(b"1")
    library.refresh()
    assert library.default_checkpoint().name == "starter"
    (folder / "zzz.ckpt").write_bytes(b"2")
    library.refresh()
    assert library.default_checkpoint().name == "zzz"
    (folder / "zebra.safetensors").write_bytes(b"2")
    library.refresh()
    assert library.default_checkpoint().name == "zebra"
    assert library.find(None).name == "zebra"


def test_of_two_files_with_one_name_the_safetensors_is_found(root: Path, library: Library) -> None:
    for suffix in (".ckpt", ".safetensors", ".pt"):
        (root / f"Stable-diffusion/twin{suffix}").write_bytes(b"x")
    assert library.find("twin").path.suffix == ".safetensors"
    assert library.find("twin.ckpt").path.suffix == ".ckpt"


def test_links_are_followed_but_not_in_a_circle(root: Path, library: Library, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.safetensors").write_bytes(b"x")
    (root / "Stable-diffusion/link").symlink_to(elsewhere)
    (root / "Stable-diffusion/loop").symlink_to(root / "Stable-diffusion")
    (root / "Stable-diffusion/anime/up").symlink_to(root / "Stable-diffusion")
    (root / "Stable-diffusion/broken.safetensors").symlink_to(tmp_path / "nowhere")
    assert [name for name in names(library) if name not in ("old", "v1-5", "anime/best mix.v2")] == ["link/far"]


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    library = Library(tmp_path / "none", HashCache(tmp_path / "none" / "hashes"))
    assert library.entries() == () and library.entries("lora") == ()


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cache = tmp_path / "model", HashCache(tmp_path / "hashes.sqlite3")
    file.write_bytes(b"one")
    os.utime(file, ns=(1, 1))
    assert cache.sha256(file) == hashlib.sha256(b"one").hexdigest()
    read: list[Path] = []
    monkeypatch.setattr("webui.checkpoints.hashes.file_sha256", lambda path: read.append(path) or "anew")
    assert cache.sha256(file) == hashlib.sha256(b"one").hexdigest() and not read
    os.utime(file, ns=(2, 2))
    assert cache.sha256(file) == "anew" and read == [file]


def test_a_changed_file_loses_its_hash_in_the_list(root: Path, library: Library) -> None:
    entry = library.find("v1-5")
    library.sha256(entry)
    library.refresh()
    assert library.find("v1-5").sha256
    entry.path.write_bytes(b"another model of the same name")
    library.refresh()
    assert library.find("v1-5").sha256 is None


@pytest.mark.parametrize("damage", ["folder", "garbage", "absent folder"])
def test_a_hash_table_that_cannot_be_used_changes_no_answer(tmp_path: Path, damage: str) -> None:
    table = tmp_path / "table"
    if damage == "folder":
        table.mkdir()
    elif damage == "garbage":
        table.write_bytes(b"this is no database, whatever its name" * 100)
    else:
        table = tmp_path / "absent" / "table"
    file = tmp_path / "model"
    file.write_bytes(b"one")
    assert HashCache(table).sha256(file) == hashlib.sha256(b"one").hexdigest()
    assert HashCache(table).known() == {}


def test_two_tables_on_one_file_agree(tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"one")
    HashCache(tmp_path / "t").sha256(file)
    assert HashCache(tmp_path / "t").known()[str(file.resolve())][2] == hashlib.sha256(b"one").hexdigest()
    with sqlite3.connect(tmp_path / "t") as database:
        assert database.execute("SELECT count(*) FROM hashes").fetchone() == (1,)


def vae_of(library: Library, checkpoint: str, wanted: str = "Automatic") -> str | None:
    found = library.vae_for(library.find(checkpoint), wanted)
    return found and found.name


def test_the_automatic_vae_is_the_one_named_like_the_checkpoint(root: Path, library: Library) -> None:
    assert vae_of(library, "v1-5") == "v1-5.vae"
    assert vae_of(library, "v1-5", "None") is None and vae_of(library, "v1-5", "auto") == "v1-5.vae"
    assert vae_of(library, "best mix.v2") is None and vae_of(library, "old") is None
    for name in ("VAE/old10.vae.pt", "VAE/old9.safetensors", "Stable-diffusion/anime/best mix.v2.vae.ckpt"):
        (root / name).write_bytes(b"x")
    library.refresh("vae")
    assert vae_of(library, "old") == "old9"  # the first in natural order that begins so
    assert vae_of(library, "best mix.v2") == "anime/best mix.v2.vae"
    assert names(library) == ["anime/best mix.v2", "old", "v1-5"]


@pytest.mark.parametrize("wanted", ["mse", "mse.safetensors", "ema.vae.pt", "EMA.vae"])
def test_a_vae_is_chosen_by_name(library: Library, wanted: str) -> None:
    assert vae_of(library, "v1-5", wanted) == ("mse" if "mse" in wanted else "ema.vae")
    with pytest.raises(RequestError, match='no VAE named "mze"; did you mean "mse"'):
        vae_of(library, "v1-5", "mze")


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ('{"vae": "mse.safetensors", "notes": ""}', "mse"),
        ('{"vae": "None"}', None),
        ('{"vae": "Automatic"}', "v1-5.vae"),
        ('{"vae": "gone.pt"}', "v1-5.vae"),
        ('{"vae": 3}', "v1-5.vae"),
        ("[" * 100_000, "v1-5.vae"),
        ("no JSON", "v1-5.vae"),
    ],
)
def test_a_persons_notes_on_the_checkpoint_come_first(
    root: Path, library: Library, notes: str, expected: str | None
) -> None:
    (root / "Stable-diffusion/v1-5.json").write_text(notes)
    assert vae_of(library, "v1-5") == expected


def test_pictures_may_be_embeddings_but_not_previews(root: Path, library: Library) -> None:
    folder = root.parent / "embeddings"
    for name in ("easy.png", "easy.preview.png", "other.preview.webp", "drawn.png", "sub/painted.WEBP", "photo.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert names(library, "embedding") == ["drawn", "easy", "sub/painted"]
    assert library.find("easy", "embedding").path.suffix == ".pt"
