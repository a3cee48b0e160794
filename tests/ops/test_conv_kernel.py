"""Convolution in parts: every geometry, one set of bits whoever computes a part, and no memory in a replay."""

import threading
from itertools import product

import numpy as np
import pytest

import kobai
from engines import host_engine, peak_bytes  # noqa: F401 - a fixture
from kobai import nn
from kobai.cpu import blas, threads
from kobai.engine import dispatch
from kobai.ops._windows import Windows, n_windows
from kobai.ops.conv import direct, image_loops, jobs, kernel as conv_kernel

OWN = dispatch.numba_installed and blas.own()
needs_loops = pytest.mark.skipif(not OWN, reason="needs Numba, and a processor that multiplies and adds at once")

WINDOWS = {
    "by image": Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (12, 12), (12, 12)),
    "by block": Windows((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1)), (12, 12), (6, 6)),
}


@pytest.fixture
def with_threads(monkeypatch):
    """Sets how many threads there are, in a pool of their own."""

    def set_threads(planned, present=None):
        monkeypatch.setattr(threads, "pool", threads.Pool())
        for module in (image_loops, direct):
            monkeypatch.setattr(module, "num_threads", lambda: planned)
        monkeypatch.setattr(threads, "num_threads", lambda: present or planned)

    return set_threads


def everything(w, x, weight, dy, bias, groups=1):
    return (
        conv_kernel.convolve(x, weight, w, groups, bias),
        conv_kernel.convolve_transposed(dy, weight, w, groups),
        conv_kernel.weight_gradient(x, dy, w, groups, weight.shape),
    )


@np.errstate(invalid="ignore")
def defined(w, x, weight, dy, bias, groups=1):
    """The three as sums over the kernel's elements, in float64."""
    x, weight, dy = (array.astype("d") for array in (x, weight, dy))
    n, filters = x.shape[0], weight.shape[0]
    wide, dwide = np.zeros((*x.shape[:2], *w.padded)), np.zeros((*x.shape[:2], *w.padded))
    wide[(..., *w.inside)] = x
    y, dweight = np.zeros((n, filters, *w.out)), np.zeros(weight.shape)
    each, channels = filters // groups, weight.shape[1]
    for g, (t, where) in product(range(groups), w.taps()):
        o, c = slice(g * each, (g + 1) * each), slice(g * channels, (g + 1) * channels)
        kernel = weight.reshape(*weight.shape[:2], -1)[o, :, t]
        part, d = wide[(slice(None), c, *where)], dy[:, o]
        y[:, o] += np.einsum("oc,nc...->no...", kernel, part)
        dwide[(slice(None), c, *where)] += np.einsum("oc,no...->nc...", kernel, d)
        rows, columns = (array.swapaxes(0, 1).reshape(array.shape[1], -1) for array in (d, part))
        dweight.reshape(*weight.shape[:2], -1)[o, :, t] = rows @ columns.T
    if bias is not None:
        y += bias.reshape(-1, *(1,) * len(w.out))
    return y, dwide[(..., *w.inside)], dweight


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def geometry(rng):
    """Windows drawn at random, in one to three dimensions."""
    while True:
        d = int(rng.integers(1, 4))
        size = tuple(rng.integers(1, 22 if d < 3 else 8, d).tolist())
        kernel, stride, dilation = (tuple(rng.choice(of, d).tolist()) for of in ((1, 2, 3), (1, 1, 2, 3), (1, 1, 2)))
        pads = tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (d, 2)))
        if rng.random() < 0.15:
            kernel = stride = dilation = (1,) * d
            pads = ((0, 0),) * d
        fields = zip(size, kernel, stride, pads, dilation, strict=True)
        out = tuple(n_windows(n, k, s, sum(p), e) for n, k, s, p, e in fields)
        if min(out) > 0:
            return Windows(kernel, stride, dilation, pads, size, out)


def wherever_it_can(kind, w, *_):
    """Without columns, if that would be slower, too."""
    return kind == image_loops.WEIGHTS or set(w.stride) == {1}


