"""What the doctor says of batches and data: statistics of few samples, rare classes, targets at random, what is held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.nn import functional as F
from kobai.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.thorough


def names(found: Any) -> list[str]:
    return [finding.disease for finding in found.findings if finding.severity != "note"]


def adam(model: Any) -> Any:
    return kobai.optim.Adam(model.parameters(), lr=3e-3)


class Averaged(nn.Module):
    """Batch statistics by a function, with averages of its own."""

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.inner, self.head, self.momentum = nn.Linear(20, 30), nn.Linear(30, 4), momentum
        nn.init.constant_(self.inner.bias, 4.0)
        self.register_buffer("mean", kobai.zeros(30))
        self.register_buffer("var", kobai.ones(30))

    def forward(self, x: Any) -> Any:
        h = F.batch_norm(self.inner(x), self.mean, self.var, training=self.training, momentum=self.momentum)
        return {"scores": self.head(F.relu(h))}


def scores(output: Any, t: Any) -> Any:
    return F.cross_entropy(output["scores"], t)


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_statistics_of_few_samples_whoever_computes_them(n: int) -> None:
    x, t = batch()
    for model, loss_fn in ((net(batch_norm=True), F.cross_entropy), (Averaged(0.1), scores)):
        found = diagnose(model, (x[:n], t[:n]), loss_fn, adam(model), quick=True)
        assert ("few-samples" in names(found)) == (n <= 4)
    layered = nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30), nn.ReLU(), nn.Dropout(0.5), nn.Linear(30, 4))
    assert "few-samples" not in names(diagnose(layered, (x[:n], t[:n]), quick=True))


def test_the_cure_of_small_batches_is_tried_where_there_are_many_of_them() -> None:
    x, t = batch(200)
    model = net(batch_norm=True, depth=2)
    parts = [(x[i : i + 2], t[i : i + 2]) for i in range(0, 200, 2)]
    finding = diagnose(model, (x[:2], t[:2]), F.cross_entropy, adam(model), data=parts).findings[0]
    assert (finding.disease, finding.severity, finding.cure.name) == ("few-samples", "error", "group_norm")
    assert finding.tried is not None


@pytest.mark.parametrize(("momentum", "ill"), [(0.95, True), (0.2, False)])
def test_averages_of_the_last_batch_alone(momentum: float, ill: bool) -> None:
    """With batches of eight these are what chance has drawn, whatever the loss in training mode."""
    kobai.manual_seed(0)
    layers: list[Any] = []
    for n in (20, 40, 40):
        layers += [nn.Linear(n, 40), nn.BatchNorm1d(40, momentum=momentum), nn.ReLU()]
    model, (x, t) = nn.Sequential(*layers, nn.Linear(40, 4)), batch(8)
    found = diagnose(model, (x, t), F.cross_entropy, adam(model))
    assert [f.disease for f in found.findings if f.severity != "note"] == ["evaluation-differs"] * ill
    if ill:
        exec(found.findings[0].cure.code, {"model": model})
        assert model[1].momentum == 0.1


@pytest.mark.parametrize(("momentum", "ill"), [(1e-4, True), (0.1, False)])
def test_averages_that_do_not_follow(momentum: float, ill: bool) -> None:
    model = Averaged(momentum)
    found = diagnose(model, batch(), scores, adam(model))
    assert ("evaluation-differs" in names(found)) == ill


def test_a_rare_class_and_many_answers() -> None:
    x, _ = batch(400)
    for t in ((kobai.arange(400) % 40 == 0).float().reshape(-1, 1), (kobai.arange(400) % 40 == 0).float()):
        loss_fn = lambda y, t: F.binary_cross_entropy_with_logits(y.reshape(t.shape), t)  # noqa: E731
        found = diagnose(nn.Linear(20, 1), (x, t), loss_fn, quick=True)
        (finding,) = (f for f in found.findings if f.disease == "rare-class")
        assert "10 of 400" in finding.cause
        assert "pos_weight" in finding.cure.code
    many = (kobai.rand(400, 6) < 0.03).float()
    assert "rare-class" not in names(
        diagnose(nn.Linear(20, 6), (x, many), F.binary_cross_entropy_with_logits, quick=True)
    )


@pytest.mark.parametrize("kind", ["labels", "numbers", "exclusive or", "noisy"])
def test_targets_at_random_and_those_that_are_hard_to_tell(kind: str) -> None:
    x, _ = batch(300, 8)
    number = x[:, :3].sum(1, keepdim=True) + x[:, :1] ** 2 + (2.0 if kind == "noisy" else 0.1) * kobai.randn(300, 1)
    label = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long() if kind == "exclusive or" else (number[:, 0] > 1).long()
    t, loss_fn = (number, F.mse_loss) if kind in ("numbers", "noisy") else (label, F.cross_entropy)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2 if t is label else 1))
    assert "labels-unrelated" not in names(diagnose(model, (x, t), loss_fn, adam(model)))
    mixed = t[kobai.from_numpy(np.random.default_rng(0).permutation(300))]
    assert "labels-unrelated" in names(diagnose(model, (x, mixed), loss_fn, adam(model)))


def digits() -> tuple[Any, Any]:
    x, t = kobai.data.digits().train.tensors
    return x.reshape(len(x), -1), t


@pytest.mark.parametrize(
    ("change", "disease"),
    [
        (lambda x, t, n: (x[n:], t[n:]), None),
        (lambda x, t, n: (255 * x[n:], t[n:]), "validation-prepared-otherwise"),
        (lambda x, t, n: (1 - x[n:], t[n:]), "validation-prepared-otherwise"),
        (lambda x, t, n: (x[n:].reshape(-1, 8, 8).transpose(1, 2).reshape(-1, 64), t[n:]), "validation-prepared-otherwise"),
        (lambda x, t, n: (x[n:], (3 * t[n:] + 1) % 10), "validation-labelled-otherwise"),
        (lambda x, t, n: (x[n:], t[n:].flip(0)), "validation-labelled-otherwise"),
        (lambda x, t, n: (x[n - 150 : n + 50], t[n - 150 : n + 50]), "validation-seen"),
    ],
)  # fmt: skip
def test_validation_data_beside_training_data(change: Any, disease: str | None) -> None:
    x, t = digits()
    n, model = 600, nn.Linear(64, 10)
    held = change(x[:900], t[:900], n)
    for validation in (held, DataLoader(TensorDataset(*held), batch_size=64)):
        found = diagnose(model, (x[:n], t[:n]), validation=validation, quick=True)
        assert [name for name in names(found) if name.startswith("validation")] == ([disease] if disease else [])
        assert ("validation samples are new to the net" in found.examined) == (disease != "validation-seen")


def test_validation_of_classes_that_training_lacks() -> None:
    x, t = digits()
    order = t.argsort()
    x, t = x[order], t[order]
    found = diagnose(nn.Linear(64, 10), (x[:900:2], t[:900:2]), validation=(x[-100:], t[-100:]), quick=True)
    assert "validation-labelled-otherwise" in names(found)


def test_validation_that_is_no_batch() -> None:
    with pytest.raises(TypeError, match=r"expected batches \(input, ..., target\) as validation data, got a Tensor"):
        diagnose(net(), batch(), validation=[batch()[0]])


def test_labels_are_not_blamed_for_a_net_that_has_not_begun_to_learn() -> None:
    kobai.manual_seed(0)
    x = kobai.randn(1000, 12)
    t = (x[:, :8].sign().prod(1) > 0).long()  # of eight features together: no neighbour tells it
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 2))
    found = diagnose(model, (x, t), F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=0.3))
    assert "labels-unrelated" not in names(found)


@pytest.mark.parametrize("depends", [True, False])
def test_a_norm_of_samples_before_all_weights(depends: bool) -> None:
    """Found where the label is the size of a sample, and not where it is its direction."""
    kobai.manual_seed(0)
    size = (kobai.arange(1024) % 4).float()
    x = 0.4 * kobai.randn(1024, 20) * (0.7 * size).exp()[:, None]
    t = size.long() if depends else (x[:, 0] > 0).long()
    layers = nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)
    model = nn.Sequential(nn.LayerNorm(20), *layers)
    optimizer = kobai.optim.Adam(model.parameters(), lr=1e-2)
    hidden = [f for f in diagnose(model, (x, t), F.cross_entropy, optimizer).findings if f.disease == "norm-hides"]
    assert bool(hidden) == depends
    if depends:
        assert hidden[0].where == ("0",)
        assert hidden[0].cure.code.startswith("model[0] = nn.Identity()")
