"""Counts that steps move on, and the kernels' numbers that come of them: on the host, or on the device.

At step t Adam's kernel needs lr/(1 − β₁ᵗ). As a rule the host counts t and computes the number in Python. Under a
:class:`~kobai.amp.GradScaler` only the device knows whether a step counts: it does not if a gradient overflowed. Then counts
are tensors of no dimension, the number is computed with arrays, and where the step is skipped the counts stay as they are, like
parameters and state::

    host      t ← t + 1                        lr/(1 − β₁ᵗ) in Python
    device    t ← t if skipped else t + 1      lr/(1 − β₁ᵗ) with arrays of one element, in float64

``Optimizer._numbers`` is written once for both, with the functions :func:`sqrt`, :func:`maximum` and :func:`where`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from numbers import Real
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np

from kobai import xp
from kobai.core.tensor import Tensor
from kobai.engine import dispatch
from kobai.optim.groups import Group, check_numbers, in_numbers
from kobai.xp import Array, asarray, device_of, xp_of

State: TypeAlias = dict[str, Any]

# --- what an optimiser may do with numbers ----------------------------------------------------------------------------


def sqrt(x: Any) -> Any:
    """√x"""
    x = _plain(x)
    return math.sqrt(x) if isinstance(x, (float, int)) else xp_of(x).sqrt(x)


def maximum(x: Any, least: float) -> Any:
    """max(x, least)"""
    x = _plain(x)
    return max(x, least) if isinstance(x, (float, int)) else xp_of(x).maximum(x, least)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x if condition else y; both have been computed."""
    if isinstance(condition, (bool, float)):
        return x if condition else y
    return xp_of(condition).where(condition, _plain(x), _plain(y))


class _Option:
    """An option of a group in a captured step: the array that every replay fills, and its present value, to compare.

    What a step decides by comparing – which kernel, how many numbers – is guarded by ``Optimizer._structure``.
    """

    __slots__ = ("array", "value")
    __array_ufunc__ = None  # arrays leave the arithmetic to it
    __array_priority__ = 200
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: float, array: Array) -> None:
        self.value, self.array = value, array

    def __float__(self) -> float:
        raise TypeError(
            "Optimizer: a number of a captured step cannot be a float; use the functions of optim/_counts.py"
        )

    def __neg__(self) -> Any:
        return -self.array


def _plain(x: Any) -> Any:
    return x.array if type(x) is _Option else x


def _arithmetic(name: str) -> Callable[[_Option, Any], Any]:
    return lambda self, other: getattr(self.array, name)(_plain(other))


