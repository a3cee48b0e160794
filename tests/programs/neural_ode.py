"""A neural ODE: Runge–Kutta with gradients through its steps, and the adjoint method as an autograd.Function."""

import numpy as np
import torch
import torch.nn as nn


class Field(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 2)).to(dtype)
        rng = np.random.default_rng(0)
        for p in self.net.parameters():
            scale = 0.7 / np.sqrt(p.shape[-1]) if p.dim() > 1 else 0.0
            p.data = torch.from_numpy(scale * rng.standard_normal(tuple(p.shape))).to(dtype)

    def forward(self, t, y):
        return self.net(y**3) * torch.cos(t / 10)


def rk4_step(f, t, y, dt):
    k1 = f(t, y)
    k2 = f(t + dt / 2, y + dt * k1 / 2)
    k3 = f(t + dt / 2, y + dt * k2 / 2)
    k4 = f(t + dt, y + dt * k3)
    return y + dt * (k1 + 2 * k2 + 2 * k3 + k4) / 6


def odeint(f, y0, times):
    ys = [y0]
    for t0, t1 in zip(times[:-1], times[1:]):
        ys.append(rk4_step(f, t0, ys[-1], t1 - t0))
    return torch.stack(ys)


class Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f, y0, times, *parameters):
        with torch.no_grad():
            ys = odeint(f, y0, times)
        ctx.f = f
        ctx.save_for_backward(ys, times, *parameters)
        return ys

    @staticmethod
    def backward(ctx, grad_ys):
        ys, times, *_ = ctx.saved_tensors
        f = ctx.f
        parameters = tuple(f.parameters())
        sizes = [p.numel() for p in parameters]

        def dynamics(t, state):
            """Of (y, a, ∂L/∂θ) backwards: (f, −aᵀ ∂f/∂y, −aᵀ ∂f/∂θ)."""
            y, a = state[:count].view_as(ys[0]), state[count : 2 * count].view_as(ys[0])
            with torch.enable_grad():
                y = y.detach().requires_grad_(True)
                value = f(t, y)
                found = torch.autograd.grad(value, (y, *parameters), -a, allow_unused=True, retain_graph=True)
            found = [torch.zeros_like(p) if g is None else g for p, g in zip((y, *parameters), found)]
            return torch.cat([value.detach().reshape(-1), *[g.reshape(-1) for g in found]])

        count = ys[0].numel()
        a, by_parameter = grad_ys[-1], torch.zeros(sum(sizes), dtype=ys.dtype)
        with torch.no_grad():
            for i in range(len(times) - 1, 0, -1):
                state = torch.cat([ys[i].reshape(-1), a.reshape(-1), by_parameter])
                state = rk4_step(dynamics, times[i], state, times[i - 1] - times[i])
                a = state[count : 2 * count].view_as(a) + grad_ys[i - 1]
                by_parameter = state[2 * count :]
        gradients = [g.view_as(p) for g, p in zip(torch.split(by_parameter, sizes), parameters)]
        return (None, a, None, *gradients)


def odeint_adjoint(f, y0, times):
    return Adjoint.apply(f, y0, times, *f.parameters())


def train(integrate, steps, prepare, kinetic=0.0):
    times = torch.linspace(0, 2, 21, dtype=torch.float64)
    spiral = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    y0 = torch.tensor([[1.2, 0.0], [0.5, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        target = odeint(lambda t, y: y**3 @ spiral, y0, times)
    field = Field()
    optimizer = torch.optim.RMSprop(field.parameters(), lr=5e-3)

    def step():
        optimizer.zero_grad()
        loss = (integrate(field, y0, times) - target).abs().mean()
        if (
            kinetic
        ):  # the field's derivative along itself, as a regulariser: a product with the Jacobian, differentiated
            y = y0.clone().requires_grad_()
            value = field(times[0], y)
            direction = torch.ones_like(y)
            (along,) = torch.autograd.grad((value * direction).sum(), y, create_graph=True)
            loss = loss + kinetic * along.square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = prepare(step)
    return [step().item() for _ in range(steps)]


def main(prepare=lambda step: step):
    through, adjoint = train(odeint, 25, prepare), train(odeint_adjoint, 25, prepare)
    regular = train(odeint, 5, prepare, kinetic=0.1)
    print(through[0], through[-1], adjoint[-1])
    assert through[-1] < 0.95 * through[0]
    assert abs(through[-1] - adjoint[-1]) < 0.05 * through[0]
    return {
        "exact_first": through[0],
        "exact_through": through[3],
        "exact_adjoint": adjoint[3],
        "exact_regular": regular[-1],
        "end": through[-1],
        "end_of_adjoint": adjoint[-1],
    }


if __name__ == "__main__":
    print(main())
