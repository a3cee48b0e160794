"""Attention between sequences in several heads."""

from __future__ import annotations

from typing import Any

from kobai.core.tensor import Tensor
from kobai.nn import init
from kobai.nn.functional.attention import batch_first as _batch_first, heads_attend, projected
from kobai.nn.linear import NonDynamicallyQuantizableLinear
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.ops.create import empty

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention in several heads: Concat(head₁, …) W_out, headᵢ = softmax(qᵢ kᵢᵀ / √d) vᵢ, q = query W_q + b_q and so on.

    Args:
        embed_dim: E, of query and result; each head has d = E / num_heads dimensions.
        num_heads: must divide embed_dim.
        dropout: share of the attention weights put to zero in training.
        bias: whether the projections have biases.
        add_bias_kv: whether there is one more key and value, ``bias_k`` and ``bias_v`` (1, 1, E), after the projection.
        add_zero_attn: whether there is one more key and value of zeros.
        kdim, vdim: sizes of key and value; E by default.
        batch_first: sequences are (N, L, E) and (N, S, ·) instead of (L, N, E) and (S, N, ·); without batch (L, E).
        device, dtype: of the parameters.

    ``in_proj_weight`` is (3E, E) – or ``q_proj_weight``, ``k_proj_weight``, ``v_proj_weight`` where kdim or vdim differ –,
    ``in_proj_bias`` (3E), ``out_proj`` a :class:`Linear`. Vaswani et al., NeurIPS 2017, arXiv:1706.03762.

    >>> import kobai
    >>> attention = kobai.nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = kobai.randn(3, 5, 8)
    >>> y, weights = attention(x, x, x)
    >>> y.shape, weights.shape
    (kobai.Size([3, 5, 8]), kobai.Size([3, 5, 5]))
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"MultiheadAttention: num_heads ({num_heads}) must divide embed_dim ({embed_dim}), both > 0"
            )
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn

        def weight(*shape: int) -> Parameter:
            return Parameter(empty(*shape, device=device, dtype=dtype))

        together = self.kdim == embed_dim and self.vdim == embed_dim
        self.register_parameter("in_proj_weight", weight(3 * embed_dim, embed_dim) if together else None)
        for name, size in (("q", embed_dim), ("k", self.kdim), ("v", self.vdim)):
            self.register_parameter(f"{name}_proj_weight", None if together else weight(embed_dim, size))
        self.register_parameter("in_proj_bias", weight(3 * embed_dim) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, device, dtype)
        self.bias_k = weight(1, 1, embed_dim) if add_bias_kv else None
        self.bias_v = weight(1, 1, embed_dim) if add_bias_kv else None
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                init.xavier_uniform_(parameter)
            elif name.startswith("bias"):
                init.xavier_normal_(parameter)
            else:
                init.zeros_(parameter)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Result like ``query``, and the attention weights (N, L, S) or, not averaged, (N, heads, L, S), or None.

        ``key_padding_mask`` (N, S) and ``attn_mask`` (L, S) or (N · heads, L, S): bool, True where *not* to look (the
        opposite of :func:`~kobai.nn.functional.scaled_dot_product_attention`), or float, added to the scores.
        A query from which every key is hidden attends to nothing, with weights 0.
        ``is_causal`` says that ``attn_mask`` is causal; the mask is still required.
        """
        self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise RuntimeError("MultiheadAttention: is_causal describes attn_mask, which has to be given with it")
        batched = query.ndim == 3
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = _batch_first(query, key, value)

        names = ("in",) if self.in_proj_weight is not None else ("q", "k", "v")
        parts = tuple(getattr(self, f"{name}_proj_weight") for name in names)
        q, k, v = projected(query, key, value, parts, self.in_proj_bias)
        further, rate = (self.bias_k, self.bias_v, self.add_zero_attn), self.dropout if self.training else 0.0
        y, weights = heads_attend(q, k, v, self.num_heads, further, rate, key_padding_mask, attn_mask)
        y = self.out_proj(y)

        shown = None
        if need_weights:
            shown = weights.mean(1) if average_attn_weights else weights
            shown = shown if batched else shown.squeeze(0)
        if not batched:
            return y.squeeze(0), shown
        return (y if self.batch_first else y.transpose(0, 1)), shown

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        shapes = [tuple(t.shape) for t in (query, key, value)]
        sizes = (self.embed_dim, self.kdim, self.vdim)
        ranks = {len(s) for s in shapes}
        if ranks not in ({2}, {3}) or any(s[-1] != n for s, n in zip(shapes, sizes, strict=True)):
            wanted = ", ".join(f"(..., {n})" for n in sizes)
            raise ValueError(
                f"MultiheadAttention: expected query, key, value {wanted} of 2 or 3 dimensions, got {shapes}"
            )
        batch = 0 if self.batch_first else 1
        if ranks == {3} and len({s[batch] for s in shapes}) > 1:
            raise ValueError(f"MultiheadAttention: expected one batch size in dimension {batch}, got {shapes}")
