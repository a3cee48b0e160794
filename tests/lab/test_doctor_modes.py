"""Hand-written gradients, the two modes, states and the clock of trials: what the doctor tells apart."""

from __future__ import annotations

from typing import Any

import pytest
from rule_examples import T, X, seen, sgd
from rule_examples_modes import Between, applied, body_in_evaluation
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.lab.doctor import trials
from kobai.lab.doctor.rules.backward import wrong_backward
from kobai.lab.doctor.rules.modes import kept, noisy
from kobai.nn import functional as F


@pytest.mark.parametrize(
    ("forward", "backward", "severity"),
    [
        (lambda x: F.softplus(x), lambda dy, x: dy * (1 - x.sigmoid()), "error"),
        (lambda x: x.clamp(min=0), lambda dy, x: dy * (x < 0).float(), "error"),
        (lambda x: x.view_as(x), lambda dy, x: -0.3 * dy, "note"),  # reversal
        (lambda x: x * x, lambda dy, x: dy * x, "note"),  # a lost factor, or a scale
        (lambda x: x.clone(), lambda dy, x: dy.clamp(-1e-3, 1e-3), "note"),
        (lambda x: x**3, lambda dy, x: 3 * x * x * dy, None),
        (lambda x: x.clamp(min=0), lambda dy, x: dy * (x > 0).float(), None),
        (lambda x: (4 * x).round() / 4, lambda dy, x: dy, None),  # straight through
        (lambda x: x.clamp(min=0.1), lambda dy, x: dy, None),  # also where it is flat
        (lambda x: (x > 0).float(), lambda dy, x: dy / (1 + x.abs()) ** 2, None),  # a surrogate, as for spikes
    ],
)
def test_a_backward_beside_finite_differences(forward: Any, backward: Any, severity: str | None) -> None:
    found = wrong_backward(seen(applied(forward, backward)))
    assert (found and found.severity) == severity
    if found is not None:
        assert "Own" in found.cause


def test_a_function_that_takes_no_doubles_is_examined_in_single_precision() -> None:
    def single(x: Any) -> Any:
        if x.dtype != kobai.float32:
            raise TypeError("float32 only")
        return x.exp()

    assert wrong_backward(seen(applied(single, lambda dy, x: dy * x.exp()))) is None
    found = wrong_backward(seen(applied(single, lambda dy, x: dy * x)))
    assert found is not None
    assert found.severity == "error"


def test_a_gradient_of_one_argument_alone_is_looked_at_by_itself() -> None:
    """Of a product of two arguments one has the right derivative."""

    class Product(kobai.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any) -> Any:
            ctx.save_for_backward(x, weight)
            return x @ weight

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            x, weight = ctx.saved_tensors
            return dy @ weight.t(), x.t() @ dy.abs()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(0.2 * kobai.randn(20, 4))

        def forward(self, x: Any) -> Any:
            return Product.apply(x * self.weight[:, 0], self.weight)

    found = wrong_backward(seen(Net()))
    assert found is not None
    assert 0 < found.evidence[0].value < 0.6


def test_dropout_that_goes_on_in_evaluation_is_found_and_named() -> None:
    model = Between(lambda net, h: F.dropout(F.relu(h), 0.4))
    found = diagnose(model, batch(), F.cross_entropy, kobai.optim.Adam(model.parameters(), lr=3e-3), quick=True)
    assert [f.disease for f in found.findings] == ["random-in-evaluation"]
    assert found.findings[0].where == ("head",)
    asks = Between(lambda net, h: F.dropout(F.relu(h), 0.4, training=net.training))
    assert noisy(seen(asks)) is None
    assert kept(seen(asks)) is None


def test_noise_that_is_learnt_is_left_alone_and_a_tuple_is_noted() -> None:
    class Coder(nn.Module):
        def __init__(self, learnt: bool) -> None:
            super().__init__()
            kobai.manual_seed(0)
            self.encode, self.spread, self.decode = nn.Linear(20, 6), nn.Linear(20, 6), nn.Linear(6, 20)
            self.learnt = learnt

        def forward(self, x: Any) -> Any:
            mean, spread = self.encode(x), self.spread(x)
            size = (0.5 * spread).exp() if self.learnt else 0.3
            return self.decode(mean + size * kobai.randn_like(mean)), mean

    def loss_fn(y: Any, t: Any) -> Any:
        return F.mse_loss(y[0], t)

    assert noisy(seen(Coder(True), (X, X), loss_fn)) is None
    found = noisy(seen(Coder(False), (X, X), loss_fn))
    assert found is not None
    assert found.severity == "note"


@pytest.mark.parametrize("overridden", [False, True])
def test_training_mode_is_given_back(overridden: bool) -> None:
    """Left in eval() by hand, or by a train() of the model's own; the cure is tried, and helps."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kobai.manual_seed(0)
            parts = [p for _ in range(5) for p in (nn.Linear(20, 20, bias=False), nn.BatchNorm1d(20), nn.ReLU())]
            self.body, self.head = nn.Sequential(*parts), nn.Linear(20, 4)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            if overridden:
                self.body.eval()
            return self

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x))

    model = Body().train()
    model.body.eval()
    found = diagnose(model, batch(), F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=0.1))
    first = found.findings[0]
    assert first.disease == "left-in-evaluation"
    assert first.tried is not None
    assert first.tried.helped
    assert not model.body.training
    names: dict[str, Any] = {"model": model, "nn": nn}
    exec(first.cure.code, names)
    assert all(module.training for module in model.modules())
    model.eval()
    assert not any(module.training for module in model.modules())
    again = diagnose(model, batch(), F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=0.1))
    assert "left-in-evaluation" not in [f.disease for f in again.findings]  # all of it in eval(): it has not begun


def test_frozen_norms_with_averages_of_their_own_inputs_are_healthy() -> None:
    view = body_in_evaluation(True)
    assert "left-in-evaluation" not in [f.disease for f in diagnose(view.model, (X, T), quick=True).findings]


def test_trials_count_the_processor_time_of_their_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other things gives a trial as many steps as a quiet one, up to a bound on the wall."""
    model, case = net(depth=2), seen(optimizer=sgd(0.1), trials=True).trials.case  # type: ignore[union-attr]
    clock = {"thread": 0.0, "wall": 0.0}

    def read(which: str, step: float) -> Any:
        def now() -> float:
            clock[which] += step
            return clock[which]

        return now

    def steps(thread: float, wall: float) -> int:
        monkeypatch.setattr(trials.time, "thread_time", read("thread", thread))
        monkeypatch.setattr(trials.time, "perf_counter", read("wall", wall))
        patient = trials.Patient(*trials.copy_of(model, kobai.optim.SGD(model.parameters(), lr=0.1)))
        return len(trials.train(patient, case, [case.batch], 50, seconds=1.0))

    assert steps(0.001, 0.1) == 50  # slow by the clock on the wall alone
    assert steps(0.3, 0.3) == 4
    assert steps(0.001, 1.0) < 15  # but nobody waits for ever
