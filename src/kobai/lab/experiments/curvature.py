"""``curvature``: the largest eigenvalue of the loss's Hessian along a training, and the learning rate's limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import kobai
from kobai import ops, optim
from kobai.autograd import grad
from kobai.core.tensor import Tensor
from kobai.lab import plots
from kobai.lab.experiments._nets import listing, net, percent, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load
from kobai.nn import Module, functional as F
from kobai.random import Generator
from kobai.xp import to_host

RATES = (0.2, 0.25, 0.3)
HIDDEN, SAMPLES = (40, 40), 200
STEPS, QUICK_STEPS, MEASURED = 12000, 4000, 40
"""Steps of a training, and at how many of them the curvature is measured."""

PRODUCTS = 15
"""Products of the Hessian with a vector for each measurement."""


class Curvature(Experiment):
    """A net of two hidden layers of 40 tanh units learns 200 centred images by gradient descent on all of them at once, at
    three learning rates from the same weights. The loss is half the mean squared distance to the one-hot targets.

    λ is the largest eigenvalue of the Hessian of the loss in all weights, found by 15 steps of Lanczos' method. No Hessian
    is formed: each step takes a product H v, the gradient of g · v, where g is the gradient of the loss.

    Left, λ for each rate η, and as a dotted line in its colour the limit 2/η: beyond it gradient descent on a quadratic loss
    diverges along that eigenvector. λ rises until it comes to its limit and then stays about it, whatever the limit is: at
    the edge of stability. Right, the loss: there it no longer falls at every step, but it keeps falling.
    """

    name = "curvature"
    title = "Curvature and the learning rate"
    claim = (
        "Under gradient descent on the whole training set the largest eigenvalue of the Hessian rises until it hovers at "
        "2/η, where η is the learning rate, and the loss keeps falling."
    )
    source = "Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, ICLR 2021"

    def run(self, settings: Settings) -> Numbers:
        steps = QUICK_STEPS if settings.quick else STEPS
        tasks = {f"{rate:g}": (the_data(settings), rate, steps, settings.seed) for rate in RATES}
        return {"rates": list(RATES), "steps": steps, "runs": settings.map(_trained, tasks)}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs = [(2 / rate, run) for rate, run in zip(numbers["rates"], numbers["runs"].values(), strict=True)]
        started = [run["curvature"][0] / limit for limit, run in runs]
        found = [float(np.median(last(run["curvature"]))) for _, run in runs]
        hovers = [value / limit for value, (limit, _) in zip(found, runs, strict=True)]
        reached = [arrival(run, limit) for limit, run in runs]
        pairs = [(run, at) for (_, run), at in zip(runs, reached, strict=True)]
        fell = [math.inf if at is None else run["loss"][-1] / run["loss"][at] for run, at in pairs]
        rises = listing([percent(run["rises"]) for _, run in runs])
        steps = ["never" if at is None else f"{run['step'][at]}" for run, at in pairs]
        limits = each([limit for limit, _ in runs], ".1f")
        text = (
            f"With the learning rates {each(numbers['rates'], 'g')} the limit 2/η is {limits}. The largest eigenvalue starts "
            f"at {each(started, '.2f')} of it, first comes within 5 % of it at step {listing(steps)}, and in "
            f"the last third of {numbers['steps']} steps its median is {each(found, '.1f')}, which is "
            f"{each(hovers, '.2f')} times the limit. In that third the loss rises at {rises} of the steps; "
            f"from the limit on it falls to {each(fell, '.2f')} of what it was."
        )
        passed = max(started) < 0.9 and all(0.9 < value < 1.2 for value in hovers) and max(fell) < 0.9
        return text, bool(passed)

    def figure(self, numbers: Numbers) -> Any:
        fig = plots.figure(plots.FULL, 3.0)
        left, right = plots.panels(fig, 1, 2)[0]
        for i, (rate, run) in enumerate(zip(numbers["rates"], numbers["runs"].values(), strict=True)):
            look = {**plots.style("", i), "label": f"η = {rate:g}"}
            plots.curve(left, run["step"], run["curvature"], "", **look)
            left.axhline(2 / rate, color=look["color"], linestyle=plots.DOTTED, linewidth=1.2)
            plots.note(
                left, f"2/η = {2 / rate:.3g}", (run["step"][-1], 2 / rate), (0, 4), color=look["color"], ha="right"
            )
            plots.curve(right, run["step"], run["loss"], "", **look)
        left.set(
            xlabel="step of gradient descent", ylabel="largest eigenvalue λ", ylim=(0, 2.6 / min(numbers["rates"]))
        )
        right.set(xlabel="step of gradient descent", ylabel="training loss", yscale="log")
        plots.letter(left, "the curvature rises to its limit")
        plots.letter(right, "the loss keeps falling")
        plots.legend_below(fig, left)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        parts = "; ".join(
            f"η = {rate:g}: from {run['curvature'][0]:.1f} to {np.median(last(run['curvature'])):.1f}, limit {2 / rate:.3g}"
            for rate, run in zip(numbers["rates"], numbers["runs"].values(), strict=True)
        )
        return (
            "Left, the largest eigenvalue of the Hessian over the steps of gradient descent, with the limit 2/η of each "
            f"learning rate. {parts}. Right, the training loss, which falls, though not at every step."
        )


def each(values: Sequence[float], form: str) -> str:
    """Numbers in a sentence.

    >>> each([0.5, 0.25], ".1f")
    '0.5 and 0.2'
    """
    return listing([format(value, form) for value in values])


def last(values: list[float]) -> list[float]:
    """The last third."""
    return values[-(len(values) // 3) :]


def arrival(run: Numbers, limit: float) -> int | None:
    """The first measurement whose curvature is at least 95 % of ``limit``; None if there is none.

    >>> arrival({"curvature": [1.0, 9.0, 9.6]}, 10), arrival({"curvature": [1.0]}, 10)
    (2, None)
    """
    return next((i for i, value in enumerate(run["curvature"]) if value >= 0.95 * limit), None)


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, steps: int = PRODUCTS) -> float:
    """The largest eigenvalue of a symmetric matrix that is known by its ``product`` with vectors: Lanczos' method.

    After k products it is that of the matrix restricted to the span of v, A v, …, Aᵏ⁻¹ v, from below, where v is ``start``.
    Golub, Van Loan, *Matrix Computations*, chapter 10. Vectors are made orthogonal to all before them.

    >>> a = kobai.diag(kobai.tensor([5.0, 1.0, -7.0]))
    >>> round(largest_eigenvalue(lambda v: a @ v, kobai.ones(3), steps=3), 4)
    5.0
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, start.numel())):
        w = product(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        rows = ops.stack(basis)
        for _ in range(2):  # once leaves rounding of the size that it removes
            w = w - (rows @ w) @ rows
        size = float(w.norm())
        if size < 1e-6 * max(map(abs, diagonal)):  # the span holds its own products: there is nothing more to find
            break
        beside.append(size)
        basis.append(w / size)
    n = len(diagonal)
    return float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside[: n - 1], 1) + np.diag(beside[: n - 1], -1))[-1])


