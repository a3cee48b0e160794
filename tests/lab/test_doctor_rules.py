"""The doctor's rules, one by one: what they measure, and what they do not take for a disease."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_nets import Called, batch, net

import kobai
from kobai import nn
from kobai.lab import Probe, diagnose, treat
from kobai.lab.doctor.cures import Patient, set_rate
from kobai.lab.doctor.diseases import DISEASES
from kobai.lab.doctor.findings import Evidence
from kobai.lab.doctor.rules.data import unshuffled
from kobai.lab.doctor.rules.units import twins
from kobai.lab.doctor.rules.view import View, stages
from kobai.nn import functional as F
from kobai.train import Trainer

pytestmark = pytest.mark.thorough


def test_labels_that_have_no_score() -> None:
    x, t = batch()
    for labels, worst in ((t + 1, 4), (t - 1, -1)):
        found = diagnose(net(), (x, labels))
        assert [finding.disease for finding in found.findings] == ["wrong-labels"]
        assert found.findings[0].evidence[0].value == worst
        assert found.losses == ()
    namespace = {"t": t + 1}
    exec(diagnose(net(), (x, t + 1)).findings[0].cure.code, namespace)
    assert kobai.equal(namespace["t"], t)
    left_out = t.clone()
    left_out[::2] = -100
    assert diagnose(net(), (x, left_out)).healthy


def test_order_is_told_from_chance() -> None:
    """The number of changes of label: its mean and variance over all orders are those of the formula."""
    labels = np.array([0] * 5 + [1] * 4 + [2] * 3)
    rng = np.random.default_rng(0)
    changes = [(np.diff(rng.permutation(labels)) != 0).sum() for _ in range(40_000)]
    n, counts = 12.0, np.array([5.0, 4.0, 3.0])
    squares, cubes = (counts**2).sum(), (counts**3).sum()
    assert np.mean(changes) == pytest.approx(n - squares / n, rel=0.01)
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    assert np.var(changes) == pytest.approx(variance, rel=0.03)
    x, t = kobai.randn(60, 20), kobai.arange(60) // 20
    reading = diagnose(net(), (x, t)).reading

    def view(labels: Any) -> View:
        return View(net(), [reading], [x], labels, F.cross_entropy)

    found = unshuffled(view(t))  # 3 of 4 classes, one after the other
    assert found is not None
    assert found.evidence[0].value == pytest.approx(
        (2 - 40) / (((1200 * (1200 + 3660) - 2 * 60 * 24000 - 60**3) / 3600 / 59) ** 0.5)
    )
    assert unshuffled(view(t[kobai.randperm(60)])) is None
    assert unshuffled(view(kobai.arange(60) // 15)) is None  # all classes are there


def alike(model: nn.Module) -> dict[str, float]:
    x, t = batch()
    probe = Probe(model)
    with probe.step():
        F.cross_entropy(model(x), t).backward()
    reading = probe.read()
    assert reading is not None
    return twins(model, stages(reading, model))


def test_units_that_are_alike() -> None:
    model = net(depth=2)
    with kobai.no_grad():
        model[1].weight[10:] = model[1].weight[10:11]  # 20 of 30 units, which get different gradients
    assert alike(model)["1"] == 0
    model.zero_grad()
    with kobai.no_grad():
        model[3].weight[:, 10:] = model[3].weight[:, 10:11]  # and now the same
    assert alike(model) == {"1": pytest.approx(19 / 29), "3": 0}


def diseases(
    model: nn.Module, data: Any, loss_fn: Any = F.cross_entropy, rule: Any = None, **options: Any
) -> list[str]:
    optimizer = (rule or kobai.optim.Adam)(model.parameters(), lr=1e-3)
    return [finding.disease for finding in diagnose(model, data, loss_fn, optimizer, **options).findings]


def test_inputs_beside_their_mean() -> None:
    x, t = batch()
    assert diseases(net(depth=2), (0.3 * x + 1, t)) == []
    assert diseases(net(), (0.1 * x + 5, t))[0] == "input-scale"
    assert diseases(net(depth=2, batch_norm=True), (0.1 * x + 5, t)) == []  # which batch normalisation makes up for
    assert diseases(nn.Sequential(nn.BatchNorm1d(20), net()), (1000 * x, t)) == []


def test_a_normalisation_inside_a_block_does_not_make_up_for_what_passes_by() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(5, 32), nn.Linear(32, 4)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)

        def forward(self, x: Any) -> Any:
            return self.head(self.layer(self.embed(x.reshape(len(x), 4, 5))).mean(1))

    kobai.manual_seed(0)
    x, t = batch()
    assert diseases(Encoder(), (x, t)) == []
    assert diseases(Encoder(), (1000 * x, t))[0] == "input-scale"


def test_targets_that_the_net_has_reached_are_not_too_large() -> None:
    x, _ = batch()
    model, t = net(), 300 + 30 * kobai.randn(64, 4)
    assert diseases(model, (x, t), F.mse_loss)[0] == "target-scale"
    nn.init.constant_(model[-1].bias, 300.0)
    assert diseases(model, (x, t), F.mse_loss) == []


def test_a_long_gradient_harms_steps_that_are_as_long() -> None:
    def summed(y: Any, t: Any) -> Any:
        return F.cross_entropy(y, t, reduction="sum")

    def sgd(parameters: Any, lr: float) -> Any:
        return kobai.optim.SGD(parameters, lr=0.1)

    x, t = batch(256)
    assert diseases(net(), (x, t), summed, sgd)[0] == "exploding-gradient"
    assert "exploding-gradient" not in diseases(net(), (x, t), summed, sgd, clip_grad_norm=1.0)
    for rule, clip in ((kobai.optim.SGD, 5.0), (kobai.optim.Adam, None)):  # it is their rate
        found = diseases(net(), (x, t), summed, lambda p, lr, rule=rule: rule(p, lr=10.0), clip_grad_norm=clip)
        assert found[0] == "rate-too-large"
        assert "exploding-gradient" not in found
    assert diseases(net(), (x, t), summed, lambda p, lr: kobai.optim.SGD(p, lr=1e-4)) == []
    assert diseases(net(), (x, t), summed) == []


def test_scores_that_cost_more_than_none() -> None:
    model, data = net(depth=2), batch()
    model[-1].weight.data.mul_(30)
    found = diagnose(model, data, optimizer=kobai.optim.Adam(model.parameters())).findings[0]
    assert (found.disease, found.where) == ("exploding-activations", ("5",))
    assert found.evidence[1].value == pytest.approx(30, rel=0.2)


def test_few_samples_leave_units_at_0_by_chance() -> None:
    x, t = batch()
    model = net("lecun", depth=4)
    assert "dying-relu" in [f.disease for f in diagnose(model, (x[:2].repeat(16, 1), t[:2].repeat(16))).findings]
    assert "dying-relu" not in [f.disease for f in diagnose(model, (x[:2], t[:2])).findings]
    nn.init.constant_(model[3].bias, -50.0)
    assert "dying-relu" in [f.disease for f in diagnose(model, (x[:2], t[:2])).findings]


def test_a_loss_that_is_flat_in_every_weight() -> None:
    model = net()
    nn.init.zeros_(model[-1].weight)
    assert diseases(model, batch()) == []  # a head that begins at 0 is healthy: its own gradient is not 0
    model[-1].weight.requires_grad_(False)
    found = diagnose(model, batch()).findings[0]
    assert (found.disease, found.evidence[0].what) == ("no-signal", "largest gradient of any weight")


def test_activations_that_are_functions_are_seen() -> None:
    for model, disease in ((Called(F.relu, -10.0), "dying-relu"), (Called(kobai.tanh, 20.0), "saturated")):
        found = diagnose(model, batch(), quick=True)
        assert found.findings[0].disease == disease
        assert found.findings[0].where[0].startswith("fc2 → ")
    deep = net("xavier", "sigmoid", depth=8)

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([layer for layer in deep if isinstance(layer, nn.Linear)])

        def forward(self, x: Any) -> Any:
            for layer in self.layers[:-1]:
                x = layer(x).sigmoid()
            return self.layers[-1](x)

    found = diagnose(Deep(), batch())
    assert [f.disease for f in found.findings] == [f.disease for f in diagnose(deep, batch()).findings]
    assert "write F.relu in place of sigmoid" in found.findings[0].cure.code
    assert not treat(found, steps=2).cured  # only the reader can
    with pytest.raises(ValueError, match="sigmoid"):
        found.findings[0].cure.apply(Patient(deep, kobai.optim.SGD(deep.parameters(), lr=0.1)))


def test_a_layer_that_is_called_several_times_counts_as_often() -> None:
    class Again(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.first, self.again, self.head = nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 4)
            nn.init.normal_(self.again.weight, std=0.05)
            self.times = times

        def forward(self, x: Any) -> Any:
            x = self.first(x).tanh()
            for _ in range(self.times):
                x = self.again(x).tanh()
            return self.head(x)

    found = next(f for f in diagnose(Again(6), batch()).findings if f.disease == "collapsed")
    left, per_layer = (e.value for e in found.evidence)
    assert per_layer == pytest.approx(left ** (1 / 7))


def test_evidence_cannot_be_misread() -> None:
    assert str(Evidence("size", 123.456, 10, True)) == "size: 123 (should be at most 10)"
    assert str(Evidence("left", 0.00123, 0.01, False)) == "left: 0.00123 (should be at least 0.01)"
    assert str(Evidence("dead units", 0.7, 0.6, True, share=True)) == "dead units: 70% (should be at most 60%)"
    assert str(Evidence("dead units", 0.6003, 0.6, True, share=True)) == "dead units: 60.03% (should be at most 60.00%)"
    assert str(Evidence("size", 10.0001, 10, True)) == "size: 10.0001 (should be at most 10)"


@pytest.mark.parametrize(
    ("targets", "loss_fn", "expected"),
    [
        (kobai.arange(64) % 4, F.cross_entropy, np.log(4)),
        ((kobai.arange(64) < 8).long(), F.cross_entropy, 0.44),
        (kobai.arange(256.0).reshape(64, 4) % 11 + 50, F.mse_loss, 10.0),
        ((kobai.arange(256).reshape(64, 4) % 10 == 0).float(), F.binary_cross_entropy_with_logits, 0.325),
        (kobai.arange(64) % 4, lambda y, t: y.nonsense(), None),
    ],
)
def test_what_it_costs_to_know_nothing(targets: Any, loss_fn: Any, expected: float | None) -> None:
    reading = diagnose(net(), batch()).reading
    chance = View(net(), [reading], [batch()[0]], targets, loss_fn).chance
    assert chance == (None if expected is None else pytest.approx(expected, rel=0.25))


def test_a_net_that_has_learnt_is_not_ill() -> None:
    """Training drives tanh into its flat parts; and at the end steps are small."""
    model, data = net("normal(0.6)", "tanh", depth=2), batch()
    fresh = diagnose(model, data, optimizer=kobai.optim.SGD(model.parameters(), lr=0.1), quick=True)
    assert fresh.findings[0].disease == "saturated"
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    Trainer(model, optimizer).fit([data] * 1000, epochs=1)
    found = diagnose(model, data, optimizer=optimizer)
    assert found.losses[0] < 0.3
    assert not found.errors
    assert [finding.disease for finding in found.findings] == ["saturated"]


def test_a_rate_of_nothing_and_a_schedule() -> None:
    model = net()
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.0)
    found = diagnose(model, batch(), optimizer=optimizer)
    assert [finding.disease for finding in found.roots] == ["rate-too-small"]
    assert "learning rate is 0" in found.findings[0].cause
    assert found.findings[0].cure == set_rate(0.1, 0.0)  # by the sweep
    assert treat(found, steps=100).helped
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    kobai.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)  # warm-up: the first step has rate 0
    assert optimizer.param_groups[0]["lr"] == 0
    assert diagnose(model, batch(), optimizer=optimizer).healthy


def test_a_loss_that_grows_at_first_and_comes_back() -> None:
    """The catapult (Lewkowycz et al. 2020): a rate between 2 and 4 over the curvature, which is 1/0.0014 here."""
    data = kobai.tensor([[1.0], [-1.0], [0.9], [-1.1]]), kobai.tensor([[0.3], [-0.3], [0.2], [-0.35]])
    found = {}
    for rate in (0.002, 0.0035, 0.01):
        kobai.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 1000, bias=False), nn.Linear(1000, 1, bias=False))
        found[rate] = diagnose(model, data, F.mse_loss, kobai.optim.SGD(model.parameters(), lr=rate))
    assert found[0.002].healthy
    assert len(found[0.002].losses) == 5
    assert found[0.0035].healthy
    assert found[0.0035].losses[4] > 10 * found[0.0035].losses[0] > 10 * found[0.0035].losses[-1]
    assert [finding.disease for finding in found[0.01].errors] == ["rate-too-large"]


def test_numbers_that_are_not_finite_are_found_where_they_begin() -> None:
    model, data = net(depth=2), batch()
    model[3].bias.data[0] = float("nan")
    found = diagnose(model, data).findings[0]
    assert (found.disease, found.where) == ("non-finite", ("3",))
    assert "parameters themselves" in found.cause
    huge = net("normal(1e8)", depth=2)
    found = diagnose(huge, (data[0], kobai.zeros(64, 4)), F.mse_loss).findings[0]
    assert "more than a float32 holds" in found.cause
    found = diagnose(net(), data, lambda y, t: F.cross_entropy(y, t) + (y * 0).log().mean()).findings[0]
    assert "the logarithm of 0 or less" in found.cause


def test_catalogue_is_complete() -> None:
    for name, disease in DISEASES.items():
        assert disease.name == name
        assert all((disease.title, disease.rule, disease.reason, disease.source))
        assert all(cause in DISEASES for cause in disease.follows)
