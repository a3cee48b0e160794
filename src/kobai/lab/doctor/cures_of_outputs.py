"""Cures of a model's end and of its loss function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai import nn
from kobai.autograd.samples import vmap
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Action, Patient, cure, expression, put

ENDINGS: dict[str, Callable[[], nn.Module]] = {
    "nn.Sigmoid()": nn.Sigmoid,
    "nn.LogSoftmax(dim=1)": lambda: nn.LogSoftmax(dim=1),
    "nn.Softmax(dim=1)": lambda: nn.Softmax(dim=1),
}
"""Modules by the code that makes them."""


@cure
def replace_end(path: str, code: str, fused: bool = False) -> tuple[str, Action]:
    """Another activation at the end of a model, which is the one that its loss function asks for."""

    def action(patient: Patient) -> None:
        if fused:
            layer: Any = patient.model.get_submodule(path)
            layer.activation = None
            put(patient.model, path, nn.Sequential(layer, ENDINGS[code]()))
        else:
            put(patient.model, path, ENDINGS[code]())

    at = expression(path)
    if fused:
        return f"{at}.activation = None\n{at} = nn.Sequential({at}, {code})  # which the loss function asks for", action
    return f"{at} = {code}  # which the loss function asks for", action


@cure
def append_end(code: str) -> tuple[str, Action]:
    """An activation after the model, which its loss function asks for."""

    def action(patient: Patient) -> None:
        patient.model = nn.Sequential(patient.model, ENDINGS[code]()).train(patient.model.training)

    return f"model = nn.Sequential(model, {code})  # the loss function takes what this gives", action


@cure
def same_shape(loss_fn: Callable[[Any, Any], Tensor], shape: tuple[int, ...]) -> tuple[str, Action]:
    """Targets in the shape of the outputs, of which ``shape`` is that of one sample."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn
        patient.loss_fn = lambda y, t: inner(y, t.reshape(y.shape))

    size = ", ".join(["len(t)", *map(str, shape)])
    return f"t = t.reshape({size})  # one target for each output, in the shape of the outputs", action


@cure
def one_by_one(loss_fn: Callable[[Any, Any], Tensor], summed: bool = False) -> tuple[str, Action]:
    """The mean, or sum, of the losses of each output with its own target, as batches of one."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn

        def each(y: Tensor, t: Tensor) -> Tensor:
            losses: Tensor = vmap(inner)(y[:, None], t[:, None])
            together: Tensor = losses.sum() if summed else losses.mean()
            return together

        patient.loss_fn = each

    together = "sum" if summed else "mean"
    return (
        "own = loss_fn  # better: reshape within it, so that what is subtracted has one shape\n"
        f"loss_fn = lambda y, t: kobai.func.vmap(own)(y[:, None], t[:, None]).{together}()  # each output with its target"
    ), action


@cure
def targets_within(loss_fn: Callable[[Any, Any], Tensor], low: float, high: float) -> tuple[str, Action]:
    """Targets from 0 to 1 in place of those from ``low`` to ``high``."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn
        patient.loss_fn = lambda y, t: inner(y, (t - low) / (high - low))

    return f"t = (t - {low:g}) / {high - low:g}  # from 0 to 1, as a probability is", action


@cure
def targets_on_two_sides(loss_fn: Callable[[Any, Any], Tensor]) -> tuple[str, Action]:
    """Targets of −1 and 1 in place of 0 and 1."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn
        patient.loss_fn = lambda y, t: inner(y, 2 * t - 1)

    return "t = 2 * t - 1  # from −1 to 1, the two sides of a margin", action


@cure
def probabilities(loss_fn: Callable[[Any, Any], Tensor]) -> tuple[str, Action]:
    """Probabilities for the loss function, of scores."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn
        patient.loss_fn = lambda y, t: inner(y.sigmoid(), t)

    return "own = loss_fn\nloss_fn = lambda y, t: own(y.sigmoid(), t)  # or end the model in nn.Sigmoid()", action


@cure
def logarithms(loss_fn: Callable[[Any, Any], Tensor], shares: bool, dim: int = 1) -> tuple[str, Action]:
    """Log-probabilities for the loss function: of probabilities, ``shares``, or of scores along ``dim``."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn
        patient.loss_fn = lambda y, t: inner(y.clamp(min=1e-12).log() if shares else y.log_softmax(dim), t)

    taken = "y.clamp(min=1e-12).log()" if shares else f"y.log_softmax({dim})"
    return (
        f"own = loss_fn\nloss_fn = lambda y, t: own({taken}, t)  # or end the model in nn.LogSoftmax(dim={dim})",
        action,
    )


@cure
def turned(loss_fn: Callable[[Any, Any], Tensor]) -> tuple[str, Action]:
    """The loss with the other sign."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn
        patient.loss_fn = lambda y, t: -inner(y, t)

    return "own = loss_fn\nloss_fn = lambda y, t: -own(y, t)  # what is to become small", action


@cure
def set_loss(name: str) -> tuple[str, Action]:
    """Another loss function."""

    def action(patient: Patient) -> None:
        patient.loss_fn = getattr(nn.functional, name)

    return f"loss_fn = nn.functional.{name}", action


@cure
def shrink(name: str, part: float) -> tuple[str, Action]:
    """A weight with a part of its size."""
    path, _, last = name.rpartition(".")

    def action(patient: Patient) -> None:
        with no_grad():
            for inner, parameter in patient.model.get_submodule(path).named_parameters():
                if inner.rpartition(".")[2] == last:  # another cure may have put the layer into a Sequential
                    parameter.mul_(part)

    return f"with kobai.no_grad():\n    {expression(path)}.{last}.mul_({part:g})  # before training begins", action
