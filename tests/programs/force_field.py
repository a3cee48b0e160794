"""An energy-based force field: forces −∂E/∂x of a message-passing net are trained on; elastic constants; Hamiltonian nets."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def set_weights(model, seed):
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        scale = 1 / np.sqrt(p.shape[-1]) if p.dim() > 1 else 0.1
        p.data = torch.from_numpy(scale * rng.standard_normal(tuple(p.shape))).to(p.dtype)
    return model


class Interaction(nn.Module):
    def __init__(self, width, radial):
        super().__init__()
        self.filter = nn.Sequential(nn.Linear(radial, width), nn.Softplus(), nn.Linear(width, width))
        self.update = nn.Linear(width, width)

    def forward(self, h, rbf, cutoff, source, target):
        messages = h[source] * self.filter(rbf) * cutoff
        return h + self.update(torch.zeros_like(h).index_add(0, target, messages))


class Energy(nn.Module):
    def __init__(self, width=16, radial=8, reach=4.0):
        super().__init__()
        self.embedding = nn.Embedding(4, width)
        self.interactions = nn.ModuleList([Interaction(width, radial) for _ in range(2)])
        self.out = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.register_buffer("centres", torch.linspace(0.5, reach, radial))
        self.reach = reach

    def forward(self, species, positions, source, target):
        distance = (positions[source] - positions[target]).norm(dim=-1, keepdim=True)
        rbf = torch.exp(-4 * (distance - self.centres) ** 2)
        cutoff = 0.5 * (torch.cos(np.pi * distance / self.reach) + 1) * (distance < self.reach)
        h = self.embedding(species)
        for interaction in self.interactions:
            h = interaction(h, rbf, cutoff, source, target)
        return self.out(h).sum()


def lennard_jones(positions):
    """The energy and forces to learn."""
    i, j = np.triu_indices(len(positions), 1)
    x = torch.from_numpy(positions).requires_grad_()
    d = (x[torch.from_numpy(i)] - x[torch.from_numpy(j)]).norm(dim=1)
    energy = (4 * (d**-6 - d**-3)).sum()
    (forces,) = torch.autograd.grad(-energy, x)
    return energy.detach(), forces


def train(dtype, steps, prepare):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), -1).reshape(-1, 3)[:6] * 1.3
    model = set_weights(Energy().to(dtype), 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    source, target = (torch.from_numpy(index) for index in np.nonzero(~np.eye(6, dtype=bool)))
    species = torch.tensor([0, 1, 2, 0, 1, 3])

    def step(positions, energy, forces):
        optimizer.zero_grad()
        positions = positions.detach().requires_grad_(True)
        predicted = model(species, positions, source, target)
        predicted_forces = -torch.autograd.grad(predicted, positions, create_graph=True, retain_graph=True)[0]
        loss = 0.01 * (predicted - energy) ** 2 + F.mse_loss(predicted_forces, forces)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = prepare(step)
    losses = []
    for _ in range(steps):
        positions = grid + 0.1 * rng.standard_normal(grid.shape)
        energy, forces = lennard_jones(positions)
        losses.append(step(torch.from_numpy(positions).to(dtype), energy.to(dtype), forces.to(dtype)).item())
    return losses


def elastic():
    """The stress, a derivative by the strain, and the Hessian of the atoms' positions."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(1.5 * rng.standard_normal((4, 3))).requires_grad_()
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    moved = x + torch.einsum("ij,kj->ki", 0.5 * (strain + strain.T), x)
    i, j = torch.from_numpy(np.triu_indices(4, 1)[0]), torch.from_numpy(np.triu_indices(4, 1)[1])
    d = (moved[i] - moved[j]).norm(dim=1)
    energy = (d - 1).square().sum() + (-d).exp().sum()
    forces, stress = torch.autograd.grad(energy, [x, strain], create_graph=True)
    rows = [torch.autograd.grad(f, x, retain_graph=True)[0].flatten() for f in forces.flatten()]
    hessian = torch.stack(rows)
    assert torch.allclose(hessian, hessian.T)
    assert torch.allclose(stress, stress.T)
    assert forces.sum(0).abs().max() < 1e-12
    return stress.trace().item(), torch.linalg.eigvalsh(hessian)[-1].item()


def hamiltonian(steps, prepare):
    """A net whose symplectic gradient is the motion of a pendulum."""
    rng = np.random.default_rng(4)
    model = set_weights(nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1)).double(), 5)
    state = torch.from_numpy(rng.uniform(-1.5, 1.5, (60, 2))).requires_grad_()
    motion = torch.stack([state[:, 1], -torch.sin(state[:, 0])], 1).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        (slope,) = torch.autograd.grad(model(state).sum(), state, create_graph=True)
        loss = F.mse_loss(torch.stack([slope[:, 1], -slope[:, 0]], 1), motion)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = prepare(step)
    return [step().item() for _ in range(steps)]


def main(prepare=lambda step: step):
    single, double = train(torch.float32, 150, prepare), train(torch.float64, 10, prepare)
    stress, stiffness = elastic()
    pendulum = hamiltonian(60, prepare)
    start, end = float(np.mean(single[:10])), float(np.mean(single[-10:]))
    print(start, end, pendulum[0], pendulum[-1])
    assert end < 0.8 * start
    assert pendulum[-1] < 0.3 * pendulum[0]
    return {
        "exact_first": single[0],
        "exact_tenth_in_float64": double[-1],
        "exact_stress": stress,
        "exact_stiffness": stiffness,
        "exact_pendulum": pendulum[-1],
        "end": end,
    }


if __name__ == "__main__":
    print(main())
