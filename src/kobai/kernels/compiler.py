"""The kernel compiler: one scalar Python function, run on arrays by NumPy, by a loop that Numba compiles, or on a GPU.

::

    @elementwise
    def relu_backward(dy, y):
        dx = 0.0 if y <= 0 else dy
        return dx

    dx = relu_backward(dy, y)

Positional parameters are arrays of one shape and dtype, keyword-only ones are numbers; what may stand in the function is
said in :mod:`kobai.kernels._formula`. Its body is read, never run by Kobai itself, but it may be: on numbers.

Which engine runs is decided by what is installed and by the arrays (see :mod:`kobai.kernels.engine`): host arrays of float32
or float64 that lie row by row in memory go through Numba if it is there, CuPy's through CUDA C; all others, of any library,
dtype and layout, through calls of array functions. The engines differ by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache, update_wrapper
from typing import Any

import numpy as np

from kobai.kernels import engine
from kobai.kernels._cuda_code import CudaCode
from kobai.kernels._formula import Formula, parse
from kobai.kernels._loop_code import Loops
from kobai.kernels._numpy_code import ArrayCode, own_registers, run_on_host
from kobai.kernels.threads import GRAIN, run_split
from kobai.xp import Array, xp_of

ELEMENTWISE: list[Elementwise] = []
"""Every kernel: what the tests go through, and ``kobai warmup``."""


# --- functions for use in formulas, here on numbers -------------------------------------------------------------------


def sqrt(x: float) -> float:
    """√x, NaN for x < 0."""
    return math.sqrt(x) if x >= 0 else math.nan


def exp(x: float) -> float:
    """eˣ"""
    return float(np.exp(x))


def expm1(x: float) -> float:
    """eˣ − 1"""
    return float(np.expm1(x))


def log(x: float) -> float:
    """ln x"""
    return float(np.log(x))


def log1p(x: float) -> float:
    """ln(1 + x)"""
    return float(np.log1p(x))


def tanh(x: float) -> float:
    """tanh x"""
    return math.tanh(x)


def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ)"""
    return float(1 / (1 + np.exp(-x)))


def sign(x: float) -> float:
    """−1, 0 or 1; NaN of NaN"""
    return float(np.sign(x))


def maximum(x: float, y: float) -> float:
    """The larger of two; NaN if one is."""
    return float(np.maximum(x, y))


def minimum(x: float, y: float) -> float:
    """The smaller of two; NaN if one is."""
    return float(np.minimum(x, y))


# --- the compiler -----------------------------------------------------------------------------------------------------


class Code:
    """The code of one formula whose results go to the slots ``into``, written for each engine when it is first needed.

    The slots are the arrays of the formula, and behind them the results that go elsewhere.
    """

    def __init__(self, name: str, formula: Formula, into: tuple[int, ...]) -> None:
        self.name, self.formula, self.into = name, formula, into
        self.slots = max((len(formula.arrays) - 1, *into)) + 1
        self.outside = tuple(slot for slot in range(self.slots) if slot not in into)
        """Slots that are only read."""

    @cached_property
    def calls(self) -> ArrayCode:
        """As calls of array functions."""
        return ArrayCode(self.formula, self.into)

    @cached_property
    def loops(self) -> Loops:
        """As loops for Numba."""
        return Loops(self.name, self.formula, self.into)

    @cached_property
    def cuda(self) -> CudaCode:
        """As kernels in CUDA C."""
        usual = self.into == usual_places(self.formula)
        return CudaCode(self.name if usual else f"{self.name}_{'_'.join(map(str, self.into))}", self.formula, self.into)

    def on_host(self, *slots_and_numbers: Any) -> None:
        """Run by NumPy: ``on_host(*slots, numbers)``."""
        run_on_host(self.calls, slots_and_numbers[:-1], slots_and_numbers[-1])

    def anywhere(self, slots: tuple[Array, ...], numbers: Any) -> None:
        """Run by the library of the arrays, of whatever layout."""
        first = slots[self.into[0]]
        xp = xp_of(first)
        registers = own_registers(self.calls, first.shape, first.dtype, xp)
        self.calls.run(xp, first.dtype)(*slots, *registers, *numbers)


