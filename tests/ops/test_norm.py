"""Normalisation: what comes out has the statistics asked for; running statistics; the fused activation; bad input."""

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F


def draw(*shape):
    return kobai.tensor(3 * np.random.default_rng(1).normal(size=shape) + 2, dtype=kobai.float64)


@pytest.mark.parametrize("shape", [(50, 4), (10, 4, 5), (5, 4, 3, 2), (3, 4, 2, 2, 2)])
def test_batch_norm_makes_every_channel_mean_zero_and_variance_one(shape):
    x = draw(*shape)
    y = F.batch_norm(x, None, None, training=True, eps=1e-30).numpy()
    axes = (0, *range(2, len(shape)))
    np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(axis=axes), 1, rtol=1e-12)


def test_batch_norm_moves_the_running_statistics_and_uses_them_in_evaluation():
    x = draw(20, 3)
    mean, var = kobai.zeros(3, dtype=kobai.float64), kobai.ones(3, dtype=kobai.float64)
    before = mean._version[0]
    F.batch_norm(x, mean, var, training=True, momentum=0.25)
    host = x.numpy()
    np.testing.assert_allclose(mean.numpy(), 0.25 * host.mean(0))
    np.testing.assert_allclose(var.numpy(), 0.75 + 0.25 * host.var(0, ddof=1))
    assert mean._version[0] == before + 1
    kept = mean.tolist()
    y = F.batch_norm(x, mean, var, eps=0.5)
    np.testing.assert_allclose(y.numpy(), (host - mean.numpy()) / np.sqrt(var.numpy() + 0.5))
    assert mean.tolist() == kept


def test_training_moves_float32_statistics_in_float32():
    mean, var = kobai.zeros(3), kobai.ones(3)
    F.batch_norm(draw(5, 3).float(), mean, var, training=True)
    assert mean.dtype == var.dtype == kobai.float32


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 4)])
def test_the_fused_activation_is_the_separate_one(activation, shape, training):
    outcomes = []
    for fused in (True, False):
        x = draw(*shape).requires_grad_()
        w, b = draw(3).requires_grad_(), draw(3).requires_grad_()
        mean, var = draw(3), draw(3) ** 2
        if fused:
            y = F.batch_norm(x, mean, var, w, b, training, activation=activation)
        else:
            y = getattr(kobai, activation)(F.batch_norm(x, mean, var, w, b, training))
        (y * y).sum().backward()
        outcomes.append([y.detach(), x.grad, w.grad, b.grad])
    for left, right in zip(*outcomes, strict=True):
        np.testing.assert_allclose(left.numpy(), right.numpy(), rtol=1e-12, atol=1e-12)


def test_gradient_in_evaluation_survives_a_training_step_in_between():
    mean, var = kobai.zeros(3), kobai.ones(3)
    w = kobai.ones(3, requires_grad=True)
    x = draw(5, 3).float()
    y = F.batch_norm(x, mean, var, w)
    F.batch_norm(x, mean, var, training=True)
    y.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), x.numpy().sum(0), rtol=1e-4)


def test_layer_group_and_instance_norm_normalise_what_they_say():
    x = draw(4, 6, 5)
    for y, view in [
        (F.layer_norm(x, (5,), eps=0.0), lambda a: a.reshape(24, 5)),
        (F.layer_norm(x, (6, 5), eps=0.0), lambda a: a.reshape(4, 30)),
        (F.group_norm(x, 3, eps=0.0), lambda a: a.reshape(12, 10)),
        (F.instance_norm(x, eps=0.0), lambda a: a.reshape(24, 5)),
    ]:
        rows = view(y.numpy())
        np.testing.assert_allclose(rows.mean(1), 0, atol=1e-14)
        np.testing.assert_allclose(rows.var(1), 1, rtol=1e-12)
    rms = F.rms_norm(x, (5,), eps=0.0).numpy()
    np.testing.assert_allclose((rms**2).mean(-1), 1, rtol=1e-12)


