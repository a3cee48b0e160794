"""The time of a diagnosis: trials have a purse, and none is made for what is explained already."""

from __future__ import annotations

from typing import Any

import pytest
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.lab.doctor import diagnosis, judging, trials
from kobai.nn import functional as F

pytestmark = pytest.mark.thorough


def said(model: nn.Module, *, rate: float = 1e-2) -> tuple[Any, list[str]]:
    """A diagnosis, and the trials that it tells of."""
    lines: list[str] = []
    x, t = batch(256)
    optimizer = kobai.optim.Adam(model.parameters(), lr=rate)
    return diagnose(model, (x, t), F.cross_entropy, optimizer, progress=lines.append), lines


def test_no_rate_is_swept_where_a_cure_of_what_is_certain_makes_the_net_learn() -> None:
    softmax = net()
    softmax.append(nn.Softmax(1))
    found, lines = said(softmax)
    assert found.findings[0].disease == "bounded-scores"
    assert lines == ["training a copy: as it is", "training a copy: with the cure of outputs within bounds"]
    assert any("rate" in line for line in said(net(), rate=1e-6)[1])  # nothing explains this one


def test_an_empty_purse_is_told_and_ends_no_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "EXAMINING", 1e-9)
    monkeypatch.setattr(judging, "CURING", 0.0)
    found, lines = said(net(), rate=1e-6)
    assert lines == ["training a copy: as it is"]
    assert "copies train too slowly" in found.notes[-1]
    assert "steps are not too short" in found.notes[-1]
    assert "steps are not too short" not in found.examined


def test_a_slow_net_takes_fewer_steps_in_all_trials_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, t) = net(), batch(256)
    case = diagnosis._checked(model, (x, t), F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=0.1),
                              None, 3, "fp32", None, None)  # fmt: skip
    seconds = iter(range(10_000))
    monkeypatch.setattr(trials.time, "thread_time", lambda: float(next(seconds)))  # one for each step
    monkeypatch.setattr(trials, "SECONDS", 50.5)
    slow = trials.Trials(case)
    assert len(slow.course().losses) == 51
    assert len(slow.course("again").losses) == 51
    assert len(slow.course("a short one", steps=40).losses) == trials.LEAST
    assert len(slow.course("a long one", steps=1000).losses) == 255
    monkeypatch.setattr(trials, "SECONDS", 1e9)
    quick = trials.Trials(case)
    assert len(quick.course().losses) == trials.STEPS
    assert len(quick.course("a short one", steps=40).losses) == 40
