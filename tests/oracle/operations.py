"""Functions, methods, in-place forms and out= of OpInfo, in Kobai."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import BinaryUfuncInfo, OpInfo

import kobai
from oracle import bridge, second, verdict
from oracle.bridge import ForeignError, LackingError, has, lookup, own, put, tensors
from oracle.refusals import NO_OUT, refusals, shown
from oracle.verdict import Findings, host, leaves

SAMPLES = 10  # of an operation in one dtype, spread over what PyTorch makes
MADE = 400  # of which so many are looked at
ELEMENTS = 20_000  # more in one sample only cost time
NOT_PUT = {
    "bmm.triton_optimized": "a kernel for GPUs; bmm is compared",
    "max_pool2d_with_indices_backward": "a function that PyTorch's autograd calls, not its users",
}
UNDETERMINED = {
    **dict.fromkeys(
        "bernoulli multinomial normal normal.number_mean normal.in_place rand_like randint randint_like randn randn_like "
        "nn.functional.alpha_dropout nn.functional.dropout nn.functional.dropout2d nn.functional.dropout3d "
        "nn.functional.feature_alpha_dropout.with_train nn.functional.rrelu cauchy exponential geometric log_normal "
        "uniform".split(),
        "draws: one seed gives other numbers, so shapes and dtypes are compared",
    ),
    **dict.fromkeys(
        "empty empty_like empty_strided new_empty".split(), "elements are not set, so shapes and dtypes are compared"
    ),
}
LESS_EXACT = {  # tolerance in float64
    "nn.functional.celu": (1e-7, "PyTorch's backward rounds 1/alpha to float32"),
    "nn.functional.hardsigmoid": (1e-7, "PyTorch's backward multiplies with 1/6 in float32"),
    "nn.functional.soft_margin_loss": (1e-8, "PyTorch's backward takes z/(1 + z) of z = exp(−yx), which loses digits"),
    "linalg.lstsq": (1e-8, "ill-conditioned"),
    "linalg.lstsq.grad_oriented": (1e-8, "ill-conditioned"),
    "linalg.pinv": (1e-8, "ill-conditioned"),
    "pinverse": (1e-8, "ill-conditioned"),
}


def name_of(info: Any) -> str:
    return info.name + (f".{info.variant_test_name}" if info.variant_test_name else "")


def _path(info: Any) -> str | None:
    """Where Kobai has the operation."""
    tried = [info.name, f"nn.functional.{info.name}", f"Tensor.{info.name}"]
    if name_of(info) in UNDETERMINED:  # cauchy, exponential …: PyTorch's tests call Tensor.cauchy_
        tried.append(f"Tensor.{info.name}_")
    return next((path for path in tried if has(path)), None)


OPERATIONS = {name_of(info): info for info in op_db if _path(info) and name_of(info) not in NOT_PUT}
LACKING_PATHS = {name_of(i): i.name for i in op_db if name_of(i) not in {**OPERATIONS, **NOT_PUT}}
LACKING = sorted(LACKING_PATHS)


def function(info: Any) -> Callable[..., Any]:
    return put(info.op) if bridge.is_of_the_tests(info.op) else lookup(_path(info) or "")


def method(info: Any) -> Callable[..., Any] | None:
    """Kobai's method; None if it, or PyTorch, has none."""
    return _variant(info.method_variant)


def in_place_form(info: Any) -> Callable[..., Any] | None:
    return _variant(info.inplace_variant)


def _variant(theirs: Any) -> Callable[..., Any] | None:
    try:
        ours = None if theirs is None else put(theirs)
    except (ForeignError, LackingError):
        return None
    return None if ours is theirs else ours


def dtypes(info: Any) -> list[torch.dtype]:
    """float64 and float32; int64 for what has no floats."""
    known = info.supported_dtypes("cpu")
    return [d for d in (torch.float64, torch.float32) if d in known] or [d for d in (torch.int64,) if d in known]


def samples(info: Any, dtype: torch.dtype) -> list[Any]:
    small = every(info, dtype)
    return small[:: max(1, math.ceil(len(small) / SAMPLES))]


