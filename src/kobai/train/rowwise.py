"""All shards of a process in one pass, where no row of the model depends on another: the same bits, and fewer, larger products.

A row of a product is the same alone and among others (docs/design/0026-bits.md). So the outputs of shards are rows of the
output of all, and so are the gradients that flow back. What is a sum over rows are the gradients of weights, and these are
summed shard by shard (``ops/linear/parts.py``). The loss, which may be any function of its rows, is of each shard by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kobai import nn, ops
from kobai.amp import is_autocast_enabled
from kobai.core.tensor import Tensor
from kobai.engine.dispatch import HOST_TYPES, loops_run
from kobai.ops.linear import parts

PLAIN = frozenset(
    (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GELU, nn.SiLU, nn.Linear)
)
"""Layers that take rows for themselves, and whose only sums over rows are the gradients of :class:`nn.Linear`."""


def takes(model: nn.Module, trained: dict[str, Tensor], inputs: Sequence[Any]) -> bool:
    """Whether the own shards can be computed in one pass: :data:`PLAIN` layers one after another, without anybody's hooks."""
    layers = list(_in_turn(model))
    parameters = [p for layer in layers for p in layer.parameters()]
    return (
        len(inputs) == 1
        and all(map(_plain, layers))
        and {id(p) for p in parameters} >= {id(p) for p in trained.values()}
        and len({id(p) for p in parameters})
        == len(parameters)  # two gradients of one would be added before the shards' are
        and all(_own_loops(x) and not (x._hooks or x._accumulate_hooks) for x in (*parameters, inputs[0]))
        and any(p.requires_grad for p in parameters)
        and not inputs[0].requires_grad
        and not is_autocast_enabled("cpu")
    )


def _in_turn(module: nn.Module) -> Iterable[nn.Module]:
    """The layers, and all modules that are no plain sequence of layers."""
    if type(module) is nn.Sequential and not _hooked(module):
        for child in module._modules.values():  # one that stands there twice, too
            if child is not None:
                yield from _in_turn(child)
    else:
        yield module


def _plain(layer: nn.Module) -> bool:
    if _hooked(layer) or getattr(layer, "activation", None) is not None:
        return False
    return type(layer) in PLAIN or (type(layer) is nn.Flatten and layer.start_dim == 1)


def _hooked(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks)


def _own_loops(x: Tensor) -> bool:
    """Whether products of it are Kobai's own, whose rows are the same in any company."""
    return type(x._array) in HOST_TYPES and loops_run(x.dtype)


def run(
    whole: Tensor, own: tuple[int, ...], targets: Iterable[tuple[int, Any]], loss: Callable[[int, Tensor, Any], None]
) -> list[Tensor]:
    """Backward from the output of all shards, of which there are ``own`` rows each; returns each one's part of it.

    ``loss`` computes that of one shard, and its gradient.
    """
    outputs, first = [], 0
    for rows, (s, target) in zip(own, targets, strict=True):
        part = whole.detach()[first : first + rows].clone().requires_grad_()
        loss(s, part, target)
        outputs.append(part)
        first += rows
    token = parts.sizes.set(own)
    try:
        whole.backward(ops.cat([part.grad for part in outputs]))
    finally:
        parts.sizes.reset(token)
    return [part.detach() for part in outputs]
