"""One search or comparison by several processes, as by several machines: in a journal and in a database, one of them killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cli_commands import ENVIRONMENT, command_line, kobai_command
from kobai.errors import DataError
from kobai.lab.sweep import tune_study
from kobai.lab.sweep.compare import perform as compare_perform, read_plan as compare_read_plan
from kobai.lab.sweep.compare_plan import plan as compare_plan
from kobai.lab.sweep.database import database, hidden, store
from kobai.lab.sweep.tune import perform, read_plan
from kobai.lab.sweep.tune_plan import plan
from kobai.train.settings import RunSettings, SettingsError

optuna = pytest.importorskip("optuna")
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

TRIALS = 4
SEARCH = (
    f"--space lr=1e-4..1e-1:log --method random --no-prune --trials {TRIALS} --jobs 1 --hidden 16 --epochs 15".split()
)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a server of our own, which listens on a socket in its folder; as root it runs as Debian's ``postgres``."""
    pytest.importorskip("psycopg", reason="comes with the extra postgres")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else shutil.which("initdb") and Path(shutil.which("initdb")).parent
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="kobai-pg-"))  # pytest's own folders are not for other users
    user = {"user": "postgres", "group": "postgres"} if os.name == "posix" and os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, **user)

    def run(program: str, *arguments: str) -> None:
        command = [programs / program, "-D", folder / "data", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, **user)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        run("initdb", "-U", "lab", "-A", "trust", "--no-sync")
        run("pg_ctl", "start", "-w", "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off")
        try:
            yield f"postgresql://lab:secret@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


@pytest.mark.thorough
@pytest.mark.parametrize("kept", ["folder", "postgresql"])
def test_what_a_killed_machine_began_the_other_ends(request, tmp_path, kept):
    storage = None if kept == "folder" else request.getfixturevalue("postgresql")
    folders = [tmp_path / "one" / "s", tmp_path / ("one" if storage is None else "other") / "s"]
    where = [] if storage is None else ["--storage", storage]

    def started(folder: Path) -> subprocess.Popen[bytes]:
        folder.parent.mkdir(exist_ok=True)
        command = command_line("tune", *SEARCH, *where, "--out", folder)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT)

    killed = started(folders[0])
    _wait(lambda: _running(folders[0], storage, killed.pid))
    other = started(folders[1])
    killed.kill()
    killed.communicate()
    said, _ = other.communicate(timeout=300)
    assert other.returncode == 0, said
    study = tune_study.open_study(folders[1], read_plan(folders[1], storage), storage)
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert sorted(t.user_attrs["place"] for t in done) == list(range(TRIALS))
    assert [t.user_attrs["owner"][1] for t in study.trials if t.state.name == "FAIL"] == [killed.pid]
    assert {t.user_attrs["owner"][1] for t in done} <= {killed.pid, other.pid}
    assert (folders[1] / "search.json").exists()
    alone = perform(
        read_plan(folders[1], storage), trials=TRIALS, jobs=1, out=tmp_path / "alone"
    )  # nothing of it depends on who did what
    places = {t.user_attrs["place"]: t for t in done}
    assert [t.parameters["lr"] for t in alone.trials] == [places[i].params["lr"] for i in range(TRIALS)]
    assert [t.value for t in alone.trials] == [places[i].value for i in range(TRIALS)]


def _running(folder: Path, storage: str | None, pid: int) -> bool:
    """Whether a process is in the midst of a trial."""
    try:
        held = tune_study.held_plan(folder, storage)
    except DataError:
        return False
    if held is None:
        return False
    trials = tune_study.open_study(folder, read_plan(folder, storage), storage).trials
    return any(t.state.name == "RUNNING" and t.user_attrs["owner"][1] == pid and t.intermediate_values for t in trials)


def _wait(until, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.thorough
@pytest.mark.parametrize("kept", ["journal", "postgresql"])
def test_a_comparison_is_done_by_two_machines_one_of_them_killed(request, tmp_path, kept):
    storage = str(tmp_path / "all") if kept == "journal" else request.getfixturevalue("postgresql")
    folders = [tmp_path / "one" / "c", tmp_path / "other" / "c"]
    vary = "--vary activation=relu,tanh --repeat 2 --hidden 16 --epochs 8 --jobs 1".split()

    def started(folder: Path) -> subprocess.Popen[bytes]:
        folder.parent.mkdir()
        command = command_line("compare", *vary, "--storage", storage, "--out", folder)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT)

    def begun(process: subprocess.Popen[bytes]) -> bool:
        names = optuna.get_all_study_names(store(storage)) if "://" in storage or Path(storage).exists() else []
        trials = optuna.load_study(study_name="c", storage=store(storage)).trials if "c" in names else []
        return any(t.user_attrs["owner"][1] == process.pid for t in trials)

    killed = started(folders[0])
    _wait(lambda: begun(killed))
    killed.kill()
    killed.communicate()
    other = started(folders[1])
    said, _ = other.communicate(timeout=300)
    assert other.returncode == 0, said
    trials = optuna.load_study(study_name="c", storage=store(storage)).trials
    done = [t for t in trials if t.state.name == "COMPLETE"]
    assert sorted(t.user_attrs["place"] for t in done) == [0, 1, 2, 3]
    assert {t.user_attrs["owner"][1] for t in trials if t.state.name == "FAIL"} <= {killed.pid}
    assert len(trials) - len(done) in (0, 1)  # it may have ended its run just before
    alone = compare_read_plan(folders[1])
    expected = compare_perform(alone, jobs=1, out=tmp_path / "alone")
    found = compare_perform(alone, jobs=1, out=folders[1])  # all runs are in the folder
    assert [[r.held_accuracy for r in c.runs] for c in found.conditions] == [
        [r.held_accuracy for r in c.runs] for c in expected.conditions
    ]


