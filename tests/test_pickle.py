"""What goes to another process by the user's own pickle comes back as it was. Kobai's files are none: docs/design/0005."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import kobai
from kobai import nn, optim

TENSORS = {
    **{
        name: lambda name=name: kobai.arange(4).to(getattr(kobai, name))
        for name in "bfloat16 float16 float32 float64 uint8 int8 int16 int32 int64 bool".split()
    },
    "no elements": lambda: kobai.zeros(0, 3),
    "no dimensions": lambda: kobai.tensor(2.5),
    "changed in place": lambda: kobai.ones(3).add_(1),
    "a view": lambda: kobai.arange(6).view(2, 3)[:, 1:],
    "transposed": lambda: kobai.randn(2, 3).t(),
    "expanded": lambda: kobai.randn(3).expand(2, 3),
    "NaN": lambda: kobai.tensor([float("nan"), float("inf"), -0.0]),
}


def there_and_back(x, protocol=pickle.HIGHEST_PROTOCOL):
    return pickle.loads(pickle.dumps(x, protocol))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_tensors(make, protocol, backend):
    x = make()
    twin = there_and_back(x, protocol)
    assert (type(twin), twin.dtype, twin.device, twin.shape) == (kobai.Tensor, x.dtype, x.device, x.shape)
    assert kobai.equal(x.nan_to_num(), twin.nan_to_num())
    assert not twin.requires_grad
    before = x.clone()
    twin.add_(1) if x.dtype != kobai.bool else twin.logical_not_()  # it can be written to, and x does not see it
    assert kobai.equal(x.nan_to_num(), before.nan_to_num())


def test_a_view_brings_its_own_elements_only():
    assert len(pickle.dumps(kobai.zeros(10_000)[:3])) < 1000


def test_history_and_gradient_stay_behind():
    x = kobai.ones(2, requires_grad=True)
    y = 2 * x
    y.retain_grad()
    y.sum().backward()
    for tensor in (x, y, y[:1]):
        twin = there_and_back(tensor)
        assert twin.is_leaf
        assert twin.requires_grad
        assert twin.grad is None
        assert kobai.equal(twin.detach(), tensor.detach())


def test_attributes_travel_along():
    p = nn.Parameter(kobai.ones(2), requires_grad=False)
    p.tag, p._decayed = "first", False
    for twin in (there_and_back(p), copy.deepcopy(p)):
        assert type(twin) is nn.Parameter
        assert (twin.tag, twin._decayed, twin.requires_grad) == ("first", False, False)


def test_a_hook_that_stays_behind_is_said():
    x = kobai.ones(2, requires_grad=True)
    x.register_hook(print)
    with pytest.warns(UserWarning, match="the hook <built-in function print> of a tensor is not pickled"):
        twin = there_and_back(x)
    twin.sum().backward()


def test_one_tensor_stays_one():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    twin = there_and_back(model)
    assert twin[1].weight is twin[0].weight


def test_a_copy_shares_memory_and_what_guards_it():
    x = kobai.ones(2)
    twin = copy.copy(x)
    w = kobai.ones(2, requires_grad=True)
    loss = (w * twin).sum()
    x.zero_()
    assert twin.tolist() == [0, 0]
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


def test_between_devices_of_one_kind_the_place_is_kept(backend):
    with kobai.using(backend):
        x = kobai.ones(2)
        content = pickle.dumps(x)
    with kobai.using("numpy"):
        assert pickle.loads(content).device == x.device


OTHERS = {
    "recurrent": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "lazy": lambda: nn.LazyLinear(3),
    "averages": lambda: optim.swa_utils.AveragedModel(nn.Linear(2, 2)),
    "moving averages": lambda: optim.swa_utils.AveragedModel(
        nn.Linear(2, 2), multi_avg_fn=optim.swa_utils.get_ema_multi_avg_fn(0.9)
    ),
    "schedule": lambda: optim.lr_scheduler.OneCycleLR(optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), 0.1, 10),
    "distribution": lambda: kobai.distributions.Normal(kobai.zeros(3, 1), kobai.ones(2)),
    "data": lambda: kobai.utils.data.Subset(kobai.utils.data.TensorDataset(kobai.randn(3, 2)), [0, 2]),
    "loader": lambda: kobai.utils.data.DataLoader(kobai.randn(4, 2), batch_size=2, shuffle=True),
    "generator": lambda: kobai.Generator().manual_seed(3),
    "scaler": lambda: kobai.amp.GradScaler("cpu"),
    "named results": lambda: kobai.randn(2, 3).max(dim=1),
    "packed": lambda: nn.utils.rnn.pack_sequence([kobai.ones(2), kobai.ones(1)]),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_what_holds_tensors(make):
    x = make()
    twin = there_and_back(x)
    assert type(twin) is type(x)
    assert pickle.dumps(there_and_back(twin)) == pickle.dumps(twin)


# --- other processes --------------------------------------------------------------------------------------------------


def trained(model, optimizer, x, steps):
    """Loss after some steps; returns all three, as a worker would."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
    return model, optimizer, loss


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_training_goes_on_in_another_process(method):
    """There and back, in the middle of a training: as if it had never left."""
    kobai.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)), kobai.randn(8, 3)
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    trained(model, optimizer, x, 3)
    expected = trained(*copy.deepcopy((model, optimizer)), x, 6)
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        back = pool.submit(trained, model, optimizer, x, 3).result()
    assert kobai.equal(back[0].state_dict()["0.weight"], trained(model, optimizer, x, 3)[0].state_dict()["0.weight"])
    *_, loss = trained(*back[:2], x, 3)
    assert loss.item() == expected[2].item()


def test_numpy_arrays_within_are_pickled_as_numpy_does():
    """Protocol 5 hands the elements over without a copy: what multiprocessing and joblib use for large arrays."""
    x = kobai.arange(1000.0)
    buffers = []
    content = pickle.dumps(x, 5, buffer_callback=buffers.append)
    assert len(content) < 1000
    assert np.shares_memory(np.frombuffer(buffers[0], np.float32), x.numpy())
    assert kobai.equal(pickle.loads(content, buffers=buffers), x)
