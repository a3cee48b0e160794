"""Penalties on the gradient by the input, through LSTM, attention, LayerNorm, BatchNorm, checkpoints and weight norms."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / np.sqrt(q.shape[-1])
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).reshape(n, length, width))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.head = kind(6, 8, num_layers=2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Attention(6, 2)
        self.mlp = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.block(x)
        return self.head((x + self.mlp(x)).mean(1))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(6, 8, 3, padding=1)
        self.norm, self.group = nn.BatchNorm1d(8), nn.GroupNorm(2, 8)
        self.second = nn.Conv1d(8, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = F.silu(self.norm(self.first(x.transpose(1, 2))))
        return self.head(F.max_pool1d(self.group(self.second(x)), 2).amax(-1))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = weight_norm(nn.Linear(30, 10)), weight_norm(nn.Linear(10, 3))

    def forward(self, x):
        return self.second(checkpoint(lambda x: F.softplus(self.first(x)), x.flatten(1), use_reentrant=False))


NETS = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "transformer": Transformer,
    "convolutional": Convolutional,
    "normed": Normed,
}


def train(name, steps, prepare):
    rng = np.random.default_rng(7)
    model = NETS[name]().double()
    for p in model.parameters():
        scale = 1 / np.sqrt(np.prod(tuple(p.shape)[1:])) if p.dim() > 1 else 0.3
        p.data = torch.from_numpy(scale * rng.standard_normal(tuple(p.shape)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step(x, y):
        x = x.detach().requires_grad_(True)
        loss = F.cross_entropy(model(x), y)
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        total = loss + 10 * gradient.flatten(1).norm(dim=1).square().mean()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return total.detach()

    step = prepare(step)
    losses = []
    for _ in range(steps):
        x = torch.from_numpy(rng.standard_normal((6, 5, 6)))
        losses.append(step(x, (x[:, 0, 0] > 0).long() + (x[:, 1, 1] > 0).long()).item())
    return losses


def main(prepare=lambda step: step):
    result = {}
    for name in NETS:
        losses = train(name, 6, prepare)
        result[f"exact_first_{name}"], result[f"exact_sixth_{name}"] = losses[0], losses[-1]
    print(result)
    return result


if __name__ == "__main__":
    print(main())
