"""Clipping gradients; parameters as one vector."""

import math

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import Parameter
from kobai.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector, vector_to_parameters

SHAPES = [(3, 4), (5,), ()]


def with_gradients(scale=1.0):
    rng = np.random.default_rng(0)
    params = []
    for shape in SHAPES:
        p = Parameter(kobai.zeros(*shape))
        p.grad = kobai.tensor((scale * rng.normal(size=shape)).astype(np.float32))
        params.append(p)
    return params, np.concatenate([p.grad.numpy().ravel() for p in params])


@pytest.mark.parametrize("norm_type", [1, 2, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1000.0])
def test_clip_grad_norm(norm_type, max_norm):
    params, flat = with_gradients()
    expected = np.linalg.norm(flat, norm_type)
    total = clip_grad_norm_(params, max_norm, norm_type)
    assert total.shape == ()
    assert total.item() == pytest.approx(expected, rel=1e-5)
    after = np.concatenate([p.grad.numpy().ravel() for p in params])
    assert np.allclose(after, flat * min(1.0, max_norm / (expected + 1e-6)), rtol=1e-5)


def test_clip_grad_norm_takes_what_pytorch_takes():
    params, _ = with_gradients()
    params[1].grad = None
    arrays = [p.grad.array for p in params if p.grad is not None]
    clip_grad_norm_((p for p in params), 0.1)
    assert all(p.grad.array is a for p, a in zip([params[0], params[2]], arrays, strict=True))
    assert clip_grad_norm_(params[0], 1.0).shape == ()
    assert clip_grad_norm_([], 1.0).item() == 0.0
    empty = Parameter(kobai.zeros(0, 3))
    empty.grad = kobai.zeros(0, 3)
    assert clip_grad_norm_([empty], 1.0, math.inf).item() == 0.0


def test_clip_grad_norm_of_what_is_not_finite():
    p = Parameter(kobai.zeros(2))
    p.grad = kobai.tensor([1.0, float("nan")])
    assert math.isnan(clip_grad_norm_([p], 1.0).item())
    with pytest.raises(RuntimeError, match="not finite"):
        clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    with pytest.raises(ValueError, match="norm_type > 0"):
        clip_grad_norm_([p], 1.0, 0)
    with pytest.raises(TypeError, match="expected Tensors, got str"):
        clip_grad_norm_(["w"], 1.0)


def test_clip_grad_value():
    params, flat = with_gradients()
    assert clip_grad_value_(params, 0.5) is None
    after = np.concatenate([p.grad.numpy().ravel() for p in params])
    assert np.array_equal(after, flat.clip(-0.5, 0.5))


def test_every_backend(backend):
    p = Parameter(kobai.zeros(3))
    p.grad = kobai.tensor([3.0, 0.0, 4.0])
    assert clip_grad_norm_([p], 1.0).cpu().item() == 5.0
    assert np.allclose(p.grad.cpu().numpy(), [0.6, 0.0, 0.8])
    clip_grad_value_([p], 0.7)
    assert np.allclose(p.grad.cpu().numpy(), [0.6, 0.0, 0.7])
    vector_to_parameters(kobai.ones(3), [p])
    assert parameters_to_vector([p]).detach().cpu().tolist() == [1, 1, 1]


