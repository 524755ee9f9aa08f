"""text -> text without comments: from ``#`` to the end of the line.

Rules of AUTOMATIC1111 (``modules/processing_scripts/comments.py``), down to the line ends that are left behind, because
they stand in the pictures' metadata.  Comments are taken out before anything else is read.
"""

from __future__ import annotations

import re

_LINE = re.compile(r"(?:\A|\n)#[^\n]*(?:\n|\Z)")
_REST = re.compile(r"#[^\n]*(?:\n|\Z)")


def without_comments(text: str) -> str:
    """``text`` with every comment and the line end behind it replaced by one line end; nothing else changes.

    >>> without_comments("a cat # not a dog")
    'a cat \\n'
    """
    return _REST.sub("\n", _LINE.sub("\n", text)) if "#" in text else text
