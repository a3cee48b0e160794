"""Loss and outputs belong together: the doctor finds what the end of a model cannot say, and losses of the wrong things."""

from __future__ import annotations

from typing import Any

import pytest
from small_nets import batch, net

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.nn import functional as F

pytestmark = pytest.mark.thorough

X, T = batch(256)
ONE = X[:, :1] + 0.5 * X[:, 1:2]
"""A regression's targets, of mean 0 and size 1."""
TWO = (X[:, :1] > 0).float()


class Ending(nn.Module):
    """Functions after the last layer, whose outputs may be given in a dict."""

    def __init__(self, outputs: int, function: Any, key: str | None = None) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(20, 24), nn.Linear(24, outputs)
        self.function, self.key = function, key

    def forward(self, x: Any) -> Any:
        y = self.function(self.head(F.relu(self.body(x))))
        return y if self.key is None else {self.key: y}


def ended(outputs: int, *last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, outputs), *last)


def fused(kind: str) -> nn.Module:
    return nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 1, activation=kind))


def own_log_loss(p: Any, t: Any) -> Any:
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


def squared(y: Any, t: Any) -> Any:
    return ((y - t) ** 2).mean()


def ill() -> dict[str, tuple[str, Any, Any, Any]]:
    return {
        "softmax of a function": ("bounded-scores", Ending(4, lambda y: F.softmax(y, 1)), T, F.cross_entropy),
        "sigmoid in a dict": ("bounded-scores", Ending(4, kobai.sigmoid, "y"), T, lambda y, t: F.cross_entropy(y["y"], t)),
        "logsigmoid": ("bounded-scores", ended(1, nn.LogSigmoid()), TWO, F.binary_cross_entropy_with_logits),
        "log_softmax against shares": ("bounded-scores", ended(4, nn.LogSoftmax(dim=1)), F.one_hot(T, 4).float(), F.mse_loss),
        "softmax of one unit": ("bounded-scores", ended(1, nn.Softmax(dim=1)), TWO, F.binary_cross_entropy),
        "softmax over the batch": ("bounded-scores", ended(4, nn.Softmax(dim=0)), T, F.cross_entropy),
        "softmax for several labels": ("bounded-scores", ended(4, nn.Softmax(dim=1)), (X[:, :4] > 0).float(), F.mse_loss),
        "ReLU on scores": ("bounded-scores", ended(4, nn.ReLU()), T, F.cross_entropy),
        "ReLU on a regression": ("bounded-scores", ended(1, nn.ReLU()), 2 * ONE - 1, F.mse_loss),
        "sigmoid on a regression, fused": ("bounded-scores", fused("sigmoid"), 3 * ONE, F.l1_loss),
        "tanh on a regression": ("bounded-scores", Ending(1, kobai.tanh), 4 * ONE, F.smooth_l1_loss),
        "normalised outputs": ("bounded-scores", ended(1, nn.BatchNorm1d(1, affine=False)), 3 * ONE + 4, F.mse_loss),
        "outputs of length 1": ("bounded-scores", Ending(4, lambda y: F.normalize(y, dim=1)), 3 * X[:, :4], F.mse_loss),
        "dropout on the outputs": ("bounded-scores", ended(4, nn.Dropout(0.5)), T, F.cross_entropy),
        "dead outputs": ("bounded-scores", Ending(1, lambda y: F.relu(y - 50)), ONE.abs(), F.mse_loss),
        "column against row": ("mixed-targets", ended(1), ONE[:, 0], squared),
        "row against column": ("mixed-targets", Ending(1, lambda y: y[:, 0]), ONE, lambda y, t: (y - t).abs().mean()),
        "column of scores, own loss": ("mixed-targets", ended(1, nn.Sigmoid()), TWO[:, 0], own_log_loss),
        "one score for a softmax": ("constant-loss", ended(1), TWO, F.cross_entropy),
        "likelihood of shares": ("no-least-loss", Ending(4, lambda y: F.softmax(y, 1)), T, F.nll_loss),
        "likelihood of scores": ("no-least-loss", ended(4), T, nn.NLLLoss()),
        "divergence of shares": ("no-least-loss", ended(4, nn.Softmax(dim=1)), F.softmax(X[:, :4], 1), nn.KLDivLoss()),
        "labels of −1 and 1": ("no-least-loss", ended(1), 2 * TWO - 1, F.binary_cross_entropy_with_logits),
        "labels of 0 and 255": ("no-least-loss", ended(1), 255 * TWO, F.binary_cross_entropy_with_logits),
        "wrong sign": ("no-least-loss", ended(4), T, lambda y, t: -F.cross_entropy(y, t)),
        "scores for probabilities": ("refused-by-the-loss", ended(1), TWO, nn.BCELoss()),
        "labels from −1 to 1, refused": ("refused-by-the-loss", ended(1, nn.Sigmoid()), 2 * TWO - 1, nn.BCELoss()),
        "shapes, refused": ("refused-by-the-loss", ended(1), TWO[:, 0], F.binary_cross_entropy_with_logits),
    }  # fmt: skip


