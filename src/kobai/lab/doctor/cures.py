"""Cures: each function returns a line or two of code for the reader, and an action that does the same to a patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, ParamSpec, TypeAlias

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn import init as initialisers
from kobai.optim import Optimizer
from kobai.optim.groups import learning_rate, set_learning_rate

RENEWED = "optimizer = type(optimizer)(model.parameters(), **optimizer.defaults)  # for the new parameters"


@dataclass
class Patient:
    """What a cure may change: copies of the user's objects."""

    model: nn.Module
    optimizer: Optimizer
    clip_grad_norm: float | None = None
    loss_fn: Callable[[Any, Any], Tensor] | None = None
    """In place of the user's own."""


Action: TypeAlias = Callable[[Patient], None]
P = ParamSpec("P")


@dataclass(frozen=True)
class Cure:
    """``code`` for the reader's program; :meth:`apply` does the same to a :class:`Patient`.

    The code runs as pasted. Its names are ``kobai``, ``nn`` and ``F`` (``kobai.nn.functional``), ``model``,
    ``optimizer``, ``x`` and ``t`` (inputs and targets, of the training data or of a batch) and ``data`` (the data set).
    A cure without an action is advice that only the reader can follow.
    """

    code: str
    action: Action | None = field(default=None, compare=False, repr=False)
    name: str = "advice"
    """The name in :data:`CURES` of the function that made it."""

    @property
    def applicable(self) -> bool:
        """Whether :meth:`apply` works; else it is up to the reader."""
        return self.action is not None

    def apply(self, patient: Patient) -> None:
        """Treat the patient, in place."""
        if self.action is None:
            raise ValueError(
                f"treat: this cure is about the data or the program, which only you can change:\n{self.code}"
            )
        self.action(patient)


CURES: dict[str, Callable[..., Cure]] = {}
"""All cures that can be applied. The tests ask of each that its code and its action do the same."""


def cure(function: Callable[P, tuple[str, Action | None]]) -> Callable[P, Cure]:
    """Make a function that returns code and action return a :class:`Cure`, and register it."""

    @wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> Cure:
        return Cure(*function(*args, **kwargs), function.__name__)

    CURES[function.__name__] = made
    return made


def expression(path: str) -> str:
    """The module at ``path``, as a program writes it.

    >>> expression("features.0.conv"), expression("")
    ('model.features[0].conv', 'model')
    """
    return "model" + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in path.split(".") if part)


@cure
def reinitialise(schemes: Mapping[str, str], several: Sequence[str] = ()) -> tuple[str, Action]:
    """Draw new weights, with the scheme that fits the activation after each layer; biases start at 0.

    ``schemes``: the initialiser for each layer. ``several``: layers with several weights, whose names are not ``weight``:
    recurrent ones, attention.
    """
    groups: dict[str, list[str]] = {}
    for path, scheme in schemes.items():
        if path not in several:
            groups.setdefault(scheme, []).append(expression(path))
    lines = []
    for scheme, layers in groups.items():
        lines.append(f"for layer in [{', '.join(layers)}]:")
        lines.append(f'    nn.init.by_name("{scheme}")(layer.weight)')
        lines.append("    if layer.bias is not None:")
        lines.append("        nn.init.zeros_(layer.bias)")
    for path in several:
        lines.append(f"for parameter in {expression(path)}.parameters(recurse=False):")
        drawn = f'nn.init.by_name("{schemes[path]}")(parameter)'
        lines.append(f"    {drawn} if parameter.ndim > 1 else nn.init.zeros_(parameter)")

    def action(patient: Patient) -> None:
        for path, scheme in schemes.items():
            for name, parameter in patient.model.get_submodule(path).named_parameters(recurse=False):
                if parameter.ndim >= 2:
                    initialisers.by_name(scheme)(parameter)
                elif "bias" in name:
                    initialisers.zeros_(parameter)
        patient.optimizer.state.clear()

    return "\n".join(lines), action


@cure
def rectify(
    paths: Sequence[str], functions: Sequence[str], schemes: Mapping[str, str], several: Sequence[str] = ()
) -> tuple[str, Action | None]:
    """ReLU instead of the activations at ``paths``, and new weights, see :func:`reinitialise`.

    ``functions``: names of activations called in the model's ``forward``, where only the reader can replace them.
    """
    redraw = reinitialise(schemes, several)
    fused = [path for path in paths if path in schemes]
    modules = [path for path in paths if path not in schemes]
    numbers = [path for path in modules if path.isdecimal()]
    lines = [f"# in forward(), write F.relu in place of {function}" for function in functions]
    lines += [f'{expression(path)}.activation = "relu"' for path in fused]
    if len(numbers) > 1:
        lines += [f"for i in ({', '.join(numbers)}):", "    model[i] = nn.ReLU()"]
        modules = [path for path in modules if path not in numbers]
    lines += [f"{expression(path)} = nn.ReLU()" for path in modules]

    def action(patient: Patient) -> None:
        for path in paths:
            module = patient.model.get_submodule(path)
            if isinstance(module, nn.Linear):  # its activation is part of it
                module.activation = "relu"
            else:
                put(patient.model, path, nn.ReLU())
        redraw.apply(patient)
        renew(patient)

    return "\n".join([*lines, redraw.code]), None if functions else action


