"""Cures of batch statistics: norms that look at one sample, and running averages measured anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.lab.doctor.cures import RENEWED, Action, Patient, cure, expression, put, renew


@cure
def group_norm(layers: Sequence[tuple[str, int]]) -> tuple[str, Action]:
    """Group norm of one group (Wu and He 2018) in place of batch norm; ``layers``: (layer, its channels)."""

    def action(patient: Patient) -> None:
        for path, channels in layers:
            like: Any = next(patient.model.parameters())
            put(patient.model, path, nn.GroupNorm(1, channels).to(like.device, like.dtype))
        renew(patient)

    return (
        "for name, norm in list(model.named_modules()):\n"
        "    if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):\n"
        "        parent, _, last = name.rpartition('.')\n"
        "        setattr(model.get_submodule(parent), last, nn.GroupNorm(1, norm.num_features))\n"
        f"{RENEWED}"
    ), action


@cure
def average_anew(inputs: Sequence[Any]) -> tuple[str, Action]:
    """Running statistics measured anew on inputs, and from then on at the usual momentum."""

    def action(patient: Patient) -> None:
        norms = [module for module in patient.model.modules() if getattr(module, "running_mean", None) is not None]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        with no_grad():
            patient.model.train()(*inputs)
        for norm in norms:
            norm.momentum = 0.1

    return (
        'norms = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]\n'
        "for norm in norms:\n"
        "    norm.reset_running_stats()\n"
        "    norm.momentum = None  # the plain average of all batches that follow\n"
        "with kobai.no_grad():\n"
        f"    model.train()({', '.join(['x'] if len(inputs) == 1 else ['*x'])})  # or batch by batch\n"
        "for norm in norms:\n"
        "    norm.momentum = 0.1  # in training: each batch counts a tenth"
    ), action


@cure
def without(layers: Sequence[str]) -> tuple[str, Action]:
    """Nothing in the place of layers."""

    def action(patient: Patient) -> None:
        for path in layers:
            put(patient.model, path, nn.Identity())
        renew(patient)

    return "\n".join([*[f"{expression(path)} = nn.Identity()" for path in layers], RENEWED]), action


@cure
def train_again(overridden: bool) -> tuple[str, Action]:
    """All parts in training mode; ``overridden``: in spite of a ``train()`` of the model's own that leaves some behind."""

    def action(patient: Patient) -> None:
        for part in patient.model.modules() if overridden else ():
            part.train = nn.Module.train.__get__(part)
        patient.model.train()

    override = (
        "for part in model.modules():\n"
        "    part.train = nn.Module.train.__get__(part)  # in place of a train() that leaves parts in evaluation mode\n"
    )
    return (
        override if overridden else ""
    ) + "model.train()  # before each epoch: validation calls model.eval()", action
