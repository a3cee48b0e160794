"""The doctor as a classifier: nets that are sick on purpose, and healthy ones, on the digits.

``python tests/lab/test_doctor_table.py`` writes docs/lab/diseases.md: the catalogue, and the confusion matrix as measured.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

import kobai
from kobai import nn
from kobai.lab import diagnose, treat
from kobai.lab.cures import Advice
from kobai.lab.diseases import DISEASES
from kobai.lab.findings import Diagnosis
from kobai.nn import functional as F
from kobai.nn import init
from kobai.train import mlp

PAGE = Path(__file__).parents[2] / "docs" / "lab" / "diseases.md"
STEPS = 200


@dataclass
class Net:
    disease: str  # "healthy" for those that are
    name: str
    model: nn.Module
    optimizer: kobai.optim.Optimizer
    batches: list[Any]
    loss_fn: Callable[[Any, Any], Any] = F.cross_entropy


@cache
def digits() -> tuple[Any, Any]:
    pytest.importorskip("sklearn")
    x, t = kobai.data.digits().train.tensors
    return (x - x.mean()) / x.std(), t


def batches(x: Any = None, t: Any = None) -> list[Any]:
    inputs, targets = digits()
    x, t = inputs if x is None else x, targets if t is None else t
    return [(x[i : i + 100], t[i : i + 100]) for i in range(0, 1200, 100)]


def net(depth: int, width: int, activation: str, init: str = "auto", **options: Any) -> nn.Sequential:
    return mlp(64, [width] * depth, 10, activation=activation, init=init, **options)


def sgd(model: nn.Module, lr: float = 0.1, **options: Any) -> Any:
    return kobai.optim.SGD(model.parameters(), lr=lr, **options)


def adam(model: nn.Module, lr: float = 1e-3) -> Any:
    return kobai.optim.Adam(model.parameters(), lr=lr)


def sick() -> Iterator[Net]:
    """Disease × depth × width × activation × seed."""

    def case(disease: str, name: str, model: nn.Module, rule: Any = sgd, data: Any = None, **options: Any) -> Net:
        return Net(disease, name, model, rule(model), data or batches(), **options)

    seed = 0
    for depth, width, activation, std in [
        (3, 100, "sigmoid", 1),
        (5, 100, "sigmoid", 1),
        (3, 50, "tanh", 1),
        (5, 100, "tanh", 1),
        (4, 200, "tanh", 0.5),
        (3, 100, "hardtanh", 1),
    ]:
        kobai.manual_seed(seed := seed + 1)
        name = f"{activation} {depth}×{width}, normal({std})"
        yield case("saturated", name, net(depth, width, activation, f"normal({std})"))
    for activation in ("sigmoid", "tanh"):
        kobai.manual_seed(seed := seed + 1)
        model = net(3, 100, activation)
        init.normal_(model[1].bias, std=10.0)
        init.normal_(model[3].bias, std=10.0)
        yield case("saturated", f"{activation} 3×100, biases of size 10", model)

    for depth, width, activation, std in [
        (4, 100, "relu", 1),
        (6, 50, "relu", 1),
        (5, 200, "gelu", 0.5),
        (5, 100, "leaky_relu", 1),
        (8, 100, "elu", 0.5),
        (10, 50, "relu", 0.6),
    ]:
        kobai.manual_seed(seed := seed + 1)
        name = f"{activation} {depth}×{width}, normal({std})"
        yield case("exploding-activations", name, net(depth, width, activation, f"normal({std})"))

    for depth, width, activation, std in [
        (4, 100, "relu", 0.01),
        (6, 50, "relu", 0.03),
        (5, 100, "tanh", 0.01),
        (3, 200, "gelu", 0.005),
        (8, 100, "selu", 0.03),
        (4, 100, "sigmoid", 0.01),
        (10, 50, "elu", 0.05),
        (3, 50, "leaky_relu", 0.01),
    ]:
        kobai.manual_seed(seed := seed + 1)
        name = f"{activation} {depth}×{width}, normal({std})"
        yield case("collapsed", name, net(depth, width, activation, f"normal({std})"))

    for depth, width, bias, at in [(3, 100, -8, 1), (2, 50, -10, 1), (5, 100, -6, 3), (3, 200, -5, 5), (4, 50, -20, 1)]:
        kobai.manual_seed(seed := seed + 1)
        model = net(depth, width, "relu")
        init.constant_(model[at].bias, bias)
        yield case("dying-relu", f"relu {depth}×{width}, biases of layer {at} {bias}", model)

    for depth, width, scheme in [
        (6, 100, "xavier"),
        (8, 50, "xavier"),
        (10, 100, "lecun"),
        (7, 200, "xavier"),
        (12, 30, "lecun"),
        (5, 100, "xavier"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case("vanishing-gradient", f"sigmoid {depth}×{width}, {scheme}", net(depth, width, "sigmoid", scheme))

    for depth, width, activation, std in [(3, 100, "relu", 20), (2, 50, "tanh", 50), (4, 100, "gelu", 30)]:
        kobai.manual_seed(seed := seed + 1)
        model = net(depth, width, activation)
        init.normal_(model[-1].weight, std=std)
        yield case("exploding-gradient", f"{activation} {depth}×{width}, last layer normal({std})", model)
    for depth, activation in [(2, "relu"), (3, "tanh")]:
        kobai.manual_seed(seed := seed + 1)
        model, total = net(depth, 100, activation), partial(F.cross_entropy, reduction="sum")
        yield case("exploding-gradient", f"{activation} {depth}×100, loss summed", model, loss_fn=total)
    for depth, activation in [(2, "relu"), (3, "tanh")]:
        kobai.manual_seed(seed := seed + 1)
        x, t = digits()
        data = batches(x, F.one_hot(t, 10).float() * 1000)
        model = net(depth, 100, activation)
        yield case(
            "exploding-gradient", f"{activation} {depth}×100, targets of 1000", model, data=data, loss_fn=F.mse_loss
        )

    for depth, width, activation, scheme in [
        (2, 50, "relu", "zeros"),
        (3, 100, "tanh", "zeros"),
        (2, 100, "sigmoid", "constant(0.1)"),
        (3, 50, "tanh", "constant(0.05)"),
        (2, 100, "gelu", "constant(0.01)"),
        (4, 50, "relu", "constant(0.02)"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case("symmetric", f"{activation} {depth}×{width}, {scheme}", net(depth, width, activation, scheme))

    for depth, activation, rule, lr in [
        (2, "relu", sgd, 30),
        (3, "tanh", sgd, 30),
        (2, "gelu", sgd, 50),
        (3, "relu", adam, 0.5),
        (2, "tanh", adam, 1),
        (2, "sigmoid", adam, 2),
    ]:
        kobai.manual_seed(seed := seed + 1)
        model, name = net(depth, 100, activation), f"{activation} {depth}×100, {rule.__name__} {lr:g}"
        yield case("rate-too-large", name, model, partial(rule, lr=lr))
    for depth, activation, rule, lr in [
        (2, "relu", sgd, 1e-6),
        (3, "tanh", sgd, 1e-5),
        (5, "gelu", sgd, 1e-6),
        (3, "relu", adam, 1e-8),
        (2, "selu", adam, 1e-9),
    ]:
        kobai.manual_seed(seed := seed + 1)
        model, name = net(depth, 100, activation), f"{activation} {depth}×100, {rule.__name__} {lr:g}"
        yield case("rate-too-small", name, model, partial(rule, lr=lr))

    for depth, activation, scale in [
        (2, "relu", 255),
        (3, "tanh", 255),
        (3, "sigmoid", 1000),
        (2, "gelu", 1e-3),
        (3, "relu", 1e-4),
        (2, "tanh", 50),
    ]:
        kobai.manual_seed(seed := seed + 1)
        model, data = net(depth, 100, activation), batches(digits()[0] * scale)
        yield case("input-scale", f"{activation} {depth}×100, inputs × {scale:g}", model, data=data)
    kobai.manual_seed(seed := seed + 1)
    x = digits()[0].reshape(-1, 64).clone()
    x[:, 20] *= 1000
    yield case("input-scale", "relu 2×100, one feature × 1000", net(2, 100, "relu"), data=batches(x))

    for activation in ("relu", "tanh"):
        kobai.manual_seed(seed := seed + 1)
        x = kobai.ones_like(digits()[0]) * 0.5
        yield case("no-signal", f"{activation} 3×100, constant inputs", net(3, 100, activation), data=batches(x))
        yield case("no-signal", f"{activation} 3×100, all frozen", net(3, 100, activation).requires_grad_(False))
    t = kobai.sort(digits()[1])
    data = batches(digits()[0][t.indices], t.values)
    yield case("no-signal", "relu 2×100, sorted by class", net(2, 100, "relu"), data=data)

    for activation in ("relu", "tanh"):
        kobai.manual_seed(seed := seed + 1)
        x = digits()[0].clone()
        x[7, 0, 0, 0] = float("nan")
        yield case("non-finite", f"{activation} 2×100, NaN in the inputs", net(2, 100, activation), data=batches(x))
        model = net(2, 100, activation)
        model[3].weight.data[0, 0] = float("inf")
        yield case("non-finite", f"{activation} 2×100, infinite weight", model)
    yield case("non-finite", "relu 4×100, normal(1e12)", net(4, 100, "relu", "normal(1e12)"))


class Residual(nn.Module):
    def __init__(self, width: int, norm: bool = False, zero: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.up = nn.Linear(width, width, init="he")
        self.act = nn.ReLU()
        self.down = nn.Linear(width, width, init="zeros" if zero else "lecun")

    def forward(self, x: Any) -> Any:
        return x + self.down(self.act(self.up(self.norm(x))))


def convolutional(norm: bool, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in [(1, 8), (8, 16), (16, 16)]:
        layers.append(nn.Conv2d(n_in, n_out, 3, padding=1))
        init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")
        layers += [nn.BatchNorm2d(n_out)] * norm + [activation()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 16, 10))


def healthy() -> Iterator[Net]:
    def case(name: str, model: nn.Module, rule: Any = sgd, data: Any = None, **options: Any) -> Net:
        return Net("healthy", name, model, rule(model), data or batches(), **options)

    seed = 100
    for depth, width, activation, scheme in [
        (1, 50, "relu", "he"),
        (2, 100, "relu", "he"),
        (5, 100, "relu", "he"),
        (10, 100, "relu", "he"),
        (3, 300, "relu", "kaiming_uniform"),
        (2, 100, "tanh", "lecun"),
        (5, 100, "tanh", "lecun"),
        (10, 100, "tanh", "xavier"),
        (3, 50, "tanh", "orthogonal"),
        (2, 100, "gelu", "he"),
        (5, 100, "gelu", "he"),
        (8, 100, "gelu", "he"),
        (2, 100, "selu", "lecun"),
        (8, 100, "selu", "lecun"),
        (15, 50, "selu", "lecun"),
        (1, 100, "sigmoid", "xavier"),
        (2, 100, "sigmoid", "xavier"),
        (3, 50, "sigmoid", "xavier"),
        (3, 100, "leaky_relu", "he"),
        (4, 100, "elu", "he"),
        (3, 100, "silu", "he"),
        (3, 100, "prelu", "he"),
        (3, 100, "softplus", "he"),
        (2, 100, "hardtanh", "xavier"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case(f"{activation} {depth}×{width}, {scheme}", net(depth, width, activation, scheme))
    for depth, activation, scheme in [
        (3, "relu", "he"),
        (5, "tanh", "xavier"),
        (8, "relu", "normal(0.01)"),
        (5, "sigmoid", "xavier"),
        (10, "gelu", "he"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case(
            f"{activation} {depth}×100 with batch norm, {scheme}", net(depth, 100, activation, scheme, batch_norm=True)
        )
    for depth, activation, rule in [(2, "relu", adam), (5, "tanh", adam), (3, "gelu", adam), (5, "selu", adam)]:
        kobai.manual_seed(seed := seed + 1)
        yield case(f"{activation} {depth}×100, adam", net(depth, 100, activation), rule)
    kobai.manual_seed(seed := seed + 1)
    yield case("relu 3×100, dropout", net(3, 100, "relu", dropout=0.5))
    yield case("relu 2×100, momentum", net(2, 100, "relu"), partial(sgd, lr=0.02, momentum=0.9))
    yield case("relu 2×100, pixels from 0 to 1", net(2, 100, "relu"), data=batches(digits()[0] * 0.375 + 0.3))
    for blocks, norm, zero in [(4, False, False), (4, True, False), (8, True, False), (4, False, True)]:
        kobai.manual_seed(seed := seed + 1)
        body = [Residual(64, norm, zero) for _ in range(blocks)]
        what = ", layer norm" * norm + ", branches from 0" * zero
        yield case(f"residual, {blocks} blocks{what}", nn.Sequential(nn.Flatten(), *body, nn.Linear(64, 10)))
    kobai.manual_seed(seed := seed + 1)
    yield case("convolutional, He", convolutional(False))
    yield case("convolutional, batch norm", convolutional(True))
    yield case("convolutional, GELU, adam", convolutional(False, nn.GELU), adam)
    x, t = digits()
    data = batches(x, F.one_hot(t, 10).float())
    yield case("relu 2×100, squared error", net(2, 100, "relu"), data=data, loss_fn=F.mse_loss)


def drawn(count: int = 40) -> Iterator[Net]:
    """Depth, width, activation and degree at random: no threshold was chosen by these nets."""
    draw = random.Random(7)
    for i in range(count):
        kobai.manual_seed(9000 + i)
        depth, width = draw.randint(4, 9), draw.choice([32, 64, 128, 256])
        disease = draw.choice(
            ["saturated", "exploding-activations", "collapsed", "dying-relu", "vanishing-gradient", *["healthy"] * 5]
        )
        rule, activation, scheme = sgd, draw.choice(["relu", "gelu", "elu", "leaky_relu"]), "auto"
        if disease == "saturated":
            activation, scheme = draw.choice(["sigmoid", "tanh"]), f"normal({draw.uniform(6, 20) / width**0.5})"
        elif disease == "exploding-activations":
            scheme = f"normal({draw.uniform(4, 12) / width**0.5})"
        elif disease == "collapsed":
            scheme = f"normal({draw.uniform(0.05, 0.25) / width**0.5})"
        elif disease == "dying-relu":
            activation = "relu"
        elif disease == "vanishing-gradient":
            depth, activation, scheme = depth + 2, "sigmoid", draw.choice(["xavier", "lecun", "xavier_uniform"])
        else:
            rule = draw.choice([sgd, adam])
        model = net(depth, width, activation, scheme, batch_norm=disease == "healthy" and draw.random() < 0.3)
        if disease == "dying-relu":
            init.constant_(model[1 + 2 * draw.randrange(depth)].bias, -draw.uniform(5, 20))
        yield Net(disease, f"{activation} {depth}×{width}", model, rule(model), batches())


def test_nets_at_random() -> None:
    results = [(case, examined(case)) for case in drawn()]
    wrong = [
        (case.disease, case.name, [(f.disease, f.severity) for f in found.findings])
        for case, found in results
        if (found.errors if case.disease == "healthy" else not named(case, found))
    ]
    assert len(wrong) <= 0.05 * len(results), wrong


def examined(case: Net) -> Diagnosis:
    return diagnose(case.model, case.batches[0], case.loss_fn, case.optimizer)


@cache
def table() -> list[tuple[Net, Diagnosis]]:
    return [(case, examined(case)) for case in (*sick(), *healthy())]


def confusion(results: list[tuple[Net, Diagnosis]]) -> str:
    """Rows: what the net has. Columns: the root that was found first, of severity error."""
    counts = Counter((case.disease, found.errors[0].disease if found.errors else "healthy") for case, found in results)
    names = [name for name in [*DISEASES, "healthy"] if any(name in key for key in counts)]
    letters = {name: chr(ord("A") + i) for i, name in enumerate(names)}
    lines = [
        "| in truth | " + " | ".join(f"{letters[name]}" for name in names) + " | named |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    for row in names:
        total = sum(counts[row, column] for column in names)
        named = sum(
            (not found.errors) if row == "healthy" else any(f.disease == row for f in found.findings)
            for case, found in results
            if case.disease == row
        )
        cells = " | ".join(str(counts[row, column] or "·") for column in names)
        lines.append(f"| {letters[row]} {row} | {cells} | {named} of {total} |")
    return "\n".join(lines)


def named(case: Net, found: Diagnosis) -> bool:
    return any(finding.disease == case.disease for finding in found.findings)


def test_sizes_of_the_table() -> None:
    kinds = Counter(case.disease == "healthy" for case, _ in table())
    assert kinds[False] >= 40
    assert kinds[True] >= 40
    assert {case.disease for case, _ in table()} == {*DISEASES, "healthy"}


def test_every_disease_is_found_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n" + confusion(table()))
    ill = [(case, found) for case, found in table() if case.disease != "healthy"]
    missed = [
        (case.disease, case.name, [f.disease for f in found.findings]) for case, found in ill if not named(case, found)
    ]
    assert len(missed) <= 0.05 * len(ill), missed


def test_the_root_comes_first() -> None:
    ill = [(case, found) for case, found in table() if case.disease != "healthy"]
    wrong = [
        (case.disease, case.name, [(f.disease, f.severity) for f in found.findings])
        for case, found in ill
        if not found.findings or found.findings[0].disease != case.disease
    ]
    assert len(wrong) <= 0.1 * len(ill), wrong


def test_healthy_nets_have_no_error() -> None:
    well = [(case, found) for case, found in table() if case.disease == "healthy"]
    blamed = [(case.name, [str(e) for e in found.errors]) for case, found in well if found.errors]
    assert len(blamed) <= 0.05 * len(well), blamed


def treatable() -> list[tuple[Net, Diagnosis]]:
    return [
        (case, found)
        for case, found in table()
        if case.disease != "healthy" and found.findings and not isinstance(found.findings[0].cure, Advice)
    ]


def test_every_cure_lowers_the_loss() -> None:
    failed = []
    for case, found in treatable():
        result = treat(found, steps=STEPS, data=case.batches)
        if not result.helped:
            ends = (result.loss_before, result.loss_after)
            failed.append((case.disease, case.name, [f.disease for f in result.cured], *ends))
    assert len(treatable()) >= 40
    assert len(failed) <= 0.1 * len(treatable()), failed


INTRODUCTION = """# The doctor's catalogue of diseases

