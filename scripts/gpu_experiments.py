"""Questions about CUDA that only a device can answer: ``python scripts/gpu_experiments.py NAME`` prints the answer as JSON.

They are those that docs/design/0008 and 0011 leave open. ``answer`` is the answer in a line, the rest are its figures.
``scripts/gpu_check.py`` runs each in a process of its own, because a capture that fails can spoil the process it fails in. On
the simulated device shapes are shrunk and nothing is repeated: there it only shows that the questions can be asked.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import kobai
from kobai.capture.graph import FEED, Graph
from kobai.cuda import cublaslt
from kobai.cuda.cublaslt import Matrix, ProductPlan, Signature
from kobai.ops.linear.kernel import gemm

SIMULATED = os.environ.get("KOBAI_SIMULATE_GPU") == "1"


def sized(*numbers: int) -> tuple[int, ...]:
    """Lengths as they are, and on the simulated device short ones."""
    return tuple(min(n, 48) for n in numbers) if SIMULATED else numbers


S = (100, (784, 100, 100, 100, 100, 10))
M = (1024, (784, 1024, 1024, 1024, 10))


def microseconds(function: Callable[[], Any], repeats: int = 50) -> float:
    """Median time of one call of many that are queued behind each other, in µs."""
    import cupy

    if SIMULATED:
        repeats = 1
    for _ in range(1 if SIMULATED else 5):
        function()
    cupy.cuda.Device().synchronize()
    times = []
    for _ in range(1 if SIMULATED else 9):
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        cupy.cuda.Device().synchronize()
        times.append((time.perf_counter() - start) / repeats)
    return round(statistics.median(times) * 1e6, 2)


def captured(function: Callable[[], Any]) -> Callable[[], None]:
    """The function's work as a graph."""
    function()
    return Graph.capture(function).replay


def normal(*shape: int, dtype: Any = np.float32) -> Any:
    """Random numbers on the device."""
    import cupy

    return cupy.asarray(np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype))


def said(function: Callable[[], Any]) -> str:
    """ "yes", or what went wrong."""
    try:
        function()
    except Exception as error:
        return f"no: {type(error).__name__}: {error}".partition("\n")[0][:300]
    return "yes"


def everywhere(found: dict[str, Any], what: str) -> str:
    """One line on answers of :func:`said`."""
    not_so = [f"{name} ({answer})" for name, answer in found.items() if answer != "yes"]
    return f"{what}: everywhere" if not not_so else f"{what}: all but {'; '.join(not_so)}"


def faster(found: dict[str, Any], one: str, other: str) -> str:
    """One line on pairs of times."""
    pairs = {name: (times[one], times[other]) for name, times in found.items() if isinstance(times, dict)}
    ratios = [f"{b / a:.2f} ({name})" for name, (a, b) in pairs.items()]
    names = [title.removesuffix(", µs") for title in (other, one)]
    return f"time {names[0]} / time {names[1]}: {', '.join(ratios)}" if ratios else "there is no algorithm for it"


def reductions_are_captured() -> dict[str, Any]:
    """Which of CuPy's reductions and index operations, with CUB by default, a graph captures, and whether a replay is right."""
    import cupy

    x, index = normal(300, 500), cupy.asarray(np.arange(300) % 7)
    operations = {
        "sum": lambda: x.sum(),
        "sum over rows": lambda: x.sum(axis=0),
        "sum over columns": lambda: x.sum(axis=1),
        "max over columns": lambda: x.max(axis=1),
        "argmax": lambda: x.argmax(axis=1),
        "cumsum": lambda: x.cumsum(axis=1),
        "mean": lambda: x.mean(axis=0),
        "sort": lambda: cupy.sort(x, axis=1),
        "argsort": lambda: cupy.argsort(x, axis=1),
        "take": lambda: x.take(index, axis=0),
        "add.at": lambda: cupy.add.at(cupy.zeros((7, 500), np.float32), index, x),
        "concatenate": lambda: cupy.concatenate([x, x]),
    }

    def right(operation: Callable[[], Any]) -> None:
        operation()
        graph = Graph.capture(operation)
        x[...] = -x
        graph.replay()
        wanted, got = operation(), graph.result
        if wanted is not None:
            np.testing.assert_allclose(got.get(), wanted.get(), rtol=1e-4, atol=1e-4)

    found = {name: said(lambda operation=operation: right(operation)) for name, operation in operations.items()}
    return {"answer": everywhere(found, "captured, and right at a replay"), **found}


