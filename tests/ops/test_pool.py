"""Pooling and resampling: by hand, at ties, edges and NaN, and against PyTorch."""

import math

import numpy as np
import pytest

import kobai
from kobai.nn import functional as F


def test_the_gradient_goes_to_the_first_of_equal_maxima():
    x = kobai.zeros(1, 1, 4, 4, requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert x.grad[0, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    x = kobai.tensor([[[0.0, 5.0], [5.0, 0.0]]], requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert x.grad[0].tolist() == [[0, 1], [0, 0]]  # row by row, not column by column


def test_overlapping_windows_add_their_gradients():
    x = kobai.tensor([[0.0, 9.0, 1.0, 2.0]], requires_grad=True)
    y = F.max_pool1d(x, 2, 1)
    assert y.tolist() == [[9, 9, 2]]
    y.backward(kobai.tensor([[1.0, 10.0, 100.0]]))
    assert x.grad.tolist() == [[0, 11, 0, 100]]


def test_nan_is_the_maximum():
    x = kobai.tensor([[1.0, math.nan, 3.0, 2.0]], requires_grad=True)
    y, where = F.max_pool1d(x, 2, return_indices=True)
    assert math.isnan(y[0, 0].item())
    assert where.tolist() == [[1, 2]]
    y.backward(kobai.ones(1, 2))
    assert x.grad.tolist() == [[0, 1, 1, 0]]


def test_padding_never_wins_and_whole_numbers_work(backend):
    x = -kobai.arange(1, 5).reshape(1, 2, 2)
    y, where = F.max_pool2d(x, 2, 1, 1, return_indices=True)
    assert y.tolist() == [[[-1, -1, -2], [-1, -1, -2], [-3, -3, -4]]]
    assert where.tolist() == [[[0, 0, 1], [0, 0, 1], [2, 2, 3]]]


def test_a_window_of_one_copies():
    x = kobai.ones(1, 2, 2)
    for y in (F.max_pool2d(x, 1), F.avg_pool2d(x, 1)):
        y.add_(1)
    assert x.tolist() == kobai.ones(1, 2, 2).tolist()


def test_means_count_what_they_are_told_to():
    x = kobai.ones(1, 3)
    assert F.avg_pool1d(x, 2, 2, 1).tolist() == [[0.5, 1.0]]
    assert F.avg_pool1d(x, 2, 2, 1, count_include_pad=False).tolist() == [[1.0, 1.0]]
    assert F.avg_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[1.0, 1.0]]
    assert F.avg_pool2d(kobai.ones(1, 2, 2), 2, divisor_override=1).tolist() == [[[4.0]]]


def test_adaptive_windows_overlap_where_sizes_do_not_divide():
    x = kobai.arange(5.0).reshape(1, 5)
    assert F.adaptive_avg_pool1d(x, 3).tolist() == [[0.5, 2.0, 3.5]]
    assert F.adaptive_max_pool1d(x, 3).tolist() == [[1.0, 3.0, 4.0]]
    assert F.adaptive_avg_pool2d(kobai.ones(2, 3, 5, 7), (None, 2)).shape == (2, 3, 5, 2)
    assert F.adaptive_avg_pool2d(kobai.ones(2, 3, 2, 2), 4).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: F.max_pool2d(x[0, 0], 2),
            RuntimeError,
            r"expected input \(N, C, H, W\) or \(C, H, W\), got \(5, 5\)",
        ),
        (lambda x: F.max_pool2d(x, 0), RuntimeError, "kernel_size >= 1, got 0"),
        (lambda x: F.max_pool2d(x, 2, padding=2), RuntimeError, "at most half a window of 2, got 2"),
        (lambda x: F.max_pool2d(x, 6), RuntimeError, "a window of 6 does not fit into the padded input of size 5"),
        (lambda x: F.max_pool2d(x, (2, 2, 2)), TypeError, "2 of them"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), RuntimeError, "other than 0"),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)), RuntimeError, "2 output sizes"),
        (lambda x: F.interpolate(x, 3, mode="bilinaer"), NotImplementedError, "Did you mean 'bilinear'"),
        (lambda x: F.interpolate(x, 3, mode="linear"), NotImplementedError, "3 dimensions"),
        (lambda x: F.interpolate(x), ValueError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 3, 2.0), ValueError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 3, align_corners=True), ValueError, "no meaning for mode 'nearest'"),
        (lambda x: F.interpolate(x, 3, antialias=True), ValueError, "antialias is for modes 'bilinear' and 'bicubic'"),
        (lambda x: F.interpolate(x, 0), ValueError, "2 positive sizes"),
        (lambda x: F.interpolate(x.long(), 3, mode="bilinear"), RuntimeError, "expected a float tensor"),
        (lambda x: F.pixel_shuffle(x, 2), RuntimeError, r"C·2², H, W"),
        (lambda x: F.pixel_unshuffle(x, 2), RuntimeError, r"H·2, W·2"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(kobai.ones(2, 3, 5, 5))


POOLS = [
    ("max_pool1d", (2, 3, 9), {"kernel_size": 3}),
    ("max_pool1d", (3, 9), {"kernel_size": 2, "stride": 3, "padding": 1, "dilation": 2, "ceil_mode": True}),
    ("max_pool2d", (2, 3, 7, 8), {"kernel_size": 2}),
    ("max_pool2d", (2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("max_pool2d", (2, 3, 7, 8), {"kernel_size": (2, 3), "stride": 2, "ceil_mode": True}),
    ("max_pool2d", (2, 3, 7, 8), {"kernel_size": 3, "stride": 1, "dilation": (2, 1), "padding": 1, "ceil_mode": True}),
    ("max_pool3d", (2, 3, 4, 5, 6), {"kernel_size": 2, "stride": (1, 2, 2)}),
    ("avg_pool1d", (2, 3, 9), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("avg_pool2d", (2, 3, 7, 8), {"kernel_size": 2}),
    ("avg_pool2d", (2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", (2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("avg_pool2d", (3, 7, 8), {"kernel_size": 2, "stride": 3, "ceil_mode": True, "count_include_pad": False}),
    ("avg_pool2d", (2, 3, 7, 8), {"kernel_size": 3, "stride": 2, "divisor_override": 5}),
    ("avg_pool3d", (2, 3, 4, 5, 6), {"kernel_size": 2, "padding": 1}),
    *(("adaptive_avg_pool2d", (2, 3, 7, 8), {"output_size": s}) for s in (1, 3, (7, 2), (None, 4), (9, 11))),
    *(("adaptive_max_pool2d", (2, 3, 7, 8), {"output_size": s}) for s in (1, 3, (7, 2), (None, 4))),
    ("adaptive_avg_pool1d", (2, 3, 7), {"output_size": 4}),
    ("adaptive_max_pool1d", (2, 3, 7), {"output_size": 4}),
    ("interpolate", (2, 3, 5), {"scale_factor": 2}),
    ("interpolate", (2, 3, 5), {"size": 7, "mode": "linear"}),
    ("interpolate", (2, 3, 5, 4), {"scale_factor": (3, 2)}),
    ("interpolate", (2, 3, 5, 4), {"scale_factor": 1.7}),
    ("interpolate", (2, 3, 5, 4), {"size": (3, 9)}),
    ("interpolate", (2, 3, 5, 4), {"size": (3, 9), "mode": "nearest-exact"}),
    ("interpolate", (2, 3, 5, 4), {"scale_factor": 1.7, "mode": "nearest-exact"}),
    ("interpolate", (2, 3, 5, 4), {"size": (3, 7), "mode": "area"}),
    ("interpolate", (2, 3, 2, 3, 4), {"size": (3, 7, 2), "mode": "trilinear"}),
    *(
        ("interpolate", (2, 3, 5, 4), {**size, "mode": mode, "align_corners": corners, "antialias": antialias})
        for mode in ("bilinear", "bicubic")
        for corners in (True, False)
        for antialias in (True, False)
        for size in (
            {"size": (3, 9)},
            {"scale_factor": 1.7},
            {"scale_factor": (0.4, 0.6)},
            {"size": 1},
            {"scale_factor": 2.3, "recompute_scale_factor": True},
        )
    ),
    ("pixel_shuffle", (2, 8, 3, 4), {"upscale_factor": 2}),
    ("pixel_unshuffle", (2, 2, 6, 4), {"downscale_factor": 2}),
]


@pytest.mark.oracle
@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
@pytest.mark.parametrize("case", POOLS, ids=lambda c: f"{c[0]}{c[2]}".replace(" ", ""))
def test_agrees_with_pytorch(case, ties):
    torch = pytest.importorskip("torch")
    name, shape, options = case
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, shape).astype(float) if ties else rng.normal(size=shape)
    results = []
    for lib in (kobai, torch):
        t = lib.tensor(x.copy(), requires_grad=True)
        y = getattr(lib.nn.functional, name)(t, **options)
        y.backward(lib.tensor(np.random.default_rng(1).normal(size=tuple(y.shape))))
        results.append((y, t.grad))
        if name.startswith("max_pool"):
            results[-1] += (getattr(lib.nn.functional, name)(t, **options, return_indices=True)[1],)
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-11, atol=1e-11)


def test_sizes_may_be_tensors_of_one_number():
    x = kobai.ones(1, 1, 4, 4)
    for size in ((kobai.tensor(2), kobai.tensor([3])), (kobai.tensor([2])[0], 3)):
        assert F.interpolate(x, size=size, mode="bilinear").shape == (1, 1, 2, 3)
    assert F.interpolate(x, kobai.tensor(2), mode="bilinear").shape == (1, 1, 2, 2)


@pytest.mark.oracle
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_pixels_of_one_byte_are_pytorchs_bit_by_bit(mode, corners, antialias):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 256, (2, 5, 14, 9)).astype(np.uint8)
    options = {"mode": mode, "align_corners": corners, "antialias": antialias}
    for size in ((3, 3), (7, 9), (30, 4), (14, 20), (5, 2)):
        ours = F.interpolate(kobai.tensor(x), size, **options).numpy()
        np.testing.assert_array_equal(ours, torch.nn.functional.interpolate(torch.tensor(x), size, **options).numpy())


def test_a_smaller_image_without_aliases():
    """Stripes one pixel wide are grey from afar; without ``antialias`` as the centres happen to lie."""
    stripes = (kobai.arange(64) % 2).float().expand(1, 1, 64, 64)
    for mode in ("bilinear", "bicubic"):
        near = F.interpolate(stripes, (8, 8), mode=mode, antialias=True)
        assert (near - 0.5).abs().max() < 0.05
        assert kobai.allclose(
            F.interpolate(kobai.ones(1, 1, 64, 64), (5, 9), mode=mode, antialias=True), kobai.ones(5, 9)
        )
    x = kobai.randn(1, 1, 6, 6)
    larger = [F.interpolate(x, 13, mode="bilinear", antialias=aa) for aa in (False, True)]
    assert kobai.allclose(*larger, atol=1e-6)  # of a larger image the filter is the same
