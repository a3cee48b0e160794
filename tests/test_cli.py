"""``kobai``: every command, its files, its exit codes, and one clear line for everything that can go wrong."""

import csv
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

import kobai
from kobai.cli import main, use
from kobai.core.terminal import Terminal
from kobai.engine import notices
from kobai.engine.notices import NOTICE
from kobai.train import checkpoint, job
from kobai.train.settings import Settings, to_toml

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, in a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def table(tmp_path):
    """Two features, three classes that they tell apart."""
    rng = np.random.default_rng(0)
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "kind"])
        for k, kind in enumerate(("ant", "bee", "cat")):
            writer.writerows([f"{a:.4f}", f"{b:.4f}", kind] for a, b in rng.normal(size=(40, 2)) * 0.4 + [k, -k])
    return path


SMALL = ["--hidden", "8", "--batch-size", "16", "--epochs", "3"]


def kobai_command(capsys, *arguments):
    """(exit code, standard output, standard error) of a command in this process."""
    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    return code, *capsys.readouterr()


def history(folder):
    records = map(json.loads, (Path(folder) / job.HISTORY).read_text().splitlines())
    return [{k: v for k, v in record.items() if k != "time"} for record in records]


# --- train ------------------------------------------------------------------------------------------------------------


def test_train_writes_a_run_and_ends_with_the_test_accuracy(capsys, table):
    code, out, err = kobai_command(capsys, "train", "--data", table, *SMALL, "--epochs", 12, "--lr", 0.05)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1].startswith("test accuracy ")
    assert float(lines[-1].split()[-1]) > 0.8
    assert sum(line.startswith("epoch ") for line in lines) == 12
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("points-mlp-")
    names = {path.name for path in folder.iterdir()}
    assert names >= {"best.safetensors", "last.safetensors", "history.jsonl", "config.toml"}
    assert len(history(folder)) == 12


def test_train_quiet_prints_one_line(capsys, table):
    code, out, err = kobai_command(capsys, "train", "--data", table, *SMALL, "--quiet", "--out", "run")
    assert (code, err, len(out.splitlines())) == (0, "", 1)


DEEP = ["--hidden", "20,20,20,20,20", "--init", "normal(0.001)", "--optimizer", "sgd", "--lr", 0.1, "--epochs", 2]


def test_the_doctor_warns_with_a_cure_while_training_goes_on(capsys, table):
    code, out, err = kobai_command(capsys, "train", "--data", table, *DEEP, "--doctor", "--out", "sick")
    assert code == 0
    assert out.splitlines()[-1].startswith("test accuracy ")
    assert "kobai: doctor: epoch 1, batch 1: collapsed activations in " in err
    assert 'nn.init.by_name("he")(layer.weight)' in err
    *_, guessing, command = err.splitlines()
    assert "no better than guessing" in guessing
    assert command.strip() == "kobai diagnose sick"
    assert kobai_command(capsys, "diagnose", "sick")[0] == 1
    # It only looks: the parameters are those of the run without it.
    kobai_command(capsys, "train", "--data", table, *DEEP, "--out", "alone")
    watched, alone = (kobai.load(f"{run}/last.safetensors")["model"] for run in ("sick", "alone"))
    assert all(np.array_equal(watched[name].numpy(), alone[name].numpy()) for name in alone)


def test_the_doctor_has_nothing_to_say_of_a_net_that_trains(capsys, table):
    code, _, err = kobai_command(
        capsys, "train", "--data", table, *SMALL, "--epochs", 12, "--lr", 0.05, "--doctor", "--out", "run"
    )
    assert (code, err) == (0, "")


def test_a_doctor_that_may_not_speak_is_refused(capsys, table):
    code, _, err = kobai_command(capsys, "train", "--data", table, "--doctor", "--quiet")
    assert code == 2
    assert "--doctor" in err
    assert "--quiet allows no warnings" in err
    assert not Path("runs").exists()


def test_every_setting_reaches_the_run(capsys, table):
    flags = {
        "--label": "kind",
        "--validation": "0.2",
        "--hidden": "5,4",
        "--activation": "tanh",
        "--init": "normal(0.5)",
        "--dropout": "0.1",
        "--optimizer": "sgd",
        "--lr": "0.02",
        "--momentum": "0.8",
        "--weight-decay": "0.001",
        "--schedule": "cosine",
        "--epochs": "2",
        "--batch-size": "20",
        "--clip-grad-norm": "1.5",
        "--patience": "9",
        "--seed": "4",
        "--save-every": "2",
    }
    pairs = [part for pair in flags.items() for part in pair]
    code, out, _ = kobai_command(capsys, "train", "--data", table, "--batch-norm", *pairs, "--out", "run")
    assert code == 0
    assert "mlp 2-5-4-3, tanh, init normal(0.5), batch norm, dropout 0.1; " in out
    assert "sgd, lr 0.02, momentum 0.8, weight decay 0.001, cosine schedule, batches of 20, 2 epochs, seed 4" in out
    saved = tomllib.loads(Path("run/config.toml").read_text())
    wanted = {k[2:].replace("-", "_"): v for k, v in flags.items()}
    shown = {k: ",".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in saved.items()}
    assert wanted.items() <= shown.items()
    assert saved["batch_norm"] is True
    assert [record["lr"] for record in history("run")] == pytest.approx([0.02, 0.01])


