"""A graph of ONNX while it is made: its nodes, its parameters, and the names of what it has computed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.errors import install
from kobai.onnx.arrays import Call, Value
from kobai.onnx.errors import OnnxExporterError
from kobai.onnx.sizes import Counted, Filled, Size, Unknown


class Graph:
    """What forms write into. ``out`` is the result of the call that is being written, ``layer`` where it was made."""

    def __init__(self, package: Any, axes: dict[str, tuple[str, int]]) -> None:
        self.onnx = package
        self.axes = axes  # a dynamic axis -> an input, and which of its dimensions that is
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.out: Value
        self.call: Call
        self._names: dict[int, str] = {}
        self._kept: list[Value] = []  # whose id is a key
        self._sizes: dict[Any, str] = {}
        self._constants: dict[Any, str] = {}
        self._count = 0

    # --- names

    def fresh(self, hint: str) -> Any:
        """A name that nothing has yet; parameters have names without a slash."""
        self._count += 1
        return f"/{hint}_{self._count}"

    def bind(self, value: Value, name: str) -> None:
        """From here on ``name`` is the value's name."""
        self._kept.append(value)
        self._names[id(value)] = name

    def ref(self, x: Any, dtype: Any = None) -> Any:
        """The name of an operand: of a value, an array, a number (of ``dtype``), or a name itself."""
        if x is None:
            return ""
        if isinstance(x, str):
            return x
        if isinstance(x, Value):
            if id(x) not in self._names:
                self.bind(x, self._named(x))
            return self._names[id(x)]
        if isinstance(x, (Size, Unknown)):
            return self.to(self.scalar(x), np.int64, dtype)
        return self.constant(np.asarray(x, dtype))

    def _named(self, value: Value) -> Any:
        if value.kind == "input":
            return value.name
        if value.kind == "state":
            if value.name not in self.initializers:
                array = np.ascontiguousarray(value.array).reshape(value.array.shape)
                self.initializers[value.name] = self.onnx.numpy_helper.from_array(array, value.name)
            return value.name
        if isinstance(value, Filled):
            return self.node("Expand", np.full((), value.fill, value.dtype), self.ints(value.shape))
        if isinstance(value, Counted):
            return self._counted(value)
        if value.array is None:
            raise self.refuse("a table that is made for one size of the dynamic axes", sized=True)
        return self.constant(value.array)

    def _counted(self, value: Counted) -> Any:
        """start, start + step, …"""
        if value.shape == ():
            return self.to(self.scalar(value.start), np.int64, value.dtype)
        if not float(value.start).is_integer() or not float(value.step).is_integer():
            raise self.refuse("a table of fractions as long as a dynamic axis", sized=True)
        length = self.node("Mul", self.scalar(value.shape[0]), value.step, dtype=np.int64)
        stop = self.node("Add", length, value.start, dtype=np.int64)
        return self.to(self.node("Range", value.start, stop, value.step, dtype=np.int64), np.int64, value.dtype)

    def refuse(self, what: str, sized: bool = False) -> OnnxExporterError:
        """The error for what has no form, with the primitive and the layer at work; ``sized``: because of a dynamic axis."""
        name = self.call.key.rpartition(".")[2].strip("_")
        where = f"layer {self.call.layer}" if self.call.layer else "the model"
        do = "leave its axis out of dynamic_axes, or write" if sized else "write"
        return OnnxExporterError(
            f"onnx.export: {name} in {where}: {what} has no form in ONNX that Kobai knows; {do} the layer with other operations"
        )

    # --- nodes

    def node(self, op: str, *operands: Any, dtype: Any = None, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; the name of its output, or a list of them. Numbers among its operands are of ``dtype``."""
        names = [self.ref(x, dtype) for x in operands]
        while names and not names[-1]:
            names.pop()
        made = [self.fresh(op) for _ in range(outputs)]
        given = {name: x for name, x in attributes.items() if x is not None}
        self.nodes.append(self.onnx.helper.make_node(op, names, made, name=made[0], **given))
        return made[0] if outputs == 1 else made

    def constant(self, array: Any) -> Any:
        """The name of a constant."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            made = self.fresh("Constant")
            dense = np.ascontiguousarray(array).reshape(array.shape)
            tensor = self.onnx.numpy_helper.from_array(dense, made)
            self.nodes.append(self.onnx.helper.make_node("Constant", [], [made], name=made, value=tensor))
            self._constants[key] = made
        return self._constants[key]

    def to(self, x: Any, before: Any, dtype: Any) -> Any:
        """``x``, which is of dtype ``before``, as another."""
        if np.dtype(before) == np.dtype(dtype or before):
            return self.ref(x)
        return self.node("Cast", x, to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def cast(self, x: Any, dtype: Any) -> Any:
        """An operand as ``dtype``: a value that may be of another, or a number."""
        return self.to(x, x.dtype, dtype) if isinstance(x, Value) else self.ref(x, dtype)

    # --- sizes

    def need(self, n: Any, what: str = "a size that depends on the dynamic axes") -> int:
        """``n`` as a number that is known now."""
        if isinstance(n, (Size, Unknown)):
            raise self.refuse(what, sized=True)
        return int(n)

    def scalar(self, n: Any) -> Any:
        """A size as a number of the graph."""
        return self._size(n, ())

    def _size(self, n: Any, shape: tuple[int, ...]) -> Any:
        if isinstance(n, Unknown):
            raise self.refuse(f"the size {n}", sized=True)
        if not isinstance(n, Size):
            return self.constant(np.full(shape, n, np.int64))
        if (n, shape) in self._sizes:
            return self._sizes[n, shape]
        made: Any = None
        for axis in n.axes:
            name, dim = self.axes[axis]
            one = self.node("Gather", self.node("Shape", name), np.full(shape, dim, np.int64))
            made = one if made is None else self.node("Mul", made, one)
        if n.factor != 1:
            made = self.node("Mul", made, np.full(shape, n.factor, np.int64))
        if n.offset:
            made = self.node("Add", made, np.full(shape, n.offset, np.int64))
        self._sizes[n, shape] = made
        return made

    def ints(self, numbers: Sequence[Any]) -> Any:
        """Integers and sizes as a vector of the graph."""
        if all(not isinstance(n, (Size, Unknown)) for n in numbers):
            return self.constant(np.array(list(numbers), np.int64))
        return self.node("Concat", *(self._size(n, (1,)) for n in numbers), axis=0)

    def reshape(self, x: Any, shape: Sequence[Any]) -> Any:
        """``x`` in this shape, one of whose sizes the graph finds out itself."""
        open = [i for i, n in enumerate(shape) if isinstance(n, (Size, Unknown))]
        if len(open) == 1 and 0 not in shape and -1 not in shape:
            shape = [-1 if i in open else n for i, n in enumerate(shape)]
        return self.node("Reshape", x, self.ints(shape), allowzero=1 if 0 in shape else None)


def package() -> Any:
    """The package ``onnx``, with the parts that are used; ImportError that says how to get it."""
    try:
        found = importlib.import_module("onnx")
        for part in ("helper", "numpy_helper", "checker"):
            importlib.import_module(f"onnx.{part}")
    except ImportError as error:
        raise ImportError(f"kobai.onnx: the package onnx is not installed. Install it: {install('onnx')}") from error
    return found
