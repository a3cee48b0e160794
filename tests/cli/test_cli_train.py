"""``kobai train``: settings, recipes, runs and their folders."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import kobai
from cli_commands import ENVIRONMENT, SMALL, command_line, history, kobai_command

# --- train ------------------------------------------------------------------------------------------------------------


def test_train_writes_a_run_and_ends_with_the_test_accuracy(capsys, table):
    code, out, err = kobai_command(
        capsys, "train", "--data", table, *SMALL, "--epochs", 12, "--patience", 12, "--lr", 0.05
    )
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
        "--target": "kind",
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
    assert (saved["batch_norm"], saved["dropout"]) == (False, 0.2)  # tables bring a dropout of 0.2


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


MNIST = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnist"


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
