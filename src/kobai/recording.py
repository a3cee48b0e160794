"""Recording a step on host arrays: what it computes becomes a flat program that runs again without tape or allocation.

While a step is recorded its tensors hold arrays of type :class:`Recorded`. Everything done with them is done at once, and
noted: the function, its operands, and the place in memory where the result went. The places stay; running the notes again,
in order, is the same step on whatever the input places hold by then. Views are places in places and need no note.

Three things cannot be noted, and are errors (:class:`~kobai.errors.CaptureError`, with the line of the program that did it):
a value that Python reads, because what is done with it is not seen; a size that depends on values; and an array that comes
from elsewhere, because nothing says whether it will be the same the next time.
"""

from __future__ import annotations

import operator
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from kobai import xp as _xp
from kobai.errors import CaptureError
from kobai.kernels import engine
from kobai.memory import Block, Workspace
from kobai.xp import Array, Backend

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _place() -> str:
    """File and line of the innermost frame that is not Kobai's own: where the program did it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(_HERE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- the program ------------------------------------------------------------------------------------------------------


class Program:
    """The notes of a step: calls in order, and the numbers that the host computes before each replay."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]] | None] = []
        self.feeds: list[tuple[Callable[[], tuple[float, ...]], np.ndarray[Any, Any]]] = []
        self.allocating: list[str] = []
        """Names of functions without ``out=``, which make a new array at every replay."""

    def replay(self) -> None:
        """Run the step again, on what its input places hold now."""
        for compute, place in self.feeds:
            place[...] = compute()
        for function, args in self.calls:  # type: ignore[misc]
            function(*args)


# --- the arrays -------------------------------------------------------------------------------------------------------


class Recorded:
    """A host array of a step that is being recorded. It has an ndarray's methods; values cannot be read from it."""

    __slots__ = ("__weakref__", "block", "raw")
    __array_ufunc__ = None  # NumPy must not take it for one of its own
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, raw: np.ndarray[Any, Any], block: Block | None) -> None:
        self.raw = raw
        self.block = block  # None: memory from outside the step

    shape = property(lambda self: self.raw.shape)
    strides = property(lambda self: self.raw.strides)
    dtype = property(lambda self: self.raw.dtype)
    ndim = property(lambda self: self.raw.ndim)
    size = property(lambda self: self.raw.size)
    itemsize = property(lambda self: self.raw.itemsize)
    nbytes = property(lambda self: self.raw.nbytes)
    flags = property(lambda self: self.raw.flags)
    base = property(lambda self: self.raw.base)
    T = property(lambda self: Recorded(self.raw.T, self.block))

    def _read(self, what: str) -> Any:
        return _active().host_read(what, self.raw)

    def item(self, *args: int) -> Any:
        return self._read("item()").item(*args)

    def tolist(self) -> Any:
        return self._read("tolist()").tolist()

    def __bool__(self) -> bool:
        return bool(self._read("bool(), as in an if,"))

    def __float__(self) -> float:
        return float(self._read("float()"))

    def __int__(self) -> int:
        return int(self._read("int()"))

    def __index__(self) -> int:
        return int(self._read("use as an index"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self._read("conversion to a numpy.ndarray"), dtype=dtype)

    def __repr__(self) -> str:
        return repr(self._read("repr()"))

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self.raw)))

    def __getitem__(self, index: Any) -> Any:
        return _active().call(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        _active().assign(self, index, value)

    def astype(
        self, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True
    ) -> Any:
        if not copy and self.raw.dtype == dtype:
            return self
        return _active().copied(self.raw.astype(dtype, order=order), self)  # type: ignore[call-overload]

    def copy(self, order: str = "C") -> Any:
        return _active().copied(self.raw.copy(order), self)  # type: ignore[arg-type]

    def flatten(self, order: str = "C") -> Any:
        return self.copy().reshape(-1) if order == "C" else _active().call(np.ndarray.flatten, (self, order), {})

    def fill(self, value: Any) -> None:
        self[...] = value

    def reshape(self, *shape: Any, **options: Any) -> Any:
        made = self.raw.reshape(*shape, **options)
        if np.may_share_memory(made, self.raw) or made.size == 0:
            return Recorded(made, self.block)
        copy = _active().copied(self.raw.copy(), self)  # row by row; a view of it has the new shape
        return Recorded(copy.raw.reshape(made.shape), copy.block)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"a recorded array has no {name!r}")
        # The function of that name where there is one: it takes ``out``.
        function = getattr(np, name, None)
        function = _METHODS.get(name) or (function if callable(function) else getattr(np.ndarray, name))
        return lambda *args, **kwargs: _active().call(function, (self, *args), kwargs)


