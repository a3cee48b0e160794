"""Tables from a file to answers by the commands, without an option beyond ``--target``; and regressions."""

import csv
import json
import shlex
import warnings
from pathlib import Path

import pytest

import kobai
import messy_tables
from cli_commands import kobai_command
from kobai.lab import tune
from kobai.train import job
from kobai.train.settings import SettingsError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(determines the target|rows are in the training rows|few training rows)"
)

QUICK = ["--epochs", 2, "--hidden", 8]


@pytest.mark.parametrize("kind", ["bank", "survey", "sensor", "passengers"])
def test_a_messy_table_trains_and_is_evaluated_and_predicted(capsys, kind):
    name, content, target = getattr(messy_tables, kind)()
    Path(name).write_bytes(content)
    code, out, err = kobai_command(capsys, "train", "--data", name, "--target", target, *QUICK, "--out", "run")
    assert code == 0, err
    last = "test R² " if kind == "sensor" else "test accuracy "
    assert out.splitlines()[-1].startswith(last)
    trained = out.splitlines()[-1]
    code, out, _ = kobai_command(capsys, "evaluate", "run")
    assert (code, out.splitlines()[-1]) == (0, trained)
    code, out, _ = kobai_command(capsys, "predict", "run", "--data", name)
    rows = list(csv.DictReader(out.splitlines()))
    assert (code, len(rows) > 90) == (0, True)
    if kind == "sensor":
        assert list(rows[0]) == ["sample", "prediction", "label"]
        assert all(0 < float(row["prediction"]) < 40 for row in rows)
    else:
        shares = [[float(v) for k, v in row.items() if k.startswith("P(")] for row in rows]
        assert all(abs(sum(row) - 1) < 1e-4 for row in shares)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["wide", "long", "unicode_headers", "with_bom", "with_ids", "header_again"])
def test_wide_and_long_tables(capsys, kind):
    name, content, target = getattr(messy_tables, kind)()
    Path(name).write_bytes(content)
    assert kobai_command(capsys, "train", "--data", name, "--target", target, *QUICK, "--out", "run")[0] == 0
    assert kobai_command(capsys, "evaluate", "run")[0] == 0
    assert kobai_command(capsys, "predict", "run", "--data", name, "--limit", 3)[0] == 0


@pytest.fixture
def sensor():
    name, content, target = messy_tables.sensor(120)
    Path(name).write_bytes(content)
    return ["--data", name, "--target", target, "--hidden", 8, "--epochs", 3]


@pytest.mark.parametrize("loss", ["mae", "huber", "quantile(0.9)"])
def test_losses_of_a_regression(capsys, sensor, loss):
    code, out, err = kobai_command(capsys, "train", *sensor, "--loss", loss, "--out", "run")
    assert (code, "test MAE" in out) == (0, True), err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--loss", "cross_entropy"], "is for classes, and the target is a number"),
        (["--class-weight", "balanced"], "has no classes to weight"),
        (["--order", "nothing"], "no column named 'nothing', for the order"),
    ],
)
def test_what_does_not_fit_a_regression(capsys, sensor, options, words):
    code, _, err = kobai_command(capsys, "train", *sensor, *options, "--out", "run")
    assert (code != 0, words in " ".join(err.replace("│", " ").split())) == (True, True), err


def test_class_weights_and_options_of_columns(capsys):
    name, content, target = messy_tables.passengers(120)
    Path(name).write_bytes(content)
    options = ["--class-weight", "balanced", "--columns", "Sex, Age,Fare", "--ignore", "Fare", "--missing", "drop"]
    code, out, err = kobai_command(
        capsys, "train", "--data", name, "--target", target, *QUICK, *options, "--out", "run"
    )
    assert (code, "24 rows have a missing cell: left out" in out) == (0, True), err
    assert "3 inputs, 2 classes" in out
    assert "test balanced accuracy" in out


@pytest.mark.thorough
def test_a_regression_is_diagnosed_and_reported(capsys, sensor):
    assert kobai_command(capsys, "train", *sensor, "--out", "run", "-q")[0] == 0
    code, out, _ = kobai_command(capsys, "diagnose", "run", "--quick", "--json")
    assert (code in (0, 1), "findings" in json.loads(out)) == (True, True)
    assert kobai_command(capsys, "report", "run")[0] == 0
    page = Path("run/report.html").read_text()
    for words in (
        "test R²",
        "Residuals",
        "Predicted and true",
        "temperature, a number",
        "loss (mse)",
        "How the table was read",
    ):
        assert words in page, words


def test_a_curve_that_still_falls_says_what_to_try(capsys, sensor):
    _, out, _ = kobai_command(capsys, "train", *sensor, "--out", "run")
    assert "the validation loss still falls at the end: try --epochs 6" in out


