"""Formulas that the optimisers' updates share; each update itself is in its optimiser's file.

An update is a formula on one element: the parameter p, its gradient g and its state. What depends only on the step (bias
corrections, 1 − β) is computed by the optimiser in double precision and passed as a number. So no kernel reads a value back
from the device, none needs a transcendental function, every operation is exactly rounded, and on NumPy the bits do not depend
on how the arrays are cut into blocks.
"""

from __future__ import annotations

from typing import Any

# --- what may come before an update -----------------------------------------------------------------------------------


def decayed(p: Any, g: Any, *, l2: Any) -> Any:
    """The L2 penalty's gradient added."""
    g = l2 * p + g
    return g


def ascending(g: Any) -> Any:
    """Maximise instead."""
    g = -g
    return g


def decayed_ascending(p: Any, g: Any, *, l2: Any) -> Any:
    """Maximise, under the L2 penalty."""
    g = l2 * p - g
    return g


def shrunk(p: Any, *, shrink: Any) -> Any:
    """Decoupled weight decay: p ← shrink·p"""
    p = shrink * p
    return p


def shrunk_ascending(p: Any, g: Any, *, shrink: Any) -> Any:
    """Decoupled weight decay, and maximise instead."""
    p = shrink * p
    g = -g
    return p, g


# --- the moving averages that most updates share ----------------------------------------------------------------------


def average(m: Any, g: Any, new: Any) -> Any:
    """m ← m + new·(g − m), the exponential moving average of the gradient."""
    return m + new * (g - m)


def average_square(v: Any, g: Any, old: Any, new: Any) -> Any:
    """v ← old·v + new·g², the exponential moving average of its square."""
    return old * v + new * (g * g)
