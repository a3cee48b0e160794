"""The loss of sequences whose alignment with their target is not known: connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine import dispatch
from kobai.engine.domains import check_range
from kobai.ops._args import Samples, need_flags, need_tensor
from kobai.ops.cross_entropy import check_reduction
from kobai.ops.ctc import kernel
from kobai.ops.loss import reduce
from kobai.ops.softmax import log_softmax
from kobai.xp import Array, asarray, xp_of

__all__ = ["ctc_loss"]


def _sample(times: int, classes: int, targets: Any, steps: Any, sizes: Any, **options: Any) -> Any:
    def arguments(rng: np.random.Generator) -> tuple[Any, ...]:
        labels, skip = _labels(np.array(targets), np.array(sizes), 0)
        return rng.normal(size=(times, len(steps), classes)), labels, skip, np.array(steps), np.array(sizes), options

    return arguments


_SAMPLES: Samples = [
    _sample(5, 4, [[1, 2], [3, 3]], [5, 4], [2, 2]),
    _sample(4, 3, [[1, 1], [2, 0], [0, 0]], [4, 3, 2], [2, 1, 0]),
    _sample(2, 3, [[1, 1], [2, 1]], [2, 2], [2, 2], finite=True),
    _sample(3, 3, np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)),
]


@primitive(sample=_SAMPLES, within=lambda x: log_softmax(x, -1))
def _ctc_loss(x: Array, labels: Array, skip: Array, steps: Array, sizes: Array, *, finite: bool = False) -> Any:
    """Loss of each sequence. The gradient is that of scores whose log_softmax is x, as in PyTorch."""
    xp = xp_of(x)
    x = xp.ascontiguousarray(x)
    skip = xp.where(skip, 0, -np.inf).astype(x.dtype)
    loss, alpha = kernel.forward(x, skip, labels, steps, sizes)

    def vjp(dy: Array) -> Any:
        return kernel.backward(
            xp.ascontiguousarray(dy, x.dtype), x, skip, loss, alpha, labels, steps, sizes, finite
        ), None, None, None, None  # fmt: skip

    return (xp.where(loss == np.inf, 0, loss).astype(x.dtype) if finite else loss.copy()), vjp


def _labels(targets: Array, sizes: Array, blank: int) -> tuple[Array, Array]:
    """Targets (N, S) with blanks around every class, (N, 2S + 1), and to which labels a path may skip a blank."""
    xp, (batch, longest) = xp_of(targets), targets.shape
    labels = xp.full((batch, 2 * longest + 1), blank, dtype=np.int64)
    labels[:, 1::2] = xp.where(xp.arange(longest) < sizes[:, None], targets, blank)
    skip = xp.zeros(labels.shape, dtype=np.bool_)
    skip[:, 2:] = (labels[:, 2:] != labels[:, :-2]) & (labels[:, 2:] != blank)
    return labels, skip


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−ln of the probability of a target sequence, summed over all its alignments with the input.

    Args:
        log_probs: (T, N, C), or (T, C) of one sequence: log-probabilities of C classes at every step, of log_softmax.
        targets: (N, S) of classes, padded – or the targets of all sequences one after the other, (Σ target_lengths).
        input_lengths, target_lengths: (N) integers, each a tensor, a list or a tuple; a number for one sequence.
        blank: the class that stands for no class.
        reduction: ``"mean"`` divides each loss by the length of its target (or 1) first.
        zero_infinity: losses of targets too long for their input, which are ∞, and their gradients become 0.

    A step emits a class or the blank; repeated classes count once, so that two equal classes need a blank between. The
    gradient is that of the scores from which log_softmax made ``log_probs``, as in PyTorch. Targets one after the other are
    taken apart on the host. Graves et al., *Connectionist temporal classification*, ICML 2006.

    Errors: RuntimeError for lengths that do not fit, a blank that is no class, or targets that are no integers;
    IndexError for a class that there is not.

    >>> import kobai
    >>> steps = kobai.zeros(3, 1, 2).log_softmax(-1)  # three steps of a class and the blank, ½ each
    >>> round(kobai.nn.functional.ctc_loss(steps, kobai.tensor([[1]]), [3], [1]).exp().item(), 4)  # 6 of 8 paths
    1.3333
    """
    who = "ctc_loss"
    need_tensor(who, log_probs, targets)
    check_reduction(who, reduction)
    need_flags(who, zero_infinity=zero_infinity)
    if log_probs.ndim not in (2, 3) or log_probs._array.dtype.kind not in FLOATING:
        raise RuntimeError(
            f"{who}: expected float log_probs (T, N, C) or (T, C), got {tuple(log_probs.shape)} of {log_probs.dtype}"
        )
    if targets._array.dtype.kind not in "iu":
        raise RuntimeError(f"{who}: expected targets of an integer dtype, got {targets.dtype}")
    single = log_probs.ndim == 2
    x = log_probs.unsqueeze(1) if single else log_probs
    times, batch, classes = x.shape
    if isinstance(blank, bool) or not isinstance(blank, int):
        raise TypeError(f"{who}: expected blank to be an integer, got {blank!r}")
    if not 0 <= blank < classes:
        raise RuntimeError(f"{who}: expected blank in [0, {classes}), got {blank}")
    steps = _lengths(who, "input_lengths", input_lengths, batch, times, x)
    given = targets._array.reshape(1, -1) if single else targets._array
    if given.ndim == 1:
        counts = Tensor._wrap(_lengths(who, "target_lengths", target_lengths, batch, 2**62, x)).tolist()
        given = _taken_apart(who, given, counts)
    if given.ndim != 2 or given.shape[0] != batch:
        raise RuntimeError(f"{who}: expected targets ({batch}, S) or (Σ target_lengths), got {tuple(targets.shape)}")
    sizes = _lengths(who, "target_lengths", target_lengths, batch, given.shape[1], x)
    labels, skip = _labels(given, sizes, blank)
    check_range(who, labels, classes)
    arrays = (Tensor._wrap(array) for array in (labels, skip, steps, sizes))
    loss = _ctc_loss(x, *arrays, finite=bool(zero_infinity))
    if reduction == "mean":
        loss = loss / Tensor._wrap(xp_of(sizes).maximum(sizes, 1))
    loss = reduce(loss, reduction)
    return loss.squeeze(0) if single and reduction == "none" else loss


