"""Pruning: parameters with a mask of zeros and ones, which a hook multiplies them by before every forward.

A pruned ``weight`` is a product that is computed, ``weight_orig`` the parameter that is trained, and ``weight_mask`` a buffer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from kobai.core.tensor import Tensor
from kobai.linalg import vector_norm
from kobai.nn.module import Module
from kobai.ops.joining import cat
from kobai.ops.like import ones_like, zeros_like
from kobai.ops.random import rand, rand_like
from kobai.ops.sort import topk

__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]

M = TypeVar("M", bound=Module)
Amount = int | float


class BasePruningMethod(ABC):
    """A way to prune: :meth:`compute_mask` says what stays; ``PRUNING_TYPE`` is unstructured, structured or global.

    >>> import kobai
    >>> from kobai.nn.utils import prune
    >>> class Positive(prune.BasePruningMethod):
    ...     PRUNING_TYPE = "unstructured"
    ...
    ...     def compute_mask(self, t, default_mask):
    ...         return default_mask * (t > 0)
    >>> layer = kobai.nn.Linear(3, 2)
    >>> method = Positive.apply(layer, "weight")
    >>> bool((layer.weight >= 0).all())
    True
    """

    PRUNING_TYPE: ClassVar[str]
    _tensor_name: str

    def __call__(self, module: Module, inputs: Any) -> None:
        """The hook: compute the product anew."""
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Ones where elements stay, of the shape of ``t``, what they are judged by; ``default_mask`` is the one so far."""

    def apply_mask(self, module: Module) -> Tensor:
        """The parameter times its mask."""
        mask, original = (getattr(module, f"{self._tensor_name}_{part}") for part in ("mask", "orig"))
        return mask.to(original.dtype) * original  # type: ignore[no-any-return]

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Prune the parameter ``name`` of a module by ``cls(*args, **kwargs)``, after what has pruned it already.

        ``importance_scores``, of its shape, judge its elements instead of their values.
        """
        method: Any = cls(*args, **kwargs)
        method._tensor_name = name
        before = _method_of(module, name)
        original = getattr(module, name if before is None else f"{name}_orig")
        scores = getattr(module, name) if importance_scores is None else importance_scores
        if scores.shape != original.shape:
            raise ValueError(
                f"{cls.__name__}: expected importance_scores {tuple(original.shape)}, got {tuple(scores.shape)}"
            )
        default = ones_like(original) if before is None else getattr(module, f"{name}_mask").detach().clone()
        if before is not None:
            container = (
                PruningContainer(*before[1]) if isinstance(before[1], PruningContainer) else PruningContainer(before[1])
            )
            container._tensor_name = name
            container.add_pruning_method(method)
            method = container
        mask = method.compute_mask(scores.detach(), default)
        if before is None:
            del module._parameters[name]
            module.register_parameter(f"{name}_orig", original)
        else:
            del module._forward_pre_hooks[before[0]]
        module.register_buffer(f"{name}_mask", mask)
        method(module, None)
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """``t`` with zeros where the mask that is computed for it has them; no module is changed."""
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise ValueError(f"prune: expected importance_scores {tuple(t.shape)}, got {tuple(scores.shape)}")
        return t * self.compute_mask(scores, ones_like(t) if default_mask is None else default_mask)

    def remove(self, module: Module) -> None:
        """Make the product a parameter again, for good."""
        name = self._tensor_name
        product = self.apply_mask(module)
        original = module._parameters.pop(f"{name}_orig")
        assert original is not None
        original.data = product.detach()
        del module._buffers[f"{name}_mask"]
        delattr(module, name)
        setattr(module, name, original)


def _method_of(module: Module, name: str | None = None) -> tuple[int, BasePruningMethod] | None:
    """The hook that prunes a parameter of a module, or any, and its key."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod) and name in (None, hook._tensor_name):
            return key, hook
    return None


