"""RNN, LSTM, GRU and their cells."""

import copy
import re

import numpy as np
import pytest

import kobai
from kobai import nn

LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
CELLS = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell}
every = pytest.mark.parametrize("name", LAYERS)


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@every
def test_shapes(name):
    layer = LAYERS[name](3, 4, num_layers=2, bidirectional=True)
    y, state = layer(kobai.randn(5, 2, 3))
    assert y.shape == (5, 2, 8)
    assert all(s.shape == (4, 2, 4) for s in parts(state))
    assert len(parts(state)) == (2 if name == "LSTM" else 1)
    alone, state = layer(kobai.randn(5, 3))
    assert alone.shape == (5, 8)
    assert all(s.shape == (4, 4) for s in parts(state))
    y, state = LAYERS[name](3, 4, batch_first=True)(kobai.randn(2, 5, 3))
    assert y.shape == (2, 5, 4)
    assert all(s.shape == (1, 2, 4) for s in parts(state))


@every
def test_a_layer_is_its_cell_step_by_step(name):
    layer, cell = LAYERS[name](3, 4), CELLS[name](3, 4)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
    x = kobai.randn(5, 2, 3)
    y, last = layer(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        assert np.allclose(parts(state)[0].detach().numpy(), y[t].detach().numpy(), atol=1e-6)
    for ours, theirs in zip(parts(state), parts(last), strict=True):
        assert np.allclose(ours.detach().numpy(), theirs[0].detach().numpy(), atol=1e-6)


@every
def test_batch_first_and_unbatched_are_the_same_thing(name):
    layer = LAYERS[name](3, 4, num_layers=2)
    x = kobai.randn(5, 2, 3)
    y, state = layer(x)
    other = LAYERS[name](3, 4, num_layers=2, batch_first=True)
    other.load_state_dict(layer.state_dict())
    assert np.allclose(other(x.transpose(0, 1))[0].transpose(0, 1).detach().numpy(), y.detach().numpy())
    first = tuple(s[:, 0] * 0 for s in parts(state))
    alone, _ = layer(x[:, 0], first if name == "LSTM" else first[0])
    assert np.allclose(alone.detach().numpy(), y[:, 0].detach().numpy(), atol=1e-6)


@every
def test_gradcheck_and_deepcopy(name):
    layer = LAYERS[name](2, 3, bidirectional=True).double()
    x = kobai.randn(3, 2, 2, dtype=kobai.float64, requires_grad=True)
    assert kobai.autograd.gradcheck(lambda x, *p: layer(x)[0], (x, *layer.parameters()))
    twin = copy.deepcopy(layer)
    assert twin(x)[0].tolist() == layer(x)[0].tolist()


@every
def test_dropout_between_layers(name):
    layer = LAYERS[name](3, 4, num_layers=2, dropout=0.5)
    x = kobai.randn(4, 2, 3)
    assert layer(x)[0].tolist() != layer(x)[0].tolist()
    layer.eval()
    assert layer(x)[0].tolist() == layer(x)[0].tolist()


@every
def test_without_bias(name):
    assert [k for k, _ in LAYERS[name](3, 4, bias=False).named_parameters()] == ["weight_ih_l0", "weight_hh_l0"]
    cell = CELLS[name](3, 4, bias=False)
    assert cell.bias_ih is None
    assert parts(cell(kobai.randn(3)))[0].shape == (4,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.RNN(3, 0), ValueError, "RNN: expected hidden_size >= 1, got 0"),
        (lambda: nn.RNN(3, 4, nonlinearity="rleu"), ValueError, "Did you mean 'relu'"),
        (lambda: nn.LSTM(3, 4, num_layers=0), ValueError, "LSTM: expected num_layers >= 1, got 0"),
        (lambda: nn.GRU(3, 4, dropout=2), ValueError, "between 0 and 1, got 2"),
        (lambda: nn.LSTM(3, 4, proj_size=2), TypeError, "proj_size"),
        (lambda: nn.RNN(3, 4)(kobai.ones(5, 2, 2)), RuntimeError, "expected input (L, N, 3) or (L, 3), got (5, 2, 2)"),
        (lambda: nn.RNN(3, 4)([1.0]), TypeError, "expected a Tensor as input, got list"),
        (
            lambda: nn.LSTM(3, 4)(kobai.ones(5, 2, 3), kobai.zeros(1, 2, 4)),
            RuntimeError,
            "LSTM: expected 2 state(s) of shape (1, 2, 4)",
        ),
        (lambda: nn.GRU(3, 4)(kobai.ones(5, 2, 3), kobai.zeros(1, 3, 4)), RuntimeError, "(1, 2, 4), got (1, 3, 4)"),
        (
            lambda: nn.GRUCell(3, 4)(kobai.ones(2, 5)),
            RuntimeError,
            "GRUCell: expected input (N, 3) or (3,), got (2, 5)",
        ),
        (lambda: nn.RNNCell(3, 4)(kobai.ones(2, 3), kobai.ones(2, 3)), RuntimeError, "(2, 4), got (2, 3)"),
    ],
)
def test_nonsense(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@every
def test_every_backend_computes_the_same(name, backend):
    def run(where):
        with kobai.using(where):
            kobai.manual_seed(0)
            layer = LAYERS[name](3, 4, num_layers=2)
            y, _ = layer(kobai.ones(5, 2, 3))
            y.sum().backward()
            return [y.detach().cpu().numpy(), *(p.grad.cpu().numpy() for p in layer.parameters())]

    for ours, theirs in zip(run(backend), run("numpy"), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