def every(info: Any, dtype: torch.dtype) -> list[Any]:
    grad = dtype.is_floating_point and info.supports_autograd
    made = list(itertools.islice(info.sample_inputs("cpu", dtype, requires_grad=grad), MADE))
    return [s for s in made if sum(t.numel() for t in tensors([s.input, s.args, s.kwargs])) <= ELEMENTS]


def examine(name: str) -> Findings:
    """Everything that differs of one operation."""
    info, findings = OPERATIONS[name], Findings()
    torch.manual_seed(0)
    ours = function(info)
    for dtype in dtypes(info):
        for n, sample in enumerate(samples(info, dtype)):
            given = ((sample.input, *sample.args), dict(sample.kwargs))
            case = Case(findings, info, dtype, given, sample.output_process_fn_grad)
            case.try_form("function", info.op, ours)
            if isinstance(sample.input, torch.Tensor):
                if (theirs := method(info)) is not None:
                    case.try_form("method", info.method_variant, theirs, gradients=False)
                if (theirs := in_place_form(info)) is not None:
                    case.try_form("in place", info.inplace_variant, theirs)
            if info.supports_out and n < 4:
                case.try_out(info.op, ours)
            if n % 3 == 0 and (other := _strided(sample)) is not None:
                case = Case(findings, info, dtype, other, sample.output_process_fn_grad)
                case.try_form("strided", info.op, ours)
    if info.supports_autograd and info.supports_gradgrad and name not in UNDETERMINED:
        _examine_twice(findings, info, ours)
    if isinstance(info, BinaryUfuncInfo) and not name.startswith(
        "__r"
    ):  # Python chooses between a + b and b.__radd__(a)
        for kind, message in dtype_pairs(info, ours):
            findings.note("dtype pairs", kind, message)
    for kind, message in refusals(info, ours):
        findings.note("error inputs", kind, message)
    return findings


def _examine_twice(findings: Findings, info: Any, ours: Any) -> None:
    """The second derivatives of every sample in float64."""
    tolerance = max(verdict.TOLERANCE["float64"], LESS_EXACT.get(name_of(info), (0.0, ""))[0])
    for sample in every(info, torch.float64) if torch.float64 in dtypes(info) else ():
        found = None if sample.kwargs.get("dropout_p") else second.difference(info, ours, sample, tolerance)
        if found is not None:
            kind, what = found
            findings.tried[second.FORM] += 1
            findings.agreed[second.FORM] += not kind
            if kind:
                given = (sample.input, *sample.args), dict(sample.kwargs)
                findings.note(second.FORM, kind, f"{what}\n    float64: {shown(given)}")


def _strided(sample: Any) -> Any:
    """The sample with tensors that are not contiguous; None where PyTorch has no way to make them."""
    try:
        other = sample.noncontiguous()
    except Exception:
        return None
    return (other.input, *other.args), dict(other.kwargs)