def test_instance_norm_moves_and_uses_running_statistics():
    x = draw(4, 3, 5)
    mean, var = kobai.zeros(3), kobai.ones(3)
    F.instance_norm(x.float(), mean, var, momentum=0.5)
    np.testing.assert_allclose(mean.numpy(), 0.5 * x.numpy().mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(var.numpy(), 0.5 + 0.5 * x.numpy().var(2, ddof=1).mean(0), rtol=1e-5)
    y = F.instance_norm(x.float(), mean, var, use_input_stats=False)
    assert kobai.allclose(y, F.batch_norm(x.float(), mean, var))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf"), -1.0, -2.5, float("-inf")])
def test_normalize_gives_unit_length_and_leaves_zero_alone(p, backend):
    x = np.random.default_rng(1).normal(size=(4, 3))
    x[1] = 0
    y = F.normalize(kobai.tensor(x), p=p).cpu().numpy()
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(np.linalg.norm(y, ord=p, axis=1), [1, 0, 1, 1], rtol=1e-14)


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (2, 3, 0), (0, 3, 2, 2), (0, 3, 1, 1, 1)], ids=str)
def test_an_empty_batch_moves_nothing(shape, captured, backend):
    cls = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[len(shape)]
    for layer in (getattr(kobai.nn, cls)(3), getattr(kobai.nn, cls)(3, momentum=None)):
        x = kobai.nn.Parameter(kobai.zeros(*shape))

        def step(layer=layer, x=x):
            y = layer(x)
            return y, *kobai.autograd.grad(y.sum(), [x, layer.weight, layer.bias])

        run = kobai.capture(step) if captured else step
        for count in (1, 2, 3):
            y, dx, dw, db = run()
            assert y.shape == dx.shape == shape
            assert dw.tolist() == db.tolist() == [0, 0, 0]
            assert layer.running_mean.tolist() == [0, 0, 0]
            assert layer.running_var.tolist() == [1, 1, 1]
            assert layer.num_batches_tracked.item() == count


def test_an_empty_batch_moves_no_instance_statistics(backend):
    for shape in ((0, 3, 4), (2, 3, 0)):
        mean, var = kobai.zeros(3), kobai.ones(3)
        assert F.instance_norm(kobai.ones(*shape), mean, var).shape == shape
        assert (mean.tolist(), var.tolist()) == ([0, 0, 0], [1, 1, 1])
    with pytest.raises(ValueError, match="more than one value per channel"):
        F.instance_norm(kobai.ones(0, 3, 1))


def test_normalize_by_the_count_of_what_is_not_zero(backend):
    x = kobai.tensor([[3.0, 4.0], [0.0, 2.0]], requires_grad=True)
    y = F.normalize(x, p=0)
    assert y.tolist() == [[1.5, 2.0], [0.0, 2.0]]
    y.backward(kobai.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert x.grad.tolist() == [[0.5, 1.0], [3.0, 4.0]]  # the count does not change


@pytest.mark.parametrize("dim", [0, -1])
def test_a_number_is_a_vector_of_one(dim, backend):
    x, y = kobai.tensor(3.0, requires_grad=True), kobai.tensor(-2.0, requires_grad=True)
    cosine = F.cosine_similarity(x, y, dim)
    assert cosine.shape == ()
    assert cosine.item() == pytest.approx(-1, rel=1e-6)
    for p in (1, 1.2, 2, -1, float("inf")):
        unit = F.normalize(y, p, dim)
        assert unit.shape == ()
        assert unit.item() == pytest.approx(-1, rel=1e-6)
        grads = kobai.autograd.grad(unit + F.cosine_similarity(x, y, dim), [x, y])
        np.testing.assert_allclose([g.item() for g in grads], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: F.batch_norm(x[0, 0], None, None, training=True), r"\(N, C\) or \(N, C, ...\), got \(2,\)"),
        (lambda x: F.batch_norm(x, None, None), "expected running_mean and running_var when not training"),
        (lambda x: F.batch_norm(x, kobai.ones(2), kobai.ones(3)), r"expected running_mean \(3,\), got \(2,\)"),
        (lambda x: F.batch_norm(x, None, None, kobai.ones(4), training=True), r"expected weight \(3,\), got \(4,\)"),
        (lambda x: F.batch_norm(x, None, None, kobai.ones(3).double(), training=True), "weight of float32"),
        (
            lambda x: F.batch_norm(x[:1, :, :1], None, None, training=True),
            r"more than one value per channel .*\(1, 3, 1\)",
        ),
        (lambda x: F.batch_norm(x, None, None, training=True, activation="rleu"), "Did you mean 'relu'"),
        (lambda x: F.batch_norm(x.long(), None, None, training=True), "expected a float tensor, got kobai.int64"),
        (lambda x: F.layer_norm(x, (3,)), r"expected input \(..., 3\), got \(4, 3, 2\)"),
        (lambda x: F.layer_norm(x, (5, 4, 3, 2)), r"expected input \(..., 5, 4, 3, 2\), got \(4, 3, 2\)"),
        (lambda x: F.layer_norm(x, (2,), kobai.ones(3)), r"layer_norm: expected weight \(2,\), got \(3,\)"),
        (lambda x: F.rms_norm(x, 3), r"rms_norm: expected input \(..., 3\)"),
        (lambda x: F.group_norm(x, 2), "expected num_groups to divide 3 channels, got 2"),
        (lambda x: F.group_norm(x[0, 0], 1), r"group_norm: expected input \(N, C, ...\), got \(2,\)"),
        (lambda x: F.instance_norm(x[0]), r"instance_norm: expected input .* got \(3, 2\)"),
        (lambda x: F.instance_norm(x[:, :, :1]), "more than one value per channel"),
        (lambda x: F.normalize(x, dim=3), "expected dim in"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, RuntimeError, TypeError, IndexError), match=message):
        call(kobai.ones(4, 3, 2))
