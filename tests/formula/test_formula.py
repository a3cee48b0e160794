"""The kernel compiler: what it reads, and that all engines agree with each other and with the function on numbers."""

import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import kobai
from kobai.engine import dispatch, logarithm, special
from kobai.formula import numpy_code
from kobai.formula.elementwise import ELEMENTWISE, Elementwise
from kobai.formula.parse import parse
from kobai.formula.scalar import maximum, minimum, sign, sqrt, tanh
from kobai.nn.utils import _clip as _clip
from kobai.ops import _formulas as _activation  # noqa: F401 - makes its kernels known
from kobai.optim import _formulas as _optim  # noqa: F401
from kobai.xp import asarray, to_host

KERNELS = [kernel for kernel in ELEMENTWISE if kernel.before is None and "skip" not in kernel.formula.scalars]
"""Those made of one function; what comes before it, or skips it, is tried in tests/optim."""

IDS = [kernel.name for kernel in KERNELS]


@pytest.fixture
def with_numba():
    if not dispatch.numba_installed:
        pytest.skip("without Numba")


def draw(kernel, size, dtype=np.float64, seed=0):
    """Arrays and numbers for one kernel, away from where it is not continuous."""
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(0.5, 1.5, size) * rng.choice([-1, 1], size) for _ in kernel.formula.arrays]
    for k in range(2, len(arrays)):
        arrays[k] = np.abs(arrays[k]) + (5 if k == 2 else 0)
    if len(arrays) == 3 and kernel.name == "gelu_backward":
        arrays[2] = rng.uniform(0, 1, size)
    numbers = rng.uniform(0.2, 0.4, len(kernel.formula.scalars)).tolist()
    if kernel.name == "hardtanh":
        numbers = [-0.4, 0.3]
    return [a.astype(dtype) for a in arrays], dict(zip(kernel.formula.scalars, numbers, strict=True))


def run(kernel, arrays, numbers, numba=True):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "numba_installed", numba and dispatch.numba_installed)
        results = kernel(*arrays, **numbers)
    return results if isinstance(results, tuple) else (results,)


# --- reading ----------------------------------------------------------------------------------------------------------


def square(x):
    return x * x


HALF = 0.5


def every_construct(x, y, *, h):
    """A docstring is no statement."""
    z = x + HALF * y
    z -= square(x) / (h + 2)
    z = z if not (x < y or x > 3 * y) and y != 0 else -z
    w = minimum(maximum(x, y), abs(z)) * sign(y) if x >= -2 else 0.0
    return z, tanh(w), x


def test_all_constructs_on_all_engines(with_numba):
    kernel = Elementwise(every_construct)
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    wanted = np.array([every_construct(a, b, h=0.3) for a, b in zip(x.tolist(), y.tolist(), strict=True)]).T
    for numba in (False, True):
        for got, right in zip(run(kernel, [x, y], {"h": 0.3}, numba), wanted, strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-14)
    ELEMENTWISE.remove(kernel)


def test_a_value_is_computed_once():
    formula = parse(lambda_free)
    assert [formula.values[i].op for i in formula.operations()] == ["multiply", "add"]


def lambda_free(x):
    return x * x + x * x


def _loop(x):
    for _ in range(3):
        x = x * x
    return x


def _power(x):
    return x**1.2


def _unknown(x):
    return np.sin(x)


def _no_end(x):
    y = x  # noqa: F841


def _name(x):
    return x + KERNELS


@pytest.mark.parametrize("function", [_loop, _power, _unknown, _no_end, _name])
def test_what_no_formula_may_contain(function):
    with pytest.raises(SyntaxError, match=function.__name__):
        parse(function)


def test_wrong_calls():
    kernel = next(k for k in KERNELS if k.name == "leaky_relu")
    x = np.ones(3)
    with pytest.raises(TypeError, match=r"leaky_relu: expected arrays \('x',\) and numbers \('slope',\)"):
        kernel(x)
    with pytest.raises(TypeError, match="leaky_relu: expected arrays"):
        kernel(x, x, slope=0.1)
    with pytest.raises(ValueError, match=r"leaky_relu: expected arrays of one shape, got \[\(3,\), \(2,\)\]"):
        kernel(x, slope=0.1, out=np.ones(2))


# --- engines ----------------------------------------------------------------------------------------------------------


@pytest.mark.few(6)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("size", [0, 1, 13, (4, 5), 70_001])
@pytest.mark.parametrize("kernel", KERNELS, ids=IDS)
def test_numpy_and_numba_agree(with_numba, kernel, size, dtype):
    arrays, numbers = draw(kernel, size, dtype)
    before = [a.copy() for a in arrays]
    eps = np.finfo(dtype).eps
    for a, b in zip(run(kernel, arrays, numbers, False), run(kernel, arrays, numbers, True), strict=True):
        assert a.dtype == b.dtype == dtype
        assert a.shape == b.shape == arrays[0].shape
        np.testing.assert_allclose(a, b, rtol=40 * eps, atol=10 * eps if kernel.name != "gelu" else 4e-7)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kernel", KERNELS, ids=IDS)
