"""Convolution: against its definition, in small blocks and large ones, at its limits, and against PyTorch."""

import itertools

import numpy as np
import pytest

import kobai
from kobai.nn import functional as F
from kobai.ops.conv import kernel as conv_kernel


def by_definition(x, w, stride, padding, dilation, groups):
    """y[n, o, p] = Σ w[o, c, t] x[n, c, p·stride + t·dilation − padding], in plain loops."""
    n = w.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * n])
    out = [(size - dilation * (k - 1) - 1) // stride + 1 for size, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    y = np.zeros((len(x), len(w), *out))
    for i, o in itertools.product(range(len(x)), range(len(w))):
        first = o // (len(w) // groups) * w.shape[1]
        for p in itertools.product(*map(range, out)):
            where = tuple(
                slice(a * stride, a * stride + dilation * (k - 1) + 1, dilation)
                for a, k in zip(p, w.shape[2:], strict=True)
            )
            y[(i, o, *p)] = (x[(i, slice(first, first + w.shape[1]), *where)] * w[o]).sum()
    return y


CASES = [
    ((3, 2, 9), (4, 2, 3), 1, 0, 1, 1),
    ((3, 2, 9), (4, 2, 3), 2, 2, 2, 1),
    ((3, 4, 6, 5), (6, 2, 3, 2), 1, 1, 1, 2),
    ((3, 3, 7, 6), (3, 1, 2, 3), 2, 0, 1, 3),
    ((3, 3, 4, 4), (2, 3, 1, 1), 1, 0, 1, 1),
    ((3, 3, 4, 4), (2, 3, 1, 1), 1, 1, 1, 1),
    ((2, 2, 3, 4, 3), (3, 2, 2, 2, 2), 1, 1, 1, 1),
]


@pytest.mark.parametrize("narrow", [0, 1 << 30], ids=["a product each", "one product"])
@pytest.mark.parametrize("cache", [0, 1 << 30], ids=["one image at a time", "all images"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_definition_and_its_transpose(case, cache, narrow, monkeypatch):
    """However the batch is cut, y is the definition, and ⟨conv(x), dy⟩ = ⟨x, dx⟩ = ⟨w, dw⟩: it is linear in both."""
    for name, value in (("CACHE", cache), ("NARROW", narrow), ("FEWEST", 0)):
        monkeypatch.setattr(conv_kernel, name, value)
    shape_x, shape_w, stride, padding, dilation, groups = case
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=shape_x), rng.normal(size=shape_w)
    conv = (F.conv1d, F.conv2d, F.conv3d)[len(shape_w) - 3]
    a, b = kobai.tensor(x, requires_grad=True), kobai.tensor(w, requires_grad=True)
    y = conv(a, b, None, stride, padding, dilation, groups)
    np.testing.assert_allclose(
        y.detach().numpy(), by_definition(x, w, stride, padding, dilation, groups), rtol=1e-12, atol=1e-12
    )
    dy = rng.normal(size=y.shape)
    y.backward(kobai.tensor(dy))
    inner = (y.detach().numpy() * dy).sum()
    assert (a.grad.numpy() * x).sum() == pytest.approx(inner, rel=1e-10)
    assert (b.grad.numpy() * w).sum() == pytest.approx(inner, rel=1e-10)


def test_transposed_convolution_is_the_transpose():
    rng = np.random.default_rng(0)
    x, w = kobai.tensor(rng.normal(size=(2, 3, 7, 8))), kobai.tensor(rng.normal(size=(4, 3, 3, 2)))
    y = F.conv2d(x, w, stride=2, padding=1)
    dy = kobai.tensor(rng.normal(size=y.shape))
    back = F.conv_transpose2d(dy, w, stride=2, padding=1, output_padding=(0, 0))
    assert back.shape == (2, 3, 7, 8)
    assert (back * x).sum().item() == pytest.approx((y * dy).sum().item(), rel=1e-12)


def test_output_padding_may_go_beyond_what_a_convolution_reads():
    """dilation > output_padding ≥ stride: the convolution of that size would have more windows than there are inputs."""
    y = F.conv_transpose1d(kobai.ones(1, 1, 3), kobai.ones(1, 1, 2), stride=1, output_padding=1, dilation=2)
    assert y.tolist() == [[[1.0, 1.0, 2.0, 1.0, 1.0, 0.0]]]


def test_same_and_valid_padding():
    x, w = kobai.arange(4.0).reshape(1, 1, 4), kobai.tensor([[[1.0, 10.0]]])
    assert F.conv1d(x, w, padding="valid").tolist() == [[[10, 21, 32]]]
    assert F.conv1d(x, w, padding="same").tolist() == [[[10, 21, 32, 3]]]  # the odd zero stands at the end


def test_no_images_and_one_image(backend):
    w, b = kobai.ones(4, 3, 2, 2, requires_grad=True), kobai.ones(4, requires_grad=True)
    y = F.conv2d(kobai.ones(0, 3, 5, 5), w, b)
    assert y.shape == (0, 4, 4, 4)
    y.sum().backward()
    assert w.grad.abs().sum().item() == b.grad.abs().sum().item() == 0
    single = F.conv2d(kobai.ones(3, 5, 5), w, b, activation="relu")
    assert single.shape == (4, 4, 4)
    assert single[0, 0, 0].item() == 13


def test_inputs_of_other_layouts():
    rng = np.random.default_rng(0)
    x, w = kobai.tensor(rng.normal(size=(2, 6, 5, 3))), kobai.tensor(rng.normal(size=(3, 2, 4, 3)))
    y = F.conv2d(x.permute(0, 3, 1, 2), w.permute(2, 0, 3, 1))
    z = F.conv2d(x.permute(0, 3, 1, 2).contiguous(), w.permute(2, 0, 3, 1).contiguous())
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-13)
    assert y.is_contiguous()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: F.conv2d(x[:, :2], w), RuntimeError, r"expected input \(N, 3, H, W\) or \(3, H, W\)"),
        (lambda x, w: F.conv2d(x[0, 0], w), RuntimeError, "got"),
        (lambda x, w: F.conv2d(x, w[0]), RuntimeError, r"expected weight \(out_channels, in_channels / groups, k, k\)"),
        (lambda x, w: F.conv2d(x, w, kobai.ones(3)), RuntimeError, r"expected bias \(4,\), got \(3,\)"),
        (lambda x, w: F.conv2d(x, w.double()), RuntimeError, "one dtype, got float32, float64"),
        (lambda x, w: F.conv2d(x, w, groups=2), RuntimeError, "groups=2"),
        (lambda x, w: F.conv2d(x, w, groups=0), RuntimeError, "groups to be a positive integer"),
        (lambda x, w: F.conv2d(x, w, stride=0), RuntimeError, "stride >= 1, got 0"),
        (lambda x, w: F.conv2d(x, w, padding=-1), RuntimeError, "padding >= 0"),
        (lambda x, w: F.conv2d(x, w, stride=1.5), TypeError, "stride to be an integer or 2 of them"),
        (lambda x, w: F.conv2d(x, w, stride=(1, 2, 3)), TypeError, "2 of them"),
        (lambda x, w: F.conv2d(x, w, padding="same", stride=2), ValueError, "needs stride 1"),
        (lambda x, w: F.conv2d(x, w, padding="valdi"), ValueError, "Did you mean 'valid'"),
        (
            lambda x, w: F.conv2d(x[..., :2], w),
            RuntimeError,
            "kernel of size 3 does not fit into the padded input of size 2",
        ),
        (lambda x, w: F.conv2d(x, w, activation="rleu"), ValueError, "Did you mean 'relu'"),
        (lambda x, w: F.conv2d(x.numpy(), w), TypeError, "expected a Tensor, got ndarray"),
        (lambda x, w: F.conv_transpose2d(x, w), RuntimeError, "got"),
        (
            lambda x, w: F.conv_transpose2d(x[:, :1].expand(2, 4, 5, 5), w, output_padding=1),
            RuntimeError,
            "output_padding",
        ),
        (lambda x, w: F.conv_transpose2d(x[:, :1].expand(2, 4, 5, 5), w, padding=9), RuntimeError, "leaves no output"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(kobai.ones(2, 3, 5, 5), kobai.ones(4, 3, 3, 3))


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(30))
def test_random_convolutions_agree_with_pytorch(seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    groups = int(rng.integers(1, 4))
    kernel = rng.integers(1, 4, n).tolist()
    options = {
        "stride": rng.integers(1, 4, n).tolist(),
        "padding": rng.integers(0, 3, n).tolist(),
        "dilation": rng.integers(1, 3, n).tolist(),
        "groups": groups,
    }
    transposed = seed % 2 == 1
    cin, cout = 2 * groups, 3 * groups
    x = rng.normal(size=(int(rng.integers(1, 4)), cin, *rng.integers(6, 9, n)))
    w = rng.normal(size=(cin, cout // groups, *kernel) if transposed else (cout, cin // groups, *kernel))
    b = rng.normal(size=cout)
    name = f"conv_transpose{n}d" if transposed else f"conv{n}d"
    results = []
    for lib in (kobai, torch):
        tensors = [lib.tensor(a.copy(), requires_grad=True) for a in (x, w, b)]
        y = getattr(lib.nn.functional, name)(*tensors, **options)
        (y * y).sum().backward()
        results.append([y, *(t.grad for t in tensors)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_output_channels(n):
    x = kobai.ones(1, 3, *(4,) * n)
    with pytest.raises(RuntimeError, match=rf"conv{n}d: expected a weight of at least one output channel, got \(0, 3"):
        getattr(F, f"conv{n}d")(x, kobai.ones(0, 3, *(2,) * n))
    with pytest.raises(RuntimeError, match=rf"conv_transpose{n}d: expected a weight of at least one output channel"):
        getattr(F, f"conv_transpose{n}d")(x, kobai.ones(3, 0, *(2,) * n))
