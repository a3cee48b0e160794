"""The host's part in a captured graph: numbers, counts, memory, and ends of captures that fail. No device is needed."""

import gc
import sys
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from kobai import xp
from kobai.capture import graph
from kobai.capture.graph import FEED, WORDS, CudaRecorder, Graph
from kobai.capture.rules import Uncaptured
from kobai.capture.session import Session
from kobai.cuda import cublaslt
from kobai.engine import dispatch, faults
from kobai.errors import CaptureError


class Stream:
    """A stream that runs at once, and while it captures notes what is queued."""

    current = None

    def __init__(self, non_blocking):
        assert non_blocking
        self.notes = None
        self.ptr = id(self)

    def __enter__(self):
        Stream.current = self

    def __exit__(self, *error):
        Stream.current = None

    def begin_capture(self, mode):
        self.notes = []

    def end_capture(self):
        notes, self.notes = self.notes, None
        if None in notes:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return SimpleNamespace(launch=lambda stream: [note() for note in notes])


def queue(action):
    (action() if Stream.current is None else Stream.current.notes.append(action))


@pytest.fixture
def device(monkeypatch):
    """CuPy's part; returns what was sent to the device."""
    current = []

    @contextmanager
    def using_allocator(malloc):
        current.append(malloc)
        yield
        current.pop()

    def pool():
        made = SimpleNamespace(total_bytes=lambda: 1024)
        made.malloc = made
        return made

    cuda = SimpleNamespace(
        Stream=Stream,
        MemoryPool=pool,
        using_allocator=using_allocator,
        get_current_stream=lambda: Stream.current,
        runtime=SimpleNamespace(getDevice=lambda: 0, streamCaptureModeRelaxed=2),
    )

    def empty(n, dtype):
        """The graph's own pool hands out one place again and again, as a pool may whose arrays are dropped."""
        if len(current) == 1:
            return scratch[: n * np.dtype(dtype).itemsize].view(dtype)
        return np.zeros(n, dtype)

    scratch = np.zeros(1 << 12, np.uint8)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda, empty=empty, zeros=np.zeros))
    monkeypatch.setattr(faults, "_words", {})
    monkeypatch.setattr(faults, "_asked", set())
    monkeypatch.setattr(xp, "after_read", None)
    monkeypatch.setattr(xp, "on", contextmanager(lambda where: (yield)))
    monkeypatch.setattr(cublaslt, "is_available", lambda: True)
    monkeypatch.setattr(cublaslt, "workspace", lambda: None)
    monkeypatch.setattr(graph, "_streams", {})
    sent = []

    def feed(grid, block, args, shared_mem):
        *words, place = args
        sent.append(words)
        queue(lambda: place.__setitem__(slice(None), words))

    typed = FEED.of("float32")
    monkeypatch.setattr(typed, "_compiled", {(): feed})
    monkeypatch.setattr(typed, "compile", lambda: None)
    return sent


def capture(step):
    recorder = CudaRecorder()
    return Session(recorder).within(lambda: Graph.capture(step, device="cuda", recorder=recorder))


def test_numbers_are_computed_once_for_every_replay(device):
    count, seen = [0], []

    def rate():
        count[0] += 1
        return 0.1 * count[0], 2.0

    def step():
        rates = dispatch.numbers(rate, np.float32)
        queue(lambda: seen.append(rates.copy()))
        return rates

    captured = capture(step)
    assert (count, seen) == ([1], [])
    for n in range(1, 4):
        captured.replay()
        assert count == [n]
        np.testing.assert_array_equal(seen[-1], np.float32([0.1 * n, 2.0]))
    assert len(seen) == 3
    assert captured.pool_bytes == 1024


def test_numbers_have_memory_of_their_own(device):
    """What the step wrote somewhere before it asked for its numbers, a replay writes there after they were sent."""
    cupy, seen = sys.modules["cupy"], []

    def step():
        queue(partial(cupy.empty(16, np.uint64).fill, 1))
        rate = dispatch.numbers(lambda: (0.25,), np.float32)
        queue(lambda: seen.append(float(rate[0])))

    capture(step).replay()
    assert seen == [0.25]


def test_host_work_and_numbers_keep_their_order(device):
    log = []
    lr = [1.0]

    def decay():
        log.append("decay")
        lr[0] /= 2

    def step():
        first = dispatch.numbers(lambda: (lr[0],), np.float64)
        dispatch.on_host(decay)
        second = dispatch.numbers(lambda: (lr[0],), np.float64)
        queue(lambda: log.append((first[0], second[0])))

    captured = capture(step)
    captured.replay()
    captured.replay()
    assert log == ["decay", (1.0, 0.5), "decay", (0.5, 0.25)]


