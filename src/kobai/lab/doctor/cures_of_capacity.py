"""Cures of nets that can express too little or mix their samples, in the registry of :mod:`kobai.lab.doctor.cures`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai import nn
from kobai.lab.doctor.cures import RENEWED, Action, Patient, cure, expression, put, renew


@cure
def activate(paths: Sequence[str]) -> tuple[str, Action]:
    """ReLU after each of these layers."""

    def action(patient: Patient) -> None:
        for path in paths:
            put(patient.model, path, nn.Sequential(patient.model.get_submodule(path), nn.ReLU()))

    return "\n".join(f"{expression(path)} = nn.Sequential({expression(path)}, nn.ReLU())" for path in paths), action


@cure
def widen(narrow: str, following: str, sizes: tuple[int, int, int]) -> tuple[str, Action]:
    """Two dense layers with more units between them; ``sizes``: inputs of the first, units between, outputs of the second."""
    before, units, after = sizes
    layers = {narrow: (before, units), following: (units, after)}

    def action(patient: Patient) -> None:
        for path, (n_in, n_out) in layers.items():
            old = next(patient.model.get_submodule(path).parameters())
            put(patient.model, path, nn.Linear(n_in, n_out).to(old.device, old.dtype))
        renew(patient)

    lines = [f"{expression(path)} = nn.Linear({n_in}, {n_out})" for path, (n_in, n_out) in layers.items()]
    return "\n".join([*lines, RENEWED]), action


@cure
def drop_less(paths: Sequence[str], p: float) -> tuple[str, Action]:
    """Dropout with another probability."""

    def action(patient: Patient) -> None:
        for path in paths:
            module: Any = patient.model.get_submodule(path)
            module.p = p

    return "\n".join(f"{expression(path)}.p = {p:g}  # of being put to 0" for path in paths), action


@cure
def set_options(options: Sequence[tuple[str, str, Any]]) -> tuple[str, Action]:
    """Other options of layers; ``options``: (layer, attribute, value)."""

    def action(patient: Patient) -> None:
        for path, name, value in options:
            setattr(patient.model.get_submodule(path), name, value)

    return "\n".join(f"{expression(path)}.{name} = {value!r}" for path, name, value in options), action
