"""Metrics: the same mean whatever the batches, on every backend, read with one copy from the device."""

import functools
import math

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F
from kobai.ops.averaged import Averaged
from kobai.train import (
    Accuracy,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    Metric,
    NonFiniteError,
    Trainer,
    metric_base,
    metrics,
)
from kobai.utils.data import DataLoader, TensorDataset

rng = np.random.default_rng(0)
SCORES = rng.normal(size=(10, 4)).astype(np.float32)
CLASSES = rng.integers(0, 4, size=10)

CASES = {
    "class indices": (Accuracy, SCORES, CLASSES, (SCORES.argmax(1) == CLASSES).mean()),
    "probabilities": (Accuracy, SCORES, np.eye(4, dtype=np.float32)[CLASSES], (SCORES.argmax(1) == CLASSES).mean()),
    "logits": (Accuracy, SCORES[:, 0], CLASSES % 2, ((SCORES[:, 0] > 0) == CLASSES % 2).mean()),
    "logits (N, 1)": (
        Accuracy,
        SCORES[:, :1],
        (CLASSES % 2)[:, None] * 1.0,
        ((SCORES[:, 0] > 0) == CLASSES % 2).mean(),
    ),
    "per position": (Accuracy, SCORES.reshape(5, 4, 2), CLASSES.reshape(5, 2), None),
    "squared error": (MeanSquaredError, SCORES, SCORES * 0.5, (0.25 * SCORES**2).mean()),
    "absolute error": (MeanAbsoluteError, SCORES, SCORES * 0.5, abs(0.5 * SCORES).mean()),
}


@pytest.mark.parametrize("case", CASES)
def test_mean_does_not_depend_on_the_batches(case, backend):
    kind, output, target, expected = CASES[case]
    if expected is None:
        expected = (output.argmax(1) == target).mean()
    for cuts in ([], [3, 4]):
        metric = kind()
        for y, t in zip(np.split(output, cuts), np.split(target, cuts), strict=True):
            metric.update(kobai.tensor(y), kobai.tensor(t))
        assert metric.compute() == pytest.approx(expected, rel=1e-6)


def test_loss_weighs_batches_by_size(backend):
    loss = Loss()
    loss.take(kobai.tensor(1.0), kobai.zeros(3))
    loss.take(kobai.tensor(5.0), kobai.zeros(1))
    assert loss.compute() == 2.0


def test_read_gives_all_and_nan_before_the_first_batch(backend):
    loss, accuracy = Loss(), Accuracy()
    assert all(map(math.isnan, metric_base.read([loss, accuracy]).values()))
    loss.take(kobai.tensor(1.0), kobai.zeros(3))
    found = metric_base.read([loss, accuracy])
    assert found["loss"] == 1.0
    assert math.isnan(found["accuracy"])


def test_state_goes_on_where_it_was(backend):
    first, second = Loss(), Loss()
    first.take(kobai.tensor(0.1), kobai.zeros(3))
    second.load_state_dict(first.state_dict(), kobai.tensor(0.0).device)
    for metric in (first, second):
        metric.take(kobai.tensor(0.7), kobai.zeros(2))
    assert first.compute() == second.compute()
    second.load_state_dict(Loss().state_dict())
    assert second.count == 0


def test_refusals():
    with pytest.raises(ValueError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        metrics.resolve(["acuracy"])
    with pytest.raises(TypeError, match="got function"):
        metrics.resolve([lambda y, t: 0.0])
    with pytest.raises(ValueError, match="a name of its own"):
        metrics.resolve(["mse", MeanSquaredError()])
    with pytest.raises(ValueError, match=r"accuracy: expected .* got output \(2, 3\) and target \(3,\)"):
        Accuracy().update(kobai.zeros(2, 3), kobai.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="mse: expected a target of shape"):
        MeanSquaredError().update(kobai.zeros(2, 1), kobai.zeros(2))
    with pytest.raises(NotImplementedError, match="define measure"):
        Metric().update(kobai.zeros(1), kobai.zeros(1))
    assert metrics.resolve("accuracy")[0].name == "accuracy"
    assert repr(Accuracy()) == "Accuracy()"


# --- what the loss reads and leaves out -------------------------------------------------------------------------------


def binary(n=200, columns=1):
    x = kobai.tensor(np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32))
    return x, (x[:, :1] > 0).float() if columns else (x[:, 0] > 0).float()


def own_bce(y, t):
    """A loss of which nothing is known."""
    return -(t * y.log() + (1 - t) * (1 - y).log()).mean()


