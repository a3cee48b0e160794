"""All that is random is the same on the GPU as on the CPU, bit for bit."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F
from kobai.utils.data import DataLoader, TensorDataset


def on_both(draw):
    found = []
    for where in ("numpy", "cupy"):
        with kobai.using(where):
            kobai.manual_seed(3)
            found.append(draw())
    return found


DRAWS = {
    "rand": lambda: kobai.rand(3, 5),
    "randn": lambda: kobai.randn(3, 5),
    "randint": lambda: kobai.randint(0, 9, (7,)),
    "randperm": lambda: kobai.randperm(11),
    "bernoulli": lambda: kobai.bernoulli(kobai.full((40,), 0.5)),
    "normal_": lambda: kobai.empty(5).normal_(2, 3),
    "multinomial": lambda: kobai.multinomial(kobai.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 1.0]]), 2),
    "dropout": lambda: F.dropout(kobai.ones(1000), 0.3),
    "dropout in place": lambda: F.dropout(kobai.ones(33), 0.9, inplace=True),
    "two dropouts": lambda: kobai.cat([F.dropout(kobai.ones(n), 0.5) for n in (1, 7, 8, 9)]),
    "dropout2d": lambda: F.dropout2d(kobai.ones(4, 6, 3, 3), 0.5),
    "alpha_dropout": lambda: F.alpha_dropout(kobai.ones(50), 0.5, training=True).sign(),
    "rrelu": lambda: F.rrelu(-kobai.ones(50), training=True),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws(name):
    here, there = on_both(DRAWS[name])
    assert there.is_cuda
    np.testing.assert_array_equal(there.cpu().numpy(), here.numpy())


def test_a_counter_far_along_its_stream():
    def draw():
        kobai.random.default_generator.counter = 2**63 + 5
        return F.dropout(kobai.ones(100), 0.5)

    here, there = on_both(draw)
    np.testing.assert_array_equal(there.cpu().numpy(), here.numpy())


LAYERS = {
    "linear": lambda: nn.Linear(5, 3),
    "conv": lambda: nn.Conv2d(3, 4, 3),
    "transposed": lambda: nn.ConvTranspose2d(3, 4, 3),
    "lstm": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "embedding": lambda: nn.Embedding(7, 3),
    "attention": lambda: nn.MultiheadAttention(8, 2),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "batch norm": lambda: nn.BatchNorm2d(4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_initial_weights(name):
    here, there = (layer.state_dict() for layer in on_both(LAYERS[name]))
    assert here.keys() == there.keys()
    for key, value in there.items():
        assert value.is_cuda
        np.testing.assert_array_equal(value.cpu().numpy(), here[key].numpy())


@pytest.mark.parametrize("data_on", ["cpu", "cuda"])
def test_order_of_batches(data_on):
    def batches(where):
        data = TensorDataset(kobai.arange(53, device=where), kobai.arange(53.0, device=where) / 2)
        loader = DataLoader(data, batch_size=8, shuffle=True, generator=kobai.Generator().manual_seed(4))
        return [[part.cpu().tolist() for part in batch] for _ in range(2) for batch in loader]

    assert batches(data_on) == batches("cpu")
