"""kobai.utils.data: samplers."""

from itertools import islice

import numpy as np
import pytest

import kobai
from kobai.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    sampler,
)


def seeded(seed=0):
    return kobai.Generator().manual_seed(seed)


def test_sequential():
    s = SequentialSampler("abc")
    assert list(s) == [0, 1, 2]
    assert len(s) == 3
    assert list(SequentialSampler([])) == []


def test_random_is_a_permutation_and_new_every_epoch():
    s = RandomSampler(range(50), generator=seeded())
    first, second = list(s), list(s)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert all(type(i) is int for i in first)
    assert list(RandomSampler(range(50), generator=seeded())) == first


def test_random_with_the_default_generator_costs_one_draw_an_epoch():
    def draws_left(n):
        kobai.manual_seed(5)
        list(RandomSampler(range(n)))
        return kobai.get_rng_state()

    assert draws_left(3) == draws_left(1000)


def test_random_order_is_fixed_by_iter():
    s = RandomSampler(range(30))
    kobai.manual_seed(1)
    it = iter(s)
    kobai.manual_seed(2)
    late = list(it)
    kobai.manual_seed(1)
    assert list(s) == late


def test_random_with_replacement_and_num_samples():
    s = RandomSampler(range(3), replacement=True, num_samples=500, generator=seeded())
    drawn = list(s)
    assert len(s) == len(drawn) == 500
    assert set(drawn) == {0, 1, 2}
    assert min(drawn.count(k) for k in range(3)) > 100
    more = list(RandomSampler(range(3), num_samples=7, generator=seeded()))
    assert sorted(more[:3]) == sorted(more[3:6]) == [0, 1, 2]
    assert len(list(RandomSampler(range(9), num_samples=4))) == 4


def test_subset_random():
    s = SubsetRandomSampler([5, 9, 2], generator=seeded())
    assert len(s) == 3
    assert sorted(s) == [2, 5, 9]
    assert list(SubsetRandomSampler([])) == []


def test_weighted():
    s = WeightedRandomSampler([0, 1, 3], 4000, generator=seeded())
    drawn = list(s)
    assert len(s) == 4000
    assert set(drawn) == {1, 2}
    assert drawn.count(2) / 4000 == pytest.approx(0.75, abs=0.03)
    once = list(WeightedRandomSampler(kobai.tensor([0.2, 0.0, 0.8]), 2, replacement=False))
    assert sorted(once) == [0, 2]


def test_batch_sampler():
    assert list(BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(range(5), 2, True)) == [[0, 1], [2, 3]]
    assert len(BatchSampler(range(5), 2, False)) == 3
    assert len(BatchSampler(range(5), 2, True)) == 2
    assert list(BatchSampler([], 2, False)) == []


def test_sampler_base():
    with pytest.raises(NotImplementedError, match="__iter__"):
        iter(Sampler())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomSampler([]), ValueError, "empty"),
        (lambda: RandomSampler([1], num_samples=0), ValueError, "positive num_samples, got 0"),
        (lambda: RandomSampler([1], num_samples=1.5), TypeError, "integer as num_samples"),
        (lambda: RandomSampler([1], replacement="no"), TypeError, "replacement to be True or False"),
        (lambda: RandomSampler([1], generator=np.random.default_rng(0)), TypeError, r"kobai\.Generator"),
        (lambda: WeightedRandomSampler([1.0], -1), ValueError, "positive num_samples"),
        (lambda: WeightedRandomSampler([1.0, -1.0], 1), ValueError, "non-negative"),
        (lambda: WeightedRandomSampler([0.0, 0.0], 1), ValueError, "positive sum"),
        (lambda: WeightedRandomSampler([1.0, float("nan")], 1), ValueError, "finite"),
        (lambda: WeightedRandomSampler([[1.0]], 1), ValueError, r"shape \(N,\), got \(1, 1\)"),
        (lambda: WeightedRandomSampler([1.0, 0.0], 2, replacement=False), ValueError, "at most 1 samples"),
        (lambda: WeightedRandomSampler([1.0], 1, replacement=1), TypeError, "replacement to be True or False"),
        (lambda: BatchSampler([1], 0, False), ValueError, "positive batch_size, got 0"),
        (lambda: BatchSampler([1], True, False), TypeError, "integer as batch_size"),
        (lambda: BatchSampler([1], 2, None), TypeError, "drop_last to be True or False"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- an epoch without end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomSampler(range(10), replacement=True, num_samples=10**10),
        lambda: RandomSampler(range(10), num_samples=10**10),
        lambda: WeightedRandomSampler([1.0] * 10, 10**10),
    ],
    ids=["replacement", "permutations", "weights"],
)
def test_an_epoch_without_end_is_drawn_as_it_is_used(make):
    data = TensorDataset(kobai.arange(10))
    kobai.manual_seed(0)
    loader = DataLoader(data, batch_size=4, sampler=make())
    seen = [batch.tolist() for (batch,) in islice(loader, 5)]
    kobai.manual_seed(0)
    assert seen == [batch.tolist() for (batch,) in islice(DataLoader(data, batch_size=4, sampler=make()), 5)]
    assert {i for batch in seen for i in batch} <= set(range(10))
    assert len(make()) == 10**10
    assert [len(batch) for batch in islice(BatchSampler(make(), 3, drop_last=False), 2)] == [3, 3]


def test_a_long_epoch_in_pieces_ends_where_it_should(monkeypatch):
    monkeypatch.setattr(sampler, "PIECE", 16)
    for made in (RandomSampler(range(5), replacement=True, num_samples=37), RandomSampler(range(5), num_samples=37)):
        order = list(made)
        assert len(order) == 37
        assert set(order) == set(range(5))
    assert len(list(WeightedRandomSampler([0.0, 1.0], 37))) == 37
