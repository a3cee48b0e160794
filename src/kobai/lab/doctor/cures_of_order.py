"""The cure of a net that cannot see the order of its inputs, in the registry of :mod:`kobai.lab.doctor.cures`."""

from __future__ import annotations

from typing import Any

from kobai import nn, ops
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import RENEWED, Action, Patient, cure, expression, put, renew


class Positions(nn.Module):
    """x + p: a learnt vector for each step of (N, L, D).

    >>> import kobai
    >>> Positions(4, 2)(kobai.zeros(3, 4, 2)).shape
    kobai.Size([3, 4, 2])
    """

    def __init__(self, length: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * ops.randn(length, size))

    def forward(self, x: Tensor) -> Any:
        """The same shape."""
        return x + self.weight[: x.shape[-2]]


@cure
def with_positions(path: str, length: int, size: int) -> tuple[str, Action]:
    """A learnt vector for each step, added to what a layer gives for it."""

    def action(patient: Patient) -> None:
        layer = patient.model.get_submodule(path)
        like = next(patient.model.parameters())
        put(patient.model, path, nn.Sequential(layer, Positions(length, size).to(like.device, like.dtype)))
        renew(patient)

    at = expression(path)
    return (
        "class Positions(nn.Module):\n"
        "    def __init__(self, length, size):\n"
        "        super().__init__()\n"
        "        self.weight = nn.Parameter(0.1 * kobai.randn(length, size))\n"
        "    def forward(self, x):\n"
        "        return x + self.weight[:x.shape[-2]]\n"
        f"{at} = nn.Sequential({at}, Positions({length}, {size}))  # a vector for each of {length} steps\n"
        f"{RENEWED}"
    ), action
