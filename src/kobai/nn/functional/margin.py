"""Losses on distances and margins: ranking, hinge, cosine and triplet losses."""

from __future__ import annotations

from collections.abc import Callable

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.nn.functional.distance import check_shapes, pairwise_distance
from kobai.ops._size_average import size_average
from kobai.ops.activation import softplus
from kobai.ops.arithmetic import minimum
from kobai.ops.averaged import tell
from kobai.ops.cross_entropy import check_reduction
from kobai.ops.gather import gathered, one_hot, where
from kobai.ops.loss import reduce
from kobai.ops.scatter import scatter_add

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


@size_average("input1 input2 target margin size_average reduce reduction")
@one_operation
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    *,
    reduction: str = "mean",
) -> Tensor:
    """max(0, −t (x₁ − x₂) + margin): t = 1 means that the first should rank higher, t = −1 the second.

    >>> import kobai
    >>> one = kobai.ones(1)
    >>> kobai.nn.functional.margin_ranking_loss(one, 3 * one, one, margin=0.5)
    tensor(2.5000)
    """
    check_reduction("margin_ranking_loss", reduction)
    check_shapes("margin_ranking_loss", input1, input2, target)
    if not input1.ndim == input2.ndim == target.ndim:
        shapes = " and ".join(str(tuple(t.shape)) for t in (input1, input2, target))
        raise RuntimeError(f"margin_ranking_loss: expected tensors of as many dimensions, got {shapes}")
    return reduce((-target * (input1 - input2) + float(margin)).clamp(min=0), reduction)


@size_average("input target margin size_average reduce reduction")
@one_operation
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    *,
    reduction: str = "mean",
) -> Tensor:
    """x where t = 1, max(0, margin − x) where t = −1, for a distance x.

    >>> import kobai
    >>> kobai.nn.functional.hinge_embedding_loss(kobai.tensor([0.25, 0.25]), kobai.tensor([1, -1]), reduction="none")
    tensor([0.2500, 0.7500])
    """
    check_reduction("hinge_embedding_loss", reduction)
    check_shapes("hinge_embedding_loss", input, target)
    near = where(target == -1, 0.0, input)
    far = where(target == 1, 0.0, (margin - input).clamp(min=0))
    return reduce(near + far, reduction)


@size_average("input target size_average reduce reduction")
@one_operation
def soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """log(1 + e^(−t x)), t = 1 or −1.

    >>> import kobai
    >>> round(kobai.nn.functional.soft_margin_loss(kobai.zeros(2), kobai.ones(2)).item(), 4)
    0.6931
    """
    check_reduction("soft_margin_loss", reduction)
    if input.shape != target.shape:
        raise RuntimeError(
            f"soft_margin_loss: expected target {tuple(input.shape)} as the input, got {tuple(target.shape)}"
        )
    tell("logits", tuple(target.shape))
    return reduce(softplus(-target * input), reduction)


@size_average("input1 input2 target margin size_average reduce reduction")
@one_operation
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    *,
    reduction: str = "mean",
) -> Tensor:
    """1 − cos(x₁, x₂) where t = 1, max(0, cos(x₁, x₂) − margin) where t = −1.

    (N, D), (N, D) and t (N), or (D), (D) and t ().

    >>> import kobai
    >>> x, y = kobai.tensor([[1.0, 0.0]]), kobai.tensor([[0.0, 1.0]])
    >>> round(kobai.nn.functional.cosine_embedding_loss(x, y, kobai.tensor([1])).item(), 4)
    1.0
    """
    who = "cosine_embedding_loss"
    check_reduction(who, reduction)
    if input1.shape != input2.shape or input1.ndim != target.ndim + 1 or target.ndim > 1:
        raise RuntimeError(
            f"{who}: expected inputs (N, D) and target (N), or (D) and (), "
            f"got {tuple(input1.shape)}, {tuple(input2.shape)} and {tuple(target.shape)}"
        )
    # PyTorch adds its guard to the squares, not to the lengths as cosine_similarity does
    tiny = 1e-12
    cosine = (input1 * input2).sum(-1) / (
        ((input1 * input1).sum(-1) + tiny) * ((input2 * input2).sum(-1) + tiny)
    ).sqrt()
    near = where(target == 1, 1.0 - cosine, 0.0)
    far = where(target == -1, (cosine - margin).clamp(min=0), 0.0)
    return reduce(near + far, reduction)


