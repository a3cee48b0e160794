"""``kobai predict``: columns by name, output to files, pipes and terminals, labels that are shown and not obeyed."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kobai
from cli_commands import ENVIRONMENT, SMALL, command_line, kobai_command
from kobai.cli import use
from kobai.core.terminal import Terminal
from kobai.train import checkpoint


def test_columns_that_the_model_does_not_know(capsys, table):
    """One too many is never taken for the label, whatever its place."""
    assert kobai_command(capsys, "train", "--data", table, *SMALL, "--out", "run", "-q")[0] == 0
    rows = [row.split(",") for row in table.read_text().splitlines()[1:]]
    Path("id.csv").write_text("x,y,id\n" + "".join(f"{x},{y},{i}\n" for i, (x, y, _) in enumerate(rows)))
    _, out, err = kobai_command(capsys, "predict", "run", "--data", "id.csv")
    assert out.splitlines()[0] == "sample,prediction,probability,P(ant),P(bee),P(cat)"
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
    Path("twice.csv").write_text("x,y,x\n1,2,3\n")
    code, _, err = kobai_command(capsys, "predict", "run", "--data", "twice.csv")
    assert (code, "more than one column is called 'x'" in err) == (0, True), err


def test_a_column_too_many_without_a_header_is_no_label(capsys, table):
    rows = table.read_text().splitlines()[1:]
    Path("bare.csv").write_text("\n".join(rows))
    assert kobai_command(capsys, "train", "--data", "bare.csv", *SMALL, "--out", "run", "-q")[0] == 0
    Path("id.csv").write_text("".join(f"{i},{row.rpartition(',')[0]}\n" for i, row in enumerate(rows)))
    code, out, err = kobai_command(capsys, "predict", "run", "--data", "id.csv")
    assert (code, out) == (1, "")
    assert "column 2 is the target by its place, and row 1 holds" in err
    _, out, _ = kobai_command(capsys, "predict", "run", "--data", "bare.csv")
    assert out.splitlines()[0] == "sample,prediction,probability,label,P(ant),P(bee),P(cat)"


def test_a_checkpoint_of_a_table_by_an_earlier_version_says_what_to_do(capsys, run):
    state = checkpoint.read("run/best.safetensors")
    del state["config"]["data"]["preparation"]
    kobai.save(state, "old.safetensors")
    for command in ("evaluate", "predict"):
        code, _, err = kobai_command(capsys, command, "old.safetensors")
        assert (code, "by an earlier version of Kobai" in err, "train it again: kobai train --data" in err) == (
            1,
            True,
            True,
        )


def test_predict_to_a_pipe_a_file_and_with_a_limit(capsys, run, table):
    code, out, err = kobai_command(capsys, "predict", run)
    rows = list(csv.DictReader(out.splitlines()))
    assert (code, len(rows)) == (0, 24)
    assert err == "kobai: run/best.safetensors, epoch 20, the best of run, on points, test split: 24 samples\n"
    assert rows[0].keys() == {"sample", "prediction", "probability", "label", "P(ant)", "P(bee)", "P(cat)"}
    assert {row["prediction"] for row in rows} <= {"ant", "bee", "cat"}
    for row in rows:
        every = {name: float(row[f"P({name})"]) for name in ("ant", "bee", "cat")}
        assert abs(sum(every.values()) - 1) < 1e-5
        assert float(row["probability"]) == max(every.values()) == every[row["prediction"]]
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
    assert (code, "expected 3 columns, or 2 without the target, got 4" in err) == (1, True)


@pytest.mark.thorough
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
    use._show(
        ["sample", "prediction", "probability", "label"], [["0", "a", "0.9", "a"], ["1", "b", "0.8", "a"]], "x", 2
    )
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


@pytest.mark.thorough
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
    Path("text.csv").write_text("x,y\n1,high\n")
    Path("only.csv").write_text("x,y\n")
    Path("unlabelled.csv").write_text("x,y\n1,2\n")
    kobai.save({"w": kobai.ones(2)}, "weights.safetensors")
    kobai.save({"kobai_checkpoint": 1, "config": {}, "w": kobai.ones(1)}, "bare.safetensors")
    for arguments, code, words in [
        (["predict", run, "--data", "other.csv"], 1, "no column named 'y'"),
        (["evaluate", run, "--data", "dog.csv"], 1, "sample 0 has the label 'dog'"),
        (["evaluate", run, "--data", "unlabelled.csv"], 1, "has no labels to compare with"),
        (["predict", run, "--data", "text.csv"], 1, "column 'y' holds text ('high'), and numbers in training"),
        (["predict", run, "--data", "only.csv"], 1, "no rows"),
        (["predict", run, "--data", "nowhere.csv"], 1, "cannot be read"),
        (["predict", run, "--data", "dog.csv", "--split", "test"], 1, "has no test split"),
        (["predict", run, "--split", "tset"], 2, "Did you mean 'test'"),
        (["predict", run, "--data", "digits"], 1, "answers tables with its columns"),
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
