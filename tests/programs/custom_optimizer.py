"""Own optimisers and an own schedule as subclasses: Lion, SGD with sign and SAM, beside the library's."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Lion(Optimizer):
    """Sign of an interpolated momentum, decoupled weight decay (Chen et al. 2023)."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        if lr <= 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        defaults = dict(lr=lr, betas=betas, weight_decay=weight_decay)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if len(state) == 0:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p)
                state["step"] += 1
                exp_avg = state["exp_avg"]
                update = exp_avg.clone().mul_(beta1).add(p.grad, alpha=1 - beta1).sign_()
                p.add_(update, alpha=-group["lr"])
                exp_avg.mul_(beta2).add_(p.grad, alpha=1 - beta2)
        return loss


class SAM(Optimizer):
    """Sharpness-aware minimisation around a base optimiser (Foret et al. 2021)."""

    def __init__(self, params, base_optimizer, rho=0.05, **kwargs):
        defaults = dict(rho=rho, **kwargs)
        super().__init__(params, defaults)
        self.base_optimizer = base_optimizer(self.param_groups, **kwargs)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        norms = [p.grad.norm(p=2) for g in self.param_groups for p in g["params"] if p.grad is not None]
        grad_norm = torch.norm(torch.stack(norms), p=2)
        for group in self.param_groups:
            scale = group["rho"] / (grad_norm + 1e-12)
            for p in group["params"]:
                if p.grad is None:
                    continue
                self.state[p]["old_p"] = p.data.clone()
                p.add_(p.grad * scale.to(p))
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data = self.state[p]["old_p"]
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()


class NoamLR(LRScheduler):
    def __init__(self, optimizer, warmup, last_epoch=-1):
        self.warmup = warmup
        super().__init__(optimizer, last_epoch)

    def get_lr(self):
        step = max(1, self.last_epoch)
        scale = self.warmup**0.5 * min(step**-0.5, step * self.warmup**-1.5)
        return [base_lr * scale for base_lr in self.base_lrs]


def train(model, optimizer, x, y, steps, scheduler=None):
    losses = []
    for _ in range(steps):
        if isinstance(optimizer, SAM):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.first_step(zero_grad=True)
            F.cross_entropy(model(x), y).backward()
            optimizer.second_step(zero_grad=True)
        else:

            def closure():
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            loss = optimizer.step(closure)
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


def main(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(256, 3)
    y = (x[:, 0] * x[:, 1] > 0).long()

    def make():
        return nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2))

    results = {}
    model = make()
    lion = Lion(model.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = NoamLR(lion, warmup=10)
    losses = train(model, lion, x, y, 150, schedule)
    assert losses[-1] < 0.6 * losses[0], losses[-1]
    assert lion.state[model[0].weight]["step"] == 150
    assert "Lion" in repr(lion)
    state = lion.state_dict()
    assert state["state"][0]["step"] == 150
    fresh = Lion(model.parameters())
    fresh.load_state_dict(state)
    assert torch.equal(fresh.state[model[0].weight]["exp_avg"], lion.state[model[0].weight]["exp_avg"])
    results["exact_lr"] = lion.param_groups[0]["lr"]
    results["lion"] = losses[-1]

    model = make()
    losses = train(model, SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.3, momentum=0.9), x, y, 150)
    assert losses[-1] < 0.6 * losses[0], losses[-1]
    results["sam"] = losses[-1]

    # one exact step of Lion from fixed numbers
    p = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = Lion([p], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (p**2 * torch.tensor([1.0, 2.0, -1.0])).sum().backward()
        optimizer.step()
    results["exact_step"] = (p * torch.tensor([1.0, 10.0, 100.0])).sum().item()
    return results


if __name__ == "__main__":
    print(main())
