"""The time of a model's training step: over batch sizes and widths, eager and captured, on every backend.

All variants at one point take turns in short blocks, so that other load on the machine affects them alike, and the median over
the blocks counts. The batch is random numbers of the data's shape: the time of a step does not depend on them.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from kobai import cuda
from kobai.bench.shapes import Shape
from kobai.capture.step import capture
from kobai.nn import functional as F
from kobai.ops.random import randint, randn
from kobai.random import manual_seed
from kobai.train.job import optimizer_of
from kobai.train.models import build
from kobai.train.settings import RunSettings
from kobai.train.shards import sharded
from kobai.train.step import scaler_for, step
from kobai.xp import default_device, using

EAGER, CAPTURED = "eager", "captured"
SWEEPS = ("batch size", "width")

BLOCK = 0.005
"""Seconds in one timed block: far above the clock's resolution, short enough to take turns often."""

FEWEST, MOST = 5, 25
"""Blocks of a variant at one point."""


@dataclass(frozen=True)
class Plan:
    """What to time.

    ``settings`` are those of ``kobai train``: model, optimiser, batch size. ``batch_sizes`` are timed at the model's own
    widths, ``widths``, given to every hidden layer, at its own batch size.
    """

    settings: RunSettings
    shape: Shape
    backends: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    widths: tuple[int, ...]
    seconds: float = 0.2
    """How long each variant is timed at each point, roughly."""

    def points(self) -> Iterator[tuple[str, int, RunSettings]]:
        """(sweep, batch size or width, settings) of every point."""
        for size in self.batch_sizes:
            yield SWEEPS[0], size, replace(self.settings, batch_size=size)
        for width in self.widths:
            yield SWEEPS[1], width, replace(self.settings, hidden=(width,) * len(self.settings.hidden))


@dataclass(frozen=True)
class Timing:
    """One variant at one point: median and quartiles of the seconds a step takes, and the peak memory in bytes.

    ``memory`` is all that training holds at the peak of a step: parameters, gradients, optimiser state and intermediate
    arrays. If a variant cannot run, ``failure`` says why and the numbers are None.
    """

    sweep: str
    value: int
    backend: str
    mode: str
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    memory: int | None = None
    failure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The timing as JSON holds it."""
        return asdict(self)


def measure(plan: Plan) -> Iterator[list[Timing]]:
    """Time one point after the other; yields the timings of its variants."""
    variants = [(backend, mode) for backend in plan.backends for mode in (EAGER, CAPTURED)]
    for sweep, value, settings in plan.points():
        steps: dict[tuple[str, str], Callable[[], Any]] = {}
        failures: dict[tuple[str, str], str] = {}
        for variant in variants:
            with _failing_into(failures, variant):
                steps[variant] = _ready(settings, plan.shape, *variant)
        times = _alternate(steps, plan.seconds)
        steps.clear()
        memory = {}
        for variant in times:
            with _failing_into(failures, variant):
                memory[variant] = weigh(settings, plan.shape, *variant)
        yield [
            Timing(sweep, value, *variant, *_spread(times[variant]), memory.get(variant))
            if variant in times
            else Timing(sweep, value, *variant, failure=failures[variant])
            for variant in variants
        ]


def training_step(settings: RunSettings, shape: Shape) -> Callable[[Any, Any], Any]:
    """``step(x, t)``: the Trainer's step of the model on the default backend; returns the loss."""
    model = build(shape.description(settings)).to(default_device())
    rule = optimizer_of(settings, model)

    how = settings.clip_grad_norm, settings.precision, scaler_for(settings.precision, default_device().type)

    shards = sharded(settings.shards, model, [])

    def one(x: Any, t: Any) -> Any:
        if shards is None:
            return step(model, rule, [x], t, F.cross_entropy, *how)[1]
        sizes, inputs, target = shards.cut([x], t)
        return step(model, rule, inputs, target, F.cross_entropy, *how, shards, sizes)[1]

    return one


def _ready(settings: RunSettings, shape: Shape, backend: str, mode: str) -> Callable[[], Any]:
    """A step on a fixed batch, run often enough to be compiled, captured and warm."""
    with using(backend):
        manual_seed(settings.seed)
        run = training_step(settings, shape)
        if mode == CAPTURED:
            run = capture(run)
        x = randn(settings.batch_size, *shape.inputs)
        t = randint(0, shape.classes, (settings.batch_size,))
    for _ in range(3):
        run(x, t)
    return lambda: run(x, t)


