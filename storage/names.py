r"""File names as text, without losing any: a path is the identity of an image, so no two may share one spelling.

POSIX names are bytes. Almost all are UTF-8 and are stored as they are. A byte that is not UTF-8 is written ``\xNN``,
and a backslash ``\\``, so that every name has exactly one spelling and the way back is exact. Nothing is normalised:
the NFC and NFD spellings of one word are two names, as they are on disk.
"""

from __future__ import annotations

import os
import re

REALS = "@reals"  # what the paths of images below the second root of a corpus begin with
_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2})")


def to_text(path: str) -> str:
    """Spell a path from the file system (as Python gives it, with surrogate escapes) as valid UTF-8 text."""
    if path.isascii() and "\\" not in path:
        return path
    escaped = path.replace("\\", "\\\\")
    return "".join(f"\\x{ord(char) - 0xDC00:02x}" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in escaped)


def to_path(text: str) -> str:
    """Give back the path that :func:`to_text` spelled."""
    if "\\" not in text:
        return text

    def unescape(match: re.Match[str]) -> str:
        code = match.group(1)
        return "\\" if code == "\\" else os.fsdecode(bytes([int(code[1:], 16)]))

    return _ESCAPE.sub(unescape, text)


def printable(text: str) -> str:
    """Spell out what a terminal or a browser would obey instead of show: control and direction characters."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