class PruningContainer(BasePruningMethod):
    """Methods that prune a parameter one after another: each judges what those before it have left."""

    PRUNING_TYPE = "container"

    def __init__(self, *methods: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        for i, method in enumerate(methods):
            if i == 0:
                self._tensor_name = method._tensor_name
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Put a method behind the others; it must prune the parameter that they do."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"PruningContainer: expected a BasePruningMethod, got {type(method).__name__}")
        if method._tensor_name != getattr(self, "_tensor_name", method._tensor_name):
            raise ValueError(f"PruningContainer: it prunes {self._tensor_name!r}, the method {method._tensor_name!r}")
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask that the last method makes of ``default_mask``, which the others have made already."""
        method: Any = self._pruning_methods[-1]
        mask = default_mask.to(t.dtype).clone()
        if method.PRUNING_TYPE == "unstructured":
            part: Any = mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim
            kept = mask.sum([d for d in range(t.ndim) if d != dim]) != 0
            part = (slice(None),) * dim + (kept,)
        elif method.PRUNING_TYPE == "global":
            part = (slice(None),) * t.ndim
        else:
            raise ValueError(
                f"{type(method).__name__}: expected PRUNING_TYPE unstructured, structured or global, "
                f"got {method.PRUNING_TYPE!r}"
            )
        mask[part] = method.compute_mask(t[part], mask[part]).to(mask.dtype)
        return mask  # type: ignore[no-any-return]


class Identity(BasePruningMethod):
    """Prunes nothing; the parameter gets a mask of ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """``default_mask``."""
        return default_mask


class _Some(BasePruningMethod):
    """Prunes ``amount``: so many elements or channels, or such a share of them."""

    def __init__(self, amount: Amount) -> None:
        who = type(self).__name__
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"{who}: expected amount to be a number, got {amount!r}")
        if amount < 0 or (isinstance(amount, float) and amount > 1):
            raise ValueError(f"{who}: expected amount to be a whole number or a share from 0 to 1, got {amount!r}")
        self.amount = amount

    def _count(self, size: int) -> int:
        count = self.amount if isinstance(self.amount, int) else round(self.amount * size)
        if count > size:
            raise ValueError(f"{type(self).__name__}: expected amount to be at most {size}, got {self.amount}")
        return count


class L1Unstructured(_Some):
    """Prunes the elements of smallest magnitude."""

    PRUNING_TYPE = "unstructured"

    def _score(self, t: Tensor) -> Tensor:
        return t.abs()  # type: ignore[no-any-return]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """``default_mask`` with zeros for the lowest scores."""
        mask = default_mask.flatten().clone()
        count = self._count(t.numel())
        if count:
            mask[topk(self._score(t).flatten(), count, largest=False).indices] = 0
        return mask.reshape(default_mask.shape)  # type: ignore[no-any-return]


class RandomUnstructured(L1Unstructured):
    """Prunes elements drawn at random."""

    def _score(self, t: Tensor) -> Tensor:
        return rand_like(t)  # type: ignore[no-any-return]


