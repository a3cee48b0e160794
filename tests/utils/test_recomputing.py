"""utils.checkpoint with several outputs, and the reversible blocks that libraries build beside it."""

import pytest

import kobai
from kobai import nn
from kobai.autograd import grad
from kobai.utils.checkpoint import checkpoint, get_device_states, set_device_states


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_outputs(kind):
    layer = nn.Linear(2, 2)

    def part(x, scale):
        return kind([layer(x).sin(), x * scale, None, kobai.arange(2)])

    grads = []
    for run in (part, lambda x, scale: checkpoint(part, x, scale, use_reentrant=False)):
        x = kobai.tensor([[1.0, 2.0]], requires_grad=True)
        layer.zero_grad()
        out = run(x, 3.0)
        assert type(out) is kind
        assert out[2] is None
        assert not out[3].requires_grad
        (out[0].sum() + 2 * out[1].sum()).backward()
        grads.append([x.grad, layer.weight.grad, layer.bias.grad])
    for a, b in zip(*grads, strict=True):
        kobai.testing.assert_close(a, b)


def net_and_input():
    kobai.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 5), nn.Softplus()).double()
    return net, kobai.randn(4, 3, dtype=kobai.float64, requires_grad=True)


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = [factor]  # not a parameter, and not a leaf

    def forward(self, x):
        return x * self.factor[0].sin()


@pytest.mark.parametrize("nested", [False, True])
def test_derivatives_of_every_order(nested):
    """What was recomputed for the gradient is differentiated again, parameters and closed-over tensors included."""

    def whole(net, x):
        return net(x)

    def recomputed(net, x):
        if nested:
            return checkpoint(lambda x: checkpoint(net[1], checkpoint(net[0], x)), x)
        return checkpoint(net, x)

    found = []
    for run in (whole, recomputed):
        net, x = net_and_input()
        scale = kobai.tensor(1.5, dtype=kobai.float64, requires_grad=True)
        inner = scale * 2
        y = run(nn.Sequential(net, Scaled(inner)), x)
        (first,) = grad(y.sum(), x, create_graph=True)
        (second,) = grad(first.square().sum(), x, create_graph=True)
        second.square().sum().backward()
        found.append([first, second, x.grad, scale.grad, *(p.grad for p in net.parameters() if p.grad is not None)])
    assert len(found[0]) >= 7
    for a, b in zip(*found, strict=True):
        kobai.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_grad_sees_the_parameters_and_hooks_run_once():
    net, x = net_and_input()
    seen = []
    net[0].weight.register_hook(lambda g: seen.append(1) or g * 2)
    whole = grad(net[0](x).sum(), [*net[0].parameters(), x])
    recomputed = grad(checkpoint(net[0], x).sum(), [*net[0].parameters(), x])
    for a, b in zip(whole, recomputed, strict=True):
        kobai.testing.assert_close(a, b)
    assert seen == [1, 1]
    assert net[0].weight.grad is None


def test_what_needs_no_gradient_is_no_part_of_the_graph():
    assert not checkpoint(lambda x: x * 2, kobai.ones(2)).requires_grad


def test_only_one_of_the_outputs_is_used():
    x = kobai.tensor([1.0, 2.0], requires_grad=True)
    _, second = checkpoint(lambda x: (x.exp(), x * x), x)
    second.sum().backward()
    assert x.grad.tolist() == [2, 4]


def test_an_output_without_a_tensor():
    with pytest.raises(TypeError, match="to return a Tensor"):
        checkpoint(lambda x: (1, None), kobai.ones(1))


def test_a_reversible_block_records_the_state_of_every_generator():
    devices, states = get_device_states(kobai.ones(2))
    with kobai.random.fork_rng(devices=devices, enabled=True):
        set_device_states(devices, states)
    with pytest.raises(ValueError, match="set_rng_state"):
        set_device_states([0], [{}])


def test_what_libraries_of_reversible_and_traced_networks_ask():
    assert kobai.cuda._initialized is False
    kobai._assert(True, "fits")
    with pytest.raises(AssertionError, match="does not fit"):
        kobai._assert(False, "does not fit")
