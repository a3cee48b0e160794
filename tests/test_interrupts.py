"""An exception out of nowhere, as a handler of signals raises it: wherever it comes, everything is as if nothing had happened.

CPython runs handlers of signals when a function begins, when a loop jumps back, and when a call has returned. ``interrupted``
raises at the n-th of these places; the timer's tests raise wherever they happen to be.
"""

from __future__ import annotations

import dis
import random
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest

import kobai
from kobai import nn, xp
from kobai.capture import session
from kobai.core.tensor import Tensor
from kobai.cpu import blas, threads
from kobai.engine import dispatch
from kobai.nn import functional as F

# What comes while Python drops an object is swallowed by Python, with a word to stderr.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OURS = str(Path(kobai.__file__).parent)
WATCHED = (OURS, __file__.replace(Path(__file__).name, "strict"), "contextlib.py", "threading.py")
RETURNS = ("CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD")


class Interruption(BaseException):
    """What the handler raises."""


@cache
def handlers(code: CodeType) -> list[Any]:
    return dis._parse_exception_table(code)  # type: ignore[attr-defined]


def handler(code: CodeType, offset: int) -> Any:
    return next((entry.target for entry in handlers(code) if entry.start <= offset < entry.end), None)


def interrupted(action: Callable[[], Any], at: int) -> int:
    """Do ``action`` with an interruption at its ``at``-th place; how many places there were until then or the end."""
    count = 0

    def place() -> None:
        nonlocal count
        count += 1
        if count == at:
            raise Interruption

    def trace(frame: Any, event: str, arg: Any) -> Any:
        code = frame.f_code
        if not any(part in code.co_filename for part in WATCHED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        last = -1

        def local(frame: Any, event: str, arg: Any) -> Any:
            nonlocal last
            if event == "opcode":
                before, last = last, frame.f_lasti
                # The exception belongs to the place before, which is in the same ``try``.
                if (
                    before >= 0
                    and dis.opname[code.co_code[before]] in RETURNS
                    and handler(code, before) == handler(code, last)
                ):
                    place()
            return local

        place()
        return local

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except Interruption:
        pass
    finally:
        sys.settrace(tracer)
    return count


def step_of(model: Any, optimizer: Any, schedule: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def step(x: Tensor, t: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.detach()

    return step


class Problem:
    """A net whose step is known bit by bit, before and after."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Dropout(0.2), nn.Linear(20, 3))
        with kobai.no_grad():
            for p in self.model.parameters():
                p.copy_(kobai.from_numpy(rng.normal(size=p.shape).astype(np.float32) / 3))
        self.x = kobai.from_numpy(rng.normal(size=(9, 8)).astype(np.float32))
        self.t = kobai.from_numpy(rng.integers(0, 3, 9))
        self.optimizer = kobai.optim.Adam(self.model.parameters(), lr=0.01, weight_decay=0.1)
        self.schedule = kobai.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.step = step_of(self.model, self.optimizer, self.schedule)
        for _ in range(2):
            self.step(self.x, self.t)
        self.arrays = [p._array for p in self.model.parameters()]
        for state in self.optimizer.state.values():
            self.arrays += [value._array for value in state.values() if isinstance(value, Tensor)]
        self.start = self.now()
        self.back()
        self.step(self.x, self.t)
        self.end = self.now()
        self.back()

    def now(self) -> tuple[Any, ...]:
        """What a step changes: (bits of parameters and moments, steps counted, schedule, learning rate)."""
        return (
            [a.tobytes() for a in self.arrays],
            [state["step"] for state in self.optimizer.state.values()],
            self.schedule.last_epoch,
            self.optimizer.param_groups[0]["lr"],
        )

    def back(self) -> None:
        """To the start of the step."""
        data, steps, epoch, lr = self.start
        for array, content in zip(self.arrays, data, strict=True):
            array[...] = np.frombuffer(content, array.dtype).reshape(array.shape)
        for state, n in zip(self.optimizer.state.values(), steps, strict=True):
            state["step"] = n
        self.schedule.last_epoch, self.optimizer.param_groups[0]["lr"] = epoch, lr
        kobai.manual_seed(3)

    def check(self, again: Callable[..., Any]) -> None:
        """After an interruption: what was done is counted, nothing is locked or switched over, and a step is right."""
        assert not xp.sessions
        assert "_array" not in Tensor.__dict__
        assert Tensor._grad is None
        assert not session._switching.locked()
        assert not threads.pool.free.locked()
        assert not blas._held.threads
        assert not blas._held.lock.locked()
        assert kobai.is_grad_enabled()
        assert kobai.get_default_device() == "cpu"
        assert all(type(a) is np.ndarray for a in (p._array for p in self.model.parameters()))
        data, steps, epoch, lr = self.now()
        assert len(set(steps)) == 1
        assert (data, steps[0]) in ((self.start[0], self.start[1][0]), (self.end[0], self.end[1][0]))
        assert (epoch, lr) in (self.start[2:], self.end[2:])
        self.back()
        again(self.x, self.t)
        assert self.now() == self.end
        assert blas._held.before is None
        self.back()


@pytest.fixture
def problem():
    kobai.manual_seed(3)
    return Problem()


def free(captured: Any) -> bool:
    """Whether another thread could take its turn."""
    found = []

    def look() -> None:
        found.append(captured.turn.acquire(timeout=5))
        if found[0]:
            captured.turn.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(30)
    return found == [True]


def recording(problem: Problem) -> Any:
    captured = kobai.capture(problem.step)
    captured._warmed.add(None)  # the next call is recorded
    return captured


def replaying(problem: Problem) -> Any:
    captured = recording(problem)
    captured(problem.x, problem.t)
    problem.back()
    assert captured.programs == 1
    return captured


def pause(problem: Problem) -> Any:
    """Modes that are switched in blocks, and decorators."""

    @kobai.no_grad()
    def quietly(x: Tensor) -> Tensor:
        with kobai.enable_grad(), kobai.using("numpy"), xp.device("cpu"):
            return problem.model(x).detach()

    def step(x: Tensor, t: Tensor) -> Tensor:
        with kobai.no_grad():
            quietly(x)
            with kobai.inference_mode():
                quietly(x)
        kobai.manual_seed(3)
        return problem.step(x, t)

    return step


KINDS = {"eager": lambda problem: problem.step, "recorded": recording, "replayed": replaying, "modes": pause}


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_anywhere_leaves_everything_right(problem, kind):
    if not dispatch.numba_installed:
        pytest.skip("without Numba an update is many calls of NumPy, and an interruption can come between two of them")
    step = KINDS[kind](problem)
    places = interrupted(lambda: step(problem.x, problem.t), -1)
    problem.back()
    assert places > 50
    for at in range(1, places + 1, max(1, places // (40 if kind == "recorded" else 150))):
        if kind == "recorded":
            step = recording(problem)
        interrupted(partial(step, problem.x, problem.t), at)
        try:
            problem.check(step)
            assert kind not in ("recorded", "replayed") or free(step)
        except BaseException as error:
            error.add_note(f"interrupted at place {at} of {places}")
            raise


# --- a timer ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def alarm():
    """``alarm(seconds)`` has a handler raise so much later, in the midst of whatever it finds."""

    def ring(number: int, frame: Any) -> None:
        raise Interruption

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.parametrize("kind", ["eager", "recorded", "replayed"])
@pytest.mark.parametrize("threads_", [1, 3])
def test_an_alarm_at_any_time_leaves_everything_right(problem, alarm, kind, threads_):
    draw = random.Random(5)
    step = KINDS[kind](problem)
    step(problem.x, problem.t)
    problem.back()
    before = kobai.get_num_threads()
    threads.set_num_threads(threads_)
    rung = 0
    try:
        for _ in range(20 if kind == "recorded" else 60):
            if kind == "recorded":
                step = recording(problem)
            try:
                try:
                    alarm(draw.uniform(2e-5, 2e-3))
                    for _ in range(1000):
                        step(problem.x, problem.t)
                        problem.back()
                finally:
                    alarm(0)
            except Interruption:
                rung += 1
            if problem.now() not in (problem.start, problem.end):  # it came while the problem was put back
                problem.back()
            problem.check(step)
    finally:
        threads.set_num_threads(before)
    assert rung > 15


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interruption, RuntimeError])
def test_a_replay_that_fails_before_the_update_has_counted_nothing(problem, error):
    step = replaying(problem)
    program = next(iter(step._programs.values()))[0].run.__self__
    calls = [*program.calls]
    hosts = [i for i, (function, _) in enumerate(calls) if function == program.host]
    assert len(hosts) == 3  # dropout, Adam, the schedule

    def fail(*args: Any) -> None:
        raise error

    for i in range(len(calls)):
        if i == hosts[1] + 1:  # between a count and its kernel there is no other call
            continue
        program.calls[:] = [*calls[:i], (fail, ()), *calls[i:]]
        with pytest.raises(error):
            step(problem.x, problem.t)
        updated = i > hosts[1] + 1
        assert [state["step"] for state in problem.optimizer.state.values()] == [3 if updated else 2] * 4
        assert problem.schedule.last_epoch == (3 if i > hosts[2] else 2)
        program.calls[:] = calls
        problem.check(step)
