"""Lengths and angles between vectors: ``cosine_similarity``, ``pairwise_distance``."""

from __future__ import annotations

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.ops._args import need_tensor
from kobai.ops.broadcast import broadcast_tensors
from kobai.ops.norm import normalize
from kobai.ops.rearrange import triu_indices
from kobai.ops.vector_norm import norm

__all__ = ["cosine_similarity", "pairwise_distance", "pdist"]


def check_shapes(who: str, *tensors: Tensor) -> None:
    """TypeError unless these are Tensors, RuntimeError unless their shapes broadcast, in the name of the function called."""
    need_tensor(who, *tensors)
    shapes = [tuple(t.shape) for t in tensors]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise RuntimeError(
            f"{who}: expected shapes that broadcast together, got {' and '.join(map(str, shapes))}"
        ) from None


@one_operation
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Σ x₁x₂ / (max(‖x₁‖, eps) · max(‖x₂‖, eps)) along ``dim``; the tensors broadcast.

    >>> import kobai
    >>> kobai.nn.functional.cosine_similarity(kobai.tensor([[1.0, 0.0]]), kobai.tensor([[2.0, 0.0]]))
    tensor([1.])
    """
    check_shapes("cosine_similarity", x1, x2)
    x1, x2 = broadcast_tensors(x1, x2)  # first, so that each norm is taken over the whole vector
    cosine: Tensor = (normalize(x1, 2.0, dim, eps) * normalize(x2, 2.0, dim, eps)).sum(dim)
    return cosine


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """‖x₁ − x₂ + eps‖ₚ over the last dimension, (N, D) and (N, D) → (N); eps keeps the gradient finite at 0.

    >>> import kobai
    >>> kobai.nn.functional.pairwise_distance(kobai.tensor([[3.0, 4.0]]), kobai.zeros(1, 2), eps=0.0)
    tensor([5.])
    """
    check_shapes("pairwise_distance", x1, x2)
    distance: Tensor = (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)
    return distance


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """p-norm distances of every row of (N, D) to every later one: (N (N − 1) / 2).

    >>> import kobai
    >>> kobai.nn.functional.pdist(kobai.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]]))
    tensor([5., 4., 3.])
    """
    if input.ndim != 2 or not input.is_floating_point() or not p >= 0:
        raise RuntimeError(
            f"pdist: expected a float matrix and p >= 0, got {tuple(input.shape)} of {input.dtype} and {p}"
        )
    rows, columns = triu_indices(input.shape[0], input.shape[0], 1, device=input.device)
    return norm(input[rows] - input[columns], p, -1)
