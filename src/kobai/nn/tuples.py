"""What PyTorch keeps beside its layers for those who write their own: numbers made tuples, types of both, prefixes of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from functools import partial
from itertools import repeat
from typing import Any

_size_any_t = int | tuple[int, ...]
_size_1_t = int | tuple[int]
_size_2_t = int | tuple[int, int]
_size_3_t = int | tuple[int, int, int]
_size_4_t, _size_5_t, _size_6_t = (int | tuple[(int,) * n] for n in (4, 5, 6))  # type: ignore[misc]
_size_any_opt_t = int | tuple[int | None, ...]
_size_2_opt_t = int | tuple[int | None, int | None]
_size_3_opt_t = int | tuple[int | None, int | None, int | None]
_ratio_any_t = float | tuple[float, ...]
_ratio_2_t = float | tuple[float, float]
_ratio_3_t = float | tuple[float, float, float]


def _tuple(n: int, x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """What makes n equal numbers of one, and a tuple of several.

    >>> _ntuple(2)(3), _ntuple(2)([3, 4])
    ((3, 3), (3, 4))
    """
    return partial(_tuple, n)


_single, _pair, _triple, _quadruple = map(_ntuple, (1, 2, 3, 4))


def _reverse_repeat_tuple(t: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """Each of ``t`` n times, from the last to the first: what ``functional.pad`` takes for ``t`` on both sides."""
    return tuple(x for x in reversed(t) for _ in range(n))


def consume_prefix_in_state_dict_if_present(state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Take ``prefix`` (``"module."``) off the keys that begin with it, in place.

    >>> state = {"module.weight": 1, "bias": 2}
    >>> consume_prefix_in_state_dict_if_present(state, "module."); state
    {'weight': 1, 'bias': 2}
    """
    for key in list(state_dict):  # all are put in again, so that their order stays
        state_dict[key.removeprefix(prefix)] = state_dict.pop(key)
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        for key in list(metadata):
            metadata["" if f"{key}." == prefix else key.removeprefix(prefix)] = metadata.pop(key)
