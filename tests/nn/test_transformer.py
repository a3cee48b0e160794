"""Attention and the transformer's encoder."""

import copy
import math
import re

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F


def test_attention_is_scaled_dot_product_attention():
    attention = nn.MultiheadAttention(6, 1, bias=False, batch_first=True)
    x = kobai.randn(2, 5, 6)
    y, weights = attention(x, x, x)
    q, k, v = (x @ w.T for w in attention.in_proj_weight.split(6))
    expected = attention.out_proj(nn.functional.scaled_dot_product_attention(q, k, v))
    assert np.allclose(y.detach().numpy(), expected.detach().numpy(), atol=1e-6)
    assert np.allclose(weights.sum(-1).detach().numpy(), 1)


def test_masks_hide():
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    x = kobai.randn(2, 3, 4)
    causal = kobai.ones(3, 3, dtype=kobai.bool).triu(1)
    _, weights = attention(x, x, x, attn_mask=causal, is_causal=True)
    assert (weights.detach().numpy()[:, causal.numpy()] == 0).all()
    hidden = kobai.tensor([[False, False, True], [False, True, True]])
    _, weights = attention(x, x, x, key_padding_mask=hidden, average_attn_weights=False)
    assert weights.shape == (2, 2, 3, 3)
    assert (weights.detach().numpy()[1, :, :, 1:] == 0).all()
    _, none = attention(x, x, x, need_weights=False)
    assert none is None
    changed = x.clone()
    changed[1, 2] = 9.0
    a, b = attention(x, x, x, hidden)[0], attention(x, changed, changed, hidden)[0]
    assert np.allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-6)


def test_sizes_of_key_and_value():
    attention = nn.MultiheadAttention(6, 3, kdim=4, vdim=5)
    y, weights = attention(kobai.randn(3, 2, 6), kobai.randn(7, 2, 4), kobai.randn(7, 2, 5))
    assert y.shape == (3, 2, 6)
    assert weights.shape == (2, 3, 7)
    assert attention.in_proj_weight is None
    y, weights = attention(kobai.randn(3, 6), kobai.randn(7, 4), kobai.randn(7, 5))
    assert y.shape == (3, 6)
    assert weights.shape == (3, 7)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer(norm_first):
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.5, "gelu", batch_first=True, norm_first=norm_first).double()
    x = kobai.randn(2, 3, 4, dtype=kobai.float64, requires_grad=True)
    assert layer(x).tolist() != layer(x).tolist()
    layer.eval()
    assert kobai.autograd.gradcheck(lambda x, *p: layer(x), (x, *layer.parameters()))
    twin = copy.deepcopy(layer)
    assert twin(x).tolist() == layer(x).tolist()


def test_encoder_copies_its_layer():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2, nn.LayerNorm(4))
    assert encoder(kobai.randn(3, 2, 4)).shape == (3, 2, 4)
    a, b = encoder.layers
    assert a.linear1.weight is not b.linear1.weight
    assert a.linear1.weight.tolist() == b.linear1.weight.tolist()


