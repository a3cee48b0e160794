"""Weights of a kind, as parametrizations: of a given length, of spectral norm 1, orthogonal."""

from __future__ import annotations

from typing import TypeVar

from kobai import linalg
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module
from kobai.nn.utils.parametrize import register_parametrization
from kobai.nn.utils.weight import length_of
from kobai.ops.create import eye
from kobai.ops.joining import cat
from kobai.ops.shape import movedim

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


def _tensor(who: str, module: Module, name: str) -> Tensor:
    found = getattr(module, name, None)
    if not isinstance(found, Tensor):
        raise ValueError(f"{who}: {module._get_name()} has no parameter or buffer {name!r}")
    return found


# --- length and direction ---------------------------------------------------------------------------------------------


class _WeightNorm(Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / length_of(v, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return length_of(weight, self.dim), weight


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Learn a weight as length and direction: w = g · v / ‖v‖ over all dimensions but ``dim`` (None: over all).

    In the module's state are ``parametrizations.<name>.original0`` (g) and ``original1`` (v). Returns the module.
    Salimans, Kingma, *Weight normalization*, arXiv:1602.07868.

    >>> import kobai
    >>> layer = kobai.nn.utils.parametrizations.weight_norm(kobai.nn.Linear(3, 2))
    >>> layer.parametrizations.weight.original0.shape
    kobai.Size([2, 1])
    """
    _tensor("weight_norm", module, name)
    return register_parametrization(module, name, _WeightNorm(None if dim == -1 else dim), unsafe=True)


# --- largest singular value -------------------------------------------------------------------------------------------


class _SpectralNorm(Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        if n_power_iterations <= 0:
            raise ValueError(f"spectral_norm: expected n_power_iterations > 0, got {n_power_iterations}")
        self.n_power_iterations, self.dim, self.eps = n_power_iterations, dim, eps
        if weight.ndim > 1:
            with no_grad():
                matrix = self._matrix(weight)
                for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                    start = weight.new_empty(size).normal_()
                    self.register_buffer(name, F.normalize(start, dim=0, eps=eps))
                self._iterate(matrix, 15)

    def _matrix(self, weight: Tensor) -> Tensor:
        return movedim(weight, self.dim, 0).reshape(weight.shape[self.dim], -1)  # type: ignore[no-any-return]

    def _iterate(self, matrix: Tensor, times: int) -> None:
        for _ in range(times):
            self._u.copy_(F.normalize(matrix @ self._v, dim=0, eps=self.eps))
            self._v.copy_(F.normalize(matrix.T @ self._u, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            with no_grad():
                self._iterate(matrix, self.n_power_iterations)
        return weight / (self._u.clone() @ (matrix @ self._v.clone()))  # type: ignore[no-any-return]

    def right_inverse(self, value: Tensor) -> Tensor:
        return value  # which may have any norm


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divide a weight by its largest singular value, estimated by power iteration at every use in training.

    The weight is seen as a matrix with dimension ``dim`` as rows: 0, but 1 for transposed convolutions. In the module's state
    are ``parametrizations.<name>.original``, ``….0._u`` and ``….0._v``. Miyato et al., ICLR 2018, arXiv:1802.05957.

    >>> import kobai
    >>> layer = kobai.nn.utils.parametrizations.spectral_norm(kobai.nn.Linear(3, 3), n_power_iterations=100)
    >>> round(kobai.linalg.matrix_norm(layer.weight.detach(), 2).item(), 3)
    1.0
    """
    weight = _tensor("spectral_norm", module, name)
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, dim, eps))


# --- orthogonal -------------------------------------------------------------------------------------------------------


