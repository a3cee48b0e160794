"""``@primitive`` declares a differentiable operation, ``@method`` makes it a method, ``in_place`` changes a tensor by it.

An operation is declared once, gradient beside function::

    @primitive(sample=lambda rng: (rng.normal(size=(4, 3)),))
    def exp(x):
        y = xp_of(x).exp(x)
        return y, lambda dy: (dy * y,)

``vjp(dy)`` returns one entry per positional argument: ``None`` where there is no gradient; an array, which may be a view or
shared with others; or a function without arguments, called only if that input needs its gradient. What that returns is added
to in place, unless it is ``dy`` or a view of it, so nobody else may hold it. If it fills few places of an array, the function
may take ``*, onto=None``, an array to which it then adds instead. A ``vjp`` never writes into ``dy``.

**What a vjp keeps.** An operand or the result that the ``vjp`` reaches – itself or a view of it; in its closure, a default
argument, an attribute, a container, an object, at any depth – must be the same in backward as it was: if it was changed in
place, backward raises. Nothing is declared; ``core/tape.py`` looks where the ``vjp`` leads. So close over what the gradient
needs and no more (a shape rather than the array), and never leave an array in a global variable, which is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from types import FunctionType
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np

from kobai import xp as _xp
from kobai.core.autocast import fitted, on_list
from kobai.core.grad_mode import in_mode, state
from kobai.core.tape import RESULT, Node, Vjp, as_array
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, HALVES
from kobai.engine.cuda_kernel import TYPES
from kobai.engine.dispatch import HOST_TYPES
from kobai.errors import BackendError
from kobai.refusals import beside_first, guarded, guards, reword
from kobai.xp import Array, device, is_array, xp_of

F = TypeVar("F", bound=Callable[..., Any])
Raw: TypeAlias = Callable[..., Any]
"""A function of arrays, which returns its value and a vjp."""


class Primitive:
    """A registered primitive: the raw function, its public wrapper, and the samples by which the tests examine it."""

    def __init__(self, function: Callable[..., tuple[Array, Vjp | None]], samples: Sequence[Any], kind: str) -> None:
        self.function = function
        self.name = function.__name__
        self.module = function.__module__
        self.samples = samples
        self.kind = kind
        self.op: Callable[..., Tensor]
        self.plain: Callable[..., Tensor]  # without what ``within`` does before


REGISTRY: dict[str, Primitive] = {}
"""Every primitive by ``module.name``. The tests gradcheck, compare and examine all of them from here alone."""

RUNNERS: dict[type, Callable[..., Any]] = {}
"""What runs a primitive on arrays of a type that needs more than the raw function: ``runner(key, function, type, *arrays)``."""

MEETING: list[Callable[[list[Any]], list[Any]]] = []
"""What makes arguments on one device, whose array types differ, arguments of one type, where that can be done."""

DIRECT: dict[Callable[..., Any], Callable[..., bool]] = {}
"""By operation, what changes memory itself where nothing is recorded, and says whether it did (``ops/directly.py``)."""


def primitive(
    *,
    sample: Any,
    kind: str = "",
    half: str = "wide",
    updates: Sequence[int] = (),
    within: Any = None,
    again: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Tensor]]:
    """Declare a differentiable operation on raw arrays, see the top of this file.

    ``sample`` is a function of a ``numpy.random.Generator`` – or a list of them – returning the positional arguments of an
    example call as a tuple; a dict at its end holds keyword arguments. Float64 arrays in it are differentiated.
    ``kind`` is ``"view"`` for operations whose result shares memory with their first argument, ``"elementwise"`` for those
    that treat all elements alike (the tests then also try empty, one-element, and non-contiguous input of every rank).
    ``half`` is how float16 and bfloat16 are computed: ``"wide"``, in float32 and rounded once at the end, so that no sum or
    square of 16-bit numbers overflows or loses digits; ``"device"``, so on the host, while on a device the function does it
    itself, by its CUDA kernels; ``"own"``, by the function as it is, which only moves elements.
    ``updates`` are the positions of arguments that the function writes into: the tensors there count it as a change.
    ``within`` is for an operation whose gradient holds for some first arguments only, such as symmetric matrices: it makes
    one of those of any tensor, and the registry has the operation after it.
    ``again`` says that the vjp keeps float arrays which were derived from the operands: the node then keeps the operands too,
    and derivatives of the gradient run ``function`` again (``autograd/on_tape.py``).
    """
    if half not in ("wide", "device", "own"):
        raise ValueError(f"primitive: expected half to be wide, device or own, got {half!r}")
    is_view = kind == "view"

    def declare(function: Callable[..., Any]) -> Callable[..., Tensor]:
        declared = Primitive(function, sample if isinstance(sample, list) else [sample], kind)
        key = f"{function.__module__.removeprefix('kobai.')}.{declared.name}"
        if key in REGISTRY:
            raise RuntimeError(f"primitive: {key} is declared twice")
        REGISTRY[key] = declared
        in_float32 = None if half == "own" or is_view else _in_float32(function, half == "device", updates)
        op = _operation(function, is_view, in_float32, updates, key, again)
        declared.plain = op
        declared.op = op if within is None else lambda x, *rest, **options: op(within(x), *rest, **options)
        return op

    return declare


new_object = object.__new__


def operation(function: Raw) -> Callable[..., Tensor]:
    """An operation on tensors that is not in the registry: made while a program runs, of a function with its vjp."""
    return _operation(function, False, None, (), f"operation.{function.__name__}", False)


def _operation(
    function: Raw, is_view: bool, in_float32: Raw | None, updates: Sequence[int], key: str, again: bool
) -> Raw:
    """``function`` as an operation on tensors; ``in_float32`` is what computes 16-bit floats, if not ``function`` itself."""
    name = function.__name__
    plainly = {} if in_float32 is None else {2: in_float32}  # what computes floats of so many bytes, if not function
    at_width, listed = plainly, False

    def switch(on: bool) -> None:  # an autocast block may be open, and the operation is on a list
        nonlocal at_width, listed
        at_width, listed = {2: function, 4: function, **plainly} if on else plainly, on

    on_list(key, switch)

    @guards
    @wraps(function)
    def op(*args: Any, **options: Any) -> Tensor:
        arrays: list[Any] = []
        edges: list[Any] = []  # where the gradient of each argument goes
        operands: list[Any] = []
        wanted, call, array_type = False, function, None
        if updates:
            _count_changes(args, updates)
        for arg in args:
            edge = None
            if isinstance(arg, Tensor):
                array = arg._array
                if type(array) is not array_type:
                    if array_type is not None:
                        return op(*_same_backend(name, args), **options)  # type: ignore[no-any-return]
                    array_type = type(array)
                    if at_width and array.itemsize in at_width and array.dtype.kind in FLOATING:
                        if listed and (cast := fitted(key, args)) is not None:
                            return op(*cast, **options)  # type: ignore[no-any-return]
                        call = at_width[array.itemsize]
                if arg._base is not None:
                    arg._refresh()
                if arg._requires_grad:
                    edge = arg if arg._node is None else arg._node
                    wanted = True
                arrays.append(array)
                version = arg._version
                operands.append((version, version[0], id(array), edge))
            else:
                arrays.append(arg)
            edges.append(edge)
        try:
            if array_type in RUNNERS or (_xp.many_devices and array_type is not None):
                call = _elsewhere(call, key, array_type, args)
            value, vjp = call(*arrays, **options)
        except Exception as error:
            reword(error, function, tuple(arrays), options)
            raise
        out: Tensor = new_object(Tensor)  # as Tensor._wrap makes it, without a call
        out._array, out._version = value if type(value) is array_type else _result(value), [0]
        if is_view:
            _link_view(out, args[0], function, arrays[1:], options)
        if wanted and vjp is not None and state.grad:
            operands.append((out._version, out._version[0], id(value), RESULT))
            if again:
                vjp.forward = call, [None if i in updates else a for i, a in enumerate(arrays)], options
            out._requires_grad, out._node = True, Node(name, vjp, edges, operands)
        return out

    return op


def _result(value: Any) -> Array:
    y = as_array(value)
    if not is_array(y):
        raise TypeError(f"primitive: expected an array as result, got {type(y).__name__}")
    return y


def _count_changes(args: Sequence[Any], updates: Sequence[int]) -> None:
    for i in updates:
        if args[i] is not None:
            args[i]._bump()


def _elsewhere(function: Raw, key: str, array_type: Any, args: Sequence[Any]) -> Raw:
    """``function`` on the device of its arguments, by what runs it on arrays of their type."""
    if _xp.many_devices:
        function = _there(function, args)
    return partial(RUNNERS[array_type], key, function, array_type) if array_type in RUNNERS else function


def _there(function: Raw, args: Sequence[Any]) -> Raw:
    """``function`` with what it makes landing on the device of the first tensor."""
    where = next(arg.device for arg in args if isinstance(arg, Tensor))

    def call(*arrays: Any, **options: Any) -> Any:
        with _xp.on(where):
            return function(*arrays, **options)

    return call


def on_its_device(function: F) -> F:
    """Decorator for what works on arrays outside of primitives and behind no door of ``kobai.refusals``: operators, casts."""

    @wraps(function)
    def there(*args: Any, **options: Any) -> Any:
        return beside_first(function, args, options) if _xp.many_devices else function(*args, **options)

    return there  # type: ignore[return-value]


def _in_float32(function: Callable[..., Any], host_only: bool, updates: Sequence[int]) -> Callable[..., Any]:
    """``function`` for 16-bit floats: its arguments as float32, its result and gradients rounded to 16 bits.

    The first array decides, as it does about the dtype of the result: beside it others may be float32 already.
    """

    def computed(*arrays: Any, **options: Any) -> tuple[Array, Vjp | None]:
        narrow = [a.dtype if is_array(a) and a.dtype in HALVES else None for a in arrays]
        first = next(dtype for dtype in narrow if dtype is not None)
        own = host_only and first.name in TYPES and not all(type(a) in HOST_TYPES for a in arrays if is_array(a))
        wide = [a if own or dtype is None else a.astype(np.float32) for a, dtype in zip(arrays, narrow, strict=True)]
        y, vjp = function(*wide, **options)
        for i in updates:
            if wide[i] is not arrays[i]:
                arrays[i][...] = wide[i]
        y = _rounded(as_array(y), first)
        if vjp is None:
            return y, None

        def rounding(dy: Array) -> list[Any]:
            gradients = vjp(dy if own or dy.dtype not in HALVES else dy.astype(np.float32))
            return [g if dtype is None else _rounded(g, dtype) for g, dtype in zip(gradients, narrow, strict=False)]

        return y, rounding

    return computed


def _rounded(value: Any, dtype: Any) -> Any:
    """A result or an entry of a vjp in ``dtype``, a float of 16 bits, where it is float32."""
    if type(value) is FunctionType:
        return lambda: _rounded(as_array(value()), dtype)
    return value if value is None or value.dtype != np.float32 else as_array(value).astype(dtype)


def _same_backend(name: str, args: Sequence[Any]) -> list[Any]:
    """Arguments with zero-dimensional host tensors moved to the device of the others; error if arrays still differ.

    NumPy computes with 0-d arrays as with scalars: what an operation made of them becomes an array again.
    """
    places = [(i, arg) for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    first, target = next(
        ((i, arg.device) for i, arg in places if arg._array.ndim > 0 or arg.device.type != "cpu"), (0, device("cpu"))
    )
    moved = list(args)
    for i, arg in places:
        here = arg.device
        if here.type == target.type:
            arg._array = as_array(arg._array)
            continue
        if arg._array.ndim > 0 or here.type != "cpu":
            raise BackendError(
                f"{name.strip('_')}: argument {i + 1} is on {here} but argument {first + 1} on {target}; move one of them, "
                f"for example argument {i + 1} with .to({str(target)!r})"
            )
        moved[i] = arg.to(target)
    for join in MEETING:
        moved = join(moved)
    return moved


def among(who: str, input: Tensor, *others: Any) -> Tensor:
    """``input`` as a primitive of it and the others would see it: where they are, also if it is to be written into."""
    kinds = {type(x._array) for x in (input, *others) if isinstance(x, Tensor)}
    return input if len(kinds) == 1 else _same_backend(who, [input, *others])[0]


def _link_view(
    out: Tensor, source: Tensor, function: Callable[..., Any], rest: list[Any], options: dict[str, Any]
) -> None:
    """Tie a result that shares memory with ``source`` to it: one version counter, and the way from base to view."""
    array, whole = out._array, source._array
    # The base of a NumPy view tells at once, most often: the array itself, or what that views too.
    memory = getattr(array, "base", None)
    near = memory is whole or (memory is not None and memory is getattr(whole, "base", None))
    if not near and array.size and not xp_of(array).may_share_memory(array, whole):
        return
    out._version = source._version
    out._base = source if source._base is None else source._base
    out._steps = (*source._steps, (function, rest, options))
    out._seen = out._base._node


def _follow(steps: Sequence[Any], array: Array) -> Array:
    """From an array like a base's to the part of it that a view with these steps sees."""
    for function, rest, options in steps:
        array = function(array, *rest, **options)[0]
    return array