def test_the_command_line_is_stronger_than_the_file_and_the_file_than_the_default(capsys, table):
    Path("settings.toml").write_text(
        f'data = "{table}"\nhidden = [7, 6]\nbatch-size = 30\nepochs = 1\nbatch_norm = true\nout = "run"\nquiet = true\n'
    )
    code, out, _ = kobai_command(capsys, "train", "--config", "settings.toml", "--epochs", 2, "--no-batch-norm")
    assert code == 0
    assert len(out.splitlines()) == 1
    saved = tomllib.loads(Path("run/config.toml").read_text())
    assert (saved["hidden"], saved["batch_size"], saved["epochs"]) == ([7, 6], 30, 2)
    assert (saved["batch_norm"], saved["dropout"]) == (False, 0.0)


def test_the_config_of_a_run_repeats_it(capsys, table):
    kobai_command(capsys, "train", "--data", table, *SMALL, "--dropout", 0.2, "--out", "one")
    code, *_ = kobai_command(capsys, "train", "--config", "one/config.toml", "--out", "two")
    assert code == 0
    assert history("one") == history("two")
    one, two = (kobai.load(f"{run}/last.safetensors")["model"] for run in ("one", "two"))
    assert all(one[name].numpy().tobytes() == two[name].numpy().tobytes() for name in one)


def test_data_sets_bring_defaults_that_give_way(capsys):
    flags = ["--epochs", 1, "--hidden", "", "--optimizer", "sgd", "--no-batch-norm", "--out", "run"]
    code, out, _ = kobai_command(capsys, "train", *flags)
    assert code == 0
    assert "mlp 64-10, relu, init he, dropout 0.5; 650 parameters" in out
    assert "sgd, lr 0.1, plateau schedule, batches of 32, 1 epochs, seed 0" in out


def accuracy_of(*flags):
    """Test accuracy of a training in a process of its own, on one thread: quick on a busy machine too."""
    done = subprocess.run(command_line("train", *flags, "--quiet"), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.removeprefix("test accuracy "))


def test_digits_reach_97_percent():
    assert accuracy_of() >= 0.97


MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


@pytest.mark.skipif(not MNIST.is_dir(), reason="the MNIST files are not here")
def test_mnist_reaches_97_5_percent_in_5_epochs():
    flags = ["--hidden", "100,100", "--init", "he", "--batch-size", 100, "--epochs", 5]
    assert accuracy_of("--data", "mnist", "--data-dir", MNIST, *flags) >= 0.975


@pytest.mark.parametrize("schedule", ["step", "exponential", "onecycle", "plateau"])
def test_schedules(capsys, table, schedule):
    code, *_ = kobai_command(capsys, "train", "--data", table, *SMALL, "--schedule", schedule, "--out", "run", "-q")
    assert code == 0
    assert len({record["lr"] for record in history("run")}) == (1 if schedule == "plateau" else 3)


def test_patience_stops_early(capsys, table):
    flags = ["--lr", 3.0, "--epochs", 40, "--patience", 2]
    code, out, _ = kobai_command(capsys, "train", "--data", table, "--hidden", 8, *flags, "--out", "run")
    assert code == 0
    assert "stopped: val_loss has not improved for 2 epochs" in out
    assert len(history("run")) < 40


def test_runs_are_never_overwritten(capsys, table):
    command = ["train", "--data", table, *SMALL, "--out", "run", "-q"]
    kobai_command(capsys, *command)
    before = Path("run/last.safetensors").read_bytes()
    code, out, err = kobai_command(capsys, *command)
    assert (code, out) == (1, "")
    assert err == "kobai: run: holds a run already; go on with it by --resume run, or choose another --out\n"
    assert Path("run/last.safetensors").read_bytes() == before
    for _ in range(2):  # within one second
        assert kobai_command(capsys, *command[:-3], "-q")[0] == 0
    assert len(list(Path("runs").iterdir())) == 2


def test_a_folder_that_another_process_trains_in_is_refused_and_unchanged(capsys, table):
    kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run", "-q")
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    code = "from pathlib import Path\nfrom kobai.core.files import Lock\nwith Lock(Path('run')):\n    print()\n    input()\n"
    other = subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    other.stdout.readline()
    try:
        code, _, err = kobai_command(capsys, "train", "--resume", "run", "--epochs", 5)
        assert code == 1
        assert err.startswith(f"kobai: run: is in use by process {other.pid} on this machine since ")
        assert len(err.splitlines()) == 1
        assert {path: path.read_bytes() for path in before} == before
    finally:
        other.communicate("\n")
    assert kobai_command(capsys, "train", "--resume", "run", "--epochs", 5, "-q")[0] == 0


def test_files_of_the_users_are_left_alone(capsys, table):
    Path("run").mkdir()
    names = [".draft.md.tmp", ".last.safetensors.x.tmp", "notes.tmp", ".kobai.tmp", ".kobai-notes.tmp"]
    for name in names:
        (Path("run") / name).write_text("mine")
    assert kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run", "-q")[0] == 0
    assert all((Path("run") / name).read_text() == "mine" for name in names)


# --- resume -----------------------------------------------------------------------------------------------------------


def test_resume_with_more_epochs(capsys, table):
    command = ["train", "--data", table, *SMALL]
    kobai_command(capsys, *command, "--epochs", 5, "--out", "whole", "-q")
    kobai_command(capsys, *command, "--epochs", 2, "--out", "parts", "-q")
    code, out, _ = kobai_command(capsys, "train", "--resume", "parts", "--epochs", 5)
    assert code == 0
    assert "resumed   after epoch 2, from parts/last.safetensors" in out
    assert history("parts") == history("whole")


