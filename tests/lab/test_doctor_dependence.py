"""What the doctor sees of dependence: which targets outputs are compared with, which samples and positions they depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kobai
from kobai import nn
from kobai.lab import diagnose
from kobai.nn import functional as F

pytestmark = pytest.mark.thorough


def found(model: nn.Module, data: Any, loss_fn: Any = F.cross_entropy, **options: Any) -> list[Any]:
    optimizer = kobai.optim.Adam(model.parameters(), lr=3e-3)
    return list(diagnose(model, data, loss_fn, optimizer, quick=True, **options).findings)


def diseases(*args: Any, **options: Any) -> list[str]:
    return [finding.disease for finding in found(*args, **options)]


# --- targets ------------------------------------------------------------------------------------------------------------


def regression(outputs: int = 1) -> tuple[nn.Module, Any, Any]:
    kobai.manual_seed(0)
    x = kobai.randn(96, 8)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, outputs)), x, kobai.sin(x[:, 0]) + x[:, 1] * x[:, 2]


def two_tasks(y: Any, t: Any) -> Any:
    return F.cross_entropy(y[:, :2], t[:, 0].long()) + ((y[:, 2] - t[:, 1:]) ** 2).mean()


BROADCAST: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    "squeezed": (1, lambda y, t: ((y[:, 0] - t) ** 2).mean()),
    "summed": (1, lambda y, t: ((y[:, 0] - t) ** 2).sum()),
    "a root": (1, lambda y, t: ((y[:, 0] - t) ** 2).mean().sqrt()),
    "smooth": (1, lambda y, t: F.smooth_l1_loss(y[:, 0], t)),
    "of mean and variance": (2, lambda y, t: ((y[:, 0] - t) ** 2 * (-y[:, 1]).exp() + y[:, 1]).mean()),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_a_loss_that_broadcasts_what_it_makes_of_outputs_and_targets(name: str) -> None:
    outputs, loss_fn = BROADCAST[name]
    model, x, t = regression(outputs)
    first = found(model, (x, t[:, None]), loss_fn)[0]
    assert (first.disease, first.severity, first.cure.name) == ("mixed-targets", "error", "one_by_one")


def test_one_column_of_the_targets_is_broadcast() -> None:
    model, x, t = regression(3)
    both = kobai.stack([(t > 0).float(), t], 1)
    first = found(model, (x, both), two_tasks)[0]
    assert first.disease == "mixed-targets"
    assert "column 1 of all targets" in first.cause
    assert diseases(model, (x, both), rightly) == []


def rightly(y: Any, t: Any) -> Any:
    return F.cross_entropy(y[:, :2], t[:, 0].long()) + ((y[:, 2] - t[:, 1]) ** 2).mean()


def test_its_cure_compares_each_with_its_own() -> None:
    model, x, t = regression()
    optimizer = kobai.optim.Adam(model.parameters(), lr=1e-2)
    finding = diagnose(model, (x, t[:, None]), lambda y, t: ((y[:, 0] - t) ** 2).mean(), optimizer).findings[0]
    assert finding.tried is not None
    assert finding.tried.helped


def contrasted(y: Any, t: Any) -> Any:
    """Samples of one class are to be near, beside all others."""
    y = F.normalize(y, dim=1)
    near = F.log_softmax(5 * y @ y.transpose(0, 1) - 10 * kobai.eye(len(y)), 1)
    return -(near * ((t[:, None] > 0) == (t > 0)).float()).sum(1).mean()


def hardest(y: Any, t: Any) -> Any:
    apart, same = ((y[:, None] - y) ** 2).sum(2), (t[:, None] > 0) == (t > 0)
    return F.relu(kobai.where(same, apart, 0).amax(1) - kobai.where(same, 1e9, apart).amin(1) + 1).mean()


def partial(y: Any, t: Any) -> Any:
    risk = y[t.argsort(), 0]
    later = kobai.triu(kobai.ones(len(y), len(y))) > 0
    return (kobai.logsumexp(kobai.where(later, risk[None], -1e9), 1) - risk).mean()


def discrepancy(y: Any, t: Any) -> Any:
    """Of two distributions: every output is compared with every target on purpose, and with all outputs."""

    def near(a: Any, b: Any) -> Any:
        return (-((a[:, None] - b) ** 2)).exp().mean()

    return near(y[:, 0], y[:, 0]) + near(t, t) - 2 * near(y[:, 0], t)


def correlated(y: Any, t: Any) -> Any:
    a, b = y[:, 0] - y.mean(), t - t.mean()
    return 1 - (a * b).sum() / ((a**2).sum() * (b**2).sum()).sqrt()


def ranked(y: Any, t: Any) -> Any:
    return F.softplus(-(y[:, 0][:, None] - y[:, 0]) * kobai.sign(t[:, None] - t)).mean()


def of_two_kinds(y: Any, t: Any) -> Any:
    """Real ones and made ones, each beside nothing else."""
    return F.softplus(-t).mean() + F.softplus(y).mean()


@pytest.mark.parametrize("loss_fn", [contrasted, hardest, partial, discrepancy, correlated, ranked, of_two_kinds])
def test_losses_that_compare_samples_on_purpose(loss_fn: Any) -> None:
    model, x, t = regression()
    assert "mixed-targets" not in diseases(model, (x, t), loss_fn)


# --- samples ------------------------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A score for each step of a series, by a recurrent net."""

    def __init__(self, features: int = 3, outputs: int = 1, **options: Any) -> None:
        super().__init__()
        self.rnn = nn.LSTM(features, 12, **options)
        self.head = nn.Linear(12, outputs)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0])


