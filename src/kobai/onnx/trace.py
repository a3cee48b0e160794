"""Running a model once on examples, and noting what it computes.

The mechanism is that of ``kobai.capture``: a session (``capture/session.py``) in whose thread tensors show other arrays than
their own, and a recorder that is asked for everything. What is noted here is not calls of NumPy but primitives, with their
arguments, as the registry knows them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from kobai.capture.rules import Rules, apart
from kobai.capture.session import Session
from kobai.core.primitive import REGISTRY, RUNNERS
from kobai.core.tape import as_array
from kobai.core.tensor import Tensor
from kobai.nn.module import Module
from kobai.onnx.arrays import Call, Traced, Value, active, namespace, raw_of
from kobai.onnx.errors import OnnxExporterError
from kobai.onnx.forms import FORMS
from kobai.xp import Backend, adopt_array_type

_ASKS = frozenset(
    "may_share_memory shares_memory result_type can_cast promote_types ndim shape size isscalar iinfo finfo issubdtype "
    "broadcast_shapes iscomplexobj min_scalar_type".split()
)
"""NumPy's functions that look at no element."""


class Tracer(Rules):
    """Notes in :attr:`calls` what is computed with :class:`~kobai.onnx.arrays.Traced` arrays."""

    namespace = namespace

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.layers: list[str] = []
        """The layers that are being called, the innermost last."""
        self._live: list[weakref.ref[Traced]] = []

    # --- refusals

    def refuse(self, what: str, do: str) -> OnnxExporterError:
        """The error for what has no form in ONNX, with the layer where it happened."""
        return OnnxExporterError(f"onnx.export: {what} in {self._layer()} {do}")

    def _layer(self) -> str:
        return f"layer {self.layers[-1]}" if self.layers else "the model"

    def fail_at(self, place: str, message: str) -> None:
        raise OnnxExporterError(f"onnx.export: {message.removeprefix('captured step: ')} ({place}, in {self._layer()})")

    def known(self, what: str, array: Traced) -> Any:
        """The values of an array for Python to read; an error if they depend on the inputs."""
        if array.value.varies:
            raise self.refuse(
                f"{what} of a tensor that depends on the inputs",
                "would write one answer into the graph for all inputs; use where() or masks, or compute it outside the model",
            )
        return array.raw

    def host_read(self, what: str, array: Any) -> Any:
        return array  # asked of arrays that are no Traced: nothing that depends on the inputs

    def foreign(self, array: Any) -> Any:
        return array

    # --- arrays

    def made(self, raw: Any, value: Value) -> Traced:
        """An array of the model."""
        array = Traced(raw, value)
        self._live.append(weakref.ref(array))
        return array

    def constant(self, raw: Any) -> Traced:
        """An array that is the same for all inputs."""
        return self.made(raw, Value(raw.shape, raw.dtype, "constant", array=raw))

    def enter(self, array: Any) -> Any:
        return self.constant(array) if isinstance(array, (np.ndarray, np.generic)) else array

    def plain(self, array: Any) -> Any:
        return raw_of(array)

    def value_of(self, arg: Any) -> Any:
        """An argument of a call as it is noted."""
        if type(arg) is Traced:
            if arg.value.kind == "overwritten":
                raise OnnxExporterError(
                    f"onnx.export: a tensor whose memory was changed through another one in {arg.value.name} cannot be "
                    "followed; write the operation without its in-place form, with where() or cat()"
                )
            return arg.value
        if isinstance(arg, np.ndarray):
            return Value(arg.shape, arg.dtype, "constant", array=arg)
        if isinstance(arg, tuple) and hasattr(arg, "_fields"):
            return type(arg)(*map(self.value_of, arg))
        if type(arg) in (tuple, list):
            return tuple(map(self.value_of, arg))
        return arg

    # --- calls

    def _noted(self, key: str, args: tuple[Any, ...], options: dict[str, Any], result: Any) -> Traced:
        """The result of a call, which is noted if the graph must do it."""
        result = np.asarray(as_array(result))
        noted = self.value_of(tuple(args)), {name: self.value_of(x) for name, x in options.items()}
        operands = list(_values((*noted[0], *noted[1].values())))
        varies, state = any(v.varies for v in operands), any(v.kind == "state" or v.array is None for v in operands)
        if key not in FORMS:
            if varies:
                name = key.removeprefix("operation.").rpartition(".")[2].strip("_")
                raise self.refuse(f"{name} has no form in ONNX that Kobai knows; it was called", _ADVICE)
            return self.constant(result)
        known = not varies and not state
        value = Value(result.shape, result.dtype, "call", array=result if known else None, varies=varies)
        self.calls.append(Call(key, *noted, value, self.layers[-1] if self.layers else ""))
        return self.made(result, value)

    def aside(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function outside of the session: what it does is no part of the model."""
        with apart():
            return function(*raw_of(args), **{name: raw_of(x) for name, x in options.items()})

    def primitive(self, key: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run a primitive on the example and note it."""
        value, _ = self.aside(function, *args, **options)
        return self._noted(key, args, options, value), None

    def call(self, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call one of NumPy's functions, and note it if it depends on the inputs."""
        name = getattr(function, "__name__", str(function))
        if name in _ASKS:
            return function(*raw_of(args), **{key: raw_of(x) for key, x in options.items()})
        out = options.pop("out", None)
        result = self.aside(function, *args, **options)
        if isinstance(result, (tuple, list)):
            if any(v.varies for v in _values(self.value_of((*args, *options.values())))):
                raise self.refuse(f"numpy.{name} has no form in ONNX that Kobai knows; it was called", _ADVICE)
            return type(result)(self.constant(np.asarray(part)) for part in result)
        if result is None or isinstance(result, (bool, int, float, str, np.dtype)):
            for value in _values(self.value_of((*args, *options.values()))):
                if value.varies:
                    raise self.refuse(f"numpy.{name}", "has no form in ONNX that Kobai knows")
            return result
        traced = self._noted(f"numpy.{name}", args, options, result)
        if out is None:
            return traced
        self.write(out, ..., traced)
        return out

    def write(self, target: Traced, index: Any, value: Any) -> None:
        """target[index] = value, on the example; the whole of the target, or of what is known alike."""
        everything = index is Ellipsis or (isinstance(index, slice) and index == slice(None))
        new = value if type(value) is Traced else self.constant(np.asarray(value, target.dtype))
        if not everything and (target.value.varies or new.value.varies):
            raise self.refuse(
                "writing into a part of a tensor", "has no form in ONNX that Kobai knows; make it with where() or cat()"
            )
        if target.value.kind == "state":
            raise self.refuse("writing into a parameter", "is no part of a graph; export in eval mode")
        if not everything:
            self._overwritten(target)
            target.raw[raw_of(index)] = new.raw
            target.value = Value(target.shape, target.dtype, "constant", array=target.raw)
            return
        if new.dtype != target.dtype:
            new = new.astype(target.dtype)
        if new.shape != target.shape:
            new = self.primitive(
                "ops.broadcast._expand", REGISTRY["ops.broadcast._expand"].function, (new, target.shape), {}
            )[0]
        self._overwritten(target)
        target.raw[...] = new.raw
        target.value = new.value

    def _overwritten(self, target: Traced) -> None:
        """The memory of an array is about to be written: others there are then not what they were, and what was noted keeps its
        values."""
        others = [array for ref in self._live if (array := ref()) is not None]
        self._live = [weakref.ref(array) for array in others]
        for other in others:
            if not np.may_share_memory(other.raw, target.raw):
                continue
            if other.value.array is not None:
                other.value.array = other.value.array.copy()
            if other is not target:
                other.value = Value(other.shape, other.dtype, "overwritten", self._layer())

    def launch(self, kernel: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if any(value.varies for value in _values(self.value_of(args))):
            raise self.refuse(
                f"the kernel {getattr(kernel, '__name__', kernel)}", "has no form in ONNX that Kobai knows"
            )
        self.aside(kernel, *args)

    def check(self, look: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.aside(look, *args)

    def numbers(self, compute: Callable[[], tuple[float, ...]], dtype: Any) -> Any:
        raise self.refuse("random numbers", "are drawn anew in every call, which no graph does; export in eval mode")

    def host_draw(self) -> None:
        raise self.refuse("random numbers", "are drawn anew in every call, which no graph does; export in eval mode")


_ADVICE = "on what depends on the inputs; write the layer with other operations, or leave it out of what is exported"


def _values(args: Iterable[Any]) -> Iterable[Value]:
    for arg in args:
        if isinstance(arg, Value):
            yield arg
        elif isinstance(arg, tuple):
            yield from _values(arg)


class _Tracing(Session):
    """The session of an export, which knows the names of the model's tensors."""

    recorder: Tracer

    def __init__(self, names: Mapping[int, str], inputs: Iterable[Tensor], input_names: Iterable[str]) -> None:
        super().__init__(Tracer(), inputs)
        self.names = names
        self.input_names = {id(tensor): name for tensor, name in zip(self.inputs, input_names, strict=True)}

    def touched(self, tensor: Tensor) -> Any:
        array = tensor.__dict__["_array"]
        self.adopted[id(tensor)] = (tensor, array, tensor._version[0])
        if not isinstance(array, np.ndarray):
            raise OnnxExporterError(
                f"onnx.export: expected tensors on the CPU, got one on {tensor.device}; call model.cpu()"
            )
        if (name := self.input_names.get(id(tensor))) is not None:
            return self.recorder.made(array, Value(array.shape, array.dtype, "input", name, varies=True))
        if (name := self.names.get(id(tensor))) is not None:
            raw = array if tensor.requires_grad else array.copy()  # a buffer may be counted up
            return self.recorder.made(raw, Value(array.shape, array.dtype, "state", name, array))
        return self.recorder.constant(array.copy())


def _run(key: str, function: Callable[..., Any], kind: type, /, *arrays: Any, **options: Any) -> Any:
    return active().primitive(key, function, arrays, options)


adopt_array_type(
    Traced,
    namespace,
    Backend(
        "export",
        "cpu",
        lambda: (namespace, Traced),
        from_host=lambda host: active().constant(host),
        to_host=lambda array: active().known("conversion to a numpy.ndarray", array),
    ),
)
RUNNERS[Traced] = _run


def traced(
    model: Module, names: Mapping[int, str], function: Callable[..., Any], inputs: list[Tensor], input_names: list[str]
) -> tuple[list[Call], Any]:
    """The calls that ``function(*inputs)`` makes, and what it returns with :class:`Value` in the place of tensors."""
    session = _Tracing(names, inputs, input_names)
    layers, handles = session.recorder.layers, []
    for name, module in model.named_modules():
        label = f"{name or 'model'} ({type(module).__name__})"
        handles.append(module.register_forward_pre_hook(lambda *_, label=label: layers.append(label)))
        handles.append(module.register_forward_hook(lambda *_: layers.pop() and None))

    def values(result: Any) -> Any:
        if isinstance(result, Tensor):
            return session.recorder.value_of(result._array)
        if isinstance(result, (tuple, list)):
            return [values(part) for part in result]
        if isinstance(result, dict):
            return [values(part) for part in result.values()]
        return result

    try:
        result = session.within(lambda: values(function(*session.inputs)))
        return session.recorder.calls, result
    finally:
        for handle in handles:
            handle.remove()
