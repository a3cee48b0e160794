"""Element types, and constants.

A :class:`dtype` wraps a NumPy dtype. Array libraries take it for that dtype, by its ``dtype`` attribute; it compares and hashes
like it, and prints and answers like PyTorch's. bfloat16 is the dtype that ``ml_dtypes`` adds to NumPy; CuPy knows it too.
"""

from __future__ import annotations

import builtins
from typing import Any

import ml_dtypes
import numpy as np

FLOATING = "fV"
"""Kinds of the float dtypes. NumPy gives a dtype that another package adds the kind V; bfloat16 is the only one here."""


class dtype:  # PyTorch's spelling
    """Type of a tensor's elements: ``kobai.float32``, ``kobai.int64``, ``kobai.bool``, ...

    >>> import kobai, numpy
    >>> kobai.float32, kobai.float32.is_floating_point, kobai.float32 == numpy.float32
    (kobai.float32, True, True)
    """

    __slots__ = ("dtype",)
    dtype: np.dtype[Any]

    def __init__(self, like: Any) -> None:
        self.dtype = np.dtype(like)

    @property
    def is_floating_point(self) -> builtins.bool:
        """Whether elements are floats."""
        return self.dtype.kind in FLOATING

    @property
    def is_complex(self) -> builtins.bool:
        """Whether elements are complex: never in Kobai."""
        return False

    @property
    def is_signed(self) -> builtins.bool:
        """Whether elements may be negative."""
        return self.dtype.kind in "fVi"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dtype, name)  # kind, itemsize, name, ...

    def __eq__(self, other: object) -> builtins.bool:
        try:
            return self.dtype == np.dtype(other)  # type: ignore[call-overload,no-any-return]
        except TypeError:
            return NotImplemented

    def __hash__(self) -> builtins.int:
        return hash(self.dtype)

    def __repr__(self) -> str:
        return f"kobai.{self.dtype}"

    def __reduce__(self) -> Any:
        return _of, (self.dtype,)


bfloat16 = dtype(ml_dtypes.bfloat16)
float16 = half = dtype(np.float16)
float32 = float = dtype(np.float32)
float64 = double = dtype(np.float64)
uint8 = dtype(np.uint8)
int8 = dtype(np.int8)
int16 = short = dtype(np.int16)
int32 = int = dtype(np.int32)
int64 = long = dtype(np.int64)
bool = dtype(np.bool_)

_known = {d.dtype: d for d in (bfloat16, float16, float32, float64, uint8, int8, int16, int32, int64, bool)}

HALVES = frozenset((bfloat16.dtype, float16.dtype))
"""The float dtypes of 16 bits."""


def _of(like: Any) -> dtype:
    """The one dtype object for a NumPy dtype."""
    like = np.dtype(like)
    found = _known.get(like)
    if found is None:
        found = _known[like] = dtype(like)
    return found


def is_number(d: np.dtype[Any]) -> builtins.bool:
    """Whether a NumPy dtype is one that tensors can have; text, objects, records and complex numbers are not."""
    return (d.kind in "biuf" and d.itemsize <= 8) or d == bfloat16.dtype


def numeric(like: Any) -> np.dtype[Any]:
    """The NumPy dtype of what a caller asks for; TypeError for one that tensors cannot have, or a class that is none."""
    found: np.dtype[Any] = np.dtype(like)
    if found not in _known and not is_number(found):
        raise TypeError(f"dtype: expected a bool, integer or float dtype, got {like!r}")
    return found


