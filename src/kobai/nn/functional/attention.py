"""Scaled dot-product attention."""

from __future__ import annotations

import math

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.nn.functional.misc import pad
from kobai.ops.dropout import dropout
from kobai.ops.gather import masked_fill, where
from kobai.ops.joining import cat
from kobai.ops.linear import linear
from kobai.ops.rearrange import repeat_interleave
from kobai.ops.shape import transpose
from kobai.ops.softmax import softmax
from kobai.xp import namespace

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


@one_operation
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q kᵀ · scale + mask) v: for every query the mean of the values, weighted by how well their keys fit.

    Args:
        query, key, value: (..., L, E), (..., S, E), (..., S, V); result (..., L, V).
        attn_mask: bool (False: not to be attended to) or float (added), broadcast to (..., L, S).
        dropout_p: share of the weights put to zero; always applied, so pass 0 in evaluation.
        is_causal: query i sees keys 0 ... i alone; not together with ``attn_mask``.
        scale: 1/√E by default.
        enable_gqa: of (..., heads, L, E) the keys and values may have fewer heads, whose number divides that of the
            queries; several heads of queries, one after the other, share each (Ainslie et al., arXiv:2305.13245).

    A query that sees no key attends to nothing: its result is 0, and no gradient comes from it.

    Vaswani et al., "Attention is all you need", NeurIPS 2017, arXiv:1706.03762.

    >>> import kobai
    >>> q = k = v = kobai.eye(3)
    >>> kobai.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)[0]
    tensor([1., 0., 0.])
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError("scaled_dot_product_attention: expected is_causal or attn_mask, got both")
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        key, value = _shared(query, key), _shared(query, value)
    scores = (query * scale) @ key.transpose(-2, -1)
    blind = None
    if is_causal:  # every query sees the first key
        seen = Tensor._wrap(namespace(query.device).tri(query.shape[-2], key.shape[-2], dtype=np.bool_))
        scores = where(seen, scores, -math.inf)
    elif attn_mask is not None:
        scores, blind = masked_scores(scores, ~attn_mask if attn_mask.dtype == np.bool_ else attn_mask)
    attended = dropout(softmax(scores, -1), dropout_p) @ value
    return attended if blind is None else masked_fill(attended, blind, 0)


def _shared(query: Tensor, x: Tensor) -> Tensor:
    """Keys or values (..., heads', S, ·) as (..., heads, S, ·), each head in a row for the queries that share it."""
    if query.ndim < 3 or x.ndim < 3 or x.shape[-3] == 0 or query.shape[-3] % x.shape[-3]:
        raise RuntimeError(
            "scaled_dot_product_attention: expected (..., heads, L, E) of keys and values whose number of heads divides "
            f"that of the queries, got {tuple(query.shape)} and {tuple(x.shape)}"
        )
    times = query.shape[-3] // x.shape[-3]
    return x if times == 1 else repeat_interleave(x, times, -3)