@pytest.mark.parametrize("left", [[job.CONFIG], [job.CONFIG, job.HISTORY], [job.HISTORY], []])
def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(capsys, table, left):
    command = ["train", "--data", table, *SMALL, "--seed", 3, "-q"]
    kobai_command(capsys, *command, "--out", "whole")
    for form in (["--resume", "parts"], [*command[1:], "--out", "parts"], [*command[1:], "--out", "parts", "--resume"]):
        shutil.rmtree("parts", ignore_errors=True)
        Path("parts").mkdir()
        for name in left:
            (Path("parts") / name).write_text((Path("whole") / name).read_text() if name == job.CONFIG else "")
        code, _, err = kobai_command(capsys, "train", *form)
        if form == ["--resume", "parts"] and job.CONFIG not in left:  # it has not said what it was to be
            assert (code, err.startswith("kobai: parts: no checkpoint in this folder")) == (1, True)
            continue
        assert code == 0, err
        assert ("begins anew with its config.toml" in err) == (form[0] == "--resume")
        assert history("parts") == history("whole")


def test_a_history_without_its_checkpoints_is_not_overwritten(capsys, table):
    command = ["train", "--data", table, *SMALL, "-q"]
    kobai_command(capsys, *command, "--out", "run")
    before = (Path("run") / job.HISTORY).read_text()
    for path in Path("run").glob("*.safetensors"):
        path.unlink()
    for form in ([*command[1:], "--out", "run"], ["--resume", "run"]):
        code, _, err = kobai_command(capsys, "train", *form)
        assert code == 1
        assert "holds the history.jsonl of a run whose checkpoints are gone" in err
    assert (Path("run") / job.HISTORY).read_text() == before


def test_resume_in_its_three_forms(capsys, table):
    command = ["train", "--data", table, *SMALL, "-q"]
    assert kobai_command(capsys, *command, "--out", "run", "--resume")[0] == 0  # nothing there yet: it begins
    assert kobai_command(capsys, "train", "--out", "run", "--resume", "--epochs", 4, "-q")[0] == 0
    assert len(history("run")) == 4
    assert (
        kobai_command(capsys, "train", "--resume", "run/best.safetensors", "--out", "fork", "--epochs", 5, "-q")[0] == 0
    )
    assert history("fork")[:4] == history("run")
    assert (len(history("run")), len(history("fork"))) == (4, 5)
    kobai_command(capsys, *command)
    code, out, _ = kobai_command(capsys, "train", "--resume")
    assert code == 0
    assert "after epoch 3, from runs/points-mlp-" in out


def test_resume_refuses_other_settings(capsys, table):
    kobai_command(capsys, "train", "--data", table, *SMALL, "--schedule", "cosine", "--out", "run", "-q")
    for flags, words in [
        (["--hidden", "9"], "Invalid value for --hidden: the run was begun with 8, not 9; "),
        (["--seed", "1"], "Invalid value for --seed: the run was begun with 0, not 1; "),
        (["--epochs", "9"], "Invalid value for --epochs: the run is planned for 3: its cosine schedule ends there"),
    ]:
        code, _, err = kobai_command(capsys, "train", "--resume", "run", *flags)
        assert code == 2
        assert words in err
    assert kobai_command(capsys, "train", "--resume", "run", "--hidden", "8", "--data", table, "-q")[0] == 0


def test_resume_refuses_changed_data(capsys, table):
    kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run", "-q")
    table.write_text(table.read_text().replace("0.1", "0.2"))
    code, _, err = kobai_command(capsys, "train", "--resume", "run", "--epochs", 5)
    assert code == 1
    assert "the data are not those that the run in run was begun with" in err


def test_resume_without_anything_to_resume(capsys):
    for flags, words in [
        (["--resume", "nowhere"], "nowhere: no such file or folder to resume from"),
        (["--resume"], "no run to resume"),
        (["--resume", "."], "no checkpoint in this folder"),
    ]:
        code, _, err = kobai_command(capsys, "train", *flags)
        assert (code, len(err.splitlines())) == (1, 1)
        assert words in err


def test_damaged_last_checkpoint_is_passed_over_in_one_line(capsys, table):
    kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run", "-q")
    whole = history("run")
    last = Path("run") / checkpoint.LAST
    last.write_bytes(last.read_bytes()[:-100])
    code, out, err = kobai_command(capsys, "train", "--resume", "run")
    assert code == 0
    assert len(err.splitlines()) == 1
    assert "truncated" in err
    assert "using run/previous.safetensors instead" in err
    assert "resumed   after epoch 2, from run/previous.safetensors" in out
    assert history("run") == whole


def command_line(*arguments):
    return [sys.executable, "-m", "kobai", *map(str, arguments)]


