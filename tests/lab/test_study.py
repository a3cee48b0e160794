"""A study on the disk and the processes that work on it: who is alive, what the dead leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("optuna")

from kobai.errors import DataError
from kobai.lab import running, study
from kobai.lab.reporting import report
from kobai.lab.trials import plan
from kobai.lab.tuning import perform
from kobai.train.settings import Settings

SPACE = {"lr": "1e-4..1:log"}


@pytest.fixture
def made():
    return plan(Settings(hidden=(8,), epochs=1), SPACE, "random", prune=False)


def asked(folder: Path, made, owner):
    """A study with a trial that this owner is at."""
    study.check_folder(folder, made)
    opened = study.open_study(folder, made)
    trial = opened.ask()
    study._suggested(trial, made)
    trial.set_user_attr("owner", owner)
    return opened


def states(opened) -> list[str]:
    return [trial.state.name for trial in opened.get_trials(deepcopy=False)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux says when a process began")
def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path, made):
    host, pid, now, birth = study._owner()
    opened = asked(tmp_path / "t", made, [host, pid, now, birth.partition(" ")[0] + " 1"])
    study.sweep(opened)
    assert states(opened) == ["FAIL", "WAITING"]
    opened = asked(tmp_path / "u", made, [host, pid, now - 10 * study.SILENCE, birth])  # silent, and alive
    study.sweep(opened)
    assert states(opened) == ["RUNNING"]


def test_a_trial_is_given_back_once(tmp_path, made):
    opened = asked(tmp_path / "t", made, ["elsewhere", 1, 0.0, ""])
    other = study.open_study(tmp_path / "t", made)
    study.sweep(opened)
    study._give_back(other, 0)  # which has seen the trial before, and is too late
    assert states(opened) == ["FAIL", "WAITING"]


def test_a_trial_that_another_machine_took_over_is_dropped(tmp_path, made, monkeypatch):
    study.check_folder(tmp_path / "t", made)
    opened = study.open_study(tmp_path / "t", made)
    train, taken = running.train, []

    def slow(*args):
        if not taken:
            taken.append(opened.get_trials()[-1].number)
            study._give_back(opened, taken[0])
        return train(*args)

    monkeypatch.setattr(running, "train", slow)
    study.work(study.open_study(tmp_path / "t", made), made, 2)
    assert sorted(states(opened)) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert opened.get_trials()[1].params == opened.get_trials()[0].params


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_worker_that_is_to_end_gives_back_its_trial_and_the_lock_and_ends(tmp_path, made, monkeypatch):
    class Ended(BaseException):
        """What ends a worker must not end this process."""

    def end(code):
        raise Ended

    study.check_folder(tmp_path / "t", made)
    monkeypatch.setattr(running, "train", lambda *args: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60))
    monkeypatch.setattr(os, "_exit", end)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Ended):
            study.work_in(tmp_path / "t", made, 3)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert states(study.open_study(tmp_path / "t", made)) == ["FAIL", "WAITING"]
    assert [path.name for path in (tmp_path / "t").iterdir()] == [study.JOURNAL]


@pytest.mark.skipif(sys.platform == "win32", reason="there the lock is no link")
def test_the_lock_leads_to_the_journal_wherever_the_folder_is_seen_from(tmp_path, made, monkeypatch):
    """Else Optuna waits for ever for one that a dead process has left: it cannot tell how old it is."""
    monkeypatch.chdir(tmp_path)
    links, link = [], os.symlink
    monkeypatch.setattr(os, "symlink", lambda target, name: (links.append((target, name)), link(target, name))[1])
    perform(made, trials=1, jobs=1, out="folder")
    assert links
    assert all(Path(name).parent / target == tmp_path / "folder" / study.JOURNAL for target, name in links)


def test_workers_end_with_the_process_that_began_them(tmp_path):
    code = (
        "import os, sys, time\n"
        "from kobai.lab.workers import run_all\n"
        "from os import getppid\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from sleeper import sleep\n"
        "run_all(sleep, [(sys.argv[1],), (sys.argv[1],)], jobs=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    process.kill()
    process.wait()
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # one that nobody has waited for yet is dead all the same
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def test_a_study_without_a_trial_is_no_report(tmp_path, made):
    study.check_folder(tmp_path / "t", made)
    study.open_study(tmp_path / "t", made)
    with pytest.raises(DataError, match=r"no trial .* has come to its end; kobai tune --resume"):
        report(tmp_path / "t")
    assert [path.name for path in (tmp_path / "t").iterdir()] == [study.JOURNAL]


def test_a_trial_as_good_as_the_best_one_goes_on_though_others_were_better_at_its_rung(made):
    def behind(score, *done, plan=made, told=True):
        found = SimpleNamespace(get_trials=lambda **_: [SimpleNamespace(value=value) for value in done])
        return study._behind(SimpleNamespace(should_prune=lambda: told, study=found), score, plan)

    assert behind(0.5)
    assert behind(0.89, 0.7, 0.9)
    assert not behind(0.9, 0.7, 0.9)
    assert not behind(0.1, 0.9, told=False)
    by_loss = replace(made, by="loss")
    assert behind(0.31, 0.3, 0.8, plan=by_loss)
    assert not behind(0.3, 0.3, 0.8, plan=by_loss)
