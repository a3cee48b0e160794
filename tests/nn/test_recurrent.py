"""RNN, LSTM, GRU and their cells."""

import copy
import re

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.cpu import blas, threads

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
        (lambda: nn.RNNBase(3, 4), TypeError, "RNNBase: is what the recurrent layers share; make an RNN"),
        (lambda: nn.RNNCellBase(3, 4), TypeError, "RNNCellBase: is what the recurrent layers share"),
        (lambda: nn.RNN(3, 0), ValueError, "RNN: expected hidden_size >= 1, got 0"),
        (lambda: nn.RNN(3, 4, nonlinearity="rleu"), ValueError, "Did you mean 'relu'"),
        (lambda: nn.LSTM(3, 4, num_layers=0), ValueError, "LSTM: expected num_layers >= 1, got 0"),
        (lambda: nn.GRU(3, 4, dropout=2), ValueError, "between 0 and 1, got 2"),
        (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "LSTM: expected proj_size in [0, 4), got 4"),
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


# --- the compiled loop and the one in Python ----------------------------------------------------------------------------


def outcome(name, options, shape, lengths=None, start=False, dtype=np.float64, hidden=5):
    """Outputs and all gradients of a layer, on the same numbers every time."""
    rng = np.random.default_rng(0)
    layer = LAYERS[name](shape[2], hidden, **options).to(dtype)
    for p in layer.parameters():
        p.array[...] = rng.uniform(-0.5, 0.5, p.shape)
    x = kobai.tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    states = [
        kobai.tensor(rng.normal(size=(count, shape[1], hidden)).astype(dtype), requires_grad=True) for _ in range(2)
    ]
    states = states if name == "LSTM" else states[:1]
    given = (tuple(states) if name == "LSTM" else states[0]) if start else None
    read = x if lengths is None else nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = layer(read, given)
    results = [y if lengths is None else y.data, *parts(last)]
    sum((k + 1) * (r * r).sum() for k, r in enumerate(results)).backward()
    gradients = [x.grad, *(p.grad for p in layer.parameters()), *([s.grad for s in states] if start else [])]
    return [t.detach().numpy() for t in [*results, *gradients]]


WAYS = [
    ({}, (4, 9, 3), None, False),
    ({}, (1, 1, 3), None, False),
    ({"bidirectional": True}, (6, 1, 3), None, True),
    ({"bidirectional": True, "bias": False}, (3, 17, 2), None, False),
    ({"num_layers": 2, "bidirectional": True}, (5, 3, 3), [2, 5, 1], True),
    ({"bidirectional": True}, (5, 4, 3), [4, 5, 1, 1], False),
    ({"bidirectional": True}, (1, 2, 3), None, True),
]
ways = pytest.mark.parametrize(("options", "shape", "lengths", "start"), WAYS)


@every
@ways
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_loop_is_the_one_in_python(name, options, shape, lengths, start, dtype, monkeypatch):
    found = outcome(name, options, shape, lengths, start, dtype)
    monkeypatch.setattr(blas, "own", lambda: False)
    tolerance = 1e-12 if dtype is np.float64 else 2e-5
    for a, b in zip(found, outcome(name, options, shape, lengths, start, dtype), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max()))


@every
@ways
def test_gradcheck_of_everything(name, options, shape, lengths, start):
    layer = LAYERS[name](shape[2], 2, **options).double()
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    x = kobai.randn(*shape, dtype=kobai.float64, requires_grad=True)
    states = [kobai.randn(count, shape[1], 2, dtype=kobai.float64, requires_grad=True) for _ in range(2)]
    states = states if name == "LSTM" else states[:1]

    def results(x, *states):
        read = x if lengths is None else nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, last = layer(read, (states if name == "LSTM" else states[0]) if start else None)
        return y if lengths is None else y.data, *parts(last)

    assert kobai.autograd.gradcheck(results, (x, *(states if start else ())))


@every
def test_wide_states_are_summed_up_in_blocks(name):
    """More rows of W_hh than a block of a product has, in forward as well as in backward."""
    layer, cell = LAYERS[name](2, 400).double(), CELLS[name](2, 400).double()
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
    x = kobai.randn(3, 9, 2, dtype=kobai.float64)
    y, _ = layer(x)
    state = None
    for t in range(3):
        state = cell(x[t], state)
    np.testing.assert_allclose(parts(state)[0].detach().numpy(), y[-1].detach().numpy(), atol=1e-12)
    y.square().sum().backward()
    total = kobai.zeros((), dtype=kobai.float64)
    state = None
    for t in range(3):
        state = cell(x[t], state)
        total = total + parts(state)[0].square().sum()
    total.backward()
    for key, p in cell.named_parameters():
        wanted = getattr(layer, f"{key}_l0").grad
        np.testing.assert_allclose(p.grad.numpy(), wanted.numpy(), atol=1e-11)