def graphs_are_launched_anywhere() -> dict[str, Any]:
    """On which streams a graph captured on Kobai's own runs, and whether what is queued after it waits for it."""
    import cupy

    x, y = normal(1 << 22), cupy.zeros(1 << 22, np.float32)
    graph = Graph.capture(lambda: cupy.add(y, x, out=y))
    cupy.cuda.Device().synchronize()  # the default stream has made x and y, for which a non-blocking one does not wait

    def run(stream: Any) -> None:
        with stream:
            y.fill(0)
            for _ in range(20):
                graph.replay()
            total = float(cupy.abs(y - 20 * x).max())
        if not total < 1e-3:
            raise AssertionError(f"off by {total}")

    found = {
        "legacy default stream": said(lambda: run(cupy.cuda.Stream.null)),
        "per-thread default stream": said(lambda: run(cupy.cuda.Stream.ptds)),
        "a blocking stream": said(lambda: run(cupy.cuda.Stream())),
        "a non-blocking stream": said(lambda: run(cupy.cuda.Stream(non_blocking=True))),
    }
    return {"answer": everywhere(found, "a graph runs, and what is queued behind it waits"), **found}


def epilogues() -> dict[str, Any]:
    """Which epilogues cuBLASLt has an algorithm for, by dtype and precision; whether NaN survives its rectifier."""
    import cupy

    found: dict[str, Any] = {}
    for dtype, precision in (
        ("float32", "highest"),
        ("float32", "high"),
        ("float64", "highest"),
        ("float16", "highest"),
    ):
        kobai.set_float32_matmul_precision(precision)
        a, b = normal(96, 64, dtype=dtype), normal(64, 40, dtype=dtype)
        rows, columns = cupy.zeros(96, dtype), cupy.zeros(40, dtype)
        for name, vector in (
            ("BIAS", columns),
            ("RELU", None),
            ("RELU_BIAS", columns),
            ("BGRADA", columns),
            ("BGRADB", rows),
        ):
            out = cupy.zeros((96, 40), dtype)
            done = cublaslt.multiply(a, b, out, epilogue=name, vector=vector)
            error = float(abs(out - (cupy.maximum(a @ b, 0) if "RELU" in name else a @ b)).max())
            found[f"{dtype} {precision} {name}"] = f"error {error:.1e}" if done else "no algorithm"
    kobai.set_float32_matmul_precision("highest")
    nan = gemm(
        cupy.full((8, 8), np.nan, np.float32),
        cupy.eye(8, dtype=np.float32),
        bias=cupy.zeros(8, np.float32),
        activation="relu",
    )
    survives = bool(cupy.isnan(nan).all())
    missing = [name for name, answer in found.items() if answer == "no algorithm"]
    there = f"all but {', '.join(missing)}" if missing else "all of them"
    line = f"epilogues that have an algorithm: {there}; NaN {'stays NaN' if survives else 'is LOST'} in RELU_BIAS"
    return {"answer": line, **found, "NaN stays NaN in RELU_BIAS": survives}


def bias_gradient() -> dict[str, Any]:
    """The weight's and bias's gradient: one product with BGRADB, or a product and a sum."""
    import cupy

    found: dict[str, Any] = {}
    for shape in ((100, 784, 100), (100, 100, 100), (1024, 1024, 1024), (8192, 4096, 4096)):
        batch, before, after = sized(*shape)
        dz, x = normal(batch, after), normal(batch, before)
        dw, db = cupy.empty((after, before), np.float32), cupy.empty(after, np.float32)

        def together(dz=dz, x=x, dw=dw, db=db):
            cublaslt.multiply(dz, x, dw, trans_a=True, epilogue="BGRADB", vector=db)

        def apart(dz=dz, x=x, dw=dw, db=db):
            cublaslt.multiply(dz, x, dw, trans_a=True)
            dz.sum(axis=0, out=db)

        times = microseconds(captured(together)), microseconds(captured(apart))
        found[f"{shape[0]} x {shape[1]} -> {shape[2]}"] = {"with BGRADB, µs": times[0], "apart, µs": times[1]}
    return {"answer": faster(found, "with BGRADB, µs", "apart, µs"), **found}


