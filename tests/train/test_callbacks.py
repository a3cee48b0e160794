"""Callbacks: early stopping, history, the best epoch, progress, learning curve."""

import io
import json
import math
import re

import pytest
from rich.console import Console
from small_problem import Problem, timeless

import kobai
from kobai import nn
from kobai.train import (
    Callback,
    Checkpoint,
    EarlyStopping,
    History,
    LearningCurve,
    Progress,
    Trainer,
    learning_curve,
)
from kobai.train.callbacks import Best
from kobai.train.progress import duration, print_line
from kobai.utils.data import DataLoader, TensorDataset


class Scripted(Callback):
    """Replaces the validation loss of each epoch by a given value."""

    def __init__(self, *values):
        self.values = values

    def on_epoch_measured(self, trainer):
        trainer.history[-1]["val_loss"] = self.values[trainer.epoch - 1]


def test_early_stopping_waits_then_stops_and_restores_the_best(problem):
    weights = []

    class Note(Callback):
        def on_epoch_end(self, trainer):
            weights.append(problem.parameters)

    stopping = EarlyStopping(patience=2, restore_best=True)
    trainer = problem.trainer(Scripted(3.0, 1.0, 1.0, math.nan, 0.5), stopping, Note())
    trainer.fit(problem.train, problem.held, epochs=10)
    assert trainer.epoch == 4
    assert trainer.stop_reason == "val_loss has not improved for 2 epochs; the best was 1 in epoch 2"
    assert all((weights[1][name] == value).all() for name, value in problem.parameters.items())


def test_early_stopping_by_min_delta_and_mode(problem):
    trainer = problem.trainer(Scripted(1.0, 0.95, 0.91, 0.1), EarlyStopping(patience=2, min_delta=0.1))
    trainer.fit(problem.train, problem.held, epochs=10)
    assert trainer.epoch == 3
    other = Problem()
    trainer = other.trainer(Scripted(1.0, 2.0, 1.5, 3.0), EarlyStopping(patience=1, monitor="val_loss", mode="max"))
    trainer.fit(other.train, other.held, epochs=10)
    assert trainer.epoch == 3


def test_early_stopping_where_nothing_was_ever_a_number(problem):
    trainer = problem.trainer(Scripted(math.nan, math.nan), EarlyStopping(patience=2))
    trainer.fit(problem.train, problem.held, epochs=5)
    assert trainer.stop_reason == "val_loss was NaN for 2 epochs"


def test_accuracy_is_better_when_greater(problem):
    best = Best("accuracy")
    trainer = problem.trainer()
    trainer.history, trainer.epoch = [{"accuracy": 0.5}], 1
    assert best.update(trainer)
    trainer.history = [{"accuracy": 0.4}]
    assert not best.update(trainer)
    trainer.history = [{"accuracy": 0.6}]
    assert best.update(trainer)
    assert not best.update(trainer)
    best.ties = True
    assert best.update(trainer)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: EarlyStopping(patience=0), "patience as an integer >= 1, got 0"),
        (lambda: EarlyStopping(mode="maximum"), "'min' or 'max', got 'maximum'"),
        (lambda: EarlyStopping(min_delta=-1.0), "min_delta"),
        (lambda: Checkpoint("x", every=-1), "every as an integer >= 0"),
    ],
)
def test_refusals(make, error):
    with pytest.raises(ValueError, match=error):
        make()


def test_unknown_monitor_names_the_nearest(problem):
    with pytest.raises(ValueError, match=r"no value 'val_acuracy' in an epoch's record\. Did you mean 'val_accuracy'"):
        problem.trainer(EarlyStopping(monitor="val_acuracy")).fit(problem.train, problem.held, epochs=1)


def test_history_is_one_json_object_a_line(problem, tmp_path):
    path = tmp_path / "runs" / "history.jsonl"
    trainer = problem.trainer(History(path), Scripted(1.0, math.nan))
    trainer.fit(problem.train, problem.held, epochs=2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == trainer.history[0]
    assert lines[1]["val_loss"] is None


def test_history_is_rewritten_when_a_run_goes_on(problem, tmp_path):
    path = tmp_path / "history.jsonl"
    trainer = problem.trainer(History(path))
    trainer.fit(problem.train, epochs=2)
    with path.open("a") as file:
        file.write('{"epoch": 3, "half an epoch that no checkpoint knows')
    trainer.fit(problem.train, epochs=3)
    assert [json.loads(line) for line in path.read_text().splitlines()] == trainer.history


def test_lines_break_between_words_and_in_terminals_only():
    for terminal, lines in ((True, ["one two", "three"]), (False, ["one two three"])):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=10, _environ={})
        print_line(console, "one two three")
        assert [line.rstrip() for line in console.file.getvalue().splitlines()] == lines


def shown(problem, *, terminal, quiet=False, epochs=2, **environment):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, _environ=environment)
    problem.trainer(Progress(console, quiet=quiet)).fit(problem.train, problem.held, epochs=epochs)
    return file.getvalue()


def test_progress_prints_plain_lines_where_there_is_no_terminal(problem, capsys):
    text = shown(problem, terminal=False)
    lines = text.splitlines()
    assert lines[0] == "each value: training/validation"
    assert [re.sub(r"[\d.]+", "#", line) for line in lines[1:]] == [
        "epoch #/#  loss #/#  accuracy #/#  lr #  # ms",
    ] * 2
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in text
    assert capsys.readouterr() == ("", "")


