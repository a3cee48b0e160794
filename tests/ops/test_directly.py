"""In-place forms that change memory itself: as the operation does it, in every layout, captured, and noticed by the tape."""

import inspect

import numpy as np
import pytest

import kobai
from kobai.core.primitive import DIRECT

RNG = np.random.default_rng(0)
CALLS = {
    "add": lambda x, y, z: x.add_(y),
    "add a number": lambda x, y, z: x.add_(2),
    "add scaled": lambda x, y, z: x.add_(y, alpha=-0.3),
    "sub": lambda x, y, z: x.sub_(y),
    "sub scaled": lambda x, y, z: x.sub_(y, alpha=0.3),
    "mul": lambda x, y, z: x.mul_(y),
    "mul by a number": lambda x, y, z: x.mul_(0.9),
    "div": lambda x, y, z: x.div_(y),
    "older add": lambda x, y, z: x.add_(2, y),
    "named addcmul": lambda x, y, z: x.addcmul_(tensor1=y, tensor2=z),
    "older addcdiv": lambda x, y, z: x.addcdiv_(2, y, z),
    "clamp": lambda x, y, z: x.clamp_(0.6, 1.2),
    "clamp below": lambda x, y, z: x.clamp_(min=0.9),
    "lerp": lambda x, y, z: x.lerp_(y, 0.1),
    "addcmul": lambda x, y, z: x.addcmul_(y, z, value=0.1),
    "addcdiv": lambda x, y, z: x.addcdiv_(y, z, value=-0.1),
    "add in the older order": lambda x, y, z: x.add_(0.3, y),
    "sub in the older order": lambda x, y, z: x.sub_(0.3, y),
    "addcmul in the older order": lambda x, y, z: x.addcmul_(0.1, y, z),
    "addcdiv in the older order": lambda x, y, z: x.addcdiv_(-0.1, y, z),
    "div rounded": lambda x, y, z: x.div_(y, rounding_mode="floor"),
    "div rounded by a number": lambda x, y, z: x.div_(0.3, rounding_mode="trunc"),
    "lerp by a tensor": lambda x, y, z: x.lerp_(y, z),
    "clamp by a tensor": lambda x, y, z: x.clamp_(max=y),
    "masked_fill": lambda x, y, z: x.masked_fill_(y > 1, -2.0),
    "index_add": lambda x, y, z: x.index_add_(0, kobai.tensor([1, 1, 0, 3]), y),
    "scatter a number": lambda x, y, z: x.scatter_(1, (z[:3] > 1).to(kobai.int64), 7),
    "scatter a value": lambda x, y, z: x.scatter_(0, (z > 1).to(kobai.int64), value=-1.5),
    "scatter and add a number": lambda x, y, z: x.scatter_(0, (z > 1).to(kobai.int64), 2.0, reduce="add"),
    "scatter_add": lambda x, y, z: x.scatter_add_(1, (z > 1).to(kobai.int64), y),
}


@pytest.fixture
def without(monkeypatch):
    """Run a call by the operations alone."""

    def run(call, *tensors):
        with pytest.MonkeyPatch.context() as patch:
            for op in list(DIRECT):
                patch.delitem(DIRECT, op)
            return call(*tensors)

    return run


def draw(dtype):
    return [RNG.uniform(0.5, 1.5, (4, 3)).astype(dtype) for _ in range(3)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["rows", "columns", "every second"])
@pytest.mark.parametrize("name", CALLS)
def test_memory_changes_as_by_the_operation(name, layout, dtype, without):
    arrays, made = draw(dtype), []
    for run in (lambda call, *tensors: call(*tensors), without):
        held = np.zeros((8, 6), dtype)
        memory = {"rows": held[:4, :3], "columns": held.T[:4, :3], "every second": held[::2, ::2]}[layout]
        memory[...] = arrays[0]
        x = kobai.from_numpy(memory)
        assert run(CALLS[name], x, *map(kobai.tensor, arrays[1:])) is x
        made.append(held)
    np.testing.assert_allclose(*made, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(3,), (4, 1), (1, 1), ()])
