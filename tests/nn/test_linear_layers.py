"""What is particular to linear layers, embeddings and convolution."""

import math
import re

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F

# --- Linear -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_linear_activation_is_the_separate_layer(name):
    kobai.manual_seed(0)
    fused = nn.Linear(6, 5, activation=name)
    kobai.manual_seed(0)
    apart = nn.Sequential(nn.Linear(6, 5), {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}[name]())
    x = kobai.randn(7, 6)
    a, b = fused(x), apart(x)
    assert np.allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6, atol=1e-7)
    a.sum().backward()
    b.sum().backward()
    assert np.allclose(fused.weight.grad.numpy(), apart[0].weight.grad.numpy(), rtol=1e-5, atol=1e-6)
    assert repr(fused) == f"Linear(in_features=6, out_features=5, bias=True, activation='{name}')"


def test_linear_init():
    layer = nn.Linear(400, 300, init="he", generator=kobai.Generator().manual_seed(1))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert (layer.bias == 0).all()
    same = nn.Linear(400, 300, init="he", generator=kobai.Generator().manual_seed(1))
    assert (same.weight == layer.weight).all()
    plain = nn.Linear(400, 300)
    for p in plain.parameters():
        assert p.abs().max().item() <= 1 / 20
        assert p.std().item() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.1)
    before = plain.weight.tolist()
    plain.reset_parameters()
    assert plain.weight.tolist() != before
    assert nn.Linear(2, 2, init=nn.init.ones_by_hand if hasattr(nn.init, "ones_by_hand") else "ones").weight.sum() == 4


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((-1, 2), {}, RuntimeError, "Linear: expected in_features >= 0, got -1"),
        ((2, 2.5), {}, TypeError, "Linear: expected out_features to be an integer, got 2.5"),
        ((2, 2), {"activation": "rleu"}, ValueError, "Did you mean 'relu'"),
        ((2, 2), {"init": "hee"}, ValueError, "Did you mean 'he'"),
        ((2, 2), {"device": "gpu"}, ValueError, "expected 'cpu'"),
        ((2, 2), {"colour": "red"}, TypeError, "colour"),
    ],
)
def test_linear_nonsense(args, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        nn.Linear(*args, **options)


def test_linear_dtype():
    layer = nn.Linear(3, 2, dtype=kobai.float64, device="cpu")
    assert layer.weight.dtype == layer.bias.dtype == kobai.float64
    with pytest.raises(RuntimeError, match="dtype"):
        layer(kobai.ones(1, 3))


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (
            nn.Conv2d(4, 4, 3, 2, 1, 2, 2, False, "reflect"),
            "Conv2d(4, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(2, 2), groups=2, bias=False, "
            "padding_mode=reflect)",
        ),
        (
            nn.ConvTranspose2d(3, 4, 3, 2, 1, 1),
            "ConvTranspose2d(3, 4, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), output_padding=(1, 1))",
        ),
        (nn.Embedding(4, 3, 1, 2.0, 1.0), "Embedding(4, 3, padding_idx=1, max_norm=2.0, norm_type=1.0)"),
        (nn.LSTM(3, 4, 2, batch_first=True), "LSTM(3, 4, num_layers=2, batch_first=True)"),
        (nn.RNNCell(3, 4, False, "relu"), "RNNCell(3, 4, bias=False, nonlinearity=relu)"),
        (nn.ReLU(True), "ReLU(inplace=True)"),
        (nn.ELU(0.5, True), "ELU(alpha=0.5, inplace=True)"),
    ],
)
def test_repr_shows_what_is_not_the_default(layer, text):
    assert repr(layer) == text


def test_flatten_and_bilinear_refuse():
    for arguments in (("features", (2, 3)), (1, (2, "x"))):
        with pytest.raises(TypeError, match="Unflatten: expected an int and a tuple of ints"):
            nn.Unflatten(*arguments)
    with pytest.raises(TypeError, match="embedding: expected sparse to be True or False, got 1"):
        F.embedding(kobai.tensor([0]), kobai.ones(2, 2), sparse=1)
    with pytest.raises(ValueError, match="embedding_bag: scale_grad_by_freq and sparse are for modes 'sum' and 'mean'"):
        F.embedding_bag(kobai.tensor([[0]]), kobai.ones(2, 2), sparse=True, mode="max")


# --- Embedding ----------------------------------------------------------------------------------------------------


