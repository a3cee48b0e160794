"""How a loss is reduced, in the words and numbers that PyTorch's ``nn._reduction`` has for it."""

from __future__ import annotations

from kobai.ops._size_average import _reduction as legacy

_NUMBERS = {"none": 0, "mean": 1, "elementwise_mean": 1, "sum": 2}


def get_enum(reduction: str) -> int:
    """0 for ``"none"``, 1 for ``"mean"``, 2 for ``"sum"``."""
    if reduction not in _NUMBERS:
        raise ValueError(f"get_enum: expected 'none', 'mean' or 'sum', got {reduction!r}")
    return _NUMBERS[reduction]


def legacy_get_string(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> str:
    """The reduction that the older arguments mean; with None for both, ``"mean"``."""
    return legacy(size_average, reduce, emit_warning)


def legacy_get_enum(size_average: bool | None, reduce: bool | None, emit_warning: bool = True) -> int:
    """:func:`get_enum` of it."""
    return get_enum(legacy_get_string(size_average, reduce, emit_warning))
