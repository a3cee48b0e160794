"""Products of other kinds, statistics, and derivatives of functions, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.gradcheck import gradcheck

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6))


def close(tensor, array):
    np.testing.assert_allclose(np.reshape(tensor.tolist(), tensor.shape), array, rtol=1e-10, atol=1e-12)


def T(array):
    return kobai.as_tensor(array)


@pytest.mark.parametrize(
    ("sa", "sb", "dims"),
    [((2, 3, 4), (3, 4, 5), 2), ((2, 3), (4,), 0), ((2, 3, 4), (4, 2), ([2, 0], [0, 1])), ((3,), (2,), 0)],
)
def test_tensordot(sa, sb, dims, backend):
    a, b = RNG.normal(size=sa), RNG.normal(size=sb)
    close(kobai.tensordot(T(a), T(b), dims), np.tensordot(a, b, dims))


@pytest.mark.parametrize(
    ("sa", "sb", "dims"),
    [
        ((3, 1), (4,), ([1], [0])),
        ((3, 4), (1, 5), 1),
        ((1, 1, 1), (2, 1, 2), ([0, 1], [2, 0])),
        ((1, 3), (2, 1), ([0, 1], [0, 1])),
        ((3, 1), (0, 2), ([1], [0])),
    ],
)
def test_an_axis_of_one_is_repeated(sa, sb, dims, backend):
    a, b = RNG.normal(size=sa), RNG.normal(size=sb)
    left, right = ([*range(len(sa) - dims, len(sa))], [*range(dims)]) if isinstance(dims, int) else dims
    wide_a, wide_b = list(sa), list(sb)
    for i, j in zip(left, right, strict=True):
        wide_a[i] = wide_b[j] = sa[i] if sb[j] == 1 else sb[j]
    expected = np.tensordot(np.broadcast_to(a, wide_a), np.broadcast_to(b, wide_b), (left, right))
    close(kobai.tensordot(T(a), T(b), dims), expected)
    leaves = [kobai.tensor(x, requires_grad=True) for x in (a, b)]
    assert kobai.autograd.gradcheck(lambda a, b: kobai.tensordot(a, b, dims), leaves)


@pytest.mark.parametrize(("sa", "sb"), [((2, 3), (4, 5)), ((3,), (2, 2)), ((2, 1, 2), (3,))])
def test_kron(sa, sb, backend):
    a, b = RNG.normal(size=sa), RNG.normal(size=sb)
    close(kobai.kron(T(a), T(b)), np.kron(a, b))


@pytest.mark.parametrize("p", [1, 2, 3, float("inf")])
def test_cdist(p, backend):
    a, b = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3))
    close(kobai.cdist(T(a), T(b), p), np.linalg.norm(a[:, None] - b[None], ord=p, axis=-1))


@pytest.mark.parametrize(
    "mode", ["use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist"]
)
def test_small_distances_far_from_zero_are_exact_in_every_mode(mode):
    a = kobai.full((40, 3), 4096.0)
    b = a + 0.5
    assert kobai.cdist(a, b, 2.0, mode).tolist() == kobai.full((40, 40), 0.75**0.5).tolist()
    with pytest.raises(ValueError, match=r"cdist: expected compute_mode 'use_mm.*, got 'mm'"):
        kobai.cdist(a, b, compute_mode="mm")


def test_trace(backend):
    close(kobai.trace(T(X)), np.trace(X))


def test_covariance_and_correlation(backend):
    close(kobai.cov(T(X)), np.cov(X))
    close(kobai.cov(T(X), correction=0), np.cov(X, bias=True))
    close(kobai.cov(T(X[0])), np.cov(X[0]))
    close(kobai.corrcoef(T(X)), np.corrcoef(X))


OFTEN, MUCH = np.array([1, 0, 2, 3, 1, 1]), np.array([0.5, 0.2, 0.3, 0.0, 1.0, 2.0])


@pytest.mark.parametrize("correction", [0, 1, 2])
@pytest.mark.parametrize("weights", ["fweights", "aweights", "fweights aweights"])
def test_weighted_covariance(correction, weights, backend):
    given = {name: {"fweights": OFTEN, "aweights": MUCH}[name] for name in weights.split()}
    ours = {name: T(w) for name, w in given.items()}
    close(kobai.cov(T(X), correction=correction, **ours), np.cov(X, ddof=correction, **given))
    close(T(X[0]).cov(correction=correction, **ours), np.cov(X[0], ddof=correction, **given))
    close(kobai.cov(T(X + 1e9), correction=0, **ours) / 1e6, np.cov((X + 1e9) - 1e9, ddof=0, **given) / 1e6)
    assert kobai.cov(T(X.astype(np.float32)), **ours).dtype == ("float64" if "aweights" in given else "float32")


def test_gradients_of_weighted_covariance():
    x, much = T(X).requires_grad_(), T(MUCH + 0.1).requires_grad_()
    assert gradcheck(lambda x, much: kobai.cov(x, fweights=T(OFTEN), aweights=much), (x, much))


@pytest.mark.parametrize("weights", [{}, {"fweights": [1, 1, 1]}, {"aweights": [1.0, 1.0, 1.0]}])
def test_covariance_of_too_few_observations_is_not_a_number_that_looks_like_one(weights):
    weights = {name: kobai.tensor(w) for name, w in weights.items()}
    few = pytest.warns(UserWarning, match="cov: expected correction < 3 observations, got 5")
    with np.errstate(divide="ignore"), few:
        found = kobai.cov(kobai.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 5.0]]), correction=5, **weights)
    assert found.tolist() == [[float("inf")] * 2] * 2


@pytest.mark.parametrize("q", [0.0, 0.3, 1.0])
def test_quantile(q, backend):
    close(kobai.quantile(T(X), q), np.quantile(X, q))
    close(kobai.quantile(T(X), q, dim=1), np.quantile(X, q, axis=1))
    close(kobai.quantile(T(X), q, dim=0, keepdim=True), np.quantile(X, q, axis=0, keepdims=True))
    close(kobai.quantile(T(X), q, keepdim=True), np.quantile(X, q, keepdims=True))
    close(kobai.quantile(T(X), kobai.tensor([q, 0.5], dtype=kobai.float64), dim=1), np.quantile(X, [q, 0.5], axis=1))


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_diff(n, backend):
    close(kobai.diff(T(X), n), np.diff(X, n))
    close(kobai.diff(T(X), n, dim=0), np.diff(X, n, axis=0))


@pytest.mark.parametrize("n", [0, 1, 2, 4, 17])
@pytest.mark.parametrize("dim", [0, -1])
def test_diff_of_what_is_put_around(n, dim, backend):
    before, after = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6))
    before, after = np.take(before, [0], dim), np.take(after, [1, 2], dim)
    close(kobai.diff(T(X), n, dim, T(before)), np.diff(X, n, dim, prepend=before) if n else X)
    close(kobai.diff(T(X), n, dim, append=T(after)), np.diff(X, n, dim, append=after) if n else X)
    both = np.diff(X, n, dim, prepend=before, append=after) if n else X
    close(T(X).diff(n, dim, T(before), T(after)), both)
    a, x, b = (T(part).requires_grad_() for part in (before, X, after))
    if n:
        assert gradcheck(lambda a, x, b: kobai.diff(x, n, dim, a, b), (a, x, b))


def test_diff_promotes_what_is_put_around():
    x = kobai.tensor([1, 4, 9])
    assert kobai.diff(x, prepend=kobai.tensor([0.5])).tolist() == [0.5, 3.0, 5.0]
    assert kobai.diff(x, append=kobai.tensor([10], dtype=kobai.int32)).dtype == kobai.int64
    assert kobai.diff(x > 1, prepend=kobai.tensor([False])).tolist() == [False, True, False]
    assert kobai.diff(kobai.zeros(0), prepend=kobai.ones(1), append=kobai.ones(1)).tolist() == [0.0]


def test_jacobian_and_vjp(backend):
    w = T(RNG.normal(size=(3, 2)))
    x, y = T(RNG.normal(size=(4, 3))), T(RNG.normal(size=(4, 2)))
    both = kobai.autograd.functional.jacobian(lambda x, y: (x @ w + 2 * y).sum(0), (x, y))
    assert both[0].shape == (2, 4, 3)
    for j in range(2):
        close(both[0][j], np.tile(np.array(w.tolist())[:, j], (4, 1)))
        close(both[1][j], 2.0 * np.eye(2)[j] * np.ones((4, 1)))
    value, g = kobai.autograd.functional.vjp(lambda x: (x**2).sum(1), x, kobai.ones(4, dtype=kobai.float64))
    close(value, (np.array(x.tolist()) ** 2).sum(1))
    close(g, 2 * np.array(x.tolist()))
    assert kobai.autograd.functional.jacobian(lambda x: kobai.zeros(2), x).tolist() == kobai.zeros(2, 4, 3).tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kobai.tensordot(T(X), T(X), 1), "tensordot: axes"),
        (lambda: kobai.trace(kobai.ones(3)), "trace: expected a matrix"),
        (lambda: kobai.cdist(T(X), kobai.ones(2, 5, dtype=kobai.float64)), "cdist: expected"),
        (lambda: kobai.cdist(T(X), T(X), -1.0), "cdist: expected p >= 0, got -1.0"),
        (lambda: kobai.cdist(T(X), T(X), float("nan")), "cdist: expected p >= 0, got nan"),
        (lambda: kobai.cov(kobai.ones(2, 2, 2)), "cov: expected"),
        (lambda: kobai.cov(T(X) > 0), "cov: expected numbers, got booleans"),
        (lambda: kobai.cov(T(X), fweights=T(MUCH)), "cov: expected fweights as integers, got kobai.float64"),
        (lambda: kobai.cov(T(X), fweights=T(OFTEN > 0)), "cov: expected fweights as integers, got kobai.bool"),
        (lambda: kobai.cov(T(X), aweights=T(OFTEN)), "cov: expected aweights as floats, got kobai.int64"),
        (
            lambda: kobai.cov(T(X), fweights=T(OFTEN[1:])),
            r"cov: expected fweights for 6 observations, got shape \(5,\)",
        ),
        (lambda: kobai.cov(T(X), fweights=T(OFTEN[None])), r"cov: expected fweights for 6 .* \(1, 6\)"),
        (lambda: kobai.cov(T(X), aweights=T(-MUCH)), "cov: expected aweights >= 0, got -2.0"),
        (lambda: kobai.cov(T(X), fweights=T(0 * OFTEN)), "cov: expected weights of which at least one is not 0"),
        (
            lambda: kobai.diff(T(X), prepend=T(X[0])),
            r"diff: expected prepend and append of .* \(4, 6\), but for dimension 1, got",
        ),
        (lambda: kobai.diff(T(X), append=T(X[:3])), r"diff: expected .* got \(3, 6\)"),
        (lambda: kobai.quantile(T(X), 1.5), r"quantile: expected q in \[0, 1\]"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(RuntimeError, match=message):
        call()
