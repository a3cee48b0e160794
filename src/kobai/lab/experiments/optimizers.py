"""Experiment ``optimizers``: paths on an anisotropic bowl, loss curves on real data, and steps under lasting gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np

import kobai
from kobai import optim
from kobai.core.tensor import Tensor
from kobai.lab import plots
from kobai.lab.experiments._nets import first_below, net, over_seeds, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load, train_curves
from kobai.nn import functional as F
from kobai.optim import Optimizer
from kobai.random import Generator
from kobai.utils.data import DataLoader, TensorDataset
from kobai.xp import to_host

START = (-7.0, 2.0)
STEPS = 30

MakeOptimizer = Callable[[Any, float], Optimizer]

LONGER = "SGD, rate 0.1"
"""Plain SGD whose steps on data are as long as those that momentum adds up to: 0.1 = 0.01 / (1 − 0.9)."""

# name: (how it is made of parameters and a rate, its rate on the bowl if it is tried there, its rate on data)
RULES: dict[str, tuple[MakeOptimizer, float | None, float]] = {
    "sgd": (lambda p, lr: optim.SGD(p, lr=lr), 0.95, 0.01),
    "momentum": (lambda p, lr: optim.SGD(p, lr=lr, momentum=0.9), 0.1, 0.01),
    "momentum (average)": (lambda p, lr: optim.SGD(p, lr=lr, momentum=0.9, dampening=0.9), 0.25, 0.1),
    "nesterov": (lambda p, lr: optim.SGD(p, lr=lr, momentum=0.9, nesterov=True), 0.1, 0.01),
    "adagrad": (lambda p, lr: optim.Adagrad(p, lr=lr), 1.5, 0.01),
    "rmsprop": (lambda p, lr: optim.RMSprop(p, lr=lr), 0.3, 0.001),
    "adam": (lambda p, lr: optim.Adam(p, lr=lr), 0.3, 0.001),
    LONGER: (lambda p, lr: optim.SGD(p, lr=lr), None, 0.1),
}
WITH_MOMENTUM = ("momentum", "momentum (average)", "nesterov")
HIDDEN, BATCH = (100,) * 4, 100
LEVEL = 1.0
"""The training loss (nats) to which the steps are counted."""


class Optimizers(Experiment):
    """Seven ways to follow a gradient, on a bowl that is twenty times steeper one way than the other, and on images.

    Above: 30 steps on f(x, y) = x²/20 + y² from (−7, 2), with the learning rates 0.95 (SGD), 0.1 (momentum as velocity,
    Nesterov), 0.25 (momentum as moving average), 1.5 (AdaGrad), 0.3 (RMSprop, Adam). SGD must keep its rate below 1 lest
    y diverge, and overshoots the valley at every step while it creeps along it. Momentum adds up what the steps agree on;
    AdaGrad, RMSprop and Adam scale each coordinate by its own gradients.

    Below: a net of four hidden layers of 100 ReLU units (He) on images, batches of 100, with the rates 0.01 (SGD,
    momentum, Nesterov, AdaGrad), 0.1 (momentum as moving average), 0.001 (RMSprop, Adam). Momentum is compared with SGD of
    the same rate, but where successive gradients agree it goes 1 / (1 − 0.9) = 10 times as far. So there is also SGD with
    ten times the rate: as far as it keeps up, momentum's lead on these data is that of the longer step, which on the bowl
    SGD could not take.

    And the steps that AdaGrad and RMSprop take, the root mean square of Δw over all parameters, against that of their first
    ten steps, where gradients last: both are given the same gradients, those of one batch after another at the net's initial
    weights, which stay as they are. AdaGrad's G is a sum, that grows by as much at every step: its steps fall as 1/√t, without
    end. RMSprop's is a moving average; its first hundred steps fill it, and then its steps stay as long as they are. In
    training itself this cannot be seen, because the gradients do not last: where the training images are known by heart they
    vanish, AdaGrad's G has nothing to add up, and RMSprop's forgets what it had, so that what a gradient of 1 would be
    given, lr / (√G + ε), stands still for AdaGrad and grows for RMSprop as the gradients shrink.

    The two forms of momentum, v ← μv − ηg and v ← βv + (1 − β)g, are one method when the average's learning rate is η /
    (1 − β). Kobai, as PyTorch, starts the average at the first gradient instead of at (1 − β) times it, which is one long
    first step; on data their curves lie on each other.
    """

    name = "optimizers"
    title = "Optimisers"
    claim = (
        "SGD zigzags on anisotropic surfaces; AdaGrad's effective step shrinks towards 0 while RMSprop's does not; momentum "
        "reaches a lower loss sooner."
    )
    source = (
        "Saitoh, Deep Learning from Scratch, ch. 6.1; Sutskever et al., On the importance of initialization and momentum, "
        "2013"
    )

    def run(self, settings: Settings) -> Numbers:
        steps = 1000 if settings.quick else 2000
        found = over_seeds(settings, _train, {name: (the_data(settings), name, steps) for name in RULES}, 1)
        training = {
            name: {key: np.mean([run[key] for run in runs], axis=0, dtype=np.float64).tolist() for key in runs[0]}
            for name, runs in found.items()
        }
        paths = {name: path(make, rate) for name, (make, rate, _) in RULES.items() if rate is not None}
        lasting = _under_lasting_gradients(the_data(settings), steps, settings.seed)
        return {"paths": paths, "training": training, "level": LEVEL, "lasting": lasting}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        turns = {name: crossings(way) for name, way in numbers["paths"].items()}
        across = {name: distance(way) for name, way in numbers["paths"].items()}
        along = -numbers["paths"]["sgd"][-1][0]
        needed = {name: first_below(run, numbers["level"]) for name, run in numbers["training"].items()}
        steps = numbers["training"]["sgd"]["step"][-1]
        lasting = numbers["lasting"]
        shrunk = {name: lasting[name][-1] / lasting[name][0] for name in SQUARES}
        later = {name: _since_a_quarter(lasting[name]) for name in SQUARES}
        unit = {name: _since_a_quarter(numbers["training"][name]["effective"]) for name in SQUARES}
        vanished = _since_a_quarter(numbers["training"]["rmsprop"]["gradient"])

        def after(name: str) -> str:
            return f"{needed[name]}" if needed[name] is not None else f"more than {steps:.0f}"

        velocity, average = (np.array(numbers["training"][name]["loss"][1:]) for name in WITH_MOMENTUM[:2])
        apart = np.abs(velocity - average).max()
        text = (
            f"On the bowl SGD crosses the valley's floor {turns['sgd']} times in {STEPS} steps and is still {along:.1f} from "
            f"the minimum along it; it goes {across['sgd']:.0f} to and fro where 2 would do, momentum "
            f"{across['momentum']:.1f}, Nesterov {across['nesterov']:.1f}, AdaGrad {across['adagrad']:.1f}, RMSprop "
            f"{across['rmsprop']:.1f}, Adam {across['adam']:.1f}. On data a training loss of {numbers['level']:g} takes SGD "
            f"{after('sgd')} steps, momentum {after('momentum')} as velocity and {after('momentum (average)')} as moving "
            f"average (whose curves are never further apart than {apart:.2f}), Nesterov {after('nesterov')}, AdaGrad "
            f"{after('adagrad')}, RMSprop {after('rmsprop')}, Adam {after('adam')}; SGD with ten times the rate, whose steps "
            f"are as long as momentum's add up to, takes {after(LONGER)}. Under gradients that last, AdaGrad's steps shrink to "
            f"{shrunk['adagrad']:.2g} of its first ten by step {steps:.0f}, where 1/√t makes {_root_law(steps):.2g} of it; in "
            f"the last three quarters they fall to {later['adagrad']:.2g} of what they were (1/√t: 0.5), RMSprop's to "
            f"{later['rmsprop']:.2g}. In training the gradients do not last: RMSprop's fall to {vanished:.2g} in those three "
            f"quarters, and what a gradient of 1 would be given becomes {unit['rmsprop']:.2g} times as much; for AdaGrad, "
            f"{unit['adagrad']:.2g} times."
        )
        found = {name: steps + 1 if count is None else count for name, count in needed.items()}
        slowest = max(found[name] for name in WITH_MOMENTUM)
        passed = (
            turns["sgd"] >= STEPS - 1
            and all(across[name] < across["sgd"] / 2 for name in across if name != "sgd")
            and shrunk["adagrad"] < 2 * _root_law(steps)
            and later["adagrad"] < 0.6
            and 0.9 < later["rmsprop"] < 1.1
            and slowest <= steps
            and slowest < found["sgd"]
        )
        return text, bool(passed)

    def figure(self, numbers: Numbers) -> Any:
        fig = plots.figure(plots.FULL, 5.6)
        above, below = fig.subfigures(2, 1, height_ratios=[1.15, 1])
        self._paths(above, numbers["paths"])
        axes = plots.panels(below, 1, 2, width_ratios=[1.5, 1])[0]
        plots.letter(axes[0], "training loss on data")
        lines = {}
        for name, run in numbers["training"].items():
            x, y = _smooth(run["step"][1:], run["loss"][1:])
            look = {"color": plots.GREY, "linestyle": plots.DOTTED, "marker": ""} if name == LONGER else {}
            lines[label(name)] = plots.curve(axes[0], x, y, name, **look)
        axes[0].set(xlabel="training step", ylabel="cross-entropy (nats)", yscale="log", xlim=(0, None))
        axes[0].axhline(numbers["level"], color="0.6", linewidth=0.8, linestyle=plots.DOTTED, zorder=0)
        plots.end_labels(axes[0], lines, gap=0.085, size=7.5)
        plots.letter(axes[1], "steps under lasting gradients")
        lasting = numbers["lasting"]
        step = lasting["step"]
        shares = {name: [size / lasting[name][0] for size in lasting[name]] for name in SQUARES}
        lines = {label(name): plots.curve(axes[1], step, share, name) for name, share in shares.items()}
        law = [_root_law(t) for t in step]
        axes[1].plot(step, law, color="0.6", linewidth=0.8, linestyle=plots.DOTTED, zorder=0)
        middle = len(law) // 2
        plots.note(axes[1], "1/√t", (step[middle], law[middle]), (3, 5))
        axes[1].set(xlabel="step", ylabel="rms of Δw, relative to steps 1 to 10", yscale="log", xlim=(0, None))
        plots.plain_ticks(axes[1].yaxis)
        plots.end_labels(axes[1], lines, size=7.5)
        return fig

    def _paths(self, fig: Any, paths: dict[str, list[list[float]]]) -> None:
        axes = plots.panels(fig, 2, 4, sharex=True, sharey=True)
        gx, gy = np.meshgrid(np.linspace(-8.5, 8.5, 120), np.linspace(-3.2, 3.2, 80))
        height = gx**2 / 20 + gy**2
        for ax, (name, way) in zip(axes.flat, paths.items(), strict=False):
            ax.grid(False)
            ax.contour(gx, gy, height, levels=[0.05, 0.3, 1, 2, 4, 7, 10], colors="0.82", linewidths=0.7)
            x, y = zip(*way, strict=True)
            look = {**plots.style(name), "linestyle": "solid", "marker": "."}
            ax.plot(x, y, linewidth=1.1, markersize=4, **look)
            ax.plot(*START, marker="o", markersize=4, color="0.15")
            ax.plot(0, 0, marker="+", markersize=8, color="0.15", markeredgewidth=1.2)
            ax.set(xlim=(-8.5, 8.5), ylim=(-3.2, 3.2), xticks=[-5, 0, 5], yticks=[-2, 0, 2])
            plots.letter(ax, label(name))
            ax.tick_params(labelsize=7.5)
        last = axes.flat[-1]
        last.set_axis_off()
        text = "f(x, y) = x²/20 + y²\n●  start (−7, 2)\n+  minimum (0, 0)\n30 steps each"
        last.text(0.08, 0.5, text, transform=last.transAxes, fontsize=8, color="0.2", va="center", linespacing=1.5)
        for ax in axes[1, :3]:
            ax.set_xlabel("x")
        for ax in axes[:, 0]:
            ax.set_ylabel("y")

    def alt_text(self, numbers: Numbers) -> str:
        turns = {name: crossings(way) for name, way in numbers["paths"].items()}
        ends = ", ".join(f"{label(name)} {run['loss'][-1]:.2g}" for name, run in numbers["training"].items())
        lasting = numbers["lasting"]
        adagrad, rmsprop = (lasting[name][-1] / lasting[name][0] for name in SQUARES)
        return (
            f"Above, seven paths over the contours of an elongated bowl; SGD's jumps across the valley {turns['sgd']} times. "
            f"Below left, training loss by step, at the end: {ends}. Below right, under lasting gradients AdaGrad's steps fall "
            f"as 1/√t, to {adagrad:.2g} of its first ten; RMSprop's fall to {rmsprop:.2g} within a few hundred and stay there."
        )


def label(name: str) -> str:
    """An optimiser's name as figures write it."""
    return plots.title(name).replace("momentum (", "Momentum (")


