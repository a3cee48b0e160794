"""Losses as modules; each calls the function of the same name in :mod:`kobai.nn.functional`.

``reduction`` is ``"mean"``, ``"sum"`` or ``"none"`` everywhere. PyTorch's older ``size_average`` and ``reduce`` are taken by
name, and in their places among arguments without names (:mod:`kobai.ops._size_average`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.linear import _real
from kobai.nn.module import Module
from kobai.ops._size_average import size_average
from kobai.ops.cross_entropy import REDUCTIONS, check_reduction

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]


class _Loss(Module):
    """f(*tensors, reduction=..., and the attributes named in ``_options``)."""

    _function: ClassVar[staticmethod[..., Tensor]]
    _options: ClassVar[tuple[str, ...]] = ()
    _reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    @size_average("self size_average reduce reduction")
    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__()
        check_reduction(self._get_name(), reduction, self._reductions)
        self.reduction = reduction

    def _of(self, *tensors: Any) -> Tensor:
        options = {name: getattr(self, name) for name in self._options}
        return self._function(*tensors, reduction=self.reduction, **options)


class _OfTarget(_Loss):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self._of(input, target)


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


class _Weighted(_OfTarget):
    _options: ClassVar[tuple[str, ...]] = ("weight",)
    weight: Tensor | None

    @size_average("self weight size_average reduce reduction")
    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.register_buffer("weight", weight)


class CrossEntropyLoss(_Weighted):
    """−log softmax(input) at the target class: what a classifier minimises.

    Args:
        weight: (C), weight of each class.
        ignore_index: targets of this class are left out.
        label_smoothing: the target becomes (1 − s) · target + s / C.

    Input (N, C), (C) or (N, C, d1, ...), logits; target class indices (N), () or (N, d1, ...), or probabilities of the
    input's shape. The mean over class indices is weighted.

    >>> import kobai
    >>> loss = kobai.nn.CrossEntropyLoss()
    >>> round(loss(kobai.zeros(2, 10), kobai.tensor([3, 4])).item(), 4)
    2.3026
    """

    _function = staticmethod(F.cross_entropy)
    _options = ("weight", "ignore_index", "label_smoothing")

    @size_average("self weight size_average ignore_index reduce reduction label_smoothing")
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing


class NLLLoss(_Weighted):
    """−input at the target class, for ``input`` log-probabilities (N, C), (C) or (N, C, d1, ...).

    ``weight`` and ``ignore_index`` as in :class:`CrossEntropyLoss`.

    >>> import kobai
    >>> kobai.nn.NLLLoss()(kobai.tensor([[-0.5, -1.0], [-0.25, -1.5]]), kobai.tensor([0, 1]))
    tensor(1.)
    """

    _function = staticmethod(F.nll_loss)
    _options = ("weight", "ignore_index")

    @size_average("self weight size_average ignore_index reduce reduction")
    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index


class MSELoss(_OfTarget):
    """(input − target)².

    >>> import kobai
    >>> kobai.nn.MSELoss()(kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 4.0]))
    tensor(2.)
    """

    _function = staticmethod(F.mse_loss)


class L1Loss(_OfTarget):
    """|input − target|.

    >>> import kobai
    >>> kobai.nn.L1Loss()(kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 5.0]))
    tensor(1.5000)
    """

    _function = staticmethod(F.l1_loss)


class SmoothL1Loss(_OfTarget):
    """(d²/2)/beta where |d| < beta, else |d| − beta/2, for d = input − target. Girshick, arXiv:1504.08083.

    >>> import kobai
    >>> kobai.nn.SmoothL1Loss(reduction="none")(kobai.tensor([0.0, 0.0]), kobai.tensor([0.5, 3.0]))
    tensor([0.1250, 2.5000])
    """

    _function = staticmethod(F.smooth_l1_loss)
    _options = ("beta",)

    @size_average("self size_average reduce reduction beta")
    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.beta = beta


class HuberLoss(_OfTarget):
    """d²/2 where |d| < delta, else delta · (|d| − delta/2), for d = input − target. Huber, 1964.

    >>> import kobai
    >>> kobai.nn.HuberLoss("none", delta=2.0)(kobai.tensor([0.0, 0.0]), kobai.tensor([1.0, 3.0]))
    tensor([0.5000, 4.0000])
    """

    _function = staticmethod(F.huber_loss)
    _options = ("delta",)

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta


class BCELoss(_Weighted):
    """−(t log p + (1 − t) log(1 − p)) for input p and target t in [0, 1]; the logarithms are clamped to at least −100.

    ``weight`` broadcasts against the input.

    >>> import kobai
    >>> kobai.nn.BCELoss()(kobai.tensor([0.5, 0.5]), kobai.tensor([0.0, 1.0]))
    tensor(0.6931)
    """

    _function = staticmethod(F.binary_cross_entropy)


class BCEWithLogitsLoss(_Weighted):
    """:class:`BCELoss` of σ(input), without overflow; ``pos_weight`` multiplies the term of t = 1, and broadcasts.

    >>> import kobai
    >>> round(kobai.nn.BCEWithLogitsLoss()(kobai.zeros(3), kobai.ones(3)).item(), 4)
    0.6931
    """

    _function = staticmethod(F.binary_cross_entropy_with_logits)
    _options = ("weight", "pos_weight")
    pos_weight: Tensor | None

    @size_average("self weight size_average reduce reduction pos_weight")
    def __init__(
        self, weight: Tensor | None = None, *, reduction: str = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.register_buffer("pos_weight", pos_weight)


class CTCLoss(_Loss):
    """−ln of the probability of a target sequence, summed over all its alignments with the input.

    For log-probabilities (T, N, C) or (T, C); see :func:`kobai.nn.functional.ctc_loss`. Graves et al., ICML 2006.

    >>> import kobai
    >>> steps = kobai.zeros(2, 1, 2).log_softmax(-1)  # two steps of a class and the blank, ½ each
    >>> kobai.nn.CTCLoss(reduction="sum")(steps, kobai.tensor([[1]]), (2,), (1,))  # 3 of 4 paths
    tensor(0.2877)
    """

    _function = staticmethod(F.ctc_loss)
    _options = ("blank", "zero_infinity")

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any) -> Tensor:
        return self._of(log_probs, targets, input_lengths, target_lengths)


class KLDivLoss(_OfTarget):
    """target · (log target − input), for ``input`` log-probabilities; with ``log_target`` the target is one too.

    ``reduction="batchmean"`` divides the sum by the size of dimension 0: the divergence as it is defined.

    >>> import kobai
    >>> target = kobai.tensor([[1.0, 0.0]])
    >>> kobai.nn.KLDivLoss(reduction="batchmean")(kobai.tensor([[0.5, 0.5]]).log(), target)
    tensor(0.6931)
    """

    _function = staticmethod(F.kl_div)
    _options = ("log_target",)
    _reductions = (*REDUCTIONS, "batchmean")

    @size_average("self size_average reduce reduction log_target")
    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.log_target = log_target


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


class GaussianNLLLoss(_Loss):
    """(log var + (input − target)² / var) / 2, var clamped to at least ``eps``; ``full`` adds log(2π) / 2.

    >>> import kobai
    >>> kobai.nn.GaussianNLLLoss()(kobai.tensor([1.0]), kobai.tensor([4.0]), kobai.tensor([1.0]))
    tensor(4.5000)
    """

    _function = staticmethod(F.gaussian_nll_loss)
    _options = ("full", "eps")

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = _real(self._get_name(), "eps", eps)

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return self._of(input, target, var)


class PoissonNLLLoss(_OfTarget):
    """eˣ − target · x, or with ``log_input=False`` x − target · log(x + eps).

    ``full`` adds Stirling's approximation of log(target!) where target > 1.

    >>> import kobai
    >>> kobai.nn.PoissonNLLLoss()(kobai.zeros(2), kobai.tensor([3.0, 5.0]))
    tensor(1.)
    """

    _function = staticmethod(F.poisson_nll_loss)
    _options = ("log_input", "full", "eps")

    @size_average("self log_input full size_average eps reduce reduction")
    def __init__(
        self, log_input: bool = True, full: bool = False, *, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction=reduction)
        self.log_input = log_input
        self.full = full
        self.eps = _real(self._get_name(), "eps", eps)


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


class MultiLabelSoftMarginLoss(_Weighted):
    """Binary cross-entropy of several labels, averaged over them; scores x, labels 0 or 1.

    >>> import kobai
    >>> kobai.nn.MultiLabelSoftMarginLoss()(kobai.zeros(1, 3), kobai.tensor([[1.0, 0.0, 1.0]]))
    tensor(0.6931)
    """

    _function = staticmethod(F.multilabel_soft_margin_loss)
