"""Sources of data, and what a loader makes of them."""

import itertools

import kobai
from kobai.utils.data import Dataset, IterableDataset, Subset, TensorDataset


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


def firsts(loader):
    return [batch[0].tolist() for batch in loader]


def flat(loader):
    return list(itertools.chain.from_iterable(firsts(loader)))
