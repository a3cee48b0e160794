"""Subclasses of Tensor that programs write: operations on one give one, or what its ``__torch_function__`` makes of them.

Nothing of this is there before the first such class is defined: a plain tensor's operation costs what it costs. Then the
class gets methods that ask, and the public functions are replaced by :class:`Asking` ones. ``Parameter`` and ``Buffer`` ask
nobody: operations on them, and on classes derived from them, give plain tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import local
from types import FunctionType
from typing import Any

from kobai.compat.absent import PRESENT
from kobai.core.conversion import attributes, everything
from kobai.core.primitive import method
from kobai.core.tensor import Tensor


class _Mode(local):
    off = False


_mode = _Mode()
_started = False
_made_by_new: set[type] = set()
"""Classes of programs with a ``__new__`` of their own: what they give to ours is what the tensor holds."""

_OPERATORS = {
    **{f"__{r}{name}__": name for name in ("add", "mul") for r in ("", "r")},
    **{f"__{name}__": name for name in ("sub", "matmul", "pow", "neg", "abs", "lt", "le", "gt", "ge")},
    "__truediv__": "div",
}
"""Operators that PyTorch reports as methods of these names."""

_OTHERS = (
    "__getitem__ __setitem__ __rsub__ __rtruediv__ __floordiv__ __rfloordiv__ __mod__ __rmod__ __rpow__ __rmatmul__ "
    "__and__ __rand__ __or__ __ror__ __xor__ __rxor__ __invert__ __eq__ __ne__ "
    "__lshift__ __rshift__ __iadd__ __isub__ __imul__ __itruediv__ __ipow__ __imod__ __ifloordiv__"
).split()
_ASK_NOBODY = frozenset(
    "as_subclass data_ptr dim element_size is_floating_point item ndimension nelement numel numpy register_hook "
    "register_post_accumulate_grad_hook requires_grad_ retain_grad size tolist stride storage untyped_storage".split()
)
_PROPERTIES = ("T", "mT", "H", "mH", "data", "real")
_PLACES = ("", ".nn.functional", ".linalg", ".special")
_OPERATIONS = ("kobai.ops", "kobai.nn.functional", "kobai.linalg", "kobai.special")


@contextmanager
def disabled() -> Iterator[None]:
    """In this block no ``__torch_function__`` is asked."""
    before, _mode.off = _mode.off, True
    try:
        yield
    finally:
        _mode.off = before


def disabled_torch_function(func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """The ``__torch_function__`` of classes on which operations give plain tensors."""
    with disabled():
        return func(*args, **(kwargs or {}))


def _of_tensors(cls: Any, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """What ``func`` gives, its tensors as ones of ``cls``. A subclass that writes its own ends by calling this one."""
    if not all(issubclass(cls, kind) for kind in types):
        return NotImplemented
    return _as(cls, disabled_torch_function(func, types, args, kwargs))


def _as(cls: Any, result: Any) -> Any:
    if isinstance(result, Tensor):
        return result if cls is Tensor or isinstance(result, cls) else as_subclass(result, cls)
    if type(result) in (tuple, list):
        return type(result)(_as(cls, part) for part in result)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(_as(cls, part) for part in result))
    return result


@method
def as_subclass(self: Tensor, cls: Any) -> Any:
    """The same elements, in the same memory and with the same history, as a tensor of class ``cls``.

    >>> import kobai
    >>> class Marked(kobai.Tensor):
    ...     pass
    >>> x = kobai.ones(2).as_subclass(Marked)
    >>> type(2 * x).__name__, type(kobai.ones(2)).__name__
    ('Marked', 'Tensor')
    """
    if not (isinstance(cls, type) and issubclass(cls, Tensor)):
        raise TypeError(f"as_subclass: expected a subclass of Tensor, got {cls!r}")
    with disabled():
        out: Any = self.view(self.shape) if self.requires_grad else self.detach()
    out.__class__ = cls
    return out


def _make_subclass(cls: Any, data: Tensor, require_grad: bool = False) -> Any:
    """A leaf of class ``cls`` in the memory of ``data``."""
    out: Any = data.detach()
    out.__class__ = cls
    out._requires_grad = bool(require_grad)
    return out


def having(values: Iterable[Any]) -> list[type]:
    """Classes among the types of ``values``, and of what lists hold, that have a say: the most derived first."""
    found: list[type] = []
    for value in values:
        kinds = having(value) if type(value) in (tuple, list) else [type(value)]
        for kind in kinds:
            own = getattr(kind, "__torch_function__", disabled_torch_function)
            if kind is Tensor or own is disabled_torch_function or kind in found:
                continue
            at = next((i for i, other in enumerate(found) if issubclass(kind, other)), len(found))
            found.insert(at, kind)
    return found


def ask(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What the classes among the arguments make of ``func(*args, **kwargs)``; they are asked in turn."""
    types = having((*args, *kwargs.values()))
    for kind in types:
        result = kind.__torch_function__(func, tuple(types), args, kwargs)  # type: ignore[attr-defined]
        if result is not NotImplemented:
            return result
    if types:
        names = ", ".join(kind.__name__ for kind in types)
        raise TypeError(f"{func.__name__}: no __torch_function__ of {names} takes it")
    return func(*args, **kwargs)


