"""What the optimiser does by itself is told from what the net does."""

from __future__ import annotations

from typing import Any

import pytest
from small_nets import batch, net

import kobai
from kobai.lab import Doctor, diagnose
from kobai.nn import functional as F
from kobai.train import Trainer

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Doctor has the time for all its looks, however short the training and slow the machine."""
    monkeypatch.setattr(Doctor, "_clock", staticmethod(float))


OWN = {"optimizer-setting", "weight-decay-too-large", "momentum-too-high", "rate-too-large", "rate-too-small"}


@pytest.mark.parametrize(
    ("disease", "rule", "options"),
    [
        ("weight-decay-too-large", kobai.optim.SGD, {"lr": 0.1, "weight_decay": 1.0}),
        ("weight-decay-too-large", kobai.optim.Adam, {"lr": 1e-2, "weight_decay": 3.0}),
        ("weight-decay-too-large", kobai.optim.AdamW, {"lr": 1e-2, "weight_decay": 30.0}),
        ("momentum-too-high", kobai.optim.SGD, {"lr": 0.5, "momentum": 0.999}),
        ("momentum-too-high", kobai.optim.SGD, {"lr": 0.5, "momentum": 0.999, "nesterov": True}),
        ("rate-too-small", kobai.optim.SGD, {"lr": 0.0}),
        ("rate-too-small", kobai.optim.Adadelta, {"lr": 1e-4}),
        ("rate-too-small", kobai.optim.Adam, {"lr": 1e-9}),  # by far more than the sweep is wide
        ("rate-too-small", kobai.optim.SGD, {"lr": 1e-7, "momentum": 0.9}),
        ("optimizer-setting", kobai.optim.Adam, {"lr": 1e-2, "eps": 1e3}),
        ("optimizer-setting", kobai.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.999}),
        ("rate-too-large", kobai.optim.Adam, {"lr": 3.0}),
        ("rate-too-large", kobai.optim.Adam, {"lr": 3.0, "betas": (0.5, 0.9)}),
        ("rate-too-large", kobai.optim.SGD, {"lr": 30.0, "momentum": 0.9}),
        ("rate-too-large", kobai.optim.SGD, {"lr": 1e4}),
    ],
)
def test_each_option_is_named_and_its_cure_helps(disease: str, rule: Any, options: dict[str, Any]) -> None:
    model = net(depth=2)
    found = diagnose(model, batch(512), F.cross_entropy, rule(model.parameters(), **options))
    first = found.findings[0]
    assert first.disease == disease, str(found)
    assert first.tried is not None
    assert first.tried.helped, str(found)
    assert not {"dying-relu", "collapsed"} & {finding.disease for finding in found.roots}


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (kobai.optim.SGD, {"lr": 0.1, "weight_decay": 1e-3}),
        (kobai.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1}),
        (kobai.optim.SGD, {"lr": 1e-3, "momentum": 0.99}),
        (kobai.optim.SGD, {"lr": 1e-2}),
        (kobai.optim.Adadelta, {"lr": 1.0}),
        (kobai.optim.Adam, {"lr": 3e-4}),
        (kobai.optim.Adam, {"lr": 1e-3, "betas": (0.9, 0.98), "eps": 1e-9}),
        (kobai.optim.RMSprop, {"lr": 1e-3, "alpha": 0.9}),
    ],
)
def test_usual_options_are_healthy(rule: Any, options: dict[str, Any]) -> None:
    model = net(depth=2)
    found = diagnose(model, batch(512), F.cross_entropy, rule(model.parameters(), **options))
    assert not OWN & {finding.disease for finding in found.findings if finding.severity != "note"}, str(found)


def test_a_small_rate_on_a_net_that_is_trained_is_careful() -> None:
    model, data = net(depth=2), batch(512)
    Trainer(model, kobai.optim.Adam(model.parameters(), lr=1e-2)).fit([data] * 100, epochs=1)
    found = diagnose(model, data, F.cross_entropy, kobai.optim.Adam(model.parameters(), lr=5e-5))
    assert not OWN & {finding.disease for finding in found.findings}, str(found)


def test_momentum_is_seen_in_training() -> None:
    model, (x, t) = net(depth=2), batch(640)
    doctor = Doctor(every=10, say=lambda message: None)
    optimizer = kobai.optim.SGD(model.parameters(), lr=1.0, momentum=0.999)
    data = [(x[i::10], t[i::10]) for i in range(10)]
    Trainer(model, optimizer, callbacks=[doctor], terminate_on_non_finite=False).fit(data, epochs=8)
    assert "momentum-too-high" in [visit.finding.disease for visit in doctor.visits]
