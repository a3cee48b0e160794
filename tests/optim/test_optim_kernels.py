"""The update kernels: engines, blocks, odd strides, many parameters at once and scratch memory never change the result."""

import threading
import tracemalloc

import numpy as np
import pytest
from optimizer_table import CASES as OPTIMIZERS, update

from kobai.engine import dispatch
from kobai.formula import numpy_code as numpy_code
from kobai.formula.elementwise import ELEMENTWISE
from kobai.formula.many import Many
from kobai.optim import _formulas, adadelta, adagrad, adam, adamax, asgd, nadam, radam, rmsprop, rprop, sgd

# kernel, its numbers
CASES = [
    (sgd.sgd, (0.1,)),
    (sgd.momentum, (0.1, 0.9)),
    (sgd.dampened_momentum, (0.1, 0.9, 0.5)),
    (sgd.nesterov, (0.1, 0.9)),
    (adagrad.adagrad, (0.1, 1e-10)),
    (rmsprop.rmsprop, (0.1, 0.9, 0.1, 1e-8)),
    (rmsprop.rmsprop_momentum, (0.1, 0.9, 0.1, 1.0, 0.5)),
    (rmsprop.centered, (0.1, 0.9, 0.1, 1.0)),
    (rmsprop.centered_momentum, (0.1, 0.9, 0.1, 1.0, 0.5)),
    (adadelta.adadelta, (0.1, 0.9, 0.1, 1e-6)),
    (adam.adam, (0.1, 0.1, 0.9, 0.1, 1e-8)),
    (adam.amsgrad, (0.1, 0.1, 0.9, 0.1, 1e-8)),
    (adamax.adamax, (0.1, 0.1, 0.9, 1e-8)),
    (nadam.nadam, (0.1, 0.2, 0.1, 0.9, 0.1, 1e-8)),
    (radam.radam, (0.1, 0.1, 0.9, 0.1, 1e-8, 0.0)),
    (radam.radam, (0.1, 0.1, 0.9, 0.1, 1e-8, 1.0)),
    (rprop.rprop, (0.5, 1.2, 1e-6, 50.0)),
    (asgd.asgd, (0.1, 0.99, 0.5)),
]
CASES += [
    (kernel, numbers)
    for kernel, numbers in (update(name, flags) for name, flags, _ in OPTIMIZERS)
    if kernel not in {known for known, _ in CASES}
]
BEFORE = [
    (None, ()),
    (_formulas.decayed, (0.1,)),
    (_formulas.ascending, ()),
    (_formulas.decayed_ascending, (0.1,)),
    (_formulas.shrunk, (0.9,)),
    (_formulas.shrunk_ascending, (0.9,)),
]
VARIANTS = [
    (kernel if before is None else kernel.after(before), (*numbers, *more))
    for kernel, numbers in CASES
    for before, more in BEFORE
]
VARIANTS += [
    (kernel.unless(), (*numbers, skip))
    for kernel, numbers in (*VARIANTS[:: len(BEFORE)], VARIANTS[1])
    for skip in (0.0, 1.0)
]
IDS = [kernel.name for kernel, _ in VARIANTS]
SHAPES = [(37, 101), (5,), (), (0, 3), (1,), (64, 64), (700,)]


