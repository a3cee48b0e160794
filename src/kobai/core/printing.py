"""Tensors as text, in PyTorch's layout: four decimals, scientific where magnitudes differ much, long axes abbreviated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from kobai.dtypes import FLOATING
from kobai.errors import nearest
from kobai.xp import to_host

Host: TypeAlias = np.ndarray[Any, Any]


@dataclass
class _Options:
    precision: int = 4
    linewidth: int = 80  # characters in a line
    threshold: float = 1000  # elements above which an axis shows only its ends
    edgeitems: int = 3  # elements at each end
    sci_mode: bool | None = None  # None: where it is needed


_options = PRINT_OPTS = _Options()
_PROFILES = {"default": (4, 1000, 3), "short": (2, 1000, 2), "full": (4, math.inf, 3)}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """How tensors are printed: digits after the point, elements above which only ``edgeitems`` at each end are shown,
    characters in a line; a ``profile`` ("default", "short", "full") sets them all. What is not given keeps its
    value, except ``sci_mode`` (True: always scientific, False: never), which returns to None, "where needed".

    >>> import kobai
    >>> kobai.set_printoptions(precision=2); kobai.tensor([0.12345])
    tensor([0.12])
    >>> kobai.set_printoptions(profile="default")
    """
    if profile is not None:
        if profile not in _PROFILES:
            hint = nearest(profile, _PROFILES)
            raise ValueError(f"set_printoptions: expected profile 'default', 'short' or 'full', got {profile!r}.{hint}")
        _options.precision, _options.threshold, _options.edgeitems = _PROFILES[profile]
        _options.linewidth = 80
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(_options, name, value)
    _options.sci_mode = sci_mode


def describe(host: Host, notes: Sequence[str]) -> str:
    """``tensor(elements, note, note)``; a note that does not fit goes to the next line."""
    text = f"tensor({elements(host, indent=7)}"
    for note in notes:
        line = len(text) - text.rfind("\n") - 1
        text += f", {note}" if line + len(note) + 4 <= _options.linewidth else f",\n{' ' * 7}{note}"
    return text + ")"


def _tensor_str(tensor: Any, indent: int) -> str:
    """The elements of a tensor alone, as PyTorch's function of this name."""
    return elements(to_host(tensor.array), indent)


def elements(host: Host, indent: int) -> str:
    """The elements as nested brackets; lines after the first are indented to stand below them."""
    if host.size == 0:
        return "[]"
    shown = _shown(host)
    form, width = _floats(shown) if host.dtype.kind in FLOATING else (str, max(len(str(v)) for v in shown.tolist()))
    return _nested(host, lambda v: form(v).rjust(width), width, indent, host.size > _options.threshold)


def _nested(part: Host, form: Callable[[Any], str], width: int, indent: int, abbreviate: bool) -> str:
    if part.ndim == 0:
        return form(part.item())
    ends = _options.edgeitems
    cut = abbreviate and len(part) > 2 * ends
    rows: list[Any] = [*part[:ends], None, *part[-ends:]] if cut else list(part)
    deeper = f"\n{' ' * (indent + 1)}"
    if part.ndim > 1:
        texts = ["..." if row is None else _nested(row, form, width, indent + 1, abbreviate) for row in rows]
        return f"[{(',' + (part.ndim - 2) * chr(10) + deeper).join(texts)}]"
    texts = [" ..." if row is None else form(row.item()) for row in rows]
    per_line = max(1, (_options.linewidth - indent) // (width + 2))
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return f"[{(',' + deeper).join(lines)}]"


def _floats(shown: Host) -> tuple[Callable[[float], str], int]:
    """One format for all, and its width: whole numbers as ``3.``, else four decimals, or scientific if too much is lost.

    Zeros, inf and nan have no say in it and may be wider.
    """
    sizes = np.abs(shown[np.isfinite(shown) & (shown != 0)].astype(np.float64))
    if sizes.size == 0:
        return (lambda v: f"{v:.0f}." if v == 0 else str(v)), 1
    whole = bool((sizes == np.ceil(sizes)).all())
    low, high = float(sizes.min()), float(sizes.max())
    scientific = _options.sci_mode
    if scientific is None:
        scientific = high > 1000 * low or high > 1e8 or (low < 1e-4 and not whole)
    digits = _options.precision
    template = f"{{:.{digits}e}}" if scientific else "{:.0f}." if whole else f"{{:.{digits}f}}"

    def form(v: float) -> str:
        return template.format(v) if np.isfinite(v) else str(v)

    return form, max(len(form(v)) for v in shown.tolist() if np.isfinite(v) and v != 0)


def _shown(host: Host) -> Host:
    """The elements that are printed: all of a small tensor, the corners of a large one."""
    if host.size > _options.threshold:
        ends = _options.edgeitems
        for axis in range(host.ndim):
            if host.shape[axis] > 2 * ends:
                host = np.take(host, [*range(ends), *range(-ends, 0)], axis=axis)
    return host.ravel()
