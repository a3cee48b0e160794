"""Weights computed from other parameters before every call: weight normalisation and spectral normalisation."""

from __future__ import annotations

from typing import Any, TypeVar

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.ops.random import randn
from kobai.ops.shape import movedim

M = TypeVar("M", bound=Module)


class _Reweighted:
    """A forward pre-hook that recomputes ``module.<name>`` from parameters and buffers of the module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def weight(self, module: Module) -> Tensor:
        """The weight, computed."""
        raise NotImplementedError

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.weight(module))

    def attach(self, module: Module) -> None:
        """Compute the weight now, and before every call."""
        self(module, None)
        module.register_forward_pre_hook(self)


def _original(who: str, module: Module, name: str) -> Parameter:
    """The parameter ``name``, removed from the module."""
    weight = module._parameters.get(name)
    if weight is None:
        raise ValueError(f"{who}: {module._get_name()} has no parameter {name!r}")
    del module._parameters[name]
    return weight


def _removed(who: str, kind: type[_Reweighted], module: Module, name: str) -> Tensor:
    """Remove the hook; returns the last weight, detached."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, kind) and hook.name == name:
            weight = hook.weight(module).detach()
            del module._forward_pre_hooks[key]
            delattr(module, name)
            return weight
    raise ValueError(f"{who}: {name!r} of {module._get_name()} is not normalised so")


def length_of(v: Tensor, dim: int | None) -> Tensor:
    """‖v‖ over all dimensions but ``dim``, which is kept, or over all."""
    if dim is None:
        return v.norm()  # type: ignore[no-any-return]
    others = tuple(d for d in range(v.ndim) if d != dim % v.ndim)
    return v.norm(2, others, keepdim=True)  # type: ignore[no-any-return]


class _WeightNorm(_Reweighted):
    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = dim

    def weight(self, module: Module) -> Tensor:
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / length_of(v, self.dim))  # type: ignore[no-any-return]


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Learn a weight as length and direction: w = g · v / ‖v‖, with parameters ``<name>_g`` and ``<name>_v`` in its place.

    ‖v‖ is taken over all dimensions but ``dim`` (None: over all). Returns the module.
    Salimans, Kingma, *Weight normalization*, arXiv:1602.07868.

    >>> import kobai
    >>> layer = kobai.nn.utils.weight_norm(kobai.nn.Linear(3, 2))
    >>> sorted(layer.state_dict())
    ['bias', 'weight_g', 'weight_v']
    """
    hook = _WeightNorm(name, None if dim == -1 else dim)
    weight = _original("weight_norm", module, name)
    module.register_parameter(f"{name}_g", Parameter(length_of(weight.detach(), hook.dim)))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    hook.attach(module)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Turn the present weight back into an ordinary parameter.

    >>> import kobai
    >>> layer = kobai.nn.utils.weight_norm(kobai.nn.Linear(3, 2))
    >>> sorted(kobai.nn.utils.remove_weight_norm(layer).state_dict())
    ['bias', 'weight']
    """
    weight = _removed("remove_weight_norm", _WeightNorm, module, name)
    del module._parameters[f"{name}_g"], module._parameters[f"{name}_v"]
    module.register_parameter(name, Parameter(weight))
    return module


class _SpectralNorm(_Reweighted):
    def __init__(self, name: str, n_power_iterations: int, eps: float, dim: int) -> None:
        super().__init__(name)
        self.n_power_iterations, self.eps, self.dim = n_power_iterations, eps, dim

    def matrix(self, weight: Tensor) -> Tensor:
        return movedim(weight, self.dim, 0).reshape(weight.shape[self.dim], -1)  # type: ignore[no-any-return]

    def weight(self, module: Module) -> Tensor:
        original = getattr(module, f"{self.name}_orig")
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix = self.matrix(original)
        if module.training:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(matrix.T @ u, dim=0, eps=self.eps))
                    u.copy_(F.normalize(matrix @ v, dim=0, eps=self.eps))
        sigma = u.clone() @ (matrix @ v.clone())  # copies: the buffers change again before a second call's backward
        return original / sigma  # type: ignore[no-any-return]


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """Divide a weight by its largest singular value σ, estimated by power iteration: w = w_orig / σ. Returns the module.

    u ← W v / ‖W v‖, v ← Wᵀ u / ‖Wᵀ u‖ at every call in training, ``n_power_iterations`` times; σ = uᵀ W v. W is the weight
    as a matrix with dimension ``dim`` as rows: 0, but 1 for transposed convolutions. In the module's state are
    ``<name>_orig``, ``<name>_u`` and ``<name>_v``. Miyato et al., ICLR 2018, arXiv:1802.05957.

    >>> import kobai
    >>> layer = kobai.nn.utils.spectral_norm(kobai.nn.Linear(3, 3), n_power_iterations=100)
    >>> _ = layer(kobai.ones(1, 3))
    >>> round(kobai.linalg.matrix_norm(layer.weight.detach(), 2).item(), 3)
    1.0
    """
    if n_power_iterations <= 0:
        raise ValueError(f"spectral_norm: expected n_power_iterations > 0, got {n_power_iterations}")
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    hook = _SpectralNorm(name, n_power_iterations, eps, dim)
    weight = _original("spectral_norm", module, name)
    rows, columns = hook.matrix(weight.detach()).shape
    module.register_parameter(f"{name}_orig", weight)
    for part, size in (("u", rows), ("v", columns)):
        start = randn(size, dtype=weight.dtype, device=weight.device)
        module.register_buffer(f"{name}_{part}", F.normalize(start, dim=0, eps=eps))
    hook.attach(module)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Turn the present weight back into an ordinary parameter.

    >>> import kobai
    >>> layer = kobai.nn.utils.spectral_norm(kobai.nn.Linear(3, 3))
    >>> sorted(kobai.nn.utils.remove_spectral_norm(layer).state_dict())
    ['bias', 'weight']
    """
    training = module.training
    module.training = False  # no further iteration
    weight = _removed("remove_spectral_norm", _SpectralNorm, module, name)
    module.training = training
    del module._parameters[f"{name}_orig"], module._buffers[f"{name}_u"], module._buffers[f"{name}_v"]
    module.register_parameter(name, Parameter(weight))
    return module