class Case:
    """One sample of one operation, put to both in each form."""

    def __init__(self, findings: Findings, info: Any, dtype: torch.dtype, given: Any, process: Any) -> None:
        self.findings, self.info, self.process, self.given = findings, info, process, given
        self.name = name_of(info)
        self.dtype = verdict.dtype_name(dtype)
        self.determined = self.name not in UNDETERMINED and not given[1].get("dropout_p")
        least = LESS_EXACT.get(self.name, (0.0, ""))[0]
        self.tolerance = max(verdict.TOLERANCE.get(self.dtype, 0.0), least)

    def note(self, form: str, kind: str, message: str) -> None:
        self.findings.note(form, kind, f"{message}\n    {self.dtype}: {shown(self.given)}")

    def try_form(self, form: str, theirs: Any, ours: Any, gradients: bool = True) -> None:
        """Compare one form on this sample, and count it; what cannot be put to Kobai does not count."""
        before = self.findings.noted
        if self._try_form(form, theirs, ours, gradients) is not False:
            self.findings.tried[form] += 1
            self.findings.agreed[form] += self.findings.noted == before

    def _try_form(self, form: str, theirs: Any, ours: Any, gradients: bool) -> bool | None:
        args, kwargs = own(self.given)
        made: dict[int, Any] = {}
        try:
            our_args, our_kwargs = put(args, made), put(kwargs, made)
        except (ForeignError, LackingError):
            return False
        our_kwargs = {k: v for k, v in our_kwargs.items() if k not in bridge.ONE_LAYOUT}
        inputs = [(t, made[id(t)]) for t in tensors([args, kwargs])]
        if form == "in place":  # leaves that require gradients cannot be changed in place
            args, our_args = (args[0].clone(), *args[1:]), (our_args[0].clone(), *our_args[1:])
        refused: Exception | None = None
        try:
            their_result = theirs(*args, **kwargs)
        except Exception as error:
            refused = error
        try:
            our_result = ours(*our_args, **our_kwargs)
        except (ForeignError, LackingError):
            return False
        except Exception as error:
            if refused is None:
                self.note(form, verdict.refusal(error), verdict.said(error))
            return None
        if refused is not None:
            return self.note(form, "accepted", f"PyTorch says {verdict.said(refused)}")
        if form == "in place" and our_result is not our_args[0]:
            return self.note(form, "unchanged", "the result is not the tensor itself")
        for t, k in inputs:
            if self.determined and (what := verdict.difference(host(t), host(k), self.tolerance)):
                return self.note(form, "input changed", what)
        if form in ("function", "strided") and (found := _memory(inputs, their_result, our_result)):
            self.note(form, *found)
        kind, what = self.compare(theirs, args, their_result, our_args, our_result, form)
        if kind:
            return self.note(form, kind, what)
        if gradients and self.determined:
            for kind, what in self.gradients(theirs, ours, (args, kwargs), (our_args, our_kwargs), inputs, form,
                                             their_result, our_result):  # fmt: skip
                self.note(form, kind, what)
        return None

    def compare(self, theirs: Any, args: Any, their_result: Any, our_args: Any, our_result: Any, form: str) -> Any:
        a, b = self.fixed(args, their_result), self.fixed(our_args, our_result)
        kind, what = verdict.compare(a, b, self.tolerance, values=self.determined)
        if kind == "value" and self.dtype == "float32":
            exact_args, exact_kwargs = _in_float64(self.given)
            with torch.no_grad():
                first = (exact_args[0].clone(), *exact_args[1:]) if form == "in place" else exact_args
                exact = self.fixed(exact_args, theirs(*first, **exact_kwargs))
            if all(
                verdict.is_rounding(host(t), host(k), host(e))
                if isinstance(t, torch.Tensor) and t.is_floating_point()
                else not verdict.compare(t, k, 0.0)[0]
                for t, k, e in zip(leaves(a), leaves(b), leaves(exact), strict=True)
            ):
                return "", ""
        return kind, what

    def fixed(self, args: Any, result: Any) -> Any:
        """What of ``result`` the definition fixes, beyond signs of vectors and positions of equal elements."""
        name = self.info.name
        if name in ("svd", "linalg.svd"):
            u, s, v = result
            r = min(args[0].shape[-2:])  # columns beyond span the null space, in any way
            return [abs(u[..., :r]), s, abs(v[..., :r, :] if name == "linalg.svd" else v[..., :r])]
        if name in ("linalg.eigh", "qr", "linalg.qr", "pca_lowrank"):
            return [abs(part) for part in result]
        if name == "linalg.lstsq":  # residuals, rank and singular values hang on the driver
            return [result[0]]
        if name in PLACES and isinstance(result, (tuple, list)) and len(result) == 2:
            return [result[0], *self.places(args[0], result[1])]
        return self.places(args[0], result) if name == "argsort" else result

    def places(self, x: Any, indices: Any) -> list[Any]:
        """Indices that may name any of equal elements: the elements they name, and whether one is named twice."""
        if not x.ndim or not indices.numel() or indices.ndim not in (x.ndim, x.ndim - 1):
            return [indices]
        args, kwargs = self.given
        at = PLACES[self.info.name]
        dim = kwargs.get("dim", args[at] if len(args) > at else -1)
        dim = dim if type(dim) is int else -1
        whole = indices if indices.ndim == x.ndim else indices.unsqueeze(dim)
        ordered = np.sort(host(whole), axis=dim)
        return [x.detach().gather(dim, whole), bool((np.diff(ordered, axis=dim) == 0).any())]

    def gradients(
        self, theirs: Any, ours: Any, given: Any, put_: Any, inputs: Any, form: str, their_result: Any, our_result: Any
    ) -> Iterator[tuple[str, str]]:
        asked = list({id(t): (t, k) for t, k in inputs if t.requires_grad}.values())
        if not asked:
            return
        wrapper = self.info.gradcheck_wrapper
        try:
            if wrapper is not OpInfo.gradcheck_wrapper and form != "in place":
                their_result = wrapper(theirs, *given[0], **given[1])
                our_result = put(wrapper)(ours, *put_[0], **put_[1])
            ends = zip(leaves(self.process(their_result)), leaves(put(self.process)(our_result)), strict=True)
            pairs = [(t, k) for t, k in ends if isinstance(t, torch.Tensor) and t.requires_grad]
        except (ForeignError, LackingError):
            return
        if not pairs:
            return
        if any(not k.requires_grad for _, k in pairs):
            yield "no gradient", "the result requires none"
            return
        rng = np.random.default_rng(0)
        weights = [rng.normal(size=tuple(t.shape)) for t, _ in pairs]
        try:
            seeds = [torch.tensor(w, dtype=t.dtype) for w, (t, _) in zip(weights, pairs, strict=True)]
            expected = torch.autograd.grad([t for t, _ in pairs], [t for t, _ in asked], seeds, allow_unused=True)
        except RuntimeError:  # PyTorch has no gradient here
            return
        try:
            seeds = [kobai.tensor(w, dtype=k.dtype) for w, (_, k) in zip(weights, pairs, strict=True)]
            found = kobai.autograd.grad([k for _, k in pairs], [k for _, k in asked], seeds, allow_unused=True)
        except Exception as error:
            yield "no gradient", f"backward raises {verdict.said(error)}"
            return
        for i, (t, k, (leaf, _)) in enumerate(zip(expected, found, asked, strict=True)):
            right = np.zeros(leaf.shape, host(leaf).dtype) if t is None else host(t)
            if k is None:
                if right.any():
                    yield "no gradient", f"of input {i}"
                continue
            if right.shape != tuple(k.shape) or right.dtype != host(k).dtype:
                yield "gradient", f"of input {i}: PyTorch {right.shape} {right.dtype}, Kobai {tuple(k.shape)} {k.dtype}"
            elif (what := verdict.difference(right, host(k), self.tolerance)) and not (
                right.dtype == np.float32 and verdict.is_rounding(right, host(k), self.exact(theirs, weights, form)[i])
            ):
                yield "gradient", f"of input {i}: {what}"

    def exact(self, theirs: Any, weights: Any, form: str) -> list[Any]:
        """PyTorch's gradients in float64."""
        args, kwargs = _in_float64(self.given)
        asked = list({id(t): t for t in tensors([args, kwargs]) if t.requires_grad}.values())
        if form == "in place":
            result = theirs(args[0].clone(), *args[1:], **kwargs)
        else:
            result = self.info.gradcheck_wrapper(theirs, *args, **kwargs)
        ends = [t for t in leaves(self.process(result)) if isinstance(t, torch.Tensor) and t.requires_grad]
        found = torch.autograd.grad(ends, asked, [torch.tensor(w) for w in weights], allow_unused=True)
        return [np.zeros(a.shape) if g is None else host(g) for g, a in zip(found, asked, strict=True)]

    def try_out(self, theirs: Any, ours: Any) -> None:
        """out= is filled and returned, takes the shape when empty, and is refused if its dtype cannot hold the result."""
        args, kwargs = bridge.rebuild(self.given, lambda v: v.detach() if isinstance(v, torch.Tensor) else v)
        if "out" in kwargs:
            return
        try:
            expected = theirs(*args, **kwargs)
            our_args, our_kwargs = put(args), put(kwargs)
            ours(*our_args, **our_kwargs)
        except Exception:  # seen in the form without out=
            return
        if not isinstance(expected, torch.Tensor):
            return
        for shape in (tuple(expected.shape), (0,)):
            out = kobai.zeros(shape, dtype=put(expected.dtype))
            try:
                returned = ours(*our_args, **our_kwargs, out=out)
            except Exception as error:
                if (kind := verdict.refusal(error)) == NO_OUT:
                    self.findings.lacks_out = True
                else:
                    self.note("out=", kind, verdict.said(error))
                return
            kind, what = verdict.compare(expected, out, self.tolerance * 10, values=self.determined)
            if returned is not out or kind:
                self.note("out=", kind or "not returned", what)
        if expected.is_floating_point():
            try:
                theirs(*args, **kwargs, out=torch.zeros(expected.shape, dtype=torch.int64))
            except (RuntimeError, TypeError) as refused:
                try:
                    ours(*our_args, **our_kwargs, out=kobai.zeros(tuple(expected.shape), dtype=kobai.int64))
                except (RuntimeError, TypeError):
                    return
                self.note("out=", "accepted", f"PyTorch says {verdict.said(refused)}")


