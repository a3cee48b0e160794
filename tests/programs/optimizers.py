"""Every optimiser for some steps on Rosenbrock's valley from a fixed start, with groups, closures, maximise and resume."""

import torch
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop


def rosenbrock(xy):
    x, y = xy
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=1e-3),
    "momentum": lambda p: SGD(p, lr=2e-4, momentum=0.9),
    "moving_average": lambda p: SGD(p, lr=1e-3, momentum=0.9, dampening=0.9),
    "nesterov": lambda p: SGD(p, lr=2e-4, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adagrad": lambda p: Adagrad(p, lr=0.1, lr_decay=0.01),
    "rmsprop": lambda p: RMSprop(p, lr=0.01, alpha=0.9, momentum=0.5),
    "rmsprop_centered": lambda p: RMSprop(p, lr=0.01, centered=True),
    "adadelta": lambda p: Adadelta(p, lr=1.0, rho=0.9),
    "adam": lambda p: Adam(p, lr=0.02, betas=(0.9, 0.99)),
    "amsgrad": lambda p: Adam(p, lr=0.02, amsgrad=True, weight_decay=1e-3),
    "adamw": lambda p: AdamW(p, lr=0.02, weight_decay=0.1),
    "adamax": lambda p: Adamax(p, lr=0.02),
    "nadam": lambda p: NAdam(p, lr=0.02),
    "radam": lambda p: RAdam(p, lr=1e-3),
}


def run(make, steps=60):
    xy = torch.tensor([-1.5, 2.0], dtype=torch.float64, requires_grad=True)
    optimizer = make([xy])
    path = torch.empty(steps + 1, 2, dtype=torch.float64)
    path[0] = xy.detach()
    for i in range(1, steps + 1):
        optimizer.zero_grad()
        loss = rosenbrock(xy)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(xy, 50.0)
        optimizer.step()
        path[i] = xy.detach()
    return path, optimizer


def run_in_two_halves(make, steps=60):
    """The same path, interrupted: the optimiser's state goes through its state dict."""
    xy = torch.tensor([-1.5, 2.0], dtype=torch.float64, requires_grad=True)
    optimizer = make([xy])

    def closure():
        optimizer.zero_grad()
        loss = rosenbrock(xy)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([xy], 50.0)
        return loss

    for _ in range(steps // 2):
        optimizer.step(closure)
    state = optimizer.state_dict()
    assert set(state) == {"state", "param_groups"}
    optimizer = make([xy])
    optimizer.load_state_dict(state)
    for _ in range(steps // 2):
        loss = optimizer.step(closure)
    assert loss.item() >= 0
    return xy.detach()


def main(seed=0):
    torch.manual_seed(seed)
    result = {}
    start = rosenbrock(torch.tensor([-1.5, 2.0])).item()
    for name, make in OPTIMIZERS.items():
        path, _ = run(make)
        end = path[-1]
        assert rosenbrock(end).item() < start, name
        assert torch.allclose(run_in_two_halves(make), end, rtol=1e-9), name
        result["exact_" + name] = path.sum().item()
        result["exact_" + name + "_x"] = end[0].item()
        result["exact_" + name + "_y"] = end[1].item()

    # groups with their own options; a parameter without gradient is left alone; maximise climbs
    a, b, c = (torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3))
    optimizer = Adam([{"params": [a]}, {"params": b, "lr": 0.5}, {"params": c}], lr=0.1)
    (a.sum() + b.sum()).backward()
    optimizer.step()
    assert torch.equal(c, torch.ones(2, dtype=torch.float64))
    climber = SGD([c], lr=0.1, maximize=True)
    (3 * c).sum().backward()
    climber.step()
    result["exact_groups"] = (a + 2 * b + 4 * c).sum().item()
    assert optimizer.param_groups[1]["lr"] == 0.5
    assert "exp_avg" in optimizer.state[a]

    for bad in (lambda: SGD([], lr=0.1), lambda: SGD([a], lr=-1.0), lambda: Adam([a], betas=(1.5, 0.9))):
        try:
            bad()
        except ValueError:
            continue
        raise AssertionError("a bad option must be refused")
    return result


if __name__ == "__main__":
    print(main())
