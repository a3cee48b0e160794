"""Stop when the loss is NaN or infinite, and say in which layer it began.

No step waits for the device: only the running sum of losses, which keeps any NaN, is read every so many batches. If it is not
finite, training goes back to a copy of the state at the beginning of the epoch and repeats the same batches, this time checking
every layer's output, every gradient and every parameter. State, batches and random numbers are the same, so the same thing
goes wrong again, under observation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.errors import check_integer
from kobai.nn import Module
from kobai.optim.groups import learning_rate
from kobai.train.callbacks import Callback
from kobai.train.metrics import Loss
from kobai.train.step import computing, reduction_of
from kobai.xp import to_host

Trainer = Any
"""``kobai.train.Trainer``, whose file imports this one."""


class NonFiniteError(FloatingPointError):
    """The loss, or a value it is computed from, is NaN or infinite. ``layer`` is the path of the module where it began, and
    ``place`` says whether that was in the ``"data"``, in a ``"layer"`` or in the ``"loss"`` function. ``batch`` is the one it
    began in, as (inputs, target), if a Trainer has found it.

    >>> import kobai
    >>> error = kobai.train.NonFiniteError("the output of layer '2' holds NaN", layer="2")
    >>> error.layer, isinstance(error, FloatingPointError)
    ('2', True)
    """

    def __init__(self, message: str, layer: str | None = None, place: str = "layer") -> None:
        super().__init__(message)
        self.layer, self.place = layer, place
        self.batch: tuple[list[Any], Any] | None = None


class TerminateOnNonFinite(Callback):
    """Stop with :class:`NonFiniteError`, which names the first layer whose output or gradient is NaN or infinite.

    ``every``: the loss is read after so many batches, which waits for the device, and always at the end of an epoch.

    >>> import kobai
    >>> model = kobai.nn.Sequential(kobai.nn.Linear(1, 1, init="constant(inf)"))
    >>> stop = kobai.train.TerminateOnNonFinite(every=1)
    >>> trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[stop])
    >>> try:
    ...     trainer.fit([(kobai.ones(4, 1), kobai.zeros(4, dtype=kobai.int64))], epochs=1)
    ... except kobai.train.NonFiniteError as error:
    ...     print(error.layer)
    0
    """

    def __init__(self, every: int = 100) -> None:
        check_integer("TerminateOnNonFinite", "every", every, 1)
        self.every = every
        self._start: dict[str, Any] = {}
        self._before = 0

    def on_epoch_start(self, trainer: Trainer) -> None:
        state = trainer.state_dict()
        self._before = len(state.pop("history"))  # its records stay as they are: a copy of all in each epoch is a waste
        self._start = _copied(state)

    def on_batch_end(self, trainer: Trainer) -> None:
        if trainer.position % self.every == 0 and trainer.loss.spoilt():
            self._locate(trainer, trainer.epoch + 1)

    def on_epoch_measured(self, trainer: Trainer) -> None:
        if trainer.loss.spoilt():
            self._locate(trainer, trainer.epoch)

    def on_close(self, trainer: Trainer) -> None:
        self._start = {}

    def _locate(self, trainer: Trainer, epoch: int) -> None:
        """Replay the epoch under observation; always raises."""
        end = trainer.position or math.inf
        trainer.load_state_dict({**self._start, "history": trainer.history[: self._before]})
        trainer.model.train()
        for batch in trainer.remaining_batches(trainer.train_data):
            where = f"epoch {epoch}, batch {trainer.position + 1}"
            try:
                _observe(trainer, batch, where)
            except NonFiniteError as error:
                error.batch = trainer.unpack(batch)
                raise
            trainer.position += 1
            if trainer.position >= end:
                break
        raise NonFiniteError(
            f"the loss became NaN or infinite in epoch {epoch}, but not when the epoch was done again from its beginning: "
            "its batches or its model are not reproducible, so the layer cannot be named"
        )


def _observe(trainer: Trainer, batch: Any, where: str) -> None:
    """One training step; raises at the first number that is not finite, in order of computation."""
    model = trainer.model
    lr = learning_rate(trainer.optimizer.param_groups[0])
    advice = f"Lower the learning rate (now {lr:g}), clip the gradient norm, or look at the data"
    inputs, target = trainer.unpack(batch)
    if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim and len(inputs[0]) == 1:
        advice = (
            "The batch holds one sample, and a standard deviation over one is no number: DataLoader(..., drop_last=True) "
            f"leaves such a last batch out. Else: {advice[0].lower()}{advice[1:]}"
        )
    for tensor in (*inputs, target):
        if (bad := _bad(tensor)) is not None:
            raise NonFiniteError(f"{where}: the data hold {bad}. Clean them before training", place="data")
    outputs: list[tuple[str, str]] = []
    gradients: list[tuple[str, str]] = []

    def forward(inputs: list[Any], target: Any) -> tuple[Any, Tensor]:
        with computing(trainer.precision, trainer.device.type):
            output = model(*inputs)
            if outputs:
                path, bad = outputs[0]
                raise NonFiniteError(f"{where}: the output of {_named(model, path)} holds {bad}. {advice}", path)
            loss = trainer.listened_loss(output, target)
        counted = Loss()
        trainer.take_loss(counted, loss, target)  # if all labels are left out, NaN is right
        if counted.spoilt() and (value := _bad(loss)) is not None:
            raise NonFiniteError(
                f"{where}: every layer's output is finite, but the loss function returns {value}. {advice}",
                place="loss",
            )
        return output, loss

    with _watching(model, outputs, gradients):
        if trainer.shards is None:
            loss = forward(inputs, target)[1]
            trainer.optimizer.zero_grad()
            loss.backward()
        else:  # every process does all shards by itself, and comes to the same
            shards, summed = trainer.shards.alone(), reduction_of(trainer.loss_fn) == "sum"
            shards.gradients(trainer.optimizer, shards.cut(inputs, target), forward, Tensor.backward, summed)
    if gradients:
        path, bad = gradients[0]
        raise NonFiniteError(
            f"{where}: the gradient at the output of {_named(model, path)} holds {bad}. {advice}", path
        )
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and (bad := _bad(parameter.grad)) is not None:
            raise NonFiniteError(f"{where}: the gradient of parameter {name!r} holds {bad}. {advice}", _owner(name))
    trainer.apply_gradients()
    for name, parameter in model.named_parameters():
        if (bad := _bad(parameter)) is not None:
            raise NonFiniteError(f"{where}: after the step, parameter {name!r} holds {bad}. {advice}", _owner(name))


@contextmanager
def _watching(model: Module, outputs: list[tuple[str, str]], gradients: list[tuple[str, str]]) -> Iterator[None]:
    """Collect (path, what is wrong) of layers, in the order in which outputs and gradients are computed."""
    handles = []
    for path, module in model.named_modules():

        def forward(module: Module, args: Any, output: Any, path: str = path) -> None:
            if (bad := _bad(output)) is not None:
                outputs.append((path, bad))

        def backward(module: Module, grad_output: Any, path: str = path) -> None:
            if (bad := _bad(grad_output)) is not None:
                gradients.append((path, bad))

        handles.append(module.register_forward_hook(forward))
        if not list(module.children()):  # a container has the gradient of its last layer
            handles.append(module.register_full_backward_pre_hook(backward))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _bad(value: Any) -> str | None:
    """``"NaN"`` or ``"infinity"`` if a tensor, also inside a tuple, list or dict, holds it; else None."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return next((bad for bad in map(_bad, value) if bad is not None), None)
    if not isinstance(value, Tensor) or value.dtype.kind not in FLOATING:
        return None
    host = to_host(value.detach().array)
    return "NaN" if np.isnan(host).any() else "infinity" if np.isinf(host).any() else None


def _named(model: Module, path: str) -> str:
    return (
        f"layer {path!r} ({type(model.get_submodule(path)).__name__})"
        if path
        else f"the model ({type(model).__name__})"
    )


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _copied(tree: Any) -> Any:
    """Nested state with its tensors copied, on their device."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_copied(value) for value in tree)
    return tree
