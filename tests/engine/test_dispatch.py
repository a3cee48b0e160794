"""Which engine runs: decided in one place, by the arrays and by what is installed."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import kernel_data  # noqa: F401 - imports all kernels
import kobai
from kobai.engine import dispatch
from kobai.engine.dispatch import DEVICE, HOST, TABLE, device, engine_for, host, kernel
from strict import StrictArray

needs_numba = pytest.mark.skipif(not dispatch.numba_installed, reason="needs Numba")
kobai.available_backends()  # loads ``strict``
KERNELS = {f"{function.__module__}.{function.__name__}": function for function in TABLE}


@pytest.fixture
def chosen(monkeypatch):
    """The engine for which a kernel is run with these arguments."""

    def chosen(function, *args):
        with monkeypatch.context() as patch:
            for engine in TABLE[function]:
                patch.setitem(TABLE[function], engine, lambda *args, engine=engine: engine)
            return function(*args)

    return chosen


@pytest.fixture
def tripled():
    @kernel("x", "bias", when=lambda x, bias, factor=3: factor)
    def tripled(x, bias, factor=3):
        return "reference"

    host(tripled)(lambda x, bias, factor=3: "host")
    device(tripled)(lambda x, bias, factor=3: "device")
    yield tripled
    del TABLE[tripled]


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_loops_take_host_arrays_of_one_float_dtype_in_rows(dtype):
    x = np.ones((4, 6), dtype)
    assert engine_for([x, None, x]) == engine_for([x], halves=True) == engine_for([x[:0]]) == HOST
    other = np.float64 if dtype == np.float32 else np.float32
    for odd in (x.T, x[:, ::2], x.astype(other), x.astype(np.float16), x.astype(int), StrictArray(x), StrictArray(x.T)):
        assert engine_for([x, odd], halves=True) is engine_for([odd, x], halves=True) is None


def test_arrays_that_no_twin_takes():
    x = np.ones((4, 6), np.float32)
    for odd in (x.T, x.astype(np.float16), x.astype(np.int64), x > 0, StrictArray(x), StrictArray(x.T), None):
        assert engine_for([odd], halves=True) is None
    assert engine_for([]) is None


def test_without_numba_host_arrays_are_for_the_reference(monkeypatch, tripled, chosen):
    monkeypatch.setattr(dispatch, "numba_installed", False)
    x = np.ones(3, np.float32)
    assert engine_for([x]) is None
    assert tripled(x, None) == "reference"
    assert chosen(tripled, x, None) is None


@needs_numba
def test_a_kernel_runs_the_twin_that_takes_its_arrays(tripled):
    x = np.ones(3, np.float32)
    assert tripled(x, None) == tripled(x, x, 4) == "host"
    assert tripled(x, x, 0) == "reference"  # ``when``
    assert tripled(x, x.astype(np.float64)) == tripled(x, x.T[::-1]) == "reference"
    assert tripled(StrictArray(x), None) == "reference"


@pytest.mark.parametrize("name", KERNELS)
def test_twins_have_the_parameters_of_their_reference(name):
    runs = TABLE[KERNELS[name]]
    assert runs.keys() == {HOST, DEVICE, None}
    for twin in runs.values():
        parameters = list(inspect.signature(twin).parameters.values())
        assert parameters
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
            assert [p.name for p in parameters] == list(inspect.signature(runs[None]).parameters)


CTC = (np.array([[0, 1, 0]]), np.array([4]), np.array([1]))  # labels, and the lengths of inputs and targets
CALLS = {
    "batch_norm.kernel.affine": lambda x, v: (x, v, v, v, None),
    "batch_norm.kernel.train": lambda x, v: (x, v, v, None, None, 0.1, 1e-5, None),
    "cross_entropy.kernel.cross_entropy": lambda x, v: (x, np.arange(4), v, -100, "mean", 0.0),
    "cross_entropy.kernel.nll_loss": lambda x, v: (x, np.arange(4), v, -100, "mean"),
    "ctc.kernel.backward": lambda x, v: (
        v[:1],
        x.reshape(4, 1, 6),
        0 * x[:1, :3],
        v[:1],
        np.zeros((1, 4, 5), x.dtype),
        *CTC,
        False,
    ),
    "ctc.kernel.forward": lambda x, v: (x.reshape(4, 1, 6), 0 * x[:1, :3], *CTC),
    "dropout.kernel.dropout": lambda x, v: (x, 0.5, None),
    "dropout.kernel.masked": lambda x, v: (x, x > 0, 2.0),
    "linear.columns.activation_backward": lambda x, v: (x, x, "relu", True),
    "linear.columns.bias_activation": lambda x, v: (x, v, "relu"),
    "linear.columns.column_sums": lambda x, v: (x,),
    "norm.group_kernel.group_norm": lambda x, v: (x.reshape(1, 2, 12), v[:2], v[:2], 1, 1e-5),
    "norm.layer_kernel.layer_norm": lambda x, v: (x, v, v, 6, 1e-5, True),
}
"""A call of each kernel that its twin on the host takes."""


def test_every_kernel_is_called_here():
    assert [f"kobai.ops.{name}" for name in CALLS] == sorted(KERNELS)


@needs_numba
@pytest.mark.parametrize("name", CALLS)
def test_each_kernel_runs_its_reference_without_numba_and_on_other_libraries(name, monkeypatch, chosen):
    function, call = KERNELS[f"kobai.ops.{name}"], CALLS[name]
    x, v = np.ones((4, 6), np.float32), np.ones(6, np.float32)
    assert TABLE[function][HOST] is not TABLE[function][None]
    assert chosen(function, *call(x, v)) == HOST
    assert chosen(function, *call(x.astype(np.float16), v.astype(np.float16))) is None
    assert chosen(function, *call(StrictArray(x), StrictArray(v))) is None
    monkeypatch.setattr(dispatch, "numba_installed", False)
    assert chosen(function, *call(x, v)) is None


def test_nothing_else_decides():
    """Whether Numba is installed is asked in ``dispatch``; beside it by those who tell the user, and by what is no kernel."""
    root = Path(kobai.__file__).parent
    asks = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr == "numba_installed")
        or (isinstance(node, ast.Name) and node.id == "numba_installed")
    }
    # the stream of random words is drawn for arrays of any dtype; our own GEMM is a library, not a twin; processes and
    # shipped hashes compare what is installed
    tell = {"cli/info.py", "cli/warmup.py", "bits/verification.py", "train/shards.py"}
    assert asks == {"engine/dispatch.py", "cpu/blas.py", "ops/dropout/philox.py", *tell}