@every
def test_a_captured_step_has_the_same_bits(name):
    def train(capture):
        kobai.manual_seed(0)
        layer = LAYERS[name](3, 20, num_layers=2, bidirectional=True)
        update = kobai.optim.SGD(layer.parameters(), lr=0.1)  # changes the weights in place between the steps

        def step(x):
            layer.zero_grad()
            y, last = layer(x)
            loss = y.square().mean() + parts(last)[-1].mean()
            loss.backward()
            update.step()
            return loss

        step = kobai.capture(step) if capture else step
        rng = np.random.default_rng(0)
        losses = [step(kobai.tensor(rng.normal(size=(4, 3, 3)).astype("f"))).item() for _ in range(5)]
        return losses, [p.detach().numpy().tobytes() for p in layer.parameters()]

    assert train(True) == train(False)


@every
def test_sequences_of_unequal_lengths_have_the_same_bits_on_any_number_of_threads(name):
    if not blas.own():
        pytest.skip("NumPy's BLAS rounds by the number of parts")
    lengths = [30 - i // 2 for i in range(40)]
    found = set()
    try:
        for n in (1, 2, 3, 5):
            threads.set_num_threads(n)
            done = outcome(name, {"bidirectional": True}, (30, 40, 60), lengths, True, np.float32, 32)
            found.add(b"".join(a.tobytes() for a in done))
    finally:
        threads.set_num_threads(None)
    assert len(found) == 1


@every
def test_only_some_parameters_require_a_gradient(name):
    layer = LAYERS[name](3, 4, bidirectional=True)
    for key, p in layer.named_parameters():
        p.requires_grad_(key == "weight_hh_l0_reverse")
    layer(kobai.randn(5, 2, 3))[0].sum().backward()
    assert [key for key, p in layer.named_parameters() if p.grad is not None] == ["weight_hh_l0_reverse"]
    frozen = layer.requires_grad_(False)
    x = kobai.randn(5, 2, 3, requires_grad=True)
    frozen(x)[0].sum().backward()
    assert x.grad.shape == x.shape


@every
def test_arrays_in_any_order_in_memory(name):
    layer = LAYERS[name](3, 4)
    x, h = kobai.randn(5, 2, 3), kobai.randn(1, 2, 4)
    crooked = kobai.randn(3, 5, 4)[:, :, ::2].permute(1, 2, 0)
    crooked.copy_(x)
    turned = kobai.randn(4, 2, 1).permute(2, 1, 0)
    turned.copy_(h)
    given = ((h, h), (turned, turned)) if name == "LSTM" else (h, turned)
    assert not crooked.is_contiguous()
    assert layer(crooked, given[1])[0].tolist() == layer(x, given[0])[0].tolist()


@every
def test_results_in_place(name):
    """The last states are copies; y is what backward needs."""
    layer = LAYERS[name](3, 4)
    y, last = layer(kobai.randn(5, 2, 3))
    for state in parts(last):
        state.mul_(2)
    (y.sum() + sum(s.sum() for s in parts(last))).backward()
    y, last = layer(kobai.randn(5, 2, 3))
    for state in parts(last):
        state.detach_()
    y.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


@every
def test_weights_that_do_not_fit(name):
    layer = LAYERS[name](3, 4)
    layer.weight_hh_l0 = nn.Parameter(kobai.zeros(layer.weight_hh_l0.shape[0], 5))
    with pytest.raises(RuntimeError, match="recurrent layer: expected w_ih of shape"):
        layer(kobai.ones(5, 2, 3))


@every
def test_a_batch_without_sequences(name):
    layer = LAYERS[name](3, 4, bidirectional=True)
    y, last = layer(kobai.ones(5, 0, 3))
    assert y.shape == (5, 0, 8)
    assert all(s.shape == (2, 0, 4) for s in parts(last))
    y.sum().backward()
    assert layer.weight_hh_l0.grad.abs().sum().item() == 0
    assert parts(CELLS[name](3, 4)(kobai.ones(0, 3)))[0].shape == (0, 4)
    with pytest.raises(RuntimeError, match="at least one step"):
        layer(kobai.ones(0, 2, 3))


@every
@pytest.mark.parametrize("bias", [True, False])
def test_all_parameters_are_listed_by_layer_and_direction(name, bias):
    projected = {"proj_size": 2} if name == "LSTM" else {}
    layer = LAYERS[name](3, 4, num_layers=2, bidirectional=True, bias=bias, **projected)
    named = dict(layer.named_parameters())
    assert layer._flat_weights_names == list(named)
    assert all(a is b for a, b in zip(layer._flat_weights, named.values(), strict=True))
    each = 2 + 2 * bias + len(projected)
    assert [len(weights) for weights in layer.all_weights] == [each] * 4
    assert layer.all_weights[3][0] is layer.weight_ih_l1_reverse
