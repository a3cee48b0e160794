"""Matrix products by cuBLASLt, through nvmath's public bindings: they can be captured in a graph, CuPy's own cannot.

cuBLASLt thinks in matrices stored column by column. One stored row by row is the same memory as its transpose stored column
by column, so out = op(a)·op(b) is asked for as outᵀ = op(b)ᵀ·op(a)ᵀ: the operands change places, nothing is moved. For the
same reason a vector added "to every column of D" is one added to every row of out, a bias.

What cuBLASLt must be told about a product – shapes, layouts, epilogue, which algorithm – is a :class:`ProductPlan`, made once
for every signature. Only addresses differ from call to call.
"""

from __future__ import annotations

import importlib
import sys
import threading
import weakref
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kobai.cuda.backend import install_cupy
from kobai.xp import Array, backend_of, log, xp_of

WORKSPACE = 32 << 20
"""Bytes of scratch memory per device and stream, NVIDIA's recommendation for Hopper. What runs on one stream runs in order
and can share it; it is made before a capture, and kept."""

PLANS = 4096
"""More than this many signatures are never in use; a program that invents new shapes for ever must not leak them."""

# cudaDataType_t, and the compute types by precision (cublasComputeType_t). Products of 16-bit floats are added up in float32.
_DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
_COMPUTE = {"highest": "COMPUTE_32F", "high": "COMPUTE_32F_FAST_TF32", "medium": "COMPUTE_32F_FAST_16BF"}

float32_precision = "highest"
"""What :func:`kobai.set_float32_matmul_precision` set."""

NOT_SUPPORTED = 15  # CUBLAS_STATUS_NOT_SUPPORTED: no algorithm for this

_lock = threading.Lock()


@lru_cache(maxsize=1)
def bindings() -> Any:
    """The modules (cublasLt, cublas) of nvmath, or None where it cannot be used, which is said once."""
    try:
        lt = importlib.import_module("nvmath.bindings.cublasLt")
        cublas = importlib.import_module("nvmath.bindings.cublas")
        lt.get_version()
    except Exception as error:  # absent, or NVIDIA's libraries are: ImportError, OSError, nvmath's own
        log.warning(
            "nvmath-python cannot be used (%s): products go through CuPy, and no step is captured on the GPU. Install it: %s",
            error,
            install_cupy(),
        )
        return None
    return lt, cublas


def is_available() -> bool:
    """Whether products go through cuBLASLt, and steps can be captured."""
    return bindings() is not None


def compute_type(dtype: str, asked: str | None = None) -> str:
    """Name of the arithmetic for products of this dtype; for float32 by ``asked``, else by :data:`float32_precision`."""
    if dtype == "float64":
        return "COMPUTE_64F"
    return _COMPUTE[asked or float32_precision] if dtype == "float32" else "COMPUTE_32F"


class Matrix(NamedTuple):
    """How a matrix (or a batch of them) lies in memory: row by row, or, if ``transposed``, its transpose does."""

    rows: int  # of what lies row by row
    cols: int
    ld: int  # elements from one row to the next
    transposed: bool
    batch: int  # how many matrices
    step: int  # elements from one to the next


