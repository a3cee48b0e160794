"""A small problem that trains in milliseconds."""

import kobai
from kobai import nn
from kobai.train import Trainer
from kobai.utils.data import DataLoader, TensorDataset


class Problem:
    """Two classes in the plane, a small net, and loaders with a generator of their own."""

    def __init__(self, seed=0, n=48):
        kobai.manual_seed(seed)
        x = kobai.randn(n, 2)
        self.data = TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())
        order = kobai.Generator().manual_seed(seed + 1)
        self.train = DataLoader(self.data, batch_size=8, shuffle=True, generator=order)
        self.held = DataLoader(self.data, batch_size=16)
        self.model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        self.optimizer = kobai.optim.Adam(self.model.parameters(), lr=0.02)

    def trainer(self, *callbacks, **options):
        return Trainer(self.model, self.optimizer, metrics=["accuracy"], callbacks=callbacks, **options)

    @property
    def parameters(self):
        return {name: tensor.numpy().copy() for name, tensor in self.model.state_dict().items()}


def timeless(history):
    """History without what differs from run to run."""
    return [{k: v for k, v in record.items() if k != "time"} for record in history]
