"""A textbook's style: data modules and trainers of its own, lazy layers, masked softmax, layers written by hand."""

import collections

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def cpu():
    return torch.device("cpu")


def num_gpus():
    return torch.cuda.device_count()


def try_gpu(i=0):
    if num_gpus() >= i + 1:
        return torch.device(f"cuda:{i}")
    return cpu()


class HyperParameters:
    def save_hyperparameters(self, **kwargs):
        for name, value in kwargs.items():
            setattr(self, name, value)


class Module(nn.Module, HyperParameters):
    def __init__(self):
        super().__init__()
        self.board = collections.defaultdict(list)

    def loss(self, y_hat, y):
        return F.cross_entropy(y_hat.reshape((-1, y_hat.shape[-1])), y.reshape((-1,)), reduction="mean")

    def forward(self, X):
        assert hasattr(self, "net"), "Neural network is not defined"
        return self.net(X)

    def training_step(self, batch):
        l = self.loss(self(*batch[:-1]), batch[-1])
        self.board["loss"].append(l.detach().item())
        return l

    def accuracy(self, Y_hat, Y, averaged=True):
        Y_hat = Y_hat.reshape((-1, Y_hat.shape[-1]))
        preds = Y_hat.argmax(axis=1).type(Y.dtype)
        compare = (preds == Y.reshape(-1)).type(torch.float32)
        return compare.mean() if averaged else compare

    def apply_init(self, inputs, init=None):
        self.forward(*inputs)
        if init is not None:
            self.net.apply(init)

    def layer_summary(self, X_shape):
        X = torch.randn(*X_shape)
        lines = []
        for layer in self.net:
            X = layer(X)
            lines.append(f"{layer.__class__.__name__} output shape: {tuple(X.shape)}")
        return lines

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def init_cnn(module):
    """Initialize weights for CNNs."""
    if type(module) == nn.Linear or type(module) == nn.Conv2d:  # noqa: E721
        nn.init.xavier_uniform_(module.weight)


class LeNet(Module):
    def __init__(self, lr=0.3, num_classes=3):
        super().__init__()
        self.save_hyperparameters(lr=lr, num_classes=num_classes)
        self.net = nn.Sequential(
            nn.LazyConv2d(6, kernel_size=3, padding=1),
            nn.LazyBatchNorm2d(),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.LazyConv2d(8, kernel_size=3),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(16),
            nn.ReLU(),
            nn.LazyLinear(num_classes),
        )


class Trainer(HyperParameters):
    def __init__(self, max_epochs, gradient_clip_val=0):
        self.save_hyperparameters(max_epochs=max_epochs, gradient_clip_val=gradient_clip_val)

    def fit(self, model, batches):
        optim = model.configure_optimizers()
        for _ in range(self.max_epochs):
            model.train()
            for batch in batches:
                loss = model.training_step(batch)
                optim.zero_grad()
                with torch.no_grad():
                    loss.backward()
                    if self.gradient_clip_val > 0:
                        self.clip_gradients(self.gradient_clip_val, model)
                    optim.step()
            model.eval()

    def clip_gradients(self, grad_clip_val, model):
        params = [p for p in model.parameters() if p.requires_grad]
        norm = torch.sqrt(sum(torch.sum(p.grad**2) for p in params))
        if norm > grad_clip_val:
            for param in params:
                param.grad[:] *= grad_clip_val / norm


def corr2d(X, K):
    """Compute 2D cross-correlation."""
    h, w = K.shape
    Y = torch.zeros((X.shape[0] - h + 1, X.shape[1] - w + 1))
    for i in range(Y.shape[0]):
        for j in range(Y.shape[1]):
            Y[i, j] = (X[i : i + h, j : j + w] * K).sum()
    return Y


def masked_softmax(X, valid_lens):
    """Perform softmax operation by masking elements on the last axis."""

    def _sequence_mask(X, valid_len, value=0):
        maxlen = X.size(1)
        mask = torch.arange((maxlen), dtype=torch.float32, device=X.device)[None, :] < valid_len[:, None]
        X[~mask] = value
        return X

    if valid_lens is None:
        return nn.functional.softmax(X, dim=-1)
    shape = X.shape
    if valid_lens.dim() == 1:
        valid_lens = torch.repeat_interleave(valid_lens, shape[1])
    else:
        valid_lens = valid_lens.reshape(-1)
    X = _sequence_mask(X.reshape(-1, shape[-1]), valid_lens, value=-1e6)
    return nn.functional.softmax(X.reshape(shape), dim=-1)


def by_hand():
    K = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    crossed = corr2d(torch.arange(9.0).reshape(3, 3), K)
    scores = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 2, 4)).astype(np.float32))
    a = masked_softmax(scores.clone(), torch.tensor([2, 3]))
    b = masked_softmax(scores.clone(), torch.tensor([[1, 3], [2, 4]]))
    assert torch.allclose(a.sum(-1), torch.ones(2, 2))
    assert torch.count_nonzero(b[0, 0]) == 1
    w = torch.normal(0, 0.01, (2, 1), requires_grad=True)
    assert w.is_leaf
    return str(crossed), a[1, 1, 0].item()


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 192)
    x = 0.5 * rng.standard_normal((192, 1, 10, 10)).astype(np.float32)
    for image, label in zip(x, y):
        image[0, 3 * label : 3 * label + 3] += 1
    X, Y = torch.tensor(x, device=try_gpu()), torch.tensor(y, device=try_gpu())
    batches = list(zip(X.split(32), Y.split(32)))
    model = LeNet()
    before = str(model.net[7])
    model.apply_init([batches[0][0]], init_cnn)
    summary = model.layer_summary((1, 1, 10, 10))
    print("\n".join(summary))
    Trainer(max_epochs=8, gradient_clip_val=1).fit(model, batches)
    accuracy = model.accuracy(model(X), Y).item()
    print(model.board["loss"][-1], accuracy)
    assert accuracy > 0.95
    crossed, attention = by_hand()
    return {
        "accuracy": accuracy,
        "exact_before": before,
        "exact_after": str(model.net[7]),
        "exact_summary": "\n".join(summary),
        "exact_crossed": crossed,
        "exact_attention": attention,
    }


if __name__ == "__main__":
    print(main())
