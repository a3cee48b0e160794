"""Every optimiser with every flag, in one table that drives the tests beside this file.

An optimiser that is new in ``kobai.optim`` is in it by itself; a row of its own exercises its flags, or gives another rate.
"""

import numpy as np

import kobai
from kobai import optim

# (class name, options that exercise one path, options that make it minimise a parabola within 600 steps)
CASES = [
    ("SGD", {}, {"lr": 0.3}),
    ("SGD", {"momentum": 0.9}, {"lr": 0.05}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}, {"lr": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}, {"lr": 0.05}),
    ("Adagrad", {}, {"lr": 1.0}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}, {"lr": 5.0, "lr_decay": 0.001}),
    ("RMSprop", {}, {"lr": 0.02}),
    ("RMSprop", {"momentum": 0.9}, {"lr": 0.002}),
    ("RMSprop", {"centered": True}, {"lr": 0.01}),
    ("RMSprop", {"centered": True, "momentum": 0.5, "alpha": 0.9}, {"lr": 0.005, "alpha": 0.9}),
    ("Adadelta", {}, {"lr": 10.0}),
    ("Adadelta", {"rho": 0.7, "eps": 1e-3}, {"lr": 1.0}),
    ("Adam", {}, {"lr": 0.1}),
    ("Adam", {"amsgrad": True, "betas": (0.8, 0.9)}, {"lr": 0.1}),
    ("Adam", {"decoupled_weight_decay": True}, {"lr": 0.1}),
    ("AdamW", {}, {"lr": 0.1, "weight_decay": 0.0}),
    ("AdamW", {"amsgrad": True}, {"lr": 0.1, "weight_decay": 0.0}),
    ("Adamax", {}, {"lr": 0.1}),
    ("Adamax", {"betas": (0.8, 0.9)}, {"lr": 0.1}),
    ("NAdam", {}, {"lr": 0.1}),
    ("NAdam", {"decoupled_weight_decay": True, "momentum_decay": 0.1}, {"lr": 0.1}),
    ("RAdam", {}, {"lr": 0.1}),
    ("RAdam", {"decoupled_weight_decay": True, "betas": (0.8, 0.9)}, {"lr": 0.1}),
]
ELSEWHERE = {"Rprop", "ASGD", "LBFGS", "Adafactor", "Muon", "SparseAdam"}  # test_rarer_ and test_whole_optimizers.py
OPTIMIZERS = [name for name, value in vars(optim).items() if isinstance(value, type) and value is not optim.Optimizer]
CASES += [(name, {}, {"lr": 0.1}) for name in OPTIMIZERS if name not in ELSEWHERE | {name for name, _, _ in CASES}]
IDS = ["-".join([name, *(f"{k}={v}" for k, v in flags.items())]) for name, flags, _ in CASES]


def make(module, name, params, **options):
    """An optimiser of ``module`` (kobai.optim, torch.optim)."""
    return getattr(module, name)(params, **options)


def update(name, flags):
    """The kernel of an optimiser, and its numbers at the first step."""
    optimizer = make(optim, name, [parameter([1.0])], **flags)
    (group,) = optimizer.param_groups
    state = optimizer._new_state(group["params"][0], group)
    if "step" in state:
        state["step"] += 1
    return optimizer._kernel(group)[0], optimizer._numbers(group, state)


def parameter(values, dtype=np.float64):
    """A leaf that requires a gradient, on the default backend."""
    return kobai.tensor(np.array(values, dtype), requires_grad=True)


def set_grad(p, values):
    """Set the gradient by hand: these tests need neither layers nor backward."""
    p.grad = kobai.tensor(np.array(values, p.dtype))


def host(p):
    return p.detach().numpy().copy()
