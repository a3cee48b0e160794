"""Parameters that are functions of others: ``module.weight`` computed by modules from what is trained.

A module with such a parameter is of a class of its own, in which the name is a property; ``module.parametrizations[name]``
holds the modules that compute it, and what they compute it from, as ``original`` (or ``original0``, ``original1``, ...).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import local
from typing import Any, TypeVar

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

M = TypeVar("M", bound=Module)


class _Cache(local):
    """Of a thread: the open :func:`cached` blocks, and what was computed in them, by module and name."""

    def __init__(self) -> None:
        self.open = 0
        self.values: dict[tuple[int, str], Tensor] = {}


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """In this block a parametrised tensor is computed at its first use alone.

    >>> import kobai
    >>> from kobai.nn.utils import parametrize, parametrizations
    >>> layer = parametrizations.weight_norm(kobai.nn.Linear(2, 2))
    >>> with parametrize.cached():
    ...     layer.weight is layer.weight
    True
    """
    _cache.open += 1
    try:
        yield
    finally:
        _cache.open -= 1
        if not _cache.open:
            _cache.values = {}


class ParametrizationList(ModuleList):
    """The modules that compute one tensor, in turn, and what the first of them is given: ``original``, or several."""

    def __init__(self, modules: Sequence[Module], original: Tensor | Parameter, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        with no_grad():
            new = self._inverse(original)
        self.is_tensor = isinstance(new, Tensor)
        if isinstance(new, Tensor):
            if new is not original:
                original.data = new.detach()
            self._keep("original", original)
        else:
            self.ntensors = len(new)
            for i, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ValueError(f"right_inverse: expected tensors, got {type(part).__name__}")
                trained = isinstance(original, Parameter)
                self._keep(
                    f"original{i}", Parameter(part.detach(), original.requires_grad) if trained else part.detach()
                )
        if not unsafe:
            with no_grad():
                made = self()
            if not isinstance(made, Tensor) or made.shape != shape or made.dtype != dtype:
                got = f"{tuple(made.shape)} of {made.dtype}" if isinstance(made, Tensor) else type(made).__name__
                raise ValueError(
                    f"register_parametrization: expected a tensor {tuple(shape)} of {dtype}, got {got}; see unsafe=True"
                )

    def _keep(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)

    def _inverse(self, value: Any) -> Any:
        """What the modules compute ``value`` from. At first, those that cannot say take it as it is."""
        for module in reversed(self):
            if hasattr(module, "right_inverse"):
                try:
                    value = module.right_inverse(value)
                except NotImplementedError:
                    if hasattr(self, "is_tensor"):
                        raise
        return value

    def right_inverse(self, value: Tensor) -> None:
        """Set ``original`` so that ``value`` is computed from it."""
        with no_grad():
            new = self._inverse(value)
            if self.is_tensor:
                self.original.data = new.detach()
                return
            for i, part in enumerate(new):
                getattr(self, f"original{i}").data = part.detach()

    def forward(self) -> Tensor:
        """The tensor, computed."""
        originals = [self.original] if self.is_tensor else [getattr(self, f"original{i}") for i in range(self.ntensors)]
        first, *others = self
        value: Tensor = first(*originals)
        for module in others:
            value = module(value)
        return value


def _property(name: str) -> property:
    def get(self: Any) -> Tensor:
        if not _cache.open:
            return self.parametrizations[name]()  # type: ignore[no-any-return]
        key = (id(self), name)
        if key not in _cache.values:
            _cache.values[key] = self.parametrizations[name]()
        return _cache.values[key]

    def set_(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, set_)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrised tensors, or one of this name.

    >>> import kobai
    >>> kobai.nn.utils.parametrize.is_parametrized(kobai.nn.Linear(2, 2))
    False
    """
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def type_before_parametrizations(module: Module) -> type:
    """The class that a module had before its first parametrization.

    >>> import kobai
    >>> kobai.nn.utils.parametrize.type_before_parametrizations(kobai.nn.Linear(2, 2)).__name__
    'Linear'
    """
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def register_parametrization(module: M, tensor_name: str, parametrization: Module, *, unsafe: bool = False) -> M:
    """Have ``module.<tensor_name>`` computed by ``parametrization`` from the parameter or buffer that it was.

    A method ``right_inverse(value)`` of it says what ``value`` is computed from, a tensor or several: with it the tensor
    keeps its value, and can be assigned. Several parametrizations follow each other. ``unsafe`` permits that shape or dtype
    change. In the module's state is ``parametrizations.<tensor_name>.original``. Returns the module.

    Errors: ValueError for a name that the module does not have, and for another shape or dtype.

    >>> import kobai
    >>> class Symmetric(kobai.nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> layer = kobai.nn.utils.parametrize.register_parametrization(kobai.nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.T).all()), list(layer.state_dict())
    (True, ['bias', 'parametrizations.weight.original'])
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        own = module.parametrizations[tensor_name]
        before = getattr(module, tensor_name)
        with no_grad():
            after = parametrization(before)
        if not unsafe and (after.shape != before.shape or after.dtype != before.dtype):
            raise ValueError(
                f"register_parametrization: expected a tensor {tuple(before.shape)} of {before.dtype}, "
                f"got {tuple(after.shape)} of {after.dtype}; see unsafe=True"
            )
        own.append(parametrization)
        own.unsafe |= unsafe
        return module
    table: dict[str, Any] | None = next(
        (t for t in (module._parameters, module._buffers) if t.get(tensor_name) is not None), None
    )
    if table is None:
        raise ValueError(f"register_parametrization: {module._get_name()} has no parameter or buffer {tensor_name!r}")
    listed = ParametrizationList([parametrization], table[tensor_name], unsafe)
    del table[tensor_name]
    kind = type_before_parametrizations(module)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = listed
    _give_class(module, kind)
    return module


def _give_class(module: Module, kind: type) -> None:
    """Make a module one of a new class with its parametrised names; copies may still be of the one that it had."""
    if not is_parametrized(module):
        module.__class__ = kind
        return
    properties = {name: _property(name) for name in module.parametrizations}
    module.__class__ = type(f"Parametrized{kind.__name__}", (kind,), properties)


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """Turn a computed tensor back into a parameter or buffer: with its present value, or that of ``original``.

    >>> import kobai
    >>> layer = kobai.nn.utils.parametrizations.weight_norm(kobai.nn.Linear(3, 2))
    >>> sorted(kobai.nn.utils.parametrize.remove_parametrizations(layer, "weight").state_dict())
    ['bias', 'weight']
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"remove_parametrizations: {module._get_name()} has no parametrization of {tensor_name!r}")
    listed = module.parametrizations[tensor_name]
    if not leave_parametrized and not listed.is_tensor:
        raise ValueError("remove_parametrizations: of several originals only leave_parametrized=True makes one tensor")
    with no_grad():
        value = listed().detach()
    if listed.is_tensor:
        kept = listed.original
        if leave_parametrized:
            kept.data = value
    else:
        kept = Parameter(value) if isinstance(listed.original0, Parameter) else value
    kind = type_before_parametrizations(module)
    del module.parametrizations[tensor_name]
    _give_class(module, kind)
    if not is_parametrized(module):
        del module.parametrizations
    if isinstance(kept, Parameter):
        module.register_parameter(tensor_name, kept)
    else:
        module.register_buffer(tensor_name, kept)
    return module
