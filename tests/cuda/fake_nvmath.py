"""nvmath's ``bindings.cublasLt`` without a device: descriptors are kept, and products computed as NVIDIA's manual defines them.

Matrices lie column by column. What the library would refuse, or get wrong silently, raises: an attribute of the wrong
size, addresses less aligned than the heuristic was told, a product whose shapes do not fit, a descriptor given back twice.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from ml_dtypes import bfloat16  # not from kobai, which must be importable later than this

DATA_TYPES = {0: np.dtype("float32"), 1: np.dtype("float64"), 2: np.dtype("float16"), 14: np.dtype(bfloat16)}

ComputeType = IntEnum(
    "ComputeType",
    {"COMPUTE_32F": 68, "COMPUTE_32F_FAST_16BF": 75, "COMPUTE_32F_FAST_TF32": 77, "COMPUTE_64F": 70},
)
Epilogue = IntEnum("Epilogue", {"DEFAULT": 1, "RELU": 2, "BIAS": 4, "RELU_BIAS": 6, "BGRADA": 256, "BGRADB": 512})
MatmulDescAttribute = IntEnum("MatmulDescAttribute", {"TRANSA": 3, "TRANSB": 4, "EPILOGUE": 7, "BIAS_POINTER": 8})
MatrixLayoutAttribute = IntEnum("MatrixLayoutAttribute", {"BATCH_COUNT": 5, "STRIDED_BATCH_OFFSET": 6})
MatmulPreferenceAttribute = IntEnum(
    "MatmulPreferenceAttribute",
    {"MAX_WORKSPACE_BYTES": 1, **{f"MIN_ALIGNMENT_{x}_BYTES": 5 + i for i, x in enumerate("ABCD")}},
)
# As the library itself says through get_..._attribute_dtype (cuBLAS 13.1).
DTYPES: dict[type, dict[Any, Any]] = {
    MatmulDescAttribute: dict(zip(MatmulDescAttribute, (np.int32, np.int32, np.uint32, np.int64), strict=True)),
    MatrixLayoutAttribute: dict(zip(MatrixLayoutAttribute, (np.int32, np.int64), strict=True)),
    MatmulPreferenceAttribute: dict(zip(MatmulPreferenceAttribute, (np.uint64, *[np.uint32] * 4), strict=True)),
}


class cuBLASLtError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class MatmulHeuristicResult:
    def __init__(self, size: int) -> None:
        self.memory = np.zeros(size, [("algo", np.uint64, 8), ("rest", np.uint64, 4)])
        self.ptr = self.memory.ctypes.data


def memory(address: int, count: int, dtype: Any) -> np.ndarray:
    dtype = np.dtype(dtype)
    assert address, "a null pointer"
    return np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype)


class Library:
    """One loaded library: give it to ``sys.modules`` as ``nvmath.bindings.cublasLt``."""

    ComputeType, Epilogue, MatmulDescAttribute = ComputeType, Epilogue, MatmulDescAttribute
    MatrixLayoutAttribute, MatmulPreferenceAttribute = MatrixLayoutAttribute, MatmulPreferenceAttribute
    MatmulHeuristicResult, cuBLASLtError = MatmulHeuristicResult, cuBLASLtError

    def __init__(self) -> None:
        self.alive: dict[int, Any] = {}
        self.unsupported: set[str] = set()
        self.calls: list[SimpleNamespace] = []
        self.searches = 0
        self._next = 0

    def get_version(self) -> int:
        return 130100

    def create(self) -> int:
        return self._made(handle=True)

    def _made(self, **fields: Any) -> int:
        self._next += 1
        self.alive[self._next] = SimpleNamespace(attributes={}, **fields)
        return self._next

    # --- descriptors: integers here as there

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        return self._made(compute=ComputeType(compute_type), scale=DATA_TYPES[scale_type])

    def matrix_layout_create(self, type: int, rows: int, cols: int, ld: int) -> int:
        assert ld >= rows > 0
        assert cols > 0
        return self._made(dtype=DATA_TYPES[type], rows=rows, cols=cols, ld=ld)

    def matmul_preference_create(self) -> int:
        return self._made(preference=True)

    def _set(self, what: int, attribute: IntEnum, address: int, size: int) -> None:
        dtype = DTYPES[type(attribute)][attribute]
        if size != np.dtype(dtype).itemsize:
            raise cuBLASLtError(7)
        self.alive[what].attributes[attribute.name] = int(memory(address, 1, dtype)[0])

    matmul_desc_set_attribute = matrix_layout_set_attribute = matmul_preference_set_attribute = _set

    def get_matmul_desc_attribute_dtype(self, attribute: IntEnum) -> Any:
        return DTYPES[type(attribute)][attribute]

    get_matrix_layout_attribute_dtype = get_matmul_preference_attribute_dtype = get_matmul_desc_attribute_dtype

    def matmul_desc_destroy(self, what: int) -> None:
        del self.alive[what]

    matrix_layout_destroy = matmul_preference_destroy = matmul_desc_destroy

    # --- products

    def matmul_algo_get_heuristic(
        self,
        handle: int,
        desc: int,
        a: int,
        b: int,
        c: int,
        d: int,
        preference: int,
        count: int,
        results: int,
        found: int,
    ) -> None:
        assert self.alive[handle].handle
        self.searches += 1
        epilogue = Epilogue(self.alive[desc].attributes["EPILOGUE"]).name
        wanted = self.alive[preference].attributes
        memory(found, 1, np.int32)[0] = 0
        if epilogue in self.unsupported:
            raise cuBLASLtError(15)
        memory(found, 1, np.int32)[0] = 1
        alignments = {wanted[f"MIN_ALIGNMENT_{x}_BYTES"] for x in "ABCD"}
        assert len(alignments) == 1
        memory(results, 8, np.uint64)[:3] = 4711, alignments.pop(), wanted["MAX_WORKSPACE_BYTES"]

    def matmul(
        self,
        handle: int,
        desc: int,
        alpha: int,
        a: int,
        a_layout: int,
        b: int,
        b_layout: int,
        beta: int,
        c: int,
        c_layout: int,
        d: int,
        d_layout: int,
        algo: int,
        workspace: int,
        workspace_size: int,
        stream: int,
    ) -> None:
        assert self.alive[handle].handle
        chosen, alignment, most = (int(v) for v in memory(algo, 3, np.uint64))
        assert chosen == 4711, "the algorithm was not asked for"
        assert workspace_size <= most
        assert workspace % 16 == 0
        assert not any(address % alignment for address in (a, b, c, d))
        assert (c, c_layout) == (d, d_layout)
        operation = self.alive[desc]
        options = operation.attributes
        left, right, result = self._matrix(a, a_layout), self._matrix(b, b_layout), self._matrix(d, d_layout)
        rounded = _rounding(operation.compute)
        left = rounded(left.swapaxes(-1, -2) if options["TRANSA"] else left)
        right = rounded(right.swapaxes(-1, -2) if options["TRANSB"] else right)
        assert left.shape[-1] == right.shape[-2], f"{left.shape} · {right.shape}"
        assert (*left.shape[:-1], right.shape[-1]) == result.shape, f"{left.shape} · {right.shape} = {result.shape}"
        scale = operation.scale
        epilogue = Epilogue(options["EPILOGUE"]).name
        left, right = left.astype(scale), right.astype(scale)
        assert scale == result.dtype or result.dtype.itemsize == 2, f"{scale} is not what {result.dtype} is added up in"
        total = memory(alpha, 1, scale)[0] * (left @ right)
        total += memory(beta, 1, scale)[0] * result if memory(beta, 1, scale)[0] else 0
        if "BGRAD" in epilogue:
            sums = left.sum(-1) if epilogue.endswith("A") else right.sum(-2)
            memory(options["BIAS_POINTER"], sums.size, result.dtype)[:] = sums.reshape(-1)
        elif "BIAS" in epilogue:
            total += memory(options["BIAS_POINTER"], result.shape[-2], result.dtype)[:, None]
        result[...] = np.maximum(total, 0) if "RELU" in epilogue else total
        self.calls.append(SimpleNamespace(epilogue=epilogue, compute=operation.compute.name, stream=stream))

    def _matrix(self, address: int, what: int) -> np.ndarray:
        m = self.alive[what]
        batch, step = (m.attributes.get(k, d) for k, d in (("BATCH_COUNT", 1), ("STRIDED_BATCH_OFFSET", 0)))
        flat = memory(address, (batch - 1) * step + (m.cols - 1) * m.ld + m.rows, m.dtype)
        shape, strides = (batch, m.rows, m.cols), (step * m.dtype.itemsize, m.dtype.itemsize, m.ld * m.dtype.itemsize)
        return np.lib.stride_tricks.as_strided(flat, shape, strides)


def _rounding(compute: ComputeType) -> Any:
    """TF32 keeps 10 bits behind the leading one, bfloat16 7; here by cutting off the rest."""
    bits = {"COMPUTE_32F_FAST_TF32": 13, "COMPUTE_32F_FAST_16BF": 16}.get(compute.name, 0)
    if not bits:
        return lambda x: x
    return lambda x: (np.ascontiguousarray(x).view(np.uint32) >> bits << bits).view(np.float32)
