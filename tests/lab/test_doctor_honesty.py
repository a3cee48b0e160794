"""What the doctor says is true: no loss that guessing would reach is called healthy, no cure that does not help a cure."""

from __future__ import annotations

import math
from typing import Any

import pytest
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import diagnose, treat
from kobai.lab.rules.course import outcome
from kobai.nn import functional as F
from kobai.train import mlp


class Blind(nn.Module):
    """One output for all samples, but for a part that is too small to be of use: its layers look well."""

    def __init__(self, inner: nn.Module, outputs: int) -> None:
        super().__init__()
        self.inner, self.bias = inner, nn.Parameter(kobai.zeros(outputs))

    def forward(self, x: Any) -> Any:
        y = self.inner(x)
        return y - y.detach() + self.bias


def batches(n: int = 10, size: int = 64) -> list[Any]:
    x, t = batch(n * size)
    return [(x[i : i + size], t[i : i + size]) for i in range(0, n * size, size)]


def names(result: Any) -> list[str]:
    return [finding.disease for finding in result.left.findings]


def test_a_cure_under_which_the_loss_becomes_infinite_is_none() -> None:
    """Sigmoids bear a rate of 5, and the ReLUs that replace them do not."""
    kobai.manual_seed(0)
    model = mlp(20, [30] * 6, 4, activation="sigmoid", init="xavier")
    found = diagnose(model, batch(), F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=5.0))
    assert [finding.disease for finding in found.roots] == ["vanishing-gradient"]
    result = treat(found, steps=100, data=batches(20, 10))
    assert result.loss_after <= result.loss_before
    assert not result.cured or result.helped
    assert [finding.disease for finding, _ in result.failed][:1] == ["vanishing-gradient"] or result.helped
    assert not result.left.healthy or result.loss_after < 0.9 * result.loss_before


def test_a_diagnosis_that_is_healthy_does_not_outlive_a_training_that_diverges() -> None:
    kobai.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 1))
    x = kobai.randn(640, 20)
    t = x[:, :1] * 2
    few = (x[:64] * 0.1, t[:64] * 0.1)  # on which the steps are short
    data = [(x[i : i + 64] * 3, t[i : i + 64] * 3) for i in range(0, 640, 64)]
    found = diagnose(model, few, F.mse_loss, kobai.optim.SGD(model.parameters(), lr=0.3))
    assert "rate-too-large" not in [finding.disease for finding in found.findings]
    result = treat(found, steps=300, data=data)
    assert math.isinf(result.loss_before)
    assert "rate-too-large" in [finding.disease for finding in result.cured]
    assert result.helped
    alone = treat(diagnose(model, few, F.mse_loss), steps=300, data=[(4 * a, b) for a, b in data])
    assert math.isinf(alone.loss_after)  # no optimiser was given, so that none is blamed
    assert not alone.left.healthy
    assert not alone.cured


def test_numbers_that_are_not_finite_in_a_later_batch() -> None:
    data = batches()
    data[7][0][3, 5] = math.nan
    model = net()
    found = diagnose(model, data[0], F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=0.1))
    assert found.healthy
    result = treat(found, steps=20, data=data)
    assert names(result) == ["non-finite"]
    assert "inputs" in result.left.findings[0].cause
    assert not result.cured
    assert "nothing to cure: what was found needs the reader" in str(result)


