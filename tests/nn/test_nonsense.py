"""Constructors, flags and shapes that make no sense: each is refused, in the words of who was asked. (Against PyTorch, all
arguments of all modules: ``tests/oracle``.)"""

import re

import pytest

import kobai
from kobai import nn

F = nn.functional
NAN = float("nan")

CONSTRUCTORS = [
    *((lambda layer=layer: layer(0, 3), ValueError, "input_size >= 1, got 0") for layer in (nn.RNN, nn.GRU, nn.LSTM)),
    (lambda: nn.LSTM(3, -2), ValueError, "LSTM: expected hidden_size >= 1, got -2"),
    (lambda: nn.LSTM(3, 4, 0), ValueError, "LSTM: expected num_layers >= 1, got 0"),
    (lambda: nn.LSTM(3, 4.5), TypeError, "LSTM: expected hidden_size to be an integer, got 4.5"),
    (lambda: nn.GRU(3, 4, bias="True"), TypeError, "GRU: expected bias to be True or False, got 'True'"),
    (lambda: nn.GRU(3, 4, batch_first=1), TypeError, "GRU: expected batch_first to be True or False, got 1"),
    (lambda: nn.RNN(3, 4, dropout=True), ValueError, "RNN: expected a probability dropout between 0 and 1, got True"),
    (lambda: nn.Conv2d(3, 0, 3), ValueError, "Conv2d: expected out_channels >= 1, got 0"),
    (lambda: nn.Conv2d(3, 4, (3,)), TypeError, "Conv2d: expected kernel_size to be an integer or 2 of them, got (3,)"),
    (lambda: nn.ZeroPad2d((1,)), TypeError, "ZeroPad2d: expected padding to be an integer or 4 of them, got (1,)"),
    (lambda: nn.ConstantPad1d(1, (2,)), TypeError, "ConstantPad1d: expected value to be a number, got (2,)"),
    (lambda: nn.ELU(None), TypeError, "ELU: expected alpha to be a number, got None"),
    (lambda: nn.LeakyReLU("x"), TypeError, "LeakyReLU: expected negative_slope to be a number, got 'x'"),
    (lambda: nn.Hardtanh(1.0, 1.0), ValueError, "Hardtanh: expected min_val < max_val, got 1.0 and 1.0"),
    (lambda: nn.Hardtanh(NAN), ValueError, "Hardtanh: expected min_val < max_val, got nan"),
    (lambda: nn.BatchNorm1d(3, eps="x"), TypeError, "BatchNorm1d: expected eps to be a number, got 'x'"),
    (lambda: nn.InstanceNorm1d(3, momentum=()), TypeError, "InstanceNorm1d: expected momentum to be a number, got ()"),
    (lambda: nn.Embedding(3, 4, max_norm=(1,)), TypeError, "Embedding: expected max_norm to be a number, got (1,)"),
    (lambda: nn.Embedding(3, 4, sparse=0), TypeError, "Embedding: expected sparse to be True or False, got 0"),
    (lambda: nn.Transformer(8, 2, 0), ValueError, "TransformerEncoder: expected num_layers >= 1, got 0"),
    (lambda: nn.Transformer(8, 2, 1, 0), ValueError, "TransformerDecoder: expected num_layers >= 1, got 0"),
]
CALLS = [
    *(
        (lambda eps=eps: nn.BatchNorm1d(3, eps=eps)(kobai.randn(4, 3)), ValueError, f"eps > 0 in training, got {eps}")
        for eps in (-1.0, 0.0, NAN)
    ),
    (lambda: nn.BatchNorm1d(3, eps=-1).eval()(kobai.randn(4, 3)), ValueError, "batch_norm: expected eps >= 0, got -1"),
    *(
        (
            lambda ndim=ndim: nn.CircularPad1d(1)(kobai.ones((2,) * ndim)),
            ValueError,
            "expected input (N, C, L) or (C, L)",
        )
        for ndim in (1, 4)
    ),
    (lambda: nn.ReflectionPad2d(1)(kobai.ones(4, 4)), RuntimeError, "ReflectionPad2d: expected input (N, C, H, W)"),
    (
        lambda: nn.ReplicationPad3d(1)(kobai.ones((2,) * 6)),
        RuntimeError,
        "ReplicationPad3d: expected input (N, C, D, H",
    ),
    (lambda: nn.ReflectionPad1d(1)(kobai.ones(0, 3)), RuntimeError, "ReflectionPad1d: expected input (N, C, L)"),
    (
        lambda: F.max_pool1d(kobai.ones(0, 10), 1),
        RuntimeError,
        "max_pool1d: expected at least one channel and one element",
    ),
    (
        lambda: F.avg_pool2d(kobai.ones(2, 3, 0, 6), 2, padding=1),
        RuntimeError,
        "avg_pool2d: expected at least one channel",
    ),
    (
        lambda: F.avg_pool2d(kobai.ones(1, 4, 4), 2, ceil_mode="no"),
        TypeError,
        "ceil_mode to be True or False, got 'no'",
    ),
    (
        lambda: F.avg_pool2d(kobai.ones(1, 4, 4), 2, count_include_pad=0),
        TypeError,
        "count_include_pad to be True or False, got 0",
    ),
    (
        lambda: F.avg_pool2d(kobai.ones(1, 4, 4), 2, divisor_override=1.5),
        TypeError,
        "divisor_override to be an integer, got 1.5",
    ),
    (lambda: F.adaptive_avg_pool2d(kobai.ones(1, 4, 4), None), TypeError, "output_size to be an integer or 2 of them"),
    (
        lambda: F.margin_ranking_loss(kobai.ones(1, 5), kobai.ones(5), kobai.ones(5)),
        RuntimeError,
        "margin_ranking_loss: expected tensors of as many dimensions, got (1, 5) and (5,) and (5,)",
    ),
    (
        lambda: F.triplet_margin_with_distance_loss(*[kobai.ones(3, 4)] * 3, margin=-1.0),
        ValueError,
        "triplet_margin_with_distance_loss: expected margin > 0, got -1.0",
    ),
    (
        lambda: F.multi_margin_loss(kobai.ones(5, 4), kobai.zeros(5, dtype=kobai.int64), weight=kobai.ones(5)),
        RuntimeError,
        "multi_margin_loss: expected weight (4,), got (5,)",
    ),
    (
        lambda: F.poisson_nll_loss(kobai.ones(2), kobai.ones(2), full="no"),
        TypeError,
        "full to be True or False, got 'no'",
    ),
    (lambda: nn.RNN(3, 4)(kobai.ones(5, 3, dtype=kobai.float64)), ValueError, "RNN: expected input and state of the"),
    (lambda: nn.GRUCell(3, 4)(kobai.ones(2, 3), kobai.ones(2, 1, 1, 4)), ValueError, "(2, 4), got (2, 1, 1, 4)"),
]


@pytest.mark.parametrize(("call", "error", "message"), [*CONSTRUCTORS, *CALLS])
def test_is_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_a_batch_of_nothing_is_pooled():
    assert F.max_pool2d(kobai.ones(0, 3, 4, 4), 2).shape == (0, 3, 2, 2)


def test_flags_of_numpy_are_flags():
    import numpy as np

    assert nn.LSTM(3, 4, batch_first=np.bool_(True)).batch_first
