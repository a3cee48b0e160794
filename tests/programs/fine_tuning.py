"""Fine-tuning: pre-train, replace the head, freeze the body, then unfreeze with smaller rates per parameter group."""

from collections import OrderedDict

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset


class Backbone(nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                [
                    ("fc1", nn.Linear(8, 64)),
                    ("bn1", nn.BatchNorm1d(64)),
                    ("relu1", nn.ReLU()),
                    ("fc2", nn.Linear(64, 32)),
                    ("relu2", nn.ReLU()),
                ]
            )
        )
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x):
        return self.fc(self.features(x))


def make_task(n, classes, offset):
    centres = torch.eye(8)[:classes].roll(offset, dims=1) * 2.5
    y = torch.randint(0, classes, (n,))
    return TensorDataset(centres[y] + 0.5 * torch.randn(n, 8), y)


def run(model, dataset, optimizer, epochs, device, scheduler=None):
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    for _ in range(epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            corrects = 0
            for inputs, labels in loader:
                inputs, labels = inputs.to(device), labels.to(device)
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = F.cross_entropy(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                corrects += torch.sum(preds == labels.data)
        if scheduler is not None:
            scheduler.step()
    return (corrects.double() / len(dataset)).item()


def main(seed=0):
    torch.manual_seed(seed)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    pretrained = Backbone(4).to(device)
    source_accuracy = run(
        pretrained, make_task(320, 4, 0), optim.SGD(pretrained.parameters(), lr=0.05, momentum=0.9), 3, device
    )

    model = Backbone(3)
    weights = {k: v for k, v in pretrained.state_dict().items() if not k.startswith("fc.")}
    result = model.load_state_dict(weights, strict=False)
    assert sorted(result.missing_keys) == ["fc.bias", "fc.weight"]
    assert result.unexpected_keys == []
    try:
        model.load_state_dict(pretrained.state_dict())
    except RuntimeError as error:
        assert "fc.weight" in str(error)
    else:
        raise AssertionError("a head of another shape must be refused")
    assert torch.equal(model.features.fc1.weight, pretrained.features.fc1.weight)

    for param in model.features.parameters():
        param.requires_grad = False
    num_ftrs = model.fc.in_features
    model.fc = nn.Linear(num_ftrs, 3)
    model = model.to(device)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable == ["fc.weight", "fc.bias"]

    before = model.features.fc2.weight.detach().clone()
    target = make_task(320, 3, 4)
    optimizer = optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=0.02, momentum=0.9)
    frozen_accuracy = run(model, target, optimizer, 3, device)
    assert torch.equal(before, model.features.fc2.weight)
    assert model.features.fc2.weight.grad is None

    model.features.requires_grad_(True)
    optimizer = optim.SGD(
        [{"params": model.fc.parameters()}, {"params": model.features.fc2.parameters(), "lr": 1e-3}],
        lr=1e-2,
        momentum=0.9,
        weight_decay=1e-4,
    )
    optimizer.add_param_group({"params": model.features.bn1.parameters(), "lr": 1e-4, "weight_decay": 0})
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    accuracy = run(model, target, optimizer, 3, device, scheduler)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert not torch.equal(before, model.features.fc2.weight)
    assert source_accuracy > 0.9
    assert accuracy > 0.8, accuracy
    return {
        "exact_lr_head": rates[0],
        "exact_lr_fc2": rates[1],
        "exact_lr_bn": rates[2],
        "exact_weight_decay_bn": float(optimizer.param_groups[2]["weight_decay"]),
        "source_accuracy": source_accuracy,
        "frozen_accuracy": frozen_accuracy,
        "accuracy": accuracy,
    }


if __name__ == "__main__":
    print(main())