@pytest.mark.parametrize("kind", ["classification", "regression", "two classes", "negative"])
@pytest.mark.parametrize("parts", [1, 10])
def test_one_output_for_all_samples_is_not_healthy(kind: str, parts: int) -> None:
    x, labels = batch(640)
    outputs, t, loss_fn = {
        "classification": (4, labels, F.cross_entropy),
        "regression": (1, x[:, :1] + 3, F.mse_loss),
        "two classes": (1, (x[:, :1] > 0).float(), F.binary_cross_entropy_with_logits),
        "negative": (1, x[:, :1].clone(), lambda y, t: ((y - t) ** 2).mean() - 10),
    }[kind]
    data = [(x[i::parts], t[i::parts]) for i in range(parts)]
    kobai.manual_seed(0)
    model = Blind(mlp(20, [30, 30], outputs), outputs)
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.05)
    result = treat(diagnose(model, data[0], loss_fn, optimizer), steps=100, data=data)
    assert names(result)[-1] == "no-better-than-guessing"
    assert not result.left.healthy
    seeing = mlp(20, [30, 30], outputs)
    optimizer = kobai.optim.Adam(seeing.parameters(), lr=0.01)
    result = treat(diagnose(seeing, data[0], loss_fn, optimizer), steps=100, data=data)
    assert result.left.healthy, str(result.left)


def test_a_cure_that_makes_it_worse_is_named_as_a_failure() -> None:
    """A gradient that is long because the weights have far to go: clipped, it takes thousands of steps for ten."""
    kobai.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 1))
    x = kobai.randn(64, 20)
    t = x[:, :1] * 8
    optimizer = kobai.optim.SGD(model.parameters(), lr=4e-3)
    found = diagnose(model, (x, t), lambda y, t: ((y - t) ** 2).sum(), optimizer)
    assert [finding.disease for finding in found.findings] == ["exploding-gradient"]
    result = treat(found, steps=50)
    assert not result.cured
    assert [finding.disease for finding, _ in result.failed] == ["exploding-gradient"]
    assert result.after == result.before
    assert not result.helped
    assert result.clip_grad_norm is None
    assert "no cure: the one against exploding gradient was tried" in str(result)
    assert result.to_dict()["failed"][0]["disease"] == "exploding-gradient"


def test_a_cure_counts_with_those_before_it() -> None:
    """A first cure that uncovers a second disease lowers no loss by itself."""
    result = treat(diagnose(net("normal(0.01)", "sigmoid", depth=7), batch()), steps=100)
    assert [finding.disease for finding in result.cured] == ["collapsed", "vanishing-gradient"]
    assert not result.failed


@pytest.mark.parametrize(
    ("losses", "guess", "expected"),
    [
        ([1.0, 0.5, 0.7, 0.3], 1.0, None),  # up and down, and down in all
        ([3.0, 2.0, 1.5, 1.2], 1.0, ("no-better-than-guessing", "warning")),  # on its way
        ([1.0, 1.0, 1.0, 0.99], 1.0, ("no-better-than-guessing", "error")),
        ([1.0, 2.0, 9.0, 70.0], 1.0, ("rate-too-large", "error")),
        ([1.0, 2.0, math.nan, math.nan], 1.0, ("rate-too-large", "error")),
        ([1.0, 2.0, math.inf, math.inf], None, ("rate-too-large", "error")),
        ([math.nan] * 4, 1.0, ("no-better-than-guessing", "error")),
        ([0.01, 0.02, 0.03, 0.02], 1.0, None),  # learnt, and unsteady
        ([-1.0, -2.0, -3.0, -4.0], None, None),
        ([-1.0, -2.0, -3.0, -4.0], -1.5, None),
        ([-1.0, -1.1, -1.2, -1.4], -1.5, ("no-better-than-guessing", "warning")),
        ([-4.0, -3.0, -2.0, -1.0], -1.5, ("rate-too-large", "error")),
        ([0.5, 0.0, 0.0, 0.0], 0.0, None),  # targets that are all one: there is nothing below it
    ],
)
def test_what_the_losses_of_a_training_show(losses: list[float], guess: float | None, expected: Any) -> None:
    x, t = batch()
    optimizer = kobai.optim.SGD(net().parameters(), lr=0.1)
    end = losses[-1] if math.isfinite(losses[-1]) else math.inf
    seen = outcome(losses, end, guess, [(x, t)], optimizer)
    assert (seen and (seen.disease, seen.severity)) == expected
    if expected and expected[0] == "rate-too-large":  # an optimizer that nobody chose is not blamed
        assert outcome(losses, end, guess, [(x, t)], None).disease == "no-better-than-guessing"
