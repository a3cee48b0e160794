"""What a replay would leave out or do wrongly is refused, with file and line."""

from __future__ import annotations

import collections
import functools
import itertools
import logging
import os
import random
import sys
import time
import types

import numpy as np
import pytest
from watched_objects import data, net

import kobai
from kobai.errors import CaptureError
from kobai.nn import functional as F
from kobai.train import Trainer
from kobai.utils.data import DataLoader, TensorDataset

# --- what cannot be captured ------------------------------------------------------------------------------------------


class Counter:
    def __init__(self) -> None:
        self.calls, self.kept = 0, []


def side_effects() -> dict:
    counter, kept, table = Counter(), [], {}
    ticks = itertools.count()
    generator = random.Random(0)
    numpy_generator = np.random.default_rng(0)

    def counted(x):
        counter.calls += 1
        return x * 2

    def appended(x):
        y = x * 2
        kept.append(y)
        return y

    def appended_to_an_attribute(x):
        y = x * 2
        counter.kept.append(y)
        return y

    def put(x):
        table[len(table)] = 1
        return x * 2

    def ticked(x):
        return x * next(ticks)

    def closed_over(x):
        nonlocal calls
        calls += 1
        return x * 2

    calls = 0

    def printed(x):
        print("a step")
        return x * 2

    def logged(x):
        logging.getLogger("of a program").error("a step")
        return x * 2

    def timed(x):
        return x * (1.0 + time.perf_counter() * 0)

    def drawn(x):
        return x * random.random()

    def drawn_from_an_own_generator(x):
        return x * generator.gauss(0, 1)

    def drawn_by_numpy(x):
        return x * float(np.random.rand())

    def drawn_by_numpys_generator(x):
        return x * float(numpy_generator.normal())

    def read(x):
        with open(__file__) as file:
            return x * len(file.readline())

    def counted_on_the_function(x):
        counted_on_the_function.calls += 1
        return x * 2

    counted_on_the_function.calls = 0
    return {k: v for k, v in locals().items() if isinstance(v, types.FunctionType)}


@pytest.mark.parametrize("name", side_effects())
def test_what_a_replay_would_skip_is_refused_with_its_line(name: str, caplog: pytest.LogCaptureFixture) -> None:
    step = side_effects()[name]
    first = step.__code__.co_firstlineno
    lines = range(first, first + 6)

    captured = kobai.capture(step)
    with pytest.raises(CaptureError) as error:
        collections.deque((captured(kobai.ones(2)) for _ in range(4)), maxlen=0)
    assert any(f"{__file__}:{line})" in str(error.value) for line in lines), str(error.value)

    step = side_effects()[name]
    caplog.clear()
    lenient = kobai.capture(step, fallback=True)
    for _ in range(6):
        lenient(kobai.ones(2))
    told = [record for record in caplog.records if record.name == "kobai"]
    assert len(told) == 1
    assert lenient.failure in told[0].getMessage()


def test_a_trainer_goes_on_and_does_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    def run(capture: bool) -> tuple:
        seen = []

        def loss_fn(output, target):
            loss = F.cross_entropy(output, target)
            seen.append(len(seen))
            return loss * (1.0 + 0.1 * len(seen))

        model = net()
        trainer = Trainer(model, kobai.optim.Adam(model.parameters(), lr=0.1), loss_fn, capture=capture)
        kobai.manual_seed(1)
        trainer.fit(DataLoader(TensorDataset(*data(32)), batch_size=8, shuffle=True), epochs=3)
        return seen, [record["loss"] for record in trainer.history], [p.tolist() for p in model.parameters()]

    captured = run(True)
    assert "seen" in caplog.text
    assert captured == run(False)
    assert len(captured[0]) == 12


def test_what_is_made_at_first_use_is_no_hindrance() -> None:
    masks: dict[int, kobai.Tensor] = {}

    def step(x):
        n = x.shape[0]
        if n not in masks:
            masks[n] = kobai.ones(n, 1) * 2
        return x * masks[n]

    captured = kobai.capture(step)
    for rows in (2, 2, 2, 3, 3, 3, 3, 2, 3):
        np.testing.assert_array_equal(captured(kobai.ones(rows, 2)).numpy(), np.full((rows, 2), 2, np.float32))
    programs = captured.programs
    for rows in (2, 3, 2, 3):
        captured(kobai.ones(rows, 2))
    assert captured.programs == programs


def test_random_numbers_of_another_thread_are_not_the_steps() -> None:
    import threading

    stop = threading.Event()

    def draw():
        while not stop.is_set():
            random.random()
            np.random.rand()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        step = kobai.capture(lambda x: x * 2)
        for _ in range(5):
            step(kobai.ones(2))
    finally:
        stop.set()
        thread.join()
    assert step.programs == 1


def test_what_reports_the_exception_of_a_destructor_is_not_done_by_the_step(monkeypatch):
    class Fails:
        def __del__(self) -> None:
            raise ValueError

    told = []

    def hook(told, unraisable):
        told.append((os.stat("."), type(unraisable.exc_value)))

    monkeypatch.setattr(sys, "unraisablehook", functools.partial(hook, told))

    def step(x):
        Fails()
        return x * 2

    captured = kobai.capture(step)
    for i in range(4):
        assert captured(kobai.ones(2) * i).tolist() == [2 * i] * 2
    assert captured.programs == 1
    assert {kind for _, kind in told} == {ValueError}