def well() -> dict[str, tuple[Any, Any, Any]]:
    def gaussian(y: Any, t: Any) -> Any:
        return F.gaussian_nll_loss(y[:, :1], t, F.softplus(y[:, 1:]) + 1e-3)

    return {
        "scores": (ended(4), T, F.cross_entropy),
        "smoothed labels": (ended(4), T, nn.CrossEntropyLoss(label_smoothing=0.2)),
        "log_softmax": (ended(4, nn.LogSoftmax(dim=1)), T, F.nll_loss),
        "log_softmax, weighted": (ended(4, nn.LogSoftmax(dim=1)), T, nn.NLLLoss(kobai.tensor([1.0, 2.0, 3.0, 4.0]))),
        "log_softmax and cross-entropy": (ended(4, nn.LogSoftmax(dim=1)), T, F.cross_entropy),
        "log of a softmax": (Ending(4, lambda y: F.softmax(y, 1).log()), T, F.nll_loss),
        "softmax of shares": (ended(4, nn.Softmax(dim=1)), F.one_hot(T, 4).float(), F.mse_loss),
        "divergence": (ended(4, nn.LogSoftmax(dim=1)), F.softmax(X[:, :4], 1), nn.KLDivLoss(reduction="batchmean")),
        "sigmoid": (ended(1, nn.Sigmoid()), TWO, nn.BCELoss()),
        "sigmoid of grey values": (ended(1, nn.Sigmoid()), ONE.sigmoid(), nn.BCELoss()),
        "tanh for −1 … 1": (Ending(1, kobai.tanh), ONE.tanh(), F.mse_loss),
        "ReLU for counts": (ended(1, nn.ReLU()), (3 * ONE.abs()).round(), F.mse_loss),
        "softplus for a size": (ended(1, nn.Softplus()), 1 + ONE.abs(), F.l1_loss),
        "normal likelihood": (ended(2), ONE, gaussian),
        "narrow normal likelihood": (ended(2), 0.01 * ONE, gaussian),
        "Poisson": (ended(1), (2 * ONE).exp().round(), nn.PoissonNLLLoss()),
        "affine normalisation at the end": (ended(1, nn.BatchNorm1d(1)), 3 * ONE + 4, F.mse_loss),
        "dropout before the last layer": (nn.Sequential(nn.Linear(20, 24), nn.Dropout(0.5), nn.Linear(24, 1)), ONE, F.mse_loss),
        "correlation": (ended(1), ONE[:, 0], lambda y, t: 1 - kobai.corrcoef(kobai.stack([y[:, 0], t]))[0, 1]),
        "critic": (ended(1), 2 * TWO - 1, lambda y, t: -(y * t).mean()),
        "hinge": (ended(1), 2 * TWO - 1, lambda y, t: (1 - y * t).relu().mean()),
        "pinball": (ended(3), ONE, lambda y, t: kobai.maximum(0.9 * (t - y), 0.1 * (y - t)).mean()),
        "a dict": (Ending(4, lambda y: y, "y"), T, lambda y, t: F.cross_entropy(y["y"], t)),
        "two heads": (Ending(5, lambda y: (y[:, :4], y[:, 4])), T, lambda y, t: F.cross_entropy(y[0], t) + (y[1] ** 2).mean()),
        "a label for each step": (Ending(12, lambda y: y.reshape(-1, 4, 3)), kobai.stack([T, T, T], 1), F.cross_entropy),
    }  # fmt: skip


LOSSES = {"bounded-scores", "mixed-targets", "constant-loss", "no-least-loss", "refused-by-the-loss"}


@pytest.mark.parametrize("name", ill())
def test_what_is_wrong_between_outputs_loss_and_targets(name: str) -> None:
    kobai.manual_seed(0)
    disease, model, t, loss_fn = ill()[name]
    before = [part.numpy().tolist() for part in model.state_dict().values()]
    found = diagnose(model, (X, t), loss_fn, kobai.optim.Adam(model.parameters()), quick=True)
    assert {finding.disease for finding in found.findings} & LOSSES == {disease}, str(found)
    first = next(
        finding for finding in found.findings if finding.disease != "mixed-samples"
    )  # by a softmax over the batch
    assert first.disease == disease
    assert first.follows is None
    assert [part.numpy().tolist() for part in model.state_dict().values()] == before


@pytest.mark.parametrize("name", well())
def test_what_belongs_together(name: str) -> None:
    kobai.manual_seed(0)
    model, t, loss_fn = well()[name]
    found = diagnose(model, (X, t), loss_fn, kobai.optim.Adam(model.parameters()), quick=True)
    assert not {finding.disease for finding in found.findings} & LOSSES, str(found)


