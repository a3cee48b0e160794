"""``DataParallel`` on one device, and ``DistributedDataParallel`` in several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kobai import cuda
from kobai.compat.absent import within as _within
from kobai.core.tensor import Tensor
from kobai.nn.module import Module

__all__ = ["DataParallel"]


class DataParallel(Module):
    """``module``, called on one device: on the only one of ``device_ids``, else where it is.

    As in PyTorch it is the attribute ``module``, keys of the ``state_dict`` begin with ``module.``, and tensors among the
    arguments go to its device. The batch (dimension ``dim``) is not divided, so ``output_device`` is that device too.

    Raises:
        NotImplementedError: several ``device_ids``, on a machine with a GPU; without one they mean nothing, as in PyTorch.

    >>> import kobai
    >>> model = kobai.nn.DataParallel(kobai.nn.Linear(2, 3))
    >>> list(model.state_dict()), model(kobai.ones(4, 2)).shape
    (['module.weight', 'module.bias'], kobai.Size([4, 3]))
    """

    module: Module

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        wanted = {str(i) for i in device_ids or ()} if cuda.is_available() else set()
        if len(wanted) > 1:
            raise NotImplementedError(
                f"DataParallel: Kobai trains on one device, got device_ids {list(device_ids or ())}"
            )
        self.module = module
        self.device_ids = [] if device_ids is None or not wanted else list(device_ids)
        self.output_device = output_device
        self.dim = dim
        for index in wanted:
            self.module.to(f"cuda:{index}" if index.isdecimal() else index)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """``module(*inputs, **kwargs)``."""
        like = next(self.module.parameters(), None)
        if like is not None and like.is_cuda:
            inputs, kwargs = _there(like.device, inputs), _there(like.device, kwargs)
        return self.module(*inputs, **kwargs)


def _there(device: Any, tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, Mapping):
        return {key: _there(device, value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [_there(device, value) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Sequence[Any] | None = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """``DataParallel(module, device_ids)(*inputs, **module_kwargs)``; ``inputs`` is a tuple or one argument."""
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    return DataParallel(module, device_ids, output_device, dim)(*arguments, **(module_kwargs or {}))


_lacking = _within(
    __name__,
    """
    DistributedDataParallelCPU gather parallel_apply replicate scatter scatter_kwargs
    """,
)


def __getattr__(name: str) -> Any:
    if name != "DistributedDataParallel":
        return _lacking(name)
    from kobai.nn.data_parallel import DistributedDataParallel  # with what speaks to other processes, which few need

    return DistributedDataParallel
