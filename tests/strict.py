"""The ``strict`` backend: NumPy behind an array type that refuses what CuPy refuses.

It has only the functions CuPy has (``cupy_names.txt``), never converts implicitly to ``numpy.ndarray``, never mixes with
one, and never lets Python read a value behind the program's back (``bool(x)``, ``float(x)``, ``if x > 0``), which on a GPU
would wait for the device. Inside a captured step nothing is read at all, even where the program asks for it. Code that passes
here does not break there for one of these reasons.

It is there for speed, and for machines without CuPy's wheel and a compiler: 4,169 tests take 45 s of one processor. What
memory, streams, graphs and kernels do is shown by ``tests/simulator``, and not imitated here.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kobai import refusals, xp
from kobai.capture import step as capture_step
from kobai.capture.rules import Rules
from kobai.capture.session import Replay, Session

refusals.LIBRARIES.add(__name__)  # like CuPy, in whose place it stands

CUPY_NAMES = frozenset((Path(__file__).parent / "cupy_names.txt").read_text().split("\n"))
METHODS = frozenset(
    "all any argmax argmin argpartition argsort astype choose clip compress copy cumprod cumsum diagonal dot fill flatten "
    "max mean min nonzero partition prod ptp put ravel repeat reshape round searchsorted sort squeeze std sum swapaxes take "
    "trace transpose var view".split()
)


UFUNC_METHODS = {
    "at": ("add", "subtract", "bitwise_and", "bitwise_or", "bitwise_xor"),  # maximum.at rounds float64 to float32
    "reduce": ("add", "multiply"),
    "accumulate": ("add", "multiply"),
    "reduceat": ("add",),
    "outer": ("add", "subtract", "multiply", "maximum", "minimum"),
}
"""The methods CuPy's ufuncs have, and for which functions (cupy/_core/_kernel.pyx)."""

ATOMIC = ("int32", "int64", "uint32", "uint64", "float16", "float32", "float64")
"""The dtypes that CuPy 14's ``add.at`` knows."""

LINALG = frozenset(
    "LinAlgError cholesky cond cross det eig eigh eigvals eigvalsh inv lstsq matmul matrix_power matrix_rank "
    "matrix_transpose norm pinv qr slogdet solve svd tensorinv tensorsolve".split()
)