_METHODS: dict[str, Any] = {
    name: getattr(np.ndarray, name) for name in "view transpose swapaxes squeeze sort partition".split()
}


def _operator(function: Any, reflected: bool = False, in_place: bool = False) -> Any:
    def operate(self: Recorded, other: Any) -> Any:
        if not isinstance(other, (Recorded, np.ndarray, np.generic, int, float)):
            return NotImplemented
        operands = (other, self) if reflected else (self, other)
        return _active().call(function, operands, {"out": self} if in_place else {})

    return operate


for _symbol, _function in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "matmul": np.matmul, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
}.items():  # fmt: skip
    setattr(Recorded, f"__{_symbol}__", _operator(_function))
    setattr(Recorded, f"__r{_symbol}__", _operator(_function, reflected=True))
    setattr(Recorded, f"__i{_symbol}__", _operator(_function, in_place=True))
for _symbol in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
    _short = {
        "less": "lt",
        "less_equal": "le",
        "greater": "gt",
        "greater_equal": "ge",
        "equal": "eq",
        "not_equal": "ne",
    }
    setattr(Recorded, f"__{_short[_symbol]}__", _operator(getattr(np, _symbol)))
for _symbol, _function in {"neg": np.negative, "abs": np.absolute, "invert": np.invert, "pos": np.positive}.items():
    setattr(Recorded, f"__{_symbol}__", lambda self, f=_function: _active().call(f, (self,), {}))


# --- the namespace ----------------------------------------------------------------------------------------------------

_TAKES_OUT = frozenset(
    "sum mean prod max amax min amin any all argmax argmin cumsum cumprod std var clip round dot concatenate stack einsum "
    "take choose trace nanmax nanmin nansum nanmean nanprod".split()
)
_WRITES_FIRST = (np.copyto, np.put, np.put_along_axis, np.fill_diagonal, np.putmask, np.place)
_WRITES_ITSELF = (np.ndarray.sort, np.ndarray.partition, np.ndarray.put)
_CONSTANTS = frozenset(
    "arange eye identity linspace logspace tri indices tril_indices triu_indices diag_indices".split()
)
_ASKS = frozenset(  # about shapes, dtypes and memory, not values
    "may_share_memory shares_memory result_type can_cast promote_types ndim shape size isscalar iinfo finfo issubdtype "
    "broadcast_shapes iscomplexobj min_scalar_type".split()
)
_SIZED_BY_VALUES = frozenset(
    "nonzero argwhere flatnonzero unique extract union1d intersect1d setdiff1d bincount trim_zeros compress".split()
)


