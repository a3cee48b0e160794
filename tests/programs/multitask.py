"""A multi-task net from ModuleDict, ModuleList and ParameterList, with running statistics and learnt task weights."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn import Parameter, ParameterDict, ParameterList


class RunningNorm(nn.Module):
    """Normalises by exponential running mean and variance kept in buffers."""

    def __init__(self, features, momentum=0.1, eps=1e-5):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))
        self.register_buffer("steps", torch.tensor(0), persistent=False)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(x.mean(dim=0), self.momentum)
                self.var = torch.lerp(self.var, x.var(dim=0), self.momentum)
                self.steps += 1
        return (x - self.mean) / torch.sqrt(self.var + self.eps)


class Stage(nn.Module):
    def __init__(self, width, branches, activation):
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(width, width) for _ in range(branches)])
        self.gates = ParameterList([Parameter(torch.ones(1)) for _ in range(branches)])
        activations = nn.ModuleDict([["relu", nn.ReLU()], ["gelu", nn.GELU()], ["tanh", nn.Tanh()]])
        self.activation = activations[activation]

    def forward(self, x):
        total = 0
        for gate, branch in zip(self.gates, self.branches, strict=True):
            total = total + gate * self.activation(branch(x))
        return x + total / len(self.branches)


class MultiTask(nn.Module):
    def __init__(self, features, tasks, width=32):
        super().__init__()
        self.norm = RunningNorm(features)
        self.stem = nn.Linear(features, width)
        self.stages = nn.ModuleList()
        for activation in ("relu", "gelu"):
            self.stages.append(Stage(width, 2, activation))
        self.stages.extend([Stage(width, 1, "tanh")])
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in tasks.items()})
        self.log_vars = ParameterDict({name: Parameter(torch.zeros(())) for name in tasks})

    def forward(self, x):
        x = F.relu(self.stem(self.norm(x)))
        for stage in self.stages:
            x = stage(x)
        return {name: head(x) for name, head in self.heads.items()}


def main(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(512, 6) * torch.tensor([1.0, 5.0, 0.2, 2.0, 1.0, 3.0]) + torch.arange(6)
    z = (x - x.mean(0)) / x.std(0)
    targets = {
        "regress": (z[:, :1] - z[:, 1:2] * 0.5),
        "classify": (z[:, 2] + z[:, 3] > 0).long(),
        "detect": (z[:, 4].abs() > 1).float().unsqueeze(1),
    }
    model = MultiTask(6, {"regress": 1, "classify": 2, "detect": 1})
    keys = list(model.state_dict())
    assert "norm.mean" in keys
    assert "norm.steps" not in keys
    assert "stages.0.gates.1" in keys
    assert "log_vars.detect" in keys
    assert len(model.stages) == 3
    assert list(model.heads.keys()) == ["regress", "classify", "detect"]
    assert "classify" in model.heads

    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    losses = {
        "regress": nn.MSELoss(),
        "classify": nn.CrossEntropyLoss(),
        "detect": nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0])),
    }
    history = []
    for _ in range(14):
        for idx in torch.randperm(512).chunk(8):
            outputs = model(x[idx])
            total = 0.0
            for name, output in outputs.items():
                precision = torch.exp(-model.log_vars[name])
                total += precision * losses[name](output, targets[name][idx]) + model.log_vars[name]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            history.append(total.item())
    model.eval()
    with torch.no_grad():
        outputs = model(x)
        mse = F.mse_loss(outputs["regress"], targets["regress"]).item()
        classify = (outputs["classify"].argmax(-1) == targets["classify"]).float().mean().item()
        detect = ((outputs["detect"].sigmoid() > 0.5) == targets["detect"].bool()).float().mean().item()
    assert int(model.norm.steps) == 112
    assert torch.allclose(model.norm.mean, x.mean(0), atol=1.0)
    assert mse < 0.3, mse
    assert classify > 0.85, classify
    assert detect > 0.72, detect
    del model.heads["detect"]
    model.heads["extra"] = nn.Identity()
    assert set(model.heads) == {"regress", "classify", "extra"}
    return {"mse": mse, "classify": classify, "detect": detect, "last": history[-1]}


if __name__ == "__main__":
    print(main())
