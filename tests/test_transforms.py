"""``kobai.func``'s transforms: against PyTorch's, formulas, and each other; nested, and with vmap."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai import func

A = np.random.default_rng(0).normal(size=3)
B = np.random.default_rng(1).normal(size=(4, 3))


def vector(x):
    return x.sin() * x.sum()


def scalar(x):
    return vector(x).sum()


def two(x, y):
    return {"p": (x * y).exp().sum(1), "q": (x**2).sum()}


def scalar_of_two(x, y):
    return (x * y).tanh().sum() * x.prod()


CASES = {
    "grad": lambda t, f, a, b, v: f.grad(scalar)(a),
    "grad of several": lambda t, f, a, b, v: f.grad(scalar_of_two, argnums=(0, 1))(a, b),
    "grad of a structure": lambda t, f, a, b, v: f.grad(lambda d: scalar_of_two(d["a"], d["b"]))({"a": a, "b": b}),
    "grad with aux": lambda t, f, a, b, v: f.grad(lambda x: (scalar(x), {"k": x * 2}), has_aux=True)(a),
    "third derivative": lambda t, f, a, b, v: f.grad(f.grad(f.grad(lambda x: x.sin() * x)))(a[0]),
    "vjp": lambda t, f, a, b, v: f.vjp(vector, a)[1](v),
    "vjp of structures": lambda t, f, a, b, v: f.vjp(two, a, b)[1]({"p": b[:, 0], "q": a[0]}),
    "jvp": lambda t, f, a, b, v: f.jvp(vector, (a,), (v,)),
    "jvp of structures": lambda t, f, a, b, v: f.jvp(two, (a, b), (v, b * 2)),
    "jacrev": lambda t, f, a, b, v: f.jacrev(vector)(a),
    "jacrev of structures": lambda t, f, a, b, v: f.jacrev(two, argnums=(0, 1))(a, b),
    "jacrev in chunks": lambda t, f, a, b, v: f.jacrev(vector, chunk_size=2)(a),
    "jacfwd": lambda t, f, a, b, v: f.jacfwd(vector)(a),
    "jacfwd of structures": lambda t, f, a, b, v: f.jacfwd(two, argnums=(0, 1))(a, b),
    "hessian": lambda t, f, a, b, v: f.hessian(scalar)(a),
    "hessian of several": lambda t, f, a, b, v: f.hessian(scalar_of_two, argnums=(0, 1))(a, b),
    "hessian of a vector": lambda t, f, a, b, v: f.hessian(vector)(a),
    "gradients of samples": lambda t, f, a, b, v: f.vmap(f.grad(scalar))(b),
    "Hessians of samples": lambda t, f, a, b, v: f.vmap(f.hessian(scalar))(b),
    "Jacobians of samples": lambda t, f, a, b, v: f.vmap(f.jacrev(vector))(b),
    "columns of samples": lambda t, f, a, b, v: f.vmap(f.jacfwd(vector))(b),
    "vmap of vmap": lambda t, f, a, b, v: f.vmap(f.vmap(f.grad(f.grad(lambda x: x.sin() * x))))(b),
    "grad over vmap": lambda t, f, a, b, v: f.grad(lambda x: f.vmap(lambda r: (r * x).exp().sum())(b).sum())(a),
    "hessian over vmap": lambda t, f, a, b, v: f.hessian(lambda x: f.vmap(lambda r: (r * x).exp().sum())(b).sum())(a),
    "grad over vmap over grad": lambda t, f, a, b, v: f.grad(
        lambda x: f.vmap(lambda r: f.grad(scalar)(r * x).square().sum(), out_dims=0)(b).sum()
    )(a),
    "forward over reverse": lambda t, f, a, b, v: f.jvp(f.grad(scalar), (a,), (v,)),
    "reverse over forward": lambda t, f, a, b, v: f.grad(lambda x: f.jvp(vector, (x,), (v,))[1].sum())(a),
    "pull of many": lambda t, f, a, b, v: f.vmap(f.vjp(vector, a)[1])(b),
}


def results(value):
    if isinstance(value, dict):
        return [x for key in sorted(value) for x in results(value[key])]
    return [x for part in value for x in results(part)] if isinstance(value, (tuple, list)) else [value]


def shape(value):
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    return tuple(map(shape, value)) if isinstance(value, (tuple, list)) else tuple(value.shape)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of PyTorch's own jvp
@pytest.mark.parametrize("case", CASES)
def test_as_in_pytorch(case):
    torch = pytest.importorskip("torch")
    v = [1.0, -2.0, 0.5]
    theirs = CASES[case](torch, torch.func, torch.tensor(A), torch.tensor(B), torch.tensor(v, dtype=torch.float64))
    ours = CASES[case](kobai, func, kobai.tensor(A), kobai.tensor(B), kobai.tensor(v, dtype=kobai.float64))
    assert shape(ours) == shape(theirs)
    for x, y in zip(results(ours), results(theirs), strict=True):
        np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-10, atol=1e-12)


def test_all_ways_to_a_hessian_agree():
    a, rows = kobai.tensor(A), np.eye(3)
    hessian = func.hessian(scalar)(a).numpy()
    np.testing.assert_allclose(func.jacfwd(func.jacrev(scalar))(a).numpy(), hessian, atol=1e-14)
    np.testing.assert_allclose(func.jacfwd(func.grad(scalar))(a).numpy(), hessian, atol=1e-14)
    np.testing.assert_allclose(kobai.autograd.functional.hessian(scalar, a).numpy(), hessian, atol=1e-14)
    products = [func.jvp(func.grad(scalar), (a,), (kobai.tensor(row),))[1].numpy() for row in rows]
    np.testing.assert_allclose(products, hessian, atol=1e-14)


def test_what_requires_a_gradient_outside_stays_on_the_tape():
    a = kobai.tensor(A, requires_grad=True)
    (outer,) = kobai.autograd.grad((func.grad(scalar)(a) ** 2).sum(), a)
    h = kobai.autograd.functional.hessian(scalar, a).numpy()
    np.testing.assert_allclose(outer.numpy(), 2 * h @ func.grad(scalar)(a).detach().numpy())
    layer = kobai.nn.Linear(3, 1).double()
    slope = func.grad(lambda x: layer(x).sum())(kobai.tensor(A))
    slope.sum().backward()
    assert layer.weight.grad.tolist() == [[1.0, 1.0, 1.0]]
    with kobai.no_grad():
        assert not func.grad(scalar)(a).requires_grad


def test_else_the_results_are_constants():
    a = kobai.tensor(A)
    for result in (func.grad(scalar)(a), func.jvp(vector, (a,), (a,)), func.jacrev(vector)(a), func.hessian(scalar)(a)):
        assert not any(x.requires_grad for x in results(result))
    assert a.grad is None
    assert not a.requires_grad


def test_errors_say_who_and_what():
    a = kobai.tensor(A)
    with pytest.raises(RuntimeError, match=r"grad: expected a value without dimensions, got shape \(3,\)"):
        func.grad(vector)(a)
    with pytest.raises(RuntimeError, match="grad: expected argnums to name some of 1 positional arguments, got 1"):
        func.grad(scalar, argnums=1)(a)
    with pytest.raises(RuntimeError, match="jvp: expected primals to be a tuple, got a Tensor"):
        func.jvp(vector, a, a)
    with pytest.raises(RuntimeError, match=r"vjp: expected cotangents of the structure and shapes \(3,\)"):
        func.vjp(vector, a)[1](kobai.ones(2))
    with pytest.raises(ValueError, match="chunk_size"):
        func.jacrev(vector, chunk_size=0)
    with pytest.raises(ValueError, match="randomness"):
        func.jacfwd(vector, randomness="some")
    with pytest.raises(RuntimeError, match="jacrev: expected the function to return Tensors, got a float"):
        func.jacrev(lambda x: 1.0)(a)
