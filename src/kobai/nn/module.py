"""``Module``: a tree of layers that knows its parameters, its buffers and its hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

import numpy as np

from kobai._tensor import RemovableHandle, Tensor
from kobai.errors import nearest
from kobai.nn._state import IncompatibleKeys, load_state
from kobai.nn.hooks import BackwardWatch
from kobai.nn.parameter import Parameter

T = TypeVar("T")


class Module:
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
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]

    def __init__(self) -> None:
        # Straight into __dict__: __setattr__ below relies on these three tables.
        state = self.__dict__
        state["training"] = True
        state["_parameters"] = {}
        state["_buffers"] = {}
        state["_non_persistent_buffers_set"] = set()
        state["_modules"] = {}
        state["_forward_pre_hooks"] = OrderedDict()
        state["_forward_hooks"] = OrderedDict()
        state["_hooks_with_kwargs"] = set()
        state["_backward_pre_hooks"] = OrderedDict()
        state["_backward_hooks"] = OrderedDict()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The mathematics of the layer; every subclass writes its own."""
        raise NotImplementedError(f'Module [{self._get_name()}] is missing the required "forward" function')

    # -- calling ------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            hooked = self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks
        except AttributeError:
            raise AttributeError(_no_init(self, "call it")) from None
        if hooked:
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for key, hook in list(self._forward_pre_hooks.items()):
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
        if self._backward_hooks or self._backward_pre_hooks:
            watch = BackwardWatch(self, list(self._backward_pre_hooks.values()), list(self._backward_hooks.values()))
            args = watch.inputs(args)

        output = self.forward(*args, **kwargs)

        for key, hook in list(self._forward_hooks.items()):
            changed = hook(self, args, kwargs, output) if key in self._hooks_with_kwargs else hook(self, args, output)
            if changed is not None:
                output = changed
        return output if watch is None else watch.outputs(output)

    # -- attributes ---------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Reached only when the ordinary look-up has failed.
        state = self.__dict__
        try:
            if name in state["_parameters"]:
                return state["_parameters"][name]
            if name in state["_modules"]:
                return state["_modules"][name]
            if name in state["_buffers"]:
                return state["_buffers"][name]
        except KeyError:
            if not name.startswith("_"):
                raise AttributeError(_no_init(self, f"read {name!r}"), name=name) from None
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_") and (hint := nearest(name, dir(self))):  # protocols probe for underscored names
            message += "." + hint
        # ``name`` without ``obj`` keeps the interpreter from adding a second suggestion to the traceback.
        raise AttributeError(message, name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        if isinstance(value, Parameter):
            self._forget(name, "parameter", "_buffers", "_modules")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._forget(name, "module", "_parameters", "_buffers")
            state["_modules"][name] = value
        elif name in state.get("_parameters", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign {_type_name(value)!r} as parameter {name!r} of {self._get_name()} "
                    "(kobai.nn.Parameter or None expected; to change its values, write into it under kobai.no_grad())"
                )
            state["_parameters"][name] = None
        elif name in state.get("_modules", ()):
            if value is not None:
                raise TypeError(
                    f"cannot assign {_type_name(value)!r} as child module {name!r} of {self._get_name()} "
                    "(kobai.nn.Module or None expected)"
                )
            state["_modules"][name] = None
        elif name in state.get("_buffers", ()):
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign {_type_name(value)!r} as buffer {name!r} of {self._get_name()} "
                    "(kobai.Tensor or None expected)"
                )
            state["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*object.__dir__(self)}
        for table in ("_parameters", "_buffers", "_modules"):
            names.update(name for name in self.__dict__.get(table, ()) if name.isidentifier())
        return sorted(names)

    def _forget(self, name: str, kind: str, *tables: str) -> None:
        """Make ``name`` free for a new parameter or module, so that one name never means two things."""
        if "_modules" not in self.__dict__:
            raise AttributeError(_no_init(self, f"assign {kind} {name!r}"))
        self.__dict__.pop(name, None)
        for table in tables:
            self.__dict__[table].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def _check_new_name(self, name: str, kind: str, own: Mapping[str, Any]) -> None:
        if "_modules" not in self.__dict__:
            raise AttributeError(_no_init(self, f"assign {kind} {name!r}"))
        if not isinstance(name, str):
            raise TypeError(f"{self._get_name()}: {kind} name should be a string, got {_type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got {name!r}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in own:
            raise KeyError(f"attribute {name!r} already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under ``name``; None reserves the name (``Linear(bias=False)`` does this)."""
        self._check_new_name(name, "parameter", self.__dict__.get("_parameters", {}))
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign {_type_name(param)!r} object to parameter {name!r} "
                "(kobai.nn.Parameter or None required)"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"cannot assign non-leaf Tensor to parameter {name!r}: model parameters must be created explicitly; "
                "to express a parameter as a function of another tensor, compute it in forward()"
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained; ``persistent=False`` leaves it out of ``state_dict``."""
        self._check_new_name(name, "buffer", self.__dict__.get("_buffers", {}))
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign {_type_name(tensor)!r} object to buffer {name!r} (kobai.Tensor or None required)"
            )
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under ``name``."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_type_name(module)} is not a Module subclass")
        self._check_new_name(name, "module", self.__dict__.get("_modules", {}))
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as ``add_module``."""
        self.add_module(name, module)

    # -- walking the tree ---------------------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all below it, each once unless told otherwise."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the direct children, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct children, each once."""
        return (module for _, module in self.named_children())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in getattr(module, table).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter); a parameter shared by several layers comes once, under its first name."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once: what an optimiser takes."""
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer), persistent or not."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; ``""`` is this module. Raises AttributeError."""
        module = self
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(
                    f"{module._get_name()} has no submodule `{name}` (of {target!r})."
                    + nearest(name, list(module._modules))
                )
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError."""
        found: Parameter = self._get_member("_parameters", "parameter", target)
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path. Raises AttributeError."""
        found: Tensor = self._get_member("_buffers", "buffer", target)
        return found

    def _get_member(self, table: str, kind: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        members: dict[str, Any] = getattr(owner, table)
        if members.get(name) is None:
            raise AttributeError(
                f"{owner._get_name()} has no {kind} `{name}` (of {target!r})." + nearest(name, list(members))
            )
        return members[name]

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by dotted name, in order of definition.

        The tensors are detached but share the module's memory (``keep_vars=True`` gives the parameters themselves):
        clone what must not follow further training.
        """
        state: dict[str, Any] = OrderedDict() if destination is None else destination
        for name, tensor in self._own_state().items():
            state[prefix + name] = tensor if keep_vars else tensor.detach()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return state

    def _own_state(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of this module alone."""
        own: dict[str, Tensor] = {name: param for name, param in self._parameters.items() if param is not None}
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                own[name] = buffer
        return own

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values by name into the parameters and persistent buffers, in place, casting to their dtype and device.

        Everything is checked before anything is written: on an error the module is as it was.

        Args:
            state_dict: dotted name -> Tensor, as from ``state_dict()`` or ``kobai.load``.
            strict: also refuse missing and unexpected keys (shapes are always checked).
            assign: put the given tensors themselves (their dtype, device and memory) in place of the module's.

        Returns:
            ``(missing_keys, unexpected_keys)``, both empty when ``strict``.

        Raises:
            RuntimeError: names every missing, unexpected and misshaped key at once.

        >>> from kobai import nn
        >>> model = nn.Linear(2, 3)
        >>> model.load_state_dict(model.state_dict())
        <All keys matched successfully>
        """
        return load_state(self, state_dict, strict=strict, assign=assign)

    # -- modes and conversions ----------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below (dropout drops, batch norm uses the batch's statistics)."""
        if not isinstance(mode, bool):
            raise ValueError(f"{self._get_name()}.train: mode is expected to be a bool, got {mode!r}")
        for module in self.modules():
            module.training = mode
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
        """Forget every parameter's gradient (``set_to_none=False`` writes zeros instead)."""
        for param in self.parameters():
            if param.grad is None:
                continue
            if set_to_none:
                param.grad = None
            else:
                param.grad = param.grad.detach()
                param.grad.array[...] = 0
                param.grad._bump()

    def apply(self, fn: Callable[[Module], None]) -> Self:
        """Call ``fn`` on every module, children before parents: the usual way to initialise weights."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Replace every tensor by ``fn`` of it; parameters keep their identity, so optimisers keep hold of them."""
        for param in self.parameters():
            grad = param.grad
            moved = fn(param.data)
            if moved.array is not param.array:
                param.grad = None
                param.data = moved
                if grad is not None:
                    param.grad = fn(grad.detach())
        done: dict[int, Tensor] = {}  # a buffer shared by two modules stays shared
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = done.setdefault(id(buffer), fn(buffer))
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move and cast in place: ``to(device)``, ``to(dtype)``, ``to(device, dtype)`` or ``to(tensor)``.

        Only floating-point parameters and buffers are cast; everything is moved. Parameters keep their identity.

        >>> import kobai
        >>> from kobai import nn
        >>> nn.Linear(2, 3).to(kobai.float64).weight.dtype == kobai.float64
        True
        """
        device, dtype = _parse_to(self._get_name(), *args, **kwargs)
        if dtype is not None and dtype.kind != "f":
            raise TypeError(f"{self._get_name()}.to: only floating-point dtypes are accepted, got {dtype.name}")

        def convert(tensor: Tensor) -> Tensor:
            moved: Tensor = tensor if device is None else tensor.to(device)
            return moved.to(dtype) if dtype is not None and tensor.dtype.kind == "f" else moved

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

    # -- hooks --------------------------------------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before ``forward``; what it returns, if not None, replaces the arguments.

        ``with_kwargs=True``: ``hook(module, args, kwargs)`` returns None or ``(args, kwargs)``.
        """
        return self._add_hook(self._forward_pre_hooks, hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after ``forward``; what it returns, if not None, replaces the output.

        ``with_kwargs=True``: ``hook(module, args, kwargs, output)``.
        """
        return self._add_hook(self._forward_hooks, hook, prepend, with_kwargs)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` when the gradients of the outputs are known; it may replace them."""
        return self._add_hook(self._backward_pre_hooks, hook, prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the inputs are known.

        Both are tuples, one entry per positional argument and per output (None where it is no tensor, or needs no
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

    def _add_hook(
        self,
        hooks: OrderedDict[int, Callable[..., Any]],
        hook: Callable[..., Any],
        prepend: bool,
        with_kwargs: bool = False,
    ) -> RemovableHandle:
        if not callable(hook):
            raise TypeError(f"{self._get_name()}: a hook must be callable, got {_type_name(hook)}")
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        if with_kwargs:
            self._hooks_with_kwargs.add(handle.id)
        return handle

    # -- looks --------------------------------------------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the brackets of the layer's ``repr``; layers write their own."""
        return ""

    def _repr_children(self) -> list[tuple[str, str]]:
        return [(name, repr(module)) for name, module in self._modules.items()]

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        children = [f"({name}): " + text.replace("\n", "\n  ") for name, text in self._repr_children()]
        if not children and len(extra_lines) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(extra_lines + children) + "\n)"


def _type_name(value: object) -> str:
    return type(value).__name__


def _no_init(module: Module, what: str) -> str:
    name = type(module).__name__
    return f"cannot {what} before Module.__init__() call: start {name}.__init__ with super().__init__()"


def _parse_to(
    who: str, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False
) -> tuple[Any, np.dtype[Any] | None]:
    """Device and dtype out of the three calling forms of ``Module.to``.

    ``non_blocking`` permits, and does not demand, an asynchronous copy; ours are ordered with the computation.
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
    if device is None and dtype is None:
        raise TypeError(f"{who}.to: expected a device, a dtype or a tensor, got none of them")
    return device, None if dtype is None else np.dtype(dtype)


def _is_dtype(value: object) -> bool:
    return isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic))