def test_many_categories_are_embedded_stored_exported_and_answered(capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="the exported graph runs in it")
    town = [f"town{i * 7 % 40}" for i in range(400)]
    rows = [f"{name},{i % 9},{int(name[4:]) ** 2 % 23}.5" for i, name in enumerate(town)]
    Path("towns.csv").write_text("\n".join(["town,x,price", *rows]) + "\n")
    asked = ["--data", "towns.csv", "--target", "price", "--categories", "embedding", "--epochs", 40, "--out", "run"]
    code, out, err = kobai_command(capsys, "train", *asked)
    assert (code, "2 inputs, a regression" in out) == (0, True), err
    assert float(out.splitlines()[-1].split()[-1]) > 0.9, "x says nothing, so the vectors of the towns have learnt it"
    Path("new.csv").write_text("town,x\ntown3,1\nnowhere,1\n,1\n")
    code, out, err = kobai_command(capsys, "predict", "run", "--data", "new.csv")
    known, *unknown = [float(row["prediction"]) for row in csv.DictReader(out.splitlines())]
    assert (code, "town: not seen in training: nowhere" in err) == (0, True)
    assert unknown[0] == unknown[1] != known
    assert kobai_command(capsys, "export", "run")[0] == 0
    restored = job.restore("run", print)
    inputs = restored.preparation("new.csv")[0]
    graph = onnxruntime.InferenceSession("run/model.onnx")
    (values,) = graph.run(None, {"x": inputs})
    expected = restored.model(kobai.tensor(inputs)).detach().numpy()
    assert abs(values - expected).max() < 1e-5
    code, out, _ = kobai_command(capsys, "diagnose", "run", "--quick", "--json")
    assert all(finding["disease"] != "input-scale" for finding in json.loads(out)["findings"])
    assert kobai_command(capsys, "report", "run")[0] == 0


@pytest.mark.thorough
def test_a_regression_is_compared_by_r2_and_the_best_can_be_trained(capsys, sensor):
    how = ["--vary", "lr=0.001,0.01", "--repeat", 2, "--jobs", 1, "--out", "compared"]
    code, out, err = kobai_command(capsys, "compare", *sensor, *how)
    assert (code, "accuracy" in out) == (0, False), err
    assert "ranked by R² on the validation split" in out
    files = ("ranking.md", "report.html")
    for text in (Path("compared", name).read_text() for name in files):
        assert ("validation R²" in text, "accuracy" in text.lower()) == (True, False)
    assert json.loads(Path("compared/results.json").read_text())["measure"] == "R²"
    command = out.splitlines()[-1].partition("train the best one: kobai ")[2]
    assert kobai_command(capsys, *shlex.split(command), "--out", "run")[0] == 0
    assert kobai_command(capsys, "compare", *sensor, *how[:2], "--jobs", 1, "-q")[1].count("validation R²") == 1


def test_a_regression_is_tuned_by_its_loss(capsys, sensor):
    pytest.importorskip("optuna", reason="the search needs it")
    how = ["--space", "lr=1e-3..1e-2:log", "--trials", 2, "--jobs", 1, "--test", "--out", "study"]
    code, out, err = kobai_command(capsys, "tune", *sensor, *how)
    assert (code, "by validation loss" in out, "test R²" in out) == (0, True, True), err
    assert "R²" in Path("study/report.html").read_text()
    code, _, err = kobai_command(capsys, "tune", *sensor, *how, "--by", "accuracy")
    assert (code, "which has no accuracy; score by the loss" in err) == (2, True)
    with pytest.raises(SettingsError, match="has no accuracy; score by the loss"):
        tune({"lr": "1e-3..1e-2:log"}, by="accuracy", data=sensor[1], target=sensor[3])
    assert (
        tune({"lr": "1e-3..1e-2:log"}, trials=1, jobs=1, epochs=1, data=sensor[1], target=sensor[3]).plan.by == "loss"
    )


def test_a_doubt_is_told_by_training_alone(capsys):
    rows = "".join(f"{i % 7},{i * 0.1:.1f},{i * 0.2:.1f}\n" for i in range(60))
    Path("leak.csv").write_text("a,b,y\n" + rows)
    doubt = "column 'b' determines the target 'y'"
    for command in (
        ["train", "--data", "leak.csv", "--task", "regression", *QUICK, "--out", "run"],
        ["evaluate", "run"],
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            code, _, err = kobai_command(capsys, *command)
        assert code == 0
        assert (doubt in err + "".join(str(one.message) for one in told)) == (command[0] == "train")