def masked_scores(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Scores (..., L, S) under ``mask`` (bool, True: hidden; or float, added), and which queries see no key at all.

    Those queries, (..., L, 1), keep finite scores, because softmax of nothing but −∞ is NaN, and so are its gradients; the
    caller sets their result to 0. None if there are none, which only the host can tell, and only outside captured steps.
    """
    hides = mask.dtype == np.bool_
    blind = (mask if hides else mask == -math.inf).all(-1, keepdim=True)
    if type(blind._array) is np.ndarray and not blind._array.any():
        return where(mask, -math.inf, scores) if hides else scores + mask, None
    if hides:
        hidden = where(blind, 0.0, -math.inf).to(scores.dtype)
        return where(mask, hidden, scores), blind
    return scores + masked_fill(mask, blind, 0), blind


# --- in several heads -------------------------------------------------------------------------------------------------


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """:class:`kobai.nn.MultiheadAttention` as a function of its parameters: the result, and the attention weights or None.

    ``query`` (L, N, E), ``key`` and ``value`` (S, N, ·), or without N. ``in_proj_weight`` is (3E, E), or with
    ``use_separate_proj_weight`` there are three of them. ``bias_k`` and ``bias_v`` (1, 1, E) are one more key and value,
    after the projection; ``add_zero_attn`` adds one of zeros. ``static_k`` and ``static_v`` (N · heads, S, E / heads) stand
    for the projected keys and values. Masks: True, or −∞, where not to look.

    >>> import kobai
    >>> x, weight = kobai.randn(5, 3, 8), kobai.randn(24, 8)
    >>> attend = kobai.nn.functional.multi_head_attention_forward
    >>> y, weights = attend(x, x, x, 8, 2, weight, None, None, None, False, 0.0, kobai.eye(8), None)
    >>> y.shape, weights.shape
    (kobai.Size([5, 3, 8]), kobai.Size([3, 5, 5]))
    """
    who = "multi_head_attention_forward"
    if query.shape[-1] != embed_dim_to_check or num_heads <= 0 or embed_dim_to_check % num_heads:
        raise RuntimeError(
            f"{who}: expected query (..., {embed_dim_to_check}), which {num_heads} heads divide, got {tuple(query.shape)}"
        )
    if is_causal and attn_mask is None:
        raise RuntimeError(f"{who}: is_causal describes attn_mask, which has to be given with it")
    three = (q_proj_weight, k_proj_weight, v_proj_weight)
    weights = three if use_separate_proj_weight else (in_proj_weight,)
    if any(weight is None for weight in weights):
        raise RuntimeError(f"{who}: expected the weights of the projections, got None")
    batched = query.ndim == 3
    if batched:
        query, key, value = batch_first(query, key, value)
    else:
        query, key, value = (t.unsqueeze(0) for t in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    q, k, v = projected(query, key, value, weights, in_proj_bias)  # type: ignore[arg-type]
    y, shown = heads_attend(
        q,
        k if static_k is None else static_k,
        v if static_v is None else static_v,
        num_heads,
        (bias_k, bias_v, add_zero_attn),
        dropout_p if training else 0.0,
        key_padding_mask,
        attn_mask,
        (static_k is not None, static_v is not None),
    )
    y = linear(y, out_proj_weight, out_proj_bias)
    shown = shown.mean(1) if need_weights and average_attn_weights else shown
    y, shown = (y.transpose(0, 1), shown) if batched else (y.squeeze(0), shown.squeeze(0))
    return y, shown if need_weights else None


def batch_first(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences (L, N, ·) as (N, L, ·); one tensor stays one tensor."""
    turned = query.transpose(0, 1)
    if query is key and key is value:
        return turned, turned, turned
    return turned, key.transpose(0, 1), value.transpose(0, 1)


def projected(
    query: Tensor, key: Tensor, value: Tensor, weights: tuple[Tensor, ...], bias: Tensor | None
) -> list[Tensor]:
    """query W_q + b_q and so on; ``weights`` are one (3E, E), or three. Of one tensor it is one product."""
    embed = query.shape[-1]
    biases = [None] * 3 if bias is None else list(bias.split(embed))
    if len(weights) == 1:
        if query is key and key is value:
            return list(linear(query, weights[0], bias).split(embed, -1))
        weights = tuple(weights[0].split(embed))
    return [linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]


def heads_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    further: tuple[Tensor | None, Tensor | None, bool],
    dropout_p: float,
    key_padding_mask: Tensor | None,
    attn_mask: Tensor | None,
    split: tuple[bool, bool] = (False, False),
) -> tuple[Tensor, Tensor]:
    """Concat(head₁, …) (N, L, E) of projected sequences (N, L, E), (N, S, E), and the weights (N, heads, L, S).

    ``further`` are one more key and one more value, and whether there is another of zeros. ``split`` says whether keys and
    values are (N · heads, S, E / heads) already.
    """
    batch, length, embed = q.shape
    bias_k, bias_v, zero = further
    if bias_k is not None and bias_v is not None:
        k, v = (cat([t, bias.expand(batch, 1, embed)], 1) for t, bias in ((k, bias_k), (v, bias_v)))
    q, k, v = (
        t.reshape(batch, heads, t.shape[1], -1) if done else _in_heads(t, heads)
        for t, done in ((q, False), (k, split[0]), (v, split[1]))
    )
    if zero:
        k, v = (pad(t, (0, 0, 0, 1)) for t in (k, v))
    scores = (q * (1.0 / math.sqrt(embed // heads))) @ k.transpose(-2, -1)
    source, more = scores.shape[-1], (bias_k is not None) + zero
    mask = blind = None
    if attn_mask is not None:
        attn_mask = _seen_too(attn_mask, more)
        mask = attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(batch, heads, length, source)
    if key_padding_mask is not None:
        padding = _seen_too(key_padding_mask, more).reshape(batch, 1, 1, source)
        mask = padding if mask is None else _both(mask, padding)
    if mask is not None:
        scores, blind = masked_scores(scores, mask)
    weights = dropout(softmax(scores, -1), dropout_p)
    attended = weights @ v
    if blind is not None:
        attended, weights = masked_fill(attended, blind, 0), masked_fill(weights, blind, 0)
    return attended.transpose(1, 2).reshape(batch, length, embed), weights


def _in_heads(x: Tensor, heads: int) -> Tensor:
    """(N, L, E) → (N, heads, L, E / heads)."""
    return transpose(x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads), 1, 2)


def _seen_too(mask: Tensor, more: int) -> Tensor:
    """A mask that hides nothing of so many further keys."""
    return cat([mask, mask.new_zeros(*mask.shape[:-1], more)], -1) if more else mask


def _both(a: Tensor, b: Tensor) -> Tensor:
    """One mask that hides what either of them hides: bool if both are, else float."""
    if a.dtype == b.dtype == np.bool_:
        return a | b
    if a.dtype == np.bool_:
        a, b = b, a
    return masked_fill(a, b, -math.inf) if b.dtype == np.bool_ else a + b
