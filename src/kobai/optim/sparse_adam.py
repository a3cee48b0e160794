"""Adam that leaves alone what the gradient does not reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.optim import _counts
from kobai.optim._whole import WholeOptimizer
from kobai.optim.groups import BELOW_ONE, Group, Params, non_negative, options
from kobai.optim.optimizer import State, zeros_like
from kobai.xp import Array, xp_of


class SparseAdam(WholeOptimizer):
    """Adam for embeddings: rows whose gradient is zero keep their weights and their moments.

    In PyTorch it takes sparse gradients. Kobai's are dense, those of embeddings too, so a row that no index of the batch
    names is known by its gradient, which is zero. The update is that of :class:`Adam` without the correction of ε::

        p ← p − lr·√(1−β₂ᵗ)/(1−β₁ᵗ) · m / (√v + ε)

    Arguments:
        params: tensors, ``(name, tensor)`` pairs or group dicts.
        lr: learning rate.
        betas: (β₁, β₂).
        eps: ε, outside the root.
        maximize: ascend instead.

    State per parameter: ``step`` (int), ``exp_avg`` (m), ``exp_avg_sq`` (v).

    >>> import kobai
    >>> table = kobai.nn.Embedding.from_pretrained(kobai.ones(3, 1), freeze=False)
    >>> optimizer = kobai.optim.SparseAdam(table.parameters(), lr=0.5)
    >>> for row in (0, 2):
    ...     optimizer.zero_grad()
    ...     table(kobai.tensor([row])).sum().backward()
    ...     optimizer.step()
    >>> table.weight[1].item()  # Adam's momentum would not move it either, but row 0 it would move again
    1.0
    """

    _ranges: ClassVar = non_negative("lr", "eps", betas=BELOW_ONE)
    _choices = ("maximize",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, options(locals()))

    def _check(self, group: Group) -> None:
        super()._check(group)
        if not group["lr"] > 0 or not group["eps"] > 0:
            raise ValueError(f"SparseAdam: expected lr > 0 and eps > 0, got {group['lr']} and {group['eps']}")

    def _new_state(self, p: Tensor, group: Group) -> State:
        return {"step": 0, "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _numbers(self, group: Group, state: State) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        lr = group["lr"] * _counts.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        return lr, 1 - beta1, 1 - beta2, group["eps"]

    def _new(self, group: Group, p: Array, g: Array, arrays: dict[str, Array], numbers: Sequence[Any]) -> list[Array]:
        lr, new1, new2, eps = numbers[:4]
        xp, m, v = xp_of(p), arrays["exp_avg"], arrays["exp_avg_sq"]
        reached = (g != 0).any(axis=tuple(range(1, g.ndim)), keepdims=True)
        m_next, v_next = m + (g - m) * new1, v + (g * g - v) * new2
        moved = p - m_next / (xp.sqrt(v_next) + eps) * lr
        return [xp.where(reached, after, before) for after, before in ((moved, p), (m_next, m), (v_next, v))]
