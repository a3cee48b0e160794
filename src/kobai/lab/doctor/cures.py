"""Cures: each is a line or two of code for the reader, and the same as an action on a patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn import init as initialisers
from kobai.optim import Optimizer
from kobai.optim.groups import learning_rate, set_learning_rate
from kobai.train.models import ACTIVATIONS

_RENEWED = "optimizer = type(optimizer)(model.parameters(), **optimizer.defaults)  # for the new parameters"


@dataclass
class Patient:
    """What a cure may change: all of it a copy of the user's."""

    model: nn.Module
    optimizer: Optimizer
    clip_grad_norm: float | None = None


class Cure:
    """``code`` says what to write, :meth:`apply` does it to a :class:`Patient`.

    The code runs when it is pasted. Its names are ``kobai``, ``nn`` and ``F`` (``kobai.nn.functional``), ``model``,
    ``optimizer``, ``x`` and ``t`` (inputs and targets, of the training data or of a batch) and ``data`` (the data set).
    """

    @property
    def code(self) -> str:
        """The cure as code for the reader's own program."""
        raise NotImplementedError

    @property
    def applicable(self) -> bool:
        """Whether :meth:`apply` can do it; else it needs the reader."""
        return True

    def apply(self, patient: Patient) -> None:
        """Do it, in place."""
        raise NotImplementedError


def expression(path: str) -> str:
    """The module at ``path``, as a program writes it.

    >>> expression("features.0.conv"), expression("")
    ('model.features[0].conv', 'model')
    """
    return "model" + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in path.split(".") if part)


@dataclass(frozen=True)
class Reinitialise(Cure):
    """Draw the weights of layers anew, each with the scheme that fits the activation after it; biases start at 0."""

    schemes: tuple[tuple[str, str], ...]
    """(layer, name of an initialiser)."""
    several: frozenset[str] = frozenset()
    """Layers with several weights, whose names are not ``weight``: recurrent ones, attention."""

    @property
    def code(self) -> str:
        groups: dict[str, list[str]] = {}
        for path, scheme in self.schemes:
            if path not in self.several:
                groups.setdefault(scheme, []).append(expression(path))
        lines = []
        for scheme, layers in groups.items():
            lines.append(f"for layer in ({', '.join(layers)},):")
            lines.append(f'    nn.init.by_name("{scheme}")(layer.weight)')
            lines.append("    if layer.bias is not None:")
            lines.append("        nn.init.zeros_(layer.bias)")
        for path, scheme in self.schemes:
            if path in self.several:
                lines.append(f"for parameter in {expression(path)}.parameters(recurse=False):")
                lines.append(
                    f'    nn.init.by_name("{scheme}")(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)'
                )
        return "\n".join(lines)

    def apply(self, patient: Patient) -> None:
        for path, scheme in self.schemes:
            module = patient.model.get_submodule(path)
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.ndim >= 2:
                    initialisers.by_name(scheme)(parameter)
                elif "bias" in name:
                    initialisers.zeros_(parameter)
        patient.optimizer.state.clear()


@dataclass(frozen=True)
class ReplaceActivation(Cure):
    """Another activation in some layers, and weights that fit it.

    ``paths`` are layers; ``functions`` the names of activations that are called in the model's ``forward``, where only the
    reader can replace them.
    """

    paths: tuple[str, ...]
    activation: str
    reinitialise: Reinitialise
    functions: tuple[str, ...] = ()

    @property
    def applicable(self) -> bool:
        return not self.functions

    @property
    def code(self) -> str:
        name = ACTIVATIONS[self.activation].__name__
        fused = [path for path in self.paths if path in dict(self.reinitialise.schemes)]
        lines = [f"# in forward(), write F.{self.activation} in place of {function}" for function in self.functions]
        lines += [f'{expression(path)}.activation = "{self.activation}"' for path in fused]
        numbers = [path for path in self.paths if path not in fused and path.isdecimal()]
        if len(numbers) > 1:
            lines += [f"for i in ({', '.join(numbers)}):", f"    model[i] = nn.{name}()"]
        else:
            numbers = []
        rest = [path for path in self.paths if path not in fused and path not in numbers]
        lines += [f"{expression(path)} = nn.{name}()" for path in rest]
        return "\n".join([*lines, self.reinitialise.code])

    def apply(self, patient: Patient) -> None:
        if self.functions:
            raise ValueError(
                f"treat: {', '.join(self.functions)} is called in the model's forward(), which only you can change"
            )
        for path in self.paths:
            module = patient.model.get_submodule(path)
            if isinstance(module, nn.Linear):  # its activation is part of it
                module.activation = self.activation
            else:
                _put(patient.model, path, ACTIVATIONS[self.activation]())
        self.reinitialise.apply(patient)
        _renew(patient)


@dataclass(frozen=True)
class RemoveActivation(Cure):
    """Nothing in the place of the last activation, ``fused`` into a dense layer or not: the loss function applies it itself."""

    path: str
    activation: str
    fused: bool = False

    @property
    def code(self) -> str:
        place, nothing = (".activation", "None") if self.fused else ("", "nn.Identity()")
        return f"{expression(self.path)}{place} = {nothing}  # no {self.activation}: the loss function takes scores"

    def apply(self, patient: Patient) -> None:
        if self.fused:
            layer: Any = patient.model.get_submodule(self.path)
            layer.activation = None
        else:
            _put(patient.model, self.path, nn.Identity())


