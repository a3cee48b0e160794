"""Tensor: an array that remembers how it was computed.

Here: what a tensor is, its gradient, its place on the tape. ``core/conversion.py`` makes numbers, lists, NumPy arrays and
text of it; ``ops/`` (a higher floor) supplies the operators and all other methods. Both attach them through ``@method``, see
``core/primitive.py``. How gradients travel is in ``core/tape.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, overload
from weakref import ref

import numpy as np

from kobai import xp as _xp
from kobai.compat.absent import of_tensors
from kobai.core import tape
from kobai.core.tape import Node, RemovableHandle, backward_into, root_edge, root_gradient, run_hooks
from kobai.dtypes import FLOATING, _known, _of, dtype, get_default_dtype
from kobai.errors import MissingAttribute
from kobai.xp import Array, array_types, asarray, device, device_of


class Size(tuple[int, ...]):
    """Shape of a tensor: a tuple that also knows its number of elements.

    >>> Size((2, 3)), Size((2, 3)).numel()
    (kobai.Size([2, 3]), 6)
    """

    __slots__ = ()

    def numel(self) -> int:
        """Product of the sizes."""
        n = 1
        for size in self:
            n *= size
        return n

    def __getitem__(self, index: Any) -> Any:
        part = tuple.__getitem__(self, index)
        return Size(part) if type(part) is tuple else part  # x.shape[1:].numel()

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __repr__(self) -> str:
        return f"kobai.Size({list(self)})"


_REQUIRES_GRAD, _HOOKS, _LATE_HOOKS = map(attrgetter, ("_requires_grad", "_hooks", "_accumulate_hooks"))


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    Made by :func:`kobai.tensor`, :func:`kobai.zeros`, ...; ``requires_grad=True`` asks for ``.grad`` after
    :meth:`backward`. Operators, methods and their names are PyTorch's.

    >>> import kobai
    >>> x = kobai.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = (x ** 2).sum()
    >>> y.backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    _array: Array
    _version: list[Any]  # shared by all that view the same memory: how often it was changed in place, and whose it was
    _requires_grad: bool = False
    _node: Node | None = None
    _grad: Tensor | None = None
    _hooks: dict[int, Callable[..., Any]] | None = None
    _accumulate_hooks: dict[int, Callable[..., Any]] | None = None
    _base: Tensor | None = None  # the tensor whose memory this one views
    _steps: tuple[Any, ...] = ()  # the view primitives, with their options, that lead from the base to this one
    _seen: Node | None = None  # the base's node when ours was made; another one means the base was changed in place

    __array_priority__ = 1000.0  # ndarray * Tensor calls Tensor.__rmul__

    def __init__(self, *data: Any, device: device | str | None = None) -> None:
        """``Tensor(2, 3)`` has that shape and unset elements, ``Tensor([2, 3])`` those elements; prefer kobai.tensor()."""
        if len(data) == 1 and isinstance(data[0], Size):
            data = data[0]
        if data and all(isinstance(size, int) for size in data):
            with _xp.on(device):
                self._array = _xp.namespace(device).empty(data, dtype=get_default_dtype())
        elif len(data) > 1:
            raise TypeError(f"Tensor: expected sizes as integers, or one sequence of numbers, got {data!r}")
        else:
            first = data[0] if data else ()
            made = asarray(first._array if isinstance(first, Tensor) else first, device=device)
            self._array = made.astype(get_default_dtype(), copy=False)
        self._version = [0]

    @classmethod
    def _wrap(cls, array: Array, requires_grad: bool = False) -> Any:
        """Tensor around a raw array, without a copy."""
        self = object.__new__(cls)
        self._array = array if type(array) in array_types else tape.as_array(array)
        self._version = [0]
        if requires_grad:
            self.requires_grad_()
        return self

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def array(self) -> Array:
        """The raw NumPy or CuPy array, not a copy. After writing to it, call ``_bump()``."""
        return self._array

    @property
    def shape(self) -> Size:
        """Size of every dimension."""
        return Size(self._array.shape)

    @property
    def dtype(self) -> dtype:
        """Element type, such as ``kobai.float32``."""
        array_dtype = self._array.dtype
        return _known.get(array_dtype) or _of(array_dtype)

    @property
    def device(self) -> device:
        """Where the elements live."""
        return device_of(self._array)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._array.ndim  # type: ignore[no-any-return]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self._array.itemsize  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._array.nbytes  # type: ignore[no-any-return]

    @property
    def is_cuda(self) -> bool:
        """Whether the elements live on a GPU."""
        return self.device.type == "cuda"

    @property
    def is_sparse(self) -> bool:
        """Whether only some elements are stored: never, in Kobai."""
        return False

    def dim(self) -> int:
        """Number of dimensions."""
        return self._array.ndim  # type: ignore[no-any-return]

    @overload
    def size(self, dim: None = None) -> Size: ...
    @overload
    def size(self, dim: int) -> int: ...
    def size(self, dim: int | None = None) -> Size | int:
        """Shape, or the size of one dimension."""
        if dim is None:
            return self.shape
        if not isinstance(dim, int):
            raise TypeError(f"size: expected dim to be an integer, got {dim!r}")
        if not -self.ndim <= dim < self.ndim:
            raise IndexError(f"size: expected dim in [{-self.ndim}, {self.ndim - 1}], got {dim}")
        return int(self._array.shape[dim])

    def numel(self) -> int:
        """Number of elements."""
        return int(self._array.size)

    nelement, ndimension = numel, dim  # PyTorch's older names

    def element_size(self) -> int:
        """Bytes of one element."""
        return int(self._array.itemsize)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a float."""
        return self._array.dtype.kind in FLOATING

    def data_ptr(self) -> int:
        """Address of the first element."""
        array = self._array
        return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)

    # --- gradient -----------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded on the tape. Can be switched off for leaves only."""
        if self._base is not None:
            self._refresh()
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Switch recording on or off, in place; only float tensors can require a gradient."""
        if not requires_grad and self._node is not None:
            raise RuntimeError("requires_grad: only leaf tensors can be switched off; use detach()")
        if requires_grad and self._array.dtype.kind not in FLOATING:
            raise RuntimeError(f"requires_grad: expected a float tensor, got {self._array.dtype}")
        if requires_grad and self.grad_fn is None:
            self._base, self._steps = None, ()  # a leaf starts a history, even if it views other memory
        self._requires_grad = bool(requires_grad)
        return self

    @property
    def grad(self) -> Tensor | None:
        """Gradient accumulated by :meth:`backward`; None before it, and after ``zero_grad()``."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad: expected a Tensor or None, got {type(value).__name__}")
            if value._array.shape != self._array.shape:
                raise RuntimeError(f"grad: expected shape {tuple(self.shape)}, got {tuple(value.shape)}")
            if value._array.dtype != self._array.dtype:
                raise RuntimeError(f"grad: expected dtype {self.dtype}, got {value.dtype}")
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def grad_fn(self) -> Node | None:
        """Node of the tape that computed this tensor; None for leaves."""
        if self._base is not None:
            self._refresh()
        return self._node

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by the user rather than computed from something that requires a gradient."""
        return self.grad_fn is None

    @property
    def retains_grad(self) -> bool:
        """Whether this non-leaf keeps its gradient; see :meth:`retain_grad`."""
        return self._node is not None and self._node.retain is not None

    def _capture_watch(self, walk: Any) -> None:
        """What a captured step of this tensor rests on, beside its memory (see ``kobai.capture.watch``)."""
        wanted = self._requires_grad
        walk.watch_with_others(_REQUIRES_GRAD, self, "requires_grad", "a tensor's ", not wanted)
        if wanted:
            for read, name in ((_HOOKS, "register_hook"), (_LATE_HOOKS, "register_post_accumulate_grad_hook")):
                walk.watch_with_others(read, self, name, "a tensor's hooks, ", not read(self))
                walk.push(read(self), name)

    def _bump(self) -> None:
        """Count an in-place change, and note whose memory it was: a vjp that keeps a part of it must not run any more."""
        array, version = self._array, self._version
        version[0] += 1
        memory = array if array.base is None else tape.owner(array)
        if len(version) == 1 or version[-1]() is not memory:
            version[1:] = [*(other for other in version[1:] if other() is not None), tape.reference(memory)]

    def _edge(self) -> Any:
        """Where a gradient of this tensor goes: its node, itself if a leaf that wants one, or nowhere."""
        if self._base is not None:
            self._refresh()
        if self._node is not None:
            return self._node
        return self if self._requires_grad else None

    def _refresh(self) -> None:
        """If the base was changed in place on the tape, take part in its new history."""
        base = self._base
        if base is not None and base._base is not None:  # it became a view itself, by unsqueeze_() for example
            base = self._base = base._base
        if base is None or base._node is self._seen or base._node is None:
            return
        array, edge = base._array, base._node
        for function, rest, options in self._steps:
            array, vjp = function(array, *rest, **options)
            edge = Node(function.__name__, vjp, [edge])
        self._node = edge
        self._requires_grad = True
        self._seen = base._node

    def _accumulate(self, g: Array, ours: bool) -> None:
        """Add ``g`` to ``.grad`` of this leaf; ``ours`` if nobody else holds the array."""
        if g.shape != self._array.shape:
            raise RuntimeError(f"backward: expected a gradient of shape {self._array.shape}, got {g.shape}")
        if g.dtype != self._array.dtype:
            g, ours = g.astype(self._array.dtype), True
        if self._hooks:
            g, ours = run_hooks(self._hooks, g), False
        if type(g) is tape.taped_type:
            # A copy, for another leaf may have the same tensor: clipping changes gradients in place.
            self._grad = g.tensor.clone() if self._grad is None else self._grad + g.tensor
        elif self._grad is None:
            self._grad = Tensor._wrap(g if ours and g.flags.c_contiguous else g.copy())
        else:
            self._grad._array += g
            self._grad._bump()
        if self._accumulate_hooks:
            for hook in list(self._accumulate_hooks.values()):
                hook(self)

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Add the gradient of this tensor to the ``.grad`` of every leaf it was computed from.

        ``gradient`` is dL/d(self), of the shape of self; for a tensor of one element it defaults to 1. A second backward
        through the same graph needs ``retain_graph=True`` the first time. ``create_graph=True`` records what is computed, so
        that the gradients can be differentiated themselves; it keeps the graph. A ``.grad`` with a graph keeps all of it
        alive until it is set to None: :func:`kobai.autograd.grad` is the better way. Only ``inputs``, if given, receive.

        Errors: RuntimeError for a tensor of several elements without ``gradient``, one that requires no gradient, a graph
        already freed, and a tensor changed in place that backward needs.
        """
        root = (root_edge("backward", self), root_gradient("backward", self, gradient, create_graph))
        backward_into([root], retain_graph, create_graph, inputs)

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in ``.grad``; no effect on a leaf."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad: this tensor does not require a gradient")
        if self._node is not None:
            self._node.retain = ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(grad)`` when the gradient of this tensor is computed; a returned tensor replaces it."""
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor does not require a gradient")
        owner: Any = self._node if self._node is not None else self
        attribute = "hooks" if self._node is not None else "_hooks"
        hooks = getattr(owner, attribute)
        if hooks is None:
            hooks = {}
            setattr(owner, attribute, hooks)
        return RemovableHandle(hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``hook(tensor)`` after backward has added to the ``.grad`` of this leaf."""
        if self._node is not None or not self._requires_grad:
            raise RuntimeError("register_post_accumulate_grad_hook: expected a leaf that requires a gradient")
        if self._accumulate_hooks is None:
            self._accumulate_hooks = {}
        return RemovableHandle(self._accumulate_hooks, hook)

    # --- same elements, other wrapping ----------------------------------------------------------------------------------

    def detach(self) -> Tensor:
        """The same memory without history: requires no gradient; both see in-place changes."""
        out: Tensor = Tensor._wrap(self._array)
        out._version = self._version
        return out

    def detach_(self) -> Tensor:
        """Forget the history, in place."""
        if self._base is not None:
            raise RuntimeError("detach_: this tensor is a view of another; use detach()")
        self._node, self._requires_grad = None, False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without history and *without* the tape's check for in-place changes; prefer detach()."""
        return Tensor._wrap(self._array)  # type: ignore[no-any-return]

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}")
        self._array = value._array

    if TYPE_CHECKING:  # supplied by kobai.ops through @method, as are all methods that no class body here defines

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...

    # --- Python protocols -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        if self._array.ndim == 0:
            raise TypeError("len: a tensor without dimensions has no length")
        return int(self._array.shape[0])

    def __contains__(self, element: Any) -> bool:
        if not isinstance(found := self == element, Tensor):
            raise TypeError(f"in: expected a Tensor or a number, got {type(element).__name__}")
        return bool(found.any())

    def __reversed__(self) -> Tensor:
        return self.flip(0)  # type: ignore[no-any-return]

    def __pos__(self) -> Tensor:
        return self.positive()  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Tensor]:
        if self._array.ndim == 0:
            raise TypeError("iter: a tensor without dimensions cannot be iterated")
        return (self[i] for i in range(self._array.shape[0]))

    def __hash__(self) -> int:
        return id(self)

    def __dir__(self) -> list[str]:
        return [name for name in object.__dir__(self) if not name.startswith("_") or name.startswith("__")]

    def __getattr__(self, name: str) -> Any:
        raise MissingAttribute(self, name, of_tensors)


tape.tensor_type = Tensor
