"""Check gradients against central differences: dL/dxᵢ ≈ (L(x + h eᵢ) − L(x − h eᵢ)) / 2h."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tape import run_backward
from kobai.core.tensor import Tensor
from kobai.xp import asarray, to_host, write

Host: TypeAlias = np.ndarray[Any, Any]

STEP = float(np.finfo(np.float64).eps ** (1 / 3))
"""h: rounding costs ε/h and the formula h²; the cube root of ε balances them at about 4e-11."""


@dataclass(frozen=True)
class Mismatch:
    """The element that disagrees most: its input and index, both gradients, and their difference relative to a scale."""

    input: int
    index: tuple[int, ...]
    backward: float
    numeric: float
    error: float

    def __str__(self) -> str:
        return (
            f"input {self.input} at {self.index}: backward {self.backward:.10g}, central difference {self.numeric:.10g}, "
            f"relative error {self.error:.2e}"
        )


def _both(function: Callable[..., Any], inputs: Sequence[Any], step: float) -> Iterator[tuple[int, Host, Host]]:
    """(input number, gradient by backward, gradient by central differences) of every input that requires one.

    L is a fixed random projection of the output, so that one backward pass checks the whole Jacobian.
    """
    checked = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise RuntimeError("gradcheck: expected at least one input Tensor that requires a gradient")
    for i, x in checked:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck: expected float64 inputs, got {x.dtype} for input {i}")
    outputs = _floats(function(*inputs))
    rng = np.random.default_rng([0, 0x6B6F626169])  # independent of a sample drawn from seed 0
    weights = [rng.standard_normal(o.shape) for o in outputs]
    roots = [
        (o._edge(), asarray(w, dtype=o.dtype, device=o.device))
        for o, w in zip(outputs, weights, strict=True)
        if o.requires_grad
    ]
    found = run_backward(roots, capture={id(x._edge()) for _, x in checked})  # leaves every .grad as it was

    def projected() -> float:
        with no_grad():
            values = _floats(function(*inputs))
        return float(sum((to_host(v.array) * w).sum() for v, w in zip(values, weights, strict=True)))

    for i, x in checked:
        g = found.get(id(x._edge()))
        analytic = np.zeros(x.shape) if g is None else to_host(g)
        host = to_host(x.array).copy()
        numeric = np.zeros(x.shape)
        for index in np.ndindex(*host.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = host.copy()
                moved[index] += sign * step
                write(x.array, asarray(moved, device=x.device))
                ends.append(projected())
            numeric[index] = (ends[0] - ends[1]) / (2 * step)
        write(x.array, asarray(host, device=x.device))
        yield i, analytic, numeric


def _floats(output: Any) -> list[Tensor]:
    return [o for o in (output if isinstance(output, (tuple, list)) else (output,)) if o.is_floating_point()]


def _worst(gradients: Iterator[tuple[int, Host, Host]], scale: Callable[[Host, Host], Host]) -> Mismatch:
    worst = Mismatch(0, (), 0.0, 0.0, 0.0)
    for i, analytic, numeric in gradients:
        if analytic.size == 0:
            continue
        error = np.nan_to_num(np.abs(analytic - numeric) / scale(analytic, numeric), nan=np.inf)
        where = np.unravel_index(int(np.argmax(error)), error.shape)
        if float(error[where]) >= worst.error:
            at = tuple(int(k) for k in where)
            worst = Mismatch(i, at, float(analytic[where]), float(numeric[where]), float(error[where]))
    return worst


def worst_mismatch(function: Callable[..., Any], inputs: Sequence[Any], step: float = STEP) -> Mismatch:
    """Compare backward with central differences for every element of every float64 Tensor that requires a gradient.

    The error of an element is |backward − numeric| / max(largest gradient of its input, |numeric|, 1e-8).

    Errors: TypeError unless those tensors are float64; RuntimeError if none requires a gradient.
    """
    return _worst(_both(function, inputs, step), lambda a, n: np.maximum(np.maximum(np.abs(n), 1e-8), np.abs(a).max()))


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    eps: float = STEP,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether backward of ``func`` agrees with central differences of step ``eps`` in every element.

    ``inputs`` is a Tensor or a sequence of them, float64 with ``requires_grad=True`` where they are to be checked. Agreement
    is |backward − numeric| ≤ atol + rtol · |numeric|, with PyTorch's lax defaults; ``atol=1e-9, rtol=1e-7`` is a strict choice.

    Errors: RuntimeError naming the element that disagrees most, unless ``raise_exception=False``.

    >>> import kobai
    >>> x = kobai.tensor([0.3, -1.2], dtype=kobai.float64, requires_grad=True)
    >>> kobai.autograd.gradcheck(lambda x: (x ** 3).sum(), x)
    True
    """
    gradients = _both(func, list(inputs) if isinstance(inputs, (list, tuple)) else [inputs], eps)
    worst = _worst(gradients, lambda a, n: atol + rtol * np.abs(n))
    if worst.error <= 1:
        return True
    if raise_exception:
        raise RuntimeError(
            f"gradcheck: input {worst.input} at {worst.index}: backward {worst.backward:.10g}, central difference "
            f"{worst.numeric:.10g}, {worst.error:.3g} times the tolerance atol={atol:g} + rtol={rtol:g} · |numeric|"
        )
    return False
