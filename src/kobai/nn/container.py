"""Containers: modules and parameters held in order (``Sequential``, ``ModuleList``, ``ParameterList``) or by name."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar, Self, overload

from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _Container(Module):
    """Its members are its own child modules or, in :class:`_OfParameters`, its own parameters and what else it is given."""

    _members: ClassVar[str] = "modules"

    @property
    def _held(self) -> dict[str, Any]:
        """Its members by name; of :class:`_OfParameters` the names are what counts."""
        return self._modules

    def _value(self, key: str) -> Any:
        return self._held[key]

    def _put(self, key: str, value: Any) -> None:
        self._held[key] = value

    def _drop(self, key: str) -> None:
        del self._held[key]

    def __len__(self) -> int:
        return len(self._held)


class _OfParameters(_Container):
    """Tensors become parameters. Anything else is kept as an attribute is: a module is a child, a number just a number."""

    _members = "parameters"

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_order"] = {}  # the names; each value is where attributes of its type are

    @property
    def _held(self) -> dict[str, Any]:
        order: dict[str, Any] = self._order
        return order

    def _value(self, key: str) -> Any:
        own = self._parameters
        return own[key] if key in own else getattr(self, key)

    def _put(self, key: str, value: Any) -> None:
        value = Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value
        if key in self._parameters and not isinstance(value, Parameter):
            del self._parameters[key]  # a parameter's name takes no other value
        setattr(self, key, value)
        self._order[key] = None

    def _drop(self, key: str) -> None:
        delattr(self, key)
        del self._order[key]

    def extra_repr(self) -> str:
        """A line for each member; PyTorch writes modules once more below, as the children that they are."""
        return "\n".join(f"  ({key}): {self._shown(self._value(key))}" for key in self._order)

    def _shown(self, value: Any) -> str:
        if not isinstance(value, Tensor):
            return f"Object of type: {type(value).__name__}"
        kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
        return f"{kind} containing: [{self._type(value)} of size {'x'.join(map(str, value.shape))}]"

    def _type(self, value: Tensor) -> str:
        return str(value.dtype)


class _Ordered(_Container):
    """Members named "0", "1", ...: what the lists share."""

    def _checked(self, value: Any) -> Any:
        if value is not None and not isinstance(value, Module):  # None keeps a place free, as in other modules
            raise TypeError(f"{self._get_name()}: expected a kobai.nn.Module, got {type(value).__name__}")
        return value

    def _key(self, index: int) -> str:
        """Name of the member at ``index``, which may be negative."""
        size, index = len(self), operator.index(index)
        if not -size <= index < size:
            what = self._members.removesuffix("s")
            raise IndexError(f"{self._get_name()}: index {index} is out of range for {size} {what}(s)")
        return next(islice(self._held, index % size, None))

    def __iter__(self) -> Iterator[Any]:
        return map(self._value, list(self._held))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._slice([(key, self._value(key)) for key in list(self._held)[index]])
        return self._value(self._key(index))

    def _slice(self, items: list[tuple[str, Any]]) -> Self:
        return type(self)(value for _, value in items)  # type: ignore[call-arg]

    def __setitem__(self, index: int, value: Any) -> None:
        self._put(self._key(index), self._checked(value))

    def append(self, value: Any, /) -> Self:
        raise NotImplementedError

    def _append_all(self, values: Any) -> Self:
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            got = type(values).__name__
            raise TypeError(f"{self._get_name()}: expected an iterable of {self._members}, got {got}")
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self._append_all(values)


class _OrderedModules(_Ordered):
    """What ``Sequential`` and ``ModuleList`` share."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def _renumber(self, modules: Iterable[Module | None]) -> None:
        self._modules = {str(i): module for i, module in enumerate(modules)}

    def __delitem__(self, index: int | slice) -> None:
        if isinstance(index, slice):
            for key in list(self._modules)[index]:
                del self._modules[key]
        else:
            del self._modules[self._key(index)]
        if all(key.isdecimal() for key in self._modules):  # names given by the user stay
            self._renumber(list(self._modules.values()))

    def append(self, module: Module) -> Self:
        """Add a module at the end; returns self."""
        self.add_module(str(len(self)), self._checked(module))
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end; returns self."""
        return self._append_all(modules)

    def pop(self, index: int = -1) -> Any:
        """Take out and return the module at ``index``."""
        module = self[index]
        del self[index]
        return module


class Sequential(_OrderedModules):
    """Modules applied in sequence: ``y = f_n(... f_2(f_1(x)))``.

    Takes the modules as arguments, or one mapping of names to modules.

    >>> from kobai import nn
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> net.append(nn.Linear(3, 1))
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=1, bias=True)
    )
    >>> len(net[:2])
    2
    """

    @overload
    def __init__(self, *args: Module) -> None: ...
    @overload
    def __init__(self, arg: Mapping[str, Module], /) -> None: ...
    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, self._checked(module))
        else:
            for i, module in enumerate(args):
                self.add_module(str(i), self._checked(module))

    def forward(self, input: Any) -> Any:
        """Pass ``input`` through every module in turn."""
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]  # a child set to None is the user's error, and says so
        return input

    def _checked(self, value: Any) -> Any:
        if value is None:  # could not be called
            raise TypeError("Sequential: expected a kobai.nn.Module, got NoneType")
        return super()._checked(value)

    def _slice(self, items: list[tuple[str, Module | None]]) -> Self:
        return type(self)(dict(items))  # type: ignore[arg-type]

    def insert(self, index: int, module: Module) -> Self:
        """Put a module before position ``index`` (names become positions); returns self."""
        size = len(self)
        if not -size <= index <= size:
            raise IndexError(f"{self._get_name()}.insert: index {index} is out of range for {size} module(s)")
        modules = list(self._modules.values())
        modules.insert(index, self._checked(module))
        self._renumber(modules)
        return self

    def __add__(self, other: Sequential) -> Sequential:
        if not isinstance(other, Sequential):
            raise TypeError(f"Sequential: only a Sequential can be added, got {type(other).__name__}")
        return Sequential(*self, *other)

    def __mul__(self, times: int) -> Sequential:
        return Sequential(*self._repeated(times))

    def __rmul__(self, times: int) -> Sequential:
        return self * times

    def __imul__(self, times: int) -> Self:
        self._renumber(self._repeated(times))
        return self

    def _repeated(self, times: int) -> list[Any]:
        """The same modules, ``times`` over (weights are shared, as in a list multiplied)."""
        if not isinstance(times, int) or times < 1:
            raise ValueError(f"Sequential: can be multiplied by a positive integer, got {times!r}")
        return list(self) * times


class ModuleList(_OrderedModules):
    """A list of modules whose parameters are the parent's too; it has no ``forward``.

    >>> from kobai import nn
    >>> nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    ModuleList(
      (0-2): 3 x Linear(in_features=2, out_features=2, bias=True)
    )
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def insert(self, index: int, module: Module) -> None:
        """Put a module before position ``index``, as ``list.insert`` does."""
        modules = list(self._modules.values())
        modules.insert(index, self._checked(module))
        self._renumber(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def _repr_children(self) -> list[tuple[str, str]]:
        """Equal neighbours once, with their range and number."""
        runs: list[tuple[int, int, str]] = []
        for i, (_, text) in enumerate(super()._repr_children()):
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], i, text)
            else:
                runs.append((i, i, text))
        return [(str(a), text) if a == b else (f"{a}-{b}", f"{b - a + 1} x {text}") for a, b, text in runs]


