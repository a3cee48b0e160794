"""The plain PyTorch script that ``kobai train`` on MNIST is held against: the same net, data, batches and bookkeeping.

    python benchmarks/mnist_torch.py --data-dir PATH [--batches slices]

5 epochs of 784-100-100-100-100-10 with SGD in batches of 100; a tenth of the training images is held out and looked at after
each epoch; the best and the last parameters are kept in files; the test images are looked at once, at the end.

``--batches loader`` is the plain way, a DataLoader over a TensorDataset, which collates sample by sample;
``--batches slices`` indexes whole batches by hand, the fastest way that PyTorch has for data in memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


def read_idx(folder: Path, name: str) -> np.ndarray:
    """An IDX file, plain or gzip."""
    packed = folder / f"{name}.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def load(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in [0, 1] as (N, 1, 28, 28), and labels."""
    images = torch.from_numpy(read_idx(folder, f"{part}-images-idx3-ubyte").astype(np.float32)).div_(255)
    return images.unsqueeze(1), torch.from_numpy(read_idx(folder, f"{part}-labels-idx1-ubyte").astype(np.int64))


class Slices:
    """Batches cut out of the tensors by index, in a new order each epoch if they are shuffled."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, batch: int, shuffle: bool) -> None:
        self.images, self.labels, self.batch, self.shuffle = images, labels, batch, shuffle

    def __iter__(self):
        n = len(self.labels)
        order = torch.randperm(n) if self.shuffle else torch.arange(n)
        for rows in order.split(self.batch):
            yield self.images[rows], self.labels[rows]


def batches(kind: str, images: torch.Tensor, labels: torch.Tensor, batch: int, shuffle: bool):
    if kind == "slices":
        return Slices(images, labels, batch, shuffle)
    return DataLoader(TensorDataset(images, labels), batch_size=batch, shuffle=shuffle)


def evaluate(model: nn.Module, data) -> tuple[float, float]:
    """Mean loss, and share of right answers."""
    model.eval()
    loss = right = n = 0
    with torch.no_grad():
        for images, labels in data:
            scores = model(images)
            loss += F.cross_entropy(scores, labels, reduction="sum").item()
            right += (scores.argmax(1) == labels).sum().item()
            n += len(labels)
    return loss / n, right / n


def main() -> None:
    """Train, and print a line for each epoch and the accuracy on the test images."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the four IDX files, plain or .gz")
    parser.add_argument("--batches", choices=("loader", "slices"), default="loader")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="folder of the files; default: one that is removed again")
    args = parser.parse_args()
    torch.manual_seed(0)
    images, labels = load(args.data_dir, "train")
    order = torch.randperm(len(labels))
    held, kept = order[:6000], order[6000:]
    train = batches(args.batches, images[kept], labels[kept], 100, shuffle=True)
    validation = batches(args.batches, images[held], labels[held], 1024, shuffle=False)
    sizes = (784, 100, 100, 100, 100, 10)
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
        nn.init.zeros_(layers[-2].bias)
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        best, history = 0.0, []
        for epoch in range(1, args.epochs + 1):
            model.train()
            total = right = n = 0
            for x, t in train:
                optimizer.zero_grad()
                scores = model(x)
                loss = F.cross_entropy(scores, t)
                loss.backward()
                optimizer.step()
                total = total + loss.detach() * len(t)
                right = right + (scores.argmax(1) == t).sum()
                n += len(t)
            val_loss, val_accuracy = evaluate(model, validation)
            history.append({"epoch": epoch, "loss": float(total) / n, "accuracy": int(right) / n})
            history[-1] |= {"val_loss": val_loss, "val_accuracy": val_accuracy}
            (folder / "history.json").write_text(json.dumps(history))
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "last.pt")
            if val_accuracy > best:
                best = val_accuracy
                torch.save(model.state_dict(), folder / "best.pt")
            print(
                f"epoch {epoch}/{args.epochs}  loss {history[-1]['loss']:.4f}/{val_loss:.4f}  accuracy {val_accuracy:.4f}"
            )
        model.load_state_dict(torch.load(folder / "best.pt"))
    print(f"test accuracy {evaluate(model, batches(args.batches, *load(args.data_dir, 't10k'), 1024, False))[1]:.4f}")


if __name__ == "__main__":
    main()
