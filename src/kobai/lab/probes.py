"""Probes: what goes through every layer of a net, measured where it is, and read in one transfer.

Hooks write a few numbers for each layer – of its output, of the gradient that arrives there, of its weights, their gradient and
their update – into one buffer that stays where it is. All they do are operations on tensors, so that a step may be captured
(:func:`kobai.capture`) with a probe on it: a captured step keeps two programs, with the hooks and without, and a probe that is
off costs nothing, because its hooks are gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from kobai import nn, ops
from kobai._grad_mode import no_grad
from kobai._tensor import Tensor
from kobai.optim import Optimizer
from kobai.train.batches import device_of
from kobai.xp import to_host

SAMPLE = 1024
"""A histogram is drawn of at most so many values, evenly spaced in memory, which travel with the numbers: enough for its shape,
and far cheaper than counting on the device."""

FLAT = 0.05
"""An output is saturated where the activation's slope is below this share of its greatest slope."""

_FIELDS = ("samples", "size", "mean", "squares", "spread", "largest", "within", "saturated", "dead")
_PLACE = {name: i for i, name in enumerate(_FIELDS)}

Range: TypeAlias = tuple[float, float] | None


# --- what is known of activations ---------------------------------------------------------------------------------------

_KINDS: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Hardtanh: "hardtanh",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Softsign: "softsign",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.RReLU: "rrelu",
    nn.ELU: "elu",
    nn.CELU: "celu",
    nn.SELU: "selu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Softplus: "softplus",
}

RECTIFIERS = frozenset({"relu", "relu6"})
"""Activations whose units can die: exactly 0, with slope 0, on the whole side below 0."""

SQUASHING = frozenset({"sigmoid", "tanh", "hardtanh", "hardsigmoid", "softsign"})
"""Activations between two bounds, which saturate at both."""


def activation_of(module: nn.Module) -> str | None:
    """The activation that a module's output has gone through, by name; None if it has none.

    >>> activation_of(nn.Tanh()), activation_of(nn.Linear(2, 2, activation="relu")), activation_of(nn.Flatten())
    ('tanh', 'relu', None)
    """
    kind = _KINDS.get(type(module))
    if kind is None and isinstance(fused := getattr(module, "activation", None), str):
        return fused
    return kind


def _saturated(kind: str, module: nn.Module, y: Tensor) -> Any:
    """Where the slope, written as a function of the output, is below FLAT of its greatest value."""
    if kind == "sigmoid":  # slope y(1 − y), at most 1/4
        return (y - 0.5).abs() > 0.5 * math.sqrt(1 - FLAT)
    if kind == "tanh":  # 1 − y²
        return y.abs() > math.sqrt(1 - FLAT)
    if kind == "softsign":  # (1 − |y|)²
        return y.abs() > 1 - math.sqrt(FLAT)
    if kind == "hardsigmoid":
        return (y - 0.5).abs() >= 0.5
    if kind == "hardtanh":
        low, high = getattr(module, "min_val", -1.0), getattr(module, "max_val", 1.0)
        return (y - (low + high) / 2).abs() >= (high - low) / 2
    return None


