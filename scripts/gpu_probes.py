"""The first things to try on a CUDA device, each resting on those before: ``python scripts/gpu_probes.py NAME``.

A probe prints what it found as JSON, ``answer`` first, or raises. ``scripts/gpu_check.py`` runs each in a process of its own. A
probe whose subject is not there prints ``{"absent": why}``. What is compared is compared in float64 with the CPU, where any
difference above rounding is a mistake.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.nn import functional as F

PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "nvmath-python", "numpy", "ml_dtypes", "numba", "torch", "jax", "pytest")
STEPS = 6


class Absent(Exception):
    """What a probe looks at is not there; the message says why."""


def facts() -> dict[str, Any]:
    """Which device, which libraries, and which parts of Kobai they make usable."""
    if reason := kobai.available_backends()["cupy"]:
        raise RuntimeError(reason)
    import cupy

    runtime = cupy.cuda.runtime
    usable = kobai.cuda.cublaslt.is_available()
    devices = [kobai.cuda.get_device_name(i) for i in range(kobai.cuda.device_count())]
    return {
        "answer": f"{', '.join(devices)}; captured steps are "
        + ("possible" if usable else "NOT possible: nvmath-python cannot be used, so their tests are skipped"),
        "devices": devices,
        "compute capability": cupy.cuda.Device().compute_capability,
        "memory, GiB": round(runtime.memGetInfo()[1] / 2**30, 1),
        "CUDA runtime": runtime.runtimeGetVersion(),
        "CUDA driver": runtime.driverGetVersion(),
        "NVRTC": cupy.cuda.nvrtc.getVersion(),
        "cuBLASLt through nvmath": usable,
        "python": sys.version.split()[0],
        "processor": platform.processor() or platform.machine(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


AXPY = 'extern "C" __global__ void axpy(float a, const float* x, float* y, int n) {' + (
    " int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] += a * x[i]; }"
)


def kernel() -> dict[str, Any]:
    """A kernel is compiled and launched: by CuPy alone, one that CuPy generates, and one of Kobai's."""
    import cupy

    host = np.arange(1000, dtype=np.float32)
    x, y = cupy.asarray(host), cupy.ones(1000, np.float32)
    cupy.RawKernel(AXPY, "axpy")((4,), (256,), (np.float32(2), x, y, np.int32(1000)))
    np.testing.assert_array_equal(y.get(), 2 * host + 1)
    np.testing.assert_array_equal((x * 3 + y).get(), 5 * host + 1)
    product = kobai.tensor(host.reshape(20, 50)) @ kobai.tensor(host.reshape(50, 20))
    np.testing.assert_allclose(product.cpu().numpy(), host.reshape(20, 50) @ host.reshape(50, 20), rtol=1e-5)
    scores = np.sin(host).reshape(10, 100)
    found = F.log_softmax(kobai.tensor(scores), dim=1).cpu().numpy()
    wanted = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return {"answer": "kernels of CuPy and Kobai compile and compute, and so does a matrix product"}


def _training(dtype: Any, device: str | None = None, under: Callable[[], Any] | None = None) -> Any:
    """A step of an MLP with batch normalisation, its batch, and the model."""
    kobai.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    model.to(dtype)
    if device is not None:
        model.to(device)
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rng = np.random.default_rng(0)
    x = kobai.tensor(rng.normal(size=(24, 20)), dtype=dtype, device=device)
    t = kobai.tensor(rng.integers(0, 4, 24), device=device)

    def loss_of(x: Any, t: Any) -> Any:
        return F.cross_entropy(model(x), t)

    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        if under is None:
            loss = loss_of(x, t)
        else:
            with under():
                loss = loss_of(x, t)
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, t), model


def _losses(backend: str, captured: bool = False, dtype: Any = kobai.float64, **more: Any) -> list[float]:
    with kobai.using(backend):
        step, batch, _ = _training(dtype, **more)
        run = kobai.capture(step) if captured else step
        losses = [run(*batch).item() for _ in range(STEPS)]
        if captured and run.failure is not None:
            raise RuntimeError(f"the step was not captured: {run.failure}")
    return losses


def eager_step() -> dict[str, Any]:
    """Training steps of an MLP, eager: those of the CPU."""
    here, there = _losses("numpy"), _losses("cupy")
    np.testing.assert_allclose(there, here, rtol=1e-9)
    return {"answer": f"{STEPS} eager steps equal the CPU's", "losses": there}


