"""``kobai diagnose script.py::model,loader``: net, data, loss and optimiser of a program of the reader's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

import typer

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.nn import functional as F
from kobai.optim import Optimizer
from kobai.train import programs

MARK = "::"
BATCHES = 64
"""Batches of the loader that are used at most."""

USUAL = {
    "model": ("model", "net", "network"),
    "loader": ("loader", "train_loader", "trainloader", "train_dataloader", "dataloader", "batch"),
    "loss_fn": ("loss_fn", "criterion", "loss_function", "loss_func"),
    "optimizer": ("optimizer", "optimiser", "opt"),
    "validation": ("val_loader", "valid_loader", "validation_loader", "valloader", "val_dataloader", "validation"),
}
"""Names under which a program usually has what is examined; looked for in this order."""


def wrong(message: str) -> typer.BadParameter:
    """The error for something named that is not there, or is none of what it should be."""
    return typer.BadParameter(message, param_hint="SCRIPT::NAMES")


@dataclass(frozen=True)
class Program:
    """What a program has: ``batches`` are the first of its loader, ``found`` says under which names."""

    model: Any
    batches: list[Any]
    loss_fn: Any
    optimizer: Any
    validation: list[Any] | None
    found: str


def load(text: str) -> Program:
    """Run a program, but nothing below ``if __name__ == "__main__"``, and take what ``text`` names.

    ``text`` is ``script.py::model,loader,loss_fn,optimizer`` or ``package.module::…``. Names may have dots, as in
    ``trainer.model``; those left out are looked for under the usual ones.
    """
    path, _, asked = text.partition(MARK)
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    kinds = list(USUAL)
    if len(wanted) > len(kinds):
        raise wrong(f"expected at most {', '.join(kinds)} after {MARK}, got {len(wanted)} names")
    if not path:
        raise wrong(f"expected script.py{MARK}model,loader, got nothing before {MARK}")
    try:
        module = programs.run(path)
    except programs.ProgramError as error:
        raise wrong(str(error)) from error
    names = dict(zip(kinds, wanted, strict=False))
    values: dict[str, Any] = {}
    for kind in kinds:
        if kind not in names:
            usual = next((name for name in USUAL[kind] if hasattr(module, name)), None)
            if usual is None and kind in ("model", "loader"):
                hint = f"name it: {path}{MARK}" + ",".join([*wanted, kind.upper()])
                raise wrong(f"{path} has no {kind} under a usual name; {hint}. {_has(module)}")
            if usual is None or (kind == "loss_fn" and not callable(getattr(module, usual))):
                continue
            names[kind] = usual
        values[kind] = _value(module, path, names[kind])
    batches = _batches(path, names["loader"], values["loader"])
    held = _batches(path, names["validation"], values["validation"]) if "validation" in values else None
    return Program(
        _model(path, names["model"], values["model"]),
        batches,
        values.get("loss_fn", F.cross_entropy),
        _optimizer(path, names.get("optimizer", ""), values.get("optimizer")),
        held,
        ", ".join(f"{kind} {name!r}" for kind, name in names.items())
        + ("" if "loss_fn" in names else ", loss_fn F.cross_entropy"),
    )


def _value(module: ModuleType, path: str, name: str) -> Any:
    """What a name, which may have dots, stands for in a module."""
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [each for each in vars(module) if not each.startswith("_")]
            raise wrong(f"{path} has no {name!r}.{nearest(part, known)} {_has(module)}")
        value = getattr(value, part)
    return value


def _has(module: ModuleType) -> str:
    """What of use a module has, by name."""
    kinds: dict[str, list[str]] = {"models": [], "optimizers": [], "loaders and batches": []}
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, (type, ModuleType)):
            continue
        if isinstance(value, nn.Module):
            if next(iter(value.parameters()), None) is None:  # a loss, for one
                continue
            kinds["models"].append(name)
        elif isinstance(value, Optimizer):
            kinds["optimizers"].append(name)
        elif hasattr(value, "dataset") or _is_batch(value):
            kinds["loaders and batches"].append(name)
    found = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    if not found and own:
        return f"It defines {', '.join(own)} and no net: make one at its top level, not inside a function"
    return (
        f"It has {'; '.join(found)}"
        if found
        else f"It has none at its top level: {programs.AT_IMPORT}, but make them above it"
    )


def _is_batch(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) > 1 and all(isinstance(part, Tensor) for part in value)


def _model(path: str, name: str, value: Any) -> Any:
    if told := programs.foreign(value):
        raise wrong(f"{name!r} in {path} {told}")
    if not isinstance(value, nn.Module):
        got = (
            f"the class {value.__name__}; write model = {value.__name__}(...)"
            if isinstance(value, type)
            else type(value).__name__
        )
        raise wrong(f"expected {name!r} in {path} to be a kobai.nn.Module, got {got}")
    return value


def _optimizer(path: str, name: str, value: Any) -> Any:
    if value is not None and not isinstance(value, Optimizer):
        raise wrong(f"expected {name!r} in {path} to be an optimizer, got {type(value).__name__}")
    return value


def _batches(path: str, name: str, value: Any) -> list[Any]:
    """The first batches of a loader; one batch is one of them."""
    if _is_batch(value):
        return [tuple(value)]
    indexed = hasattr(value, "__getitem__") and not isinstance(value, Sequence)
    if indexed or not hasattr(value, "__iter__"):
        kind = type(value).__name__
        hint = "; wrap it: DataLoader(data, batch_size=64, shuffle=True)" if hasattr(value, "__getitem__") else ""
        raise wrong(f"expected {name!r} in {path} to be a loader, or a batch (input, ..., target), got a {kind}{hint}")
    batches = list(islice(iter(value), BATCHES))
    if not batches:
        raise wrong(f"{name!r} in {path} gives no batch")
    first = batches[0]
    if not _is_batch(first):
        parts = [type(part).__name__ for part in first] if isinstance(first, (tuple, list)) else type(first).__name__
        raise wrong(f"expected the batches of {name!r} in {path} to be tensors (input, ..., target), got {parts}")
    return batches
