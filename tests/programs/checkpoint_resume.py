"""Checkpoints: model, optimiser, schedule, epoch and random state saved, loaded and resumed without a difference."""

import io
import os
import tempfile

import torch
import torch.nn as nn
import torch.optim as optim


class TheModelClass(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.fc1 = nn.Linear(2, hidden)
        self.bn = nn.BatchNorm1d(hidden)
        self.drop = nn.Dropout(0.2)
        self.fc2 = nn.Linear(hidden, 2)

    def forward(self, x):
        return self.fc2(self.drop(torch.relu(self.bn(self.fc1(x)))))


def build(hidden=16):
    model = TheModelClass(hidden)
    optimizer = optim.Adam(model.parameters(), lr=0.02, weight_decay=1e-4)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    return model, optimizer, scheduler


def train(model, optimizer, scheduler, x, y, epochs):
    criterion = nn.CrossEntropyLoss()
    model.train()
    loss = None
    for _ in range(epochs):
        for idx in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = criterion(model(x[idx]), y[idx])
            loss.backward()
            optimizer.step()
        scheduler.step()
    return loss.item()


def save_checkpoint(path, epoch, model, optimizer, scheduler, loss):
    torch.save(
        {
            "epoch": epoch,
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler_state_dict": scheduler.state_dict(),
            "rng_state": torch.get_rng_state(),
            "loss": loss,
            "config": {"hidden": 16, "classes": ["inside", "outside"]},
        },
        path,
    )


def main(seed=0):
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.randn(256, 2)
    y = (x.norm(dim=1) > 1.2).long()

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "checkpoint.pt")
        model, optimizer, scheduler = build()
        loss = train(model, optimizer, scheduler, x, y, epochs=6)
        save_checkpoint(path, 6, model, optimizer, scheduler, loss)
        uninterrupted = train(model, optimizer, scheduler, x, y, epochs=6)

        checkpoint = torch.load(path, map_location=device, weights_only=True)
        resumed, resumed_optimizer, resumed_scheduler = build(checkpoint["config"]["hidden"])
        resumed.load_state_dict(checkpoint["model_state_dict"])
        resumed_optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
        resumed_scheduler.load_state_dict(checkpoint["scheduler_state_dict"])
        torch.set_rng_state(checkpoint["rng_state"])
        assert checkpoint["epoch"] == 6
        assert checkpoint["loss"] == loss
        assert checkpoint["config"]["classes"] == ["inside", "outside"]
        after_resume = train(resumed, resumed_optimizer, resumed_scheduler, x, y, epochs=6)
        assert after_resume == uninterrupted, (after_resume, uninterrupted)
        for (name, p), q in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
            assert torch.equal(p, q), name
        assert resumed_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]

        weights_path = os.path.join(folder, "weights.pth")
        torch.save(model.state_dict(), weights_path)
        inference = TheModelClass()
        inference.load_state_dict(torch.load(weights_path))
        inference.eval()
        model.eval()
        with torch.no_grad():
            assert torch.equal(inference(x), model(x))
            accuracy = (inference(x).argmax(1) == y).float().mean().item()

        buffer = io.BytesIO()
        torch.save({"tensors": [torch.arange(3), torch.eye(2)], "pair": (1, 2.5), "none": None}, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer)
        assert loaded["pair"][1] == 2.5
        assert loaded["none"] is None
        assert loaded["tensors"][0].tolist() == [0, 1, 2]
    assert accuracy > 0.85, accuracy
    return {"exact_lr": resumed_scheduler.get_last_lr()[0], "loss": after_resume, "accuracy": accuracy}


if __name__ == "__main__":
    print(main())
