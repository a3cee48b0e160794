"""Gradient accumulation: four small batches give the step of one big batch, to the last few bits."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def make_model(rng):
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(rng.normal(scale=0.5, size=tuple(p.shape))).float())
    return model


def train_big(model, x, y, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_accumulated(model, x, y, steps, accumulation_steps=4):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    losses = []
    batches = list(zip(x.chunk(accumulation_steps), torch.chunk(y, accumulation_steps), strict=True))
    for _ in range(steps):
        total = 0.0
        for i, (xb, yb) in enumerate(batches):
            loss = F.cross_entropy(model(xb), yb) / accumulation_steps
            loss.backward()
            total += loss.item()
            if (i + 1) % accumulation_steps == 0:
                optimizer.step()
                optimizer.zero_grad()
        losses.append(total)
    return losses


def main(seed=0):
    torch.manual_seed(seed)
    rng = np.random.default_rng(7)
    x = torch.tensor(rng.normal(size=(32, 6)), dtype=torch.float32)
    y = torch.as_tensor(rng.integers(0, 3, size=32))
    big, small = make_model(np.random.default_rng(1)), make_model(np.random.default_rng(1))

    # one backward over everything equals the sum of backwards over the parts
    F.cross_entropy(big(x), y, reduction="sum").backward()
    for xb, yb in zip(torch.split(x, 8), y.split(8), strict=True):
        F.cross_entropy(small(xb), yb, reduction="sum").backward()
    for p, q in zip(big.parameters(), small.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-5)
    gradient_norm = torch.sqrt(sum((p.grad**2).sum() for p in big.parameters()))
    big.zero_grad()
    small.zero_grad()
    assert all(p.grad is None for p in big.parameters())

    big_losses = train_big(big, x, y, 10)
    small_losses = train_accumulated(small, x, y, 10)
    for (name, p), q in zip(big.named_parameters(), small.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-4, atol=1e-5), name
    assert np.allclose(big_losses, small_losses, rtol=1e-4)
    assert big_losses[-1] < big_losses[0]
    return {
        "exact_gradient_norm": gradient_norm.item(),
        "exact_first_loss": big_losses[0],
        "exact_last_loss": big_losses[-1],
        "exact_weight_norm": big[0].weight.norm().item(),
    }


if __name__ == "__main__":
    print(main())
