"""``kobai.onnx.export``: a model as a file of ONNX."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from os import PathLike
from typing import Any

import numpy as np

from kobai.capture.session import map_tensors
from kobai.compat.versions import VERSION
from kobai.core.files import write_atomically
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn.lazy import UninitializedTensorMixin
from kobai.nn.module import Module
from kobai.onnx.arrays import Call, Value
from kobai.onnx.errors import OnnxExporterError
from kobai.onnx.forms import FORMS
from kobai.onnx.graph import Graph, package
from kobai.onnx.sizes import Merger, Size
from kobai.onnx.trace import traced

OPSETS = range(18, 24)
"""The versions of ONNX's operators in which all that is written means the same."""

BUFFERS = "kobai.buffers"
"""Metadata of a file: the names of tensors that are no parameters."""

_PYTORCHS: dict[str, tuple[Any, ...]] = {
    "verbose": (None, False),
    "export_params": (True,),
    "do_constant_folding": (True,),
    "keep_initializers_as_inputs": (None, False),
    "dynamo": (None, True, False),
    "operator_export_type": (None,),
    "custom_opsets": (None, {}),
    "export_modules_as_functions": (False,),
    "autograd_inlining": (True, False),
    "external_data": (False,),
    "dynamic_shapes": (None,),
    "custom_translation_table": (None,),
    "report": (False,),
    "optimize": (True, False),
    "verify": (False,),
    "profile": (False,),
    "dump_exported_program": (False,),
    "artifacts_dir": (".",),
}
"""Arguments that PyTorch has too -> the values that say what is done here anyway."""


class TrainingMode(Enum):
    """The modes of PyTorch's ``export``, of which ``EVAL`` is the one here."""

    EVAL = 0
    PRESERVE = 1
    TRAINING = 2


_at_work: list[Module] = []
"""The models that are being exported."""


def is_in_onnx_export() -> bool:
    """Whether an export is at work: for models that then compute otherwise."""
    return bool(_at_work)


def export(
    model: Module,
    args: Any = (),
    f: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamic_axes: Mapping[str, Mapping[int, str] | Sequence[int]] | None = None,
    training: TrainingMode | None = None,
    metadata: Mapping[str, str] | None = None,
    **pytorch: Any,
) -> None:
    """Write what ``model(*args, **kwargs)`` computes to the file ``f``, in eval mode, as a graph of ONNX.

    ``args`` is a tensor or a tuple of examples, whose tensors become inputs; all else in it stays as it is. Parameters and
    buffers are in the file under their names in ``state_dict``. ``dynamic_axes`` are the sizes that may differ from the
    examples', ``{"x": {0: "batch"}, "y": {0: "batch"}}`` or ``{"x": [0]}``; the graph demands all others. The model runs
    several times, to find out what depends on these axes. Operators are those of ``opset_version`` (18 to 23). Inputs are
    named after the arguments of ``forward`` and outputs ``output``, ``output_1``, …, unless ``input_names`` and
    ``output_names`` say otherwise. ``metadata`` are texts by name that go into the file. PyTorch's other arguments are taken
    where they ask for what is done here anyway.

    Raises:
        OnnxExporterError: for what has no form in ONNX, with the operation, the layer and what to do.
        ImportError: without the package ``onnx`` (extra ``onnx``).

    >>> import io, kobai
    >>> file = io.BytesIO()
    >>> kobai.onnx.export(kobai.nn.Linear(2, 3), kobai.ones(1, 2), file, dynamic_axes={"input": {0: "batch"}})
    >>> _ = file.seek(0)
    >>> kobai.onnx.load(file)(kobai.ones(5, 2)).shape
    kobai.Size([5, 3])
    """
    _check_arguments(model, f, training, pytorch)
    opset = OPSETS[0] if opset_version is None else opset_version
    if opset not in OPSETS:
        raise ValueError(f"onnx.export: expected opset_version from {OPSETS[0]} to {OPSETS[-1]}, got {opset_version!r}")
    args, kwargs = args if isinstance(args, tuple) else (args,), dict(kwargs or {})
    inputs: list[Tensor] = []
    map_tensors(inputs.append, (args, kwargs))
    names = _input_names(model, args, kwargs, inputs, input_names)
    axes = _axes(dynamic_axes or {}, dict(zip(names, inputs, strict=True)), output_names)
    onnx = package()
    calls, outputs = _runs(model, args, kwargs, inputs, names, axes)
    if output_names is not None and len(output_names) != len(outputs):
        raise ValueError(f"onnx.export: expected {len(outputs)} output_names, got {list(output_names)}")
    named = dict(zip(output_names or _numbered("output", len(outputs)), outputs, strict=True))
    content = _written(onnx, model, calls, dict(zip(names, inputs, strict=True)), named, axes, opset, metadata or {})
    if isinstance(f, (str, PathLike)):
        write_atomically(f, content)
    else:
        f.write(content)


