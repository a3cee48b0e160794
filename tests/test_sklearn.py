"""The scikit-learn estimators: its own checks, and what people do with estimators."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import warnings

import joblib
import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import kobai
from kobai import nn
from kobai.capture.step import Captured
from kobai.errors import CheckpointError
from kobai.sklearn import KobaiClassifier, KobaiRegressor
from kobai.train import Callback

KINDS = (KobaiClassifier, KobaiRegressor)
QUICK = {"hidden": (8,), "epochs": 3, "random_state": 0}


def classes(n=60, k=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    return rng.normal(size=(n, 4)) + 2 * np.eye(4)[y], np.array(["red", "green", "blue"])[y]


def numbers(n=60, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, 4))
    return X, 500 + 30 * (X[:, 0] - X[:, 1])


def data_for(kind):
    return classes() if kind is KobaiClassifier else numbers()


def answers(estimator, X):
    return estimator.predict_proba(X) if isinstance(estimator, KobaiClassifier) else estimator.predict(X)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learns_own_checks(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checks that do without something; a failure is an exception
        results = check_estimator(kind(), on_skip=None)
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # which wants an environment variable
    assert len(results) > 55


@pytest.mark.parametrize("kind", KINDS)
def test_learns(kind):
    X, y = data_for(kind)
    estimator = kind(hidden=(16,), epochs=30, lr=0.02, random_state=0).fit(X, y)
    assert estimator.score(X, y) > 0.9
    assert len(estimator.history_) == estimator.n_iter_ == 30
    assert estimator.n_features_in_ == 4


def test_classes_of_any_type():
    X, y = classes()
    for given in (y, y.astype(object), (y == "red"), np.searchsorted(["blue", "green", "red"], y) - 1.0):
        net = KobaiClassifier(**QUICK).fit(X, given)
        assert net.classes_.tolist() == sorted(set(given.tolist()))
        assert net.predict(X).dtype == np.asarray(given).dtype
        assert set(net.predict(X)) <= set(net.classes_)


def test_scores_and_probabilities_agree():
    X, y = classes()
    three, two = KobaiClassifier(**QUICK).fit(X, y), KobaiClassifier(**QUICK).fit(X, y == "red")
    assert three.decision_function(X).shape == three.predict_proba(X).shape == (60, 3)
    assert two.decision_function(X).shape == (60,)
    assert ((two.decision_function(X) > 0) == two.predict(X)).all()
    np.testing.assert_allclose(two.predict_proba(X)[:, 1], 1 / (1 + np.exp(-two.decision_function(X))))
    np.testing.assert_allclose(np.exp(three.predict_log_proba(X)), three.predict_proba(X))


def test_several_targets_of_different_units():
    X, y = numbers()
    both = np.stack([y, 1e-6 * X[:, 2]], axis=1)
    net = KobaiRegressor(hidden=(32,), epochs=60, lr=0.01, random_state=0).fit(X, both)
    assert net.predict(X).shape == both.shape
    assert net.score(X, both) > 0.9
    assert KobaiRegressor(**QUICK).fit(X, y[:, None]).predict(X).shape == (60, 1)


def test_a_constant_target_is_its_own_estimate():
    X, _ = numbers()
    assert np.abs(KobaiRegressor(**QUICK).fit(X, np.full(60, 7.0)).predict(X) - 7).max() < 3


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", nn.functional.smooth_l1_loss])
def test_losses(loss):
    X, y = numbers()
    assert KobaiRegressor(hidden=(16,), epochs=60, lr=0.01, loss=loss, random_state=0).fit(X, y).score(X, y) > 0.9


def test_an_unknown_loss_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown loss 'hubre'\. Did you mean 'huber'"):
        KobaiRegressor(loss="hubre").fit(*numbers())


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_a_number_of_samples(kind):
    X, y = (part[:12] for part in data_for(kind))
    weight = np.arange(12) % 3
    weighted = kind(**QUICK).fit(X, y, sample_weight=weight)
    repeated = kind(**QUICK).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(answers(weighted, X), answers(repeated, X), rtol=1e-9)
    assert weighted.history_[-1]["loss"] == pytest.approx(repeated.history_[-1]["loss"])
    for wrong, message in ((-weight, "got -2"), (0 * weight, "got zero for all"), (weight[:, None], r"shape \(n,\)")):
        with pytest.raises(ValueError, match=message):
            kind(**QUICK).fit(X, y, sample_weight=wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_drawn_are_its_own(kind):
    X, y = data_for(kind)
    before = kobai.get_rng_state()
    first, same, other = (answers(kind(**{**QUICK, "dropout": 0.5, "random_state": s}).fit(X, y), X) for s in (0, 0, 1))
    assert (first == same).all()
    assert (first != other).any()
    assert kobai.get_rng_state() == before


@pytest.mark.parametrize("kind", KINDS)
def test_dtype_is_that_of_the_samples_unless_given(kind):
    X, y = data_for(kind)
    for given, options, expected in (
        (X, {}, "float64"),
        (X.astype("f4"), {}, "float32"),
        (X, {"dtype": "float32"}, "float32"),
    ):
        net = kind(**QUICK, **options).fit(given, y)
        assert {p.dtype.name for p in net.module_.parameters()} == {expected}
        assert answers(net, X).dtype == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_is_made_or_copied(kind):
    X, y = data_for(kind)
    n_out = 3 if kind is KobaiClassifier else 1
    mine = nn.Linear(4, n_out)
    before = mine.weight.detach().clone()
    for module in (
        mine,
        nn.Linear,
        lambda n, k: nn.Sequential(nn.Linear(n, 5), nn.Tanh(), nn.Linear(5, k)),
        lambda: mine,
    ):
        net = kind(module, epochs=5, random_state=0).fit(X, y)
        assert answers(net, X).shape[0] == 60
    assert kind(mine, epochs=5).fit(X, y).module_ is not mine
    assert kobai.equal(mine.weight.detach(), before)
    with pytest.raises(TypeError, match=r"expected module to be a kobai\.nn\.Module"):
        kind("net").fit(X, y)
    with pytest.raises(
        ValueError, match=rf"{kind.__name__}: expected outputs \(32, {n_out}\) of the module, got \(32, 7\)"
    ):
        kind(nn.Linear(4, 7), epochs=1).fit(X[:32], y[:32])


def test_images_go_to_a_module_as_they_are():
    X, y = np.random.default_rng(0).normal(size=(20, 1, 8, 8)), np.arange(20) % 2
    convolution = lambda channels, k: nn.Sequential(nn.Conv2d(channels, 2, 3), nn.Flatten(), nn.Linear(72, k))  # noqa: E731
    assert KobaiClassifier(convolution, epochs=2).fit(X, y).predict_proba(X).shape == (20, 2)
    assert KobaiClassifier(hidden=(5,), epochs=2).fit(X, y).predict_proba(X).shape == (20, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_early_stopping_keeps_the_best(kind):
    X, y = data_for(kind)
    net = kind(hidden=(16,), epochs=500, lr=0.03, early_stopping=True, patience=3, random_state=0).fit(X, y)
    losses = [record["val_loss"] for record in net.history_]
    assert net.n_iter_ == len(losses) < 500
    assert int(np.argmin(losses)) == len(losses) - 4


@pytest.mark.parametrize("kind", KINDS)
def test_warm_start_and_partial_fit_go_on(kind):
    X, y = data_for(kind)
    warm = kind(**QUICK, warm_start=True).fit(X, y)
    first = warm.module_
    warm.fit(X, y)
    assert (warm.module_ is first, len(warm.history_), warm.n_iter_) == (True, 6, 3)
    step = kind(**QUICK)
    for _ in range(4):
        step.partial_fit(X, y)
    assert [record["epoch"] for record in step.history_] == [1, 2, 3, 4]
    cold = kind(**QUICK).fit(X, y)
    before = cold.module_
    assert cold.fit(X, y).module_ is not before
    with pytest.raises(ValueError, match="features"):
        step.partial_fit(X[:, :2], y)


def test_partial_fit_needs_to_know_all_classes():
    X, y = classes()
    net = KobaiClassifier(**QUICK).partial_fit(X[:2], y[:2], classes=["red", "green", "blue"])
    assert net.partial_fit(X, y).classes_.tolist() == ["blue", "green", "red"]
    with pytest.raises(ValueError, match=r"expected the classes \['blue' 'green' 'red'\], got \['grey'\] among y too"):
        net.partial_fit(X[:1], ["grey"])


def test_a_step_is_recorded_once(monkeypatch):
    """A loss that knew the estimator had it recorded again in each epoch, as the history grows."""
    recorded, record = [], Captured._record
    monkeypatch.setattr(Captured, "_record", lambda *args: recorded.append(0) or record(*args))
    X, y = classes(64)
    net = KobaiClassifier(**QUICK)
    for _ in range(5):
        net.partial_fit(X, y)
    assert len(recorded) == 1
    net.fit(X, y)
    assert len(recorded) == 2


class Count(Callback):
    def __init__(self):
        self.epochs = 0

    def on_epoch_end(self, trainer):
        self.epochs += 1


def test_callbacks_are_copied():
    given = Count()
    net = KobaiClassifier(**QUICK, callbacks=[given]).fit(*classes())
    assert (given.epochs, net.callbacks_[0].epochs) == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_pipeline_and_a_search(kind):
    X, y = data_for(kind)
    pipeline = make_pipeline(StandardScaler(), kind(**QUICK))
    name = f"{kind.__name__.lower()}__"
    search = GridSearchCV(pipeline, {f"{name}hidden": [(4,), (8, 8)], f"{name}batch_size": [np.int64(16)]}, cv=2).fit(
        X, y
    )
    assert search.predict(X).shape == (60,)
    assert search.best_params_[f"{name}hidden"] in [(4,), (8, 8)]
    module = clone(kind(nn.Linear(4, 3)))
    assert module.get_params()["module"].weight.shape == (3, 4)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_on_several_processes(kind):
    X, y = data_for(kind)
    alone, shared = (cross_val_score(kind(**QUICK), X, y, cv=3, n_jobs=n) for n in (1, 2))
    np.testing.assert_allclose(alone, shared)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_features(kind):
    X, y = data_for(kind)
    table = pandas.DataFrame(X, columns=list("abcd"))
    net = kind(**QUICK).fit(table, y)
    assert net.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        net.predict(table[list("dcba")])


# --- to other processes, and into files -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "joblib", "joblib, mapped", "checkpoint"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_back_answers_and_trains_on_alike(kind, way, tmp_path):
    X, y = data_for(kind)
    net = kind(**{**QUICK, "dropout": 0.2}).fit(pandas.DataFrame(X, columns=list("abcd")), y)
    path = tmp_path / "net"
    if way.startswith("joblib"):
        joblib.dump(net, path)
        twin = joblib.load(path, mmap_mode="r" if "mapped" in way else None)
    elif way == "checkpoint":
        net.save(path)
        twin = kind.load(path)
    else:
        twin = copy.deepcopy(net) if way == "deepcopy" else pickle.loads(pickle.dumps(net))
    X = pandas.DataFrame(X, columns=list("abcd"))
    assert (answers(twin, X) == answers(net, X)).all()
    assert twin.history_ == net.history_
    assert twin.get_params() == net.get_params()
    for estimator in (net, twin):
        estimator.partial_fit(X, y)
    assert (answers(twin, X) == answers(net, X)).all()


def test_a_checkpoint_holds_no_code(tmp_path):
    X, y = classes()
    path = tmp_path / "net.safetensors"
    net = KobaiClassifier(nn.Linear, optimizer=kobai.optim.SGD, lr=0.1, epochs=2).fit(X, y)
    net.save(path)
    with pytest.raises(
        CheckpointError, match=r"its module and optimizer is code, .*\.load\(path, module=..., optimizer=...\)"
    ):
        KobaiClassifier.load(path)
    twin = KobaiClassifier.load(path, module=nn.Linear, optimizer=kobai.optim.SGD)
    assert (twin.predict(X) == net.predict(X)).all()
    with pytest.raises(CheckpointError, match="do not fit the module"):
        KobaiClassifier.load(path, module=lambda n, k: nn.Linear(n, k + 1), optimizer=kobai.optim.SGD)
    with pytest.raises(CheckpointError, match="expected a KobaiRegressor, got a KobaiClassifier"):
        KobaiRegressor.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_before_it_is_fitted(kind, tmp_path):
    for use in (lambda net: net.predict([[1.0]]), lambda net: net.save(tmp_path / "net")):
        with pytest.raises(NotFittedError):
            use(kind())


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "kobai.sklearn")
    with pytest.raises(
        ImportError, match=r"kobai\.sklearn: .* is not installed\. Install it: pip install 'kobai\[data\]'"
    ):
        importlib.import_module("kobai.sklearn")
