"""Gradients of singular values, eigenvalues, QR, pseudo-inverses, least squares: what is determined of them, by gradcheck."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import kobai
from kobai import linalg
from kobai.gradcheck import gradcheck

RNG = np.random.default_rng(1)
SHAPES = [(4, 3), (3, 4), (3, 3), (2, 4, 3), (2, 3, 5), (2, 1, 3, 3), (1, 1), (0, 3), (3, 0), (0, 2, 2)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def T(array):
    return kobai.tensor(array, requires_grad=True)


def close(tensor, array, tolerance=1e-10):
    np.testing.assert_allclose(tensor.detach().cpu().numpy(), array, rtol=tolerance, atol=tolerance)


def is_right(function, *arrays):
    assert gradcheck(function, tuple(T(a) for a in arrays), rtol=1e-5, atol=1e-7)


def weights(shape):
    return kobai.tensor(np.random.default_rng(5).normal(size=shape))


@shapes
def test_singular_vectors(shape, backend):
    x = RNG.normal(size=shape)
    m, n = shape[-2:]
    for full in (False, True):
        u, s, vh = linalg.svd(T(x), full_matrices=full)
        k = min(m, n)
        assert (u.shape, s.shape, vh.shape) == (
            (*shape[:-2], m, m if full else k),
            (*shape[:-2], k),
            (*shape[:-2], n if full else k, n),
        )
        assert u.is_contiguous()
        close(u[..., :k] @ (s.unsqueeze(-1) * vh[..., :k, :]), x)

    def seen(x):  # what does not hang on the signs of the vectors
        u, s, vh = linalg.svd(x, full_matrices=False)
        return (u * u * weights(u.shape)).sum() + s.sum() + (vh.mT @ (vh * weights(vh.shape))).sum() + (u @ vh).sum()

    is_right(seen, x)
    is_right(lambda x: kobai.svd(x).S, x)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1), (2, 0, 0)], ids=str)
@pytest.mark.parametrize("triangle", ["L", "U"])
def test_eigenvectors(shape, triangle, backend):
    x = RNG.normal(size=shape)

    def seen(x):
        w, v = linalg.eigh((x + x.mT) / 2, triangle)
        return (w * weights(w.shape)).sum() + (v * v * weights(v.shape)).sum() + (v @ (v.mT * weights(v.shape))).sum()

    is_right(seen, x)
    is_right(lambda x: linalg.eigvalsh((x + x.mT) / 2, triangle), x)


@shapes
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr(shape, mode, backend):
    x = RNG.normal(size=shape)
    m, n = shape[-2:]
    q, r = linalg.qr(T(x), mode)
    if mode == "r":
        assert q.shape == (0,)
        is_right(lambda x: linalg.qr(x, mode).R, x)
        return
    close(q @ r, x)
    close(kobai.tril(r, -1), np.zeros(r.shape))
    if mode == "reduced" or m <= n:
        is_right(lambda x: (linalg.qr(x, mode).Q * weights(q.shape)).sum() + linalg.qr(x, mode).R.sum(), x)
    elif x.size:
        with pytest.raises(RuntimeError, match="qr: expected mode 'reduced' for a gradient of more rows"):
            q.sum().backward()


@shapes
def test_pseudo_inverses(shape, backend):
    x = RNG.normal(size=shape)
    close(linalg.pinv(T(x)), np.linalg.pinv(x))
    is_right(linalg.pinv, x)
    is_right(kobai.pinverse, x)
    if shape[-1] == shape[-2]:
        is_right(lambda x: linalg.pinv((x + x.mT) / 2, hermitian=True), x)


def test_pseudo_inverses_of_lower_rank(backend):
    left, right = RNG.normal(size=(2, 5, 2)), RNG.normal(size=(2, 2, 4))
    is_right(lambda a, b: linalg.pinv(a @ b), left, right)
    is_right(lambda a, b: linalg.pinv(a @ b, atol=kobai.tensor([0.01, 0.02])), left, right)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5, 3), (5, 2)),
        ((3, 5), (3, 2)),
        ((2, 5, 3), (2, 5, 1)),
        ((2, 5, 3), (2, 5)),
        ((5, 3), (5,)),
        ((2, 4, 3), (4, 2)),
    ],
    ids=str,
)
def test_least_squares(a, b, backend):
    left, right = RNG.normal(size=a), RNG.normal(size=b)
    vector = len(b) == len(a) - 1 and b == a[:-1]
    exact = np.linalg.pinv(left) @ (right[..., None] if vector else right)
    close(linalg.lstsq(T(left), T(right)).solution, exact[..., 0] if vector else exact)
    is_right(lambda a, b: linalg.lstsq(a, b).solution, left, right)


def test_what_least_squares_gives_beside_the_solution():
    a, b = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(2, 5, 1))
    x, residuals, rank, values = linalg.lstsq(T(a), T(b), driver="gelsd")
    close(residuals, ((a @ x.detach().numpy() - b) ** 2).sum(-2))
    assert rank.tolist() == [3, 3]
    close(values, np.linalg.svd(a, compute_uv=False))
    assert [part.numel() for part in linalg.lstsq(T(a), T(b))[1:]] == [0, 2, 0]
    assert [part.numel() for part in linalg.lstsq(T(a), T(b), driver="gels")[1:]] == [2, 0, 0]
    a[1, :, 2] = a[1, :, 1]
    assert [part.numel() for part in linalg.lstsq(T(a), T(b), driver="gelss")[1:]] == [0, 2, 6]
    assert linalg.lstsq(T(a), T(b), rcond=0.9).rank.tolist() == [1, 1]


@pytest.mark.parametrize("order", [None, 2, -2, 1, -1, np.inf, -np.inf, "fro", "nuc"])
def test_condition_numbers(order, backend):
    x = RNG.normal(size=(2, 3, 3))
    close(linalg.cond(T(x), order), [np.linalg.cond(one, order) for one in x], 1e-8)
    is_right(lambda x: linalg.cond(x, order), x)
    if order not in (None, 2, -2):
        assert linalg.cond(T(np.ones((2, 2))), order).item() > 1e15


def test_equal_singular_values_and_zero(backend):
    """Functions of the values alone are differentiable there, or have a subgradient; none is NaN."""
    for x in (np.eye(3), np.zeros((3, 2)), np.diag([2.0, 2.0, 0.0])):
        t = T(x)
        linalg.svd(t, full_matrices=False).S.sum().backward()
        assert kobai.isfinite(t.grad).all()
        if x.shape[0] == x.shape[1]:
            t = T(x)
            linalg.eigh(t).eigenvalues.sum().backward()
            close(t.grad, np.eye(3))


def test_the_parts_of_a_decomposition_have_memory_of_their_own():
    x = T(RNG.normal(size=(4, 3)))
    u, s, _ = linalg.svd(x, full_matrices=False)
    loss = (u * u).sum()
    s.detach().zero_()
    loss.backward()
    close(x.grad, np.zeros((4, 3)))


@pytest.mark.parametrize("dtype", [kobai.float32, kobai.float64])
def test_dtypes(dtype):
    x = kobai.randn(2, 4, 3, dtype=dtype, requires_grad=True)
    results = [*linalg.svd(x), *linalg.qr(x), linalg.pinv(x), linalg.lstsq(x, x).solution, linalg.cond(x)]
    results += [*linalg.eigh(x.mT @ x), linalg.svdvals(x)]
    assert all(y.dtype == dtype and y.requires_grad for y in results)


def test_captured_decompositions_are_those_of_a_plain_step():
    def step(x):
        x = x.detach().requires_grad_()
        u, s, vh = linalg.svd(x, full_matrices=False)
        q, r = linalg.qr(x)
        loss = (u @ vh).sum() + s.sum() + (q * q[:1]).sum() + r.sum() + linalg.pinv(x).sum()
        loss = loss + linalg.eigh(x.mT @ x).eigenvalues.sum() + linalg.lstsq(x, x[:, :1]).solution.sum()
        loss = loss + linalg.det(x.mT @ x) + linalg.slogdet(x.mT @ x)[1]
        loss.backward()
        return loss.detach(), x.grad

    captured = kobai.capture(step)
    for seed in range(4):
        x = kobai.tensor(np.random.default_rng(seed).normal(size=(4, 3)))
        for left, right in zip(captured(x), step(x), strict=True):
            np.testing.assert_allclose(left.numpy(), right.numpy(), rtol=1e-9)


def test_what_fails_is_a_runtime_error_that_says_who():
    for call, who in (
        (lambda: linalg.inv(kobai.ones(2, 2)), "inv: expected a matrix that is not singular"),
        (lambda: linalg.solve(kobai.ones(2, 2), kobai.ones(2)), "solve: expected a matrix that is not singular"),
        (lambda: linalg.cholesky(-kobai.eye(2)), "cholesky: expected a matrix that is positive definite"),
        (lambda: linalg.svd(kobai.full((3, 3), np.nan)), "svd: expected a matrix of finite numbers"),
        (lambda: linalg.eigh(kobai.full((3, 3), np.nan)), "eigh: expected a matrix of finite numbers"),
        (lambda: linalg.pinv(kobai.full((3, 3), np.nan)), "pinv: expected a matrix of finite numbers"),
    ):
        for error in (RuntimeError, linalg.LinAlgError, np.linalg.LinAlgError):
            with pytest.raises(error, match=who):
                call()


def gradients(module, x):
    t = module.tensor(x, requires_grad=True)
    found = []
    for function in (
        lambda: module.linalg.svd(t, full_matrices=True)[1].sum(),
        lambda: (module.linalg.svd(t, full_matrices=False)[0] @ module.linalg.svd(t, full_matrices=False)[2]).sum(),
        lambda: (module.linalg.qr(t)[1] ** 2).sum(),
        lambda: (module.linalg.pinv(t) ** 3).sum(),
        lambda: (module.linalg.eigh(t @ t.mT)[1][..., -1] ** 2)[..., 0].sum(),
        lambda: module.linalg.cond(t).sum(),
    ):
        t.grad = None
        function().backward()
        found.append(np.array(t.grad.tolist()))
    return found


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 3, 3)], ids=str)
def test_gradients_as_pytorch(shape):
    x = RNG.normal(size=shape)
    torch = importlib.import_module("torch")
    for ours, theirs in zip(gradients(kobai, x), gradients(torch, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
