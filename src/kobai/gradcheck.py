"""Check gradients against central differences: dL/dxᵢ ≈ (L(x + h eᵢ) − L(x − h eᵢ)) / 2h."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai._tensor import Tensor, no_grad
from kobai.xp import asarray, to_host

STEP = float(np.finfo(np.float64).eps ** (1 / 3))
"""h: rounding costs ε/h and the formula h²; the cube root of ε balances them at about 4e-11."""


@dataclass(frozen=True)
class Mismatch:
    """The element with the largest error: its input, its index, both gradients, the error relative to the input's scale."""

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


def worst_mismatch(function: Callable[..., Any], inputs: Sequence[Any], step: float = STEP, seed: int = 0) -> Mismatch:
    """Compare backward with central differences for every element of every float64 Tensor that requires a gradient.

    L is a fixed random projection of the output, so that one backward pass checks the whole Jacobian. The error of an
    element is |backward − numeric| / max(largest gradient of this input, 1e-8 + |numeric|).

    Errors: TypeError unless those tensors are float64; RuntimeError if none requires a gradient.
    """
    checked = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise RuntimeError("gradcheck: expected at least one input Tensor that requires a gradient")
    for i, x in checked:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck: expected float64 inputs, got {x.dtype} for input {i}")
        x.grad = None
    output = function(*inputs)
    outputs = [o for o in (output if isinstance(output, (tuple, list)) else (output,)) if o.is_floating_point()]
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(o.shape) for o in outputs]
    for i, (o, w) in enumerate(zip(outputs, weights, strict=True)):
        o.backward(Tensor._wrap(asarray(w, dtype=o.dtype, device=o.device)), retain_graph=i + 1 < len(outputs))

    def projected() -> float:
        with no_grad():
            value = function(*inputs)
        values = [o for o in (value if isinstance(value, (tuple, list)) else (value,)) if o.is_floating_point()]
        return float(sum((to_host(v.array).astype(np.float64) * w).sum() for v, w in zip(values, weights, strict=True)))

    worst = Mismatch(checked[0][0], (), 0.0, 0.0, 0.0)
    for i, x in checked:
        analytic = np.zeros(x.shape) if x.grad is None else to_host(x.grad.array)
        host = to_host(x.array).copy()
        numeric = np.zeros(x.shape)
        for index in np.ndindex(*host.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = host.copy()
                moved[index] += sign * step
                x.array[...] = asarray(moved, device=x.device)
                ends.append(projected())
            numeric[index] = (ends[0] - ends[1]) / (2 * step)
        x.array[...] = asarray(host, device=x.device)
        if host.size == 0:
            continue
        error = np.abs(analytic - numeric) / np.maximum(np.abs(analytic).max(initial=0), 1e-8 + np.abs(numeric))
        where = np.unravel_index(int(np.argmax(np.where(np.isnan(error), np.inf, error))), host.shape)
        found = float(error[where])
        if np.isnan(found) or found > worst.error:
            at = tuple(int(k) for k in where)
            worst = Mismatch(
                i, at, float(analytic[where]), float(numeric[where]), float("inf") if np.isnan(found) else found
            )
    return worst


def gradcheck(func: Callable[..., Any], inputs: Any, *, rtol: float = 1e-6, raise_exception: bool = True) -> bool:
    """Whether backward of ``func`` agrees with central differences within ``rtol`` at every element.

    ``inputs`` is a Tensor or a sequence of them, float64 with ``requires_grad=True`` where they are to be checked.

    Errors: RuntimeError naming the worst element if they disagree, unless ``raise_exception=False``.

    >>> import kobai
    >>> x = kobai.tensor([0.3, -1.2], dtype=kobai.float64, requires_grad=True)
    >>> kobai.autograd.gradcheck(lambda x: (x ** 3).sum(), x)
    True
    """
    worst = worst_mismatch(func, list(inputs) if isinstance(inputs, (list, tuple)) else [inputs])
    if worst.error <= rtol:
        return True
    if raise_exception:
        raise RuntimeError(f"gradcheck: {worst}; expected at most {rtol:.0e}")
    return False
