"""Cross-entropy and the negative log-likelihood on every engine, against the definition written out row by row."""

import itertools

import numpy as np
import pytest

import kobai
from engines import host_engine, launches, peak_bytes  # noqa: F401 - a fixture
from kobai.nn import functional as F
from kobai.ops.cross_entropy import kernel as kernels

pytestmark = pytest.mark.usefixtures("host_engine")
IGNORED = -100


def problem(m, classes, dtype, weighted, ignored, scale=3.0):
    rng = np.random.default_rng(m + classes)
    x = (rng.normal(size=(m, classes)) * scale).astype(dtype)
    targets = rng.integers(0, classes, m)
    if ignored:
        targets[::ignored] = IGNORED
    return x, targets, rng.uniform(0.5, 2, classes).astype(dtype) if weighted else None


def definition(x, targets, weight, reduction, smoothing, likelihood=False):
    """Losses, and the gradient of their sum weighted by ``g`` for reduction none (g = 1 + row), else of the one loss."""
    x = x.astype(np.longdouble)
    m, classes = x.shape
    w = np.ones(classes) if weight is None else weight.astype(np.longdouble)
    top = x.max(axis=1, keepdims=True)
    logp = x - top - np.log(np.exp(x - top).sum(axis=1, keepdims=True))
    logp, p = (x, 0) if likelihood else (logp, np.exp(logp))
    loss, dx, share = np.zeros(m, np.longdouble), np.zeros_like(x), np.zeros(m, np.longdouble)
    for i, t in enumerate(targets):
        if t == IGNORED:
            continue
        q = np.zeros(classes, np.longdouble)
        q[t] = 1 - smoothing
        q = (q + smoothing / classes) * (w if smoothing else w[t])
        loss[i], share[i] = -(q * logp[i]).sum(), w[t]
        dx[i] = -q if likelihood else q.sum() * p[i] - q
    if reduction == "none":
        return loss, dx * (1 + np.arange(m))[:, None]
    if reduction == "sum":
        return loss.sum(), dx
    total = share.sum()
    return (loss.sum() / total, dx / total) if total else (np.longdouble("nan"), 0 * dx)


def close(found, wanted, dtype, scale=1.0):
    slack = 60 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, np.asarray(wanted, float), rtol=slack, atol=slack * scale)


OPTIONS = list(itertools.product(["none", "mean", "sum"], [False, True], [0.0, 0.2], [0, 3]))


@pytest.mark.few(5)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "classes"), [(1, 1), (9, 10), (100, 10), (5, 300), (3, 4000)])
@pytest.mark.parametrize(("reduction", "weighted", "smoothing", "ignored"), OPTIONS)
def test_the_definition(dtype, m, classes, reduction, weighted, smoothing, ignored):
    x, targets, weight = problem(m, classes, dtype, weighted, ignored)
    loss, backward = kernels.cross_entropy(x, targets, weight, IGNORED, reduction, smoothing)
    dx = backward((1 + np.arange(m) if reduction == "none" else np.ones(())).astype(dtype))
    wanted, wanted_dx = definition(x, targets, weight, reduction, smoothing)
    assert loss.dtype == dx.dtype == dtype
    assert np.shape(loss) == wanted.shape
    close(loss, wanted, dtype)
    close(dx, wanted_dx, dtype, m)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("reduction", "weighted", "ignored"), [(r, w, i) for r, w, s, i in OPTIONS if not s])
def test_negative_log_likelihood(dtype, reduction, weighted, ignored):
    x, targets, weight = problem(9, 10, dtype, weighted, ignored)
    loss, backward = kernels.nll_loss(x, targets, weight, IGNORED, reduction)
    dx = backward((1 + np.arange(9) if reduction == "none" else np.ones(())).astype(dtype))
    wanted, wanted_dx = definition(x, targets, weight, reduction, 0.0, likelihood=True)
    close(loss, wanted, dtype)
    close(dx, wanted_dx, dtype, 9)


@pytest.mark.parametrize("classes", [7, 500])
@pytest.mark.parametrize("shift", [0, 400, -400])
def test_scores_far_from_zero(classes, shift):
    x, targets, _ = problem(50, classes, np.float32, False, 0, scale=40.0)
    x += np.float32(shift)
    loss, backward = kernels.cross_entropy(x, targets, None, IGNORED, "none", 0.0)
    wanted, dx = definition(x, targets, None, "none", 0.0)
    close(loss, wanted, np.float32)
    close(backward(1 + np.arange(50, dtype=np.float32)), dx, np.float32, 50)


