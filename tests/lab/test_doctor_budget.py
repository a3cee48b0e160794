"""What a Doctor takes of a training: counted by a clock that stands still but for the steps and examinations counted here."""

from __future__ import annotations

import math
from typing import Any

import pytest
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import Doctor
from kobai.lab.doctor.beginning import ON_COPIES
from kobai.lab.doctor.budget import LEAST, Budget
from kobai.lab.doctor.diseases import OVER_EPOCHS
from kobai.lab.doctor.judging import Round
from kobai.lab.doctor.trials import Trials
from kobai.train import Trainer

STEP, EXAMINATION = 1e-3, 2e-3


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds of processor time that training and Doctor have taken."""
    taken = {"training": 0.0, "doctor": 0.0}
    monkeypatch.setattr(Doctor, "_clock", staticmethod(lambda: sum(taken.values())))
    made, trained = Round.step, Trials._trained

    def step(self: Round) -> None:
        # What is asked of a few losses takes next to nothing.
        taken["doctor"] += EXAMINATION * (self.due[0] not in OVER_EPOCHS)
        made(self)

    def _trained(self: Trials, change: Any, limit: int, batches: Any) -> Any:
        taken["doctor"] += limit * STEP
        return trained(self, change, limit, batches)

    monkeypatch.setattr(Round, "step", step)
    monkeypatch.setattr(Trials, "_trained", _trained)
    return taken


def fitted(doctor: Doctor, watch: dict[str, float], steps: int, model: Any = None, seconds: float = STEP) -> None:
    model = model or net(depth=1)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[doctor])
    train = trainer.train_step

    def train_step(batch: Any) -> Any:
        watch["training"] += seconds
        return train(batch)

    trainer.train_step = train_step  # type: ignore[method-assign]
    trainer.fit([batch()] * 50, epochs=steps // 50)


@pytest.mark.parametrize("steps", [100, 2000])
def test_a_doctor_takes_no_more_than_its_share(watch: dict[str, float], steps: int) -> None:
    doctor = Doctor(say=str)
    fitted(doctor, watch, steps)
    assert watch["training"] == pytest.approx(steps * STEP)
    # The first look is made in any case: some thirty examinations without a pass of the net.
    assert watch["doctor"] <= max(0.08 * watch["training"], 35 * EXAMINATION) + EXAMINATION
    assert watch["doctor"] > 0.02 * watch["training"]
    assert doctor._budget.spent == pytest.approx(watch["doctor"])
    assert doctor._budget.training == pytest.approx(watch["training"])


def test_what_does_not_fit_is_said(watch: dict[str, float]) -> None:
    doctor = Doctor(say=str)
    fitted(doctor, watch, 50)
    for examination in ON_COPIES:
        assert examination.right in doctor.unexamined
        assert f"whether {examination.right}" in str(doctor)


class Hidden(nn.Module):
    """A layer that is not registered."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.others, self.last = nn.Linear(20, 30), [nn.Linear(30, 30)], nn.Linear(30, 4)

    def forward(self, x: Any) -> Any:
        return self.last(kobai.relu(self.others[0](kobai.relu(self.first(x)))))


def test_what_only_copies_show_is_found_where_there_is_time(watch: dict[str, float]) -> None:
    doctor, model = Doctor(say=str), Hidden()
    fitted(doctor, watch, 100, model, seconds=1000 * STEP)
    assert doctor._budget.pace == pytest.approx(1000 * STEP)
    assert doctor.unexamined, "a trial takes more than there is"
    doctor = Doctor(say=str, share=math.inf)
    fitted(doctor, watch, 100, model)
    assert doctor.unexamined == ()
    assert "not-registered" in [visit.finding.disease for visit in doctor.visits]


def test_large_models_are_not_copied(watch: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kobai.lab.doctor.beginning.LARGE", 100)
    doctor = Doctor(say=str, share=math.inf)
    fitted(doctor, watch, 50)
    assert any("parameters are not copied in training" in text for text in doctor.unexamined)


def test_a_step_that_is_looked_at_counts_for_what_it_takes_longer() -> None:
    now = [0.0]
    budget = Budget(0.1, lambda: now[0])
    for observed, seconds in ((False, 1.0), (True, 3.0), (False, 1.0)):
        now[0] += seconds
        budget.steps(1, observed, 10)
        with budget.examining():
            now[0] += 0.25
    assert (budget.training, budget.spent, budget.pace) == (3.0, 2.75, 1.0)
    assert budget.left() == pytest.approx(0.1 * (3 + 10) - 2.75), "of what is planned, in advance"
    assert budget.left(5.0) == 2.25
    assert LEAST < 0.02


def test_a_share_is_checked() -> None:
    with pytest.raises(ValueError, match="share"):
        Doctor(share=0)
