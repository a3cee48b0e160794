"""deepcopy of models and optimisers: clones train alike and apart, best weights kept, averages and targets updated."""

import copy

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 1))
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.net(x).squeeze(-1) * self.scale


def step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def update_ema(ema, model, decay):
    for e, p in zip(ema.parameters(), model.parameters(), strict=True):
        e.mul_(decay).add_(p.data, alpha=1 - decay)
    for e, b in zip(ema.buffers(), model.buffers(), strict=True):
        e.copy_(b)


def clone_with_optimizer(model, optimizer):
    """A copy of the model, and a copy of the optimiser whose parameters are those of the new model."""
    twin = copy.deepcopy(model)
    twin_optimizer = type(optimizer)(twin.parameters(), lr=1.0)
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return twin, twin_optimizer


def main(seed=0):
    torch.manual_seed(seed)
    rng = np.random.default_rng(5)
    x = torch.tensor(rng.normal(size=(64, 5)), dtype=torch.float32)
    y = x[:, 0] - 2 * x[:, 1] * x[:, 2]

    model = MLP()
    for p in model.parameters():
        if p.dim() > 1:
            p.data.copy_(torch.tensor(rng.normal(scale=0.4, size=p.shape)))
        elif p.numel() == 1:
            p.data.zero_()
    with torch.no_grad():
        model.net[0].bias.zero_()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    initial = copy.deepcopy(model.state_dict())
    first = step(model, optimizer, x, y)
    for _ in range(4):
        step(model, optimizer, x, y)

    # two ways to fork a run; both must go on exactly as the original does
    pair_model, pair_optimizer = copy.deepcopy((model, optimizer))
    twin, twin_optimizer = clone_with_optimizer(model, optimizer)
    assert pair_optimizer.param_groups[0]["params"][0] is next(pair_model.parameters())
    assert twin_optimizer.param_groups[0]["lr"] == 0.01
    losses = [
        [step(m, o, x, y) for _ in range(5)]
        for m, o in ((model, optimizer), (pair_model, pair_optimizer), (twin, twin_optimizer))
    ]
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(model.net[0].weight, twin.net[0].weight)
    assert model.net[0].weight.data_ptr() != twin.net[0].weight.data_ptr()
    fork_loss = losses[0][-1]

    # the exponential moving average, and the best weights of a noisy run
    ema = copy.deepcopy(model).requires_grad_(False).eval()
    best_loss, best_model_wts = float("inf"), copy.deepcopy(model.state_dict())
    for _ in range(40):
        loss = step(model, optimizer, x, y)
        update_ema(ema, model, 0.9)
        if loss < best_loss:
            best_loss = loss
            best_model_wts = copy.deepcopy(model.state_dict())
    last = model.state_dict()["net.0.weight"].clone()
    model.load_state_dict(best_model_wts)
    assert all(not p.requires_grad for p in ema.parameters())
    ema_loss = F.mse_loss(ema(x), y).item()
    model.load_state_dict(initial)
    assert torch.equal(model.net[0].weight, initial["net.0.weight"])
    assert not torch.equal(last, model.net[0].weight)
    layers = nn.ModuleList([copy.deepcopy(nn.Linear(3, 3)) for _ in range(3)])
    assert len({id(p) for p in layers.parameters()}) == 6
    t = copy.deepcopy(torch.arange(4.0, requires_grad=True))
    assert t.requires_grad
    assert t.is_leaf
    assert best_loss < first
    return {"exact_first_loss": first, "fork_loss": fork_loss, "best_loss": best_loss, "ema_loss": ema_loss}


if __name__ == "__main__":
    print(main())
