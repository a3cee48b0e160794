"""The examination that every layer must pass."""

import copy
import pickle
import re
from dataclasses import dataclass, field

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import activation


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
    "SyncBatchNorm": Layer(lambda: nn.SyncBatchNorm(3), (4, 3, 2), wrong=[((4,), "(N, 3, *, *, *), got (4,)")]),
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
        lambda: nn.Dropout2d(0.5), (3, 4, 2, 2), wrong=[((3,), "dropout2d: expected 3 or 4 dimensions")], random=True
    ),
    "FeatureAlphaDropout": Layer(lambda: nn.FeatureAlphaDropout(0.5), (3, 4, 2), random=True),
    "Dropout3d": Layer(lambda: nn.Dropout3d(0.5), (3, 4, 2, 2, 2), random=True),
    "InstanceNorm1d": Layer(
        lambda: nn.InstanceNorm1d(4, affine=True),
        (3, 4, 5),
        wrong=[((3, 5, 5), "(N, 4, L) or (4, L), got (3, 5, 5)")],
    ),
    "InstanceNorm2d": Layer(lambda: nn.InstanceNorm2d(64), (3, 2, 2, 3)),
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
    "AdaptiveAvgPool3d": Layer(lambda: nn.AdaptiveAvgPool3d((1, None, 2)), (2, 3, 4, 5, 3), (2, 3, 1, 5, 2)),
    "AdaptiveMaxPool3d": Layer(
        lambda: nn.AdaptiveMaxPool3d((2, 3, 1)), (2, 2, 3, 4, 2), (2, 2, 2, 3, 1), [((2,), "(N, C, D, H, W)")]
    ),
    "LPPool1d": Layer(lambda: nn.LPPool1d(2, 2), (2, 3, 5), (2, 3, 2)),
    "LPPool2d": Layer(lambda: nn.LPPool2d(2, (2, 3), 1), (2, 3, 4, 5), (2, 3, 3, 3), [((5,), "lp_pool2d")]),
    "LPPool3d": Layer(lambda: nn.LPPool3d(2, 2), (2, 2, 2, 2, 4), (2, 2, 1, 1, 2)),
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
def test_pickled(layer):
    m = layer.make()
    x = layer.inputs()
    y = m(*x)
    if y.requires_grad:  # a step, which changes the parameters in place
        y.sum().backward()
        kobai.optim.SGD(m.parameters(), lr=0.1).step()
    twin = pickle.loads(pickle.dumps(m))
    assert repr(twin) == repr(m)
    assert m.eval()(*x).tolist() == twin.eval()(*x).tolist()


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
    elsewhere = {"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "RNNBase", "RNNCellBase"}  # test_recurrent.py
    containers = {"Module", "Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict", "DataParallel"}
    layers = {
        name
        for name, value in vars(nn).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and not name.endswith("Loss")
    }
    elsewhere |= {name for name in layers if name.startswith(("Multihead", "Transformer"))}  # test_transformer.py
    elsewhere |= {name for name in layers if name.startswith("Lazy")}  # test_lazy.py
    elsewhere |= {name for name in layers if name.startswith("MaxUnpool")}  # test_pooling.py
    examined = {type(layer.make()).__name__ for layer in LAYERS.values()}
    assert layers - containers - elsewhere == examined
