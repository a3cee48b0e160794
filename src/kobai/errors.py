"""Errors that more than one part of Kobai raises, and the "did you mean" of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np


class BackendError(RuntimeError):
    """A backend or device is not available, or arrays of two backends were mixed."""


class CaptureError(RuntimeError):
    """A step does what a replay cannot: reads a value, rebinds its state, makes an array from host data."""


class CheckpointError(RuntimeError):
    """A file does not hold the saved state it was expected to hold."""


class DataError(ValueError):
    """A data file or data set is missing, malformed, empty, or holds values that cannot be trained on."""


class LinAlgError(np.linalg.LinAlgError, RuntimeError):
    """A matrix has no inverse or no factor, or its decomposition does not converge. PyTorch's is a RuntimeError too.

    >>> issubclass(LinAlgError, RuntimeError)
    True
    """


class MissingAttribute(AttributeError):
    """An attribute that ``owner`` does not have. The nearest name is looked up only when the message is read: ``hasattr``, and
    ``getattr`` with a default, never read it.

    >>> str(MissingAttribute("text", "uper"))
    "'str' object has no attribute 'uper'. Did you mean 'upper'?"
    """

    def __init__(self, owner: object, name: str) -> None:
        # ``name`` without ``obj`` keeps the interpreter from adding a second suggestion to the traceback.
        super().__init__(name=name)
        self.owner, self.missing = owner, name

    def __str__(self) -> str:
        hint = "" if self.missing.startswith("_") else nearest(self.missing, dir(self.owner))
        return f"{type(self.owner).__name__!r} object has no attribute {self.missing!r}{'.' * bool(hint)}{hint}"


def check_integer(who: str, name: str, value: object, least: int) -> None:
    """ValueError unless an argument of ``who`` is an integer of at least ``least``.

    >>> check_integer("fit", "epochs", 3, 0)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{who}: expected {name} as an integer >= {least}, got {value!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """End of an error message: the known name closest to ``name``; else all of them if they are few.

    >>> nearest("rleu", ["relu", "tanh"])
    " Did you mean 'relu'?"
    >>> nearest("zzz", ["relu", "tanh"])
    ' Known: relu, tanh.'
    """
    names = sorted(known)
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.6) or get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(names)}." if 0 < len(names) <= 30 else ""
