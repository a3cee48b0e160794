"""An ordinary PyTorch training script. Only its imports are Kobai's: change them back and it runs on PyTorch.

python scripts/mnist_pytorch_style.py --data-dir PATH   # the folder with the four IDX files of MNIST, plain or .gz
"""

import argparse
import gzip
import os
import time

import numpy as np

import kobai as torch
import kobai.nn as nn
import kobai.nn.functional as F
import kobai.optim as optim
from kobai.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, hidden=100):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 10)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def read_idx(folder, name):
    path = os.path.join(folder, name)
    with gzip.open(path + ".gz") if os.path.exists(path + ".gz") else open(path, "rb") as file:
        content = file.read()
    rank = content[3]
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(folder, part):
    images = torch.tensor(read_idx(folder, f"{part}-images-idx3-ubyte").astype(np.float32) / 255).unsqueeze(1)
    labels = torch.tensor(read_idx(folder, f"{part}-labels-idx1-ubyte").astype(np.int64))
    return TensorDataset(images, labels)


def train(model, device, loader, optimizer, epoch):
    model.train()
    for i, (data, target) in enumerate(loader):
        data, target = data.to(device), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.cross_entropy(output, target)
        loss.backward()
        optimizer.step()
        if i % 200 == 0:
            print(f"epoch {epoch} [{i * len(data):5d}/{len(loader.dataset)}] loss {loss.item():.4f}")


def test(model, device, loader):
    model.eval()
    test_loss, correct = 0.0, 0
    with torch.no_grad():
        for data, target in loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            test_loss += F.cross_entropy(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    return test_loss / len(loader.dataset), correct / len(loader.dataset)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="MNIST with a multilayer perceptron")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", metavar="FILE", help="where to keep the trained parameters")
    args = parser.parse_args(arguments)

    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_loader = DataLoader(load(args.data_dir, "train"), batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(load(args.data_dir, "t10k"), batch_size=1000)
    model = Net().to(device)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    accuracy, start = 0.0, time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        train(model, device, train_loader, optimizer, epoch)
        loss, accuracy = test(model, device, test_loader)
        scheduler.step()
        print(f"epoch {epoch} test loss {loss:.4f} accuracy {accuracy:.4f} ({time.perf_counter() - start:.1f} s)")
    if args.save:
        torch.save(model.state_dict(), args.save)
        model.load_state_dict(torch.load(args.save))
    return accuracy


if __name__ == "__main__":
    main()