def test_killed_at_any_moment_and_resumed_it_is_the_same_run(table):
    flags = ["--data", table, "--hidden", "16", "--batch-size", 8, "--epochs", 40, "--dropout", 0.3, "--batch-norm"]
    flags += ["--schedule", "cosine", "--save-every", 3, "-q"]
    subprocess.run(command_line("train", *flags, "--out", "whole"), env=ENVIRONMENT, check=True, capture_output=True)
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    kills = 0
    for _ in range(6):
        process = subprocess.Popen(command_line("train", *flags, "--out", "parts", "--resume"), env=ENVIRONMENT)
        while process.poll() is None and not Path("parts/history.jsonl").exists():
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 1.0) + (0.5 if kills else 0.0))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    done = subprocess.run(
        command_line("train", *flags, "--out", "parts", "--resume"), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, (seed, done.stderr)
    assert kills
    assert history("parts") == history("whole"), seed
    for name in (checkpoint.LAST, checkpoint.BEST):
        parts, whole = (checkpoint.read(Path(run) / name) for run in ("parts", "whole"))
        for key in ("model", "epoch", "random"):
            assert same(parts[key], whole[key]), (seed, name, key)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one.numpy().tobytes() == other.numpy().tobytes() if isinstance(one, kobai.Tensor) else one == other


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupt_ends_with_130_and_says_how_to_go_on(table):
    command = command_line("train", "--data", table, "--epochs", 5000, "--out", "my run")
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines = Path("my run/history.jsonl")
    while not lines.exists() or lines.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "kobai: interrupted; go on with: kobai train --resume 'my run'\n"
    assert list(Path("my run").glob(".*")) == []
    assert checkpoint.find("my run", say=print)[1]["epoch"] >= 1


# --- evaluate, predict ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, table):
    """A trained run."""
    flags = ["--hidden", 16, "--epochs", 20, "--lr", 0.02, "--label", "kind", "--out", "run"]
    assert kobai_command(capsys, "train", "--data", table, *flags)[0] == 0
    return Path("run")


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
    flags = ["--hidden", 8, "--epochs", 12, "--lr", 0.3, "--label", "kind", "--out", "run"]
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


def table_path():
    return Path("points.csv").resolve()


def test_a_report_on_another_epoch_than_the_best_says_so(capsys, overtrained):
    _, state, _ = overtrained["mine.safetensors"]
    records = [dict(record) for record in state["history"]]
    for record in records:
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
    best = max(history("on"), key=lambda record: (record["val_accuracy"], record["epoch"]))["epoch"]
    if "the best is looked for anew" in out:
        best = max(history("on")[epoch:], key=lambda record: (record["val_accuracy"], record["epoch"]))["epoch"]
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


def test_columns_that_the_model_does_not_know(capsys, table):
    """One too many is never taken for the label, whatever its place."""
    assert kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run", "-q")[0] == 0
    rows = [row.split(",") for row in table.read_text().splitlines()[1:]]
    Path("id.csv").write_text("x,y,id\n" + "".join(f"{x},{y},{i}\n" for i, (x, y, _) in enumerate(rows)))
    _, out, err = kobai_command(capsys, "predict", "run", "--data", "id.csv")
    assert out.splitlines()[0] == "sample,prediction,probability"
    assert "id.csv: not used, as the model was not trained on it: id" in err
    code, _, err = kobai_command(capsys, "evaluate", "run", "--data", "id.csv")
    assert (code, "has no labels to compare with" in err) == (1, True)
    Path("both.csv").write_text(
        "id,kind,y,x,more\n" + "".join(f"{i},{k},{y},{x},ant\n" for i, (x, y, k) in enumerate(rows))
    )
    _, out, err = kobai_command(capsys, "evaluate", "run", "--data", "both.csv")
    expected = kobai_command(capsys, "evaluate", "run", "--data", table)[1]
    assert out.splitlines()[1:] == expected.splitlines()[1:]
    assert "not used, as the model was not trained on them: id, more" in err
    for header, words in [("x,y,x", "2 columns named 'x'"), ("x,kind,kind,y", "2 columns named 'kind'")]:
        Path("twice.csv").write_text(f"{header}\n" + "1,2,3,4"[: 2 * header.count(",") + 1] + "\n")
        code, _, err = kobai_command(capsys, "predict", "run", "--data", "twice.csv")
        assert (code, words in err) == (1, True), err


def test_a_column_too_many_without_a_header_is_no_label(capsys, table):
    rows = table.read_text().splitlines()[1:]
    Path("bare.csv").write_text("\n".join(rows))
    assert kobai_command(capsys, "train", "--data", "bare.csv", *SMALL, "--out", "run", "-q")[0] == 0
    Path("id.csv").write_text("".join(f"{i},{row.rpartition(',')[0]}\n" for i, row in enumerate(rows)))
    code, out, err = kobai_command(capsys, "predict", "run", "--data", "id.csv")
    assert (code, out) == (1, "")
    assert "column 2 of 3 is the label by its place, and row 1 holds" in err
    _, out, _ = kobai_command(capsys, "predict", "run", "--data", "bare.csv")
    assert out.splitlines()[0] == "sample,prediction,probability,label"


def test_a_checkpoint_that_does_not_know_its_label_takes_the_column_of_classes(capsys, table):
    """As those written before the name was kept."""
    assert kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run", "-q")[0] == 0
    state = checkpoint.read("run/best.safetensors")
    del state["config"]["label"]
    kobai.save(state, "old.safetensors")
    Path("new.csv").write_text("id,x,y,what\n1,0.1,0.2,ant\n2,1.1,-1.2,bee\n")
    _, out, err = kobai_command(capsys, "evaluate", "old.safetensors", "--data", "new.csv")
    assert "column 'what', which holds known classes only, is the label" in err
    assert "not used, as the model was not trained on it: id" in err
    assert "accuracy " in out


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


def test_predict_to_a_pipe_a_file_and_with_a_limit(capsys, run, table):
    code, out, err = kobai_command(capsys, "predict", run)
    rows = list(csv.DictReader(out.splitlines()))
    assert (code, len(rows)) == (0, 24)
    assert err == "kobai: run/best.safetensors, epoch 20, the best of run, on points, test split: 24 samples\n"
    assert rows[0].keys() == {"sample", "prediction", "probability", "label"}
    assert {row["prediction"] for row in rows} <= {"ant", "bee", "cat"}
    assert all(1 / 3 <= float(row["probability"]) <= 1 for row in rows)
    code, out, _ = kobai_command(capsys, "predict", run, "--data", table, "--out", "answers.csv", "--limit", 7)
    assert (code, out) == (0, "")
    assert len(Path("answers.csv").read_text().splitlines()) == 8


def test_predict_columns_by_name_in_any_order_without_labels(capsys, run, table):
    rows = list(csv.DictReader(table.read_text().splitlines()))
    Path("new.csv").write_text("id,y,x\n" + "".join(f"7,{row['y']},{row['x']}\n" for row in rows))
    _, out, _ = kobai_command(capsys, "predict", run, "--data", "new.csv")
    found = [row["prediction"] for row in csv.DictReader(out.splitlines())]
    _, out, _ = kobai_command(capsys, "predict", run, "--data", table.name)
    assert found == [row["prediction"] for row in csv.DictReader(out.splitlines())]


def test_predict_table_without_header(capsys, table):
    rows = table.read_text().splitlines()[1:]
    Path("bare.csv").write_text("\n".join(rows))
    assert kobai_command(capsys, "train", "--data", "bare.csv", *SMALL, "--out", "run", "-q")[0] == 0
    Path("new.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows[:5]))
    code, out, _ = kobai_command(capsys, "predict", "run", "--data", "new.csv")
    assert (code, len(out.splitlines())) == (0, 6)
    code, out, _ = kobai_command(capsys, "evaluate", "run", "--data", "bare.csv", "--split", "train")
    assert code == 0
    Path("wide.csv").write_text("1,2,3,4\n")
    code, _, err = kobai_command(capsys, "predict", "run", "--data", "wide.csv")
    assert (code, "expected 2 columns, or 3 with the label, got 4" in err) == (1, True)


def test_predict_in_a_terminal_is_a_table(run):
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    process = subprocess.Popen(command_line("predict", run), env={**ENVIRONMENT, "TERM": "xterm"}, stdout=follower)
    assert process.wait(timeout=20) == 0
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert "prediction" in shown
    assert "… and 4 more; --out FILE writes all of them" in shown


def test_predict_as_a_table_marks_mistakes(capsys, monkeypatch):
    console = Terminal(force_terminal=True, width=80, _environ={"TERM": "xterm"})
    monkeypatch.setattr("kobai.cli.use.out", console)
    use._show(["sample", "prediction", "probability", "label"], [["0", "a", "0.9", "a"], ["1", "b", "0.8", "a"]], "x")
    right, wrong = capsys.readouterr().out.splitlines()[-2:]
    assert "\x1b[31m" in wrong
    assert "\x1b[31m" not in right


EVIL = "[/b][red]:smile:\x1b]0;taken\x07\x9b2J\x1b]8;;http://x\x1b\\ant\u202e"
SHOWN = r"[/b][red]:smile:\x1b]0;taken\x07\x9b2J\x1b]8;;http://x\x1b\ant\u202e"


def test_labels_are_shown_and_not_obeyed(capsys, table, monkeypatch):
    table.write_text(table.read_text().replace("ant", EVIL))
    code, out, err = kobai_command(capsys, "train", "--data", table, "--out", "run", *SMALL)
    assert code == 0
    assert kobai_command(capsys, "diagnose", "run")[0] == 0
    for stream, name in (("out", "stdout"), ("err", "stderr")):
        console = Terminal(force_terminal=True, width=300, stderr=name == "stderr", _environ={"TERM": "xterm"})
        monkeypatch.setattr(sys.modules["kobai.cli.common"], stream, console)
        monkeypatch.setattr(use, stream, console, raising=False)
    code, out, err = kobai_command(capsys, "predict", "run")
    assert (code, SHOWN in out) == (0, True)
    table.write_text("x,y,kind\n1,2,bee\n1,2,x\x1b[2J[/b]\n")
    (table.parent / "[b]\x1b[2J.csv").write_text("x\n1\n")
    told = kobai_command(capsys, "evaluate", "run", "--data", table)
    other = kobai_command(capsys, "evaluate", "run", "--data", "[b]\x1b[2J.csv")
    assert (told[0], other[0]) == (1, 1)
    assert r"[b]\x1b[2J.csv" in other[2]
    for text in (out, err, *told[1:], *other[1:]):
        assert not any(code in text for code in ("\x1b]", "\x1b[2J", "\x9b", "\x07", "\u202e"))


def test_a_terminal_that_knows_ascii_only(run, table):
    table.write_text(table.read_text().replace("ant", "Ärger…"))
    ascii_only = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    for arguments in (["predict", run, "--data", table], ["info"], ["train", "--help"]):
        done = subprocess.run(command_line(*arguments), env=ascii_only, capture_output=True, check=False)
        assert (done.returncode, b"Error" in done.stderr) == (0, False)
        assert (done.stdout + done.stderr).isascii()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_answers_are_written_whole_and_pipes_are_not_read(capsys, run, monkeypatch):
    Path("answers.csv").write_text("old")
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        told = kobai_command(capsys, "predict", "run", "--out", "answers.csv")
    assert (told[0], "answers.csv: No space left" in told[2]) == (1, True)
    assert (Path("answers.csv").read_text(), list(Path().glob(".kobai-*"))) == ("old", [])
    assert "no/answers.csv: No such file" in kobai_command(capsys, "predict", run, "--out", "no/answers.csv")[2]
    os.mkfifo("pipe.csv")
    for arguments in (["predict", run, "--data"], ["evaluate", run, "--data"], ["train", "--data"]):
        code, _, err = kobai_command(capsys, *arguments, Path("pipe.csv").absolute())
        assert (code, len(err.splitlines()), "pipe.csv: cannot be read (not an ordinary file)" in err) == (1, 1, True)


def test_everything_is_printed_by_the_one_console():
    files = [path for path in Path(kobai.__file__).parent.rglob("*.py") if path.name != "terminal.py"]
    assert [path.name for path in files if re.search(r"\bConsole\(|import .*\bConsole\b", path.read_text())] == []


def test_uses_of_a_model_refuse_what_does_not_fit(capsys, run, table):
    Path("other.csv").write_text("x,z,kind\n1,2,ant\n")
    Path("dog.csv").write_text("x,y,kind\n1,2,dog\n")
    Path("nan.csv").write_text("x,y\n1,nan\n")
    Path("ragged.csv").write_text("x,y\n1,2\n1\n")
    Path("only.csv").write_text("x,y\n")
    Path("unlabelled.csv").write_text("x,y\n1,2\n")
    kobai.save({"w": kobai.ones(2)}, "weights.safetensors")
    kobai.save({"kobai_checkpoint": 1, "config": {}, "w": kobai.ones(1)}, "bare.safetensors")
    for arguments, code, words in [
        (["predict", run, "--data", "other.csv"], 1, "no column named 'y'"),
        (["evaluate", run, "--data", "dog.csv"], 1, "sample 0 has the label 'dog'"),
        (["evaluate", run, "--data", "unlabelled.csv"], 1, "has no labels to compare with"),
        (["predict", run, "--data", "nan.csv"], 1, "row 2, column 'y'"),
        (["predict", run, "--data", "ragged.csv"], 1, "row 3 has 1 cells, expected 2"),
        (["predict", run, "--data", "only.csv"], 1, "no rows"),
        (["predict", run, "--data", "nowhere.csv"], 1, "cannot be read"),
        (["predict", run, "--data", "dog.csv", "--split", "test"], 1, "has no test split"),
        (["predict", run, "--split", "tset"], 2, "Did you mean 'test'"),
        (["predict", run, "--data", "digits"], 1, "the model takes 2 inputs for 3 classes"),
        (["predict", "weights.safetensors"], 1, "not a checkpoint of a Kobai run"),
        (["predict", "bare.safetensors"], 1, "holds no model that kobai train has described"),
        (["predict", "nowhere"], 1, "nowhere: no such file"),
        (["predict"], 2, "Missing argument 'CHECKPOINT'"),
        (["predict", run, "--out", "no/such/folder.csv"], 1, "no/such/folder.csv: No such file or directory"),
    ]:
        found, _, err = kobai_command(capsys, *arguments)
        assert found == code, (arguments, err)
        assert words in err
        assert code == 2 or len(err.splitlines()) == 1


def test_predict_digits_by_name(capsys):
    code, out, _ = kobai_command(capsys, "train", "--epochs", 1, "--hidden", 8, "--out", "run")
    assert code == 0
    code, out, _ = kobai_command(capsys, "predict", "run", "--data", "digits", "--split", "validation", "--limit", 3)
    assert (code, len(out.splitlines())) == (0, 4)


# --- bad input of train -----------------------------------------------------------------------------------------------

WRONG = {
    "flag": (["--epoch", "3"], 2, "--epochs"),
    "number": (["--epochs", "many"], 2, "--epochs"),
    "activation": (["--activation", "rleu"], 2, "Did you mean 'relu'"),
    "init": (["--init", "hee"], 2, "Did you mean 'he'"),
    "init arguments": (["--init", "normal"], 2, "expected normal(std)"),
    "optimizer": (["--optimizer", "adamm"], 2, "Did you mean 'adam'"),
    "schedule": (["--schedule", "cosin"], 2, "Did you mean 'cosine'"),
    "model": (["--model", "mpl"], 2, "Did you mean 'mlp'"),
    "data": (["--data", "mnits"], 2, "Did you mean 'mnist'"),
    "data file": (["--data", "nowhere.csv"], 1, "nowhere.csv: cannot be read"),
    "data folder": (["--data", "mnist", "--data-dir", "nowhere"], 1, "no files found in nowhere"),
    "folder of the digits": (["--data-dir", "x"], 2, "the digits are embedded"),
    "label of images": (["--label", "x"], 2, "names a column of a CSV file"),
    "hidden": (["--hidden", "ten"], 2, "such as 100,100, got 'ten'"),
    "hidden zero": (["--hidden", "10,0"], 2, "sizes of at least 1"),
    "dropout": (["--dropout", "1"], 2, "in [0, 1)"),
    "init number": (["--init", "normal(-1)"], 2, "expected std >= 0, got -1.0"),
    "init nan": (["--init", "normal(nan)"], 2, "expected std >= 0, got nan"),
    "seed": (["--seed", "-1"], 2, "--seed: expected >= 0, got -1"),
    "lr": (["--lr", "0"], 2, "> 0"),
    "lr infinite": (["--lr", "inf"], 2, "> 0 and finite, got inf"),
    "weight decay": (["--weight-decay", "inf"], 2, ">= 0 and finite, got inf"),
    "batch": (["--batch-size", "0"], 2, ">= 1"),
    "validation": (["--validation", "1.5"], 2, "between 0 and 1"),
    "momentum": (["--momentum", "0.9"], 2, "adam has none to set; sgd and rmsprop have"),
    "backend": (["--backend", "cuppy"], 2, "Did you mean 'cupy'"),
    "config": (["--config", "nowhere.toml"], 2, "cannot be read"),
    "out": (["--out", "file"], 1, "is a file"),
    "resume": (["--resume", "file"], 1, "not a whole safetensors file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options(capsys, case):
    Path("file").write_text("text")
    flags, code, words = WRONG[case]
    found, out, err = kobai_command(capsys, "train", *flags)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert code == 2 or len(err.splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "unknown name 'epoch'. Did you mean 'epochs'"),
        ("batchsize = 3", "Did you mean 'batch_size'"),
        ("epochs = 2.5", "--epochs"),
        ("lr = true", "--lr"),
        ("[train]\nepochs = 3", "unknown name 'train'"),
        ("[data]\nname = 'x'", "'data' is a table"),
        ("epochs = ", "is not TOML"),
        ('activation = "rleu"', "Did you mean 'relu'"),
    ],
)
def test_wrong_files(capsys, text, words):
    Path("settings.toml").write_text(text)
    code, _, err = kobai_command(capsys, "train", "--config", "settings.toml")
    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("x,kind\n", "no rows"),
        ("x,kind\n1,a\nnan,b\n", "row 3, column 'x'"),
        ("x,kind\n1,a\nhello,b\n", "'hello', which is not a number"),
    ],
)
def test_wrong_tables(capsys, text, words):
    Path("table.csv").write_text(text)
    code, _, err = kobai_command(capsys, "train", "--data", "table.csv")
    assert (code, len(err.splitlines())) == (1, 1)
    assert words in err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_folder_that_cannot_be_written(capsys, table):
    Path("locked").mkdir(mode=0o500)
    code, _, err = kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "locked/run")
    assert (code, err) == (1, "kobai: locked/run: Permission denied\n")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_that_explodes_ends_with_a_line(capsys, table):
    flags = ["--optimizer", "sgd", "--lr", "1e30", "--out", "run"]
    code, _, err = kobai_command(capsys, "train", "--data", table, *SMALL, *flags)
    assert (code, len(err.splitlines())) == (1, 1)
    assert "Lower the learning rate" in err


