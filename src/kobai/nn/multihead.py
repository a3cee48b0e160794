"""Attention between sequences in several heads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.nn import functional as F, init
from kobai.nn.functional.attention import masked_scores
from kobai.nn.linear import Linear
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.ops.create import empty
from kobai.ops.gather import masked_fill
from kobai.ops.shape import transpose

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Attention in several heads: Concat(head₁, …) W_out, headᵢ = softmax(qᵢ kᵢᵀ / √d) vᵢ, q = query W_q + b_q and so on.

    Args:
        embed_dim: E, of query and result; each head has d = E / num_heads dimensions.
        num_heads: must divide embed_dim.
        dropout: share of the attention weights put to zero in training.
        bias: whether the projections have biases.
        add_bias_kv, add_zero_attn: not supported, NotImplementedError if True.
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
        if add_bias_kv or add_zero_attn:
            raise NotImplementedError("MultiheadAttention: add_bias_kv=True and add_zero_attn=True are not supported")
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first

        def weight(*shape: int) -> Parameter:
            return Parameter(empty(*shape, device=device, dtype=dtype))

        together = self.kdim == embed_dim and self.vdim == embed_dim
        self.register_parameter("in_proj_weight", weight(3 * embed_dim, embed_dim) if together else None)
        for name, size in (("q", embed_dim), ("k", self.kdim), ("v", self.vdim)):
            self.register_parameter(f"{name}_proj_weight", None if together else weight(embed_dim, size))
        self.register_parameter("in_proj_bias", weight(3 * embed_dim) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias, device, dtype)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                init.xavier_uniform_(parameter)
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
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))

        q, k, v = (self._heads(t) for t in self._project(query, key, value))
        scores = (q * (1.0 / math.sqrt(self.head_dim))) @ k.transpose(-2, -1)
        batch, heads, length, source = scores.shape
        mask = blind = None
        if attn_mask is not None:
            mask = attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(batch, heads, length, source)
        if key_padding_mask is not None:
            padding = key_padding_mask.reshape(batch, 1, 1, source)
            mask = padding if mask is None else _both(mask, padding)
        if mask is not None:
            scores, blind = masked_scores(scores, mask)
        weights = F.dropout(F.softmax(scores, -1), self.dropout, self.training)
        attended = weights @ v
        if blind is not None:
            attended = masked_fill(attended, blind, 0)
        y = self.out_proj(attended.transpose(1, 2).reshape(batch, length, self.embed_dim))

        shown = None
        if need_weights:
            weights = weights if blind is None else masked_fill(weights, blind, 0)
            shown = weights.mean(1) if average_attn_weights else weights
            shown = shown if batched else shown.squeeze(0)
        if not batched:
            return y.squeeze(0), shown
        return (y if self.batch_first else y.transpose(0, 1)), shown

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        e = self.embed_dim
        biases = [None] * 3 if self.in_proj_bias is None else list(self.in_proj_bias.split(e))
        if self.in_proj_weight is None:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        elif query is key and key is value:
            return list(F.linear(query, self.in_proj_weight, self.in_proj_bias).split(e, -1))
        else:
            weights = list(self.in_proj_weight.split(e))
        inputs = (query, key, value)
        return [F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]  # type: ignore[arg-type]

    def _heads(self, x: Tensor) -> Tensor:
        """(N, L, E) → (N, heads, L, E / heads)."""
        return transpose(x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim), 1, 2)

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


def _both(a: Tensor, b: Tensor) -> Tensor:
    """One mask that hides what either of them hides: bool if both are, else float."""
    if a.dtype == b.dtype == np.bool_:
        return a | b
    if a.dtype == np.bool_:
        a, b = b, a
    return masked_fill(a, b, -math.inf) if b.dtype == np.bool_ else a + b
