"""A RealNVP flow learns two moons by maximum likelihood: masks in buffers, log-determinants, exact inverse."""

import math

import torch
import torch.nn as nn


class Coupling(nn.Module):
    def __init__(self, mask, hidden=32):
        super().__init__()
        self.register_buffer("mask", mask)
        self.s = nn.Sequential(nn.Linear(2, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2), nn.Tanh())
        self.t = nn.Sequential(nn.Linear(2, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2))

    def forward(self, x):
        kept = x * self.mask
        s = self.s(kept) * (1 - self.mask)
        t = self.t(kept) * (1 - self.mask)
        return kept + (1 - self.mask) * (x * torch.exp(s) + t), s.sum(dim=1)

    def inverse(self, z):
        kept = z * self.mask
        s = self.s(kept) * (1 - self.mask)
        t = self.t(kept) * (1 - self.mask)
        return kept + (1 - self.mask) * (z - t) * torch.exp(-s)


class RealNVP(nn.Module):
    def __init__(self, layers=6):
        super().__init__()
        masks = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(layers // 2, 1)
        self.couplings = nn.ModuleList(Coupling(mask) for mask in masks)

    def log_prob(self, x):
        log_det = x.new_zeros(x.shape[0])
        for coupling in self.couplings:
            x, ld = coupling(x)
            log_det += ld
        base = -0.5 * x.pow(2).sum(-1) - math.log(2 * math.pi)
        return base + log_det

    @torch.no_grad()
    def sample(self, n):
        z = torch.randn(n, 2)
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return z


def moons(n):
    angle = math.pi * torch.rand(n)
    upper = torch.rand(n) < 0.5
    x = torch.where(upper, torch.cos(angle), 1 - torch.cos(angle))
    y = torch.where(upper, torch.sin(angle), 0.5 - torch.sin(angle))
    return torch.column_stack([x - 0.5, y - 0.25]) * 2 + 0.1 * torch.randn(n, 2)


def main(seed=0):
    torch.manual_seed(seed)
    flow = RealNVP()
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[120], gamma=0.3)
    losses = []
    for _ in range(160):
        loss = -flow.log_prob(moons(256)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    with torch.no_grad():
        x = moons(50)
        z = x
        for coupling in flow.couplings:
            z, _ = coupling(z)
        for coupling in flow.couplings[::-1]:
            z = coupling.inverse(z)
    assert torch.allclose(x, z, atol=1e-3), (x - z).abs().max()
    samples = flow.sample(500)
    assert torch.isfinite(samples).all()
    nearest = torch.cdist(samples, moons(500)).min(dim=1).values.median().item()
    assert losses[-1] < losses[0] - 0.8, (losses[0], losses[-1])
    assert nearest < 0.4, nearest
    return {"first": losses[0], "last": losses[-1], "median_distance": nearest}


if __name__ == "__main__":
    print(main())