def test_debug_shows_the_traceback(capsys):
    capsys.readouterr()
    with pytest.raises(kobai.errors.CheckpointError):
        main(["evaluate", "nowhere", "--debug"])


def test_an_error_of_ours_is_a_line_too(capsys, table, monkeypatch):
    monkeypatch.setattr(job, "train", lambda *args, **kwargs: {}["surprise"])
    code, _, err = kobai_command(capsys, "train", "--data", table)
    assert (code, err) == (1, "kobai: KeyError: 'surprise' (--debug shows where)\n")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt, 130, "kobai: interrupted\n"),
        (MemoryError("5 GiB"), 1, "kobai: out of memory (5 GiB); try a smaller --batch-size or --hidden\n"),
        (OSError(28, "No space left on device"), 1, "kobai: No space left on device\n"),
    ],
)
def test_what_happens_before_training_is_a_line_too(capsys, table, monkeypatch, error, code, words):
    def fail(settings):
        raise error

    monkeypatch.setattr(job, "load_data", fail)
    assert kobai_command(capsys, "train", "--data", table) == (code, "", words)


def test_a_reader_that_has_had_enough_is_no_error(run):
    done = subprocess.run(
        f"{shlex.join(command_line('predict', run, '--data', 'points.csv'))} | true",
        env=ENVIRONMENT,
        shell=True,
        capture_output=True,
        text=True,
    )
    # the reader may have gone before the answers are written, or after
    assert done.stderr in (
        "",
        "kobai: run/best.safetensors, epoch 20, the best of run, on points.csv, all rows: 120 samples\n",
    )


