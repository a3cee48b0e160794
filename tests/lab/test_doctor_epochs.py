"""What ``Doctor`` says of a course of training: overfitting, a loss that is lost again, schedules, validation data, NaN."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.lab import Doctor
from kobai.nn import functional as F
from kobai.optim import lr_scheduler
from kobai.train import NonFiniteError, Trainer, mlp
from kobai.utils.data import DataLoader, TensorDataset


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Doctor has the time for all its looks, however short the training and slow the machine."""
    monkeypatch.setattr(Doctor, "_clock", staticmethod(float))


def samples(n: int, noise: float = 0.0, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 12)).astype(np.float32)
    t = (x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0)
    t = np.where(rng.random(n) < noise, rng.integers(0, 4, n), t)
    return kobai.from_numpy(x), kobai.from_numpy(t)


def watched(
    train: Any,
    held: Any,
    epochs: int,
    model: Any = None,
    lr: float = 0.1,
    schedule: Any = None,
    loss_fn: Any = F.cross_entropy,
    optimizer: Any = kobai.optim.SGD,
    every: int = 20,
    **options: Any,
) -> Doctor:
    kobai.manual_seed(0)
    model = model or mlp(12, [32], 4)
    doctor, rule = Doctor(every=every, say=str), optimizer(model.parameters(), lr=lr, **options)
    scheduler = None if schedule is None else schedule(rule)
    trainer = Trainer(model, rule, loss_fn, scheduler=scheduler, callbacks=[doctor])
    loader = DataLoader(TensorDataset(*train), batch_size=32, shuffle=True)
    with contextlib.suppress(NonFiniteError):
        trainer.fit(loader, TensorDataset(*held), epochs=epochs)
    return doctor


def roots(doctor: Doctor) -> list[str]:
    return [visit.finding.disease for visit in doctor.visits if visit.finding.follows is None]


HELD = samples(200, seed=1)


def test_a_training_that_goes_well_is_left_alone() -> None:
    assert watched(samples(600), HELD, 6).visits == []
    noisy = watched(samples(600, 0.2), samples(200, 0.2, seed=1), 6)
    assert noisy.visits == []
    dropout = mlp(12, [64, 64], 4, dropout=0.5)
    assert watched(samples(600), HELD, 8, dropout).visits == []
    cosine = watched(samples(600), HELD, 10, schedule=lambda rule: lr_scheduler.CosineAnnealingLR(rule, T_max=10))
    assert cosine.visits == []


def test_overfitting() -> None:
    doctor = watched(samples(100, 0.4), HELD, 40, mlp(12, [256, 256], 4), 3e-3, optimizer=kobai.optim.Adam)
    assert "overfitting" in roots(doctor)
    (visit,) = (visit for visit in doctor.visits if visit.finding.disease == "overfitting")
    assert visit.epoch < 40, "it is said when it is seen"


def test_a_loss_that_is_lost_again_is_the_fault_of_the_rate() -> None:
    rates = [1.0] * 4 + [100.0] * 4
    doctor = watched(samples(600), HELD, 7, schedule=lambda rule: lr_scheduler.LambdaLR(rule, lambda e: rates[e]))
    assert roots(doctor)[0] == "falls-back"
    assert "raised from 0.1" in doctor.visits[0].finding.cause or "falls-back" in roots(doctor)


def test_a_net_that_dies_in_training_was_not_ill() -> None:
    doctor = watched(samples(600), HELD, 3, mlp(12, [64, 64, 64], 4), 1.0, optimizer=kobai.optim.Adam)
    found = {visit.finding.disease: visit.finding for visit in doctor.visits}
    assert "spoilt-by-steps" in found
    assert "the learning rate is too large" in found["spoilt-by-steps"].cause
    assert all(finding.follows for name, finding in found.items() if name in ("dying-relu", "exploding-activations"))