def promoted(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The smallest dtype that holds the numbers of both, of one category. NumPy knows none for bfloat16 and float16."""
    return float32.dtype if {a, b} == HALVES else np.promote_types(a, b)


class memory_format:  # PyTorch's spelling
    """An order of elements in memory. Kobai has one: images are (N, C, H, W), row by row.

    Functions that take one check that it fits the number of dimensions, and change nothing: ``preserve_format``,
    ``contiguous_format``, ``channels_last`` (4-D), ``channels_last_3d`` (5-D).

    >>> import kobai
    >>> x = kobai.zeros(2, 3, 4, 5)
    >>> x.to(memory_format=kobai.channels_last) is x
    True
    """

    __slots__ = ("name", "ndim")
    name: str
    ndim: builtins.int | None  # of the tensors that can have it; None: of any

    def __init__(self, name: str, ndim: builtins.int | None = None) -> None:
        self.name, self.ndim = name, ndim

    def __repr__(self) -> str:
        return f"kobai.{self.name}"

    def __reduce__(self) -> str:
        return self.name


contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last", 4), memory_format("channels_last_3d", 5)


class layout:  # PyTorch's spelling
    """How elements are kept. Kobai has one way, ``kobai.strided``: all of them, at regular steps. PyTorch's others can be
    named and compared.

    >>> import kobai
    >>> kobai.ones(2).layout
    kobai.strided
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"kobai.{self._name}"

    def __reduce__(self) -> str:
        return self._name


strided = layout("strided")
NAMED_LAYOUTS = {name: layout(name) for name in "jagged sparse_bsc sparse_bsr sparse_coo sparse_csc sparse_csr".split()}


_limits: dict[np.dtype[Any], finfo] = {}


class finfo:
    """Limits of a floating-point dtype, the default one unless given, as Python numbers.

    ``bits``, ``eps`` (the gap after 1), ``min``, ``max``, ``tiny`` = ``smallest_normal`` and ``resolution``.

    >>> import kobai
    >>> kobai.finfo(kobai.float16).max
    65504.0
    """

    def __new__(cls, type: Any = None) -> finfo:
        d = np.dtype(get_default_dtype() if type is None else type)
        made = _limits.get(d)
        if made is None:
            if d.kind not in FLOATING:
                raise TypeError(f"finfo: expected a floating-point dtype, got {d.name}; iinfo is for integers")
            made = _limits[d] = super().__new__(cls)
            made._fill(d)
        return made

    def _fill(self, d: np.dtype[Any]) -> None:
        limits: Any = ml_dtypes.finfo(d)  # type: ignore[no-untyped-call]  # NumPy's, which also knows bfloat16
        self.dtype = d.name
        self.bits = builtins.int(limits.bits)
        self.nmant = builtins.int(limits.nmant)
        self.eps = builtins.float(limits.eps)
        self.min = builtins.float(limits.min)
        self.max = builtins.float(limits.max)
        self.tiny = self.smallest_normal = builtins.float(limits.smallest_normal)
        self.resolution = builtins.float(limits.resolution)

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer dtype as Python numbers: ``bits``, ``min``, ``max``.

    >>> import kobai
    >>> kobai.iinfo(kobai.int8).min
    -128
    """

    def __init__(self, type: Any) -> None:
        d = np.dtype(type)
        if d.kind not in "iu":
            raise TypeError(f"iinfo: expected an integer dtype, got {d.name}; finfo is for floating-point")
        limits = np.iinfo(d)
        self.dtype, self.bits, self.min, self.max = (
            d.name,
            limits.bits,
            builtins.int(limits.min),
            builtins.int(limits.max),
        )

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


inf, nan, pi, e, newaxis = np.inf, np.nan, np.pi, np.e, None

__all__ = [
    "get_default_dtype",
    "set_default_dtype",
    "bfloat16",
    "bool",
    "channels_last",
    "channels_last_3d",
    "contiguous_format",
    "double",
    "dtype",
    "e",
    "finfo",
    "float",
    "float16",
    "float32",
    "float64",
    "half",
    "iinfo",
    "inf",
    "int",
    "int16",
    "int32",
    "int64",
    "int8",
    "layout",
    "long",
    "memory_format",
    "nan",
    "newaxis",
    "pi",
    "preserve_format",
    "short",
    "strided",
    "uint8",
]

_default_dtype = float32


def get_default_dtype() -> dtype:
    """Dtype of float tensors made without ``dtype``; float32 unless changed.

    >>> import kobai
    >>> kobai.get_default_dtype(), kobai.tensor([1.0]).dtype
    (kobai.float32, kobai.float32)
    """
    return _default_dtype


def set_default_dtype(d: Any) -> None:
    """Make float tensors of dtype ``d`` (a float dtype) from now on.

    >>> import kobai
    >>> kobai.set_default_dtype(kobai.float64); kobai.tensor([0.5]).dtype
    kobai.float64
    >>> kobai.set_default_dtype(kobai.float32)
    """
    global _default_dtype
    if np.dtype(d).kind not in FLOATING or not is_number(np.dtype(d)):
        raise TypeError(f"set_default_dtype: expected a float dtype, got {np.dtype(d)}")
    _default_dtype = _of(d)
