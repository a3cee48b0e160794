"""Scores of tables are scikit-learn's numbers."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import kobai
from kobai.train.scores import scores

metrics = pytest.importorskip("sklearn.metrics")
pytestmark = pytest.mark.filterwarnings("ignore:.*(y_pred contains|single label|ill-defined)")


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 7, 200])
def test_of_classes(n, k):
    rng = np.random.default_rng([n, k])
    output = rng.normal(size=(n, k)).round(0 if n > 7 else 3).astype(np.float32)  # rounded: many are equal
    t = rng.integers(k - (k > 2), size=n)  # of several classes one has no row
    shares = kobai.softmax(kobai.tensor(output), dim=1).numpy().astype(np.float64)
    shares /= shares.sum(1, keepdims=True)
    said, binary = shares.argmax(1), k == 2
    there = [i for i in range(k) if 0 < (t == i).sum() < n][-1 if binary else 0 :]
    expected = {
        "accuracy": metrics.accuracy_score(t, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(t, said),
        "f1": metrics.f1_score(t, said, average="binary" if binary else "macro", zero_division=0.0),
        "roc_auc": np.mean([metrics.roc_auc_score(t == i, shares[:, i]) for i in there]) if there else np.nan,
        "log_loss": metrics.log_loss(t, shares, labels=range(k)),
    }
    about = SimpleNamespace(task="classification", classes=range(k))
    found = scores(about, kobai.tensor(output), kobai.tensor(t))
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("n", [2, 50])
def test_of_values(n):
    y, t = np.random.default_rng(n).normal(size=(2, n, 1)).astype(np.float32)
    found = scores(SimpleNamespace(task="regression", shift=3.0, scale=2.0), kobai.tensor(y), kobai.tensor(t))
    y, t = 2.0 * y.astype(np.float64) + 3, 2.0 * t.astype(np.float64) + 3
    expected = (metrics.r2_score(t, y), metrics.root_mean_squared_error(t, y), metrics.mean_absolute_error(t, y))
    assert list(found.values()) == pytest.approx(expected, rel=1e-6)


def test_values_that_are_all_the_same_have_no_spread_to_explain():
    about, t = SimpleNamespace(task="regression", shift=0.0, scale=1.0), kobai.ones(3, 1)
    assert (scores(about, t, t)["r2"], scores(about, 2 * t, t)["r2"]) == (1.0, 0.0)
    assert np.isnan(scores(about, t[:1], t[:1])["r2"])


def test_they_need_no_import_of_scikit_learn():
    code = "import sys, kobai.train.inference, kobai.train.scores; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