def test_decay_that_takes_the_weights_away() -> None:
    doctor = watched(samples(600), HELD, 8, mlp(12, [32, 32], 4), 0.1, weight_decay=0.5)
    causes = [visit.finding.cause for visit in doctor.visits if visit.finding.disease == "spoilt-by-steps"]
    assert causes
    assert "weight decay 0.5" in causes[0]


def test_a_schedule_that_ends_too_early() -> None:
    doctor = watched(samples(600), HELD, 8, lr=0.01, schedule=lambda rule: lr_scheduler.StepLR(rule, 1, gamma=0.1))
    assert "schedule-ended" in roots(doctor)


@pytest.mark.parametrize(
    ("held", "disease"),
    [
        ((20 * HELD[0] + 3, HELD[1]), "validation-prepared-otherwise"),
        ((HELD[0], (HELD[1] + 1) % 4), "validation-labelled-otherwise"),
        (tuple(part[:150] for part in samples(600)), "validation-seen"),
    ],
)
def test_validation_data_that_are_not_like_the_training_data(held: Any, disease: str) -> None:
    assert roots(watched(samples(600), held, 6))[0] == disease


def test_validation_that_is_easier() -> None:
    """The validation samples lie far from the borders between classes, and their labels are not noisy."""
    x, t = samples(1000, seed=1)
    far = (x[:, 0].abs() > 0.8) & (x[:, 1].abs() > 0.8)
    assert "validation-easier" in roots(watched(samples(600, 0.3), (x[far], t[far]), 6))


def test_averages_that_stand_still() -> None:
    model = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32, momentum=1e-5), nn.ReLU(), nn.Linear(32, 4))
    nn.init.constant_(model[0].bias, 4.0)
    assert "evaluation-differs" in roots(watched(samples(600), HELD, 4, model))


@pytest.mark.parametrize("place", ["data", "loss", "layer"])
def test_numbers_that_are_not_finite_now_and_then(place: str) -> None:
    x, t = samples(600)
    model = mlp(12, [32], 4)
    if place == "data":
        x[317, 3] = float("nan")

    def loss_fn(y: Any, t: Any) -> Any:
        return -kobai.log(kobai.softmax(8 * y, 1))[kobai.arange(len(t)), t].mean()

    options: dict[str, Any] = {"loss": {"loss_fn": loss_fn, "lr": 1.0}, "layer": {"lr": 1e30}}.get(place, {})
    doctor = watched((x, t), HELD, 6, model, every=1000, **options)
    findings = [visit.finding for visit in doctor.visits if visit.finding.disease == "non-finite"]
    assert len(findings) == 1
    words = {"data": "x.isfinite()", "loss": "clamp", "layer": "model.load_state_dict"}[place]
    assert words in findings[0].cure.code


def test_random_streams_stay_as_they_are() -> None:
    """Looking at validation data that are shuffled, and at copies, changes nothing in the training."""
    ends = []
    for callbacks in ([], [Doctor(every=5, say=str)]):
        kobai.manual_seed(3)
        model = mlp(12, [32], 4, dropout=0.2)
        trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=callbacks)
        held = DataLoader(TensorDataset(50 * HELD[0], HELD[1]), batch_size=20, shuffle=True)
        trainer.fit(DataLoader(TensorDataset(*samples(600)), batch_size=32, shuffle=True), held, epochs=4)
        ends.append(model[-1].weight.detach().numpy().copy())
    assert np.array_equal(*ends)


def test_what_a_doctor_costs() -> None:
    """At most 8 % more passes of the net, also where validation gives reason for doubt."""
    passes = []
    for callbacks in ([], [Doctor(say=str)]):
        calls: list[int] = []
        model = mlp(12, [32], 4)
        model[0].register_forward_pre_hook(lambda module, args, calls=calls: calls.append(len(args[0])))
        trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=callbacks, capture=False)
        train = DataLoader(TensorDataset(*samples(1600)), batch_size=32, shuffle=True)
        trainer.fit(train, TensorDataset(20 * HELD[0], HELD[1]), epochs=8)
        passes.append(sum(calls))
    assert passes[1] <= 1.08 * passes[0]
    assert passes[0] > 8 * 1600