# --- changing a tensor in place ---------------------------------------------------------------------------------------


def in_place(target: Tensor, op: Callable[..., Tensor], *args: Any, **options: Any) -> Tensor:
    """target ← op(target, ...): the memory changes, every view of it sees it, and the tape stays right.

    On the tape the tensor's old value becomes the input of the new node; if ``target`` views another tensor, that base gets
    a node too, whose gradient flows past the changed part to the base and through it to ``target``.
    """
    recorded = state.grad and (
        target.requires_grad or any(isinstance(arg, Tensor) and arg.requires_grad for arg in (*args, *options.values()))
    )
    if not recorded:
        if op not in DIRECT or not DIRECT[op](target, *args, **options):
            in_mode(False, _overwrite, target, op, args, options)
        return target
    need_no_leaf(target)
    with _xp.beside(target._array):
        before: Tensor = Tensor._wrap(
            target._array.copy()
        )  # what the vjp may keep: the memory itself is about to change
    before._requires_grad, before._node = target._requires_grad, target._edge()
    result = op(before, *args, **options)
    _write(target, result)
    changed_by(target, result._node)
    return target


def need_no_leaf(target: Tensor) -> None:
    """RuntimeError for a leaf, or a view of one, that requires a gradient: what is changed in place is no leaf any more."""
    for owner, what in ((target, "a leaf"), (target._base, "a view of a leaf")):
        if owner is not None and owner._node is None and owner._requires_grad:
            raise RuntimeError(
                f"in-place operation: {what} that requires a gradient cannot be changed in place outside no_grad()"
            )