def _check_arguments(model: Any, f: Any, training: Any, pytorch: dict[str, Any]) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"onnx.export: expected model to be a Module, got {type(model).__name__}")
    if any(isinstance(x, UninitializedTensorMixin) for x in (*model.parameters(), *model.buffers())):
        raise ValueError("onnx.export: a lazy layer of the model has no parameters yet; call the model once before")
    if f is None:
        raise TypeError("onnx.export: expected f, a path or a file to write to, got None")
    if training not in (None, TrainingMode.EVAL):
        raise ValueError(f"onnx.export: models are exported in eval mode, got training={training!r}")
    for name, value in pytorch.items():
        if name not in _PYTORCHS:
            raise TypeError(f"onnx.export: got an unexpected keyword argument {name!r}")
        if not any(value is known or value == known for known in _PYTORCHS[name]):
            raise NotImplementedError(
                f"onnx.export: expected {name}={_PYTORCHS[name][0]!r}, as it is done here, got {value!r}; leave it out"
            )


def _numbered(name: str, count: int) -> list[str]:
    return [name if i == 0 else f"{name}_{i}" for i in range(count)]


def _input_names(model: Module, args: Any, kwargs: Any, inputs: list[Tensor], given: Sequence[str] | None) -> list[str]:
    """A name for every input: those given, or those of the arguments of ``forward``."""
    if given is not None:
        if len(given) != len(inputs) or len(set(given)) != len(given):
            raise ValueError(f"onnx.export: expected {len(inputs)} different input_names, got {list(given)}")
        return list(given)
    names: list[str] = []
    for name, value in inspect.signature(model.forward).bind(*args, **kwargs).arguments.items():
        found: list[Tensor] = []
        map_tensors(found.append, value)
        names += _numbered(name, len(found))
    return names if len(set(names)) == len(inputs) else _numbered("input", len(inputs))


Axes = dict[str, list[tuple[str, int]]]
"""A dynamic axis -> the inputs and their dimensions that have this size."""


def _axes(given: Mapping[str, Any], inputs: dict[str, Tensor], outputs: Sequence[str] | None) -> Axes:
    axes: Axes = {}
    for name, dims in given.items():
        if name not in inputs:
            if outputs is not None and name not in outputs:
                raise ValueError(f"onnx.export: dynamic_axes names {name!r}, which is no input: {', '.join(inputs)}")
            continue  # what an output's sizes depend on is found out
        numbered = dims if isinstance(dims, Mapping) else {d: f"{name}_dim_{d}" for d in dims}
        ndim = inputs[name].ndim
        for dim, axis in numbered.items():
            if not -ndim <= dim < ndim:
                raise ValueError(f"onnx.export: dynamic_axes: {name!r} has {ndim} dimensions, got {dim}")
            axes.setdefault(str(axis), []).append((name, dim % ndim))
    return axes


# --- running --------------------------------------------------------------------------------------------------------


def _runs(
    model: Module, args: Any, kwargs: Any, inputs: list[Tensor], names: list[str], axes: Axes
) -> tuple[list[Call], list[Value]]:
    """What the runs with several sizes have in common: calls and outputs."""
    states = {id(tensor): name for name, tensor in itertools.chain(model.named_buffers(), model.named_parameters())}

    def call(*tensors: Tensor) -> Any:
        places = iter(tensors)
        given, named = map_tensors(lambda _: next(places), (args, kwargs))
        return model(*given, **named)

    by_name = dict(zip(names, inputs, strict=True))
    envs = _sizes(axes, by_name)
    runs, results = [], []
    with _evaluating(model), no_grad():
        for i, env in enumerate(envs):
            sized = [_resized(tensor, name, axes, env) for name, tensor in by_name.items()]
            try:
                calls, result = traced(model, states, call, sized, names)
            except OnnxExporterError:
                raise
            except Exception as error:
                if not i and all(env[a] == by_name[n].shape[d] for a, places in axes.items() for n, d in places):
                    raise
                raise OnnxExporterError(
                    f"onnx.export: the model does not run with {env}: {error}. Axes that have the same size need the same name "
                    "in dynamic_axes; one that cannot change must not be in it"
                ) from error
            runs.append(calls)
            results.append(_flat(result))
    merger = Merger(envs)
    merged = merger.calls(runs)
    for one in results:
        for value in one:
            if not isinstance(value, Value):
                raise OnnxExporterError(
                    f"onnx.export: expected the model to return tensors, got {type(value).__name__}"
                )
    return merged, [merger.value(same) for same in zip(*results, strict=True)]


