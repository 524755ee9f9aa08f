"""A folder of pictures with captions -> items, each in a bucket: the size it is shown at.

Called once when a training begins, before anything heavy is loaded.  Reading looks at every file's bytes (for its
digest) and header (for its size) and decodes nothing; pixels are decoded when asked for, by the latent cache.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from webui.errors import PictureError, RequestError
from webui.images.pixels import FORMATS, MAX_BYTES, MAX_PIXELS, MAX_SIDE, flatten, open_picture
from webui.result import Pixels
from webui.training.request import Data, folder

METADATA = "metadata.jsonl"
STEP = 64
"""Sides of buckets are multiples of it: the VAE divides by 8, the UNet by 8 again."""
MAX_ASPECT = 2.0
MAX_ENLARGED = 4.0
"""A picture that would have to be enlarged more than this has nothing to teach at the training size."""
MAX_LINE = 1024 * 1024
"""Bytes of a line of ``metadata.jsonl``, and of a caption file."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp")
OTHER_PICTURES = (".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".psd", ".svg")
CAPTION_SUFFIXES = (".txt", ".caption")
_KOHYA = re.compile(r"([1-9][0-9]{0,2})_(.+)")
_PNG_MAY_TURN = (b"eXIf", b"type exif", b"adobe.xmp")
"""One of these is in every PNG that says how it is to be turned; in the others Pillow would decode all to find out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A picture, its caption, and the bucket it is shown in.

    ``name`` is the path inside its folder with slashes, ``width`` and ``height`` (pixels, multiples of 64) are the
    bucket's, ``repeats`` says how often it comes up in an epoch.  The digests are SHA-256 of the files' bytes.
    """

    name: str
    path: Path
    caption: str
    width: int
    height: int
    sha256: str
    repeats: int = 1
    is_class: bool = False
    control: Path | None = None
    control_sha256: str = ""


@dataclass(frozen=True)
class DataSet:
    """What a training learns from: the items, one sentence for each file left out, and ``size`` as it was read for.

    Items are sorted by name, those of the class folder last; everything else names an item by its place in ``items``.
    """

    items: tuple[Item, ...]
    left_out: tuple[str, ...]
    size: int

    @property
    def digest(self) -> str:
        """SHA-256 over names, bytes, captions and buckets of all items: the same data read the same way."""
        lines = sorted(
            json.dumps([i.name, i.sha256, i.caption, i.is_class, i.width, i.height, i.control_sha256])
            for i in self.items
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def pixels(self, index: int, flip: bool = False, crop: tuple[float, float] = (0.5, 0.5)) -> Pixels:
        """The picture (H, W, 3) uint8 RGB of exactly its bucket's size: upright, on white, resized to cover, cropped.

        ``crop`` is the place of the cut, from (0, 0) for left and top to (1, 1) for right and bottom; ``flip`` mirrors
        afterwards.  Raises PictureError that names the file.
        """
        item = self.items[index]
        return _covering(_decoded(item.path, item.name), item, flip, crop)

    def control_pixels(self, index: int, flip: bool = False, crop: tuple[float, float] = (0.5, 0.5)) -> Pixels:
        """The control picture of an item, cut as :meth:`pixels` cuts the picture.  Raises PictureError."""
        item = self.items[index]
        if item.control is None:
            raise PictureError(f"There is no control picture for {item.name}.")
        return _covering(_decoded(item.control, item.name), item, flip, crop)

    def check(self, index: int) -> str | None:
        """None when the item's files are as they were read and decode to the last pixel, else a sentence about it."""
        item = self.items[index]
        try:
            _decoded(item.path, item.name, item.sha256)
            if item.control is not None:
                _decoded(item.control, f"the control picture of {item.name}", item.control_sha256)
        except PictureError as error:
            return str(error)
        return None

    def without(self, bad: Mapping[int, str]) -> DataSet:
        """The same data without some items, whose sentences join ``left_out``.  Raises RequestError if none is left."""
        items = tuple(item for index, item in enumerate(self.items) if index not in bad)
        left_out = (*self.left_out, *(bad[index] for index in sorted(bad)))
        if all(item.is_class for item in items):
            raise _nothing("the training folder", left_out)
        return replace(self, items=items, left_out=left_out)


def read_data(request_data: Data, size: int, *, captions: bool = True) -> DataSet:
    """The pictures of a request's folders.  Without ``captions`` those that have none are kept with an empty one.

    Pictures go to the bucket nearest in aspect ratio; those of the class folder, which must share batches with the
    others, to one that the others are in.  ``prefix`` and ``repeats`` are for the training pictures, not for the class.
    Raises RequestError when nothing is left to learn from, and for a size that is not a multiple of 64.
    """
    if size < STEP or size % STEP:
        raise RequestError(f"The training size is {size}; it must be a multiple of {STEP}.")
    if request_data.class_folder and request_data.control_folder:
        raise RequestError(
            "Class pictures have no control pictures: name a class folder or a control folder, not both."
        )
    roots = [
        _existing(path)
        for path in (request_data.folder, request_data.class_folder, request_data.control_folder)
        if path
    ]
    shapes = buckets(size) if request_data.buckets else ((size, size),)
    reader = _Reader(shapes, captions, {os.path.realpath(root) for root in roots}, [])
    own = reader.items(
        roots[0],
        caption=request_data.caption,
        prefix=request_data.prefix,
        repeats=request_data.repeats,
        control=roots[1] if request_data.control_folder else None,
    )
    if request_data.class_folder:
        shared = tuple(sorted({(item.width, item.height) for item in own}))
        others = replace(reader, shapes=shared).items(roots[1], caption=request_data.class_caption, is_class=True)
        own = [*own, *others]
    return DataSet(tuple(own), tuple(reader.left_out), size)


@cache
def buckets(size: int) -> tuple[tuple[int, int], ...]:
    """All (width, height) of an area of at most ``size``² and an aspect ratio from 1:2 to 2:1 that cannot grow.

    After NovelAI, "Aspect Ratio Bucketing" (github.com/NovelAI/novelai-aspect-ratio-bucketing, README), and kohya-ss
    sd-scripts, ``library/model_util.py`` ``make_bucket_resolutions``.
    """
    found = set()
    for width in range(STEP, int(size * MAX_ASPECT) + 1, STEP):
        height = int(min(size * size / width, width * MAX_ASPECT)) // STEP * STEP
        if height and width <= height * MAX_ASPECT:
            found |= {(width, height), (height, width)}
    return tuple(
        sorted(a for a in found if not any(a != b and a[0] <= b[0] and a[1] <= b[1] for b in found)),
    )


def nearest(shapes: Sequence[tuple[int, int]], width: int, height: int) -> tuple[int, int]:
    """The bucket whose aspect ratio is nearest, as a factor: 2:1 is as far from square as 1:2 is."""
    wanted = math.log(width / height)
    return min(shapes, key=lambda shape: (abs(math.log(shape[0] / shape[1]) - wanted), shape))


class _LeftOut(Exception):
    """A file is left out; the text ends a sentence that begins with its name."""


@dataclass(frozen=True)
class _Folder:
    """One folder of a walk: where it is, its name below the root ("" or "sub/"), and the files in it."""

    path: Path
    name: str
    files: frozenset[str]


@dataclass(frozen=True)
class _Reader:
    """Folder after folder -> items; collects the sentences about what is left out."""

    shapes: Sequence[tuple[int, int]]
    captions: bool
    roots: set[str]
    left_out: list[str]

    def items(
        self,
        root: Path,
        *,
        caption: str,
        prefix: str = "",
        repeats: int = 1,
        control: Path | None = None,
        is_class: bool = False,
    ) -> list[Item]:
        """The usable pictures below ``root``, sorted by name.  Raises RequestError when there is none."""
        before = len(self.left_out)
        captions = self._captions(root, caption, prefix)
        controls = _Controls.below(self._walk(control)) if control else None
        found = [
            Item(
                name=name,
                path=root / name,
                caption=captions[name],
                width=0,
                height=0,
                sha256="",
                repeats=repeats * _kohya(name)[0],
                is_class=is_class,
                control=controls.of(name) if controls else None,
            )
            for name in sorted(captions)
        ]
        # One thread: with two, 40,000 small files take 10 s instead of 6, waiting for the interpreter's lock.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked
            results = [self._seen(item, controls is not None) for item in found]
        self.left_out.extend(result for result in results if isinstance(result, str))
        items = [result for result in results if isinstance(result, Item)]
        if not items:
            raise _nothing(str(root), self.left_out[before:])
        return items

    def _seen(self, item: Item, with_control: bool) -> Item | str:
        """The item with its bucket and digests, or the sentence about why it is left out."""
        try:
            width, height, sha256 = _look(item.path)
            shape = nearest(self.shapes, width, height)
            enlarged = max(shape[0] / width, shape[1] / height)
            if enlarged > MAX_ENLARGED:
                raise _LeftOut(
                    f"is too small: {width}x{height} pixels would be enlarged {enlarged:.1f} times; "
                    f"at most {MAX_ENLARGED:g} times is allowed"
                )
            if with_control and item.control is None:
                raise _LeftOut("has no control picture of the same name")
            control_sha256 = _look(item.control)[2] if item.control else ""
        except _LeftOut as error:
            return f"{item.name} {error}."
        return replace(item, width=shape[0], height=shape[1], sha256=sha256, control_sha256=control_sha256)

    def _captions(self, root: Path, default: str, prefix: str) -> dict[str, str]:
        """Picture name -> caption, for all picture files below ``root`` that are to be looked at."""
        rows: dict[str, str] = {}
        captions: dict[str, str] = {}
        for place in self._walk(root):
            if METADATA in place.files:
                rows.update(self._rows(root, place))
            for file in place.files:
                name = place.name + file
                suffix = Path(file).suffix.lower()
                if suffix in OTHER_PICTURES:
                    self.left_out.append(f"{name} is a {suffix} file; accepted are {', '.join(FORMATS)}.")
                elif suffix in SUFFIXES:
                    try:
                        own = _caption_file(place, Path(file).stem)
                        captions[name] = self._caption(
                            name, own if own is not None else rows.get(name), default, prefix
                        )
                    except _LeftOut as error:
                        self.left_out.append(f"{name} {error}.")
        return captions

    def _caption(self, name: str, own: str | None, default: str, prefix: str) -> str:
        caption = own if own is not None else _kohya(name)[1] or default.strip()
        if own is None and not caption and not prefix.strip() and self.captions:
            raise _LeftOut("has no caption: put it into a .txt file beside it, or give one for all pictures")
        if not prefix or not caption:
            return caption or prefix.strip()
        return prefix + ("" if prefix[-1] in " ," else ", ") + caption

    def _walk(self, root: Path) -> Iterator[_Folder]:
        """The folders below ``root``, those above first; no hidden ones, no links, none that is another root."""
        for where, folders, files in os.walk(root):
            inside = Path(where).relative_to(root).as_posix()
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".") and os.path.realpath(Path(where, name)) not in self.roots
            )
            visible = frozenset(name for name in files if not name.startswith("."))
            yield _Folder(Path(where), "" if inside == "." else f"{inside}/", visible)

    def _rows(self, root: Path, place: _Folder) -> dict[str, str]:
        """Picture name -> caption, as ``metadata.jsonl`` of one folder says; names in it count from that folder."""
        rows = {}
        source = place.name + METADATA
        try:
            with _regular(place.path / METADATA).open("rb") as file:
                for number, line in enumerate(_lines(file), 1):
                    try:
                        row = _row(line)
                        if row is not None:
                            rows[_inside(root, place, row[0])] = row[1]
                    except _LeftOut as error:
                        self.left_out.append(f"Line {number} of {source} {error}.")
        except (OSError, _LeftOut) as error:
            self.left_out.append(f"{source} cannot be read: {error}.")
        return rows


