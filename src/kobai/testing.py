"""``kobai.testing``: comparing tensors in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.refusals import guard as _guard
from kobai.xp import to_host

__all__ = ["assert_close"]

_TOLERANCES = {"bfloat16": (1.6e-2, 1e-5), "float16": (1e-3, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """AssertionError unless |actual − expected| ≤ atol + rtol · |expected| everywhere; for tensors, numbers, and
    sequences and mappings of them.

    The default tolerances are those of the dtype: (1.3e-6, 1e-5) for float32, (1e-7, 1e-7) for float64, 0 for integers.
    Shapes, dtypes and devices must agree.

    >>> import kobai
    >>> kobai.testing.assert_close(kobai.tensor([1.0]), kobai.tensor([1.0 + 1e-6]))
    """
    if (rtol is None) != (atol is None):
        raise ValueError("assert_close: expected rtol and atol together, got one of them")
    problem = _difference(actual, expected, rtol, atol, equal_nan, check_device, check_dtype, "")
    if problem:
        raise AssertionError(msg(problem) if callable(msg) else msg if msg is not None else problem)


def _difference(a: Any, b: Any, *options: Any) -> str:
    """What differs, or ``""``."""
    *rest, where = options
    at = f" at {where}" if where else ""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return f"The keys differ{at}: {sorted(map(str, a))} and {sorted(map(str, b))}"
        found = (_difference(a[key], b[key], *rest, f"{where}[{key!r}]") for key in a)
    elif isinstance(a, Sequence) and isinstance(b, Sequence) and not isinstance(a, str):
        if len(a) != len(b):
            return f"The lengths differ{at}: {len(a)} and {len(b)}"
        found = (_difference(x, y, *rest, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True)))
    else:
        return _apart(a, b, at, *rest)
    return next((problem for problem in found if problem), "")


def _apart(
    a: Any, b: Any, at: str, rtol: Any, atol: Any, equal_nan: bool, check_device: bool, check_dtype: bool
) -> str:
    if isinstance(a, Tensor) != isinstance(b, Tensor):
        raise TypeError(
            f"assert_close: expected two Tensors or two numbers{at}, got {type(a).__name__} and {type(b).__name__}"
        )
    if isinstance(a, Tensor):
        if a.shape != b.shape:
            return f"The shapes differ{at}: {tuple(a.shape)} and {tuple(b.shape)}"
        if check_dtype and a.dtype != b.dtype:
            return f"The dtypes differ{at}: {a.dtype} and {b.dtype}"
        if check_device and a.device != b.device:
            return f"The devices differ{at}: {a.device} and {b.device}"
        x, y = to_host(a.detach().array), to_host(b.detach().array)
    else:
        x, y = np.asarray(a), np.asarray(b)
    if rtol is None:
        rtol, atol = max(_TOLERANCES.get(side.dtype.name, (0.0, 0.0)) for side in (x, y))
    wrong = ~np.isclose(x, y, rtol=rtol, atol=atol, equal_nan=equal_nan)
    if not wrong.any():
        return ""
    with np.errstate(invalid="ignore"):
        largest = np.abs(x.astype(np.float64) - y.astype(np.float64)).max()
    first = "" if x.ndim == 0 else f", the first at {tuple(int(i) for i in np.argwhere(wrong)[0])}"
    return (
        f"The values differ{at}: {int(wrong.sum())} of {wrong.size} elements{first}; the greatest difference is {largest} "
        f"(permitted: {atol} + {rtol} · |expected|)"
    )


_guard(globals())
