"""Errors that more than one part of Kobai raises, and the "did you mean" of all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import numpy as np


class ArgumentError(ValueError, RuntimeError):
    """An argument that does not do, where the array library says ValueError and PyTorch RuntimeError.

    >>> issubclass(ArgumentError, ValueError) and issubclass(ArgumentError, RuntimeError)
    True
    """


class PositionError(IndexError, RuntimeError):
    """An index out of range: IndexError in NumPy and Python, RuntimeError in ``gather`` and ``scatter`` of PyTorch.

    >>> issubclass(PositionError, IndexError) and issubclass(PositionError, RuntimeError)
    True
    """


class BackendError(RuntimeError):
    """A backend or device is not available, or arrays of two backends were mixed."""


class CaptureError(RuntimeError):
    """A step does what a replay cannot: reads a value, rebinds its state, makes an array from host data."""


class CheckpointError(RuntimeError):
    """A file does not hold the saved state it was expected to hold."""


class DataError(ValueError):
    """A data file or data set is missing, malformed, empty, or holds values that cannot be trained on."""


class DistError(RuntimeError):
    """Several processes do not work together as they should."""


class LinAlgError(np.linalg.LinAlgError, RuntimeError):
    """A matrix has no inverse or no factor, or its decomposition does not converge. PyTorch's is a RuntimeError too.

    >>> issubclass(LinAlgError, RuntimeError)
    True
    """


class OutOfMemoryError(MemoryError, RuntimeError):
    """There is no memory left for a result, on a device or the host: MemoryError in NumPy and CuPy, RuntimeError in PyTorch.

    >>> import kobai
    >>> try:
    ...     kobai.zeros(2**50)
    ... except RuntimeError as error:
    ...     print(type(error).__name__, "out of memory" in str(error))
    OutOfMemoryError True
    """


class MissingAttribute(AttributeError):
    """An attribute that ``owner`` does not have. The nearest name is looked up only when the message is read: ``hasattr``, and
    ``getattr`` with a default, never read it. ``hint`` is :func:`nearest` or :func:`likely`.

    >>> str(MissingAttribute("text", "uper"))
    "'str' object has no attribute 'uper'. Did you mean 'upper'?"
    """

    def __init__(self, owner: object, name: str, hint: Callable[[str, Iterable[str]], str] | None = None) -> None:
        # ``name`` without ``obj`` keeps the interpreter from adding a second suggestion to the traceback.
        super().__init__(name=name)
        self.owner, self.missing, self.hint = owner, name, hint or nearest

    def __str__(self) -> str:
        hint = "" if self.missing.startswith("_") else self.hint(self.missing, dir(self.owner))
        return f"{type(self.owner).__name__!r} object has no attribute {self.missing!r}{'.' * bool(hint)}{hint}"


def users_line() -> int:
    """``stacklevel`` of a warning: that of the nearest line outside Kobai, however many of its functions lie between."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("kobai."):
        frame, level = frame.f_back, level + 1
    return level


def check_integer(who: str, name: str, value: object, least: int) -> None:
    """ValueError unless an argument of ``who`` is an integer of at least ``least``.

    >>> check_integer("fit", "epochs", 3, 0)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{who}: expected {name} as an integer >= {least}, got {value!r}")


@cache
def install(extra: str) -> str:
    """The command that brings what an optional extra needs, for error messages.

    pip knows the extras of a Kobai that is installed, whether or not the package index has it. A clone that is imported where
    it lies, as by ``PYTHONPATH``, is named by its folder.

    >>> "[plot]" in install("plot")
    True
    """
    from importlib.metadata import PackageNotFoundError, distribution

    clone = Path(__file__).parents[2]
    try:
        distribution("kobai")
    except PackageNotFoundError:
        if (clone / "pyproject.toml").is_file():
            return f"pip install '{clone}[{extra}]'"
    return f"pip install 'kobai[{extra}]'"


def likely(name: str, known: Iterable[str]) -> str:
    """End of an error message about an attribute: the public name that ``name`` is a slip of, if there is one.

    Where there are hundreds of names, one that merely resembles it would mislead; a slip leaves nearly all letters in place.

    >>> likely("maxpool2d", ["max_pool2d", "max"]), likely("accelerator", ["Generator"])
    (" Did you mean 'max_pool2d'?", '')
    """
    plain = name.lower().replace("_", "")
    if len(plain) < 4 or name.startswith("_"):
        return ""
    same_case_last = sorted(known, key=lambda other: other[:1].isupper() == name[:1].isupper())
    found = {other.lower().replace("_", ""): other for other in same_case_last if not other.startswith("_")}
    close = get_close_matches(plain, [other for other in found if other[:1] == plain[:1]], n=1, cutoff=0.82)
    return f" Did you mean {found[close[0]]!r}?" if close else ""


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
