"""Meta-learning by second-order inner steps: MAML, MAML with learned rates, implicit MAML, and learned training data."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call


def set_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        scale = 1 / np.sqrt(p.shape[-1]) if p.dim() > 1 else 0.1
        p.data = torch.from_numpy(scale * rng.standard_normal(tuple(p.shape))).to(p.dtype)
    return model


def net(dtype=torch.float32):
    return set_weights(
        nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)).to(dtype)
    )


def sines(rng, shots=10, dtype=torch.float32):
    amplitude, phase = rng.uniform(0.5, 2.0), rng.uniform(0, np.pi)
    x = torch.from_numpy(rng.uniform(-3, 3, (2 * shots, 1))).to(dtype)
    y = amplitude * torch.sin(x + phase)
    return x[:shots], y[:shots], x[shots:], y[shots:]


def maml(steps, prepare):
    model, rng = net(), np.random.default_rng(1)
    rates = nn.ParameterList([nn.Parameter(torch.tensor(0.05)) for _ in range(2)])
    optimizer = torch.optim.Adam([*model.parameters(), *rates.parameters()], lr=5e-3)

    def step(*tasks):
        optimizer.zero_grad()
        losses = []
        for x, y, x_query, y_query in zip(*[iter(tasks)] * 4):
            fast = dict(model.named_parameters())
            for rate in rates:
                loss = F.mse_loss(functional_call(model, fast, (x,)), y)
                gradients = torch.autograd.grad(loss, tuple(fast.values()), create_graph=True)
                fast = {name: p - rate * g for (name, p), g in zip(fast.items(), gradients)}
            losses.append(F.mse_loss(functional_call(model, fast, (x_query,)), y_query))
        total = torch.stack(losses).mean()
        total.backward()
        optimizer.step()
        return total.detach()

    step = prepare(step)
    history = [step(*[part for _ in range(3) for part in sines(rng)]).item() for _ in range(steps)]
    return history, rates[0].item()


def implicit_maml(conjugate_steps=6, strength=2.0):
    """The meta-gradient (1 + H/λ)⁻¹ g, by conjugate gradients on Hessian-vector products."""
    model = net(torch.float64)
    x, y, x_query, y_query = sines(np.random.default_rng(2), dtype=torch.float64)
    parameters = list(model.parameters())

    def product(vector):
        gradients = torch.autograd.grad(F.mse_loss(model(x), y), parameters, create_graph=True)
        inner = sum((g * v).sum() for g, v in zip(gradients, vector))
        curved = torch.autograd.grad(inner, parameters)
        return [v + h / strength for v, h in zip(vector, curved)]

    def dot(a, b):
        return sum((p * q).sum() for p, q in zip(a, b))

    target = torch.autograd.grad(F.mse_loss(model(x_query), y_query), parameters)
    solution = [torch.zeros_like(p) for p in parameters]
    rest = [g.clone() for g in target]
    direction, size = rest, dot(rest, rest)
    for _ in range(conjugate_steps):
        curved = product(direction)
        length = size / dot(direction, curved)
        solution = [s + length * d for s, d in zip(solution, direction)]
        rest = [r - length * c for r, c in zip(rest, curved)]
        before, size = size, dot(rest, rest)
        direction = [r + size / before * d for r, d in zip(rest, direction)]
    return dot(solution, target).item(), size.item()


def distilled_data(steps):
    """Three training points, learned so that one step on them fits a whole task."""
    rng = np.random.default_rng(4)
    x, y, _, _ = sines(rng, shots=20, dtype=torch.float64)
    points = torch.linspace(-2, 2, 3, dtype=torch.float64).unsqueeze(1).requires_grad_()
    values = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([points, values], lr=0.2, momentum=0.5)

    def features(x):
        return torch.cat([x, x**2, x.sin(), torch.ones_like(x)], 1)

    losses = []
    for _ in range(steps):
        w = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(F.mse_loss(features(points) @ w, values), w, create_graph=True)
        loss = F.mse_loss(features(x) @ (w - 0.1 * g), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(prepare=lambda step: step):
    history, rate = maml(40, prepare)
    start, end = float(np.mean(history[:5])), float(np.mean(history[-5:]))
    product, rest = implicit_maml()
    distilled = distilled_data(15)
    print(start, end, rate, product, rest, distilled[-1])
    assert end < start
    assert rate != 0.05
    assert distilled[-1] < distilled[0]
    return {
        "exact_first": history[0],
        "exact_second": history[1],
        "exact_product_of_implicit": product,
        "exact_distilled": distilled[-1],
        "end": end,
    }


if __name__ == "__main__":
    print(main())
