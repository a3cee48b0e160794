"""Threads beside each other: each records, replays and switches modes on its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kobai
from kobai import nn, xp
from kobai.capture import session as capture_session
from kobai.capture.memory import Workspace
from kobai.capture.session import HostSession
from kobai.core.tensor import Tensor
from kobai.errors import CaptureError
from kobai.train import Trainer
from kobai.utils.data import DataLoader, Dataset, TensorDataset


def in_threads(*tasks: Callable[[], Any]) -> list[Any]:
    """The tasks' results, each computed by a thread of its own, all begun at once; what one raises is raised here."""
    start, results, errors = threading.Barrier(len(tasks), timeout=60), [None] * len(tasks), []

    def work(i: int) -> None:
        try:
            start.wait()
            results[i] = tasks[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return results


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert kobai.is_grad_enabled()
    assert not xp.sessions
    assert "_array" not in Tensor.__dict__
    assert Tensor._grad is None


def digits(seed: int, n: int = 64) -> TensorDataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return TensorDataset(kobai.from_numpy(x), kobai.from_numpy((x.sum(1) > 0).astype(np.int64)))


def net(seed: int) -> nn.Module:
    rng = np.random.default_rng(seed)
    made = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))
    with kobai.no_grad():
        for p in made.parameters():
            p.copy_(kobai.from_numpy(rng.normal(size=p.shape).astype(np.float32) / 3))
    return made


def trained(seed: int, tmp: Any = None) -> list[np.ndarray]:
    """The parameters after a training of two epochs that depends on nothing but ``seed``."""
    model = net(seed)
    loader = DataLoader(digits(seed), batch_size=10)
    trainer = Trainer(model, kobai.optim.Adam(model.parameters(), lr=0.01))
    trainer.fit(loader, epochs=2)
    return [p.numpy(force=True).copy() for p in model.parameters()]


