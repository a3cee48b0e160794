"""Recurrent layers and attention, forward and backward, against PyTorch on the same numbers and the same state."""

import numpy as np
import pytest

import kobai
from kobai import nn

pytestmark = pytest.mark.oracle

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def flat(value):
    """All tensors of nested tuples, in order."""
    if isinstance(value, (tuple, list)):
        return [tensor for part in value for tensor in flat(part)]
    return [] if value is None else [value]


def compare(torch, ours, theirs, arrays, dtype, keywords=None, call=None):
    """Run both with the same state and arguments; outputs, gradients of inputs and parameters must agree."""
    ours, theirs = ours.to(np.dtype(dtype)), theirs.to(getattr(torch, dtype))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(3)
    for value in ours.state_dict().values():
        value.array[...] = 0.5 * rng.normal(size=value.shape)
    theirs.load_state_dict({k: torch.tensor(v.numpy().copy()) for k, v in ours.state_dict().items()})

    def run(module, layer):
        def tensors(value):
            if isinstance(value, tuple):
                return tuple(tensors(v) for v in value)
            if not isinstance(value, np.ndarray):
                return value
            return module.tensor(value.copy(), requires_grad=value.dtype.kind == "f")

        args = [tensors(a) for a in arrays]
        options = {k: tensors(v) for k, v in (keywords or {}).items()}
        outputs = flat(layer(*args, **options))
        total = sum((o * (i + 1) * module.sin(o)).sum() for i, o in enumerate(outputs))
        total.backward()
        gradients = [t.grad for t in flat(args) if t.requires_grad and t.grad is not None]
        return [o.detach() for o in outputs] + gradients + [p.grad for p in layer.parameters()]

    for i, (a, b) in enumerate(zip(run(kobai, ours), run(torch, theirs), strict=True)):
        a, b = a.numpy(), b.numpy()
        assert a.shape == b.shape
        tolerance = 5 * TOLERANCE[dtype]
        np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance * max(np.abs(b).max(initial=0), 1e-3), err_msg=f"{i}"
        )


RECURRENT = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "batch_first": True, "bias": False},
]


@dtypes
@pytest.mark.parametrize("options", RECURRENT, ids=str)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("given", ["batch", "batch and state", "no batch"])
def test_recurrent(torch, name, options, given, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 2, 3) if "no" not in given else (5, 3)).astype(dtype)
    args = [x]
    if "state" in given:
        layers = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
        batch = 5 if options.get("batch_first") else 2
        states = [rng.normal(size=(layers, batch, 4)).astype(dtype) for _ in range(2)]
        args.append(tuple(states) if name == "LSTM" else states[0])
    ours, theirs = getattr(nn, name)(3, 4, **options), getattr(torch.nn, name)(3, 4, **options)
    assert repr(ours) == repr(theirs)
    compare(torch, ours, theirs, args, dtype)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.filterwarnings("ignore:LSTM with projections")  # PyTorch's, of oneDNN
@dtypes
@pytest.mark.parametrize("options", RECURRENT, ids=str)
def test_a_projected_lstm(torch, options, dtype):
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(dtype)
    options = {**options, "proj_size": 2}
    ours, theirs = nn.LSTM(3, 4, **options), torch.nn.LSTM(3, 4, **options)
    assert repr(ours) == repr(theirs)
    compare(torch, ours, theirs, [x], dtype)


@dtypes
def test_rnn_with_relu(torch, dtype):
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(dtype)
    compare(torch, nn.RNN(3, 4, 1, "relu"), torch.nn.RNN(3, 4, 1, "relu"), [x], dtype)