def test_decoder_and_transformer():
    model = nn.Transformer(4, 2, 1, 2, 8, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    assert mask.tolist()[0] == [0.0, float("-inf"), float("-inf")]
    model.eval()
    src, tgt = kobai.randn(2, 5, 4), kobai.randn(2, 3, 4)
    y = model(src, tgt, tgt_mask=mask, tgt_is_causal=True)
    later = tgt.clone()
    later[:, 2] = 7.0
    z = model(src, later, tgt_mask=mask)
    assert y.shape == (2, 3, 4)
    assert np.allclose(y[:, :2].detach().numpy(), z[:, :2].detach().numpy(), atol=1e-6)
    assert not np.allclose(y.detach().numpy(), z.detach().numpy())
    first = nn.TransformerDecoderLayer(4, 2, 8, norm_first=True, batch_first=True)
    assert first(tgt, src).shape == (2, 3, 4)
    own = nn.Transformer(4, 2, custom_encoder=model.encoder, custom_decoder=model.decoder)
    assert own.encoder is model.encoder


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.MultiheadAttention(5, 2), ValueError, "num_heads (2) must divide embed_dim (5)"),
        (
            lambda: F.multi_head_attention_forward(*[kobai.ones(2, 4)] * 3, 6, 2, *[None] * 4, False, 0.0, None, None),
            RuntimeError,
            "multi_head_attention_forward: expected query (..., 6), which 2 heads divide, got (2, 4)",
        ),
        (
            lambda: F.multi_head_attention_forward(*[kobai.ones(2, 4)] * 3, 4, 2, *[None] * 4, False, 0.0, None, None),
            RuntimeError,
            "expected the weights of the projections, got None",
        ),
        (lambda: nn.TransformerEncoderLayer(4, 2, activation="geul"), ValueError, "Did you mean 'gelu'"),
        (
            lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2), 1, enable_nested_tensor="yes"),
            TypeError,
            "enable_nested_tensor",
        ),
        (lambda: nn.MultiheadAttention(4, 2)(*[kobai.ones(3, 2, 5)] * 3), ValueError, "expected query, key, value"),
        (
            lambda: nn.MultiheadAttention(4, 2)(kobai.ones(3, 2, 4), kobai.ones(3, 1, 4), kobai.ones(3, 1, 4)),
            ValueError,
            "one batch size in dimension 1",
        ),
        (lambda: nn.MultiheadAttention(4, 2)(*[kobai.ones(3, 2, 4)] * 3, is_causal=True), RuntimeError, "attn_mask"),
    ],
)
def test_nonsense(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


MASKS = {
    "bool": lambda hide: ~hide,
    "float": lambda hide: kobai.zeros(hide.shape, dtype=kobai.float64).masked_fill(hide, -math.inf),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_query_that_sees_no_key_attends_to_nothing(mask, backend):
    """Its result is 0; it gives no gradient, and the other queries have theirs."""
    attend = nn.functional.scaled_dot_product_attention
    hide = kobai.tensor([[False, True, False], [True, True, True], [False, False, False]])
    q, k, v = (kobai.randn(2, 3, 4, dtype=kobai.float64, requires_grad=True) for _ in range(3))
    y = attend(q, k, v, attn_mask=mask(hide))
    assert (y[:, 1] == 0).all()
    rows = kobai.tensor([0, 2])
    seeing = attend(q[:, rows], k, v, attn_mask=mask(hide[rows]))
    assert kobai.allclose(y[:, rows], seeing)
    found = kobai.autograd.grad(y.square().sum(), [q, k, v])
    expected = kobai.autograd.grad(seeing.square().sum(), [q, k, v])
    for a, b in zip(found, expected, strict=True):
        assert kobai.allclose(a, b)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_padded_sample_is_no_nan(need_weights, split):
    """Also where only both masks together hide every key, one of them bool and the other float."""
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    x = kobai.randn(2, 3, 4, requires_grad=True)
    padding, causal = kobai.tensor([[True, True, True], [False, False, True]]), None
    if split:
        padding = kobai.tensor([[True, True, False], [False, False, True]])
        causal = kobai.zeros(3, 3)
        causal[:, 2] = -math.inf
    y, weights = attention(x, x, x, key_padding_mask=padding, attn_mask=causal, need_weights=need_weights)
    assert kobai.allclose(y[0], attention.out_proj.bias.expand(3, 4))
    if need_weights:
        assert (weights[0] == 0).all()
        assert kobai.allclose(weights[1].sum(-1), kobai.ones(3))
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in attention.parameters())
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)
    assert layer(x, src_key_padding_mask=kobai.tensor([[True] * 3, [False] * 3])).isfinite().all()


def test_every_backend_computes_the_same(backend):
    def run(where):
        with kobai.using(where):
            kobai.manual_seed(0)
            layer = nn.TransformerEncoderLayer(4, 2, 8, 0.5, batch_first=True)
            y = layer(kobai.randn(2, 3, 4), src_mask=kobai.ones(3, 3, dtype=kobai.bool).triu(1))
            y.sum().backward()
            return [y.detach().cpu().numpy(), *(p.grad.cpu().numpy() for p in layer.parameters())]

    for ours, theirs in zip(run(backend), run("numpy"), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_captured_step_sees_which_queries_are_blind_anew():
    attend = nn.functional.scaled_dot_product_attention
    step = kobai.capture(lambda x, seen: attend(x, x, x, attn_mask=seen))
    x, seen = kobai.randn(1, 3, 4), kobai.ones(3, 3, dtype=kobai.bool)
    for row in (None, None, 1, 0):
        now = seen.clone()
        if row is not None:
            now[row] = False
        assert kobai.equal(step(x, now), attend(x, x, x, attn_mask=now))
        assert row is None or (step(x, now)[:, row] == 0).all()


def test_an_attention_of_the_users_is_called_by_names():
    class Plain(nn.Module):
        def forward(self, query, key, value, **options):
            assert sorted(options) == ["attn_mask", "is_causal", "key_padding_mask", "need_weights"]
            return query + value, None

    x = kobai.randn(2, 3, 4)
    layers = (
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        nn.TransformerDecoderLayer(4, 2, 8, batch_first=True),
    )
    for layer in layers:
        layer.self_attn = Plain()
    layers[1].multihead_attn = Plain()
    assert layers[0](x).shape == layers[1](x, x).shape == (2, 3, 4)