BINARY = {
    "BCE": (nn.Sigmoid, nn.BCELoss(), 0.5, 0),
    "BCE in a function": (nn.Sigmoid, lambda y, t: 2 * F.binary_cross_entropy(y, t), 0.5, 0),
    "logits": (nn.Identity, nn.BCEWithLogitsLoss(), 0.0, 0),
    "logits in a partial function": (nn.Identity, functools.partial(F.binary_cross_entropy_with_logits), 0.0, 0),
    "squared error of a sigmoid": (nn.Sigmoid, nn.MSELoss(), 0.5, 0),
    "squared error of a line": (nn.Identity, nn.MSELoss(), 0.5, 0),
    "squared error, labels -1 and 1": (nn.Tanh, nn.MSELoss(), 0.0, -1),
    "soft margin": (nn.Identity, nn.SoftMarginLoss(), 0.0, -1),
    "an own loss of probabilities": (nn.Sigmoid, own_bce, 0.5, 0),
}


@pytest.mark.parametrize("capture", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("case", BINARY)
def test_accuracy_of_one_column_reads_what_the_loss_reads(case, capture):
    last, loss_fn, boundary, low = BINARY[case]
    x, t = binary()
    if low:
        t = 2 * t - 1
    model = nn.Sequential(nn.Linear(4, 1), last())
    rule = kobai.optim.Adam(model.parameters(), lr=0.02)
    trainer = Trainer(model, rule, loss_fn, metrics=["accuracy"], capture=capture)
    data = TensorDataset(x, t)
    history = trainer.fit(DataLoader(data, batch_size=32), data, epochs=5)
    expected = ((model(x) > boundary) == (t > 0.5)).float().mean().item()
    assert trainer.evaluate(data)["accuracy"] == pytest.approx(expected)
    assert history[-1]["val_accuracy"] == pytest.approx(expected)
    assert history[-1]["accuracy"] == pytest.approx(expected, abs=0.1)


def test_a_threshold_that_is_given_holds():
    y, t = kobai.tensor([0.2, 0.4, 0.9]), kobai.tensor([0, 1, 1])
    for threshold, right in ((0.3, 3), (0.5, 2), (0.0, 2)):
        metric = Accuracy(threshold=threshold)
        metric.update(y, t)
        assert metric.compute() == pytest.approx(right / 3)


def test_outputs_of_which_nobody_says_what_they_are_are_told_by_their_range(caplog):
    metric = Accuracy()
    metric.update(kobai.tensor([0.2, 0.4, 0.9]), kobai.tensor([0, 0, 1]))
    assert metric.compute() == 1.0
    assert "read as probabilities" in caplog.text
    metric.update(kobai.tensor([-3.0, 0.4]), kobai.tensor([0, 1]))  # logits after all
    assert metric.compute() == pytest.approx(3 / 5)


def sequences(rng=rng):
    x = kobai.tensor(rng.normal(size=(20, 6, 4)).astype(np.float32))
    t = rng.integers(0, 3, size=(20, 6))
    return x, t


class PerPosition(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x).transpose(1, -1) if x.ndim == 3 else self.linear(x)


class Wrapped(nn.Module):
    """A loss with another one within."""

    def __init__(self, ignored):
        super().__init__()
        self.inner = nn.CrossEntropyLoss(ignore_index=ignored)

    def forward(self, y, t):
        return self.inner(y, t)


CLASS_WEIGHTS = kobai.tensor([1.0, 2.0, 0.5])
LEFT_OUT = {
    "the default": (F.cross_entropy, -100),
    "a module": (nn.CrossEntropyLoss(ignore_index=-1), -1),
    "one of the classes": (nn.CrossEntropyLoss(ignore_index=0), 0),
    "a module within": (Wrapped(-7), -7),
    "a partial function": (functools.partial(F.cross_entropy, ignore_index=-1), -1),
    "a function": (lambda y, t: F.cross_entropy(y, t, ignore_index=-1), -1),
    "log-likelihood": (lambda y, t: F.nll_loss(F.log_softmax(y, dim=1), t, ignore_index=-1), -1),
    "weighted": (nn.CrossEntropyLoss(CLASS_WEIGHTS), -100),
    "weighted and left out": (nn.CrossEntropyLoss(CLASS_WEIGHTS, ignore_index=-1), -1),
    "summed": (nn.CrossEntropyLoss(ignore_index=-1, reduction="sum"), -1),
    "summed, partial": (functools.partial(F.cross_entropy, ignore_index=-1, reduction="sum"), -1),
}


@pytest.mark.parametrize("capture", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("padded", [False, True], ids=["samples", "positions"])
@pytest.mark.parametrize("case", LEFT_OUT)
def test_labels_that_the_loss_leaves_out_count_nowhere(case, padded, capture):
    """A batch of nothing else (the first), batches with some, one with none: as all samples in one batch."""
    loss_fn, ignored = LEFT_OUT[case]
    x, t = sequences(np.random.default_rng(1))
    if not padded:
        x, t = x[:, 0], t[:, 0]
    t[:4] = ignored
    t[5:7] = ignored
    t = kobai.tensor(t)
    model = PerPosition()
    trainer = Trainer(
        model, kobai.optim.SGD(model.parameters(), lr=0.0), loss_fn, metrics=["accuracy"], capture=capture
    )
    whole, scores, kept = loss_fn(model(x), t).item(), model(x).argmax(1), t != ignored
    if "summed" in case:
        whole /= kept.sum().item()
    history = trainer.fit(DataLoader(TensorDataset(x, t), batch_size=4), TensorDataset(x, t), epochs=2)
    expected = ((scores == t) & kept).sum().item() / kept.sum().item()
    for found in (history[-1], trainer.evaluate(DataLoader(TensorDataset(x, t), batch_size=3))):
        assert found["loss"] == pytest.approx(whole, rel=1e-5)
        assert found["accuracy"] == pytest.approx(expected)
    assert history[-1]["val_loss"] == pytest.approx(whole, rel=1e-5)


def test_an_epoch_without_any_label_has_no_loss_and_spoils_nothing():
    model = nn.Linear(2, 2)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), metrics=["accuracy"])
    before = model.weight.detach().numpy().copy()
    batch = (kobai.ones(3, 2), kobai.tensor([-100] * 3))
    (record,) = trainer.fit([batch], epochs=1)
    assert math.isnan(record["loss"])
    assert math.isnan(record["accuracy"])
    assert (model.weight.detach().numpy() == before).all()


