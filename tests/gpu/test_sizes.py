"""Sizes and places in memory at which the kernels go another way: several slabs, several launches, elements one by one."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F
from kobai.ops.linear.columns import column_sums


def on_both(compute, *arrays):
    """Results and gradients of ``compute`` on the CPU and on the GPU, in float64."""
    found = []
    for where in ("numpy", "cupy"):
        with kobai.using(where):
            leaves = [kobai.tensor(a, requires_grad=True) for a in arrays]
            y = compute(*leaves)
            y.backward(kobai.tensor(np.cos(np.arange(y.numel())).reshape(y.shape)))
            found.append([y.detach().numpy(force=True), *(leaf.grad.numpy(force=True) for leaf in leaves)])
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1025])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_elements_that_do_not_begin_on_a_whole_vector(first, n):
    x = np.random.default_rng(0).normal(size=n + first)
    on_both(lambda x: F.gelu(x[first:]), x)
    on_both(lambda x: F.silu(x[first:]) * F.elu(x[:-first]), x)
    on_both(lambda x: x.clone()[first:].mul_(2).sigmoid_(), x)


@pytest.mark.parametrize("rows", [1, 255, 257, 1000])
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_rows_of_a_dense_layer(rows, activation):
    rng = np.random.default_rng(1)
    sizes = (rows, 3), (35, 3), (35,)
    on_both(lambda x, w, b: F.linear(x, w, b, activation=activation), *(rng.normal(size=s) for s in sizes))


@pytest.mark.parametrize("rows", [1, 256, 257, 1000])
def test_sums_of_columns(rows):
    import cupy

    x = np.random.default_rng(7).normal(size=(rows, 35))
    np.testing.assert_allclose(column_sums(cupy.asarray(x)).get(), x.sum(0), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(130, 5), (3, 1500), (200, 33)])
def test_rows_of_normalisation(shape):
    rng = np.random.default_rng(2)
    x, w, b = rng.normal(size=shape) + 3, *rng.normal(size=(2, shape[1]))
    on_both(lambda x, w, b: F.layer_norm(x, shape[1:], w, b), x, w, b)
    on_both(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), x, w, b)


@pytest.mark.parametrize("columns", [1, 31, 33, 129, 1025])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_columns_of_a_softmax(columns, reduction):
    rng = np.random.default_rng(3)
    x, t = rng.normal(size=(5, columns)), rng.integers(0, columns, 5)
    on_both(lambda x: F.cross_entropy(x, kobai.tensor(t), reduction=reduction, label_smoothing=0.1), x)
    on_both(lambda x: F.log_softmax(x, 1), x)
    on_both(lambda x: F.nll_loss(x, kobai.tensor(t), reduction=reduction).expand(5), x)


def stepped(where, sizes):
    """Norms of the gradients of so many parameters, and what clipping and two steps make of them."""
    rng = np.random.default_rng(4)
    with kobai.using(where):
        whole, slopes = kobai.tensor(rng.normal(size=(2, sum(sizes))))
        ends = np.cumsum(sizes)
        params = [whole[end - n : end].detach().requires_grad_() for n, end in zip(sizes, ends, strict=True)]
        optimizer, norms = kobai.optim.Adam(params, lr=0.1, weight_decay=0.01), []
        for k in (1, 2) if len(sizes) < 100 else (1,):
            gradient = slopes * k + 1
            for p, n, end in zip(params, sizes, ends, strict=True):
                p.grad = gradient[end - n : end]
            norms.append(nn.utils.clip_grad_norm_(params, 1.0))
            optimizer.step()
        return [x.numpy(force=True) for x in (*norms, gradient, whole)]


@pytest.mark.parametrize("sizes", [[0, 5, 300], [2] * 240], ids=["the first is empty", "more than one launch takes"])
def test_many_parameters(sizes):
    for here, there in zip(stepped("numpy", sizes), stepped("cupy", sizes), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-9, atol=1e-11)


def test_products_of_the_same_shapes_that_lie_otherwise():
    """What was planned for one layout does not serve another."""
    rng = np.random.default_rng(5)
    with kobai.using("cupy"):
        a, wide = kobai.tensor(rng.normal(size=(6, 6))), kobai.tensor(rng.normal(size=(2, 6, 9)))
        for b in (a, a.T, wide[0, :, :6], wide[1, :, 3:], wide[0, :, :6].contiguous(), a.flip(0)):
            np.testing.assert_allclose(
                (a @ b).tolist(), a.numpy(force=True) @ b.numpy(force=True), rtol=1e-9, atol=1e-12
            )
        for b in (wide, wide[:1].expand(2, 6, 9), wide.contiguous()):
            np.testing.assert_allclose(
                (a @ b).tolist(), a.numpy(force=True) @ b.numpy(force=True), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("dtype", [kobai.int64, kobai.int32])
def test_products_of_integers(dtype):
    a, b = (np.random.default_rng(i).integers(-9, 9, shape) for i, shape in enumerate([(3, 4), (4, 5)]))
    x, y = kobai.tensor(a, dtype=dtype, device="cuda"), kobai.tensor(b, dtype=dtype, device="cuda")
    assert (x @ y).tolist() == (a @ b).tolist()
    assert (x @ y[:, 0]).tolist() == (a @ b[:, 0]).tolist()
