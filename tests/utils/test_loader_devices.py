"""Where a DataLoader makes its batches, and page-locked memory."""

import itertools

import numpy as np
import pytest
from sources import Count, Pairs, flat, tensors

import kobai
from kobai.utils.data import (
    DataLoader,
    Subset,
    TensorDataset,
    collate,
    dataloader,
)
from kobai.xp import to_host


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_gathered_where_the_data_lives(backend, workers):
    data = TensorDataset(kobai.arange(12.0).reshape(6, 2), kobai.arange(6))
    where = data.tensors[0].device
    kobai.use("numpy")  # the data decides, not the flag
    orders = (
        {"batch_size": 4},
        {"batch_size": 4, "shuffle": True},
        {"batch_size": 4, "sampler": [3, 1, 5, 0]},
        {"batch_sampler": [[1, 2], [0]]},
    )
    for source, options in itertools.product((data, Subset(data, [5, 4, 3, 2, 1, 0])), orders):
        for x, t in DataLoader(source, num_workers=workers, **options):
            assert x.device == t.device == where
            np.testing.assert_array_equal(to_host(x.array)[:, 0], 2 * to_host(t.array))


def test_batch_order_is_equal_on_every_backend(backend):
    data = TensorDataset(kobai.arange(50))
    kobai.manual_seed(9)
    found = [to_host(b[0].array).tolist() for _ in range(2) for b in DataLoader(data, batch_size=8, shuffle=True)]
    kobai.use("numpy")
    kobai.manual_seed(9)
    assert [b[0].tolist() for _ in range(2) for b in DataLoader(tensors(50), batch_size=8, shuffle=True)] == found


def test_out_of_range_is_noticed_on_every_backend(backend):
    with pytest.raises(IndexError, match="index 99 is out of range for 3 samples"):
        list(DataLoader(TensorDataset(kobai.arange(3)), sampler=[0, 99], batch_size=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_no_tensor_goes_to_the_default_device(backend, workers):
    class Arrays(Pairs):
        def __getitem__(self, index):
            return {"x": np.full(2, index, dtype=np.float32), "n": index}

    for batch in DataLoader(Arrays(4), batch_size=2, num_workers=workers):
        assert batch["x"].device == batch["n"].device == kobai.zeros(1).device


def test_pin_memory_without_a_gpu_warns_and_works():
    if not kobai.available_backends()["cupy"]:
        pytest.skip("this machine has a GPU")
    with pytest.warns(UserWarning, match="pin_memory=True has no effect") as caught:
        loader = DataLoader(Pairs(2), pin_memory=True)
    assert len(caught) == 1
    assert flat(loader) == [0, 1]


class Note:
    def pin_memory(self):
        return "pinned by itself"


@pytest.mark.parametrize("workers", [0, 1])
def test_pin_memory_with_a_gpu_pins_what_is_on_the_host(monkeypatch, workers):
    """The GPU is made up: what is pinned is noted, and stays ordinary memory."""
    pinned = []

    def pin(array):
        pinned.append(array.shape)
        return array.copy()

    monkeypatch.setattr(collate, "pin", pin)
    monkeypatch.setattr(dataloader, "available_backends", lambda: {"cupy": ""})
    with kobai.using("strict"):
        far = kobai.zeros(3)
    data = [{"x": np.zeros(2), "t": kobai.ones(4), "far": far, "name": "a", "n": 1, "pair": (1.0, "b")}]
    (batch,) = DataLoader(data, pin_memory=True, num_workers=workers)
    assert sorted(pinned) == [(1,), (1,), (1, 2), (1, 4)]
    assert batch["far"].device.type == "strict"
    assert batch["x"].shape == (1, 2)
    assert batch["name"] == ["a"]
    (own,) = DataLoader([1], pin_memory=True, num_workers=workers, collate_fn=lambda samples: (Note(), 5, np.zeros(7)))
    assert own[:2] == ("pinned by itself", 5)
    assert pinned[-1] == (7,)
    assert list(DataLoader(Count(0), pin_memory=True, num_workers=workers)) == []
    pinned.clear()
    (rows,) = DataLoader(TensorDataset(kobai.arange(6)), batch_size=6, pin_memory=True, num_workers=workers)
    assert rows[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert pinned == [(6,)]
