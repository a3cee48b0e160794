"""Every layer, loss and function, forward and backward, against PyTorch on the same numbers."""

import inspect
import math

import numpy as np
import pytest
from oracle_inputs import LESS_EXACT, close, ints, log_simplex, n, signs, simplex, tensors, u

import kobai
from kobai import nn

pytestmark = pytest.mark.oracle


# --- layers -------------------------------------------------------------------------------------------------------

PLAIN = "Sigmoid Tanh ReLU ReLU6 SELU SiLU Mish Softsign LogSigmoid Tanhshrink Hardsigmoid Hardswish".split()

LAYERS = [
    ("Unfold", (2,), {}, [n(2, 3, 4, 5)]),
    ("Unfold", ((2, 3),), {"stride": 2, "padding": (1, 0), "dilation": (1, 2)}, [n(2, 3, 5, 6)]),
    ("Unfold", (2,), {}, [n(3, 4, 5)]),
    ("Fold", ((4, 5), 2), {}, [n(2, 12, 12)]),
    ("Fold", (5, (2, 3)), {"stride": 2, "padding": (1, 0)}, [n(2, 6, 6)]),
    ("Fold", ((4, 5), 2), {}, [n(12, 12)]),
    ("LocalResponseNorm", (3,), {}, [n(2, 5, 4)]),
    ("LocalResponseNorm", (4, 0.1, 0.5, 2.0), {}, [n(2, 5, 3, 2)]),
    ("ChannelShuffle", (2,), {}, [n(2, 6, 3, 2)]),
    ("Softmax2d", (), {}, [n(2, 3, 2, 2)]),
    ("UpsamplingNearest2d", (), {"scale_factor": 2}, [n(2, 3, 4, 5)]),
    ("UpsamplingBilinear2d", (), {"scale_factor": 2}, [n(2, 3, 4, 5)]),
    ("CircularPad1d", (2,), {}, [n(2, 3, 4)]),
    ("CircularPad2d", ((1, 2, 0, 1),), {}, [n(2, 3, 4, 5)]),
    ("ConstantPad3d", (1, 2.5), {}, [n(1, 2, 2, 3, 2)]),
    ("ZeroPad3d", ((1, 0, 2, -1, 0, 1),), {}, [n(2, 2, 3, 4, 2)]),
    ("CircularPad3d", ((1, 0, 2, 1, 0, 1),), {}, [n(2, 2, 3, 4, 2)]),
    ("ReflectionPad3d", (1,), {}, [n(1, 2, 2, 3, 2)]),
    ("ReplicationPad3d", (1,), {}, [n(1, 2, 2, 3, 2)]),
    ("Identity", (), {}, [n(3, 4)]),
    ("Linear", (5, 3), {}, [n(4, 5)]),
    ("Linear", (5, 3), {"bias": False}, [n(2, 4, 5)]),
    ("Linear", (5, 3), {}, [n(5)]),
    ("Linear", (784, 100), {}, [n(100, 784)]),
    ("Bilinear", (3, 4, 5), {}, [n(6, 3), n(6, 4)]),
    ("Bilinear", (3, 4, 5), {"bias": False}, [n(2, 6, 3), n(2, 6, 4)]),
    ("Flatten", (), {}, [n(2, 3, 4)]),
    ("Flatten", (), {"start_dim": 0, "end_dim": 1}, [n(2, 3, 4)]),
    ("Unflatten", (1, (3, 4)), {}, [n(2, 12)]),
    ("Unflatten", (1, (3, -1)), {}, [n(2, 12, 2)]),
    *((name, (), {}, [n(5, 7, scale=3.0)]) for name in PLAIN),
    *((name, (), {"inplace": True}, None) for name in ("ReLU", "ReLU6", "SiLU", "Mish", "SELU", "Hardswish")),
    ("LeakyReLU", (), {}, [n(5, 7)]),
    ("LeakyReLU", (0.2,), {}, [n(5, 7)]),
    ("PReLU", (), {}, [n(5, 7)]),
    ("PReLU", (), {}, [n(5)]),
    ("PReLU", (3,), {"init": 0.1}, [n(2, 3, 4)]),
    ("RReLU", (), {}, [n(5, 7)]),
    ("RReLU", (0.1, 0.2), {}, [n(5, 7)]),
    ("ELU", (), {}, [n(5, 7)]),
    ("ELU", (0.5,), {}, [n(5, 7)]),
    ("CELU", (), {}, [n(5, 7)]),
    ("CELU", (2.0,), {}, [n(5, 7)]),
    ("GELU", (), {}, [n(5, 7)]),
    ("GELU", (), {"approximate": "tanh"}, [n(5, 7)]),
    ("Softplus", (), {}, [n(5, 7)]),
    ("Softplus", (2.0, 3.0), {}, [n(5, 7)]),
    ("Hardtanh", (), {}, [n(5, 7)]),
    ("Hardtanh", (-2.0, 0.5), {}, [n(5, 7)]),
    ("Threshold", (0.1, -3.0), {}, [n(5, 7)]),
    ("Softshrink", (), {}, [n(5, 7)]),
    ("Hardshrink", (0.7,), {}, [n(5, 7)]),
    ("GLU", (), {}, [n(5, 6)]),
    ("GLU", (0,), {}, [n(4, 3)]),
    ("Softmax", (1,), {}, [n(5, 7)]),
    ("Softmax", (0,), {}, [n(5, 7, 2, scale=30.0)]),
    ("LogSoftmax", (-1,), {}, [n(5, 7, scale=30.0)]),
    ("Softmin", (1,), {}, [n(5, 7)]),
    ("BatchNorm1d", (3,), {}, [n(6, 3)]),
    ("BatchNorm1d", (3,), {}, [n(6, 3, 5)]),
    ("BatchNorm1d", (3,), {"eps": 0.1, "momentum": 0.5}, [n(6, 3)]),
    ("BatchNorm1d", (3,), {"momentum": None}, [n(6, 3)]),
    ("BatchNorm1d", (3,), {"affine": False}, [n(6, 3)]),
    ("BatchNorm1d", (3,), {"bias": False}, [n(6, 3)]),
    ("BatchNorm1d", (3,), {"track_running_stats": False}, [n(6, 3, 2)]),
    ("BatchNorm2d", (3,), {}, [n(4, 3, 5, 2)]),
    ("BatchNorm3d", (2,), {}, [n(4, 2, 3, 2, 2)]),
    ("LayerNorm", (4,), {}, [n(3, 4)]),
    ("LayerNorm", ((3, 4),), {"eps": 0.1}, [n(2, 3, 4)]),
    ("LayerNorm", (4,), {"elementwise_affine": False}, [n(2, 3, 4)]),
    ("LayerNorm", (4,), {"bias": False}, [n(2, 3, 4)]),
    ("RMSNorm", (4,), {}, [n(3, 4)]),
    ("RMSNorm", ((3, 4),), {"eps": 0.1, "elementwise_affine": False}, [n(2, 3, 4)]),
    ("GroupNorm", (2, 4), {}, [n(3, 4, 5)]),
    ("GroupNorm", (4, 4), {"affine": False}, [n(3, 4, 6)]),
    ("InstanceNorm1d", (3,), {}, [n(2, 3, 5)]),
    ("InstanceNorm1d", (3,), {"affine": True, "track_running_stats": True, "momentum": 0.3}, [n(2, 3, 5)]),
    ("InstanceNorm2d", (3,), {"affine": True, "eps": 0.1}, [n(2, 3, 4, 3)]),
    ("InstanceNorm2d", (3,), {}, [n(3, 4, 3)]),
    ("InstanceNorm3d", (3,), {"affine": True, "bias": False}, [n(2, 3, 2, 2, 2)]),
    ("GroupNorm", (1, 4), {"eps": 0.1}, [n(3, 4, 2, 2)]),
    ("Dropout", (0.5,), {}, [n(3, 4)]),
    ("Dropout1d", (0.5,), {}, [n(3, 4, 2)]),
    ("Dropout2d", (0.5,), {}, [n(3, 4, 2, 2)]),
    ("Dropout3d", (0.5,), {}, [n(3, 4, 2, 2, 2)]),
    ("AlphaDropout", (0.5,), {}, [n(3, 4)]),
    ("Conv1d", (3, 4, 3), {}, [n(2, 3, 7)]),
    ("Conv1d", (3, 4, 3), {"stride": 2, "padding": 2, "dilation": 2}, [n(3, 9)]),
    ("Conv1d", (4, 6, 2), {"groups": 2, "padding": "same"}, [n(2, 4, 7)]),
    ("Conv2d", (3, 4, 3), {}, [n(2, 3, 6, 5)]),
    ("Conv2d", (3, 4, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "bias": False}, [n(2, 3, 6, 5)]),
    ("Conv2d", (4, 4, 3), {"groups": 4, "padding": 1}, [n(2, 4, 5, 5)]),
    ("Conv2d", (3, 4, 1), {"stride": 2}, [n(2, 3, 5, 6)]),
    ("Conv2d", (3, 4, 4), {"padding": "same", "dilation": 2}, [n(2, 3, 9, 8)]),
    *(
        ("Conv2d", (3, 4, 3), {"padding": (2, 1), "padding_mode": mode}, [n(2, 3, 5, 6)])
        for mode in ("reflect", "replicate", "circular")
    ),
    ("Conv3d", (2, 3, 2), {"padding": 1}, [n(2, 2, 3, 4, 3)]),
    ("ConvTranspose1d", (3, 4, 3), {"stride": 2, "padding": 1, "output_padding": 1}, [n(2, 3, 5)]),
    ("ConvTranspose2d", (3, 4, 3), {}, [n(2, 3, 4, 5)]),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}, [n(2, 4, 3, 4)]),
    ("ConvTranspose2d", (3, 4, 2), {"dilation": 2, "bias": False}, [n(3, 4, 5)]),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2}, [n(2, 2, 3, 2, 3)]),
    ("MaxPool1d", (2,), {}, [n(2, 3, 7)]),
    ("MaxPool2d", (2,), {}, [n(2, 3, 6, 5)]),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1}, [n(2, 3, 7, 8)]),
    ("MaxPool2d", ((2, 3),), {"stride": (1, 2), "dilation": (2, 1), "ceil_mode": True}, [n(3, 7, 8)]),
    ("MaxPool3d", (2,), {}, [n(2, 3, 4, 4, 2)]),
    ("AvgPool1d", (2,), {}, [n(2, 3, 7)]),
    ("AvgPool2d", (2,), {}, [n(2, 3, 6, 5)]),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True}, [n(2, 3, 6, 8)]),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, [n(2, 3, 6, 8)]),
    ("AvgPool2d", (2,), {"divisor_override": 3}, [n(2, 3, 6, 8)]),
    ("AvgPool3d", (2,), {}, [n(2, 3, 4, 4, 2)]),
    ("AdaptiveAvgPool1d", (3,), {}, [n(2, 3, 7)]),
    ("AdaptiveAvgPool2d", (1,), {}, [n(2, 3, 5, 6)]),
    ("AdaptiveAvgPool2d", ((3, 4),), {}, [n(2, 3, 5, 6)]),
    ("AdaptiveAvgPool2d", ((None, 7),), {}, [n(3, 5, 6)]),
    ("AdaptiveMaxPool1d", (3,), {}, [n(2, 3, 7)]),
    ("AdaptiveMaxPool2d", ((3, 4),), {}, [n(2, 3, 5, 6)]),
    ("AdaptiveMaxPool3d", ((3, 4, 2),), {}, [n(2, 3, 5, 6, 4)]),
    ("AdaptiveAvgPool3d", ((3, None, 2),), {}, [n(2, 3, 5, 6, 5)]),
    ("LPPool1d", (2, 3), {"stride": 2}, [n(2, 3, 8)]),
    ("LPPool2d", (3, 2), {"ceil_mode": True}, [n(2, 3, 5, 6)]),
    ("LPPool3d", (2, (2, 1, 2)), {}, [n(2, 3, 4, 3, 4)]),
    ("ZeroPad1d", (2,), {}, [n(2, 3, 4)]),
    ("ZeroPad2d", ((1, 2, 0, -1),), {}, [n(2, 3, 4, 5)]),
    ("ConstantPad1d", ((1, 2), 3.5), {}, [n(2, 3, 4)]),
    ("ConstantPad2d", (1, 3.5), {}, [n(2, 3, 4, 5)]),
    ("ReflectionPad1d", (2,), {}, [n(2, 3, 4)]),
    ("ReflectionPad2d", ((1, 2, 0, 1),), {}, [n(2, 3, 4, 5)]),
    ("ReplicationPad1d", (2,), {}, [n(2, 3, 4)]),
    ("ReplicationPad2d", ((1, 2, 0, 1),), {}, [n(2, 3, 4, 5)]),
    ("Upsample", (), {"scale_factor": 2}, [n(2, 3, 4, 5)]),
    ("Upsample", (7,), {}, [n(2, 3, 4, 5)]),
    ("Upsample", (), {"scale_factor": (2, 1.5), "mode": "bilinear"}, [n(2, 3, 4, 6)]),
    ("Upsample", (), {"size": (7, 3), "mode": "bilinear", "align_corners": True}, [n(2, 3, 4, 6)]),
    ("Upsample", (9,), {"mode": "linear"}, [n(2, 3, 4)]),
    ("PixelShuffle", (2,), {}, [n(2, 8, 3, 2)]),
    ("PixelUnshuffle", (2,), {}, [n(2, 2, 4, 6)]),
    ("Embedding", (7, 3), {}, [ints(4, 5, high=7)]),
    ("Embedding", (7, 3), {"padding_idx": 2}, [ints(20, high=7)]),
    ("Embedding", (7, 3), {"padding_idx": -1}, [ints(20, high=7)]),
    ("Embedding", (7, 3), {"max_norm": 1.0}, [ints(4, high=7)]),
    ("Embedding", (7, 3), {"max_norm": 1.0, "norm_type": 1.0}, [ints(4, high=7)]),
    *(("EmbeddingBag", (7, 3), {"mode": mode}, [ints(4, 5, high=7)]) for mode in ("sum", "mean", "max")),
    ("EmbeddingBag", (7, 3), {}, [ints(9, high=7), lambda rng, dtype: np.array([0, 3, 3, 8])]),
    ("EmbeddingBag", (7, 3), {"padding_idx": 2, "mode": "sum"}, [ints(9, high=7), lambda rng, dtype: np.array([0, 4])]),
    ("EmbeddingBag", (7, 3), {"padding_idx": 2, "max_norm": 1.0}, [ints(4, 5, high=7)]),
    ("EmbeddingBag", (7, 3), {"include_last_offset": True}, [ints(9, high=7), lambda rng, dtype: np.array([0, 4, 9])]),
    ("CosineSimilarity", (), {}, [n(4, 5), n(4, 5)]),
    ("CosineSimilarity", (2,), {}, [n(4, 5, 3), n(4, 5, 3)]),
    ("PairwiseDistance", (), {}, [n(4, 5), n(4, 5)]),
    ("PairwiseDistance", (1.0,), {"keepdim": True}, [n(4, 5), n(4, 5)]),
]
RANDOM = {"RReLU", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"}  # compared in evaluation alone

C = 5
WEIGHT = np.array([0.5, 1.0, 2.0, 0.1, 3.0])
LOSSES = [
    ("MultiMarginLoss", {}, [n(4, C), ints(4, high=C)]),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": WEIGHT}, [n(4, C), ints(4, high=C)]),
    ("MultiMarginLoss", {}, [n(C), ints(high=C)]),
    ("MultiLabelMarginLoss", {}, [n(4, C), lambda rng, dtype: rng.integers(-1, C, (4, C))]),
    ("MultiLabelMarginLoss", {}, [n(C), lambda rng, dtype: rng.permutation(C) - 1]),
    ("MultiLabelSoftMarginLoss", {}, [n(4, C), n(4, C)]),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}, [n(4, C), n(4, C)]),
    ("TripletMarginWithDistanceLoss", {"margin": 2.0}, [n(6, 3), n(6, 3), n(6, 3)]),
    ("TripletMarginWithDistanceLoss", {"swap": True}, [n(6, 3), n(6, 3), n(6, 3)]),
    ("CrossEntropyLoss", {}, [n(4, C), ints(4, high=C)]),
    ("CrossEntropyLoss", {}, [n(C), ints(high=C)]),
    ("CrossEntropyLoss", {}, [n(4, C, 3), ints(4, 3, high=C)]),
    ("CrossEntropyLoss", {}, [n(4, C, 3, 2, scale=40.0), ints(4, 3, 2, high=C)]),
    ("CrossEntropyLoss", {"weight": WEIGHT}, [n(4, C), ints(4, high=C)]),
    ("CrossEntropyLoss", {"weight": WEIGHT}, [n(4, C, 3), ints(4, 3, high=C)]),
    ("CrossEntropyLoss", {"ignore_index": 2}, [n(9, C), ints(9, high=C, special=2)]),
    ("CrossEntropyLoss", {}, [n(9, C), ints(9, high=C, special=-100)]),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}, [n(4, C), ints(4, high=C)]),
    (
        "CrossEntropyLoss",
        {"label_smoothing": 0.3, "weight": WEIGHT, "ignore_index": 1},
        [n(9, C), ints(9, high=C, special=1)],
    ),
    ("CrossEntropyLoss", {}, [n(4, C), simplex(4, C)]),
    ("CrossEntropyLoss", {}, [n(C), simplex(C, axis=0)]),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.2}, [n(4, C, 3), simplex(4, C, 3)]),
    ("NLLLoss", {}, [log_simplex(4, C), ints(4, high=C)]),
    ("NLLLoss", {}, [log_simplex(C, axis=0), ints(high=C)]),
    ("NLLLoss", {"weight": WEIGHT}, [log_simplex(4, C, 3), ints(4, 3, high=C)]),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 0}, [log_simplex(9, C), ints(9, high=C, special=0)]),
    ("MSELoss", {}, [n(4, 3), n(4, 3)]),
    ("L1Loss", {}, [n(4, 3), n(4, 3)]),
    ("SmoothL1Loss", {}, [n(4, 3), n(4, 3)]),
    ("SmoothL1Loss", {"beta": 0.3}, [n(4, 3), n(4, 3)]),
    ("SmoothL1Loss", {"beta": 0.0}, [n(4, 3), n(4, 3)]),
    ("HuberLoss", {}, [n(4, 3), n(4, 3)]),
    ("HuberLoss", {"delta": 2.5}, [n(4, 3), n(4, 3)]),
    ("BCELoss", {}, [u(4, 3), u(4, 3)]),
    ("BCELoss", {"weight": np.array([0.5, 1.0, 2.0])}, [u(4, 3), u(4, 3)]),
    ("BCEWithLogitsLoss", {}, [n(4, 3, scale=10.0), u(4, 3)]),
    ("BCEWithLogitsLoss", {"weight": np.array([0.5, 1.0, 2.0])}, [n(4, 3), u(4, 3)]),
    ("BCEWithLogitsLoss", {"pos_weight": np.array([0.5, 1.0, 2.0])}, [n(4, 3, scale=10.0), u(4, 3)]),
    ("KLDivLoss", {}, [log_simplex(4, C), simplex(4, C)]),
    ("KLDivLoss", {"log_target": True}, [log_simplex(4, C), log_simplex(4, C)]),
    ("CosineEmbeddingLoss", {}, [n(6, 3), n(6, 3), signs(6)]),
    ("CosineEmbeddingLoss", {"margin": 0.2}, [n(6, 3), n(6, 3), signs(6, as_int=True)]),
    ("MarginRankingLoss", {"margin": 0.5}, [n(6), n(6), signs(6)]),
    ("HingeEmbeddingLoss", {"margin": 2.0}, [n(6, 2), signs(6, 2)]),
    ("SoftMarginLoss", {}, [n(6, 2), signs(6, 2)]),
    ("TripletMarginLoss", {}, [n(6, 3), n(6, 3), n(6, 3)]),
    ("TripletMarginLoss", {"margin": 3.0, "p": 1.0, "swap": True}, [n(6, 3), n(6, 3), n(6, 3)]),
    ("GaussianNLLLoss", {}, [n(6, 3), n(6, 3), u(6, 3)]),
    ("GaussianNLLLoss", {"full": True, "eps": 0.1}, [n(6, 3), n(6, 3), u(6, 1, low=0.0)]),
    ("PoissonNLLLoss", {}, [n(6, 3), u(6, 3, high=5.0)]),
    ("PoissonNLLLoss", {"log_input": False, "full": True}, [u(6, 3), u(6, 3, high=5.0)]),
]