def walks(count: int = 64, length: int = 10) -> tuple[Any, Any]:
    """(N, L, 3) random walks, and the sum of their features one step before."""
    kobai.manual_seed(0)
    x = 0.5 * kobai.randn(count, length, 3).cumsum(1)
    return x, kobai.cat([kobai.zeros(count, 1), x[:, :-1].sum(2)], 1)[..., None]


def test_a_recurrent_net_reads_down_the_batch() -> None:
    x, t = walks()
    first = found(Tagger(), (x, t), F.mse_loss)[0]
    assert (first.disease, first.cure.code) == ("mixed-samples", "model.rnn.batch_first = True")
    assert diseases(Tagger(batch_first=True), (x, t), F.mse_loss) == []


def test_a_recurrent_net_that_is_given_steps_first() -> None:
    x, t = walks()
    assert diseases(Tagger(), (x.transpose(0, 1), t.transpose(0, 1)), F.mse_loss) == []
    noise = kobai.randn(64, 10, 3)  # of which nobody can tell which axis is which
    assert "mixed-samples" not in diseases(Tagger(), (noise, noise.sum(2, keepdim=True)), F.mse_loss)


class Shared(nn.Module):
    """A weighted mean of steps; the weights are normalised over the samples (0) or the steps (1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.score, self.head, self.dim = nn.Linear(3, 1), nn.Linear(3, 1), dim

    def forward(self, x: Any) -> Any:
        return self.head((F.softmax(self.score(x), dim=self.dim) * x).sum(1))


def test_weights_that_samples_share_are_seen_however_many_there_are() -> None:
    x, t = walks(256)
    assert diseases(Shared(0), (x, t[:, -1]), F.mse_loss)[0] == "mixed-samples"
    assert "mixed-samples" not in diseases(Shared(1), (x, t[:, -1]), F.mse_loss)


# --- answers ------------------------------------------------------------------------------------------------------------


def series(count: int = 64, length: int = 9) -> Any:
    """(N, L) words, each of which has a usual successor."""
    kobai.manual_seed(0)
    x = [kobai.randint(11, (count,))]
    for _ in range(length - 1):
        x.append(kobai.where(kobai.rand(count) < 0.8, (3 * x[-1] + 1) % 11, kobai.randint(11, (count,))))
    return kobai.stack(x, 1)


class Words(nn.Module):
    """Scores of 11 words for each step; ``kind`` is how steps look at each other."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.embed, self.head, self.kind = nn.Embedding(11, 16), nn.Linear(16, 11), kind
        if kind in ("conv", "left"):
            self.conv = nn.Conv1d(16, 16, 3)
        elif kind in ("all", "earlier", "later"):
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        else:
            self.rnn = nn.GRU(16, 8 if kind == "both" else 16, batch_first=True, bidirectional=kind == "both")
        if kind == "code":
            self.up = nn.Linear(16, 16 * 9)

    def forward(self, x: Any) -> Any:
        h = self.embed(x)
        if self.kind in ("conv", "left"):
            h = self.conv(F.pad(h.transpose(1, 2), (2, 0) if self.kind == "left" else (1, 1))).transpose(1, 2)
        elif self.kind in ("all", "earlier", "later"):
            ahead = kobai.triu(kobai.ones(x.shape[1], x.shape[1]), 1) > 0
            mask = {"all": None, "earlier": ahead, "later": ahead.transpose(0, 1)}[self.kind]
            h = h + self.attention(h, h, h, attn_mask=mask)[0]
        elif self.kind == "code":
            h = F.relu(self.up(self.rnn(h)[0][:, -1])).reshape(len(x), 9, 16)
        else:
            h = self.rnn(h)[0]
        return self.head(h)


