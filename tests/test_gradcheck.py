"""gradcheck finds wrong gradients and says where."""

from __future__ import annotations

import pytest

import kobai
from kobai.autograd import Function, gradcheck
from kobai.gradcheck import worst_mismatch


def leaf(*values: float):
    return kobai.tensor(values, dtype=kobai.float64, requires_grad=True)


class Wrong(Function):
    """x², with a gradient that is wrong in its last element."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        dx = 2 * x * dy
        dx[-1] += 0.5
        return dx


def test_right_gradients_pass(backend):
    x = leaf(0.3, -1.2)
    w = leaf(0.5, 2.0)
    assert gradcheck(lambda x, w: (x * w).exp(), (x, w))
    assert gradcheck(lambda x: x.sum(), x)
    assert gradcheck(lambda x: (x * 2, x.exp(), x > 0), x), "several outputs, one without a gradient"
    assert gradcheck(lambda x, n: x**n, (x, 3)), "arguments that are no tensors"


def test_wrong_gradients_are_named():
    with pytest.raises(RuntimeError, match=r"gradcheck: input 0 at \(2,\): backward .*, central difference "):
        gradcheck(Wrong.apply, leaf(1.0, 2.0, 3.0))
    assert not gradcheck(Wrong.apply, leaf(1.0), raise_exception=False)
    worst = worst_mismatch(Wrong.apply, [leaf(1.0, 2.0, 3.0)])
    assert (worst.input, worst.index) == (0, (2,))
    assert "input 0 at (2,)" in str(worst)


def test_missing_and_infinite_gradients_are_mismatches():
    class Forgetful(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, dy):
            return None

    assert not gradcheck(Forgetful.apply, leaf(1.0), raise_exception=False)
    assert not gradcheck(lambda x: x.sqrt(), leaf(0.0), raise_exception=False)


def test_nothing_is_left_changed():
    x = leaf(1.0, 2.0)
    x.grad = kobai.ones(2, dtype=kobai.float64)
    gradcheck(lambda x: x * x, x)
    assert (x.tolist(), x.grad.tolist()) == ([1, 2], [1, 1])


def test_empty_input():
    assert gradcheck(lambda x: x * 2, kobai.zeros(0, dtype=kobai.float64, requires_grad=True))


def test_errors():
    with pytest.raises(RuntimeError, match="expected at least one input Tensor that requires a gradient"):
        gradcheck(lambda x: x, kobai.ones(2, dtype=kobai.float64))
    with pytest.raises(TypeError, match=r"gradcheck: expected float64 inputs, got kobai\.float32 for input 1"):
        gradcheck(lambda x, y: x * y, (leaf(1.0), kobai.ones(1, requires_grad=True)))