def test_every_layer_and_loss_is_compared(torch):
    """What both have, but for what is compared elsewhere: sequences (test_oracle_sequences.py), lazy layers, containers,
    unpooling (test_pooling.py), alignments (test_ctc.py), wrappers, what draws, and the softmax in parts (test_adaptive.py)."""
    elsewhere = "RNN LSTM GRU Multihead Transformer Lazy Module Parameter Sequential MaxUnpool CTC".split()
    elsewhere += "Buffer DataParallel SyncBatchNorm FeatureAlphaDropout AdaptiveLogSoftmaxWithLoss".split()
    layers = {n for n in dir(nn) if hasattr(torch.nn, n) and inspect.isclass(getattr(nn, n))}
    compared = {case[0] for case in (*LAYERS, *LOSSES)}
    assert {n for n in layers if not n.startswith(tuple(elsewhere))} - {
        "UninitializedParameter",
        "UninitializedBuffer",
    } == compared


def label(case):
    options = [str(a) for a in case[1]] if isinstance(case[1], tuple) else []
    keywords = case[2] if isinstance(case[1], tuple) else case[1]
    options += [f"{k}={'array' if isinstance(v, np.ndarray) else v}" for k, v in keywords.items()]
    inputs = case[-1] or []
    shapes = [f(np.random.default_rng(0), np.float32).shape for f in inputs]
    return f"{case[0]}({', '.join(options)}){shapes}".replace(" ", "")