def captured_step() -> dict[str, Any]:
    """The same as one CUDA graph, replayed."""
    if not kobai.cuda.cublaslt.is_available():
        raise Absent("nvmath-python cannot be used, and without it no step is captured on a GPU")
    here, there = _losses("cupy"), _losses("cupy", captured=True)
    np.testing.assert_allclose(there, here, rtol=1e-9)
    return {"answer": f"{STEPS} replayed steps equal the eager ones", "losses": there}


def device_words() -> dict[str, Any]:
    """What a kernel notices comes to the host with the next number read, as an error that names it; work goes on after it."""
    found = []
    for captured in (False, True):
        if captured and not kobai.cuda.cublaslt.is_available():
            continue
        weight = kobai.ones(4, 4)
        take = kobai.capture(lambda i, weight=weight: kobai.embedding(weight, i).sum()) if captured else None
        run = take or (lambda i, weight=weight: kobai.embedding(weight, i).sum())
        right, wrong = kobai.tensor([0, 3]), kobai.tensor([0, 9])
        for _ in range(3):
            assert run(right).item() == 8
        spoilt = run(wrong)
        try:
            spoilt.item()
        except IndexError as error:
            found.append(str(error))
        else:
            raise AssertionError("an index out of range passed unnoticed")
        assert run(right).item() == 8
    return {"answer": f"an index out of range is said: {found[0]}", "eager and captured": len(found) == 2}


def sixteen_bits() -> dict[str, Any]:
    """The MLP under autocast in bfloat16 and float16, eager and captured: near the CPU's same program, near float32."""
    try:
        with kobai.autocast("cuda", dtype=kobai.bfloat16):
            pass
    except (AttributeError, NotImplementedError):
        raise Absent("this Kobai has no bfloat16 and no autocast") from None
    exact = np.asarray(_losses("numpy", dtype=kobai.float32))
    found: dict[str, Any] = {}
    for dtype in (kobai.bfloat16, kobai.float16):
        losses = {}
        for title, backend, captured in (
            ("CPU", "numpy", False),
            ("eager", "cupy", False),
            ("captured", "cupy", True),
        ):
            if captured and not kobai.cuda.cublaslt.is_available():
                continue
            kind = "cpu" if backend == "numpy" else "cuda"

            def under(kind: str = kind, dtype: Any = dtype) -> Any:
                return kobai.autocast(kind, dtype=dtype)

            losses[title] = np.asarray(_losses(backend, captured, kobai.float32, under=under))
        slack = 2e-2 if dtype == kobai.bfloat16 else 4e-3  # a few roundings to 8 or 11 bits
        for title, values in losses.items():
            np.testing.assert_allclose(values, exact, rtol=slack, err_msg=f"{dtype}, {title}")
            found[f"{dtype}, {title}"] = float(f"{np.max(np.abs(values / exact - 1)):.2g}")
    return {"answer": "losses under autocast stay near float32's (largest relative distances below)", **found}


def several_devices() -> dict[str, Any]:
    """cuda:1 while cuda:0 is current: copies, kernels, products and whole steps."""
    if kobai.cuda.device_count() < 2:
        raise Absent("there is one device")
    here = _losses("numpy")
    for device in ("cuda:0", "cuda:1"):
        np.testing.assert_allclose(_losses("cupy", device=device), here, rtol=1e-9, err_msg=device)
        if kobai.cuda.cublaslt.is_available():
            np.testing.assert_allclose(_losses("cupy", captured=True, device=device), here, rtol=1e-9, err_msg=device)
    x = kobai.arange(12.0, device="cuda:1").reshape(3, 4)
    np.testing.assert_array_equal(x.T.to("cuda:0").cpu().numpy(), np.arange(12.0).reshape(3, 4).T)
    return {"answer": f"{kobai.cuda.device_count()} devices: copies and training steps on cuda:1 equal those on cuda:0"}


PROBES = {
    f.__name__: f for f in (facts, kernel, eager_step, captured_step, device_words, sixteen_bits, several_devices)
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROBES:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(PROBES)}")
    if sys.argv[1] != "facts":
        kobai.use("cupy")
    try:
        answer = PROBES[sys.argv[1]]()
    except Absent as reason:
        answer = {"absent": str(reason)}
    print(json.dumps(answer, ensure_ascii=False))
