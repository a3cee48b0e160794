"""Linear algebra against NumPy and PyTorch, its gradients, and PyTorch's older names for it."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import kobai
from kobai import linalg
from kobai.gradcheck import gradcheck

RNG = np.random.default_rng(0)
A = RNG.standard_normal((4, 4)) + 3 * np.eye(4)
S = A @ A.T
B = RNG.standard_normal((4, 2))
RECTANGLE = RNG.standard_normal((5, 3))
LOWER = np.linalg.cholesky(S)

# name -> call of a module (torch or kobai) and its tensors
CASES = {
    "solve_triangular": lambda m, a, s, b: m.linalg.solve_triangular(a, b, upper=False),
    "solve_triangular upper": lambda m, a, s, b: m.linalg.solve_triangular(a, b, upper=True, unitriangular=True),
    "solve_triangular right": lambda m, a, s, b: m.linalg.solve_triangular(a, b.T, upper=True, left=False),
    "solve_triangular unit": lambda m, a, s, b: m.linalg.solve_triangular(a, b, upper=False, unitriangular=True),
    "multi_dot": lambda m, a, s, b: m.linalg.multi_dot([b.T, a, s, b]),
    "multi_dot vectors": lambda m, a, s, b: m.linalg.multi_dot([a[0], s, b, b[1]]),
    "vecdot": lambda m, a, s, b: m.linalg.vecdot(a, s, dim=0),
    "diagonal": lambda m, a, s, b: m.linalg.diagonal(a, offset=1),
    "vander": lambda m, a, s, b: m.linalg.vander(a[0], N=3),
    "vander square": lambda m, a, s, b: m.linalg.vander(a),
    "cond": lambda m, a, s, b: m.linalg.cond(a),
    "cond fro": lambda m, a, s, b: m.linalg.cond(a, "fro"),
    "matrix_exp": lambda m, a, s, b: m.linalg.matrix_exp(a),
    "matrix_exp small": lambda m, a, s, b: m.matrix_exp(a * 0.01),
    "inverse": lambda m, a, s, b: m.inverse(a),
    "a.inverse": lambda m, a, s, b: a.inverse(),
    "pinverse": lambda m, a, s, b: m.pinverse(b),
    "logdet": lambda m, a, s, b: m.logdet(s),
    "logdet negative": lambda m, a, s, b: m.logdet(-s[:3, :3]),
    "a.det": lambda m, a, s, b: a.det(),
    "slogdet": lambda m, a, s, b: m.slogdet(a)[1],
    "matrix_power": lambda m, a, s, b: a.matrix_power(3),
    "cholesky": lambda m, a, s, b: m.cholesky(s),
    "cholesky upper": lambda m, a, s, b: s.cholesky(upper=True),
    "cholesky_solve": lambda m, a, s, b: m.cholesky_solve(b, m.linalg.cholesky(s)),
    "cholesky_solve upper": lambda m, a, s, b: b.cholesky_solve(m.linalg.cholesky(s).mT, upper=True),
    "cholesky_inverse": lambda m, a, s, b: m.cholesky_inverse(m.linalg.cholesky(s)),
    "cholesky_inverse upper": lambda m, a, s, b: m.cholesky_inverse(m.linalg.cholesky(s).mT, upper=True),
    "triangular_solve": lambda m, a, s, b: m.triangular_solve(b, a)[0],
    "triangular_solve transposed": lambda m, a, s, b: m.triangular_solve(b, a, upper=False, transpose=True)[0],
    "svd": lambda m, a, s, b: m.svd(b)[1],
    "svd product": lambda m, a, s, b: (lambda u, d, v: u @ m.diag(d) @ v.T)(*b.svd()),
    "svd whole": lambda m, a, s, b: b.svd(some=False)[0].abs().shape[1] * m.ones(1),
    "qr": lambda m, a, s, b: m.qr(b)[1].abs(),
    "pca_lowrank": lambda m, a, s, b: m.pca_lowrank(a, q=4)[1],
    "chain_matmul": lambda m, a, s, b: m.linalg.multi_dot([a, s, a]) if m is not kobai else m.chain_matmul(a, s, a),
    "inner": lambda m, a, s, b: m.inner(a, s),
    "inner with a number": lambda m, a, s, b: m.inner(a, s[0, 0]),
    "vdot": lambda m, a, s, b: m.vdot(a[0], s[0]),
    "ger": lambda m, a, s, b: m.ger(a[0], b[:, 0]),
    "cross": lambda m, a, s, b: m.cross(a[:, :3], s[:, :3], dim=1),
}
NO_GRADIENT = ("cond", "pinverse", "svd", "qr", "pca")


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_values_as_pytorch(case):
    torch = importlib.import_module("torch")
    expected = CASES[case](torch, *(torch.tensor(x) for x in (A, S, B))).numpy()
    result = CASES[case](kobai, *(kobai.tensor(x) for x in (A, S, B))).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith(NO_GRADIENT) and "negative" not in c])
def test_gradients(case):
    tensors = [kobai.tensor(x, requires_grad=True) for x in (A / 3, S / 10, B)]
    assert gradcheck(lambda a, s, b: CASES[case](kobai, a, s, b), tensors)


@pytest.mark.parametrize("case", [c for c in CASES if not c.startswith(("cross", "cond fro"))])
def test_every_backend_gives_the_same(case, backend):
    tensors = [kobai.tensor(x) for x in (A, S, B)]
    expected = CASES[case](kobai, *(x.cpu() for x in tensors))
    result = CASES[case](kobai, *tensors)
    np.testing.assert_allclose(result.cpu().numpy(), expected.cpu().numpy(), rtol=1e-10)


def test_a_singular_matrix_raises_linalgerror():
    with pytest.raises(linalg.LinAlgError):
        linalg.inv(kobai.zeros(2, 2))


def test_chain_of_one():
    a = kobai.eye(2)
    assert kobai.chain_matmul(a) is a


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linalg.multi_dot([kobai.eye(2)]), RuntimeError, "at least two"),
        (lambda: linalg.multi_dot([kobai.ones(2, 3), kobai.ones(2, 3)]), RuntimeError, "do not form a chain"),
        (lambda: kobai.qr(kobai.eye(2), some=False), NotImplementedError, "some=False"),
        (lambda: kobai.pca_lowrank(kobai.ones(3, 2), q=3), ValueError, r"q in \[0, 2\], got 3"),
        (lambda: kobai.inner(kobai.ones(2), kobai.ones(3)), RuntimeError, "equal last dimensions"),
        (lambda: linalg.matrix_exp(kobai.ones(2, 3)), RuntimeError, "square"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
