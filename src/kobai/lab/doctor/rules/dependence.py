"""Which outputs depend on which parts of the inputs: parts are exchanged between samples, and gradients are looked at."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.ends import parts
from kobai.lab.doctor.rules.relations import Numbers
from kobai.nn import init as initialisers
from kobai.nn.batchnorm import _NormBase
from kobai.random import manual_seed
from kobai.xp import to_host

FEW = 16
"""Samples that are looked at."""
GROUPS = 12
"""Parts of an axis that are told apart, at most."""


def redrawn(model: nn.Module) -> nn.Module:
    """A copy with new weights: what a net can depend on, whatever zeros, saturation or dead units hide for now."""
    model = copy.deepcopy(model)
    manual_seed(0)
    with no_grad():
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.reset_running_stats()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                initialisers.normal_(parameter, std=1 / max(1, parameter[0].numel()) ** 0.5)
            elif name.endswith("bias"):
                initialisers.normal_(parameter, std=0.1)
            elif parameter.is_floating_point():
                parameter += 0.3 * ops.randn_like(parameter)
    return model


def outputs_of(model: nn.Module, xs: Sequence[Tensor]) -> list[Numbers]:
    """The numbers of the outputs in evaluation mode."""
    with mode(model, training=False):
        return [to_host(part.detach().array).astype(np.float64) for part in parts(model(*xs))]


def groups(size: int, most: int = GROUPS) -> Iterator[slice]:
    """An axis in at most so many parts."""
    edges = np.linspace(0, size, min(size, most) + 1).astype(int)
    return (slice(int(a), int(b)) for a, b in pairwise(edges))


def padded(x: Tensor) -> Numbers:
    """Which positions (N, L) of the second axis are padding: one value, or zeros, that fills the end or the beginning of some
    samples, and is nowhere else."""
    array = to_host(x.detach().array)
    array = array.reshape(*array.shape[:2], -1)
    for place in (-1, 0):
        last = array[:, place]
        values, counts = np.unique(last, axis=0, return_counts=True)
        value = values[counts.argmax()]
        if x.is_floating_point() and value.any():
            continue
        there = (array == value).all(-1)
        ends = there if place == 0 else there[:, ::-1]
        whole = (np.diff(ends.astype(int), axis=1) <= 0).all()  # once it stops, it does not come again
        if whole and ends[:, :2].all(1).mean() > 0.1 and not there.all():
            padding: Numbers = there
            return padding
    return np.zeros(array.shape[:2], bool)


def exchanged(x: Tensor, at: tuple[slice, ...], still: Numbers | None = None) -> Tensor:
    """The inputs, of which the part ``at`` (all samples, and places of further axes) is that of the sample before.

    What is ``still`` in either sample, such as padding (N, L), stays.
    """
    array = to_host(x.detach().array)
    other = array.copy()
    other[(slice(None), *at)] = np.roll(array, 1, 0)[(slice(None), *at)]
    if still is not None:
        kept = (still | np.roll(still, 1, 0)).reshape(*still.shape, *[1] * (array.ndim - still.ndim))
        other = np.where(kept, array, other)
    moved: Tensor = ops.from_numpy(np.ascontiguousarray(other)).to(x.device, x.dtype)
    return moved


def slopes_by_place(model: nn.Module, xs: Sequence[Tensor], k: int) -> Numbers | None:
    """Sizes of the gradient of the outputs by the k-th input, or by the embedding of its whole numbers; None: there is none."""
    leaves: list[Tensor] = []

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if args and isinstance(args[0], Tensor) and args[0].shape == xs[k].shape:
            leaves.append(output.detach().requires_grad_(True))
            return leaves[-1]
        return output

    with mode(model, training=False), enable_grad():
        given = list(xs)
        handles = []
        if xs[k].is_floating_point():
            leaves.append(xs[k].detach().clone().requires_grad_(True))
            given[k] = leaves[0]
        else:
            handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Embedding)]
        try:
            outputs = parts(model(*given))
            cost = sum(((part * ops.randn_like(part)).sum() for part in outputs), ops.zeros(()))
            if not leaves or not cost.requires_grad:
                return None
            found = grad(cost, leaves, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
    sizes = [np.abs(to_host(s.array)).reshape(*xs[k].shape, -1).max(-1) for s in found if s is not None]
    return sum(sizes) if sizes else np.zeros(tuple(xs[k].shape))
