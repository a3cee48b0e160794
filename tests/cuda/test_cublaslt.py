"""What Kobai asks of cuBLASLt, carried out as its manual says: layouts, transposes, epilogues, plans, precision."""

import gc
import itertools
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import fake_nvmath
import numpy as np
import pytest

import kobai
from kobai.cuda import cublaslt
from kobai.ops._matmul import matmul
from kobai.ops.linear.kernel import gemm, product_and_sums
from strict import StrictArray


@pytest.fixture
def library(monkeypatch):
    """cuBLASLt, in place of which stands its manual; arrays of the strict backend in place of CuPy's."""
    assert kobai.available_backends()["strict"] == ""
    found = fake_nvmath.Library()
    stream = SimpleNamespace(ptr=77)
    cupy = SimpleNamespace(
        cuda=SimpleNamespace(runtime=SimpleNamespace(getDevice=lambda: 0), get_current_stream=lambda: stream),
        empty=lambda n, dtype: StrictArray(np.empty(n, dtype)),
    )
    cublas = SimpleNamespace(ComputeType=fake_nvmath.ComputeType)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "nvmath.bindings.cublasLt", found)
    monkeypatch.setitem(sys.modules, "nvmath.bindings.cublas", cublas)
    monkeypatch.setattr(cublaslt, "takes", lambda a, b: a.size > 0 and b.size > 0)
    cublaslt.bindings.cache_clear()
    for kept in (cublaslt._handles, cublaslt._workspaces, cublaslt._plans):
        kept.clear()
    yield found
    for kept in (cublaslt._handles, cublaslt._workspaces, cublaslt._plans):
        kept.clear()
    cublaslt.bindings.cache_clear()


def device(host):
    return StrictArray(host)


def placed(rng, rows, cols, how, dtype=np.float32):
    """A matrix, and itself lying in memory in one of the ways that views make."""
    host = rng.standard_normal((rows, cols)).astype(dtype)
    if how == "rows":
        return host, host.copy()
    if how == "columns":
        return host, host.T.copy().T
    if how == "part of wider rows":
        wide = np.zeros((rows, cols + 5), dtype)
        wide[:, 2 : 2 + cols] = host
        return host, wide[:, 2 : 2 + cols]
    if how == "part of longer columns":
        long = np.zeros((cols, rows + 3), dtype)
        long[:, :rows] = host.T
        return host, long[:, :rows].T
    sparse = np.zeros((rows, 2 * cols), dtype)
    sparse[:, ::2] = host
    return host, sparse[:, ::2]