def test_a_batch_of_labels_left_out_hides_no_loss_that_is_not_finite():
    model = nn.Linear(2, 2)
    batches = [(kobai.ones(3, 2), kobai.tensor([-100] * 3)), (kobai.ones(3, 2) * math.inf, kobai.tensor([0, 1, 0]))]
    with pytest.raises(NonFiniteError, match="the data hold infinity"):
        Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1)).fit(batches, epochs=1)


def test_weights_and_counts_on_every_backend(backend):
    said = Averaged("classes", (3,), -100, kobai.tensor([1.0, 3.0]))
    loss = Loss()
    loss.take(kobai.tensor(math.nan), kobai.tensor([-100, -100]), said)
    loss.take(kobai.tensor(2.0), kobai.tensor([0, 1, -100]), said)
    loss.take(kobai.tensor(8.0), kobai.tensor([0, 0]), said)
    assert loss.compute() == pytest.approx((2 * 4 + 8 * 2) / 6)
    restored = Loss()
    restored.load_state_dict(loss.state_dict(), kobai.tensor(0.0).device)
    assert restored.compute() == loss.compute()
    assert not loss.spoilt()
    loss.take(kobai.tensor(math.inf), kobai.tensor([0]), said)
    assert loss.spoilt()


@pytest.mark.parametrize("dtype", [kobai.bfloat16, kobai.float16, kobai.uint8, kobai.int8], ids=str)
def test_small_dtypes_do_not_overflow(dtype):
    y, t = kobai.full((1000,), 100, dtype=dtype), kobai.zeros(1000, dtype=dtype)
    for kind, expected in ((MeanSquaredError, 10_000), (MeanAbsoluteError, 100)):
        metric = kind()
        metric.update(y, t)
        assert metric.compute() == expected
    loss = Loss()
    loss.take(kobai.tensor(1000.0, dtype=kobai.float16), kobai.zeros(500))
    assert loss.compute() == 1000


# --- metrics of one's own ---------------------------------------------------------------------------------------------


class Own(Metric):
    name, mode = "own", "max"

    def __init__(self, result):
        super().__init__()
        self.result = result

    def measure(self, output, target):
        return self.result(output, target)


RIGHT = {
    "a tensor": lambda y, t: (y.sum(), len(y)),
    "a tensor that wants its gradient": lambda y, t: ((y * kobai.ones(1, requires_grad=True)).sum(), len(y)),
    "a tensor of one": lambda y, t: (y.sum(0), len(y)),
    "two tensors": lambda y, t: (y.sum(), kobai.tensor(len(y))),
    "a float": lambda y, t: (float(y.sum()), len(y)),
    "a NumPy number": lambda y, t: (y.numpy().sum(), np.int32(len(y))),
    "an integer": lambda y, t: (int(y.sum()), len(y)),
    "a raw array": lambda y, t: (y.array.sum(), np.array([len(y)])),
}


@pytest.mark.parametrize("case", RIGHT)
def test_measure_may_return_any_number(case):
    metric = Own(RIGHT[case])
    metric.update(kobai.tensor([1.0, 2.0]), kobai.zeros(2))
    metric.update(kobai.tensor([6.0]), kobai.zeros(1))
    assert metric.compute() == 3.0
    assert metric_base.read([metric, Loss()])["own"] == 3.0


