"""The arrays of a step that is being recorded, and NumPy as that step sees it.

Kobai's operations ask ``xp_of(array)`` for the library of their arrays, NumPy or CuPy, and call its functions. During a
recording there is one more library. Its arrays are :class:`Recorded`; its namespace has NumPy's functions::

    weight._array ──► Recorded ──┬── raw      an ndarray: the place in memory, with its present values
                                 └── block    the owner of that memory (memory.py); None if it comes from outside the step

    xp_of(a).exp(a)  ──►  namespace.exp  ──►  recorder.call(np.exp, (a,), {})  ──►  a Recorded, and a note

Questions that involve no element are answered here: shapes, dtypes, other views of the same memory. Everything else goes to
this thread's recorder (``recorder.py``), which does it and notes it. Reading a value in Python (``item()``, ``if x > 0``) goes
there too, and is an error.

``Recorded`` has the methods of an ndarray but is not a subclass: NumPy's C code would read the elements of a subclass without
telling the recorder, and the program would be incomplete.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from kobai.capture.memory import Block
from kobai.core.stand_in import Noted, reads
from kobai.errors import CaptureError
from kobai.formula import elementary
from kobai.xp import recorder


def active() -> Any:
    """This thread's recorder of host arrays."""
    at_work = recorder()
    if getattr(at_work, "namespace", None) is not namespace:
        raise CaptureError(
            "captured step: an array of a step was used by another thread while it was being recorded, or afterwards"
        )
    return at_work


class Recorded(Noted):
    """A host array of a step that is being recorded: an ndarray's methods, but no way to read its values."""

    __slots__ = ("__weakref__", "block", "raw")
    what = "a recorded array"
    methods: ClassVar[dict[str, Any]] = {
        name: getattr(np.ndarray, name) for name in "view transpose swapaxes squeeze sort partition".split()
    }
    _noting = staticmethod(active)

    def __init__(self, raw: np.ndarray[Any, Any], block: Block | None) -> None:
        self.raw = raw
        self.block = block  # None: memory from outside the step

    T = property(lambda self: Recorded(self.raw.T, self.block))
    __repr__ = reads(repr, "repr()")

    def _values(self, what: str) -> Any:
        return active().host_read(what, self.raw)

    def _cast(self, dtype: Any, order: str) -> Any:
        return active().copied(self.raw.astype(dtype, order=order), self)

    def _call(self, name: str, *operands: Any, in_place: bool = False) -> Any:
        return active().call(getattr(np, name), operands, {"out": self} if in_place else {})

    def __setitem__(self, index: Any, value: Any) -> None:
        active().assign(self, index, value)

    def copy(self, order: str = "C") -> Any:
        return active().copied(self.raw.copy(order), self)

    def flatten(self, order: str = "C") -> Any:
        return self.copy().reshape(-1) if order == "C" else active().call(np.ndarray.flatten, (self, order), {})

    def reshape(self, *shape: Any, **options: Any) -> Any:
        made = self.raw.reshape(*shape, **options)
        if np.may_share_memory(made, self.raw) or made.size == 0:
            return Recorded(made, self.block)
        order = options.get("order", "C")
        copy = active().copied(self.raw.copy(order), self)  # in that order; a view of it has the new shape
        return Recorded(copy.raw.reshape(made.shape, order=order), copy.block)


# --- the namespace ----------------------------------------------------------------------------------------------------


class _Function:
    """A NumPy function or a ufunc's method whose calls are noted."""

    def __init__(self, function: Any) -> None:
        self.function, self.__name__ = function, getattr(function, "__name__", "")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return active().call(self.function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.function, name)
        return _Function(found) if callable(found) else found


class _Namespace:
    """``numpy``, as a step sees it while it is recorded."""

    __name__ = "numpy"
    ndarray = Recorded

    def __init__(self, module: Any = elementary.namespace) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name in ("linalg", "fft", "lib", "stride_tricks"):
            return _Namespace(found)
        if isinstance(found, type) and not issubclass(found, np.ufunc):
            return found
        if isinstance(found, elementary.Function):
            made: Any = elementary.Function(found.op, _Function(found.plain))
        else:
            made = _Function(found) if callable(found) else found
        setattr(self, name, made)
        return made

    # Creating arrays: places of the step, which every replay fills again.

    def empty(self, *args: Any, **kwargs: Any) -> Any:
        return active().place(np.empty(*args, **kwargs))

    def empty_like(self, prototype: Any, *args: Any, **kwargs: Any) -> Any:
        return active().place(np.empty_like(raw_of(prototype), *args, **kwargs))

    def full(self, shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> Any:
        if isinstance(fill_value, Recorded) and dtype is None:
            dtype = fill_value.dtype
        kind = np.asarray(fill_value).dtype if dtype is None else dtype
        out = self.empty(shape, kind, order)
        out[...] = fill_value
        return out

    def zeros(self, shape: Any, dtype: Any = float, order: str = "C") -> Any:
        return self.full(shape, 0, dtype, order)

    def ones(self, shape: Any, dtype: Any = float, order: str = "C") -> Any:
        return self.full(shape, 1, dtype, order)

    def full_like(self, a: Any, fill_value: Any, *args: Any, **kwargs: Any) -> Any:
        out = self.empty_like(a, *args, **kwargs)
        out[...] = fill_value
        return out

    def zeros_like(self, a: Any, *args: Any, **kwargs: Any) -> Any:
        return self.full_like(a, 0, *args, **kwargs)

    def ones_like(self, a: Any, *args: Any, **kwargs: Any) -> Any:
        return self.full_like(a, 1, *args, **kwargs)

    def asarray(self, a: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(a, Recorded):
            return a if dtype is None else a.astype(dtype, copy=False)
        return active().constant(np.asarray(a, dtype))

    def array(self, object: Any, dtype: Any = None, *args: Any, copy: bool = True, **kwargs: Any) -> Any:
        made = self.asarray(object, dtype)
        return made.copy("K") if copy and made is object else made

    def ascontiguousarray(self, a: Any, dtype: Any = None) -> Any:
        made = self.asarray(a, dtype)
        return made if made.flags.c_contiguous else made.copy()

    def where(self, condition: Any, *choices: Any) -> Any:
        if not choices:
            return active().call(np.nonzero, (condition,), {})
        return active().where(condition, *choices)


namespace = _Namespace()


def raw_of(value: Any) -> Any:
    """The ndarray of a recorded array; anything else as it is."""
    return value.raw if type(value) is Recorded else value
