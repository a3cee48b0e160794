"""Numbers that are not finite for a few samples alone: which, and by which operation."""

from __future__ import annotations

import math
from typing import Any

import pytest
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import Doctor, diagnose
from kobai.lab.doctor.rules.rows import culprits
from kobai.nn import functional as F
from kobai.train import Trainer


class Read(nn.Module):
    """Words of 0 (none) to 29, of which ``pool`` makes one vector: (the words, their vectors) → (N, 8)."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.embed, self.head, self.pool = nn.Embedding(30, 8), nn.Linear(8, 4), pool

    def forward(self, x: Any) -> Any:
        return self.head(self.pool(x, self.embed(x)))


def attended(x: Any, h: Any) -> Any:
    scores = h.sum(-1).masked_fill(x == 0, -math.inf)
    return (F.softmax(scores, dim=1)[..., None] * h).sum(1)


def averaged(x: Any, h: Any) -> Any:
    mask = (x != 0).float()[..., None]
    return (mask * h).sum(1) / mask.sum(1)


def shortened(x: Any, h: Any) -> Any:
    total = ((x != 0).float()[..., None] * h).sum(1)
    return total / (total**2).sum(1, keepdim=True).sqrt()


def rooted(x: Any, h: Any) -> Any:
    total = ((x != 0).float()[..., None] * h).sum(1)
    return total * (total**2).sum(1, keepdim=True).sqrt()


def sentences(*empty: int) -> tuple[Any, Any]:
    kobai.manual_seed(1)
    x, t = kobai.randint(1, 30, (64, 6)), kobai.arange(64) % 4
    for row in empty:
        x[row] = 0
    return x, t


@pytest.mark.parametrize(
    ("pool", "what", "why"),
    [
        (attended, "loss", "softmax over scores that are all −inf"),
        (averaged, "loss", "division by 0"),
        (shortened, "loss", "division by 0"),
        (rooted, "gradient", "square root at 0"),
    ],
)
def test_the_samples_and_the_operation_are_named(pool: Any, what: str, why: str) -> None:
    x, t = sentences(9, 41)
    found = culprits(Read(pool), F.cross_entropy, [x], t)
    assert found is not None
    assert (found.rows, found.count, found.what) == ((9, 41), 64, what)
    assert why in str(found)
    assert "its inputs are all 0" in str(found)
    model = Read(pool)
    first = diagnose(model, (x, t), F.cross_entropy, kobai.optim.SGD(model.parameters(), lr=0.1)).findings[0]
    assert first.disease == "non-finite"
    assert "Samples 9, 41 of the 64" in first.cause
    exec(first.cure.code, {"x": x, "t": t, "print": lambda *shown: None})


def test_what_is_wrong_with_all_samples_is_not_blamed_on_a_few() -> None:
    x, t = sentences()
    assert culprits(Read(attended), F.cross_entropy, [x], t) is None  # all is well
    assert culprits(Read(lambda x, h: h.sum(1) / 0.0), F.cross_entropy, [x], t) is None
    assert culprits(Read(lambda x, h: (h - h.mean(0)).sum(1).log()), F.cross_entropy, [x], t) is None


def test_a_sample_that_cannot_be_alone_is_not_blamed() -> None:
    x, t = batch()
    x[3] = 0
    model = nn.Sequential(net(depth=2))

    def spread(y: Any, t: Any) -> Any:
        return F.cross_entropy(y, t) + (y.std(0) - 1).mean()  # of one sample there is no deviation

    assert culprits(model, spread, [x], t) is None


def test_doctor_names_the_sample_that_ended_a_training() -> None:
    x, t = sentences(50)
    model, doctor = Read(averaged), Doctor(say=lambda message: None)
    trainer = Trainer(model, kobai.optim.Adam(model.parameters(), lr=1e-2), callbacks=[doctor])
    with pytest.raises(kobai.train.NonFiniteError) as raised:
        trainer.fit([(x[i : i + 16], t[i : i + 16]) for i in range(0, 64, 16)], epochs=2)
    assert raised.value.batch is not None
    assert kobai.equal(raised.value.batch[1], t[48:])
    found = next(visit.finding for visit in doctor.visits if visit.finding.disease == "non-finite")
    assert "Sample 2 of the 16" in found.cause
    assert "division by 0" in found.cause


def shares(y: Any, t: Any) -> Any:
    raised = (300 * y).exp()
    return F.nll_loss((raised / raised.sum(1, keepdim=True)).log(), t)


def patient_error(y: Any, t: Any) -> Any:
    return (300 * y - t[:, None]).cosh().log().mean()


def rooted_error(y: Any, t: Any) -> Any:
    return F.cross_entropy(y, t) + (0 * y).sqrt().mean()


@pytest.mark.parametrize(
    ("loss_fn", "why", "form"),
    [
        (shares, "an exponential of more than 88.7", "y.log_softmax(1)"),
        (patient_error, "a hyperbolic cosine", "F.softplus(-2 * a)"),
        (rooted_error, "a square root at 0", "(a + 1e-12).sqrt()"),
        (lambda y, t: F.cross_entropy(y, t) + (0 * y).log().mean(), "the logarithm of 0", "F.logsigmoid(y)"),
    ],
)
def test_the_operation_is_named_where_all_samples_spoil_the_batch(loss_fn: Any, why: str, form: str) -> None:
    model, data = net(), batch()
    found = diagnose(model, data, loss_fn).findings[0]
    assert (found.disease, found.severity) == ("non-finite", "error")
    assert why in found.cause
    assert form in found.cure.code
    exec(found.cure.code, {})


def test_a_form_that_stays_finite_is_not_blamed() -> None:
    for loss_fn in (
        lambda y, t: F.cross_entropy(300 * y, t),
        lambda y, t: F.softplus(300 * y).mean() + F.cross_entropy(y, t),
    ):
        assert "non-finite" not in [
            finding.disease for finding in diagnose(net(), batch(), loss_fn, quick=True).findings
        ]