def test_they_agree_with_the_function_on_numbers(kernel):
    arrays, numbers = draw(kernel, 30)
    for numba in (False, True):
        got = np.stack(run(kernel, arrays, numbers, numba), axis=1)
        for row, values in zip(got, zip(*(a.tolist() for a in arrays), strict=True), strict=True):
            np.testing.assert_allclose(row, kernel.function(*values, **numbers), rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS, ids=IDS)
def test_nan_and_infinity_are_treated_alike(with_numba, kernel):
    special_values = np.array([np.nan, np.inf, -np.inf, 0.0, 1.25, -1.25])
    arrays = [grid.ravel() for grid in np.meshgrid(*[special_values] * min(len(kernel.formula.arrays), 2))]
    more = [np.full(arrays[0].shape, 0.75) for _ in kernel.formula.arrays[len(arrays) :]]
    _, numbers = draw(kernel, 1)
    for a, b in zip(
        run(kernel, [*arrays, *more], numbers, False), run(kernel, [*arrays, *more], numbers, True), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.few(6)
@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("kernel", KERNELS, ids=IDS)
def test_any_layout(kernel, numba):
    arrays, numbers = draw(kernel, (6, 8))
    wanted = run(kernel, arrays, numbers, False)
    layouts = [
        [np.asfortranarray(a) for a in arrays],
        [np.repeat(a, 2, axis=1)[:, ::2] for a in arrays],
        [a if k else np.asfortranarray(a) for k, a in enumerate(arrays)],
        [a[:, ::-1] for a in arrays],
    ]
    for version in layouts:
        flip = -1 if version is layouts[-1] else 1
        for got, right in zip(run(kernel, version, numbers, numba), wanted, strict=True):
            np.testing.assert_allclose(got, right[:, ::flip], rtol=1e-12)


def test_arrays_in_one_order_of_axes_go_through_the_loop(with_numba, monkeypatch):
    kernel = next(k for k in KERNELS if k.name == "relu")
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).transpose(0, 3, 1, 2)  # channels last
    monkeypatch.setattr(type(kernel.code()), "on_host", lambda *args: pytest.fail("went through NumPy"))
    np.testing.assert_array_equal(kernel(x), np.maximum(x, 0))
    assert kernel(x).strides == x.strides


@pytest.mark.parametrize("kernel", KERNELS, ids=IDS)
def test_on_every_library(backend, kernel):
    arrays, numbers = draw(kernel, (3, 7))
    wanted = run(kernel, arrays, numbers, False)
    with kobai.using(backend):
        got = run(kernel, [asarray(a, device=kobai.get_default_device()) for a in arrays], numbers)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(to_host(a), b, rtol=1e-12)


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("kernel", KERNELS, ids=IDS)
def test_results_may_go_to_any_array(kernel, numba):
    """Each result into each of the arrays in turn, and the other way round: no result overwrites what is read later."""
    arrays, numbers = draw(kernel, 40)
    wanted = run(kernel, arrays, numbers, False)
    for first in range(len(arrays)):
        copies = [a.copy() for a in arrays]
        places = [copies[(first + k) % len(copies)] for k in range(len(wanted))]
        if len({id(p) for p in places}) < len(places):
            places = [*copies[:1], *(np.empty(40) for _ in wanted[1:])]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatch, "numba_installed", numba and dispatch.numba_installed)
            got = kernel(*copies, **numbers, out=tuple(places))
        got = got if isinstance(got, tuple) else (got,)
        for a, place, b in zip(got, places, wanted, strict=True):
            assert a is place
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_half_precision_runs_on_numpy():
    kernel = next(k for k in KERNELS if k.name == "silu")
    x = np.linspace(-3, 3, 50).astype(np.float16)
    y = kernel(x)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, kernel(x.astype(np.float64)), rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("numba", [False, True])
def test_numba_allocates_the_result_alone_and_numpy_few_blocks(monkeypatch, numba):
    monkeypatch.setattr(dispatch, "numba_installed", numba and dispatch.numba_installed)
    for name in ("relu_backward", "silu", "elu", "mish_backward", "hardtanh"):
        kernel = next(k for k in KERNELS if k.name == name)
        arrays, numbers = draw(kernel, (200, 300), np.float32)
        out = np.empty_like(arrays[0])
        kernel(*arrays, out=out, **numbers)
        tracemalloc.start()
        kernel(*arrays, out=out, **numbers)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (10_000 if dispatch.numba_installed else 6 * numpy_code.BLOCK_BYTES), name