def _comparison(name: str) -> Callable[[_Option, Any], Any]:
    return lambda self, other: getattr(float(self.value), name)(other.value if type(other) is _Option else other)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    setattr(_Option, f"__{_name}__", _arithmetic(f"__{_name}__"))
    setattr(_Option, f"__r{_name}__", _arithmetic(f"__r{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(_Option, f"__{_name}__", _comparison(f"__{_name}__"))

# --- on the host ------------------------------------------------------------------------------------------------------


class HostCounts(dispatch.Count):
    """One step in the states of a batch, which agree: counts the step and computes the kernel's numbers."""

    __slots__ = ("before", "decay", "group", "on_host", "optimizer", "states")

    def __init__(self, optimizer: Any, group: Group, decay: str, states: list[State]) -> None:
        self.optimizer, self.group, self.decay, self.states = optimizer, group, decay, states
        self.on_host = [item(name) for name, value in states[0].items() if not isinstance(value, Tensor)]
        self.before = self.save()

    def numbers(self, dtype: Any) -> Any:
        """The numbers of this step, and of every replay of it."""
        if len(self.states) > 1 and (at_work := xp.recorder()) is not None:
            at_work.guard(self.states_agree)
        return dispatch.numbers(self, dtype)

    def finish(self) -> None:
        """The kernel has been started."""

    def take_back(self) -> None:
        """It has not."""
        self.restore(self.before)

    def states_agree(self) -> bool:
        """Whether all states still have the first one's numbers: a step elsewhere may have skipped some parameters."""
        try:
            columns = [list(map(get, self.states)) for get in self.on_host]
        except KeyError:
            return False
        return all(column.count(column[0]) == len(column) for column in columns)

    def __call__(self) -> tuple[float, ...]:
        group, first = in_numbers(self.group), self.states[0]
        if "step" in first:
            first["step"] += 1
        numbers = (*self.optimizer._numbers(group, first), *decay_number(self.decay, group))
        check_numbers(self.optimizer, group, numbers)
        if len(self.states) > 1:
            host = {name: value for name, value in first.items() if not isinstance(value, Tensor)}
            for state in self.states[1:]:
                state.update(host)
        return numbers

    def save(self) -> State:
        return self.states[0].copy()

    def restore(self, saved: State) -> None:
        for state in self.states:
            for name in [name for name, value in state.items() if not isinstance(value, Tensor)]:
                if name in saved:
                    state[name] = saved[name]
                else:
                    del state[name]


def decay_number(kind: str, group: Group) -> tuple[Any, ...]:
    """The number of the formula that comes before the update."""
    if kind == "l2":
        return (group["weight_decay"],)
    return (1.0 - group["lr"] * group["weight_decay"],) if kind == "shrink" else ()


@cache
def item(name: str) -> Callable[[Any], Any]:
    """``state[name]``: one function for all states, so that they are compared together."""
    return itemgetter(name)


# --- on the device ----------------------------------------------------------------------------------------------------


class DeviceCounts:
    """The same for a step that only the device knows to count: not where ``found``, a tensor of one element, is not 0.

    The states of a batch share the tensors of their counts: so those whose steps agree are known without looking.
    """

    def __init__(
        self,
        optimizer: Any,
        group: Group,
        decay: str,
        names: tuple[str, ...],
        states: list[State],
        p: Tensor,
        found: Any,
    ) -> None:
        self.optimizer, self.group, self.decay, self.states = optimizer, group, decay, states
        self.p, self._after = p, {}  # type: tuple[Tensor, State]
        with self._place():
            self.counts = self._own(names)
            self._found = None if found is None else asarray(found._array, device=device_of(p._array)).reshape(1)

    def _place(self) -> AbstractContextManager[Any]:
        return xp.on(device_of(self.p._array)) if xp.many_devices else nullcontext()

    def _own(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The counts of this batch's states, which no others share: made of the host's, or taken from those that part here."""
        first = self.states[0]
        counts = {name: value for name, value in first.items() if name not in names and _is_count(value)}
        counts |= self.optimizer._counts_of_the_device(self.group, first)
        alone = len(self.states)
        others = [state for state in self.optimizer.state.values() if isinstance(state, dict)]
        for name, value in counts.items():
            if not isinstance(value, Tensor):
                made = xp_of(self.p._array).full((), float(value), np.float64)
            elif sum(state.get(name) is value for state in others) > alone:
                made = value._array.copy()
            else:
                continue
            counts[name] = Tensor._wrap(made)
            for state in self.states:
                state[name] = counts[name]
            if (at_work := xp.recorder()) is not None:
                at_work.postpone()
        self.optimizer._counts_on_device = True
        return counts

    def numbers(self, dtype: Any) -> Array:
        """The numbers of this step in an array beside the parameters, and at its end whether the step is skipped."""
        with self._place():
            group = self._options()
            state = {**self.states[0], **{name: count._array.reshape(1) for name, count in self.counts.items()}}
            if "step" in state:
                state["step"] = state["step"] + 1
            found = [*self.optimizer._numbers(group, state), *decay_number(self.decay, group)]
            found += [] if self._found is None else [self._found]
            self._after = {name: _plain(state[name]) for name in self.counts}
            made = xp_of(self.p._array).empty(len(found), dtype)
            for i, value in enumerate(found):
                made[i : i + 1] = _plain(value)
            return made

    def _options(self) -> Group:
        """The group, whose numbers a captured step looks up anew at every replay."""
        group, places = self.group, []
        for name in self.optimizer.defaults:
            value = group[name]
            if isinstance(value, (tuple, list)) and all(map(_is_number, value)):
                places += [(name, k) for k in range(len(value))]
            elif isinstance(value, Tensor) or _is_number(value):
                places.append((name, -1))

        def look_up() -> tuple[float, ...]:
            now = in_numbers(group)
            return tuple([float(now[name] if k < 0 else now[name][k]) for name, k in places])

        values = dispatch.numbers(look_up, np.float64)
        if not isinstance(values, tuple):
            values = [_Option(value, values[i : i + 1]) for i, value in enumerate(look_up())]
        found = dict(group)
        for (name, k), value in zip(places, values, strict=True):
            found[name] = value if k <= 0 else (*found[name], value)
            if k == 0:
                found[name] = (value,)
        return found

    def finish(self) -> None:
        """The kernel has been started: the counts go on, unless the step is skipped."""
        with self._place():
            for name, count in self.counts.items():
                array, after = count._array.reshape(1), self._after[name]
                if self._found is not None:
                    after = xp_of(array).where(self._found != 0, array, after)
                array[...] = after
                count._bump()

    def take_back(self) -> None:
        """It has not: nothing was counted yet."""


def _is_count(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, Tensor) and value._array.ndim == 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