def test_progress_shows_a_live_bar_in_a_terminal(problem, monkeypatch):
    monkeypatch.setattr("kobai.train.progress.REFRESH", 0.0)
    text = shown(problem, terminal=True, TERM="xterm-256color")
    assert "\x1b[" in text
    assert "6/6" in text
    assert "epoch 2/2" in text
    assert "\x1b[?25h" in text  # the cursor is shown again


def test_progress_in_a_dumb_terminal_is_plain(problem):
    assert "\x1b[?25l" not in shown(problem, terminal=True, TERM="dumb")


def test_progress_quiet_prints_nothing(problem, capsys):
    assert shown(problem, terminal=True, quiet=True, TERM="xterm") == ""
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_standard_output_by_itself(problem, capsys):
    problem.trainer(Progress()).fit(problem.train, epochs=1)
    assert capsys.readouterr().out.startswith("epoch 1/1  loss ")


def test_progress_lets_go_of_the_terminal_after_an_error(problem):
    file = io.StringIO()
    progress = Progress(Console(file=file, force_terminal=True, _environ={"TERM": "xterm"}))

    class Fail(Callback):
        def on_batch_end(self, trainer):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problem.trainer(progress, Fail()).fit(problem.train, epochs=1)
    assert "\x1b[?25h" in file.getvalue()


def test_progress_without_a_known_number_of_batches(problem):
    file = io.StringIO()
    model = nn.Linear(2, 2)

    class Stream:
        def __iter__(self):
            return iter([(kobai.ones(2, 2), kobai.tensor([0, 1]))] * 3)

    progress = Progress(Console(file=file, force_terminal=True, _environ={"TERM": "xterm"}))
    Trainer(model, kobai.optim.SGD(model.parameters()), callbacks=[progress]).fit(Stream(), epochs=1)
    assert "epoch 1/1" in file.getvalue()


def test_duration_carries_over():
    assert [duration(t) for t in (0.9999, 59.99, 119.9, 3599.9)] == ["1.0 s", "1 min 00 s", "2 min 00 s", "1 h 00 min"]


def test_learning_curve_is_a_picture(problem, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "new" / "curve.png"
    problem.trainer(LearningCurve(path)).fit(problem.train, problem.held, epochs=2)
    assert path.read_bytes().startswith(b"\x89PNG")
    single = learning_curve([{"epoch": 1, "loss": None, "lr": 0.1, "time": 1.0}], tmp_path / "one.png")
    assert single.stat().st_size > 1000
    assert list(tmp_path.glob(".*.tmp")) == []


def test_learning_curve_refuses(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="empty history"):
        learning_curve([], tmp_path / "x.png")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'kobai\[plot\]'"):
        learning_curve([{"epoch": 1, "loss": 1.0}], tmp_path / "x.png")


def test_a_small_data_set_of_one_batch(tmp_path):
    data = TensorDataset(kobai.zeros(1, 2), kobai.tensor([1]))
    model = nn.Linear(2, 2)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters()), callbacks=[Checkpoint(tmp_path)])
    assert len(timeless(trainer.fit(DataLoader(data), data, epochs=1))) == 1


# --- callbacks that would never be called -----------------------------------------------------------------------------

MISNAMED = {
    "on_epoch_begin": "on_epoch_start",
    "on_train_begin": "on_fit_start",
    "on_train_start": "on_fit_start",
    "on_train_end": "on_fit_end",
    "on_step_end": "on_batch_end",
    "on_epoch_ends": "on_epoch_end",
    "on_batch_end_": "on_batch_end",
}


@pytest.mark.parametrize("name", MISNAMED)
def test_a_misnamed_event_is_refused_with_the_nearest_name(name, problem):
    with pytest.raises(TypeError, match=rf"Mine\.{name}: no event .* Did you mean '{MISNAMED[name]}'\?"):
        type("Mine", (Callback,), {name: lambda self, trainer: None})
    stopping = EarlyStopping()
    setattr(stopping, name, print)
    with pytest.raises(TypeError, match=rf"EarlyStopping\.{name}: no event"):
        problem.trainer(stopping)


def test_a_mixin_s_events_are_looked_at_too():
    class Mixin:
        def on_train_batch_end(self, trainer):
            pass

    with pytest.raises(TypeError, match="no event is called so"):
        type("Mine", (Mixin, Callback), {})


async def later(self, trainer):
    pass


def stepwise(self, trainer):
    yield


SIGNATURES = {
    "nothing": (lambda self: None, r"got \(self\)"),
    "two": (lambda self, trainer, logs: None, r"got \(self, trainer, logs\)"),
    "by keyword": (lambda self, *, trainer: None, r"\(self, trainer\)"),
    "async": (later, "would not run it"),
    "generator": (stepwise, "would not run it"),
    "no method": (None, "got NoneType"),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_an_event_that_cannot_be_called_is_refused_before_training(case, problem):
    method, message = SIGNATURES[case]
    kind = type("Mine", (Callback,), {"on_epoch_end": method})
    with pytest.raises(TypeError, match=rf"Mine\.on_epoch_end: .*{message}"):
        problem.trainer(kind())


def test_events_that_can_be_called_are_taken(problem):
    called = []

    class Mine(Callback):
        def on_fit_start(self, *args):
            called.append("fit")

        @staticmethod
        def on_epoch_start(trainer, logs=None):
            called.append("epoch")

        on_fit_end = called.append

    problem.trainer(Mine()).fit(problem.train, epochs=1)
    assert called[:2] == ["fit", "epoch"]
    assert len(called) == 3
    with pytest.raises(TypeError, match=r"got type; make one of it: Mine\(\)"):
        problem.trainer(Mine)