LAYOUTS = ("rows", "columns", "part of wider rows", "part of longer columns", "with gaps")
SHAPES = ((3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (33, 17, 2))


@pytest.mark.parametrize(("how_a", "how_b"), [*itertools.product(LAYOUTS, LAYOUTS)])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_every_layout_and_transpose(library, how_a, how_b, trans_a, trans_b):
    rng = np.random.default_rng(0)
    for m, k, n in SHAPES:
        a, a_there = placed(rng, *((k, m) if trans_a else (m, k)), how_a)
        b, b_there = placed(rng, *((n, k) if trans_b else (k, n)), how_b)
        wanted = (a.T if trans_a else a) @ (b.T if trans_b else b)
        y = gemm(device(a_there), device(b_there), trans_a=trans_a, trans_b=trans_b)
        np.testing.assert_allclose(y.host, wanted, rtol=1e-5, atol=1e-5)
    assert len(library.calls) == len(SHAPES)


@pytest.mark.parametrize("how", LAYOUTS)
def test_out_may_lie_anywhere(library, how):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((3, 4)), rng.standard_normal((4, 5))
    _, there = placed(rng, 3, 5, how, np.float64)
    out = device(there)
    assert matmul(device(a), device(b), out) is out
    np.testing.assert_allclose(out.host, a @ b)
    batches = rng.standard_normal((2, 3, 3, 4))
    into = device(np.full((3, 2, 3, 5), np.nan).swapaxes(0, 1))  # whose batches no single stride goes through
    assert matmul(device(batches), device(b), into) is into
    np.testing.assert_allclose(into.host, batches @ b)


@pytest.mark.parametrize("refused", [(), ("RELU_BIAS",), ("BIAS", "RELU_BIAS", "RELU")], ids=str)
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_bias_and_activation(library, with_bias, activation, refused):
    """Whether cuBLASLt knows the epilogue or not: the result is the same, and that of NumPy."""
    library.unsupported.update(refused)
    rng = np.random.default_rng(2)
    x, w, b = (rng.standard_normal(s) for s in ((6, 4), (3, 4), 3))
    options = {"trans_b": True, "activation": activation}
    wanted = gemm(x, w, bias=b if with_bias else None, **options)
    y = gemm(device(x), device(w), bias=device(b) if with_bias else None, **options)
    np.testing.assert_allclose(y.host, wanted, rtol=1e-12)
    assert len(library.calls) == 1
    named = "_".join(["RELU"] * (activation == "relu") + ["BIAS"] * with_bias) or "DEFAULT"
    assert library.calls[0].epilogue == ("DEFAULT" if named in refused else named)


@pytest.mark.parametrize("refused", [(), ("BGRADB",)], ids=str)
def test_the_bias_gradient_comes_with_the_weights(library, refused):
    library.unsupported.update(refused)
    rng = np.random.default_rng(3)
    dz, x = rng.standard_normal((6, 3)), rng.standard_normal((6, 4))
    dw, db = product_and_sums(device(dz), device(x))
    np.testing.assert_allclose(dw.host, dz.T @ x)
    np.testing.assert_allclose(db.host, dz.sum(0))
    assert [call.epilogue for call in library.calls] == (["DEFAULT"] if refused else ["BGRADB"])


@pytest.mark.parametrize("refused", [(), ("BIAS", "RELU_BIAS", "RELU", "BGRADB")], ids=["", "refused"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_factors_of_16_bits_are_added_up_in_float32(library, dtype, refused):
    """2048 ones and 1 give 2049 and not 2048, 16-bit or not; and each result is rounded once."""
    library.unsupported.update(refused)
    rng = np.random.default_rng(4)
    a, b, bias = (rng.standard_normal(s).astype(dtype) for s in ((6, 4096), (4096, 8), 8))
    wide = a.astype(np.float32) @ b.astype(np.float32)
    eps = float(kobai.finfo(dtype).eps)
    y = gemm(device(a), device(b), bias=device(bias), activation="relu")
    expected = np.maximum(wide + bias.astype(np.float32), 0)
    assert y.dtype == a.dtype
    np.testing.assert_allclose(y.host.astype(np.float32), expected, rtol=eps, atol=eps * (64 if refused else 1e-2))
    out = device(np.empty(wide.shape, np.float32))
    assert cublaslt.multiply(device(a), device(b), out)
    np.testing.assert_allclose(out.host, wide, rtol=1e-5, atol=1e-4)
    ones = np.ones((2049, 3), dtype)
    dw, db = product_and_sums(device(ones), device(ones))
    rounded = float(np.float32(2049).astype(dtype))
    assert set(dw.host.astype(float).ravel()) == set(db.host.astype(float)) == {rounded}
    exact = device(np.empty((3, 3), np.float32))
    assert cublaslt.multiply(device(ones), device(ones), exact, trans_a=True)
    assert set(exact.host.ravel()) == {2049.0}
    assert {call.compute for call in library.calls} == {"COMPUTE_32F"}


@pytest.mark.parametrize(
    "dtypes", [("float16", "bfloat16", "float32"), ("float32", "float32", "float16"), ("float64",) * 2 + ("float32",)]
)
def test_products_of_other_dtypes_are_refused(library, dtypes):
    a, b, out = (device(np.ones((4, 4), dtype)) for dtype in dtypes)
    assert not cublaslt.multiply(a, b, out)
    assert library.searches == 0


def test_a_bias_with_gaps_is_added_all_the_same(library):
    bias = device(np.arange(6.0)[::2])
    y = gemm(device(np.eye(3)), device(np.eye(3)), bias=bias)
    np.testing.assert_array_equal(y.host, np.eye(3) + np.arange(0, 6, 2))


BATCHES = [
    ((7, 2, 3), (7, 3, 4)),
    ((7, 2, 3), (3, 4)),
    ((2, 3), (7, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((5, 6, 2, 3), (5, 6, 3, 4)),
    ((1, 2, 3), (1, 3, 4)),
    ((2, 3), (3, 4)),
    ((0, 2, 3), (0, 3, 4)),
    ((7, 2, 0), (7, 0, 4)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((3,), (3,)),
    ((3,), (7, 3, 4)),
    ((7, 2, 3), (3,)),
]


@pytest.mark.parametrize(("left", "right"), BATCHES)
@pytest.mark.parametrize("swapped", [False, True])
def test_batches(library, left, right, swapped):
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal(left), rng.standard_normal(right)
    if swapped and b.ndim > 1:  # as in q·kᵀ of an attention
        b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    np.testing.assert_allclose(matmul(device(a), device(b)).host, a @ b, atol=1e-12)
    out = device(np.full((a @ b).shape, np.nan))
    assert matmul(device(a), device(b), out=out) is out
    np.testing.assert_allclose(out.host, a @ b, atol=1e-12)
    assert len(library.calls) == 2 * (a.size > 0)


def test_a_batch_that_lies_backwards(library):
    a, b = (np.random.default_rng(i).standard_normal((4, 3, 3)) for i in range(2))
    for left, right in ((a[::-1], b), (a, b[::-1]), (a[::-1], b[::-1])):
        np.testing.assert_allclose(matmul(device(left), device(right)).host, left @ right)


def test_heads_of_an_attention_are_read_in_place_or_copied(library):
    rng = np.random.default_rng(5)
    q, k = (rng.standard_normal((2, 5, 3, 4)).transpose(0, 2, 1, 3) for _ in range(2))
    scores = matmul(device(q), device(k.swapaxes(-1, -2)))
    np.testing.assert_allclose(scores.host, q @ k.swapaxes(-1, -2))


def test_empty_products(library):
    y = gemm(device(np.zeros((2, 0))), device(np.zeros((0, 3))), bias=device(np.ones(3)), activation="relu")
    np.testing.assert_array_equal(y.host, np.ones((2, 3)))
    _, sums = product_and_sums(device(np.zeros((0, 2))), device(np.zeros((0, 3))))
    np.testing.assert_array_equal(sums.host, [0, 0])
    assert not library.calls


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes(library, dtype):
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((3, 4)).astype(dtype), rng.standard_normal((4, 5)).astype(dtype)
    y = gemm(device(a), device(b))
    assert y.dtype == dtype
    np.testing.assert_allclose(y.host, a @ b, rtol=1e-2 if dtype == np.float16 else 1e-5)
    assert library.calls[0].compute == ("COMPUTE_64F" if dtype == np.float64 else "COMPUTE_32F")


def test_integers_are_no_business_of_cublas(library):
    y = gemm(device(np.arange(6).reshape(2, 3)), device(np.arange(6).reshape(3, 2)))
    np.testing.assert_array_equal(y.host, np.arange(6).reshape(2, 3) @ np.arange(6).reshape(3, 2))
    assert not library.calls


def test_a_signature_is_planned_once(library):
    rng = np.random.default_rng(7)
    w, b = device(rng.standard_normal((3, 4))), device(rng.standard_normal(3))
    for _ in range(4):
        x = device(rng.standard_normal((6, 4)))
        bias = device(b.host + rng.standard_normal())  # its address may change from call to call
        np.testing.assert_allclose(gemm(x, w, trans_b=True, bias=bias).host, x.host @ w.host.T + bias.host)
    assert library.searches <= 3  # NumPy aligns memory to 16, 32 or 64 bytes as it happens
    library.searches = 0
    gemm(device(rng.standard_normal((7, 4))), w, trans_b=True)
    assert library.searches == 1


def test_two_threads_share_a_plan(library):
    """The address of the bias is set for each call; another thread must not come between that and the product."""
    rng = np.random.default_rng(9)
    x, w = (device(rng.standard_normal(s)) for s in ((6, 4), (3, 4)))
    biases = [device(np.full(3, k)) for k in (0.0, 100.0)]
    gemm(x, w, trans_b=True, bias=biases[0])
    plain, meeting = library.matmul_desc_set_attribute, threading.Barrier(2)

    def slow(*args):
        plain(*args)
        with suppress(threading.BrokenBarrierError):
            meeting.wait(0.2)  # for the other thread to set its address, if it can

    library.matmul_desc_set_attribute = slow
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda bias: gemm(x, w, trans_b=True, bias=bias).host, biases))
    for y, bias in zip(found, biases, strict=True):
        np.testing.assert_allclose(y, x.host @ w.host.T + bias.host)


def test_what_is_less_aligned_is_planned_as_such(library):
    memory = np.zeros(64, np.float32)
    for offset in range(5):
        a = memory[offset : offset + 12].reshape(3, 4)
        a[...] = np.arange(12).reshape(3, 4)
        np.testing.assert_array_equal(gemm(device(a), device(np.eye(4, dtype=np.float32))).host, a)


def test_descriptors_are_given_back(library):
    for n in range(1, 20):
        gemm(device(np.ones((n, 2))), device(np.ones((2, 3))))
    handles = 1
    assert len(library.alive) == handles + 19 * 4
    cublaslt._plans.clear()
    gc.collect()
    assert len(library.alive) == handles


def test_plans_do_not_pile_up(library, monkeypatch):
    monkeypatch.setattr(cublaslt, "PLANS", 8)
    for n in range(1, 30):
        gemm(device(np.ones((n, 2))), device(np.ones((2, 3))))
        assert len(cublaslt._plans) <= 8


@pytest.mark.parametrize(("precision", "roundings"), [("highest", 24), ("high", 11), ("medium", 8)])
def test_precision_of_float32(library, precision, roundings):
    """1 + 2⁻ʳ is the first number that r bits do not hold."""
    kobai.set_float32_matmul_precision(precision)
    try:
        value = np.float32(1 + 2.0 ** (1 - roundings))
        a, one = np.full((1, 1), value, np.float32), np.ones((1, 1), np.float32)
        assert gemm(device(a), device(one)).host == value
        if precision != "highest":
            a[...] = 1 + 2.0**-roundings
            assert gemm(device(a), device(one)).host == 1
        doubled = gemm(device(a.astype(np.float64)), device(one.astype(np.float64)))
        assert doubled.host == a
    finally:
        kobai.set_float32_matmul_precision("highest")


def test_sums_written_as_products_keep_full_precision(library):
    kobai.set_float32_matmul_precision("medium")
    try:
        x = np.random.default_rng(8).standard_normal((5, 40)).astype(np.float32)
        sums = matmul(device(x), device(np.ones(40, np.float32)))
        np.testing.assert_allclose(sums.host, x.sum(1), rtol=1e-5, atol=1e-5)
        assert [call.compute for call in library.calls] == ["COMPUTE_32F"]
    finally:
        kobai.set_float32_matmul_precision("highest")


def test_without_nvmath_products_go_through_the_array_library_and_it_is_said_once(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "nvmath.bindings.cublasLt", None)
    cublaslt.bindings.cache_clear()
    with caplog.at_level(logging.WARNING, "kobai"):
        assert not cublaslt.is_available()
        assert not cublaslt.is_available()
    assert len(caplog.records) == 1
    assert "pip install" in caplog.text
    cublaslt.bindings.cache_clear()