class Asking:
    """A public function that asks the classes of its arguments. It equals the function, in tables too."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        self.__name__, self.__qualname__, self.__module__ = (
            function.__name__,
            function.__qualname__,
            function.__module__,
        )
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _mode.off or not having((*args, *kwargs.values())):
            return self.__wrapped__(*args, **kwargs)
        return ask(self, args, kwargs)

    def __eq__(self, other: object) -> bool:
        return self.__wrapped__ == (other.__wrapped__ if isinstance(other, Asking) else other)

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __repr__(self) -> str:
        return f"<function {self.__qualname__}>"


def _asking_method(name: str) -> Callable[..., Any]:
    function = getattr(Tensor, name)
    reported = getattr(Tensor, _OPERATORS.get(name, name))

    def asking(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _mode.off:
            return function(self, *args, **kwargs)
        return ask(reported, (self, *args), kwargs)

    asking.__name__, asking.__doc__ = name, function.__doc__
    return asking


class _Attributes(dict[str, Any]):
    """What a program has set on a tensor. What is written here is set there."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__(attributes(tensor))
        self._tensor = tensor

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        everything(self._tensor)[name] = value

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        del everything(self._tensor)[name]

    def update(self, *others: Any, **named: Any) -> None:
        """Set all that is in ``others``."""
        for name, value in dict(*others, **named).items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The value of ``name``, set to ``default`` if it was none."""
        if name not in self:
            self[name] = default
        return self[name]

    def pop(self, name: str, *default: Any) -> Any:
        """Remove ``name``, and return its value."""
        if name not in self and default:
            return default[0]
        value = self[name]
        del self[name]
        return value

    def clear(self) -> None:
        """Remove all."""
        for name in list(self):
            del self[name]


def _read(self: Any, name: str) -> Any:
    """``__dict__`` without what is Kobai's, as in PyTorch: programs copy it from one tensor to another."""
    return _Attributes(self) if name == "__dict__" else object.__getattribute__(self, name)


def _set(self: Any, name: str, value: Any) -> None:
    if name != "__dict__":
        object.__setattr__(self, name, value)
        return
    table, new = _Attributes(self), dict(value)
    table.clear()
    table.update(new)


def _asking_property(name: str) -> property:
    found: Any = getattr(Tensor, name)

    def read(self: Any) -> Any:
        return found.fget(self) if _mode.off else ask(found.fget, (self,), {})

    return property(read, found.fset, found.fdel, found.__doc__)


def _start() -> None:
    """Replace the public functions, and give the first class between Tensor and those of programs its methods."""
    global _started
    _started = True
    for place in _PLACES:
        names = vars(sys.modules[f"kobai{place}"]) if f"kobai{place}" in sys.modules else {}
        for name, value in list(names.items()):
            if type(value) is FunctionType and name[0] != "_" and value.__module__.startswith(_OPERATIONS):
                names[name] = Asking(value)
    for name in ("__getitem__", "__setitem__", "__eq__", "__ne__"):
        vars(Tensor)[name].__name__ = name


def _methods() -> dict[str, Any]:
    methods = {
        name: _asking_method(name)
        for name, value in vars(Tensor).items()
        if callable(value)
        and not isinstance(value, (classmethod, staticmethod, type))
        and (name in _OPERATORS or name in _OTHERS or not (name.startswith("_") or name in _ASK_NOBODY))
    }
    return methods | {
        name: _asking_property(name) for name in _PROPERTIES if isinstance(vars(Tensor).get(name), property)
    }


def _init_subclass(cls: Any, **options: Any) -> None:
    super(Tensor, cls).__init_subclass__(**options)
    if any("__new__" in vars(kind) for kind in _own(cls)):
        _made_by_new.add(cls)
        if not any("__init__" in vars(kind) for kind in _own(cls)):
            cls.__init__ = lambda self, *args, **kwargs: None  # __new__ has done it all
    if cls.__torch_function__ is disabled_torch_function:
        return
    if not _started:
        _start()
    kept = {name for kind in cls.__mro__[: cls.__mro__.index(Tensor)] for name in vars(kind)}
    for name, function in {**_methods(), "__getattribute__": _read, "__setattr__": _set}.items():
        if name not in kept:
            setattr(cls, name, function)


def _own(cls: Any) -> list[Any]:
    """The classes of programs among those that ``cls`` derives from."""
    return [kind for kind in cls.__mro__ if not kind.__module__.startswith("kobai.") and kind is not object]


def _new(cls: Any, *data: Any, **options: Any) -> Any:
    """As PyTorch's, which a subclass's ``__new__`` calls with what is to be in the tensor."""
    self = object.__new__(cls)
    if cls in _made_by_new and (data or options):
        base = next(kind for kind in cls.__mro__ if kind.__module__.startswith("kobai."))
        base.__init__(self, *data, **options)
    return self


PRESENT.update(
    {
        "_C.DisableTorchFunction": disabled,
        "_C.DisableTorchFunctionSubclass": disabled,
        "_C._disabled_torch_function_impl": disabled_torch_function,
    }
)
_init: Any = _init_subclass
_extra: dict[str, Any] = {
    "__torch_function__": classmethod(_of_tensors),
    "__init_subclass__": classmethod(_init),
    "_make_subclass": staticmethod(_make_subclass),
    "__new__": staticmethod(_new),
}
for _name, _value in _extra.items():
    setattr(Tensor, _name, _value)
