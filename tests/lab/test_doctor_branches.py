"""What is ill, and what only looks so: branches, far targets, cuts; and how a loss reads its targets."""

from __future__ import annotations

from typing import Any

import pytest
from rule_examples import seen
from small_nets import batch

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.lab.doctor.rules import activations, counted, data, gradients, optimisers, outputs, reads
from kobai.nn import functional as F

pytestmark = pytest.mark.thorough


class Gated(nn.Module):
    """A body that is multiplied by a gate with weights of 0, called before or after it; or follows it."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.gate, self.body, self.head = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 4)
        nn.init.zeros_(self.gate.weight)
        self.order = order

    def forward(self, x: Any) -> Any:
        if self.order == "series":
            return self.head(F.relu(self.body(self.gate(x))))
        if self.order == "gate first":
            gate = self.gate(x)
            return self.head(gate * F.relu(self.body(x)))
        body = F.relu(self.body(x))
        return self.head(body * self.gate(x))


@pytest.mark.parametrize("order", ["gate first", "body first"])
def test_a_gate_that_begins_at_0_is_passed_by(order: str) -> None:
    kobai.manual_seed(0)
    assert activations.collapsed(seen(Gated(order))) is None
    assert activations.collapsed(seen(Gated("series"))) is not None


class Branches(nn.Module):
    """A small branch beside one of usual size; or before it."""

    def __init__(self, series: bool) -> None:
        super().__init__()
        self.small, self.own = nn.Linear(20, 20), nn.Linear(20, 20)
        self.mixed, self.head = nn.Linear(20, 20), nn.Linear(20, 4)
        self.series = series

    def forward(self, x: Any) -> Any:
        small = 1e-4 * self.small(x)
        return self.head(self.mixed(self.own(small) if self.series else self.own(x) + small).tanh())


def test_a_gradient_that_comes_back_by_another_branch_has_not_vanished() -> None:
    kobai.manual_seed(0)
    assert gradients.vanishing(seen(Branches(series=False))) is None
    assert gradients.vanishing(seen(Branches(series=True))) is not None


@pytest.mark.parametrize("loss_fn", [F.huber_loss, F.l1_loss])
def test_a_few_far_targets_do_not_make_the_scale_of_a_loss_with_a_bounded_slope(loss_fn: Any) -> None:
    x, _ = batch(200)
    t = kobai.randn(200, 1)
    t[::20] += 300.0
    model = nn.Linear(20, 1)
    assert data.target_scale(seen(model, (x, t), loss_fn)) is None
    assert data.target_scale(seen(model, (x, t), F.mse_loss)) is not None
    assert data.target_scale(seen(model, (x, t + 300), loss_fn)) is not None


def shrunk(factor: float) -> nn.Module:
    layers = [part for _ in range(3) for part in (nn.Linear(20, 20), nn.Tanh())]
    with kobai.no_grad():
        for layer in layers[::2]:
            layer.weight *= factor
    return nn.Sequential(*layers, nn.Linear(20, 4))


@pytest.mark.parametrize(("rate", "severity"), [(1e-2, "warning"), (1e-6, "error")])
def test_what_only_looks_ill_is_no_error_in_a_net_that_learns(rate: float, severity: str) -> None:
    """Without trials, too: a copy is trained for some steps on the batch."""
    kobai.manual_seed(0)
    model = shrunk(0.1)
    found = diagnose(model, batch(), F.cross_entropy, kobai.optim.Adam(model.parameters(), lr=rate), quick=True)
    (collapsed,) = [finding for finding in found.findings if finding.disease == "collapsed"]
    assert collapsed.severity == severity, str(found)


def test_a_large_step_of_a_net_that_learns_is_no_error() -> None:
    """The last layer of a net with batch norms bears a rate at which its first steps rise and come back."""
    x, t = batch(256)

    def severities(rate: float) -> list[str]:
        kobai.manual_seed(0)
        hidden = [part for n in (20, 64) for part in (nn.Linear(n, 64), nn.BatchNorm1d(64), nn.ReLU())]
        model = nn.Sequential(*hidden, nn.Linear(64, 4))
        optimizer = kobai.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)
        found = diagnose(model, (x, t), F.cross_entropy, optimizer, quick=True)
        return [finding.severity for finding in found.findings if finding.disease == "rate-too-large"]

    assert severities(1.0) == ["warning"]
    assert severities(10.0) == ["error"]


class Rounded(nn.Module):
    """Whole numbers between two layers: nothing comes back through them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.second(kobai.round(4 * self.first(x).tanh())).tanh())


def test_a_gradient_of_exactly_0_has_not_vanished() -> None:
    kobai.manual_seed(0)
    model = Rounded()
    found = diagnose(model, batch(), F.cross_entropy, kobai.optim.Adam(model.parameters(), lr=1e-3), quick=True)
    assert [finding.disease for finding in found.findings] == ["standing"], str(found)


