"""Questions about CUDA that only a device can answer: ``python scripts/gpu_experiments.py NAME`` prints the answer as JSON.

``scripts/gpu_check.py`` runs each in a process of its own, because a capture that fails can spoil the process it fails in.
"""

from __future__ import annotations

import json
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

S = (100, (784, 100, 100, 100, 100, 10))
M = (1024, (784, 1024, 1024, 1024, 10))


def microseconds(function: Callable[[], Any], repeats: int = 50) -> float:
    """Median time of one call of many that are queued behind each other, in µs."""
    import cupy

    for _ in range(5):
        function()
    cupy.cuda.Device().synchronize()
    times = []
    for _ in range(9):
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

    return {name: said(lambda operation=operation: right(operation)) for name, operation in operations.items()}


def graphs_are_launched_anywhere() -> dict[str, Any]:
    """On which streams a graph captured on Kobai's own runs, and whether what is queued after it waits for it."""
    import cupy

    x, y = normal(1 << 22), cupy.zeros(1 << 22, np.float32)
    graph = Graph.capture(lambda: cupy.add(y, x, out=y))

    def run(stream: Any) -> None:
        with stream:
            y.fill(0)
            for _ in range(20):
                graph.replay()
            total = cupy.abs(y - 20 * x).max()
        if not float(total) < 1e-3:
            raise AssertionError(f"off by {float(total)}")

    return {
        "legacy default stream": said(lambda: run(cupy.cuda.Stream.null)),
        "per-thread default stream": said(lambda: run(cupy.cuda.Stream.ptds)),
        "a blocking stream": said(lambda: run(cupy.cuda.Stream())),
        "a non-blocking stream": said(lambda: run(cupy.cuda.Stream(non_blocking=True))),
    }


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
    found["NaN stays NaN in RELU_BIAS"] = bool(cupy.isnan(nan).all())
    return found


def bias_gradient() -> dict[str, Any]:
    """The weight's and bias's gradient: one product with BGRADB, or a product and a sum."""
    import cupy

    found: dict[str, Any] = {}
    for batch, before, after in ((100, 784, 100), (100, 100, 100), (1024, 1024, 1024), (8192, 4096, 4096)):
        dz, x = normal(batch, after), normal(batch, before)
        dw, db = cupy.empty((after, before), np.float32), cupy.empty(after, np.float32)

        def together(dz=dz, x=x, dw=dw, db=db):
            cublaslt.multiply(dz, x, dw, trans_a=True, epilogue="BGRADB", vector=db)

        def apart(dz=dz, x=x, dw=dw, db=db):
            cublaslt.multiply(dz, x, dw, trans_a=True)
            dz.sum(axis=0, out=db)

        times = microseconds(captured(together)), microseconds(captured(apart))
        found[f"{batch} x {before} -> {after}"] = {"with BGRADB, µs": times[0], "apart, µs": times[1]}
    return found


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

    found: dict[str, Any] = {}
    for batch, width in ((100, 100), (1024, 1024), (8192, 4096)):
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
            found[str((batch, width))] = "no algorithm"
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

        found[str((batch, width))] = {
            "error": float(abs(dz - wanted).max()),
            "DRELU_BGRAD": "no algorithm" if with_sums is None else said(with_sums),
            "DRELU, µs": microseconds(captured(together)),
            "a kernel of its own, µs": microseconds(captured(apart)),
        }
    return found


def forked_stream() -> dict[str, Any]:
    """The products of a backward pass in one graph: all in a row, or those of the weights' gradients on a second stream."""
    import cupy

    found: dict[str, Any] = {}
    for title, (batch, sizes) in {"S": S, "M'": M}.items():
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
    return found


def precisions() -> dict[str, Any]:
    """Speed of products of 4096³ in TFLOP/s, and their error relative to the largest element."""
    import cupy

    found: dict[str, Any] = {}
    n = 4096
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
    return found


def host_costs() -> dict[str, Any]:
    """What one call costs the host while the device is faster than it."""
    import cupy

    a, b, out = normal(16, 16), normal(16, 16), cupy.empty((16, 16), np.float32)
    words, place = tuple(range(16)), cupy.empty(16, np.uint64)
    graph = Graph.capture(lambda: cupy.add(a, b, out=out))
    bias = cupy.zeros(16, np.float32)
    feed = FEED.of("float32")
    return {
        "cupy.add(out=), µs": microseconds(lambda: cupy.add(a, b, out=out), 1000),
        "a kernel of Kobai, µs": microseconds(lambda: feed(1, (words, place)), 1000),
        "gemm, µs": microseconds(lambda: gemm(a, b), 1000),
        "gemm with bias and ReLU, µs": microseconds(lambda: gemm(a, b, bias=bias, activation="relu"), 1000),
        "cupy.matmul, µs": microseconds(lambda: cupy.matmul(a, b, out=out), 1000),
        "replay of a graph of one kernel, µs": microseconds(graph.replay, 1000),
    }


def ceilings() -> dict[str, Any]:
    """What the memory gives: copy and in-place addition of 1 GiB, read and write counted."""
    import cupy

    x, y = cupy.zeros(1 << 28, np.float32), cupy.zeros(1 << 28, np.float32)
    copy, add = microseconds(lambda: cupy.copyto(y, x), 5), microseconds(lambda: cupy.add(x, 1, out=x), 5)
    return {"copy, TB/s": round(2 * x.nbytes / copy / 1e6, 2), "add in place, TB/s": round(2 * x.nbytes / add / 1e6, 2)}


EXPERIMENTS = {
    f.__name__: f
    for f in (
        ceilings,
        host_costs,
        precisions,
        epilogues,
        bias_gradient,
        rectifier_masks,
        forked_stream,
        reductions_are_captured,
        graphs_are_launched_anywhere,
    )
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in EXPERIMENTS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(EXPERIMENTS)}")
    kobai.use("cupy")
    print(json.dumps(EXPERIMENTS[sys.argv[1]](), ensure_ascii=False))
