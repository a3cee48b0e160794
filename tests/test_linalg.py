"""kobai.linalg against NumPy; the gradients are examined through the registry."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import kobai
from kobai import linalg
from kobai.gradcheck import gradcheck

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


@pytest.mark.parametrize(
    "decompose",
    [
        linalg.svd,
        linalg.svdvals,
        linalg.eigh,
        linalg.eigvalsh,
        linalg.pinv,
        linalg.matrix_rank,
        linalg.cond,
        lambda x: linalg.matrix_norm(x, "nuc"),
        lambda x: linalg.lstsq(x[0], x[0]),
    ],
)
def test_decompositions_of_nan_are_errors(decompose, backend):
    """CuPy would give NaN, of which the rank is 0, unless it is asked to look."""
    with pytest.raises(np.linalg.LinAlgError):
        decompose(kobai.full((2, 3, 3), np.nan))


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 1], [1, 1]],
        [[1, 2, 3], [2, 4, 6], [1, 1, 1]],
        [[1, 2, 3], [2, 4, 6], [3, 6, 9]],
        [[0, 0], [0, 0]],
        [[0, 0], [0, 5]],
        [[2, 1], [1, 3]],
    ],
    ids=str,
)
def test_the_gradient_of_a_determinant_is_that_of_its_cofactors(rows, backend):
    """Also where there is no inverse; beside a matrix that has one too."""
    n = len(rows)
    x = T(np.stack([np.array(rows, float), np.eye(n) * 2])).requires_grad_()
    (dx,) = kobai.autograd.grad(linalg.det(x).sum(), [x])

    def minor(i, j):
        rest = np.delete(np.delete(np.array(rows, float), i, 0), j, 1)
        return (-1) ** (i + j) * np.linalg.det(rest)

    close(dx[0], [[minor(i, j) for j in range(n)] for i in range(n)])
    close(dx[1], 2.0 ** (n - 1) * np.eye(n))


def test_the_logarithm_of_a_singular_determinant_has_an_infinite_gradient(backend):
    x = T(np.array([[[1.0, 1.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 4.0]]])).requires_grad_()
    sign, logarithm = linalg.slogdet(x)
    assert (sign.tolist(), logarithm[0].item()) == ([0, 1], -np.inf)
    (dx,) = kobai.autograd.grad(logarithm.sum(), [x])
    assert kobai.isinf(dx[0]).all()
    close(dx[1], [[0.5, 0], [0, 0.25]])


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


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dims", [(0, 1), (1, 0), (-1, 0), (2, 1)], ids=str)
@pytest.mark.parametrize("order", ["fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf])
def test_two_dimensions_are_a_matrix_not_a_vector(order, dims, keepdim, backend):
    x = RNG.normal(size=(2, 3, 4))
    t = kobai.tensor(x, device=kobai.xp.default_device())
    for found in (linalg.norm(t, order, dims, keepdim), linalg.matrix_norm(t, order, dims, keepdim)):
        close(found.cpu(), np.linalg.norm(x, order, dims, keepdim))


def test_one_dimension_is_a_vector():
    x = RNG.normal(size=(3, 4))
    for order in (1, 2, 3, 0, np.inf, -np.inf):
        for dim in (0, (1,), -1):
            axis = dim[0] if isinstance(dim, tuple) else dim
            close(linalg.norm(T(x), order, dim), np.linalg.norm(x, order, axis))
        close(linalg.norm(T(x[0]), order), np.linalg.norm(x[0], order))
    assert linalg.norm(T(x), keepdim=True).shape == (1, 1)
    assert linalg.norm(T(x).float(), 1, dim=0, dtype=kobai.float64).dtype == kobai.float64


@pytest.mark.parametrize("shape", [(5, 0), (0, 5), (0, 0)], ids=str)
def test_the_norm_of_a_matrix_without_elements_is_zero(shape):
    for order in ("fro", "nuc", 1, 2, np.inf):
        assert linalg.matrix_norm(kobai.ones(shape), order).item() == 0
    with pytest.raises(IndexError, match="at least one element"):
        linalg.matrix_norm(kobai.ones(shape), -2)


def test_norms_of_matrices_have_gradients():
    x = T(RNG.normal(size=(2, 3, 4))).requires_grad_()
    for order in ("fro", 1, -1, np.inf, -np.inf):
        assert gradcheck(lambda x, order=order: linalg.matrix_norm(x, order), (x,))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 50, 4)], ids=str)
def test_what_is_rounding_counts_as_zero(shape, dtype):
    """A singular value below max(n, m) ε σ₁ is one of a matrix of lower rank, whose inverse it would fill with noise."""
    *batch, n, m = shape
    exact = RNG.normal(size=(*batch, n, 2)) @ RNG.normal(size=(*batch, 2, m))
    rounded = kobai.tensor(exact.astype(dtype))
    assert (linalg.matrix_rank(rounded).array == 2).all()
    near = 2e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(linalg.pinv(rounded).array, np.linalg.pinv(exact, rcond=1e-8), rtol=near, atol=near)


def test_cut_offs_can_be_chosen():
    x = T(np.diag([4.0, 1.0, 0.01]))
    assert [linalg.matrix_rank(x, **o).item() for o in ({"atol": 0.1}, {"rtol": 0.3}, {"atol": 2.0, "rtol": 0.1})] == [
        2,
        1,
        1,
    ]
    close(linalg.pinv(x, atol=0.1), np.diag([0.25, 1.0, 0.0]))
    both = kobai.stack([x, x])
    assert linalg.matrix_rank(both, atol=T(np.array([0.1, 2.0]))).tolist() == [2, 1]
    lower = T(np.array([[2.0, 99.0], [1.0, 3.0]]))
    close(linalg.pinv(lower, hermitian=True), np.linalg.inv([[2.0, 1.0], [1.0, 3.0]]))
    assert linalg.matrix_rank(lower, hermitian=True).item() == 2


def test_cross_product():
    a, b = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    close(linalg.cross(T(a), T(b)), np.cross(a, b))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linalg.inv(T(TALL)), RuntimeError, r"inv: expected square matrices \(\.\.\., n, m\), got \(6, 3\)"),
        (lambda: linalg.det(kobai.ones(3)), RuntimeError, r"det: expected square matrices"),
        (lambda: linalg.inv(kobai.eye(2, dtype=kobai.int64)), RuntimeError, "inv: expected floats, got kobai.int64"),
        (lambda: linalg.solve([[1.0]], T(A)), TypeError, "solve: expected a Tensor, got list"),
        (lambda: linalg.svd(T(TALL), driver="gesvd"), RuntimeError, "svd: expected driver=None"),
        (
            lambda: linalg.qr(T(TALL), "full"),
            RuntimeError,
            "qr: expected mode 'reduced', 'complete' or 'r', got 'full'",
        ),
        (lambda: linalg.lstsq(T(TALL), T(TALL), driver="qr"), RuntimeError, "lstsq: expected driver 'gels'"),
        (lambda: linalg.lstsq(T(TALL), T(A)), RuntimeError, r"lstsq: expected B with 6 rows, got shape \(4, 4\)"),
        (
            lambda: linalg.lstsq(T(TALL), kobai.ones(6)),
            RuntimeError,
            "lstsq: expected B of kobai.float64, got kobai.float32",
        ),
        (lambda: linalg.cond(T(TALL), 1), RuntimeError, "cond: expected square matrices"),
        (lambda: linalg.matrix_norm(T(A), 7), ValueError, "matrix_norm: expected ord"),
        (lambda: linalg.norm(kobai.ones(2, 2, 2), 1), RuntimeError, "linalg.norm: expected dim, or a vector or matrix"),
        (lambda: linalg.norm(kobai.ones(2, 2, 2), 1, (0, 1, 2)), RuntimeError, "expected one or two dimensions"),
        (lambda: linalg.norm(kobai.ones(3), "fro"), ValueError, "vector_norm: expected a number as ord"),
        (lambda: linalg.matrix_norm(kobai.ones(2, 2), 1, (0, -2)), RuntimeError, "two different dimensions"),
        (lambda: linalg.matrix_norm(kobai.ones(2, 2), 1, 0), RuntimeError, "expected two dimensions as dim"),
        (lambda: linalg.matrix_norm(kobai.ones(3)), RuntimeError, "matrix_norm: expected matrices"),
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


@pytest.mark.parametrize("triangle", ["L", "U", "l", "u"])
def test_eigenvalues_of_the_triangle_that_counts(triangle, backend):
    counts = np.tril if triangle in "lL" else np.triu
    half = np.where(counts(np.ones_like(SYMMETRIC)), SYMMETRIC, 7.0)
    w, v = linalg.eigh(T(half), triangle)
    close(w, np.linalg.eigvalsh(SYMMETRIC))
    close(T(SYMMETRIC) @ v - v * w, np.zeros_like(SYMMETRIC))
    close(linalg.eigvalsh(T(half), UPLO=triangle), np.linalg.eigvalsh(SYMMETRIC))


def test_the_upper_cholesky_factor(backend):
    upper = linalg.cholesky(T(SYMMETRIC), upper=True)
    close(upper, np.linalg.cholesky(SYMMETRIC).swapaxes(-1, -2))
    assert kobai.equal(upper, kobai.cholesky(T(SYMMETRIC), upper=True))


def cholesky_of_one_triangle(module, tensor, upper):
    """The factor and its gradient, where the other triangle holds NaN."""
    matrices = BATCH @ BATCH.swapaxes(-1, -2) + np.eye(4)
    kept = np.triu(np.ones((4, 4), bool)) if upper else np.tril(np.ones((4, 4), bool))
    half = tensor(np.where(kept, matrices, np.nan)).requires_grad_()
    factor = module.linalg.cholesky(half, upper=upper)
    (factor * tensor(np.arange(48.0).reshape(3, 4, 4))).sum().backward()
    return factor, half.grad


@pytest.mark.parametrize("upper", [False, True])
def test_cholesky_reads_one_triangle(upper, backend):
    factor, gradient = cholesky_of_one_triangle(kobai, T, upper)
    whole = factor.mT @ factor if upper else factor @ factor.mT
    close(whole, BATCH @ BATCH.swapaxes(-1, -2) + np.eye(4))
    assert kobai.equal(gradient, gradient.mT)
    free = T(BATCH).requires_grad_()
    assert gradcheck(lambda free: linalg.cholesky(free @ free.mT, upper=upper), (free,))


@pytest.mark.oracle
@pytest.mark.parametrize("upper", [False, True])
def test_cholesky_and_its_gradient_as_pytorch(upper):
    torch = importlib.import_module("torch")
    for ours, theirs in zip(
        cholesky_of_one_triangle(kobai, T, upper), cholesky_of_one_triangle(torch, torch.tensor, upper), strict=True
    ):
        close(ours, theirs.detach().numpy())


@pytest.mark.parametrize("function", [linalg.eigh, linalg.eigvalsh])
def test_another_triangle_is_refused(function):
    with pytest.raises(RuntimeError, match=f"{function.__name__}: expected UPLO 'L' or 'U', got 'X'"):
        function(kobai.eye(2), UPLO="X")
    with pytest.raises(TypeError, match="expected UPLO 'L' or 'U', got 3"):
        function(kobai.eye(2), 3)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 3, 4), (3, 0)], ids=str)
def test_norms_of_singular_values_are_differentiable(shape, backend):
    x = kobai.tensor(RNG.normal(size=shape), requires_grad=True)
    functions = [linalg.svdvals, lambda x: kobai.norm(x, "nuc", (-2, -1)), lambda x: linalg.matrix_norm(x, 2)]
    if x.numel():
        functions += [lambda x: linalg.matrix_norm(x, -2), lambda x: linalg.cond(x)]
    for function in functions:
        assert kobai.autograd.gradcheck(function, [x], rtol=1e-5)


def test_the_nuclear_norm_is_of_matrices(backend):
    x = RNG.normal(size=(2, 3, 4))
    expected = np.linalg.svd(x.swapaxes(1, 2), compute_uv=False).sum(-1)
    for dim in ((1, 2), (-1, 1)):
        close(kobai.norm(T(x), "nuc", dim), expected)
        close(T(x).norm("nuc", dim, keepdim=True), expected[:, None, None])
    close(kobai.norm(T(A), "nuc"), np.linalg.norm(A, "nuc"))
    assert kobai.norm(kobai.ones(2, 2), "nuc", dtype=kobai.float64).dtype == np.float64
    for refused in (
        lambda: kobai.norm(T(x), "nuc"),
        lambda: kobai.norm(T(x), "nuc", 1),
        lambda: T(x[0, 0]).norm("nuc"),
    ):
        with pytest.raises(RuntimeError, match="norm: expected two dimensions for 'nuc'"):
            refused()


def test_what_is_constant_has_the_gradient_zero(backend):
    x = kobai.tensor(BATCH, requires_grad=True)
    for y in (linalg.matrix_power(x, 0), linalg.slogdet(x).sign, linalg.slogdet(x[:0]).sign):
        (dx,) = kobai.autograd.grad(y.sum(), [x])
        close(dx, 0 * BATCH)
    empty = kobai.ones(0, 0, dtype=kobai.float64, requires_grad=True)
    assert [part.item() for part in linalg.slogdet(empty)] == [1, 0]
    assert linalg.slogdet(empty).sign.requires_grad


def test_the_first_power_is_the_matrix(backend):
    x = kobai.tensor([[np.inf, 0.0], [0.0, 1.0]])
    y = linalg.matrix_power(x, 1)
    assert y.tolist() == x.tolist()  # a product with I would make NaN of 0 · ∞
    y[0, 0] = 5
    assert x[0, 0].item() == np.inf


def test_powers_of_elements(backend):
    assert linalg.vander(kobai.tensor(2.0), N=3).tolist() == [[1, 2, 4]]
    assert linalg.vander(kobai.ones(0, 3)).shape == (0, 3, 3)
    bytes_ = linalg.vander(kobai.tensor([200], dtype=kobai.uint8), N=3)
    assert (bytes_.dtype, bytes_.tolist()) == (np.int64, [[1, 200, 40000]])
    for refused, message in (
        (lambda: linalg.vander(kobai.tensor(2.0)), "vander: expected N >= 2, got 1"),
        (lambda: linalg.vander(kobai.ones(3), N=0), "vander: expected N >= 2, got 0"),
        (lambda: kobai.vander(kobai.ones(2, 2)), r"vander: expected a vector, got shape \(2, 2\)"),
        (lambda: kobai.vander(kobai.ones(2), -1), "vander: expected N >= 0, got -1"),
    ):
        with pytest.raises(RuntimeError, match=message):
            refused()


@pytest.mark.parametrize("upper", [False, True])
def test_of_a_cholesky_factor_one_triangle_counts(upper, backend):
    keep = np.triu if upper else np.tril
    factor = keep(A)
    whole = factor.T @ factor if upper else factor @ factor.T
    full = kobai.tensor(A, requires_grad=True)
    b = RNG.normal(size=(4, 2))
    close(kobai.cholesky_inverse(full, upper), np.linalg.inv(whole))
    close(kobai.cholesky_solve(T(b), full, upper), np.linalg.solve(whole, b))
    for y in (kobai.cholesky_inverse(full, upper), kobai.cholesky_solve(T(b), full, upper)):
        (dx,) = kobai.autograd.grad(y.sum(), [full])
        close(dx, keep(dx.cpu().numpy()))


@pytest.mark.parametrize("shape", [(3, 2), (2, 4, 5), (0, 2)])
def test_svd_without_vectors(shape):
    x = kobai.randn(*shape)
    found = kobai.svd(x, compute_uv=False)
    assert kobai.equal(found.S, kobai.linalg.svdvals(x))
    assert found.U.shape == (*shape[:-1], shape[-2])
    assert found.V.shape == (*shape[:-2], shape[-1], shape[-1])
    assert not found.U.any()
    assert not found.V.any()
