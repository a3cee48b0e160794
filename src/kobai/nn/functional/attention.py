"""Scaled dot-product attention."""

from __future__ import annotations

import math

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.ops.dropout import dropout
from kobai.ops.gather import masked_fill, where
from kobai.ops.softmax import softmax
from kobai.xp import namespace

__all__ = ["scaled_dot_product_attention"]


@one_operation
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(q kᵀ · scale + mask) v: for every query the mean of the values, weighted by how well their keys fit.

    Args:
        query, key, value: (..., L, E), (..., S, E), (..., S, V); result (..., L, V).
        attn_mask: bool (False: not to be attended to) or float (added), broadcast to (..., L, S).
        dropout_p: share of the weights put to zero; always applied, so pass 0 in evaluation.
        is_causal: query i sees keys 0 ... i alone; not together with ``attn_mask``.
        scale: 1/√E by default.

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
    scores = (query * scale) @ key.transpose(-2, -1)
    blind = None
    if is_causal:  # every query sees the first key
        seen = Tensor._wrap(namespace(query.device).tri(query.shape[-2], key.shape[-2], dtype=np.bool_))
        scores = where(seen, scores, -math.inf)
    elif attn_mask is not None:
        scores, blind = masked_scores(scores, ~attn_mask if attn_mask.dtype == np.bool_ else attn_mask)
    attended = dropout(softmax(scores, -1), dropout_p) @ value
    return attended if blind is None else masked_fill(attended, blind, 0)


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
