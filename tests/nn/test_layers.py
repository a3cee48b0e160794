"""The examination that every layer must pass; and what is particular to single layers."""

import copy
import inspect
import math
import re
from dataclasses import dataclass, field

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import activation, softmax
from kobai.nn import functional as F


@dataclass
class Layer:
    """One layer: how it is made, what it takes and gives, what it must refuse."""

    make: object
    shape: tuple
    out: tuple | None = None  # the input's shape
    wrong: list = field(default_factory=list)  # (shape, part of the message)
    second: tuple | None = None  # shape of a second input
    integers: int = 0  # input is drawn from range(integers)
    random: bool = False  # differs from call to call in training
    smooth: bool = True  # gradcheck makes sense

    def inputs(self, shape=None, dtype=kobai.float32, seed=0):
        rng = np.random.default_rng(seed)
        if self.integers:
            return [kobai.tensor(rng.integers(0, self.integers, self.shape if shape is None else shape))]
        shapes = [self.shape if shape is None else shape, *([self.second] if self.second else [])]
        return [kobai.tensor(rng.normal(size=s) + 0.01, dtype=dtype) for s in shapes]


LAYERS = {
    "Linear": Layer(
        lambda: nn.Linear(4, 3), (5, 4), (5, 3), [((5, 3), "(..., 4), got (5, 3)"), ((), "expected input")]
    ),
    "Linear 3-D, no bias": Layer(lambda: nn.Linear(4, 3, bias=False), (2, 5, 4), (2, 5, 3)),
    "Linear with relu": Layer(lambda: nn.Linear(4, 3, activation="relu"), (5, 4), (5, 3)),
    "Linear with sigmoid": Layer(lambda: nn.Linear(4, 3, activation="sigmoid", init="xavier"), (5, 4), (5, 3)),
    "Bilinear": Layer(
        lambda: nn.Bilinear(4, 2, 3),
        (5, 4),
        (5, 3),
        [((5, 3), "(..., 4) and (..., 2)")],
        second=(5, 2),
    ),
    "Flatten": Layer(lambda: nn.Flatten(), (2, 3, 4), (2, 12)),
    "Unflatten": Layer(lambda: nn.Unflatten(1, (3, 4)), (2, 12), (2, 3, 4)),
    "Identity": Layer(lambda: nn.Identity(), (3, 4)),
    **{name: Layer(getattr(nn, name), (3, 4)) for name in activation.__all__},  # some are said otherwise below
    "Threshold": Layer(lambda: nn.Threshold(0.1, -2.0), (3, 4)),
    "PReLU per channel": Layer(lambda: nn.PReLU(4), (3, 4, 2), wrong=[((3, 5), "4")]),
    "RReLU": Layer(lambda: nn.RReLU(), (3, 4), random=True),
    "GELU tanh": Layer(lambda: nn.GELU("tanh"), (3, 4)),
    "GLU": Layer(lambda: nn.GLU(), (3, 4), (3, 2), [((3, 5), "even")]),
    "Softmax": Layer(lambda: nn.Softmax(dim=1), (3, 4)),
    "LogSoftmax": Layer(lambda: nn.LogSoftmax(dim=1), (3, 4)),
    "Softmin": Layer(lambda: nn.Softmin(dim=1), (3, 4)),
    "BatchNorm1d": Layer(
        lambda: nn.BatchNorm1d(4),
        (6, 4),
        wrong=[
            ((6, 5), "BatchNorm1d: expected input (N, 4) or (N, 4, L), got (6, 5)"),
            ((4,), "got (4,)"),
            ((1, 4), "more than one value"),
        ],
    ),
    "BatchNorm1d 3-D": Layer(lambda: nn.BatchNorm1d(4), (3, 4, 2)),
    "BatchNorm1d with relu": Layer(lambda: nn.BatchNorm1d(4, activation="relu"), (6, 4)),
    "BatchNorm1d, no statistics": Layer(lambda: nn.BatchNorm1d(4, track_running_stats=False), (6, 4)),
    "BatchNorm2d": Layer(
        lambda: nn.BatchNorm2d(3),
        (4, 3, 2, 2),
        wrong=[((4, 3), "(N, 3, H, W), got (4, 3)")],
    ),
    "BatchNorm3d": Layer(lambda: nn.BatchNorm3d(2), (3, 2, 2, 1, 2)),
    "LayerNorm": Layer(lambda: nn.LayerNorm(4), (3, 4), wrong=[((3, 5), "(3, 5)")]),
    "LayerNorm 2-D": Layer(lambda: nn.LayerNorm((3, 4)), (2, 3, 4), wrong=[((2, 4), "(2, 4)")]),
    "RMSNorm": Layer(lambda: nn.RMSNorm(4), (3, 4), wrong=[((3, 5), "(3, 5)")]),
    "GroupNorm": Layer(lambda: nn.GroupNorm(2, 4), (3, 4, 2), wrong=[((3, 6), "(3, 6)")]),
    "Dropout": Layer(lambda: nn.Dropout(0.5), (3, 4), random=True),
    "Dropout1d": Layer(
        lambda: nn.Dropout1d(0.5), (3, 4, 2), wrong=[((3,), "dropout1d: expected 2 or 3 dimensions")], random=True
    ),
    "Dropout2d": Layer(
        lambda: nn.Dropout2d(0.5), (3, 4, 2, 2), wrong=[((3, 2), "dropout2d: expected 3 or 4 dimensions")], random=True
    ),
    "Dropout3d": Layer(lambda: nn.Dropout3d(0.5), (3, 4, 2, 2, 2), random=True),
    "InstanceNorm1d": Layer(
        lambda: nn.InstanceNorm1d(4),
        (3, 4, 5),
        wrong=[((3, 5, 5), "(N, 4, L) or (4, L), got (3, 5, 5)")],
    ),
    "InstanceNorm2d": Layer(lambda: nn.InstanceNorm2d(2, affine=True), (3, 2, 2, 3)),
    "InstanceNorm3d": Layer(lambda: nn.InstanceNorm3d(2, track_running_stats=True), (3, 2, 2, 3, 1)),
    "AlphaDropout": Layer(lambda: nn.AlphaDropout(0.5), (3, 4), random=True),
    "Conv1d": Layer(lambda: nn.Conv1d(3, 4, 3), (2, 3, 7), (2, 4, 5), [((2, 4, 7), "(N, 3, L)"), ((2, 3, 2), "fit")]),
    "Conv2d": Layer(
        lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 4), (2, 4, 5, 4), [((2, 4, 5, 4), "(N, 3, H, W)")]
    ),
    "Conv2d with relu": Layer(lambda: nn.Conv2d(2, 4, 3, 2, activation="relu"), (2, 2, 5, 4), (2, 4, 2, 1)),
    "Conv2d, reflecting": Layer(
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 4, 3), (2, 3, 4, 3)
    ),
    "Conv3d": Layer(lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 2, 3), (2, 3, 2, 1, 2)),
    "ConvTranspose1d": Layer(lambda: nn.ConvTranspose1d(3, 2, 3, 2), (2, 3, 4), (2, 2, 9), [((2, 2, 4), "(N, 3, L)")]),
    "ConvTranspose2d": Layer(lambda: nn.ConvTranspose2d(3, 2, 2, 2), (2, 3, 2, 3), (2, 2, 4, 6)),
    "ConvTranspose3d": Layer(lambda: nn.ConvTranspose3d(2, 3, 2), (2, 2, 2, 1, 2), (2, 3, 3, 2, 3)),
    "MaxPool1d": Layer(lambda: nn.MaxPool1d(2), (2, 3, 5), (2, 3, 2), [((5,), "(N, C, L)")]),
    "MaxPool2d": Layer(lambda: nn.MaxPool2d(2), (2, 3, 4, 5), (2, 3, 2, 2), [((2, 3, 1, 5), "max_pool2d")]),
    "MaxPool2d, overlapping": Layer(lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 3, 4, 6), (2, 3, 3, 4)),
    "MaxPool3d": Layer(lambda: nn.MaxPool3d(2), (2, 2, 2, 2, 4), (2, 2, 1, 1, 2)),
    "AvgPool1d": Layer(lambda: nn.AvgPool1d(2), (2, 3, 5), (2, 3, 2)),
    "AvgPool2d": Layer(lambda: nn.AvgPool2d((2, 3), 1, (1, 0)), (2, 3, 4, 5), (2, 3, 5, 3)),
    "AvgPool3d": Layer(lambda: nn.AvgPool3d(2), (2, 2, 2, 2, 4), (2, 2, 1, 1, 2)),
    "AdaptiveAvgPool1d": Layer(lambda: nn.AdaptiveAvgPool1d(2), (2, 3, 5), (2, 3, 2)),
    "AdaptiveAvgPool2d": Layer(lambda: nn.AdaptiveAvgPool2d((1, None)), (2, 3, 4, 5), (2, 3, 1, 5)),
    "AdaptiveMaxPool1d": Layer(lambda: nn.AdaptiveMaxPool1d(2), (2, 3, 5), (2, 3, 2)),
    "AdaptiveMaxPool2d": Layer(lambda: nn.AdaptiveMaxPool2d(2), (2, 3, 4, 5), (2, 3, 2, 2)),
    "ZeroPad1d": Layer(lambda: nn.ZeroPad1d(1), (2, 3, 4), (2, 3, 6)),
    "ZeroPad2d": Layer(lambda: nn.ZeroPad2d((1, 0, 2, -1)), (2, 3, 4, 5), (2, 3, 5, 6)),
    "ConstantPad1d": Layer(lambda: nn.ConstantPad1d(1, 3.0), (2, 3, 4), (2, 3, 6)),
    "ConstantPad2d": Layer(lambda: nn.ConstantPad2d(1, 3.0), (2, 3, 4, 5), (2, 3, 6, 7)),
    "ReflectionPad1d": Layer(lambda: nn.ReflectionPad1d(1), (2, 3, 4), (2, 3, 6), [((2, 3, 1), "can add 0 elements")]),
    "ReflectionPad2d": Layer(lambda: nn.ReflectionPad2d(1), (2, 3, 4, 5), (2, 3, 6, 7)),
    "ReplicationPad1d": Layer(lambda: nn.ReplicationPad1d((0, 2)), (2, 3, 4), (2, 3, 6)),
    "ReplicationPad2d": Layer(lambda: nn.ReplicationPad2d(1), (2, 3, 4, 5), (2, 3, 6, 7)),
    "Upsample": Layer(lambda: nn.Upsample(scale_factor=2), (2, 3, 4, 5), (2, 3, 8, 10)),
    "Upsample bilinear": Layer(lambda: nn.Upsample((3, 7), mode="bilinear"), (2, 3, 4, 5), (2, 3, 3, 7)),
    "PixelShuffle": Layer(lambda: nn.PixelShuffle(2), (2, 8, 2, 3), (2, 2, 4, 6), [((2, 3, 2, 3), "pixel_shuffle")]),
    "PixelUnshuffle": Layer(lambda: nn.PixelUnshuffle(2), (2, 2, 4, 6), (2, 8, 2, 3)),
    "ConstantPad3d": Layer(lambda: nn.ConstantPad3d(1, 3.0), (1, 2, 2, 1, 2), (1, 2, 4, 3, 4)),
    "ZeroPad3d": Layer(lambda: nn.ZeroPad3d(1), (1, 2, 2, 1, 2), (1, 2, 4, 3, 4)),
    "ReflectionPad3d": Layer(lambda: nn.ReflectionPad3d(1), (1, 2, 2, 2, 2), (1, 2, 4, 4, 4)),
    "ReplicationPad3d": Layer(lambda: nn.ReplicationPad3d(1), (1, 2, 2, 1, 2), (1, 2, 4, 3, 4)),
    "CircularPad1d": Layer(lambda: nn.CircularPad1d(1), (2, 3, 4), (2, 3, 6)),
    "CircularPad2d": Layer(lambda: nn.CircularPad2d(1), (2, 3, 4, 5), (2, 3, 6, 7)),
    "CircularPad3d": Layer(lambda: nn.CircularPad3d(1), (1, 2, 2, 1, 2), (1, 2, 4, 3, 4)),
    "UpsamplingNearest2d": Layer(lambda: nn.UpsamplingNearest2d(scale_factor=2), (2, 3, 2, 3), (2, 3, 4, 6)),
    "UpsamplingBilinear2d": Layer(lambda: nn.UpsamplingBilinear2d((3, 7)), (2, 3, 4, 5), (2, 3, 3, 7)),
    "ChannelShuffle": Layer(lambda: nn.ChannelShuffle(2), (2, 4, 3), wrong=[((2, 3, 3), "(N, C·2, *)")]),
    "Softmax2d": Layer(lambda: nn.Softmax2d(), (2, 3, 2, 2), wrong=[((2, 3), "(C, H, W)")]),
    "LocalResponseNorm": Layer(lambda: nn.LocalResponseNorm(3), (2, 4, 3), wrong=[((2, 3), "(N, C, *)")]),
    "Unfold": Layer(lambda: nn.Unfold(2, padding=1), (2, 3, 3, 2), (2, 12, 12), [((3, 3), "(N, C, H, W)")]),
    "Fold": Layer(lambda: nn.Fold((3, 2), 2), (2, 12, 2), (2, 3, 3, 2), [((2, 12, 3), "(N, C·4, 2)")]),
    "Embedding": Layer(lambda: nn.Embedding(7, 3), (4, 5), (4, 5, 3), integers=7),
    "Embedding with padding": Layer(lambda: nn.Embedding(7, 3, padding_idx=0), (4,), (4, 3), integers=7),
    "EmbeddingBag": Layer(lambda: nn.EmbeddingBag(7, 3), (4, 5), (4, 3), integers=7),
    "CosineSimilarity": Layer(lambda: nn.CosineSimilarity(), (3, 4), (3,), second=(3, 4)),
    "PairwiseDistance": Layer(lambda: nn.PairwiseDistance(), (3, 4), (3,), second=(3, 4)),
}

every = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


@every
def test_shape_dtype_and_mode(layer):
    m = layer.make()
    assert m.training
    x = layer.inputs()
    y = m(*x)
    assert y.shape == (layer.out if layer.out is not None else layer.shape)
    assert y.dtype == kobai.float32
    m.eval()
    assert m(*x).tolist() == m(*x).tolist()
    if not layer.random:
        assert m.train()(*x).tolist() == m(*x).tolist()


@every
def test_float64(layer):
    m = layer.make().double()
    assert m(*layer.inputs(dtype=kobai.float64)).dtype == kobai.float64
    assert all(p.dtype == kobai.float64 for p in m.parameters())


@every
def test_state_dict_and_deepcopy(layer):
    kobai.manual_seed(0)
    m = layer.make()
    x = layer.inputs()
    m(*x)
    kobai.manual_seed(1)
    other = layer.make()
    other.load_state_dict(m.state_dict())
    twin = copy.deepcopy(m)
    assert list(twin.state_dict()) == list(m.state_dict())
    expected = m.eval()(*x).tolist()
    assert other.eval()(*x).tolist() == expected == twin.eval()(*x).tolist()
    for p, q in zip(m.parameters(), twin.parameters(), strict=True):
        assert p.array is not q.array


@every
def test_repr(layer):
    m = layer.make()
    text = repr(m)
    assert text.startswith(type(m).__name__ + "(")
    assert text.endswith(")")
    assert "\n" not in text
    assert repr(copy.deepcopy(m)) == text


