"""What surrounds training: seeds, devices, printing, formatted logs, gradient statistics, anomalies, inference of dtypes."""

import os
import random
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.backends.cudnn as cudnn
from torch import Tensor, nn, optim
from torch.nn import Linear
from torch.optim.lr_scheduler import StepLR


def seed_everything(seed: int = 42) -> None:
    random.seed(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    cudnn.deterministic = True
    cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


@dataclass
class Config:
    lr: float = 0.1
    hidden: int = 8
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Regressor(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.hidden = Linear(3, config.hidden, dtype=config.dtype)
        self.out = Linear(config.hidden, 1, device=config.device)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> torch.Tensor:
        h = torch.tanh(self.hidden(x))
        if mask is not None:
            h = h * mask
        return self.out(h)


def log_gradients(model: nn.Module) -> list[str]:
    lines = []
    for name, param in model.named_parameters():
        if param.requires_grad and param.grad is not None:
            g = param.grad
            lines.append(f"{name:<15} shape={tuple(g.shape)!s:<8} norm={g.norm():.4f} max={g.abs().max():.2e}")
    return lines


def train(config: Config) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((32, 3))).float()
    y = x.sum(dim=1, keepdim=True).sin()
    model = Regressor(config)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.as_tensor(rng.uniform(-0.5, 0.5, p.shape), dtype=p.dtype))
    optimizer = optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=5, gamma=0.5)
    logs = []
    for epoch in range(1, 11):
        loss = ((model(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if epoch % 5 == 0:
            logs.append(
                f"Epoch [{epoch}/{10}], Loss: {loss.item():.4f}, lr: {scheduler.get_last_lr()[0]:.3f}"
                + f" | {loss.item():>7f} | {loss.detach():.3f} | %.2f" % loss.item()
            )
    return logs, log_gradients(model)


def printing() -> str:
    lines = [str(torch.tensor([[1.0, 2.5], [1e-3, 100.0]])), str(torch.tensor(3.14159)), f"{torch.tensor(0.12345):.3f}"]
    torch.set_printoptions(precision=2, sci_mode=False)
    lines.append(str(torch.tensor([1.23456, 1e-7, 1000.5])))
    torch.set_printoptions(profile="default")
    lines.append(str(torch.arange(2000.0)))
    lines.append(str([torch.tensor(1), torch.tensor([True, False])]))
    return "\n".join(lines)


def find_nan() -> str:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    try:
        with warnings.catch_warnings(action="ignore"), torch.autograd.detect_anomaly(check_nan=True):
            y = torch.sqrt(x) * 0
            y.sum().backward()
    except RuntimeError as error:
        return "Sqrt" if "Sqrt" in str(error) and "nan" in str(error) else str(error)
    return "nothing found"


def main():
    seed_everything()
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        logs, gradients = train(Config(device=device, dtype=torch.float))
        print("\n".join(logs + gradients))
        text = printing()
        print(text)
        assert find_nan() == "Sqrt"
        state = torch.get_rng_state()
        a = torch.rand(3)
        torch.set_rng_state(state)
        assert torch.equal(a, torch.rand(3))
        seed_everything(7)
        with torch.random.fork_rng():
            torch.rand(5)
        b = torch.rand(2)
        seed_everything(7)
        assert torch.equal(b, torch.rand(2))
    finally:
        torch.use_deterministic_algorithms(False)
    loss = torch.tensor(1.0)
    assert not (torch.isnan(loss) | torch.isinf(loss)) and torch.isfinite(loss).all()
    assert isinstance(loss, torch.Tensor) and torch.is_tensor(loss) and isinstance(torch.float32, torch.dtype)
    assert torch.finfo(torch.float32).eps == np.finfo(np.float32).eps and torch.iinfo(torch.int64).max > 2**62
    assert float(loss) == 1 and int(loss) == 1 and abs(np.exp(loss.item()) - np.e) < 1e-5
    out = torch.empty(2, 2)
    torch.matmul(torch.eye(2), torch.ones(2, 2), out=out)
    ratio = torch.ones(3, requires_grad=True) / torch.tensor([1.0, 2.0, 4.0])
    ratio += 1
    ratio.sum().backward()
    return {
        "exact_logs": "\n".join(logs),
        "exact_gradients": "\n".join(gradients),
        "exact_text": text,
        "exact_out": out.sum().item(),
    }


if __name__ == "__main__":
    print(main())
