"""What all arrays that stand in for an ndarray have in common: its operators, each as one call of a NumPy function by name.

A step that is recorded, a model that is exported, the tape, and ``vmap`` each have a type of array of their own, by which they
see what is done. They say how a function is called; which operator means which function stands here, once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

ARITHMETIC = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
COMPARISONS = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip
SIGNS = {"neg": "negative", "abs": "absolute", "invert": "invert", "pos": "positive"}

NUMBERS = (np.generic, int, float)
"""What an array is combined with beside arrays."""


class StandIn:
    """The operators of an ndarray; a subclass has ``_call`` and ``_takes``, and the methods that differ."""

    __slots__ = ()
    __array_ufunc__: Any = None  # NumPy must not take it for one of its own
    __array_priority__ = 200
    __hash__ = None  # type: ignore[assignment]

    T = property(lambda self: self.transpose())

    def _takes(self, other: Any) -> bool:
        """Whether an operator goes on with this operand; if not, Python asks the operand's own."""
        raise NotImplementedError

    def _call(self, name: str, *operands: Any, in_place: bool = False) -> Any:
        """NumPy's function of that name; ``in_place``: into this array, if it can be."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))  # type: ignore[arg-type, index]

    def fill(self, value: Any) -> None:
        self[...] = value  # type: ignore[index]


def reads(of: Callable[..., Any], what: str) -> Any:
    """A method that lets Python have ``of(array)``, if the values may be read."""
    return lambda self, *args, **kwargs: of(self._values(what), *args, **kwargs)


class Noted(StandIn):
    """An ndarray, ``raw``, of which every use is noted by ``_noting()``: its ``call(function, args, options)``.

    It has the methods of an ndarray. What is about its memory alone (shape, dtype, …) is answered from ``raw``, and reading a
    value is asked of ``_values``.
    """

    __slots__ = ()
    __array_priority__ = 100
    raw: Any

    what = "an array whose use is noted"
    methods: ClassVar[dict[str, Any]] = {}  # those that are not noted as NumPy's function of their name

    base = property(lambda self: self.raw)

    item = reads(np.ndarray.item, "item()")
    tolist = reads(np.ndarray.tolist, "tolist()")
    __bool__ = reads(bool, "bool(), as in an if,")
    __float__ = reads(float, "float()")
    __int__ = reads(int, "int()")
    __index__ = reads(int, "use as an index")
    __array__ = reads(np.array, "conversion to a numpy.ndarray")

    @staticmethod
    def _noting() -> Any:
        raise NotImplementedError

    def _values(self, what: str) -> Any:
        """The values, for Python to read, or an error which says that ``what`` cannot have them."""
        raise NotImplementedError

    def _cast(self, dtype: np.dtype[Any], order: str) -> Any:
        raise NotImplementedError

    def _takes(self, other: Any) -> bool:
        return isinstance(other, (type(self), np.ndarray, *NUMBERS))

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: Any) -> Any:
        return self._noting().call(operator.getitem, (self, index), {})

    def astype(
        self, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True
    ) -> Any:
        return self if not copy and self.raw.dtype == dtype else self._cast(np.dtype(dtype), order)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"{self.what} has no {name!r}")
        # The function of that name, if there is one: it takes ``out``.
        function = getattr(np, name, None)
        function = self.methods.get(name) or (function if callable(function) else getattr(np.ndarray, name))
        return lambda *args, **options: self._noting().call(function, (self, *args), options)


for _name in "shape strides dtype ndim size itemsize nbytes flags".split():
    setattr(Noted, _name, property(operator.attrgetter(f"raw.{_name}")))


def _of_two(name: str, reflected: bool = False, in_place: bool = False) -> Callable[..., Any]:
    def operate(self: StandIn, other: Any) -> Any:
        if not self._takes(other):
            return NotImplemented
        return self._call(name, *((other, self) if reflected else (self, other)), in_place=in_place)

    return operate


def _of_one(name: str) -> Callable[..., Any]:
    return lambda self: self._call(name, self)


for _symbol, _name in ARITHMETIC.items():
    setattr(StandIn, f"__{_symbol}__", _of_two(_name))
    setattr(StandIn, f"__r{_symbol}__", _of_two(_name, reflected=True))
    setattr(StandIn, f"__i{_symbol}__", _of_two(_name, in_place=True))
for _symbol, _name in COMPARISONS.items():
    setattr(StandIn, f"__{_symbol}__", _of_two(_name))
for _symbol, _name in SIGNS.items():
    setattr(StandIn, f"__{_symbol}__", _of_one(_name))
