"""Matrix products: NumPy is the reference for values, the registry for gradients; here shapes, corners, errors."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.nn.functional import linear


def draw(*shape: int, grad: bool = True) -> kobai.Tensor:
    return kobai.randn(*shape, dtype=kobai.float64, requires_grad=grad)


SHAPES = [
    ((4, 3), (3, 2)), ((3,), (3,)), ((3,), (3, 2)), ((4, 3), (3,)), ((2, 4, 3), (2, 3, 5)), ((2, 4, 3), (3, 5)),
    ((5, 1, 4, 3), (2, 3, 5)), ((3,), (2, 3, 4)), ((2, 4, 3), (3,)), ((4, 3), (2, 3, 5)), ((1, 1), (1, 1)),
    ((0, 3), (3, 2)), ((4, 0), (0, 2)), ((2, 4, 0), (0, 2)), ((2, 4, 3), (3, 0)), ((0,), (0,)), ((0, 4, 3), (3, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
def test_matmul_has_numpys_shapes_and_gradients_of_its_operands(a, b, backend):
    x, y = draw(*a), draw(*b)
    z = x @ y
    reference = np.matmul(np.array(x.tolist()).reshape(a), np.array(y.tolist()).reshape(b))
    assert z.shape == reference.shape
    np.testing.assert_allclose(np.array(z.tolist()).reshape(z.shape), reference, rtol=1e-12, atol=1e-14)
    z.sum().backward()
    assert (x.grad.shape, y.grad.shape) == (a, b)


def test_relatives():
    a, b, v = draw(2, 3), draw(3, 4), draw(3)
    for left, right in (
        (kobai.mm(a, b), a @ b),
        (a.mv(v), a @ v),
        (v.dot(v), (v * v).sum()),
        (kobai.outer(v, v), v.reshape(3, 1) * v),
        (kobai.bmm(a[None], b[None]), (a @ b)[None]),
        (kobai.addmm(kobai.ones(4, dtype=kobai.float64), a, b, beta=2, alpha=3), 2 + 3 * (a @ b)),
        (kobai.addmv(v[:2], a, v, beta=0), a @ v),
        (kobai.baddbmm(a[None] @ b, a[None], b[None], alpha=-1), 0 * (a @ b)[None]),
    ):
        assert left.shape == right.shape
        np.testing.assert_allclose(left.detach().array, right.detach().array, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (0, 3), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_is_its_formula(shape, activation, biased, backend):
    x, w, b = draw(*shape), draw(4, 3), draw(4)
    fused = linear(x, w, b if biased else None, activation=activation)
    plain = x @ w.t() + b if biased else x @ w.t()
    plain = plain if activation is None else getattr(kobai, activation)(plain)
    np.testing.assert_allclose(fused.detach().cpu().array, plain.detach().cpu().array, rtol=1e-12, atol=1e-14)
    gradients = []
    for y in (fused, plain):
        for t in (x, w, b):
            t.grad = None
        (y * y).sum().backward()
        gradients.append([t.grad.cpu().array for t in ((x, w, b) if biased else (x, w))])
    for left, right in zip(*gradients, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-12)


def test_no_features():
    x, w, b = draw(2, 5, 0), draw(4, 0), draw(4)
    y = linear(x, w, b)
    np.testing.assert_array_equal(y.detach().array, np.broadcast_to(b.detach().array, (2, 5, 4)))
    y.sum().backward()
    assert (x.grad.shape, w.grad.shape, b.grad.tolist()) == ((2, 5, 0), (4, 0), [10] * 4)


def test_layouts_make_no_difference():
    x, w = draw(3, 5, grad=False), draw(3, 4, grad=False)
    np.testing.assert_allclose((x.t() @ w).array, x.array.T @ w.array, rtol=1e-12)
    np.testing.assert_allclose(linear(x.t(), w.t()).array, x.array.T @ w.array, rtol=1e-12)


def test_low_precision_and_integers():
    half = kobai.ones(2, 3, dtype=kobai.float16)
    assert (half @ half.t()).dtype == kobai.float16
    assert (kobai.arange(4).reshape(2, 2) @ kobai.arange(2)).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("product", "message"),
    [
        (
            lambda: kobai.ones(2, 3) @ kobai.ones(2, 3),
            r"matmul: expected \(..., n, k\) and \(..., k, m\), got \(2, 3\) and",
        ),
        (lambda: kobai.ones(2) @ kobai.ones(3), r"matmul: expected"),
        (lambda: kobai.tensor(1.0) @ kobai.ones(3), r"matmul: expected .*got \(\) and \(3,\)"),
        (lambda: kobai.ones(2, 4, 3) @ kobai.ones(3, 3, 4), r"matmul: expected shapes that broadcast together"),
        (
            lambda: kobai.ones(2, 2) @ kobai.ones(2, 2).double(),
            "matmul: expected tensors of one dtype, got float32, float64",
        ),
        (
            lambda: kobai.mm(kobai.ones(2), kobai.ones(2, 2)),
            r"mm: expected tensors of 2 and 2 dimensions, got shapes \(2,\)",
        ),
        (lambda: kobai.bmm(kobai.ones(2, 2, 2), kobai.ones(3, 2, 2)), "bmm: expected equal batch sizes, got 2 and 3"),
        (lambda: kobai.dot(kobai.ones(2, 2), kobai.ones(2)), "dot: expected tensors of 1 and 1 dimensions"),
        (
            lambda: kobai.dot(kobai.ones(3), kobai.ones(4)),
            r"^dot: expected vectors of one length, got \(3,\) and \(4,\)",
        ),
        (lambda: kobai.dot(kobai.ones(3), kobai.ones(3).double()), "^dot: expected tensors of one dtype"),
        (
            lambda: kobai.mv(kobai.ones(3, 2), kobai.ones(4)),
            r"^mv: expected \(n, k\) and \(k\), got \(3, 2\) and \(4,\)",
        ),
        (lambda: kobai.outer(kobai.ones(2, 2), kobai.ones(2)), "outer: expected two vectors"),
        (lambda: linear(kobai.ones(5, 4), kobai.ones(2, 3)), r"linear: expected input \(..., 3\), got \(5, 4\)"),
        (
            lambda: linear(kobai.ones(5, 3), kobai.ones(2, 3), kobai.ones(3)),
            r"linear: expected bias \(2,\), got \(3,\)",
        ),
        (lambda: linear(kobai.ones(3), kobai.ones(3)), r"weight \(out_features, in_features\), got \(3,\) and \(3,\)"),
        (
            lambda: linear(kobai.ones(3).double(), kobai.ones(2, 3)),
            "linear: expected tensors of one dtype, got .*; convert with",
        ),
    ],
)
def test_errors(product, message):
    with pytest.raises(RuntimeError, match=message):
        product()


def test_wrong_types():
    with pytest.raises(TypeError, match="matmul: expected a Tensor, got int"):
        kobai.matmul(kobai.ones(2, 2), 2)
    with pytest.raises(TypeError, match=r"linear: expected a Tensor, got ndarray; make it one with kobai.tensor\(\)"):
        linear(np.ones((2, 2)), kobai.ones(2, 2))
    with pytest.raises(ValueError, match=r"linear: .*activation.*'rleu'.*Did you mean 'relu'"):
        linear(kobai.ones(2, 2), kobai.ones(2, 2), activation="rleu")