def _lengths(who: str, name: str, lengths: Any, batch: int, most: int, x: Tensor) -> Array:
    """Lengths as an array (N) beside ``x``, each at most ``most``."""
    array = lengths._array if isinstance(lengths, Tensor) else np.asarray(lengths)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{who}: expected {name} to be integers, got {lengths!r}")
    if array.size != batch:
        raise RuntimeError(f"{who}: expected {batch} {name}, got {array.size}")
    array = asarray(array.reshape(-1), dtype=np.int64, device=x.device)
    dispatch.check(_look_lengths, who, name, array, most)
    return array


def _look_lengths(who: str, name: str, lengths: Array, most: int) -> None:
    if type(lengths) is np.ndarray and lengths.size and not 0 <= lengths.min() <= lengths.max() <= most:
        raise RuntimeError(f"{who}: expected {name} in [0, {most}], got {lengths.tolist()}")


def _taken_apart(who: str, targets: Array, counts: list[int]) -> Array:
    """Targets one after the other as rows, padded with zeros."""
    if sum(counts) != targets.shape[0]:
        raise RuntimeError(f"{who}: expected {sum(counts)} targets, the sum of target_lengths, got {targets.shape[0]}")
    xp = xp_of(targets)
    rows, begin = xp.zeros((len(counts), max(counts, default=0)), dtype=np.int64), 0
    for n, count in enumerate(counts):
        rows[n, :count] = targets[begin : begin + count]
        begin += count
    return rows
