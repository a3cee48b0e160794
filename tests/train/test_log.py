"""``Log`` gives each epoch to TensorBoard, MLflow, Weights & Biases, Trackio, a CSV file, a logger.

Real packages where they are installed; beside them fakes of the methods that their documentation names.
"""

from __future__ import annotations

import copy
import csv
import importlib
import logging
import struct
from importlib.util import find_spec

import pytest

import kobai
from kobai.train import Checkpoint, Log, Trainer


def installed(name):
    return pytest.mark.skipif(find_spec(name) is None, reason=f"pip install {name}")


def trained(to, epochs=3, validation=True, callbacks=(), resume=None):
    kobai.manual_seed(0)
    model = kobai.nn.Linear(2, 2)
    batch = (kobai.randn(8, 2), kobai.arange(8) % 2)
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, optimizer, metrics=["accuracy"], callbacks=[Log(to), *callbacks])
    return trainer.fit([batch], [batch] if validation else None, epochs=epochs, resume=resume)


NAMES = ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "time"]


# --- fakes ------------------------------------------------------------------------------------------------------------


class FakeWriter:
    """``torch.utils.tensorboard.SummaryWriter``, as documented: add_scalar(tag, scalar_value, global_step), flush()."""

    def __init__(self):
        self.seen, self.flushed = [], 0

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.seen.append((tag, scalar_value, global_step))

    def flush(self):
        self.flushed += 1


class FakeMlflow:
    """The module ``mlflow``, as documented: log_metrics(metrics, step)."""

    def __init__(self):
        self.seen = []

    def log_metrics(self, metrics, step=None):
        self.seen.append((step, metrics))


class FakeRun:
    """``wandb.Run`` and ``trackio.Run``, as documented: log(data, step)."""

    def __init__(self):
        self.seen = []

    def log(self, data, step=None):
        self.seen.append((step, data))


def test_a_writer_is_given_scalars():
    writer = FakeWriter()
    history = trained(writer)
    assert writer.seen == [(name, record[name], record["epoch"]) for record in history for name in NAMES]
    assert writer.flushed == 1


def test_mlflow_is_given_metrics_by_epoch():
    module = FakeMlflow()
    history = trained(module)
    assert module.seen == [(record["epoch"], {name: record[name] for name in NAMES}) for record in history]


def as_of_a_run(history):
    """Where ``time`` is the package's own."""
    return [{"seconds" if name == "time" else name: value for name, value in record.items()} for record in history]


def test_a_run_is_given_the_epoch_as_a_value():
    run = FakeRun()
    assert as_of_a_run(trained(run)) == [data for _, data in run.seen]
    assert {step for step, _ in run.seen} == {None}  # it counts its own steps, of which others may be the user's


def test_a_logger_is_told(caplog):
    with caplog.at_level(logging.INFO, "mine"):
        trained(logging.getLogger("mine"), epochs=1)
    assert caplog.messages[0].startswith("epoch 1: loss 0.")


def test_what_can_log_nothing_is_refused():
    for wrong in (3, None, FakeWriter, FakeRun):
        with pytest.raises(
            TypeError, match="Log: expected the path of a CSV file, or an object that has add_scalar, log_"
        ):
            Log(wrong)
    with pytest.raises(TypeError, match=r"got type; make one of it: FakeRun\(\)"):
        Log(FakeRun)


def test_a_copy_writes_to_the_same_object():
    run = FakeRun()
    run.lock = (x for x in ())  # which cannot be copied
    assert copy.deepcopy([Log(run)])[0].to is run


# --- a file -----------------------------------------------------------------------------------------------------------


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_file_has_a_line_for_each_epoch(tmp_path):
    history = trained(tmp_path / "made" / "log.csv")
    rows = read(tmp_path / "made" / "log.csv")
    assert [{name: float(value) for name, value in row.items()} for row in rows] == history


def test_a_resumed_run_has_each_epoch_once(tmp_path):
    path, folder = tmp_path / "log.csv", tmp_path / "run"
    trained(path, epochs=3, validation=False, callbacks=[Checkpoint(folder)])
    with path.open("a") as file:
        file.write("4,left over from a run that was killed,,,,,\n")
    history = trained(path, epochs=5, callbacks=[Checkpoint(folder)], resume=folder)
    rows = read(path)
    assert [row["epoch"] for row in rows] == list("12345")
    assert [row["val_loss"] == "" for row in rows] == [True] * 3 + [False] * 2  # a column that came later
    assert [float(row["loss"]) for row in rows] == [record["loss"] for record in history]


def test_of_several_processes_the_first_writes(tmp_path):
    """What the others are handed is left alone: no file of theirs is in the way, no run is told twice."""
    log, run = tmp_path / "log.csv", FakeRun()
    model = kobai.nn.Linear(2, 2)
    trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[Log(log), Log(run)])
    trainer.first = False
    trainer.fit([(kobai.zeros(4, 2), kobai.arange(4) % 2)], epochs=1)
    assert not log.exists()
    assert run.seen == []


# --- the packages themselves ------------------------------------------------------------------------------------------


def scalars(folder):
    """(step, tag, value) in TensorBoard's file: records of a length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.out.*")
    content, at = file.read_bytes(), 0
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + size])
        yield from ((event.step, value.tag, value.simple_value) for value in event.summary.value)
        at += 12 + size + 4


@installed("tensorboardX")
@pytest.mark.thorough
@pytest.mark.parametrize("place", ["kobai.utils.tensorboard", "tensorboardX"])
def test_tensorboard(place, tmp_path):
    writer = importlib.import_module(place).SummaryWriter(str(tmp_path))
    history = trained(writer)
    writer.close()
    found = {(step, tag): value for step, tag, value in scalars(tmp_path)}
    assert found == {(r["epoch"], name): pytest.approx(r[name], rel=1e-6) for r in history for name in NAMES}


@installed("mlflow")
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    mlflow.set_tracking_uri(f"file:{tmp_path}/runs")
    mlflow.set_experiment("test")
    with mlflow.start_run() as active:
        history = trained(mlflow)
    waiting = mlflow.start_run()
    mlflow.end_run()
    assert trained(waiting) is not None  # a run that is not the active one
    for run in (active, waiting):
        found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_loss")
        assert [(m.step, m.value) for m in found] == [(r["epoch"], pytest.approx(r["val_loss"])) for r in history]


@installed("wandb")
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases(tmp_path):
    import wandb

    run = wandb.init(project="test", mode="offline", dir=tmp_path)
    history = trained(run)
    last = as_of_a_run(history)[-1]
    found = {name: run.summary[name] for name in last}
    assert trained(wandb)[-1]["loss"] == run.summary["loss"]  # the module, with its active run
    run.finish()
    assert found == last


@installed("trackio")
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    import trackio

    run = trackio.init(project="test", name="first", embed=False)
    history = trained(run)
    trackio.finish()
    from trackio.sqlite_storage import SQLiteStorage

    logs = SQLiteStorage.get_logs("test", "first")
    assert [
        {name: log[name] for name in record} for log, record in zip(logs, as_of_a_run(history), strict=True)
    ] == as_of_a_run(history)
