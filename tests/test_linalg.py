"""kobai.linalg against NumPy; the gradients are examined through the registry."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai import linalg

RNG = np.random.default_rng(0)
A = RNG.normal(size=(4, 4)) + 4 * np.eye(4)
BATCH = RNG.normal(size=(3, 4, 4)) + 4 * np.eye(4)
TALL = RNG.normal(size=(6, 3))
SYMMETRIC = A @ A.T + np.eye(4)


def T(array):
    return kobai.as_tensor(array)


def close(tensor, array):
    np.testing.assert_allclose(tensor.tolist(), array, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("x", [A, BATCH], ids=["one", "batch"])
def test_inverse_determinant_system(x, backend):
    close(linalg.inv(T(x)), np.linalg.inv(x))
    close(linalg.det(T(x)), np.linalg.det(x))
    sign, logabs = linalg.slogdet(T(x))
    close(sign, np.linalg.slogdet(x)[0])
    close(logabs, np.linalg.slogdet(x)[1])
    b = RNG.normal(size=(*x.shape[:-1], 2))
    close(linalg.solve(T(x), T(b)), np.linalg.solve(x, b))


def test_one_right_hand_side():
    b = RNG.normal(size=4)
    close(linalg.solve(T(A), T(b)), np.linalg.solve(A, b))


@pytest.mark.parametrize(
    "shapes", [((3, 4, 4), (4,)), ((3, 4, 4), (3, 4)), ((3, 4, 4), (4, 2)), ((4, 4), (3, 4, 2))], ids=str
)
def test_systems_broadcast(shapes, backend):
    a, b = (RNG.normal(size=shape) for shape in shapes)
    a += 4 * np.eye(4)
    left, right = (kobai.tensor(array, requires_grad=True) for array in (a, b))
    x = linalg.solve(left, right)
    vectors = b.ndim == 1 or b.shape == a.shape[:-1]
    found = left @ (x.unsqueeze(-1) if vectors else x)
    close(found.squeeze(-1) if vectors else found, np.broadcast_to(b, x.shape))
    assert kobai.autograd.gradcheck(linalg.solve, [left, right], rtol=1e-6)


def test_matrices_without_an_inverse_or_factor(backend):
    for refused in (
        linalg.inv,
        lambda x: linalg.solve(x, T(np.ones(2))),
        lambda x: linalg.cholesky(-kobai.eye(2, dtype=x.dtype)),
    ):
        with pytest.raises(np.linalg.LinAlgError):
            refused(kobai.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=kobai.float64))


def test_decompositions_multiply_back_to_the_matrix(backend):
    u, s, vh = linalg.svd(T(TALL), full_matrices=False)
    close(u @ kobai.diag(s) @ vh, TALL)
    close(linalg.svdvals(T(TALL)), np.linalg.svd(TALL, compute_uv=False))
    q, r = linalg.qr(T(TALL))
    close(q @ r, TALL)
    w, v = linalg.eigh(T(SYMMETRIC))
    close(v @ kobai.diag(w) @ v.T, SYMMETRIC)
    close(linalg.eigvalsh(T(SYMMETRIC)), np.linalg.eigvalsh(SYMMETRIC))
    lower = linalg.cholesky(T(SYMMETRIC))
    close(lower @ lower.T, SYMMETRIC)
    close(linalg.pinv(T(TALL)), np.linalg.pinv(TALL))


def test_least_squares_rank_powers_norms():
    b = RNG.normal(size=(6, 2))
    solution, _, rank, _ = linalg.lstsq(T(TALL), T(b))
    close(solution, np.linalg.lstsq(TALL, b, rcond=None)[0])
    assert rank.item() == 3
    assert linalg.matrix_rank(T(np.ones((4, 3)))).item() == 1
    for n in (-2, 0, 1, 5):
        close(linalg.matrix_power(T(A), n), np.linalg.matrix_power(A, n))
    for order in ("fro", "nuc", 2):
        close(linalg.matrix_norm(T(TALL), order), np.linalg.norm(TALL, order))
        close(linalg.norm(T(TALL), order), np.linalg.norm(TALL, order))
    close(linalg.norm(T(TALL)), np.linalg.norm(TALL))
    close(linalg.vector_norm(T(TALL), 1, dim=0), np.abs(TALL).sum(0))


def test_cross_product():
    a, b = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    close(linalg.cross(T(a), T(b)), np.cross(a, b))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linalg.inv(T(TALL)), RuntimeError, r"inv: expected square matrices \(\.\.\., n, m\), got \(6, 3\)"),
        (lambda: linalg.det(kobai.ones(3)), RuntimeError, r"det: expected square matrices"),
        (lambda: linalg.inv(kobai.eye(2, dtype=kobai.int64)), RuntimeError, "inv: expected floats, got int64"),
        (lambda: linalg.solve([[1.0]], T(A)), TypeError, "solve: expected a Tensor, got list"),
        (lambda: linalg.svd(T(TALL).requires_grad_()), NotImplementedError, "svd: the gradient is not implemented"),
        (lambda: linalg.matrix_norm(T(A), 7), ValueError, "matrix_norm: expected ord"),
        (
            lambda: linalg.cross(kobai.ones(2), kobai.ones(2)),
            RuntimeError,
            "cross: expected 3 elements along dim -1, got 2",
        ),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
