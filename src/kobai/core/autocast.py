"""In which precision ``autocast`` lets operations compute: PyTorch's lists, and what casts an operation's arguments.

An operation on a list has a *switch*, variables of its own closure (``core/primitive.py``). The switches are thrown when the
first block is entered in any thread, and back when the last is left: outside of blocks no operation asks for one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from kobai.core.grad_mode import state as grad_mode
from kobai.core.tensor import Tensor
from kobai.dtypes import HALVES, bfloat16, float16, float32
from kobai.xp import backend_of, recorder

F = TypeVar("F", bound=Callable[..., Any])

# --- the lists --------------------------------------------------------------------------------------------------------

LOWER, SINGLE, WIDEST, AS_GIVEN, REFUSED = "lower", "float32", "widest", "as given", "refused"
OVER = "over"
"""How an operation computes: in the dtype of the block; in float32; in the widest of its arguments' dtypes; in theirs,
whatever the operations that it is made of are listed as; not at all; in float32 where a number is divided by a tensor."""

_LISTS = {
    ("cpu", "cuda"): {
        LOWER: """
            ops.linear._linear ops.linear._matmul ops.linear.addbmm ops.linear.addmm ops.linear.baddbmm ops.conv._conv
            ops.conv._conv_transpose
            ops.activation._prelu ops.einsum._einsum ops.recurrent._rnn ops.recurrent._lstm ops.recurrent._gru
            linalg.products.multi_dot linalg.products.vecdot
            nn.functional.attention.scaled_dot_product_attention""",
        SINGLE: """
            ops.cross_entropy._cross_entropy ops.cross_entropy._soft_cross_entropy ops.cross_entropy._nll_loss
            ops.loss._mse_loss ops.loss._l1_loss ops.loss._huber_loss ops.loss._smooth_l1_loss ops.loss._kl_div
            ops.loss._binary_cross_entropy_with_logits nn.functional.likelihood.poisson_nll_loss
            nn.functional.margin.cosine_embedding_loss nn.functional.margin.hinge_embedding_loss
            nn.functional.margin.margin_ranking_loss nn.functional.margin.triplet_margin_loss
            nn.functional.margin.soft_margin_loss nn.functional.margin.multi_margin_loss
            nn.functional.margin.multilabel_margin_loss ops.ctc._ctc_loss ops.reduce._prod ops.products.cdist""",
        AS_GIVEN: "linalg.products.matrix_exp",
    },
    ("cpu",): {
        SINGLE: """
            ops.loss._binary_cross_entropy ops.pool.max_pool3d ops.pool.avg_pool3d nn.functional.spatial.grid_sample
            ops.pool.adaptive.adaptive_avg_pool3d ops.pool.adaptive.adaptive_max_pool3d
            ops.pool.rarer.max_unpool1d ops.pool.rarer.max_unpool2d ops.pool.rarer.max_unpool3d
            nn.functional.misc._from_edges ops.statistics.nanquantile ops.statistics.quantile ops.products.trace
            linalg.systems._inv linalg.systems._solve linalg.systems.lower_factor
            linalg.systems.inv linalg.systems.solve linalg.systems.cholesky linalg.systems.solve_triangular
            linalg.older.cholesky_solve linalg.older.cholesky_inverse
            linalg.decompositions.svd linalg.decompositions.svdvals linalg.decompositions.eigh
            linalg.decompositions.eigvalsh linalg.decompositions.qr linalg.decompositions.pinv
            linalg.decompositions.lstsq linalg.decompositions.matrix_rank linalg.norms.cond
            linalg.elimination.cholesky_ex linalg.elimination.inv_ex linalg.reflections.householder_product
            linalg.reflections.ormqr linalg.reflections.tensorinv linalg.reflections.tensorsolve""",
        WIDEST: "ops.scatter.index_copy",
        AS_GIVEN: "ops.linear.dot ops.linear.mv ops.linear.addmv nn.functional.misc.bilinear",
    },
    ("cuda",): {
        LOWER: "ops.linear.addmv ops.linear.addr",
        SINGLE: """
            ops.pointwise._acos ops.pointwise._asin ops.pointwise._cosh ops.pointwise._erfinv ops.pointwise._exp
            ops.pointwise._expm1 ops.pointwise._log ops.pointwise._log10 ops.pointwise._log2 ops.pointwise._log1p
            ops.pointwise._reciprocal ops.pointwise._rsqrt ops.pointwise._sinh ops.pointwise._tan ops.pointwise._square
            ops.arithmetic._pow ops.arithmetic._squared ops.activation._softplus ops.softmax._softmax
            ops.softmax._log_softmax ops.norm._layer_norm ops.norm._group_norm ops.norm._normalize
            ops.vector_norm._norm ops.vector_norm.dist
            ops.reduce._sum ops.reduce._cumsum ops.reduce._cumprod ops.extreme._logsumexp ops.rarer.renorm
            ops.resample._resample nn.functional.distance.cosine_similarity linalg.norms.matrix_norm""",
        WIDEST: """
            ops.linear.dot ops.pointwise.addcmul ops.pointwise.addcdiv nn.functional.misc.bilinear ops.products.tensordot
            nn.functional.spatial.grid_sample ops.scatter.index_put ops.scatter.scatter_add""",
        AS_GIVEN: """
            ops.reduce.nansum ops.norm.instance_norm ops.pool.adaptive._adaptive_mean nn.functional.lookup.embedding_bag""",
        OVER: "ops.arithmetic._div",
        REFUSED: "ops.loss._binary_cross_entropy",
    },
}
"""PyTorch's lists by type of device: primitives, and functions of several primitives that count as one operation.
https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference"""


def _how(device_type: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for types, lists in _LISTS.items():
        if device_type in types:
            found.update({name: how for how, names in lists.items() for name in names.split()})
    return found


CPU, CUDA = _how("cpu"), _how("cuda")
"""How each listed operation computes."""

# --- the state --------------------------------------------------------------------------------------------------------


class State(threading.local):
    """Of a thread."""

    def __init__(self) -> None:
        self.dtypes: dict[str, Any] = {}
        """By type of device: the dtype in which listed operations compute there. Nothing where none is cast. Never changed,
        always replaced."""
        self.preferred: dict[str, Any] = {}
        """The dtypes that were chosen by ``set_autocast_dtype``."""
        self.caching = True
        self.cache: dict[tuple[int, Any], tuple[Tensor, Any, Tensor]] = {}
        """Copies in 16 bits of parameters, for the rest of the outermost block."""
        self.opened: list[tuple[Any, ...]] = []
        """What the open blocks return to."""
        self.counted = False


state = State()

CASTABLE = frozenset((*HALVES, float32.dtype))
"""Float dtypes that are cast; float64 stays, as in PyTorch."""


def preferred(device_type: str) -> Any:
    """The dtype of blocks that name none: bfloat16 on the CPU, float16 elsewhere."""
    return state.preferred.get(device_type) or (bfloat16 if device_type == "cpu" else float16).dtype


def put(device_type: str, dtype: Any) -> None:
    """From now on this thread computes in ``dtype`` on such devices, or as the arguments are (None)."""
    others = {name: other for name, other in state.dtypes.items() if name != device_type}
    state.dtypes = others if dtype is None else {**others, device_type: np.dtype(dtype)}
    _settle()


def enter(device_type: str, dtype: Any, chosen: Any, caching: bool) -> None:
    """Begin a block: :func:`put`, a preferred dtype, and whether copies of parameters are kept."""
    state.opened.append((state.dtypes, state.preferred, state.caching))
    state.caching = caching
    if chosen is not None:
        state.preferred = {**state.preferred, device_type: np.dtype(chosen)}
    put(device_type, dtype)


def leave() -> None:
    """End the innermost block."""
    state.dtypes, state.preferred, state.caching = state.opened.pop()
    if not state.opened:
        state.cache.clear()
    _settle()


def signature() -> Any:
    """What a captured step rests on."""
    return tuple(state.dtypes.items()), state.caching


# --- the switches -----------------------------------------------------------------------------------------------------

_switches: dict[str, Callable[[bool], None]] = {}
"""Of each operation that is on a list."""
_lock = threading.Lock()
_active = 0


def _settle() -> None:
    """Count the threads that cast, or may again when an inner block ends; throw the switches for the first and the last."""
    global _active
    wanted = bool(state.opened or state.dtypes)
    if wanted is state.counted:
        return
    with _lock:
        state.counted = wanted
        _active += 1 if wanted else -1
        if _active == wanted:
            for switch in _switches.values():
                switch(wanted)


def on_list(key: str, switch: Callable[[bool], None]) -> None:
    """Call ``switch`` when casting begins and ends, if the operation ``key`` is on a list."""
    if key in CPU or key in CUDA:
        _switches[key] = switch
        if _active:  # the module is imported within a block
            switch(True)


def one_operation(function: F) -> F:
    """Decorator: a function of several primitives that PyTorch's lists name as one. Within it nothing is cast any more."""
    key = f"{function.__module__.removeprefix('kobai.')}.{function.__name__}"
    if key not in CPU and key not in CUDA:
        raise KeyError(f"one_operation: {key} is on no list of core/autocast.py")
    on = False

    def switch(now: bool) -> None:
        nonlocal on
        on = now

    @wraps(function)
    def whole(*args: Any, **options: Any) -> Any:
        if not on or (precision := _precision(key, args)) is None:
            return function(*args, **options)
        args, options = cast_all(precision, args, options)
        outside = state.dtypes
        try:
            state.dtypes = {}
            return function(*args, **options)
        finally:
            state.dtypes = outside

    on_list(key, switch)
    return whole  # type: ignore[return-value]