class LnStructured(_Some):
    """Prunes the channels along ``dim`` whose norm of order ``n`` is smallest."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Amount, n: Any, dim: int = -1) -> None:
        super().__init__(amount)
        self.n, self.dim = n, dim

    def _score(self, t: Tensor) -> Tensor:
        order = {"fro": 2, None: 2}.get(self.n, self.n)
        rest = [d for d in range(t.ndim) if d != self.dim % t.ndim]
        if order == "nuc":
            raise NotImplementedError("LnStructured: expected n to be a number or 'fro', got 'nuc'")
        return vector_norm(t, float(order), dim=rest)

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """``default_mask`` with zeros for all of the channels of lowest score."""
        if t.ndim < 2 or not -t.ndim <= self.dim < t.ndim:
            raise ValueError(
                f"{type(self).__name__}: expected a parameter of two dimensions or more, and dim to be one of them, "
                f"got shape {tuple(t.shape)} and dim={self.dim}"
            )
        size, dim = t.shape[self.dim], self.dim % t.ndim
        kept = zeros_like(t)
        kept[(slice(None),) * dim + (topk(self._score(t), size - self._count(size)).indices,)] = 1
        return kept.to(default_mask.dtype) * default_mask  # type: ignore[no-any-return]


class RandomStructured(LnStructured):
    """Prunes channels along ``dim`` drawn at random."""

    def __init__(self, amount: Amount, dim: int = -1) -> None:
        super().__init__(amount, None, dim)

    def _score(self, t: Tensor) -> Tensor:
        return rand(t.shape[self.dim], device=t.device)


class CustomFromMask(BasePruningMethod):
    """Prunes where ``mask`` has zeros."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """``default_mask`` times ``mask``."""
        return default_mask * self.mask.to(default_mask.dtype)  # type: ignore[no-any-return]


def identity(module: M, name: str) -> M:
    """Give the parameter ``name`` a mask of ones. As all of these functions, it changes the module and returns it."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: M, name: str, amount: Amount) -> M:
    """Set ``amount`` elements of the parameter ``name``, a number or a share, to 0; they are drawn at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: M, name: str, amount: Amount, importance_scores: Tensor | None = None) -> M:
    """Set the ``amount`` elements of smallest magnitude, or of lowest ``importance_scores``, to 0.

    >>> import kobai
    >>> from kobai.nn.utils import prune
    >>> layer = prune.l1_unstructured(kobai.nn.Linear(4, 5), "weight", amount=0.3)
    >>> int((layer.weight == 0).sum()), sorted(layer.state_dict())
    (6, ['bias', 'weight_mask', 'weight_orig'])
    """
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: M, name: str, amount: Amount, dim: int) -> M:
    """Set ``amount`` channels along ``dim``, a number or a share, to 0; they are drawn at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: M, name: str, amount: Amount, n: Any, dim: int, importance_scores: Tensor | None = None) -> M:
    """Set the ``amount`` channels along ``dim`` to 0 whose norm of order ``n`` is smallest.

    >>> import kobai
    >>> from kobai.nn.utils import prune
    >>> layer = prune.ln_structured(kobai.nn.Linear(3, 4), "weight", amount=0.5, n=2, dim=0)
    >>> int((layer.weight == 0).all(1).sum())
    2
    """
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: Mapping[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune ``parameters``, pairs of a module and a name, as one: their elements are compared with each other.

    >>> import kobai
    >>> from kobai.nn.utils import prune
    >>> net = kobai.nn.Sequential(kobai.nn.Linear(2, 3), kobai.nn.Linear(3, 2))
    >>> prune.global_unstructured([(layer, "weight") for layer in net], prune.L1Unstructured, amount=0.5)
    >>> sum(int((layer.weight == 0).sum()) for layer in net)
    6
    """
    pairs = list(parameters)
    scores = importance_scores or {}
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs) or not isinstance(scores, Mapping):
        raise TypeError("global_unstructured: expected pairs (module, name), and importance_scores by such pairs")
    tensors = [getattr(module, name).detach() for module, name in pairs]
    masks = [getattr(module, f"{name}_mask", ones_like(t)) for (module, name), t in zip(pairs, tensors, strict=True)]
    method: Any = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(f"global_unstructured: expected an unstructured method, got {pruning_method.__name__}")
    method._tensor_name = "all"
    judged = cat([scores.get(pair, t).detach().flatten() for pair, t in zip(pairs, tensors, strict=True)])
    mask = PruningContainer(method).compute_mask(judged, cat([m.flatten() for m in masks]))
    parts = mask.split([math.prod(t.shape) for t in tensors])
    for (module, name), t, part in zip(pairs, tensors, parts, strict=True):
        custom_from_mask(module, name, part.reshape(t.shape))


def custom_from_mask(module: M, name: str, mask: Tensor) -> M:
    """Set the elements of the parameter ``name`` to 0 for which ``mask`` has zeros."""
    CustomFromMask.apply(module, name, mask)
    return module


def remove(module: M, name: str) -> M:
    """Make a pruned parameter an ordinary one again, with its zeros; it has no mask any more.

    >>> import kobai
    >>> from kobai.nn.utils import prune
    >>> layer = prune.remove(prune.random_unstructured(kobai.nn.Linear(4, 5), "weight", amount=2), "weight")
    >>> int((layer.weight == 0).sum()), prune.is_pruned(layer)
    (2, False)
    """
    found = _method_of(module, name)
    if found is None:
        raise ValueError(f"remove: {module._get_name()} has no pruned parameter {name!r}")
    key, method = found
    del module._forward_pre_hooks[key]
    method.remove(module)
    return module


def is_pruned(module: Module) -> bool:
    """Whether a parameter of the module, or of one in it, is pruned."""
    return any(_method_of(m) is not None for m in module.modules())
