"""Element types, and constants. A dtype of Kobai *is* a NumPy dtype, so that every array library understands it."""

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
