"""What training, evaluation and prediction share: batches from any data, on the model's device, and evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

from kobai import ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.errors import DataError
from kobai.nn import Module
from kobai.random import Generator, default_generator
from kobai.utils.data import DataLoader, Dataset

Data: TypeAlias = Iterable[Any] | Dataset[Any] | Tensor
"""A loader (anything that gives batches), a data set, or a tensor of inputs."""

EVALUATION_BATCH = 1024
"""Samples in a batch of a data set that is given without a loader; nothing is learnt, so it changes no result."""


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each layer has its former mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict(model: Module, data: Data, device: Any = None) -> Tensor:
    """:meth:`Trainer.predict` for a model without an optimiser."""
    device = device or device_of(model)
    outputs = []
    with evaluating(model):
        for batch in batches_of(data):
            parts = batch if isinstance(batch, (list, tuple)) else (batch,)
            inputs = parts[:-1] if len(parts) > 1 else parts
            outputs.append(model(*moved(inputs, device)))
    if not outputs:
        raise DataError("predict: the data gave no batch")
    return ops.cat(outputs)


def device_of(model: Module) -> Any:
    """The device of a model's first parameter or buffer; None if it has none."""
    for tensors in (model.parameters(), model.buffers()):
        for tensor in tensors:
            return tensor.device
    return None


def moved(parts: Iterable[Any], device: Any) -> list[Any]:
    """The parts of a batch, with tensors moved to ``device``."""
    return [part.to(device) if isinstance(part, Tensor) and device is not None else part for part in parts]


def batches_of(data: Data) -> Iterable[Any]:
    """``data`` as batches, if the batch size changes no result."""
    if isinstance(data, Tensor):
        return (data[i : i + EVALUATION_BATCH] for i in range(0, len(data), EVALUATION_BATCH))
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        return DataLoader(data, batch_size=EVALUATION_BATCH) if len(data) else ()
    return cast(Iterable[Any], data)


def generators_of(*loaders: Any) -> list[Generator]:
    """All generators that loaders draw from, the default one first."""
    found = [default_generator]
    for loader in loaders:
        batch_sampler = getattr(loader, "batch_sampler", None)
        for source in (
            loader,
            getattr(loader, "sampler", None),
            batch_sampler,
            getattr(batch_sampler, "sampler", None),
        ):
            generator = getattr(source, "generator", None)
            if isinstance(generator, Generator) and all(generator is not known for known in found):
                found.append(generator)
    return found