def both(torch, name, args, keywords, dtype):
    """The layer in both frameworks, of one dtype, with our state in PyTorch's."""
    ours = getattr(nn, name)(*args, **tensors(keywords, kobai)).to(np.dtype(dtype))
    theirs = getattr(torch.nn, name)(*args, **tensors(keywords, torch)).to(getattr(torch, dtype))
    rng = np.random.default_rng(5)
    for key, value in ours.state_dict().items():
        if key in ("weight", "bias") and name not in ("CrossEntropyLoss", "NLLLoss", "BCELoss", "BCEWithLogitsLoss"):
            value.array[...] = rng.normal(size=value.shape)
    theirs.load_state_dict({k: torch.tensor(v.numpy().copy()) for k, v in ours.state_dict().items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


def run(torch, ours, theirs, arrays, dtype, what, differentiate=None, factor=1.0):
    """One forward and backward pass in both; everything that comes out must agree."""
    floats = [a.dtype.kind == "f" for a in arrays] if differentiate is None else differentiate
    xs = [kobai.tensor(a.copy(), requires_grad=f) for a, f in zip(arrays, floats, strict=True)]
    ts = [torch.tensor(a.copy(), requires_grad=f) for a, f in zip(arrays, floats, strict=True)]
    y, t = ours(*xs), theirs(*ts)
    close(y.detach().numpy(), t.detach().numpy(), dtype, f"{what}: forward", factor)
    assert y.dtype.name == str(t.dtype).removeprefix("torch.")
    if not t.requires_grad:
        return
    dy = np.random.default_rng(9).normal(size=y.shape).astype(dtype)
    y.backward(kobai.tensor(dy))
    t.backward(torch.tensor(dy))
    for i, (x, s) in enumerate(zip(xs, ts, strict=True)):
        if s.grad is not None:
            close(x.grad.numpy(), s.grad.numpy(), dtype, f"{what}: gradient of input {i}", factor)
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if q.grad is not None:
            close(p.grad.numpy(), q.grad.numpy(), dtype, f"{what}: gradient of {name}", factor)
    for key, value in theirs.state_dict().items():
        close(ours.state_dict()[key].numpy(), value.numpy(), dtype, f"{what}: {key}", factor)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore:Using padding=.same")
@pytest.mark.parametrize("case", [c for c in LAYERS if c[3]], ids=label)
def test_layer(torch, case, dtype):
    name, args, keywords, inputs = case
    ours, theirs = both(torch, name, args, keywords, dtype)
    rng = np.random.default_rng(0)
    factor = 10.0 if "784" in label(case) else 1.0
    if dtype == "float64":
        factor *= LESS_EXACT.get(name, 1.0)
    for step in range(3):
        if name in RANDOM:
            break
        run(torch, ours, theirs, [f(rng, dtype) for f in inputs], dtype, f"train {step}", factor=factor)
        ours.zero_grad()
        theirs.zero_grad()
    run(torch, ours.eval(), theirs.eval(), [f(rng, dtype) for f in inputs], dtype, "eval", factor=factor)


@pytest.mark.parametrize("case", [c for c in LAYERS if not c[3]], ids=label)
def test_in_place_layer(torch, case):
    name, args, keywords, _ = case
    x = np.random.default_rng(0).normal(size=(5, 7))
    a, b = kobai.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    ours, theirs = getattr(nn, name)(*args, **keywords), getattr(torch.nn, name)(*args, **keywords)
    before, reference = a * 2, b * 2
    y, t = ours(before), theirs(reference)
    close(before.detach().numpy(), reference.detach().numpy(), "float64", "the input afterwards")
    (y * y).sum().backward()
    (t * t).sum().backward()
    close(a.grad.numpy(), b.grad.numpy(), "float64", "gradient")


@pytest.mark.filterwarnings("ignore:reduction. .mean. divides")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", LOSSES, ids=label)
def test_loss(torch, case, dtype, reduction):
    name, keywords, inputs = case
    keywords = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}
    ours, theirs = both(torch, name, (), {**keywords, "reduction": reduction}, dtype)
    rng = np.random.default_rng(0)
    differentiate = [True] + [
        name in ("CosineEmbeddingLoss", "MarginRankingLoss", "TripletMarginLoss", "GaussianNLLLoss") and i < 2
        for i in range(1, len(inputs))
    ]
    run(torch, ours, theirs, [f(rng, dtype) for f in inputs], dtype, reduction, differentiate)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["KLDivLoss"])
