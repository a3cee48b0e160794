"""What the doctor says is true: no loss that guessing would reach is called healthy, no cure that does not help a cure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from small_nets import Called, batch, net

import kobai
from kobai import nn
from kobai.lab import Doctor, diagnose, treat
from kobai.lab.doctor.rules.course import falls, outcome
from kobai.lab.doctor.rules.updates import PATIENCE
from kobai.nn import functional as F
from kobai.train import Trainer, mlp

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Doctor has the time for all its looks, however short the training and slow the machine."""
    monkeypatch.setattr(Doctor, "_clock", staticmethod(float))


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


def test_a_loss_that_is_no_number_is_left_where_only_the_reader_can_mend_it() -> None:
    """The logarithm of what may be negative; and weights that are NaN, which new ones do mend."""
    for loss_fn in (lambda y, t: F.nll_loss(y.log(), t), lambda y, t: F.cross_entropy(y, t) / 0.0):
        model = net()
        optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
        result = treat(diagnose(model, batch(), loss_fn, optimizer), steps=10)
        assert math.isinf(result.loss_after)
        assert not result.cured
        assert "non-finite" in names(result)
        assert result.left.errors
        assert "needs the reader" in str(result)
    model = net("constant(nan)")
    result = treat(diagnose(model, batch(), F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=0.1)), steps=200)
    assert [finding.disease for finding in result.cured] == ["non-finite"]
    assert result.left.healthy


@pytest.mark.few(4)
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
    (finding,) = found.findings
    assert (finding.disease, finding.severity, found.healthy) == ("exploding-gradient", "note", True)
    assert finding.sure.startswith("found, but changing it did not help")
    result = treat(found, steps=50)
    assert not result.failed  # what the diagnosis has tried in vain is not tried again
    found = diagnose(model, (x, t), lambda y, t: ((y - t) ** 2).sum(), optimizer, quick=True)
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


class Ending(nn.Module):
    """What a model's forward() does last, as a function."""

    def __init__(self, model: nn.Module, function: Any) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x: Any) -> Any:
        return self.function(self.model(x))


def two_classes() -> tuple[Any, Any]:
    x, _ = batch()
    return x, (x[:, :1] > 0).float()


@pytest.mark.few(12)
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("rate", [1e-4, 0.1])
@pytest.mark.parametrize(
    ("how", "kind"),
    [(how, kind) for kind in ("softmax", "smoothed labels") for how in ("module", "function", "nested")]
    + [(how, kind) for kind in ("sigmoid", "two classes") for how in ("module", "fused", "function", "nested")],
)
def test_scores_that_are_squashed_twice_are_no_fault_of_the_rate(depth: int, rate: float, how: str, kind: str) -> None:
    """Which is what it looked like in a deep net: its steps are small, for two softmaxes pass on little of the gradient."""
    two = kind == "two classes"
    name = "softmax" if kind in ("softmax", "smoothed labels") else "sigmoid"
    loss_fn: Any = F.binary_cross_entropy_with_logits if two else F.cross_entropy
    if kind == "smoothed labels":
        loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    kobai.manual_seed(0)
    model: Any = mlp(20, [30] * depth, 1 if two else 4)
    last = nn.Softmax(dim=1) if name == "softmax" else nn.Sigmoid()
    if how == "module":
        model = nn.Sequential(*model, last)
    elif how == "nested":
        model = nn.Sequential(model, nn.Sequential(last))
    elif how == "function":
        model = Ending(model, kobai.sigmoid if name == "sigmoid" else lambda y: kobai.softmax(y, 1))
    else:
        model[-1].activation = "sigmoid"
    optimizer = kobai.optim.SGD(model.parameters(), lr=rate)
    found = diagnose(model, two_classes() if two else batch(), loss_fn, optimizer)
    assert [finding.disease for finding in found.roots] == ["bounded-scores"]
    assert name in found.findings[0].cause
    if how != "function":
        exec(found.findings[0].cure.code, {"nn": nn, "model": model})
        again = diagnose(model, two_classes() if two else batch(), loss_fn, optimizer)
        assert "bounded-scores" not in [finding.disease for finding in again.findings]


