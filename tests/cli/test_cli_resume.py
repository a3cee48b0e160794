"""``kobai train --resume``: every state that a run's folder can be in goes on, bit for bit."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cli_commands import ENVIRONMENT, SMALL, command_line, history, kobai_command, same
from kobai.train import checkpoint, job

# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_resume_with_more_epochs(capsys, table):
    command = ["train", "--data", table, *SMALL]
    kobai_command(capsys, *command, "--epochs", 5, "--out", "whole", "-q")
    kobai_command(capsys, *command, "--epochs", 2, "--out", "parts", "-q")
    code, out, _ = kobai_command(capsys, "train", "--resume", "parts", "--epochs", 5)
    assert code == 0
    assert "resumed   after epoch 2, from parts/last.safetensors" in out
    assert history("parts") == history("whole")


@pytest.mark.thorough
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_16_bits_goes_on_in_them(capsys, table, precision):
    """With float16 the loss scale goes on, too."""
    command = ["train", "--data", table, *SMALL, "--precision", precision, "-q"]
    kobai_command(capsys, *command, "--epochs", 5, "--out", "whole")
    kobai_command(capsys, *command, "--epochs", 2, "--out", "parts")
    code, _, err = kobai_command(capsys, "train", "--resume", "parts", "--epochs", 5)
    assert code == 0, err
    assert history("parts") == history("whole")
    parts, whole = (checkpoint.read(Path(run) / "last.safetensors") for run in ("parts", "whole"))
    assert same(parts["model"], whole["model"])
    assert ("scaler" in whole) == (precision == "fp16")
    assert same(parts.get("scaler", {}), whole.get("scaler", {}))


@pytest.mark.thorough
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
