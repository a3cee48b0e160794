"""Modules that the tests of Module look at."""

import numpy as np

import kobai
from kobai import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 3)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(3, 2, bias=False)
        self.register_buffer("scale", kobai.ones(2))
        self.register_buffer("scratch", kobai.zeros(1), persistent=False)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x))) * self.scale


class Scale(nn.Module):
    """y = w x, small enough to compute by hand."""

    def __init__(self, w=2.0):
        super().__init__()
        self.w = nn.Parameter(kobai.tensor([w]))

    def forward(self, x, bias=0.0):
        return self.w * x + bias


def same(a, b):
    return np.array_equal(a.detach().numpy(), b.detach().numpy())
