"""A result that changes in place after it was computed: backward works wherever PyTorch's does, with the same gradient."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.nn import functional as F

RNG = np.random.default_rng(0)
A, B = RNG.uniform(0.2, 0.9, (3, 4)), RNG.uniform(0.2, 0.9, (3, 4))

# What ordinary programs go on with in place: z = x / n; z += c, ReLU(inplace=True) after a layer, ...
CALLS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "div of a number": lambda a, b: 1 / a,
    "square": lambda a, b: a**2,
    "cube": lambda a, b: a**3,
    "power": lambda a, b: a**0.5,
    "maximum": lambda a, b: kobai.maximum(a, b),
    "minimum": lambda a, b: kobai.minimum(a, b),
    "log": lambda a, b: a.log(),
    "abs": lambda a, b: a.abs(),
    "clamp": lambda a, b: a.clamp(0.3, 0.6),
    "where": lambda a, b: kobai.where(a > b, a, b),
    "sum": lambda a, b: a.sum(1),
    "mean": lambda a, b: a.mean(1),
    "var": lambda a, b: a.var(1),
    "max": lambda a, b: a.max(1).values,
    "matmul": lambda a, b: a @ b.T,
    "linear": lambda a, b: F.linear(a, b),
    "conv1d": lambda a, b: F.conv1d(a[None], b[None, :, :2]),
    "max_pool1d": lambda a, b: F.max_pool1d(a[None], 2),
    "max_pool2d": lambda a, b: F.max_pool2d(a[None, None], 2, 1, 1),
    "max_pool3d": lambda a, b: F.max_pool3d(a[None, None, None], (1, 2, 2)),
    "avg_pool2d": lambda a, b: F.avg_pool2d(a[None, None], 2, 1, 1),
    "layer_norm": lambda a, b: F.layer_norm(a, (4,), b[0], b[1]),
    "normalize": lambda a, b: F.normalize(a, dim=1),
    "normalize, largest": lambda a, b: F.normalize(a, float("inf"), dim=1),
    "batch_norm": lambda a, b: F.batch_norm(a, None, None, training=True),
    "gelu": lambda a, b: F.gelu(a),
    "silu": lambda a, b: F.silu(a),
    "embedding": lambda a, b: F.embedding(kobai.tensor([0, 2, 0]), a),
    "embedding_bag": lambda a, b: F.embedding_bag(kobai.tensor([[0, 2, 0]]), a),
    "local_response_norm": lambda a, b: F.local_response_norm(a[None], 2),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_backward_after_an_in_place_change_of_the_result(call, backend):
    gradients = []
    for in_place in (False, True):
        a, b = kobai.tensor(A, requires_grad=True), kobai.tensor(B, requires_grad=True)
        y = call(a * 1, b * 1)
        y = y.mul_(1.5) if in_place else y * 1.5
        y.square().sum().backward()
        gradients.append([None if t.grad is None else t.grad.cpu().numpy() for t in (a, b)])
    for found, expected in zip(*reversed(gradients), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_may_be_scaled_in_place(reduction):
    """``loss /= steps`` before ``backward()`` is how gradients are accumulated; every loss of the library takes it."""
    x = kobai.randn(4, 3, generator=kobai.Generator().manual_seed(0))
    y, target, sign = kobai.tensor([0, 1, 2, 0]), x.sigmoid(), kobai.ones(4)
    losses = {
        "cross_entropy": lambda x: F.cross_entropy(x, y, reduction=reduction),
        "soft": lambda x: F.cross_entropy(x, target, reduction=reduction),
        "weighted": lambda x: F.cross_entropy(x, y, weight=kobai.ones(3), label_smoothing=0.1, reduction=reduction),
        "nll": lambda x: F.nll_loss(x.log_softmax(1), y, reduction=reduction),
        "mse": lambda x: F.mse_loss(x, target, reduction=reduction),
        "l1": lambda x: F.l1_loss(x, target, reduction=reduction),
        "smooth_l1": lambda x: F.smooth_l1_loss(x, target, reduction=reduction),
        "huber": lambda x: F.huber_loss(x, target, reduction=reduction),
        "bce": lambda x: F.binary_cross_entropy(x.sigmoid(), target, reduction=reduction),
        "logits": lambda x: F.binary_cross_entropy_with_logits(x, target, reduction=reduction),
        "kl": lambda x: F.kl_div(x.log_softmax(1), target, reduction=reduction),
        "gaussian": lambda x: F.gaussian_nll_loss(x, target, target + 1, reduction=reduction),
        "poisson": lambda x: F.poisson_nll_loss(x, target, reduction=reduction),
        "margin": lambda x: F.multi_margin_loss(x, y, reduction=reduction),
        "triplet": lambda x: F.triplet_margin_loss(x, x * 2, x * 3, reduction=reduction),
        "cosine": lambda x: F.cosine_embedding_loss(x, target, sign, reduction=reduction),
    }
    for name, loss in losses.items():
        grads = []
        for scale in (lambda value: value / 4, lambda value: value.div_(4)):
            leaf = x.clone().requires_grad_()
            scale(loss(leaf)).backward()
            grads.append(leaf.grad)
        assert kobai.allclose(*grads), name
