"""What a probe reads: statistics of every layer and weight in one observed step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kobai.lab.probe.moments import Moments, moments


@dataclass(frozen=True)
class LayerRows:
    """A layer, and the row of its output's statistics; the next row holds its gradient's."""

    name: str
    kind: str
    activation: str | None
    block: bool
    """Whether it contains layers, and its output is not that of the last of them."""
    row: int = field(repr=False)
    calls: int
    """How often it was called in the step; only the last call is measured."""


@dataclass(frozen=True)
class LayerStats(LayerRows):
    """One layer: its output, and the gradient of the loss with respect to it (None without backward)."""

    output: Moments
    gradient: Moments | None


@dataclass(frozen=True)
class WeightRows:
    """A weight, and the row of its statistics; the next two rows hold those of its gradient and of its update."""

    name: str
    shape: tuple[int, ...]
    row: int = field(repr=False)

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class WeightStats(WeightRows):
    """One weight (a parameter of two or more dimensions): its values, its gradient and its update by the optimiser."""

    value: Moments
    gradient: Moments | None
    update: Moments | None

    @property
    def ratio(self) -> float:
        """Update-to-weight ratio ‖Δw‖ / ‖w‖; NaN where no update was seen, infinite for weights that are all 0."""
        if self.update is None:
            return math.nan
        if not self.value.norm > 0:
            return math.inf * (self.update.norm > 0 or math.nan)
        return self.update.norm / self.value.norm


@dataclass(frozen=True, eq=False)
class Reading:
    """What one observed step showed. ``input`` is the first argument of the model; ``layers`` are in order of computation.

    A reading is one array of numbers; the objects that show them are made on first use, so that training does not wait for
    those that nobody looks at.
    """

    rows: np.ndarray[Any, Any] = field(repr=False)
    """The result of :func:`kobai.lab.probe.moments.combined`; the first row is the input's."""
    places: tuple[tuple[LayerRows, ...], tuple[WeightRows, ...]] = field(repr=False)

    @cached_property
    def input(self) -> Moments | None:
        return self._all[0]

    @cached_property
    def layers(self) -> tuple[LayerStats, ...]:
        return tuple(
            LayerStats(**vars(layer), output=output, gradient=self._all[layer.row + 1])
            for layer in self.places[0]
            if (output := self._all[layer.row]) is not None
        )

    @cached_property
    def weights(self) -> tuple[WeightStats, ...]:
        found = []
        for weight in self.places[1]:
            value, gradient, update = self._all[weight.row : weight.row + 3]
            if value is not None:
                found.append(WeightStats(**vars(weight), value=value, gradient=gradient, update=update))
        return tuple(found)

    def __getitem__(self, name: str) -> LayerStats:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r} was seen; there are {[layer.name for layer in self.layers]}")

    def __repr__(self) -> str:
        return f"Reading({len(self.layers)} layers, {len(self.weights)} weights)"

    @cached_property
    def _all(self) -> list[Moments | None]:
        return moments(self.rows)
