"""NumPy. Variants: ``by hand``, the step a careful person writes, all outputs preallocated; ``products``, these alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cases import LEARNING_RATE, Case, products
from problems import Problem
from sides import Absent, Run


def versions(variant: str) -> dict[str, str]:
    """Which NumPy runs."""
    return {"numpy": np.__version__}


def make(case: Case, problem: Problem, variant: str, device: str, precision: str) -> Run:
    """The step, or the floor under it."""
    if device != "cpu":
        raise Absent("NumPy computes on the CPU only")
    if variant == "products":
        return Run(_floor(case), read=lambda nothing: float("nan"))
    if case.channels:
        raise Absent("no step by hand is written for convolutions")
    return Run(ByHand(case, problem).step)


def _floor(case: Case) -> Callable[[], None]:
    """All matrix products of a step, each into an array of its own, with the layouts that a Linear layer gives them."""
    rng = np.random.default_rng(0)
    jobs = []
    for i, (rows, inner, columns) in enumerate(products(case)):
        x, w, y = (
            rng.standard_normal(shape, dtype=np.float32) for shape in ((rows, inner), (columns, inner), (rows, columns))
        )
        jobs += [(x, w.T, np.empty_like(y)), (y.T, x, np.empty_like(w))]
        jobs += [(y, w, np.empty_like(x))] * bool(i)

    def step() -> None:
        for a, b, out in jobs:
            np.matmul(a, b, out=out)

    return step


class Layer:
    """Arrays of one layer: weight (in, out), what it computes forward, and the gradients."""

    def __init__(self, weight: np.ndarray, batch: int) -> None:
        def empty(*shape: int) -> np.ndarray:
            return np.empty(shape, np.float32)

        n = len(weight)
        self.w, self.b = np.ascontiguousarray(weight.T), np.zeros(n, np.float32)
        self.dw, self.db = np.empty_like(self.w), np.empty_like(self.b)
        self.y, self.dy, self.positive = empty(batch, n), empty(batch, n), np.empty((batch, n), np.bool_)
        self.kept = np.empty((batch, n), np.float32)  # of dropout
        self.gamma, self.beta, self.dgamma, self.dbeta = (np.full(n, v, np.float32) for v in (1, 0, 0, 0))
        self.mean, self.variance, self.scale = empty(n), empty(n), empty(n)
        self.running_mean, self.running_variance = np.zeros(n, np.float32), np.ones(n, np.float32)
        self.normal, self.work = empty(batch, n), empty(batch, n)


class ByHand:
    """Forward, loss, backward and update of an MLP, written out."""

    def __init__(self, case: Case, problem: Problem) -> None:
        self.case, self.x, self.t = case, problem.x, problem.t
        self.layers = [Layer(weight, case.batch) for weight in problem.weights]
        self.rows = np.arange(case.batch)
        self.column = np.empty((case.batch, 1), np.float32)
        self.rng = np.random.default_rng(0)
        pairs = [(layer.w, layer.dw) for layer in self.layers] + [(layer.b, layer.db) for layer in self.layers]
        if case.batch_norm:
            pairs += [(layer.gamma, layer.dgamma) for layer in self.layers[:-1]]
            pairs += [(layer.beta, layer.dbeta) for layer in self.layers[:-1]]
        zeros, empty = np.zeros_like, np.empty_like
        self.slots = [(p, g, zeros(p), zeros(p), empty(p), empty(p)) for p, g in pairs]
        self.count = 0

    def step(self) -> float:
        """One step; returns the loss."""
        x = self.x
        for layer in self.layers[:-1]:
            np.matmul(x, layer.w, out=layer.y)
            np.add(layer.y, layer.b, out=layer.y)
            if self.case.batch_norm:
                self._normalise(layer)
            np.greater(layer.y, 0, out=layer.positive)
            np.multiply(layer.y, layer.positive, out=layer.y)
            if self.case.dropout:
                self.rng.random(dtype=np.float32, out=layer.kept)
                np.greater_equal(layer.kept, self.case.dropout, out=layer.kept)
                np.multiply(layer.kept, np.float32(1 / (1 - self.case.dropout)), out=layer.kept)
                np.multiply(layer.y, layer.kept, out=layer.y)
            x = layer.y
        last = self.layers[-1]
        np.matmul(x, last.w, out=last.y)
        np.add(last.y, last.b, out=last.y)
        loss = self._cross_entropy(last)
        for i in range(len(self.layers) - 1, -1, -1):
            layer, x = self.layers[i], self.layers[i - 1].y if i else self.x
            if layer is not last:
                if self.case.dropout:
                    np.multiply(layer.dy, layer.kept, out=layer.dy)
                np.multiply(layer.dy, layer.positive, out=layer.dy)
                if self.case.batch_norm:
                    self._normalise_backward(layer)
            np.matmul(x.T, layer.dy, out=layer.dw)
            np.add.reduce(layer.dy, axis=0, out=layer.db)
            if i:
                np.matmul(layer.dy, layer.w.T, out=self.layers[i - 1].dy)
        (self._sgd if self.case.optimizer == "SGD" else self._adam)()
        return loss

    def _cross_entropy(self, last: Layer) -> float:
        """Mean of log Σ exp(y) − y[t] over the rows; dy = (softmax − onehot) / N."""
        y, dy, column = last.y, last.dy, self.column
        np.maximum.reduce(y, axis=1, keepdims=True, out=column)
        np.subtract(y, column, out=y)
        right = y[self.rows, self.t]
        np.exp(y, out=dy)
        np.add.reduce(dy, axis=1, keepdims=True, out=column)
        np.divide(dy, column, out=dy)
        dy[self.rows, self.t] -= 1
        np.multiply(dy, np.float32(1 / len(dy)), out=dy)
        np.log(column, out=column)
        return float(column.mean() - right.mean())

    def _normalise(self, layer: Layer) -> None:
        """y ← γ (y − mean) / √(variance + ε) + β over the batch, and the running statistics."""
        y, n = layer.y, len(layer.y)
        np.add.reduce(y, axis=0, out=layer.mean)
        layer.mean /= n
        np.subtract(y, layer.mean, out=layer.normal)
        np.multiply(layer.normal, layer.normal, out=layer.work)
        np.add.reduce(layer.work, axis=0, out=layer.variance)
        layer.variance /= n
        np.add(layer.variance, np.float32(1e-5), out=layer.scale)
        np.sqrt(layer.scale, out=layer.scale)
        np.divide(1, layer.scale, out=layer.scale)
        np.multiply(layer.normal, layer.scale, out=layer.normal)
        np.multiply(layer.normal, layer.gamma, out=y)
        np.add(y, layer.beta, out=y)
        layer.running_mean += np.float32(0.1) * (layer.mean - layer.running_mean)
        layer.running_variance += np.float32(0.1) * (layer.variance * np.float32(n / (n - 1)) - layer.running_variance)

    def _normalise_backward(self, layer: Layer) -> None:
        """dy ← γ/(N σ) (N dy − Σ dy − normal Σ(dy · normal))."""
        dy, n = layer.dy, len(layer.dy)
        np.add.reduce(dy, axis=0, out=layer.dbeta)
        np.multiply(dy, layer.normal, out=layer.work)
        np.add.reduce(layer.work, axis=0, out=layer.dgamma)
        np.multiply(layer.normal, layer.dgamma, out=layer.work)
        np.add(layer.work, layer.dbeta, out=layer.work)
        np.multiply(layer.work, np.float32(1 / n), out=layer.work)
        np.subtract(dy, layer.work, out=dy)
        np.multiply(dy, layer.gamma * layer.scale, out=dy)

    def _sgd(self) -> None:
        rate = np.float32(LEARNING_RATE["SGD"])
        for p, g, *_, work, _ in self.slots:
            np.multiply(g, rate, out=work)
            np.subtract(p, work, out=p)

    def _adam(self) -> None:
        self.count += 1
        size = np.float32(LEARNING_RATE["Adam"] / (1 - 0.9**self.count))
        root = np.float32((1 - 0.999**self.count) ** -0.5)
        for p, g, m, v, work, other in self.slots:
            np.multiply(m, np.float32(0.9), out=m)
            np.multiply(g, np.float32(0.1), out=work)
            np.add(m, work, out=m)
            np.multiply(v, np.float32(0.999), out=v)
            np.multiply(g, g, out=work)
            np.multiply(work, np.float32(0.001), out=work)
            np.add(v, work, out=v)
            np.sqrt(v, out=work)
            np.multiply(work, root, out=work)
            np.add(work, np.float32(1e-8), out=work)
            np.multiply(m, size, out=other)
            np.divide(other, work, out=other)
            np.subtract(p, other, out=p)