def _flat(result: Any) -> list[Any]:
    return (
        [x for part in result for x in _flat(part)] if isinstance(result, list) else [] if result is None else [result]
    )


def _sizes(axes: Axes, inputs: dict[str, Tensor]) -> list[dict[str, int]]:
    """The sizes of the dynamic axes in every run: two would do to find a rule, the others confirm it."""
    first = {axis: max(2, *(inputs[name].shape[dim] for name, dim in places)) for axis, places in axes.items()}
    if not first:
        return [{}]
    single = [{**first, axis: size + 1} for axis, size in first.items()]
    return [first, *single, {axis: size + 2 + i for i, (axis, size) in enumerate(first.items())}]


def _resized(tensor: Tensor, name: str, axes: Axes, env: dict[str, int]) -> Tensor:
    """An example with other sizes: its rows again and again."""
    array = tensor.detach().cpu().numpy()
    for axis, places in axes.items():
        for dim in (d for n, d in places if n == name):
            if array.shape[dim] == 0:
                raise ValueError(f"onnx.export: expected an example of {name!r} with elements, got shape {array.shape}")
            array = np.take(array, np.arange(env[axis]) % array.shape[dim], dim)
    return Tensor._wrap(np.array(array, order="C"))  # type: ignore[no-any-return]


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    _at_work.append(model)
    try:
        model.eval()
        yield
    finally:
        _at_work.pop()
        for module, mode in modes:
            module.training = mode


# --- writing --------------------------------------------------------------------------------------------------------


def _needed(calls: list[Call], outputs: Sequence[Value]) -> list[Call]:
    """The calls that lead to an output."""
    wanted: set[int] = {id(value) for value in outputs}
    needed = []
    for call in reversed(calls):
        if id(call.result) in wanted and call.result.kind == "call":
            needed.append(call)
            stack: list[Any] = [*call.args, *call.options.values()]
            while stack:
                part = stack.pop()
                if isinstance(part, Value):
                    wanted.add(id(part))
                elif isinstance(part, tuple):
                    stack.extend(part)
    return needed[::-1]


def _written(
    onnx: Any,
    model: Module,
    calls: list[Call],
    inputs: dict[str, Tensor],
    outputs: dict[str, Value],
    axes: Axes,
    opset: int,
    metadata: Mapping[str, str],
) -> bytes:
    """The file."""
    helper = onnx.helper
    graph = Graph(onnx, {axis: places[0] for axis, places in axes.items()})
    if not calls:
        graph.call, graph.out = Call("model", (), {}, next(iter(outputs.values())), ""), next(iter(outputs.values()))
    for call in _needed(calls, list(outputs.values())):
        graph.call, graph.out = call, call.result
        try:
            graph.bind(call.result, FORMS[call.key](graph, *call.args, **call.options))
        except (TypeError, AttributeError) as error:  # of a size where a number is needed
            raise graph.refuse("an argument that depends on the dynamic axes", sized=True) from error
    for name, value in outputs.items():
        graph.nodes.append(helper.make_node("Identity", [graph.ref(value)], [name], name=name))
    dims = {place: axis for axis, places in axes.items() for place in places}
    entries = [
        _info(helper, name, x._array.dtype, [dims.get((name, i), n) for i, n in enumerate(x.shape)])
        for name, x in inputs.items()
    ]
    results = [_info(helper, name, v.dtype, [_dim(n) for n in v.shape]) for name, v in outputs.items()]
    made = helper.make_graph(graph.nodes, type(model).__name__, entries, results, list(graph.initializers.values()))
    imports = [helper.make_opsetid("", opset)]
    proto = helper.make_model(
        made,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="kobai",
        producer_version=VERSION,
    )
    buffers = [name for name, _ in model.named_buffers() if name in graph.initializers]
    helper.set_model_props(proto, {**metadata, BUFFERS: "\n".join(buffers)})
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString()  # type: ignore[no-any-return]


def _dim(n: Any) -> Any:
    """A size of an output as the file has it: a number, the name of an axis, or nothing."""
    return str(n) or None if isinstance(n, Size) else n if isinstance(n, int) else None


def _info(helper: Any, name: str, dtype: Any, shape: Sequence[Any]) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))
