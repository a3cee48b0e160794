"""Untrusted files: opened, bounded and parsed with care, and their text shown safely."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 1 << 20
"""Bytes read at once: memory grows with what is there, not with what a header claims."""


def regular(path: str | os.PathLike[str]) -> Path:
    """The path of an ordinary file; OSError for anything else. Pipes never end, and reading a device may do anything."""
    path = Path(path)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    return path


def real(path: str | os.PathLike[str]) -> Path:
    """``Path.resolve`` without an error for a loop of links; opening it will raise one."""
    return Path(os.path.realpath(path))


def read_most(file: BinaryIO, most: int) -> bytes:
    """The rest of ``file``, at most ``most`` bytes, read piece by piece."""
    pieces = []
    while most > 0 and (piece := file.read(min(PIECE, most))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


class Bounded(io.RawIOBase):
    """A binary file that raises OSError when more than ``most`` bytes are read."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.file, self.most, self.left = file, most, most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self.left + 1 if size < 0 else min(size, self.left + 1)
        content = read_most(self.file, wanted)
        if len(content) > self.left:
            raise OSError(errno.EFBIG, f"longer than the {self.most} bytes that it may have")
        self.left -= len(content)
        return content


def from_json(text: str | bytes) -> Any:
    """``json.loads`` that raises ValueError for nesting that is too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def from_toml(text: str) -> dict[str, Any]:
    """``tomllib.loads`` that raises TOMLDecodeError for nesting that is too deep."""
    import tomllib

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("nested too deeply") from None


def printable(text: str) -> str:
    r"""The text with everything escaped that a terminal would obey or cannot show.

    That is: control characters except the newline, marks that change the direction of text, and lone surrogates.

    >>> printable("caf\u00e9 \x1b]0;title\x07")
    'café \\x1b]0;title\\x07'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c == "\n" or c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text
    )
