"""What the rules look at: observed steps of a net, their batch, and the net's layers in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from kobai import nn, ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor import cures
from kobai.lab.doctor.cures import Cure, Standardise
from kobai.lab.doctor.rules.ends import STEPS, End, untouched
from kobai.lab.doctor.trials import Course, Trials, awhile
from kobai.lab.probe.readings import LayerStats, Reading, WeightStats
from kobai.nn.batchnorm import _NormBase
from kobai.nn.init import _calculate_fan_in_and_fan_out
from kobai.optim import ASGD, SGD, Optimizer
from kobai.train.activations import matching_init
from kobai.xp import to_host

if TYPE_CHECKING:
    from kobai.lab.doctor.ledger import Ledger
    from kobai.lab.doctor.plan import Plan

STANDARDISERS = (Standardise, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMALISERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
LEARNT = 0.5
"""Loss over that of the best constant output, below which a net evidently trains, whatever it looks like."""
PLAIN = (SGD, ASGD)
"""Optimisers whose step is proportional to the gradient. All others divide by its size in some way."""


@dataclass(frozen=True)
class Stage:
    """A weight and all layers up to the next weight. The stage's output is that of its last activation, if it has one."""

    weight: WeightStats
    layer: str
    output: LayerStats
    normalised: bool


def stages(reading: Reading, model: nn.Module) -> list[Stage]:
    """The layers of a reading, grouped by the weights of dense layers and convolutions.

    A layer inside a residual block does not belong to a weight before the block, whose output bypasses it.
    """
    modules = dict(model.named_modules())
    blocks = [layer.name for layer in reading.layers if layer.block]

    def around(name: str) -> set[str]:
        return {block for block in blocks if name.startswith(f"{block}.")}

    weights = {weight.layer: weight for weight in reading.weights}
    groups: list[list[LayerStats]] = []
    for layer in reading.layers:
        if layer.block:
            continue
        if layer.name in weights and not isinstance(modules[layer.name], nn.Embedding):
            groups.append([layer])
        elif groups and around(layer.name) <= around(groups[-1][0].name):
            groups[-1].append(layer)
    found = []
    for group in groups:
        acting = [layer for layer in group if layer.activation is not None]
        normalised = any(isinstance(modules.get(layer.name), NORMALISERS) for layer in group)
        found.append(Stage(weights[group[0].name], group[0].name, (acting or group)[-1], normalised))
    return found


def _sums_to_one(rows: Tensor) -> bool:
    return bool(((rows >= 0).all() & ((rows.sum(1) - 1).abs() < 1e-3).all()).item())