@pytest.mark.usefixtures("host_engine")
@pytest.mark.parametrize("room", [1 << 19, 1, "without columns", "a line without columns"])
@pytest.mark.parametrize("seed", range(40))
def test_any_geometry_is_what_the_sums_say(seed, room, monkeypatch):
    if room in (1, "a line without columns"):  # some lines of an image at a time
        monkeypatch.setattr(image_loops, "ROOM", 1)
        monkeypatch.setattr(direct, "RESULTS", 1)
    if "columns" in str(room):
        monkeypatch.setattr(jobs, "takes", lambda *geometry: geometry[-1] == 4 and wherever_it_can(*geometry))
    jobs._spare.cache_clear()
    rng = np.random.default_rng(seed)
    w, groups, dtype = geometry(rng), int(rng.choice([1, 1, 2, 3])), rng.choice(["f", "d"])
    n, channels, filters = (int(rng.integers(1, most)) for most in (12, 5, 9))
    x, dy = (rng.normal(size=s).astype(dtype) for s in ((n, groups * channels, *w.size), (n, groups * filters, *w.out)))
    weight = rng.normal(size=(groups * filters, channels, *w.kernel)).astype(dtype)
    bias = rng.normal(size=groups * filters).astype(dtype) if rng.random() < 0.5 else None
    arrays = x, weight, dy, bias
    for found, expected in zip(everything(w, *arrays, groups), defined(w, *arrays, groups), strict=True):
        assert found.dtype == dtype
        tolerance = 1e-4 if dtype == "f" else 1e-12
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("way", WINDOWS)
def test_arrays_may_lie_anyhow(way, host_engine):  # noqa: F811
    same = np.testing.assert_array_equal if OWN and host_engine == "numba" else close
    w, rng = WINDOWS[way], np.random.default_rng(0)
    x, weight = rng.normal(size=(5, 3, 12, 12)).astype("f"), rng.normal(size=(5, 3, 3, 3)).astype("f")
    dy, bias = rng.normal(size=(5, 5, *w.out)).astype("f"), rng.normal(size=5).astype("f")
    expected = everything(w, x, weight, dy, bias)
    apart = [np.repeat(a, 2, -1)[..., ::2] for a in (x, weight, dy, bias)]
    turned = [np.asfortranarray(a) for a in (x, weight, dy, bias)]
    for arrays in (apart, turned):
        for found, array in zip(everything(w, *arrays), expected, strict=True):
            same(found, array)


@pytest.mark.usefixtures("host_engine")
def test_without_images_or_channels_there_is_nothing_to_add_up():
    w = WINDOWS["by image"]
    for n, channels, filters in [(0, 3, 5), (2, 0, 5), (2, 3, 0)]:
        x, weight = np.ones((n, channels, 12, 12), "f"), np.ones((filters, channels, 3, 3), "f")
        y, dx, dweight = everything(w, x, weight, np.ones((n, filters, 12, 12), "f"), None)
        assert (y.shape, dx.shape, dweight.shape) == ((n, filters, 12, 12), x.shape, weight.shape)
        assert not y.any()
        assert not dx.any()
        assert not dweight.any()


@needs_loops
@pytest.mark.parametrize("way", WINDOWS)
def test_a_number_that_is_none_stays_where_windows_meet_it(way):
    w, x = WINDOWS[way], np.ones((4, 2, 12, 12), "f")
    x[1, 0, 5, 5] = np.nan
    x[2, 1, 11, 11] = np.inf
    weight = np.ones((3, 2, 3, 3), "f")
    y = conv_kernel.convolve(x, weight, w, 1)
    expected = defined(w, x, weight, np.zeros_like(y), None)[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(y), np.isinf(expected))
    dy = np.ones((4, 3, *w.out), "f")
    dy[0, 0, 0, -1] = np.nan
    dx = conv_kernel.convolve_transposed(dy, weight, w, 1)
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(defined(w, x, weight, dy, None)[1]))


# --- threads ----------------------------------------------------------------------------------------------------------


