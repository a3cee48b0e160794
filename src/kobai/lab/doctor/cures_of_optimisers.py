"""Cures of the optimiser's options."""

from __future__ import annotations

from typing import Any

from kobai.lab.doctor.cures import Action, Patient, cure


def with_option(name: str, value: Any) -> Action:
    """One option in all groups that have it."""

    def change(patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            if name in group:
                group[name] = value

    return change


@cure
def set_option(name: str, value: Any, before: Any) -> tuple[str, Action]:
    """Another value of an option of the optimiser, in all its groups."""
    now, was = (f"{each:g}" if isinstance(each, (int, float)) else repr(each) for each in (value, before))
    text = f'for group in optimizer.param_groups:\n    group["{name}"] = {now}  # in place of {was}'
    return text, with_option(name, value)


@cure
def descend() -> tuple[str, Action]:
    """Steps that lower the loss, in all groups."""

    def action(patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            group["maximize"] = False

    return 'for group in optimizer.param_groups:\n    group["maximize"] = False  # a loss is to become small', action