@cure
def remove_activation(path: str, activation: str, fused: bool = False) -> tuple[str, Action]:
    """No last activation, ``fused`` into a dense layer or not: the loss function applies its own, or targets lie beyond."""

    def action(patient: Patient) -> None:
        if fused:
            layer: Any = patient.model.get_submodule(path)
            layer.activation = None
        else:
            put(patient.model, path, nn.Identity())

    place, nothing = (".activation", "None") if fused else ("", "nn.Identity()")
    return f"{expression(path)}{place} = {nothing}  # no {activation}, which bounds the outputs", action


@cure
def normalise(layers: Sequence[tuple[str, str, int]]) -> tuple[str, Action]:
    """Normalise between layers and their activations; ``layers``: (layer, class of the normalisation, units of the layer).

    Batch normalisation (Ioffe and Szegedy 2015); layer normalisation (Ba et al. 2016) for dense layers over a sequence.
    """

    def action(patient: Patient) -> None:
        for path, kind, units in layers:
            layer = patient.model.get_submodule(path)
            norm, parameter = getattr(nn, kind)(units), next(layer.parameters())
            put(patient.model, path, nn.Sequential(layer, norm.to(parameter.device, parameter.dtype)))
        renew(patient)

    written = [(expression(path), f"nn.{kind}({units})") for path, kind, units in layers]
    return "\n".join([*[f"{layer} = nn.Sequential({layer}, {norm})" for layer, norm in written], RENEWED]), action


@cure
def scale_rate(factor: float, before: float) -> tuple[str, Action]:
    """Multiply the learning rate by a factor."""

    def action(patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            set_learning_rate(group, learning_rate(group) * factor)

    after = f"# {before:.2g} becomes {before * factor:.2g}"
    return f'for group in optimizer.param_groups:\n    group["lr"] *= {factor:.2g}  {after}', action


@cure
def set_rate(rate: float, before: float) -> tuple[str, Action]:
    """A learning rate in place of 0."""

    def action(patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            set_learning_rate(group, rate)

    return f'for group in optimizer.param_groups:\n    group["lr"] = {rate:g}  # in place of {before:g}', action


class Standardise(nn.Module):
    """(x − shift) / scale with fixed numbers for each feature: inputs of mean 0 and standard deviation 1.

    >>> import kobai
    >>> Standardise(kobai.tensor([100.0]), kobai.tensor([50.0]))(kobai.tensor([[50.0], [150.0]]))
    tensor([[-1.],
            [ 1.]])
    """

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, input: Tensor) -> Any:
        """The same shape, standardised."""
        return (input - self.shift) / self.scale


@cure
def standardise_inputs(x: Tensor) -> tuple[str, Action]:
    """Inputs of mean 0 and standard deviation 1, feature by feature, measured on a batch.

    A constant feature only loses its mean; one that hardly varies is scaled up at most ten times as much as the typical one.
    """
    with no_grad():
        spread = x.std(0)
        typical = spread[spread > 0].median().item()
        shift, scale = x.mean(0), spread.clamp(min=0.1 * typical)

    def action(patient: Patient) -> None:
        patient.model = nn.Sequential(Standardise(shift, scale), patient.model).train(patient.model.training)

    return (
        "shift, scale = x.mean(0), x.std(0)  # of the training data\n"
        "scale = scale.clamp(min=0.1 * scale[scale > 0].median().item())  # noise is not blown up\n"
        "x = (x - shift) / scale  # in training and afterwards, with the same two"
    ), action


@cure
def clip_gradients(norm: float = 1.0) -> tuple[str, Action]:
    """Bound the norm of the gradient of all parameters together (Pascanu, Mikolov and Bengio 2013)."""

    def action(patient: Patient) -> None:
        patient.clip_grad_norm = norm

    return (
        f"nn.utils.clip_grad_norm_(model.parameters(), {norm:g})  # after backward(), before step()\n"
        f"# or: Trainer(..., clip_grad_norm={norm:g})"
    ), action


@cure
def orthogonal(layers: Sequence[str]) -> tuple[str, Action]:
    """Recurrent weights that preserve the norm of the state (Saxe, McClelland and Ganguli 2014)."""

    def action(patient: Patient) -> None:
        for path in layers:
            for name, parameter in patient.model.get_submodule(path).named_parameters():
                if name.startswith("weight_hh"):
                    initialisers.orthogonal_(parameter)
        patient.optimizer.state.clear()

    return "\n".join(
        f"for name, weight in {expression(path)}.named_parameters():\n"
        f'    if name.startswith("weight_hh"):\n'
        f"        nn.init.orthogonal_(weight)"
        for path in layers
    ), action


@cure
def unfreeze(paths: Sequence[str] = ("",)) -> tuple[str, Action]:
    """Train all parameters of these layers again."""

    def action(patient: Patient) -> None:
        for path in paths:
            patient.model.get_submodule(path).requires_grad_(True)

    return "\n".join(f"{expression(path)}.requires_grad_(True)" for path in paths), action


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module.train(model.training)


def renew(patient: Patient) -> None:
    """Clear the optimiser's state, and have it train the new parameters."""
    groups = patient.optimizer.param_groups
    present = {id(parameter): parameter for parameter in patient.model.parameters()}
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in present]
    known = {id(parameter) for group in groups for parameter in group["params"]}
    groups[0]["params"] += [p for key, p in present.items() if key not in known and p.requires_grad]
    patient.optimizer.state.clear()