def test_every_update_is_here():
    """An optimiser that is new in ``kobai.optim`` is run with its defaults; kernels of its flags need a row there or here."""
    updates = {kernel for kernel in ELEMENTWISE if kernel.__module__.startswith("kobai.optim.") and not kernel.before}
    updates -= {kernel for kernel in updates if kernel.skip}
    assert updates == {kernel for kernel, _ in CASES}


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 1 KiB."""

    def shrink():
        monkeypatch.setattr(numpy_code, "BLOCK_BYTES", 1024)

    return shrink


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", False)


def arrays(kernel, shapes, dtype=np.float32, strided=False):
    """Parameters, gradients, and states, as :class:`Many` takes them."""
    rng = np.random.default_rng(0)

    def one(values):
        if not strided or not values.shape:
            return np.array(values, dtype)
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), dtype)
        wide[..., ::2] = values
        return wide[..., ::2]

    made = []
    for k in range(len(kernel.formula.arrays)):
        for shape in shapes:
            # the first state large: v − ḡ² of centred RMSprop has to stay positive
            made.append(one(rng.normal(size=shape) if k < 2 else rng.random(shape) + (5 if k == 2 else 0)))
    return made


def run(kernel, numbers, bound=False, **options):
    """Two steps on all the shapes; the bytes of everything afterwards."""
    flat = arrays(kernel, SHAPES, **options)
    before = [g.copy() for g in flat[len(SHAPES) : 2 * len(SHAPES)]]
    many = Many(kernel, len(SHAPES))
    step = many.bind(*flat, np.array(numbers, flat[0].dtype)) if bound else lambda: many(*flat, numbers)
    for _ in range(2):
        step()
    for g, was in zip(flat[len(SHAPES) : 2 * len(SHAPES)], before, strict=True):
        assert g.tobytes() == was.tobytes()
    return flat


@pytest.mark.few(6)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("kernel", "numbers"), [v for v in VARIANTS if v[0].skip], ids=[k.name for k, _ in VARIANTS if k.skip]
)
def test_a_skipped_update_changes_no_bit(kernel, numbers, dtype):
    before, after = arrays(kernel, SHAPES, dtype), run(kernel, numbers, dtype=dtype)
    same = [a.tobytes() == b.tobytes() for a, b in zip(before, after, strict=True)]
    assert all(same) == (numbers[-1] != 0)
    if numbers[-1] == 0 and dtype is not np.float16:
        plain = kernel.function if kernel.before is None else None
        usual = next(
            k for k, _ in VARIANTS if not k.skip and k.function is kernel.function and k.before is kernel.before
        )
        assert plain is None or [a.tobytes() for a in after] == [
            a.tobytes() for a in run(usual, numbers[:-1], dtype=dtype)
        ]


def as_bytes(flat):
    return [a.tobytes() for a in flat]


@pytest.mark.usefixtures("without_numba")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kernel", "numbers"), VARIANTS, ids=IDS)
def test_on_numpy_nothing_changes_a_bit(small_blocks, kernel, numbers, dtype):
    whole = as_bytes(run(kernel, numbers, dtype=dtype))
    small_blocks()
    for bound in (False, True):
        for strided in (False, True):
            assert as_bytes(run(kernel, numbers, bound, dtype=dtype, strided=strided)) == whole


@pytest.mark.few(6)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(("kernel", "numbers"), VARIANTS, ids=IDS)
def test_compiled_loops_differ_by_rounding_only(monkeypatch, kernel, numbers, dtype):
    pytest.importorskip("numba")
    compiled = [run(kernel, numbers, bound, dtype=dtype) for bound in (False, True)]
    assert as_bytes(compiled[0]) == as_bytes(compiled[1])
    with monkeypatch.context() as without:
        without.setattr(dispatch, "numba_installed", False)
        wanted = run(kernel, numbers, dtype=dtype)
    for a, b in zip(compiled[0], wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=30 * np.finfo(dtype).eps, atol=30 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("kernel", "numbers"), VARIANTS, ids=IDS)
def test_the_function_itself_on_numbers(kernel, numbers):
    """The formula that the engines run is what Python makes of the same function."""
    flat = arrays(kernel, [(20,)], np.float64)
    names = kernel.formula.arrays
    wanted = []
    for values in np.stack(flat, axis=1).tolist():
        known = dict(zip(names, values, strict=True))
        scalars = dict(zip(kernel.formula.scalars, numbers, strict=True))
        if kernel.before is not None:
            before = _called(kernel.before, known, scalars)
            changed = {
                _formulas.shrunk: ["p"],
                _formulas.shrunk_ascending: ["p", "g"],
            }.get(kernel.before, ["g"])
            known.update(zip(changed, before, strict=True))
        result = _called(kernel.function, known, scalars)
        wanted.append([dict(zip(kernel.formula.names, result, strict=True)).get(name) for name in names])
    before_it = [a.copy() for a in flat]
    Many(kernel, 1)(*flat, numbers)
    for k in range(len(names)):
        if kernel.skip and numbers[-1]:
            np.testing.assert_array_equal(flat[k], before_it[k])
            continue
        column = [row[k] for row in wanted]
        if column[0] is not None:
            np.testing.assert_allclose(flat[k], column, rtol=1e-12)


def _called(function, known, scalars):
    parameters = function.__code__.co_varnames[: function.__code__.co_argcount]
    keywords = function.__code__.co_varnames[function.__code__.co_argcount :][: function.__code__.co_kwonlyargcount]
    result = function(*(known[name] for name in parameters), **{name: scalars[name] for name in keywords})
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize(("kernel", "numbers"), CASES)
def test_gradients_of_any_layout(small_blocks, monkeypatch, kernel, numbers, numba):
    if numba:
        pytest.importorskip("numba")
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    small_blocks()
    results = []
    for layout in (np.ascontiguousarray, np.asfortranarray, lambda g: np.repeat(g, 2, axis=1)[:, ::2], _read_only):
        flat = arrays(kernel, [(40, 30), (3, 5)])
        flat[2:4] = map(layout, flat[2:4])
        Many(kernel, 2)(*flat, numbers)
        results.append([flat[0].copy(), flat[1].copy()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def _read_only(g):
    g.flags.writeable = False
    return g


def test_parameters_of_odd_strides_beside_others():
    flat = arrays(adam.adam, [(40, 30), (7,)])
    odd = [*flat]
    odd[0] = np.zeros((40, 60), np.float32)[:, ::2]
    odd[0][...] = flat[0]
    odd = [odd[0], *(a.copy() for a in odd[1:])]
    numbers = (0.1, 0.1, 0.9, 0.1, 1e-8)
    Many(adam.adam, 2)(*flat, numbers)
    Many(adam.adam, 2)(*odd, numbers)
    for a, b in zip(flat, odd, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_table_follows_when_arrays_are_replaced():
    many = Many(sgd.sgd, 2)
    for _ in range(3):
        p = [np.ones(3, np.float32), np.ones((2, 2), np.float32)]
        g = [np.ones(3, np.float32), np.ones((2, 2), np.float32)]
        for step in (1, 2):
            many(*p, *g, (0.25,))
            g = [a.copy() for a in g]
            np.testing.assert_array_equal(p[0], 1 - 0.25 * step)
            np.testing.assert_array_equal(p[1], 1 - 0.25 * step)


def test_a_bound_launch_takes_its_numbers_from_the_array():
    p, g = np.ones(3, np.float32), np.ones(3, np.float32)
    numbers = np.array([0.5], np.float32)
    for installed in (dispatch.numba_installed, False):
        p[...] = 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dispatch, "numba_installed", installed)
            step = Many(sgd.sgd, 1).bind(p, g, numbers)
        for lr in (0.5, 0.25):
            numbers[0] = lr
            step()
        np.testing.assert_array_equal(p, 0.25)


@pytest.mark.parametrize("numba", [False, True])
@pytest.mark.parametrize(("kernel", "numbers"), CASES)
def test_a_step_allocates_views_and_without_numba_some_blocks(monkeypatch, kernel, numbers, numba):
    if numba:
        pytest.importorskip("numba")
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    flat = arrays(kernel, [(300, 500), (10,)])
    many = Many(kernel, 2)
    bound = many.bind(*flat, np.array(numbers, np.float32))
    for step, most in ((lambda: many(*flat, numbers), 10_000), (bound, 2_000)):
        step()
        tracemalloc.start()
        step()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < (most if numba else 5 * numpy_code.BLOCK_BYTES)


@pytest.mark.usefixtures("without_numba")
def test_threads_have_their_own_scratch():
    results = []

    def work():
        results.append(as_bytes(run(adam.adam, (0.1, 0.1, 0.9, 0.1, 1e-8))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)