@dtypes
@pytest.mark.parametrize(
    ("name", "options"), [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("LSTMCell", {}), ("GRUCell", {})]
)
@pytest.mark.parametrize("bias", [True, False])
def test_cell(torch, name, options, bias, dtype):
    rng = np.random.default_rng(0)
    x, h, c = (rng.normal(size=s).astype(dtype) for s in ((2, 3), (2, 4), (2, 4)))
    ours, theirs = getattr(nn, name)(3, 4, bias, **options), getattr(torch.nn, name)(3, 4, bias, **options)
    assert repr(ours) == repr(theirs)
    compare(torch, ours, theirs, [x, (h, c) if name == "LSTMCell" else h], dtype)


@dtypes
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", [None, "float", "bool", "padding", "per head"])
def test_attention(torch, batch_first, mask, dtype):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(4, 4, 6)).astype(dtype) for _ in range(3))
    options = {}
    if mask == "float":
        options["attn_mask"] = rng.normal(size=(4, 4)).astype(dtype)
    elif mask == "bool":
        options["attn_mask"] = np.triu(np.ones((4, 4), bool), 1)
    elif mask == "per head":
        options["attn_mask"] = np.triu(np.ones((4 * 3, 4, 4), bool), 1)
    elif mask == "padding":
        options["key_padding_mask"] = np.arange(4)[None] > np.arange(4)[:, None]
    ours = nn.MultiheadAttention(6, 3, batch_first=batch_first)
    theirs = torch.nn.MultiheadAttention(6, 3, batch_first=batch_first)
    compare(torch, ours, theirs, [q, k, v], dtype, options)


@dtypes
def test_attention_of_other_sizes(torch, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(dtype) for s in ((3, 2, 6), (5, 2, 4), (5, 2, 7))]
    options = {"kdim": 4, "vdim": 7, "bias": False}
    ours, theirs = nn.MultiheadAttention(6, 2, **options), torch.nn.MultiheadAttention(6, 2, **options)
    compare(torch, ours, theirs, arrays, dtype, {"average_attn_weights": False})
    alone = [a[:, 0] for a in arrays]
    compare(torch, ours, theirs, alone, dtype)


@dtypes
@pytest.mark.parametrize(
    "further", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "add_zero_attn": True}]
)
@pytest.mark.parametrize("mask", ["none", "both"])
def test_attention_to_further_keys(torch, further, mask, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(dtype) for s in ((3, 2, 6), (5, 2, 6), (5, 2, 6))]
    options = {}
    if mask == "both":
        options = {
            "attn_mask": rng.normal(size=(3, 5)).astype(dtype),
            "key_padding_mask": rng.normal(size=(2, 5)).astype(dtype),
        }
    ours, theirs = nn.MultiheadAttention(6, 2, **further), torch.nn.MultiheadAttention(6, 2, **further)
    compare(torch, ours, theirs, arrays, dtype, {"average_attn_weights": False, **options})


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("batched", [False, True])
def test_attention_as_a_function(torch, separate, static, batched):
    rng = np.random.default_rng(0)
    shapes = [(3, 2, 6), (5, 2, 6 - separate), (5, 2, 6 + separate)]
    arrays = [rng.normal(size=s) if batched else rng.normal(size=s)[:, 0] for s in shapes]
    weights = [rng.normal(size=(6, s[-1])) for s in shapes]
    together, bias, out = (
        np.concatenate(weights) if not separate else None,
        rng.normal(size=18),
        rng.normal(size=(6, 6)),
    )
    fixed = rng.normal(size=(2 * (2 if batched else 1), 4, 3)) if static else None
    given = {"use_separate_proj_weight": separate}
    if separate:
        given |= {f"{name}_proj_weight": weight for name, weight in zip("qkv", weights, strict=True)}
    results = []
    for module in (kobai, torch):
        put = lambda a, m=module: m.tensor(a) if isinstance(a, np.ndarray) else a  # noqa: E731
        x = [put(a).requires_grad_() for a in arrays]
        y, shown = module.nn.functional.multi_head_attention_forward(
            *x, 6, 2, put(together), put(bias), None, None, False, 0.3, put(out), None, training=False,
            static_k=put(fixed), static_v=put(fixed), **{k: put(v) for k, v in given.items()},
        )  # fmt: skip
        (y**2).sum().backward()
        results.append([y.detach().numpy(), shown.detach().numpy(), x[0].grad.numpy()])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@dtypes
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer(torch, norm_first, activation, dtype):
    def build(nn):
        return nn.TransformerEncoderLayer(6, 2, 8, 0.0, activation, 1e-3, norm_first=norm_first)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2, 6)).astype(dtype)
    mask = np.triu(np.ones((4, 4), bool), 1)
    compare(torch, build(nn), build(torch.nn), [x], dtype, {"src_mask": mask})


