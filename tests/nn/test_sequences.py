"""Sequences of unequal lengths: padding, packing, and recurrent layers on packed batches."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)


def draws(*lengths, size=3):
    rng = np.random.default_rng(0)
    return [kobai.tensor(rng.normal(size=(n, size)).astype(np.float32)) for n in lengths]


def test_pad_sequence():
    a, b = kobai.tensor([1, 2, 3]), kobai.tensor([4])
    assert pad_sequence([a, b]).tolist() == [[1, 4], [2, 0], [3, 0]]
    assert pad_sequence([a, b], batch_first=True, padding_value=-1).tolist() == [[1, 2, 3], [4, -1, -1]]
    assert pad_sequence([a, b], True, padding_side="left").tolist() == [[1, 2, 3], [0, 0, 4]]
    assert [s.tolist() for s in unpad_sequence(pad_sequence([a, b]), [3, 1])] == [[1, 2, 3], [4]]


def test_pad_sequence_passes_gradients_and_dtype_on():
    xs = [x.double().requires_grad_() for x in draws(2, 4)]
    y = pad_sequence(xs)
    assert y.dtype == kobai.float64
    (y * 2).sum().backward()
    assert all((x.grad == 2).all() for x in xs)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pad_sequence([]), TypeError, "one or more Tensors"),
        (lambda: pad_sequence([kobai.ones(2, 3), kobai.ones(2, 4)]), RuntimeError, "differ in L alone"),
        (lambda: pad_sequence([kobai.ones(2)], padding_side="middle"), ValueError, "'right' or 'left'"),
        (lambda: pack_padded_sequence(kobai.ones(3, 2), [3, 4]), ValueError, "2 lengths from 1 to 3"),
        (lambda: pack_padded_sequence(kobai.ones(3, 2), [3, 0]), ValueError, "from 1 to 3"),
        (lambda: pack_padded_sequence(kobai.ones(3, 2), [2, 3]), RuntimeError, "enforce_sorted=False"),
        (lambda: pack_padded_sequence(kobai.ones(3, 2), [3, 1.5]), TypeError, "integers"),
        (
            lambda: pad_packed_sequence(pack_padded_sequence(kobai.ones(3, 2), [3, 1]), total_length=2),
            ValueError,
            ">= 3",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_pack_and_pad_undo_each_other(backend):
    x = kobai.randn(5, 4, 2, requires_grad=True)
    packed = pack_padded_sequence(x, [2, 5, 1, 4], enforce_sorted=False)
    assert packed.data.shape == (12, 2)
    assert packed.batch_sizes.tolist() == [4, 3, 2, 2, 1]
    assert packed.sorted_indices.tolist() == [1, 3, 0, 2]
    y, lengths = pad_packed_sequence(packed, padding_value=7.0, total_length=6)
    assert lengths.tolist() == [2, 5, 1, 4]
    assert y.shape == (6, 4, 2)
    for i, n in enumerate(lengths.tolist()):
        assert y[:n, i].tolist() == x[:n, i].tolist()
        assert (y[n:, i] == 7).all()
    y.sum().backward()
    assert x.grad[:, 0, 0].tolist() == [1, 1, 0, 0, 0]


def test_pack_sequence_round_trip():
    xs = draws(3, 1, 4)
    packed = pack_sequence(xs, enforce_sorted=False)
    assert isinstance(packed, PackedSequence)
    assert [s.tolist() for s in unpack_sequence(packed)] == [x.tolist() for x in xs]
    assert packed.to("cpu").data.tolist() == packed.data.tolist()
    assert not packed.is_cuda


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_packed_batch_gives_each_sequence_what_it_gets_alone(kind, backend):
    layer = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True)
    xs = [x.to(kobai.zeros(1).device) for x in draws(2, 5, 1)]
    packed, state = layer(pack_sequence(xs, enforce_sorted=False))
    for i, (x, y) in enumerate(zip(xs, unpack_sequence(packed), strict=True)):
        alone, last = layer(x)
        np.testing.assert_allclose(y.detach().cpu().numpy(), alone.detach().cpu().numpy(), rtol=1e-5, atol=1e-6)
        for s, t in zip(state if kind == "LSTM" else (state,), last if kind == "LSTM" else (last,), strict=True):
            np.testing.assert_allclose(s[:, i].detach().cpu().numpy(), t.detach().cpu().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_packed_batches_agree_with_pytorch(kind, enforce_sorted):
    torch = pytest.importorskip("torch")
    lengths = [5, 4, 4, 1] if enforce_sorted else [4, 5, 1, 4]
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    ours = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    theirs = getattr(torch.nn, kind)(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    results = []
    for lib, layer in ((kobai, ours), (torch, theirs)):
        rnn = lib.nn.utils.rnn
        t = lib.tensor(x.copy(), requires_grad=True)
        packed = rnn.pack_padded_sequence(t, lib.tensor(lengths), batch_first=True, enforce_sorted=enforce_sorted)
        out, state = layer(packed)
        y, n = rnn.pad_packed_sequence(out, batch_first=True)
        h = state if kind == "LSTM" else (state,)
        ((y**2).sum() + sum((s**3).sum() for s in h)).backward()
        results.append([y, n, *h, t.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-5)