# --- casting ----------------------------------------------------------------------------------------------------------

cast: Any = None
"""cast(tensor, dtype), on the tape; set by ``ops/_args.py``, on a higher floor."""


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif type(value) is list or type(value) is tuple:
            yield from _tensors(value)


def _precision(key: str, args: tuple[Any, ...]) -> Any:
    """The dtype for the floats among an operation's arguments, "as given", or None if this thread casts none there."""
    first = next(_tensors(args), None)
    if first is None or not state.dtypes:
        return None
    device_type = backend_of(first._array).device_type
    lower = state.dtypes.get(device_type)
    how = None if lower is None else (CPU if device_type == "cpu" else CUDA).get(key)
    if how is None or how is LOWER:
        return how and lower
    if how is SINGLE:
        return float32.dtype
    if how is AS_GIVEN:
        return how
    if how is OVER:
        return None if isinstance(args[0], Tensor) else float32.dtype
    if how is REFUSED:
        raise RuntimeError(
            f"{key.rpartition('.')[2].strip('_')}: is not safe in 16 bits, so autocast refuses it on {device_type}; use "
            "binary_cross_entropy_with_logits on the numbers before the sigmoid, or autocast(..., enabled=False)"
        )
    dtypes = {t._array.dtype for t in _tensors(args)} & CASTABLE
    return dtypes.pop() if len(dtypes) == 1 else float32.dtype