class Centres(nn.Module):
    """A loss with a weight for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(kobai.randn(4, 4))

    def forward(self, y: Any, t: Any) -> Any:
        return F.cross_entropy(y @ self.centres, t)


def test_weights_of_the_loss_are_called_so_and_the_cure_holds_them() -> None:
    kobai.manual_seed(0)
    model, loss_fn = nn.Linear(20, 4), Centres()
    optimizer = kobai.optim.Adam(model.parameters(), lr=1e-3)
    (found,) = diagnose(model, batch(), loss_fn, optimizer, quick=True).findings
    assert found.disease == "not-registered"
    assert "loss function has weights of its own, Centres.centres" in found.cause
    exec(found.cure.code, {"optimizer": optimizer, "loss_fn": loss_fn})
    assert diagnose(model, batch(), loss_fn, optimizer, quick=True).healthy


def ranked(y: Any, t: Any) -> Any:
    return F.margin_ranking_loss(y[:, 0], y[:, 1], t, margin=0.2)


def told(y: Any, t: Any) -> Any:
    """What is rewarded alone is learnt: a product that has no least value, and no sides."""
    return -(t * y.log_softmax(1)[:, 0]).mean()


@pytest.mark.parametrize(
    ("loss_fn", "ill"),
    [
        (ranked, True),
        (lambda y, t: (1 - t * (y[:, 0] - y[:, 2])).relu().mean(), True),
        (lambda y, t: ranked(y, 2 * t - 1), False),
        (told, False),
        (lambda y, t: (t * ((y - 1) ** 2).sum(1)).mean(), False),
    ],
)
def test_margins_of_targets_0_and_1_leave_the_zeros_out(loss_fn: Any, ill: bool) -> None:
    kobai.manual_seed(0)
    x, t = batch()
    found = counted.class_left_out(seen(nn.Linear(20, 4), (x, (t > 1).float()), loss_fn))
    assert (found is not None) == ill
    if found is not None:
        names: dict[str, Any] = {"t": (t > 1).float()}
        exec(found.cure.code, names)
        assert set(names["t"].tolist()) == {-1.0, 1.0}


def read(layout: str) -> Any:
    def loss_fn(y: Any, t: Any) -> Any:
        if layout == "rows":
            return F.cross_entropy(y.reshape(-1, 5), t.reshape(-1))
        if layout == "moved":
            return F.cross_entropy(y.movedim(1, -1).reshape(-1, 5), t.reshape(-1))
        return F.cross_entropy(
            y, t, label_smoothing=0.1, weight=kobai.arange(1.0, 6.0) if layout == "weighed" else None
        )

    return loss_fn


@pytest.mark.parametrize(
    ("layout", "ill"), [("rows", True), ("moved", False), ("as they are", False), ("weighed", False)]
)
@pytest.mark.parametrize("shape", [(12,), (4, 6)])
def test_scores_of_one_class_are_not_read_as_those_of_all(layout: str, ill: bool, shape: tuple[int, ...]) -> None:
    kobai.manual_seed(0)
    conv = nn.Conv1d if len(shape) == 1 else nn.Conv2d
    x, t = kobai.randn(16, 3, *shape), kobai.randint(0, 5, (16, *shape))
    found = reads.read_otherwise(seen(conv(3, 5, 1), (x, t), read(layout)))
    assert (found is not None) == ill
    assert found is None or "y.movedim(1, -1).reshape(-1, 5)" in found.cure.code


@pytest.mark.parametrize(("share", "named"), [(1e-2, True), (2e-2, False)])
def test_a_rate_that_was_multiplied_by_itself_is_named(share: float, named: bool) -> None:
    def made(parameters: Any) -> Any:
        optimizer = kobai.optim.SGD(parameters, lr=1e-2)
        kobai.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: share)
        return optimizer

    found = optimisers.schedule_left(seen(optimizer=made))
    assert (found is not None and "LambdaLR" in found.cause and found.severity == "warning") == named


class Partners(nn.Module):
    """Of two views of each sample: likenesses of the first with its own second, then with those of the last batch."""

    others: kobai.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 8))
        self.register_buffer("others", F.normalize(kobai.randn(8, 8), dim=1))

    def forward(self, x: Any) -> Any:
        first, second = (F.normalize(self.encoder(view), dim=1) for view in (x, x + 0.05 * kobai.randn_like(x)))
        scores = kobai.cat([(first * second).sum(1, keepdim=True), first @ self.others.T], 1) / 0.1
        if self.training:
            self.others = second[:8].detach()
        return scores


def test_one_target_is_right_where_scores_compare_inputs_with_each_other() -> None:
    kobai.manual_seed(0)
    x, t = kobai.randn(64, 10), kobai.zeros(64, dtype=kobai.int64)
    for quick in (True, False):
        model = Partners()
        optimizer = kobai.optim.Adam(model.parameters(), lr=1e-3)
        found = diagnose(model, (x, t), F.cross_entropy, optimizer, quick=quick).findings
        assert not {"no-signal", "cannot-fit", "bounded-scores"} & {f.disease for f in found}
    assert data.alike_targets(seen(nn.Linear(10, 9), (x, t))) is not None


class Experts(nn.Module):
    """Two experts, and a gate that is called last: what it can say alone has bounds, and the experts have none."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1)) for _ in range(2)])
        self.gate = nn.Linear(6, 2)

    def forward(self, x: Any) -> Any:
        answers = kobai.cat([expert(x) for expert in self.experts], 1)
        return (answers * F.softmax(self.gate(x), dim=1)).sum(1, keepdim=True)


def test_an_end_is_not_bounded_where_a_copy_goes_beyond() -> None:
    kobai.manual_seed(0)
    x = kobai.randn(256, 6)
    t = 3 * x[:, :1] - 2 * x[:, 1:2]
    found = seen(Experts(), (x, t), F.mse_loss, lambda parameters: kobai.optim.Adam(parameters, lr=3e-2))
    assert outputs.bounded_scores(found) is None
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    assert outputs.bounded_scores(seen(model, (x, t), F.mse_loss)) is not None


def test_a_cure_that_does_not_fit_is_none() -> None:
    kobai.manual_seed(0)
    x, t = kobai.randn(64, 3, 4, 4), 4 * kobai.rand(64, 3, 8, 8) - 2
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Upsample(scale_factor=2))
    for finding in diagnose(model, (x, t), F.mse_loss, kobai.optim.SGD(model.parameters(), lr=0.1)).findings:
        assert finding.tried is None or not finding.tried.helped or finding.tried.after < finding.tried.before
