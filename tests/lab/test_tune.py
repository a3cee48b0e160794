"""``tune``: searches on the validation split, on the disk, in several processes; the test split once, on request."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import kobai
from kobai.cli import main
from kobai.errors import DataError
from kobai.lab.reports.reporting import FILE
from kobai.lab.sweep import tune_figures, tune_study
from kobai.lab.sweep.tune import perform, read_plan
from kobai.lab.sweep.tune_plan import Trial, plan
from kobai.lab.sweep.tune_result import CHOSEN, RESULTS, TEST, Search
from kobai.lab.sweep.values import Range
from kobai.lab.training import from_settings
from kobai.lab.training.curves import Curves
from kobai.train import job
from kobai.train.settings import RunSettings, SettingsError
from kobai.utils.data import TensorDataset

optuna = pytest.importorskip("optuna")

QUICK = {"hidden": (16,), "epochs": 2, "jobs": 1}
SPACE = {"lr": "1e-4..1:log", "activation": "relu|tanh"}


def cli(*arguments: str) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture
def surface(monkeypatch):
    """Trials that take no time: the score is a known function of the settings, best at lr = 0.01."""
    calls = []

    def train(settings, measures=40, on_measure=None):
        calls.append(settings)
        steps = settings.epochs * math.ceil(1294 / settings.batch_size)
        run, goal = Curves(), 1 - 0.2 * abs(math.log10(settings.lr) + 2) - 0.3 * (settings.activation == "sigmoid")
        for i in range(measures + 1):
            value = goal * i / measures
            run.epoch.append(settings.epochs * i / measures)
            run.step.append(math.ceil(steps * i / measures))
            for curve in (run.train_accuracy, run.held_accuracy):
                curve.append(value)
            for curve in (run.train_loss, run.held_loss):
                curve.append(2 - value)
            if on_measure is not None and on_measure(run):
                break
        return run

    monkeypatch.setattr(from_settings, "train", train)
    return calls


class Forbidden:
    """Stands for the test split; whoever asks it for anything fails."""

    def __getattr__(self, name):
        raise AssertionError(f"the test split was asked for its {name}")

    def __len__(self):
        raise AssertionError("the test split was asked for its length")

    __getitem__ = __iter__ = __len__


@pytest.fixture
def fresh_data():
    from_settings._parts.cache_clear()
    yield
    from_settings._parts.cache_clear()


# --- the test split ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tpe", "random", "grid"])
def test_no_search_touches_the_test_split(monkeypatch, tmp_path, fresh_data, method):
    load, asked = job.load_data, []
    monkeypatch.setattr(job, "load_data", lambda s: (asked.append(s), replace(load(s), test=Forbidden()))[1])
    found = kobai.lab.tune({"lr": "1e-3..1e-1:log:3"}, method=method, trials=3, out=tmp_path / "t", **QUICK)
    assert asked
    assert len(found.complete) + len(found.of("pruned")) == 3
    assert not (tmp_path / "t" / TEST).exists()
    with pytest.raises(AssertionError, match="the test split was asked"):
        found.test()  # which proves that the guard guards


def test_what_is_in_the_test_split_changes_no_trial(monkeypatch, fresh_data):
    first = kobai.lab.tune(SPACE, method="tpe", trials=4, **QUICK)
    looked, load = first.test(), job.load_data

    def poisoned(settings):
        splits = load(settings)
        x, t = splits.test.tensors
        return replace(splits, test=TensorDataset(kobai.randn(*x.shape), kobai.zeros_like(t)))

    monkeypatch.setattr(job, "load_data", poisoned)
    from_settings._parts.cache_clear()
    second = kobai.lab.tune(SPACE, method="tpe", trials=4, **QUICK)
    assert [t.curve for t in first.trials] == [t.curve for t in second.trials]
    assert looked["accuracy"] != second.test()["accuracy"]


def test_the_test_split_is_looked_at_once(tmp_path, monkeypatch):
    found = kobai.lab.tune({"lr": [0.001, 0.01]}, trials=2, method="grid", out=tmp_path / "t", **QUICK)
    looks, train = [], job.train
    monkeypatch.setattr(job, "train", lambda *a, **k: (looks.append(a[0]), train(*a, **k))[1])
    result = found.test(tmp_path / "t")
    assert looks == [found.settings()]
    assert result["parameters"] == found.best.parameters
    assert (tmp_path / "t" / CHOSEN / "best.safetensors").exists()
    assert found.test(tmp_path / "t") == result
    assert len(looks) == 1
    other = Search(found.plan, tuple(t for t in found.trials if t.number != found.best.number))
    with pytest.raises(DataError, match="has been looked at already, with lr 0"):
        other.test(tmp_path / "t")
    assert len(looks) == 1


# --- the methods ------------------------------------------------------------------------------------------------------


def test_a_grid_has_every_point_once(surface):
    found = kobai.lab.tune({"lr": "1e-4..1:log:5", "activation": "relu,sigmoid"}, method="grid", **QUICK)
    points = [(t.parameters["lr"], t.parameters["activation"]) for t in found.complete]
    assert sorted(points) == [(10.0**p, a) for p in range(-4, 1) for a in ("relu", "sigmoid")]
    assert found.best.parameters == {"lr": 0.01, "activation": "relu"}
    assert found.best.value == pytest.approx(1.0)


def test_random_search_is_log_uniform_and_depends_on_the_seed_alone(surface):
    found = kobai.lab.tune({"lr": "1e-4..1:log"}, method="random", trials=60, prune=False, **QUICK)
    logs = np.log10([t.parameters["lr"] for t in found.trials])
    assert logs.min() >= -4
    assert logs.max() <= 0
    assert abs(logs.mean() + 2) < 0.5
    assert logs.std() == pytest.approx(4 / math.sqrt(12), rel=0.25)
    again = kobai.lab.tune({"lr": "1e-4..1:log"}, method="random", trials=5, prune=False, **QUICK)
    assert [t.parameters for t in again.trials] == [t.parameters for t in found.trials[:5]]
    other = kobai.lab.tune({"lr": "1e-4..1:log"}, method="random", trials=5, prune=False, seed=1, **QUICK)
    assert other.trials[0].parameters != found.trials[0].parameters


def test_the_bayesian_search_closes_in_on_the_best(surface):
    def distance(method):
        found = kobai.lab.tune({"lr": "1e-4..1:log"}, method=method, trials=40, prune=False, **QUICK)
        return np.mean([abs(math.log10(t.parameters["lr"]) + 2) for t in found.trials[20:]])

    assert distance("tpe") < 0.5 * distance("random")


def test_pruning_ends_bad_trials_early_and_keeps_the_best(surface):
    found = kobai.lab.tune({"lr": "1e-4..1:log"}, method="random", trials=40, **QUICK)
    pruned = found.of("pruned")
    assert len(pruned) >= 15
    assert {len(t.curve) for t in pruned} <= {3, 9}  # the rungs, of 27 measurements; none is thrown away at its end
    assert all(len(t.curve) == 27 for t in found.complete)
    for trial in pruned:  # none of which was as good already as what had been found
        done = [t.value for t in found.complete if t.number < trial.number]
        assert not done or trial.value < max(done)
    whole = kobai.lab.tune({"lr": "1e-4..1:log"}, method="random", trials=40, prune=False, **QUICK)
    assert not whole.of("pruned")
    assert found.best.value == pytest.approx(whole.best.value, abs=0.1)


def test_by_loss_less_is_better_and_divergence_is_worst():
    found = kobai.lab.tune({"lr": [1e38, 0.01]}, by="loss", method="grid", optimizer="sgd", **QUICK)
    assert found.best.parameters == {"lr": 0.01}
    gone = next(t for t in found.trials if t.parameters["lr"] == 1e38)
    assert gone.diverged
    assert gone.value is None
    json.dumps(found.as_dict(), allow_nan=False)
    by_accuracy = kobai.lab.tune({"lr": [1e38, 0.01]}, method="grid", optimizer="sgd", **QUICK)
    assert {t.value for t in by_accuracy.trials if t.diverged} == {0.0}
    nothing = kobai.lab.tune({"lr": [1e38]}, method="grid", optimizer="sgd", **QUICK)
    assert nothing.best is None
    with pytest.raises(DataError, match="none is best"):
        nothing.command()


def test_trials_are_runs_of_kobai_train():
    found = kobai.lab.tune({"lr": [0.01], "hidden": "20|20,20"}, method="grid", epochs=2, jobs=1)
    for trial in found.trials:
        one = RunSettings(lr=0.01, hidden=trial.parameters["hidden"], epochs=2)
        assert trial.value == from_settings.train(one).held_accuracy[-1]
    assert found.settings().hidden in ((20,), (20, 20))


def test_whole_numbers_and_all_kinds_of_choices(surface):
    space = {"batch_size": "16..256:log", "hidden": "50|100,100", "batch_norm": "on,off", "lr": "0.001|0.01"}
    space["dropout"] = "0..0.5"
    found = kobai.lab.tune(space, trials=8, prune=False, epochs=2, jobs=1)
    for trial, settings in zip(found.trials, surface, strict=True):
        assert isinstance(trial.parameters["batch_size"], int)
        assert trial.parameters == {name: getattr(settings, name) for name in space}


# --- the study on the disk --------------------------------------------------------------------------------------------


def test_an_interrupted_search_goes_on_as_if_nothing_had_been(tmp_path, surface, monkeypatch):
    whole = kobai.lab.tune(SPACE, method="random", trials=8, prune=False, **QUICK)
    train, count = from_settings.train, 0

    def stops(*args):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(from_settings, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        kobai.lab.tune(SPACE, method="random", trials=8, prune=False, out=tmp_path / "t", **QUICK)
    assert len(json.loads((tmp_path / "t" / RESULTS).read_text())["trials"]) == 3
    assert "3 trials" in (tmp_path / "t" / FILE).read_text()
    found = perform(
        read_plan(tmp_path / "t"), jobs=1, out=tmp_path / "t"
    )  # how many there are to be, the study remembers
    assert len(found.complete) == len(found.trials) == 8
    first = [t.parameters for t in whole.trials]
    assert [t.parameters for t in found.trials] == first  # the one that was interrupted is done again
    calls = len(surface)
    again = perform(read_plan(tmp_path / "t"), trials=8, jobs=1, out=tmp_path / "t")
    assert len(surface) == calls
    assert again.trials == found.trials
    more = perform(read_plan(tmp_path / "t"), trials=10, jobs=1, out=tmp_path / "t")
    assert len(more.complete) == 10


def test_trials_of_a_process_that_was_killed_are_done_again(tmp_path, surface):
    made = plan(RunSettings(hidden=(16,), epochs=2), SPACE, "random", prune=False)
    tune_study.check_folder(tmp_path / "t", made)
    opened = tune_study.open_study(tmp_path / "t", made)
    trial = tune_study._take(opened, made, 3)
    tune_study._suggested(trial, made)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    trial.set_user_attr("owner", [tune_study.this_process().host, dead.pid, 0.0, ""])
    with (tmp_path / "t" / tune_study.JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":6,"wor')  # killed within a line
    found = perform(made, trials=3, jobs=1, out=tmp_path / "t")
    assert len(found.complete) == len(found.trials) == 3
    assert trial.params in [t.parameters for t in found.trials]


def test_a_trial_of_another_machine_is_left_alone_while_it_is_heard_of(tmp_path, surface):
    made = plan(RunSettings(hidden=(16,), epochs=2), SPACE, "random", prune=False)
    tune_study.check_folder(tmp_path / "t", made)
    opened = tune_study.open_study(tmp_path / "t", made)
    trial = tune_study._take(opened, made, 3)
    trial.set_user_attr("owner", ["elsewhere", 1, tune_study.time.time(), ""])
    found = perform(made, trials=3, jobs=1, out=tmp_path / "t")
    assert (len(found.complete), len(found.of("running"))) == (2, 1)
    trial.set_user_attr("owner", ["elsewhere", 1, tune_study.time.time() - 2 * tune_study.SILENCE, ""])
    found = perform(made, trials=3, jobs=1, out=tmp_path / "t")
    assert (len(found.complete), len(found.of("running"))) == (3, 0)


def test_several_processes_do_the_trials_of_one_study(tmp_path):
    seen = []
    space = {"lr": "1e-3..1e-1:log:6"}
    options = {**QUICK, "jobs": 2}
    found = kobai.lab.tune(space, method="grid", out=tmp_path / "t", watch=seen.append, **options)
    assert sorted(t.parameters["lr"] for t in found.complete) == pytest.approx(Range(1e-3, 1e-1, True, 6).grid())
    owners = {tuple(t.user_attrs["owner"][:2]) for t in tune_study.open_study(tmp_path / "t", found.plan).trials}
    assert len(owners) == 2
    assert isinstance(seen[-1], Search)
    assert seen[-1].best == found.best


def test_a_study_of_another_search_is_refused_and_unchanged(tmp_path, surface):
    folder = tmp_path / "t"
    kobai.lab.tune(SPACE, trials=2, out=folder, **QUICK)
    before = {p: p.read_bytes() for p in folder.rglob("*")}
    for space, changed, message in (
        (
            {"lr": "1e-4..0.1:log", "activation": "relu|tanh"},
            {},
            "it searches lr=0.0001..1:log and activation=relu|tanh, and",
        ),
        (SPACE, {"method": "random"}, "its method is tpe, not random"),
        (SPACE, {"by": "loss"}, "its by is accuracy, not loss"),
        (SPACE, {"batch_size": 50}, "its batch_size is 100, not 50"),
        (SPACE, {"validation": 0.2}, "its validation is 0.1, not 0.2"),
    ):
        with pytest.raises(DataError) as error:
            kobai.lab.tune(space, trials=2, out=folder, **{**QUICK, **changed})
        assert "holds another search" in str(error.value)
        assert message in str(error.value)
        assert "nothing is overwritten" in str(error.value)
    assert {p: p.read_bytes() for p in folder.rglob("*")} == before


def test_files_that_are_no_study_are_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="holds files that are not a search's"):
        kobai.lab.tune(SPACE, out=tmp_path / "a", **QUICK)
    (tmp_path / "b").mkdir()
    foreign = tmp_path / "b" / tune_study.JOURNAL
    foreign.write_text("my diary, of one line")
    with pytest.raises(DataError, match="is no journal of a search"):
        kobai.lab.tune(SPACE, out=tmp_path / "b", **QUICK)
    for content in ("my diary\n", '{"op_code":0,"worker_id":"x","study_name":"theirs","directions":[1]}\n', "[1]\n"):
        foreign.write_text(content)
        with pytest.raises(DataError, match="is no journal of a search"):
            kobai.lab.tune(SPACE, out=tmp_path / "b", **QUICK)
        assert foreign.read_text() == content
    assert [p.name for p in (tmp_path / "b").iterdir()] == [tune_study.JOURNAL]
    foreign.write_text('{"op_code":2,"worker_id":"x","study_id":0,"user_attr":{"plan":{"sett":{}}}}\n')
    with pytest.raises(DataError, match="the plan of the search is damaged"):
        read_plan(tmp_path / "b")
    with pytest.raises(DataError, match="holds no search"):
        read_plan(tmp_path / "a")
    with pytest.raises(DataError, match="is a file"):
        kobai.lab.tune(SPACE, out=tmp_path / "a" / "thesis.tex", **QUICK)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({}, {}, "at least one setting"),
        ({"learning": "1..2"}, {}, "no setting is called 'learning'"),
        ({"lr": "1..0.1"}, {}, r"expected LOW < HIGH, got 1\.\.0\.1"),
        ({"lr": "0..1:log"}, {}, "begins above 0"),
        ({"lr": "1e-3..1:logg"}, {}, "expected log, or at least 2 points"),
        ({"lr": "1e-3..big"}, {}, "lr: expected a number, got 'big'"),
        ({"activation": "relu..tanh"}, {}, "it is no number"),
        ({"activation": "relu|tahn"}, {}, "Did you mean 'tanh'"),
        ({"optimizer": "adam|sgd", "momentum": "0..0.9"}, {}, "adam has none to set"),
        ({"lr": "1e-3..1"}, {"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"dropout": "0..1"}, {}, r"dropout 1: dropout: expected in \[0, 1\)"),
        ({"seed": "0..10"}, {}, "same for all runs"),
        ({"lr": "1e-3..1"}, {"lr": 0.1}, "lr is given for all trials too"),
        ({"lr": "1e-3..1"}, {"method": "baysian"}, "no method is called so"),
        ({"lr": "1e-3..1"}, {"by": "accurracy"}, "Did you mean 'accuracy'"),
        ({"lr": "1e-3..1"}, {"trials": 0}, "expected an integer >= 1, got 0"),
        ({"lr": "1e-3..1"}, {"jobs": 0}, "expected an integer >= 1, got 0"),
    ],
)
def test_what_cannot_be_searched_is_said_at_once(space, options, message):
    with pytest.raises(SettingsError, match=message):
        kobai.lab.tune(space, **options)


def test_without_optuna_the_install_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'kobai\[tune\]'"):
        kobai.lab.tune(SPACE, trials=1, **QUICK)
    assert cli("tune", "--space", "lr=0.1,1") == 1
    assert "pip install 'kobai[tune]'" in capsys.readouterr().err


# --- pictures ---------------------------------------------------------------------------------------------------------


def made_up(count: int = 20) -> Search:
    made = plan(
        RunSettings(), {"lr": "1e-4..1:log", "weight_decay": "1e-8..1e-2:log", "hidden": "50|100,100"}, prune=False
    )
    rng, trials = np.random.default_rng(0), []
    for i in range(count):
        logs = rng.uniform(-4, 0), rng.uniform(-8, -2)
        parameters = {"lr": 10 ** logs[0], "weight_decay": 10 ** logs[1], "hidden": ((50,), (100, 100))[i % 2]}
        state = "pruned" if i % 5 == 4 else "complete"
        trials.append(Trial(i, state, 0.9 - 0.1 * abs(logs[0] + 2), parameters, loss=0.1))
    return Search(made, tuple(trials))


def test_the_importance_finds_what_matters():
    shares = made_up(60).importances()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert next(iter(shares)) == "lr"
    assert shares["lr"] > 0.5
    assert made_up(5).importances() == {}


def test_the_figures():
    pytest.importorskip("matplotlib")
    search = made_up()
    found = tune_figures.figures(search)
    assert set(found) == {"history", "parallel", "importance"}
    lines = [line for line in found["parallel"].axes[0].lines if len(line.get_xdata()) == 4]
    assert len(lines) == 20
    best = next(line for line in lines if line.get_linewidth() == 2.4)
    assert best.get_ydata()[0] == pytest.approx((math.log10(search.best.parameters["lr"]) + 4) / 4)
    history = found["history"].axes[0]
    assert (history.get_xlabel(), history.get_ylabel()) == ("trial", "validation accuracy")
    stairs = history.lines[-1].get_ydata()
    assert all(a <= b for a, b in pairwise(stairs))
    assert stairs[-1] == search.best.value
    assert set(tune_figures.alt_texts(search)) == set(found)
    assert tune_figures.figures(Search(search.plan, ())) == {}


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_from_first_to_last(tmp_path, capsys):
    folder = tmp_path / "t"
    arguments = ["--space", "lr=1e-3..1e-1:log", "--hidden", "16", "--epochs", "2", "--jobs", "1", "--out", folder]
    assert cli("tune", *arguments, "--trials", "3", "--no-prune") == 0
    told = capsys.readouterr().out
    assert "Bayesian (TPE), 3 trials in all" in told
    assert "trial   2" in told
    assert "the best trials" in told
    assert "train with the best: kobai train --hidden 16" in told
    assert "the test split has not been looked at" in told
    assert {"search.json", "study.journal", "report.html", "history.png", "history.svg"} <= {
        p.name for p in folder.iterdir()
    }
    assert json.loads((folder / RESULTS).read_text())["best"]["parameters"]["lr"] > 0
    assert cli("tune", "--resume", folder, "--trials", "4", "--jobs", "1", "--test", "-q") == 0
    tested = capsys.readouterr().out
    assert tested.startswith("test accuracy 0.")
    page = (folder / FILE).read_text()
    assert f"{100 * float(tested.split()[-1]):.1f} %</b><span>test accuracy" in page
    assert cli("tune", *arguments, "--trials", "3", "--prune") == 1
    refused = capsys.readouterr()
    assert "its prune is False, not True" in refused.err
    assert refused.out == ""
    assert cli("tune", "--resume", folder, "--method", "grid") == 2
    assert cli("tune") == 2
