"""Stochastic weight averaging and exponential moving averages, by the library and by hand, with warm-up and early stopping."""

import copy

import numpy as np
import torch
import torch.nn as nn
import torch.optim.lr_scheduler as lr_scheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset


class EMA:
    def __init__(self, model, decay):
        self.model, self.decay = model, decay
        self.shadow = {n: p.data.clone() for n, p in model.named_parameters() if p.requires_grad}
        self.backup = {}

    def update(self):
        for name, param in self.model.named_parameters():
            if param.requires_grad:
                self.shadow[name] = (1.0 - self.decay) * param.data + self.decay * self.shadow[name]

    def apply_shadow(self):
        for name, param in self.model.named_parameters():
            self.backup[name] = param.data
            param.data = self.shadow[name]

    def restore(self):
        for name, param in self.model.named_parameters():
            param.data = self.backup[name]
        self.backup = {}


class EarlyStopping:
    def __init__(self, patience=3):
        self.patience, self.counter, self.best_score, self.early_stop = patience, 0, None, False

    def __call__(self, val_loss, model):
        score = -val_loss
        if self.best_score is None or score > self.best_score:
            self.best_score, self.counter = score, 0
            self.best_weights = copy.deepcopy(model.state_dict())
        else:
            self.counter += 1
            self.early_stop = self.counter >= self.patience


def build(seed):
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(torch.from_numpy((0.4 * rng.standard_normal(tuple(p.shape))).astype(np.float32)))
            else:
                p.fill_(0.5)
    return model


def main():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((256, 6)).astype(np.float32)
    Y = np.sin(X[:, :1]) + 0.5 * X[:, 1:2] * X[:, 2:3] + 0.3 * rng.standard_normal((256, 1)).astype(np.float32)
    X, Y = torch.tensor(X), torch.tensor(Y, dtype=torch.float32)
    loader = DataLoader(TensorDataset(X[:192], Y[:192]), batch_size=32)
    x_valid, y_valid = X[192:], Y[192:]

    model = build(1)
    loss_fn = nn.functional.mse_loss
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    swa_model = AveragedModel(model)
    ema_model = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    own = EMA(model, 0.9)
    warmup = LambdaLR(optimizer, lr_lambda=lambda step: min(1.0, (step + 1) / 12))
    scheduler = CosineAnnealingLR(optimizer, T_max=20)
    swa_scheduler = SWALR(optimizer, swa_lr=0.02, anneal_epochs=4, anneal_strategy="linear")
    swa_start, rates, checks = 8, [], []
    for epoch in range(16):
        model.train()
        for input, target in loader:
            optimizer.zero_grad()
            loss_fn(model(input), target).backward()
            optimizer.step()
            ema_model.update_parameters(model)
            if epoch == 0 and len(checks) < 2:
                own.update() if checks else None
                checks.append(None)
        if epoch >= swa_start:
            swa_model.update_parameters(model)
            swa_scheduler.step()
        elif epoch < 2:
            warmup.step()
        else:
            scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    update_bn(loader, swa_model)
    update_bn(loader, ema_model)
    swa_model.eval(), ema_model.eval(), model.eval()
    with torch.no_grad():
        losses = [loss_fn(m(x_valid), y_valid).item() for m in (model, swa_model, ema_model)]
        before = model(x_valid)
        own.update()
        own.apply_shadow()
        during = model(x_valid)
        own.restore()
        assert torch.equal(model(x_valid), before) and not torch.equal(during, before)
    print(losses, rates, swa_model.n_averaged)
    assert swa_model.n_averaged == 8
    assert max(losses) < 0.6

    stopper = EarlyStopping(patience=3)
    model = build(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=2)
    for epoch in range(60):
        model.train()
        for input, target in loader:
            loss = loss_fn(model(input), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            val_loss = loss_fn(model(x_valid), y_valid)
        plateau.step(val_loss)
        stopper(val_loss.item(), model)
        if stopper.early_stop:
            break
    model.load_state_dict(stopper.best_weights)
    with torch.no_grad():
        best = loss_fn(model(x_valid), y_valid).item()
    assert stopper.early_stop and abs(best + stopper.best_score) < 1e-6
    return {
        "loss": losses[1],
        "exact_rate": rates[9],
        "exact_last_rate": rates[-1],
        "exact_keys": " ".join(swa_model.state_dict()),
        "best": best,
    }


if __name__ == "__main__":
    print(main())
