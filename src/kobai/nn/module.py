"""``Module``: a tree of layers that knows its parameters, its buffers and its hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self

import numpy as np

from kobai import xp
from kobai.compat.absent import PRESENT
from kobai.core.tape import RemovableHandle
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, _of, bfloat16, dtype, memory_format as MemoryFormat, numeric
from kobai.nn._state import Stateful
from kobai.nn.hooks import BackwardWatch, always_called, hooks_of, of_every_module, told_kwargs
from kobai.nn.tree import no_init, type_name
from kobai.ops.like import empty_like
from kobai.refusals import beside_first, reword
from kobai.xp import device as Device, recorder, sessions, write

__all__ = ["Module"]

_RESTED_ON = frozenset(
    "training _parameters _buffers _modules _forward_pre_hooks _forward_hooks _hooks_with_kwargs _hooks_always_called "
    "_backward_pre_hooks _backward_hooks".split()
)


class _Once:
    """What ``Module._apply`` does to tensors; a buffer that two modules share stays shared."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        self.fn = fn
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        return self.fn(tensor)

    def of_buffer(self, buffer: Tensor) -> Tensor:
        if id(buffer) not in self._buffers:
            self._buffers[id(buffer)] = buffer, self.fn(buffer)
        return self._buffers[id(buffer)][1]


