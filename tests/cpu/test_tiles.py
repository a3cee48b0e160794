"""The innermost loops of a product: for any width of vectors the same bits, and for processors without them none."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kobai.cpu import blas, product, team, tiles
from kobai.engine import dispatch
from kobai.ops._matmul import matmul

pytest.importorskip("numba")
needs_tiles = pytest.mark.skipif(not blas.own(), reason="this processor is left to NumPy's BLAS")
DTYPES = ["float32", "float64"]


# --- which processor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triple", "features", "expected"),
    [
        ("x86_64-unknown-linux-gnu", "+sse2,+avx,+avx2,+fma,+avx512f,+avx512vl", (64, 8)),
        ("x86_64-unknown-linux-gnu", "+sse2,+avx,+avx2,+fma,-avx512f", (32, 6)),
        ("x86_64-pc-windows-msvc", "+avx2,+fma", (32, 6)),
        ("x86_64-apple-darwin", "+sse2,+avx,+avx2,-fma", (0, 0)),
        ("x86_64-unknown-linux-gnu", "+sse2,+avx,+fma", (0, 0)),
        ("x86_64-unknown-linux-gnu", "", (0, 0)),
        ("aarch64-unknown-linux-gnu", "+neon", (16, 8)),
        ("arm64-apple-darwin23.5.0", "", (16, 8)),
        ("powerpc64le-unknown-linux-gnu", "+vsx", (0, 0)),
    ],
)
def test_tiles_fit_the_registers_of_a_processor(monkeypatch, triple, features, expected):
    codegen = importlib.import_module("numba.core.registry").cpu_target.target_context.codegen()
    monkeypatch.setattr(type(codegen), "magic_tuple", lambda self: (triple, "generic", features))
    vector, rows = tiles.machine.__wrapped__()
    assert (vector, rows) == expected
    registers = 32 if vector in (16, 64) else 16
    assert rows * tiles.VECTORS + tiles.VECTORS + 1 <= registers


def test_this_machine():
    assert tiles.machine() in {(64, 8), (32, 6), (16, 8), (0, 0)}
    assert product.available() == (tiles.machine() != (0, 0))


# --- copies -------------------------------------------------------------------------------------------------------------


turn = tiles.turn  # by this name Numba is to know it


@dispatch.compiled
def turned(size, source, row, target, step):
    turn(size, source, row, target, step)


@needs_tiles
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_square_is_turned(dtype):
    size = np.dtype(dtype).itemsize
    n = tiles.machine()[0] // size
    source = np.arange(n * (n + 3), dtype=dtype).reshape(n, n + 3)
    target = np.full((n, n + 5), -1, dtype)
    turned(size, source.ctypes.data, source.strides[0], target.ctypes.data, target.strides[0])
    np.testing.assert_array_equal(target[:, :n], source[:, :n].T)
    assert (target[:, n:] == -1).all()


@needs_tiles
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["rows", "columns", "apart"])
def test_panels_hold_columns_and_zeros_beyond_the_last(dtype, layout):
    size = np.dtype(dtype).itemsize
    lanes = tiles.machine()[0] // size
    wide = tiles.VECTORS * lanes
    for k in (1, lanes - 1, lanes, 2 * lanes + 1):
        for n in (1, lanes - 1, lanes, lanes + 1, wide - 1, wide, wide + 1, 2 * wide + lanes + 1):
            b = np.arange(1, k * n + 1, dtype=dtype).reshape(k, n)
            lies = {"rows": b, "columns": np.asfortranarray(b), "apart": np.repeat(np.repeat(b, 2, 0), 2, 1)[::2, ::2]}[
                layout
            ]
            panels = []
            for j in range(0, n, wide):
                columns = b[:, j : j + wide]
                room = wide if columns.shape[1] > lanes else lanes
                panels.append(np.pad(columns, ((0, 0), (0, room - columns.shape[1]))).ravel())
            expected = np.concatenate(panels)
            memory = np.full(len(expected) + wide, -1, dtype)
            product.pack(size, k, n, lies.ctypes.data, *lies.strides, memory.ctypes.data)
            np.testing.assert_array_equal(memory[: len(expected)], expected)
            assert (memory[len(expected) :] == -1).all()


# --- vectors of other widths ----------------------------------------------------------------------------------------------


def multiply(a, b, grid=(1, 1), parts=1):
    out = np.full((len(a), b.shape[1]), np.nan, a.dtype)
    job = product.Product()
    assert job.describe(a, b, out, grid, inner_parts=parts)
    team.alone(job.address, team.scratch())
    return out


def digests():
    """What tells the bits of products apart."""
    rng = np.random.default_rng(0)
    found = []
    for dtype in DTYPES:
        for m, k, n in [(1, 1, 1), (3, 9, 5), (7, 8, 16), (13, 40, 33), (20, 385, 31), (65, 70, 150), (40, 800, 260)]:
            a, b = (rng.standard_normal((2 * x, 2 * y)).astype(dtype) for x, y in ((m, k), (k, n)))
            wide = np.asfortranarray(a[:m, :k]).T.repeat(2, 0)[::2].T
            for left in (a[:m, :k], a.T[:m, :k], a[::2, ::2], a[m - 1 :: -1, :k], wide):
                for right in (b[:k, :n], b.T[:k, :n], b[::2, ::2]):
                    grid = (2, 2) if n > 32 else (1, 1)
                    found.append(hashlib.sha1(multiply(left, right, grid)).hexdigest())
                    if k == 40:
                        found.append(hashlib.sha1(multiply(left, right, grid, 8)).hexdigest())
    return found


def report(*machine):
    """Of a process of its own: its tiles, and the products it gets, as tiles of this ``machine`` if that is given."""
    if machine:
        tiles.machine = product.machine = lambda: machine
    a, b = np.random.default_rng(0).standard_normal((2, 60, 60)).astype(np.float32)
    numpys = blas.on_one_thread(np.matmul, a, b).tobytes()
    same = matmul(a, b).tobytes() == numpys
    print(json.dumps([tiles.machine(), blas.own(), same, digests() if blas.own() else []]))


def report_of(machine, folder, **environment):
    code = f"import test_tiles; test_tiles.report({', '.join(map(str, machine))})"
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, "NUMBA_CACHE_DIR": str(folder), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


SSE = "+cmov,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt"
AVX2 = f"{SSE},+avx,+avx2,+fma,+bmi,+bmi2"


@pytest.mark.thorough
@needs_tiles
@pytest.mark.parametrize("machine", [(16, 8), (32, 6), (64, 8)])
def test_vectors_of_another_width_give_the_same_bits(tmp_path, machine):
    if machine == tiles.machine():
        pytest.skip("this processor's own width")
    assert report_of(machine, tmp_path)[3] == digests()


@pytest.mark.thorough
@needs_tiles
@pytest.mark.skipif(tiles.machine()[0] < 32, reason="not an x86 with AVX2")
def test_a_processor_with_avx2_gives_the_same_bits(tmp_path):
    found = report_of((), tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=AVX2)
    assert found[:2] == [[32, 6], True]
    assert found[3] == digests()


@pytest.mark.skipif(tiles.machine()[0] < 32, reason="not an x86 with AVX2")
def test_products_of_a_processor_without_fused_sums_are_numpys(tmp_path):
    found = report_of((), tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=f"{SSE},+avx,+avx2,-fma")
    assert found == [[0, 0], False, True, []]