def path(make: MakeOptimizer, rate: float, steps: int = STEPS) -> list[list[float]]:
    """[x, y] before and after each step on f(x, y) = x²/20 + y²."""
    where = kobai.tensor(START, dtype=kobai.float64, requires_grad=True)
    steepness = kobai.tensor([1 / 20, 1.0], dtype=kobai.float64)
    optimizer = make([where], rate)
    way = [where.tolist()]
    for _ in range(steps):
        optimizer.zero_grad()
        (steepness * where**2).sum().backward()
        optimizer.step()
        way.append(where.tolist())
    return way


def crossings(way: list[list[float]]) -> int:
    """How often a path crosses the floor of the valley, y = 0.

    >>> crossings([[0, 1], [0, -1], [0, -0.5], [0, 0.1]])
    2
    """
    return sum(before[1] * after[1] < 0 for before, after in pairwise(way))


def distance(way: list[list[float]]) -> float:
    """How far a path goes across the valley, all in all: Σ|Δy|.

    >>> distance([[0, 2], [0, -1], [0, 0]])
    4.0
    """
    return float(np.abs(np.diff(np.array(way)[:, 1])).sum())


SQUARES = {"adagrad": "sum", "rmsprop": "square_avg"}
"""Rules that divide by the root of what they keep of the squares of gradients, and the name that this has in their state."""

