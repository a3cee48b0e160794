"""The kernel compiler: one scalar Python function, run on arrays by NumPy, by a loop that Numba compiles, or on a GPU.

::

    @elementwise
    def relu_backward(dy, y):
        dx = 0.0 if y <= 0 else dy
        return dx

    dx = relu_backward(dy, y)

Positional parameters are arrays of one shape and dtype, keyword-only ones are numbers; what may stand in the function is
said in :mod:`kobai.formula.parse`. Its body is read, never run by Kobai itself, but it may be: on numbers.

Which engine runs is decided by what is installed and by the arrays (see :mod:`kobai.engine.dispatch`): host arrays of float32
or float64 that lie row by row in memory go through Numba if it is there, CuPy's through CUDA C; all others, of any library,
dtype and layout, through calls of array functions. The engines differ by rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, update_wrapper
from typing import Any

import numpy as np

from kobai.core.tape import opaque
from kobai.cpu.threads import GRAIN, run_split
from kobai.engine import dispatch
from kobai.formula import derivative
from kobai.formula.cuda_code import CudaCode
from kobai.formula.loop_code import Loops
from kobai.formula.numpy_code import ArrayCode, as_numbers, blocks, run_on_host
from kobai.formula.parse import Formula, parse
from kobai.xp import Array, xp_of

ELEMENTWISE: list[Elementwise] = []
"""Every kernel: what the tests go through, and ``kobai warmup``."""


class Code:
    """The code of one formula, written for each engine when it is first needed."""

    def __init__(self, name: str, formula: Formula) -> None:
        self.name, self.formula = name, formula
        self.into, self.slots = formula.into, formula.slots
        self.outside = tuple(slot for slot in range(self.slots) if slot not in self.into)
        """Slots that are only read."""

    @cached_property
    def calls(self) -> ArrayCode:
        """As calls of array functions."""
        return ArrayCode(self.formula)

    @cached_property
    def loops(self) -> Loops:
        """As loops for Numba."""
        return Loops(self.name, self.formula)

    @cached_property
    def cuda(self) -> CudaCode:
        """As kernels in CUDA C."""
        usual = self.into == self.formula.usual_slots()
        return CudaCode(self.name if usual else f"{self.name}_{'_'.join(map(str, self.into))}", self.formula)

    def on_host(self, *slots_and_numbers: Any) -> None:
        """Run by NumPy: ``on_host(*slots, numbers)``."""
        run_on_host(self.calls, slots_and_numbers[:-1], slots_and_numbers[-1])

    def anywhere(self, *slots_and_numbers: Any) -> None:
        """Run by the library of the arrays, of whatever layout: ``anywhere(*slots, numbers)``."""
        slots, numbers = slots_and_numbers[:-1], slots_and_numbers[-1]
        first = slots[self.into[0]]
        xp = xp_of(first)
        if isinstance(numbers, tuple):  # else an array of them, which a captured step fills
            numbers = [number.item() for number in as_numbers(first.dtype, numbers)]
        for parts in blocks(slots, flat=False):
            self.calls.run(xp, first.dtype)(*parts, *numbers)


class Elementwise:
    """A kernel made of a scalar function; see the module. ``kernel(*arrays, out=None, **numbers)``.

    ``out`` is an array, or a tuple of as many as the function returns; without it new arrays are made. An ``out`` may be one
    of the arrays, but must not overlap one otherwise. Returned is ``out``.
    """

    def __init__(
        self, function: Callable[..., Any], before: Callable[..., Any] | None = None, name: str = "", skip: str = ""
    ) -> None:
        update_wrapper(self, function)
        self.function, self.before, self.skip = function, before, skip
        self.name = name or function.__name__
        self._codes: dict[tuple[int, ...], Code] = {}
        self._variants: dict[Any, Elementwise] = {}
        ELEMENTWISE.append(self)

    @classmethod
    def of(cls, formula: Formula, name: str) -> Elementwise:
        """The kernel of a formula that no function spells out; it is not among :data:`ELEMENTWISE`."""
        made = cls.__new__(cls)
        made.__dict__.update(name=name, formula=formula, _codes={}, _variants={})
        return made

    def __repr__(self) -> str:
        return f"<elementwise {self.name}>"

    @cached_property
    def formula(self) -> Formula:
        """What the function says."""
        formula = parse(self.function, self.before)
        return formula.unless(self.skip) if self.skip else formula

    def after(self, before: Callable[..., Any]) -> Elementwise:
        """The kernel in which the formula ``before`` changes some of the arrays first: those that it returns, by name."""
        found = self._variants.get(before)
        if found is None:
            found = self._variants[before] = Elementwise(self.function, before, f"{self.name}_{before.__name__}")
        return found

    def unless(self) -> Elementwise:
        """The kernel that changes nothing where one more number, ``skip``, is not 0: the device may decide that."""
        found = self._variants.get("skip")
        if found is None:
            made = Elementwise(self.function, self.before, f"{self.name}_unless", "skip")
            found = self._variants["skip"] = made
        return found

    def part(self, k: int) -> Elementwise:
        """The kernel of result ``k`` alone."""
        if len(self.formula.results) == 1:
            return self
        found = self._variants.get(("part", k))
        if found is None:
            found = self._variants["part", k] = Elementwise.of(derivative.part(self.formula, k), f"{self.name}_{k}")
        return found

    def slope(self, k: int) -> Elementwise:
        """The kernel of the gradient of array ``k``: its arrays are those of this kernel, and the gradient of its result."""
        found = self._variants.get(("slope", k))
        if found is None:
            formula = derivative.part(derivative.vjp(self.formula), k)
            found = self._variants["slope", k] = Elementwise.of(formula, f"{self.name}_d{k}")
        return found

    def code(self, into: tuple[int, ...] | None = None) -> Code:
        """The code whose results go to the slots ``into``; by default, to the array whose name it has, else to a new one."""
        into = self.formula.into if into is None else into
        found = self._codes.get(into)
        if found is None:
            found = self._codes[into] = Code(self.name, self.formula.going(into))
        return found

    def __call__(self, *arrays: Array, out: Any = None, **scalars: float) -> Any:
        formula = self.formula
        count, n = len(formula.results), len(arrays)
        if n != len(formula.arrays) or len(scalars) != len(formula.scalars):
            raise TypeError(f"{self.name}: expected arrays {formula.arrays} and numbers {formula.scalars}")
        if out is None:
            first = arrays[0]
            empty_like = xp_of(first).empty_like
            outs = (empty_like(first),) if count == 1 else tuple([empty_like(first) for _ in range(count)])
            code, slots = self._apart, (*arrays, *outs)
        else:
            outs = out if type(out) is tuple else (out,)
            every, into = list(arrays), []
            for result in outs:
                place = next((slot for slot, array in enumerate(every) if array is result), len(every))
                if place == len(every):
                    every.append(result)
                into.append(place)
            code, slots = self.code(tuple(into)), tuple(every)
        self._run(code, slots, tuple([scalars[name] for name in formula.scalars]) if scalars else ())
        return outs[0] if count == 1 else outs

    def into_first(self, arrays: Sequence[Array], scalars: dict[str, float]) -> None:
        """``kernel(*arrays, out=arrays[0], **scalars)`` of a kernel with one result, without the search for places."""
        self._run(self.code((0,)), tuple(arrays), tuple([scalars[name] for name in self.formula.scalars]))

    @cached_property
    def _apart(self) -> Code:
        """The code whose results all go to new arrays."""
        n = len(self.formula.arrays)
        return self.code(tuple(range(n, n + len(self.formula.results))))

    def _run(self, code: Code, slots: tuple[Array, ...], numbers: tuple[float, ...]) -> None:
        first = slots[0]
        shape = first.shape
        for array in slots:
            if array.shape != shape:
                raise ValueError(f"{self.name}: expected arrays of one shape, got {[a.shape for a in slots]}")
        engine = dispatch.engine_for(slots, halves=True)
        if engine is None and not first.flags.c_contiguous:
            slots = _in_rows(slots)
            engine = dispatch.engine_for(slots, halves=True)
        if engine is None and all(type(a) in dispatch.HOST_TYPES and dispatch.loops_run(a.dtype) for a in slots):
            self._run_on_copies(code, slots, numbers)
        elif engine is dispatch.HOST:
            loop, n, values = code.loops.one, first.size, _as_array(first.dtype, numbers)
            if n < 2 * GRAIN:
                dispatch.launch(loop.dispatcher or loop, *slots, values, 0, n)
            else:
                dispatch.launch(run_split, loop, n, *slots, values)
        elif engine is dispatch.DEVICE:
            code.cuda.launch(slots, numbers)
        elif type(first) in dispatch.HOST_TYPES:
            dispatch.launch(code.on_host, *slots, numbers)
        elif (apply := getattr(xp_of(first), "apply_formula", None)) is not None:
            apply(self, code, slots, numbers)
        else:
            code.anywhere(*slots, numbers)

    def _run_on_copies(self, code: Code, slots: tuple[Array, ...], numbers: tuple[float, ...]) -> None:
        """Arrays that lie anyhow, or are of two types: NumPy would compute them by other formulas than the loops."""
        library, dtype = xp_of(slots[0]), slots[code.into[0]].dtype
        dense = tuple([library.ascontiguousarray(a, dtype) for a in slots])
        self._run(code, tuple([d.reshape(a.shape) for d, a in zip(dense, slots, strict=True)]), numbers)
        for slot in code.into:
            if dense[slot] is not slots[slot]:
                slots[slot][...] = dense[slot].reshape(slots[slot].shape)


opaque.add(Elementwise)


class from_addresses(dispatch.compiled):
    """A kernel for use inside compiled loops: ``loop(dtype, *addresses, *numbers, n)`` computes n elements of every slot.

    The slots are the kernel's arrays and behind them the results that have no array's name, all of them different memory.
    """

    def __init__(self, kernel: Elementwise) -> None:
        super().__init__(kernel.function)
        self.kernel = kernel

    def compile(self) -> Any:
        if self.dispatcher is None:
            self.dispatcher = self.kernel.code().loops.at.compile()
        return self.dispatcher

    @property
    def source(self) -> Any:
        return self.kernel.code().loops.at.source


def _in_rows(slots: tuple[Array, ...]) -> tuple[Array, ...]:
    """The arrays with their axes in the order of memory if that is the same for all, as after a convolution."""
    strides = slots[0].strides
    if any(array.strides != strides for array in slots):
        return slots
    order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
    return tuple([array.transpose(order) for array in slots])


@lru_cache(maxsize=256)
def _as_array(dtype: Any, numbers: tuple[float, ...]) -> Array:
    made = np.array(numbers, dtype)
    made.flags.writeable = False  # a recorded step knows by that that it stays the same
    return made


def elementwise(function: Callable[..., Any]) -> Elementwise:
    """Decorator: make an :class:`Elementwise` of a scalar function."""
    return Elementwise(function)
