"""Pointwise mathematics, activations, normalisation and losses against PyTorch: one expression, run with both libraries.

``T`` is the library, ``F`` its nn.functional; the other names are the tensors made by :func:`operands`.
"""

from __future__ import annotations

import numpy as np
import pytest

import kobai
import kobai.nn.functional

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")

POINTWISE = """
-x; abs(x); x.abs(); x.neg(); x.square(); p.sqrt(); p.rsqrt(); p.reciprocal(); x.exp(); x.exp2(); x.expm1(); p.log()
p.log2(); p.log10(); p.log1p(); x.sin(); x.cos(); x.tan(); p.asin(); p.acos(); x.atan(); x.sinh(); x.cosh()
x.asinh(); (p + 1.5).acosh(); p.atanh(); x.erf(); x.erfc(); x.sigmoid(); x.tanh(); p.logit(); T.logit(x, eps=0.1)
p.arcsin(); p.arccos(); x.arctan(); x.arcsinh(); p.arctanh(); T.absolute(x); T.negative(x); x.clamp(-0.5, 1)
x.clamp(min=0.2); x.clamp(max=0.2); x.clip(-1, 1); x.clamp(p - 1, p); x.clamp(row - 3, None); x.clamp_min(0.1)
x.clamp_max(0.1); T.lerp(x, p, 0.3); T.lerp(x, p, q); T.addcmul(x, p, q, value=2); T.addcdiv(x, p, q, value=0.5)
T.hypot(x, p); T.logaddexp(x, row); (x / 0.0).nan_to_num(1, 2, -2); k.exp(); k.sqrt(); k.abs(); -k; k.square()
k.sigmoid(); k.clamp(1, 2); k.clamp(0.5, 1.5); x.sqrt().nan_to_num() + x
"""

ACTIVATIONS = """
F.relu(x); F.relu6(5 * x); F.leaky_relu(x); F.leaky_relu(x, 0.3); F.leaky_relu(x, -0.3); F.leaky_relu(x, 1.5)
F.elu(x); F.elu(x, 0.5); F.celu(x, 0.7); F.selu(x); F.gelu(x); F.gelu(x, approximate='tanh'); F.silu(x); F.mish(x)
F.softplus(x); F.softplus(x, 2, 1); F.softplus(30 * x); F.softsign(x); F.hardtanh(x); F.hardtanh(x, -0.5, 2)
F.hardswish(3 * x); F.logsigmoid(30 * x); F.tanhshrink(x); F.hardshrink(x, 0.3); F.softshrink(x, 0.3)
F.threshold(x, 0.1, 20); F.softmax(x, 1); F.softmax(x, dim=0); F.log_softmax(c, dim=1); F.softmin(x, 1); F.glu(c)
F.prelu(x, row); F.prelu(c, row); F.prelu(x, one); F.sigmoid(40 * x); F.tanh(40 * x); x.softmax(-1)
x.log_softmax(0); x.relu(); F.rrelu(x); F.log_softmax(300 * x, 1); F.relu(zero); F.leaky_relu(zero); F.elu(zero)
F.hardtanh(zero + 1); F.hardtanh(zero - 1); F.relu6(zero + 6); F.celu(zero); F.selu(zero); F.softshrink(zero + 0.5)
F.hardshrink(zero - 0.5); F.threshold(zero, 0, 1); F.hardswish(zero + 3); F.hardswish(zero - 3); F.softsign(zero)
F.prelu(zero, one); abs(zero); zero.clamp(0, 1); zero.clamp(-1, 0); F.gelu(zero)
"""

NORMS = """
F.batch_norm(x, None, None, row, row2, True); F.batch_norm(c, None, None, row, None, True)
F.batch_norm(d, None, None, None, row, True); F.batch_norm(x, mean, var, row, row2, False)
F.batch_norm(d, mean, var, row, row2); F.batch_norm(c, mean, var, eps=0.1); F.layer_norm(x, (3,), row, row2)
F.layer_norm(c, (3, 4)); F.layer_norm(c, [4]); F.group_norm(d6, 3, row6, row6); F.group_norm(d6, 1)
F.instance_norm(c, weight=row, bias=row2); F.instance_norm(d); F.instance_norm(d, mean, var, use_input_stats=False)
F.rms_norm(x, (3,), row); F.rms_norm(c, (3, 4), eps=0.1); F.normalize(x); F.normalize(c, p=1.0, dim=2)
F.normalize(c, p=3, dim=0)
"""