def test_what_is_beside_it_may_broadcast(shape):
    x, y = draw("float32")[0], RNG.uniform(0.5, 1.5, shape).astype("float32")
    np.testing.assert_array_equal(kobai.tensor(x).mul_(kobai.tensor(y)).array, x * y)


@pytest.mark.parametrize("alpha", [1, 2])
def test_memory_that_overlaps(alpha):
    x = RNG.normal(size=(4, 4)).astype("float32")
    np.testing.assert_allclose(kobai.tensor(x).add_(kobai.tensor(x).t(), alpha=alpha).array, x + alpha * x.T, rtol=1e-6)
    t = kobai.tensor(x)
    np.testing.assert_allclose(t.add_(t.t(), alpha=alpha).array, x + alpha * x.T, rtol=1e-6)
    t = kobai.tensor(x)
    t[1:].add_(t[:-1], alpha=alpha)
    np.testing.assert_allclose(t.array[1:], x[1:] + alpha * x[:-1], rtol=1e-6)


@pytest.mark.parametrize("name", CALLS)
def test_the_tape_notices(name):
    x, y, z = map(kobai.tensor, draw("float64"))
    w = x.clone().requires_grad_()
    used = w * 2
    squared = used * used
    with kobai.no_grad():
        CALLS[name](used, y, z)
    with pytest.raises(RuntimeError, match="changed in place"):
        squared.sum().backward()


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"index_add"}))
def test_captured(name):
    arrays = draw("float32")
    eager = CALLS[name](*map(kobai.tensor, arrays)).array

    @kobai.capture
    def step(x, y, z):
        return CALLS[name](x * 1, y, z)

    for _ in range(4):
        np.testing.assert_array_equal(step(*map(kobai.tensor, arrays)).array, eager)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.add_(kobai.ones(4)), "broadcast"),
        (lambda x: x.add_(kobai.ones(2, 4, 3)), "result has shape"),
        (lambda x: kobai.ones(1).expand(3).mul_(2.0), "share memory"),
        (lambda x: x.requires_grad_().mul_(2.0), "leaf"),
        (lambda x: x.index_add_(0, kobai.tensor([4]), kobai.ones(1, 3)), "expected indices in"),
        (lambda x: x.scatter_add_(1, kobai.tensor([[3]]), kobai.ones(1, 1)), "expected indices in"),
    ],
)
def test_errors_are_the_operation_s(call, message):
    with pytest.raises((RuntimeError, IndexError), match=message):
        call(kobai.ones(4, 3))


def test_a_result_of_another_dtype_is_left_to_the_operation():
    x = kobai.ones(3)
    assert x.add_(kobai.ones(3, dtype=kobai.float64)).dtype == kobai.float32
    assert kobai.ones(3, dtype=kobai.int64).add_(2).tolist() == [3, 3, 3]
    with pytest.raises(RuntimeError, match="cannot be kept"):
        kobai.ones(3, dtype=kobai.int64).add_(0.5)


@pytest.mark.parametrize("op", DIRECT, ids=lambda op: op.__name__)
def test_they_can_be_called_as_their_operations_can(op):
    """What a form does not do itself it must let pass: names and numbers of arguments are the operation's."""
    declared = inspect.signature(inspect.unwrap(op)).parameters
    own = inspect.signature(inspect.unwrap(DIRECT[op])).parameters
    named = [n for n, p in declared.items() if p.kind is not p.VAR_POSITIONAL and n != "out"][1:]
    assert set(named) <= set(own)
    assert {p.kind for p in declared.values()} <= {p.kind for p in own.values()} | {inspect.Parameter.KEYWORD_ONLY}
    assert [n for n in own if n in named] == named