PLACES = {"sort": 1, "argsort": 1, "topk": 2, "kthvalue": 2, "mode": 1, "median": 1, "nanmedian": 1}
"""Operations that give positions, and which argument is their dimension."""


def _memory(inputs: Any, theirs: Any, ours: Any) -> tuple[str, str] | None:
    """Where a result shares memory with an input in one library and not in the other."""
    if verdict.outline(theirs) != verdict.outline(ours):
        return None
    for i, (t, k) in enumerate(zip(leaves(theirs), leaves(ours), strict=True)):
        for j, (a, b) in enumerate(inputs):
            if not isinstance(t, torch.Tensor) or not t.numel() or not a.numel():
                continue
            there = t.untyped_storage().data_ptr() == a.untyped_storage().data_ptr()
            here = np.may_share_memory(k._array, b._array)
            if here != there:
                return ("shares memory" if here else "copies"), f"result {i} and input {j}; PyTorch does the opposite"
    return None


def _in_float64(given: Any) -> Any:
    def leaf(part: Any) -> Any:
        if isinstance(part, torch.dtype):
            return torch.float64 if part.is_floating_point else part
        if isinstance(part, torch.Tensor) and part.is_floating_point():
            return part.detach().double().requires_grad_(part.requires_grad)
        return part

    return bridge.rebuild(given, leaf)


