"""Anomaly detection: name the operation whose gradient is the first to be NaN, and the line that called it."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from kobai.dtypes import FLOATING
from kobai.xp import is_array, xp_of

_HERE = str(Path(__file__).parents[1])


class _State(threading.local):
    """One per thread, unlike PyTorch: otherwise the blocks of two threads would switch each other off."""

    enabled = False
    check_nan = True


state = _State()

used = False
"""Whether any thread ever switched it on. Until then there is nothing to check."""

made_at: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""The user's line that made each node."""


def note(node: Any) -> None:
    """Record the line of the user's program that made this node."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_HERE):
            made_at[node] = f"{frame.filename}:{frame.lineno}: {frame.line}"
            return


def check(node: Any, gradients: list[Any]) -> None:
    """RuntimeError if a gradient that this node computed has a NaN."""
    if not state.check_nan:
        return
    for i, g in enumerate(gradients):
        if is_array(g) and g.dtype.kind in FLOATING and xp_of(g).isnan(g).any().item():
            where = made_at.get(node)
            raise RuntimeError(
                f"backward: {node.name()} returned nan values in the gradient of its argument {i + 1}"
                + (f"; it was computed at {where}" if where else "; detect anomalies in forward too to see its line")
            )


class set_detect_anomaly:  # PyTorch's spelling
    """Switch the search for NaN in backward on or off in this thread: as a call, or for a ``with`` block.

    While it is on, backward looks at every gradient (which is slow) and raises RuntimeError where the first NaN appears,
    naming the operation and – if it was also on in forward – the line of the program that called it.

    >>> import kobai
    >>> x = kobai.zeros(1, requires_grad=True)
    >>> with kobai.autograd.set_detect_anomaly(True):
    ...     (x.sqrt() * 0).backward()  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    RuntimeError: backward: SqrtBackward returned nan values in the gradient of its argument 1; it was computed at ...
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        global used
        used = used or bool(mode)
        self._before = state.enabled, state.check_nan
        state.enabled, state.check_nan = bool(mode), check_nan

    def __enter__(self) -> None:
        """Anomaly detection is already set, by the constructor."""

    def __exit__(self, *error: object) -> None:
        state.enabled, state.check_nan = self._before


class detect_anomaly(set_detect_anomaly):
    """``with detect_anomaly():`` – :func:`set_detect_anomaly` switched on.

    >>> import kobai
    >>> x = kobai.ones(1, requires_grad=True)
    >>> with kobai.autograd.detect_anomaly():
    ...     x.sqrt().backward()
    """

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)