# --- what a reading holds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Statistics of one tensor. What was not measured, or makes no sense for it, is NaN or None.

    Attributes:
        size: how many numbers it held; ``samples``: the length of its first dimension.
        mean, std, norm: of all its numbers; ``largest``: the greatest magnitude (inputs and outputs only).
        signal: root mean square of what differs from sample to sample, over the batch, unit by unit: what a layer still tells
            of its input. A layer's ``std`` may come from its biases alone, its ``signal`` cannot.
        saturated: share of outputs where the activation is flat.
        dead: share of a rectifier's units that are 0 for the whole batch.
        edges, counts: the histogram, if the probe has bins: ``len(counts) + 1`` edges, and counts of at most SAMPLE numbers.
    """

    size: int
    samples: int
    mean: float
    std: float
    norm: float
    largest: float = math.nan
    signal: float = math.nan
    saturated: float = math.nan
    dead: float = math.nan
    edges: tuple[float, ...] | None = None
    counts: tuple[int, ...] | None = None

    @property
    def finite(self) -> bool:
        """Whether all its numbers are; one that is not spoils the sum of squares."""
        return math.isfinite(self.norm)

    @property
    def rms(self) -> float:
        """Root of the mean square: the size of a typical number."""
        return self.norm / math.sqrt(self.size) if self.size else 0.0


@dataclass(frozen=True)
class LayerStats:
    """One layer, in the order of computation: its output, and the gradient of the loss there (None without backward)."""

    name: str
    kind: str
    activation: str | None
    output: Moments
    gradient: Moments | None
    block: bool = False
    """Whether it has layers of its own, and its output is not that of the last of them."""


@dataclass(frozen=True)
class WeightStats:
    """One weight (a parameter of two or more dimensions): its values, its gradient and what the optimiser changed."""

    name: str
    layer: str
    shape: tuple[int, ...]
    value: Moments
    gradient: Moments | None
    update: Moments | None

    @property
    def ratio(self) -> float:
        """Update-to-weight ratio ‖Δw‖ / ‖w‖; NaN where no update was seen, infinite for weights that are all 0."""
        if self.update is None:
            return math.nan
        return (
            self.update.norm / self.value.norm if self.value.norm > 0 else math.inf * (self.update.norm > 0 or math.nan)
        )


@dataclass(frozen=True)
class Reading:
    """What one observed step showed. ``input`` is the first argument of the model."""

    input: Moments | None
    layers: tuple[LayerStats, ...]
    weights: tuple[WeightStats, ...]

    def __getitem__(self, name: str) -> LayerStats:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r} was seen; there are {[layer.name for layer in self.layers]}")


# --- the probe ----------------------------------------------------------------------------------------------------------


@dataclass
class _Switch:
    """Hooks that are put on and taken off again under the same keys, by which a captured step knows its two programs."""

    entries: list[tuple[dict[int, Any], int, Any]] = field(default_factory=list)

    def add(self, handle: Any) -> None:
        self.entries.append((handle._hooks, handle.id, handle._hooks[handle.id]))
        handle.remove()

    def on(self) -> None:
        for hooks, key, hook in self.entries:
            hooks[key] = hook

    def off(self) -> None:
        for hooks, key, _ in self.entries:
            hooks.pop(key, None)


class Probe:
    """Statistics of every layer of ``model``, at every ``every``-th step.

    Args:
        model: its leaves (modules without children) are the layers, and blocks that do more than pass on what their last layer
            gives, such as residual sums; each should be called once in a step.
        optimizer: whose updates are measured; without it there are none.
        every: :meth:`step` observes the first step and then each ``every``-th.
        bins: of a histogram of every tensor; 0 for none.
        range: (low, high) of the histograms, whose outer bins also count what is beyond; None fits them to each tensor.
        weights: whether weights, their gradients and updates are measured too.

    Raises:
        TypeError, ValueError: wrong arguments; a model without parameters.

    >>> import kobai
    >>> from kobai import nn
    >>> _ = kobai.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    >>> optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    >>> probe = Probe(model, optimizer, every=10, bins=5)
    >>> x, t = kobai.randn(16, 4), kobai.arange(16) % 3
    >>> @kobai.capture
    ... def train(x, t):
    ...     optimizer.zero_grad()
    ...     loss = nn.functional.cross_entropy(model(x), t)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> for _ in range(21):
    ...     with probe.step() as observed:
    ...         loss = train(x, t)
    ...     if observed:
    ...         reading = probe.read()
    >>> train.programs, [layer.name for layer in reading.layers]
    (2, ['0', '1', '2'])
    >>> reading["1"].output.saturated < 0.05, sum(reading["1"].output.counts), 0 < reading.weights[0].ratio < 0.1
    (True, 128, True)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        every: int = 10,
        *,
        bins: int = 0,
        range: Range = None,
        weights: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"Probe: expected a kobai.nn.Module, got {type(model).__name__}")
        if optimizer is not None and not isinstance(optimizer, Optimizer):
            raise TypeError(f"Probe: expected a kobai.optim.Optimizer, got {type(optimizer).__name__}")
        for name, value, least in (("every", every, 1), ("bins", bins, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"Probe: expected {name} as an integer >= {least}, got {value!r}")
        if range is not None and not (len(range) == 2 and -math.inf < range[0] < range[1] < math.inf):
            raise ValueError(f"Probe: expected range as (low, high) with low < high, got {range!r}")
        if next(iter(model.parameters()), None) is None:
            raise ValueError(
                f"Probe: {type(model).__name__} has no parameters, so there is nothing that could be trained"
            )
        self.model, self.optimizer, self.every, self.bins, self.range = model, optimizer, every, bins, range
        self.steps = 0
        self.attached = False
        self._blocks = {path for path, module in model.named_modules() if path and list(module.children())}
        self._layers = {path: module for path, module in model.named_modules() if path}
        if not self._layers:  # the model is one layer itself
            self._layers = {"": model}
        self._weights = {
            name: parameter for name, parameter in model.named_parameters() if parameter.ndim >= 2 and weights
        }
        rows = ["input", *[f"{what}:{path}" for path in self._layers for what in ("output", "gradient")]]
        rows += [f"{what}:{name}" for name in self._weights for what in ("weight", "weight gradient", "update")]
        device = device_of(model)
        width = len(_FIELDS) + (SAMPLE if bins else 0)
        self._buffer = ops.full((len(rows), width), math.nan, dtype="float64", device=device)
        self._numbers = {row: i for i, row in enumerate(rows)}
        self._places = {row: [self._buffer[i, j] for j in _PLACE.values()] for row, i in self._numbers.items()}
        self._before = {name: w.detach().clone() for name, w in self._weights.items()} if optimizer is not None else {}
        self._order: dict[str, None] = {}
        self._last: Any = None
        self._seen = False
        self._switch = _Switch()
        self._plug_in()

    # --- when it observes

    @contextmanager
    def step(self) -> Iterator[bool]:
        """Around one training step; says whether this one is observed."""
        observed = self.steps % self.every == 0
        self.steps += 1
        if observed:
            self.attach()
        try:
            yield observed
        finally:
            if observed:
                self.detach()

    def attach(self) -> None:
        """Observe all steps from now on."""
        if not self.attached:
            self._switch.on()
            self.attached = self._seen = True

    def detach(self) -> None:
        """Take the hooks off; the numbers of the last observed step can still be read."""
        self._switch.off()
        self.attached = False

    def read(self) -> Reading | None:
        """The last observed step, in one transfer from the device; None if there was none."""
        if not self._seen:
            return None
        host = to_host(self._buffer.array)

        def moments(row: str) -> Moments | None:
            return self._moments(host[self._numbers[row]])

        layers = []
        for path in self._order:
            output = moments(f"output:{path}")
            if output is not None:
                module = self._layers[path]
                kind = type(module).__name__
                gradient = moments(f"gradient:{path}")
                layers.append(LayerStats(path, kind, activation_of(module), output, gradient, path in self._blocks))
        weights = []
        for name, parameter in self._weights.items():
            value = moments(f"weight:{name}")
            if value is not None:
                found = (value, moments(f"weight gradient:{name}"), moments(f"update:{name}"))
                weights.append(WeightStats(name, name.rpartition(".")[0], tuple(parameter.shape), *found))
        return Reading(moments("input"), tuple(layers), tuple(weights))

    def clear(self) -> None:
        """Forget what was measured."""
        self._buffer.fill_(math.nan)
        self._seen = self.attached

    # --- hooks: operations on tensors only, results in places that stay

    def _plug_in(self) -> None:
        add = self._switch.add
        add(self.model.register_forward_pre_hook(self._at_start))
        add(self.model.register_forward_hook(self._at_end))
        for path, module in self._layers.items():
            add(module.register_forward_hook(self._at_output(path)))
        for name, parameter in self._weights.items():
            if parameter.requires_grad:
                add(parameter.register_post_accumulate_grad_hook(self._at_weight_gradient(name)))
        if self.optimizer is not None and self._weights:
            add(self.optimizer.register_step_pre_hook(self._before_update))
            add(self.optimizer.register_step_post_hook(self._after_update))

    def _at_start(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point() and args[0].numel():
            self._measure("input", args[0], by_unit=True)
        for name, parameter in self._weights.items():
            self._measure(f"weight:{name}", parameter)

    def _at_end(self, *_: Any) -> None:
        self._last = None

    def _at_output(self, path: str) -> Callable[..., None]:
        kind = activation_of(self._layers[path])

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, (tuple, list)) and output:  # recurrent layers: the sequence comes first
                output = output[0]
            if not isinstance(output, Tensor) or not output.is_floating_point() or not output.numel():
                return
            if path in self._blocks and output is self._last:
                return
            self._last = output
            self._order.pop(path, None)
            self._order[path] = None
            self._measure(f"output:{path}", output, by_unit=True, kind=kind, module=module)
            if output.requires_grad:
                output.register_hook(lambda gradient: self._measure(f"gradient:{path}", gradient))

        return hook

    def _at_weight_gradient(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self._measure(f"weight gradient:{name}", parameter.grad)

        return hook

    def _before_update(self, *_: Any) -> None:
        with no_grad():
            for name, parameter in self._weights.items():
                self._before[name].copy_(parameter)

    def _after_update(self, *_: Any) -> None:
        with no_grad():
            for name, parameter in self._weights.items():
                before = self._before[name]  # which is done with, and takes the difference: memory that is warm
                self._measure(f"update:{name}", before.sub_(parameter), sign=-1.0)

    def _measure(
        self,
        row: str,
        x: Tensor,
        by_unit: bool = False,
        kind: str | None = None,
        module: nn.Module | None = None,
        sign: float = 1.0,
    ) -> None:
        place = self._places[row]

        def put(name: str, value: Any) -> None:
            slot = place[_PLACE[name]]
            slot.copy_(value) if isinstance(value, Tensor) else slot.fill_(value)

        with no_grad():
            x = x.detach()
            if x.itemsize < 4:  # the squares of half precision overflow
                x = x.float()
            flat = x.reshape(-1)
            put("size", x.numel())
            put("samples", x.shape[0] if x.ndim else 1)
            if by_unit and x.ndim:
                # The spread of all numbers is that within units, over the batch, and that between units' means. Taken from
                # differences: from the mean square it would be lost in rounding for sigmoids that all say 0.5.
                means = x.mean(0)
                mean = means.mean()
                within = _squares(x - means)
                put("mean", mean)
                put("within", within)
                put("spread", within + _squares(means - mean) * x.shape[0])
                put("largest", flat.abs().amax())
            else:
                put("mean", flat.mean() if sign == 1.0 else flat.mean() * sign)
                put("squares", _squares(flat))
            if kind is not None and module is not None:
                flags = _saturated(kind, module, x)
                if flags is not None:
                    put("saturated", flags.to(x.dtype).mean())
                if kind in RECTIFIERS:
                    put("dead", (_by_unit(x).amax(0) <= 0).to(x.dtype).mean())
            if self.bins:
                sample = flat[:: _stride(flat.numel())][:SAMPLE]
                self._buffer[self._numbers[row], len(_FIELDS) : len(_FIELDS) + sample.numel()].copy_(
                    sample * sign if sign != 1.0 else sample
                )

    def _moments(self, row: np.ndarray[Any, Any]) -> Moments | None:
        value = dict(zip(_FIELDS, map(float, row[: len(_FIELDS)]), strict=True))
        size = value["size"]
        if not size >= 1:
            return None
        mean = value["mean"]
        if math.isnan(value["spread"]) and not math.isnan(value["squares"]):
            squares = value["squares"]
            spread = max(0.0, squares - size * mean**2) if math.isfinite(squares) else squares
        else:
            spread = value["spread"]
            squares = spread + size * mean**2 if abs(mean) < 1e150 else math.inf
        edges = counts = None
        if self.bins:
            edges, counts = self._histogram(row[len(_FIELDS) :], int(size))
        return Moments(
            int(size),
            int(value["samples"]),
            mean,
            math.sqrt(spread / size) if spread >= 0 else math.nan,
            math.sqrt(squares) if squares >= 0 else math.nan,
            value["largest"],
            math.sqrt(value["within"] / size) if value["within"] >= 0 else math.nan,
            value["saturated"],
            value["dead"],
            edges,
            counts,
        )

    def _histogram(
        self, row: np.ndarray[Any, Any], size: int
    ) -> tuple[tuple[float, ...], tuple[int, ...]] | tuple[None, None]:
        sample = row[: min(SAMPLE, -(-size // _stride(size)))]
        sample = sample[np.isfinite(sample)]
        if not sample.size:
            return None, None
        low, high = self.range if self.range is not None else (float(sample.min()), float(sample.max()))
        counts, edges = np.histogram(sample.clip(low, high), bins=self.bins, range=(low, high))
        return tuple(map(float, edges)), tuple(map(int, counts))


def _stride(size: int) -> int:
    """Distance of a histogram's samples: one that has no factor in common with the number of units, lest it see few of them.

    >>> _stride(100), _stride(256 * 100)
    (1, 23)
    """
    stride = max(1, size // SAMPLE)
    while math.gcd(stride, size) > 1:
        stride -= 1
    return stride


def _squares(x: Tensor) -> Any:
    """Σ x², by the dot product, which is one pass."""
    flat = x.reshape(-1)
    return flat.dot(flat)


def _by_unit(x: Tensor) -> Any:
    """(samples, units): channels of images are units, wherever they are in the picture."""
    if x.ndim >= 4:
        return x.movedim(1, -1).reshape(-1, x.shape[1])
    return x.reshape(-1, x.shape[-1]) if x.ndim >= 2 else x.reshape(-1, 1)
