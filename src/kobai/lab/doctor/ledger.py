"""Who takes part in a training: what the loss depends on, what is registered, what the optimiser holds, and what changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.findings import Case
from kobai.lab.doctor.trials import copied, leaves, taken
from kobai.optim import Optimizer

SAMPLES = 64
"""At most so many samples of the batch are looked at in experiments."""

DEEP = 6
"""How many containers within containers are looked through for a tensor."""


@dataclass
class Trainee:
    """A parameter of the copy that is trained.

    Attributes:
        name, parameter, wanted: its name, itself, and whether it requires a gradient.
        group: the number of the optimiser's group that holds it, or None.
        reached: whether the tape leads from the loss to it.
        gradient: the largest element of its gradients so far; None if it was given none.
    """

    name: str
    parameter: Tensor
    wanted: bool
    group: int | None
    reached: bool
    before: Tensor
    gradient: float | None = None

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.name.rpartition(".")[0]

    @property
    def changed(self) -> bool:
        """Whether any element has changed since."""
        with no_grad():
            return not bool((self.parameter == self.before).all().item())


@dataclass(frozen=True)
class Stranger:
    """A tensor that the loss depends on, and that nobody trains.

    ``owner`` is the name of the module among whose attributes it is found, at ``place`` (``hidden[0].weight``); None for one
    that is no part of the model.
    """

    tensor: Tensor
    owner: str | None
    place: str


class Ledger:
    """What is known of every parameter, from the first step on.

    Args:
        case: what is diagnosed. A loss function is not copied: what it refers to are the user's own parameters.
        model, optimizer: the copies that are trained.
        output, loss: of the first step, before backward.
    """

    def __init__(self, case: Case, model: nn.Module, optimizer: Optimizer, output: Any, loss: Tensor) -> None:
        self.case = case
        self.given = case.optimizer is not None
        self.optimizer = optimizer
        groups = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        reached = {id(leaf): leaf for leaf in leaves([loss])}
        self.trainees = [
            Trainee(
                name,
                parameter,
                parameter.requires_grad,
                groups.get(id(parameter)),
                id(parameter) in reached,
                parameter.detach().clone(),
            )
            for name, parameter in model.named_parameters()
        ]
        known = {*groups, *map(id, [*model.parameters(), *case.model.parameters(), *case.batch])}
        if case.optimizer is not None:
            known |= {id(p) for group in case.optimizer.param_groups for p in group["params"]}
        else:  # the loss function's own parameters may well be trained
            known |= reached.keys() - {id(leaf) for leaf in leaves(tensors(output))}
        self.strangers = _placed(model, [leaf for key, leaf in reached.items() if key not in known])
        used = {id(trainee.parameter) for trainee in self.trainees} | reached.keys()
        self.others = sum(key not in used for key in groups)
        """Parameters that the optimiser holds, and which are no part of the model nor of the loss."""
        self.steps = 0

    @cached_property
    def fresh(self) -> nn.Module:
        """A copy of the net as it was before the first step."""
        return copied(self.case)[0]

    @cached_property
    def few(self) -> list[Tensor]:
        """The inputs of a few samples; of all, where the net takes no others."""
        some = tuple(part[:SAMPLES] for part in self.case.batch)
        return list((some if taken(self.case, [some]) else self.case.batch)[:-1])

    def note(self) -> None:
        """Keep the gradients of a step."""
        self.steps += 1
        with no_grad():
            for trainee in self.trainees:
                gradient = trainee.parameter.grad
                if gradient is not None and gradient.numel():
                    largest = float(gradient.detach().abs().max().item())
                    trainee.gradient = max(trainee.gradient or 0.0, largest)


def tensors(output: Any) -> Iterator[Tensor]:
    """All tensors in an output: itself, or those in tuples, lists and dicts."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for part in output:
            yield from tensors(part)
    elif isinstance(output, dict):
        yield from tensors(list(output.values()))


def _placed(model: nn.Module, wanted: list[Tensor]) -> list[Stranger]:
    """Where among the attributes of the model's modules tensors are found."""
    if not wanted:
        return []
    places: dict[int, tuple[str, str]] = {}
    for path, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in REGISTERED}
        for place, tensor in _within(own, "", DEEP, {id(module)}):
            places.setdefault(id(tensor), (path, place))
    return [Stranger(tensor, *places.get(id(tensor), (None, ""))) for tensor in wanted]


REGISTERED = frozenset(("_parameters", "_buffers", "_modules"))


def _within(thing: Any, place: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Tensors in containers, modules and plain objects, and where: ``hidden[0].weight``."""
    if isinstance(thing, Tensor):
        yield place, thing
        return
    if depth == 0 or id(thing) in seen or isinstance(thing, (str, bytes, int, float, type)):
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        for name, parameter in thing.named_parameters():
            yield f"{place}.{name}", parameter
        parts = {name: part for name, part in vars(thing).items() if name not in REGISTERED}
    elif isinstance(thing, dict):
        parts = {f"[{key!r}]" if place else key: value for key, value in thing.items()}
    elif isinstance(thing, (list, tuple)):
        parts = {f"[{i}]": value for i, value in enumerate(thing)}
    else:
        parts = getattr(thing, "__dict__", {})
    for name, part in parts.items():
        if isinstance(name, str):
            joint = "." if place and not name.startswith("[") else ""
            yield from _within(part, f"{place}{joint}{name}", depth - 1, seen)
