"""``kobai.onnx.load``: a file of ONNX as a module."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kobai.core.tensor import Tensor
from kobai.core.untrusted import regular
from kobai.errors import CheckpointError
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.onnx.export import BUFFERS
from kobai.onnx.graph import package
from kobai.onnx.readers import READERS, Node
from kobai.ops.create import tensor as new_tensor


class OnnxModule(Module):
    """The module that :func:`load` makes of a file: its nodes are done one after another, by Kobai's operations.

    Parameters and buffers have the names of the file's initializers. It takes the inputs of the graph in their order, or by
    name, and gives its output, or a tuple of them. Attributes: ``input_names``, ``output_names``.
    """

    def __init__(self, graph: Any, names: dict[str, str], nodes: list[Node], inputs: dict[str, list[Any]]) -> None:
        super().__init__()
        self.input_names, self.output_names = tuple(inputs), tuple(entry.name for entry in graph.output)
        self._names, self._nodes, self._shapes = names, nodes, inputs

    def forward(self, *args: Tensor, **named: Tensor) -> Any:
        """What the graph computes."""
        given = dict(zip(self.input_names, args, strict=False)) | named
        if len(args) > len(self.input_names) or set(given) != set(self.input_names):
            raise TypeError(
                f"OnnxModule: expected inputs {', '.join(self.input_names)}, got {len(args)} and {list(named)}"
            )
        for name, shape in self._shapes.items():
            _check(name, given[name], shape)
        values: dict[str, Any] = {"": None, **given}
        values.update((name, self._tensor(path)) for name, path in self._names.items())
        for node in self._nodes:
            made = READERS[node.op](self, node, *(values[name] for name in node.inputs))
            values.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=False))
        results = tuple(values[name] for name in self.output_names)
        return results[0] if len(results) == 1 else results

    def _tensor(self, path: str) -> Tensor:
        owner, _, name = path.rpartition(".")
        return getattr(self.get_submodule(owner) if owner else self, name)  # type: ignore[no-any-return]


def _check(name: str, value: Any, shape: list[Any]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"OnnxModule: expected {name} to be a Tensor, got {type(value).__name__}")
    if value.ndim != len(shape) or any(isinstance(n, int) and n != m for n, m in zip(shape, value.shape, strict=True)):
        wanted = ", ".join(map(str, shape))
        raise RuntimeError(f"OnnxModule: expected {name} of shape ({wanted}), got {tuple(value.shape)}")


def load(f: str | PathLike[str] | BinaryIO) -> OnnxModule:
    """The graph of the file ``f`` as a module in eval mode, with the operators that :func:`kobai.onnx.export` writes.

    Its initializers of floating dtype are parameters that can be trained, except those that the file says are buffers, or
    that are the statistics of a batch normalisation. Dropout is not in such a file; batch normalisation follows the module's
    mode.

    Raises:
        CheckpointError: if this is no file of ONNX, has parts in other files, or needs operators that are not known here.
        ImportError: without the package ``onnx`` (extra ``onnx``).
    """
    onnx = package()
    content, where = (f.read(), "the file") if hasattr(f, "read") else (regular(Path(f)).read_bytes(), str(f))
    try:
        proto = onnx.load_model_from_string(content)
        onnx.checker.check_model(proto)
    except Exception as error:
        raise CheckpointError(f"onnx.load: {where} is no valid file of ONNX: {error}") from error
    graph = proto.graph
    if any(entry.data_location == onnx.TensorProto.EXTERNAL for entry in graph.initializer):
        raise CheckpointError(
            f"onnx.load: {where} keeps tensors in other files, which are not read; save it as one file"
        )
    nodes = [_node(onnx, node) for node in graph.node]
    if lacking := sorted({node.op for node in nodes} - READERS.keys()):
        raise CheckpointError(f"onnx.load: {where} needs operators that Kobai does not read: {', '.join(lacking)}")
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    buffers = set(metadata.get(BUFFERS, "").split("\n"))
    for node in nodes:
        if node.op == "BatchNormalization":
            buffers.update(node.inputs[3:5])
    kept = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    inputs = {entry.name: _shape(entry) for entry in graph.input if entry.name not in kept}
    model = OnnxModule(graph, {name: _path(name) for name in kept}, nodes, inputs)
    for name, array in kept.items():
        _keep(model, _path(name), new_tensor(array), name in buffers or array.dtype.kind != "f")
    return model.eval()


def _node(onnx: Any, node: Any) -> Node:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    for name, value in attributes.items():
        if isinstance(value, bytes):
            attributes[name] = value.decode()
        elif isinstance(value, onnx.TensorProto):
            attributes[name] = new_tensor(np.array(onnx.numpy_helper.to_array(value)))
        elif isinstance(value, (list, tuple)) or hasattr(value, "append"):
            attributes[name] = [v.decode() if isinstance(v, bytes) else v for v in value]
    op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    if "to" in attributes:
        attributes["to"] = onnx.helper.tensor_dtype_to_np_dtype(attributes["to"])
    return Node(op, list(node.input), list(node.output), attributes)


def _shape(entry: Any) -> list[Any]:
    dims = entry.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]


def _path(name: str) -> str:
    """A name of an initializer as one of ``state_dict``."""
    return ".".join(re.sub(r"\W", "_", part) or "_" for part in name.split("."))


def _keep(model: Module, path: str, tensor: Tensor, buffer: bool) -> None:
    """Register a tensor under a path, with modules for what is before its dots."""
    *above, name = path.split(".")
    for part in above:
        if part not in model._modules:
            model.add_module(part, Module())
        model = model._modules[part]  # type: ignore[assignment]
    if buffer:
        model.register_buffer(name, tensor)
    else:
        model.register_parameter(name, Parameter(tensor))
