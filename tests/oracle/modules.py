"""Modules of ModuleInfo, in Kobai: forward, state, gradients, buffers, and what must be refused."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

import kobai
from oracle import verdict
from oracle.bridge import ForeignError, LackingError, has, lookup, own, put, tensors
from oracle.operations import SAMPLES
from oracle.refusals import both_refuse, shown
from oracle.verdict import Findings, host, leaves

MODULES = {info.module_cls.__name__: info for info in module_db if has(f"nn.{info.module_cls.__name__}")}
LACKING = sorted({info.module_cls.__name__ for info in module_db} - MODULES.keys())
LESS_EXACT = {"Hardsigmoid": (1e-7, "PyTorch's backward multiplies with 1/6 in float32")}


def examine(name: str) -> Findings:
    """Everything that differs of one module."""
    info, findings = MODULES[name], Findings()
    torch.manual_seed(0)
    for dtype, training in itertools.product((torch.float64, torch.float32), (True, False)):
        made = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
        for given in made[:: max(1, math.ceil(len(made) / SAMPLES))]:
            _Case(findings, info, dtype, training, given).run()
    if not info.is_lazy:
        _constructor_arguments(findings, info)
        _ranks(findings, info)
    if info.module_error_inputs_func is not None:
        for training in (True, False):
            for given in info.module_error_inputs_func(
                info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
            ):
                _refusal(findings, info, training, given)
    return findings


def _refusal(findings: Findings, info: Any, training: bool, given: Any) -> None:
    constructor, forward = given.module_error_input.constructor_input, given.module_error_input.forward_input

    def call(cls: Any, convert: Any) -> None:
        module = cls(*convert(constructor.args), **convert(constructor.kwargs))
        if given.error_on == ModuleErrorEnum.FORWARD_ERROR:
            module.to(convert(torch.float64)).train(training)(*convert(forward.args), **convert(forward.kwargs))

    ours = lookup(f"nn.{info.module_cls.__name__}")
    if found := both_refuse(lambda: call(info.module_cls, lambda x: x), lambda: call(ours, put)):
        asked = [given for given in (constructor, forward) if given is not None]
        findings.note("error inputs", found[0], f"{found[1]}\n    {[shown((a.args, a.kwargs)) for a in asked]}")


NONSENSE = [-1, 0, 1.5, float("nan"), "x", None, (2,)]
"""What hardly any argument of a constructor may be. Only what PyTorch refuses is expected to be refused."""


def _constructor_arguments(findings: Findings, info: Any) -> None:
    """Each argument of the constructor as NONSENSE, the others as in PyTorch's first sample."""
    theirs, ours = info.module_cls, lookup(f"nn.{info.module_cls.__name__}")
    given = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=True)[0]
    c, f = given.constructor_input, given.forward_input
    signature = inspect.signature(theirs.__init__).parameters
    names = [name for name in signature if name not in ("self", "device", "dtype", "size_average", "reduce")]
    usual = {**dict(zip(names, c.args, strict=False)), **c.kwargs}

    def call(cls: Any, convert: Any, name: str, value: Any) -> None:
        module = cls(**{**convert(usual), name: value})
        module.train()(*convert(f.args), **convert(f.kwargs))

    for name, value in itertools.product(names, NONSENSE):
        if isinstance(usual.get(name), (torch.nn.Module, torch.Tensor)):
            continue
        found = both_refuse(
            lambda name=name, value=value: call(theirs, lambda x: x, name, value),
            lambda name=name, value=value: call(ours, put, name, value),
        )
        if found and found[0] == "accepted":
            findings.note("constructor", f"accepts {name}", f"{name}={value!r}: {found[1]}")


def _ranks(findings: Findings, info: Any) -> None:
    """The first input with more and with fewer dimensions, and with another number of channels."""
    theirs, ours = info.module_cls, lookup(f"nn.{info.module_cls.__name__}")
    for given in info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=True)[
        :4
    ]:
        c, f = given.constructor_input, given.forward_input
        if not f.args or not isinstance(f.args[0], torch.Tensor):
            continue
        x = f.args[0]
        others = {f"{n} more dimensions": x[(None,) * n] for n in (1, 2, 3)}
        others |= {f"{n} fewer dimensions": x[(0,) * n] for n in range(1, x.ndim + 1) if 0 not in x.shape}
        others |= {f"another size of dimension {d}": torch.cat([x, x], d) for d in range(x.ndim)}
        others |= {f"nothing in dimension {d}": x.narrow(d, 0, 0) for d in range(x.ndim)}

        def call(cls: Any, convert: Any, other: Any, c: Any = c, f: Any = f) -> None:
            cls(*convert(c.args), **convert(c.kwargs))(convert(other), *convert(f.args[1:]), **convert(f.kwargs))

        def as_it_is(value: Any) -> Any:
            return value

        for what, other in others.items():
            found = both_refuse(
                lambda other=other: call(theirs, as_it_is, other), lambda other=other: call(ours, put, other)
            )
            if found and found[0] == "accepted":
                findings.note("forward", f"accepts {what}", f"{tuple(other.shape)}: {found[1]}")


def _draws(module: torch.nn.Module, training: bool) -> bool:
    """Whether its results are random."""
    return training and any(
        (isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0)
        or isinstance(part, torch.nn.RReLU)
        or (isinstance(getattr(part, "dropout", None), float) and part.dropout > 0)
        for part in module.modules()
    )