def per_word(y: Any, t: Any) -> Any:
    return F.cross_entropy(y.reshape(-1, 11), t.reshape(-1))


def shifted(y: Any, t: Any) -> Any:
    return per_word(y[:, :-1], t[:, 1:])


@pytest.mark.parametrize("kind", ["both", "conv", "all", "later"])
@pytest.mark.parametrize("within", [False, True])
def test_words_that_are_seen_before_they_are_predicted(kind: str, within: bool) -> None:
    x = series()
    data, loss_fn = ((x, x), shifted) if within else ((x[:, :-1], x[:, 1:]), per_word)
    assert diseases(Words(kind), data, loss_fn)[0] == "answer-in-input"


@pytest.mark.parametrize("kind", ["one", "left", "earlier"])
@pytest.mark.parametrize("within", [False, True])
def test_words_that_are_predicted_from_those_before(kind: str, within: bool) -> None:
    x = series()
    data, loss_fn = ((x, x), shifted) if within else ((x[:, :-1], x[:, 1:]), per_word)
    assert "answer-in-input" not in diseases(Words(kind), data, loss_fn)


def test_targets_that_are_not_shifted() -> None:
    x = series()
    for kind in ("one", "left", "earlier", "all"):
        finding = next(f for f in found(Words(kind), (x, x), per_word) if f.disease == "answer-in-input")
        assert "not shifted" in finding.cause
    names = {"x": x}
    exec(finding.cure.code, names)
    assert kobai.equal(names["t"][:, :-1], names["x"][:, 1:])


def test_copies_that_are_wanted() -> None:
    x = series()
    before = kobai.cat([x[:, :1], x[:, :-1]], 1)
    for kind, target in (("code", x), ("one", before), ("all", x.flip(1)), ("all", x.sort(1)[0])):
        assert "answer-in-input" not in diseases(Words(kind), (x, target), per_word)
    hidden = kobai.where(kobai.rand(x.shape) < 0.3, 0, x)
    assert "answer-in-input" not in diseases(Words("all"), (hidden, x), per_word)
    frames = kobai.randn(64, 9, 12)
    for model in (nn.Sequential(nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 12)), Tagger(12, 12, batch_first=True)):
        assert ("answer-in-input" in diseases(model, (frames, frames), F.mse_loss)) == isinstance(model, Tagger)


def test_a_decoder_that_copies_what_its_encoder_was_told() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder, self.read = Words("one"), Words("earlier"), nn.Linear(11, 11)

        def forward(self, told: Any, said: Any) -> Any:
            return self.decoder(said) + self.read(self.encoder(told)[:, -1:])

    x = series()
    assert "answer-in-input" not in diseases(Pair(), (x[:, :-1], x[:, :-1], x[:, 1:]), per_word)


def test_a_series_that_is_smoothed_instead_of_forecast() -> None:
    x, _ = walks()
    both = nn.ModuleDict({"rnn": nn.GRU(3, 4, batch_first=True, bidirectional=True), "head": nn.Linear(8, 3)})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = both

        def forward(self, x: Any) -> Any:
            return self.parts["head"](self.parts["rnn"](x)[0])

    assert diseases(Net(), (x[:, :-1], x[:, 1:]), F.mse_loss)[0] == "answer-in-input"
    assert diseases(Tagger(3, 3, batch_first=True), (x[:, :-1], x[:, 1:]), F.mse_loss) == []


# --- what is not used ---------------------------------------------------------------------------------------------------