def test_embedding():
    table = nn.Embedding(5, 3, padding_idx=-1)
    assert table.padding_idx == 4
    assert table.weight[4].tolist() == [0, 0, 0]
    table(kobai.tensor([1, 1, 4])).sum().backward()
    assert table.weight.grad.tolist() == [[0] * 3, [2] * 3, [0] * 3, [0] * 3, [0] * 3]
    for index in (5, -1):
        with pytest.raises(IndexError, match="expected indices in"):
            table(kobai.tensor([index]))
    with pytest.raises((RuntimeError, TypeError), match="integer"):
        table(kobai.tensor([1.0]))


def test_embedding_from_pretrained():
    weight = kobai.randn(4, 3)
    table = nn.Embedding.from_pretrained(weight)
    assert not table.weight.requires_grad
    assert table.weight.array is weight.array
    assert nn.Embedding.from_pretrained(weight, freeze=False).weight.requires_grad
    with pytest.raises(ValueError, match="2-D"):
        nn.Embedding.from_pretrained(kobai.ones(3))


def test_embedding_max_norm():
    table = nn.Embedding.from_pretrained(kobai.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]]), max_norm=1.0)
    out = table(kobai.tensor([0, 1, 0]))
    assert np.allclose(out.numpy(), [[0.6, 0.8], [0.3, 0.4], [0.6, 0.8]], atol=1e-5)
    assert table.weight[2].tolist() == [30.0, 40.0]  # not looked up, not changed


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((4, 3), {"padding_idx": 4}, ValueError, "padding_idx within 4 rows, got 4"),
        ((4, 3), {"scale_grad_by_freq": 1}, TypeError, "scale_grad_by_freq"),
        ((4, -3), {}, RuntimeError, "embedding_dim >= 0"),
        ((4, 3), {"_weight": kobai.ones(3, 3)}, ValueError, "expected weight (4, 3), got (3, 3)"),
    ],
)
def test_embedding_nonsense(args, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        nn.Embedding(*args, **options)


# --- convolution --------------------------------------------------------------------------------------------------


def test_conv_init_and_activation():
    layer = nn.Conv2d(16, 64, 5, init="he", generator=kobai.Generator().manual_seed(0))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert (layer.bias == 0).all()
    fused = nn.Conv2d(2, 3, 3, activation="relu")
    apart = nn.Conv2d(2, 3, 3)
    apart.load_state_dict(fused.state_dict())
    x = kobai.randn(2, 2, 5, 5)
    assert np.allclose(fused(x).detach().numpy(), apart(x).relu().detach().numpy())
    assert repr(fused) == "Conv2d(2, 3, kernel_size=(3, 3), stride=(1, 1), activation='relu')"


def test_conv_transpose_output_size():
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = kobai.randn(1, 2, 4, 4)
    assert layer(x).shape == (1, 3, 7, 7)
    assert layer(x, output_size=(8, 7)).shape == (1, 3, 8, 7)
    with pytest.raises(ValueError, match=r"expected output_size between \[7, 7\] and \[8, 8\], got \[9, 7\]"):
        layer(x, output_size=[9, 7])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "must be divisible by groups (2)"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), ValueError, "Conv2d: expected groups >= 1, got 0"),
        (lambda: nn.Conv2d(-3, 4, 3), RuntimeError, "Conv2d: expected in_channels >= 0, got -3"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), TypeError, "Conv2d: expected kernel_size to be an integer or 2 of them"),
        (lambda: nn.Conv2d(3, 4, 0), RuntimeError, "kernel_size >= 1"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), RuntimeError, "stride >= 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding="smae"), ValueError, "Did you mean 'same'"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="reflct"), ValueError, "Did you mean 'reflect'"),
        (lambda: nn.Conv2d(3, 4, 3, activation="gleu"), ValueError, "Conv2d: unknown activation 'gleu'"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), ValueError, "padding_mode='zeros'"),
    ],
)
def test_conv_nonsense(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_embedding_bag():
    table = kobai.tensor([[1.0], [2.0], [4.0], [8.0]])
    bag = F.embedding_bag
    flat, begins = kobai.tensor([0, 1, 2, 3, 3]), kobai.tensor([0, 2, 2])
    assert bag(flat, table, begins, mode="sum").tolist() == [[3], [0], [20]]
    assert bag(flat, table, kobai.tensor([0, 2, 2, 5]), include_last_offset=True).tolist()[:2] == [[1.5], [0]]
    assert bag(flat, table, begins, mode="sum", padding_idx=3).tolist() == [[3], [0], [4]]
    assert bag(flat, table, begins, padding_idx=3).tolist() == [[1.5], [0], [4]]
    two = kobai.tensor([[0, 1], [3, 2]])
    assert bag(two, table, mode="max").tolist() == [[2], [8]]
    weights = kobai.tensor([[1.0, 10.0], [0.0, 1.0]])
    assert bag(two, table, mode="sum", per_sample_weights=weights).tolist() == [[21], [4]]
    for arguments, options, error, message in (
        ((two, table), {"mode": "men"}, ValueError, "embedding_bag: unknown mode 'men'"),
        ((two, table), {"per_sample_weights": weights}, ValueError, "for mode 'sum'"),
        ((flat, table), {}, ValueError, "with offsets"),
    ):
        with pytest.raises(error, match=message):
            bag(*arguments, **options)
    with pytest.raises(ValueError, match="EmbeddingBag: expected mode"):
        nn.EmbeddingBag(3, 2, mode="men")


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_gradients_of_rows_by_how_often_they_are_named(padding_idx):
    rows = kobai.tensor([[0, 2, 0], [3, 0, 2]])
    table = nn.Embedding(5, 3, padding_idx=padding_idx, scale_grad_by_freq=True, sparse=True)
    plain = nn.Embedding(5, 3, padding_idx=padding_idx)
    plain.load_state_dict(table.state_dict())
    weights = kobai.randn(2, 3, 3)
    for layer in (table, plain):
        (layer(rows) * weights).sum().backward()
    times = kobai.tensor([3.0, 1, 2, 1, 1]).unsqueeze(1)
    assert kobai.allclose(table.weight.grad, plain.weight.grad / times)
    assert kobai.equal(table(rows), plain(rows))
    assert repr(table).endswith("scale_grad_by_freq=True, sparse=True)")


def test_sparse_adam_trains_a_table_that_is_called_sparse():
    table = nn.Embedding(4, 2, sparse=True)
    bags = nn.EmbeddingBag(4, 2, mode="sum", sparse=True)
    before = [layer.weight.detach().clone() for layer in (table, bags)]
    optimizer = kobai.optim.SparseAdam([*table.parameters(), *bags.parameters()], lr=0.1)
    (table(kobai.tensor([0, 3])).sum() + bags(kobai.tensor([[0, 3]])).sum()).backward()
    optimizer.step()
    for layer, old in zip((table, bags), before, strict=True):
        moved = (layer.weight.detach() != old).any(1)
        assert moved.tolist() == [True, False, False, True]


def by_frequency(lib, mode, scaled):
    weight = lib.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]], requires_grad=True)
    rows = lib.tensor([[0, 2, 0], [3, 0, 2]])
    options = {"padding_idx": 3, "scale_grad_by_freq": scaled}
    if mode == "rows":
        y = lib.nn.functional.embedding(rows, weight, **options)
    else:
        y = lib.nn.functional.embedding_bag(rows, weight, mode=mode, **options)
    (y * lib.arange(float(y.numel())).reshape(y.shape)).sum().backward()
    return np.array(weight.grad.tolist())


