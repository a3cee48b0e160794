"""Checkpoints: resumed runs are the uninterrupted ones bit for bit; damaged files are refused, and the last good one used."""

import json
import os
import threading

import numpy as np
import pytest
from small_problem import Problem, timeless

import kobai
from kobai.errors import CheckpointError
from kobai.optim import lr_scheduler
from kobai.train import Callback, Checkpoint, EarlyStopping, checkpoint
from kobai.utils.data import DataLoader

SCHEDULES = {
    "none": lambda o: None,
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=6),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=36),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0),
}
OPTIMIZERS = {
    "sgd": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: kobai.optim.Adam(p, lr=0.02, amsgrad=True),
    "nadam": lambda p: kobai.optim.NAdam(p, lr=0.02),
    "adadelta": lambda p: kobai.optim.Adadelta(p),
}


class Halt(Callback):
    """Stops as a killed process does: after so many batches, with an exception."""

    def __init__(self, batches):
        self.left = batches

    def on_batch_end(self, trainer):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def run(folder, *callbacks, optimizer="adam", schedule="none", every=0, resume=None, epochs=6, shared=False):
    problem = Problem()
    problem.optimizer = OPTIMIZERS[optimizer](problem.model.parameters())
    if shared:  # a loader that shuffles by the default generator, on which dropout draws too
        problem.train = DataLoader(problem.data, batch_size=8, shuffle=True)
    trainer = problem.trainer(
        EarlyStopping(patience=5, restore_best=True),
        Checkpoint(folder, every=every),
        *callbacks,
        scheduler=SCHEDULES[schedule](problem.optimizer),
    )
    trainer.fit(problem.train, problem.held, epochs=epochs, resume=resume)
    return timeless(trainer.history), {name: value.tobytes() for name, value in problem.parameters.items()}


@pytest.mark.parametrize(
    ("optimizer", "schedule", "every", "shared"),
    [
        ("adam", "none", 0, False),
        ("adam", "plateau", 1, True),
        ("sgd", "onecycle", 4, False),
        ("nadam", "cosine", 5, True),
        ("adadelta", "none", 3, False),
    ],
)
def test_resumed_run_is_the_uninterrupted_one(tmp_path, optimizer, schedule, every, shared):
    options = {"optimizer": optimizer, "schedule": schedule, "every": every, "shared": shared}
    whole = run(tmp_path / "whole", **options)
    resume = None
    for batches in (3, 5, 8, 7):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "parts", Halt(batches), resume=resume, **options)
        kobai.manual_seed(999)
        resume = tmp_path / "parts"
    assert run(tmp_path / "parts", resume=resume, **options) == whole
    for name in (checkpoint.LAST, checkpoint.BEST):
        one, other = (kobai.load(tmp_path / which / name) for which in ("whole", "parts"))
        assert content(one) == content(other)


def content(tree):
    """Nested state with arrays as bytes and without times."""
    if isinstance(tree, dict):
        return {key: content(value) for key, value in tree.items() if key != "time"}
    if isinstance(tree, (list, tuple)):
        return [content(value) for value in tree]
    return tree.numpy().tobytes() if isinstance(tree, kobai.Tensor) else tree


def test_a_finished_run_resumed_does_nothing_more(tmp_path):
    whole = run(tmp_path)
    stamp = (tmp_path / checkpoint.LAST).stat().st_mtime_ns
    assert run(tmp_path, resume=tmp_path) == whole
    assert (tmp_path / checkpoint.LAST).stat().st_mtime_ns == stamp


def test_early_stop_is_remembered(tmp_path):
    class Worse(Callback):
        def on_epoch_measured(self, trainer):
            trainer.history[-1]["val_loss"] = float(trainer.epoch)

    def go(resume):
        problem = Problem()
        trainer = problem.trainer(Worse(), EarlyStopping(patience=2), Checkpoint(tmp_path))
        trainer.fit(problem.train, problem.held, epochs=9, resume=resume)
        return trainer

    assert go(None).epoch == 3
    again = go(tmp_path)
    assert (again.epoch, again.stop_reason[:8]) == (3, "val_loss")