@every
def test_gradients_reach_everything(layer):
    m = layer.make()
    xs = layer.inputs()
    if not layer.integers:
        for x in xs:
            x.requires_grad_()
    y = m(*xs)
    y.backward(kobai.tensor(np.random.default_rng(1).normal(size=y.shape), dtype=kobai.float32))
    for name, p in m.named_parameters():
        assert p.grad is not None, name
        assert p.grad.shape == p.shape, name
        assert np.isfinite(p.grad.numpy()).all(), name
    for x in [] if layer.integers else xs:
        assert x.grad is not None
        assert x.grad.shape == x.shape
        assert np.isfinite(x.grad.numpy()).all()


@every
def test_gradcheck(layer):
    m = layer.make().double()
    if layer.random:
        m.eval()
    xs = [x if layer.integers else x.requires_grad_() for x in layer.inputs(dtype=kobai.float64)]
    parameters = list(m.parameters())
    state = copy.deepcopy(m.state_dict())

    def call(*args):
        m.load_state_dict({**state, **{k: m.state_dict()[k] for k, _ in m.named_parameters()}})
        return m(*args[: len(xs)])

    assert kobai.autograd.gradcheck(call, (*xs, *parameters))


@every
def test_every_backend_computes_the_same(layer, backend):
    """Same seed: same weights, same masks, same results and gradients as on NumPy."""

    def run(where):
        with kobai.using(where):
            kobai.manual_seed(0)
            m, xs = layer.make(), [x.to(kobai.zeros(1).device) for x in layer.inputs()]
            assert {p.device for p in m.parameters()} <= {xs[0].device}
            if not layer.integers:
                xs = [x.requires_grad_() for x in xs]
            y = m(*xs)
            y.backward(kobai.ones(*y.shape))
            tensors = [y.detach(), *m.buffers(), *(p.grad for p in m.parameters()), *(x.grad for x in xs)]
            return [t.cpu().numpy() for t in tensors if t is not None]

    for ours, theirs in zip(run(backend), run("numpy"), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@every
def test_empty_batch(layer):
    out = layer.out if layer.out is not None else layer.shape
    for training in (True, False):
        m = layer.make().train(training)
        shapes = [(0, *shape[1:]) for shape in (layer.shape, layer.second) if shape]
        xs = layer.inputs(shapes[0]) if len(shapes) == 1 else [kobai.ones(*shape) for shape in shapes]
        leaves = [*(x.requires_grad_() for x in xs if x.is_floating_point()), *m.parameters()]
        y = m(*xs)
        assert y.shape == (0, *out[1:])
        for leaf, slope in zip(leaves, kobai.autograd.grad(y.sum(), leaves), strict=True) if leaves else ():
            assert slope.shape == leaf.shape
            assert (slope == 0).all()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [(layer, *wrong) for layer in LAYERS.values() for wrong in layer.wrong],
    ids=[f"{name} {wrong[0]}" for name, layer in LAYERS.items() for wrong in layer.wrong],
)
def test_wrong_shape(layer, shape, message):
    m = layer.make()
    xs = layer.inputs(shape)
    with pytest.raises((ValueError, RuntimeError), match=re.escape(message)):
        m(*xs)


