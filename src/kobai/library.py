"""``kobai.library``: operations that programs define by name, and ``kobai.ops.<namespace>``, where they are called from.

``kobai.ops.aten`` has PyTorch's own operations under the names of its library, with their overloads.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kobai import linalg, special
from kobai.autograd.function import Function
from kobai.compat.absent import within
from kobai.core.tensor import Tensor
from kobai.nn import functional
from kobai.ops import foreach

__all__ = [
    "CustomOpDef",
    "Library",
    "custom_op",
    "define",
    "impl",
    "register_autograd",
    "register_fake",
    "register_kernel",
]

_EVERY_DEVICE, _OF_OPERATIONS = "CompositeExplicitAutograd", "CompositeImplicitAutograd"
_KEYS: dict[Any, str] = {
    "cpu": "CPU",
    "cuda": "CUDA",
    "default": _EVERY_DEVICE,
    None: _EVERY_DEVICE,
    "": _OF_OPERATIONS,
}
_DEFINED: dict[str, CustomOpDef] = {}


class CustomOpDef:
    """An operation defined by :func:`custom_op` or in a :class:`Library`: what computes it, by device, and its gradient."""

    def __init__(self, qualname: str) -> None:
        self._qualname = qualname
        self._kernels: dict[str, Callable[..., Any]] = {}
        self._backward: Callable[..., Any] | None = None
        self._setup: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return f"<CustomOpDef({self._qualname})>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        first = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        device = "CPU" if first is None else first.device.type.upper()
        for key in (f"Autograd{device}", "Autograd"):
            if key in self._kernels and self._backward is None:
                return self._kernels[key](*args, **kwargs)
        kernel = self._kernels.get(device, self._kernels.get(_EVERY_DEVICE))
        if kernel is None and _OF_OPERATIONS in self._kernels:
            return self._kernels[_OF_OPERATIONS](*args, **kwargs)
        if kernel is None:
            known = ", ".join(self._kernels) or "none"
            raise NotImplementedError(f"{self._qualname}: expected a kernel for {device}, there are {known}")
        try:
            given = inspect.signature(kernel).bind(*args, **kwargs)
        except ValueError:  # a function whose signature Python does not know
            return self._function(kernel, {}).apply(*args)
        given.apply_defaults()
        return self._function(kernel, given.kwargs).apply(*given.args)

    def _function(self, kernel: Callable[..., Any], options: dict[str, Any]) -> type[Function]:
        """``kernel`` with the gradient that is registered, or an error where there is none."""
        named = {"keyword_only_inputs": options} if options else {}

        def forward(ctx: Any, *args: Any) -> Any:
            output = kernel(*args, **options)
            if self._setup is not None:
                self._setup(ctx=ctx, inputs=args, output=output, **named)
            return output

        def backward(ctx: Any, *gradients: Any) -> Any:
            if self._backward is None:
                raise RuntimeError(f"backward: {self._qualname} has no gradient; give it one with register_autograd")
            return self._backward(ctx, *gradients)

        body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        return type(self._qualname.replace("::", "_"), (Function,), body)

    def register_kernel(self, device_types: Any, func: Any = None, /) -> Any:
        """Compute with ``func`` on ``device_types`` (``"cpu"``, ``"cuda"`` or several); a decorator without ``func``."""
        if func is None:
            return lambda given: self.register_kernel(device_types, given)
        kinds: Any = [device_types] if device_types is None or isinstance(device_types, str) else device_types
        for kind in kinds:
            self._kernels[_KEYS.get(kind, kind)] = func
        return func

    def register_fake(self, func: Callable[..., Any], /) -> Callable[..., Any]:
        """``func`` itself: what computes shapes alone is for compilers, and is not called."""
        return func

    def register_autograd(
        self, backward: Callable[..., Any], /, *, setup_context: Callable[..., Any] | None = None
    ) -> None:
        """``backward(ctx, *gradients)`` gives one for each input; ``setup_context(ctx, inputs, output)`` saves for it."""
        self._backward, self._setup = backward, setup_context


def _found(op: Any) -> CustomOpDef:
    name = op if isinstance(op, str) else getattr(op, "_qualname", "")
    if name not in _DEFINED:
        raise RuntimeError(f"library: there is no operation {name or op!r}; define it first")
    return _DEFINED[name]


def _define(qualname: str) -> CustomOpDef:
    namespace, colons, name = qualname.partition("::")
    if not (colons and namespace and name):
        raise ValueError(f"library: expected a name of the form 'namespace::name', got {qualname!r}")
    if namespace == "aten":
        raise NotImplementedError(f"library: {qualname} is one of PyTorch's operations, which cannot be redefined")
    return _DEFINED.setdefault(qualname, CustomOpDef(qualname))


def custom_op(
    name: str,
    fn: Callable[..., Any] | None = None,
    /,
    *,
    mutates_args: str | Iterable[str],
    device_types: str | Sequence[str] | None = None,
    schema: str | None = None,
    tags: Any = None,
) -> Any:
    """The operation ``name`` (``"namespace::name"``) that ``fn`` computes; without ``fn`` a decorator.

    ``fn`` runs without recording: :meth:`CustomOpDef.register_autograd` gives a gradient. On other devices than
    ``device_types`` it needs further kernels. What ``fn`` changes in place is noticed, so ``mutates_args``, as ``schema`` and
    ``tags``, only speak to PyTorch's compiler.

    >>> import kobai
    >>> @kobai.library.custom_op("example::twice", mutates_args=())
    ... def twice(x: kobai.Tensor) -> kobai.Tensor:
    ...     return kobai.from_numpy(2 * x.numpy())
    >>> twice.register_autograd(lambda ctx, dy: 2 * dy)
    >>> x = kobai.ones(2, requires_grad=True)
    >>> kobai.ops.example.twice(x).sum().backward()
    >>> x.grad
    tensor([2., 2.])
    """
    if fn is None:
        return lambda given: custom_op(name, given, mutates_args=mutates_args, device_types=device_types, schema=schema)
    made = _DEFINED[name] = _define(name)
    made.register_kernel(device_types, fn)
    return made


def triton_op(name: str, fn: Any = None, /, *, mutates_args: Any, schema: str | None = None) -> Any:
    """:func:`custom_op` on every device. What it calls is made of operations, so gradients flow through it."""
    if fn is None:
        return lambda given: triton_op(name, given, mutates_args=mutates_args)
    made = _define(name)
    made.register_kernel("", fn)
    return made


def define(qualname: str, schema: str, *, lib: Any = None, tags: Any = ()) -> None:
    """Make ``kobai.ops.<namespace>.<name>``, which :func:`impl` and others fill; ``schema`` is for readers."""
    _define(qualname)


def impl(lib: Any, name: Any, dispatch_key: Any = "") -> Any:
    """A decorator: compute the operation with the function, ``impl(library, "name", "CPU")`` or ``impl("ns::name", "cpu")``."""
    if isinstance(lib, Library):

        def given(func: Callable[..., Any]) -> Callable[..., Any]:
            lib.impl(name, func, dispatch_key)
            return func

        return given
    return _found(lib).register_kernel(name, *([dispatch_key] if callable(dispatch_key) else []))


def register_kernel(op: Any, device_types: Any, func: Any = None, /, *, lib: Any = None) -> Any:
    """:meth:`CustomOpDef.register_kernel` of the operation ``op``, itself or its name."""
    return _found(op).register_kernel(device_types, func)


def register_fake(op: Any, func: Any = None, /, *, lib: Any = None, allow_override: bool = False) -> Any:
    """``func`` itself, see :meth:`CustomOpDef.register_fake`; without it a decorator."""
    _found(op)
    return (lambda given: given) if func is None else func


def register_autograd(op: Any, backward: Any, /, *, setup_context: Any = None, lib: Any = None) -> None:
    """:meth:`CustomOpDef.register_autograd` of the operation ``op``, itself or its name.

    >>> import kobai
    >>> kobai.library.define("example::half", "(Tensor x) -> Tensor")
    >>> kobai.library.impl("example::half", "cpu", lambda x: x / 2)(kobai.ones(1))
    tensor([0.5000])
    >>> kobai.library.register_autograd("example::half", lambda ctx, dy: dy / 2)
    """
    _found(op).register_autograd(backward, setup_context=setup_context)


class Library:
    """Operations of one namespace: :meth:`define` makes them, :meth:`impl` says what computes them.

    >>> import kobai
    >>> library = kobai.library.Library("shapes", "DEF")
    >>> library.define("area(Tensor sides) -> Tensor")
    'area'
    >>> library.impl("area", lambda sides: sides.prod(), "CompositeImplicitAutograd")
    >>> kobai.ops.shapes.area(kobai.tensor([2.0, 3.0]))
    tensor(6.)
    """

    def __init__(self, ns: str, kind: str, dispatch_key: str = "") -> None:
        if kind not in ("DEF", "IMPL", "FRAGMENT"):
            raise ValueError(f"Library: expected kind DEF, IMPL or FRAGMENT, got {kind!r}")
        self.ns, self.kind, self.dispatch_key = ns, kind, dispatch_key

    def define(self, schema: str, alias_analysis: str = "", *, tags: Any = ()) -> str:
        """Make the operation of ``schema`` (``"name(Tensor x) -> Tensor"``), and return its name."""
        name, _, rest = schema.partition("(")
        if not rest:
            raise ValueError(f"Library.define: expected a schema like 'name(Tensor x) -> Tensor', got {schema!r}")
        _define(f"{self.ns}::{name.strip().partition('.')[0]}")
        return name.strip()

    def impl(self, op_name: Any, fn: Any, dispatch_key: str = "", **options: Any) -> None:
        """Compute the operation with ``fn`` where ``dispatch_key`` says: ``CPU``, ``CUDA``, ``Autograd``, ``Composite…``."""
        name = getattr(op_name, "_qualname", op_name).rpartition("::")[2].partition(".")[0]
        if dispatch_key != "Meta":
            _define(f"{self.ns}::{name}").register_kernel(dispatch_key or self.dispatch_key, fn)


class Operator:
    """An operation by its name in a namespace, or one overload of it, as ``kobai.ops.aten.add.Tensor``.

    The arguments decide what is computed, so overloads differ in name alone.
    """

    def __init__(self, qualname: str, overload: str = "") -> None:
        self._qualname, self._overload = qualname, overload
        self.namespace, _, self.__name__ = qualname.partition("::")

    def __repr__(self) -> str:
        return ".".join(filter(None, (self.namespace, self.__name__, self._overload)))

    def __getattr__(self, overload: str) -> Operator:
        if overload.startswith("_") or self._overload:
            raise AttributeError(f"{self!r} has no attribute {overload!r}")
        made = Operator(self._qualname, overload)
        setattr(self, overload, made)
        return made

    def overloads(self) -> list[str]:
        """Names of the overloads: one takes whatever the operation takes."""
        return ["default"]

    def name(self) -> str:
        """``aten::add.Tensor``."""
        return self._qualname + (f".{self._overload}" if self._overload not in ("", "default") else "")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = _DEFINED[self._qualname] if self._qualname in _DEFINED else _of_aten(self.__name__)
        return found(*args, **kwargs)


def _safe_softmax(x: Tensor, dim: int, dtype: Any = None) -> Any:
    """The softmax along ``dim``, and 0 where all numbers are −∞."""
    empty = (x == -math.inf).all(dim, keepdim=True)
    return functional.softmax(x.masked_fill(empty, 0.0), dim, dtype=dtype).masked_fill(empty, 0.0)


_OWN = {"_safe_softmax": _safe_softmax}
"""Operations that PyTorch has under no other name."""


def _of_aten(name: str) -> Callable[..., Any]:
    """What Kobai has under the name of an operation of PyTorch's library."""
    family, _, rest = name.partition("_")
    families = {"linalg": linalg, "special": special, "": foreach}
    places = (vars(sys.modules["kobai"]), vars(functional), vars(Tensor))
    found = _OWN.get(name) or getattr(families.get(family), rest if family else name, None)
    found = found or next((place[name] for place in places if callable(place.get(name))), None)
    if not callable(found):
        raise NotImplementedError(f"kobai has no operation 'ops.aten.{name}'")
    return found


class Namespace:
    """``kobai.ops.<name>``: the operations of a namespace."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Operator:
        qualname = f"{self._name}::{name}"
        if name.startswith("__") or (self._name != "aten" and qualname not in _DEFINED):
            raise AttributeError(f"kobai.ops.{self._name} has no operation {name!r}")
        made = Operator(qualname)
        setattr(self, name, made)
        return made

    def __dir__(self) -> list[str]:
        return [q.partition("::")[2] for q in _DEFINED if q.startswith(f"{self._name}::")]


_NAMESPACES: dict[str, Namespace] = {}


def namespace(name: str) -> Namespace | None:
    """The namespace of that name, if there is one: PyTorch's ``aten``, or one in which an operation was defined."""
    if name != "aten" and not any(qualname.startswith(f"{name}::") for qualname in _DEFINED):
        return None
    return _NAMESPACES.setdefault(name, Namespace(name))


__getattr__ = within(
    __name__,
    """
    fallthrough_kernel get_ctx get_kernel impl_abstract infer_schema opcheck register_autocast register_torch_dispatch
    register_vmap wrap_triton
    """,
)
