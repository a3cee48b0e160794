"""Singular values, for the norms that are made of them."""

from __future__ import annotations

from typing import Any

from kobai.core.primitive import primitive
from kobai.ops._args import drawn
from kobai.xp import Array, linalg_errors, quiet, xp_of

NO_SINGULAR_VALUES = "svd: expected a matrix of finite numbers, whose decomposition converges"

__all__: list[str] = []  # PyTorch has them in linalg only


@primitive(sample=[drawn((4, 3)), drawn((2, 3, 3)), drawn((2, 0, 3))])
@quiet
def singular_values(a: Array) -> Any:
    """σ of A = U diag(σ) Vᵀ, in descending order: d σᵢ = uᵢᵀ dA vᵢ."""
    with linalg_errors(a, NO_SINGULAR_VALUES):
        values = xp_of(a).linalg.svd(a, compute_uv=False)

    def da(dy: Array) -> Array:
        with linalg_errors(a, NO_SINGULAR_VALUES):
            u, _, vt = xp_of(a).linalg.svd(a, full_matrices=False)
        return (u * dy[..., None, :]) @ vt

    return values, lambda dy: (lambda: da(dy),)
