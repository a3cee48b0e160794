"""Hessian-vector products: the largest eigenvalue by power iteration, the trace by Hutchinson, Newton's method, influence."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def problem():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((80, 6)))
    y = torch.from_numpy((rng.standard_normal((80, 6)) @ np.ones(6) > 0).astype(np.int64) + (x[:, 0] > 0).numpy())
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).double()
    for p in model.parameters():
        p.data = torch.from_numpy(rng.standard_normal(tuple(p.shape)) / np.sqrt(p.shape[-1]))
    return model, x, y


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


class Hessian:
    """Of a loss of a model, as a linear map of flat vectors."""

    def __init__(self, loss, parameters):
        self.parameters = list(parameters)
        self.gradient = flat(torch.autograd.grad(loss, self.parameters, create_graph=True))
        self.size = self.gradient.numel()

    def __matmul__(self, v):
        return flat(torch.autograd.grad(self.gradient @ v, self.parameters, retain_graph=True)).detach()

    def full(self):
        rows = [torch.autograd.grad(g, self.parameters, retain_graph=True, allow_unused=True) for g in self.gradient]
        return torch.stack(
            [flat([torch.zeros_like(p) if r is None else r for r, p in zip(row, self.parameters)]) for row in rows]
        )


def largest_eigenvalue(hessian, steps=150):
    v = torch.from_numpy(np.random.default_rng(1).standard_normal(hessian.size))
    v = v / v.norm()
    for _ in range(steps):
        hv = hessian @ v
        value = torch.dot(v, hv)
        v = hv / (hv.norm() + 1e-12)
    return value.item()


def trace(hessian, samples=40):
    rng = np.random.default_rng(2)
    found = []
    for _ in range(samples):
        v = torch.from_numpy(rng.choice([-1.0, 1.0], hessian.size))
        found.append(torch.dot(v, hessian @ v).item())
    return float(np.mean(found))


def sharpness_along_training(prepare, steps=6):
    """One product a step, inside the step: what it makes of a fixed vector."""
    model, x, y = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    vectors = [torch.ones_like(p) for p in model.parameters()]

    def step():
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, model.parameters(), create_graph=True)
        products = torch.autograd.grad(gradients, model.parameters(), grad_outputs=vectors)
        for p, g in zip(model.parameters(), gradients):
            p.grad = g.detach()
        optimizer.step()
        return loss.detach(), sum((v * h).sum() for v, h in zip(vectors, products))

    step = prepare(step)
    found = []
    for _ in range(steps):
        loss, curvature = step()
        found += [loss.item(), curvature.item()]
    return found


def newton(steps=6):
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.standard_normal((50, 4)))
    y = torch.from_numpy((rng.random(50) < 0.5).astype(np.float64))
    w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(x @ w, y) + 0.01 * w.square().sum()
        (g,) = torch.autograd.grad(loss, w, create_graph=True)
        h = torch.stack([torch.autograd.grad(part, w, retain_graph=True)[0] for part in g])
        with torch.no_grad():
            w -= torch.linalg.solve(h, g)
    return loss.item(), g.norm().item()


def influence(model, x, y, steps=30):
    """H⁻¹g by the series of Agarwal et al. (LiSSA), for the loss of one example."""
    parameters = list(model.parameters())
    hessian = Hessian(F.cross_entropy(model(x), y), parameters)
    g = flat(torch.autograd.grad(F.cross_entropy(model(x[:1]), y[:1]), parameters))
    solution = g.clone()
    for _ in range(steps):
        solution = g + 0.9 * solution - hessian @ solution / 4
    return torch.dot(solution, g).item()


def main(prepare=lambda step: step):
    model, x, y = problem()
    hessian = Hessian(F.cross_entropy(model(x), y), model.parameters())
    whole = hessian.full()
    assert torch.allclose(whole, whole.t(), atol=1e-12)
    values = torch.linalg.eigvalsh(whole)
    largest, estimated = largest_eigenvalue(hessian), trace(hessian)
    print(largest, values[-1].item(), estimated, whole.trace().item())
    assert abs(largest - values[-1].item()) < 1e-3 * abs(largest)
    assert abs(estimated - whole.trace().item()) < 0.3 * abs(whole.trace().item())
    along = sharpness_along_training(prepare)
    loss, norm = newton()
    assert norm < 1e-8
    return {
        "exact_largest": largest,
        "exact_smallest": values[0].item(),
        "exact_trace": estimated,
        "exact_curvature": along[-1],
        "exact_loss": along[-2],
        "exact_newton": loss,
        "exact_influence": influence(model, x, y),
    }


if __name__ == "__main__":
    print(main())