EACH = 10
"""Steps between two measurements."""


def _since_a_quarter(values: list[float]) -> float:
    """The last value against that of the end of the first quarter."""
    return float(values[-1] / values[max(1, round((len(values) - 1) / 4))])


def _root_law(step: float) -> float:
    """The mean of 1/√t over the ``EACH`` steps up to ``step``, against that over the first ones.

    >>> round(_root_law(10), 2), round(_root_law(1000), 3)
    (1.0, 0.063)
    """
    last = round(step)
    return float(sum(t**-0.5 for t in range(last - EACH + 1, last + 1)) / sum(t**-0.5 for t in range(1, EACH + 1)))


def _under_lasting_gradients(source: tuple[Any, ...], steps: int, seed: int) -> Numbers:
    """Steps of the rules that divide by √G, the root mean square of Δw over all parameters and ten steps, where both are given
    the gradients of one batch after another at weights that stay what they were.
    """
    data = load(*source)
    model = net(data, HIDDEN, seed)
    weights = list(model.parameters())
    moved = {name: [w.detach().clone().requires_grad_() for w in weights] for name in SQUARES}
    rules = {name: RULES[name][0](moved[name], RULES[name][2]) for name in SQUARES}
    squares: dict[str, list[float]] = {name: [] for name in SQUARES}
    samples, order = TensorDataset(data.train_x, data.train_t), Generator(seed=seed + 1)
    while len(squares["adagrad"]) < steps:
        for x, t in DataLoader(samples, batch_size=BATCH, shuffle=True, generator=order):
            model.zero_grad()
            F.cross_entropy(model(x), t).backward()
            for name, rule in rules.items():
                before = [w.detach().clone() for w in moved[name]]
                for shadow, w in zip(moved[name], weights, strict=True):
                    shadow.grad = w.grad
                rule.step()
                change = [(w.detach() - old).square().sum() for w, old in zip(moved[name], before, strict=True)]
                squares[name].append(kobai.stack(change).sum().item())
    count = sum(w.numel() for w in weights)
    sizes = {
        name: np.sqrt(np.reshape(found[:steps], (-1, EACH)).mean(axis=1) / count) for name, found in squares.items()
    }
    return {"step": list(range(EACH, steps + 1, EACH)), **{name: size.tolist() for name, size in sizes.items()}}


