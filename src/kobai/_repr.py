"""Tensors as text, in PyTorch's layout: four decimals, scientific where magnitudes differ much, long axes abbreviated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

Host: TypeAlias = np.ndarray[Any, Any]

WIDTH = 80  # characters in a line
MANY = 1000  # elements above which an axis shows its ends only
ENDS = 3


def describe(host: Host, notes: Sequence[str]) -> str:
    """``tensor(elements, note, note)``; a note that does not fit goes to the next line."""
    text = f"tensor({elements(host, indent=7)}"
    for note in notes:
        line = len(text) - text.rfind("\n") - 1
        text += f", {note}" if line + len(note) + 4 <= WIDTH else f",\n{' ' * 7}{note}"
    return text + ")"


def elements(host: Host, indent: int) -> str:
    """The elements as nested brackets; lines after the first are indented to stand below them."""
    if host.size == 0:
        return "[]"
    shown = _shown(host)
    form = _floats(shown) if host.dtype.kind == "f" else _right_aligned(str, [str(v) for v in shown.tolist()])
    width = max(len(form(v)) for v in shown.tolist())
    return _nested(host, form, width, indent, host.size > MANY)


def _nested(part: Host, form: Callable[[Any], str], width: int, indent: int, abbreviate: bool) -> str:
    if part.ndim == 0:
        return form(part.item())
    cut = abbreviate and len(part) > 2 * ENDS
    rows: list[Any] = [*part[:ENDS], None, *part[-ENDS:]] if cut else list(part)
    deeper = f"\n{' ' * (indent + 1)}"
    if part.ndim > 1:
        texts = ["..." if row is None else _nested(row, form, width, indent + 1, abbreviate) for row in rows]
        return f"[{(',' + (part.ndim - 2) * chr(10) + deeper).join(texts)}]"
    texts = [" ..." if row is None else form(row.item()) for row in rows]
    per_line = max(1, (WIDTH - indent) // (width + 2))
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return f"[{(',' + deeper).join(lines)}]"


def _floats(shown: Host) -> Callable[[float], str]:
    """One format for all: whole numbers as ``3.``, else four decimals, or scientific if too much would be lost."""
    sizes = np.abs(shown[np.isfinite(shown) & (shown != 0)].astype(np.float64))
    if sizes.size == 0:
        return _right_aligned(lambda v: f"{v:.0f}." if v == 0 else str(v), ["0"])
    whole = bool((sizes == np.ceil(sizes)).all())
    low, high = float(sizes.min()), float(sizes.max())
    if high > 1000 * low or high > 1e8 or (low < 1e-4 and not whole):
        template = "{:.4e}"
    else:
        template = "{:.0f}." if whole else "{:.4f}"

    def form(v: float) -> str:
        return template.format(v) if np.isfinite(v) else str(v)

    return _right_aligned(form, [form(v) for v in shown.tolist() if np.isfinite(v) and v != 0])


def _right_aligned(form: Callable[[Any], str], texts: Sequence[str]) -> Callable[[Any], str]:
    width = max(map(len, texts))
    return lambda v: form(v).rjust(width)


def _shown(host: Host) -> Host:
    """The elements that are printed: all of a small tensor, the corners of a large one."""
    if host.size > MANY:
        for axis in range(host.ndim):
            if host.shape[axis] > 2 * ENDS:
                host = np.take(host, [*range(ENDS), *range(-ENDS, 0)], axis=axis)
    return host.ravel()