@dtypes
def test_encoder(torch, dtype):
    def build(nn):
        layer = nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)
        return nn.TransformerEncoder(layer, 2, nn.LayerNorm(6), enable_nested_tensor=False)

    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(dtype)
    compare(torch, build(nn), build(torch.nn), [x], dtype)


@dtypes
@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_layer(torch, norm_first, dtype):
    def build(nn):
        return nn.TransformerDecoderLayer(6, 2, 8, 0.0, batch_first=True, norm_first=norm_first)

    rng = np.random.default_rng(0)
    tgt, memory = (rng.normal(size=s).astype(dtype) for s in ((2, 4, 6), (2, 5, 6)))
    masks = {
        "tgt_mask": np.triu(np.ones((4, 4), bool), 1),
        "memory_key_padding_mask": np.arange(5)[None] >= np.array([[5], [3]]),
    }
    compare(torch, build(nn), build(torch.nn), [tgt, memory], dtype, masks)


@dtypes
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_transformer(torch, dtype):
    def build(nn):
        return nn.Transformer(6, 2, 2, 1, 8, 0.0)

    rng = np.random.default_rng(0)
    src, tgt = (rng.normal(size=s).astype(dtype) for s in ((5, 2, 6), (4, 2, 6)))
    ours = nn.Transformer.generate_square_subsequent_mask(4).numpy()
    assert np.array_equal(ours, torch.nn.Transformer.generate_square_subsequent_mask(4).numpy())
    compare(torch, build(nn), build(torch.nn), [src, tgt], dtype, {"tgt_mask": np.triu(np.ones((4, 4), bool), 1)})


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@dtypes
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "LSTM, projected"])
@pytest.mark.parametrize("lengths", [[4, 3, 3, 1], [1, 4, 2, 4]], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_sequences(torch, name, lengths, bidirectional, dtype):
    """Sequences of several lengths: neither output nor last state knows of the padding."""
    options = {"num_layers": 2, "bidirectional": bidirectional, **({"proj_size": 2} if "projected" in name else {})}
    name, width = name.split(",")[0], options.get("proj_size", 5)

    class Packed:
        def __init__(self, module, layer):
            self.rnn, self.layer = module.nn.utils.rnn, layer

        def __getattr__(self, attribute):
            return getattr(self.layer, attribute)

        def to(self, dtype):
            self.layer.to(dtype)
            return self

        def __call__(self, x, hx):
            sorted_already = sorted(lengths, reverse=True) == lengths
            packed = self.rnn.pack_padded_sequence(x, lengths, True, sorted_already)
            output, state = self.layer(packed, hx)
            padded, sizes = self.rnn.pad_packed_sequence(output, True, padding_value=-1.0, total_length=5)
            assert sizes.tolist() == lengths
            return padded, state

    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 4, 3)).astype(dtype)
    states = [rng.normal(size=(4 if bidirectional else 2, 4, size)).astype(dtype) for size in (width, 5)]
    hx = tuple(states) if name == "LSTM" else states[0]
    ours, theirs = getattr(nn, name)(3, 5, **options), getattr(torch.nn, name)(3, 5, **options)
    compare(torch, Packed(kobai, ours), Packed(torch, theirs), [x, hx], dtype)
