"""Whole programs: training on the GPU follows training on the CPU, and needs no more memory at its end than at its start."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F
from kobai.train import Trainer
from kobai.utils.data import DataLoader, TensorDataset

# Without a bias before batch normalisation: its gradient is 0, and of its rounding Rprop would take the sign.
NETS = {
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 4)
    ),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ),
}
OPTIMIZERS = {
    "sgd": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda p: kobai.optim.AdamW(p, lr=3e-3),
    "rmsprop": lambda p: kobai.optim.RMSprop(p, lr=1e-3, centered=True, momentum=0.5),
    "adagrad": lambda p: kobai.optim.Adagrad(p, lr=1e-2),
    "rprop": lambda p: kobai.optim.Rprop(p, lr=1e-3),
}


def problem(n=96):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(n, 1, 8, 8)).astype(np.float32)
    return images, (images.reshape(n, 4, 16).mean(axis=2)).argmax(axis=1)


def trained(net, optimizer, where, steps, dtype=kobai.float64):
    images, labels = problem()
    with kobai.using(where):
        kobai.manual_seed(1)
        model = NETS[net]().to(dtype)
        optimizer = OPTIMIZERS[optimizer](model.parameters())
        x, y = kobai.tensor(images, dtype=dtype), kobai.tensor(labels)
        losses = []
        for step in range(steps):
            part = slice(step % 3 * 32, step % 3 * 32 + 32)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[part]), y[part], label_smoothing=0.05)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
            losses.append(loss.item())
    return losses, {name: value.cpu().numpy() for name, value in model.state_dict().items()}, model, optimizer


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_follows_that_of_the_cpu(net, optimizer):
    """In float64, where rounding has no time to grow: any larger difference is a mistake."""
    (here, state, *_), (there, moved, *_) = (trained(net, optimizer, where, 12) for where in ("numpy", "cupy"))
    np.testing.assert_allclose(there, here, rtol=1e-7)
    for name, value in state.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, atol=1e-7)
    assert here[-1] < here[0]


@pytest.mark.parametrize("net", NETS)
def test_training_in_float32_follows_roughly(net):
    here, there = (trained(net, "adamw", where, 12, kobai.float32)[0] for where in ("numpy", "cupy"))
    np.testing.assert_allclose(there, here, rtol=2e-3)


@pytest.mark.parametrize(("origin", "target"), [("cupy", "numpy"), ("numpy", "cupy")])
def test_a_checkpoint_of_one_backend_continues_on_the_other(origin, target, tmp_path):
    _, _, model, optimizer = trained("mlp", "adamw", origin, 8)
    file = tmp_path / "checkpoint"
    kobai.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    with kobai.using(target):
        other = NETS["mlp"]().to(kobai.float64)
        follower = OPTIMIZERS["adamw"](other.parameters())
        stored = kobai.load(file)
        other.load_state_dict(stored["model"])
        follower.load_state_dict(stored["optimizer"])
    images, labels = problem()
    losses = []
    for net, steps in ((model, optimizer), (other, follower)):
        where = next(net.parameters()).device
        x, y = kobai.tensor(images, dtype=kobai.float64, device=where), kobai.tensor(labels, device=where)
        net.eval()
        for _ in range(3):
            steps.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            steps.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)
    for name, value in other.state_dict().items():
        np.testing.assert_allclose(value.cpu().numpy(), model.state_dict()[name].cpu().numpy(), rtol=1e-7, atol=1e-10)


def test_map_location(tmp_path):
    kobai.save({"w": kobai.arange(3, device="cuda"), "n": 1}, tmp_path / "file")
    assert not kobai.load(tmp_path / "file")["w"].is_cuda
    there = kobai.load(tmp_path / "file", map_location="cuda")
    assert there["w"].is_cuda
    assert there["w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("net", NETS)
def test_memory_does_not_grow(net):
    images, labels = problem()
    with kobai.using("cupy"):
        model = NETS[net]()
        optimizer = kobai.optim.Adam(model.parameters())
        x, y = kobai.tensor(images), kobai.tensor(labels)
        used = []
        for _ in range(200):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            used.append(kobai.cuda.memory_allocated())
    assert max(used[5:]) == used[5]


@pytest.mark.parametrize("data_on", ["cpu", "cuda"])
def test_trainer(data_on):
    images, labels = problem()
    records = []
    for where in ("numpy", "cupy"):
        with kobai.using(where):
            kobai.manual_seed(2)
            source = data_on if where == "cupy" else "cpu"
            data = TensorDataset(kobai.tensor(images, device=source), kobai.tensor(labels, device=source))
            loader = DataLoader(data, batch_size=16, shuffle=True, generator=kobai.Generator().manual_seed(5))
            model = NETS["cnn"]()
            trainer = Trainer(model, kobai.optim.AdamW(model.parameters(), lr=0.01), metrics=["accuracy"])
            history = trainer.fit(loader, DataLoader(data, batch_size=32), epochs=2)
            assert next(model.parameters()).is_cuda == (where == "cupy")
        records.append([{k: v for k, v in record.items() if k != "time"} for record in history])
    for here, there in zip(*records, strict=True):
        assert here.keys() == there.keys()
        for key, value in here.items():
            np.testing.assert_allclose(there[key], value, rtol=2e-3, atol=0.03 if "acc" in key else 0)