def _plan(
    a: Any, b: Any, out: Any, epilogue: str, trans_a: bool, trans_b: bool, aux: Any, bits: int, vector: int
) -> Any:
    """A product with the rectifier's mask: a function that queues it, or None."""
    device, scratch, _ = cublaslt.workspace()
    layouts = [cublaslt.layout(m) for m in (a, b, out)]
    assert all(isinstance(m, Matrix) for m in layouts)
    compute = cublaslt.compute_type("float32")
    plan = ProductPlan(
        cublaslt.handle(device), Signature(device, "float32", compute, *layouts, trans_a, trans_b, epilogue, 256)
    )
    plan.describe(plan.lt.MatmulDescAttribute.EPILOGUE_AUX_POINTER, aux.data.ptr)
    plan.describe(plan.lt.MatmulDescAttribute.EPILOGUE_AUX_LD, bits)
    if not plan.choose(256, vector):
        return None
    return lambda: plan(a.data.ptr, b.data.ptr, out.data.ptr, vector, scratch.data.ptr, _current())


def _current() -> int:
    import cupy

    return int(cupy.cuda.get_current_stream().ptr)


def rectifier_masks() -> dict[str, Any]:
    """Backward through two layers and a rectifier: DRELU and DRELU_BGRAD in the product, or a kernel of their own."""
    import cupy

    if SIMULATED:
        return {"absent": "the simulated cuBLASLt knows only the epilogues that Kobai uses"}
    found: dict[str, Any] = {}
    for shape in ((100, 100), (1024, 1024), (8192, 4096)):
        batch, width = shape
        bits = -(-width // 128) * 128
        x, w, w2, dz2, bias = (
            normal(batch, width),
            normal(width, width),
            normal(width, width),
            normal(batch, width),
            normal(width),
        )
        y, dz, db, aux = (
            cupy.empty_like(x),
            cupy.empty_like(x),
            cupy.empty_like(bias),
            cupy.zeros((batch, bits // 8), np.uint8),
        )
        forward = _plan(x, w, y, "RELU_AUX_BIAS", False, True, aux, bits, bias.data.ptr)
        masked = _plan(dz2, w2, dz, "DRELU", False, False, aux, bits, 0)
        with_sums = _plan(dz2, w2, dz, "DRELU_BGRAD", False, False, aux, bits, db.data.ptr)
        if forward is None or masked is None:
            found[f"{shape[0]} x {shape[1]}"] = "no algorithm"
            continue
        forward()
        masked()
        wanted = (dz2 @ w2) * (x @ w.T + bias > 0)

        def apart(x=x, w=w, y=y, bias=bias, dz2=dz2, w2=w2, dz=dz):
            cublaslt.multiply(x, w, y, trans_b=True, epilogue="RELU_BIAS", vector=bias)
            cublaslt.multiply(dz2, w2, dz)
            cupy.multiply(dz, y > 0, out=dz)

        def together(forward=forward, masked=masked):
            forward()
            masked()

        found[f"{shape[0]} x {shape[1]}"] = {
            "error": float(abs(dz - wanted).max()),
            "DRELU_BGRAD": "no algorithm" if with_sums is None else said(with_sums),
            "DRELU, µs": microseconds(captured(together)),
            "a kernel of its own, µs": microseconds(captured(apart)),
        }
    return {"answer": faster(found, "DRELU, µs", "a kernel of its own, µs"), **found}


def forked_stream() -> dict[str, Any]:
    """The products of a backward pass in one graph: all in a row, or those of the weights' gradients on a second stream."""
    import cupy

    found: dict[str, Any] = {}
    for title, (rows, widths) in {"S": S, "M'": M}.items():
        batch, *sizes = sized(rows, *widths)
        layers = list(pairwise(sizes))
        weights = [normal(after, before) for before, after in layers]
        inputs = [normal(batch, before) for before, _ in layers]
        deltas = [normal(batch, after) for _, after in layers]
        gradients = [cupy.empty_like(w) for w in weights]
        side = cupy.cuda.Stream(non_blocking=True)
        with side:
            cublaslt.workspace()

        def weight(i, deltas=deltas, inputs=inputs, gradients=gradients):
            cublaslt.multiply(deltas[i], inputs[i], gradients[i], trans_a=True)

        def backward(fork, weights=weights, deltas=deltas, inputs=inputs, weight=weight, side=side):
            main = cupy.cuda.get_current_stream()
            for i in reversed(range(len(weights))):
                if fork:
                    ready = cupy.cuda.Event(disable_timing=True)
                    ready.record(main)
                    side.wait_event(ready)
                    with side:
                        weight(i)
                else:
                    weight(i)
                if i:
                    cublaslt.multiply(deltas[i], weights[i], deltas[i - 1])
            if fork:
                done = cupy.cuda.Event(disable_timing=True)
                done.record(side)
                main.wait_event(done)

        found[title] = {
            "in a row, µs": microseconds(captured(lambda backward=backward: backward(False))),
            "forked, µs": microseconds(captured(lambda backward=backward: backward(True))),
        }
    return {"answer": faster(found, "in a row, µs", "forked, µs"), **found}


def precisions() -> dict[str, Any]:
    """Speed of products of 4096³ in TFLOP/s, and their error relative to the largest element."""
    import cupy

    found: dict[str, Any] = {}
    (n,) = sized(4096)
    exact = normal(n, n, dtype=np.float64) @ normal(n, n, dtype=np.float64)
    kinds: list[tuple[str, str, Any]] = [
        ("fp32", "highest", np.float32),
        ("TF32", "high", np.float32),
        ("fp32 by bf16", "medium", np.float32),
        ("fp16", "highest", np.float16),
        ("fp64", "highest", np.float64),
    ]
    try:
        import ml_dtypes

        kinds.append(("bf16", "highest", ml_dtypes.bfloat16))
    except ImportError:
        found["bf16"] = "no: ml_dtypes is not installed"
    for title, precision, dtype in kinds:

        def measured(precision=precision, dtype=dtype, title=title):
            kobai.set_float32_matmul_precision(precision)
            a, b = (normal(n, n, dtype=np.float64).astype(dtype) for _ in range(2))
            out = cupy.empty((n, n), a.dtype)
            if not cublaslt.multiply(a, b, out):
                raise RuntimeError("no algorithm")
            error = float(abs(out.astype(np.float64) - exact).max() / abs(exact).max())
            time_us = microseconds(lambda: cublaslt.multiply(a, b, out), 10)
            found[title] = {"TFLOP/s": round(2 * n**3 / time_us / 1e6, 1), "error": f"{error:.1e}"}

        answer = said(measured)
        if answer != "yes":
            found[title] = answer
    kobai.set_float32_matmul_precision("highest")
    speeds = [f"{title} {made['TFLOP/s']}" for title, made in found.items() if isinstance(made, dict)]
    return {"answer": f"TFLOP/s of products of 4096³: {', '.join(speeds)}", **found}


def host_costs() -> dict[str, Any]:
    """What one call costs the host while the device is faster than it."""
    import cupy

    a, b, out = normal(16, 16), normal(16, 16), cupy.empty((16, 16), np.float32)
    words, place = tuple(range(16)), cupy.empty(16, np.uint64)
    graph = Graph.capture(lambda: cupy.add(a, b, out=out))
    bias = cupy.zeros(16, np.float32)
    feed = FEED.of("float32")
    found = {
        "cupy.add(out=), µs": microseconds(lambda: cupy.add(a, b, out=out), 1000),
        "a kernel of Kobai, µs": microseconds(lambda: feed(1, (words, place)), 1000),
        "gemm, µs": microseconds(lambda: gemm(a, b), 1000),
        "gemm with bias and ReLU, µs": microseconds(lambda: gemm(a, b, bias=bias, activation="relu"), 1000),
        "cupy.matmul, µs": microseconds(lambda: cupy.matmul(a, b, out=out), 1000),
        "replay of a graph of one kernel, µs": microseconds(graph.replay, 1000),
    }
    return {"answer": ", ".join(f"{name.removesuffix(', µs')} {time} µs" for name, time in found.items()), **found}


def ceilings() -> dict[str, Any]:
    """What the memory gives: copy and in-place addition of 1 GiB, read and write counted."""
    import cupy

    size = 1 << (12 if SIMULATED else 28)
    x, y = cupy.zeros(size, np.float32), cupy.zeros(size, np.float32)
    copy, add = microseconds(lambda: cupy.copyto(y, x), 5), microseconds(lambda: cupy.add(x, 1, out=x), 5)
    speeds = [round(2 * x.nbytes / time / 1e6, 2) for time in (copy, add)]
    return {"answer": f"copying moves {speeds[0]} TB/s, adding in place {speeds[1]}, reads and writes counted"}


def rounding_of_functions() -> dict[str, Any]:
    """By how many units in the last place functions of float32 are off, as Kobai computes them, from float64 on the host."""
    x = np.concatenate([np.linspace(-20, 20, 20001), np.logspace(-30, 30, 2001)]).astype(np.float32)
    inside, positive = np.clip(x, -1, 1), np.maximum(np.abs(x), np.float32(1e-30))
    functions: dict[str, tuple[Any, Any, Any]] = {
        "exp": (kobai.exp, np.exp, np.clip(x, -80, 80)),
        "log": (kobai.log, np.log, positive),
        "log1p": (kobai.log1p, np.log1p, positive),
        "sqrt": (kobai.sqrt, np.sqrt, positive),
        "tanh": (kobai.tanh, np.tanh, x),
        "sin": (kobai.sin, np.sin, x),
        "cos": (kobai.cos, np.cos, x),
        "arcsin": (kobai.asin, np.arcsin, inside),
        "pow 1.75": (lambda t: t**1.75, lambda t: t**1.75, np.clip(positive, 1e-15, 1e15)),
        "sigmoid": (kobai.sigmoid, lambda t: 1 / (1 + np.exp(-t)), np.clip(x, -80, 80)),
        "a*b + c": (lambda t: t * t + 1, lambda t: t * t + 1, np.clip(x, -1e15, 1e15)),
    }
    found = {}
    for name, (ours, exact, where) in functions.items():
        wanted = exact(where.astype(np.float64))
        got = ours(kobai.tensor(where)).cpu().numpy()
        unit = np.spacing(np.maximum(np.abs(wanted).astype(np.float32), np.finfo(np.float32).tiny)).astype(np.float64)
        found[name] = round(float(np.max(np.abs(got - wanted) / unit)), 2)
    worst = max(found, key=found.__getitem__)
    return {"answer": f"units in the last place: at most {found[worst]}, of {worst}", **found}


def atomics_under_contention() -> dict[str, Any]:
    """A million additions to few places: exact for whole numbers, within rounding for floats; equal when repeated?"""
    n = 2000 if SIMULATED else 1 << 20
    index = np.arange(n) * 7919 % 13
    ones = kobai.zeros(13, dtype=kobai.int64).index_add(0, kobai.tensor(index), kobai.ones(n, dtype=kobai.int64))
    whole = bool((ones.cpu().numpy() == np.bincount(index, minlength=13)).all())
    values = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    wanted = np.bincount(index, values.astype(np.float64), 13)
    runs = [kobai.zeros(13).index_add(0, kobai.tensor(index), kobai.tensor(values)).cpu().numpy() for _ in range(5)]
    error = max(float(np.max(np.abs(run - wanted))) for run in runs) / float(np.sqrt(n / 13))
    equal = all((run == runs[0]).all() for run in runs)
    line = f"whole numbers {'exact' if whole else 'WRONG'}; floats off by {error:.1e} of their spread, "
    return {"answer": line + f"{'equal' if equal else 'unequal'} from run to run"}


def nan_in_order() -> dict[str, Any]:
    """Sorting, extremes and their places where NaN is among the values: as on the CPU?"""
    x = np.array([[3, np.nan, -1, np.inf, -np.inf, 0, -0.0, 3], [np.nan] * 8, [1, 2, 3, 4, 5, 6, 7, 8]], np.float32)
    operations: dict[str, Callable[[Any], Any]] = {
        "sort": lambda t: t.sort(1)[0],
        "sort, descending": lambda t: t.sort(1, descending=True)[0],
        "argsort": lambda t: t.argsort(1, stable=True),
        "max": lambda t: t.max(1)[0],
        "argmax": lambda t: t.argmax(1),
        "topk": lambda t: t.topk(3, 1)[0],
        "median": lambda t: t.median(1)[0],
        "unique": lambda t: t[2:].unique(),
    }

    def same(operation: Callable[[Any], Any]) -> None:
        here, there = (operation(kobai.tensor(x, device=device)).cpu().numpy() for device in ("cpu", "cuda"))
        np.testing.assert_array_equal(there, here)

    found = {name: said(lambda operation=operation: same(operation)) for name, operation in operations.items()}
    return {"answer": everywhere(found, "as on the CPU"), **found}


def reductions_by_cub() -> dict[str, Any]:
    """CuPy's reductions by CUB, its default, and by its own kernels: both within rounding of float64?"""
    import cupy
    from cupy import _core

    before = _core.get_reduction_accelerators(), _core.get_routine_accelerators()
    rows, columns = sized(3000, 2000)
    found: dict[str, Any] = {}
    try:
        for title, chosen in (("CUB", ["cub"]), ("CuPy's own", [])):
            _core.set_reduction_accelerators(chosen)
            _core.set_routine_accelerators(chosen)
            x = normal(rows, columns)
            host = x.get().astype(np.float64)

            def right(x: Any = x, host: Any = host) -> None:
                for axis in (None, 0, 1):
                    for name in ("sum", "max", "mean", "argmax"):
                        got = cupy.asnumpy(getattr(x, name)(axis=axis))
                        np.testing.assert_allclose(got, getattr(host, name)(axis=axis), rtol=1e-4, atol=1e-3)

            found[title] = said(right)
    finally:
        _core.set_reduction_accelerators([_name(one) for one in before[0]])
        _core.set_routine_accelerators([_name(one) for one in before[1]])
    return {"answer": everywhere(found, "right"), **found}


def _name(accelerator: Any) -> str:
    """CuPy gives accelerators as numbers, and takes them as names."""
    return {1: "cub", 2: "cutensor", 3: "cutensornet"}[int(accelerator)]


def empty_batched_singular() -> dict[str, Any]:
    """Products and decompositions of nothing, of stacks, of singular matrices: as on the CPU?"""
    rng = np.random.default_rng(0)
    square = rng.standard_normal((5, 4, 4))
    positive = square @ square.transpose(0, 2, 1) + 4 * np.eye(4)
    linalg = kobai.linalg
    operations: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "empty products": (lambda a, b: a @ b, (np.zeros((3, 0)), np.zeros((0, 2)))),
        "empty stacks": (lambda a, b: a @ b, (np.zeros((0, 3, 4)), np.zeros((0, 4, 2)))),
        "strided stacks": (lambda a: a[::2] @ a[::2].transpose(1, 2), (square,)),
        "broadcast stacks": (lambda a: a[:, None] @ a[None], (square,)),
        "cholesky": (linalg.cholesky, (positive,)),
        "inv": (linalg.inv, (square,)),
        "solve": (linalg.solve, (square, rng.standard_normal((5, 4, 2)))),
        "det": (linalg.det, (square,)),
        "eigvalsh": (linalg.eigvalsh, (positive,)),
        "svdvals": (linalg.svdvals, (square,)),
        "qr": (lambda a: abs(linalg.qr(a)[1]), (square,)),
        "empty inv": (linalg.inv, (np.zeros((0, 3, 3)),)),
    }

    def same(operation: Callable[..., Any], arrays: tuple[Any, ...]) -> None:
        here, there = (
            operation(*(kobai.tensor(a, device=device) for a in arrays)).cpu().numpy() for device in ("cpu", "cuda")
        )
        np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-12)

    def singular() -> None:
        try:
            linalg.inv(kobai.zeros(3, 3))
        except Exception as error:
            if "LinAlgError" in type(error).__name__:
                return
            raise
        raise AssertionError("the inverse of a singular matrix raised nothing")

    found = {name: said(lambda made=made: same(*made)) for name, made in operations.items()}
    found["a singular matrix is refused"] = said(singular)
    return {"answer": everywhere(found, "as on the CPU"), **found}


def copies_under_way() -> dict[str, Any]:
    """Batches from page-locked memory, copied while the device computes: is what arrives what was sent, and is it faster?"""
    import cupy

    from kobai.utils.data import DataLoader, TensorDataset

    rows, width = sized(20_000, 1024)
    data = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    (batch,) = sized(500)

    def epoch(pinned: bool, workers: int = 0) -> float:
        sums, busy = [], cupy.zeros((256, 256), np.float32)
        loader = DataLoader(
            TensorDataset(kobai.tensor(data, device="cpu")), batch_size=batch, pin_memory=pinned, num_workers=workers
        )
        start = time.perf_counter()
        for (x,) in loader:
            for _ in range(4):
                busy = busy @ busy
            sums.append(x.to("cuda", non_blocking=pinned).double().sum())
        total = sum(value.item() for value in sums)
        if total != float(data.sum(dtype=np.float64)):
            raise AssertionError(f"the batches add up to {total}, expected {data.sum(dtype=np.float64)}")
        return time.perf_counter() - start

    found: dict[str, Any] = {}
    for title, pinned, workers in (("plain", False, 0), ("pinned", True, 0), ("pinned, made by two workers", True, 2)):
        found[title] = said(lambda pinned=pinned, workers=workers: epoch(pinned, workers))
    seconds = {pinned: epoch(pinned) for pinned in (False, True)} if set(found.values()) == {"yes"} else {}
    speed = f"; pinned takes {seconds[True] / seconds[False]:.2f} of the time" if seconds else ""
    return {"answer": everywhere(found, "every batch arrived as it was sent") + speed, **found}


def other_libraries() -> dict[str, Any]:
    """Tensors shared with CuPy, PyTorch and JAX on the device, both ways: the same memory, the same numbers?"""
    found: dict[str, Any] = {}

    def shared(module: str, make: Callable[[Any], Any]) -> None:
        x = kobai.arange(12.0).reshape(3, 4)
        theirs = make(x)
        if float(theirs.sum()) != 66:
            raise AssertionError(f"{module} sees another sum: {float(theirs.sum())}")
        back = kobai.from_dlpack(theirs)
        if not back.is_cuda or back.tolist() != x.tolist():
            raise AssertionError(f"{module} gives back {back}")

    for module in ("cupy", "torch", "jax"):
        try:
            library = __import__(module)
            make = __import__("jax.dlpack").dlpack.from_dlpack if module == "jax" else library.from_dlpack
        except ImportError:
            found[module] = "not installed"
            continue
        found[module] = said(lambda module=module, make=make: shared(module, make))
    asked = {module: answer for module, answer in found.items() if answer != "not installed"}
    return {"answer": everywhere(asked, f"tensors are shared with {', '.join(asked)}"), **found}


EXPERIMENTS = {
    f.__name__: f
    for f in (
        reductions_are_captured,
        graphs_are_launched_anywhere,
        epilogues,
        rounding_of_functions,
        atomics_under_contention,
        nan_in_order,
        reductions_by_cub,
        empty_batched_singular,
        copies_under_way,
        other_libraries,
        ceilings,
        host_costs,
        precisions,
        bias_gradient,
        rectifier_masks,
        forked_stream,
    )
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in EXPERIMENTS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(EXPERIMENTS)}")
    kobai.use("cupy")
    print(json.dumps(EXPERIMENTS[sys.argv[1]](), ensure_ascii=False))