def test_batchmean(torch, name, dtype):
    ours, theirs = both(torch, name, (), {"reduction": "batchmean"}, dtype)
    rng = np.random.default_rng(0)
    run(torch, ours, theirs, [log_simplex(4, C)(rng, dtype), simplex(4, C)(rng, dtype)], dtype, "batchmean")


def test_losses_of_nothing_left(torch):
    """All targets ignored: PyTorch's mean is 0/0."""
    x, t = np.zeros((2, 3), np.float32), np.full(2, -100)
    for reduction in ("mean", "sum"):
        ours = nn.CrossEntropyLoss(reduction=reduction)(kobai.tensor(x), kobai.tensor(t)).item()
        theirs = torch.nn.CrossEntropyLoss(reduction=reduction)(torch.tensor(x), torch.tensor(t)).item()
        assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))


# --- functions without a layer of their own -----------------------------------------------------------------------

FUNCTIONS = [
    ("normalize", [n(4, 5)], {}),
    ("normalize", [n(4, 5)], {"p": 1.0, "dim": 0}),
    ("pad", [n(2, 3, 4)], {"pad": (1, 2)}),
    ("pad", [n(2, 3, 4)], {"pad": (1, 2, 0, 1), "value": 2.5}),
    ("pad", [n(2, 3, 4)], {"pad": (-1, 2, 1, -2)}),
    ("one_hot", [ints(4, high=5)], {"num_classes": 6}),
    ("one_hot", [ints(2, 4, high=5)], {}),
    ("scaled_dot_product_attention", [n(2, 4, 3), n(2, 5, 3), n(2, 5, 6)], {}),
    ("scaled_dot_product_attention", [n(2, 4, 3), n(2, 4, 3), n(2, 4, 6)], {"is_causal": True}),
    ("scaled_dot_product_attention", [n(2, 4, 3), n(2, 5, 3), n(2, 5, 6), n(4, 5)], {"scale": 0.3}),
    ("softmax", [n(4, 5)], {"dim": -1}),
    ("log_softmax", [n(4, 5)], {"dim": 0}),
    ("leaky_relu", [n(4, 5)], {"negative_slope": 0.3}),
    ("rrelu", [n(4, 5)], {"training": False}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", FUNCTIONS, ids=lambda c: f"{c[0]}{c[2]}".replace(" ", ""))
def test_function(torch, case, dtype):
    name, inputs, keywords = case
    rng = np.random.default_rng(0)

    class Ours(nn.Module):
        def forward(self, *xs):
            return getattr(nn.functional, name)(*xs, **keywords)

    class Theirs(torch.nn.Module):
        def forward(self, *xs):
            return getattr(torch.nn.functional, name)(*xs, **keywords)

    run(torch, Ours(), Theirs(), [f(rng, dtype) for f in inputs], dtype, name)


def test_attention_with_a_bool_mask(torch):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s) for s in ((2, 4, 3), (2, 5, 3), (2, 5, 6)))
    mask = rng.random((4, 5)) < 0.7
    mask[:, 0] = True
    ours = nn.functional.scaled_dot_product_attention(*map(kobai.tensor, (q, k, v, mask)))
    theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, v, mask)))
    close(ours.numpy(), theirs.numpy(), "float64", "masked attention")
