"""The check data of CUDA kernels (``kernel_data``) made ready for one dtype: on the host and on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernel_data import CHECKS
from kobai.dtypes import FLOATING, finfo
from kobai.engine.cuda_kernel import EVERY_FLOAT, KERNELS

DTYPES = EVERY_FLOAT

CASES = [
    (kernel.name, i, dtype)
    for _, kernel in sorted(KERNELS.items())
    for dtype in kernel.dtypes
    for i in range(len(CHECKS.get(kernel.name, ())))
]


@dataclass
class Launch:
    """One launch of a kernel, with what its arrays must hold afterwards, by name."""

    grid: tuple[int, ...]
    args: list[Any]
    threads: int
    shared: int
    expected: dict[str, Any]


def launch_of(name: str, i: int, dtype: str) -> Launch:
    """The i-th check of a kernel. Arrays declared ``T*`` or ``A*``, and floats in tables of addresses, get their dtype."""
    kernel = KERNELS[name]
    grid, args, expected, *options = CHECKS[name][i](np.random.default_rng(i))
    threads, shared = (*options, 0, -1)[:2]
    assert len(args) == len(kernel.parameters), f"{name}: the check has {len(args)} arguments"
    assert expected.keys() <= {p.name for p in kernel.parameters}, f"{name}: the check expects {sorted(expected)}"
    typed = kernel.of(dtype).dtypes
    ready = [
        converted(arg, wanted, dtype) if isinstance(arg, (np.ndarray, list, dict)) else arg
        for arg, wanted in zip(args, typed, strict=True)
    ]
    return Launch(
        grid if isinstance(grid, tuple) else (grid,), ready, threads or kernel.threads, shared, dict(expected)
    )


def converted(arg: Any, wanted: Any, dtype: str) -> Any:
    """A new array; for a list (a table of the addresses of arrays), a list of them, in which None stays; a dict is a struct."""
    if isinstance(arg, dict):
        return {name: converted(value, np.int64, dtype) for name, value in arg.items()}
    if isinstance(arg, list) and isinstance(arg[0], list):
        return [converted(part, wanted, dtype) for part in arg]
    if isinstance(arg, list):
        return [
            None if a is None else np.array(a, dtype if a.dtype.kind in FLOATING else a.dtype, order="C") for a in arg
        ]
    return np.array(arg, wanted, order="C")


def each(arg: Any, function: Any) -> Any:
    """An argument with ``function`` applied to every array in it: to itself, in a table, in the tables of a struct."""
    if isinstance(arg, dict):
        return {name: each(value, function) if isinstance(value, list) else value for name, value in arg.items()}
    if isinstance(arg, list):
        return [each(a, function) for a in arg]
    return function(arg) if hasattr(arg, "strides") and not isinstance(arg, np.generic) else arg


def addressed(arg: Any, wanted: Any, address: Any) -> Any:
    """An argument as the kernel gets it: for a table of arrays their addresses, for a struct its bytes."""
    if isinstance(arg, list):
        return np.array([0 if a is None else address(a) for a in arg], np.uint64)
    if not isinstance(arg, dict):
        return arg
    made = np.zeros((), wanted)
    for name, value in arg.items():
        if isinstance(value, list):
            value = np.array([[address(a) for a in row] for row in value], np.uint64)
        made[name][tuple(map(slice, value.shape))] = value
    return made


def assert_expected(launch: Launch, name: str, results: list[Any], dtype: str) -> None:
    """64 roundings, scaled by the largest element: sums are added up in another order, and functions err differently."""
    places = {p.name: i for i, p in enumerate(KERNELS[name].parameters)}
    for what, wanted in launch.expected.items():
        got = results[places[what]]
        if isinstance(got, dict):
            got = [a for value in got.values() if isinstance(value, list) for row in value for a in row]
        pairs = zip(got, wanted, strict=True) if isinstance(wanted, list) else [(got, wanted)]
        for a, b in pairs:
            if b is None:
                continue
            b = np.asarray(b)
            assert a.shape == b.shape, f"{what}: {a.shape}, expected {b.shape}"
            if a.dtype.kind not in FLOATING:
                np.testing.assert_array_equal(a, b, err_msg=what)
                continue
            a, b = a.astype(np.float64), b.astype(np.float64)
            scale = np.abs(b[np.isfinite(b)]).max(initial=1.0)
            slack = 64 * float(finfo(dtype).eps)
            np.testing.assert_allclose(a, b, rtol=slack, atol=slack * scale, err_msg=what)
