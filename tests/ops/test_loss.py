"""Losses: values by hand, extreme scores without a warning, everything ignored, empty batches, and what is refused."""

import math

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F

SCORES = kobai.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def test_cross_entropy_by_hand():
    first = math.log(math.exp(2) + 1 + math.e) - 2
    loss = F.cross_entropy(SCORES, kobai.tensor([0, 2]), reduction="none")
    assert loss.tolist() == pytest.approx([first, math.log(3)])
    assert F.cross_entropy(SCORES, kobai.tensor([0, 2])).item() == pytest.approx((first + math.log(3)) / 2)
    weighted = F.cross_entropy(SCORES, kobai.tensor([0, 2]), weight=kobai.tensor([3.0, 1.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * first + math.log(3)) / 4)


def test_cross_entropy_gradient_is_softmax_minus_onehot():
    x = SCORES.detach().clone().requires_grad_()
    F.cross_entropy(x, kobai.tensor([0, 2]), reduction="sum").backward()
    wanted = F.softmax(SCORES, 1).numpy() - np.eye(3)[[0, 2]]
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-6)


def test_cross_entropy_of_extreme_scores_is_finite():  # warnings are errors here
    x = kobai.tensor([[1e4, -1e4], [-1e30, 1e30]], requires_grad=True)
    loss = F.cross_entropy(x, kobai.tensor([1, 1]), reduction="sum")
    assert loss.item() == 2e4
    loss.backward()
    assert x.grad.tolist() == [[1.0, -1.0], [0.0, 0.0]]


def test_ignored_rows_count_for_nothing_and_have_gradient_zero():
    x = kobai.randn(4, 3, requires_grad=True)
    target = kobai.tensor([0, -100, 2, -100])
    loss = F.cross_entropy(x, target)
    assert loss.item() == pytest.approx(F.cross_entropy(x[::2], target[::2]).item())
    loss.backward()
    assert x.grad[1].tolist() == x.grad[3].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": kobai.ones(3)}], ids=str)
def test_mean_over_nothing_is_nan_with_gradient_zero(options):
    x = kobai.randn(2, 3, requires_grad=True)
    loss = F.cross_entropy(x, kobai.tensor([-100, -100]), **options)
    assert math.isnan(loss.item())
    loss.backward()
    assert x.grad.abs().sum().item() == 0
    assert math.isnan(F.cross_entropy(kobai.zeros(0, 3), kobai.zeros(0, dtype=kobai.int64), **options).item())


def test_probabilities_that_are_onehot_equal_indices():
    x = kobai.randn(5, 3, dtype=kobai.float64)
    t = kobai.tensor([0, 1, 2, 1, 0])
    q = kobai.tensor(np.eye(3)[t.numpy()])
    for smoothing in (0.0, 0.3):
        left, right = (F.cross_entropy(x, y, label_smoothing=smoothing).item() for y in (t, q))
        assert left == pytest.approx(right, rel=1e-12)


def test_nll_of_log_softmax_is_cross_entropy():
    x, t = kobai.randn(2, 3, 4, dtype=kobai.float64), kobai.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    w = kobai.tensor([0.5, 1.0, 2.0], dtype=kobai.float64)
    for reduction in ("none", "mean", "sum"):
        left = F.nll_loss(F.log_softmax(x, 1), t, weight=w, reduction=reduction)
        assert kobai.allclose(left, F.cross_entropy(x, t, weight=w, reduction=reduction))


@pytest.mark.parametrize("dtype", [kobai.int32, kobai.uint8, kobai.int64])
def test_any_integer_dtype_serves_as_target(dtype):
    assert F.cross_entropy(SCORES, kobai.tensor([0, 2], dtype=dtype)).item() == pytest.approx(0.7531, abs=1e-3)


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([0, 3], r"expected class indices in \[0, 3\), got 3 at position 1"),
        ([-1, 0], r"expected class indices in \[0, 3\), got -1 at position 0"),
    ],
)
def test_class_indices_out_of_range(loss, target, message):
    with pytest.raises(IndexError, match=message):
        loss(SCORES, kobai.tensor(target))