def layout(array: Array) -> Matrix | None:
    """The layout of an array (rows, cols) or (batch, rows, cols); None if cuBLASLt cannot read it in place."""
    shape, size = array.shape, array.itemsize
    strides = [s // size for s in array.strides]
    rows, cols = shape[-2:]
    down, right = strides[-2:]
    batch, step = (shape[0], strides[0]) if len(shape) == 3 else (1, 0)
    if step < 0:
        return None
    if (right == 1 or cols == 1) and (down >= cols or rows == 1):
        return Matrix(rows, cols, max(down if rows > 1 else cols, cols), False, batch, step)
    if (down == 1 or rows == 1) and (right >= rows or cols == 1):
        return Matrix(cols, rows, max(right if cols > 1 else rows, rows), True, batch, step)
    return None


class Signature(NamedTuple):
    """All that a plan depends on."""

    device: int
    dtype: str
    result: str  # the dtype of the result: as the factors', or float32 of 16-bit ones
    compute: str
    a: Matrix
    b: Matrix
    out: Matrix
    trans_a: bool
    trans_b: bool
    epilogue: str
    alignment: int  # of all three addresses, in bytes


class ProductPlan:
    """One product, prepared: descriptors, and the algorithm that cuBLASLt's heuristic puts first.

    (On an H100 trying eight of them gained nothing over the first, for products of 100² to 8192×4096².)
    """

    def __init__(self, handle: int, s: Signature) -> None:
        lt, cublas = bindings()
        self.lt, self.handle, self.batch = lt, handle, s.out.batch
        factors, result = _DATA_TYPES[s.dtype], _DATA_TYPES[s.result]
        scale = "float64" if s.dtype == "float64" else "float32"
        self._cells = np.ones(1, scale), np.zeros(1, scale), np.zeros(1, np.int64)
        self.alpha, self.beta, self.vector = (
            cell.ctypes.data for cell in self._cells
        )  # addresses; finding them takes 1 µs
        self.has_vector = "BIAS" in s.epilogue or "BGRAD" in s.epilogue
        self.operation = lt.matmul_desc_create(int(getattr(cublas.ComputeType, s.compute)), _DATA_TYPES[scale])
        attribute = lt.MatmulDescAttribute
        # op(b)ᵀ comes first: what lies row by row reads as its transpose, so N where op(b) is as it lies, T where it is not
        self.describe(attribute.TRANSA, int(s.trans_b != s.b.transposed))
        self.describe(attribute.TRANSB, int(s.trans_a != s.a.transposed))
        self.describe(attribute.EPILOGUE, int(getattr(lt.Epilogue, s.epilogue)))
        self.layouts = [self._layout(factors, s.b), self._layout(factors, s.a), self._layout(result, s.out)]
        self.workspace = WORKSPACE
        self.chosen = lt.MatmulHeuristicResult(1)
        weakref.finalize(self, _destroy, lt, self.operation, self.layouts)

    def describe(self, attribute: Any, value: int) -> None:
        """Set one attribute of the operation, a member of ``MatmulDescAttribute``, before the algorithm is chosen."""
        self._set("matmul_desc", self.operation, attribute, value)

    def _set(self, kind: str, made: int, attribute: Any, value: int) -> None:
        cell = np.array([value], getattr(self.lt, f"get_{kind}_attribute_dtype")(attribute))
        getattr(self.lt, f"{kind}_set_attribute")(made, attribute, cell.ctypes.data, cell.nbytes)

    def _layout(self, kind: int, m: Matrix) -> int:
        made: int = self.lt.matrix_layout_create(kind, m.cols, m.rows, m.ld)
        if self.batch > 1:
            attributes = self.lt.MatrixLayoutAttribute
            self._set("matrix_layout", made, attributes.BATCH_COUNT, self.batch)
            self._set("matrix_layout", made, attributes.STRIDED_BATCH_OFFSET, m.step)
        return made

    def choose(self, alignment: int, vector: int) -> bool:
        """Ask for an algorithm; False if there is none for this product."""
        lt = self.lt
        attributes = lt.MatmulPreferenceAttribute
        preference = lt.matmul_preference_create()
        try:
            self._set("matmul_preference", preference, attributes.MAX_WORKSPACE_BYTES, self.workspace)
            for matrix in "ABCD":
                attribute = getattr(attributes, f"MIN_ALIGNMENT_{matrix}_BYTES")
                self._set("matmul_preference", preference, attribute, alignment)
            self._point(vector)
            first, second, result = self.layouts
            found = np.zeros(1, np.int32)
            lt.matmul_algo_get_heuristic(
                *(self.handle, self.operation, first, second, result, result, preference),
                *(1, self.chosen.ptr, found.ctypes.data),
            )
        except lt.cuBLASLtError as error:
            if error.status != NOT_SUPPORTED:
                raise
            return False
        finally:
            lt.matmul_preference_destroy(preference)
        return bool(found[0])

    def _point(self, vector: int) -> None:
        if self.has_vector:
            self._cells[2][0] = vector
            attribute = self.lt.MatmulDescAttribute.BIAS_POINTER
            self.lt.matmul_desc_set_attribute(self.operation, attribute, self.vector, 8)

    def __call__(self, a: int, b: int, out: int, vector: int, workspace: int, stream: int) -> None:
        """Queue the product on a stream. The arguments are addresses."""
        first, second, result = self.layouts
        with _lock:  # another thread may want the same plan with another vector
            self._point(vector)
            self.lt.matmul(
                *(self.handle, self.operation, self.alpha, b, first, a, second),
                *(self.beta, out, result, out, result),
                *(self.chosen.ptr, workspace, self.workspace, stream),
            )


def _destroy(lt: Any, operation: int, layouts: list[int]) -> None:
    lt.matmul_desc_destroy(operation)
    for made in layouts:
        lt.matrix_layout_destroy(made)


_handles: dict[int, int] = {}
_workspaces: dict[tuple[int, int], Array] = {}
_plans: dict[Any, ProductPlan | None] = {}


def handle(device: int) -> int:
    """cuBLASLt's handle for a device, which is the current one."""
    if device not in _handles:
        _handles[device] = bindings()[0].create()
    return _handles[device]


def workspace() -> tuple[int, Array, int]:
    """The current device, its scratch memory for the current stream, and that stream. Called before a capture, too."""
    cupy = sys.modules["cupy"]
    device, stream = cupy.cuda.runtime.getDevice(), cupy.cuda.get_current_stream().ptr
    found = _workspaces.get((device, stream))
    if found is None:
        found = _workspaces[device, stream] = cupy.empty(WORKSPACE, np.uint8)
    return device, found, stream


def takes(a: Array, b: Array) -> bool:
    """Whether the product of these arrays goes through cuBLASLt."""
    return backend_of(a).name == "cupy" and a.size > 0 and b.size > 0 and is_available()


def multiply(
    a: Array,
    b: Array,
    out: Array,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    epilogue: str = "DEFAULT",
    vector: Array | None = None,
    precision: str | None = None,
) -> bool:
    """out = op(a)·op(b); returns False, having done nothing, if cuBLASLt cannot do it.

    Matrices (rows, cols), or batches (batch, rows, cols) of which a stride may be 0; none of them empty, ``out`` and
    ``vector`` without gaps. Factors that cannot be read in place are copied first. All are of one dtype; of factors in 16 bits
    the products are added up in float32, and ``out``, and ``vector`` with it, may be that too.

    ``epilogue`` by cuBLASLt's name: ``BIAS`` and ``RELU_BIAS`` add ``vector`` to every row, ``BGRADB`` writes Σₖ op(a)[·, k]
    into it. ``precision`` of float32, where it is not to be the one that is set.
    """
    device, scratch, stream = workspace()
    pa, pb, po = a.data.ptr, b.data.ptr, out.data.ptr
    pv = 0 if vector is None else vector.data.ptr
    low = (pa | pb | po) & 255 or 256
    options = trans_a, trans_b, epilogue, low & -low
    kinds = a.dtype.num, b.dtype.num, out.dtype.num
    layouts = a.shape, a.strides, b.shape, b.strides, out.strides
    key = device, precision or float32_precision, kinds, layouts, options
    try:
        plan = _plans[key]
    except KeyError:
        plan = _planned(key, _signature(device, precision, a, b, out, options), pv)
    if plan is None:
        if layout(a) is not None and layout(b) is not None:
            return False
        left, right = (xp_of(x).ascontiguousarray(x) for x in (a, b))
        return multiply(
            left, right, out, trans_a=trans_a, trans_b=trans_b, epilogue=epilogue, vector=vector, precision=precision
        )
    plan(pa, pb, po, pv, scratch.data.ptr, stream)
    return True


def _signature(
    device: int, precision: str | None, a: Array, b: Array, out: Array, options: tuple[Any, ...]
) -> Signature | None:
    """What the plan for these arrays depends on; None if cuBLASLt cannot multiply them."""
    dtype, result, layouts = a.dtype.name, out.dtype.name, (layout(a), layout(b), layout(out))
    known = (
        dtype in _DATA_TYPES and a.dtype == b.dtype and (result == dtype or (a.itemsize == 2 and result == "float32"))
    )
    if not known or None in layouts or layouts[2].transposed:  # type: ignore[union-attr]
        return None
    return Signature(device, dtype, result, compute_type(dtype, precision), *layouts, *options)  # type: ignore[arg-type]


def _planned(key: Any, s: Signature | None, vector: int) -> ProductPlan | None:
    with _lock:
        if key in _plans:
            return _plans[key]
        if len(_plans) >= PLANS:
            _plans.clear()
        plan = None if s is None else ProductPlan(handle(s.device), s)
        if plan is not None and not plan.choose(s.alignment, vector):  # type: ignore[union-attr]
            log.debug("cuBLASLt knows no algorithm for %s", s)
            plan = None
        _plans[key] = plan
        return plan