class _ByName(_Container):
    """A mapping of names: what :class:`ModuleDict` and :class:`ParameterDict` share."""

    def __getitem__(self, key: str) -> Any:
        if key not in self._held:
            raise KeyError(f"{key!r} is not in this {self._get_name()}.{nearest(str(key), self._held)}")
        return self._value(key)

    def __setitem__(self, key: str, value: Any) -> None:
        raise NotImplementedError

    def __delitem__(self, key: str) -> None:
        self._drop(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def clear(self) -> None:
        """Remove everything."""
        for key in list(self._held):
            self._drop(key)

    def pop(self, key: str) -> Any:
        """Take out and return what is at ``key``."""
        value = self[key]
        del self[key]
        return value

    def keys(self) -> Iterable[str]:
        """The names, in order of insertion."""
        return self._held.keys()

    def values(self) -> Iterable[Any]:
        """What is held, in order of insertion."""
        return [self._value(key) for key in self._held]

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, value) pairs, in order of insertion."""
        return [(key, self._value(key)) for key in self._held]

    def update(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add or replace from a mapping or from (name, value) pairs."""
        for key, value in values.items() if isinstance(values, (Mapping, _ByName)) else values:
            self[key] = value


class ModuleDict(_ByName):
    """Modules by name, whose parameters are the parent's too; it has no ``forward``.

    >>> from kobai import nn
    >>> acts = nn.ModuleDict({"relu": nn.ReLU(), "tanh": nn.Tanh()})
    >>> acts["tanh"], "elu" in acts
    (Tanh(), False)
    """

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)


class ParameterList(_OfParameters, _Ordered):
    """A list of parameters that are the parent's too; tensors become parameters, other values are kept as they are.

    >>> import kobai
    >>> from kobai import nn
    >>> nn.ParameterList([kobai.zeros(2), kobai.zeros(3)])[1].requires_grad
    True
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        if values is not None:
            self.extend(values)

    def _checked(self, value: Any) -> Any:
        return value

    def append(self, value: Any) -> Self:
        """Add a value at the end; returns self."""
        self._put(str(len(self)), value)
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Add several values at the end; returns self."""
        return self._append_all(values)

    def pop(self, index: int = -1) -> Any:
        """Take out and return the last value, or the one at ``index``; those behind it move up."""
        values = list(self)
        value = values.pop(index)
        for key in list(self._held):
            self._drop(key)
        self._append_all(values)
        return value


class ParameterDict(_OfParameters, _ByName):
    """Parameters by name that are the parent's too; tensors become parameters, other values are kept as they are.

    >>> import kobai
    >>> from kobai import nn
    >>> nn.ParameterDict({"scale": kobai.ones(2)})
    ParameterDict(  (scale): Parameter containing: [torch.FloatTensor of size 2])
    """

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None) -> None:
        super().__init__()
        if parameters is not None:
            self.update(parameters)

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self._order:
            self._check_new_name(key, "parameter", self._parameters)
        self._put(key, value)

    def _type(self, value: Tensor) -> str:
        return str(value.type())

    def get(self, key: str, default: Any = None) -> Any:
        """The value at ``key``, else ``default``."""
        return self._value(key) if key in self._held else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value at ``key``; where there is none, ``default`` becomes it."""
        if key not in self:
            self[key] = default
        return self[key]

    def copy(self) -> ParameterDict:
        """Another dictionary of the same values."""
        return ParameterDict(dict(self.items()))