@pytest.mark.parametrize(
    ("make", "loss_fn"),
    [
        (lambda: Ending(net(), lambda y: F.log_softmax(y, 1)), F.cross_entropy),  # which changes nothing
        (lambda: Ending(net(), lambda y: F.log_softmax(y, 1)), F.nll_loss),
        (lambda: Ending(net(), lambda y: kobai.softmax(y, 1)), lambda y, t: F.nll_loss(y.log(), t)),
        (lambda: nn.Sequential(net(), nn.Softmax(dim=1)), lambda y, t: F.nll_loss(y.log(), t)),
        (lambda: nn.Sequential(net(), nn.Softmax(dim=1)), lambda y, t: F.mse_loss(y, F.one_hot(t, 4).float())),
        (lambda: nn.Sequential(net(), nn.Sigmoid()), lambda y, t: F.binary_cross_entropy(y, F.one_hot(t, 4).float())),
        (lambda: Called(kobai.tanh), F.cross_entropy),
        (net, nn.CrossEntropyLoss(label_smoothing=0.2)),
    ],
)
def test_probabilities_where_they_are_asked_for(make: Any, loss_fn: Any) -> None:
    found = diagnose(make(), batch(), loss_fn)
    assert "bounded-scores" not in [finding.disease for finding in found.findings], str(found)


def test_a_softmax_is_taken_out_and_the_loss_falls_below_its_floor() -> None:
    model = nn.Sequential(*net(depth=2), nn.Softmax(dim=1))
    optimizer = kobai.optim.Adam(model.parameters(), lr=0.01)
    result = treat(diagnose(model, batch(), F.cross_entropy, optimizer), steps=100)
    assert [finding.disease for finding in result.cured] == ["bounded-scores"]
    assert result.loss_after < math.log(1 + 3 / math.e) <= result.loss_before
    assert result.left.healthy
    doctor, _ = fitted(model, optimizer, [batch()] * 3)
    assert "bounded-scores" in [visit.finding.disease for visit in doctor.visits]


def fitted(model: nn.Module, optimizer: Any, data: Any, loss_fn: Any = F.cross_entropy, **options: Any) -> Any:
    doctor = Doctor(say=lambda _: None, **options)
    trainer = Trainer(model, optimizer, loss_fn, callbacks=[doctor], terminate_on_non_finite=False)
    return doctor, trainer.fit(data, epochs=4)


def errors(doctor: Doctor) -> list[str]:
    return [visit.finding.disease for visit in doctor.visits if visit.finding.severity == "error"]


def shallow(seed: int) -> nn.Module:
    kobai.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 4))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("every", [1, 7, 100])
def test_a_rate_is_judged_by_more_than_one_step(seed: int, every: int) -> None:
    """Adam's first steps are long for weights that are small, and the loss falls."""
    model = shallow(seed)
    doctor, history = fitted(model, kobai.optim.Adam(model.parameters(), lr=0.05), batches(20, 32), every=every)
    assert history[-1]["loss"] < 0.3 * history[0]["loss"]
    assert not [visit for visit in doctor.visits if visit.finding.disease == "rate-too-large"]
    assert not errors(doctor)


@pytest.mark.parametrize("rate", [3.0, 30.0])
def test_a_rate_that_is_too_large_is_told(rate: float) -> None:
    model = shallow(0)
    doctor, _ = fitted(model, kobai.optim.Adam(model.parameters(), lr=rate), batches(20, 32))
    assert "rate-too-large" in errors(doctor)
    assert doctor.visits[0].batch == 1  # where it was seen, though it was told later


def test_negative_losses_that_fall() -> None:
    """The logarithm of a density, of which the spread is known, may have any sign."""
    x, _ = batch(640)
    t = x[:, :4].clone()
    data = [(x[i : i + 64], t[i : i + 64]) for i in range(0, 640, 64)]

    def loss_fn(y: Any, t: Any) -> Any:
        return (0.5 * ((y - t) / 0.1) ** 2).mean() / 100 - 2.0

    model = shallow(1)
    optimizer = kobai.optim.Adam(model.parameters(), lr=0.05)
    doctor, history = fitted(model, optimizer, data, loss_fn)
    assert history[-1]["loss"] < history[0]["loss"] < 0
    assert not errors(doctor)
    result = treat(diagnose(shallow(1), data[0], loss_fn), steps=200, data=data)
    assert result.left.healthy, str(result.left)