class _Case:
    """One module with one input, twice forward (statistics move), once backward."""

    def __init__(self, findings: Findings, info: Any, dtype: torch.dtype, training: bool, given: Any) -> None:
        self.findings, self.info, self.training = findings, info, training
        self.constructor, self.forward = given.constructor_input, given.forward_input
        self.torch_dtype, self.dtype = dtype, verdict.dtype_name(dtype)
        least = LESS_EXACT.get(info.module_cls.__name__, (0.0, ""))[0]
        self.tolerance = max(verdict.TOLERANCE[self.dtype], least)

    def note(self, form: str, kind: str, message: str) -> None:
        asked = [shown((part.args, part.kwargs)) for part in (self.constructor, self.forward)]
        self.findings.note(form, kind, f"{message}\n    {self.dtype}, training={self.training}: {' '.join(asked)}")

    def run(self) -> None:
        c, f = self.constructor, self.forward
        cls = self.info.module_cls
        theirs = cls(*c.args, **c.kwargs).to(self.torch_dtype).train(self.training)
        if self.info.is_lazy:
            theirs(*own(f.args), **own(f.kwargs))  # materialises it
        try:
            args, kwargs = put(c.args), put(dict(c.kwargs))
        except (ForeignError, LackingError):
            return
        try:
            ours = lookup(f"nn.{cls.__name__}")(*args, **kwargs).to(put(self.torch_dtype)).train(self.training)
            if self.info.is_lazy:
                ours(*put(f.args), **put(dict(f.kwargs)))
        except (ForeignError, LackingError):
            return
        except Exception as error:
            return self.note("constructor", verdict.refusal(error), verdict.said(error))
        if what := self.state(theirs, ours):
            return self.note("state", "names", what)
        ours.load_state_dict(put({k: v.detach() for k, v in theirs.state_dict().items()}))
        for _ in range(2):
            if not self.step(theirs, ours):
                return

    def state(self, theirs: Any, ours: Any) -> str:
        a, b = theirs.state_dict(), ours.state_dict()
        if list(a) != list(b):
            return f"PyTorch {list(a)}, Kobai {list(b)}"
        for name, value in a.items():
            if tuple(value.shape) != tuple(b[name].shape) or put(value.dtype) != b[name].dtype:
                return (
                    f"{name}: PyTorch {tuple(value.shape)} {value.dtype}, Kobai {tuple(b[name].shape)} {b[name].dtype}"
                )
        return ""

    def step(self, theirs: Any, ours: Any) -> bool:
        """Whether it came to its end with nothing to note."""
        args, kwargs = own((self.forward.args, dict(self.forward.kwargs)))
        made: dict[int, Any] = {}
        try:
            our_args, our_kwargs = put(args, made), put(kwargs, made)
        except (ForeignError, LackingError):
            return False
        refused: Exception | None = None
        try:
            expected = theirs(*args, **kwargs)
        except Exception as error:
            refused = error
        try:
            found = ours(*our_args, **our_kwargs)
        except Exception as error:
            if refused is None:
                self.note("forward", verdict.refusal(error), verdict.said(error))
            return False
        if refused is not None:
            self.note("forward", "accepted", f"PyTorch says {verdict.said(refused)}")
            return False
        determined = not _draws(theirs, self.training)
        kind, what = verdict.compare(expected, found, self.tolerance, values=determined)
        if kind:
            self.note("forward", kind, what)
            return False
        if not determined:
            return True
        for (name, t), (_, k) in zip(theirs.named_buffers(), ours.named_buffers(), strict=True):
            if what := verdict.difference(host(t), host(k), self.tolerance):
                self.note("buffer", "value", f"{name}: {what}")
        return self.gradients(theirs, ours, (args, kwargs), made, expected, found)

    def gradients(self, theirs: Any, ours: Any, given: Any, made: Any, expected: Any, found: Any) -> bool:
        ends = zip(leaves(expected), leaves(found), strict=True)
        pairs = [(t, k) for t, k in ends if isinstance(t, torch.Tensor) and t.requires_grad]
        if not pairs:
            return True
        if any(not k.requires_grad for _, k in pairs):
            self.note("forward", "no gradient", "the result requires none")
            return False
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=tuple(t.shape)) for t, _ in pairs]
        seeds = [torch.tensor(w, dtype=t.dtype) for w, (t, _) in zip(weights, pairs, strict=True)]
        inputs = list({id(t): t for t in tensors(given) if t.requires_grad}.values())
        names = [*(f"input {i}" for i in range(len(inputs))), *dict(theirs.named_parameters())]
        asked = [*inputs, *theirs.parameters()]
        right = torch.autograd.grad([t for t, _ in pairs], asked, seeds, allow_unused=True)
        seeds = [kobai.tensor(w, dtype=k.dtype) for w, (_, k) in zip(weights, pairs, strict=True)]
        our_asked = [*(made[id(t)] for t in inputs), *ours.parameters()]
        try:
            got = kobai.autograd.grad([k for _, k in pairs], our_asked, seeds, allow_unused=True)
        except Exception as error:
            self.note("backward", verdict.refusal(error), verdict.said(error))
            return False
        for name, t, k, leaf in zip(names, right, got, asked, strict=True):
            a = np.zeros(leaf.shape, host(leaf).dtype) if t is None else host(t)
            b = np.zeros(leaf.shape, host(leaf).dtype) if k is None else host(k)
            if what := verdict.difference(a, b, 4 * self.tolerance):
                self.note("backward", "gradient", f"of {name}: {what}")
                return False
        return True
