"""DP-SGD (Abadi et al., 2016): gradients of every example by vmap, clipped one by one, summed and blurred."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call, grad_and_value, vmap


def build(kind):
    if kind == "mlp":
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 3))
    else:
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )
    rng = np.random.default_rng(0)
    for p in model.parameters():
        scale = 1 / np.sqrt(np.prod(tuple(p.shape)[1:])) if p.dim() > 1 else 0.5
        p.data = torch.from_numpy((scale * rng.standard_normal(tuple(p.shape))).astype(np.float32))
    return model


def train(kind, steps, prepare, limit=1.0, blur=0.1):
    rng = np.random.default_rng(1)
    shapes = 2 * rng.standard_normal((3, 1, 6, 6))
    model = build(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)

    def loss_of_one(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x.unsqueeze(0),)), y.unsqueeze(0))

    per_sample = vmap(grad_and_value(loss_of_one), in_dims=(None, 0, 0))

    def step(x, y, *noise):
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        gradients, losses = per_sample(parameters, x, y)
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
        factors = (limit / (norms + 1e-6)).clamp(max=1.0)
        optimizer.zero_grad()
        for (name, p), n in zip(model.named_parameters(), noise):
            clipped = torch.einsum("n,n...->...", factors, gradients[name])
            p.grad = (clipped + blur * limit * n) / len(x)
        optimizer.step()
        return losses.mean(), norms

    step = prepare(step)
    history = []
    for _ in range(steps):
        y = rng.integers(0, 3, 24)
        x = (rng.standard_normal((24, 1, 6, 6)) + shapes[y]).astype(np.float32)
        noise = [torch.from_numpy(rng.standard_normal(tuple(p.shape)).astype(np.float32)) for p in model.parameters()]
        loss, norms = step(torch.from_numpy(x), torch.from_numpy(y), *noise)
        history += [loss.item(), norms.max().item()]
    return model, history


def main(prepare=lambda step: step):
    result = {}
    for kind in ("mlp", "cnn"):
        model, history = train(kind, 40, prepare)
        losses = history[::2]
        assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
        result[f"exact_first_{kind}"], result[f"exact_first_norm_{kind}"] = history[0], history[1]
        result[f"exact_second_{kind}"], result[f"end_{kind}"] = history[2], losses[-1]
    print(result)
    return result


if __name__ == "__main__":
    print(main())