def test_what_layers_look_like_is_no_error_where_the_loss_falls() -> None:
    """Weights ten times too large saturate tanh, and the last layer learns from its signs."""
    model = shallow(0)
    model[0].weight.data.mul_(30)
    found = diagnose(model, batches()[0], quick=True)
    assert [finding.severity for finding in found.findings if finding.disease == "saturated"] == ["error"]
    doctor, history = fitted(model, kobai.optim.Adam(model.parameters(), lr=0.03), batches(20, 32))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert "saturated" in [visit.finding.disease for visit in doctor.visits]
    assert not errors(doctor)
    still = shallow(0)
    still[0].weight.data.mul_(30)
    doctor, _ = fitted(still, kobai.optim.SGD(still.parameters(), lr=1e-7), batches(20, 32))
    assert "saturated" in errors(doctor)


def test_faults_of_the_data_are_told_at_once_though_the_loss_falls() -> None:
    x, t = batch(640)
    model, said = shallow(0), []
    doctor = Doctor(say=said.append)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[doctor])
    told: list[int] = []
    data = [(x[i : i + 64], kobai.zeros_like(t[:64])) for i in range(0, 640, 64)]
    for part in (data[:1], data):
        trainer.fit(part, epochs=trainer.epoch + 1)
        told.append(len(said))
    assert told == [1, 1]
    assert errors(doctor) == ["no-signal"]


def test_what_is_watched_is_told_in_time_and_not_saved_as_told() -> None:
    model, said = net("normal(0.01)"), []
    doctor, states, counts = Doctor(say=said.append), [], []

    class Watch(kobai.train.Callback):
        def on_batch_end(self, trainer: Any) -> None:
            states.append(doctor.state_dict()["told"])
            counts.append(len(said))

    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[doctor, Watch()])
    trainer.fit([batch()] * 25, epochs=2)
    assert counts == [0] * PATIENCE + [1] * (50 - PATIENCE)
    assert "epoch 1, batch 1: collapsed" in said[0]
    assert states[0] == []
    assert "collapsed" in states[-1]


@pytest.mark.parametrize("data", [[*batches(6), batch(10)], [batch()], [batch(64), batch(100)]], ids=["7", "1", "2"])
def test_losses_of_the_steps_are_those_of_the_training(data: Any) -> None:
    """Though only their sums over an epoch are kept, which begin anew."""
    model = net("normal(0.3)")
    doctor, seen = Doctor(say=lambda _: None), []
    settle, losses = doctor._settle, []

    def noted(patience: int) -> None:
        losses[:] = doctor._losses() or losses
        settle(patience)

    doctor._settle = noted  # type: ignore[method-assign]
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=1e-4), callbacks=[doctor])
    step = trainer.train_step
    trainer.train_step = lambda batch: seen.append(step(batch)) or seen[-1]  # type: ignore[method-assign]
    trainer.fit(data, epochs=2)
    assert len(losses) == 2 * len(data)
    np.testing.assert_allclose(losses, [float(loss.item()) for loss in seen], rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_losses_that_go_up_and_down_fall_or_do_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = 0.2 * rng.normal(size=31)
    assert falls(list(np.linspace(2, 1, 31) + noise))
    assert falls(list(np.linspace(-1, -2, 31) + noise))
    assert not falls(list(np.linspace(1, 2, 31) + noise))
    assert not falls(list(np.linspace(-2, -1, 31) + noise))
    assert not falls([*np.linspace(2, 1, 30), math.nan])


@pytest.mark.thorough
def test_on_every_backend(backend: str) -> None:
    """On strict, as on a GPU, nothing reads the device unasked."""
    model = nn.Sequential(*net(depth=2), nn.Softmax(dim=1))
    optimizer = kobai.optim.Adam(model.parameters(), lr=0.05)
    result = treat(diagnose(model, batch(), F.cross_entropy, optimizer), steps=30)
    assert [finding.disease for finding in result.cured] == ["bounded-scores"]
    doctor, _ = fitted(model, optimizer, [batch()] * 12)
    assert "bounded-scores" in [visit.finding.disease for visit in doctor.visits]


def test_command_line_says_healthy_of_no_loss_that_guessing_has() -> None:
    testing = pytest.importorskip("typer.testing")
    pytest.importorskip("sklearn")
    from kobai.cli import app

    deep = ["--hidden", "30,30,30,30,30,30", "--activation", "sigmoid", "--init", "xavier", "--no-batch-norm"]
    slow = ["--dropout", "0", "--optimizer", "sgd", "--momentum", "0", "--lr", "0.01", "--batch-size", "100"]
    made = testing.CliRunner().invoke(app, ["diagnose", *deep, *slow, "--treat", "--steps", "3"])
    assert made.exit_code == 1, made.output
    assert "left: no better than guessing" in made.stdout
    assert "healthy now" not in made.stdout
