"""kobai.utils.data against torch.utils.data, on the same data sets."""

from collections import namedtuple

import numpy as np
import pytest

import kobai
from kobai.utils import data as ours

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
theirs = pytest.importorskip("torch.utils.data")

Point = namedtuple("Point", "x y")


def described(value):
    """Structure, types, dtypes and values, in words that are the same for both libraries."""
    if isinstance(value, (torch.Tensor, kobai.Tensor)):
        return ("tensor", str(value.dtype).rsplit(".")[-1], tuple(value.shape), value.tolist())
    if isinstance(value, dict):
        return (type(value).__name__, {k: described(v) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [described(v) for v in value])
    return value


SAMPLES = {
    "ints": lambda i: i,
    "floats": lambda i: i / 2,
    "bools": lambda i: i % 2 == 0,
    "strings": lambda i: f"s{i}",
    "bytes": lambda i: b"b%d" % i,
    "numpy scalars": lambda i: np.float32(i),
    "numpy doubles": lambda i: np.float64(i),
    "numpy integers": lambda i: np.int16(i),
    "arrays": lambda i: np.full((2, 3), i, dtype=np.float32),
    "bytes arrays": lambda i: np.full(2, i, dtype=np.uint8),
    "tuples": lambda i: (np.ones(2) * i, i),
    "lists": lambda i: [i, float(i)],
    "dicts": lambda i: {"x": np.ones(2) * i, "y": {"deep": (i, "s")}},
    "named tuples": lambda i: Point(i, np.zeros(1)),
}


class Made:
    def __init__(self, sample, n):
        self.sample, self.n = sample, n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return self.sample(index)


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("options", [{"batch_size": 3}, {"batch_size": 3, "drop_last": True}, {"batch_size": None}])
def test_batches(kind, options):
    dataset = Made(SAMPLES[kind], 7)
    a, b = ours.DataLoader(dataset, **options), theirs.DataLoader(dataset, **options)
    assert len(a) == len(b)
    assert [described(x) for x in a] == [described(x) for x in b]


def test_tensor_datasets():
    x, t = np.arange(14.0).reshape(7, 2), np.arange(7)
    a = ours.TensorDataset(kobai.tensor(x), kobai.tensor(t))
    b = theirs.TensorDataset(torch.tensor(x), torch.tensor(t))
    for options in ({}, {"batch_size": 3}, {"batch_sampler": [[1, 2], [0]]}, {"sampler": [3, 3], "batch_size": None}):
        assert [described(v) for v in ours.DataLoader(a, **options)] == [
            described(v) for v in theirs.DataLoader(b, **options)
        ]
    assert described(a[2]) == described(b[2])
    assert described(a[1:3]) == described(b[1:3])


WRONG = [
    {"batch_size": 0},
    {"num_workers": -1},
    {"timeout": -1},
    {"prefetch_factor": 2},
    {"persistent_workers": True},
    {"multiprocessing_context": "spawn"},
    {"shuffle": True, "sampler": [0]},
    {"batch_sampler": [[0]], "shuffle": True},
    {"batch_sampler": [[0]], "batch_size": 2},
    {"batch_size": None, "drop_last": True},
]


@pytest.mark.parametrize("options", WRONG)
def test_the_same_arguments_are_refused(options):
    for module in (ours, theirs):
        with pytest.raises(ValueError):
            module.DataLoader([1, 2, 3], **options)


@pytest.mark.parametrize("lengths", [[3, 7], [0.5, 0.5], [1 / 3, 1 / 3, 1 / 3], [0.15, 0.85], [0.99, 0.01]])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_split_lengths(lengths):
    assert [len(p) for p in ours.random_split(range(10), lengths)] == [
        len(p) for p in theirs.random_split(range(10), lengths)
    ]


def test_lengths_of_samplers():
    for make in (
        lambda m: m.BatchSampler(range(7), 3, False),
        lambda m: m.BatchSampler(range(7), 3, True),
        lambda m: m.RandomSampler(range(5), num_samples=12),
        lambda m: m.WeightedRandomSampler([1.0, 2.0], 9),
        lambda m: m.SubsetRandomSampler([4, 2]),
    ):
        assert len(make(ours)) == len(make(theirs))
        assert len(list(make(ours))) == len(list(make(theirs)))


def test_public_names_exist_in_torch_with_the_same_arguments():
    import inspect

    for name in ours.__all__:
        assert hasattr(theirs, name), name
    for name in ("DataLoader", "RandomSampler", "WeightedRandomSampler", "BatchSampler", "Subset", "random_split"):
        a, b = (inspect.signature(getattr(module, name)).parameters for module in (ours, theirs))
        assert set(a) == set(b), name
        assert [p for p in a if a[p].kind is a[p].POSITIONAL_OR_KEYWORD] == [
            p for p in b if p in a and a[p].kind is a[p].POSITIONAL_OR_KEYWORD
        ]
