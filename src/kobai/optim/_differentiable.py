"""``differentiable=True``: an optimiser's formula as operations on tensors, so that gradients flow through its step.

They flow to what the gradient was computed from, to the parameter as it was, to the state, and to a learning rate that is
a tensor: what learning to learn needs. As everywhere, a leaf that requires a gradient cannot be changed in place; give
the optimiser what was computed from it, such as ``w.clone()``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from kobai import ops
from kobai.core.primitive import in_place
from kobai.core.tensor import Tensor
from kobai.formula.parse import FUNCTION_NAMES, Formula
from kobai.optim._counts import State
from kobai.xp import asarray

_OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.invert,
    "select": ops.where,
    "abs": operator.abs,
    **{name: getattr(ops, name) for name in FUNCTION_NAMES},
}
"""What a formula may say (:mod:`kobai.formula.parse`), on tensors."""


def update(formula: Formula, p: Tensor, state: State, names: Sequence[str], numbers: Sequence[Any]) -> State:
    """Run an optimiser's formula on a parameter, in place, and on the arrays ``names`` of its state, which are returned."""
    tensors = [p.clone(), p.grad, *(state[name] for name in names)]
    given = dict(zip(formula.arrays, tensors, strict=True))
    given.update(zip(formula.scalars, (_tensor(number, p) for number in numbers), strict=True))
    values: dict[int, Tensor] = {}
    for i, value in enumerate(formula.values):
        if value.op in ("array", "scalar"):
            values[i] = given[value.name]
        elif value.op == "number":
            values[i] = _tensor(value.number, p)
    for i in formula.operations():
        values[i] = _OPERATIONS[formula.values[i].op](*(values[a] for a in formula.values[i].args))
    after = dict(zip(formula.names, (values[i] for i in formula.results), strict=True))
    changed = after.pop(formula.arrays[0])
    in_place(p, lambda before: changed)
    of_state = dict(zip(formula.arrays[2:], names, strict=True))
    return {of_state[name]: tensor for name, tensor in after.items() if name in of_state}


def _tensor(number: Any, like: Tensor) -> Tensor:
    """A number as a tensor without dimensions of the parameter's dtype; a tensor keeps its way to what it came from."""
    if isinstance(number, Tensor):
        return number.reshape(()).to(like.dtype)  # type: ignore[no-any-return]
    return Tensor._wrap(asarray(number, dtype=like._array.dtype, device=like.device))  # type: ignore[no-any-return]
