"""Probes: statistics of every layer of a net, measured on its device and read in one transfer.

Hooks write a few numbers of each layer – of its output, of the gradient that arrives there, of its weights, their gradient and
their update – into one buffer that stays where it is, each by one kernel (:mod:`kobai.lab.probe.moments`). So a step may be
captured (:func:`kobai.capture`) with a probe on it: a captured step keeps two programs, with the hooks and without, and a probe
that is off costs nothing, because its hooks are gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from kobai import nn, ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.probe.moments import combined, measure, width
from kobai.lab.probe.moments_layout import Look
from kobai.lab.probe.readings import LayerRows, Reading, WeightRows
from kobai.lab.probe.saturation import RECTIFIERS, activation_of, flat_outputs, function_since
from kobai.optim import Optimizer
from kobai.train.batches import device_of
from kobai.xp import to_host


@dataclass
class _Switch:
    """Hooks that are added and removed under the same keys, by which a captured step recognises its two programs."""

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
        model: its layers are modules without children, and blocks that return something else than their last layer, such as
            residual sums; each should be called once in a step. An activation called as a function, as in
            ``F.relu(self.fc(x))``, is seen where its output goes into a layer, under the name ``"fc → relu"``.
        optimizer: measure its updates too.
        every: :meth:`step` observes the first step and every ``every``-th after it.
        bins: of a histogram of every tensor; 0 for none.
        range: (low, high) of the histograms, whose outer bins also count what is beyond; None fits them to each tensor.
        weights: whether to measure weights, their gradients and updates.

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
        range: tuple[float, float] | None = None,
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
            raise ValueError(f"Probe: {type(model).__name__} has no parameters to train")
        self.model, self.optimizer, self.every, self.bins, self.range = model, optimizer, every, bins, range
        self.steps = 0
        self.attached = False
        # A model without children is one layer itself.
        self._layers = {path: module for path, module in model.named_modules() if path} or {"": model}
        self._blocks = {path for path, module in self._layers.items() if list(module.children())}
        self._weights = {name: p for name, p in model.named_parameters() if p.ndim >= 2 and weights}
        self._layer_rows = {
            path: LayerRows(path, type(module).__name__, activation_of(module), path in self._blocks, 1 + 4 * i, 0)
            for i, (path, module) in enumerate(self._layers.items())
        }
        first = 1 + 4 * len(self._layers)  # after the input, and two rows for each layer and for a function before it
        self._weight_rows = {
            name: WeightRows(name, tuple(parameter.shape), first + 3 * i)
            for i, (name, parameter) in enumerate(self._weights.items())
        }
        shape = first + 3 * len(self._weights), width(next(model.parameters()).array, bins)
        self._rows = ops.full(shape, math.nan, dtype="float64", device=device_of(model))
        self._whole, self._samples = Look(bins=bins, range=range), Look(by_sample=True, bins=bins, range=range)
        self._before = {name: w.detach().clone() for name, w in self._weights.items()} if optimizer is not None else {}
        self._order: dict[str, LayerRows] = {}
        self._last: Any = None
        self._met: list[Any] = []
        self._calls: dict[str, int] = {}
        self._seen = False
        self._switch = _Switch()
        self._plug_in()

    def _capture_watch(self, walk: Any) -> None:
        """Nothing to watch: what the hooks note in Python while recording (names, order, counts) holds for each replay."""

    # --- when it observes

    @contextmanager
    def step(self) -> Iterator[bool]:
        """Context of one training step; its value says whether the step is observed."""
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
        """Remove the hooks; the numbers of the last observed step can still be read."""
        self._switch.off()
        self.attached = False

    def read(self) -> Reading | None:
        """The last observed step, in one transfer from the device; None if there was none."""
        if not self._seen:
            return None
        layers = tuple(self._order.values())
        rows = combined(to_host(self._rows.array), self.bins)
        return Reading(rows, (layers, tuple(self._weight_rows.values())))

    def clear(self) -> None:
        """Forget what was measured."""
        self._rows.fill_(math.nan)
        self._seen = self.attached

    # --- hooks: operations on tensors and kernels only, with results in fixed memory

    def _plug_in(self) -> None:
        add = self._switch.add
        add(self.model.register_forward_pre_hook(self._at_start))
        add(self.model.register_forward_hook(self._at_end))
        for path, module in self._layers.items():
            add(module.register_forward_pre_hook(self._at_input(path)))
            add(module.register_forward_hook(self._at_output(path)))
        for name, parameter in self._weights.items():
            if parameter.requires_grad:
                add(parameter.register_post_accumulate_grad_hook(self._at_weight_gradient(name)))
        if self.optimizer is not None and self._weights:
            add(self.optimizer.register_step_pre_hook(self._before_update))
            add(self.optimizer.register_step_post_hook(self._after_update))

    def _at_start(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        self._calls = {}
        if args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            self._measure(0, args[0], self._samples)
        for name, parameter in self._weights.items():
            self._measure(self._weight_rows[name].row, parameter, self._whole)

    def _at_end(self, *_: Any) -> None:
        self._last = None
        self._met = []

    def _at_input(self, path: str) -> Callable[..., None]:
        row = self._layer_rows[path].row + 2

        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0] if args else None
            if not isinstance(x, Tensor) or x is self._last or any(x is met for met in self._met) or not x.numel():
                return
            kind = function_since(self._last, x)
            if kind is None:
                return
            self._met.append(x)  # it may be the input of further layers
            name = f"{next(reversed(self._order), '')} → {kind}"
            look = replace(self._samples, flat=flat_outputs(kind), rectifier=kind in RECTIFIERS)
            self._see(LayerRows(name, "function", kind, False, row, 0), x, look)

        return hook

    def _at_output(self, path: str) -> Callable[..., None]:
        rows, module = self._layer_rows[path], self._layers[path]
        look = replace(self._samples, flat=flat_outputs(module), rectifier=rows.activation in RECTIFIERS)

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, (tuple, list)) and output:  # recurrent layers: the sequence comes first
                output = output[0]
            if not isinstance(output, Tensor) or not output.is_floating_point() or not output.numel():
                return
            if path in self._blocks and output is self._last:
                return
            self._see(rows, output, look)

        return hook

    def _see(self, rows: LayerRows, x: Tensor, look: Look) -> None:
        self._last = x
        self._calls[rows.name] = calls = self._calls.get(rows.name, 0) + 1
        self._order.pop(rows.name, None)
        self._order[rows.name] = replace(rows, calls=calls)
        self._measure(rows.row, x, look)
        if x.requires_grad:
            x.register_hook(lambda gradient: self._measure(rows.row + 1, gradient, self._whole))

    def _at_weight_gradient(self, name: str) -> Callable[[Tensor], None]:
        row = self._weight_rows[name].row + 1

        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self._measure(row, parameter.grad, self._whole)

        return hook

    def _before_update(self, *_: Any) -> None:
        with no_grad():
            for name, parameter in self._weights.items():
                self._before[name].copy_(parameter)

    def _after_update(self, *_: Any) -> None:
        for name, parameter in self._weights.items():
            self._measure(self._weight_rows[name].row + 2, parameter, self._whole, self._before[name])

    def _measure(self, row: int, x: Tensor, look: Look, minus: Tensor | None = None) -> None:
        if x.numel():
            measure(x.array, self._rows.array[row], look, None if minus is None else minus.array)
            self._rows._bump()
