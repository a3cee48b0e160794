"""Random tensors: shapes, dtypes, ranges, moments, errors. (Seeds and states: ``test_random.py``.)"""

from __future__ import annotations

import numpy as np
import pytest

import kobai

N = 20_000


@pytest.mark.parametrize(
    ("draw", "mean", "std"),
    [
        (lambda: kobai.rand(N), 0.5, 12**-0.5),
        (lambda: kobai.randn(N), 0, 1),
        (lambda: kobai.randint(0, 10, (N,)).float(), 4.5, 8.25**0.5),
        (lambda: kobai.normal(2.0, 3.0, (N,)), 2, 3),
        (lambda: kobai.normal(kobai.full((N,), 2.0), 3.0), 2, 3),
        (lambda: kobai.normal(2.0, kobai.full((N,), 3.0)), 2, 3),
        (lambda: kobai.bernoulli(kobai.full((N,), 0.3)), 0.3, 0.21**0.5),
        (lambda: kobai.empty(N).uniform_(-1, 3), 1, 4 * 12**-0.5),
        (lambda: kobai.empty(N).normal_(1, 2), 1, 2),
        (lambda: kobai.empty(N).exponential_(2), 0.5, 0.5),
        (lambda: kobai.empty(N).bernoulli_(0.3), 0.3, 0.21**0.5),
        (lambda: kobai.empty(N).bernoulli(0.3), 0.3, 0.21**0.5),
        (lambda: kobai.empty(N).random_(10), 4.5, 8.25**0.5),
        (lambda: kobai.empty(N).random_(5, 15), 9.5, 8.25**0.5),
        (lambda: kobai.rand(N, dtype=kobai.float16).float(), 0.5, 12**-0.5),
    ],
)
def test_moments(draw, mean, std):
    x = draw().numpy().astype(np.float64)
    assert abs(x.mean() - mean) < 5 * std / N**0.5
    assert abs(x.std() / std - 1) < 0.05


def test_ranges_and_dtypes():
    x = kobai.rand(1000)
    assert (x >= 0).all()
    assert (x < 1).all()
    assert set(kobai.randint(3, 6, (200,)).tolist()) == {3, 4, 5}
    assert sorted(kobai.randperm(50).tolist()) == list(range(50))
    assert kobai.randperm(0).shape == (0,)
    assert (kobai.randint(5, (2,)).dtype, kobai.randperm(3).dtype) == (kobai.int64, kobai.int64)
    assert kobai.randint(5, (2,), dtype=kobai.int32).dtype == kobai.int32
    for like in (kobai.rand_like, kobai.randn_like):
        assert like(kobai.ones(2, 3, dtype=kobai.float64)).dtype == kobai.float64
    assert kobai.randint_like(kobai.ones(2, 3), 5).shape == (2, 3)
    assert kobai.randint_like(kobai.ones(2, 3), high=1).tolist() == [[0] * 3] * 2


def test_randint_takes_its_arguments_as_pytorch_does():
    wanted = kobai.randint(0, 9, (4,), generator=kobai.Generator(seed=1)).tolist()
    for arguments, options in (
        ((9, (4,)), {}),
        ((9,), {"size": (4,)}),
        ((), {"high": 9, "size": (4,)}),
        ((), {"low": 0, "high": 9, "size": [4]}),
    ):
        assert kobai.randint(*arguments, **options, generator=kobai.Generator(seed=1)).tolist() == wanted


@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_follows_the_weights(replacement):
    weights = kobai.tensor([0.0, 1.0, 3.0, 6.0])
    drawn = kobai.multinomial(weights.expand(N, 4), 1, replacement)
    assert drawn.shape == (N, 1)
    counts = np.bincount(drawn.numpy().ravel(), minlength=4) / N
    np.testing.assert_allclose(counts, [0, 0.1, 0.3, 0.6], atol=0.02)
    assert counts[0] == 0