@size_average("anchor positive negative margin p eps swap size_average reduce reduction")
@one_operation
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Tensor:
    """max(0, ‖a − p‖ − ‖a − n‖ + margin): the positive should be nearer than the negative, by the margin.

    p-norms over the last dimension, (N, D) or (D) each; with ``swap`` the lesser of ‖a − n‖ and ‖p − n‖ counts.

    >>> import kobai
    >>> a, far = kobai.zeros(1, 2), kobai.tensor([[3.0, 4.0]])
    >>> round(kobai.nn.functional.triplet_margin_loss(a, far, a, margin=1.0).item(), 3)
    6.0
    """
    check_reduction("triplet_margin_loss", reduction)
    check_shapes("triplet_margin_loss", anchor, positive, negative)
    if not margin > 0:
        raise ValueError(f"triplet_margin_loss: expected margin > 0, got {margin}")
    to_positive = pairwise_distance(anchor, positive, p, eps)
    to_negative = pairwise_distance(anchor, negative, p, eps)
    if swap:
        to_negative = minimum(to_negative, pairwise_distance(positive, negative, p, eps))
    return reduce((to_positive - to_negative + margin).clamp(min=0), reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """As :func:`triplet_margin_loss`, with any distance (default :func:`pairwise_distance`).

    >>> import kobai
    >>> a, b = kobai.tensor([[0.0]]), kobai.tensor([[3.0]])
    >>> loss = kobai.nn.functional.triplet_margin_with_distance_loss
    >>> loss(a, b, a, distance_function=lambda x, y: (x - y).abs().sum(-1))
    tensor(4.)
    """
    check_reduction("triplet_margin_with_distance_loss", reduction)
    if not margin > 0:
        raise ValueError(f"triplet_margin_with_distance_loss: expected margin > 0, got {margin}")
    distance = pairwise_distance if distance_function is None else distance_function
    to_negative = distance(anchor, negative)
    if swap:
        to_negative = minimum(to_negative, distance(positive, negative))
    return reduce((distance(anchor, positive) - to_negative + margin).clamp(min=0), reduction)


@size_average("input target p margin weight size_average reduce reduction")
@one_operation
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Σ max(0, margin − x_t + x_c)ᵖ / C over the classes c ≠ t: the hinge loss of several classes.

    ``input`` (N, C) of scores, ``target`` (N) of class indices; or (C) and (), where (1) may stand for (). ``weight`` (C)
    multiplies by class.

    >>> import kobai
    >>> scores = kobai.tensor([[0.5, 0.25, -3.0, 0.0]])
    >>> kobai.nn.functional.multi_margin_loss(scores, kobai.tensor([0]))
    tensor(0.3125)
    """
    check_reduction("multi_margin_loss", reduction)
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: expected p = 1 or 2, got {p}")
    classes = input.shape[-1] if input.ndim else 1
    scores = input.reshape(-1, classes) if classes else input
    if input.ndim > 2 or not classes or target.ndim > 1 or target.numel() != scores.shape[0]:
        raise RuntimeError(
            f"multi_margin_loss: expected (N, C) and (N), got {tuple(input.shape)} and {tuple(target.shape)}"
        )
    if weight is not None and weight.shape != (classes,):
        raise (RuntimeError if weight.ndim == 1 else ValueError)(
            f"multi_margin_loss: expected weight ({classes},), got {tuple(weight.shape)}"
        )
    chosen = target.reshape(-1)
    excess = (margin - gathered("multi_margin_loss", scores, -1, chosen.unsqueeze(-1)) + scores).clamp(min=0)
    if p == 2:
        excess = excess * excess
    if weight is not None:
        excess = excess * weight[chosen].unsqueeze(-1)
    others = 1 - one_hot(chosen, classes).to(input.dtype)
    return reduce(((excess * others).sum(-1) / classes).reshape(target.shape), reduction)


@size_average("input target size_average reduce reduction")
@one_operation
def multilabel_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Σ max(0, 1 − x_t + x_c) / C over the classes t of a row and the classes c that are none of them.

    ``input`` (N, C) of scores, ``target`` (N, C) of class indices, those before the first −1; or (C) and (C).

    >>> import kobai
    >>> scores, classes = kobai.tensor([[0.25, 0.5, 1.0, 0.0]]), kobai.tensor([[2, 1, -1, 0]])
    >>> kobai.nn.functional.multilabel_margin_loss(scores, classes)
    tensor(0.3750)
    """
    who = "multilabel_margin_loss"
    check_reduction(who, reduction)
    classes = input.shape[-1] if input.ndim else 1
    if input.ndim > 2 or not classes or target.shape != input.shape or target.is_floating_point():
        raise RuntimeError(
            f"{who}: expected (N, C) and (N, C) of class indices, or (C) and (C), "
            f"got {tuple(input.shape)} and {tuple(target.shape)} of {target.dtype}"
        )
    x, chosen = input.reshape(-1, classes), target.reshape(-1, classes)
    meant = (chosen != -1).cumprod(-1) == 1
    chosen = where(meant, chosen, 0)
    excess = 1 - gathered(who, x, -1, chosen).unsqueeze(-1) + x.unsqueeze(-2)
    own = scatter_add(meant.new_zeros(x.shape, dtype=x.dtype), -1, chosen, meant.to(x.dtype)) > 0
    counts = meant.unsqueeze(-1) & ~own.unsqueeze(-2)
    loss = where(counts, excess.clamp(min=0), 0.0).sum((-2, -1)) / classes
    return reduce(loss.reshape(input.shape[:-1]), reduction)


@size_average("input target weight size_average reduce reduction")
def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """Mean over the classes of log(1 + e^(−x)) where t = 1 and log(1 + eˣ) where t = 0; ``weight`` (C).

    >>> import kobai
    >>> kobai.nn.functional.multilabel_soft_margin_loss(kobai.zeros(1, 3), kobai.tensor([[1.0, 0.0, 1.0]]))
    tensor(0.6931)
    """
    check_reduction("multilabel_soft_margin_loss", reduction)
    check_shapes("multilabel_soft_margin_loss", input, target)
    if not input.ndim:
        raise IndexError("multilabel_soft_margin_loss: expected input (N, C) or (C), got ()")
    loss = target * softplus(-input) + (1 - target) * softplus(input)
    return reduce((loss if weight is None else loss * weight).mean(-1), reduction)