@pytest.mark.parametrize(
    "name",
    ["logsigmoid", "softmax of one unit", "ReLU on a regression", "sigmoid on a regression, fused", "column against row",
     "one score for a softmax", "likelihood of shares", "likelihood of scores", "labels of −1 and 1", "wrong sign"],
)  # fmt: skip
def test_the_cure_helps(name: str) -> None:
    kobai.manual_seed(0)
    disease, model, t, loss_fn = ill()[name]
    found = diagnose(model, (X, t), loss_fn, kobai.optim.Adam(model.parameters(), lr=0.01))
    first = found.findings[0]
    assert first.disease == disease
    assert first.tried is not None
    assert first.tried.helped, str(found)


def test_the_random_stream_and_running_means_stay() -> None:
    model = nn.Sequential(net(depth=2, batch_norm=True), nn.Softmax(dim=1))
    kobai.manual_seed(5)
    expected = kobai.rand(3)
    kobai.manual_seed(5)
    diagnose(model, (X, T), quick=True)
    assert kobai.equal(kobai.rand(3), expected)
    assert not any(bool(part.ne(0).any().item()) for name, part in model.named_buffers() if "running_mean" in name)


class Frames(nn.Module):
    """(N, 6, 20) to scores (N, 6, 4) of letters; or their log-probabilities."""

    def __init__(self, logarithms: bool) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.body, self.head, self.logarithms = nn.Linear(20, 24), nn.Linear(24, 4), logarithms

    def forward(self, x: Any) -> Any:
        y = self.head(F.relu(self.body(x)))
        return y.log_softmax(-1) if self.logarithms else y


def aligned(y: Any, t: Any) -> Any:
    lengths = [kobai.full((len(y),), size, dtype=kobai.int64) for size in (y.shape[1], t.shape[1])]
    return F.ctc_loss(y.permute(1, 0, 2), t, *lengths)


def test_a_likelihood_that_grows_with_a_constant_is_told_from_one_of_log_probabilities() -> None:
    kobai.manual_seed(3)
    t = kobai.randint(1, 4, (128, 3))
    x = kobai.randn(128, 6, 20)
    x[:, ::2, :4] += 3 * F.one_hot(t, 4).float()
    for logarithms in (False, True):
        model = Frames(logarithms)
        found = diagnose(model, (x, t), aligned, kobai.optim.Adam(model.parameters(), lr=1e-2))
        names = [finding.disease for finding in found.findings if finding.severity != "note"]
        assert names[:1] == ["no-least-loss"] * (not logarithms), str(found)
        assert "rate-too-large" not in [finding.disease for finding in found.roots]
        if not logarithms:
            assert "log_softmax(-1)" in found.findings[0].cure.code
            assert found.findings[0].tried is not None
            assert found.findings[0].tried.helped


@pytest.mark.parametrize("union", [False, True], ids=["dice", "iou"])
def test_an_overlap_of_scores_lacks_a_sigmoid(union: bool) -> None:
    x, t = batch(64)
    wanted = F.one_hot(t, 4).float()

    def overlap(y: Any, t: Any) -> Any:
        both, all_ = (y * t).sum(), y.sum() + t.sum()
        return 1 - (both / (all_ - both) if union else 2 * both / all_)

    found = diagnose(net(), (x, wanted), overlap, quick=True)
    (finding,) = [f for f in found.findings if f.disease == "no-least-loss"]
    assert "own(y.sigmoid(), t)" in finding.cure.code
    for model, loss_fn in (
        (nn.Sequential(net(), nn.Sigmoid()), overlap),
        (net(), lambda y, t: overlap(y.sigmoid(), t)),
        (net(), F.binary_cross_entropy_with_logits),
        (net(), F.mse_loss),
        (net(), lambda y, t: (y * (1 - 2 * t)).mean()),  # a critic's: it has no least value on purpose, and is not 0
    ):
        assert "sigmoid" not in str([f.cause for f in diagnose(model, (x, wanted), loss_fn, quick=True).findings])


def test_a_net_of_functions_alone_is_diagnosed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(kobai.randn(20, 16) / 4), nn.Parameter(kobai.randn(16, 4) / 4)

        def forward(self, x: Any) -> Any:
            return (x @ self.a).tanh() @ self.b

    for model, loss_fn in (
        (Net(), F.cross_entropy),
        (Net(), F.nll_loss),
        (Net(), lambda y, t: F.cross_entropy(y, t) / kobai.zeros(())),
    ):
        found = diagnose(model, batch(), loss_fn, kobai.optim.SGD(model.parameters(), lr=0.1), quick=True)
        assert found.healthy == (loss_fn is F.cross_entropy)