def _alternate(steps: dict[tuple[str, str], Callable[[], Any]], seconds: float) -> dict[tuple[str, str], list[float]]:
    """Seconds per step of each variant in blocks that take turns."""

    def block(variant: tuple[str, str], n: int) -> float:
        wait: Callable[[], None] = cuda.synchronize if variant[0] == "cupy" else lambda: None
        wait()
        start = time.perf_counter()
        for _ in range(n):
            steps[variant]()
        wait()
        return (time.perf_counter() - start) / n

    once = {variant: min(block(variant, 1) for _ in range(2)) for variant in steps}
    counts = {variant: max(1, round(BLOCK / seconds_each)) for variant, seconds_each in once.items()}
    rounds = {v: min(MOST, max(FEWEST, round(seconds / (counts[v] * once[v])))) for v in steps}
    times: dict[tuple[str, str], list[float]] = {variant: [] for variant in steps}
    for i in range(max(rounds.values(), default=0)):
        for variant, found in times.items():
            if i < rounds[variant]:
                found.append(block(variant, counts[variant]))
    return times


def weigh(settings: RunSettings, shape: Shape, backend: str, mode: str) -> int:
    """Bytes of all arrays that training holds at the peak of a step.

    On the CPU by ``tracemalloc``, to which NumPy reports every array; on a GPU by the drop in free memory.
    """
    gc.collect()
    if backend == "cupy":
        return _weigh_device(settings, shape, mode)
    traced = tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run = _ready(settings, shape, backend, mode)
        gc.collect()
        tracemalloc.reset_peak()
        run()
        return max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not traced:
            tracemalloc.stop()


def _weigh_device(settings: RunSettings, shape: Shape, mode: str) -> int:
    cuda.empty_cache()
    before = cuda.mem_get_info()[0]
    run = _ready(settings, shape, "cupy", mode)
    cuda.empty_cache()  # memory of the set-up
    run()
    cuda.synchronize()
    return max(0, before - cuda.mem_get_info()[0])


@contextmanager
def _failing_into(failures: dict[tuple[str, str], str], variant: tuple[str, str]) -> Iterator[None]:
    """Note the failure of one variant, such as too little memory, and go on with the others."""
    try:
        yield
    except (MemoryError, RuntimeError, NotImplementedError) as error:
        failures[variant] = f"{type(error).__name__}: {error}".splitlines()[0]
        gc.collect()


def _spread(times: list[float]) -> tuple[float, tuple[float, float]]:
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return middle, (low, high)


def best(timings: Sequence[Timing], sweep: str, backend: str) -> dict[int, float]:
    """Seconds of a step on a backend, eager or captured, whichever is faster, by batch size or width."""
    found: dict[int, float] = {}
    for timing in timings:
        if timing.sweep == sweep and timing.backend == backend and timing.median is not None:
            found[timing.value] = min(timing.median, found.get(timing.value, math.inf))
    return found


def win(timings: Sequence[Timing], sweep: str) -> float | None:
    """The batch size or width from which the GPU is faster, by the best mode of each backend; None if it never is.

    Between two points the crossing is that of straight lines on logarithmic axes. It is 0 if the GPU wins at every point. Only
    a win that lasts to the largest point counts.

    >>> here = [Timing("width", 10, "numpy", EAGER, 1.0), Timing("width", 1000, "numpy", EAGER, 100.0)]
    >>> there = [Timing("width", 10, "cupy", CAPTURED, 10.0), Timing("width", 1000, "cupy", CAPTURED, 10.0)]
    >>> round(win(here + there, "width"))
    100
    """
    host, device = best(timings, sweep, "numpy"), best(timings, sweep, "cupy")
    shared = sorted(host.keys() & device.keys())
    gains = [math.log(host[value] / device[value]) for value in shared]
    first = len(shared)
    while first and gains[first - 1] > 0:
        first -= 1
    if first == len(shared):
        return None
    if first == 0:
        return 0.0
    below, above = math.log(shared[first - 1]), math.log(shared[first])
    at = -gains[first - 1] / (gains[first] - gains[first - 1])
    return math.exp(below + at * (above - below))