def usual_places(formula: Formula) -> tuple[int, ...]:
    """Slots for the results: the array whose name a result has, else a new one."""
    further = iter(range(len(formula.arrays), len(formula.arrays) + len(formula.results)))
    return tuple(formula.arrays.index(name) if name in formula.arrays else next(further) for name in formula.names)


class Elementwise:
    """A kernel made of a scalar function; see the module. ``kernel(*arrays, out=None, **numbers)``.

    ``out`` is an array, or a tuple of as many as the function returns; without it new arrays are made. An ``out`` may be one
    of the arrays, but must not overlap one otherwise. Returned is ``out``.
    """

    def __init__(self, function: Callable[..., Any], before: Callable[..., Any] | None = None, name: str = "") -> None:
        update_wrapper(self, function)
        self.function, self.before = function, before
        self.name = name or function.__name__
        self._codes: dict[tuple[int, ...], Code] = {}
        self._variants: dict[Any, Elementwise] = {}
        ELEMENTWISE.append(self)

    def __repr__(self) -> str:
        return f"<elementwise {self.name}>"

    @cached_property
    def formula(self) -> Formula:
        """What the function says."""
        return parse(self.function, self.before)

    def after(self, before: Callable[..., Any]) -> Elementwise:
        """The kernel in which the formula ``before`` changes some of the arrays first: those that it returns, by name."""
        found = self._variants.get(before)
        if found is None:
            found = self._variants[before] = Elementwise(self.function, before, f"{self.name}_{before.__name__}")
        return found

    def code(self, into: tuple[int, ...] | None = None) -> Code:
        """The code whose results go to the slots ``into``; by default, to the array whose name it has, else to a new one."""
        into = usual_places(self.formula) if into is None else into
        found = self._codes.get(into)
        if found is None:
            found = self._codes[into] = Code(self.name, self.formula, into)
        return found

    def __call__(self, *arrays: Array, out: Any = None, **scalars: float) -> Any:
        formula = self.formula
        count = len(formula.results)
        if len(arrays) != len(formula.arrays) or scalars.keys() != set(formula.scalars):
            raise TypeError(f"{self.name}: expected arrays {formula.arrays} and numbers {formula.scalars}")
        first = arrays[0]
        if out is None:
            empty_like = xp_of(first).empty_like
            outs = tuple(empty_like(first) for _ in range(count))
        else:
            outs = out if isinstance(out, tuple) else (out,)
        slots, into = list(arrays), []
        for result in outs:
            place = next((slot for slot, array in enumerate(slots) if array is result), len(slots))
            if place == len(slots):
                slots.append(result)
            into.append(place)
        self._run(self.code(tuple(into)), tuple(slots), tuple([scalars[name] for name in formula.scalars]))
        return outs[0] if count == 1 else outs

    def _run(self, code: Code, slots: tuple[Array, ...], numbers: tuple[float, ...]) -> None:
        first = slots[0]
        shape = first.shape
        for array in slots:
            if array.shape != shape:
                raise ValueError(f"{self.name}: expected arrays of one shape, got {[a.shape for a in slots]}")
        if type(first) in engine.HOST_TYPES:
            if engine.numba_runs(*slots) and self.formula.vectorises:
                n, values = first.size, _as_array(first.dtype, numbers)
                if n < 2 * GRAIN:
                    engine.launch(code.loops.one, *slots, values, 0, n)
                else:
                    engine.launch(run_split, code.loops.one, n, *slots, values)
            else:
                engine.launch(code.on_host, *slots, numbers)
        elif code.cuda.runs(*slots):
            code.cuda.launch(slots, numbers)
        else:
            code.anywhere(slots, numbers)


@lru_cache(maxsize=256)
def _as_array(dtype: Any, numbers: tuple[float, ...]) -> Array:
    made = np.array(numbers, dtype)
    made.flags.writeable = False  # a recorded step knows by that that it stays the same
    return made


def elementwise(function: Callable[..., Any]) -> Elementwise:
    """Decorator: make an :class:`Elementwise` of a scalar function."""
    return Elementwise(function)