def test_every_layer_is_examined():
    """A new layer must join the table."""
    elsewhere = {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"}  # test_recurrent.py
    containers = {"Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "Parameter"}
    layers = {
        name
        for name, value in vars(nn).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and not name.endswith("Loss")
    }
    elsewhere |= {name for name in layers if name.startswith(("Multihead", "Transformer"))}  # test_transformer.py
    elsewhere |= {name for name in layers if name.startswith("Lazy")}  # test_lazy.py
    examined = {type(layer.make()).__name__ for layer in LAYERS.values()}
    assert layers - containers - elsewhere == examined


# --- Linear -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_linear_activation_is_the_separate_layer(name):
    kobai.manual_seed(0)
    fused = nn.Linear(6, 5, activation=name)
    kobai.manual_seed(0)
    apart = nn.Sequential(nn.Linear(6, 5), {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}[name]())
    x = kobai.randn(7, 6)
    a, b = fused(x), apart(x)
    assert np.allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6, atol=1e-7)
    a.sum().backward()
    b.sum().backward()
    assert np.allclose(fused.weight.grad.numpy(), apart[0].weight.grad.numpy(), rtol=1e-5, atol=1e-6)
    assert repr(fused) == f"Linear(in_features=6, out_features=5, bias=True, activation='{name}')"


def test_linear_init():
    layer = nn.Linear(400, 300, init="he", generator=kobai.Generator().manual_seed(1))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert (layer.bias == 0).all()
    same = nn.Linear(400, 300, init="he", generator=kobai.Generator().manual_seed(1))
    assert (same.weight == layer.weight).all()
    plain = nn.Linear(400, 300)
    for p in plain.parameters():
        assert p.abs().max().item() <= 1 / 20
        assert p.std().item() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.1)
    before = plain.weight.tolist()
    plain.reset_parameters()
    assert plain.weight.tolist() != before
    assert nn.Linear(2, 2, init=nn.init.ones_by_hand if hasattr(nn.init, "ones_by_hand") else "ones").weight.sum() == 4


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((-1, 2), {}, RuntimeError, "Linear: expected in_features >= 0, got -1"),
        ((2, 2.5), {}, TypeError, "Linear: expected out_features to be an integer, got 2.5"),
        ((2, 2), {"activation": "rleu"}, ValueError, "Did you mean 'relu'"),
        ((2, 2), {"init": "hee"}, ValueError, "Did you mean 'he'"),
        ((2, 2), {"device": "gpu"}, ValueError, "expected 'cpu'"),
        ((2, 2), {"colour": "red"}, TypeError, "colour"),
    ],
)
def test_linear_nonsense(args, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        nn.Linear(*args, **options)


def test_linear_dtype():
    layer = nn.Linear(3, 2, dtype=kobai.float64, device="cpu")
    assert layer.weight.dtype == layer.bias.dtype == kobai.float64
    with pytest.raises(RuntimeError, match="dtype"):
        layer(kobai.ones(1, 3))


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (
            nn.Conv2d(4, 4, 3, 2, 1, 2, 2, False, "reflect"),
            "Conv2d(4, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), groups=2, bias=False, "
            "padding_mode=reflect)",
        ),
        (
            nn.ConvTranspose2d(3, 4, 3, 2, 1, 1),
            "ConvTranspose2d(3, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1))",
        ),
        (nn.Embedding(4, 3, 1, 2.0, 1.0), "Embedding(4, 3, padding_idx=1, max_norm=2.0, norm_type=1.0)"),
        (nn.LSTM(3, 4, 2, batch_first=True), "LSTM(3, 4, num_layers=2, batch_first=True)"),
        (nn.RNNCell(3, 4, False, "relu"), "RNNCell(3, 4, bias=False, nonlinearity=relu)"),
        (nn.ReLU(True), "ReLU(inplace=True)"),
        (nn.ELU(0.5, True), "ELU(alpha=0.5, inplace=True)"),
    ],
)
def test_repr_shows_what_is_not_the_default(layer, text):
    assert repr(layer) == text


