"""The arrays of a model that is being exported, and NumPy as that model sees it.

Each is an ndarray, with the values of the example inputs, and beside it the :class:`Value` that says where it comes from.
Primitives know them by their type (``RUNNERS``), and are noted; what works on arrays outside of primitives calls the functions
of this namespace, which are noted too, under the name of NumPy's function::

    weight._array ──► Traced ──┬── raw      an ndarray, for the example
                               └── value    "input x", "state 0.weight", a constant, or the result of a call

An array that no input leads to is known now: NumPy's functions compute it, and what comes out is a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai.core.stand_in import Noted
from kobai.onnx.errors import OnnxExporterError
from kobai.xp import recorder


@dataclass(eq=False)
class Value:
    """A tensor of the graph. ``array``: what it holds, if that is known before the graph runs."""

    shape: tuple[Any, ...]
    dtype: Any
    kind: str
    """``input``, ``state`` (a parameter or buffer), ``constant`` or ``call``."""
    name: str = ""
    array: Any = None
    varies: bool = False
    """Whether it depends on the inputs."""


@dataclass(eq=False)
class Call:
    """A call that was noted: of a primitive by its key in the registry, or of one of NumPy's functions as ``numpy.argmax``."""

    key: str
    args: tuple[Any, ...]
    options: dict[str, Any]
    result: Value
    layer: str


def active() -> Any:
    """This thread's tracer."""
    at_work = recorder()
    if getattr(at_work, "namespace", None) is not namespace:
        raise OnnxExporterError("onnx.export: a tensor of the model was used by another thread, or after the export")
    return at_work


class Traced(Noted):
    """An array of a model that is being exported: an ndarray's methods, each of which is noted or refused."""

    __slots__ = ("__weakref__", "raw", "value")
    what = "an array of a model that is exported"
    _noting = staticmethod(active)

    def __init__(self, raw: Any, value: Value) -> None:
        self.raw, self.value = raw, value

    def _values(self, what: str) -> Any:
        return active().known(what, self)

    def _cast(self, dtype: Any, order: str) -> Any:
        return active().call(np.ndarray.astype, (self, dtype), {})

    def _call(self, name: str, *operands: Any, in_place: bool = False) -> Any:
        return active().call(getattr(np, name), operands, {})  # a graph has values only: ``a += b`` is a new one

    def __setitem__(self, index: Any, value: Any) -> None:
        active().write(self, index, value)

    def copy(self, order: str = "C") -> Any:
        return active().call(np.copy, (self,), {})

    def reshape(self, *shape: Any, **options: Any) -> Any:
        return active().call(np.reshape, (self, self.raw.reshape(*shape).shape), {})


class _Function:
    """A NumPy function, or a method of a ufunc, that is noted where its operands depend on the inputs."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        return active().call(self.function, args, options)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.function, name)
        return _Function(found) if callable(found) else found


class _Namespace:
    """``numpy``, as a model sees it while it is exported."""

    __name__ = "numpy"
    ndarray = Traced

    def __init__(self, module: Any = np) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name in ("linalg", "fft", "lib", "stride_tricks"):
            return _Namespace(found)
        if isinstance(found, type) and not issubclass(found, np.ufunc):
            return found
        return _Function(found) if callable(found) else found

    def asarray(self, a: Any, dtype: Any = None, *args: Any, **options: Any) -> Any:
        if isinstance(a, Traced):
            return a if dtype is None else a.astype(dtype, copy=False)
        return active().constant(np.asarray(a, dtype))

    def array(self, object: Any, dtype: Any = None, *args: Any, copy: bool = True, **options: Any) -> Any:
        made = self.asarray(object, dtype)
        return made.copy() if copy and made is object else made

    def ascontiguousarray(self, a: Any, dtype: Any = None) -> Any:
        return self.asarray(a, dtype)


namespace = _Namespace()


def raw_of(value: Any) -> Any:
    """The ndarrays of arrays that are traced, in lists and tuples too; anything else as it is."""
    if type(value) is Traced:
        return value.raw
    if type(value) in (tuple, list):
        return type(value)(map(raw_of, value))
    return value
