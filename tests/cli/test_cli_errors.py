"""One clear line for everything that can go wrong while a net is trained."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

import kobai
from cli_commands import ENVIRONMENT, SMALL, command_line, kobai_command
from kobai.cli import main
from kobai.train import job

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
    "target of images": (["--target", "x"], 2, "is of tables"),
    "loss": (["--loss", "quantile(2)"], 2, "no loss is called so"),
    "task": (["--task", "regresion"], 2, "Did you mean 'regression'"),
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
        ("x,kind\n1,a\nnan,b\n", "2 rows have a target, too few"),
        ("<html><body>log in</body></html>\n", "is a web page"),
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
