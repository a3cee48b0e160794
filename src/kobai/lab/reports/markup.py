"""Parts of a page, of the elements in ``kobai.core.markup``."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kobai.core.markup import Markup as Markup, escaped as escaped, tag as tag


def paragraphs(text: str) -> Markup:
    """Plain text as paragraphs, which empty lines separate."""
    return escaped([tag("p", part.strip()) for part in text.split("\n\n") if part.strip()])


def table(
    header: Sequence[Any], rows: Iterable[Sequence[Any]], numeric: Iterable[int] = (), caption: str = ""
) -> Markup:
    """A table in a box that scrolls where the page is narrower; ``numeric`` columns are right-aligned.

    >>> "<td class=\\"n\\">3</td>" in table(["name", "n"], [["a", 3]], numeric=[1])
    True
    """
    right = set(numeric)

    def row(cells: Sequence[Any], kind: str, **attributes: str) -> Markup:
        marked = [tag(kind, cell, class_="n" if i in right else None, **attributes) for i, cell in enumerate(cells)]
        return tag("tr", marked)

    head, body = tag("thead", row(header, "th", scope="col")), tag("tbody", [row(cells, "td") for cells in rows])
    return wide(tag("table", tag("caption", caption) if caption else None, head, body), caption or "table")


def wide(content: Markup, name: str) -> Markup:
    """Content that may be wider than the page, in a box that scrolls, also by keyboard; ``name`` labels it."""
    return tag("div", content, class_="wide", tabindex="0", role="region", aria_label=name)


def code(text: str, wrap: bool = False) -> Markup:
    """Code or a command, in lines that wrap or in a box that scrolls."""
    return tag("pre", tag("code", text), **({"class_": "wrap"} if wrap else {"tabindex": "0"}))


def facts(pairs: Iterable[tuple[str, Any]]) -> Markup:
    """Names with their values; None is left out, a long value gets a line of its own."""
    shown = [
        tag("div", tag("dt", name), tag("dd", value), class_="whole" if len(str(value)) > 44 else None)
        for name, value in pairs
        if value is not None
    ]
    return tag("dl", shown, class_="facts")


def data_uri(content: bytes, kind: str) -> str:
    """A file as a ``data:`` address.

    >>> data_uri(b"<svg/>", "image/svg+xml")
    'data:image/svg+xml;base64,PHN2Zy8+'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of (height, width) grey or (height, width, 3) colour pixels, uint8.

    Written here (the format is a header, a compressed block and an end, each with its checksum: PNG specification, third
    edition, sections 5 and 11), so that a page with pictures needs no package.

    >>> png(np.zeros((2, 2), np.uint8))[:4], len(png(np.zeros((2, 2, 3), np.uint8))) < 100
    (b'\\x89PNG', True)
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"png: expected uint8 pixels (H, W) or (H, W, 3), got {pixels.dtype} of shape {pixels.shape}")
    height, width = pixels.shape[:2]

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    lines = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))  # each begins with its filter: none, 0
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
