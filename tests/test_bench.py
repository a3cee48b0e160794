"""``kobai bench`` and what it rests on: timings, memory, where the GPU starts to win, the picture, the files."""

import json
import math
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import kobai
from cli_commands import kobai_command
from kobai import bench
from kobai.bench import drawing, machine, shapes, timing
from kobai.bench.timing import CAPTURED, EAGER, Plan, Timing
from kobai.cli import bench as command
from kobai.engine import dispatch
from kobai.train.settings import RunSettings

SETTINGS = RunSettings(hidden=(6, 6), batch_size=4)
SHAPE = shapes.Shape((5,), 3)
FEW = ["--hidden", "8", "--batch-sizes", "2,4", "--widths", "4", "--batch-size", "2", "--seconds", "0.001"]


pytestmark = pytest.mark.usefixtures("elsewhere")


def plan(**changes):
    return Plan(
        **{"settings": SETTINGS, "shape": SHAPE, "backends": ("numpy",), "batch_sizes": (2, 4), "widths": (3,)}
        | changes
    )


# --- measuring --------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_every_point_and_variant_is_timed():
    found = [t for point in timing.measure(plan(seconds=0.001)) for t in point]
    assert [(t.sweep, t.value, t.backend, t.mode) for t in found] == [
        (sweep, value, "numpy", mode)
        for sweep, value in (("batch size", 2), ("batch size", 4), ("width", 3))
        for mode in (EAGER, CAPTURED)
    ]
    for t in found:
        low, high = t.quartiles
        assert 0 < low <= t.median <= high < 1
        assert t.memory > 0
        assert t.failure is None


def test_points_keep_the_rest_of_the_model():
    points = list(plan().points())
    assert [(settings.batch_size, settings.hidden) for _, _, settings in points] == [
        (2, (6, 6)),
        (4, (6, 6)),
        (4, (3, 3)),
    ]


