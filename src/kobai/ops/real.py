"""What programs for complex numbers ask of real ones, the only ones here: real, conj, angle, and so on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import as_float, drawn, need_tensor
from kobai.xp import Array, xp_of

__all__ = [
    "adjoint",
    "angle",
    "conj",
    "conj_physical",
    "imag",
    "is_conj",
    "is_neg",
    "isreal",
    "real",
    "resolve_conj",
    "resolve_neg",
]


def _itself(name: str, doc: str) -> Any:
    def function(input: Tensor) -> Tensor:
        need_tensor(name, input)
        return input

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (
        f"{doc}: ``input`` itself.\n\n>>> import kobai\n>>> kobai.{name}(kobai.tensor([1, -2]))\ntensor([ 1, -2])"
    )
    return function


real = _itself("real", "The real part of real numbers")
conj = method(_itself("conj", "The complex conjugates of real numbers"))
conj_physical = method(_itself("conj_physical", "The complex conjugates of real numbers"), in_place=True)
resolve_conj = method(
    _itself("resolve_conj", "A tensor whose conjugation, which real numbers do not need, is carried out")
)
resolve_neg = method(_itself("resolve_neg", "A tensor whose negation, which is never put off, is carried out"))


def imag(input: Tensor) -> Tensor:
    """RuntimeError, as in PyTorch: real numbers have no imaginary part to view.

    >>> import kobai
    >>> kobai.imag(kobai.tensor([1.]))
    Traceback (most recent call last):
    RuntimeError: imag: expected complex numbers, got float32
    """
    need_tensor("imag", input)
    raise RuntimeError(f"imag: expected complex numbers, got {input._array.dtype}")


setattr(Tensor, "real", property(real))  # noqa: B010  (mypy refuses to assign a property)
setattr(Tensor, "imag", property(imag))  # noqa: B010


def _never(name: str, doc: str) -> Any:
    def function(input: Tensor) -> bool:
        need_tensor(name, input)
        return False

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}: never, in Kobai.\n\n>>> import kobai\n>>> kobai.{name}(kobai.tensor([1.]))\nFalse"
    return method(function)


is_conj = _never("is_conj", "Whether a conjugation is still to be carried out")
is_neg = _never("is_neg", "Whether a negation is still to be carried out")


@method
def isreal(input: Tensor) -> Tensor:
    """Where an element is a real number: everywhere.

    >>> import kobai
    >>> kobai.isreal(kobai.tensor([1., 2.]))
    tensor([True, True])
    """
    need_tensor("isreal", input)
    return Tensor._wrap(xp_of(input._array).ones(input._array.shape, np.bool_))  # type: ignore[no-any-return]


@primitive(sample=[drawn((4, 3)), drawn((0, 3))], kind="elementwise")
def _angle(x: Array) -> Any:
    xp = xp_of(x)
    y = xp.where(x < 0, math.pi, xp.where(x != x, x, 0)).astype(x.dtype, copy=False)
    return y, lambda dy: (lambda: xp.zeros_like(dy),)


@method
def angle(input: Tensor) -> Tensor:
    """The angle of numbers in the complex plane: π where they are negative, else 0, NaN of NaN. The gradient is zero.

    >>> import kobai
    >>> kobai.angle(kobai.tensor([-2., 0., 3.]))
    tensor([3.1416, 0.0000, 0.0000])
    """
    return _angle(as_float("angle", input))


@method
def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged (and real numbers conjugated, which leaves them as they are): a view.

    >>> import kobai
    >>> kobai.adjoint(kobai.tensor([[1, 2, 3]])).shape
    kobai.Size([3, 1])
    """
    need_tensor("adjoint", input)
    return input.mT  # type: ignore[no-any-return]