LOSSES = """
F.cross_entropy(x, t); F.cross_entropy(x, t, weight=w); F.cross_entropy(x, t, reduction='sum')
F.cross_entropy(x, t, reduction='none'); F.cross_entropy(x, t, ignore_index=1)
F.cross_entropy(x, t, weight=w, ignore_index=1); F.cross_entropy(x, t, label_smoothing=0.2)
F.cross_entropy(x, t, weight=w, ignore_index=1, label_smoothing=0.2); F.cross_entropy(c, tc)
F.cross_entropy(d, td, weight=w)
F.cross_entropy(c, tc, weight=w, reduction='none', label_smoothing=0.1, ignore_index=0); F.cross_entropy(x[0], t[0])
F.cross_entropy(x, s); F.cross_entropy(x, s, weight=w)
F.cross_entropy(x, s, weight=w, label_smoothing=0.3, reduction='sum')
F.cross_entropy(c, F.softmax(c * 2, 1), reduction='none'); F.cross_entropy(x[0], s[0]); F.cross_entropy(500 * x, t)
F.cross_entropy(x, t, weight=w, reduction='none', ignore_index=2, label_smoothing=0.5)
F.cross_entropy(x, t * 0 - 100); F.nll_loss(x, t); F.nll_loss(x, t, weight=w)
F.nll_loss(c, tc, ignore_index=0, reduction='none'); F.nll_loss(d, td, w, reduction='sum'); F.nll_loss(x[0], t[0])
F.mse_loss(x, p); F.mse_loss(x, p, reduction='sum'); F.mse_loss(x, p, reduction='none'); F.l1_loss(x, p)
F.l1_loss(x, x); F.smooth_l1_loss(x, p); F.smooth_l1_loss(x, p, beta=0.3); F.smooth_l1_loss(x, p, beta=0.0)
F.huber_loss(x, p); F.huber_loss(x, p, delta=0.4, reduction='sum'); F.binary_cross_entropy(p, q)
F.binary_cross_entropy(p, q, weight=w); F.binary_cross_entropy(edge, edge * 0 + 0.5, reduction='none').detach()
F.binary_cross_entropy_with_logits(x, q); F.binary_cross_entropy_with_logits(100 * x, q)
F.binary_cross_entropy_with_logits(x, q, pos_weight=w, weight=w); F.kl_div(x, p)
F.kl_div(x, p, reduction='batchmean'); F.kl_div(x, p.log(), log_target=True)
F.kl_div(x, (p * 0).detach(), reduction='sum')
"""


def expressions(table):
    return [e.strip() for line in table.strip().splitlines() for e in line.split(";") if e.strip()]


def operands(dtype):
    rng = np.random.default_rng(11)

    def normal(*shape):
        return (1.5 * rng.normal(size=shape)).astype(dtype)

    def inside(*shape):
        return rng.uniform(0.05, 0.95, shape).astype(dtype)

    made = {
        "x": normal(4, 3),
        "c": normal(2, 3, 4),
        "d": normal(2, 3, 2, 4),
        "d6": normal(2, 6, 2, 2),
        "p": inside(4, 3),
        "q": inside(4, 3),
        "s": rng.dirichlet(np.ones(3), 4).astype(dtype),
        "row": normal(3),
        "row2": normal(3),
        "row6": normal(6),
        "one": inside(1),
        "zero": np.zeros((2, 3), dtype),
        "edge": np.array([0.0, 1.0, 0.5], dtype),
    }
    fixed = {
        "w": rng.uniform(0.2, 2, 3).astype(dtype),
        "mean": normal(3),
        "var": inside(3),
        "t": np.array([0, 1, 2, 1]),
        "tc": rng.integers(0, 3, (2, 4)),
        "td": rng.integers(0, 3, (2, 2, 4)),
        "k": np.array([0, 1, 4]),
    }
    return made, fixed


def outcome(expression, library, dtype):
    made, fixed = operands(dtype)
    names = {name: library.tensor(a).requires_grad_() for name, a in made.items()}
    names |= {name: library.tensor(a) for name, a in fixed.items()}
    y = eval(expression, {"T": library, "F": library.nn.functional}, names)
    results = {"value": y.detach().numpy()}
    if y.requires_grad:
        weights = np.random.default_rng(5).normal(size=tuple(y.shape)).astype(y.detach().numpy().dtype)
        y.backward(library.tensor(weights))
        results |= {name: names[name].grad.numpy() for name in made if names[name].grad is not None}
    return results


LESS_EXACT = (
    "F.celu(x, 0.7)",
    "k.exp()",
)  # PyTorch's constants, or the values, are float32 numbers also in the float64 run


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value", "ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("expression", expressions(POINTWISE + ACTIVATIONS + NORMS + LOSSES))
def test_agrees_with_pytorch(expression, dtype):
    ours, theirs = outcome(expression, kobai, dtype), outcome(expression, torch, dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-7 if expression in LESS_EXACT else 1e-12
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert ours[name].dtype == wanted.dtype, name
        assert ours[name].shape == wanted.shape, name
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1e-3)
        np.testing.assert_allclose(ours[name], wanted, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5)])
def test_running_statistics_of_batch_norm(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    buffers = []
    for library in (kobai, torch):
        mean, var = library.zeros(3), library.ones(3)
        for _ in range(3):
            library.nn.functional.batch_norm(library.tensor(x), mean, var, training=True, momentum=0.3)
        buffers.append((mean.numpy(), var.numpy()))
    np.testing.assert_allclose(buffers[0][0], buffers[1][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(buffers[0][1], buffers[1][1], rtol=1e-5)


def test_running_statistics_of_instance_norm():
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    buffers = []
    for library in (kobai, torch):
        mean, var = library.zeros(3), library.ones(3)
        library.nn.functional.instance_norm(library.tensor(x), mean, var, momentum=0.3)
        buffers.append((mean.numpy(), var.numpy()))
    np.testing.assert_allclose(buffers[0][0], buffers[1][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(buffers[0][1], buffers[1][1], rtol=1e-5)
