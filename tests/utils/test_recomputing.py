"""utils.checkpoint with several outputs, and the reversible blocks that libraries build beside it."""

import pytest

import kobai
from kobai import nn
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
