"""The adaptive softmax: log p by its formula, the same from every method, gradients, shapes, what is refused, PyTorch."""

import numpy as np
import pytest

import kobai
from kobai import nn

CASES = [([5, 10, 15], {"div_value": 2.0}), ([3], {"head_bias": True}), ([1, 19], {"div_value": 1.5})]


def made(cutoffs, **options):
    return nn.AdaptiveLogSoftmaxWithLoss(16, 20, cutoffs, dtype=kobai.float64, **options)


def drawn(n):
    rng = np.random.default_rng(n)
    return kobai.tensor(rng.normal(size=(n, 16)), requires_grad=True), kobai.tensor(rng.integers(0, 20, n))


def probabilities(z):
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


@pytest.mark.parametrize(("cutoffs", "options"), CASES)
def test_probabilities_of_ranges_times_those_inside(cutoffs, options):
    layer, (x, _) = made(cutoffs, **options), drawn(7)
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}
    head = probabilities(x.detach().numpy() @ weights["head.weight"].T + weights.get("head.bias", 0))
    parts = [head[:, : cutoffs[0]]]
    for i in range(len(cutoffs)):
        first, second = (weights[f"tail.{i}.{j}.weight"] for j in (0, 1))
        parts.append(head[:, cutoffs[0] + i, None] * probabilities(x.detach().numpy() @ first.T @ second.T))
    p = np.concatenate(parts, 1)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(layer.log_prob(x).exp().detach().numpy(), p, rtol=1e-10)
    assert layer.predict(x).tolist() == p.argmax(1).tolist()


@pytest.mark.parametrize("n", [1, 2, 50])
@pytest.mark.parametrize(("cutoffs", "options"), CASES)
def test_the_call_gives_log_prob_at_the_target_and_its_gradients(cutoffs, options, n):
    layer, (x, target) = made(cutoffs, **options), drawn(n)
    leaves = [x, *layer.parameters()]
    output, loss = layer(x, target)
    whole = layer.log_prob(x).gather(1, target.unsqueeze(1)).squeeze(1)
    np.testing.assert_allclose(output.detach().numpy(), whole.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(loss.item(), -whole.mean().item(), rtol=1e-12)
    found = kobai.autograd.grad(loss, leaves, allow_unused=True)
    for got, right in zip(found, kobai.autograd.grad(-whole.mean(), leaves), strict=True):
        # a range that no target is in has no part in the loss
        np.testing.assert_allclose(0 if got is None else got.numpy(), right.numpy(), atol=1e-12)


def test_one_sample_and_none():
    layer, (x, target) = made([5, 10]), drawn(3)
    output, loss = layer(x[1], target[1])
    assert output.shape == loss.shape == ()
    assert output.item() == layer(x, target).output[1].item() == -loss.item()
    assert layer(x[:0], target[:0]).output.shape == layer.predict(x[:0]).shape == (0,)
    assert layer.log_prob(x[:0]).shape == (0, 20)


def test_names_and_sizes_are_pytorchs():
    layer = nn.AdaptiveLogSoftmaxWithLoss(16, 20, (5, 10), head_bias=True)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {
        "head.weight": (7, 16), "head.bias": (7,), "tail.0.0.weight": (4, 16), "tail.0.1.weight": (5, 4),
        "tail.1.0.weight": (1, 16), "tail.1.1.weight": (10, 1),
    }  # fmt: skip
    assert layer.cutoffs == [5, 10, 20]
    assert (layer.shortlist_size, layer.n_clusters, layer.head_size) == (5, 2, 7)
    before = layer.state_dict()["tail.1.0.weight"].clone()
    layer.reset_parameters()
    assert not kobai.equal(before, layer.tail[1][0].weight)


@pytest.mark.parametrize("cutoffs", [[], [5, 5], [5, 20], [10, 5], [0, 5], [2.5], [True], "ab"])
def test_cutoffs_that_do_not_increase(cutoffs):
    with pytest.raises(ValueError, match=r"AdaptiveLogSoftmaxWithLoss: expected cutoffs that increase, in \[1, 19\]"):
        nn.AdaptiveLogSoftmaxWithLoss(16, 20, cutoffs)


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (lambda x, t: (x, t[:2]), r"got \(3, 16\) and \(2,\)"),
        (lambda x, t: (x, t.unsqueeze(0)), r"got \(3, 16\) and \(1, 3\)"),
        (lambda x, t: (x[0], t[:1]), r"got \(16,\) and \(1,\)"),
        (lambda x, t: (x, t + 20), r"expected indices in \[0, 19\]"),
        (lambda x, t: (x, t - 20), r"expected indices in \[0, 19\]"),
        (lambda x, t: (x, t.double()), "expected class numbers as targets, got kobai.float64"),
    ],
)
def test_targets_that_do_not_fit(take, message):
    with pytest.raises(RuntimeError, match=f"AdaptiveLogSoftmaxWithLoss: .*{message}"):
        made([5, 10])(*take(*drawn(3)))


def test_it_learns():
    kobai.manual_seed(0)
    layer = nn.AdaptiveLogSoftmaxWithLoss(16, 20, [5, 10])
    target = kobai.arange(20)
    x = kobai.randn(20, 16)
    optimiser = kobai.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        layer(x, target).loss.backward()
        optimiser.step()
    assert layer(x, target).loss < 1.5  # of log 20 = 3.0: the last range has one dimension to tell its classes apart


@pytest.mark.oracle
@pytest.mark.parametrize(("cutoffs", "options"), CASES)
def test_as_in_pytorch(cutoffs, options):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(16, 20, cutoffs, dtype=torch.float64, **options)
    ours, (x, target) = made(cutoffs, **options), drawn(40)
    ours.load_state_dict({name: kobai.tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    y, t = torch.tensor(x.detach().numpy(), requires_grad=True), torch.tensor(target.numpy())
    for found, right in zip(ours(x, target), theirs(y, t), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), right.detach().numpy(), rtol=1e-10)
    ours(x, target).loss.backward()
    theirs(y, t).loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(ours.log_prob(x).detach().numpy(), theirs.log_prob(y).detach().numpy(), rtol=1e-10)
    assert ours.predict(x).tolist() == theirs.predict(y).tolist()
