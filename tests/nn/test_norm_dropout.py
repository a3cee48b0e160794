"""What is particular to normalisation and dropout."""

import numpy as np
import pytest

import kobai
from kobai import nn

# --- normalisation ------------------------------------------------------------------------------------------------


def test_batch_norm_by_hand():
    norm = nn.BatchNorm1d(2, momentum=0.25)
    x = np.array([[1.0, 2.0], [3.0, 6.0], [8.0, 1.0]], np.float32)
    y = norm(kobai.tensor(x)).detach().numpy()
    assert np.allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-6)
    assert np.allclose(norm.running_mean.numpy(), 0.25 * x.mean(0))
    assert np.allclose(norm.running_var.numpy(), 0.75 + 0.25 * x.var(0, ddof=1))
    assert norm.num_batches_tracked.item() == 1
    assert norm.num_batches_tracked.dtype == kobai.int64
    norm.eval()
    z = norm(kobai.tensor(x)).detach().numpy()
    assert np.allclose(z, (x - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + 1e-5), atol=1e-6)
    assert norm.num_batches_tracked.item() == 1
    norm.reset_running_stats()
    assert norm.running_mean.tolist() == [0, 0]
    assert norm.running_var.tolist() == [1, 1]
    assert norm.num_batches_tracked.item() == 0


def test_batch_norm_cumulative_average():
    norm = nn.BatchNorm1d(1, momentum=None)
    batches = [np.random.default_rng(i).normal(size=(5, 1)).astype(np.float32) for i in range(4)]
    for x in batches:
        norm(kobai.tensor(x))
    assert norm.running_mean.item() == pytest.approx(np.mean([x.mean() for x in batches]), rel=1e-5)
    assert norm.running_var.item() == pytest.approx(np.mean([x.var(ddof=1) for x in batches]), rel=1e-5)


def test_batch_norm_statistics_are_written_in_place():
    """A captured step replays into the same arrays."""
    norm = nn.BatchNorm1d(3)
    arrays = [b.array for b in norm.buffers()]
    norm(kobai.randn(4, 3))
    assert all(b.array is a for b, a in zip(norm.buffers(), arrays, strict=True))


def test_batch_norm_without_statistics_uses_the_batch_in_evaluation():
    norm = nn.BatchNorm1d(3, track_running_stats=False, affine=False).eval()
    y = norm(5 + kobai.randn(50, 3))
    assert abs(y.mean().item()) < 1e-5
    assert list(norm.state_dict()) == []


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_batch_norm_activation_is_the_separate_layer(name):
    kobai.manual_seed(0)
    fused, apart = nn.BatchNorm1d(4, activation=name), nn.BatchNorm1d(4)
    x = kobai.randn(8, 4)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = fused(a), getattr(kobai, name)(apart(b))
    assert np.allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-6)
    dy = kobai.randn(8, 4)
    y.backward(dy)
    z.backward(dy)
    assert np.allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-5)
    assert np.allclose(fused.weight.grad.numpy(), apart.weight.grad.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="Did you mean 'relu'"):
        nn.BatchNorm1d(4, activation="rleu")


def test_normalisation_nonsense():
    with pytest.raises(ValueError, match=r"num_channels \(5\) must be divisible by num_groups \(2\)"):
        nn.GroupNorm(2, 5)
    with pytest.raises(ValueError, match="at least one dimension"):
        nn.LayerNorm(())
    with pytest.raises(RuntimeError, match="num_features >= 0"):
        nn.BatchNorm1d(-3)


# --- dropout ------------------------------------------------------------------------------------------------------


def test_dropout_statistics_and_seed():
    drop = nn.Dropout(0.3)
    kobai.manual_seed(5)
    y = drop(kobai.ones(100, 100)).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.02)
    kobai.manual_seed(5)
    assert np.array_equal(drop(kobai.ones(100, 100)).numpy(), y)
    assert not np.array_equal(drop(kobai.ones(100, 100)).numpy(), y)


def test_gelu_knows_its_two_forms():
    with pytest.raises(ValueError, match="GELU: expected approximate 'none' or 'tanh', got 'tan'"):
        nn.GELU("tan")


def test_dropout_edges():
    x = kobai.ones(3, 3)
    assert nn.Dropout(0.0)(x).tolist() == x.tolist()
    assert nn.Dropout(1.0)(x).sum().item() == 0.0
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="Dropout: expected a probability p between 0 and 1"):
            nn.Dropout(p)
    y = kobai.ones(1000)
    nn.Dropout(0.5, inplace=True)(y)
    assert set(y.tolist()) == {0.0, 2.0}


def test_dropout_mask_is_that_of_the_gradient():
    x = kobai.ones(1000, requires_grad=True)
    y = nn.Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()


@pytest.mark.parametrize(("make", "shape"), [(nn.Dropout1d, (50, 20, 3)), (nn.Dropout2d, (50, 20, 3, 2))])
def test_channel_dropout(make, shape):
    y = make(0.4)(kobai.ones(*shape)).numpy().reshape(1000, -1)
    assert (y == y[:, :1]).all()
    assert (y[:, 0] == 0).mean() == pytest.approx(0.4, abs=0.06)


def test_alpha_dropout_keeps_mean_and_variance():
    y = nn.AlphaDropout(0.3)(kobai.randn(400, 400))
    assert abs(y.mean().item()) < 0.02
    assert y.std().item() == pytest.approx(1.0, abs=0.02)
    assert nn.AlphaDropout(1.0)(kobai.ones(3)).tolist() == [0, 0, 0]
    x = kobai.ones(500)
    nn.AlphaDropout(0.5, inplace=True)(x)
    assert len(set(x.tolist())) == 2


def test_rrelu_slopes():
    x = -kobai.ones(1000)
    y = nn.RReLU(0.1, 0.3)(x).numpy()
    assert -0.3 <= y.min() < -0.29
    assert -0.11 < y.max() <= -0.1
    assert y.mean() == pytest.approx(-0.2, abs=0.01)
    assert np.allclose(nn.RReLU(0.1, 0.3).eval()(x).numpy(), -0.2)
