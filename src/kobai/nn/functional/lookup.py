"""Rows of a table by index: ``embedding``, and ``embedding_bag``, which reduces the rows of each bag."""

from __future__ import annotations

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.engine.domains import check_range
from kobai.errors import nearest
from kobai.ops._args import need_flags
from kobai.ops.create import arange, ones, zeros
from kobai.ops.gather import embedding as look_up, where
from kobai.ops.scatter import index_add, scatter_reduce
from kobai.ops.vector_norm import p_norm
from kobai.xp import xp_of

__all__ = ["embedding", "embedding_bag"]


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Row i of ``weight`` (n, D) for every index i of ``input``: (*) of integers → (*, D).

    Row ``padding_idx`` gets no gradient. With ``max_norm`` the rows looked up are first scaled down, in place, to this
    ``norm_type``-norm. With ``scale_grad_by_freq`` the gradient of a row is divided by how often ``input`` names it.
    Gradients are dense, also if ``sparse`` is asked for: :class:`kobai.optim.SparseAdam` tells rows that were not named by
    their zeros.

    >>> import kobai
    >>> kobai.nn.functional.embedding(kobai.tensor([1, 0]), kobai.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[3., 4.],
            [1., 2.]])
    """
    need_flags("embedding", scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    if max_norm is not None:
        _shorten_rows(input, weight, max_norm, norm_type)
    return look_up(weight, input, padding_idx, scale_grad_by_freq)


def _shorten_rows(input: Tensor, weight: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows of ``weight`` that ``input`` names down to length ``max_norm``, unseen by the tape."""
    rows, table = input.array.reshape(-1), weight.array
    check_range("embedding", rows, table.shape[0])
    xp = xp_of(table)
    found = table[rows]
    lengths = p_norm(found, norm_type, (1,), True)
    scale = xp.where(lengths > max_norm, max_norm / (lengths + 1e-7), 1.0).astype(table.dtype, copy=False)
    table[rows] = found * scale  # a row named several times is written several times with the same values
    weight._bump()


@one_operation
def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or maximum of the rows of ``weight`` that each bag of indices names: → (bags, D). An empty bag gives zeros.

    Args:
        input: (bags, n), or all bags concatenated, (total), with ``offsets`` (bags), where each begins.
        mode: ``"sum"``, ``"mean"`` or ``"max"``.
        per_sample_weights: shape of ``input``; multiplies the rows, in mode sum only.
        include_last_offset: ``offsets`` has one element more, the end of the last bag.
        padding_idx: this index is left out.
        max_norm, norm_type, scale_grad_by_freq, sparse: as for :func:`embedding`.

    >>> import kobai
    >>> table = kobai.tensor([[1.0], [2.0], [4.0]])
    >>> kobai.nn.functional.embedding_bag(kobai.tensor([0, 1, 2]), table, kobai.tensor([0, 2]), mode="sum")
    tensor([[3.],
            [4.]])
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: unknown mode {mode!r}.{nearest(mode, ['sum', 'mean', 'max'])}")
    if mode == "max" and (scale_grad_by_freq or sparse):
        raise ValueError("embedding_bag: scale_grad_by_freq and sparse are for modes 'sum' and 'mean'")
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        raise ValueError(
            f"embedding_bag: per_sample_weights are for mode 'sum' and need the shape of the input {tuple(input.shape)}"
        )
    if (input.ndim == 2) != (offsets is None) or input.ndim not in (1, 2):
        given = "with" if offsets is not None else "without"
        raise ValueError(
            f"embedding_bag: expected input (bags, n), or (total) with offsets, got {tuple(input.shape)} {given}"
        )
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if mode == "max" and offsets is None and padding_idx is None:
        highest: Tensor = rows.max(1)[0]
        return highest
    counted = ones(input.shape, dtype=weight.dtype, device=weight.device)
    if padding_idx is not None:
        counted = counted * (input != padding_idx % weight.shape[0]).to(weight.dtype)
    if mode == "max" and offsets is None:
        each = arange(input.shape[0], device=input.device).unsqueeze(-1).expand(input.shape)
        return _largest(rows, counted, each, input.shape[0])
    if mode != "max":
        rows = rows * (counted if per_sample_weights is None else counted * per_sample_weights).unsqueeze(-1)
    if offsets is None:
        total, number = rows.sum(1), counted.sum(1)
    else:
        begins = offsets[:-1] if include_last_offset else offsets
        check_range("embedding_bag: offsets", offsets.array, input.shape[0] + 1)
        check_range("embedding_bag: the first of the offsets", begins[:1].array, 1)
        xp = xp_of(input.array)
        places = xp.arange(input.shape[0])
        bag: Tensor = Tensor._wrap(xp.searchsorted(begins.array, places, side="right").astype(np.int64) - 1)
        bags = begins.shape[0]
        if mode == "max":
            return _largest(rows, counted, bag, bags)
        total = index_add(zeros(bags, weight.shape[1], dtype=weight.dtype, device=weight.device), 0, bag, rows)
        number = index_add(zeros(bags, dtype=weight.dtype, device=weight.device), 0, bag, counted)
    mean: Tensor = total / number.clamp(min=1).unsqueeze(-1)
    return total if mode == "sum" else mean


def _largest(rows: Tensor, counted: Tensor, bag: Tensor, bags: int) -> Tensor:
    """The maximum of the rows (..., D) of each bag, 0 where there are none; rows that do not count go to one bag more."""
    width = rows.shape[-1]
    place = where(counted == 0, bags, bag).reshape(-1, 1).expand(-1, width)
    empty = zeros(bags + 1, width, dtype=rows.dtype, device=rows.device)
    return scatter_reduce(empty, 0, place, rows.reshape(-1, width), "amax", include_self=False)[:bags]
