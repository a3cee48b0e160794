"""From PyTorch to Kobai: tensors, dtypes, and the functions that PyTorch's tests are written with."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch

import kobai
from kobai.compat.absent import AbsentDtype, StandIn

DTYPES = {
    getattr(torch, name): getattr(kobai, name)
    for name in "bool uint8 int8 int16 int32 int64 float16 float32 float64".split()
}
PLAIN = (torch.strided, torch.contiguous_format, torch.preserve_format)
ONE_LAYOUT = {"memory_format", "layout", "pin_memory"}
"""Arguments about layouts and pinned memory. Kobai has one layout; samples that ask for it are put without the argument."""


class LackingError(Exception):
    """Kobai has no such name."""


class ForeignError(Exception):
    """A sample that Kobai has no values for: complex, bfloat16, sparse, quantised, another device."""


def lookup(path: str) -> Any:
    """``kobai.<path>``."""
    found: Any = kobai
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except (AttributeError, ImportError) as error:
            raise LackingError(path) from error
    if isinstance(found, (StandIn, AbsentDtype)):  # can be named, and no more
        raise LackingError(path)
    return found


def has(path: str) -> bool:
    try:
        lookup(path)
    except LackingError:
        return False
    return True


def _paths() -> dict[int, str]:
    """Where each function and class of PyTorch is found, by its identity."""
    found: dict[int, str] = {}
    for prefix in ("", "nn.functional", "linalg", "special", "Tensor", "nn"):
        space = functools.reduce(getattr, prefix.split(".") if prefix else [], torch)
        for name in dir(space):
            value = getattr(space, name, None)
            if callable(value) and not isinstance(value, types.ModuleType):
                found.setdefault(id(value), f"{prefix}.{name}".lstrip("."))
    return found


PATHS = _paths()


class Namespace:
    """A module of PyTorch as its tests see it when they run on Kobai."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}.{name}".lstrip(".")
        found = lookup(path)
        return Namespace(path) if isinstance(found, types.ModuleType) else found


class Globals(dict[str, Any]):
    """Globals of a function of PyTorch's tests: each name is put to Kobai when it is read."""

    def __getitem__(self, name: str) -> Any:
        return put(super().__getitem__(name))


def is_of_the_tests(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and value.__module__.startswith("torch.testing")


def _function(f: types.FunctionType) -> Any:
    if f.__name__ == "wrapper_set_seed":  # seeds PyTorch's generator for a function that draws
        return lambda op, *args, **kwargs: op(*args, **kwargs)
    cells = tuple(types.CellType(put(cell.cell_contents)) for cell in f.__closure__ or ())
    made = types.FunctionType(f.__code__, Globals(f.__globals__), f.__name__, f.__defaults__, cells or None)
    made.__kwdefaults__ = f.__kwdefaults__
    return made


def rebuild(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """``value`` with ``leaf`` applied to everything in its tuples, lists, dicts and slices."""
    if isinstance(value, (torch.Size, kobai.Size)):
        return leaf(value)
    if isinstance(value, (list, tuple)):
        parts = [rebuild(part, leaf) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {name: rebuild(part, leaf) for name, part in value.items()}
    if isinstance(value, slice):
        return slice(*(rebuild(part, leaf) for part in (value.start, value.stop, value.step)))
    return leaf(value)


def tensors(value: Any) -> list[Any]:
    """Every tensor in ``value``, of either library."""
    found: list[Any] = []

    def see(part: Any) -> None:
        if isinstance(part, (torch.Tensor, kobai.Tensor)):
            found.append(part)

    rebuild(value, see)
    return found


def put(value: Any, made: dict[int, Any] | None = None) -> Any:
    """``value`` for Kobai. ``made`` keeps one tensor one tensor: it maps PyTorch's, by identity, to Kobai's."""
    return rebuild(value, functools.partial(_put, made={} if made is None else made))


def _put(value: Any, made: dict[int, Any]) -> Any:
    if isinstance(value, torch.Tensor):
        if id(value) not in made:
            made[id(value)] = _tensor(value)
        return made[id(value)]
    if isinstance(value, torch.dtype):
        if value not in DTYPES:
            raise ForeignError(str(value))
        return DTYPES[value]
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, torch.device) and value.type == "cpu":
        return "cpu"
    if isinstance(value, torch.Generator):
        return kobai.Generator()
    if isinstance(value, (torch.layout, torch.memory_format)) and value in PLAIN:
        return value
    if isinstance(value, (complex, torch.device, torch.layout, torch.memory_format)):
        raise ForeignError(str(value))
    if isinstance(value, torch.nn.Module):
        return _module(value)
    if isinstance(value, types.ModuleType):
        name = value.__name__
        return Namespace(name.removeprefix("torch").lstrip(".")) if name.split(".")[0] == "torch" else value
    if isinstance(value, functools.partial):
        return functools.partial(put(value.func), *put(value.args), **put(value.keywords))
    if is_of_the_tests(value):
        return _function(value)
    return lookup(PATHS[id(value)]) if id(value) in PATHS else value


def _tensor(value: torch.Tensor) -> kobai.Tensor:
    """The same elements in memory of its own, with the same strides."""
    if value.dtype not in DTYPES or value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise ForeignError(f"{value.dtype} {value.layout} {value.device}")
    if value.ndim > 64:
        raise ForeignError("more dimensions than an array of NumPy has")
    made = kobai.from_numpy(alike(value.detach()).numpy())
    if isinstance(value, torch.nn.Parameter):
        return kobai.nn.Parameter(made, requires_grad=value.requires_grad)
    return made.requires_grad_(value.requires_grad)


def _module(theirs: torch.nn.Module) -> Any:
    """A module that is an argument (the layer of an encoder, the distance of a loss) built again with its state."""
    cls = lookup(f"nn.{type(theirs).__name__}")
    if isinstance(theirs, (torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer)):
        attention = theirs.self_attn
        ours = cls(
            attention.embed_dim,
            attention.num_heads,
            theirs.linear1.out_features,
            theirs.dropout.p,
            activation=put(theirs.activation),
            layer_norm_eps=theirs.norm1.eps,
            batch_first=attention.batch_first,
            norm_first=theirs.norm_first,
            bias=theirs.linear1.bias is not None,
        ).to(put(theirs.linear1.weight.dtype))
    else:
        code = type(theirs).__init__.__code__
        names = code.co_varnames[1 : code.co_argcount]
        ours = cls(**{name: put(getattr(theirs, name)) for name in names if hasattr(theirs, name)})
    ours.load_state_dict(put(dict(theirs.state_dict())))
    return ours


def alike(value: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides, of expanded tensors too."""
    repeated = [size > 1 and stride == 0 for size, stride in zip(value.shape, value.stride(), strict=True)]
    once = value[tuple(slice(0, 1) if again else slice(None) for again in repeated)] if any(repeated) else value
    copy = torch.empty_strided(once.shape, once.stride(), dtype=value.dtype).copy_(once)
    return copy.expand(value.shape) if any(repeated) else copy


def own(value: Any) -> Any:
    """The same sample in leaves of its own: samples are often views of one another."""
    made: dict[int, Any] = {}

    def leaf(part: Any) -> Any:
        if not isinstance(part, torch.Tensor) or isinstance(part, torch.nn.Parameter) or part.layout != torch.strided:
            return part
        if part.is_quantized:
            return part
        if id(part) not in made:
            made[id(part)] = alike(part.detach()).requires_grad_(part.requires_grad)
        return made[id(part)]

    return rebuild(value, leaf)