def test_the_timed_step_trains():
    kobai.manual_seed(0)
    settings = replace(SETTINGS, optimizer="sgd", lr=0.5, clip_grad_norm=1.0, batch_norm=True)
    step = timing.training_step(settings, SHAPE)
    x, t = kobai.randn(4, 5), kobai.tensor([0, 1, 2, 0])
    losses = [step(x, t).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_the_timed_step_computes_in_the_precision_asked_for(precision):
    kobai.manual_seed(0)
    step = kobai.capture(timing.training_step(replace(SETTINGS, precision=precision), SHAPE))
    x, t = kobai.randn(4, 5), kobai.tensor([0, 1, 2, 0])
    losses = [step(x, t).item() for _ in range(4)]
    assert losses[-1] < losses[0]
    kobai.manual_seed(0)
    other = timing.training_step(SETTINGS, SHAPE)
    assert (losses[0] == other(x, t).item()) == (precision == "tf32")  # which rounds products on a GPU alone


@pytest.mark.parametrize("mode", [EAGER, CAPTURED])
def test_memory_counts_parameters_gradients_and_state(mode):
    settings = RunSettings(hidden=(400,), optimizer="adam", batch_size=2)
    parameters = 400 * 301 + 10 * 401
    timing.weigh(settings, shapes.Shape((300,), 10), "numpy", mode)  # loads compiled code, which takes memory too
    weight = timing.weigh(settings, shapes.Shape((300,), 10), "numpy", mode)
    blocks = 0 if dispatch.numba_installed else 0.3  # NumPy's formulas go through temporaries, block by block
    assert weight / (4 * 4 * parameters) == pytest.approx(1 + blocks, abs=0.2)


def test_one_variant_that_fails_does_not_end_the_others(monkeypatch):
    def fail(*_):
        raise MemoryError("Unable to allocate 5 GiB\nfor an array")

    monkeypatch.setattr(timing, "capture", fail)
    eager, captured = next(iter(timing.measure(plan(seconds=0.001))))
    assert eager.median is not None
    assert (captured.median, captured.memory) == (None, None)
    assert captured.failure == "MemoryError: Unable to allocate 5 GiB"


# --- where the GPU wins -----------------------------------------------------------------------------------------------


def lines(host, device):
    """Timings of both backends at the widths 1, 10, 100, ... in seconds."""
    return [
        Timing("width", 10**i, backend, mode, seconds, (seconds, seconds))
        for backend, mode, times in (("numpy", EAGER, host), ("cupy", CAPTURED, device))
        for i, seconds in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("host", "device", "at"),
    [
        ([1, 10, 100], [10, 10, 10], 10),
        ([1, 1, 100], [10, 10, 10], math.sqrt(1000)),
        ([1, 1, 1], [2, 2, 2], None),
        ([2, 2, 2], [1, 1, 1], 0),
        ([2, 1, 2], [1, 2, 1], math.sqrt(1000)),  # what it wins before it loses again does not count
        ([2, 2, 1], [1, 1, 2], None),
    ],
)
def test_where_the_gpu_wins(host, device, at):
    assert timing.win(lines(host, device), "width") == (at and pytest.approx(at))


def test_the_better_way_of_each_backend_counts():
    slow = [replace(t, mode=CAPTURED, median=t.median * 5) for t in lines([1, 10, 100], [])]
    assert timing.win(lines([1, 10, 100], [10, 10, 10]) + slow, "width") == pytest.approx(10)


def test_there_is_no_win_without_a_gpu():
    assert timing.win(lines([1, 2], []), "width") is None
    assert timing.win([], "batch size") is None


# --- shapes and facts -------------------------------------------------------------------------------------------------


def test_shapes_of_known_data_are_true():
    data = kobai.data.load("digits")
    assert shapes.KNOWN["digits"] == shapes.Shape(data.input_shape, len(data.classes))
    assert set(shapes.KNOWN) == set(kobai.data.NAMES)


def test_facts_are_json():
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["processor"]
    assert facts["blas"]


# --- the picture ------------------------------------------------------------------------------------------------------


def test_picture_has_both_forms_and_says_where_the_gpu_wins(tmp_path):
    pytest.importorskip("matplotlib")
    png, svg = drawing.picture(
        lines([1, 10, 100], [10, 10, 10]), "a net", {"width": "batches of 3"}, tmp_path / "a" / "b"
    )
    assert (png.name, svg.name) == ("b.png", "b.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "GPU faster from 10 on" in svg.read_text()  # as a comment beside the outlines of the letters


def test_picture_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing was measured"):
        drawing.picture([Timing("width", 1, "numpy", EAGER, failure="x")], "", {}, tmp_path / "b")


def test_picture_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"kobai\[plot\]"):
        drawing.picture(lines([1], [1]), "", {}, tmp_path / "b")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_bench_writes_table_picture_and_json(capsys):
    pytest.importorskip("matplotlib")
    code, out, err = kobai_command(capsys, "bench", *FEW, "--backend", "numpy", "--out", "b", "--optimizer", "sgd")
    assert (code, err) == (0, "")
    assert "model     64-8-10, relu, batch norm, dropout 0.5, sgd, batches of 2" in out
    for words in ("one step by batch size, layers 64-8-10", "one step by width, batches of 2", "memory eager", "MiB"):
        assert words in out
    assert out.splitlines()[-1] == "files in b: bench.json, bench.png, bench.svg"
    report = json.loads(Path("b/bench.json").read_text())
    assert report["machine"]["cores"] >= 1
    assert report["settings"]["hidden"] == [8]
    assert report["gpu_wins_from"] is None
    assert {(t["sweep"], t["value"]) for t in report["timings"]} == {
        *(("batch size", n) for n in (2, 4)),
        *(("width", n) for n in (4, 8)),
    }
    assert all(t["median"] > 0 and t["memory"] > 0 for t in report["timings"])


@pytest.mark.thorough
def test_bench_quiet_names_the_files_and_nothing_else(capsys, monkeypatch):
    monkeypatch.setattr(command, "has", lambda package: package != "matplotlib")
    code, out, _ = kobai_command(capsys, "bench", *FEW, "--quiet", "--out", "b")
    assert code == 0
    assert out.splitlines() == ["b/bench.json"]


def test_bench_without_matplotlib_says_so(capsys, monkeypatch):
    monkeypatch.setattr(command, "has", lambda package: package != "matplotlib")
    _, out, _ = kobai_command(capsys, "bench", *FEW, "--widths", "", "--out", "b")
    assert "pip install 'kobai[plot]'" in out
    assert "files in b: bench.json" in out


@pytest.mark.thorough
def test_bench_of_a_table_takes_its_shape(capsys):
    rows = "".join(f"{i * 0.37 % 1:.2f},{i * 0.73 % 1:.2f},{'ab'[i % 2]}\n" for i in range(40))
    Path("t.csv").write_text("x,y,kind\n" + rows)
    code, out, _ = kobai_command(capsys, "bench", "--data", "t.csv", *FEW, "--out", "b")
    assert (code, "model     2-8-2, relu" in out) == (0, True)


def test_bench_of_both_backends_says_where_the_gpu_wins(capsys, monkeypatch):
    """What is shown does not depend on who has computed."""
    found = [
        Timing("width", width, backend, mode, seconds, (seconds, seconds), 2**20)
        for width in (1, 8, 64)
        for backend, seconds in (("numpy", float(width)), ("cupy", 8.0))
        for mode in (EAGER, CAPTURED)
    ]
    monkeypatch.setattr(command.xp, "available_backends", lambda: {"numpy": "", "cupy": ""})
    monkeypatch.setattr(machine.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(command.benches, "measure", lambda plan: iter([found, [], []]))
    options = ["--batch-sizes", "", "--widths", "1,64", "--hidden", "8", "--out", "b"]
    code, out, err = kobai_command(capsys, "bench", *options)
    assert (code, err) == (0, "")
    assert "by width: the GPU is faster from about 8 on" in out
    assert re.search(r"8 +numpy +8 s +8 s +1.00× +1.0 MiB +1.0 MiB *\n +cupy +8 s", out)
    assert json.loads(Path("b/bench.json").read_text())["gpu_wins_from"]["width"] == pytest.approx(8)


@pytest.mark.thorough
def test_bench_shows_what_failed(capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("captured step: item() reads a value")

    monkeypatch.setattr(timing, "capture", fail)
    code, out, err = kobai_command(capsys, "bench", *FEW, "--widths", "", "--out", "b")
    assert (code, "–" in out) == (0, True)
    assert err == "kobai: numpy, captured: RuntimeError: captured step: item() reads a value\n"


@pytest.mark.parametrize(
    ("arguments", "option", "words"),
    [
        (["--optimizer", "adm"], "--optimizer", "Did you mean 'adam'?"),
        (["--hidden", "8,x"], "--hidden", "expected integers with commas"),
        (["--batch-sizes", "8;16"], "--batch-sizes", "expected integers with commas"),
        (["--widths", "0,4"], "--widths", "sizes of at least 1"),
        (["--hidden", "", "--widths", "4"], "--widths", "no hidden layer"),
        (["--hidden", "", "--batch-sizes", ""], "--batch-sizes", "got neither"),
        (["--seconds", "0"], "--seconds", "more than 0"),
        (["--backend", "nunpy"], "--backend", "Did you mean 'numpy'?"),
        (["--data", "digitz"], "--data", "Did you mean 'digits'?"),
        (["--suite", "--hidden", "8"], "--hidden", "together with --suite"),
        (["--peers", "--backend", "numpy"], "--backend", "together with --peers"),
        (["more"], "--suite", "is there a use for more"),
    ],
)
def test_wrong_arguments_are_usage_errors(capsys, arguments, option, words):
    code, _, err = kobai_command(capsys, "bench", *arguments)
    assert code == 2
    text = " ".join(line.strip("│ ") for line in err.splitlines())
    assert option in text
    assert words in text
    assert not Path("runs").exists()


def test_a_backend_that_cannot_be_had_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(command.xp, "available_backends", lambda: {"numpy": "", "cupy": "backend 'cupy': no device"})
    code, _, err = kobai_command(capsys, "bench", "--backend", "numpy,cupy")
    assert (code, err) == (1, "kobai: backend 'cupy': no device\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--suite", "--backend", "numpy", "--", "--quick"], ["-m", "pytest", "--backend", "numpy", "--quick"]),
        (["--suite", "--out", "o"], ["-m", "pytest", "--benchmark-json=", "suite.json"]),
        (["--peers", "--", "--cases", "S"], ["peers.py", "--memory", "--cases", "S"]),
        (["--peers", "--out", "o"], ["peers.py", "--out", "peers.json"]),
    ],
)
def test_what_a_clone_runs(capsys, monkeypatch, arguments, expected):
    ran = []

    def run(command):
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(command, "has", lambda package: True)
    assert kobai_command(capsys, "bench", *arguments)[0] == 3
    (line,) = ran
    assert all(word in " ".join(line) for word in expected)


def test_outside_a_clone_there_is_no_suite(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command.benches, "__file__", str(tmp_path / "a" / "b" / "c" / "__init__.py"))
    code, _, err = kobai_command(capsys, "bench", "--suite")
    assert (code, "clone" in err) == (2, True)


def test_the_suite_needs_its_package(capsys, monkeypatch):
    monkeypatch.setattr(command, "has", lambda package: False)
    code, _, err = kobai_command(capsys, "bench", "--suite")
    assert (code, "kobai[dev]" in err) == (2, True)


def test_help_has_examples(capsys):
    code, out, _ = kobai_command(capsys, "bench", "--help")
    assert (code, "Examples" in out) == (0, True)
    assert set(bench.__all__) <= set(dir(bench))