def hessian_product(model: Module, loss: Callable[[], Tensor]) -> Callable[[Tensor], Tensor]:
    """v ↦ H v, H the Hessian of ``loss()`` in the parameters of ``model`` as they are now: one more backward for each v."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    slope = _flat(grad(loss(), parameters, create_graph=True))
    return lambda v: _flat(grad(slope @ v, parameters, retain_graph=True))


def _flat(tensors: Any) -> Tensor:
    return ops.cat([t.reshape(-1) for t in tensors])


def _trained(source: tuple[Any, ...], rate: float, steps: int, seed: int) -> Numbers:
    """The loss and the curvature along a training by gradient descent."""
    data = load(*source).only(SAMPLES)
    model = net(data, HIDDEN, seed, activation="tanh", init="xavier")
    x, target = data.train_x - data.train_x.mean(0), F.one_hot(data.train_t, data.classes).to(data.train_x.dtype)
    optimizer = optim.SGD(model.parameters(), lr=rate)
    start = kobai.randn(sum(p.numel() for p in model.parameters()), generator=Generator(seed=seed))

    def loss() -> Tensor:
        return 0.5 * ((model(x) - target) ** 2).sum() / len(x)  # type: ignore[no-any-return]

    @kobai.capture
    def step() -> Tensor:
        optimizer.zero_grad()
        now = loss()
        now.backward()
        optimizer.step()
        return now.detach()

    found: Numbers = {"step": [], "loss": [], "curvature": []}
    losses: list[Tensor] = []
    for i in range(steps + 1):
        if i % (steps // MEASURED) == 0:
            found["step"].append(i)
            found["curvature"].append(largest_eigenvalue(hessian_product(model, loss), start.to(x.device)))
            found["loss"].append(loss().item())
        losses.append(step())
    later = to_host(ops.stack(losses).array)[-(len(losses) // 3) :]
    return {**found, "rises": float((np.diff(later) > 0).mean())}


EXPERIMENT = Curvature()
