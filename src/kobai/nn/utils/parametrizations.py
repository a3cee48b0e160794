"""Weight and spectral normalisation as parametrizations: the weight is computed each time it is read."""

from __future__ import annotations

from typing import TypeVar

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module
from kobai.nn.utils.parametrize import register_parametrization
from kobai.nn.utils.weight import _SpectralNorm as _Spectral, _WeightNorm as _Length
from kobai.ops.random import randn

__all__ = ["spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


class _WeightNorm(Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / _Length("weight", self.dim).length(v))  # type: ignore[no-any-return]

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return _Length("weight", self.dim).length(weight), weight


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """As :func:`kobai.nn.utils.weight_norm`; g and v are ``parametrizations.<name>.original0`` and ``original1``.

    >>> import kobai
    >>> layer = kobai.nn.utils.parametrizations.weight_norm(kobai.nn.Linear(3, 2))
    >>> sorted(layer.state_dict())
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    register_parametrization(module, name, _WeightNorm(None if dim == -1 else dim))
    return module


class _SpectralNorm(Module):
    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int, eps: float, dim: int) -> None:
        super().__init__()
        self.n_power_iterations, self.eps = n_power_iterations, eps
        self.matrix = _Spectral("weight", n_power_iterations, eps, dim).matrix
        matrix = self.matrix(weight.detach())
        for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
            start = randn(size, dtype=weight.dtype, device=weight.device)
            self.register_buffer(name, F.normalize(start, dim=0, eps=eps))
        self._iterate(matrix, 15)

    def _iterate(self, matrix: Tensor, times: int) -> None:
        with no_grad():
            for _ in range(times):
                self._u.copy_(F.normalize(matrix @ self._v, dim=0, eps=self.eps))
                self._v.copy_(F.normalize(matrix.T @ self._u, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        matrix = self.matrix(weight)
        if self.training:
            self._iterate(matrix.detach(), self.n_power_iterations)
        return weight / (self._u.clone() @ (matrix @ self._v.clone()))  # type: ignore[no-any-return]

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """As :func:`kobai.nn.utils.spectral_norm`; the weight's own value is ``parametrizations.<name>.original``.

    Begins with 15 iterations, so that σ is known well before the first call.

    >>> import kobai
    >>> layer = kobai.nn.utils.parametrizations.spectral_norm(kobai.nn.Linear(3, 3), n_power_iterations=100)
    >>> round(kobai.linalg.matrix_norm(layer.weight.detach(), 2).item(), 3)
    1.0
    """
    if n_power_iterations <= 0:
        raise ValueError(f"spectral_norm: expected n_power_iterations > 0, got {n_power_iterations}")
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"spectral_norm: {module._get_name()} has no parameter {name!r}")
    register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, eps, dim))
    return module