def cast_all(precision: Any, args: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The arguments with their floats in this precision."""
    if precision is AS_GIVEN:
        return args, options
    return _fit(precision, args), {name: _fit(precision, value) for name, value in options.items()}


def fitted(key: str, args: tuple[Any, ...]) -> list[Any] | None:
    """The arguments of a primitive as its list says; None if they are so already, or this thread casts none."""
    precision = _precision(key, args)
    if precision is None or not any(
        isinstance(arg, Tensor) and arg._array.dtype != precision and arg._array.dtype in CASTABLE for arg in args
    ):
        return None
    return [_fit(precision, arg) for arg in args]


def _fit(precision: Any, value: Any) -> Any:
    if isinstance(value, Tensor):
        dtype = value._array.dtype
        return value if dtype == precision or dtype not in CASTABLE else _in_precision(value, precision)
    if type(value) is list or type(value) is tuple:
        return type(value)(_fit(precision, part) for part in value)
    return value


def _in_precision(tensor: Tensor, precision: Any) -> Tensor:
    """A cast, which for a parameter is done once in an outermost block: its copy serves until the parameter changes."""
    keep = (
        precision in HALVES
        and state.caching
        and state.opened
        and tensor._requires_grad
        and tensor._node is None
        and tensor._base is None
    )
    if not keep:
        return cast(tensor, precision)  # type: ignore[no-any-return]
    # A copy made without the tape has no way back; one made outside a recording is a constant to it.
    key, circumstances = (id(tensor), precision), (tensor._version[0], grad_mode.grad, recorder())
    found = state.cache.get(key)
    if found is not None and found[0] is tensor and found[1] == circumstances:
        return found[2]
    made: Tensor = cast(tensor, precision)
    state.cache[key] = (tensor, circumstances, made)
    return made
