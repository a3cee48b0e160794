"""Cures of parameters that nobody trains, in the registry of :mod:`kobai.lab.doctor.cures`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kobai import nn
from kobai.lab.doctor.cures import RENEWED, Action, Patient, cure, expression, renew
from kobai.nn import init as initialisers
from kobai.optim.groups import set_learning_rate


@cure
def register(attributes: Sequence[tuple[str, str, str]]) -> tuple[str, Action]:
    """Make what attributes hold part of the model; ``attributes``: (module, attribute, class of ``nn`` to wrap it in)."""

    def action(patient: Patient) -> None:
        for path, name, kind in attributes:
            module = patient.model.get_submodule(path)
            setattr(module, name, getattr(nn, kind)(getattr(module, name)))
        renew(patient)

    places = [(f"{expression(path)}.{name}", kind) for path, name, kind in attributes]
    return "\n".join([*[f"{place} = nn.{kind}({place})" for place, kind in places], RENEWED]), action


@cure
def hold() -> tuple[str, Action]:
    """Give the optimiser all parameters of the model that it does not hold, in a group of their own."""

    def action(patient: Patient) -> None:
        held = {id(p) for group in patient.optimizer.param_groups for p in group["params"]}
        left = [p for p in patient.model.parameters() if p.requires_grad and id(p) not in held]
        patient.optimizer.add_param_group({"params": left})

    return (
        'held = {id(p) for group in optimizer.param_groups for p in group["params"]}\n'
        "left = [p for p in model.parameters() if p.requires_grad and id(p) not in held]\n"
        'optimizer.add_param_group({"params": left})  # or make it after the model is complete, from model.parameters()'
    ), action


@cure
def thaw(parameters: Sequence[tuple[str, bool]]) -> tuple[str, Action]:
    """Train single parameters that are frozen; ``parameters``: (name, whether the optimiser holds it already)."""
    new = [name for name, held in parameters if not held]

    def action(patient: Patient) -> None:
        for name, _ in parameters:
            patient.model.get_parameter(name).requires_grad_(True)
        if new:
            patient.optimizer.add_param_group({"params": [patient.model.get_parameter(name) for name in new]})

    lines = [f"{written(name)}.requires_grad_(True)" for name, _ in parameters]
    if new:
        lines.append(f'optimizer.add_param_group({{"params": [{", ".join(map(written, new))}]}})')
    return "\n".join(lines), action


@cure
def set_group_rate(numbers: Sequence[int], rate: float) -> tuple[str, Action]:
    """The learning rate of some groups."""

    def action(patient: Patient) -> None:
        for i in numbers:
            set_learning_rate(patient.optimizer.param_groups[i], rate)

    return "\n".join(f'optimizer.param_groups[{i}]["lr"] = {rate:g}  # in place of 0' for i in numbers), action


@cure
def redraw(schemes: Mapping[str, str]) -> tuple[str, Action]:
    """Numbers in place of zeros; ``schemes``: the initialiser of each parameter."""

    def action(patient: Patient) -> None:
        for name, scheme in schemes.items():
            initialisers.by_name(scheme)(patient.model.get_parameter(name))
        patient.optimizer.state.clear()

    return "\n".join(f'nn.init.by_name("{scheme}")({written(name)})' for name, scheme in schemes.items()), action


def written(name: str) -> str:
    """A parameter, as a program writes it.

    >>> written("features.0.weight"), written("scale")
    ('model.features[0].weight', 'model.scale')
    """
    path, _, own = name.rpartition(".")
    return f"{expression(path)}.{own}"
