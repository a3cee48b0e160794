"""A training has the same bits for any number of threads: what is computed beside what is not for the result to know."""

import hashlib

import pytest

import kobai
from kobai import nn
from kobai.cpu import blas, threads
from kobai.nn import functional as F

pytestmark = pytest.mark.skipif(not blas.own(), reason="NumPy's BLAS rounds by the number of parts")


def dense():
    layers = [nn.Linear(784, 300), nn.BatchNorm1d(300), nn.ReLU(), nn.Dropout(0.3), nn.Linear(300, 300), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(300, 10)), kobai.randn(256, 784)


def convolutional():
    layers = [
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, stride=2),
    ]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(24 * 49, 10)), kobai.randn(64, 3, 32, 32)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(40, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


def recurrent():
    return Recurrent(), kobai.randn(64, 12, 40)


class EveryNetwork(nn.Module):
    """All kinds of recurrent layers, one on another, in both directions, from given states."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(20, 32, bidirectional=True, batch_first=True)
        self.second = nn.LSTM(64, 40, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.third = nn.RNN(80, 48, nonlinearity="relu", batch_first=True)
        self.start, self.out = nn.Parameter(kobai.randn(2, 1, 32)), nn.Linear(48, 10)

    def forward(self, x):
        y, _ = self.first(x, self.start.expand(2, x.shape[0], 32))
        y, _ = self.third(self.second(y)[0])
        return self.out(y.sum(1))


def recurrent_in_every_way():
    return EveryNetwork(), kobai.randn(50, 7, 20)


def attentive():
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(64 * 30, 10)), kobai.randn(32, 30, 64)


@pytest.fixture
def with_threads(monkeypatch):
    """Trains with so many threads, in a pool of their own, and gives a digest of all parameters and buffers."""

    def train(make, n, capture):
        monkeypatch.setattr(threads, "pool", threads.Pool())
        threads.set_num_threads(n)
        kobai.manual_seed(0)
        net, x = make()
        optimizer = kobai.optim.Adam(net.parameters(), lr=1e-3)
        t = kobai.arange(len(x)) % 10

        def step(x, t):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), t)
            loss.backward()
            optimizer.step()
            return loss

        step = kobai.capture(step) if capture else step
        for _ in range(6):
            step(x, t)
        whole = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
        return hashlib.sha256(whole).hexdigest()

    yield train
    threads.set_num_threads(None)


@pytest.mark.parametrize("make", [dense, convolutional, recurrent, recurrent_in_every_way, attentive])
def test_a_training_has_the_same_bits(make, with_threads):
    found = {with_threads(make, n, capture) for n in (1, 2, 3, 7) for capture in (False, True)}
    assert len(found) == 1
