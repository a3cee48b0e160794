"""Products and linear algebra on arrays of samples: the library's own batches, with the samples in front."""

from __future__ import annotations

import math
import string
from typing import Any

import numpy as np

from kobai.autograd.batching.arrays import NoRule, aligned, spread
from kobai.autograd.batching.namespace import Namespace, rule, rules
from kobai.ops._matmul import matmul as product


@rule
def matmul(ns: Namespace, a: Any, b: Any, out: Any = None) -> Any:
    """One product of all rows where the right factor is one matrix for all samples, else a product per sample."""
    if out is not None:
        out[...] = matmul(ns, a, b)
        return out
    a, b = ns.array_of(a), ns.array_of(b)
    if not a.batched and not b.batched:
        return ns.of(product(a.inner, b.inner), False)
    if a.ndim == 1 or b.ndim == 1:
        return _with_vector(ns, a, b)
    if not b.batched and b.ndim == 2:
        rows = a.inner.reshape(math.prod(a.inner.shape[:-1]), a.shape[-1])
        return ns.of(product(rows, b.inner).reshape(*a.inner.shape[:-1], b.shape[-1]), True)
    ndim = max(a.ndim, b.ndim)
    inner = [aligned(x, ndim, ns.kind) for x in (a, b)]
    return ns.of(product(*inner), True)


def _with_vector(ns: Namespace, a: Any, b: Any) -> Any:
    """A vector on the left is a row, one on the right a column; a matrix that all samples share meets all at once."""
    if a.ndim == 1:
        y = matmul(ns, a[None, :], b[:, None] if b.ndim == 1 else b)
        return y[0, 0] if b.ndim == 1 else y[..., 0, :]
    if not a.batched and a.ndim == 2:
        return ns.of(product(b.inner, a.inner.T), True)
    return matmul(ns, a, b[:, None])[..., 0]


@rule
def dot(ns: Namespace, a: Any, b: Any, out: Any = None) -> Any:
    if a.ndim > 2 or b.ndim > 2:
        raise NoRule("vmap: dot of more than two dimensions has no batching rule")
    return matmul(ns, a, b, out) if a.ndim and b.ndim else ns.multiply(a, b, out=out)


@rule
def vdot(ns: Namespace, a: Any, b: Any) -> Any:
    return matmul(ns, a.reshape(-1), b.reshape(-1))


@rule
def inner(ns: Namespace, a: Any, b: Any) -> Any:
    return tensordot(ns, a, b, ([-1], [-1]))


@rule
def outer(ns: Namespace, a: Any, b: Any) -> Any:
    return ns.multiply(a.reshape(-1, 1), b.reshape(-1))


@rule
def tensordot(ns: Namespace, a: Any, b: Any, axes: Any = 2) -> Any:
    """A product of matrices: the axes summed over come last in the one factor and first in the other."""
    if isinstance(axes, int):
        axes = range(a.ndim - axes, a.ndim), range(axes)
    left, right = ([int(axis) % x.ndim for axis in np.atleast_1d(each)] for x, each in zip((a, b), axes, strict=True))
    kept = [[i for i in range(x.ndim) if i not in summed] for x, summed in ((a, left), (b, right))]
    rows, columns = [a.shape[i] for i in kept[0]], [b.shape[i] for i in kept[1]]
    count = math.prod(a.shape[i] for i in left)
    one = a.transpose((*kept[0], *left)).reshape(math.prod(rows), count)
    other = b.transpose((*right, *kept[1])).reshape(count, math.prod(columns))
    return matmul(ns, one, other).reshape(*rows, *columns)


@rule
def einsum(ns: Namespace, subscripts: str, *operands: Any, **options: Any) -> Any:
    """One more letter, in every operand that differs between samples and in the result."""
    operands = tuple(ns.array_of(x) for x in operands)
    batched = any(x.batched for x in operands)
    if not batched:
        return ns.of(ns.library.einsum(subscripts, *(x.inner for x in operands), **options), False)
    if "->" not in subscripts:
        raise NoRule("vmap: einsum without -> has no batching rule")
    letter = next(one for one in string.ascii_letters if one not in subscripts)
    terms, result = subscripts.split("->")
    named = [letter * x.batched + term.strip() for term, x in zip(terms.split(","), operands, strict=True)]
    made = ns.library.einsum(f"{','.join(named)}->{letter}{result.strip()}", *(x.inner for x in operands), **options)
    return ns.of(made, True)


@rules("inv det slogdet cholesky eigh eigvalsh eig eigvals svd svdvals qr pinv matrix_rank matrix_power", "linalg.")
def of_matrices(name: str, ns: Namespace, a: Any, *args: Any, **options: Any) -> Any:
    """What the library does for stacks of matrices."""
    a = ns.array_of(a)
    return ns.of(getattr(ns.library, name)(a.inner, *args, **options), a.batched)


@rules("solve", "linalg.")
def solve(name: str, ns: Namespace, a: Any, b: Any) -> Any:
    a, b = ns.array_of(a), ns.array_of(b)
    if not a.batched and not b.batched:
        return ns.of(ns.library.solve(a.inner, b.inner), False)
    if b.ndim == 1:
        return solve(name, ns, a, b[:, None])[..., 0]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # CuPy's does not broadcast
    both = [spread(ns.kind.namespace.broadcast_to(x, (*batch, *x.shape[-2:])), ns.kind) for x in (a, b)]
    return ns.of(ns.library.solve(*both), True)
