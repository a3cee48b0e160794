"""Layers that learn the size of their input from the first batch: ``LazyLinear``, ``LazyConv2d``, ``LazyBatchNorm2d``, ..."""

from __future__ import annotations

from typing import Any, ClassVar

from kobai.core.tensor import Size, Tensor
from kobai.nn.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    _BatchNorm,
    _InstanceNorm,
    _NormBase,
)
from kobai.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, _Conv
from kobai.nn.linear import Linear
from kobai.nn.module import Module
from kobai.nn.parameter import Buffer, Parameter
from kobai.ops.create import empty

__all__ = [
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyLinear",
    "UninitializedBuffer",
    "UninitializedParameter",
]


class UninitializedTensorMixin:
    """A tensor whose shape is not known yet: :meth:`materialize` gives it one, and it keeps its identity."""

    cls_to_become: ClassVar[Any]

    def materialize(self: Any, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Become an ordinary parameter or buffer of ``shape``, with unset elements."""
        where = {"device": self.device if device is None else device, "dtype": self.dtype if dtype is None else dtype}
        self.data = empty(*shape, **where)
        self.__class__ = self.cls_to_become

    @property
    def shape(self) -> Size:
        """RuntimeError: there is none yet."""
        raise RuntimeError("a lazy layer has no shapes before its first batch: call the model on some data first")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    _repr_html_ = None  # nor is there anything for a notebook


class UninitializedParameter(UninitializedTensorMixin, Parameter):
    """A parameter whose shape is not known yet. At the first batch it becomes an ordinary one and keeps its identity.

    >>> import kobai
    >>> layer = kobai.nn.LazyLinear(3)
    >>> layer.weight
    <UninitializedParameter>
    >>> _ = layer(kobai.zeros(5, 4))
    >>> layer.weight.shape
    kobai.Size([3, 4])
    """

    cls_to_become = Parameter

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(empty(0, device=device, dtype=dtype), requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, self.device, self.dtype)
        copy: UninitializedParameter = memo[id(self)]
        return copy


class UninitializedBuffer(UninitializedTensorMixin, Buffer):
    """A buffer whose shape is not known yet.

    >>> import kobai
    >>> buffer = kobai.nn.UninitializedBuffer()
    >>> buffer.materialize((2, 3))
    >>> buffer.shape
    kobai.Size([2, 3])
    """

    cls_to_become = Buffer

    def __init__(
        self, requires_grad: bool = False, device: Any = None, dtype: Any = None, persistent: bool = True
    ) -> None:
        super().__init__(empty(0, device=device, dtype=dtype), persistent=persistent)
        self.requires_grad_(requires_grad)


class LazyModuleMixin:
    """For modules of one's own that learn shapes from their first batch: with :class:`Module`, before it.

    ``initialize_parameters(*args)`` materialises what is uninitialized, from what forward is about to be given. The module
    then becomes one of ``cls_to_become``, if there is one. A state of known shapes that is loaded materialises too.

    >>> import kobai
    >>> from kobai import nn
    >>> class Scale(nn.modules.lazy.LazyModuleMixin, nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = nn.UninitializedParameter()
    ...     def initialize_parameters(self, x):
    ...         if self.has_uninitialized_params():
    ...             with kobai.no_grad():
    ...                 self.weight.materialize((x.shape[-1],))
    ...                 self.weight.fill_(2)
    ...     def forward(self, x):
    ...         return self.weight * x
    >>> Scale()(kobai.ones(3)).tolist()
    [2.0, 2.0, 2.0]
    """

    cls_to_become: ClassVar[Any] = None

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._load_hook = self.register_load_state_dict_pre_hook(LazyModuleMixin._take_shapes)
        self._initialize_hook = self.register_forward_pre_hook(LazyModuleMixin._learn, with_kwargs=True)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Materialise parameters and buffers; every subclass writes its own."""
        raise NotImplementedError(f"{type(self).__name__}: define initialize_parameters(*args)")

    def has_uninitialized_params(self: Any) -> bool:
        """Whether a parameter or buffer of this module has no shape yet."""
        return any(is_lazy(tensor) for tensor in (*self._parameters.values(), *self._buffers.values()))

    @staticmethod
    def _learn(module: Any, args: Any, kwargs: Any) -> None:
        module.initialize_parameters(*args, **kwargs)
        if module.has_uninitialized_params():
            raise RuntimeError(f"{module._get_name()}: initialize_parameters has left parameters without a shape")
        module._initialize_hook.remove()
        module._load_hook.remove()
        del module._initialize_hook, module._load_hook
        if module.cls_to_become is not None:
            module.__class__ = module.cls_to_become

    @staticmethod
    def _take_shapes(module: Any, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            given = state_dict.get(prefix + name)
            if is_lazy(tensor) and isinstance(given, Tensor) and not is_lazy(given):
                tensor.materialize(given.shape)


class _Lazy(Module):
    """Made with input size 0; at the first call it turns into a layer of class ``_becomes``."""

    _becomes: ClassVar[Any]  # the class of an ordinary layer
    _size: ClassVar[str]  # the attribute that the input decides
    _axis: ClassVar[int]  # of the input, whose size it is
    _ranks: ClassVar[tuple[int, ...] | None]  # how many dimensions the input may have; None: any that has the axis

    def __init__(self, *args: Any, device: Any = None, dtype: Any = None, **kwargs: Any) -> None:
        least = kwargs.get("groups", args[5] if len(args) > 5 and "Conv" in type(self).__name__ else 1)
        self._becomes.__init__(self, least, *args, **kwargs)
        self._made_by = (args, kwargs)
        setattr(self, self._size, 0)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                self._parameters[name] = UninitializedParameter(True, device, dtype)
        self._tracks, self._buffers = bool(self._buffers), {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        who = self._get_name()
        if not args or not isinstance(args[0], Tensor):
            raise RuntimeError(f"{who}: expected a batch as first argument, from which to learn its size")
        input = args[0]
        if input.ndim < 1 if self._ranks is None else input.ndim not in self._ranks:
            wanted = "at least 1" if self._ranks is None else " or ".join(map(str, self._ranks))
            raise RuntimeError(
                f"{who}: expected input of {wanted} dimensions, to learn {self._size} from, got shape {tuple(input.shape)}"
            )
        self._become(input.shape[self._axis])
        return self(*args, **kwargs)

    def has_uninitialized_params(self) -> bool:
        """Whether it has had no batch yet."""
        return True

    def initialize_parameters(self, input: Tensor, *args: Any) -> None:
        """Become an ordinary layer for inputs such as ``input``."""
        self._become(input.shape[self._axis])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """A state of an ordinary layer decides the size too."""
        name = "running_mean" if self._parameters.get("weight") is None else "weight"
        known = state_dict.get(prefix + name)
        if isinstance(known, Tensor) and not isinstance(known, UninitializedParameter):
            size = self._size_of(known)
            if size is not None:
                self._become(size)
        Module._load_from_state_dict(self, state_dict, prefix, *rest)  # its class may have changed: no super()

    def _size_of(self, weight: Tensor) -> int | None:
        """The size that a layer with this weight (or running mean) has learnt; None if no layer has one of its shape."""
        layer: Any = self._becomes
        if not issubclass(layer, _Conv):
            fits = weight.ndim == (1 if issubclass(layer, _NormBase) else 2)
            return int(weight.shape[-1]) if fits else None
        if weight.ndim != layer._dims + 2:
            return None
        return int(weight.shape[0] if "Transpose" in layer.__name__ else weight.shape[1] * self.groups)

    def _become(self, size: int) -> None:
        args, kwargs = self.__dict__.pop("_made_by")
        like = next((p for p in self._parameters.values() if p is not None), None)
        where = {} if like is None else {"device": like.device, "dtype": like.dtype}
        made = self._becomes(size, *args, **kwargs, **where)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                parameter.data = made._parameters[name].data
                parameter.__class__ = Parameter
        self._buffers = made._buffers
        setattr(self, self._size, size)
        self.__class__ = self._becomes


def _lazy(layer: type[Module], arguments: str, batch: tuple[int, ...]) -> type[Module]:
    """The lazy kind of a layer; ``arguments`` and the shape ``batch`` make the example in its docstring."""
    name = f"Lazy{layer.__name__}"
    size, axis, ranks = _learns(layer)
    doc = f""":class:`{layer.__name__}` without the argument ``{size}``: the first batch decides it.

    >>> import kobai
    >>> layer = kobai.nn.{name}({arguments})
    >>> _ = layer(kobai.zeros{batch})
    >>> layer.{size}
    {batch[axis]}
    """
    body = {"_becomes": layer, "_size": size, "_axis": axis, "_ranks": ranks, "__doc__": doc, "__module__": __name__}
    return type(name, (_Lazy, layer), body)


def _learns(layer: Any) -> tuple[str, int, tuple[int, ...] | None]:
    """What a layer learns from its input, the axis whose size that is, and how many dimensions the input may have."""
    if issubclass(layer, _Conv):  # channels come before the n spatial dimensions, with a batch before them or without
        n = layer._dims
        return "in_channels", -(n + 1), (n + 1, n + 2)
    if issubclass(layer, _BatchNorm):
        return "num_features", 1, tuple(layer._shapes)
    if issubclass(layer, _InstanceNorm):
        (n,) = layer._shapes
        return "num_features", 1 - n, (n - 1, n)
    return "in_features", -1, None


LazyLinear = _lazy(Linear, "3", (5, 4))
LazyConv1d = _lazy(Conv1d, "8, 3", (5, 4, 7))
LazyConv2d = _lazy(Conv2d, "8, 3", (5, 4, 7, 7))
LazyConv3d = _lazy(Conv3d, "8, 3", (5, 4, 7, 7, 7))
LazyConvTranspose1d = _lazy(ConvTranspose1d, "8, 3", (5, 4, 7))
LazyConvTranspose2d = _lazy(ConvTranspose2d, "8, 3", (5, 4, 7, 7))
LazyConvTranspose3d = _lazy(ConvTranspose3d, "8, 3", (5, 4, 7, 7, 7))
LazyBatchNorm1d = _lazy(BatchNorm1d, "", (5, 4, 7))
LazyBatchNorm2d = _lazy(BatchNorm2d, "", (5, 4, 7, 7))
LazyBatchNorm3d = _lazy(BatchNorm3d, "", (5, 4, 7, 7, 7))
LazyInstanceNorm1d = _lazy(InstanceNorm1d, "", (5, 4, 7))
LazyInstanceNorm2d = _lazy(InstanceNorm2d, "", (5, 4, 7, 7))
LazyInstanceNorm3d = _lazy(InstanceNorm3d, "", (5, 4, 7, 7, 7))


def is_lazy(param: Any) -> bool:
    """Whether a parameter has no shape yet."""
    return isinstance(param, UninitializedTensorMixin)