class Module(Stateful):
    """Base of every layer and model: assign parameters and sub-modules as attributes, write ``forward``.

    ``forward(*args)`` holds the mathematics; calling the module runs it with its hooks.

    >>> import kobai
    >>> from kobai import nn
    >>> class Line(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.slope = nn.Parameter(kobai.tensor([2.0]))
    ...
    ...     def forward(self, x):
    ...         return self.slope * x
    >>> line = Line()
    >>> line(kobai.tensor([3.0])).item()
    6.0
    >>> [name for name, _ in line.named_parameters()]
    ['slope']
    """

    training: bool
    dump_patches = False  # of PyTorch's older files

    def __init__(self) -> None:
        super().__init__()
        self.__dict__.update(
            training=True,
            _forward_pre_hooks=OrderedDict(),
            _forward_hooks=OrderedDict(),
            _hooks_with_kwargs=set(),
            _hooks_always_called=set(),
            _backward_pre_hooks=OrderedDict(),
            _backward_hooks=OrderedDict(),
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The mathematics of the layer; every subclass writes its own."""
        raise NotImplementedError(f'Module [{self._get_name()}] is missing the required "forward" function')

    # -- calling ------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            hooked = self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks
        except AttributeError:
            raise AttributeError(no_init(self, "call it")) from None
        if sessions and (at_work := recorder()) is not None:
            at_work.visit(self)
        if hooked or of_every_module:
            return self._call_with_hooks(args, kwargs)
        try:
            return self._there(args, kwargs) if xp.many_devices else self.forward(*args, **kwargs)
        except Exception as error:
            reword(error, self.forward, args, kwargs, self._get_name())
            raise

    _call_impl = __call__  # PyTorch's name, which programs that replace __call__ use

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing, as :func:`kobai.compile`: the module runs as it is written."""

    def _there(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``forward``; that of Kobai's own layers on the device of its input."""
        if type(self).__module__.startswith("kobai."):
            return beside_first(self.forward, args, kwargs)
        return self.forward(*args, **kwargs)

    def _capture_watch(self, walk: Any) -> None:
        """What a captured step of this module depends on: mode, hooks, members; of Kobai's own classes every attribute.

        Attributes of a user's class are watched where its code reads them (see ``kobai.capture.watch``).
        """
        whole = type(self).__module__.startswith("kobai.")
        walk.attributes(self, [name for name in self.__dict__ if whole or name in _RESTED_ON])
        walk.push(of_every_module, "the hooks of every module")

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for key, hook in hooks_of(self, "_forward_pre_hooks"):
            if key in self._hooks_with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    if not (isinstance(changed, tuple) and len(changed) == 2):
                        raise RuntimeError(
                            f"{self._get_name()}: a forward pre-hook with kwargs must return None or (args, kwargs), "
                            f"got {changed!r}"
                        )
                    args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)

        watch = None
        before, after = (hooks_of(self, table) for table in ("_backward_pre_hooks", "_backward_hooks"))
        if before or after:
            watch = BackwardWatch(self, [hook for _, hook in before], [hook for _, hook in after])
            args = watch.inputs(args)

        called: set[int] = set()
        output = None
        try:
            output = self._there(args, kwargs) if xp.many_devices else self.forward(*args, **kwargs)
            for key, hook in hooks_of(self, "_forward_hooks"):
                called.add(key)
                output = self._hooked_output(key, hook, args, kwargs, output)
        except BaseException:
            for key, hook in hooks_of(self, "_forward_hooks"):
                if (key in self._hooks_always_called or key in always_called) and key not in called:
                    self._hooked_output(key, hook, args, kwargs, output)
            raise
        return output if watch is None else watch.outputs(output)

    def _hooked_output(self, key: int, hook: Callable[..., Any], args: Any, kwargs: Any, output: Any) -> Any:
        told = key in self._hooks_with_kwargs or key in told_kwargs
        changed = hook(self, args, kwargs, output) if told else hook(self, args, output)
        return output if changed is None else changed

    # -- modes and conversions ----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and, by their own ``train``, below (dropout drops, batch norm uses the batch's statistics).

        A subclass that keeps a part in evaluation mode overrides ``train``, wherever it stands in a larger model.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"{self._get_name()}.train: mode is expected to be a bool, got {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode; the same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or thaw every parameter."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear every parameter's gradient (``set_to_none=False`` writes zeros instead)."""
        for param in self.parameters():
            if set_to_none:
                param.grad = None  # without a look: a captured step that reads a gradient depends on it
            elif param.grad is not None:
                param.grad = param.grad.detach()
                write(param.grad.array, 0)
                param.grad._bump()

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Call ``fn`` on every module, children before parents: the usual way to initialise weights."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replace every tensor by ``fn`` of it; parameters keep their identity, so optimisers still hold them.

        Submodules come first, by their own ``_apply``: one that holds further tensors overrides it.
        """
        once = fn if isinstance(fn, _Once) else _Once(fn)
        if recurse:
            for module in self.children():
                module._apply(once)
        for param in self._parameters.values():
            if param is None:
                continue
            grad = param.grad
            moved = fn(param.data)
            if moved.array is not param.array:
                param.grad = None
                param.data = moved
                if grad is not None:
                    param.grad = fn(grad.detach())
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = once.of_buffer(buffer)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move and cast in place: ``to(device)``, ``to(dtype)``, ``to(device, dtype)`` or ``to(tensor)``.

        Only floating-point parameters and buffers are cast; everything is moved. Parameters keep their identity.
        ``to(memory_format=...)`` changes nothing, see :class:`kobai.memory_format`.

        >>> import kobai
        >>> from kobai import nn
        >>> nn.Linear(2, 3).to(kobai.float64).weight.dtype == kobai.float64
        True
        """
        device, dtype = _parse_to(self._get_name(), *args, **kwargs)
        if dtype is not None and dtype.kind not in FLOATING:
            raise TypeError(f"{self._get_name()}.to: only floating-point dtypes are accepted, got {dtype.name}")

        def convert(tensor: Tensor) -> Tensor:
            moved: Tensor = tensor if device is None else tensor.to(device)
            return moved.to(dtype) if dtype is not None and tensor.dtype.kind in FLOATING else moved

        return self._apply(convert)

    def cpu(self) -> Self:
        """Move everything to host memory."""
        return self.to("cpu")

    def cuda(self, device: int | str | None = None) -> Self:
        """Move everything to a CUDA device (the current one, or by index)."""
        return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def float(self) -> Self:
        """Cast floating-point parameters and buffers to float32."""
        return self.to(np.dtype(np.float32))

    def double(self) -> Self:
        """Cast floating-point parameters and buffers to float64."""
        return self.to(np.dtype(np.float64))

    def half(self) -> Self:
        """Cast floating-point parameters and buffers to float16."""
        return self.to(np.dtype(np.float16))

    def bfloat16(self) -> Self:
        """Cast floating-point parameters and buffers to bfloat16."""
        return self.to(bfloat16.dtype)

    def type(self, dst_type: Any) -> Self:
        """Convert every parameter and buffer by :meth:`Tensor.type`, whole numbers too."""
        return self._apply(lambda tensor: tensor.type(dst_type))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Move to a device, without the values; those of the submodules too, if ``recurse``."""
        return self._apply(lambda tensor: empty_like(tensor, device=device), recurse=recurse)

    def share_memory(self) -> Self:
        """Does nothing: threads share all memory, and Kobai trains in one process."""
        return self

    # -- hooks --------------------------------------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns, if not None, replaces the arguments.

        ``with_kwargs=True``: ``hook(module, args, kwargs)`` returns None or ``(args, kwargs)``.
        """
        return self._add_hook(self._forward_pre_hooks, hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns, if not None, replaces the output.

        ``with_kwargs=True``: ``hook(module, args, kwargs, output)``. ``always_call=True``: also if ``forward`` or an earlier
        hook fails; ``output`` is then None, or what there was of it.
        """
        handle = self._add_hook(self._forward_hooks, hook, prepend, with_kwargs)
        if always_call:
            self._hooks_always_called.add(handle.id)
        return handle

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` when the gradients of the outputs are known; it may replace them."""
        return self._add_hook(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the inputs are known.

        Both are tuples, with one entry per positional argument or output (None for one that is not a tensor, or needs no
        gradient). What the hook returns, if not None, replaces ``grad_input``.

        >>> import kobai
        >>> from kobai import nn
        >>> layer = nn.Linear(2, 1)
        >>> handle = layer.register_full_backward_hook(lambda m, gi, go: print(gi[0].shape, go[0].shape))
        >>> layer(kobai.ones(3, 2, requires_grad=True)).sum().backward()
        kobai.Size([3, 2]) kobai.Size([3, 1])
        >>> handle.remove()
        """
        return self._add_hook(self._backward_hooks, hook, prepend)

    register_backward_hook = (
        register_full_backward_hook  # PyTorch's older one, which saw the gradients of one operation
    )

    def _add_hook(
        self,
        hooks: OrderedDict[int, Callable[..., Any]],
        hook: Callable[..., Any],
        prepend: bool,
        with_kwargs: bool = False,
    ) -> RemovableHandle:
        if not callable(hook):
            raise TypeError(f"{self._get_name()}: a hook must be callable, got {type_name(hook)}")
        handle = RemovableHandle(hooks, hook)
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        if with_kwargs:
            self._hooks_with_kwargs.add(handle.id)
        return handle


def _parse_to(
    who: str,
    *args: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
    memory_format: MemoryFormat | None = None,
) -> tuple[Any, np.dtype[Any] | None]:
    """Device and dtype from the three ways to call ``Module.to``.

    ``non_blocking`` would allow an asynchronous copy; Kobai copies in order.
    """
    if args and isinstance(args[0], Tensor):
        device, dtype, args = args[0].device, args[0].dtype, args[1:]
    elif args and _is_dtype(args[0]):
        dtype, args = args[0], args[1:]
    elif args:
        device, args = args[0], args[1:]
        if args and (_is_dtype(args[0]) or args[0] is None):
            dtype, args = args[0], args[1:]
    if len(args) > 1 or (args and not isinstance(args[0], bool)):
        raise TypeError(f"{who}.to: expected (device, dtype), (dtype) or (tensor), got also {args[0]!r}")
    if not isinstance(memory_format, (MemoryFormat, type(None))):
        raise TypeError(f"{who}.to: expected a memory format such as kobai.channels_last, got {memory_format!r}")
    return device, None if dtype is None else numeric(dtype)


def _is_dtype(value: object) -> bool:
    return isinstance(value, (dtype, np.dtype)) or (isinstance(value, type) and issubclass(value, np.generic))


def _pytorchs_parse_to(*args: Any, **kwargs: Any) -> tuple[Any, Any, bool, Any]:
    """(device, dtype, non_blocking, memory_format) of the arguments of a ``to``, for programs that write their own."""
    device, dtype = _parse_to("to", *args, **kwargs)
    flags = [arg for arg in args if isinstance(arg, bool)]
    return (
        None if device is None else Device(device) if isinstance(device, str) else device,
        None if dtype is None else _of(dtype),
        bool(kwargs.get("non_blocking", flags[0] if flags else False)),
        kwargs.get("memory_format"),
    )


PRESENT["_C._nn"] = SimpleNamespace(_parse_to=_pytorchs_parse_to)