class _Orthogonal(Module):
    def __init__(self, weight: Tensor, orthogonal_map: str, use_trivialization: bool) -> None:
        super().__init__()
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            n = max(weight.shape[-2:])
            self.register_buffer("base", weight.new_zeros(*weight.shape[:-2], n, n))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.shape[-2] < x.shape[-1]
        x = x.mT if wide else x
        q = _reflected(x) if self.orthogonal_map == "householder" else _rotated(x, self.orthogonal_map)
        if "base" in self._buffers:
            q = self.base @ q
        return q.mT if wide else q

    def right_inverse(self, value: Tensor) -> Tensor:
        """Of the nearest orthogonal matrix in the sense of QR: it becomes the base, from which training starts anew."""
        if "base" not in self._buffers:
            raise NotImplementedError("orthogonal: only with use_trivialization=True can a weight be assigned")
        wide = value.shape[-2] < value.shape[-1]
        x = value.mT if wide else value
        n, k = x.shape[-2:]
        if n > k:  # any other columns complete it
            x = cat([x, x.new_empty(*x.shape[:-2], n, n - k).normal_()], -1)
        q, r = linalg.qr(x)
        self.base.copy_(q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2))
        start = -eye(n, k, dtype=value.dtype, device=value.device).expand(*value.shape[:-2], n, k)
        return (start.mT if wide else start).clone()  # type: ignore[no-any-return]


def _rotated(x: Tensor, orthogonal_map: str) -> Tensor:
    """e^(A − Aᵀ), or Cayley's (1 − S/2)⁻¹(1 + S/2) with S = A − Aᵀ, A the lower triangle of x."""
    n, k = x.shape[-2:]
    a = x.tril()
    if n > k:
        a = cat([a, a.new_zeros(*a.shape[:-2], n, n - k)], -1)
    a = a - a.mT
    if orthogonal_map == "matrix_exp":
        return linalg.matrix_exp(a)[..., :k]
    one = eye(n, dtype=a.dtype, device=a.device)
    return linalg.solve(one - a / 2, one + a / 2)[..., :k]


def _reflected(x: Tensor) -> Tensor:
    """The first columns of H₁ H₂ …, Hᵢ = 1 − 2 v vᵀ/‖v‖² with v from the columns below the diagonal, 1 on it."""
    n, k = x.shape[-2:]
    one = eye(n, k, dtype=x.dtype, device=x.device)
    vectors, q = x.tril(-1) + one, one.expand(x.shape)
    for i in range(k - 1, -1, -1):
        v = vectors[..., i : i + 1]
        q = q - v @ (v.mT @ q) * (2 / (v * v).sum(-2, keepdim=True))
    return q * x.detach().diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)  # type: ignore[no-any-return]


def orthogonal(
    module: M, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> M:
    """Keep a weight orthogonal: its columns, or of a wide one its rows, have length 1 and are at right angles.

    Args:
        module, name: whose parameter; (..., m, n).
        orthogonal_map: how it is computed: ``"matrix_exp"``, e^(A − Aᵀ), the default of square ones; ``"cayley"``,
            (1 − S/2)⁻¹(1 + S/2); ``"householder"``, a product of reflections, the default of others.
        use_trivialization: multiply a base, which is the weight at first; only then can it be assigned.

    In the module's state are ``parametrizations.<name>.original`` and ``….0.base``. Returns the module.
    Lezcano-Casado, *Trivializations for gradient-based optimization on manifolds*, arXiv:1909.09501.

    >>> import kobai
    >>> layer = kobai.nn.utils.parametrizations.orthogonal(kobai.nn.Linear(3, 5))
    >>> kobai.allclose(layer.weight.T @ layer.weight, kobai.eye(3), atol=1e-5)
    True
    """
    weight = _tensor("orthogonal", module, name)
    if weight.ndim < 2:
        raise ValueError(f"orthogonal: expected a matrix, or several, got {tuple(weight.shape)}")
    maps = ("matrix_exp", "cayley", "householder")
    chosen = (
        (maps[0] if weight.shape[-2] == weight.shape[-1] else maps[2]) if orthogonal_map is None else orthogonal_map
    )
    if chosen not in maps:
        raise ValueError(f"orthogonal: expected orthogonal_map to be one of {', '.join(maps)}, got {orthogonal_map!r}")
    return register_parametrization(module, name, _Orthogonal(weight, chosen, use_trivialization), unsafe=True)
