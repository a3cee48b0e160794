"""Decompositions in place and with LAPACK's conventions, where NumPy has them not: pivots from 1, ``info`` as the result."""

from __future__ import annotations

import numpy as np


def singular_at(lu: np.ndarray) -> int:
    """Number, from 1, of the first zero on the diagonal of U; 0 if there is none."""
    zeros = np.flatnonzero(lu.diagonal() == 0)
    return int(zeros[0]) + 1 if zeros.size else 0


def getrf(a: np.ndarray, pivots: np.ndarray) -> int:
    """P A = L U by rows: L, whose diagonal of ones is left out, and U take the place of A."""
    for j in range(min(a.shape)):
        p = j + int(np.argmax(np.abs(a[j:, j])))
        pivots[j] = p + 1
        if p != j:
            a[[j, p]] = a[[p, j]]
        if a[j, j] != 0:
            a[j + 1 :, j] /= a[j, j]
            a[j + 1 :, j + 1 :] -= np.outer(a[j + 1 :, j], a[j, j + 1 :])
    return singular_at(a)


def getrs(lu: np.ndarray, pivots: np.ndarray, b: np.ndarray, how: int) -> None:
    """op(A) X = B in place, by what :func:`getrf` made of A. A zero on the diagonal divides: it is no error."""
    n = len(lu)
    with np.errstate(divide="ignore", invalid="ignore"):
        if how == 0:
            _swap(b, pivots, range(n))
            for i in range(n):
                b[i] -= lu[i, :i] @ b[:i]
            for i in reversed(range(n)):
                b[i] = (b[i] - lu[i, i + 1 :] @ b[i + 1 :]) / lu[i, i]
        else:
            for i in range(n):
                b[i] = (b[i] - lu[:i, i] @ b[:i]) / lu[i, i]
            for i in reversed(range(n)):
                b[i] -= lu[i + 1 :, i] @ b[i + 1 :]
            _swap(b, pivots, reversed(range(n)))


def _swap(b: np.ndarray, pivots: np.ndarray, order) -> None:
    for i in order:
        p = int(pivots[i]) - 1
        if p != i:
            b[[i, p]] = b[[p, i]]


def potrf(a: np.ndarray, upper: bool) -> int:
    """L, with ``upper`` Lᵀ, takes the place of the triangle of A that is read; which leading minor is not positive."""
    lower = a.T if upper else a
    for j in range(len(a)):
        square = lower[j, j] - lower[j, :j] @ lower[j, :j]
        if not square > 0:
            return j + 1
        lower[j, j] = np.sqrt(square)
        lower[j + 1 :, j] = (lower[j + 1 :, j] - lower[j + 1 :, :j] @ lower[j, :j]) / lower[j, j]
    return 0


def geqrf(a: np.ndarray, tau: np.ndarray) -> None:
    """R takes the place of the upper triangle, the vectors of Householder's reflections that of what is below."""
    reflected, factors = np.linalg.qr(a, mode="raw")
    a[...], tau[...] = reflected.T, factors


def orgqr(a: np.ndarray, tau: np.ndarray) -> None:
    """The first columns of Q = H₁ … H_k, in place of the vectors, H_i = 1 − τ_i v vᵀ."""
    m, n = a.shape
    q = np.eye(m, n, dtype=a.dtype)
    for i in reversed(range(len(tau))):
        v = np.concatenate([np.zeros(i, a.dtype), np.ones(1, a.dtype), a[i + 1 :, i]])
        q -= tau[i] * np.outer(v, v @ q)
    a[...] = q
