"""A spatial transformer network, patches by unfold, super-resolution by pixel shuffling, class activation maps by hooks."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=3)
        self.conv2_drop = nn.Dropout2d(0.1)
        self.fc1 = nn.Linear(6 * 5 * 5, 16)
        self.fc2 = nn.Linear(16, 2)
        self.localization = nn.Sequential(nn.Conv2d(1, 4, kernel_size=3), nn.MaxPool2d(2, stride=2), nn.ReLU(True))
        self.fc_loc = nn.Sequential(nn.Linear(4 * 5 * 5, 8), nn.ReLU(True), nn.Linear(8, 3 * 2))
        self.fc_loc[2].weight.data.zero_()
        self.fc_loc[2].bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))

    def stn(self, x):
        xs = self.localization(x)
        xs = xs.view(-1, 4 * 5 * 5)
        theta = self.fc_loc(xs)
        theta = theta.view(-1, 2, 3)
        grid = F.affine_grid(theta, x.size(), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def forward(self, x):
        x = self.stn(x)
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv1(x)), 2))
        x = x.view(-1, 6 * 5 * 5)
        x = F.relu(self.fc1(x))
        x = F.dropout(x, p=0.1, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


def images(n, seed):
    """A bright square or plus somewhere in noise."""
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.standard_normal((n, 1, 12, 12)).astype(np.float32)
    y = rng.integers(0, 2, n)
    for image, label in zip(x, y):
        r, c = rng.integers(3, 9, 2)
        if label:
            image[0, r - 2 : r + 3, c - 2 : c + 3] += 1
            image[0, r - 1 : r + 2, c - 1 : c + 2] -= 1
        else:
            image[0, r - 2 : r + 3, c] += 1
            image[0, r, c - 2 : c + 3] += 1
    return torch.from_numpy(x), torch.from_numpy(y)


def super_resolution():
    rng = np.random.default_rng(5)
    large = torch.from_numpy(rng.standard_normal((4, 1, 8, 8)).astype(np.float32)).cumsum(2).cumsum(3) / 8
    small = F.interpolate(large, scale_factor=0.5, mode="bilinear", align_corners=False)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2)
    )
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    first = None
    for _ in range(40):
        loss = F.l1_loss(model(small), large)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 2
    return loss.item()


def patches():
    x = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    columns = F.unfold(x, kernel_size=4, stride=4)
    assert torch.equal(F.fold(columns, output_size=(8, 8), kernel_size=4, stride=4), x)
    windows = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
    assert torch.equal(windows.flatten(1, 2).transpose(1, 2), columns)
    w = torch.linspace(-1, 1, 4 * 3 * 9).view(4, 3, 3, 3)
    by_hand = (w.view(4, -1) @ F.unfold(x, 3, padding=1)).view(2, 4, 8, 8)
    assert torch.allclose(by_hand, F.conv2d(x, w, padding=1), rtol=1e-4, atol=1e-2)
    return columns[1, 5].sum().item()


def main():
    torch.manual_seed(3)
    X, Y = images(192, 0)
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    for epoch in range(10):
        for data, target in zip(X.split(32), Y.split(32)):
            optimizer.zero_grad()
            loss = F.nll_loss(model(data), target)
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        x, y = images(64, 1)
        test_loss = F.nll_loss(model(x), y, reduction="sum").item() / len(y)
        pred = model(x).max(1, keepdim=True)[1]
        correct = pred.eq(y.view_as(pred)).sum().item()
    print(test_loss, correct, model.fc_loc[2].bias)
    assert correct > 52
    assert not torch.equal(model.fc_loc[2].bias.data, torch.tensor([1.0, 0, 0, 0, 1, 0]))

    grads, acts = [], []
    h1 = model.conv1.register_forward_hook(lambda module, i, o: acts.append(o.detach()))
    h2 = model.conv1.register_full_backward_hook(lambda module, gi, go: grads.append(go[0].detach()))
    out = model(x[:1])
    out[0, out.argmax()].backward()
    h1.remove(), h2.remove()
    w = grads[0].mean(dim=[2, 3], keepdim=True)
    cam = torch.relu((w * acts[0]).sum(1))
    assert cam.shape == (1, 10, 10)

    theta = torch.tensor([[[0.91, 0.31, 0.13], [-0.32, 1.17, -0.21]]])
    grid = F.affine_grid(theta, (1, 1, 12, 12), align_corners=True)
    sampled = F.grid_sample(x[:1], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return {
        "correct": float(correct),
        "exact_sampled": sampled.sum().item(),
        "exact_patches": patches(),
        "sr": super_resolution(),
    }


if __name__ == "__main__":
    print(main())