def changed_by(target: Tensor, node: Node | None) -> None:
    """From here on the history of ``target``, whose memory was changed, is ``node``; its base gets a node too."""
    old = target._node
    target._node, target._requires_grad = node, node is not None
    if old is not None and target._node is not None:
        target._node.retain, old.retain = old.retain, None  # .grad is that of the value after the change
    base, steps = target._base, target._steps
    if base is not None:
        memory = base._array

        def vjp(dy: Array) -> tuple[Array, Array]:
            around = xp_of(dy).empty_like(memory)  # in its layout: only then do the steps give views of it too
            around[...] = dy
            _follow(steps, around)[...] = 0
            return around, _follow(steps, dy)

        def on_tape(operand: Any, dy: Any) -> tuple[Any, Any]:
            around = xp_of(memory).ones(memory.shape, dtype=np.bool_)
            _follow(steps, around)[...] = False
            return xp_of(dy).where(around, dy, 0), _follow(steps, dy)

        vjp.on_tape = on_tape  # type: ignore[attr-defined]
        base._node = Node("view_assign", vjp, [base._edge(), target._node])
        base._requires_grad = True
        target._seen = base._node


@overload
def method(function: F, *, name: str = "", in_place: bool = False) -> F: ...
@overload
def method(function: None = None, *, name: str = "", in_place: bool = False) -> Callable[[F], F]: ...
def method(function: Any = None, *, name: str = "", in_place: bool = False) -> Any:
    """Make a function a method of Tensor too, under its own ``name`` or another; ``in_place`` adds ``name_``.

    This is how ``ops/`` (a higher floor) gives Tensor its operators: ``@method(in_place=True) def add`` makes
    ``Tensor.add`` and ``Tensor.add_``.
    """
    if function is None:
        return lambda f: method(f, name=name, in_place=in_place)
    setattr(Tensor, name or function.__name__, guarded(function))
    if in_place:

        @guarded
        @wraps(function)
        def changed(self: Tensor, *args: Any, **options: Any) -> Tensor:
            return _in_place(self, function, *args, **options)

        changed.__name__ = changed.__qualname__ = f"{name or function.__name__}_"
        changed.__doc__ = f"In-place form of :func:`{function.__name__}`."
        setattr(Tensor, changed.__name__, changed)
    return function


