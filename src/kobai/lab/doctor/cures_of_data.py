"""Cures of the data: what is done to the inputs before the model sees them, tried by a hook in front of a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai import ops
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Action, Patient, cure


def prepared(change: Callable[[Tensor], Tensor]) -> Action:
    """Change the first input before the model sees it; the names of its layers stay."""

    def action(patient: Patient) -> None:
        patient.model.register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:]))

    return action


@cure
def fill_in(column: int, value: float, instead: float) -> tuple[str, Action]:
    """The median of what is known in a column, in place of a number that stands for what is missing."""

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        there: Any = x[:, column]
        x[:, column] = ops.where((there - value).abs() <= 1e-5 * max(1.0, abs(value)), instead, there)
        return x

    return (
        "x = x.clone()\n"
        f"missing = (x[:, {column}] - ({value:.6g})).abs() <= {1e-5 * max(1.0, abs(value)):.1g}  # what stands for 'missing'\n"
        f"x[:, {column}] = kobai.where(missing, {instead:.6g}, x[:, {column}])  # the median of the others; and a column that\n"
        "# says missing.float() beside it tells the net so"
    ), prepared(change)


@cure
def convert(column: int, beyond: float, factor: float) -> tuple[str, Action]:
    """Numbers of a column whose size is ``beyond`` a limit, divided by the factor between two units."""

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        there: Any = x[:, column]
        x[:, column] = ops.where(there.abs() > beyond, there / factor, there)
        return x

    return (
        "x = x.clone()\n"
        f"other = x[:, {column}].abs() > {beyond:.4g}  # rows in another unit: mend them where they are read\n"
        f"x[:, {column}] = kobai.where(other, x[:, {column}] / {factor:.4g}, x[:, {column}])"
    ), prepared(change)


@cure
def one_scale(beyond: float, factor: float) -> tuple[str, Action]:
    """Samples whose root mean square is ``beyond`` a limit, divided by a factor."""

    def change(x: Tensor) -> Tensor:
        size = (x.reshape(len(x), -1) ** 2).mean(1).sqrt().reshape(-1, *[1] * (x.ndim - 1))
        scaled: Tensor = ops.where(size > beyond, x / factor, x)
        return scaled

    return (
        "size = (x.reshape(len(x), -1) ** 2).mean(1).sqrt().reshape(-1, *[1] * (x.ndim - 1))\n"
        f"x = kobai.where(size > {beyond:.4g}, x / {factor:.4g}, x)  # better: one division where the samples are read"
    ), prepared(change)


@cure
def channels_first(channels: int) -> tuple[str, Action]:
    """(N, C, H, W) of numbers that lie in memory as (N, H, W, C)."""

    def change(x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        turned: Tensor = x.reshape(n, height, width, channels).permute(0, 3, 1, 2)
        return turned

    return (
        "n, c, h, w = x.shape\n"
        "x = x.reshape(n, h, w, c).permute(0, 3, 1, 2)  # move the axis of channels: a reshape leaves the numbers in place"
    ), prepared(change)
