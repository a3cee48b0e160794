"""Data sets, samplers and the DataLoader: PyTorch's ``torch.utils.data``."""

from kobai.utils.data.collate import default_collate, default_convert
from kobai.utils.data.dataloader import DataLoader
from kobai.utils.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from kobai.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from kobai.utils.data.workers import get_worker_info

__all__ = [
    # data sets
    "Dataset",
    "IterableDataset",
    "TensorDataset",
    "ConcatDataset",
    "ChainDataset",
    "StackDataset",
    "Subset",
    "random_split",
    # loading
    "DataLoader",
    "default_collate",
    "default_convert",
    "get_worker_info",
    # order
    "Sampler",
    "SequentialSampler",
    "RandomSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
    "BatchSampler",
]