@dataclass(frozen=True)
class _Controls:
    """Control pictures by path without suffix, and by bare name where only one has it."""

    paths: Mapping[str, Path]

    @classmethod
    def below(cls, places: Iterable[_Folder]) -> _Controls:
        whole: dict[str, Path] = {}
        bare: dict[str, list[Path]] = {}
        for place in places:
            for file in sorted(place.files):
                if Path(file).suffix.lower() in SUFFIXES:
                    whole[place.name + Path(file).stem] = place.path / file
                    bare.setdefault(Path(file).stem, []).append(place.path / file)
        return cls({name: found[0] for name, found in bare.items() if len(found) == 1} | whole)

    def of(self, name: str) -> Path | None:
        stem = name[: -len(Path(name).suffix)]
        return self.paths.get(stem) or self.paths.get(Path(name).stem)


def _existing(path: str) -> Path:
    found = folder(path)
    if not found.is_dir():
        raise RequestError(f'There is no folder "{path}"; name one that holds training pictures.')
    return found


def _nothing(where: str, left_out: Sequence[str]) -> RequestError:
    if not left_out:
        return RequestError(f"There is no picture in {where}; accepted are {', '.join(FORMATS)}.")
    return RequestError(
        f"There is no usable picture in {where}: {len(left_out)} left out, the first because: {left_out[0]}"
    )