@pytest.mark.thorough
def test_a_comparison_in_a_journal_has_the_runs_of_all(tmp_path):
    made = compare_plan(RunSettings(hidden=(4,), epochs=1), {"activation": "relu,tanh"}, 1, 2)
    told: list[tuple[int, int]] = []
    storage = str(tmp_path / "all")
    one = compare_perform(made, jobs=1, out=tmp_path / "c", storage=storage, watch=lambda key, *_: told.append(key))
    assert told == [(0, 0), (1, 0)]
    again = compare_perform(made, jobs=1, out=tmp_path / "d" / "c", storage=storage)  # reads what the first has done
    assert [c.runs for c in again.conditions] == [c.runs for c in one.conditions]
    more = compare_perform(replace(made, repeat=2), jobs=1, out=tmp_path / "c", storage=storage)
    assert [len(c.runs) for c in more.conditions] == [2, 2]
    other = compare_plan(RunSettings(hidden=(4,), epochs=2), {"activation": "relu,tanh"}, 1, 2)
    with pytest.raises(DataError, match=r"c in .*all: holds another comparison: its epochs is 1, not 2"):
        compare_perform(other, jobs=1, out=tmp_path / "e" / "c", storage=storage)
    with pytest.raises(SettingsError, match="give out"):
        compare_perform(made, jobs=1, storage=storage)


@pytest.fixture
def sqlite(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.mark.thorough
def test_searches_in_one_database_are_told_apart_by_their_folders(tmp_path, sqlite, capsys):
    made = plan(RunSettings(hidden=(4,), epochs=1), {"lr": "1e-3..1e-1:log"}, "random", prune=False)
    for name in ("a", "b"):
        found = perform(made, trials=1 + (name == "b"), jobs=1, out=tmp_path / name, storage=sqlite)
        assert len(found.complete) == 1 + (name == "b")
    assert sorted(optuna.get_all_study_names(database(sqlite))) == ["a", "b"]
    more = perform(read_plan(tmp_path / "a", sqlite), trials=2, jobs=1, out=tmp_path / "a", storage=sqlite)
    assert len(more.complete) == 2
    other = plan(RunSettings(hidden=(4,), epochs=1), {"lr": "1e-3..1:log"}, "random", prune=False)
    with pytest.raises(DataError, match="holds another search"):
        perform(other, trials=1, jobs=1, out=tmp_path / "elsewhere" / "a", storage=sqlite)
    with pytest.raises(DataError, match=r"the study of this search is in a database; say which one"):
        perform(made, trials=1, jobs=1, out=tmp_path / "a")
    with pytest.raises(SettingsError, match="give out"):
        perform(made, trials=1, jobs=1, storage=sqlite)
    with pytest.raises(DataError, match="the database has no study of this name"):
        read_plan(tmp_path / "c", sqlite)
    code, out, err = kobai_command(
        capsys, "tune", "--resume", tmp_path / "a", "--storage", sqlite, "--trials", 3, "--jobs", 1
    )
    assert code == 0, err
    assert "3 trials in all" in out


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path, capsys):
    arguments = ["--space", "lr=1e-3,1e-2", "--out", tmp_path / "s"]
    for url, message in {
        "sqlite:////no/such/folder/x.db": "unable to open database file",
        "nothing://me:secret@host/lab": r"nothing://me:***@host/lab: cannot keep a study there",
    }.items():
        code, _, err = kobai_command(capsys, "tune", *arguments, "--storage", url)
        assert code == 1
        assert message in err
        assert "secret" not in err
    assert hidden("postgresql://me@host/lab") == "postgresql://me@host/lab"
    code, _, err = kobai_command(capsys, "tune", "--space", "lr=1e-3,1e-2", "--storage", "sqlite:///x.db")
    assert code == 2
    assert "--out" in err
