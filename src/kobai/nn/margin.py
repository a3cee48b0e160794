"""Losses on distances and margins as modules; each calls the function of the same name in :mod:`kobai.nn.functional`."""

from __future__ import annotations

from collections.abc import Callable

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.loss import _Loss, _OfTarget, _Weighted
from kobai.ops._size_average import size_average

__all__ = [
    "CosineEmbeddingLoss",
    "HingeEmbeddingLoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]


class _OfPair(_Loss):
    _options = ("margin",)

    @size_average("self margin size_average reduce reduction")
    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return self._of(input1, input2, target)


class _OfTriplet(_Loss):
    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self._of(anchor, positive, negative)


class CosineEmbeddingLoss(_OfPair):
    """1 − cos(x₁, x₂) where target is 1, max(0, cos(x₁, x₂) − margin) where it is −1; x (N, D) or (D).

    >>> import kobai
    >>> x, y = kobai.tensor([[3.0, 0.0]]), kobai.tensor([[0.0, 2.0]])
    >>> kobai.nn.CosineEmbeddingLoss()(x, y, kobai.tensor([1]))
    tensor(1.)
    """

    _function = staticmethod(F.cosine_embedding_loss)


class MarginRankingLoss(_OfPair):
    """max(0, −target · (x₁ − x₂) + margin), target 1 or −1.

    >>> import kobai
    >>> one = kobai.ones(1)
    >>> kobai.nn.MarginRankingLoss(margin=0.5)(one, 3 * one, one)
    tensor(2.5000)
    """

    _function = staticmethod(F.margin_ranking_loss)


class HingeEmbeddingLoss(_OfTarget):
    """x where target is 1, max(0, margin − x) where it is −1.

    >>> import kobai
    >>> kobai.nn.HingeEmbeddingLoss(reduction="none")(kobai.tensor([0.25, 0.25]), kobai.tensor([1, -1]))
    tensor([0.2500, 0.7500])
    """

    _function = staticmethod(F.hinge_embedding_loss)
    _options = ("margin",)

    @size_average("self margin size_average reduce reduction")
    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.margin = margin


class SoftMarginLoss(_OfTarget):
    """log(1 + e^(−target · x)), target 1 or −1.

    >>> import kobai
    >>> kobai.nn.SoftMarginLoss()(kobai.zeros(2), kobai.tensor([1.0, -1.0]))
    tensor(0.6931)
    """

    _function = staticmethod(F.soft_margin_loss)


class TripletMarginLoss(_OfTriplet):
    """max(0, ‖a − p‖ − ‖a − n‖ + margin), p-norms; with ``swap`` the lesser of ‖a − n‖ and ‖p − n‖ counts.

    Balntas et al., BMVC 2016.

    >>> import kobai
    >>> a, far = kobai.zeros(1, 2), kobai.tensor([[3.0, 4.0]])
    >>> kobai.nn.TripletMarginLoss(margin=1.0, eps=0.0)(a, far, a)
    tensor(6.)
    """

    _function = staticmethod(F.triplet_margin_loss)
    _options = ("margin", "p", "eps", "swap")

    @size_average("self margin p eps swap size_average reduce reduction")
    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap


class TripletMarginWithDistanceLoss(_OfTriplet):
    """max(0, d(a, p) − d(a, n) + margin) with any distance d; default the Euclidean one.

    >>> import kobai
    >>> a, b = kobai.tensor([[0.0]]), kobai.tensor([[3.0]])
    >>> loss = kobai.nn.TripletMarginWithDistanceLoss(distance_function=lambda x, y: (x - y).abs().sum(-1))
    >>> loss(a, b, a)
    tensor(4.)
    """

    _function = staticmethod(F.triplet_margin_with_distance_loss)
    _options = ("distance_function", "margin", "swap")

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.distance_function = distance_function
        self.margin = margin
        self.swap = swap


class MultiMarginLoss(_OfTarget):
    """The hinge loss of several classes, see :func:`kobai.nn.functional.multi_margin_loss`.

    >>> import kobai
    >>> kobai.nn.MultiMarginLoss()(kobai.tensor([[0.5, 0.25, -3.0, 0.0]]), kobai.tensor([0]))
    tensor(0.3125)
    """

    _function = staticmethod(F.multi_margin_loss)
    _options = ("p", "margin", "weight")

    @size_average("self p margin weight size_average reduce reduction")
    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, *, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.p = p
        self.margin = margin
        self.register_buffer("weight", weight)


class MultiLabelMarginLoss(_OfTarget):
    """The hinge loss of several labels, see :func:`kobai.nn.functional.multilabel_margin_loss`.

    >>> import kobai
    >>> scores, classes = kobai.tensor([[0.25, 0.5, 1.0, 0.0]]), kobai.tensor([[2, 1, -1, 0]])
    >>> kobai.nn.MultiLabelMarginLoss()(scores, classes)
    tensor(0.3750)
    """

    _function = staticmethod(F.multilabel_margin_loss)


class MultiLabelSoftMarginLoss(_Weighted):
    """Binary cross-entropy of several labels, averaged over them; scores x, labels 0 or 1.

    >>> import kobai
    >>> kobai.nn.MultiLabelSoftMarginLoss()(kobai.zeros(1, 3), kobai.tensor([[1.0, 0.0, 1.0]]))
    tensor(0.6931)
    """

    _function = staticmethod(F.multilabel_soft_margin_loss)