class _Function:
    """A function of NumPy, or a method of a ufunc, that is noted when it is called."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _active().call(self.function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.function, name)
        return _Function(found) if callable(found) else found


class _Namespace:
    """``numpy`` as a step sees it that is being recorded."""

    __name__ = "numpy"
    ndarray = Recorded

    def __init__(self, module: Any = np) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name in ("linalg", "fft", "lib", "stride_tricks"):
            return _Namespace(found)
        if isinstance(found, type) and not issubclass(found, np.ufunc):
            return found
        made = _Function(found) if callable(found) else found
        setattr(self, name, made)
        return made

    # Making arrays: places of the step, filled again at every replay.

    def empty(self, shape: Any, dtype: Any = float, order: str = "C") -> Recorded:
        return _active().place(np.empty(shape, dtype, order))  # type: ignore[call-overload]

    def empty_like(
        self, prototype: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None
    ) -> Any:
        return _active().place(np.empty_like(_raw(prototype), dtype, order, subok, shape))  # type: ignore[call-overload]

    def full(self, shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> Recorded:
        if isinstance(fill_value, Recorded) and dtype is None:
            dtype = fill_value.dtype
        kind = np.asarray(fill_value).dtype if dtype is None else dtype
        out = self.empty(shape, kind, order)
        out[...] = fill_value
        return out

    def zeros(self, shape: Any, dtype: Any = float, order: str = "C") -> Recorded:
        return self.full(shape, 0, dtype, order)

    def ones(self, shape: Any, dtype: Any = float, order: str = "C") -> Recorded:
        return self.full(shape, 1, dtype, order)

    def full_like(
        self, a: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None
    ) -> Any:
        out = self.empty_like(a, dtype, order, subok, shape)
        out[...] = fill_value
        return out

    def zeros_like(self, a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None) -> Any:
        return self.full_like(a, 0, dtype, order, subok, shape)

    def ones_like(self, a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None) -> Any:
        return self.full_like(a, 1, dtype, order, subok, shape)

    def asarray(self, a: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(a, Recorded):
            return a if dtype is None else a.astype(dtype, copy=False)
        return _active().constant(np.asarray(a, dtype))

    def array(self, object: Any, dtype: Any = None, *args: Any, copy: bool = True, **kwargs: Any) -> Any:
        made = self.asarray(object, dtype)
        return made.copy("K") if copy and made is object else made

    def ascontiguousarray(self, a: Any, dtype: Any = None) -> Any:
        made = self.asarray(a, dtype)
        return made if made.flags.c_contiguous else made.copy()

    def copy(self, a: Any, order: str = "K", subok: bool = False) -> Any:
        return a.copy(order)

    def astype(self, x: Any, dtype: Any, /, *, copy: bool = True) -> Any:
        return x.astype(dtype, copy=copy)

    def reshape(self, a: Any, /, shape: Any, **options: Any) -> Any:
        return a.reshape(shape, **options)

    def ravel(self, a: Any, order: str = "C") -> Any:
        return a.reshape(-1, order=order)

    def where(self, condition: Any, *choices: Any) -> Any:
        if not choices:
            return _active().call(np.nonzero, (condition,), {})
        return _active().where(condition, *choices)


namespace = _Namespace()


def _raw(value: Any) -> Any:
    return value.raw if type(value) is Recorded else value


# --- the recorder -----------------------------------------------------------------------------------------------------


class Recorder:
    """Notes what is computed with :class:`Recorded` arrays, from :meth:`__enter__` to :meth:`__exit__`, in this thread.

    ``lenient``: what cannot be captured does not raise; it is done, and ``failure`` says what it was, so that the step
    can be finished like any other and not be captured.
    """

    def __init__(self, workspace: Workspace, lenient: bool = False) -> None:
        self.workspace = workspace
        self.lenient = lenient
        self.failure: str | None = None
        self.program = Program()
        self.thread = threading.get_ident()
        self._known: set[int] = set()  # ids of host arrays that are part of the program
        self._constants: dict[int, int] = {}  # memory of constants: where in the program they would be renewed
        self._kept: list[Any] = []
        self.guards: list[tuple[Callable[[], Any], Any]] = []
        self.postponed = False
        self._modules: dict[int, tuple[Any, dict[str, Any]]] = {}

    def __enter__(self) -> Recorder:
        if engine.recorder is not None:
            raise RuntimeError("capture: another step is being recorded")
        engine.recorder = self
        _xp.recording = namespace
        return self

    def __exit__(self, *error: object) -> None:
        engine.recorder = None
        _xp.recording = None
        self.program.calls = [call for call in self.program.calls if call is not None]

    # --- what cannot be captured

    def fail(self, message: str) -> None:
        """Something that a replay could not do: an error, or the end of this capture."""
        if self.failure is None:
            self.failure = f"{message} ({_place()})"
        if not self.lenient:
            raise CaptureError(self.failure)

    def host_read(self, what: str, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.fail(
            f"captured step: {what} reads a value of shape {raw.shape} on the host; a replay runs without Python, so return "
            "the tensor from the step and read it outside"
        )
        return raw

    def foreign(self, raw: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.fail(
            f"captured step: an array of shape {raw.shape} and dtype {raw.dtype} was made on the host inside the step, and a "
            "replay would see it frozen; pass it to the step as an argument, or make it once before"
        )
        return raw

    # --- places

    def external(self, raw: np.ndarray[Any, Any]) -> Recorded:
        """Memory that outlives the step: an input, a parameter, a buffer."""
        return Recorded(raw, None)

    def place(self, like: np.ndarray[Any, Any]) -> Recorded:
        """A new array of the step, of the shape, dtype and order of ``like``."""
        return Recorded(*self.workspace.like(like))

    def constant(self, host: np.ndarray[Any, Any]) -> Recorded:
        """What the program always finds as it is now. If the step writes into it, it is renewed at every replay."""
        if host.ndim and host.size > 1 and host.flags.writeable and id(host) not in self._known:
            self.foreign(host)
        return self._constant(host)

    def _constant(self, host: np.ndarray[Any, Any]) -> Recorded:
        # Its memory is its own: a block that was used before would be written to again by the calls that used it.
        made = Recorded(*Workspace().like(host))
        made.raw[...] = host
        assert made.block is not None
        made.block.keep()
        self._constants[id(made.block)] = len(self.program.calls)
        self._kept.append(made.block)
        self.program.calls.append(None)
        return made

    def _written(self, array: Recorded) -> None:
        """Note that the step writes here: a constant must then be made anew every time."""
        at = self._constants.pop(id(array.block), None) if array.block is not None else None
        if at is not None:
            memory = array.block.memory  # type: ignore[union-attr]
            self.program.calls[at] = (np.copyto, (memory, memory.copy()))

    def keep(self, array: Recorded) -> np.ndarray[Any, Any]:
        """The host array of ``array``, whose place is not used for anything else from now on."""
        if array.block is not None:
            array.block.keep()
        return array.raw

    # --- numbers, guards, kernels

    def numbers(self, compute: Callable[[], tuple[float, ...]], dtype: Any) -> Recorded:
        """See :func:`kobai.kernels.engine.numbers`."""
        place = np.array(compute(), dtype)
        self.program.feeds.append((compute, place))
        self._known.add(id(place))
        self._kept.append(place)
        return self.external(place)

    def guard(self, get: Callable[[], Any]) -> None:
        """The program holds only as long as ``get()`` gives what it gives now."""
        self.guards.append((get, get()))

    def host(self, action: Callable[[], None]) -> None:
        """Do something on the host that belongs to every step, such as moving a learning rate on."""
        action()

        def compute() -> tuple[float, ...]:
            action()
            return ()

        self.program.feeds.append((compute, np.empty(0)))

    def postpone(self) -> None:
        """Something is made that later steps will find: let the next call of the step be the one that is recorded."""
        self.postponed = True

    def visit(self, module: Any) -> None:
        """A module is called: the program holds for its mode, and as long as it is not given other tensors."""
        if id(module) not in self._modules:
            self._modules[id(module)] = (module, _tensors_of(module))
            self.guard(module._mode)

    def rebound(self) -> list[tuple[Any, str]]:
        """Modules, and names of their tensors that are not the same as when they were called."""
        return [
            (module, name)
            for module, before in self._modules.values()
            for name, tensor in _tensors_of(module).items()
            if before.get(name) is not tensor
        ]

    def launch(self, kernel: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Run a kernel, and note it; see :func:`kobai.kernels.engine.launch`."""
        self._own_thread()
        for arg in args:
            if type(arg) is Recorded:
                self._written(arg)  # it may be
        raw = tuple(self._unwrap(arg) for arg in args)
        bind = getattr(kernel, "bind", None)
        if bind is not None:
            bound = bind(*raw)
            bound()
            self._note(bound, ())
        else:
            kernel(*raw)
            self._note(kernel, raw)

    # --- calls

    def _own_thread(self) -> None:
        if threading.get_ident() != self.thread:
            raise CaptureError(
                "captured step: its tensors were used in another thread while the step was being recorded"
            )

    def _note(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.program.calls.append((function, args))

    def _unwrap(self, value: Any) -> Any:
        kind = type(value)
        if kind is Recorded:
            return value.raw
        if kind is tuple or kind is list:
            return kind(self._unwrap(part) for part in value)
        if isinstance(value, np.ndarray) and value.size > 1 and value.flags.writeable and id(value) not in self._known:
            return self.foreign(value)  # what cannot be written to is a table, the same at every step
        return value

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do ``function(*args, **kwargs)``, a function of NumPy, and note it."""
        self._own_thread()
        name = getattr(function, "__name__", str(function))
        raw = tuple(self._unwrap(arg) for arg in args)
        options = {key: self._unwrap(value) for key, value in kwargs.items()}
        if name in _ASKS:
            return function(*raw, **options)
        if name in _SIZED_BY_VALUES:
            self.fail(f"captured step: the size of what {name} gives depends on values, which a replay cannot follow")
        ufunc = isinstance(function, np.ufunc)
        of_ufunc = isinstance(getattr(function, "__self__", None), np.ufunc)
        if function in _WRITES_FIRST or function in _WRITES_ITSELF or (of_ufunc and name == "at"):
            self._written(args[0])
            function(*raw, **options)
            self._note(partial(function, **options) if options else function, raw)
            return None
        out = kwargs.get("out")
        if ufunc and len(args) > function.nin:
            out = args[function.nin] if function.nout == 1 else tuple(args[function.nin :])
            raw, args = raw[: function.nin], args[: function.nin]
        options.pop("out", None)
        if out is not None:
            return self._into(function, ufunc, raw, options, out)
        result = function(*raw, **options)
        if isinstance(result, (tuple, list)) and not (ufunc and function.nout > 1):
            return self._several(function, args, raw, options, result)
        if ufunc and function.nout > 1:
            return self._into(function, ufunc, raw, options, tuple(self.place(np.asarray(part)) for part in result))
        if isinstance(result, (bool, int, float, str, np.dtype)) and not isinstance(result, np.generic):
            self.host_read(f"{name}()", np.asarray(result))
            return result
        result = np.asarray(result)
        if name in _CONSTANTS:
            return self._constant(result)
        for arg, array in zip(args, raw, strict=True):  # a view needs no note
            if type(arg) is Recorded and result.size and np.may_share_memory(result, array):
                return Recorded(result, arg.block)
        if name == "getitem" and any(
            isinstance(part, np.ndarray) and part.dtype == bool and part.ndim
            for part in (raw[1] if isinstance(raw[1], tuple) else (raw[1],))
        ):
            self.fail("captured step: the size of a selection by a boolean mask depends on values; use where()")
        made = self.place(result)
        takes_out = ufunc or of_ufunc or name in _TAKES_OUT
        if takes_out:
            return self._into(function, ufunc, raw, options, made)
        made.raw[...] = result
        self.program.allocating.append(name)
        self._note(_into_copy, (made.raw, function, raw, options))
        return made

    def _into(self, function: Any, ufunc: bool, raw: tuple[Any, ...], options: dict[str, Any], out: Any) -> Any:
        """Note a call that writes its result into ``out``, which is returned."""
        outs = out if isinstance(out, tuple) else (out,)
        for array in outs:
            self._written(array)
        places = tuple(self._unwrap(array) for array in outs)
        if ufunc and not options and function not in (np.maximum, np.minimum):  # these want it by name
            function(*raw, *places)
            self._note(function, (*raw, *places))
        else:
            bound = partial(function, **options, out=places if isinstance(out, tuple) else places[0])
            bound(*raw)
            self._note(bound, raw)
        return out

    def _several(self, function: Any, args: Any, raw: tuple[Any, ...], options: dict[str, Any], results: Any) -> Any:
        """A function with several results: views of its operand, or arrays."""
        parts = []
        for i, part in enumerate(results):
            part = np.asarray(part)
            owner = next(
                (a for a, r in zip(args, raw, strict=True) if type(a) is Recorded and np.may_share_memory(part, r)),
                None,
            )
            if owner is not None:
                parts.append(Recorded(part, owner.block))
                continue
            made = self.place(part)
            made.raw[...] = part
            self._note(_into_copy_of, (made.raw, i, function, raw, options))
            parts.append(made)
        self.program.allocating.append(getattr(function, "__name__", str(function)))
        return type(results)(*parts) if hasattr(results, "_fields") else type(results)(parts)

    def copied(self, result: np.ndarray[Any, Any], source: Recorded) -> Recorded:
        """``result``, made from ``source`` by copying with or without another dtype."""
        self._own_thread()
        made = self.place(result)
        function = partial(np.copyto, casting="unsafe")
        function(made.raw, source.raw)
        self._note(function, (made.raw, source.raw))
        return made

    def assign(self, target: Recorded, index: Any, value: Any) -> None:
        """target[index] = value"""
        self._own_thread()
        self._written(target)
        index, value = self._unwrap(index), self._unwrap(value)
        part = target.raw[index] if _basic(index) else None
        if isinstance(part, np.ndarray):
            function: Any = partial(np.copyto, casting="unsafe")
            args = (part, value)
        else:
            function, args = operator.setitem, (target.raw, index, value)
        function(*args)
        self._note(function, args)

    def where(self, condition: Any, x: Any, y: Any) -> Recorded:
        """x where condition, else y: two copies into one place, which ``numpy.where`` cannot do."""
        self._own_thread()
        condition, x, y = (self._unwrap(part) for part in (condition, x, y))
        made = self.place(np.where(condition, x, y))
        condition = np.asarray(condition)
        mask = condition if condition.dtype == bool else None
        if mask is None:
            chosen = self.place(np.asarray(condition != 0))
            np.not_equal(condition, 0, chosen.raw)
            self._note(np.not_equal, (condition, 0, chosen.raw))
            mask = chosen.raw
            self._kept.append(chosen)
        copies: Any = (
            (partial(np.copyto, casting="unsafe"), (made.raw, y)),
            (partial(np.copyto, casting="unsafe", where=mask), (made.raw, x)),
        )
        for function, args in copies:
            function(*args)
            self._note(function, args)
        return made


def _tensors_of(module: Any) -> dict[str, Any]:
    """The tensors that a module holds itself, by name; tensors are what has ``requires_grad``."""
    own = {**module.__dict__, **module._parameters, **module._buffers}
    return {name: value for name, value in own.items() if hasattr(type(value), "requires_grad")}


def _active() -> Recorder:
    if engine.recorder is None:
        raise CaptureError("captured step: an array of a step that is no longer being recorded was used")
    return engine.recorder  # type: ignore[no-any-return]


def _basic(index: Any) -> bool:
    return all(
        part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        for part in (index if isinstance(index, tuple) else (index,))
    )


def _into_copy(place: Array, function: Any, args: Any, options: Any) -> None:
    result = function(*args, **options)
    if np.shape(result) != place.shape:
        raise CaptureError(
            f"captured step: {function.__name__} gave shape {np.shape(result)}, recorded was {place.shape}"
        )
    place[...] = result


def _into_copy_of(place: Array, i: int, function: Any, args: Any, options: Any) -> None:
    place[...] = function(*args, **options)[i]


def _host_read(array: Recorded) -> Any:
    return _active().host_read("a copy to the host", array.raw)


def _no_host_data(array: np.ndarray[Any, Any]) -> Recorded:
    return _active().constant(array)


_backend = Backend(
    "numpy",
    "cpu",
    lambda: (namespace, Recorded),
    from_host=_no_host_data,
    to_host=_host_read,
    linalg_errors=nullcontext,
)
_xp.adopt_array_type(Recorded, namespace, _backend)
engine.HOST_TYPES.add(Recorded)