# --- dtypes -----------------------------------------------------------------------------------------------------------

OPERANDS = {"b": [True, True, False], "i": [1, 2, 3], "u": [1, 2, 3], "f": [1.5, 2.0, 3.25]}
RIGHT = {"b": [True, True, True], "i": [3, 1, 2], "u": [3, 1, 2], "f": [2.5, 1.0, 0.75]}
"""A divisor or an exponent is nowhere 0."""


def dtype_pairs(info: Any, ours: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Operands of every two dtypes, the second with and without dimensions. Where PyTorch refuses a pair that Kobai takes,
    the result has to be that of both converted to their common dtype, or to float32 if it has none for that."""
    for left, right in itertools.product(bridge.DTYPES, bridge.DTYPES):
        a, b = (torch.tensor(table[kind_of(d)], dtype=d) for table, d in ((OPERANDS, left), (RIGHT, right)))
        for other in (b, b[0]):
            try:
                found = ours(put(a), put(other))
            except Exception as error:
                refused: Exception | None = error
            else:
                refused = None
            pair = f"{left} and {right}{'' if other.ndim else ' without dimensions'}"
            expected = _result(info, a, other, convert=refused is None)
            if expected is None:
                if refused is None:
                    yield "accepted", pair
                elif not verdict.is_explained(refused):
                    yield "obscure error", f"{pair}: {verdict.said(refused)}"
            elif refused is not None:
                yield verdict.refusal(refused), f"{pair}: {verdict.said(refused)}"
            else:
                kind, what = verdict.compare(expected, found, 2e-3)
                if kind:
                    yield kind, f"{pair}: {what}"


def kind_of(dtype: torch.dtype) -> str:
    return bridge.DTYPES[dtype].kind


def _result(info: Any, a: torch.Tensor, b: torch.Tensor, convert: bool) -> Any:
    """PyTorch's result; with ``convert`` that of converted operands if it takes them only so; None if it takes them not."""
    common = torch.result_type(a, b)
    for dtype in (None, common, torch.float32) if convert else (None,):
        try:
            return info.op(a, b) if dtype is None else info.op(a.to(dtype), b.to(dtype))
        except (RuntimeError, TypeError):
            continue
    return None
