"""Schedules of every kind, gradient clipping and early stopping around one small regression."""

import math

import torch
import torch.nn as nn
import torch.optim as optim
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)


class EarlyStopping:
    def __init__(self, patience=5, min_delta=0.0):
        self.patience, self.min_delta = patience, min_delta
        self.counter, self.best_loss, self.early_stop = 0, None, False

    def __call__(self, val_loss):
        if self.best_loss is None or val_loss < self.best_loss - self.min_delta:
            self.best_loss, self.counter = val_loss, 0
        else:
            self.counter += 1
            self.early_stop = self.counter >= self.patience


def warmup_cosine(step, warmup=5, total=30):
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def learning_rates(make, steps=30):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = optim.SGD([parameter], lr=0.1, momentum=0.9)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


SCHEDULES = {
    "step": lambda o: StepLR(o, step_size=10, gamma=0.5),
    "multistep": lambda o: MultiStepLR(o, milestones=[5, 20], gamma=0.1),
    "exponential": lambda o: ExponentialLR(o, gamma=0.95),
    "cosine": lambda o: CosineAnnealingLR(o, T_max=15, eta_min=1e-3),
    "restarts": lambda o: CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2),
    "lambda": lambda o: LambdaLR(o, lr_lambda=warmup_cosine),
    "linear": lambda o: LinearLR(o, start_factor=0.1, total_iters=10),
    "onecycle": lambda o: OneCycleLR(o, max_lr=0.5, total_steps=31),
    "sequential": lambda o: SequentialLR(
        o, schedulers=[LinearLR(o, start_factor=0.25, total_iters=4), ExponentialLR(o, gamma=0.9)], milestones=[4]
    ),
}


def train_with_early_stopping(max_epochs=300):
    x = torch.randn(200, 4)
    y = (x * torch.tensor([1.0, -1.0, 2.0, 0.5])).sum(1, keepdim=True) + 0.3 * torch.randn(200, 1)
    x_train, x_val, y_train, y_val = x[:150], x[150:], y[:150], y[150:]
    model = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    scheduler = ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=3)
    stopping = EarlyStopping(patience=10, min_delta=1e-4)
    norms = []
    for _ in range(max_epochs):
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.smooth_l1_loss(model(x_train), y_train)
        loss.backward()
        norms.append(clip_grad_norm_(model.parameters(), max_norm=0.5).item())
        optimizer.step()
        model.eval()
        with torch.no_grad():
            val_loss = nn.functional.smooth_l1_loss(model(x_val), y_val).item()
        scheduler.step(val_loss)
        stopping(val_loss)
        if stopping.early_stop:
            break
    return stopping.best_loss, norms, optimizer.param_groups[0]["lr"]


def main(seed=0):
    torch.manual_seed(seed)
    result = {}
    for name, make in SCHEDULES.items():
        rates = learning_rates(make)
        result["exact_" + name] = sum(rates)
        result["exact_" + name + "_last"] = rates[-1]

    p = nn.Parameter(torch.tensor([3.0, 4.0]))
    (p**2).sum().backward()  # gradient (6, 8), norm 10
    total = clip_grad_norm_([p], 1.0)
    result["exact_total_norm"] = total.item()
    result["exact_clipped_norm"] = p.grad.norm().item()
    clip_grad_value_([p], 0.7)
    result["exact_clipped_value"] = p.grad.max().item()

    best, norms, lr = train_with_early_stopping()
    assert best < 0.2, best
    assert max(norms) > 0.5
    assert lr <= 0.02
    result["best_validation_loss"] = best
    return result


if __name__ == "__main__":
    print(main())
