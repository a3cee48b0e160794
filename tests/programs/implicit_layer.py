"""Layers given by a fixed point z = f(z, x): implicit gradients by a backward hook, by a Function, and unrolled."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Cell(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width, bias=False), nn.Linear(4, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, z, x):
        return torch.tanh(0.5 * self.inner(z) + self.outer(x)) + 0.1 * self.norm(z)


def iterate(f, z, tolerance=1e-12, most=200):
    for _ in range(most):
        before, z = z, f(z)
        if (z - before).norm() < tolerance:
            break
    return z


class Hooked(nn.Module):
    """As in the tutorial on deep equilibrium models (Kolter, Duvenaud, Johnson): a hook on the last application of f."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        with torch.no_grad():
            z = iterate(lambda z: self.cell(z, x), torch.zeros(x.shape[0], 8, dtype=x.dtype))
        z = self.cell(z, x)
        z0 = z.clone().detach().requires_grad_()
        f0 = self.cell(z0, x)

        def backward_hook(gradient):
            def vjp(y):
                return torch.autograd.grad(f0, z0, y, retain_graph=True)[0] + gradient

            return iterate(vjp, gradient)

        if z.requires_grad:
            z.register_hook(backward_hook)
        return z


class FixedPoint(torch.autograd.Function):
    """The identity on z = f(z), whose backward solves (1 − ∂f/∂z)ᵀ u = dz; written with operations of tensors."""

    @staticmethod
    def forward(ctx, z, again, start):
        ctx.again, ctx.start = again, start
        return z.clone()

    @staticmethod
    def backward(ctx, dz):
        def vjp(y):
            return torch.autograd.grad(ctx.again, ctx.start, y, retain_graph=True)[0] + dz

        return iterate(vjp, dz), None, None


class Implicit(Hooked):
    def forward(self, x):
        with torch.no_grad():
            z = iterate(lambda z: self.cell(z, x), torch.zeros(x.shape[0], 8, dtype=x.dtype))
        start = z.detach().requires_grad_()
        return FixedPoint.apply(self.cell(z, x), self.cell(start, x), start)


class Unrolled(Hooked):
    def forward(self, x):
        z = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        for _ in range(60):
            z = self.cell(z, x)
        return z


class Root(torch.autograd.Function):
    """The cube root by Newton's method; its gradient by the implicit function theorem, differentiable again."""

    @staticmethod
    def forward(ctx, x):
        y = torch.ones_like(x)
        for _ in range(50):
            y = y - (y**3 - x) / (3 * y**2)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        return dy / (3 * y**2)


def build(kind):
    rng = np.random.default_rng(0)
    model = nn.Sequential(kind(Cell()), nn.Linear(8, 3)).double()
    for p in model.parameters():
        scale = 0.7 / np.sqrt(p.shape[-1]) if p.dim() > 1 else 0.3
        p.data = torch.from_numpy(scale * rng.standard_normal(tuple(p.shape)))
    return model


def train(kind, steps):
    rng = np.random.default_rng(1)
    model = build(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.from_numpy(rng.standard_normal((24, 4)))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def jacobian_penalty():
    """Of a fixed point's cell, by Hutchinson: ‖vᵀ ∂f/∂z‖², which stabilises equilibrium models."""
    model = build(Hooked)
    rng = np.random.default_rng(2)
    x, v = torch.from_numpy(rng.standard_normal((5, 4))), torch.from_numpy(rng.standard_normal((5, 8)))
    z = model[0](x).detach().requires_grad_()
    f = model[0].cell(z, x)
    (product,) = torch.autograd.grad(f, z, v, create_graph=True)
    penalty = product.square().sum() / v.numel()
    penalty.backward()
    return penalty.item(), model[0].cell.inner.weight.grad.norm().item()


def main():
    hooked, implicit, unrolled = train(Hooked, 20), train(Implicit, 20), train(Unrolled, 20)
    print(hooked[0], hooked[-1], implicit[-1], unrolled[-1])
    assert hooked[-1] < 0.5 * hooked[0]
    assert abs(hooked[-1] - unrolled[-1]) < 1e-6
    assert abs(implicit[-1] - unrolled[-1]) < 1e-6
    penalty, slope = jacobian_penalty()
    x = torch.tensor([8.0, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Root.apply, (x,))
    assert torch.autograd.gradgradcheck(Root.apply, (x,))
    (first,) = torch.autograd.grad(Root.apply(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    return {
        "exact_first": hooked[0],
        "exact_end": hooked[-1],
        "exact_end_of_function": implicit[-1],
        "exact_penalty": penalty,
        "exact_slope": slope,
        "exact_second_derivative": second[0].item(),
    }


if __name__ == "__main__":
    print(main())
