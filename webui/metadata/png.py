"""Text inside PNG files (PNG specification, third edition, section 11.3.3).

``parameters`` is stored as AUTOMATIC1111 stores it: tEXt where Latin-1 holds it, else iTXt; the recipe always as iTXt,
which is UTF-8.  Reading walks the chunks without decoding a pixel, and unpacks no more than a limit.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from webui.errors import MetadataError
from webui.result import Pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 8 * 1024 * 1024
"""Bytes of one text, unpacked."""
MAX_TEXTS = 16 * 1024 * 1024
"""Bytes of all texts of a file, unpacked."""
COMPRESSION = 4
"""zlib's level: files as small as at 6, its default, in two thirds of the time (512x512: 0.06 s)."""
ALWAYS_UTF8 = frozenset({"recipe"})


def write_png(pixels: Pixels, texts: Mapping[str, str]) -> bytes:
    """A PNG file of the picture (H, W, 3) with ``texts`` by keyword."""
    info = PngInfo()
    for keyword, text in texts.items():
        if keyword in ALWAYS_UTF8 or not _is_latin1(text):
            info.add_itxt(keyword, text)
        else:
            info.add_text(keyword, text)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=info, compress_level=COMPRESSION)
    return stream.getvalue()


def _is_latin1(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def read_texts(data: bytes) -> dict[str, str]:
    """The texts of a PNG file by keyword; of two with one keyword the later one.

    Raises MetadataError when the file is no PNG, a text is damaged, or the texts are larger than the limits.
    """
    texts: dict[str, str] = {}
    room = MAX_TEXTS
    for kind, body in _chunks(data):
        if kind in _READERS:
            keyword, packed, text = _READERS[kind](body)
            raw = _unpacked(text) if packed else text
            room -= len(raw)
            if len(raw) > MAX_TEXT or room < 0:
                raise MetadataError("The PNG's texts are larger than the limit; they are not read.")
            texts[keyword] = _decoded(raw, "utf-8" if kind == b"iTXt" else "latin-1")
    return texts


def read_exif_block(data: bytes) -> bytes | None:
    """The Exif block of a PNG file, None without one.  Raises MetadataError as :func:`read_texts`."""
    return next((body for kind, body in _chunks(data) if kind == b"eXIf"), None)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of every chunk; the checksums of those that carry metadata are checked."""
    if not data.startswith(SIGNATURE):
        raise MetadataError("This is not a PNG file.")
    position = len(SIGNATURE)
    while position < len(data):
        if position + 12 > len(data):
            raise _damaged("it ends in the middle of a chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise _damaged("it ends in the middle of a chunk")
        if kind == b"IEND":
            return
        if kind in _READERS or kind == b"eXIf":
            body = data[position + 8 : end - 4]
            if zlib.crc32(kind + body) != struct.unpack_from(">I", data, end - 4)[0]:
                raise _damaged("a checksum of its texts is wrong")
            yield kind, body
        position = end


def _damaged(how: str) -> MetadataError:
    return MetadataError(f"The PNG file is damaged: {how}.")


def _split(body: bytes, parts: int) -> list[bytes]:
    """``body`` at its first NUL bytes, into so many parts."""
    found = body.split(b"\0", parts - 1)
    if len(found) != parts:
        raise _damaged("a text has no keyword")
    return found


def _plain_text(body: bytes) -> tuple[str, bool, bytes]:
    keyword, text = _split(body, 2)
    return keyword.decode("latin-1"), False, text


def _packed_text(body: bytes) -> tuple[str, bool, bytes]:
    keyword, rest = _split(body, 2)
    if rest[:1] != b"\0":
        raise _damaged("a text is packed by an unknown method")
    return keyword.decode("latin-1"), True, rest[1:]


def _utf8_text(body: bytes) -> tuple[str, bool, bytes]:
    """keyword NUL, packed or not, method, language NUL, translated keyword NUL, text"""
    keyword, rest = _split(body, 2)
    if len(rest) < 2 or rest[0] > 1 or (rest[0] and rest[1]):
        raise _damaged("a text is packed by an unknown method")
    _, _, text = _split(rest[2:], 3)
    return keyword.decode("latin-1"), rest[0] == 1, text


_READERS = {b"tEXt": _plain_text, b"zTXt": _packed_text, b"iTXt": _utf8_text}


def _unpacked(packed: bytes) -> bytes:
    """The bytes behind zlib data; never more than one above the limit of a text."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_TEXT + 1)
    except zlib.error as error:
        raise _damaged("a packed text cannot be unpacked") from error
    if not unpacker.eof and len(text) <= MAX_TEXT:
        raise _damaged("a packed text is cut off")
    return text


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise _damaged("a text is not UTF-8") from error
