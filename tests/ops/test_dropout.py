"""Dropout: how many and how large, the same mask on every backend and after restoring the state, whole channels, bad input."""

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F

ALL = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout]


def seeded(seed=1):
    return kobai.Generator().manual_seed(seed)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_p_is_dropped_and_the_rest_scaled(p):
    y = F.dropout(kobai.ones(400, 250), p, generator=seeded()).numpy()
    dropped = (y == 0).mean()
    assert abs(dropped - p) < 4 * np.sqrt(p * (1 - p) / y.size)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-6)
    assert abs(y.mean() - 1) < 0.02


def test_p_zero_p_one_and_evaluation():
    x = kobai.ones(3, 4, requires_grad=True)
    g = seeded()
    assert F.dropout(x, 0.0, generator=g) is x
    assert F.dropout(x, 0.5, training=False, generator=g) is x
    assert g.counter == 0  # nothing was drawn
    y = F.dropout(x, 1.0)
    assert y.abs().sum().item() == 0
    y.sum().backward()
    assert x.grad.abs().sum().item() == 0
    assert F.alpha_dropout(x, 1.0, training=True).abs().sum().item() == 0


def test_gradient_goes_through_the_same_mask():
    x = kobai.ones(10, 10, requires_grad=True)
    y = F.dropout(x, 0.3)
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()


def test_masks_differ_from_call_to_call_and_come_back_with_the_seed_or_the_state():
    x = kobai.ones(8, 9)
    kobai.manual_seed(5)
    state = kobai.random.get_rng_state()
    first, second = F.dropout(x), F.dropout(x)
    assert first.tolist() != second.tolist()
    kobai.manual_seed(5)
    assert F.dropout(x).tolist() == first.tolist()
    kobai.random.set_rng_state(state)
    assert F.dropout(x).tolist() == first.tolist()
    assert F.dropout(x).tolist() == second.tolist()


@pytest.mark.parametrize("function", [F.dropout, F.dropout2d, F.alpha_dropout, F.rrelu])
def test_the_same_on_every_backend(function):
    host = np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32)
    outcomes = []
    for where in ("numpy", "strict"):
        x = kobai.tensor(host, device=kobai.xp.device("cpu" if where == "numpy" else where))
        x.requires_grad_()
        y = function(x, training=True, generator=seeded(7))
        y.sum().backward()
        outcomes.append((kobai.xp.to_host(y.array), kobai.xp.to_host(x.grad.array)))
    for left, right in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_mask_does_not_depend_on_layout_or_dtype():
    x = kobai.ones(6, 4)
    wanted = (F.dropout(x, generator=seeded()) == 0).tolist()
    assert (F.dropout(kobai.ones(4, 6).t(), generator=seeded()) == 0).tolist() == wanted
    assert (F.dropout(x.double(), generator=seeded()) == 0).tolist() == wanted


@pytest.mark.parametrize(
    ("function", "shape", "spatial"),
    [
        (F.dropout1d, (40, 30, 5), 1),
        (F.dropout1d, (300, 5), 1),
        (F.dropout2d, (40, 30, 3, 3), 2),
        (F.dropout3d, (40, 30, 2, 2, 2), 3),
        (F.feature_alpha_dropout, (40, 30, 3), 1),
    ],
)
def test_whole_channels_are_dropped(function, shape, spatial):
    y = function(kobai.ones(*shape), 0.4, training=True).numpy()
    channels = y.reshape(*shape[: len(shape) - spatial], -1)
    assert (channels == channels[..., :1]).all()
    share = (channels[..., 0] < channels.max()).mean()
    assert abs(share - 0.4) < 0.15


def test_inplace():
    x = kobai.ones(4, 4)
    y = F.dropout(x, 0.5, inplace=True)
    assert y is x
    assert set(np.unique(x.numpy())) == {0.0, 2.0}


@pytest.mark.parametrize("function", [F.alpha_dropout, F.feature_alpha_dropout])
def test_alpha_dropout_keeps_mean_zero_and_variance_one(function):
    x = kobai.randn(1000, 200)
    y = function(x, 0.3, training=True).numpy()
    assert abs(y.mean()) < 0.02
    assert abs(y.var() - 1) < 0.02
    assert function(x) is x


def test_rrelu_draws_slopes_between_its_bounds():
    x = kobai.cat([-kobai.ones(5000), kobai.ones(5000)]).requires_grad_()
    y = F.rrelu(x, 0.2, 0.4, training=True)
    slopes = -y.detach().numpy()[:5000]
    assert slopes.min() >= 0.2
    assert slopes.max() <= 0.4
    assert abs(slopes.mean() - 0.3) < 0.005
    assert (y[5000:] == 1).all()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy()[:5000], slopes)
    assert F.rrelu(-kobai.ones(1), 0.2, 0.4).item() == pytest.approx(-0.3)


def test_a_scalar_and_an_empty_tensor():
    for function in (F.dropout, F.alpha_dropout, F.rrelu):
        assert function(kobai.tensor(1.0), training=True).shape == ()
        assert function(kobai.zeros(0, 3), training=True).shape == (0, 3)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_p_must_be_a_probability(function, p):
    with pytest.raises(ValueError, match=rf"{function.__name__}: expected a probability p in \[0, 1\], got {p}"):
        function(kobai.ones(2, 2, 2, 2), p)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"dropout1d: expected 2 or 3 dimensions, got \(2,\)"):
        F.dropout1d(kobai.ones(2))
    with pytest.raises(ValueError, match=r"feature_alpha_dropout: expected input \(N, C, ...\), got \(2,\)"):
        F.feature_alpha_dropout(kobai.ones(2), training=True)
    with pytest.raises(RuntimeError, match=r"rrelu: expected lower <= upper, got 0\.5 and 0\.1"):
        F.rrelu(kobai.ones(2), 0.5, 0.1)
    with pytest.raises(TypeError, match=r"generator: expected a kobai.Generator, got int"):
        F.dropout(kobai.ones(2), generator=3)
    with pytest.raises(TypeError, match="dropout: expected a Tensor, got float"):
        F.dropout(1.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("function", "shape", "channels"),
    [
        (F.dropout2d, (40, 50), (40, 50)),
        (F.dropout2d, (40, 30, 5), (40, 30, 1)),
        (F.dropout2d, (40, 30, 2, 2, 2), (40, 30, 1, 1, 1)),
        (F.dropout3d, (1000, 2, 3), (1000, 1, 1)),
        (F.dropout3d, (1000, 2, 2, 1, 2, 2), (1000, 1, 1, 1, 1, 1)),
    ],
)
def test_other_shapes_are_read_as_in_pytorch_and_a_warning_says_so(function, shape, channels):
    with pytest.warns(UserWarning, match=rf"{function.__name__}: input of shape \({shape[0]}, .* is read as"):
        y = function(kobai.ones(*shape), 0.5, generator=seeded())
    assert kobai.equal(y, F.dropout(kobai.ones(*channels), 0.5, generator=seeded()).expand(shape))


@pytest.mark.filterwarnings("error")
def test_volumes_without_a_batch_are_no_surprise():
    y = F.dropout3d(kobai.ones(300, 2, 2, 2), 0.5, generator=seeded())
    assert kobai.equal(y, F.dropout(kobai.ones(300, 1, 1, 1), 0.5, generator=seeded()).expand(300, 2, 2, 2))
    with pytest.raises(RuntimeError, match=r"dropout2d: expected 3 or 4 dimensions, got \(3,\)"):
        F.dropout2d(kobai.ones(3))
