"""``kobai.autograd.functional``: products and matrices of derivatives, against formulas, each other, and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.autograd import functional, grad, gradcheck

A = np.array([0.4, -1.1, 0.7])
B = np.random.default_rng(0).normal(size=(2, 3))


def vector(x):
    return x.sin() * x.sum()


def two(x, y):
    return (x * y).exp().sum(1), (x**2).sum()


def scalar(x, y):
    return (x * y).tanh().sum() * x.prod()


def everything(lib, module, create_graph):
    """All functions on functions of one and of two inputs, with any library of PyTorch's names."""
    a, b = lib.tensor(A, requires_grad=True), lib.tensor(B, requires_grad=True)
    v, w = lib.tensor([1.0, -2.0, 0.5], dtype=lib.float64), lib.tensor(np.ones((2, 3)) * 2)
    options = {"create_graph": create_graph}
    found = [
        module.jacobian(vector, a, **options),
        module.jacobian(two, (a, b), **options),
        module.hessian(lambda x: vector(x).sum(), a, **options),
        module.hessian(scalar, (a, b), **options),
        module.vjp(vector, a, v, **options),
        module.vjp(two, (a, b), (v[:2], v[0]), **options),
        module.jvp(vector, a, v, **options),
        module.jvp(two, (a, b), (v, w), **options),
        module.hvp(scalar, (a, b), (v, w), **options),
        module.vhp(scalar, (a, b), (v, w), **options),
        module.jvp(lambda x: x[0] * 2, a, v),
        module.jacobian(lambda x: lib.ones(2, dtype=lib.float64), a),
    ]
    if create_graph:
        found += [lib.autograd.grad((f[0] ** 2).sum(), a) for f in (found[4], found[6])]
        found.append(lib.autograd.grad((found[0] ** 3).sum(), a))
    return found


def leaves(value):
    return [x for part in value for x in leaves(part)] if isinstance(value, (tuple, list)) else [value]


def shape(value):
    return tuple(map(shape, value)) if isinstance(value, tuple) else tuple(value.shape)


@pytest.mark.oracle
@pytest.mark.parametrize("create_graph", [False, True])
def test_all_as_in_pytorch(create_graph):
    import torch

    theirs = everything(torch, torch.autograd.functional, create_graph)
    for i, (t, k) in enumerate(zip(theirs, everything(kobai, functional, create_graph), strict=True)):
        assert shape(tuple(k) if isinstance(k, tuple) else k) == shape(tuple(t) if isinstance(t, tuple) else t), i
        for x, y in zip(leaves(t), leaves(k), strict=True):
            np.testing.assert_allclose(y.detach().numpy(), x.detach().numpy(), rtol=1e-10, atol=1e-12)
            assert y.requires_grad == x.requires_grad or not y.requires_grad


def test_products_are_those_of_the_matrices():
    a = kobai.tensor(A, requires_grad=True)
    v = kobai.tensor([1.0, -2.0, 0.5], dtype=kobai.float64)
    jacobian = functional.jacobian(vector, a).numpy()
    hessian = functional.hessian(lambda x: vector(x).sum(), a).numpy()
    np.testing.assert_allclose(functional.vjp(vector, a, v)[1].numpy(), v.numpy() @ jacobian)
    np.testing.assert_allclose(functional.jvp(vector, a, v)[1].numpy(), jacobian @ v.numpy())
    for product in (functional.hvp, functional.vhp):
        np.testing.assert_allclose(product(lambda x: vector(x).sum(), a, v)[1].numpy(), hessian @ v.numpy())
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-15)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_strategies_agree(strategy, vectorize):
    a, b = kobai.tensor(A), kobai.tensor(B)
    options = {"strategy": strategy, "vectorize": vectorize}
    for x, y in zip(
        leaves(functional.jacobian(two, (a, b), **options)), leaves(functional.jacobian(two, (a, b))), strict=True
    ):
        np.testing.assert_allclose(x.numpy(), y.numpy(), atol=1e-15)
    found = functional.hessian(scalar, (a, b), vectorize=vectorize, outer_jacobian_strategy=strategy)
    for x, y in zip(leaves(found), leaves(functional.hessian(scalar, (a, b))), strict=True):
        np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-12, atol=1e-14)


def test_results_with_a_graph_are_differentiable():
    a = kobai.tensor(A, requires_grad=True)
    v = kobai.tensor([1.0, -2.0, 0.5], dtype=kobai.float64)
    for function in (
        lambda x: functional.jacobian(vector, x, create_graph=True),
        lambda x: functional.hessian(lambda t: vector(t).sum(), x, create_graph=True),
        lambda x: functional.jvp(vector, x, v, create_graph=True)[1],
        lambda x: functional.hvp(lambda t: vector(t).sum(), x, v, create_graph=True)[1],
    ):
        assert gradcheck(function, a, atol=1e-8, rtol=1e-6)
    assert not functional.jacobian(vector, a).requires_grad
    assert a.grad is None


def test_nothing_to_differentiate():
    a = kobai.ones(2)
    assert functional.jacobian(lambda x: kobai.ones(3), a).tolist() == [[0.0, 0.0]] * 3
    assert functional.jacobian(vector, kobai.ones(0)).shape == (0, 0)
    assert functional.hessian(lambda x: x.sum(), a).tolist() == [[0.0, 0.0]] * 2
    with pytest.raises(RuntimeError, match="jacobian: output 0 does not depend on the inputs"):
        functional.jacobian(lambda x: kobai.ones(2), a, strict=True)
    with pytest.raises(RuntimeError, match="strict=True does not allow"):
        functional.hessian(lambda x: x.sum(), a, strict=True)


def test_errors_say_who_and_what():
    a = kobai.ones(2)
    with pytest.raises(RuntimeError, match="hvp: expected a function with one tensor of one element"):
        functional.hvp(vector, a, a)
    with pytest.raises(RuntimeError, match="vjp: expected v, as the result has more than one element"):
        functional.vjp(vector, a)
    with pytest.raises(RuntimeError, match=r"jvp: expected v of the shapes \(2,\) of the input, got \(3,\)"):
        functional.jvp(vector, a, kobai.ones(3))
    with pytest.raises(TypeError, match="jacobian: expected inputs to be a Tensor"):
        functional.jacobian(vector, 2.0)
    with pytest.raises(TypeError, match="jacobian: expected the result of the function to be a Tensor"):
        functional.jacobian(lambda x: 2.0, a)
    with pytest.raises(ValueError, match="strategy"):
        functional.jacobian(vector, a, strategy="sideways")


def test_in_no_grad():
    with kobai.no_grad():
        assert functional.jacobian(lambda x: x**2, kobai.tensor([3.0])).tolist() == [[6.0]]
        assert functional.hvp(lambda x: (x**2).sum(), kobai.tensor([3.0, 4.0]), kobai.ones(2))[1].tolist() == [2.0, 2.0]
        x = kobai.tensor([3.0], requires_grad=True)
        result = functional.jvp(lambda t: t**3, x, kobai.ones(1), create_graph=True)[1]
    assert grad(result.sum(), x)[0].tolist() == [18.0]
