"""The update kernels: blocks, odd strides and scratch memory never change a bit of the result."""

import threading
import tracemalloc

import numpy as np
import pytest

from kobai.kernels import optim as kernels

# kernel, number of state arrays (None: one that is left out), scalars
CASES = [
    (kernels.sgd, [], (0.1,)),
    (kernels.momentum, [1], (0.1, 0.9)),
    (kernels.dampened_momentum, [1], (0.1, 0.9, 0.5)),
    (kernels.nesterov, [1], (0.1, 0.9)),
    (kernels.adagrad, [1], (0.1, 1e-10)),
    (kernels.rmsprop, [1, None, None], (0.1, 0.9, 0.1, 1e-8, 0.0)),
    (kernels.rmsprop, [1, 1, 1], (0.1, 0.9, 0.1, 1.0, 0.5)),
    (kernels.adadelta, [1, 1], (0.1, 0.9, 0.1, 1e-6)),
    (kernels.adam, [1, 1, None], (0.1, 0.1, 0.9, 0.1, 1e-8)),
    (kernels.adam, [1, 1, 1], (0.1, 0.1, 0.9, 0.1, 1e-8)),
    (kernels.adamax, [1, 1], (0.1, 0.1, 0.9, 1e-8)),
    (kernels.nadam, [1, 1], (0.1, 0.2, 0.1, 0.9, 0.1, 1e-8)),
    (kernels.radam_warmup, [1, 1], (0.1, 0.1, 0.9, 0.1)),
]
EXTRAS = [{}, {"l2": 0.1}, {"shrink": 0.9, "maximize": True}, {"l2": 0.1, "maximize": True}]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 1 KiB, with scratch memory of their own."""

    def shrink():
        monkeypatch.setattr(kernels, "BLOCK_BYTES", 1024)
        monkeypatch.setattr(kernels, "_thread", threading.local())

    return shrink


def arrays(shape, dtype, pattern, strided=False):
    rng = np.random.default_rng(0)

    def one(values):
        if not strided:
            return np.asarray(values, dtype)
        wide = np.zeros((*shape[:-1], 2 * shape[-1]), dtype)
        wide[..., ::2] = values
        return wide[..., ::2]

    p, g = one(rng.normal(size=shape)), one(rng.normal(size=shape))
    # the first large: v − ḡ² of centred RMSprop has to stay positive
    state = tuple(None if a is None else one(rng.random(shape) + (5 if i == 0 else 0)) for i, a in enumerate(pattern))
    return p, g, state


def run(kernel, pattern, scalars, extra, **options):
    p, g, state = arrays(pattern=pattern, **options)
    before = g.copy()
    for _ in range(2):
        kernel(p, g, state, scalars, **extra)
    assert g.tobytes() == before.tobytes()
    return [a.tobytes() for a in (p, *state) if a is not None]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize(("kernel", "pattern", "scalars"), CASES)
def test_blocks_do_not_change_a_bit(small_blocks, kernel, pattern, scalars, extra, dtype):
    shape = (37, 101)
    whole = run(kernel, pattern, scalars, extra, shape=shape, dtype=dtype)
    assert run(kernel, pattern, scalars, extra, shape=shape, dtype=dtype, strided=True) == whole
    small_blocks()
    assert run(kernel, pattern, scalars, extra, shape=shape, dtype=dtype) == whole
    assert run(kernel, pattern, scalars, extra, shape=shape, dtype=dtype, strided=True) == whole


@pytest.mark.parametrize(("kernel", "pattern", "scalars"), CASES)
def test_a_gradient_with_odd_strides(small_blocks, kernel, pattern, scalars):
    small_blocks()
    p, g, state = arrays((40, 30), np.float32, pattern)
    q, _, other = arrays((40, 30), np.float32, pattern)
    kernel(p, g, state, scalars)
    kernel(q, np.asfortranarray(g), other, scalars)
    assert p.tobytes() == q.tobytes()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
@pytest.mark.parametrize(("kernel", "pattern", "scalars"), CASES)
def test_small_shapes(kernel, pattern, scalars, shape):
    run(kernel, pattern, scalars, {"l2": 0.1}, shape=shape, dtype=np.float32)


@pytest.mark.parametrize(("kernel", "pattern", "scalars"), CASES)
def test_one_step_allocates_nothing_but_views(kernel, pattern, scalars):
    p, g, state = arrays((300, 500), np.float32, pattern)
    kernel(p, g, state, scalars, l2=0.1)
    tracemalloc.start()
    kernel(p, g, state, scalars, l2=0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


def test_threads_have_their_own_scratch():
    results = []

    def work():
        results.append(
            run(kernels.adam, [1, 1, None], (0.1, 0.1, 0.9, 0.1, 1e-8), {}, shape=(300, 400), dtype=np.float32)
        )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)


def test_scratch_views_are_bounded():
    for n in range(1, 700):
        kernels._scratch((n,), np.dtype(np.float32))
    assert len(kernels._thread.views) <= 512