@dataclass(frozen=True)
class View:
    """What was seen of a net in training. The same rules judge views of ``diagnose`` and of ``Doctor``.

    Attributes:
        model: the net; its weights may have changed since the readings.
        readings: of one or more steps on one batch; the net's state is judged by the first.
        inputs, target: the batch.
        loss_fn: ``loss_fn(output, target)``.
        losses: of those steps, and of further ones on the same batch.
        broken: names of parameters that were not finite before the first step, if that was looked at.
        twins: for each layer the share of its units that have a twin, see :func:`kobai.lab.doctor.rules.units.twins`.
        optimizer: the user's own, or None.
        clipped: whether the norm of the gradient is clipped before it is used.
        ending: the activation that the model ends with, by the tape of its outputs, if that was looked at.
        settling: whether small steps may be intended, by a schedule or late in training.
        refused: scores per sample, where the loss function refused the labels of the first step.
        output: what it refused.
        trials: trainings of copies with one thing changed; None where there is no time for any.
        samples, validation: batches of training samples, beside the batch, and of validation samples, if there are any.
        first: of the training's first step, where the readings are of a later one.
        history, epochs: records of the epochs done, as a Trainer keeps them, and how many there will be.
        plan: the schedule of a training, and how long it will be, where that is known.
        precision: what the steps compute in.
        live: whether the model is in training, and not a copy: it is run on a few outputs only.
        ledger: who takes part in training, if that was looked at.
        scale: by which the loss of the first step was multiplied before backward, and so all gradients of its reading.
    """

    model: nn.Module
    readings: Sequence[Reading]
    inputs: Sequence[Any]
    target: Any
    loss_fn: Callable[[Any, Any], Any]
    losses: Sequence[float] = ()
    twins: Mapping[str, float] = field(default_factory=dict)
    optimizer: Optimizer | None = None
    clipped: bool = False
    settling: bool = False
    broken: Sequence[str] = ()
    ending: str | None = None
    refused: int | None = None
    output: Any = None
    scale: float = 1.0
    precision: str = "fp32"
    live: bool = False
    trials: Trials | None = None
    ledger: Ledger | None = None
    samples: Sequence[Any] = ()
    validation: Sequence[Any] = ()
    history: Sequence[Mapping[str, Any]] = ()
    epochs: int = 0
    first: Reading | None = None
    plan: Plan | None = None

    @property
    def seen(self) -> Sequence[Any]:
        """Batches of training samples, as many as are at hand."""
        data = self.trials.case.data if self.trials is not None else ()
        return self.samples or data or [(*self.inputs, self.target)]

    @property
    def single(self) -> bool:
        """Whether the batch is one sample, with which no other can be compared."""
        return bool(self.inputs) and isinstance(self.inputs[0], Tensor) and len(self.inputs[0]) == 1

    @property
    def whole_numbers(self) -> bool:
        """Whether the inputs are whole numbers, such as those of words, which have no mean and no distance."""
        return not self.inputs or not isinstance(self.inputs[0], Tensor) or not self.inputs[0].is_floating_point()

    @property
    def reading(self) -> Reading:
        """The first step."""
        return self.readings[0]

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The net's modules by name."""
        return dict(self.model.named_modules())

    @cached_property
    def stages(self) -> list[Stage]:
        """The net's stages, in order of computation."""
        return stages(self.reading, self.model)

    @property
    def hidden(self) -> list[Stage]:
        """All stages but the last, which gives the model's output."""
        return self.stages[:-1]

    @property
    def rate(self) -> float | None:
        """The learning rate, if there is an optimiser."""
        return None if self.optimizer is None else float(self.optimizer.param_groups[0]["lr"])

    @property
    def plain(self) -> bool:
        """Whether steps are proportional to the gradient. Gradient descent stands in for a missing optimiser."""
        return self.optimizer is None or isinstance(self.optimizer, PLAIN)

    @property
    def classes(self) -> int | None:
        """Scores per sample, if the targets are labels: integers, one for each sample."""
        if not isinstance(self.target, Tensor) or self.target.is_floating_point() or self.target.ndim != 1:
            return None
        output = self.reading.layers[-1].output if self.reading.layers else None
        return output.size // output.samples if output is not None and output.samples == len(self.target) else None

    @cached_property
    def spreads(self) -> list[tuple[float, np.ndarray[Any, Any]]]:
        """For each input: the root mean square of all numbers, and the standard deviation of each feature over the batch."""
        found = []
        with no_grad():
            for x in self.inputs:
                if isinstance(x, Tensor) and x.numel():
                    flat = x.detach().reshape(x.shape[0], -1).double()
                    variance, mean = (to_host(part.array) for part in ops.var_mean(flat, 0, correction=0))
                    found.append((float(np.sqrt((variance + mean**2).mean())), np.sqrt(variance)))
        return found

    @cached_property
    def chance(self) -> float | None:
        """What it costs to know nothing: the least positive loss of a constant output.

        None for targets and losses that take none of the outputs of :meth:`guesses`.
        """
        return min((loss for loss in self.guesses([self.target]) if loss > 0), default=None)

    def guesses(self, targets: Sequence[Any]) -> list[float]:
        """Mean losses, if finite, of constant outputs over batches of targets.

        For labels the output is the logarithm of the classes' shares; for numbers 0, their mean, and its logit if they are from
        0 to 1.
        """
        losses = []
        with no_grad():
            for output in self._constants(targets):
                each = [self.cost(output.expand(len(t), *output.shape[1:]), t) for t in targets]
                losses.append(sum(each) / len(each))
        return [loss for loss in losses if math.isfinite(loss)]

    def cost(self, output: Tensor, target: Any) -> float:
        """The loss of an output; NaN if the user's function refuses what their net would not give."""
        with no_grad():
            try:
                return float(self.loss_fn(output, target).item())
            except Exception:
                return math.nan

    @property
    def binary(self) -> bool:
        """Whether all targets are 0.0 or 1.0."""
        t = self.target
        return isinstance(t, Tensor) and t.is_floating_point() and bool(((t == 0) | (t == 1)).all().item())

    def _constants(self, targets: Sequence[Any]) -> Iterator[Tensor]:
        """The constant outputs, as batches of one sample."""
        t, layers = self.target, self.reading.layers
        if not isinstance(t, Tensor) or not layers:
            return
        like = next(self.model.parameters())
        if self.classes is not None:
            labels = np.concatenate([to_host(part.array) for part in targets])
            counts = np.bincount(labels[(labels >= 0) & (labels < self.classes)], minlength=self.classes) + 1
            if np.count_nonzero(counts > 1) == 1:
                counts[:] = 1  # to know the one answer, as that the first score is to be the highest, is no guess
            yield ops.from_numpy(np.log(counts / counts.sum())).to(like.device, like.dtype).reshape(1, -1)
        elif t.is_floating_point() and t.numel() == layers[-1].output.size:
            every = targets[0] if len(targets) == 1 else ops.cat(list(targets))
            mean = every.mean(0, keepdim=True)
            if self._says_logarithms(every):
                yield mean.clamp(min=1e-6).log()
                return
            yield ops.zeros_like(mean)
            yield mean
            if bool(((every >= 0) & (every <= 1)).all().item()):
                inside = mean.clamp(1e-3, 1 - 1e-3)
                yield (inside / (1 - inside)).log()

    def _says_logarithms(self, rows: Tensor) -> bool:
        """Whether targets are probabilities of classes, and outputs the logarithms of such.

        What the net's end cannot give is no guess then: a likelihood falls without bound beyond log-probabilities.
        """
        if rows.ndim != 2 or rows.shape[1] < 2 or not _sums_to_one(rows):
            return False
        with untouched(self.model):
            outputs = self.end.parts[0] if self.end is not None else rows
        return outputs.ndim == 2 and _sums_to_one(outputs.exp())

    @property
    def learnt(self) -> bool:
        """Whether the loss is far below that of knowing nothing: then the net trains, whatever its layers look like."""
        return bool(self.losses) and self.chance is not None and self.losses[0] < LEARNT * self.chance

    @cached_property
    def copy(self) -> Course | None:
        """A copy after a trial, or else after AWHILE steps on the batch; None where nothing is trained."""
        if self.ledger is None or self.live:
            return None
        if self.trials is not None:
            return self.trials.course()
        return awhile(self.ledger.case)

    @cached_property
    def left(self) -> float:
        """Part of the loss of guessing that is left to a :attr:`copy`; NaN where that is not known."""
        return math.nan if self.chance is None or self.copy is None else self.copy.end / self.chance

    @cached_property
    def end(self) -> End | None:
        """What follows the last layer with weights, if that gives a tensor; to be used within :func:`ends.untouched`."""
        if not self.stages or not self.inputs or not isinstance(self.target, Tensor):
            return None
        last = self.stages[-1].layer
        own = {id(parameter) for parameter in self.modules[last].parameters()}
        still = {t.name for t in self.ledger.trainees if not t.wanted} if self.ledger is not None else set()
        named = self.model.named_parameters()
        after = [name for name, parameter in named if id(parameter) not in own and name not in still]
        steps = 0 if self.live else STEPS
        given = self.model, last, after, self.inputs, self.target, self.loss_fn, steps, self.precision
        try:
            end = End(*given)
            end.cost(end.parts)
        except Exception:  # samples that are related, as in a graph, cannot be parted
            end = End(*given, samples=len(self.inputs[0]))
        return end if end.usable else None

    @cached_property
    def prepared(self) -> bool:
        """Whether the inputs are standardised before the first weight sees them."""
        first = self.stages[0].layer if self.stages else ""
        names = [layer.name for layer in self.reading.layers]
        before = names[: names.index(first)] if first in names else []
        return any(isinstance(self.modules.get(name), STANDARDISERS) for name in before)

    @cached_property
    def trunk(self) -> list[LayerStats]:
        """Outputs from the input to the head, in order; stages inside a residual block are replaced by the block's output."""
        blocks = [layer for layer in self.reading.layers if layer.block]
        found: dict[str, LayerStats] = {}
        for stage in self.stages:
            around = [block for block in blocks if stage.layer.startswith(f"{block.name}.")]
            output = min(around, key=lambda block: len(block.name)) if around else stage.output
            found[output.name] = output
        return list(found.values())[:-1]

    @cached_property
    def passed(self) -> list[tuple[float, float, LayerStats]]:
        """How much of the signal s₀ each hidden stage passes on: sᵢ / s₀, the same per layer, (sᵢ / s₀)^(1/i), and the stage's
        output. The signal is what differs from sample to sample.

        s₀ is that of the inputs, at most 1, so that scaling inputs down is no fault; if they have none, that of the first
        stage. The i-th stage lies i layers deep, more if a layer is called several times.
        """
        start, stages = self._source
        ratios = [(layer.output.signal / start, depth, layer) for layer, depth in stages]
        return [(ratio, ratio ** (1 / depth), layer) for ratio, depth, layer in ratios]

    @property
    def said(self) -> float:
        """How much of the signal s₀ the last layer passes on."""
        start, _ = self._source
        return self.stages[-1].output.output.signal / start if self.stages else 0.0

    @property
    def _source(self) -> tuple[float, list[tuple[LayerStats, int]]]:
        """The signal s₀, and the outputs of the trunk that come after it, with their depths; none if there is no signal."""
        first, stages = self.reading.input, list(zip(self.trunk, self.depths, strict=True))
        if first is not None and first.signal > 0:
            return min(1.0, first.signal), stages
        start = stages.pop(0)[0].output.signal if stages else 0.0
        return (start, stages) if start > 0 else (1.0, [])

    @cached_property
    def depths(self) -> list[int]:
        """The depth of each output of the trunk in layers; a layer counts as often as it is called."""
        calls = {layer.name: layer.calls for layer in self.reading.layers}
        return list(accumulate(calls[layer.name] for layer in self.trunk))

    # --- weights that fit, and cures that several rules share

    def scheme(self, i: int) -> str:
        """The initialiser that fits the activation after the i-th weight."""
        activation = self.stages[i].output.activation
        return "lecun" if activation is None else matching_init(activation)

    def gain(self, i: int) -> float:
        """Size of the i-th stage's weights over that of weights that fit, whose variance is

        2/fan_in for rectifiers (He), 2/(fan_in + fan_out) for sigmoid and tanh (Glorot), 1/fan_in else (LeCun).
        """
        weight = self.stages[i].weight
        fan_in, fan_out = _calculate_fan_in_and_fan_out(self.model.get_parameter(weight.name))
        scheme = self.scheme(i)
        fitting = 2 / fan_in if scheme == "he" else 1 / fan_in if scheme == "lecun" else 2 / (fan_in + fan_out)
        return weight.value.rms / math.sqrt(fitting)

    def reinitialise(self) -> Cure:
        """New weights for all layers, by the scheme that fits."""
        return cures.reinitialise({stage.layer: self.scheme(i) for i, stage in enumerate(self.stages)}, self._several)

    def rectify(self) -> Cure:
        """ReLU for every hidden activation."""
        acting = {stage.output.name: stage.output.activation for stage in self.hidden if stage.output.activation}
        if not acting:
            return self.normalise()
        paths = [name for name in acting if name in self.modules]
        called = sorted({kind for name, kind in acting.items() if name not in self.modules})
        schemes = {stage.layer: "he" for stage in self.hidden} | {self.stages[-1].layer: "lecun"}
        return cures.rectify(paths, called, schemes, self._several)

    @property
    def _several(self) -> list[str]:
        """Layers with several weights, none of which is called ``weight``."""
        return [stage.layer for stage in self.stages if stage.weight.name.rpartition(".")[2] != "weight"]

    def normalise(self) -> Cure:
        """Normalisation after every hidden layer that has none."""
        outputs = {layer.name: layer.output for layer in self.reading.layers}
        layers = []
        for stage in self.hidden:
            module: Any = self.model.get_submodule(stage.layer)
            fused = getattr(module, "activation", None)
            units = getattr(module, "out_features", getattr(module, "out_channels", None))
            if stage.normalised or fused is not None or units is None:
                continue
            output = outputs[stage.layer]
            # A dense layer over a sequence has units last, and is normalised as in a transformer.
            several = isinstance(module, nn.Linear) and output.size > output.samples * units
            kind = "LayerNorm" if several else f"BatchNorm{max(1, module.weight.ndim - 2)}d"
            layers.append((stage.layer, kind, int(units)))
        return cures.normalise(layers) if layers else self.reinitialise()