def test_vector_and_back():
    params = [Parameter(kobai.randn(*shape)) for shape in SHAPES]
    vector = parameters_to_vector(params)
    assert vector.shape == (18,)
    assert vector.requires_grad
    assert np.array_equal(vector.detach().numpy(), np.concatenate([p.detach().numpy().ravel() for p in params]))
    vector_to_parameters(vector * 2, params)
    assert np.allclose(parameters_to_vector(params).detach().numpy(), 2 * vector.detach().numpy())
    with pytest.raises(ValueError, match=r"expected a vector of 18 elements, got shape \(17,\)"):
        vector_to_parameters(vector[1:], params)
    with pytest.raises(TypeError, match="got list"):
        vector_to_parameters([1.0], params)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_a_norm_that_is_known_clips_as_one_that_is_taken(p):
    pairs = [[kobai.zeros(3, 2, requires_grad=True), kobai.zeros((), requires_grad=True)] for _ in range(3)]
    gradients = [kobai.randn(3, 2), kobai.randn(())]
    for parameters in pairs:
        for w, g in zip(parameters, gradients, strict=True):
            w.grad = g.clone()
    one, two, three = pairs
    total = kobai.nn.utils.clip_grad_norm_(one, 0.5, p, foreach=True)
    assert kobai.equal(total, kobai.nn.utils.get_total_norm(gradients, p))
    assert kobai.nn.utils.clip_grads_with_norm_(two, 0.5, total, foreach=False) is None
    with pytest.warns(FutureWarning, match="clip_grad_norm is now clip_grad_norm_"):
        assert kobai.equal(total, kobai.nn.utils.clip_grad_norm(three, 0.5, p))
    for a, b, c in zip(*pairs, strict=True):
        assert kobai.equal(a.grad, b.grad)
        assert kobai.equal(a.grad, c.grad)
    with pytest.raises(TypeError, match="expected total_norm as a tensor of one element, got 3"):
        kobai.nn.utils.clip_grads_with_norm_(one, 0.5, 3)
    with pytest.raises(
        RuntimeError, match=r"get_total_norm: the total norm of order .* of the gradients is not finite"
    ):
        kobai.nn.utils.get_total_norm([kobai.tensor([float("nan")])], error_if_nonfinite=True)


def _settled(norm):
    """A batch norm in evaluation, with statistics and weights of its own."""
    with kobai.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm.eval()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("transpose", ["", "Transpose"])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_batch_norm_goes_into_the_convolution_before_it(dims, transpose, groups, affine, bias):
    conv = getattr(nn, f"Conv{transpose}{dims}d")(4, 6, 2, groups=groups, bias=bias, dtype=kobai.float64).eval()
    norm = _settled(getattr(nn, f"BatchNorm{dims}d")(6, affine=affine, dtype=kobai.float64))
    before = conv.weight.detach().clone()
    fused = kobai.nn.utils.fuse_conv_bn_eval(conv, norm, bool(transpose))
    x = kobai.randn(2, 4, *(3,) * dims, dtype=kobai.float64)
    assert kobai.allclose(fused(x), norm(conv(x)))
    assert kobai.equal(conv.weight, before)
    assert type(fused.weight) is type(fused.bias) is Parameter


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("features", [1, 5])
def test_a_batch_norm_goes_into_the_dense_layer_before_it(features, bias):
    linear = nn.Linear(3, 5, bias=bias, dtype=kobai.float64).eval()
    norm = _settled(nn.BatchNorm1d(features, dtype=kobai.float64))
    x = kobai.randn(4, 3, dtype=kobai.float64)
    expected = norm(linear(x).reshape(4, features, -1)).reshape(4, 5)
    assert kobai.allclose(kobai.nn.utils.fuse_linear_bn_eval(linear, norm)(x), expected)


def test_what_is_not_fused():
    conv, linear = nn.Conv1d(1, 2, 1), nn.Linear(3, 4).eval()
    with pytest.raises(AssertionError, match="fuse_conv_bn_eval: expected both layers in evaluation"):
        kobai.nn.utils.fuse_conv_bn_eval(conv, nn.BatchNorm1d(2))
    with pytest.raises(AssertionError, match="fuse_linear_bn_eval: expected a batch norm of 4 features or 1, got 5"):
        kobai.nn.utils.fuse_linear_bn_eval(linear, nn.BatchNorm1d(5).eval())
    with pytest.raises(AssertionError, match="got track_running_stats=False"):
        kobai.nn.utils.fuse_conv_bn_eval(conv.eval(), nn.BatchNorm1d(2, track_running_stats=False).eval())
