"""Activations against their functions, in place and not; one_hot, padding and attention."""

import copy
import inspect

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import activation, functional as F, softmax
from test_layers import LAYERS

# --- activations --------------------------------------------------------------------------------------------------


ACTIVATIONS = [*activation.__all__, *softmax.__all__]
FUNCTIONS = {name.replace("_", ""): getattr(F, name) for name in dir(F)}


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name.lower() in FUNCTIONS])
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


def test_heads_of_queries_share_keys_and_values():
    q, k, v = kobai.randn(2, 4, 5, 3), kobai.randn(2, 2, 6, 3), kobai.randn(2, 1, 6, 3)
    shared = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    own = F.scaled_dot_product_attention(q, k[:, [0, 0, 1, 1]], v[:, [0, 0, 0, 0]])
    assert kobai.allclose(shared, own)
    with pytest.raises(RuntimeError, match="divides that of the queries"):
        F.scaled_dot_product_attention(q, kobai.randn(2, 3, 6, 3), v, enable_gqa=True)
