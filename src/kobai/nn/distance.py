"""Distances between vectors as modules."""

from __future__ import annotations

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module

__all__ = ["CosineSimilarity", "PairwiseDistance"]


class CosineSimilarity(Module):
    """x₁ · x₂ / (‖x₁‖ ‖x₂‖) along ``dim``; lengths below ``eps`` count as ``eps``.

    >>> import kobai
    >>> kobai.nn.CosineSimilarity()(kobai.tensor([[1.0, 0.0]]), kobai.tensor([[0.0, 2.0]]))
    tensor([0.])
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The shape of the inputs without ``dim``."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """‖x₁ − x₂ + eps‖ₚ over the last dimension: (N, D), (N, D) → (N).

    >>> import kobai
    >>> kobai.nn.PairwiseDistance(eps=0.0)(kobai.tensor([[3.0, 4.0]]), kobai.zeros(1, 2))
    tensor([5.])
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The shape of the inputs without the last dimension, or with it as 1."""
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
