"""A physics-informed network for Burgers' equation, u_t + u u_x = ν u_xx, with derivatives by autograd."""

import numpy as np
import torch
import torch.nn as nn
from torch.autograd import grad

NU = 0.01 / np.pi


class Net(nn.Module):
    def __init__(self, width=24, depth=3):
        super().__init__()
        sizes = [2] + [width] * depth
        layers = []
        for a, b in zip(sizes, sizes[1:]):
            layers += [nn.Linear(a, b), nn.Tanh()]
        self.body = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x, t):
        return self.body(torch.cat([x, t], dim=1))


def set_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        scale = np.sqrt(1.0 / p.shape[-1]) if p.dim() > 1 else 0.0
        p.data = torch.from_numpy(scale * rng.standard_normal(tuple(p.shape))).to(p.dtype)
    return model


def derivative(u, x):
    return grad(u, x, grad_outputs=torch.ones_like(u), create_graph=True)[0]


def residual(model, x, t):
    u = model(x, t)
    u_t, u_x = derivative(u, t), derivative(u, x)
    u_xx = derivative(u_x, x)
    return u_t + u * u_x - NU * u_xx


def train(dtype, steps, prepare):
    rng = np.random.default_rng(1)

    def column(low, high, n):
        return torch.from_numpy(rng.uniform(low, high, (n, 1))).to(dtype)

    x, t = column(-1, 1, 300).requires_grad_(), column(0, 1, 300).requires_grad_()
    x0, tb = column(-1, 1, 60), column(0, 1, 60)
    u0 = -torch.sin(np.pi * x0)
    model = set_weights(Net().to(dtype))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def step():
        optimizer.zero_grad()
        physics = residual(model, x, t).pow(2).mean()
        initial = (model(x0, torch.zeros_like(x0)) - u0).pow(2).mean()
        walls = model(torch.ones_like(tb), tb).pow(2).mean() + model(-torch.ones_like(tb), tb).pow(2).mean()
        loss = physics + initial + walls
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = prepare(step)
    return [step().item() for _ in range(steps)]


def main(prepare=lambda step: step):
    single, double = train(torch.float32, 150, prepare), train(torch.float64, 10, prepare)
    print(single[0], single[-1])
    assert single[-1] < 0.6 * single[0]
    return {
        "exact_first": single[0],
        "exact_second": single[1],
        "exact_tenth_in_float64": double[-1],
        "end": single[-1],
    }


if __name__ == "__main__":
    print(main())
