"""Arrays of NumPy's subclasses – memory-mapped, masked, matrices, a program's own – are arrays at every door."""

import pickle

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.core.primitive import operation
from kobai.xp import to_host


class Own(np.ndarray):
    """Whose operators mean something else."""

    def __mul__(self, other):
        raise AssertionError("the operator of a subclass")

    __add__ = __matmul__ = __radd__ = __rmul__ = __mul__


def mapped(values, tmp_path, mode):
    path = tmp_path / "elements"
    values.tofile(path)
    return np.memmap(path, values.dtype, mode, shape=values.shape)


KINDS = {
    "memmap": lambda values, tmp_path: mapped(values, tmp_path, "r+"),
    "memmap that cannot be written to": lambda values, tmp_path: mapped(values, tmp_path, "r"),
    "matrix": lambda values, tmp_path: values.view(np.matrix),
    "masked": lambda values, tmp_path: np.ma.masked_array(values),
    "recarray": lambda values, tmp_path: values.view(np.recarray),
    "own": lambda values, tmp_path: values.view(Own),
}

DOORS = {
    "tensor": kobai.tensor,
    "as_tensor": kobai.as_tensor,
    "as_tensor of a dtype": lambda a: kobai.as_tensor(a, dtype=kobai.float64),
    "from_numpy": kobai.from_numpy,
    "from_dlpack": kobai.from_dlpack,
    "Tensor": kobai.Tensor,
    "_wrap": kobai.Tensor._wrap,
    "list": lambda a: kobai.tensor([a, a])[0],
    "new_tensor": lambda a: kobai.zeros(1).new_tensor(a),
    "copy_": lambda a: kobai.zeros(3, 2).copy_(kobai.as_tensor(a)),
    "Parameter": lambda a: nn.Parameter(kobai.Tensor._wrap(a)).detach(),
    "collate": lambda a: kobai.utils.data.default_collate([a])[0],
    "convert": kobai.utils.data.default_convert,
    "pickle": lambda a: pickle.loads(pickle.dumps(kobai.Tensor._wrap(a))),
    "operation": lambda a: operation(lambda x: (a, None))(kobai.zeros(3, 2)),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_at_every_door(kind, door, tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    got = DOORS[door](KINDS[kind](values, tmp_path))
    assert type(got.array) is np.ndarray
    plain = kobai.tensor(values).to(got.dtype)
    for other in (got, plain):  # arrays of two types met each other here without end
        assert kobai.equal(got * other + other, plain * plain + plain)
        assert kobai.equal(other @ got.T, plain @ plain.T)
    weight = kobai.ones(2, 2, dtype=got.dtype, requires_grad=True)
    nn.functional.linear(got, weight).sum().backward()
    assert kobai.equal(weight.grad, plain.sum(0).expand(2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_host_it_is_an_array(kind, tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    given = KINDS[kind](values, tmp_path)
    assert type(to_host(given)) is np.ndarray
    assert np.shares_memory(to_host(given), given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_step_takes_them(kind, tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    given = KINDS[kind](values, tmp_path)
    model = nn.Linear(2, 2).requires_grad_(False)
    step = kobai.capture(lambda x: model(x) * x)
    for _ in range(3):
        assert kobai.equal(step(kobai.Tensor._wrap(given)), model(kobai.tensor(values)) * kobai.tensor(values))


@pytest.mark.parametrize("kind", KINDS)
def test_instead_of_a_tensor_they_are_refused_with_the_remedy(kind, tmp_path):
    given = KINDS[kind](np.ones((3, 2), np.float32), tmp_path)
    with pytest.raises(TypeError, match=r"exp: expected a Tensor, got \w+; make it one with kobai.tensor\(\)"):
        kobai.exp(given)