def test_what_did_not_change_is_not_sent_again(device):
    captured = capture(lambda: dispatch.numbers(lambda: (0.5,), np.float32))
    for _ in range(3):
        captured.replay()
    assert len(device) == 1


def test_numbers_of_many_kinds_fit_in_blocks(device):
    wanted = []

    def step():
        places = []
        for n in range(1, 12):
            for dtype in (np.float32, np.float64, np.uint64):
                values = tuple(2**63 + i if dtype == np.uint64 else i / 4 for i in range(n))
                wanted.append(np.array(values, dtype))
                places.append(dispatch.numbers(lambda values=values: values, dtype))
        return places

    captured = capture(step)
    captured.replay()
    for place, values in zip(captured.result, wanted, strict=True):
        assert place.dtype == values.dtype
        np.testing.assert_array_equal(place, values)
    with pytest.raises(ValueError, match="at most 128 bytes"):
        capture(lambda: dispatch.numbers(lambda: (0.0,) * (WORDS + 1), np.float64))


def test_kernels_are_queued_while_capturing(device):
    places = []
    captured = capture(lambda: dispatch.launch(lambda a, b: queue(lambda: places.append(a + b)), 1, 2))
    assert places == []
    captured.replay()
    captured.replay()
    assert places == [3, 3]


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), CaptureError("no")])
def test_a_failed_step_ends_the_capture_and_raises_what_it_raised(device, error):
    def step():
        assert not gc.isenabled()
        raise error

    with pytest.raises(type(error)):
        capture(step)
    assert gc.isenabled()
    assert Stream.current is None
    assert graph._streams[0].notes is None
    assert not xp.sessions
    capture(lambda: None).replay()


def test_what_cuda_refuses_names_the_line(device):
    def step():
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(CaptureError, match=r"test_graph.py:\d+\): operation not permitted"):
        capture(step)
    with pytest.raises(CaptureError, match="could not make a graph"):
        capture(lambda: Stream.current.notes.append(None))


def test_a_host_read_raises_even_where_failures_are_let_pass(device):
    recorder = CudaRecorder(lenient=True)
    with pytest.raises(CaptureError, match=r"item\(\) reads a value of shape \(\)"):
        recorder.host_read("item()", np.zeros(()))


def test_garbage_collection_stays_off_where_it_was_off(device):
    gc.disable()
    try:
        capture(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_without_nvmath_there_is_no_capture(device, monkeypatch):
    monkeypatch.setattr(cublaslt, "is_available", lambda: False)
    with pytest.raises(CaptureError, match=r"needs nvmath-python.*pip install"):
        capture(lambda: None)


def test_a_step_whose_capture_failed_can_be_run_without_counting_twice(device):
    count, moved, seen = [0], [0], []

    def number():
        count[0] += 1
        return (float(count[0]),)

    def step(reads):
        numbers = [dispatch.numbers(number, np.float32)]
        dispatch.on_host(lambda: moved.__setitem__(0, moved[0] + 1))
        numbers.append(dispatch.numbers(number, np.float32))
        if reads and not isinstance(numbers[0], tuple):
            raise CaptureError("a host read")
        numbers.append(dispatch.numbers(number, np.float32))
        dispatch.on_host(lambda: moved.__setitem__(0, moved[0] + 1))
        seen.append([float(n[0]) for n in numbers])

    recorder = CudaRecorder()
    with pytest.raises(CaptureError):
        Session(recorder).within(lambda: Graph.capture(lambda: step(True), device="cuda", recorder=recorder))
    assert (count, moved) == ([2], [1])
    Session(Uncaptured(recorder.done)).within(lambda: step(True))
    assert seen == [[1, 2, 3]]
    assert (count, moved) == ([3], [2])


class Steps(dispatch.Count):
    """A rate that falls with the number of steps, as an optimizer counts them."""

    def __init__(self):
        self.n = 0

    def __call__(self):
        self.n += 1
        return (1 / self.n,)

    def save(self):
        return self.n

    def restore(self, saved):
        self.n = saved


def test_a_launch_that_fails_leaves_no_trace_in_the_counts(device, monkeypatch):
    """What the host has counted for it is taken back: the next replay goes on where the last left off."""
    steps, seen = Steps(), []

    def step():
        rate = dispatch.numbers(steps, np.float32)
        queue(lambda: seen.append(float(rate[0])))

    captured = capture(step)
    captured.replay()
    captured.replay()

    def refused():
        raise MemoryError("out of memory")

    with monkeypatch.context() as failing:
        failing.setattr(captured._recorder.sources, "send", refused)  # when the rate was computed already
        with pytest.raises(MemoryError):
            captured.replay()
    assert steps.n == 2
    captured.replay()
    assert seen == [1.0, 0.5, np.float32(1 / 3)]
