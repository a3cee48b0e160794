"""The losses of classification: softmax cross-entropy in one primitive, and the negative log-likelihood.

With p = softmax(x) the loss of a row with target class t is −ln pₜ = ln Σⱼ e^xⱼ − xₜ, and its gradient p − onehot(t): both
come from the same exponentials, computed once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops._args import need_tensor
from kobai.ops._halves import of_16_bits
from kobai.ops._rows import row_sum
from kobai.ops._size_average import size_average
from kobai.ops.averaged import tell
from kobai.ops.cross_entropy import kernel as fused
from kobai.ops.softmax.kernel import log_softmax
from kobai.xp import Array, xp_of

__all__ = ["cross_entropy", "nll_loss"]

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(who: str, reduction: str, known: tuple[str, ...] = REDUCTIONS) -> None:
    """ValueError unless ``reduction`` is one of the known ones."""
    if reduction not in known:
        raise ValueError(f"{who}: expected reduction to be one of {', '.join(known)}, got {reduction!r}")


def _rows(x: Array) -> Array:
    """(C), (N, C) or (N, C, d₁, ...) as rows of C, one per prediction: x itself or a copy, never a view of it."""
    if x.ndim == 2:
        return x
    if x.ndim == 1:
        return x.copy()[None]
    return xp_of(x).moveaxis(x, 1, -1).copy().reshape(-1, x.shape[1])


def _as_input(rows: Array, shape: tuple[int, ...]) -> Array:
    """The way back from :func:`_rows` for a gradient."""
    if len(shape) <= 2:
        return rows.reshape(shape)
    return xp_of(rows).moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(5, 4)), rng.integers(0, 4, 5), None),
        lambda rng: (rng.normal(size=(4,)), rng.integers(0, 4, ()), None),
        lambda rng: (rng.normal(size=(2, 3, 2, 2)), rng.integers(0, 3, (2, 2, 2)), None, {"reduction": "none"}),
        lambda rng: (rng.normal(size=(5, 4)), rng.integers(0, 4, 5), None, {"ignore_index": 1, "reduction": "sum"}),
        lambda rng: (rng.normal(size=(5, 4)), rng.integers(0, 4, 5), None, {"label_smoothing": 0.2, "ignore_index": 1}),
        lambda rng: (rng.normal(size=(2, 3, 4)), rng.integers(0, 3, (2, 4)), None, {"label_smoothing": 0.1}),
        lambda rng: (rng.normal(size=(0, 4)), rng.integers(0, 4, 0), None, {"reduction": "sum"}),
    ],
    half="device",
    again=True,
)
def _cross_entropy(
    x: Array,
    targets: Array,
    weight: Array | None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    (rows, weight), shape = of_16_bits(_rows(x), weight), x.shape
    y, backward = fused.cross_entropy(rows, targets, weight, ignore_index, reduction, label_smoothing)
    return y, lambda dy: (_as_input(backward(dy), shape),)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), 5), None),
        lambda rng: (rng.normal(size=(4,)), rng.dirichlet(np.ones(4)), None, {"reduction": "sum"}),
        lambda rng: (
            rng.normal(size=(2, 3, 4)),
            rng.uniform(size=(2, 3, 4)),
            None,
            {"label_smoothing": 0.2, "reduction": "none"},
        ),
        lambda rng: (rng.normal(size=(0, 4)), rng.uniform(size=(0, 4)), None, {"reduction": "sum"}),
    ],
    again=True,
)
def _soft_cross_entropy(
    x: Array, targets: Array, weight: Array | None, *, reduction: str = "mean", label_smoothing: float = 0.0
) -> Any:
    xp, shape, rows = xp_of(x), x.shape, _rows(x)
    logp = log_softmax(rows, 1)
    loss = -row_sum(_smoothed(targets, weight, label_smoothing) * logp)
    y, factor = fused.reduce_losses(loss, None, reduction, (*shape[:1], *shape[2:]) if len(shape) > 1 else ())

    def vjp(dy: Array) -> Any:
        g = xp.broadcast_to(fused.incoming(dy, factor), logp.shape[:1])[:, None]

        def dx() -> Array:
            q = _smoothed(targets, weight, label_smoothing)
            return _as_input(g * (xp.exp(logp) * row_sum(q)[:, None] - q), shape)

        def dtargets() -> Array:
            dq = (label_smoothing - 1) * g * logp
            return _as_input(dq if weight is None else dq * weight, shape)

        return dx, dtargets

    return y, vjp


def _smoothed(targets: Array, weight: Array | None, label_smoothing: float) -> Array:
    """Rows of w_c ((1 − ε) q_c + ε/C)."""
    q = _rows(targets)
    if label_smoothing:
        q = (1 - label_smoothing) * q + label_smoothing / q.shape[1]
    return q if weight is None else q * weight


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(5, 4)), rng.integers(0, 4, 5), None),
        lambda rng: (rng.normal(size=(4,)), rng.integers(0, 4, ()), None),
        lambda rng: (rng.normal(size=(2, 3, 2)), rng.integers(0, 3, (2, 2)), None, {"reduction": "none"}),
        lambda rng: (rng.normal(size=(5, 4)), rng.integers(0, 4, 5), None, {"ignore_index": 1}),
        lambda rng: (rng.normal(size=(0, 4)), rng.integers(0, 4, 0), None, {"reduction": "sum"}),
    ],
    half="device",
    again=True,
)
def _nll_loss(
    x: Array, targets: Array, weight: Array | None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    (rows, weight), shape = of_16_bits(_rows(x), weight), x.shape
    y, backward = fused.nll_loss(rows, targets, weight, ignore_index, reduction)
    return y, lambda dy: (_as_input(backward(dy), shape),)


def _check(who: str, input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> bool:
    """Check the arguments; returns whether the targets are probabilities."""
    need_tensor(who, input, target)
    check_reduction(who, reduction)
    if not isinstance(ignore_index, (int, np.integer)):
        raise TypeError(f"{who}: expected ignore_index to be an integer, got {ignore_index!r}")
    shape = input._array.shape
    if input._array.dtype.kind not in FLOATING:
        raise RuntimeError(f"{who}: expected a float input, got {input.dtype}")
    if not shape or shape[min(1, len(shape) - 1)] == 0:
        raise ValueError(f"{who}: expected input (C), (N, C) or (N, C, ...) with C > 0, got {tuple(shape)}")
    classes = shape[min(1, len(shape) - 1)]
    if weight is not None:
        need_tensor(who, weight)
        if weight._array.shape != (classes,):
            raise RuntimeError(f"{who}: expected weight ({classes},), one per class, got {tuple(weight.shape)}")
    wanted = (*shape[:1], *shape[2:]) if len(shape) > 1 else ()
    kind, given = target._array.dtype.kind, target._array.shape
    if kind in FLOATING and given == shape:
        return True
    if kind not in "iu" or given != wanted:
        other_batch = kind in "iu" and len(given) == len(wanted) and given[:1] != wanted[:1]
        raise (ValueError if other_batch else RuntimeError)(
            f"{who}: expected target {wanted} of class indices (an integer dtype)"
            + (f" or {tuple(shape)} of probabilities" if who == "cross_entropy" else "")
            + f" for input {tuple(shape)}, got {given} of {target.dtype}"
        )
    return False


@size_average("input target weight size_average ignore_index reduce reduction label_smoothing")
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,  # PyTorch's retired size_average was here
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy −Σ_c w_c q_c ln softmax(x)_c, q the target distribution of a row.

    ``input`` (C), (N, C) or (N, C, d₁, ...): unnormalised scores. ``target``: class indices in [0, C), shape () or (N) or
    (N, d₁, ...), or probabilities of the shape of ``input``. Rows with index ``ignore_index`` count for nothing.
    ``weight`` (C): one per class. ``label_smoothing`` ε replaces q by (1 − ε)q + ε/C. ``reduction="mean"`` divides by
    the sum of the targets' weights (indices) or by the number of rows (probabilities).

    Errors: IndexError for an index out of range, ValueError for a batch of another size, RuntimeError for other shapes and
    dtypes that do not fit, and for ``ignore_index`` ≥ 0 with probabilities.

    >>> import kobai
    >>> scores = kobai.tensor([[2.0, 0.0], [0.0, 0.0]])
    >>> kobai.nn.functional.cross_entropy(scores, kobai.tensor([0, 1]), reduction="none")
    tensor([0.1269, 0.6931])
    """
    probabilities = _check("cross_entropy", input, target, weight, ignore_index, reduction)
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"cross_entropy: expected label_smoothing in [0, 1], got {label_smoothing}")
    if probabilities:
        if ignore_index >= 0:
            raise RuntimeError(f"cross_entropy: ignore_index={ignore_index} is for class indices, got probabilities")
        return _soft_cross_entropy(input, target, weight, reduction=reduction, label_smoothing=label_smoothing)
    tell("classes", target._array.shape, ignore_index, weight)
    return _cross_entropy(
        input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


@size_average("input target weight size_average ignore_index reduce reduction")
def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """−w_t x_t for log-probabilities x and target class t; arguments as for :func:`cross_entropy` with class indices.

    >>> import kobai
    >>> kobai.nn.functional.nll_loss(kobai.tensor([[-1., -2.], [-3., -4.]]), kobai.tensor([0, 1]))  # (1 + 4) / 2
    tensor(2.5000)
    """
    if _check("nll_loss", input, target, weight, ignore_index, reduction):
        raise RuntimeError(f"nll_loss: expected target of class indices (an integer dtype), got {target.dtype}")
    tell("classes", target._array.shape, ignore_index, weight)
    return _nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)
