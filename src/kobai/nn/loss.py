"""Losses as modules; each calls the function of the same name in :mod:`kobai.nn.functional`. Margins: :mod:`kobai.nn.margin`.

``reduction`` is ``"mean"``, ``"sum"`` or ``"none"`` everywhere. PyTorch's older ``size_average`` and ``reduce`` are taken by
name, and in their places among arguments without names (:mod:`kobai.ops._size_average`).
"""

from __future__ import annotations

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
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
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
