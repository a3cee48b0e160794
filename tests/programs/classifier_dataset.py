"""A classifier on a custom Dataset: two interleaved spirals, random_split, DataLoader, train and evaluate loops."""

import math

import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader, Dataset, random_split


class Spirals(Dataset):
    def __init__(self, points_per_class=300, classes=3, noise=0.15, transform=None):
        xs, ys = [], []
        for label in range(classes):
            radius = torch.linspace(0.1, 1.0, points_per_class)
            angle = torch.linspace(label * 4, (label + 1) * 4, points_per_class)
            angle = angle + torch.randn(points_per_class) * noise
            xs.append(torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=1))
            ys.append(torch.full((points_per_class,), label, dtype=torch.long))
        self.x = torch.cat(xs)
        self.y = torch.cat(ys)
        self.transform = transform

    def __len__(self):
        return len(self.y)

    def __getitem__(self, idx):
        sample = self.x[idx]
        if self.transform:
            sample = self.transform(sample)
        return sample, self.y[idx]


class Polar:
    """Adds the radius and the angle to the coordinates of a point."""

    def __call__(self, point):
        radius = torch.sqrt((point**2).sum())
        angle = torch.atan2(point[1], point[0]) / math.pi
        return torch.cat([point, torch.stack([radius, angle])])


class Net(nn.Module):
    def __init__(self, in_features, hidden, classes, dropout=0.1):
        super(Net, self).__init__()
        self.fc1 = nn.Linear(in_features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(dropout)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.fc1(x))
        x = self.dropout(x)
        x = self.relu(self.fc2(x))
        return self.out(x)


def train(model, loader, criterion, optimizer, device):
    model.train()
    running_loss = 0.0
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item() * inputs.size(0)
    return running_loss / len(loader.dataset)


@torch.no_grad()
def evaluate(model, loader, device):
    model.eval()
    correct = total = 0
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        _, predicted = torch.max(model(inputs).data, 1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
    return correct / total


def main(seed=0):
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = Spirals(transform=Polar())
    train_size = int(0.8 * len(dataset))
    splits = [train_size, len(dataset) - train_size]
    train_set, test_set = random_split(dataset, splits, generator=torch.Generator().manual_seed(42))
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True, num_workers=0)
    test_loader = DataLoader(test_set, batch_size=64, shuffle=False)
    assert len(train_loader) == math.ceil(train_size / 32)

    images, labels = next(iter(train_loader))
    assert images.shape == (32, 4)
    assert labels.dtype == torch.int64

    model = Net(4, 64, 3).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    first = last = None
    for epoch in range(12):
        last = train(model, train_loader, criterion, optimizer, device)
        first = last if epoch == 0 else first
    accuracy = evaluate(model, test_loader, device)
    print(f"loss {first:.3f} -> {last:.3f}, accuracy: {100 * accuracy:.1f}%")
    assert last < 0.5 * first
    assert accuracy > 0.8, accuracy
    return {"first_loss": first, "last_loss": last, "accuracy": accuracy}


if __name__ == "__main__":
    print(main())