def _overwrite(target: Tensor, op: Callable[..., Tensor], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    _write(target, op(target, *args, **options))


def need_own_places(array: Array) -> None:
    """RuntimeError if one place in memory stands for several elements, as in an expanded view."""
    if 0 in array.strides and array.size > 1:
        for size, step in zip(array.shape, array.strides, strict=True):
            if step == 0 and size > 1:
                raise RuntimeError(
                    f"in-place operation: elements of this expanded tensor of shape {tuple(array.shape)} share memory; "
                    "clone() it first"
                )


_KINDS = {"b": 0, "i": 1, "u": 1, **dict.fromkeys(FLOATING, 2)}


def _write(target: Tensor, result: Tensor) -> None:
    if result._array.shape != target._array.shape:
        raise RuntimeError(
            f"in-place operation: the result has shape {tuple(result.shape)}, the tensor {tuple(target.shape)}"
        )
    made, present = result._array.dtype, target._array.dtype
    if made is not present and _KINDS[made.kind] > _KINDS[present.kind]:
        raise RuntimeError(
            f"in-place operation: a result of {result.dtype} cannot be kept in a tensor of {target.dtype}"
        )
    need_own_places(target._array)
    _xp.write(target._array, result._array)
    target._bump()


_in_place = in_place  # the name as seen inside ``method``, which has an argument called so