class Made(Dataset):
    """Makes tensors, and computes with them, when it is asked."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x = kobai.ones(6) * i
        y = kobai.tensor([float(i)]) + kobai.zeros(1)
        return (x - x.mean()).exp(), y


def test_a_loaders_workers_make_tensors_while_a_step_is_recorded(caplog):
    for _ in range(10):
        model = net(0)
        trainer = Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1))
        with caplog.at_level(logging.WARNING, logger="kobai"):
            trainer.fit(DataLoader(Made(), batch_size=4, num_workers=2, collate_fn=together), epochs=1)
    assert "capture" not in caplog.text


def together(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return kobai.stack([x for x, _ in parts]), kobai.cat([y for _, y in parts]).long() % 2


@pytest.mark.parametrize("count", [2, 4])
def test_trainings_in_threads_give_the_bits_of_each_alone(count):
    alone = [trained(seed) for seed in range(count)]
    for _ in range(3):
        beside = in_threads(*(lambda seed=seed: trained(seed) for seed in range(count)))
        for one, other in zip(alone, beside, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)


class Unwatched:
    """In the place of ``Watch``, for steps that wait for each other, which a replay would not."""

    def __init__(self, step: Any, args: Any, known: Any) -> None:
        pass

    def begin(self, fail: Any) -> None:
        pass

    def end(self) -> None:
        pass

    def repeated(self, action: Callable[[], Any]) -> Any:
        return action()


@pytest.fixture
def gates(monkeypatch):
    """Two locks, held, to be released by one thread and taken by another."""
    monkeypatch.setattr(capture_session, "Watch", Unwatched)
    made = threading.Lock(), threading.Lock()
    for gate in made:
        gate.acquire()
    return made


def recorded(step: Callable[..., Any]) -> tuple[Any, HostSession]:
    session = HostSession(Workspace(), False, [kobai.ones(1, 3)])
    return session.run(step, (kobai.ones(1, 3),), {}), session


def test_other_threads_see_plain_arrays_of_what_a_step_touches_and_makes(gates):
    layer, (begun, seen) = nn.Linear(3, 2), gates

    def step(x):
        layer(x).sum().backward()
        begun.release()
        assert seen.acquire(timeout=60)

    def look():
        assert begun.acquire(timeout=60)
        try:
            assert len(xp.sessions) == 1
            return [(type(tensor._array), (tensor * 2).tolist()) for tensor in (layer.weight, layer.weight.grad)]
        finally:
            seen.release()

    _, ((kind, _), (made, gradient)) = in_threads(lambda: recorded(step), look)
    assert kind is made is np.ndarray
    assert gradient == [[2, 2, 2]] * 2


def test_a_step_that_fails_leaves_the_recording_of_another_thread_alone(gates):
    begun, failed = gates

    def right(x):
        begun.release()
        y = x * 2
        assert failed.acquire(timeout=60)
        return y + 1

    def wrong(x):
        assert begun.acquire(timeout=60)
        try:
            return x.tolist()
        finally:
            failed.release()

    def fails():
        with pytest.raises(CaptureError, match=r"tolist\(\)"):
            recorded(wrong)

    (result, session), _ = in_threads(lambda: recorded(right), fails)
    assert result.tolist() == [[3, 3, 3]]
    session.inputs[0]._array[...] = 0
    session.recorder.finished().replay()
    assert result.tolist() == [[1, 1, 1]]


def test_the_same_captured_step_in_many_threads_is_done_one_call_after_another():
    total = kobai.zeros(1)

    @kobai.capture
    def step(x):
        before = total.clone()
        total.add_(x)
        return before * 0 + x * 3 + (total - before)

    def work(value):
        return [step(kobai.full((1,), value)).item() for _ in range(50)]

    results = in_threads(*(lambda value=value: work(value) for value in (1.0, 2.0, 3.0, 4.0)))
    assert results == [[4.0 * value] * 50 for value in (1.0, 2.0, 3.0, 4.0)]
    assert total.item() == 50 * 10


def test_a_captured_step_may_call_itself():
    @kobai.capture
    def step(x, n):
        return step(x, n - 1) * 2 if n else x + 0

    assert [step(kobai.ones(1), 3).item() for _ in range(3)] == [8, 8, 8]


# --- modes ------------------------------------------------------------------------------------------------------------


@kobai.no_grad()
def without_tape(inside: Callable[[], Any]) -> Any:
    return inside()


BLOCKS = {"no_grad": kobai.no_grad, "enable_grad": kobai.enable_grad, "set": lambda: kobai.set_grad_enabled(True)}


@pytest.mark.parametrize("kind", ["decorated", *BLOCKS])
def test_a_block_that_threads_share_gives_each_its_own_mode_back(kind):
    meet = threading.Barrier(2, timeout=60)
    block = BLOCKS[kind]() if kind in BLOCKS else None

    def run(inside: Callable[[], Any]) -> Any:
        if block is None:
            return without_tape(inside)
        with block:
            return inside()

    def first():
        run(lambda: (meet.wait(), meet.wait()))
        return kobai.is_grad_enabled()

    def second():
        with kobai.no_grad():
            meet.wait()
            run(lambda: (run(kobai.is_grad_enabled), meet.wait()))
            return kobai.is_grad_enabled()

    assert in_threads(first, second) == [True, False]


def test_the_device_of_a_block_is_that_of_its_thread():
    meet = threading.Barrier(2, timeout=60)

    def first():
        with kobai.using("strict"):
            meet.wait()
            meet.wait()
            inside = kobai.zeros(1).device.type
        return inside, kobai.zeros(1).device.type

    def second():
        meet.wait()
        with xp.device("cpu"):
            inside = kobai.zeros(1).device.type
            meet.wait()
        return inside, kobai.zeros(1).device.type

    assert in_threads(first, second) == [("strict", "cpu"), ("cpu", "cpu")]


def test_use_within_a_block_ends_with_it():
    with kobai.using("strict"):
        with xp.device("cpu"):
            kobai.use("strict")
            assert kobai.zeros(1).device.type == "strict"
        assert kobai.zeros(1).device.type == "strict"
        kobai.use("cpu")
        assert kobai.zeros(1).device.type == "cpu"
    assert kobai.zeros(1).device.type == "cpu"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loaders_workers_make_tensors_where_the_thread_does_that_asks(workers):
    class Zeros(Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, i: int) -> Tensor:
            return kobai.zeros(1)

    loader = DataLoader(Zeros(), num_workers=workers, persistent_workers=workers > 0)
    for backend in ("strict", "cpu"):
        with kobai.using(backend):
            assert {batch.device.type for batch in loader} == {backend}


def test_anomalies_are_looked_for_in_the_thread_that_asks():
    meet = threading.Barrier(2, timeout=60)

    def backward():
        x = kobai.zeros(1, requires_grad=True)
        (x.sqrt() * 0).backward()

    def looking():
        with kobai.autograd.detect_anomaly():
            meet.wait()
            with pytest.raises(RuntimeError, match="SqrtBackward returned nan"):
                backward()
            meet.wait()
        backward()

    def other():
        meet.wait()
        backward()
        meet.wait()

    in_threads(looking, other)