def test_class_indices_out_of_range_in_several_dimensions():
    with pytest.raises(IndexError, match=r"got 7 at position \(1, 1\)$"):
        F.cross_entropy(kobai.zeros(2, 3, 2), kobai.tensor([[0, 1], [2, 7]]))
    with pytest.raises(IndexError, match=r"got 9$"):
        F.cross_entropy(kobai.zeros(3), kobai.tensor(9))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.cross_entropy(SCORES, kobai.tensor([0, 1, 2])),
            ValueError,
            r"target \(2,\) of class indices .* got \(3,\)",
        ),
        (
            lambda: F.cross_entropy(SCORES, kobai.tensor([0.0, 1.0])),
            RuntimeError,
            r"class indices .* got \(2,\) of kobai.float32",
        ),
        (
            lambda: F.cross_entropy(SCORES, kobai.zeros(2, 4)),
            RuntimeError,
            r"or \(2, 3\) of probabilities .* got \(2, 4\)",
        ),
        (
            lambda: F.cross_entropy(SCORES.long(), kobai.tensor([0, 1])),
            RuntimeError,
            "expected a float input, got kobai.int64",
        ),
        (lambda: F.cross_entropy(kobai.zeros(2, 0), kobai.tensor([0, 1])), ValueError, r"C > 0, got \(2, 0\)"),
        (lambda: F.cross_entropy(kobai.tensor(1.0), kobai.tensor(0)), ValueError, r"expected input \(C\), .* got \(\)"),
        (lambda: F.cross_entropy(SCORES, kobai.tensor([0, 1]), weight=kobai.ones(2)), RuntimeError, r"weight \(3,\)"),
        (
            lambda: F.cross_entropy(SCORES, kobai.tensor([0, 1]), reduction="avg"),
            ValueError,
            "none, mean, sum, got 'avg'",
        ),
        (lambda: F.cross_entropy(SCORES, kobai.tensor([0, 1]), label_smoothing=2), RuntimeError, r"\[0, 1\], got 2"),
        (lambda: F.cross_entropy(SCORES, [0, 1]), TypeError, "cross_entropy: expected a Tensor, got list"),
        (lambda: F.nll_loss(SCORES, SCORES), RuntimeError, "nll_loss: expected target of class indices"),
        (
            lambda: F.mse_loss(SCORES, kobai.zeros(2, 2)),
            RuntimeError,
            r"target of the input's shape \(2, 3\), got \(2, 2\)",
        ),
        (lambda: F.mse_loss(SCORES, SCORES, reduction="avg"), ValueError, "mse_loss: expected reduction"),
        (lambda: F.smooth_l1_loss(SCORES, SCORES, beta=-1), RuntimeError, "beta >= 0, got -1"),
        (lambda: F.huber_loss(SCORES, SCORES, delta=0), RuntimeError, "delta > 0, got 0"),
        (
            lambda: F.binary_cross_entropy(SCORES, SCORES),
            ValueError,
            r"probabilities in \[0, 1\], got values from 0 to 2",
        ),
        (
            lambda: F.binary_cross_entropy(SCORES, SCORES[0]),
            ValueError,
            r"expected target \(2, 3\) as the input, got \(3,\)",
        ),
        (
            lambda: F.binary_cross_entropy_with_logits(SCORES, SCORES, pos_weight=kobai.ones(2)),
            ValueError,
            r"weight that broadcasts to \(2, 3\), got \(2,\)",
        ),
        (
            lambda: F.cross_entropy(SCORES, kobai.softmax(SCORES, 1), ignore_index=1),
            RuntimeError,
            "cross_entropy: ignore_index=1 is for class indices, got probabilities",
        ),
        (
            lambda: F.cross_entropy(SCORES, kobai.tensor([0, 1]), ignore_index=1.5),
            TypeError,
            "ignore_index to be an integer",
        ),
        (lambda: F.smooth_l1_loss(SCORES, SCORES, beta=float("nan")), RuntimeError, "beta >= 0, got nan"),
        (lambda: F.huber_loss(SCORES, SCORES, delta=float("nan")), RuntimeError, "delta > 0, got nan"),
        (
            lambda: F.kl_div(SCORES, SCORES, log_target="False"),
            TypeError,
            "log_target to be True or False, got 'False'",
        ),
        (lambda: F.kl_div(SCORES, SCORES, reduction="avg"), ValueError, "none, mean, sum, batchmean"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_elementwise_losses_by_hand():
    x, t = kobai.tensor([0.0, 0.0, 0.0]), kobai.tensor([0.5, -1.0, 3.0])
    assert F.mse_loss(x, t, reduction="none").tolist() == [0.25, 1.0, 9.0]
    assert F.l1_loss(x, t, reduction="sum").item() == 4.5
    assert F.smooth_l1_loss(x, t, reduction="none").tolist() == [0.125, 0.5, 2.5]
    assert F.smooth_l1_loss(x, t, beta=0.0).item() == 1.5
    assert F.huber_loss(x, t, delta=2.0, reduction="none").tolist() == [0.125, 0.5, 4.0]
    weighted = F.huber_loss(x, t, delta=2.0, reduction="sum", weight=kobai.tensor([0.0, 0.0, 2.0]))
    assert weighted.item() == 8.0
    assert F.kl_div(kobai.tensor([[0.5]]).log(), kobai.tensor([[1.0]]), reduction="batchmean").item() == pytest.approx(
        math.log(2)
    )


def test_broadcasting_a_target_warns():
    with pytest.warns(UserWarning, match=r"mse_loss: input \(3, 1\) and target \(3,\) are broadcast to \(3, 3\)"):
        F.mse_loss(kobai.zeros(3, 1), kobai.zeros(3))


@pytest.mark.parametrize(
    "loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy, F.kl_div]
)
def test_mean_of_no_elements_is_nan_and_sum_zero(loss):
    x = kobai.zeros(0, 2, requires_grad=True)
    assert loss(x, kobai.zeros(0, 2), reduction="sum").item() == 0
    mean = loss(x, kobai.zeros(0, 2))
    assert math.isnan(mean.item())
    mean.backward()
    assert x.grad.shape == (0, 2)


def test_binary_losses_at_the_ends():  # warnings are errors here
    p = kobai.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    t = kobai.tensor([0.0, 1.0, 1.0, 0.0])
    loss = F.binary_cross_entropy(p, t, reduction="none")
    assert loss.tolist() == [0.0, 0.0, 100.0, 100.0]
    loss.sum().backward()
    assert np.isfinite(p.grad.numpy()).all()
    x = kobai.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    assert loss.tolist() == [0.0, 0.0, 1e4, 1e4]
    loss.sum().backward()
    assert x.grad.tolist() == pytest.approx([0.0, 0.0, -1.0, 1.0])


def test_with_logits_is_sigmoid_then_cross_entropy():
    x, t = kobai.randn(4, 3, dtype=kobai.float64), kobai.rand(4, 3, dtype=kobai.float64)
    w = kobai.tensor([0.5, 1.0, 2.0], dtype=kobai.float64)
    left = F.binary_cross_entropy_with_logits(x, t, weight=w)
    assert left.item() == pytest.approx(F.binary_cross_entropy(x.sigmoid(), t, weight=w).item(), rel=1e-12)


@pytest.mark.parametrize("n", [0, 3])
def test_every_loss_runs_under_the_device_rules(n):
    with kobai.using("strict"):
        x, p = kobai.randn(n, 4, requires_grad=True), kobai.rand(n, 4)
        t = kobai.zeros(n, dtype=kobai.int64)
        for loss in (
            F.cross_entropy(x, t, label_smoothing=0.1),
            F.cross_entropy(x, t, weight=kobai.ones(4)),
            F.cross_entropy(x, p),
            F.nll_loss(x, t),
            F.mse_loss(x, p),
            F.binary_cross_entropy(p, p),
            F.binary_cross_entropy_with_logits(x, p, pos_weight=p),
            F.kl_div(x, p),
        ):
            if loss.requires_grad:
                loss.backward()
        assert x.grad.shape == (n, 4)
