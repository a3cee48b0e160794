"""The live boards of ``kobai compare`` and ``kobai tune``: what they show, and that it fits into the terminal."""

from __future__ import annotations

import sys

import pytest
from rich.console import Console

from kobai.cli import boards
from kobai.lab.sweep import compare_plan, tune_plan
from kobai.lab.sweep.tune_plan import Trial
from kobai.lab.sweep.tune_result import Search
from kobai.lab.training.curves import Curves
from kobai.train.settings import RunSettings


@pytest.fixture(params=[(80, 24), (50, 12), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
def screen(request, monkeypatch):
    width, height = request.param
    console = Console(
        force_terminal=True,
        width=width,
        height=height,
        color_system=None,
        legacy_windows=False,
        get_time=lambda: console.now,
    )
    console.now = 0.0
    monkeypatch.setattr(boards, "out", console)
    monkeypatch.setattr(sys.modules["kobai.cli.common"], "out", console)
    return console


def lines(console: Console, board: boards.Board) -> list[str]:
    with console.capture() as captured:
        console.print(board.get_renderable())
    found = captured.get().rstrip("\n").split("\n")
    assert len(found) < console.height
    assert all(len(line) <= console.width for line in found)
    return found


def news(accuracy: float, epoch: float = 1.0, loss: float = 0.5) -> dict[str, object]:
    return {"epoch": epoch, "loss": loss, "held_accuracy": [0.1, accuracy], "run": Curves()}


def test_a_comparison_shows_what_runs_and_what_is_best_of_many(screen):
    made = compare_plan.plan(
        RunSettings(epochs=10), {"lr": [10.0**-i for i in range(15)], "activation": "relu,tanh"}, repeat=2
    )
    board = boards.CompareBoard(made, quiet=False)
    assert "processes are starting" in lines(screen, board)[1]
    names = board.names
    board.take((3, 0), news(0.987), True)
    board.take((27, 1), news(0.25, epoch=4.0, loss=1e300), False)
    shown = lines(screen, board)
    assert shown[0].startswith("1 of 60 runs")
    assert any(line.strip().startswith(names[27][:7]) and "1e+300" in line for line in shown)
    assert any(line.strip().startswith(names[3][:7]) and "0.9870" in line and "1/2" in line for line in shown)
    if screen.height == 24:
        assert "and 11 more conditions" in shown[-1]


def test_how_long_it_will_take_is_told_once_it_can_be(screen):
    board = boards.CompareBoard(compare_plan.plan(RunSettings(epochs=10), {"lr": [0.1, 1.0]}), quiet=False)
    for epoch in (2.5, 5.0):
        screen.now += 10
        board.take((0, 0), news(0.5, epoch=epoch), False)
    assert lines(screen, board)[0].endswith("0:00:20 0:01:00")
    board.take((0, 0), news(0.5, epoch=10.0), True)
    board.take((1, 0), news(0.5, epoch=10.0), True)
    assert lines(screen, board)[0].endswith("0:00:20 0:00:00")


def test_a_search_shows_the_best_and_the_trials_that_run(screen):
    made = tune_plan.plan(RunSettings(), {"lr": "1e-4..1:log", "hidden": "50|100,100", "activation": "relu,tanh"})
    board = boards.TuneBoard(made, 30, quiet=False)
    assert "processes are starting" in lines(screen, board)[1]
    point = {"lr": 0.0123, "hidden": (100, 100), "activation": "relu"}
    running = [Trial(i, "running", 0.5, point, [0.1, 0.5]) for i in range(2, 40)]
    board.take(Search(made, (Trial(0, "complete", 0.9, point), Trial(1, "pruned", 0.3, point), *running)))
    shown = lines(screen, board)
    assert shown[0].startswith("2 of 30 trials")
    assert "1 pruned" in shown[0]
    assert shown[1].startswith("best accuracy 0.9000, trial 0: lr 0.0123")
    assert any(line.strip().startswith("trial 2 ") and "0.5000" in line for line in shown)


def test_without_a_terminal_each_end_is_a_line(monkeypatch, capsys):
    made = compare_plan.plan(RunSettings(epochs=10), {"lr": [0.1, 1.0, 10.0] + [100.0 + i for i in range(9)]}, repeat=1)
    board = boards.CompareBoard(made, quiet=False)
    with board:
        board.take((0, 0), news(0.5), False)
        board.take((0, 0), news(0.5), True)
        board.take((1, 0), {**news(0.1), "run": Curves(diverged=7)}, True)
    assert capsys.readouterr().out.splitlines() == [
        " 1/12  lr 0.1: validation accuracy 0.5000",
        " 2/12  lr 1: diverged at step 7",
    ]
    silent = boards.CompareBoard(made, quiet=True)
    with silent:
        silent.take((0, 0), news(0.5), True)
    assert capsys.readouterr().out == ""
