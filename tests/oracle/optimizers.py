"""Optimisers of OptimizerInfo, in Kobai: five steps, their state and their groups, and what must be refused."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

import kobai
from oracle import verdict
from oracle.bridge import has, lookup, put
from oracle.refusals import both_refuse, shown
from oracle.verdict import Findings, host

OPTIMIZERS = {info.optim_cls.__name__: info for info in optim_db if has(f"optim.{info.optim_cls.__name__}")}
LACKING = sorted({info.optim_cls.__name__ for info in optim_db} - OPTIMIZERS.keys())
ENGINE = {"foreach", "fused", "capturable", "differentiable"}
"""Options that choose among PyTorch's implementations of one mathematics."""
LESS_EXACT = {
    "ASGD": (1e-7, "PyTorch keeps eta and mu of a float64 parameter in float32"),
    "NAdam": (1e-7, "PyTorch keeps mu_product of a float64 parameter in float32"),
}
STEPS = 5


def examine(name: str) -> Findings:
    """Everything that differs of one optimiser."""
    info, findings = OPTIMIZERS[name], Findings()
    ours = lookup(f"optim.{name}")
    for given in info.optim_inputs_func(device="cpu"):
        if ENGINE & given.kwargs.keys():
            continue
        for dtype in ("float64", "float32"):
            _compare(findings, info.optim_cls, ours, given.kwargs, dtype)
        if info.supports_param_groups:
            _compare(findings, info.optim_cls, ours, given.kwargs, "float64", groups=True)
        if "maximize" in info.optim_cls.__init__.__code__.co_varnames:
            _compare(findings, info.optim_cls, ours, {**given.kwargs, "maximize": True}, "float64")
    for bad in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
        _refusal(findings, info.optim_cls, ours, bad)
    return findings


def _refusal(findings: Findings, theirs: Any, ours: Any, bad: Any) -> None:
    given = bad.optimizer_error_input
    is_warning = isinstance(bad.error_type, type) and issubclass(bad.error_type, Warning)

    def call(cls: Any, convert: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error" if is_warning else "ignore")
            parameters = [torch.nn.Parameter(torch.ones(2, 3))] if given.params is None else given.params
            made: dict[int, Any] = {}
            optimizer = cls(convert(parameters, made), **convert(dict(given.kwargs), made))
            if bad.error_on == OptimizerErrorEnum.STEP_ERROR:
                optimizer.step()

    if found := both_refuse(lambda: call(theirs, lambda x, made: x), lambda: call(ours, put)):
        findings.note("error inputs", found[0], f"{found[1]}\n    {shown((given.params, given.kwargs))}")


def _compare(findings: Findings, theirs: Any, ours: Any, options: Any, dtype: str, groups: bool = False) -> None:
    """Steps on equal gradients (of LBFGS: on equal losses); then parameters, state, options of the groups."""
    name, rng = theirs.__name__, np.random.default_rng(0)
    starts = [rng.normal(size=shape).astype(dtype) for shape in ((4, 3), (5,), (2, 3, 2), ())]
    tolerance = max(verdict.TOLERANCE[dtype], LESS_EXACT.get(name, (0.0, ""))[0])

    def note(form: str, kind: str, message: str) -> None:
        findings.note(form, kind, f"{message}\n    {dtype}{', two groups' if groups else ''}: {shown(options)}")

    def make(cls: Any, library: Any, options: Any) -> tuple[list[Any], Any]:
        parameters = [library.nn.Parameter(library.tensor(start)) for start in starts]
        rate = {} if isinstance(options.get("lr"), (torch.Tensor, kobai.Tensor)) else {"lr": 0.005}
        split = [{"params": parameters[:2]}, {"params": parameters[2:], **rate}]
        return parameters, cls(split if groups else parameters, **options)

    def closure(library: Any, parameters: list[Any], optimizer: Any) -> Any:
        def loss() -> Any:
            optimizer.zero_grad()
            distances = zip(parameters, starts, strict=True)
            value = sum(((p - library.tensor(0.3 * start)) ** 4).sum() for p, start in distances)
            value.backward()
            return value

        return loss

    def step(library: Any, parameters: list[Any], optimizer: Any, gradients: list[Any]) -> None:
        if name == "LBFGS":
            optimizer.step(closure(library, parameters, optimizer))
            return
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = library.tensor(gradient)
        optimizer.step()

    try:
        their_parameters, their_optimizer = make(theirs, torch, options)
    except Exception:  # PyTorch takes it on other devices only
        return
    try:
        our_parameters, our_optimizer = make(ours, kobai, put(dict(options)))
        for _ in range(STEPS):
            gradients = [rng.normal(size=start.shape).astype(dtype) for start in starts]
            step(torch, their_parameters, their_optimizer, gradients)
            step(kobai, our_parameters, our_optimizer, gradients)
            for t, k in zip(their_parameters, our_parameters, strict=True):
                if what := verdict.difference(host(t), host(k), tolerance):
                    return note("step", "value", what)
    except Exception as error:
        return note("step", verdict.refusal(error), verdict.said(error))
    a, b = their_optimizer.state_dict(), our_optimizer.state_dict()
    for at, entries in a["state"].items():
        others = b["state"].get(at, {})
        if set(entries) != set(others):
            return note("state", "names", f"PyTorch {sorted(entries)}, Kobai {sorted(others)}")
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                found = host(others[key]) if isinstance(others[key], kobai.Tensor) else np.asarray(others[key])
                if found.shape != tuple(value.shape) or (what := verdict.difference(host(value), found, tolerance)):
                    return note("state", "value", f"{key}: {found.shape} {what}")
    for t, k in zip(a["param_groups"], b["param_groups"], strict=True):
        for key in (t.keys() | k.keys()) - {"params"} - ENGINE:
            values = [group.get(key, "absent") for group in (t, k)]
            left, right = (v.item() if hasattr(v, "item") else tuple(v) if isinstance(v, list) else v for v in values)
            if left != right:
                return note("groups", "value", f"{key}: PyTorch {left!r}, Kobai {right!r}")
