"""Metrics: the same mean whatever the batches, on every backend, read with one copy from the device."""

import math

import numpy as np
import pytest

import kobai
from kobai.train import Accuracy, Loss, MeanAbsoluteError, MeanSquaredError, Metric, metrics

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
    assert all(map(math.isnan, metrics.read([loss, accuracy]).values()))
    loss.take(kobai.tensor(1.0), kobai.zeros(3))
    found = metrics.read([loss, accuracy])
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
