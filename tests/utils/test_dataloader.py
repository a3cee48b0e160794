"""kobai.utils.data: DataLoader without workers."""

import itertools

import numpy as np
import pytest

import kobai
from kobai.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    collate,
    dataloader,
    default_collate,
    random_split,
)
from kobai.xp import to_host


class Pairs(Dataset):
    """Map-style, plain Python: sample i is (i, i²)."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return index, index**2


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))


class Sized(Count):
    def __len__(self):
        return self.n


def tensors(n):
    return TensorDataset(kobai.arange(n), kobai.arange(n) ** 2)


def subset(n):
    whole = TensorDataset(kobai.arange(-5, n + 5), kobai.arange(-5, n + 5) ** 2)
    return Subset(Subset(whole, list(range(n + 9, -1, -1))), [n + 4 - i for i in range(n)])


SOURCES = {"map": Pairs, "tensors": tensors, "subset": subset}


def firsts(loader):
    return [batch[0].tolist() for batch in loader]


def flat(loader):
    return list(itertools.chain.from_iterable(firsts(loader)))


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]


# --- what every source of data must do --------------------------------------------------------------------------------


def test_batches_in_order(source):
    loader = DataLoader(source(5), batch_size=2)
    assert len(loader) == 3
    batches = list(loader)
    assert all(type(b) is list and len(b) == 2 for b in batches)
    assert [b[0].tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert [b[1].tolist() for b in batches] == [[0, 1], [4, 9], [16]]
    assert all(isinstance(b[0], kobai.Tensor) and b[0].dtype == np.int64 for b in batches)


def test_default_batch_size_is_one(source):
    assert firsts(DataLoader(source(2))) == [[0], [1]]


def test_drop_last(source):
    loader = DataLoader(source(5), batch_size=2, drop_last=True)
    assert firsts(loader) == [[0, 1], [2, 3]]
    assert len(loader) == 2
    assert firsts(DataLoader(source(1), batch_size=2, drop_last=True)) == []


def test_shuffle_visits_all_once_and_differently_every_epoch(source):
    loader = DataLoader(source(40), batch_size=7, shuffle=True)
    first, second = flat(loader), flat(loader)
    assert sorted(first) == sorted(second) == list(range(40))
    assert len({tuple(first), tuple(second), tuple(range(40))}) == 3
    for x, square in loader:
        assert (x**2).tolist() == square.tolist()


def test_shuffled_batches_are_equal_for_every_source():
    orders = []
    for make in SOURCES.values():
        kobai.manual_seed(11)
        loader = DataLoader(make(30), batch_size=4, shuffle=True)
        orders.append([flat(loader), flat(loader)])
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize("explicit", [True, False])
def test_epochs_are_reproducible_from_one_seed(source, explicit):
    def run():
        generator = kobai.Generator().manual_seed(4) if explicit else None
        kobai.manual_seed(4)
        loader = DataLoader(source(20), batch_size=6, shuffle=True, generator=generator)
        return [firsts(loader) for _ in range(3)]

    assert run() == run()


@pytest.mark.parametrize("explicit", [True, False])
def test_epoch_can_be_repeated_from_a_saved_state(source, explicit):
    generator = kobai.Generator().manual_seed(4) if explicit else kobai.random.default_generator
    loader = DataLoader(source(20), batch_size=6, shuffle=True, generator=generator if explicit else None)
    flat(loader)
    state = generator.get_state()
    rest = [flat(loader), flat(loader)]
    generator.set_state(state)
    assert [flat(loader), flat(loader)] == rest


def test_unshuffled_epochs_draw_nothing(source):
    before = kobai.get_rng_state()
    flat(DataLoader(source(5), batch_size=2))
    assert kobai.get_rng_state() == before


def test_shuffled_epoch_costs_the_default_generator_one_draw(source):
    def after(n):
        kobai.manual_seed(0)
        flat(DataLoader(source(n), shuffle=True, batch_size=3))
        return kobai.get_rng_state()

    assert after(4) == after(20)


def test_own_sampler_and_batch_sampler(source):
    assert flat(DataLoader(source(5), sampler=[3, 1, 4], batch_size=2)) == [3, 1, 4]
    loader = DataLoader(source(5), batch_sampler=[[4, 0], [1], [2, 3, 3]])
    assert firsts(loader) == [[4, 0], [1], [2, 3, 3]]
    assert len(loader) == 3
    assert loader.batch_size is None


def test_sampler_objects(source):
    seeded = kobai.Generator().manual_seed
    assert sorted(flat(DataLoader(source(9), sampler=SubsetRandomSampler([1, 5, 7]), batch_size=2))) == [1, 5, 7]
    assert set(flat(DataLoader(source(3), sampler=WeightedRandomSampler([0, 0, 1], 5)))) == {2}
    loader = DataLoader(source(4), batch_sampler=BatchSampler(SequentialSampler(range(4)), 3, False))
    assert firsts(loader) == [[0, 1, 2], [3]]
    many = DataLoader(source(3), sampler=RandomSampler(range(3), num_samples=8, generator=seeded(0)), batch_size=5)
    assert len(flat(many)) == 8
    assert len(many) == 2


def test_sampler_that_yields_zero_dimensional_tensors(source):
    class Reversed(Sampler):
        def __iter__(self):
            return iter(kobai.tensor([2, 1, 0]))

        def __len__(self):
            return 3

    assert sorted(flat(DataLoader(source(3), sampler=Reversed(), batch_size=2))) == [0, 1, 2]


def test_subclass_of_a_sampler_keeps_its_order(source):
    class Backwards(SequentialSampler):
        def __iter__(self):
            return iter(range(len(self) - 1, -1, -1))

    data = source(3)
    assert flat(DataLoader(data, sampler=Backwards(data), batch_size=2)) == [2, 1, 0]


def test_index_out_of_range():
    for data in (tensors(4), subset(4)):
        with pytest.raises(IndexError):
            list(DataLoader(data, sampler=[1, 99], batch_size=2))
        with pytest.raises(IndexError):
            list(DataLoader(data, batch_sampler=[[-99]]))


def test_negative_indices_count_from_the_end():
    assert flat(DataLoader(tensors(4), batch_sampler=[[-1, 0]])) == [3, 0]


def test_empty(source):
    loader = DataLoader(source(0), batch_size=4)
    assert len(loader) == 0
    assert list(loader) == []
    with pytest.raises(ValueError, match="empty"):
        DataLoader(source(0), shuffle=True)


def test_one_sample(source):
    assert firsts(DataLoader(source(1), batch_size=8, shuffle=True)) == [[0]]


def test_two_iterators_at_once_do_not_disturb_each_other(source):
    loader = DataLoader(source(6), batch_size=2)
    assert [(a[0].tolist(), b[0].tolist()) for a, b in zip(loader, loader, strict=True)] == [
        ([i, i + 1], [i, i + 1]) for i in (0, 2, 4)
    ]


def test_batches_do_not_share_memory_with_the_data():
    for shuffle in (False, True):
        data = TensorDataset(kobai.zeros(6, 2))
        for (x,) in DataLoader(data, batch_size=3, shuffle=shuffle):
            x += 1
        assert data.tensors[0].sum().item() == 0


def test_attributes(source):
    data = source(7)
    loader = DataLoader(data, batch_size=3, drop_last=True, num_workers=0)
    assert loader.dataset is data
    assert (loader.batch_size, loader.drop_last, loader.num_workers) == (3, True, 0)
    assert isinstance(loader.sampler, SequentialSampler)
    assert isinstance(loader.batch_sampler, BatchSampler)
    assert loader.collate_fn is default_collate
    assert len(loader.dataset) == 7
    with pytest.raises(ValueError, match="batch_size cannot be changed"):
        loader.batch_size = 5


# --- where batches are made -------------------------------------------------------------------------------------------


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


# --- other ways to read -----------------------------------------------------------------------------------------------


def test_custom_collate(source):
    loader = DataLoader(source(4), batch_size=3, collate_fn=lambda samples: ("own", len(samples), type(samples)))
    assert list(loader) == [("own", 3, list), ("own", 1, list)]


def test_batch_size_none_gives_samples(source):
    loader = DataLoader(source(3), batch_size=None)
    assert len(loader) == 3
    assert [(int(a), int(b)) for a, b in loader] == [(0, 0), (1, 1), (2, 4)]
    assert list(DataLoader(source(2), batch_size=None, collate_fn=lambda s: "one")) == ["one"] * 2


def test_batch_size_none_converts_arrays():
    class Arrays(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"x": np.full(3, index), "name": "n"}

    first, _ = DataLoader(Arrays(), batch_size=None)
    assert isinstance(first["x"], kobai.Tensor)
    assert first["name"] == "n"


def test_getitems_fetches_a_batch_with_one_call():
    calls = []

    class Batched(Pairs):
        def __getitems__(self, indices):
            calls.append(indices)
            return [self[i] for i in indices]

    assert firsts(DataLoader(Batched(3), batch_size=2)) == [[0, 1], [2]]
    assert calls == [[0, 1], [2]]


def test_subclass_of_tensor_dataset_keeps_its_getitem():
    class Augmented(TensorDataset):
        def __getitem__(self, index):
            (x,) = super().__getitem__(index)
            return (x + 100,)

    assert flat(DataLoader(Augmented(kobai.arange(3)), batch_size=2)) == [100, 101, 102]
    assert flat(DataLoader(Subset(Augmented(kobai.arange(3)), [2]), batch_size=2)) == [102]


def test_gradient_reaches_tensors_of_the_data_set():
    w = kobai.ones(4, requires_grad=True)
    for (x,) in DataLoader(TensorDataset(w), batch_size=3):
        x.sum().backward()
    assert w.grad.tolist() == [1.0] * 4


def test_random_split_parts_load_fast_and_right():
    parts = random_split(tensors(10), [6, 4], generator=kobai.Generator().manual_seed(1))
    seen = [i for part in parts for i in flat(DataLoader(part, batch_size=4, shuffle=True))]
    assert sorted(seen) == list(range(10))


def test_subset_by_an_array_or_a_tensor():
    for indices in (np.array([3, 1]), kobai.tensor([3, 1]), [kobai.tensor(3), np.int8(1)], range(3, 0, -2)):
        for size in (2, 3):
            assert flat(DataLoader(Subset(tensors(5), indices), batch_size=size)) == [3, 1]
        assert sorted(SubsetRandomSampler(indices)) == [1, 3]
    with pytest.raises(TypeError):
        list(DataLoader(Subset(tensors(5), [0.5]), batch_size=2))


def test_non_contiguous_tensors():
    data = TensorDataset(kobai.arange(12).reshape(3, 4).T)
    assert [b[0].tolist() for b in DataLoader(data, batch_size=3)] == [
        [[0, 4, 8], [1, 5, 9], [2, 6, 10]],
        [[3, 7, 11]],
    ]


def test_streams():
    assert [b.tolist() for b in DataLoader(Count(5), batch_size=2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Count(5), batch_size=2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Count(3), batch_size=None)) == [0, 1, 2]
    assert list(DataLoader(Count(0), batch_size=2)) == []
    assert len(DataLoader(Sized(5), batch_size=2)) == 3
    assert len(DataLoader(Sized(5), batch_size=2, drop_last=True)) == 2
    assert len(DataLoader(Sized(5), batch_size=None)) == 5
    with pytest.raises(TypeError, match="len"):
        len(DataLoader(Count(5)))


def test_plain_lists_are_data_sets():
    assert [b.tolist() for b in DataLoader([1.0, 2.0, 3.0], batch_size=2)] == [[1.0, 2.0], [3.0]]


def test_errors_of_the_data_set_reach_the_loop():
    class Broken(Pairs):
        def __getitem__(self, index):
            if index == 3:
                raise KeyError("sample 3")
            return index

    it = iter(DataLoader(Broken(5), batch_size=2))
    assert next(it).tolist() == [0, 1]
    with pytest.raises(KeyError, match="sample 3"):
        next(it)


def test_stop_iteration_of_a_data_set_is_an_error_and_no_end():
    class Stops(Pairs):
        def __getitem__(self, index):
            raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DataLoader(Stops(2)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "positive batch_size, got 0"),
        ({"batch_size": 2.0}, TypeError, "integer as batch_size"),
        ({"shuffle": True, "sampler": [0]}, ValueError, "not both"),
        ({"batch_sampler": [[0]], "batch_size": 2}, ValueError, "batch_sampler stands in"),
        ({"batch_sampler": [[0]], "shuffle": True}, ValueError, "batch_sampler stands in"),
        ({"batch_sampler": [[0]], "drop_last": True}, ValueError, "batch_sampler stands in"),
        ({"batch_sampler": [[0]], "sampler": [0]}, ValueError, "batch_sampler stands in"),
        ({"batch_size": None, "drop_last": True}, ValueError, "drop_last needs a batch_size"),
        ({"num_workers": -1}, ValueError, "num_workers >= 0, got -1"),
        ({"num_workers": 1.0}, TypeError, "integer as num_workers"),
        ({"timeout": -1}, ValueError, "timeout >= 0"),
        ({"timeout": 1}, ValueError, "timeout is for worker threads"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor is for worker threads"),
        ({"prefetch_factor": 0, "num_workers": 1}, ValueError, "prefetch_factor >= 1"),
        ({"persistent_workers": True}, ValueError, "persistent_workers is for worker threads"),
        ({"generator": 3}, TypeError, r"kobai\.Generator, got int"),
        ({"pin_memory_device": "cuda"}, TypeError, "pin_memory_device"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        DataLoader(Pairs(4), **options)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}])
def test_streams_have_no_other_order(options):
    with pytest.raises(ValueError, match="IterableDataset"):
        DataLoader(Count(3), **options)


def test_stream_checks_batch_size():
    with pytest.raises(ValueError, match="positive batch_size"):
        DataLoader(Count(3), batch_size=-2)
    assert len(list(DataLoader(Count(3), shuffle=False))) == 3


def test_what_is_no_data_set():
    with pytest.raises(TypeError, match="__getitem__"):
        DataLoader(object())
    with pytest.raises(TypeError):
        DataLoader(iter([1]))


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
