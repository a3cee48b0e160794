"""Uncertainty: an ensemble by functional stacking, Monte Carlo dropout at test time, and calibration by temperature."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class BatchedMLP(nn.Module):
    """Several nets in one, by batched matrix products."""

    def __init__(self, members, sizes):
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
            self.weights.append(nn.Parameter(torch.randn(members, n_in, n_out) * math.sqrt(2 / n_in)))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, n_out)))

    def forward(self, x):
        h = x.expand(len(self.weights[0]), *x.shape)
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(b, h, w)
            if i < len(self.weights) - 1:
                h = torch.relu(h)
        return h


def enable_dropout(model):
    for m in model.modules():
        if m.__class__.__name__.startswith("Dropout"):
            m.train()


def expected_calibration_error(probabilities, labels, bins=10):
    confidence, prediction = probabilities.max(dim=1)
    correct = prediction.eq(labels).float()
    edges = torch.linspace(0, 1, bins + 1)
    error = torch.zeros(1)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = confidence.gt(low) & confidence.le(high)
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            error += gap.abs() * inside.float().mean()
    return error.item()


def main(seed=0):
    torch.manual_seed(seed)
    x = torch.cat([torch.rand(100) * 1.5 - 2, torch.rand(100) * 1.5 + 0.5]).unsqueeze(1)
    y = torch.sin(2 * x) + 0.1 * torch.randn_like(x)
    grid = torch.linspace(-4, 4, 81).unsqueeze(-1)

    ensemble = BatchedMLP(5, [1, 32, 32, 1])
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=0.01)
    for _ in range(300):
        loss = ((ensemble(x) - y) ** 2).mean(dim=(1, 2)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        deviation = ensemble(grid).std(dim=0).squeeze()
    position = grid.squeeze()
    seen = (position.abs() > 0.7) & (position.abs() < 1.8)
    far, near = deviation[position.abs() > 3].mean().item(), deviation[seen].median().item()
    assert loss.item() / 5 < 0.1, loss.item()
    assert far > near, (far, near)

    net = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 2)
    )
    points = torch.randn(300, 2)
    labels = (points.sum(1) + 0.8 * torch.randn(300) > 0).long()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.CrossEntropyLoss()(net(points[:150]), labels[:150]).backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        deterministic = net(points[150:])
        assert torch.equal(deterministic, net(points[150:]))
        enable_dropout(net)
        draws = torch.stack([F.softmax(net(points[150:]), dim=-1) for _ in range(20)])
        mean = draws.mean(0)
        entropy = -(mean * torch.log(mean + 1e-12)).sum(-1)
        conditional = -(draws * (draws + 1e-12).log()).sum(-1).mean(0)
        information = entropy - conditional
        net.eval()
    assert not torch.equal(draws[0], draws[1])
    assert information.min() > -1e-5
    right = (mean.argmax(1) == labels[150:]).float().mean().item()
    assert right > 0.65, right

    # temperature scaling on held-out logits
    temperature = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([temperature], lr=0.2)
    before = F.cross_entropy(deterministic, labels[150:]).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = F.cross_entropy(deterministic / temperature.clamp_min(0.05), labels[150:])
        loss.backward()
        optimizer.step()
    after = loss.item()
    ece = expected_calibration_error(F.softmax(deterministic / temperature.detach(), dim=1), labels[150:])
    assert after <= before + 1e-3, (before, after)
    assert 0 <= ece < 0.3
    return {"far": far, "near": near, "accuracy": right, "temperature": temperature.item(), "ece": ece}


if __name__ == "__main__":
    print(main())
