"""The first tutorial's shape: data set, network, training and test loops that print, a model saved and loaded."""

import os
import tempfile

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Bars(Dataset):
    """8×8 images of a bright bar, horizontal or vertical, in noise."""

    classes = ["horizontal", "vertical"]

    def __init__(self, n, seed, transform=None):
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 2, n)
        self.images = (0.3 * rng.standard_normal((n, 1, 8, 8))).astype(np.float32)
        for image, label, place in zip(self.images, self.labels, rng.integers(0, 8, n)):
            if label == 0:
                image[0, place] += 1
            else:
                image[0, :, place] += 1
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, idx):
        image = torch.from_numpy(self.images[idx])
        if self.transform:
            image = self.transform(image)
        return image, self.labels[idx]


class NeuralNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(8 * 8, 32),
            nn.ReLU(),
            nn.Linear(32, 32),
            nn.ReLU(),
            nn.Linear(32, 2),
        )

    def forward(self, x):
        x = self.flatten(x)
        logits = self.linear_relu_stack(x)
        return logits


def train(dataloader, model, loss_fn, optimizer, device):
    size = len(dataloader.dataset)
    model.train()
    lines = []
    for batch, (X, y) in enumerate(dataloader):
        X, y = X.to(device), y.to(device)
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch % 4 == 0:
            loss, current = loss.item(), (batch + 1) * len(X)
            lines.append(f"loss: {loss:>7f}  [{current:>5d}/{size:>5d}]")
    print("\n".join(lines))
    return lines


def test(dataloader, model, loss_fn, device):
    size = len(dataloader.dataset)
    num_batches = len(dataloader)
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            X, y = X.to(device), y.to(device)
            pred = model(X)
            test_loss += loss_fn(pred, y).item()
            correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    test_loss /= num_batches
    correct /= size
    print(f"Test Error: \n Accuracy: {(100 * correct):>0.1f}%, Avg loss: {test_loss:>8f} \n")
    return correct, test_loss


def initialise(model, seed):
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(rng.uniform(-0.2, 0.2, tuple(p.shape)).astype(np.float32)))


def main():
    training_data, test_data = Bars(512, 0, transform=lambda image: image * 2), Bars(128, 1, lambda image: image * 2)
    train_dataloader = DataLoader(training_data, batch_size=64)
    test_dataloader = DataLoader(test_data, batch_size=64)
    for X, y in test_dataloader:
        shapes = f"Shape of X [N, C, H, W]: {tuple(X.shape)}, of y: {tuple(y.shape)}"
        print(shapes)
        break

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    print(f"Using {device} device")
    model = NeuralNetwork().to(device)
    initialise(model, 2)
    text = str(model)
    print(text)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for t in range(14):
        print(f"Epoch {t + 1}\n-------------------------------")
        lines = train(train_dataloader, model, loss_fn, optimizer, device)
        accuracy, test_loss = test(test_dataloader, model, loss_fn, device)
    assert accuracy > 0.9

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.pth")
        torch.save(model.state_dict(), path)
        again = NeuralNetwork().to(device)
        answer = str(again.load_state_dict(torch.load(path, weights_only=True)))
    again.eval()
    x, y = test_data[0][0], test_data[0][1]
    with torch.no_grad():
        pred = again(x.to(device))
        predicted, actual = test_data.classes[pred[0].argmax(0)], test_data.classes[y]
        verdict = f'Predicted: "{predicted}", Actual: "{actual}"'
    print(verdict)
    return {
        "exact_shapes": shapes,
        "exact_model": text,
        "exact_answer": answer,
        "exact_verdict": verdict,
        "exact_place": lines[-1][-15:],
        "exact_accuracy": accuracy,
        "test_loss": test_loss,
    }


if __name__ == "__main__":
    print(main())
