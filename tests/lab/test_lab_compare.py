"""``compare``: every condition from the same seeds, ranked, resumed, and without a look at the test split."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise

import pytest

import kobai
from kobai.cli import compare as command, main
from kobai.errors import DataError
from kobai.lab.reports.reporting import FILE, report
from kobai.lab.sweep import values
from kobai.lab.sweep.compare import PLAN, RUNS, perform, read_plan
from kobai.lab.sweep.compare_figure import SHOWN, appearances, figure
from kobai.lab.sweep.compare_plan import ComparePlan, plan
from kobai.lab.sweep.compare_result import FIGURE, RESULTS, TABLE, Comparison, Condition
from kobai.lab.training import from_settings
from kobai.lab.training.curves import Curves
from kobai.train import job
from kobai.train.settings import RunSettings, SettingsError

QUICK = {"hidden": (16, 16), "optimizer": "sgd", "epochs": 2}


def cli(*arguments: str) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code or 0
    return 0


# --- what a run is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": "cosine"},
        {"schedule": "plateau", "batch_norm": True, "dropout": 0.3},
        {"schedule": "onecycle", "clip_grad_norm": 1.0, "weight_decay": 1e-4},
        {"patience": 1, "lr": 0.3},
    ],
    ids=lambda c: ",".join(c) or "plain",
)
def test_a_run_is_that_of_kobai_train_number_for_number(tmp_path, changed):
    settings = RunSettings(hidden=(20,), epochs=4, seed=3, **changed)
    job.train(settings, job.load_data(settings), tmp_path / "run", say=lambda line: None, curve=False)
    history = [json.loads(line) for line in (tmp_path / "run" / job.HISTORY).read_text().splitlines()]
    batches = math.ceil(len(from_settings.parts(settings).train) / settings.batch_size)
    run = from_settings.train(settings, measures=4 * batches)  # after every step
    at = [run.step.index(record["epoch"] * batches) for record in history]
    assert [run.held_accuracy[i] for i in at] == [record["val_accuracy"] for record in history]
    assert [run.held_loss[i] for i in at] == pytest.approx([record["val_loss"] for record in history], rel=1e-5)
    assert run.step[-1] == history[-1]["epoch"] * batches


def test_a_run_that_leaves_the_numbers_ends_and_is_ranked_last():
    found = kobai.lab.compare({"lr": [1e38, 0.1]}, jobs=1, **QUICK)
    gone = found.conditions[0].runs[0]
    assert gone.diverged is not None
    assert gone.step[-1] == gone.diverged < found.conditions[1].runs[0].step[-1]
    assert [p.name for p in found.ranking()] == ["lr 0.1", "lr 1e+38"]
    assert found.ranking()[1].diverged == 1
    assert "diverged" in found.table()
    json.dumps(found.as_dict(), allow_nan=False)
    assert math.isnan(Curves.from_dict(gone.as_dict()).train_loss[-1])


# --- conditions -------------------------------------------------------------------------------------------------------


def test_the_product_of_all_settings_in_order():
    found = plan(RunSettings(), {"activation": "sigmoid,relu", "init": "normal:0.01,he", "batch-norm": "on,off"})
    names = [name for name, _ in found.conditions()]
    assert names[:3] == ["sigmoid, std 0.01, batch norm", "sigmoid, std 0.01, no batch norm", "sigmoid, he, batch norm"]
    assert len(names) == len(set(names)) == 8
    one = found.conditions()[1][1]
    assert (one.activation, one.init, one.batch_norm) == ("sigmoid", "normal(0.01)", False)


def test_every_setting_of_the_model_and_its_training_can_be_varied():
    texts = {
        "model": "mlp", "hidden": "10|20,20", "activation": "relu,tanh", "init": "he,xavier", "batch_norm": "on,off",
        "dropout": "0,0.5", "optimizer": "sgd,rmsprop", "lr": "default,0.01", "momentum": "0,0.9", "weight_decay": "0,1e-4",
        "schedule": "none,cosine", "epochs": "1,2", "batch_size": "50,100", "clip_grad_norm": "none,1", "patience": "none,3",
    }  # fmt: skip
    assert set(texts) == set(values.KINDS)
    for name, text in texts.items():
        found = plan(RunSettings(optimizer="sgd"), {name: text})
        assert [getattr(one, name) for _, one in found.conditions()] == found.vary[name]
        assert len({label for label, _ in found.conditions()}) == len(found.vary[name])


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "at least one setting"),
        ({"actvation": "relu"}, "Did you mean 'activation'"),
        ({"activation": "relu,sigmod"}, "sigmod: activation: 'sigmod'.*Did you mean 'sigmoid'"),
        ({"seed": "1,2"}, "same for all runs; --repeat"),
        ({"data": "mnist,digits"}, "same for all runs"),
        ({"batch_norm": "maybe"}, "expected on or off, got 'maybe'"),
        ({"lr": "0.1,fast"}, "lr: expected a number, got 'fast'"),
        ({"lr": "0.1,-1"}, "lr -1: lr: expected > 0"),
        ({"hidden": "100,100"}, r"100 is given twice; write \| between"),
        ({"optimizer": "sgd,adam", "momentum": "0.9"}, "adam, momentum 0.9: momentum: adam has none"),
        ({"epochs": [True]}, "epochs: expected an integer, got True"),
        ({"init": "normal:wide"}, "init"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_runs(vary, message):
    with pytest.raises(SettingsError, match=message):
        plan(RunSettings(), vary)


def test_arguments_of_the_function_are_checked():
    with pytest.raises(SettingsError, match="lr is given for all runs too"):
        kobai.lab.compare({"lr": [0.1, 1]}, lr=0.1)
    with pytest.raises(TypeError, match=r"called 'epoch'.*Did you mean 'epochs'"):
        kobai.lab.compare({"lr": [0.1, 1]}, epoch=1)
    with pytest.raises(SettingsError, match="expected an integer >= 1, got 0"):
        kobai.lab.compare({"lr": [0.1, 1]}, repeat=0)
    with pytest.raises(SettingsError, match="expected an integer >= 1, got -1"):
        kobai.lab.compare({"lr": [0.1, 1]}, jobs=-1)
    with kobai.using("strict"), pytest.raises(SettingsError, match="runs go one after another"):
        kobai.lab.compare({"lr": [0.1, 1]}, jobs=2)


def test_all_conditions_have_the_same_seeds(monkeypatch):
    seen = []
    monkeypatch.setattr(from_settings, "train", lambda settings, *_: (seen.append(settings), a_run())[1])
    found = kobai.lab.compare({"activation": "relu,tanh"}, repeat=3, seed=5, jobs=1)
    assert [(s.seed, s.activation) for s in seen] == [(s, a) for s in (5, 6, 7) for a in ("relu", "tanh")]
    assert found.as_dict()["seeds"] == [5, 6, 7]


def test_the_test_split_is_never_touched(monkeypatch):
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError(f"the test split was asked for its {name}")

        __len__ = __getitem__ = __iter__ = lambda self, *_: self.anything

    load = job.load_data
    monkeypatch.setattr(job, "load_data", lambda settings: replace(load(settings), test=Forbidden()))
    from_settings._parts.cache_clear()
    try:
        assert kobai.lab.compare({"lr": [0.1, 1]}, jobs=1, **QUICK).ranking()
    finally:
        from_settings._parts.cache_clear()


# --- ranking, table, figure -------------------------------------------------------------------------------------------


def a_run(final: float = 0.5, loss: float = 1.0, points: int = 5) -> Curves:
    up = [final * i / (points - 1) for i in range(points)]
    losses = [loss] * points
    return Curves([float(i) for i in range(points)], [*range(points)], [], losses, up, losses, up)


def made_up(*finals: tuple[float, ...]) -> Comparison:
    made = ComparePlan(RunSettings(), {"lr": [10.0**-i for i in range(len(finals))]}, len(finals[0]))
    return Comparison(
        made,
        tuple(
            Condition(name, one, tuple(a_run(f) for f in final))
            for (name, one), final in zip(made.conditions(), finals, strict=True)
        ),
    )


def test_the_ranking_and_its_numbers():
    first, second = made_up((0.5, 0.7), (0.8, 1.0)).ranking()
    assert (first.name, first.rank, second.rank) == ("lr 0.1", 1, 2)
    assert first.accuracy == pytest.approx(0.9)
    assert first.spread == pytest.approx(math.sqrt(0.02))
    assert first.reached == 4.0  # 0.81 lies between 0.675 at epoch 3 and 0.9 at epoch 4
    assert second.reached is None
    rows = made_up((0.5, 0.7), (0.8, 1.0)).table().splitlines()
    assert rows[0].split("|")[2].strip() == "condition"
    assert len({len(row) for row in rows}) == 1
    assert "± std" in rows[0]
    assert "± std" not in made_up((0.5,), (0.6,)).table()


def test_accuracies_that_are_equal_are_told_apart_by_the_loss():
    made = ComparePlan(RunSettings(), {"lr": [1.0, 0.1]})
    (a, sa), (b, sb) = made.conditions()
    found = Comparison(made, (Condition(a, sa, (a_run(0.9, 0.4),)), Condition(b, sb, (a_run(0.9, 0.3),))))
    assert [p.name for p in found.ranking()] == ["lr 0.1", "lr 1"]


def test_the_figure_shows_mean_and_band_and_names_every_line():
    pytest.importorskip("matplotlib")
    fig = figure(made_up((0.5, 0.7), (0.8, 1.0)))
    loss, accuracy = fig.axes
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "training loss (nats)")
    assert accuracy.get_ylabel() == "validation accuracy"
    assert len(accuracy.lines) == len(accuracy.collections) == 2
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["1. lr 0.1", "2. lr 1"]
    assert list(accuracy.lines[1].get_ydata()) == pytest.approx([0.9 * i / 4 for i in range(5)])  # the best on top
    assert not figure(made_up((0.5,), (0.8,))).axes[0].collections  # one seed has no band


def test_of_many_conditions_the_best_have_colours():
    pytest.importorskip("matplotlib")
    fig = figure(made_up(*[(0.1 + 0.05 * i,) for i in range(12)]))
    colours = [line.get_color() for line in fig.axes[0].lines]
    assert colours.count("0.8") == 12 - SHOWN
    assert [t.get_text() for t in fig.legends[0].get_texts()].count("4 others") == 1


def test_conditions_look_different_and_those_with_one_value_alike():
    made = plan(RunSettings(), {"activation": "sigmoid,relu", "init": "normal:0.01,xavier,he"})
    looks = appearances(made.vary, made.conditions())
    assert len({(look["color"], str(look["linestyle"])) for look in looks.values()}) == 6
    assert looks["sigmoid, he"]["color"] == looks["relu, he"]["color"] == kobai.lab.plots.style("he")["color"]
    assert looks["relu, he"]["linestyle"] == looks["relu, xavier"]["linestyle"]


def test_no_two_conditions_have_one_kind_of_line():
    made = plan(RunSettings(), {"optimizer": "sgd,adam,rmsprop,adagrad,adamw"})
    looks = appearances(made.vary, made.conditions())
    assert (
        len({str(look["linestyle"]) for look in looks.values()}) == len({look["color"] for look in looks.values()}) == 5
    )
    assert looks["adam"]["color"] == kobai.lab.plots.style("adam")["color"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_folder_holds_everything_and_another_comparison_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "c"
    found = kobai.lab.compare({"activation": "relu,tanh"}, out=folder, jobs=1, **QUICK)
    assert {p.name for p in folder.iterdir()} == {PLAN, RESULTS, TABLE, RUNS, FILE, f"{FIGURE}.png", f"{FIGURE}.svg"}
    content = json.loads((folder / RESULTS).read_text())
    assert [p["name"] for p in content["ranking"]] == [p.name for p in found.ranking()]
    assert content["command"] == found.command()
    written = (folder / FILE).read_text()
    assert f"{100 * found.ranking()[0].accuracy:.1f} %" in written
    assert (
        report(folder, tmp_path / "again.html").read_text().splitlines()[:-4] == written.splitlines()[:-4]
    )  # but its date
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for other, message in (
        ({"vary": {"activation": "relu,sigmoid"}}, "varies activation=relu|tanh, and this one activation=relu|sigmoid"),
        ({"vary": {"activation": "relu,tanh"}, "lr": 0.5}, "its lr is default, not 0.5"),
        ({"vary": {"activation": "relu,tanh"}, "measures": 7}, "its measures is 40, not 7"),
    ):
        vary = other.pop("vary")
        with pytest.raises(DataError) as error:
            kobai.lab.compare(vary, out=folder, jobs=1, **{**QUICK, **other})
        assert message in str(error.value)
        assert "another folder" in str(error.value)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_folders_that_hold_something_else_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="holds files that are not a comparison's"):
        kobai.lab.compare({"lr": [0.1, 1]}, out=tmp_path, jobs=1, **QUICK)
    with pytest.raises(DataError, match="is a file"):
        kobai.lab.compare({"lr": [0.1, 1]}, out=tmp_path / "thesis.tex", jobs=1, **QUICK)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(DataError, match="holds no comparison"):
        read_plan(tmp_path)
    (tmp_path / PLAN).write_text("{")
    with pytest.raises(DataError, match="is no JSON file"):
        read_plan(tmp_path)


def test_an_interrupted_comparison_goes_on_and_finds_the_same(tmp_path, monkeypatch):
    whole = kobai.lab.compare({"activation": "relu,tanh"}, repeat=2, jobs=1, **QUICK)
    train, count = from_settings.train, 0

    def stops(*args):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(from_settings, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        kobai.lab.compare({"activation": "relu,tanh"}, repeat=2, jobs=1, out=tmp_path / "c", **QUICK)
    assert len(list((tmp_path / "c" / RUNS).iterdir())) == 3
    so_far = json.loads((tmp_path / "c" / RESULTS).read_text())
    assert so_far["left"] == 1
    assert {place["name"]: place["runs"] for place in so_far["ranking"]} == {"relu": 2, "tanh": 1}
    assert "| runs |" in (tmp_path / "c" / TABLE).read_text()
    assert "3 of 4 runs are done; kobai compare --resume goes on with it" in (tmp_path / "c" / FILE).read_text()
    found = perform(read_plan(tmp_path / "c"), jobs=1, out=tmp_path / "c")
    assert count == 5
    assert found.left == 0
    assert "runs are done" not in (tmp_path / "c" / FILE).read_text()
    assert "| runs |" not in (tmp_path / "c" / TABLE).read_text()
    assert [c.final("held_loss") for c in found.conditions] == [c.final("held_loss") for c in whole.conditions]
    more = kobai.lab.compare({"activation": "relu,tanh"}, repeat=3, jobs=1, out=tmp_path / "c", **QUICK)
    assert count == 7
    assert more.plan.repeat == read_plan(tmp_path / "c").repeat == 3


def test_what_was_begun_and_not_ended_is_no_report(tmp_path, monkeypatch):
    monkeypatch.setattr(from_settings, "train", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kobai.lab.compare({"activation": "relu,tanh"}, jobs=1, out=tmp_path / "c", **QUICK)
    with pytest.raises(DataError, match=r"no run of the comparison .* kobai compare --resume"):
        report(tmp_path / "c")


def test_a_setting_that_only_the_default_forbids(monkeypatch):
    found = plan(RunSettings(momentum=0.9), {"optimizer": "sgd,rmsprop"}, given=["momentum"])  # Adam has none to set
    assert [one.momentum for _, one in found.conditions()] == [0.9, 0.9]
    with pytest.raises(SettingsError, match="adam: momentum: adam has none"):
        plan(RunSettings(momentum=0.9), {"optimizer": "sgd,adam"})
    with pytest.raises(SettingsError, match="no schedule is called so") as error:
        plan(RunSettings(schedule="cosin"), {"lr": [0.1, 1]})
    assert error.value.option == "schedule"


def test_measurements_are_as_many_as_were_asked_for_and_evenly_apart():
    run = from_settings.train(RunSettings(hidden=(16,), epochs=4), measures=30)  # 52 steps
    assert len(run.step) == 31
    assert {b - a for a, b in pairwise(run.step)} == {1, 2}
    assert len(from_settings.train(RunSettings(hidden=(16,), epochs=1), measures=30).step) == 14  # one for each step


def test_a_run_that_is_not_what_its_name_says_is_not_believed(tmp_path):
    kobai.lab.compare({"lr": [0.1, 1]}, out=tmp_path / "c", jobs=1, **QUICK)
    first, second = sorted((tmp_path / "c" / RUNS).iterdir())
    first.write_bytes(second.read_bytes())
    with pytest.raises(DataError, match="is not the run that its name says"):
        kobai.lab.compare({"lr": [0.1, 1]}, out=tmp_path / "c", jobs=1, **QUICK)


def test_processes_find_what_one_finds_and_tell_how_far_they_are(monkeypatch):
    monkeypatch.setattr("kobai.lab.sweep.watching.POLL", 0.01)
    news = []
    one = kobai.lab.compare({"activation": "relu,tanh"}, jobs=1, **QUICK)
    two = kobai.lab.compare({"activation": "relu,tanh"}, jobs=2, watch=lambda *n: news.append(n), **QUICK)
    for a, b in zip(one.conditions, two.conditions, strict=True):
        assert a.final("held_loss") == pytest.approx(b.final("held_loss"), rel=1e-4)
    assert {key for key, _, ended in news if ended} == {(0, 0), (1, 0)}
    assert any(not ended and len(what["held_accuracy"]) > 1 for _, what, ended in news)


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_from_first_to_last(tmp_path, capsys):
    folder = tmp_path / "c"
    arguments = ["--vary", "init=normal:0.0001,he", "--optimizer", "sgd", "--hidden", "16,16", "--epochs", "2"]
    assert cli("compare", *arguments, "--out", folder, "--jobs", "1") == 0
    told = capsys.readouterr().out
    assert "2 conditions × 1 = 2" in told
    assert "2/2" in told
    assert "std 0.0001" in told
    assert "train the best one: kobai train" in told
    assert cli("compare", "--resume", folder, "-q") == 0
    assert capsys.readouterr().out.startswith("he: validation accuracy 0.")
    assert cli("compare", "--vary", "lr=0.1,1", "--out", folder) == 1
    refused = capsys.readouterr()
    assert "holds another comparison" in refused.err
    assert refused.out == ""
    assert cli("compare", "--resume", folder, "--lr", "0.1") == 2
    assert cli("compare", "--resume", folder, "--out", folder) == 2
    assert cli("compare", "--vary", "nonsense") == 2
    assert cli("compare") == 2
    assert cli("compare", "--vary", "lr=0.1", "--vary", "lr=1") == 2
    assert "given twice" in capsys.readouterr().err


def test_the_command_that_is_printed_trains_just_so():
    settings = RunSettings(
        hidden=(30,), init="normal(0.1)", batch_norm=False, optimizer="sgd", schedule="cosine", epochs=3
    )
    words = from_settings.command(settings).split()
    assert "--no-batch-norm" in words  # which the digits' own recipe would switch on
    assert words[words.index("--dropout") + 1] == "0.0"
    assert "'normal(0.1)'" in words


def test_without_matplotlib_there_are_numbers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    kobai.lab.compare({"lr": [0.1, 1]}, out=tmp_path / "c", jobs=1, **QUICK)
    assert (tmp_path / "c" / RESULTS).exists()
    assert not (tmp_path / "c" / f"{FIGURE}.png").exists()


def test_where_the_data_are_may_be_said_anew_on_resumption(tmp_path, monkeypatch):
    kobai.lab.compare({"lr": [0.1, 1]}, out=tmp_path / "c", jobs=1, **QUICK)
    asked = []
    monkeypatch.setattr(command, "perform", lambda plan, **_: asked.append(plan.base.data_dir) or 1 / 0)
    monkeypatch.setattr(RunSettings, "check", lambda self: self)  # the digits, embedded, take no folder
    assert cli("compare", "--resume", tmp_path / "c", "--data-dir", "elsewhere") == 1
    assert asked == ["elsewhere"]


def test_a_comparison_in_which_nothing_trains_has_no_best(tmp_path, capsys):
    arguments = ["--vary", "lr=1e38,2e38", "--optimizer", "sgd", "--hidden", "16", "--epochs", "2", "--jobs", "1"]
    assert cli("compare", *arguments, "--out", tmp_path / "c") == 0
    told = capsys.readouterr().out
    assert "none of them trains" in told
    assert "kobai train" not in told
    page = (tmp_path / "c" / FILE).read_text()
    assert "Every condition left the finite numbers" in page
    assert "kobai train --" not in page


def test_a_pipe_gets_whole_lines_however_narrow_the_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    vary = ["--vary", "activation=sigmoid,relu", "--vary", "init=normal:0.01,he", "--vary", "batch_norm=on,off"]
    arguments = [*vary, "--hidden", "8", "--epochs", "1", "--jobs", "1", "--out", tmp_path / "c"]
    assert cli("compare", *arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert sum("sigmoid, std 0.01, no batch norm" in line and line.strip()[0].isdigit() for line in told) == 2
    assert any(line.startswith("train the best one: kobai train") and "--epochs 1" in line for line in told)
