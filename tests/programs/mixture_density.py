"""A mixture density network on a multivalued inverse problem: logsumexp of Gaussians, sampling from components."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class MDN(nn.Module):
    def __init__(self, hidden=32, components=4):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.pi = nn.Linear(hidden, components)
        self.mu = nn.Linear(hidden, components)
        self.sigma = nn.Linear(hidden, components)
        with torch.no_grad():
            self.mu.bias.copy_(torch.linspace(-1, 1, components))

    def forward(self, x):
        h = self.body(x)
        return F.log_softmax(self.pi(h), dim=-1), self.mu(h), F.softplus(self.sigma(h)) + 1e-3


def nll(log_pi, mu, sigma, y):
    log_normal = -0.5 * ((y - mu) / sigma) ** 2 - torch.log(sigma) - 0.5 * math.log(2 * math.pi)
    return -torch.logsumexp(log_pi + log_normal, dim=1).mean()


def sample(log_pi, mu, sigma):
    k = torch.multinomial(log_pi.exp(), 1)
    return torch.normal(mu.gather(1, k), sigma.gather(1, k))


def main(seed=0):
    torch.manual_seed(seed)
    y = torch.empty(600, 1).uniform_(-1, 1)
    x = y + 0.6 * torch.sin(2 * math.pi * y) + 0.05 * torch.randn_like(y)
    model = MDN()
    optimizer = torch.optim.RAdam(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(250):
        optimizer.zero_grad(set_to_none=False)
        loss = nll(*model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    plain = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(plain.parameters(), 0.01)
    for _ in range(150):
        mse = F.mse_loss(plain(x), y)
        optimizer.zero_grad()
        mse.backward()
        optimizer.step()
    residual = (y - plain(x)).detach()
    gaussian_nll = F.gaussian_nll_loss(plain(x).detach(), y, residual.var().expand_as(y), full=True).item()

    with torch.no_grad():
        log_pi, mu, sigma = model(x)
        draws = sample(log_pi, mu, sigma)
        spread = (x - (draws + 0.6 * torch.sin(2 * math.pi * draws))).abs().median().item()
        assert torch.allclose(log_pi.exp().sum(dim=1), torch.ones(600), atol=1e-5)
        assert (sigma > 0).all()
    assert losses[-1] < losses[0] - 0.5, (losses[0], losses[-1])
    assert losses[-1] < gaussian_nll, (losses[-1], gaussian_nll)
    assert spread < 0.3, spread
    return {"first": losses[0], "last": losses[-1], "one_gaussian": gaussian_nll, "spread": spread}


if __name__ == "__main__":
    print(main())