def test_large_arrays_in_threads(with_numba, monkeypatch):
    from kobai.cpu import threads

    monkeypatch.setattr(threads, "num_threads", lambda: 2)
    kernel = next(k for k in KERNELS if k.name == "relu_backward")
    arrays, _ = draw(kernel, 3 * threads.GRAIN + 5, np.float32)
    np.testing.assert_array_equal(kernel(*arrays), np.where(arrays[1] > 0, arrays[0], 0))


def test_blocks_of_several_threads_do_not_meet(monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", False)
    monkeypatch.setattr(numpy_code, "BLOCK_BYTES", 1024)
    kernel = next(k for k in KERNELS if k.name == "gelu_tanh_backward")
    arrays, _ = draw(kernel, 5000, np.float32)
    wanted, found = kernel(*arrays), []
    workers = [threading.Thread(target=lambda: found.append(kernel(*arrays))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(y, wanted) for y in found)
    assert len(found) == 4


# --- machine code on disk ---------------------------------------------------------------------------------------------

PROGRAM = """
import numpy as np
from kobai.ops import _formulas as formulas
x = np.linspace(-1, 1, 100, dtype=np.float32)
formulas.relu(x)
hits = [sum(loop.dispatcher.stats.cache_hits.values()) for loop in [formulas.relu._apart.loops.one]]
print(hits[0])
"""


def test_a_second_process_finds_the_machine_code(with_numba, tmp_path):
    environment = {**os.environ, "KOBAI_CACHE": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    hits = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert hits == ["0", "1"]
    assert len(list((tmp_path / "kernels").glob("*.py"))) == 1


def test_a_folder_that_cannot_be_written_to_only_costs_time(with_numba, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    environment = {**os.environ, "KOBAI_CACHE": str(blocked)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compiled anew in every process" in done.stderr


# --- functions inside loops -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log1p(with_numba, dtype):
    rng = np.random.default_rng(0)
    parts = [rng.uniform(0, 1, 3000), 10 ** rng.uniform(-30, 30, 3000), rng.uniform(-0.999, 0, 3000), [0.0, -1.0, -2.0]]
    x = np.concatenate([*parts, [np.nan, np.inf]]).astype(dtype)
    with np.errstate(all="ignore"):
        wanted = np.log1p(x.astype(np.longdouble)).astype(dtype)
    np.testing.assert_allclose(in_a_loop(logarithm.log1p, x), wanted, rtol=2.5 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("dtype", "slack"), [(np.float32, 4e-7), (np.float64, 1e-15)])
def test_erf(with_numba, dtype, slack):
    x = np.concatenate([np.linspace(-6, 6, 5001), [np.inf, -np.inf, np.nan, 1e-30, 40.0]]).astype(dtype)
    np.testing.assert_allclose(in_a_loop(special.compiled_erf, x), special.erf(x), rtol=2 * slack)


def in_a_loop(function, x):
    namespace = {"function": function}
    exec("def loop(x, y):\n    for i in range(x.size):\n        y[i] = function(x[i])\n", namespace)
    import numba

    y = np.empty_like(x)
    numba.njit(dispatch._linked(namespace["loop"]), error_model="numpy")(x, y)
    return y


def test_sqrt_of_a_negative_number():
    assert np.isnan(sqrt(-1.0))


def test_where_the_cache_is(monkeypatch):
    from kobai.engine.disk_cache import cache_folder

    monkeypatch.setenv("KOBAI_CACHE", "~/x")
    assert cache_folder() == Path.home() / "x" / "kernels"


# --- powers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize("p", [-16, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 7, 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_power_with_a_known_exponent_is_products_and_roots(p, dtype, numba):
    if numba and not dispatch.numba_installed:
        pytest.skip("without Numba")

    def power(x):
        return x**p

    kernel = Elementwise(power)
    ELEMENTWISE.remove(kernel)
    x = np.concatenate([np.random.default_rng(0).uniform(0.1, 3, 100), [0, 1, np.inf, np.nan]]).astype(dtype)
    if p == -0.5:
        x = np.append(x, [np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny / 3])
    with np.errstate(divide="ignore"):
        right = x.astype(np.longdouble) ** p
    (got,) = run(kernel, [x], {}, numba)
    np.testing.assert_allclose(got, right, rtol=(abs(p) + 1) * np.finfo(dtype).eps)


def test_a_power_is_made_of_few_products():
    formula = parse(_to_the_16th)
    assert [formula.values[i].op for i in formula.operations()] == ["multiply"] * 4


def _to_the_16th(x):
    return x**16
