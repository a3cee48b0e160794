"""The adaptive softmax: a classifier of very many classes of which few are frequent, such as the words of a language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kobai.core.tensor import Tensor
from kobai.engine.domains import check_range
from kobai.nn.container import ModuleList, Sequential
from kobai.nn.linear import Linear, _real, _size
from kobai.nn.module import Module
from kobai.ops.gather import gathered, index_select, where
from kobai.ops.joining import cat
from kobai.ops.scatter import index_add
from kobai.ops.softmax import log_softmax

__all__ = ["AdaptiveLogSoftmaxWithLoss"]


class ASMoutput(NamedTuple):
    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """−log softmax at the target for classes in order of frequency: rare ones cost only the samples that are of them.

    Classes below ``cutoffs[0]`` are one output each of ``head``, and each range [cutoffs[i], cutoffs[i + 1]) is one more output
    there, whose classes its layers ``tail[i]`` tell apart: log p(c) = log p(range of c) + log p(c | range of c). The last range
    ends with ``n_classes``.

    Args:
        in_features: x is (N, in_features) or (in_features).
        n_classes: how many classes there are.
        cutoffs: increasing class numbers in [1, n_classes).
        div_value: range i is told apart in in_features / div_value^(i + 1) dimensions.
        head_bias: whether ``head`` has a bias.

    A call gives ``output``, log p(target) of shape (N) or (), and ``loss``, the mean of −output. Which samples belong to which
    range is read from the targets, so a captured step has to have the call outside. ValueError for cutoffs that do not
    increase; RuntimeError for shapes that do not fit and targets outside [0, n_classes).

    Grave et al., *Efficient softmax approximation for GPUs*, ICML 2017.

    >>> import kobai
    >>> words = kobai.nn.AdaptiveLogSoftmaxWithLoss(16, 1000, cutoffs=[10, 100])
    >>> x = kobai.randn(3, 16)
    >>> output, loss = words(x, kobai.tensor([2, 50, 999]))
    >>> output.shape, words.log_prob(x).shape, words.predict(x).shape
    (kobai.Size([3]), kobai.Size([3, 1000]), kobai.Size([3]))
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        who = "AdaptiveLogSoftmaxWithLoss"
        self.in_features = _size(who, "in_features", in_features)
        self.n_classes = _size(who, "n_classes", n_classes)
        ends = [*cutoffs, n_classes]
        whole = all(type(end) is not bool and hasattr(end, "__index__") for end in ends)
        if len(ends) < 2 or not whole or any(a >= b for a, b in zip([0, *ends], ends, strict=False)):
            raise ValueError(f"{who}: expected cutoffs that increase, in [1, {n_classes - 1}], got {cutoffs!r}")
        self.cutoffs = [int(end) for end in ends]
        self.div_value, self.head_bias = _real(who, "div_value", div_value), head_bias
        self.shortlist_size, self.n_clusters = self.cutoffs[0], len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        place = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **place)
        self.tail = ModuleList()
        for i, (start, end) in enumerate(zip(self.cutoffs, self.cutoffs[1:], strict=False)):
            between = int(in_features // self.div_value ** (i + 1))
            first = Linear(in_features, between, bias=False, **place)
            self.tail.append(Sequential(first, Linear(between, end - start, bias=False, **place)))

    def reset_parameters(self) -> None:
        """Draw new parameters."""
        self.head.reset_parameters()
        for first, second in self.tail:
            first.reset_parameters()
            second.reset_parameters()

    def forward(self, input: Tensor, target: Tensor) -> ASMoutput:
        """(N, in_features) and class numbers (N), or one sample and () → log p(target), and the loss."""
        single = target.ndim == 0
        x, t = (input.unsqueeze(0), target.unsqueeze(0)) if single else (input, target)
        if x.ndim != 2 or t.ndim != 1 or len(x) != len(t):
            raise RuntimeError(
                f"AdaptiveLogSoftmaxWithLoss: expected (N, {self.in_features}) and targets (N), or ({self.in_features}) "
                f"and (), got {tuple(input.shape)} and {tuple(target.shape)}"
            )
        if t._array.dtype.kind not in "iu":
            raise RuntimeError(f"AdaptiveLogSoftmaxWithLoss: expected class numbers as targets, got {target.dtype}")
        check_range("AdaptiveLogSoftmaxWithLoss", t._array, self.n_classes)
        cluster: Any = sum((t >= end).long() for end in self.cutoffs[:-1])  # 0 for the shortlist
        column = where(cluster == 0, t, self.shortlist_size - 1 + cluster)
        output = gathered("gather", log_softmax(self.head(x), 1), 1, column.unsqueeze(1)).squeeze(1)
        for i, layers in enumerate(self.tail):
            rows = (cluster == i + 1).nonzero().squeeze(1)
            if len(rows):
                inside = index_select(t, 0, rows) - self.cutoffs[i]
                within = log_softmax(layers(index_select(x, 0, rows)), 1)
                output = index_add(output, 0, rows, gathered("gather", within, 1, inside.unsqueeze(1)).squeeze(1))
        return ASMoutput(output.squeeze(0) if single else output, -output.mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """log p of every class, (N, in_features) → (N, n_classes)."""
        head = log_softmax(self._head(input), 1)
        clusters = (
            log_softmax(layers(input), 1) + head[:, self.shortlist_size + i].unsqueeze(1)
            for i, layers in enumerate(self.tail)
        )
        return cat([head[:, : self.shortlist_size], *clusters], 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class, (N, in_features) → (N). Ranges are looked into only where one is more probable than all
        classes of the shortlist."""
        best = self._head(input).argmax(1)
        rows = (best >= self.shortlist_size).nonzero().squeeze(1)
        if len(rows):
            best = best.index_copy(0, rows, self.log_prob(index_select(input, 0, rows)).argmax(1))
        return best  # type: ignore[no-any-return]

    def _head(self, input: Tensor) -> Tensor:
        if input.ndim != 2:
            raise IndexError(
                f"AdaptiveLogSoftmaxWithLoss: expected input (N, {self.in_features}), got {tuple(input.shape)}"
            )
        return self.head(input)  # type: ignore[no-any-return]
