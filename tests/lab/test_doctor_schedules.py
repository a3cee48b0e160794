"""Schedules beside the length of a training, gradients that are cut off in time, and scales of the first outputs."""

from __future__ import annotations

from typing import Any

import pytest
from rule_examples import seen
from rule_examples_modes import Unrolled, coded, tied
from small_nets import batch, net

import kobai
from kobai import nn, optim
from kobai.lab import Doctor, diagnose
from kobai.lab.doctor.plan import Plan, ahead
from kobai.lab.doctor.rules.recurrence import cut_in_time
from kobai.lab.doctor.rules.scales import overconfident
from kobai.nn import functional as F
from kobai.train import Trainer

pytestmark = pytest.mark.thorough

SCHEDULES: dict[str, Any] = {
    "cosine": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, T_max=40),
    "one cycle": lambda o: optim.lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=400),
    "steps": lambda o: optim.lr_scheduler.MultiStepLR(o, [3, 70, 150]),
    "warm-up": lambda o: optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, (step + 1) / 150)),
    "one after the other": lambda o: optim.lr_scheduler.SequentialLR(
        o,
        [optim.lr_scheduler.LinearLR(o, 0.01, total_iters=120), optim.lr_scheduler.ExponentialLR(o, 0.99)],
        milestones=[120],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_followed_ahead_on_a_copy(name: str) -> None:
    """The rates are those that it then has, whichever way they are found; it stays where it is."""
    optimizer = optim.SGD([kobai.zeros(2, requires_grad=True)], lr=0.1, momentum=0.9)
    optimizer.step()
    scheduler = SCHEDULES[name](optimizer)
    for _ in range(5):
        scheduler.step()
    before = optimizer.param_groups[0]["lr"], scheduler.last_epoch
    rates = ahead(Plan(scheduler, 20))
    assert rates is not None
    assert (optimizer.param_groups[0]["lr"], scheduler.last_epoch) == before
    known = dict(rates)
    assert set(known) >= {5, 6, 20}
    assert max(known) >= 200
    for step in range(6, 201):
        scheduler.step()
        if step in known:
            assert known[step] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("total", "expected"), [(80, None), (200, "warning"), (4000, "error")])
def test_doctor_compares_a_cycle_with_the_training(total: int, expected: str | None) -> None:
    x, t = batch(640)
    data = [(x[i : i + 64], t[i : i + 64]) for i in range(0, 640, 64)]
    model = net(depth=2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total, pct_start=0.5)
    doctor = Doctor(say=lambda message: None)
    steps = len(data) * 3
    Trainer(model, optimizer, scheduler=scheduler, callbacks=[doctor]).fit(data, epochs=3)
    found = [v.finding for v in doctor.visits if v.finding.disease == "schedule-too-long"]
    assert [finding.severity for finding in found] == ([] if expected is None else [expected])
    if found:
        names: dict[str, Any] = {"kobai": kobai, "optimizer": optim.SGD(model.parameters(), lr=0.1)}
        exec(found[0].cure.code, names)
        assert names["scheduler"].total_steps == steps


def test_a_state_that_is_cut_off_now_and_then() -> None:
    """A window as short as the net's memory is found; one that is longer is truncation on purpose."""

    class Windows(Unrolled):
        def __init__(self, each: int) -> None:
            super().__init__(True)
            self.each = each

        def forward(self, x: Any) -> Any:
            h = kobai.zeros(len(x), 16)
            for i, step in enumerate(x.repeat(1, 2).reshape(len(x), 20, 2).unbind(1)):
                h = self.cell(kobai.cat([step, h if i % self.each else h.detach()], 1)).tanh()
            return self.head(h)

    found = cut_in_time(seen(Windows(2)))
    assert found is not None
    assert found.evidence[0].value == 1
    assert found.severity == "warning"
    long = cut_in_time(seen(Windows(10)))
    assert long is None or long.severity == "note"


def test_layers_that_are_shared_and_not_chained_are_left_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kobai.manual_seed(0)
            self.each, self.head = nn.Linear(5, 8), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            first, *others = [F.relu(self.each(part)) for part in x.split(5, 1)]
            return self.head(kobai.cat([first, *[h.detach() for h in others]], 1))

    assert cut_in_time(seen(Shared())) is None


def test_a_table_that_is_too_large_for_a_last_layer_is_made_smaller() -> None:
    view = tied(1.0)
    found = overconfident(view)
    assert found is not None
    assert found.where == ("words",)
    before = view.cost(view.model(*view.inputs), view.target)
    exec(found.cure.code, {"kobai": kobai, "model": view.model})
    assert view.cost(view.model(*view.inputs), view.target) < before / 2
    assert overconfident(tied(0.1)) is None


def test_a_divergence_that_drowns_the_answer_comes_first() -> None:
    view = coded(1.0)
    optimizer = optim.Adam(view.model.parameters(), lr=3e-3)
    found = diagnose(view.model, (*view.inputs, view.target), view.loss_fn, optimizer).findings
    assert found[0].disease == "term-drowned"
