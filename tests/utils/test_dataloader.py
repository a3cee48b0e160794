"""kobai.utils.data: DataLoader without workers."""

import numpy as np
import pytest
from sources import Count, Pairs, Sized, firsts, flat, subset, tensors

import kobai
from kobai.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)

SOURCES = {"map": Pairs, "tensors": tensors, "subset": subset}


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
        ({"multiprocessing_context": "fork"}, ValueError, "multiprocessing_context is for worker threads"),
        ({"generator": 3}, TypeError, r"kobai\.Generator, got int"),
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


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_the_loaders_length(workers):
    loader = DataLoader(list(range(5)), batch_size=2, num_workers=workers)
    assert len(iter(loader)) == len(loader) == 3


def test_an_epoch_of_persistent_workers_has_no_length():
    with pytest.raises(TypeError, match="ask its DataLoader"):
        len(iter(DataLoader([1, 2], num_workers=1, persistent_workers=True)))