def test_flatten_and_bilinear_refuse():
    for arguments in (("features", (2, 3)), (1, (2, "x"))):
        with pytest.raises(TypeError, match="Unflatten: expected an int and a tuple of ints"):
            nn.Unflatten(*arguments)
    with pytest.raises(NotImplementedError, match="embedding: scale_grad_by_freq"):
        F.embedding(kobai.tensor([0]), kobai.ones(2, 2), sparse=True)


# --- normalisation ------------------------------------------------------------------------------------------------


def test_batch_norm_by_hand():
    norm = nn.BatchNorm1d(2, momentum=0.25)
    x = np.array([[1.0, 2.0], [3.0, 6.0], [8.0, 1.0]], np.float32)
    y = norm(kobai.tensor(x)).detach().numpy()
    assert np.allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), atol=1e-6)
    assert np.allclose(norm.running_mean.numpy(), 0.25 * x.mean(0))
    assert np.allclose(norm.running_var.numpy(), 0.75 + 0.25 * x.var(0, ddof=1))
    assert norm.num_batches_tracked.item() == 1
    assert norm.num_batches_tracked.dtype == kobai.int64
    norm.eval()
    z = norm(kobai.tensor(x)).detach().numpy()
    assert np.allclose(z, (x - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + 1e-5), atol=1e-6)
    assert norm.num_batches_tracked.item() == 1
    norm.reset_running_stats()
    assert norm.running_mean.tolist() == [0, 0]
    assert norm.running_var.tolist() == [1, 1]
    assert norm.num_batches_tracked.item() == 0


def test_batch_norm_cumulative_average():
    norm = nn.BatchNorm1d(1, momentum=None)
    batches = [np.random.default_rng(i).normal(size=(5, 1)).astype(np.float32) for i in range(4)]
    for x in batches:
        norm(kobai.tensor(x))
    assert norm.running_mean.item() == pytest.approx(np.mean([x.mean() for x in batches]), rel=1e-5)
    assert norm.running_var.item() == pytest.approx(np.mean([x.var(ddof=1) for x in batches]), rel=1e-5)


def test_batch_norm_statistics_are_written_in_place():
    """A captured step replays into the same arrays."""
    norm = nn.BatchNorm1d(3)
    arrays = [b.array for b in norm.buffers()]
    norm(kobai.randn(4, 3))
    assert all(b.array is a for b, a in zip(norm.buffers(), arrays, strict=True))


def test_batch_norm_without_statistics_uses_the_batch_in_evaluation():
    norm = nn.BatchNorm1d(3, track_running_stats=False, affine=False).eval()
    y = norm(5 + kobai.randn(50, 3))
    assert abs(y.mean().item()) < 1e-5
    assert list(norm.state_dict()) == []


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_batch_norm_activation_is_the_separate_layer(name):
    kobai.manual_seed(0)
    fused, apart = nn.BatchNorm1d(4, activation=name), nn.BatchNorm1d(4)
    x = kobai.randn(8, 4)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = fused(a), getattr(kobai, name)(apart(b))
    assert np.allclose(y.detach().numpy(), z.detach().numpy(), atol=1e-6)
    dy = kobai.randn(8, 4)
    y.backward(dy)
    z.backward(dy)
    assert np.allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-5)
    assert np.allclose(fused.weight.grad.numpy(), apart.weight.grad.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="Did you mean 'relu'"):
        nn.BatchNorm1d(4, activation="rleu")


def test_normalisation_nonsense():
    with pytest.raises(ValueError, match=r"num_channels \(5\) must be divisible by num_groups \(2\)"):
        nn.GroupNorm(2, 5)
    with pytest.raises(ValueError, match="at least one dimension"):
        nn.LayerNorm(())
    with pytest.raises(RuntimeError, match="num_features >= 0"):
        nn.BatchNorm1d(-3)


