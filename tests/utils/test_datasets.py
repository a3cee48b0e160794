"""kobai.utils.data: Dataset and its kin, random_split."""

import numpy as np
import pytest

import kobai
from kobai.utils.data import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return index**2


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def test_base_classes_name_what_a_subclass_must_define():
    class Bare(Dataset):
        pass

    class BareStream(IterableDataset):
        pass

    with pytest.raises(NotImplementedError, match=r"Bare.*__getitem__"):
        Bare()[0]
    with pytest.raises(NotImplementedError, match=r"BareStream.*__iter__"):
        iter(BareStream())


def test_dataset_is_generic():
    class Typed(Dataset[int]):
        def __getitem__(self, index):
            return 1

    assert Typed()[0] == 1


def test_tensor_dataset_indexes_every_tensor():
    x, t = kobai.arange(6.0).reshape(3, 2), kobai.tensor([0, 1, 2])
    data = TensorDataset(x, t)
    assert len(data) == 3
    assert data.tensors == (x, t)
    a, b = data[-1]
    assert a.tolist() == [4.0, 5.0]
    assert b.item() == 2
    a, b = data[0:2]
    assert a.shape == (2, 2)
    a, b = data[[2, 0]]
    assert b.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TensorDataset(), TypeError, "at least one"),
        (lambda: TensorDataset(np.zeros(3)), TypeError, "ndarray as argument 0"),
        (lambda: TensorDataset(kobai.zeros(3), [1, 2, 3]), TypeError, "list as argument 1"),
        (lambda: TensorDataset(kobai.zeros(3), kobai.zeros(4)), ValueError, r"\[3, 4\]"),
        (lambda: TensorDataset(kobai.tensor(1.0)), ValueError, "no dimension"),
        (lambda: ConcatDataset([]), ValueError, "at least one"),
        (lambda: ConcatDataset([Count(3)]), TypeError, "ChainDataset"),
        (lambda: ConcatDataset([object()]), TypeError, "__len__"),
        (lambda: list(ChainDataset([Squares(3)])), TypeError, "IterableDatasets, got Squares"),
    ],
)
def test_wrong_data_sets(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_tensor_dataset_of_length_zero():
    assert len(TensorDataset(kobai.zeros(0, 3))) == 0


def test_concat():
    both = Squares(3) + Squares(2)
    assert isinstance(both, ConcatDataset)
    assert [both[i] for i in range(len(both))] == [0, 1, 4, 0, 1]
    assert both[-1] == 1
    assert both[-5] == 0
    assert both.cumulative_sizes == [3, 5]
    for wrong in (5, -6):
        with pytest.raises(IndexError, match=f"{wrong}.*5 samples"):
            both[wrong]


def test_concat_skips_empty_parts():
    data = ConcatDataset([Squares(0), Squares(2), Squares(0), Squares(1)])
    assert [data[i] for i in range(3)] == [0, 1, 0]


def test_chain():
    both = Count(3) + Count(2)
    assert isinstance(both, ChainDataset)
    assert list(both) == [0, 1, 2, 0, 1]
    assert len(both) == 5


def test_subset_and_nested_subset():
    part = Subset(Squares(10), [7, 3, 5])
    assert len(part) == 3
    assert [part[i] for i in range(3)] == [49, 9, 25]
    inner = Subset(part, [2, 0])
    assert list(inner) == [25, 49]
    assert inner.__getitems__([1, 0]) == [49, 25]


def test_subset_uses_getitems_of_what_it_wraps():
    class Batched(Squares):
        def __getitems__(self, indices):
            return [("batch", i) for i in indices]

    assert Subset(Batched(5), [4, 2]).__getitems__([1]) == [("batch", 2)]


def test_random_split_by_lengths_and_fractions():
    parts = random_split(range(10), [7, 3], generator=kobai.Generator().manual_seed(0))
    assert [len(p) for p in parts] == [7, 3]
    assert sorted(i for p in parts for i in p) == list(range(10))
    assert [len(p) for p in random_split(range(10), [0.25, 0.25, 0.5])] == [3, 2, 5]
    assert [len(p) for p in random_split(range(11), [1 / 3, 1 / 3, 1 / 3])] == [4, 4, 3]
    assert [len(p) for p in random_split(range(1), [1.0])] == [1]


def test_random_split_is_fixed_by_the_generator():
    def split(seed):
        return random_split(range(20), [10, 10], generator=kobai.Generator().manual_seed(seed))[0].indices

    assert split(1) == split(1) != split(2)
    kobai.manual_seed(3)
    first = random_split(range(20), [10, 10])[0].indices
    kobai.manual_seed(3)
    assert random_split(range(20), [10, 10])[0].indices == first


@pytest.mark.parametrize("lengths", [[5, 4], [0.5, 0.6], [-1, 11], [2.5, 7.5], []])
def test_random_split_refuses(lengths):
    with pytest.raises(ValueError, match="sum to 10"):
        random_split(range(10), lengths)


def test_random_split_warns_of_an_empty_part():
    with pytest.warns(UserWarning, match="part 1 of 2 is empty"):
        parts = random_split(range(1), [0.9, 0.1])
    assert [len(p) for p in parts] == [1, 0]


def test_random_split_wrong_types():
    with pytest.raises(TypeError, match=r"kobai\.Generator, got int"):
        random_split(range(4), [2, 2], generator=0)
    with pytest.raises(TypeError, match="__len__"):
        random_split(iter([1]), [1])
