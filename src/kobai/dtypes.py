"""Element types, and constants. A dtype of Kobai *is* a NumPy dtype, so that every array library understands it."""

from typing import Any

import numpy as np

dtype = np.dtype
float16 = half = np.dtype(np.float16)
float32 = float = np.dtype(np.float32)
float64 = double = np.dtype(np.float64)
uint8 = np.dtype(np.uint8)
int8 = np.dtype(np.int8)
int16 = short = np.dtype(np.int16)
int32 = int = np.dtype(np.int32)
int64 = long = np.dtype(np.int64)
bool = np.dtype(np.bool_)

finfo, iinfo = np.finfo, np.iinfo
inf, nan, pi, e, newaxis = np.inf, np.nan, np.pi, np.e, None

__all__ = [
    "get_default_dtype",
    "set_default_dtype",
    "bool",
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
    "long",
    "nan",
    "newaxis",
    "pi",
    "short",
    "uint8",
]

_default_dtype = np.dtype(np.float32)


def get_default_dtype() -> np.dtype[Any]:
    """Dtype of float tensors made without ``dtype``; float32 at the start."""
    return _default_dtype


def set_default_dtype(d: Any) -> None:
    """Make float tensors of dtype ``d`` (a float dtype) from now on.

    >>> import kobai
    >>> kobai.set_default_dtype(kobai.float64); kobai.tensor([0.5]).dtype
    dtype('float64')
    >>> kobai.set_default_dtype(kobai.float32)
    """
    global _default_dtype
    if np.dtype(d).kind != "f":
        raise TypeError(f"set_default_dtype: expected a float dtype, got {np.dtype(d)}")
    _default_dtype = np.dtype(d)