def _kohya(name: str) -> tuple[int, str]:
    """Repeats and caption from the nearest folder named for kohya-ss sd-scripts: "10_sks dog" -> 10, "sks dog".

    From one to 999, so that "2024_holiday" stays a year.  (1, "") without such a folder.
    """
    for part in reversed(name.split("/")[:-1]):
        if match := _KOHYA.fullmatch(part):
            return int(match[1]), match[2].strip()
    return 1, ""


def _regular(path: Path) -> Path:
    if not path.is_file():
        raise _LeftOut("is not a file")
    return path


def _caption_file(place: _Folder, stem: str) -> str | None:
    for suffix in CAPTION_SUFFIXES:
        if stem + suffix in place.files:
            try:
                with _regular(place.path / (stem + suffix)).open("rb") as file:
                    data = file.read(MAX_LINE + 1)
                if len(data) > MAX_LINE:
                    raise _LeftOut(f"has a caption file of more than {MAX_LINE} bytes")
                return " ".join(data.decode("utf-8-sig").split())
            except UnicodeDecodeError:
                raise _LeftOut(f"has a caption file ({suffix}) that is not UTF-8 text") from None
            except OSError as error:
                raise _LeftOut(f"has a caption file that cannot be read: {error.strerror}") from error
    return None


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long only more than MAX_LINE bytes, so that it can be refused."""
    while line := file.readline(MAX_LINE + 1):
        end = line
        while not end.endswith(b"\n") and (end := file.readline(MAX_LINE + 1)):
            pass
        yield line


def _row(line: bytes) -> tuple[str, str] | None:
    """File name and caption of a line of a Hugging Face image folder's ``metadata.jsonl``; None without a caption."""
    if not line.strip():
        return None
    if len(line) > MAX_LINE:
        raise _LeftOut(f"has more than {MAX_LINE} bytes and is not read")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise _LeftOut("is not JSON") from None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise _LeftOut('has no "file_name"')
    caption = row.get("text", row.get("caption"))
    if caption is None:
        return None
    if not isinstance(caption, str):
        raise _LeftOut(f"has a caption for {row['file_name'][:200]} that is no text")
    return row["file_name"], " ".join(caption.split())