@pytest.mark.parametrize(("m", "classes"), [(150_000, 9), (4000, 300)])
def test_many_rows(m, classes):
    """Enough for several threads."""
    x, targets, weight = problem(m, classes, np.float32, True, 7)
    loss, backward = kernels.cross_entropy(x, targets, weight, IGNORED, "mean", 0.1)
    wanted, dx = definition(x, targets, weight, "mean", 0.1)
    close(loss, wanted, np.float32)
    close(backward(np.ones((), np.float32)), dx, np.float32, 1 / m)


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int64])
def test_targets_of_any_integer_dtype_and_layout(kind):
    x, targets, _ = problem(12, 5, np.float64, False, 0)
    wanted = kernels.cross_entropy(x, targets, None, IGNORED, "mean", 0.0)[0]
    spread = np.repeat(targets, 2)[::2].astype(kind)
    assert kernels.cross_entropy(x, spread, None, IGNORED, "mean", 0.0)[0] == pytest.approx(float(wanted))
    grid, _ = kernels.cross_entropy(x, targets.reshape(3, 4), None, IGNORED, "none", 0.0)
    assert grid.shape == (3, 4)


def test_an_incoming_gradient_without_memory_of_its_own():
    scores = kobai.randn(6, 4, requires_grad=True)
    F.cross_entropy(scores, kobai.tensor([0, 1, 2, 3, 0, 1]), reduction="none").sum().backward()
    expanded = scores.grad.clone()
    scores.grad = None
    F.cross_entropy(scores, kobai.tensor([0, 1, 2, 3, 0, 1]), reduction="sum").backward()
    np.testing.assert_allclose(expanded.numpy(), scores.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("function", [F.cross_entropy, F.nll_loss])
def test_a_class_that_is_not_there_is_named(function):
    with pytest.raises(
        IndexError, match=rf"{function.__name__}: expected class indices in \[0, 4\), got 7 at position 2"
    ):
        function(kobai.randn(3, 4), kobai.tensor([0, -100, 7]))
    with pytest.raises(IndexError, match=r"got -1 at position \(1, 0\)"):
        function(kobai.randn(2, 4, 2), kobai.tensor([[0, 1], [-1, 2]]))
    big = kobai.zeros(300_000, dtype=kobai.int64)
    big[69_000] = 4
    with pytest.raises(IndexError, match="got 4 at position 69000"):
        function(kobai.zeros(300_000, 4), big)


@pytest.mark.parametrize("function", [F.cross_entropy, F.nll_loss])
def test_a_captured_step_looks_at_the_classes_at_every_replay(function):
    scores = kobai.randn(3, 4, requires_grad=True)

    def step(targets):
        scores.grad = None
        loss = function(scores, targets)
        loss.backward()
        return loss

    captured = kobai.capture(step)
    for targets in ([0, 1, 2], [1, 2, 3], [3, 3, -100]):
        found = captured(kobai.tensor(targets)).item()
        gradient = scores.grad.numpy().copy()
        assert found == pytest.approx(step(kobai.tensor(targets)).item(), rel=1e-6)
        np.testing.assert_allclose(gradient, scores.grad.numpy(), rtol=1e-5, atol=1e-7)
    with pytest.raises(IndexError, match=r"expected class indices in \[0, 4\), got 9 at position 1"):
        captured(kobai.tensor([0, 9, 2]))


def test_nothing_counts_where_all_is_ignored():
    scores = kobai.randn(3, 4, requires_grad=True)
    loss = F.cross_entropy(scores, kobai.full((3,), -100))
    loss.backward()
    assert np.isnan(loss.item())
    assert not scores.grad.numpy().any()


def test_scores_that_are_ignored_may_be_nan():
    scores = kobai.tensor([[0.0, 0.0], [float("nan"), 0.0]], requires_grad=True)
    F.cross_entropy(scores, kobai.tensor([0, 1])).backward()
    assert np.isnan(scores.grad.numpy()[1]).all()
    scores.grad = None
    loss = F.cross_entropy(scores, kobai.tensor([0, -100]))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    np.testing.assert_allclose(scores.grad.numpy(), [[-0.5, 0.5], [0, 0]])
    assert not np.isnan(F.nll_loss(scores, kobai.tensor([0, -100])).item())


def test_compiled_loops_allocate_nothing(monkeypatch, host_engine):  # noqa: F811
    if host_engine == "reference":
        pytest.skip("NumPy's functions make arrays")
    x, targets, weight = problem(100, 300, np.float32, True, 7)
    noted = launches(monkeypatch)
    for loss, backward in (
        kernels.cross_entropy(x, targets, weight, IGNORED, "mean", 0.1),
        kernels.nll_loss(x, targets, weight, IGNORED, "mean"),
    ):
        backward(np.ones_like(loss))
    assert len(noted) == 4
    for kernel, args in noted:
        assert peak_bytes(lambda kernel=kernel, args=args: kernel(*args)) < 2000