`kobai.lab.diagnose(model, batch, loss_fn, optimizer)` runs a few steps on a copy of a net under probes, and compares
what they see with the thresholds below. `kobai.lab.treat(diagnosis)` applies the cure of the root to a copy,
diagnoses again, and trains the sick and the cured net side by side. `kobai.lab.Doctor()` looks at a step of a
`Trainer` now and then; `kobai diagnose` is the same for a run or for a net that is not trained yet.

Findings come in order of causes. One that *follows from* another should go away with it: weights of standard
deviation 0.01 in a deep net make the activations collapse, and a gradient that vanishes is what becomes of that. An
*error* will not train so, a *warning* trains worse than it could, a *note* is harmless.

What the rules look at:

- **signal** of a layer: root mean square, over its units, of what differs between the samples of the batch. A layer's
  standard deviation may come from its biases alone; its signal cannot.
- **trunk**: the outputs through which everything must go. What is inside a residual block is replaced by the block's
  sum, so that a branch which begins at zero is no collapse.
- **fitting weights**: of the variance that the activation after them asks for: He's 2/fan_in for rectifiers, Glorot's
  2/(fan_in + fan_out) for sigmoid and tanh, LeCun's 1/fan_in for SELU and for the last layer.

"""

MEASURED = f"""
## How well it does