def test_without_matplotlib_there_is_a_line_and_no_picture(capsys, table, monkeypatch):
    monkeypatch.setattr("kobai.cli.train.has", lambda package: False)
    code, out, _ = kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run")
    assert code == 0
    assert "pip install 'kobai[plot]'" in out
    assert not Path("run/learning_curve.png").exists()


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_info_tells_what_is_here_and_what_is_missing(capsys):
    code, out, err = kobai_command(capsys, "info")
    assert (code, err) == (0, "")
    for words in ("numpy", "ready (default)", "cpu", "Packages", "safetensors", "Engines"):
        assert words in out
    for extra in ("cpu", "plot", "data", "tune", "cuda12"):
        package = {"cpu": "numba", "plot": "matplotlib", "data": "pooch", "tune": "optuna", "cuda12": "cupy-cuda12x"}[
            extra
        ]
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [package]]
        assert "missing" not in line or f"pip install 'kobai[{extra}]'" in line


def test_info_works_where_the_environment_names_a_backend_that_cannot_be_had(capsys, monkeypatch):
    monkeypatch.setenv("KOBAI_BACKEND", "nunpy")
    monkeypatch.setattr("kobai.xp._default", None)
    code, out, err = kobai_command(capsys, "info")
    assert (code, err) == (0, "")
    assert "none: KOBAI_BACKEND=nunpy: backend: expected" in out
    assert "Packages" in out


