"""``SummaryWriter``, for TensorBoard, on tensorboardX, which knows arrays but not Kobai's tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kobai.core.tape import Node
from kobai.core.tensor import Tensor
from kobai.dtypes import HALVES
from kobai.errors import install, nearest

__all__ = ["SummaryWriter"]


class SummaryWriter:
    """Writes scalars, histograms, images, ... of a run into ``log_dir`` for TensorBoard (``tensorboard --logdir runs``).

    The methods are tensorboardX's: ``add_scalar``, ``add_scalars``, ``add_histogram``, ``add_image``, ``add_images``,
    ``add_figure``, ``add_text``, ``add_hparams``, ``add_pr_curve``, ``add_embedding``, ``add_video``, ``add_audio``,
    ``add_mesh``, ``add_custom_scalars``, ``flush``, ``close``. Each takes tensors wherever an array or a number may stand.

    Args:
        log_dir: the folder, ``runs/<time>_<host><comment>`` unless given.
        comment: the end of that name.
        purge_step: of a run that is taken up again: hide what was logged from this step on.
        max_queue, flush_secs: how many events, and how many seconds, may wait to be written.
        filename_suffix: the end of the file's name.

    Errors: ImportError with the line that installs tensorboardX, if it is missing.

    >>> import kobai
    >>> from kobai.utils.tensorboard import SummaryWriter
    >>> writer = SummaryWriter()                                              # doctest: +SKIP
    >>> writer.add_scalar("loss", kobai.tensor(0.5), 1)                       # doctest: +SKIP
    >>> writer.close()                                                        # doctest: +SKIP
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError(
                f"SummaryWriter: tensorboardX is not installed. Install it: {install('tensorboard')}"
            ) from error
        self._writer = tensorboardX.SummaryWriter(
            None if log_dir is None else os.fspath(log_dir),
            comment,
            purge_step=purge_step,
            max_queue=max_queue,
            flush_secs=flush_secs,
            filename_suffix=filename_suffix,
        )

    @property
    def log_dir(self) -> str:
        """The folder that is written to."""
        return str(self._writer.logdir)

    def get_logdir(self) -> str:
        """The folder that is written to."""
        return self.log_dir

    def add_graph(self, model: Any, input_to_model: Any = None, verbose: bool = False) -> None:
        """Log which operations lead from ``input_to_model`` – a tensor, or a tuple of arguments – to the model's output.

        The model runs once, and its tape is the graph: operations, parameters by name, and inputs.
        """
        inputs = input_to_model if isinstance(input_to_model, (tuple, list)) else (input_to_model,)
        inputs = tuple(
            x.detach().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs
        )
        names = {id(p): name.replace(".", "/") for name, p in model.named_parameters()}
        names.update({id(x): f"input/{i}" for i, x in enumerate(inputs)})
        graph = _graph(_tensors(model(*inputs)), names)
        if verbose:
            print(graph)
        self._writer._get_file_writer().add_onnx_graph(graph)  # whatever made it: only that writes no times beside it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"'SummaryWriter' object has no attribute {name!r}")
        try:
            found = getattr(self._writer, name)
        except AttributeError:
            hint = nearest(name, dir(self))
            raise AttributeError(f"'SummaryWriter' object has no attribute {name!r}.{hint}") from None
        return _with_arrays(found) if callable(found) else found

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *(name for name in dir(self._writer) if not name.startswith("_"))})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.close()


def _with_arrays(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*map(_host, args), **{name: _host(value) for name, value in kwargs.items()})

    return call


def _host(value: Any) -> Any:
    """Tensors in it as NumPy arrays, and those of one element without dimensions as numbers."""
    if isinstance(value, Tensor):
        whole = value.detach().cpu()
        if whole.ndim == 0:
            return whole.item()
        return (whole.float() if whole.dtype in HALVES else whole).numpy()
    if isinstance(value, Mapping):
        return {key: _host(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(map(_host, value))
    return str(value) if isinstance(value, Path) else value


def _tensors(output: Any) -> list[Tensor]:
    """Every tensor of a model's output."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _graph(outputs: list[Tensor], names: dict[int, str]) -> Any:
    """The tape behind ``outputs`` as TensorFlow's GraphDef."""
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef

    edges = [edge for edge in (tensor._edge() for tensor in outputs) if edge is not None]
    reached, waiting = {id(edge): edge for edge in edges}, list(edges)
    while waiting:
        edge = waiting.pop()
        for behind in edge.edges if isinstance(edge, Node) else ():
            if behind is not None and id(behind) not in reached:
                reached[id(behind)] = behind
                waiting.append(behind)

    taken: dict[str, int] = {}

    def fresh(name: str) -> str:
        taken[name] = taken.get(name, 0) + 1
        return name if taken[name] == 1 else f"{name}_{taken[name] - 1}"

    def node(edge: Any) -> Any:
        if isinstance(edge, Node):
            sources = [named[id(e)].name for e in edge.edges if e is not None]
            return NodeDef(name=fresh(edge.name_.strip("_")), op=edge.name(), input=sources)
        name = names.get(id(edge), "tensor")
        return NodeDef(name=fresh(name), op="Input" if name.startswith("input/") else "Parameter")

    named: dict[int, Any] = {}
    for edge in sorted(reached.values(), key=lambda edge: edge.order if isinstance(edge, Node) else -1):
        named[id(edge)] = node(edge)  # what it is computed from is older, and has its name by now
    results = [NodeDef(name=fresh("output"), op="Output", input=[named[id(edge)].name]) for edge in edges]
    return GraphDef(node=[*named.values(), *results])
