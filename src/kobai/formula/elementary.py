"""NumPy as operations see it: its elementary functions are Kobai's own loops, whose bits no processor and no build changes.

``xp_of(array)`` is :data:`namespace` for host arrays. It has all that ``numpy`` has; but ``exp``, ``sin``, ``power`` and their
like of float32 and float64 are, with Numba, kernels of :mod:`kobai.formula`. NumPy computes them by whatever vectors the
processor has, each width with other code and other last digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from kobai import xp
from kobai.cpu.threads import GRAIN, run_split
from kobai.engine import dispatch, trigonometry
from kobai.formula.elementwise import Elementwise
from kobai.formula.numpy_code import UFUNCS
from kobai.formula.parse import Formula, Value, parse
from kobai.formula.scalar import exp, log1p, maximum
from kobai.xp import Array, xp_of

LN2 = math.log(2)


def _logaddexp(x: Any, y: Any) -> Any:
    """ln(eˣ + eʸ)"""
    return x + LN2 if x == y else maximum(x, y) + log1p(exp(-abs(x - y)))


@cache
def _kernel(op: str, is_array: tuple[bool, ...]) -> Elementwise:
    """One operation as a kernel of arrays and numbers."""
    names = tuple("xy"[: len(is_array)])
    arrays = tuple(name for name, array in zip(names, is_array, strict=True) if array)
    if op == "logaddexp":
        return Elementwise.of(parse(_logaddexp), op)
    formula = Formula(arrays, tuple(name for name in names if name not in arrays), names=("",))
    args = [formula.add(Value("array" if a else "scalar", name=n)) for n, a in zip(names, is_array, strict=True)]
    formula.results = (formula.add(Value(op, tuple(args))),)
    numbered = "".join("an"[not array] for array in is_array)
    return Elementwise.of(formula.going(formula.usual_slots()), f"{op}_{numbered}")


LOOPS = {"sin": trigonometry.sines, "cos": trigonometry.cosines, "tan": trigonometry.tangents}
"""What no formula is made of: numbers so large that they need a loop of their own are among them."""


def _by_loop(loop: Callable[..., None], x: Array, out: Array | None) -> Array:
    library = xp_of(x)
    y = out if out is not None and out.flags.c_contiguous else library.empty(x.shape, x.dtype)
    dense, n = x if x.flags.c_contiguous else library.ascontiguousarray(x), x.size
    if n < 2 * GRAIN:
        dispatch.launch(loop, dense.reshape(-1), y.reshape(-1), 0, n)
    else:
        dispatch.launch(run_split, loop, n, dense.reshape(-1), y.reshape(-1))
    if out is not None and y is not out:
        out[...] = y
        return out
    return y


class Function:
    """A function of one number or two, as Kobai computes it.

    NumPy's, ``plain``, computes it where there is no loop for its arguments.
    """

    def __init__(self, op: str, plain: Callable[..., Any]) -> None:
        self.op, self.plain = op, plain
        self.__name__ = plain.__name__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)  # accumulate, reduce

    def __call__(self, *args: Any, **options: Any) -> Any:
        dtype = _loop_type(args)
        out = options.get("out")
        if dtype is None or len(options) > ("out" in options):
            return self.plain(*args, **options)
        shape = args[0].shape if len(args) == 1 else np.broadcast_shapes(*[getattr(a, "shape", ()) for a in args])
        if out is not None and (out.shape != shape or out.dtype != dtype):
            return self.plain(*args, **options)
        scalars = np.generic if self.op != "logaddexp" else object  # its kernel takes arrays alone
        given = [
            np.asarray(a, dtype) if type(a) not in dispatch.HOST_TYPES and isinstance(a, scalars) else a for a in args
        ]
        loop = LOOPS.get(self.op)
        y = self._by_kernel(given, shape, out) if loop is None else _by_loop(loop, given[0], out)
        return y if any(type(a) in dispatch.HOST_TYPES for a in args) else y[()]

    def _by_kernel(self, args: list[Any], shape: tuple[int, ...], out: Array | None) -> Array:
        is_array = tuple(type(a) in dispatch.HOST_TYPES for a in args)
        arrays, numbers = [], {}
        for name, arg in zip("xy", args, strict=False):
            if type(arg) not in dispatch.HOST_TYPES:
                numbers[name] = float(arg)
            else:
                arrays.append(arg if arg.shape == shape else xp_of(arg).broadcast_to(arg, shape))
        return _kernel(self.op, is_array)(*arrays, out=out, **numbers)


def _loop_type(args: tuple[Any, ...]) -> Any:
    """The dtype in which loops can compute a function of these arguments, or None."""
    dtype = None
    for arg in args:
        if type(arg) in dispatch.HOST_TYPES or isinstance(arg, np.generic):
            if arg.dtype is not dtype:
                if dtype is not None and arg.dtype != dtype:
                    return None
                dtype = arg.dtype
        elif type(arg) is not float and type(arg) is not int:
            return None
    return dtype if dtype is not None and dispatch.loops_run(dtype) else None


FUNCTIONS = {
    UFUNCS.get(op, op): Function(op, getattr(np, UFUNCS.get(op, op)))
    for op in (
        "exp exp2 expm1 log log2 log10 log1p sinh cosh tanh asinh acosh atanh asin acos atan sin cos tan pow atan2 logaddexp"
    ).split()
}
"""By the names that NumPy has for them."""

namespace = ModuleType(np.__name__, np.__doc__)
"""``numpy`` with :data:`FUNCTIONS` in place of its own."""

vars(namespace).update(vars(np), **FUNCTIONS)
xp.adopt_array_type(np.ndarray, namespace, xp.backend_of(np.empty(0)))
