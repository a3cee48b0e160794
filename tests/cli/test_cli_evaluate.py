"""``kobai evaluate`` and the other uses of a model: of the file that was named, on the data that were named."""

import csv
import json
import re
from pathlib import Path

import pytest

import kobai
from cli_commands import SMALL, history, kobai_command, table_path
from kobai.train import checkpoint


def test_evaluate_repeats_the_result_of_training(capsys, table):
    _, trained, _ = kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run")
    code, out, err = kobai_command(capsys, "evaluate", "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("run/best.safetensors, epoch ")
    assert out.splitlines()[-2:] == trained.splitlines()[-2:]
    code, out, _ = kobai_command(capsys, "evaluate", "run/last.safetensors", "--split", "validation")
    assert out.splitlines()[-1].startswith("validation accuracy ")


def test_evaluate_whole_tables(capsys, run, table):
    _, out, _ = kobai_command(capsys, "evaluate", run, "--data", table.name)
    assert "120 samples" in out
    assert float(out.split()[-1]) > 0.9


@pytest.fixture
def overtrained(capsys, table):
    """A run whose best epoch is not its last, nor the one that a copy of it is of."""
    flags = ["--hidden", 8, "--epochs", 12, "--patience", 99, "--lr", 0.3, "--label", "kind", "--out", "run"]
    assert kobai_command(capsys, "train", "--data", table, *flags)[0] == 0
    best, last = (checkpoint.read(f"run/{name}.safetensors") for name in ("best", "last"))
    if best["epoch"] == last["epoch"]:  # by chance: another file under the best one's name serves as well
        assert (
            kobai_command(capsys, "train", "--data", table, *flags[:2], "--epochs", 3, "--lr", 0.001, "--out", "x")[0]
            == 0
        )
        Path("run/best.safetensors").write_bytes(Path("x/best.safetensors").read_bytes())
        best = checkpoint.read("run/best.safetensors")
    previous = checkpoint.read("run/previous.safetensors")
    Path("mine.safetensors").write_bytes(Path("run/previous.safetensors").read_bytes())
    return {
        "run": ("run/best.safetensors", best, ", the best of run"),
        "run/best.safetensors": ("run/best.safetensors", best, ""),
        "run/last.safetensors": ("run/last.safetensors", last, ""),
        "run/previous.safetensors": ("run/previous.safetensors", previous, ""),
        "mine.safetensors": ("mine.safetensors", previous, ""),
    }


NAMED = ["run", "run/best.safetensors", "run/last.safetensors", "run/previous.safetensors", "mine.safetensors"]


@pytest.mark.thorough
@pytest.mark.parametrize("named", NAMED)
def test_every_use_of_a_model_is_of_the_file_that_was_named(capsys, overtrained, named):
    file, state, rank = overtrained[named]
    which = f"{file}, epoch {state['epoch']}{rank}, "
    model = kobai.train.models.build(state["config"]["model"])
    model.load_state_dict(state["model"])
    model.eval()
    data = kobai.data.csv("points.csv", label="kind")
    x, t = data.validation.tensors
    accuracy = (model(x).argmax(1) == t).float().mean().item()

    _, out, _ = kobai_command(capsys, "evaluate", named, "--split", "validation")
    assert out.splitlines()[0] == f"{which}on points, validation split: {len(x)} samples"
    assert out.splitlines()[-1] == f"validation accuracy {accuracy:.4f}"
    loss = kobai.nn.functional.cross_entropy(model(x), t).item()
    assert out.splitlines()[-2] == f"validation loss {loss:.4f}"

    _, out, err = kobai_command(capsys, "predict", named, "--split", "validation")
    assert err == f"kobai: {which}on points, validation split: {len(x)} samples\n"
    sure = kobai.nn.functional.softmax(model(x), dim=1).max(1).values.tolist()
    found = [float(row["probability"]) for row in csv.DictReader(out.splitlines())]
    assert found == pytest.approx(sure, abs=1e-5)

    _, out, _ = kobai_command(capsys, "diagnose", named)
    assert out.splitlines()[0] == f"{which}on points, train split: {len(data.train)} of {len(data.train)} samples"
    _, out, _ = kobai_command(capsys, "diagnose", named, "--json")
    assert (json.loads(out)["file"], json.loads(out)["epoch"]) == (file, state["epoch"])
    assert json.loads(out)["data"].startswith("points, train split")

    _, out, err = kobai_command(capsys, "report", named, "--out", "page.html")
    assert (out, err) == (
        "page.html\n",
        f"kobai: {which}with the train, validation and test splits of {table_path()}\n",
    )
    assert f"epoch {state['epoch']}" in Path("page.html").read_text()


def test_a_report_on_another_epoch_than_the_best_says_so(capsys, overtrained):
    _, state, _ = overtrained["mine.safetensors"]
    records = [dict(record) for record in state["history"]]
    for record in records:
        record["val_loss"] = 0.1 if record["epoch"] == 2 else 0.5
        record["val_accuracy"] = 1.0 if record["epoch"] == 2 else 0.5
    kobai.save({**state, "history": records}, "mine.safetensors")
    assert kobai_command(capsys, "report", "mine.safetensors", "--out", "page.html")[0] == 0
    text = " ".join(Path("page.html").read_text().split())
    assert f"best in epoch 2, with 100.0 %; in epoch {state['epoch']}, which is reported on, it was 50.0 %" in text


@pytest.mark.parametrize("named", NAMED[1:])
def test_resume_goes_on_from_the_file_that_was_named(capsys, overtrained, named):
    file, state, _ = overtrained[named]
    epoch = state["epoch"]
    code, out, err = kobai_command(capsys, "train", "--resume", named, "--epochs", epoch + 2, "--out", "on")
    assert code == 0, err
    assert f"resumed   after epoch {epoch}, from {file}" in out
    assert [record["epoch"] for record in history("on")] == list(range(1, epoch + 3))
    best = min(history("on"), key=lambda record: (record["val_loss"], -record["epoch"]))["epoch"]
    if "the best is looked for anew" in out:
        best = min(history("on")[epoch:], key=lambda record: (record["val_loss"], -record["epoch"]))["epoch"]
    assert checkpoint.read("on/best.safetensors")["epoch"] == best
    assert f"best epoch {best}: " in out


def test_the_best_of_other_epochs_is_never_taken_for_that_of_a_resumed_state(capsys, overtrained):
    """A state that knows of a best epoch whose file has been overwritten since."""
    state = checkpoint.read("run/previous.safetensors")
    epoch = state["epoch"]
    state["callbacks"]["Checkpoint-1"]["best"] = {"value": 2.0, "epoch": 1}
    kobai.save(state, "mine.safetensors")
    _, out, _ = kobai_command(capsys, "train", "--resume", "mine.safetensors", "--epochs", epoch + 1, "--out", "on")
    assert "the parameters of epoch 1, the best so far, are in no file beside mine.safetensors" in out
    assert checkpoint.read("on/best.safetensors")["epoch"] == epoch + 1


def test_a_damaged_file_that_was_named_is_an_error_and_nothing_else_is_used(capsys, run):
    content = Path("run/best.safetensors").read_bytes()
    Path("run/best.safetensors").write_bytes(content[: len(content) // 2])
    code, out, err = kobai_command(capsys, "evaluate", "run/best.safetensors")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    code, out, err = kobai_command(capsys, "evaluate", "run")
    assert code == 0
    assert "using run/last.safetensors instead" in err
    assert out.startswith("run/last.safetensors, epoch 20, the last of run, on ")


def test_evaluation_says_where_it_is_of_samples_that_the_model_was_trained_on(capsys, run, table):
    _, out, _ = kobai_command(capsys, "evaluate", run)
    assert "trained on" not in out
    _, out, _ = kobai_command(capsys, "evaluate", run, "--split", "train")
    assert "it was trained on all of them" in out
    n = len(kobai.data.csv("points.csv").train)
    _, out, _ = kobai_command(capsys, "evaluate", run, "--data", table.name)
    assert f"it was trained on {n} of them: this is no measure" in out
    header, *rows = table.read_text().splitlines()
    Path("some.csv").write_text("\n".join([header, *rows[:10], "0.123,0.456,ant"]))
    _, out, _ = kobai_command(capsys, "evaluate", run, "--data", "some.csv")
    assert re.search(r"trained on \d of them", out)
    Path("other.csv").write_text(f"{header}\n0.123,0.456,ant\n1.234,-1.3,bee\n")
    _, out, _ = kobai_command(capsys, "evaluate", run, "--data", "other.csv")
    assert "trained on" not in out
    table.unlink()
    _, out, _ = kobai_command(capsys, "evaluate", run, "--data", "other.csv")
    assert "whether it was trained on any of these cannot be told" in out


def test_data_that_have_changed_since_are_told_of(capsys, run, table):
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows[:-6]]))
    code, _, err = kobai_command(capsys, "evaluate", run)
    assert code == 0
    assert "has changed since the model was trained on it, so that this split may hold samples it has seen" in err


@pytest.mark.thorough
def test_diagnose_starts_from_what_was_asked(capsys):
    """No default that kobai train has for a data set hides what is wrong; the net is shown in full."""
    sick = ["--activation", "sigmoid", "--hidden", "50,50,50,50,50,50", "--init", "normal(0.01)", "--treat"]
    code, out, _ = kobai_command(capsys, "diagnose", *sick)
    assert code == 0
    assert "error  vanishing gradient" in out
    assert "error  collapsed activations" in out
    assert "healthy now" in out
    assert out.startswith(
        "a net not yet trained, on digits, train split: 100 of 1294 samples\nmlp 64-50-50-50-50-50-50-10"
    )
    assert out.count("Sigmoid()") == 6
    assert "BatchNorm" not in out
    assert "Dropout" not in out
    _, out, _ = kobai_command(capsys, "diagnose", *sick, "--batch-norm", "--dropout", 0.5)
    assert (out.count("BatchNorm1d("), out.count("Dropout(")) == (6, 6)
