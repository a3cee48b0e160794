"""One file for each library that trains the cases: ``make(case, problem, variant, device, precision)`` gives a ``Run``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Absent(Exception):
    """This library, or this way of using it, cannot be had here; the message says why."""


@dataclass
class Run:
    """One side's training step for one case, ready to be called again and again."""

    step: Callable[[], Any]
    """Does one step on the case's batch; returns the loss, which may still lie on the device."""
    read: Callable[[Any], float] = float
    wait: Callable[[], None] = lambda: None
    """Returns when all steps called so far are done."""
    memory: Callable[[], int | None] = lambda: None
    """Bytes that the library itself says the step needs; None where it says nothing."""
