"""What goes into each layer of a net and what comes out, in one pass without a tape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.ledger import tensors
from kobai.random import default_generator, manual_seed


@dataclass(frozen=True)
class Passage:
    """One call of a layer: its input (None if that is no tensor of numbers) and its output, both copied."""

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor

    @property
    def weight(self) -> Tensor | None:
        """The weight of a dense layer or a convolution."""
        weight = getattr(self.module, "weight", None)
        dense = isinstance(weight, Tensor) and weight.ndim > 1 and not isinstance(self.module, nn.Embedding)
        return weight if dense else None


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode without a tape and with one seed; modes, buffers and the random stream stay as they are."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    state = default_generator.get_state()
    manual_seed(0)
    model.train(training)
    try:
        with no_grad():
            yield
    finally:
        default_generator.set_state(state)
        with no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, was in modes:
            module.training = was


def flow(model: nn.Module, inputs: Sequence[Any], training: bool = False) -> tuple[list[Passage], list[Tensor]]:
    """The calls of all modules without children, in order, and the tensors in the model's output."""
    passages: list[Passage] = []
    before: list[Tensor | None] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0] if args else None
        before.append(x.clone() if isinstance(x, Tensor) and x.is_floating_point() else None)

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            x, y = before.pop(), next(tensors(output), None)
            if y is not None and y.is_floating_point():
                passages.append(Passage(name, module, x, y.clone()))

        return hook

    handles = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave(name))]
    try:
        with mode(model, training):
            outputs = list(tensors(model(*inputs)))
    finally:
        for handle in handles:
            handle.remove()
    return passages, outputs
