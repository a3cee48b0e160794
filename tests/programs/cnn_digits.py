"""A small convolutional network on 8×8 images of drawn shapes: Conv2d, BatchNorm2d, pooling, augmentation."""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset


def draw(n, rng):
    """Crosses, boxes and diagonals, at random places, with noise."""
    images = rng.normal(scale=0.2, size=(n, 1, 8, 8)).astype(np.float32)
    labels = rng.integers(0, 3, size=n)
    for image, label in zip(images[:, 0], labels, strict=True):
        r, c = rng.integers(0, 4, size=2)
        patch = image[r : r + 5, c : c + 5]
        if label == 0:
            patch[2, :] += 1
            patch[:, 2] += 1
        elif label == 1:
            patch[[0, -1], :] += 1
            patch[:, [0, -1]] += 1
        else:
            index = np.arange(min(patch.shape))
            patch[index, index] += 1.5
    return torch.from_numpy(images), torch.from_numpy(labels)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=1, padding=1)
        self.dropout1 = nn.Dropout2d(0.1)
        self.fc1 = nn.Linear(16 * 2 * 2, 32)
        self.fc2 = nn.Linear(32, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return F.log_softmax(self.fc2(x), dim=1)


def conv_block(in_channels, out_channels, pool=False):
    layers = [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    if pool:
        layers.append(nn.AvgPool2d(2))
    return nn.Sequential(*layers)


class FullyConvolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_block(1, 8, pool=True), conv_block(8, 16))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3), nn.LogSoftmax(dim=-1))

    def forward(self, x):
        return self.head(self.features(x))


def train(model, device, train_loader, optimizer, epoch, log_interval=10):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device), target.to(device)
        if batch_idx % 2:
            data = torch.flip(data, dims=(2,))
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        if batch_idx % log_interval == 0:
            seen, total = batch_idx * len(data), len(train_loader.dataset)
            percent = 100.0 * batch_idx / len(train_loader)
            print(f"Train Epoch: {epoch} [{seen}/{total} ({percent:.0f}%)]\tLoss: {loss.item():.6f}")


def test(model, device, test_loader):
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for data, target in test_loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    return test_loss / len(test_loader.dataset), correct / len(test_loader.dataset)


def exact_convolution():
    rng = np.random.default_rng(6)
    x = torch.tensor(rng.normal(size=(2, 2, 7, 7)), requires_grad=True)
    w = torch.tensor(rng.normal(size=(4, 2, 3, 3)), requires_grad=True)
    y = F.conv2d(x, w, stride=2, padding=1)
    z = F.avg_pool2d(F.max_pool2d(F.pad(y, (1, 1, 1, 1)), 2), kernel_size=3)
    (z**2).sum().backward()
    assert y.shape == (2, 4, 4, 4)
    return z.sum().item(), x.grad.norm().item(), w.grad.norm().item()


def main(seed=0):
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(seed)
    x, y = draw(700, rng)
    x = (x - x.mean()) / x.std()
    train_loader = DataLoader(TensorDataset(x[:512], y[:512]), batch_size=32, shuffle=True)
    test_loader = DataLoader(TensorDataset(x[512:], y[512:]), batch_size=100)
    accuracies = []
    for model in (Net().to(device), FullyConvolutional().to(device)):
        optimizer = optim.Adadelta(model.parameters(), lr=1.0)
        scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)
        for epoch in range(1, 6):
            train(model, device, train_loader, optimizer, epoch)
            test_loss, accuracy = test(model, device, test_loader)
            scheduler.step()
        print(f"Test set: Average loss: {test_loss:.4f}, Accuracy: {100.0 * accuracy:.0f}%")
        accuracies.append(accuracy)
    z, dx, dw = exact_convolution()
    assert min(accuracies) > 0.85, accuracies
    return {
        "exact_z": z,
        "exact_dx": dx,
        "exact_dw": dw,
        "accuracy": accuracies[0],
        "fully_convolutional": accuracies[1],
    }


if __name__ == "__main__":
    print(main())