@pytest.mark.parametrize("mode", ["rows", "sum", "mean"])
def test_gradients_by_frequency_are_divided_by_it(mode):
    often = np.array([[3.0], [1], [2], [1]])
    np.testing.assert_allclose(by_frequency(kobai, mode, True), by_frequency(kobai, mode, False) / often, rtol=1e-6)


@pytest.mark.oracle
def test_gradients_by_frequency_as_in_pytorch():
    """Of bags PyTorch divides some rows by the frequency of another one."""
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(by_frequency(kobai, "rows", True), by_frequency(torch, "rows", True), rtol=1e-6)


@pytest.mark.parametrize("base", [nn.Linear, nn.Conv1d])
def test_a_subclass_draws_its_parameters_in_its_own_way(base):
    class Drawn(base):
        def reset_parameters(self):
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    layer = Drawn(2, 3, 1)
    assert layer.weight.min() == layer.weight.max() == 1
    with pytest.raises(TypeError):  # it cannot draw from a generator
        Drawn(2, 3, 1, generator=kobai.Generator())


def test_a_table_drawn_by_a_subclass_has_a_padding_row_of_zeros():
    class Ones(nn.Embedding):
        def reset_parameters(self):
            nn.init.ones_(self.weight)
            self._fill_padding_idx_with_zero()

    assert Ones(3, 2, padding_idx=1).weight.tolist() == [[1, 1], [0, 0], [1, 1]]
