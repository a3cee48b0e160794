"""A parameter, or buffer, that is a function of others: ``register_parametrization`` and what goes with it.

>>> import kobai
>>> from kobai import nn
>>> from kobai.nn.utils import parametrize
>>> class Symmetric(nn.Module):
...     def forward(self, x):
...         return x.triu() + x.triu(1).T
>>> layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
>>> kobai.equal(layer.weight, layer.weight.T), [name for name, _ in layer.named_parameters()]
(True, ['bias', 'parametrizations.weight.original'])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn.container import ModuleDict, ModuleList
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
]

_cache: dict[tuple[int, str], Tensor] = {}
_caching = 0


@contextmanager
def cached() -> Iterator[None]:
    """Block in which every parametrised tensor is computed once; what changes its originals inside does not change it."""
    global _caching
    _caching += 1
    try:
        yield
    finally:
        _caching -= 1
        if not _caching:
            _cache.clear()


class ParametrizationList(ModuleList):
    """The functions that one after the other give a tensor, and the parameters they start from.

    ``original`` – or, where the first function's ``right_inverse`` gives several tensors, ``original0``, ``original1``, ... –
    is what is trained and saved. ``right_inverse`` of a function says from what it gives a value that is assigned.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        start = self._inverse(original)
        self.is_tensor = isinstance(start, Tensor)
        self.ntensors = 1 if isinstance(start, Tensor) else len(start)
        starts = [start] if isinstance(start, Tensor) else list(start)
        for name, tensor in zip(self._names(), starts, strict=True):
            if isinstance(original, Parameter):
                self.register_parameter(name, _parameter(tensor, original))
            else:
                self.register_buffer(name, tensor)

    def _names(self) -> list[str]:
        return ["original"] if self.is_tensor else [f"original{i}" for i in range(self.ntensors)]

    def _inverse(self, value: Tensor) -> Any:
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the parametrised tensor becomes ``value``, as far as the functions can give it."""
        start = self._inverse(value)
        with no_grad():
            for name, tensor in zip(self._names(), [start] if self.is_tensor else start, strict=True):
                getattr(self, name).copy_(tensor)

    def forward(self) -> Tensor:
        """The parametrised tensor."""
        first, *rest = self
        value: Tensor = first(*(getattr(self, name) for name in self._names()))
        for module in rest:
            value = module(value)
        return value


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let ``module.<tensor_name>`` be ``parametrization(original)`` each time it is read; returns the module.

    A further one is applied to the result of those before. The value must keep its shape and dtype, unless ``unsafe``.
    """
    if is_parametrized(module, tensor_name):
        chain: ParametrizationList = module.parametrizations[tensor_name]
        value = getattr(module, tensor_name)
        inverse = getattr(parametrization, "right_inverse", None)
        chain.append(parametrization)
        if inverse is not None:
            with no_grad():
                module.parametrizations[tensor_name].right_inverse(value)
    elif tensor_name in module._parameters or tensor_name in module._buffers:
        original = getattr(module, tensor_name)
        if not isinstance(original, Tensor):
            raise ValueError(f"register_parametrization: {tensor_name!r} of {module._get_name()} is None")
        table = module._parameters if tensor_name in module._parameters else module._buffers
        del table[tensor_name]
        try:
            chain = ParametrizationList([parametrization], original, unsafe)
        except BaseException:
            table[tensor_name] = original
            raise
        if not hasattr(module, "parametrizations"):
            _own_class(module)
            module.parametrizations = ModuleDict()
        setattr(type(module), tensor_name, _property(tensor_name))
        module.parametrizations[tensor_name] = chain
        value = original
    else:
        raise ValueError(
            f"register_parametrization: {module._get_name()} has no parameter, buffer or parametrised tensor {tensor_name!r}"
        )
    with no_grad():
        made = chain()
    if not unsafe and (made.shape != value.shape or made.dtype != value.dtype):
        raise ValueError(
            f"register_parametrization: expected {tuple(value.shape)} of {value.dtype} from the parametrization of "
            f"{tensor_name!r}, got {tuple(made.shape)} of {made.dtype}; unsafe=True allows it"
        )
    return module


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make ``module.<tensor_name>`` a parameter of its own again, with the value it has now, or that of the original."""
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"remove_parametrizations: {tensor_name!r} of {module._get_name()} is not parametrised")
    chain: ParametrizationList = module.parametrizations[tensor_name]
    if not leave_parametrized and not chain.is_tensor:
        raise ValueError("remove_parametrizations: leave_parametrized=False needs a single original tensor")
    original = getattr(chain, chain._names()[0])
    with no_grad():
        value = chain() if leave_parametrized else original
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if isinstance(original, Parameter):
        module.register_parameter(tensor_name, _parameter(value, original))
    else:
        module.register_buffer(tensor_name, value.detach())
    if not len(module.parametrizations):
        del module.parametrizations
        module.__class__ = type_before_parametrizations(module)
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrised tensors, or the one of this name is."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def type_before_parametrizations(module: Module) -> type:
    """The class that the module had before its first parametrization."""
    return (
        type(module).__bases__[0] if is_parametrized(module) or "_parametrized" in vars(type(module)) else type(module)
    )


def _parameter(value: Tensor, like: Parameter) -> Parameter:
    return value if value is like else Parameter(value.detach(), like.requires_grad)


def _own_class(module: Module) -> None:
    """Give one module a class of its own, in which tensors can be properties."""
    kind = type(module)
    body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "_parametrized": True}
    module.__class__ = type(f"Parametrized{kind.__name__}", (kind,), body)


def _property(name: str) -> property:
    def read(self: Any) -> Tensor:
        chain = self.parametrizations[name]
        if not _caching:
            return chain()  # type: ignore[no-any-return]
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = chain()
        return _cache[key]

    def write(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(read, write)