def _inside(root: Path, place: _Folder, file: str) -> str:
    """The name below the root of a file that ``metadata.jsonl`` names.  Refused when it leads out of its folder."""
    parts = file.replace("\\", "/").split("/")
    shown = file[:200]
    if ".." in parts or not parts[0] or parts[0].endswith(":"):
        raise _LeftOut(f"names {shown}, which is outside of its folder")
    name = place.name + "/".join(part for part in parts if part not in ("", "."))
    try:
        there = (root / name).is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise _LeftOut(f"names {shown}, which is not there")
    return name


def _bytes(path: Path) -> bytes:
    try:
        size = _regular(path).stat().st_size
        if size > MAX_BYTES:
            raise _LeftOut(f"is too large: {size} bytes, at most {MAX_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise _LeftOut(f"cannot be read: {error.strerror or error}") from error


def _look(path: Path) -> tuple[int, int, str]:
    """Upright width and height of a picture file, from its header, and the SHA-256 of its bytes."""
    data = _bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise Image.DecompressionBombError
            if image.format != "MPO" and getattr(image, "is_animated", False):
                raise _LeftOut("is animated; only still pictures are learnt from")
            if (image.format != "PNG" or any(mark in data for mark in _PNG_MAY_TURN)) and _turned(image):
                width, height = height, width
    except _LeftOut:
        raise
    except Image.DecompressionBombError:
        raise _LeftOut(
            f"is too large: at most {MAX_PIXELS // 1024**2} megapixels, {MAX_SIDE} a side, are read"
        ) from None
    except Exception as error:  # Pillow's header readers raise OSError, SyntaxError, ValueError, struct.error and more
        raise _LeftOut(f"is not a picture that can be read; accepted are {', '.join(FORMATS)}, undamaged") from error
    return width, height, hashlib.sha256(data).hexdigest()


def _turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # a damaged Exif block turns nothing, as in ``open_picture``
        return False


def _decoded(path: Path, name: str, sha256: str = "") -> Image.Image:
    """The picture, upright and on white.  With a digest, also a file that has changed is an error.  PictureError."""
    try:
        data = _bytes(path)
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise _LeftOut("was changed after the training had begun")
        return flatten(open_picture(data))
    except _LeftOut as error:
        raise PictureError(f"{name} {error}.") from error
    except PictureError as error:
        raise PictureError(f"{name} cannot be used. {error}") from error


def _covering(image: Image.Image, item: Item, flip: bool, crop: tuple[float, float]) -> Pixels:
    """The largest part of the picture in the bucket's proportions, resized to the bucket in one step (Lanczos)."""
    scale = max(item.width / image.width, item.height / image.height)
    if scale == 1.0:  # whole pixels, so that nothing is resampled
        left, top = round((image.width - item.width) * crop[0]), round((image.height - item.height) * crop[1])
        image = image.crop((left, top, left + item.width, top + item.height))
    else:
        width, height = min(item.width / scale, image.width), min(item.height / scale, image.height)
        x, y = (image.width - width) * crop[0], (image.height - height) * crop[1]
        box = (x, y, min(x + width, image.width), min(y + height, image.height))
        image = image.resize((item.width, item.height), Image.Resampling.LANCZOS, box=box)
    levels = np.array(image)
    return np.ascontiguousarray(levels[:, ::-1]) if flip else levels
