"""Optimisers whose update looks at a parameter as a whole: at its rows, its norm, its singular values.

They say how new arrays come of old ones in ``_new``, in array operations, which a captured step records one by one. All else
– groups, state, counts, scaled losses – is as in :mod:`kobai.optim.optimizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from kobai import xp
from kobai.core.grad_mode import in_mode
from kobai.core.tensor import Tensor
from kobai.dtypes import HALVES
from kobai.formula.many import dtype_of_numbers
from kobai.optim._counts import DeviceCounts, HostCounts, State
from kobai.optim.groups import Group
from kobai.optim.optimizer import Optimizer
from kobai.xp import Array, write, xp_of


class WholeOptimizer(Optimizer):
    """Base of the optimisers that define ``_new``."""

    _choices: ClassVar[tuple[str, ...]] = ()
    """The options of a group that decide which operations a step is made of."""

    def _new(self, group: Group, p: Array, g: Array, arrays: dict[str, Array], numbers: Sequence[Any]) -> list[Array]:
        """The parameter after the step, and each array of its state in turn; nothing may be changed in place.

        ``numbers`` are those of ``_numbers``, each a float or an array without dimensions.
        """
        raise NotImplementedError

    def _check(self, group: Group) -> None:
        super()._check(group)
        if group.get("differentiable"):
            raise NotImplementedError(f"{type(self).__name__}: a step with differentiable=True is not supported")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; ``closure``, if given, computes loss and gradients first."""
        loss = None if closure is None else in_mode(True, closure)
        if (at_work := xp.recorder()) is not None:
            at_work.guard(self._structure)
            at_work.touch(self)
        for group in self.param_groups:
            for _, tensors, states, grads in self._batches(group):
                for p, state, g in zip(tensors, states, grads, strict=True):
                    self._check_places(p, {"grad": p.grad, **state})
                    self._update(group, p, state, g)
        return loss

    def _update(self, group: Group, p: Tensor, state: State, g: Array) -> None:
        names = tuple(name for name, value in state.items() if isinstance(value, Tensor) and name != "step")
        found, array = self.found_inf, p._array
        count: HostCounts | DeviceCounts
        if found is None and not self._counts_on_device:
            count = HostCounts(self, group, "", [state])
        else:
            count = DeviceCounts(self, group, "", names, [state], p, found)
        try:
            numbers = count.numbers(dtype_of_numbers(array.dtype))
            if not isinstance(numbers, tuple):
                numbers = [numbers[i : i + 1].reshape(()) for i in range(len(numbers))]
            targets = [p, *(state[name] for name in names)]
            old = [t._array for t in targets]
            wide = [a.astype(np.float32) if a.dtype in HALVES else a for a in (*old, g)]
            with xp.beside(array):
                made = self._new(
                    group,
                    wide[0],
                    -wide[-1] if group.get("maximize") else wide[-1],
                    dict(zip(names, wide[1:], strict=False)),
                    numbers,
                )
                if found is not None:
                    made = [xp_of(array).where(numbers[-1] != 0, a, b) for a, b in zip(wide, made, strict=False)]
                for target, result in zip(targets, made, strict=True):
                    write(target._array, result)
        except BaseException:
            count.take_back()
            raise
        count.finish()
        for target in targets:
            target._bump()

    def _structure(self) -> tuple[Any, ...]:
        """As in every optimiser: what a captured step depends on."""
        groups = [(id(group), *(group.get(name) for name in self._choices)) for group in self.param_groups]
        return *groups, *map(id, self.state.values())
