"""What is torch.nn really: from tensors by hand to Module, functional, optim, DataLoader, in small refactorings."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

lr = 0.5
bs = 64


def get_arrays():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 16)).astype(np.float32)
    y = rng.integers(0, 10, 400)
    x = centres[y] + 0.5 * rng.standard_normal((400, 16)).astype(np.float32)
    return x[:320], y[:320], x[320:], y[320:]


x_train, y_train, x_valid, y_valid = map(torch.tensor, get_arrays())
n, c = x_train.shape
initial = torch.from_numpy(np.random.default_rng(1).standard_normal((16, 10)).astype(np.float32))


def log_softmax(x):
    return x - x.exp().sum(-1).log().unsqueeze(-1)


def nll(input, target):
    return -input[range(target.shape[0]), target].mean()


def accuracy(out, yb):
    preds = torch.argmax(out, dim=1)
    return (preds == yb).float().mean()


def by_hand():
    weights = initial / math.sqrt(16)
    weights.requires_grad_()
    bias = torch.zeros(10, requires_grad=True)

    def model(xb):
        return log_softmax(xb @ weights + bias)

    first = nll(model(x_train[:bs]), y_train[:bs])
    for epoch in range(2):
        for i in range((n - 1) // bs + 1):
            start_i = i * bs
            end_i = start_i + bs
            xb = x_train[start_i:end_i]
            yb = y_train[start_i:end_i]
            loss = nll(model(xb), yb)
            loss.backward()
            with torch.no_grad():
                weights -= weights.grad * lr
                bias -= bias.grad * lr
                weights.grad.zero_()
                bias.grad.zero_()
    return first, nll(model(xb), yb), accuracy(model(x_valid), y_valid)


class Logistic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(initial / math.sqrt(16))
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, xb):
        return xb @ self.weights + self.bias


def with_module():
    model = Logistic()
    loss_func = F.cross_entropy
    for epoch in range(2):
        for i in range((n - 1) // bs + 1):
            xb, yb = x_train[i * bs : (i + 1) * bs], y_train[i * bs : (i + 1) * bs]
            loss = loss_func(model(xb), yb)
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= p.grad * lr
                model.zero_grad()
    return loss_func(model(xb), yb)


class Lambda(nn.Module):
    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, x):
        return self.func(x)


class WrappedDataLoader:
    def __init__(self, dl, func):
        self.dl = dl
        self.func = func

    def __len__(self):
        return len(self.dl)

    def __iter__(self):
        for b in self.dl:
            yield self.func(*b)


def preprocess(x, y):
    return x.view(-1, 1, 4, 4), y


def get_data(train_ds, valid_ds, bs):
    return DataLoader(train_ds, batch_size=bs), DataLoader(valid_ds, batch_size=bs * 2)


def loss_batch(model, loss_func, xb, yb, opt=None):
    loss = loss_func(model(xb), yb)
    if opt is not None:
        loss.backward()
        opt.step()
        opt.zero_grad()
    return loss.item(), len(xb)


def fit(epochs, model, loss_func, opt, train_dl, valid_dl):
    for epoch in range(epochs):
        model.train()
        for xb, yb in train_dl:
            loss_batch(model, loss_func, xb, yb, opt)
        model.eval()
        with torch.no_grad():
            losses, nums = zip(*[loss_batch(model, loss_func, xb, yb) for xb, yb in valid_dl])
        val_loss = np.sum(np.multiply(losses, nums)) / np.sum(nums)
        print(epoch, val_loss)
    return float(val_loss)


def with_a_convolutional_network():
    model = nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 10, kernel_size=3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        Lambda(lambda x: x.view(x.size(0), -1)),
    )
    rng = np.random.default_rng(3)
    for p in model.parameters():
        p.data = torch.from_numpy((0.2 * rng.standard_normal(tuple(p.shape))).astype(np.float32))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_dl, valid_dl = get_data(TensorDataset(x_train, y_train), TensorDataset(x_valid, y_valid), bs)
    train_dl, valid_dl = WrappedDataLoader(train_dl, preprocess), WrappedDataLoader(valid_dl, preprocess)
    return fit(10, model, F.cross_entropy, opt, train_dl, valid_dl)


def main():
    first, last, correct = by_hand()
    same = with_module()
    convolutional = with_a_convolutional_network()
    assert last < first and correct > 0.9
    assert abs(same.item() - last.item()) < 1e-4
    assert convolutional < 1.5
    return {
        "exact_first": first.item(),
        "exact_last": last.item(),
        "exact_correct": correct.item(),
        "convolutional": convolutional,
    }


if __name__ == "__main__":
    print(main())