def damage(path, how):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        path.write_bytes(b"PK\x03\x04 a zip file")
    elif how == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif how == "a bit":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 4]) + data[-8:])
    elif how == "no training state":
        kobai.save({"weight": kobai.ones(3)}, path)
    elif how == "another format":
        kobai.save({"kobai_checkpoint": 99, "model": {"w": kobai.ones(1)}}, path)
    else:
        path.unlink()


HOW = {
    "truncated": "truncated",
    "empty": "truncated or of another format",
    "foreign": "pickled|not a whole safetensors file",
    "noise": "not a whole safetensors file",
    "a bit": "is damaged: its content does not match its checksum",
    "no training state": "not a checkpoint of a Kobai run",
    "another format": "reads format 1",
    "missing": "no such file",
}


@pytest.mark.parametrize("how", HOW)
def test_damaged_last_is_passed_over_for_the_previous(tmp_path, how):
    whole = run(tmp_path)
    damage(tmp_path / checkpoint.LAST, how)
    said = []
    path, state = checkpoint.find(tmp_path / checkpoint.LAST, say=said.append)
    assert (path.name, state["epoch"]) == (checkpoint.PREVIOUS, 5)
    assert len(said) == 1
    assert "\n" not in said[0]
    assert said[0].endswith(f"using {tmp_path / checkpoint.PREVIOUS} instead")
    assert run(tmp_path, resume=tmp_path) == whole
    with pytest.raises(CheckpointError, match=HOW[how]):
        damage(tmp_path / checkpoint.BEST, how) or checkpoint.read(tmp_path / checkpoint.BEST)


def test_nothing_left_to_read(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        checkpoint.find(tmp_path, say=print)
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoint.find(tmp_path / "nowhere" / checkpoint.LAST, say=print)
    run(tmp_path)
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        damage(tmp_path / name, "truncated")
    with pytest.raises(CheckpointError, match=r"last.safetensors.*previous.safetensors"):
        checkpoint.find(tmp_path, say=print)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    run(tmp_path, epochs=1)
    (tmp_path / checkpoint.BEST).chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read(tmp_path / checkpoint.BEST)


def test_best_and_last_and_no_left_overs(tmp_path):
    history, _ = run(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {checkpoint.BEST, checkpoint.LAST, checkpoint.PREVIOUS}
    best = checkpoint.read(tmp_path / checkpoint.BEST)
    losses = [record["val_loss"] for record in history]
    assert best["epoch"] == 1 + losses.index(min(losses))
    assert checkpoint.read(tmp_path / checkpoint.LAST)["epoch"] == 6


def test_a_folder_is_one_training_s_at_a_time_and_free_after_each(tmp_path):
    refused = []

    class Second(Callback):
        def on_epoch_end(self, trainer):
            def other():
                try:
                    Problem().trainer(Checkpoint(tmp_path)).fit(Problem().train, epochs=1)
                except BlockingIOError as error:
                    refused.append(str(error))

            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    problem = Problem()
    problem.trainer(Checkpoint(tmp_path), Second(), capture=False).fit(problem.train, epochs=2)
    assert len(refused) == 2
    assert f"is in use by process {os.getpid()} on this machine" in refused[0]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Halt(3))
    run(tmp_path)


def test_state_needs_nothing_but_json_and_arrays(tmp_path):
    run(tmp_path, schedule="plateau")
    raw = (tmp_path / checkpoint.LAST).read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert "model.0.weight" in header
    assert json.loads(header["__metadata__"]["kobai"])["data"]["epoch"] == 6


def test_other_generators_than_the_runs_own_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(CheckpointError, match="holds 2 random states"):
        run(tmp_path, resume=tmp_path, shared=True, epochs=8)


def test_position_beyond_the_data_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Halt(5), every=5)
    problem = Problem()
    short = DataLoader(problem.data, batch_size=24, shuffle=True, generator=kobai.Generator())
    trainer = problem.trainer(EarlyStopping(patience=5, restore_best=True))
    with pytest.raises(CheckpointError, match="after 5 batches of an epoch, and these data have 2"):
        trainer.fit(short, problem.held, epochs=6, resume=tmp_path)