@needs_loops
@pytest.mark.parametrize("way", WINDOWS)
def test_bits_do_not_depend_on_the_number_of_threads(way, with_threads):
    w, rng = WINDOWS[way], np.random.default_rng(0)
    x, weight = rng.normal(size=(37, 3, 12, 12)).astype("f"), rng.normal(size=(5, 3, 3, 3)).astype("f")
    dy, bias = rng.normal(size=(37, 5, *w.out)).astype("f"), rng.normal(size=5).astype("f")
    with_threads(1)
    alone = everything(w, x, weight, dy, bias)
    for planned, present in [
        (2, 2),
        (3, 3),
        (1, 4),
        (3, 6),
    ]:  # more may come than were planned for: they wait for memory
        with_threads(planned, present)
        for _ in range(5):
            for found, expected in zip(everything(w, x, weight, dy, bias), alone, strict=True):
                np.testing.assert_array_equal(found, expected)


@needs_loops
def test_callers_at_once_do_not_meet(with_threads):
    w, rng = WINDOWS["by image"], np.random.default_rng(0)
    with_threads(3)
    cases = [
        (w, *(rng.normal(size=s).astype("f") for s in ((n, 3, 12, 12), (5, 3, 3, 3), (n, 5, 12, 12), (5,))))
        for n in (1, 8, 20, 33)
    ]
    expected = [everything(*case) for case in cases]
    wrong = []

    def run(i):
        for _ in range(20):
            found = everything(*cases[i])
            wrong.extend(i for a, b in zip(found, expected[i], strict=True) if not np.array_equal(a, b))

    callers = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@needs_loops
@pytest.mark.parametrize("seed", range(8))
def test_results_have_the_same_bits_without_columns(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    n, channels, filters, size = (int(rng.integers(1, most)) for most in (4, 60, 20, 20))
    w = Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (size + 2, size), (size + 2, size))
    x, weight = (rng.normal(size=s).astype("f") for s in ((n, channels, *w.size), (filters, channels, 3, 3)))
    found = []
    for takes in (wherever_it_can, lambda *_: False):
        monkeypatch.setattr(jobs, "takes", takes)
        jobs._spare.cache_clear()
        found.append(conv_kernel.convolve(x, weight, w, 1, weight[:, 0, 0, 0].copy()))
    jobs._spare.cache_clear()
    np.testing.assert_array_equal(*found)


@needs_loops
def test_what_lies_between_lines_reaches_no_result():
    """NaN at an image's end is met by no window of another line, nor by the weight's other elements."""
    w = Windows((3, 3), (1, 1), (1, 1), ((0, 0), (0, 0)), (18, 18), (16, 16))
    rng = np.random.default_rng(0)
    x, weight, dy = (rng.normal(size=s).astype("f") for s in ((2, 8, 18, 18), (8, 8, 3, 3), (2, 8, 16, 16)))
    x[0, :, 5, 17] = np.nan
    assert all(direct.takes(kind, w, 72, 8, 4) for kind in (image_loops.FORWARD, image_loops.WEIGHTS))
    y, _, dweight = everything(w, x, weight, dy, None)
    lines, columns = np.nonzero(np.isnan(y[0, 0]))
    assert (set(lines), set(columns)) == ({3, 4, 5}, {15})
    assert not np.isnan(y[1]).any()
    assert np.isnan(dweight[..., 2]).all()
    assert not np.isnan(dweight[..., :2]).any()


@needs_loops
def test_columns_are_made_a_few_lines_or_images_at_a_time():
    large = Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (224, 224), (224, 224))
    images, lines = image_loops.blocks_of(large, 8, 64 * 9, 4)
    assert (images, lines) == (1, 1)
    small = Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (4, 4), (4, 4))
    images, lines = image_loops.blocks_of(small, 100, 64 * 9, 4)
    assert (images, lines) == (8, 4)
    job = image_loops.Columns(
        image_loops.FORWARD, large, 1, *(np.ones(s, "f") for s in ((2, 64, 224, 224), (2, 8, 224, 224)))
    )
    assert job.rooms.nbytes < job.parts * 16 << 20  # columns of a whole image would be 116 MB