# --- dropout ------------------------------------------------------------------------------------------------------


def test_dropout_statistics_and_seed():
    drop = nn.Dropout(0.3)
    kobai.manual_seed(5)
    y = drop(kobai.ones(100, 100)).numpy()
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.02)
    kobai.manual_seed(5)
    assert np.array_equal(drop(kobai.ones(100, 100)).numpy(), y)
    assert not np.array_equal(drop(kobai.ones(100, 100)).numpy(), y)


def test_gelu_knows_its_two_forms():
    with pytest.raises(ValueError, match="GELU: expected approximate 'none' or 'tanh', got 'tan'"):
        nn.GELU("tan")


def test_dropout_edges():
    x = kobai.ones(3, 3)
    assert nn.Dropout(0.0)(x).tolist() == x.tolist()
    assert nn.Dropout(1.0)(x).sum().item() == 0.0
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="Dropout: expected a probability p between 0 and 1"):
            nn.Dropout(p)
    y = kobai.ones(1000)
    nn.Dropout(0.5, inplace=True)(y)
    assert set(y.tolist()) == {0.0, 2.0}


def test_dropout_mask_is_that_of_the_gradient():
    x = kobai.ones(1000, requires_grad=True)
    y = nn.Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad.tolist() == y.tolist()


@pytest.mark.parametrize(("make", "shape"), [(nn.Dropout1d, (50, 20, 3)), (nn.Dropout2d, (50, 20, 3, 2))])
def test_channel_dropout(make, shape):
    y = make(0.4)(kobai.ones(*shape)).numpy().reshape(1000, -1)
    assert (y == y[:, :1]).all()
    assert (y[:, 0] == 0).mean() == pytest.approx(0.4, abs=0.06)


def test_alpha_dropout_keeps_mean_and_variance():
    y = nn.AlphaDropout(0.3)(kobai.randn(400, 400))
    assert abs(y.mean().item()) < 0.02
    assert y.std().item() == pytest.approx(1.0, abs=0.02)
    assert nn.AlphaDropout(1.0)(kobai.ones(3)).tolist() == [0, 0, 0]
    x = kobai.ones(500)
    nn.AlphaDropout(0.5, inplace=True)(x)
    assert len(set(x.tolist())) == 2


def test_rrelu_slopes():
    x = -kobai.ones(1000)
    y = nn.RReLU(0.1, 0.3)(x).numpy()
    assert -0.3 <= y.min() < -0.29
    assert -0.11 < y.max() <= -0.1
    assert y.mean() == pytest.approx(-0.2, abs=0.01)
    assert np.allclose(nn.RReLU(0.1, 0.3).eval()(x).numpy(), -0.2)


# --- Embedding ----------------------------------------------------------------------------------------------------


def test_embedding():
    table = nn.Embedding(5, 3, padding_idx=-1)
    assert table.padding_idx == 4
    assert table.weight[4].tolist() == [0, 0, 0]
    table(kobai.tensor([1, 1, 4])).sum().backward()
    assert table.weight.grad.tolist() == [[0] * 3, [2] * 3, [0] * 3, [0] * 3, [0] * 3]
    for index in (5, -1):
        with pytest.raises(IndexError, match="expected indices in"):
            table(kobai.tensor([index]))
    with pytest.raises((RuntimeError, TypeError), match="integer"):
        table(kobai.tensor([1.0]))


def test_embedding_from_pretrained():
    weight = kobai.randn(4, 3)
    table = nn.Embedding.from_pretrained(weight)
    assert not table.weight.requires_grad
    assert table.weight.array is weight.array
    assert nn.Embedding.from_pretrained(weight, freeze=False).weight.requires_grad
    with pytest.raises(ValueError, match="2-D"):
        nn.Embedding.from_pretrained(kobai.ones(3))