def test_multinomial_without_replacement_draws_each_once():
    drawn = kobai.multinomial(kobai.ones(50, 6), 6)
    assert all(sorted(row) == list(range(6)) for row in drawn.tolist())
    assert kobai.ones(6).multinomial(3, replacement=True).shape == (3,)


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: kobai.rand(2, dtype=kobai.int64), NotImplementedError, "rand: expected a float dtype, got int64"),
        (lambda: kobai.randint(5, 5, (2,)), RuntimeError, "randint: expected low < high"),
        (lambda: kobai.randint(5), TypeError, "randint: expected integers as bounds, and a size"),
        (lambda: kobai.randint(5, (-1,)), RuntimeError, "randint: expected sizes >= 0"),
        (lambda: kobai.randperm(-1), RuntimeError, "randperm: expected sizes >= 0"),
        *(
            (
                lambda w=w: kobai.multinomial(kobai.tensor([w, 1.0]), 1),
                RuntimeError,
                "multinomial: expected weights >= 0",
            )
            for w in (-1.0, float("nan"), float("inf"))
        ),
        (lambda: kobai.normal(0.0, 1.0), TypeError, "normal: expected a size"),
        (
            lambda: kobai.multinomial(kobai.ones(3), 4),
            RuntimeError,
            "multinomial: cannot draw 4 of 3 without replacement",
        ),
        (
            lambda: kobai.multinomial(kobai.ones(2, 2, 2), 1),
            RuntimeError,
            r"multinomial: expected weights \(C\) or \(N, C\)",
        ),
        (lambda: kobai.ones(2, requires_grad=True).normal_(), RuntimeError, "leaf that requires a gradient"),
    ],
)
def test_errors(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


NAN, INF = float("nan"), float("inf")
BAD_PARAMETERS = {
    "normal_": [(0, -1), (0, NAN)],
    "uniform_": [(1, 0), (0, INF), (NAN, 1)],
    "exponential_": [(0,), (-1,), (NAN,)],
    "geometric_": [(0,), (1,), (-1,), (NAN,)],
    "log_normal_": [(0, 0), (0, -1), (0, NAN)],
    "cauchy_": [(0, 0), (0, -1), (0, NAN)],
    "bernoulli_": [(2.0,), (-0.1,), (NAN,)],
    "random_": [(3, 3), (5, 2), (0,), (-3,)],
}
CONTINUOUS = ["normal_", "uniform_", "exponential_", "log_normal_", "cauchy_"]


@pytest.mark.parametrize(("name", "given"), [(name, given) for name, many in BAD_PARAMETERS.items() for given in many])
def test_parameters_that_no_distribution_has(name, given):
    x = kobai.ones(3)
    next_numbers = kobai.rand(3, generator=kobai.Generator(seed=7)).tolist()
    generator = kobai.Generator(seed=7)
    with pytest.raises(RuntimeError, match=rf"^{name}: expected .*, got "):
        getattr(x, name)(*given, generator=generator)
    assert x.tolist() == [1, 1, 1]
    assert kobai.rand(3, generator=generator).tolist() == next_numbers, "a call that is refused draws nothing"


def test_parameters_given_as_tensors():
    for p in (2.0, -0.5, NAN):
        for draw in (kobai.bernoulli, lambda p: kobai.ones(2).bernoulli_(p)):
            with pytest.raises(ValueError, match=r"bernoulli: expected probabilities in \[0, 1\], got "):
                draw(kobai.tensor([0.5, p]))
    assert kobai.ones(2, 2).bernoulli_(kobai.tensor([0.0, 1.0])).tolist() == [[0, 1], [0, 1]]
    for std in (-1.0, NAN):
        for mean, spread in ((0.0, kobai.tensor([1.0, std])), (kobai.zeros(2), std)):
            with pytest.raises(RuntimeError, match=f"normal: expected std >= 0, got {std}"):
                kobai.normal(mean, spread)
        with pytest.raises(RuntimeError, match="normal: expected std >= 0"):
            kobai.normal(0.0, std, (2,))


@pytest.mark.parametrize("dtype", [kobai.int64, kobai.uint8, kobai.bool])
def test_fractions_are_not_drawn_into_integers(dtype):
    for name in CONTINUOUS:
        with pytest.raises(NotImplementedError, match=f"{name}: expected a float dtype"):
            getattr(kobai.ones(3, dtype=dtype), name)()
    for draw in (kobai.randn_like, kobai.rand_like, kobai.bernoulli):
        with pytest.raises(NotImplementedError, match="expected a float dtype"):
            draw(kobai.ones(3, dtype=dtype))


def test_integers_have_to_fit_their_dtype():
    small = kobai.zeros(3, dtype=kobai.uint8)
    for draw in (
        lambda: small.random_(300),
        lambda: small.random_(-1, 3),
        lambda: kobai.randint(0, 257, (2,), dtype=kobai.uint8),
        lambda: kobai.randint(0, 3, (2,), dtype=kobai.bool),
        lambda: kobai.randint_like(small, 300),
        lambda: kobai.randperm(300, dtype=kobai.uint8),
    ):
        with pytest.raises(RuntimeError, match=r"expected bounds that (uint8|bool) can hold, got low="):
            draw()
    assert kobai.randint(0, 256, (2,), dtype=kobai.uint8).dtype == kobai.uint8
    assert kobai.randperm(256, dtype=kobai.uint8).max() == 255
    for dtype, most in (
        (kobai.int8, 127),
        (kobai.uint8, 255),
        (kobai.bool, 1),
        (kobai.float16, 2**11),
        (kobai.bfloat16, 2**8),
    ):
        drawn = kobai.empty(4000, dtype=dtype).random_().double()
        assert 0 <= drawn.min() < most / 50 + 1
        assert most * 0.97 <= drawn.max() <= most


@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_of_nothing(replacement):
    for weights in (kobai.zeros(3), kobai.zeros(2, 3), kobai.tensor([[1.0, 0], [0, 0]])):
        with pytest.raises(RuntimeError, match="multinomial: expected a weight > 0 in every row, got a row of zeros"):
            kobai.multinomial(weights, 1, replacement)
    with pytest.raises(RuntimeError, match="multinomial: expected weights of a float dtype, got int64"):
        kobai.multinomial(kobai.tensor([1, 2]), 1, replacement)
    with pytest.raises(RuntimeError, match="multinomial: cannot draw 1 of 0"):
        kobai.multinomial(kobai.zeros(2, 0), 1, replacement)
    with pytest.raises(TypeError, match=r"multinomial: expected num_samples to be an integer, got 1\.5"):
        kobai.multinomial(kobai.ones(2), 1.5, replacement)
    assert kobai.multinomial(kobai.ones(0, 2), 1, replacement).shape == (0, 1)


def test_randint_like_takes_dtype_device_and_gradient(backend):
    x = kobai.zeros(3, 4)
    drawn = kobai.randint_like(x, 2, 5, dtype=kobai.int32)
    assert drawn.shape == x.shape
    assert drawn.dtype == kobai.int32
    assert drawn.device == x.device
    assert set(drawn.reshape(-1).tolist()) <= {2, 3, 4}
    assert kobai.randint_like(x, 5).dtype == kobai.float32
    assert kobai.randint_like(x, 5, device="cpu").device.type == "cpu"
    assert kobai.randint_like(x, 5, requires_grad=True).requires_grad
    with pytest.raises(RuntimeError, match="expected a float tensor, got int64"):
        kobai.randint_like(x, 5, dtype=kobai.int64, requires_grad=True)


def test_the_gradient_of_a_draw_is_zero(backend):
    p = kobai.full((2, 3), 0.5, requires_grad=True)
    std = kobai.ones(3, dtype=kobai.float64, requires_grad=True)
    for y, inputs in (
        (kobai.bernoulli(p), [p]),
        (kobai.normal(p, 1.0), [p]),
        (kobai.normal(0.0, std), [std]),
        (kobai.normal(p, std), [p, std]),
        ((1 * p).bernoulli_(p), [p]),
    ):
        for x, dx in zip(inputs, kobai.autograd.grad(y.sum(), inputs), strict=True):
            assert (dx.shape, dx.dtype) == (x.shape, x.dtype)
            assert (dx == 0).all()
    with kobai.no_grad():
        assert not kobai.bernoulli(p).requires_grad
    assert not kobai.bernoulli(p.detach()).requires_grad