def wrap(result: Any) -> Any:
    if isinstance(result, (np.ndarray, np.generic)):
        return StrictArray(np.asarray(result))
    if isinstance(result, tuple):
        parts = [wrap(part) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if isinstance(result, list):
        return [wrap(part) for part in result]
    return result


def unwrap(value: Any) -> Any:
    if isinstance(value, StrictArray):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError("strict: a numpy.ndarray was mixed with device arrays; CuPy raises TypeError: Unsupported type")
    if isinstance(value, (list, tuple)):
        parts = [unwrap(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def refuse(what: str) -> Any:
    def refused(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"strict: implicit {what}; on a GPU this fails or waits for the device")

    return refused


class StrictArray:
    """A device array as CuPy's, kept on the host."""

    __array_ufunc__ = None  # numpy must not take it for one of its own
    __array_priority__ = 100

    def __init__(self, host: np.ndarray) -> None:
        self.host = host

    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    flags = property(  # CuPy has no others: everything there can be written to
        lambda self: SimpleNamespace(
            **{k: self.host.flags[k.upper()] for k in ("c_contiguous", "f_contiguous", "owndata")}
        )
    )
    base = property(lambda self: self.host)  # in which every chain of bases ends with the owner of the memory
    T = property(lambda self: wrap(self.host.T))
    data = property(lambda self: SimpleNamespace(ptr=self.host.ctypes.data))

    __array__ = refuse("conversion to numpy.ndarray")
    __bool__ = refuse("bool()")
    __float__ = refuse("float()")
    __int__ = refuse("int()")
    __index__ = refuse("use as an index")

    def read(self, what: str) -> np.ndarray:
        """The elements for the host: asked for by name this is allowed, as in CuPy, but not while a step is captured."""
        if (recorder := xp.recorder()) is not None:
            recorder.host_read(what, self)
        return self.host.copy()

    def item(self) -> Any:
        return self.read("item()").item()

    def tolist(self) -> Any:
        return self.read("tolist()").tolist()

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(f"strict: cupy.ndarray has no {name!r}")
        method = getattr(self.host, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return wrap(method(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()}))

        return call

    def __getitem__(self, index: Any) -> Any:
        return wrap(self.host[unwrap(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.host[unwrap(index)] = unwrap(value)

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Any:
        return (wrap(part) for part in self.host)

    def __repr__(self) -> str:
        return f"strict{self.host!r}"

    __hash__ = None  # type: ignore[assignment]


def _operator(name: str) -> Any:
    def operate(self: StrictArray, *others: Any) -> Any:
        method = getattr(self.host, name)
        result = method(*unwrap(others))
        if result is NotImplemented:
            return result
        return self if name.startswith("__i") and name not in ("__invert__",) else wrap(result)

    return operate


for _symbol in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    for _prefix in ("", "r", "i"):
        _name = f"__{_prefix}{_symbol}__"
        setattr(StrictArray, _name, _operator(_name))
for _symbol in "lt le gt ge eq ne neg pos abs invert".split():
    setattr(StrictArray, f"__{_symbol}__", _operator(f"__{_symbol}__"))


class _Function:
    """One function of the namespace, or a ufunc with its methods ``at``, ``reduce``, ``accumulate``, ``outer``."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if "where" in kwargs and isinstance(self.function, np.ufunc):
            raise TypeError(f"strict: CuPy's {self.function.__name__} has no where=")
        if getattr(self.function, "__name__", "") == "at" and args[0].dtype.name not in ATOMIC:
            raise TypeError(f"strict: CuPy's ufunc.at knows no {args[0].dtype}")
        out = kwargs.get("out")
        result = self.function(*unwrap(args), **{k: unwrap(v) for k, v in kwargs.items()})
        return wrap(result) if out is None else out

    def __getattr__(self, name: str) -> Any:
        if isinstance(self.function, np.ufunc) and self.function.__name__ in UFUNC_METHODS.get(name, ()):
            return _Function(getattr(self.function, name))
        raise AttributeError(f"strict: CuPy's {getattr(self.function, '__name__', self.function)} has no {name!r}")


class _Linalg:
    def __getattr__(self, name: str) -> Any:
        if name not in LINALG:
            raise AttributeError(f"strict: CuPy's linalg has no {name!r}")
        return self._solve if name == "solve" else _Function(getattr(np.linalg, name))

    def _solve(self, a: Any, b: Any) -> Any:
        if a.shape[:-1] != b.shape[:-1]:
            raise ValueError("strict: CuPy's solve does not broadcast")
        return _Function(np.linalg.solve)(a, b)


def _unwritten(made: np.ndarray) -> np.ndarray:
    made.fill(np.nan if made.dtype.kind == "f" else True if made.dtype.kind == "b" else 99)
    return made


class _Namespace:
    __name__ = "strict"
    ndarray = StrictArray

    def __getattr__(self, name: str) -> Any:
        if name == "lib":
            return SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_Function(np.lib.stride_tricks.as_strided)))
        if name not in CUPY_NAMES:
            raise AttributeError(f"strict: CuPy has no function {name!r}")
        found = getattr(np, name)
        if name == "linalg":
            return _Linalg()
        if name in ("asarray", "array", "ascontiguousarray"):
            # cupy.asarray takes a numpy array: that is how data reaches the device
            return lambda obj, *a, **k: wrap(found(obj.host if isinstance(obj, StrictArray) else obj, *a, **k))
        if name in ("empty", "empty_like"):  # memory that was used before, and holds nothing of use
            return lambda *a, **k: wrap(_unwritten(found(*unwrap(a), **{key: unwrap(v) for key, v in k.items()})))
        if isinstance(found, type) or not callable(found):
            return found
        return _Function(found)


strict = xp.Backend(
    "strict",
    "strict",
    lambda: (_Namespace(), StrictArray),
    from_host=lambda a: StrictArray(np.array(a)),
    to_host=lambda a: a.read("a copy to the host"),
)
xp.register(strict)


class StrictRules(Rules):
    """A captured step as a device would have it: numbers of the host come as arrays."""

    def numbers(self, compute: Any, dtype: Any) -> Any:
        return StrictArray(np.array(compute(), dtype))

    def feed(self, compute: Any, place: Any) -> None:
        pass  # a replay runs the step

    def launch(self, kernel: Any, args: tuple[Any, ...]) -> None:
        kernel(*args)


class StrictSession(Session):
    """Nothing is recorded: a replay runs the step again, under the same rules, and its results go where the first ones were."""

    def __init__(self, workspace: Any, lenient: bool, inputs: list[Any]) -> None:
        super().__init__(StrictRules(lenient), inputs)

    def run(self, step: Any, args: Any, kwargs: Any) -> Any:
        self.again = lambda: super(StrictSession, self).run(step, args, kwargs)
        return self.again()

    def replay(self, result: Any) -> Replay:
        places: list[Any] = []
        capture_step._signature(result, places)

        def run() -> None:
            self.recorder = StrictRules()
            found: list[Any] = []
            capture_step._signature(self.again(), found)
            for place, tensor in zip(places, found, strict=True):
                place._array[...] = tensor._array
            for leaf, grad in made.grads:
                if grad is not None and leaf._grad is not grad:
                    grad._array[...] = leaf._grad._array

        made = Replay(run, self, result)
        return made


capture_step.SESSIONS["strict"] = StrictSession