def _train(source: tuple[Any, ...], name: str, steps: int, seed: int) -> Numbers:
    """Loss curves of one optimiser; for AdaGrad and RMSprop also, at each measurement, what a gradient of 1 would be given,
    and the root mean square of the gradient there is.
    """
    data = load(*source)
    model = net(data, HIDDEN, seed)
    make, _, rate = RULES[name]
    rule = make(model.parameters(), rate)
    seen: Numbers = {"effective": [], "gradient": []} if name in SQUARES else {}

    def measured(_: Any) -> None:
        if seen:
            grads = [w.grad for w in model.parameters() if w.grad is not None]
            seen["effective"].append(_effective(rule, SQUARES[name]) if rule.state else math.nan)
            seen["gradient"].append(
                float(np.sqrt(np.mean(np.square(_flat(grads), dtype=np.float64)))) if grads else math.nan
            )

    length: dict[str, Any] = {"steps": steps, "batch_size": BATCH, "measure_every": EACH}
    curves = train_curves(model, data, optimizer=rule, seed=seed, on_measure=measured, **length)
    return {"step": curves.step, "loss": curves.loss, "train_loss": curves.train_loss, **seen}


def _effective(rule: Optimizer, squares: str) -> float:
    """lr / (√G + ε), the median over all parameters."""
    group = rule.param_groups[0]
    sums = _flat([state[squares] for state in rule.state.values()])
    return float(np.median(group["lr"] / (np.sqrt(sums) + group["eps"])))


def _flat(tensors: Iterable[Tensor]) -> np.ndarray[Any, Any]:
    """All numbers of some tensors, in one row."""
    return np.concatenate([to_host(tensor.array).ravel() for tensor in tensors])


def _smooth(step: list[float], loss: list[float], width: int = 3) -> tuple[list[float], list[float]]:
    """Means of ``width`` neighbouring entries, each the mean of ten batches: the batches' noise hides the lines' order."""
    kernel = np.ones(width) / width
    return step[width // 2 : len(step) - width // 2], np.convolve(loss, kernel, mode="valid").tolist()


EXPERIMENT = Optimizers()
