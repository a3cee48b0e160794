"""A study on the disk and the processes that work on it: who is alive, what the dead leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("optuna")

from kobai.core.checksum import from_json
from kobai.errors import DataError
from kobai.lab.reports.reporting import report
from kobai.lab.sweep import tune_study
from kobai.lab.sweep.tune import perform
from kobai.lab.sweep.tune_plan import plan
from kobai.lab.training import from_settings
from kobai.train.settings import RunSettings

SPACE = {"lr": "1e-4..1:log"}


@pytest.fixture
def made():
    return plan(RunSettings(hidden=(8,), epochs=1), SPACE, "random", prune=False)


def asked(folder: Path, made, owner):
    """A study with a trial that this owner is at."""
    tune_study.check_folder(folder, made)
    opened = tune_study.open_study(folder, made)
    trial = tune_study._take(opened, made, 1)
    tune_study._suggested(trial, made)
    trial.set_user_attr("owner", owner)
    return opened


def states(opened) -> list[str]:
    return [trial.state.name for trial in opened.get_trials(deepcopy=False)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux says when a process began")
def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path, made):
    host, pid, now, birth = tune_study._owner()
    opened = asked(tmp_path / "t", made, [host, pid, now, "00000001"])
    tune_study.sweep(opened)
    assert states(opened) == ["FAIL"]
    opened = asked(tmp_path / "u", made, [host, pid, now - 10 * tune_study.SILENCE, birth])  # silent, and alive
    tune_study.sweep(opened)
    assert states(opened) == ["RUNNING"]


def test_a_trial_is_given_back_once(tmp_path, made):
    opened = asked(tmp_path / "t", made, ["elsewhere", 1, 0.0, ""])
    other = tune_study.open_study(tmp_path / "t", made)
    tune_study.sweep(opened)
    tune_study.give_back(other, 0)  # which has seen the trial before, and is too late
    assert states(opened) == ["FAIL"]


def test_a_trial_that_another_machine_took_over_is_dropped(tmp_path, made, monkeypatch):
    tune_study.check_folder(tmp_path / "t", made)
    opened = tune_study.open_study(tmp_path / "t", made)
    train, taken = from_settings.train, []

    def slow(*args):
        if not taken:
            taken.append(opened.get_trials()[-1].number)
            tune_study.give_back(opened, taken[0])
        return train(*args)

    monkeypatch.setattr(from_settings, "train", slow)
    tune_study.work(tune_study.open_study(tmp_path / "t", made), made, 2)
    assert sorted(states(opened)) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert opened.get_trials()[1].params == opened.get_trials()[0].params  # it has taken the place, and does the same
    assert [t.number for t in tune_study.trials(opened, made)] == [0, 1]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_worker_that_is_to_end_gives_back_its_trial_and_the_lock_and_ends(tmp_path, made, monkeypatch):
    class Ended(BaseException):
        """What ends a worker must not end this process."""

    def end(code):
        raise Ended

    tune_study.check_folder(tmp_path / "t", made)
    monkeypatch.setattr(from_settings, "train", lambda *args: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(60))
    monkeypatch.setattr(os, "_exit", end)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Ended):
            tune_study.work_in(tmp_path / "t", made, 3)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert states(tune_study.open_study(tmp_path / "t", made)) == ["FAIL"]
    assert [path.name for path in (tmp_path / "t").iterdir()] == [tune_study.JOURNAL]


@pytest.mark.skipif(sys.platform == "win32", reason="there the lock is no link")
def test_the_lock_leads_to_the_journal_wherever_the_folder_is_seen_from(tmp_path, made, monkeypatch):
    """Else Optuna waits for ever for one that a dead process has left: it cannot tell how old it is."""
    monkeypatch.chdir(tmp_path)
    links, link = [], os.symlink
    monkeypatch.setattr(os, "symlink", lambda target, name: (links.append((target, name)), link(target, name))[1])
    perform(made, trials=1, jobs=1, out="folder")
    assert links
    assert all(Path(name).parent / target == tmp_path / "folder" / tune_study.JOURNAL for target, name in links)


def test_workers_end_with_the_process_that_began_them(tmp_path):
    code = (
        "import os, sys, time\n"
        "from kobai.lab.training.workers import run_all\n"
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
    tune_study.check_folder(tmp_path / "t", made)
    tune_study.open_study(tmp_path / "t", made)
    with pytest.raises(DataError, match=r"no trial .* has come to its end; kobai tune --resume"):
        report(tmp_path / "t")
    assert [path.name for path in (tmp_path / "t").iterdir()] == [tune_study.JOURNAL]


def test_a_trial_as_good_as_the_best_one_goes_on_though_others_were_better_at_its_rung(made):
    from optuna.trial import TrialState

    def behind(score, rung, *done, plan=made):
        there = [SimpleNamespace(value=value, state=TrialState.COMPLETE, intermediate_values={}) for value in done]
        there += [SimpleNamespace(state=TrialState.PRUNED, intermediate_values={3: value}) for value in (*rung, score)]
        found = SimpleNamespace(get_trials=lambda **_: there)
        return tune_study._behind(SimpleNamespace(study=found), 3, score, plan)

    many = [0.95, 0.96, 0.97]
    assert behind(0.5, many)
    assert not behind(0.5, [0.1, 0.2, 0.3, 0.4])
    assert not behind(0.5, [])
    assert behind(0.4, [0.5])  # the first ones are judged too: the best of two goes on
    assert not behind(0.6, [0.5, 0.7, 0.1, 0.2, 0.3])  # the best third of six are two
    assert behind(0.89, many, 0.7, 0.9)
    assert not behind(0.9, many, 0.7, 0.9)
    by_loss = replace(made, by="loss")
    assert behind(0.31, [0.1, 0.2], 0.3, 0.8, plan=by_loss)
    assert not behind(0.3, [0.1, 0.2], 0.3, 0.8, plan=by_loss)
    assert not behind(0.05, [0.1, 0.2], plan=by_loss)


def test_a_trial_is_never_without_its_owner_and_its_place(tmp_path, made):
    tune_study.check_folder(tmp_path / "t", made)
    tune_study._take(tune_study.open_study(tmp_path / "t", made), made, 1)
    first = next(
        line for line in (tmp_path / "t" / tune_study.JOURNAL).read_bytes().splitlines() if b'"user_attrs"' in line
    )
    attributes = from_json(first)["user_attrs"]
    assert attributes["place"] == 0
    assert attributes["owner"][1] == os.getpid()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_a_journal_whose_first_line_was_cut_off_begins_anew(tmp_path, made, share):
    perform(made, trials=1, jobs=1, out=tmp_path / "whole")
    first = (tmp_path / "whole" / tune_study.JOURNAL).read_bytes().splitlines()[0]
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / tune_study.JOURNAL).write_bytes(first[: max(1, int(share * len(first)))])
    assert len(perform(made, trials=1, jobs=1, out=tmp_path / "t").complete) == 1


def test_a_place_taken_by_two_processes_is_the_first_ones(tmp_path, made, monkeypatch):
    tune_study.check_folder(tmp_path / "t", made)
    one, other = (tune_study.open_study(tmp_path / "t", made) for _ in range(2))
    look, seen = tune_study.by_place, []

    def late(opened, plan):
        found = look(opened, plan)
        if not seen:  # between the look and the taking, another process takes the place
            seen.append(True)
            seen.append(tune_study._take(other, made, 3).user_attrs["place"])
        return found

    monkeypatch.setattr(tune_study, "by_place", late)
    assert tune_study._take(one, made, 3).user_attrs["place"] == 1
    assert seen[1] == 0
    assert states(one) == ["RUNNING", "FAIL", "RUNNING"]


def test_a_study_of_an_older_version_goes_on(tmp_path, made):
    """Its trials have no places, and those that it lined up again are done by their place."""
    import optuna

    tune_study.check_folder(tmp_path / "t", made)
    opened = tune_study.open_study(tmp_path / "t", made)
    for number, state in enumerate(("COMPLETE", "FAIL", "COMPLETE", "RUNNING")):
        trial = opened.ask()
        lr = tune_study._suggested(trial, made)["lr"]
        if state != "RUNNING":
            opened.tell(trial, 0.5 + number / 10 if state == "COMPLETE" else None, state=optuna.trial.TrialState[state])
    opened.enqueue_trial({"lr": lr})
    journal = tmp_path / "t" / tune_study.JOURNAL
    lines = [json.dumps(from_json(line)).encode() for line in journal.read_bytes().splitlines()]  # without checksums
    journal.write_bytes(b"\n".join(lines) + b"\n")
    found = perform(made, trials=4, jobs=1, out=tmp_path / "t")
    assert [t.number for t in found.complete] == [0, 1, 2, 3]
    assert [t.value for t in found.trials[:2]] == [0.5, 0.7]


def test_a_damaged_line_is_named_and_nothing_is_written(tmp_path, made):
    perform(made, trials=2, jobs=1, out=tmp_path / "t")
    journal = tmp_path / "t" / tune_study.JOURNAL
    whole, rng = journal.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        place = int(rng.integers(len(whole) - 1))
        if whole[place : place + 1] == b"\n":
            continue
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        journal.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match=r"study\.journal: (line \d+ is damaged|is no journal of a search)"):
            perform(made, trials=3, jobs=1, out=tmp_path / "t")
        assert journal.read_bytes() == bytes(damaged)


@pytest.mark.thorough
@pytest.mark.few(2)
@pytest.mark.parametrize(("method", "prune"), [("random", False), ("grid", False), ("tpe", True), ("random", True)])
def test_an_interrupted_search_has_the_trials_of_one_that_was_not(tmp_path, method, prune, monkeypatch):
    """Interrupted in the midst of a trial, between two, and killed: whatever it was, what was begun is done again as it was."""
    made = plan(
        RunSettings(hidden=(4,), epochs=3), {"lr": "1e-3..1:log:4", "activation": "relu|tanh"}, method, prune=prune
    )
    whole = perform(made, trials=8, jobs=1, out=tmp_path / "whole")
    train, halts = from_settings.train, iter([3, 40, 1, 100, 200])

    def halting(settings, measures, on_measure):
        left = next(halts, 10**9)
        counter = iter(range(left, -1, -1))

        def measured(run):
            if next(counter, 0) == 0:
                raise KeyboardInterrupt
            return on_measure(run)

        return train(settings, measures, measured)

    monkeypatch.setattr(from_settings, "train", halting)
    while True:
        try:
            found = perform(made, trials=8, jobs=1, out=tmp_path / "parts")
            break
        except KeyboardInterrupt:
            continue

    def told(search):
        return [(t.number, t.state, t.value, t.parameters, t.curve) for t in search.trials]

    assert told(found) == told(whole)
    assert "FAIL" in states(tune_study.open_study(tmp_path / "parts", made))