def test_embedding_max_norm():
    table = nn.Embedding.from_pretrained(kobai.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]]), max_norm=1.0)
    out = table(kobai.tensor([0, 1, 0]))
    assert np.allclose(out.numpy(), [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]], atol=1e-5)
    assert table.weight[2].tolist() == [30.0, 40.0]  # not looked up, not changed


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((4, 3), {"padding_idx": 4}, ValueError, "padding_idx within 4 rows, got 4"),
        ((4, 3), {"sparse": True}, NotImplementedError, "sparse=True"),
        ((4, 3), {"scale_grad_by_freq": True}, NotImplementedError, "scale_grad_by_freq"),
        ((4, -3), {}, RuntimeError, "embedding_dim >= 0"),
        ((4, 3), {"_weight": kobai.ones(3, 3)}, ValueError, "expected weight (4, 3), got (3, 3)"),
    ],
)
def test_embedding_nonsense(args, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        nn.Embedding(*args, **options)


# --- convolution --------------------------------------------------------------------------------------------------


def test_conv_init_and_activation():
    layer = nn.Conv2d(16, 64, 5, init="he", generator=kobai.Generator().manual_seed(0))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert (layer.bias == 0).all()
    fused = nn.Conv2d(2, 3, 3, activation="relu")
    apart = nn.Conv2d(2, 3, 3)
    apart.load_state_dict(fused.state_dict())
    x = kobai.randn(2, 2, 5, 5)
    assert np.allclose(fused(x).detach().numpy(), apart(x).relu().detach().numpy())
    assert repr(fused) == "Conv2d(2, 3, kernel_size=(3, 3), stride=(1, 1), activation='relu')"


def test_conv_transpose_output_size():
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = kobai.randn(1, 2, 4, 4)
    assert layer(x).shape == (1, 3, 7, 7)
    assert layer(x, output_size=(8, 7)).shape == (1, 3, 8, 7)
    with pytest.raises(ValueError, match=r"expected output_size between \[7, 7\] and \[8, 8\], got \[9, 7\]"):
        layer(x, output_size=[9, 7])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "must be divisible by groups (2)"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), ValueError, "Conv2d: expected groups >= 1, got 0"),
        (lambda: nn.Conv2d(-3, 4, 3), RuntimeError, "Conv2d: expected in_channels >= 0, got -3"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), TypeError, "Conv2d: expected kernel_size to be an integer or 2 of them"),
        (lambda: nn.Conv2d(3, 4, 0), RuntimeError, "kernel_size >= 1"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), RuntimeError, "stride >= 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding="smae"), ValueError, "Did you mean 'same'"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="reflct"), ValueError, "Did you mean 'reflect'"),
        (lambda: nn.Conv2d(3, 4, 3, activation="gleu"), ValueError, "Conv2d: unknown activation 'gleu'"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), ValueError, "padding_mode='zeros'"),
    ],
)
def test_conv_nonsense(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_embedding_bag():
    table = kobai.tensor([[1.0], [2.0], [4.0], [8.0]])
    bag = F.embedding_bag
    flat, begins = kobai.tensor([0, 1, 2, 3, 3]), kobai.tensor([0, 2, 2])
    assert bag(flat, table, begins, mode="sum").tolist() == [[3], [0], [20]]
    assert bag(flat, table, kobai.tensor([0, 2, 2, 5]), include_last_offset=True).tolist()[:2] == [[1.5], [0]]
    assert bag(flat, table, begins, mode="sum", padding_idx=3).tolist() == [[3], [0], [4]]
    assert bag(flat, table, begins, padding_idx=3).tolist() == [[1.5], [0], [4]]
    two = kobai.tensor([[0, 1], [3, 2]])
    assert bag(two, table, mode="max").tolist() == [[2], [8]]
    weights = kobai.tensor([[1.0, 10.0], [0.0, 1.0]])
    assert bag(two, table, mode="sum", per_sample_weights=weights).tolist() == [[21], [4]]
    for arguments, options, error, message in (
        ((two, table), {"mode": "men"}, ValueError, "embedding_bag: unknown mode 'men'"),
        ((two, table), {"per_sample_weights": weights}, ValueError, "for mode 'sum'"),
        ((flat, table), {}, ValueError, "with offsets"),
        ((flat, table, begins), {"mode": "max"}, NotImplementedError, "mode 'max'"),
    ):
        with pytest.raises(error, match=message):
            bag(*arguments, **options)
    with pytest.raises(ValueError, match="EmbeddingBag: expected mode"):
        nn.EmbeddingBag(3, 2, mode="men")


# --- activations --------------------------------------------------------------------------------------------------


ACTIVATIONS = [*activation.__all__, *softmax.__all__]
FUNCTIONS = {name.replace("_", ""): getattr(F, name) for name in F.__all__}


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS} - {"Softmax2d"}))
def test_an_activation_is_the_function_of_its_name(name):
    """Its options too, none of which has its default here."""
    layer, function = getattr(nn, name), FUNCTIONS[name.lower()]
    options = {k: p.default for k, p in inspect.signature(layer).parameters.items()}
    options |= {k: v + 0.25 for k, v in options.items() if isinstance(v, float)}
    options |= {
        k: v for k, v in (("dim", 0), ("approximate", "tanh"), ("threshold", 0.5), ("value", 7.0)) if k in options
    }
    layer = layer(**options).eval()
    taken = inspect.signature(function).parameters
    x = kobai.randn(6, 4)
    expected = function(x.clone(), **{k: getattr(layer, k) for k in list(taken)[1:] if hasattr(layer, k)})
    assert layer(x).tolist() == expected.tolist()
    assert options.keys() - taken.keys() <= {"init", "num_parameters", "device", "dtype"}


@pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if hasattr(layer.make(), "inplace")])
def test_in_place(name):
    layer, apart = LAYERS[name].make(), LAYERS[name].make()
    layer.inplace = True

    def run(m, x):
        kobai.manual_seed(0)
        return m(x)

    x = kobai.randn(LAYERS[name].shape)
    expected = run(apart, x).tolist()
    assert run(layer, x) is x
    assert x.tolist() == expected
    leaf = kobai.randn(LAYERS[name].shape, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        layer(leaf)
    reference = leaf.detach().clone().requires_grad_()
    run(layer, leaf * 1).sum().backward()
    run(apart, reference * 1).sum().backward()
    assert leaf.grad.tolist() == reference.grad.tolist()


def test_softmax_wants_a_dimension():
    for layer in (nn.Softmax(), nn.LogSoftmax(), nn.Softmin()):
        with pytest.warns(UserWarning, match="dim was not given, taking 1"):
            layer(kobai.ones(2, 3))


def test_in_place_chain_in_sequential():
    """An in-place activation after a layer whose product the tape does not need is right."""
    kobai.manual_seed(0)
    a = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    b = copy.deepcopy(a)
    b[1] = nn.ReLU()
    x = kobai.randn(5, 3)
    a(x).sum().backward()
    b(x).sum().backward()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert np.allclose(p.grad.numpy(), q.grad.numpy())


# --- functions ----------------------------------------------------------------------------------------------------


def test_gumbel_softmax():
    kobai.manual_seed(0)
    logits = kobai.tensor([[0.0, 1.0, 2.0]]).expand(3000, 3)
    hard = F.gumbel_softmax(logits, hard=True)
    p = np.exp([0.0, 1.0, 2.0])
    assert np.allclose(hard.mean(0).numpy(), p / p.sum(), atol=0.03)
    assert set(hard.unique().tolist()) <= {0.0, 1.0} or np.isin(hard.numpy().round(5), [0, 1]).all()
    x = kobai.zeros(2, 3, requires_grad=True)
    soft = F.gumbel_softmax(x, tau=0.5)
    assert np.allclose(soft.sum(1).detach().numpy(), 1)
    (soft * kobai.randn(2, 3)).sum().backward()
    assert x.grad.abs().sum().item() > 0
    with pytest.raises(ValueError, match="tau"):
        F.gumbel_softmax(x, tau=0)
    with pytest.raises(ValueError, match="eps"):
        F.gumbel_softmax(x, eps=1.0)


def test_one_hot():
    assert F.one_hot(kobai.tensor([1, 0])).tolist() == [[0, 1], [1, 0]]
    assert F.one_hot(kobai.tensor([], dtype=kobai.int64), 3).shape == (0, 3)
    for index, classes, error in (([3], 3, IndexError), ([-1], 3, IndexError), ([0], 0, IndexError)):
        with pytest.raises(error):
            F.one_hot(kobai.tensor(index), classes)
    with pytest.raises(RuntimeError, match="integer"):
        F.one_hot(kobai.tensor([1.0]))
    with pytest.raises(RuntimeError, match="num_classes"):
        F.one_hot(kobai.tensor([], dtype=kobai.int64))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_pad_modes(mode):
    x = np.arange(12.0).reshape(3, 4)
    numpy_mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    ours = F.pad(kobai.tensor(x), (1, 2, 2, 0), mode=mode)
    assert np.array_equal(ours.numpy(), np.pad(x, ((2, 0), (1, 2)), mode=numpy_mode))
    if mode != "replicate":
        with pytest.raises(
            RuntimeError, match=f"can add {3 if mode == 'reflect' else 4} elements to size 4, got 5 and 0"
        ):
            F.pad(kobai.tensor(x), (5, 0), mode=mode)
    with pytest.raises(ValueError, match="value"):
        F.pad(kobai.tensor(x), (1, 0), mode=mode, value=1.0)


@pytest.mark.parametrize(
    ("mode", "pad", "places"),
    [
        ("reflect", (-1, 2), [1, 2, 3, 2, 1]),
        ("reflect", (-3, 3), [3, 2, 1, 0]),
        ("reflect", (3, -3), [3, 2, 1, 0]),
        ("reflect", (-2, -1), [2]),
        ("replicate", (-4, 5), [3] * 5),
        ("replicate", (4, -4), [0] * 4),
        ("replicate", (-1, 2), [1, 2, 3, 3, 3]),
        ("circular", (-1, 4), [1, 2, 3, 1, 2, 3, 1]),  # what is left is repeated
        ("circular", (3, -1), [0, 1, 2, 0, 1, 2]),
        ("circular", (-3, 3), [3] * 4),
        ("circular", (-4, 0), []),
    ],
)
def test_a_negative_number_takes_away_in_every_mode(mode, pad, places, backend):
    x = kobai.tensor([[[10.0, 11.0, 12.0, 13.0]]], requires_grad=True)
    y = F.pad(x, pad, mode)
    assert y.tolist() == [[[10.0 + i for i in places]]]
    (dx,) = kobai.autograd.grad(y.sum(), [x])
    assert dx.tolist() == [[[places.count(i) for i in range(4)]]]


@pytest.mark.parametrize(
    ("mode", "pad"),
    [("reflect", (-4, 0)), ("replicate", (-4, 0)), ("circular", (-4, 1)), ("circular", (4, -4)), ("circular", (-5, 4))],
)
def test_padding_refuses_to_take_all_away(mode, pad):
    with pytest.raises(RuntimeError, match="pad: dimension 2 of size 4 cannot lose"):
        F.pad(kobai.ones(1, 1, 4), pad, mode)


def test_pad_nonsense():
    x = kobai.ones(2, 3)
    with pytest.raises(RuntimeError, match="even number"):
        F.pad(x, (1,))
    with pytest.raises(RuntimeError, match="even number"):
        F.pad(x, (1,) * 6)
    with pytest.raises(NotImplementedError, match="mirror"):
        F.pad(x, (1, 1), mode="mirror")
    with pytest.raises(RuntimeError, match="cannot lose"):
        F.pad(x, (-2, -2))


def test_attention_refuses_mask_and_causal():
    q = kobai.ones(2, 3)
    with pytest.raises(RuntimeError, match="got both"):
        F.scaled_dot_product_attention(q, q, q, kobai.ones(2, 2), is_causal=True)
