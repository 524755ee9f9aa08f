"""Text inside JPEG and WebP files, as Exif (CIPA DC-008).

``parameters`` is the UserComment (0x9286), ``UNICODE`` and big-endian UTF-16, as AUTOMATIC1111 writes it.  The recipe
is the MakerNote (0x927C), the tag that the standard leaves to the maker of a file: ``webui recipe``, NUL, UTF-8.

Written with piexif.  Read by our own few lines, because what is read comes from strangers: only these two tags and a
few texts of other programs are looked at, every offset is checked, and nothing is copied but their values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

import piexif
import piexif.helper

from webui.errors import MetadataError, OutputError

PARAMETERS, RECIPE = "parameters", "recipe"
MAX_JPEG_BLOCK = 65_533 - 6
"""Bytes of Exif that a JPEG file holds: one APP1 segment, less its length field and name."""

_EXIF_NAME = b"Exif\0\0"
_RECIPE_NAME = b"webui recipe\0"
_NAMED = {0x010E: "Description", 0x0131: "Software"}
"""Texts of the first directory, by the keywords that PNG has for them."""
_LABELLED = (0x010F, 0x0110)
"""Make and Model, where ComfyUI puts its graphs."""
_EXIF_POINTER, _MAKER_NOTE, _USER_COMMENT = 0x8769, 0x927C, 0x9286
_BYTES_OF_TYPE = {1: 1, 2: 1, 7: 1}
"""BYTE, ASCII and UNDEFINED: the types that hold text."""


def write_block(texts: Mapping[str, str]) -> bytes:
    """The Exif block (with its ``Exif`` name) of ``parameters`` and ``recipe``.  OutputError for any other text."""
    unknown = sorted(set(texts) - {PARAMETERS, RECIPE})
    if unknown:
        raise OutputError(f"JPEG and WebP files have no place for the text {unknown[0]!r}; save the picture as PNG.")
    tags: dict[int, bytes] = {}
    if PARAMETERS in texts:
        tags[_USER_COMMENT] = piexif.helper.UserComment.dump(texts[PARAMETERS], encoding="unicode")
    if RECIPE in texts:
        tags[_MAKER_NOTE] = _RECIPE_NAME + texts[RECIPE].encode("utf-8")
    block: bytes = piexif.dump({"Exif": tags})
    return block


def read_block(block: bytes) -> dict[str, str]:
    """The texts of an Exif block by our names; empty when it has none.  Raises MetadataError for a damaged block."""
    tiff = block.removeprefix(_EXIF_NAME)
    try:
        values = _tags(tiff)
    except (struct.error, ValueError) as error:
        raise MetadataError("The picture's Exif data is damaged.") from error
    texts = {}
    is_ours = values.get(_MAKER_NOTE, b"").startswith(_RECIPE_NAME)
    if _USER_COMMENT in values:
        texts[PARAMETERS] = _comment(values[_USER_COMMENT], is_ours=is_ours)
    if is_ours:
        texts[RECIPE] = values[_MAKER_NOTE].removeprefix(_RECIPE_NAME).decode("utf-8", "replace")
    for tag, name in _NAMED.items():
        if text := values.get(tag, b"").decode("utf-8", "replace").strip("\0 "):
            texts.setdefault(name, text)
    for tag in _LABELLED:  # ComfyUI's WebP: "workflow:{...}", "prompt:{...}"
        label, _, text = values.get(tag, b"").decode("utf-8", "replace").strip("\0 ").partition(":")
        if label in ("prompt", "workflow") and text:
            texts.setdefault(label, text)
    return texts


def _tags(tiff: bytes) -> dict[int, bytes]:
    """The values of the tags that are looked at.  struct.error or ValueError for anything out of bounds."""
    orders = {b"II*\0": "<", b"MM\0*": ">"}
    if tiff[:4] not in orders:
        raise ValueError("no TIFF header")
    order = orders[tiff[:4]]
    (first,) = struct.unpack_from(order + "I", tiff, 4)
    entries = list(_directory(tiff, first, order))
    pointer = next((entry for entry in entries if entry[0] == _EXIF_POINTER), None)
    values = _values(tiff, entries, order, {*_NAMED, *_LABELLED})
    if pointer is not None:
        (second,) = struct.unpack_from(order + "I", tiff, pointer[3])
        values |= _values(tiff, _directory(tiff, second, order), order, {_USER_COMMENT, _MAKER_NOTE})
    return values


def _values(
    tiff: bytes, entries: Iterable[tuple[int, int, int, int]], order: str, wanted: set[int]
) -> dict[int, bytes]:
    """The values of the tags ``wanted`` among a directory's entries."""
    values: dict[int, bytes] = {}
    for tag, kind, count, at in entries:
        if tag not in wanted or tag in values:
            continue
        length = count * _BYTES_OF_TYPE.get(kind, 0)
        start = at if length <= 4 else struct.unpack_from(order + "I", tiff, at)[0]
        if start + length > len(tiff):
            raise ValueError("a value reaches beyond the end")
        values[tag] = tiff[start : start + length]
    return values


def _directory(tiff: bytes, position: int, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count and the place of the value field of each entry of a directory."""
    (entries,) = struct.unpack_from(order + "H", tiff, position)
    for start in range(position + 2, position + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, start)
        yield tag, kind, count, start + 8


def _comment(value: bytes, *, is_ours: bool) -> str:
    """The text of a UserComment; tools disagree on the byte order, so the zero halves of plain letters decide it.

    A file with a recipe ``is_ours`` and big-endian: "Ā" alone would look like the other order.
    """
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        little = not is_ours and (text.startswith(b"\xff\xfe") or text[1::2].count(0) > text[::2].count(0))
        return text.decode("utf-16-le" if little else "utf-16-be", "replace").removeprefix("\ufeff")
    if code in (b"ASCII\0\0\0", bytes(8)):
        return text.decode("utf-8", "replace").rstrip("\0")
    return value.decode("utf-8", "replace").rstrip("\0")


def jpeg_block(data: bytes) -> bytes | None:
    """The Exif block of a JPEG file, None without one.  Raises MetadataError for a file cut off before its picture."""
    position = 2
    while True:
        if data[position : position + 1] != b"\xff":
            raise MetadataError("The JPEG file is damaged: its segments do not follow one another.")
        while data[position : position + 1] == b"\xff":
            position += 1
        marker = data[position : position + 1]
        if marker in (b"\xda", b"\xd9"):  # the picture begins, or the file ends
            return None
        body = position + 3
        length = int.from_bytes(data[position + 1 : body], "big")
        if length < 2 or position + 1 + length > len(data):
            raise MetadataError("The JPEG file is damaged: it ends in the middle of a segment.")
        if marker == b"\xe1" and data.startswith(_EXIF_NAME, body):
            return data[body : position + 1 + length]
        position += 1 + length


def webp_block(data: bytes) -> bytes | None:
    """The Exif block of a WebP file, None without one.  Raises MetadataError for a file that is cut off."""
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        if end > len(data):
            raise MetadataError("The WebP file is damaged: it ends in the middle of a chunk.")
        if kind == b"EXIF":
            return data[position + 8 : end]
        position = end + length % 2
    return None
