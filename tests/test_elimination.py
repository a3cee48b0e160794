"""LU, Cholesky and inverses that say what went wrong instead of raising; reflections; equations of tensors."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai import linalg
from kobai.gradcheck import gradcheck

RNG = np.random.default_rng(2)
SHAPES = [(3, 3), (4, 3), (3, 5), (2, 3, 3), (2, 2, 4, 2), (0, 3), (3, 0), (0, 2, 2), (1, 1)]


def T(array):
    return kobai.tensor(array, requires_grad=True)


def host(x):
    return x.detach().cpu().numpy() if isinstance(x, kobai.Tensor) else x


def close(x, array):
    np.testing.assert_allclose(host(x), host(array), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pivot", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lu(shape, pivot, backend):
    x = RNG.normal(size=shape)
    p, lower, upper = linalg.lu(T(x), pivot=pivot)
    product = lower @ upper
    close(p @ product if pivot else product, x)
    close(lower, kobai.tril(lower))
    close(upper, kobai.triu(upper))
    if pivot:
        close(p.sum(-1), np.ones(p.shape[:-1]))
        assert not x.size or lower.detach().abs().max().item() <= 1
    weights = kobai.tensor(RNG.normal(size=shape))
    assert gradcheck(lambda x: (linalg.lu_factor_ex(x, pivot=pivot).LU * weights).sum(), (T(x),), rtol=1e-5)
    assert gradcheck(lambda x: linalg.lu(x, pivot=pivot)[1:], (T(x),), rtol=1e-5)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("adjoint", [True, False])
@pytest.mark.parametrize("batch", [(), (2,), (0,)], ids=str)
def test_systems_of_a_factored_matrix(left, adjoint, batch, backend):
    a, b = RNG.normal(size=(*batch, 3, 3)), RNG.normal(size=(3, 2) if left else (2, 3))
    lu, pivots = linalg.lu_factor(T(a))
    x = linalg.lu_solve(lu, pivots, T(b), left=left, adjoint=adjoint)
    whole = a.swapaxes(-1, -2) if adjoint else a
    close(whole @ host(x) if left else host(x) @ whole, np.broadcast_to(b, x.shape))
    assert gradcheck(
        lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b, left=left, adjoint=adjoint), (T(a), T(b)), rtol=1e-5
    )
    if left and not adjoint:
        close(kobai.lu_solve(T(b), *kobai.lu(T(a))), x)
        close(T(b).lu_solve(*T(a).lu()), x)


SINGULAR = np.array([[[1.0, 2.0], [2.0, 4.0]], [[2.0, 1.0], [1.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]])


def test_singular_matrices_say_so(backend):
    assert linalg.lu_factor_ex(T(SINGULAR)).info.tolist() == [2, 0, 1]
    p, lower, upper = linalg.lu(T(SINGULAR))
    close(p @ lower @ upper, SINGULAR)
    inverse, info = linalg.inv_ex(T(SINGULAR))
    assert info.tolist() == [2, 0, 1]
    close(inverse[1], np.linalg.inv(SINGULAR[1]))
    assert not kobai.isfinite(inverse[0]).any()
    for b in (RNG.normal(size=(3, 2, 4)), RNG.normal(size=(3, 2)), RNG.normal(size=2)):
        x, info = linalg.solve_ex(T(SINGULAR), T(b))
        assert info.tolist() == [2, 0, 1]
        close(x[1], np.linalg.solve(SINGULAR[1], b if b.ndim == 1 else b[1]))
        assert kobai.isnan(x[0]).all()
    for refused, who in (
        (lambda: linalg.lu_factor(T(SINGULAR).cpu()), "lu_factor: expected a matrix that is not singular"),
        (lambda: linalg.lu_factor_ex(T(SINGULAR), check_errors=True), "lu_factor_ex: expected a matrix"),
        (lambda: linalg.inv_ex(T(SINGULAR), check_errors=True), "inv_ex: expected a matrix that is not singular"),
        (lambda: linalg.solve_ex(T(SINGULAR), T(SINGULAR), check_errors=True), "solve_ex: expected"),
        (lambda: linalg.cholesky_ex(T(SINGULAR), check_errors=True), "cholesky_ex: expected .* positive definite"),
    ):
        with pytest.raises(linalg.LinAlgError, match=who):
            refused()


@pytest.mark.parametrize("upper", [False, True])
def test_cholesky_with_info(upper, backend):
    good = RNG.normal(size=(4, 4))
    good = good @ good.T + np.eye(4)
    bad = good.copy()
    bad[2, 2] = -1
    triangle = np.triu if upper else np.tril
    factor, info = linalg.cholesky_ex(T(triangle(np.stack([good, bad, good]))), upper=upper)
    assert info.tolist() == [0, 3, 0]
    expected = np.linalg.cholesky(good)
    for i in (0, 2):
        close(factor[i], expected.T if upper else expected)

    def of_symmetric(x):
        return linalg.cholesky_ex((x @ x.mT), upper=upper).L

    assert gradcheck(of_symmetric, (T(RNG.normal(size=(2, 3, 3)) + 2 * np.eye(3)),), rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 3), (3, 3), (2, 5, 3), (4, 0)], ids=str)
def test_reflections(shape, backend):
    x = RNG.normal(size=shape)
    a, tau = kobai.geqrf(T(x).detach())
    q = kobai.orgqr(a, tau)
    close(q @ a[..., : shape[-1], :].triu(), x)
    close(q.mT @ q, np.broadcast_to(np.eye(shape[-1]), (*shape[:-2], shape[-1], shape[-1])))
    other = RNG.normal(size=(*shape[:-2], shape[-2], 2))
    once = kobai.ormqr(a, tau, T(other))
    close(kobai.ormqr(a, tau, once, transpose=True), other)
    close(kobai.ormqr(a, tau, T(other).mT, left=False, transpose=True).mT, once)
    assert gradcheck(linalg.householder_product, (T(x), T(RNG.normal(size=tau.shape))), rtol=1e-5)
    with pytest.raises(NotImplementedError, match="geqrf: the gradient is not implemented"):
        kobai.geqrf(T(x))


def test_equations_of_tensors(backend):
    a = RNG.normal(size=(2, 3, 6))
    b = RNG.normal(size=(2, 3))
    close(linalg.tensorinv(T(a)), np.linalg.tensorinv(a))
    close(linalg.tensorsolve(T(a), T(b)), np.linalg.tensorsolve(a, b))
    turned = np.moveaxis(a, -1, 0)
    close(linalg.tensorsolve(T(turned), T(b), dims=(0,)), np.linalg.tensorsolve(turned, b, (0,)))
    assert gradcheck(linalg.tensorinv, (T(a),), rtol=1e-5)
    assert gradcheck(linalg.tensorsolve, (T(a), T(b)), rtol=1e-5)
    for refused, message in (
        (lambda: linalg.tensorinv(kobai.ones(2, 3)), "tensorinv: expected as many elements"),
        (lambda: linalg.tensorinv(kobai.ones(2, 2), 0), "tensorinv: expected ind > 0, got 0"),
        (lambda: linalg.tensorsolve(kobai.ones(2, 3), kobai.ones(2)), "tensorsolve: expected A of the shape of B"),
        (lambda: linalg.householder_product(kobai.ones(2, 3), kobai.ones(3)), "householder_product: expected A"),
        (lambda: kobai.lu_unpack(kobai.ones(2, 2), kobai.tensor([1, 2])), "lu_unpack: expected pivots of int32"),
        (lambda: linalg.solve(kobai.eye(2), kobai.ones(2), left=False), "solve: expected matrices as B if left=False"),
        (lambda: linalg.solve(kobai.eye(2), kobai.ones(3, 1)), "solve: expected matrices of as many rows"),
    ):
        with pytest.raises(RuntimeError, match=message):
            refused()


def test_unpacking_one_half():
    factored = linalg.lu_factor(T(RNG.normal(size=(3, 3))))
    p, lower, upper = kobai.lu_unpack(*factored, unpack_data=False)
    assert (p.shape, lower.numel(), upper.numel()) == ((3, 3), 0, 0)
    p, lower, _ = kobai.lu_unpack(*factored, unpack_pivots=False)
    assert (p.numel(), lower.shape) == (0, (3, 3))
    assert len(T(SINGULAR).lu(get_infos=True)) == 3


def test_captured():
    def step(x):
        x = x.detach().requires_grad_()
        p, lower, upper = linalg.lu(x)
        loss = (
            (p @ lower.square()).sum() + upper.sum() + linalg.cholesky_ex(x @ x.mT).L.sum() + linalg.inv_ex(x)[0].sum()
        )
        loss.backward()
        return loss.detach(), x.grad

    captured = kobai.capture(step)
    for seed in range(4):
        x = kobai.tensor(np.random.default_rng(seed).normal(size=(2, 3, 3)))
        for left, right in zip(captured(x), step(x), strict=True):
            np.testing.assert_allclose(left.numpy(), right.numpy(), rtol=1e-9)


def test_a_matrix_instead_of_a_batch_of_right_hand_sides():
    """Of triangles the right-hand side is always a matrix; of solve, what has the shape of A without a column is vectors."""
    a, b = RNG.normal(size=(3, 3, 3)) + 3 * np.eye(3), RNG.normal(size=(3, 3))
    close(linalg.solve_triangular(T(a), T(b), upper=True), np.linalg.solve(np.triu(a), np.broadcast_to(b, (3, 3, 3))))
    close(linalg.solve(T(a), T(b)), np.linalg.solve(a, b[..., None])[..., 0])
    close(linalg.solve(T(a[0]), T(b), left=False), b @ np.linalg.inv(a[0]))