@dataclass(frozen=True)
class Normalise(Cure):
    """Normalisation after dense layers and convolutions, before their activations.

    Batch normalisation (Ioffe and Szegedy 2015); for what is dense over a sequence, layer normalisation (Ba et al. 2016).
    """

    layers: tuple[tuple[str, str, int], ...]
    """(layer, class of the normalisation, units of the layer)."""

    @property
    def code(self) -> str:
        lines = [
            f"{expression(path)} = nn.Sequential({expression(path)}, nn.{kind}({units}))"
            for path, kind, units in self.layers
        ]
        return "\n".join([*lines, _RENEWED])

    def apply(self, patient: Patient) -> None:
        for path, kind, units in self.layers:
            layer = patient.model.get_submodule(path)
            norm, parameter = getattr(nn, kind)(units), next(layer.parameters())
            _put(patient.model, path, nn.Sequential(layer, norm.to(parameter.device, parameter.dtype)))
        _renew(patient)


@dataclass(frozen=True)
class ScaleRate(Cure):
    """Another learning rate, by a factor."""

    factor: float
    before: float

    @property
    def code(self) -> str:
        after = f"# {self.before:.2g} becomes {self.before * self.factor:.2g}"
        return f'for group in optimizer.param_groups:\n    group["lr"] *= {self.factor:.2g}  {after}'

    def apply(self, patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            set_learning_rate(group, learning_rate(group) * self.factor)


@dataclass(frozen=True)
class SetRate(Cure):
    """A learning rate in place of 0."""

    rate: float
    before: float

    @property
    def code(self) -> str:
        return f'for group in optimizer.param_groups:\n    group["lr"] = {self.rate:g}  # in place of {self.before:g}'

    def apply(self, patient: Patient) -> None:
        for group in patient.optimizer.param_groups:
            set_learning_rate(group, self.rate)


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


@dataclass(frozen=True)
class StandardiseInputs(Cure):
    """Inputs of mean 0 and standard deviation 1, feature by feature; a feature that is constant only loses its mean."""

    shift: Tensor
    scale: Tensor

    @property
    def code(self) -> str:
        return (
            "shift, scale = x.mean(0), x.std(0)  # of the training data\n"
            "scale = scale.clamp(min=0.1 * scale[scale > 0].median().item())  # noise is not blown up\n"
            "x = (x - shift) / scale  # in training and afterwards, with the same two"
        )

    def apply(self, patient: Patient) -> None:
        patient.model = nn.Sequential(Standardise(self.shift, self.scale), patient.model).train(patient.model.training)

    @staticmethod
    def of(x: Tensor) -> StandardiseInputs:
        """Measured on a batch. A feature that hardly varies is widened no more than ten times as much as the typical one."""
        with no_grad():
            spread = x.std(0)
            typical = spread[spread > 0].median().item()
            return StandardiseInputs(x.mean(0), spread.clamp(min=0.1 * typical))


@dataclass(frozen=True)
class ClipGradients(Cure):
    """A greatest norm for the gradient of all parameters together (Pascanu, Mikolov and Bengio 2013)."""

    norm: float = 1.0

    @property
    def code(self) -> str:
        return (
            f"nn.utils.clip_grad_norm_(model.parameters(), {self.norm:g})  # after backward(), before step()\n"
            f"# or: Trainer(..., clip_grad_norm={self.norm:g})"
        )

    def apply(self, patient: Patient) -> None:
        patient.clip_grad_norm = self.norm


@dataclass(frozen=True)
class Orthogonal(Cure):
    """Recurrent weights that keep the size of what they multiply (Saxe, McClelland and Ganguli 2014)."""

    layers: tuple[str, ...]

    @property
    def code(self) -> str:
        return "\n".join(
            f"for name, weight in {expression(path)}.named_parameters():\n"
            f'    if name.startswith("weight_hh"):\n'
            f"        nn.init.orthogonal_(weight)"
            for path in self.layers
        )

    def apply(self, patient: Patient) -> None:
        for path in self.layers:
            for name, parameter in patient.model.get_submodule(path).named_parameters():
                if name.startswith("weight_hh"):
                    initialisers.orthogonal_(parameter)
        patient.optimizer.state.clear()


@dataclass(frozen=True)
class Unfreeze(Cure):
    """All parameters are trained again."""

    @property
    def code(self) -> str:
        return "model.requires_grad_(True)"

    def apply(self, patient: Patient) -> None:
        patient.model.requires_grad_(True)


@dataclass(frozen=True)
class Advice(Cure):
    """What only the reader can do, such as looking at the data: nothing here can be applied."""

    text: str

    @property
    def applicable(self) -> bool:
        return False

    @property
    def code(self) -> str:
        return self.text

    def apply(self, patient: Patient) -> None:
        raise ValueError("treat: this cure is advice about the data or the program; it cannot be applied to a model")


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module.train(model.training)


def _renew(patient: Patient) -> None:
    """The optimiser forgets its state, and trains the parameters that are new."""
    groups = patient.optimizer.param_groups
    present = {id(parameter): parameter for parameter in patient.model.parameters()}
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in present]
    known = {id(parameter) for group in groups for parameter in group["params"]}
    groups[0]["params"] += [p for key, p in present.items() if key not in known and p.requires_grad]
    patient.optimizer.state.clear()