class Last(nn.Module):
    """A classifier of series, which reads some of the states."""

    def __init__(self, at: Any, kind: str = "GRU") -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.rnn, self.head, self.at = getattr(nn, kind)(3, 12, batch_first=True), nn.Linear(12, 2), at

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, self.at].reshape(len(x), -1, 12).mean(1))


def test_inputs_that_no_output_depends_on() -> None:
    x, _ = walks()
    labels = (x[:, -1, 0] > 0).long()
    for at in (0, slice(0, 3)):
        assert diseases(Last(at), (x, labels))[0] == "unused-inputs"
    for at in (-1, slice(None), 7):
        assert "unused-inputs" not in diseases(Last(at), (x, labels))
    long = kobai.randn(64, 300, 3)  # the first steps fade away, as they do in a recurrent net before it has learnt
    assert "unused-inputs" not in diseases(Last(-1, "LSTM"), (long, labels))
    for ill in (True, False):
        picture, model = kobai.randn(32, 1, 12, 12), nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
        rest = nn.Sequential(Cut(20 if ill else 400), nn.Linear(20 if ill else 400, 2))
        assert ("unused-inputs" in diseases(nn.Sequential(model, rest), (picture, labels[:32]))) == ill


class Cut(nn.Module):
    """The first numbers of each sample."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Any) -> Any:
        return x[:, : self.size]


class Masked(nn.Module):
    """Words are pooled by a learnt weight of each; padding (0) is left out, or is all that is left."""

    def __init__(self, wrong: bool) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.embed, self.score, self.head, self.wrong = nn.Embedding(12, 8), nn.Linear(8, 1), nn.Linear(8, 2), wrong

    def forward(self, x: Any) -> Any:
        h = self.embed(x)
        out = (x != 0) if self.wrong else (x == 0)
        weights = F.softmax(kobai.where(out, -1e9, self.score(h)[..., 0]), 1)
        return self.head((weights[..., None] * h).sum(1))


def test_a_mask_that_leaves_padding_alone() -> None:
    words, lengths = series() + 1, kobai.randint(3, 8, (64, 1))
    x, t = kobai.where(kobai.arange(9) < lengths, words, 0), (words[:, 0] > 5).long()
    first = found(Masked(True), (x, t))[0]
    assert first.disease == "unused-inputs"
    assert "padding excepted" in first.cause
    assert diseases(Masked(False), (x, t)) == []


# --- order --------------------------------------------------------------------------------------------------------------


class Attending(nn.Module):
    """A classifier of words that attend to each other, with positions or without, and are averaged."""

    def __init__(self, positions: bool) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.embed, self.head = nn.Embedding(8, 16), nn.Linear(16, 2)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.places = nn.Parameter(kobai.randn(6, 16)) if positions else None

    def forward(self, x: Any) -> Any:
        h = self.embed(x) if self.places is None else self.embed(x) + self.places
        return self.head(F.relu(h + self.attention(h, h, h)[0]).mean(1))


def test_an_order_that_matters_and_is_not_seen() -> None:
    kobai.manual_seed(0)
    words = kobai.randint(8, (200, 6))
    follows = ((words[:, 1:] == 3) & (words[:, :-1] >= 4)).any(1).long()  # what stands before a word
    first = kobai.randn(200, 6).argsort(1)
    sooner = (first.argsort(1)[:, 2] < first.argsort(1)[:, 4]).long()
    assert diseases(Attending(False), (first, sooner)) == ["order-unseen"]
    assert diseases(Attending(True), (first, sooner)) == []
    for labels in ((words > 5).any(1).long(), kobai.randint(2, (200,)), (words.sum(1) > 21).long()):
        assert "order-unseen" not in diseases(Attending(False), (words, labels))
    assert "order-unseen" not in diseases(
        Attending(False), (words.sort(1)[0], follows)
    )  # an order that is made of the words


def test_positions_are_tried_on_a_copy() -> None:
    kobai.manual_seed(0)
    words = kobai.randn(200, 6).argsort(1)
    labels, model = (words.argsort(1)[:, 2] < words.argsort(1)[:, 4]).long(), Attending(False)
    finding = diagnose(model, (words, labels), optimizer=kobai.optim.Adam(model.parameters(), lr=1e-2)).findings[0]
    assert (finding.disease, finding.where) == ("order-unseen", ("embed",))
    assert finding.tried is not None
    assert finding.tried.helped
