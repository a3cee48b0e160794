"""Feeding data: weighted sampling, collate_fn with padding, subsets, concatenation, own samplers, iterable data sets."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
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
    random_split,
)


class VariableLength(Dataset):
    """Sequences of different lengths; the label says whether the mean of a sequence is positive."""

    def __init__(self, n, rng):
        self.sequences = [torch.from_numpy(rng.normal(size=rng.integers(2, 9)).astype(np.float32)) for _ in range(n)]

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, index):
        return self.sequences[index], int(self.sequences[index].mean() > 0)


def collate(batch):
    sequences, labels = zip(*batch, strict=True)
    lengths = torch.tensor([len(s) for s in sequences])
    padded = pad_sequence(sequences, batch_first=True, padding_value=0.0)
    mask = torch.arange(padded.size(1))[None, :] < lengths[:, None]
    return padded, mask, torch.tensor(labels)


class EvenFirst(Sampler):
    def __init__(self, data_source):
        self.data_source = data_source

    def __iter__(self):
        n = len(self.data_source)
        return iter([*range(0, n, 2), *range(1, n, 2)])

    def __len__(self):
        return len(self.data_source)


class Counter(IterableDataset):
    def __init__(self, end):
        self.end = end

    def __iter__(self):
        for i in range(self.end):
            yield torch.tensor([i, i * i])


def train_on_sequences(rng):
    train_set, valid_set = random_split(VariableLength(300, rng), [0.8, 0.2])
    assert len(train_set) == 240
    loader = DataLoader(train_set, batch_size=32, shuffle=True, collate_fn=collate)
    model = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def forward(padded, mask):
        scores = model(padded.unsqueeze(-1)) * mask.unsqueeze(-1)
        return scores.sum(dim=1) / mask.sum(dim=1, keepdim=True)

    for _ in range(10):
        for padded, mask, labels in loader:
            loss = F.cross_entropy(forward(padded, mask), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        padded, mask, labels = collate([valid_set[i] for i in range(len(valid_set))])
        return (forward(padded, mask).argmax(dim=1) == labels).float().mean().item()


def main(seed=0):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)

    # an imbalanced set drawn in balance
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    dataset = TensorDataset(torch.arange(1000).float().unsqueeze(1), labels)
    class_counts = torch.bincount(labels)
    sample_weights = (1.0 / class_counts.float())[labels]
    sampler = WeightedRandomSampler(sample_weights, num_samples=len(sample_weights), replacement=True)
    drawn = torch.cat([y for _, y in DataLoader(dataset, batch_size=100, sampler=sampler)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert shares.min() > 0.25, shares

    # subsets, concatenation, samplers
    evens = Subset(dataset, range(0, 1000, 2))
    both = ConcatDataset([evens, TensorDataset(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))])
    assert len(both) == 503
    assert both[1][0].item() == 2.0
    assert both[-1][0].item() == 0.0
    seen = torch.cat([x for x, _ in DataLoader(dataset, batch_size=7, sampler=SubsetRandomSampler([5, 6, 7, 8]))])
    assert sorted(seen.flatten().tolist()) == [5, 6, 7, 8]
    assert [len(b) for b in BatchSampler(SequentialSampler(range(10)), batch_size=4, drop_last=False)] == [4, 4, 2]
    assert sorted(RandomSampler(range(6))) == list(range(6))
    even_first = [int(x) for x, _ in DataLoader(Subset(dataset, range(6)), sampler=EvenFirst(range(6)))]
    assert even_first == [0, 2, 4, 1, 3, 5]
    by_batches = DataLoader(range(10), batch_sampler=BatchSampler(SequentialSampler(range(10)), 5, drop_last=True))
    assert [b.tolist() for b in by_batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    stream = [b[:, 1].sum().item() for b in DataLoader(Counter(10), batch_size=4)]
    assert stream == [14, 126, 145]

    # nested samples are collated by structure; numbers and arrays become tensors, strings stay
    records = [{"x": np.ones(2) * i, "pair": (i, float(i)), "name": f"row{i}"} for i in range(4)]
    first = next(iter(DataLoader(records, batch_size=2)))
    assert first["x"].shape == (2, 2)
    assert first["x"].dtype == torch.float64
    assert first["pair"][0].dtype == torch.int64
    assert first["name"] == ["row0", "row1"]

    # the same generator, the same order
    orders = [
        [b.tolist() for b in DataLoader(range(20), batch_size=6, shuffle=True, generator=g)]
        for g in (torch.Generator().manual_seed(5), torch.Generator().manual_seed(5))
    ]
    assert orders[0] == orders[1]
    assert [len(b) for b in orders[0]] == [6, 6, 6, 2]

    accuracy = train_on_sequences(rng)
    assert accuracy > 0.8, accuracy
    return {"exact_stream": float(sum(stream)), "exact_length": float(len(both)), "accuracy": accuracy}


if __name__ == "__main__":
    print(main())