The doctor is tested as a classifier (`tests/lab/test_doctor_table.py`): nets that are sick on purpose, of many
depths, widths, activations and seeds, and healthy ones, among them batch-normed, residual, convolutional ones and
tanh with LeCun's, GELU with He's and SELU with LeCun's weights, all on the digits. Rows are what a net has, columns
the root that is found, of severity error; *named* counts nets among whose findings the disease is. The tests ask for
95 % of the sick to be named, for 95 % of the healthy to have no error, and for the cures to lower the loss after
{STEPS} steps of 90 % of those that are treated.

The sick nets here are clearly sick. Between them and the healthy ones lies a range in which a net trains, but badly;
there the doctor warns, or says nothing.

"""


def catalogue() -> str:
    parts = ["## The diseases\n"]
    for disease in DISEASES.values():
        parts.append(f"### {disease.title} (`{disease.name}`)\n")
        parts.append(f"**Found by:** {disease.rule}.\n\n**Why:** {disease.reason}\n\n**Source:** {disease.source}.\n")
    return "\n".join(parts)


def test_page_shows_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8").startswith(INTRODUCTION + catalogue() + MEASURED)


def write(page: Path = PAGE) -> None:
    helped = [treat(found, steps=STEPS, data=case.batches).helped for case, found in treatable()]
    cures = f"\nCures: the loss is lower after {STEPS} steps in {sum(helped)} of {len(helped)} treated nets.\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(INTRODUCTION + catalogue() + MEASURED + confusion(table()) + "\n" + cures, encoding="utf-8")


if __name__ == "__main__":
    write()
    print(confusion(table()))