def test_info_shows_engines_and_threads_and_warns(capsys, monkeypatch):
    monkeypatch.setattr("kobai.cpu.thread_report.warnings", lambda: ["BLAS waits for itself. Unset it"])
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    _, out, _ = kobai_command(capsys, "info")
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert "BLAS waits for itself. Unset it" in rows["warning"]
    assert "OMP_NUM_THREADS=2" in rows["environment"]
    assert " of " in rows["processors"]
    assert rows["kobai"].split()[1].isdigit()
    assert "products" in rows["kobai"]
    monkeypatch.setattr("kobai.engine.dispatch.numba_installed", False)
    _, out, _ = kobai_command(capsys, "info")
    assert "missing, so that NumPy does it all: pip install 'kobai[cpu]'" in out


# --- warmup -----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_warmup_compiles_once_and_says_what(capsys, monkeypatch, tmp_path):
    pytest.importorskip("numba")
    environment = {**ENVIRONMENT, "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "KOBAI_CACHE": str(tmp_path / "kobai")}
    command = command_line("warmup", "--hidden", "8", "--no-batch-norm", "--dropout", 0)
    first, second = (subprocess.run(command, env=environment, capture_output=True, text=True) for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    *kernels, last = first.stdout.splitlines()
    assert len(kernels) >= 2
    assert last.startswith(f"{len(kernels)} kernels compiled in ")
    assert (second.returncode, len(second.stdout.splitlines())) == (0, 1)
    assert second.stdout.startswith("all kernels were compiled already")
    flags = ["--hidden", "8", "--no-batch-norm", "--dropout", 0, "--epochs", 1, "--doctor", "--out", "run"]
    trained = subprocess.run(command_line("train", *flags), env=environment, capture_output=True, text=True)
    assert trained.returncode == 0
    assert NOTICE not in trained.stdout + trained.stderr


def test_warmup_for_a_run_or_a_table(capsys, run, table):
    code, out, err = kobai_command(capsys, "warmup", run)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("for the net of run/best.safetensors, epoch 20, the best of run, trained on ")
    assert kobai_command(capsys, "warmup", "--data", table, "--hidden", "", "--quiet") == (0, "", "")
    code, _, err = kobai_command(capsys, "warmup", run, "--hidden", 9)
    assert code == 2
    assert "there is no use for --hidden" in err


def test_warmup_leaves_a_run_as_it_is(capsys, run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    kobai_command(capsys, "warmup", run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_warmup_without_numba_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("kobai.engine.dispatch.numba_installed", False)
    code, out, _ = kobai_command(capsys, "warmup", "--hidden", "4")
    assert (code, out) == (0, "nothing to compile without Numba: pip install 'kobai[cpu]'\n")


def test_training_says_once_that_it_compiles(capsys, table, monkeypatch):
    def train(*args, say, **kwargs):
        for name in "ab":
            with notices.compiling(name):
                pass
        return {"loss": 1.0, "accuracy": 0.5}

    monkeypatch.setattr(job, "train", train)
    _, out, err = kobai_command(capsys, "train", "--data", table)
    assert (out.count(NOTICE), err) == (1, "")
    assert kobai_command(capsys, "train", "--data", table, "--quiet") == (0, "test accuracy 0.5000\n", "")


def test_training_warns_of_threads_that_starve(capsys, table, monkeypatch):
    monkeypatch.setattr("kobai.cpu.thread_report.warnings", lambda: ["OpenMP spins. Stop it"])
    _, _, err = kobai_command(capsys, "train", "--data", table, *SMALL)
    assert err == "kobai: OpenMP spins. Stop it\n"
    assert kobai_command(capsys, "train", "--data", table, *SMALL, "--quiet")[2] == ""


def test_version_help_and_usage(capsys):
    assert kobai_command(capsys, "--version")[:2] == (0, f"kobai {kobai.__version__}\n")
    for command in ([], ["train"], ["evaluate"], ["predict"], ["warmup"], ["info"]):
        code, out, _ = kobai_command(capsys, *command, "--help")
        assert code == 0
        assert "Usage: kobai" in out
        assert command in ([], ["info"]) or "Examples" in out
    code, _, err = kobai_command(capsys, "trian")
    assert (code, "trian" in err) == (2, True)
    code, out, err = kobai_command(capsys)
    assert "Usage: kobai" in out + err


def test_help_names_every_setting(capsys):
    _, out, _ = kobai_command(capsys, "train", "--help")
    for name in Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in out


def test_settings_survive_toml():
    settings = Settings(data='a "quoted"\\name\n.csv', hidden=(3, 2), lr=1e-7, patience=None, batch_norm=True)
    back = Settings.from_dict(tomllib.loads(to_toml(settings.as_dict())))
    assert back == settings