WRONG = {
    "nothing": (lambda y, t: None, "own: expected measure to return .* got None"),
    "no count": (lambda y, t: y.sum(), "own: expected measure to return .* got a Tensor"),
    "three": (lambda y, t: (1, 2, 3), "got a tuple of 3"),
    "a sum of each sample": (lambda y, t: (y, len(y)), r"own: expected one number as the sum over the batch, .*\(2,\)"),
    "None for a sum": (lambda y, t: (None, 2), "own: expected the sum as a number"),
    "a string for a count": (lambda y, t: (y.sum(), "2"), "own: expected the number of terms as a number .* got a str"),
    "many counts": (lambda y, t: (y.sum(), y), r"own: expected one number of terms, got an array of shape \(2,\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_measure_that_returns_something_else_is_named(case):
    result, message = WRONG[case]
    with pytest.raises(TypeError, match=message):
        Own(result).update(kobai.tensor([1.0, 2.0]), kobai.zeros(2))


def test_a_metric_of_several_sums():
    class Spread(Metric):
        """Standard deviation of the outputs."""

        name = "spread"

        def measure(self, output, target):
            return kobai.stack([output.sum(), (output * output).sum()]), output.numel()

        def mean(self, sums, count):
            return math.sqrt(sums[1] / count - (sums[0] / count) ** 2)

    metric = Spread()
    metric.update(kobai.tensor([1.0, 2.0]), kobai.zeros(2))
    metric.update(kobai.tensor([6.0]), kobai.zeros(1))
    assert metric.compute() == pytest.approx(np.std([1, 2, 6]))


def test_a_compute_of_its_own_is_asked():
    class Root(MeanSquaredError):
        name = "rmse"

        def compute(self):
            return math.sqrt(super().compute())

    x = kobai.zeros(4, 1)
    model = nn.Linear(1, 1, init="zeros")
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.0), nn.MSELoss(), metrics=[Root(), "mse"])
    found = trainer.evaluate([(x, x + 3)])
    assert (found["rmse"], found["mse"]) == (3, 9)

    class Nothing(Root):
        def compute(self):
            return None

    with pytest.raises(TypeError, match="rmse: expected a number from compute, got None"):
        metric_base.read([Nothing()])


def test_a_metric_whose_init_forgets_its_base_works():
    class Forgetful(Own):
        def __init__(self):
            self.result = lambda y, t: (y.sum(), len(y))

    x = kobai.ones(4, 1)
    model = nn.Linear(1, 1, init="zeros")
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.0), nn.MSELoss(), metrics=[Forgetful()])
    assert trainer.evaluate([(x, x)])["own"] == 0


@pytest.mark.parametrize("name", ["loss", "epoch", "lr", "time", "val_own", ""])
def test_names_of_the_record_are_no_metrics(name):
    metric = Own(None)
    metric.name = name
    with pytest.raises(ValueError, match="a name of its own"):
        metrics.resolve([metric])


def test_more_refusals():
    metric = Own(None)
    metric.mode = "maximum"
    with pytest.raises(ValueError, match=r"own\.mode as 'min' or 'max', got 'maximum'"):
        metrics.resolve([metric])
    with pytest.raises(TypeError, match=r"got type; make one of it: Accuracy\(\)"):
        metrics.resolve([Accuracy])
    with pytest.raises(IndexError, match=r"accuracy: expected class indices in \[0, 3\), got 3 at position 1"):
        Accuracy().update(kobai.zeros(2, 3), kobai.tensor([0, 3]))
    with pytest.raises(IndexError, match=r"got -1"):
        Accuracy().update(kobai.zeros(2, 3), kobai.tensor([0, -1]))
    with pytest.raises(TypeError, match="accuracy: expected a tensor as target, got a tuple of 2"):
        Accuracy().update(kobai.zeros(2, 3), (kobai.zeros(2), kobai.zeros(2)))
    with pytest.raises(ValueError, match="expected one number from the loss function, got shape"):
        Loss().take(kobai.zeros(3), kobai.zeros(3))


def test_several_classes_a_sample_and_labels_of_no_two_are_refused(backend):
    with pytest.raises(ValueError, match=r"one class a sample, .* got \[1\.0, 1\.0, 0\.0\]"):
        Accuracy().update(kobai.zeros(2, 3), kobai.tensor([[1.0, 0, 0], [1, 1, 0]]))
    with pytest.raises(ValueError, match=r"labels of 0 and 1, .* got 2"):
        Accuracy().update(kobai.zeros(3), kobai.tensor([1, 2, 1]))
    with pytest.raises(ValueError, match=r"got \[0\.0, 0\.0\]"):
        Accuracy().update(kobai.zeros(1, 2, 2), kobai.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
