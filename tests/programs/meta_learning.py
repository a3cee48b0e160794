"""First-order meta-learning of sine waves: functional_call with fast weights, and Reptile."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call


def net(seed=0):
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        scale = 1 / np.sqrt(p.shape[-1]) if p.dim() > 1 else 0.1
        p.data = torch.from_numpy((scale * rng.standard_normal(tuple(p.shape))).astype(np.float32))
    return model


class Sines:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def sample(self, shots=10):
        amplitude, phase = self.rng.uniform(0.5, 2.0), self.rng.uniform(0, np.pi)
        x = self.rng.uniform(-3, 3, (2 * shots, 1)).astype(np.float32)
        y = (amplitude * np.sin(x + phase)).astype(np.float32)
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        return x[:shots], y[:shots], x[shots:], y[shots:]


def adapt(model, params, x, y, lr=0.05, steps=3):
    for _ in range(steps):
        loss = F.mse_loss(functional_call(model, params, (x,)), y)
        grads = torch.autograd.grad(loss, list(params.values()))
        params = {name: p - lr * g.detach() for (name, p), g in zip(params.items(), grads)}
    return params


def maml(steps=80):
    model, tasks = net(), Sines(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        meta_loss = 0.0
        for _ in range(4):
            x, y, x_query, y_query = tasks.sample()
            fast = adapt(model, dict(model.named_parameters()), x, y)
            meta_loss = meta_loss + F.mse_loss(functional_call(model, fast, x_query), y_query) / 4
        meta_loss.backward()
        optimizer.step()
        history.append(meta_loss.item())
    return history


def reptile(steps=60, epsilon=0.2):
    model, tasks = net(), Sines(2)
    losses = []
    for _ in range(steps):
        before = {name: p.clone() for name, p in model.state_dict().items()}
        x, y, x_query, y_query = tasks.sample()
        inner = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(5):
            inner.zero_grad()
            F.mse_loss(model(x), y).backward()
            inner.step()
        losses.append(F.mse_loss(model(x_query), y_query).item())
        after = model.state_dict()
        model.load_state_dict({name: before[name] + epsilon * (after[name] - before[name]) for name in before})
    return losses


def main():
    history, losses = maml(), reptile()
    start, end = float(np.mean(history[:10])), float(np.mean(history[-10:]))
    print(start, end, np.mean(losses[:10]), np.mean(losses[-10:]))
    assert end < start
    x = torch.ones(2, requires_grad=True)
    (g,) = torch.autograd.grad((x**3).sum(), x, retain_graph=True)
    assert g.tolist() == [3.0, 3.0]
    return {"exact_first": history[0], "exact_first_of_reptile": losses[0], "end": end}


if __name__ == "__main__":
    print(main())