@needs_loops
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_job_that_was_kept_serves_other_arrays(with_bias, monkeypatch):
    made = []
    first = image_loops.Images.__init__
    monkeypatch.setattr(image_loops.Images, "__init__", lambda *args: made.append(1) or first(*args))
    jobs._spare.cache_clear()
    rng = np.random.default_rng(0)
    w = Windows((3, 3), (2, 1), (1, 1), ((1, 1), (1, 1)), (7, 5), (4, 5))
    for _ in range(4):
        x, weight, dy = (rng.normal(size=s).astype("f") for s in ((3, 4, 7, 5), (6, 4, 3, 3), (3, 6, 4, 5)))
        bias = rng.normal(size=6).astype("f") if with_bias else None
        found = (
            conv_kernel.convolve(x, weight, w, 1, bias),
            conv_kernel.convolve_transposed(dy, weight, w, 1),
            conv_kernel.weight_gradient(x, dy, w, 1, weight.shape),
        )
        assert len(made) == 3
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "_spare", lambda *geometry: [])
            fresh = (
                conv_kernel.convolve(x, weight, w, 1, bias),
                conv_kernel.convolve_transposed(dy, weight, w, 1),
                conv_kernel.weight_gradient(x, dy, w, 1, weight.shape),
            )
        for kept, new in zip(found, fresh, strict=True):
            np.testing.assert_array_equal(kept, new)
        del made[3:]


@needs_loops
def test_large_jobs_are_not_kept():
    w = Windows((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (64, 64), (64, 64))
    jobs._spare.cache_clear()
    conv_kernel.convolve(np.ones((1, 64, 64, 64), "f"), np.ones((8, 64, 3, 3), "f"), w, 1)
    assert not jobs._spare(jobs._Forward, w, 1, (1, 64, 64, 64), (8, 64, 3, 3), np.dtype("f"), threads.num_threads())


# --- captured ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not dispatch.numba_installed, reason="without Numba NumPy's functions need memory on the way")
def test_a_captured_net_replays_without_memory():
    kobai.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(800, 10),
    )
    optimizer = kobai.optim.SGD(net.parameters(), lr=0.1)
    x, t = kobai.randn(32, 1, 24, 24), kobai.arange(32) % 10

    @kobai.capture
    def step(x, t):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), t)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        step(x, t)
    assert peak_bytes(lambda: step(x, t)) < 1 << 16  # one image's columns would be twice as many


@pytest.mark.parametrize("filters", [1, 2], ids="{} for a channel".format)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pads"),
    [
        ((3,), (1,), (1,), ((1, 1),)),
        ((4,), (3,), (2,), ((0, 2),)),
        ((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
        ((5, 2), (2, 1), (1, 2), ((2, 2), (0, 1))),
        ((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0))),
        ((2, 3), (3, 4), (2, 1), ((0, 0), (3, 3))),
        ((3, 3), (1, 1), (5, 7), ((4, 4), (6, 6))),
    ],
)
def test_depthwise_is_what_the_products_give(kernel, stride, dilation, pads, filters, with_threads):
    rng, size = np.random.default_rng(0), (12, 15)[: len(kernel)]
    x = rng.normal(size=(2, 5, *size))
    weight, bias = rng.normal(size=(5 * filters, 1, *kernel)), rng.normal(size=5 * filters)
    out = tuple(
        n_windows(n, k, s, sum(p), d) for n, k, s, p, d in zip(size, kernel, stride, pads, dilation, strict=True)
    )
    w = Windows(kernel, stride, dilation, pads, size, out)
    dy = rng.normal(size=(2, 5 * filters, *out))
    for present in (1, 2):
        with_threads(present)
        got = (
            conv_kernel.convolve(x, weight, w, 5, bias),
            conv_kernel.convolve_transposed(dy, weight, w, 5),
            conv_kernel.weight_gradient(x, dy, w, 5, weight.shape),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conv_kernel, "_compiled", lambda *arrays: False)
            right = (
                conv_kernel.convolve(x, weight, w, 5, bias),
                conv_kernel.convolve_transposed(dy, weight, w, 5),
                conv_kernel.weight_gradient(x, dy, w, 5, weight.shape),
            )
        for a, b in zip(got, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
