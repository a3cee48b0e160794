"""A formula as the body of a loop over elements: Python for Numba, and CUDA C. One writer, two tables of spellings."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from kobai.engine import disk_cache, dispatch, exponential, fused, logarithm, roots, special, trigonometry
from kobai.formula.parse import Formula, Value

_BOTH = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "pow": "pow({0}, {1})",
    "atan2": "atan2({0}, {1})",
} | {
    name: f"{name}({{0}})"
    for name in (
        "sqrt rsqrt exp exp2 expm1 log log2 log10 log1p sinh cosh tanh asinh acosh atanh asin acos atan erf erfc".split()
    )
}

PYTHON = _BOTH | {
    "abs": "abs({0})",
    "sign": "one if {0} > zero else (-one if {0} < zero else {0})",
    "sigmoid": "sigmoid({0})",
    "maximum": "{0} if ({0} > {1}) | ({0} != {0}) else {1}",
    "minimum": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "not": "not {0}",
    "select": "{1} if {0} else {2}",
    "fused add": "fma({0}, {1}, {2})",
    "fused subtract": "fma({0}, {1}, -{2})",
    "fused subtracted": "fma(-{0}, {1}, {2})",
}

CUDA = _BOTH | {
    "abs": "fabs({0})",
    "sign": "{0} > 0 ? A(1) : {0} < 0 ? A(-1) : {0}",
    "sigmoid": "A(1) / (A(1) + exp(-{0}))",
    "maximum": "maximum({0}, {1})",
    "minimum": "minimum({0}, {1})",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
    "not": "!{0}",
    "select": "{0} ? {1} : {2}",
}


def _lines(
    formula: Formula, spelling: dict[str, str], number: Callable[[float], str], assignment: Callable[[int, str], str]
) -> tuple[list[str], list[str]]:
    """Lines that compute the operations: those done once, and those done for each element.

    Values are called x_… (arrays), h_… (scalars) and t0, t1, …; ``assignment`` writes that the value of this number is an
    expression.
    """
    once: list[str] = []
    each: list[str] = []
    sums, taken = _fused(formula) if "fused add" in spelling else ({}, set())
    for i in formula.operations():
        value = formula.values[i]
        op, args = sums.get(i, (value.op, value.args))
        if i not in taken:
            expression = spelling[op].format(*(_name(formula, a, number) for a in args))
            (once if formula.is_scalar(i) else each).append(assignment(i, expression))
    return once, each


def _fused(formula: Formula) -> tuple[dict[int, tuple[str, tuple[int, ...]]], set[int]]:
    """Sums with a product that nothing else uses, by number: how they are spelt with it fused in, and of which values; and
    these products.

    A compiler that may fuse any chooses by the processor, where a sum has two products or a product a sum. Here it is the last.
    """
    operations = formula.operations()
    uses = Counter(a for i in operations for a in formula.values[i].args) + Counter(formula.results)
    found: dict[int, tuple[str, tuple[int, ...]]] = {}
    taken: set[int] = set()
    for i in operations:
        value = formula.values[i]
        for place in (1, 0) if value.op in ("add", "subtract") else ():
            a = value.args[place]
            product = formula.values[a]
            alike = formula.is_scalar(a) == formula.is_scalar(i)  # else it is computed once, before the loop
            if product.op == "multiply" and uses[a] == 1 and alike:
                how = "add" if value.op == "add" else ("subtract", "subtracted")[place]
                found[i] = f"fused {how}", (*product.args, value.args[1 - place])
                taken.add(a)
                break
    return found, taken


def _name(formula: Formula, i: int, number: Callable[[float], str]) -> str:
    value = formula.values[i]
    if value.op == "number":
        return number(value.number)
    return {"array": "x_", "scalar": "h_"}.get(value.op, "") + value.name if value.name else f"t{i}"


# --- Numba ------------------------------------------------------------------------------------------------------------

HEADER = '''"""Written by kobai.formula.elementwise. Loops for Numba, which keeps their machine code beside this file."""

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy import sqrt

from kobai.engine.exponential import cosh, exp, exp2, expm1, sigmoid, sinh, tanh
from kobai.engine.fused import fma
from kobai.engine.logarithm import acosh, asinh, atanh, log, log10, log1p, log2, pow
from kobai.engine.roots import rsqrt
from kobai.engine.special import compiled_erf as erf, compiled_erfc as erfc
from kobai.engine.trigonometry import acos, asin, atan, atan2


def _mark(builder, instruction, slot, slots):
    """Tell LLVM that different slots are different memory: it need not compare addresses before it vectorises."""
    module = builder.module
    domain = module.add_metadata(["slots of a kernel"])
    scopes = [module.add_metadata([f"slot {k}", domain]) for k in range(slots)]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[slot]]))
    instruction.set_metadata("noalias", module.add_metadata(scopes[:slot] + scopes[slot + 1 :]))


def _element(context, builder, dtype, address, index):
    pointer = builder.inttoptr(address, context.get_data_type(dtype).as_pointer())
    return builder.gep(pointer, [index])


@intrinsic(prefer_literal=True)
def load(typing, address, index, like, slot, slots):
    """The element number ``index`` of the array of ``like``'s type at this address."""
    def write(context, builder, signature, args):
        instruction = builder.load(_element(context, builder, like, args[0], args[1]))
        _mark(builder, instruction, slot.literal_value, slots.literal_value)
        return instruction
    return like(address, index, like, slot, slots), write


@intrinsic(prefer_literal=True)
def store(typing, address, index, value, slot, slots):
    """Make ``value`` the element number ``index`` of the array at this address."""
    def write(context, builder, signature, args):
        instruction = builder.store(args[2], _element(context, builder, value, args[0], args[1]))
        _mark(builder, instruction, slot.literal_value, slots.literal_value)
    return types.void(address, index, value, slot, slots), write
'''


def numba_source(name: str, formula: Formula) -> str:
    """Three loops: over one array each, over a table of many, and one for other compiled loops to call.

    ``name_loop(*slots, numbers, start, stop)`` computes the elements [start, stop). ``name_many(table, offsets, numbers,
    start, stop)`` does so for arrays thought of as one after the other: column k of ``table`` holds the addresses of the k-th
    arrays, which begin at ``offsets[k]``. ``numbers`` is a 1-D array of the same dtype. ``name_at(T, *addresses, *numbers,
    stop)`` computes ``stop`` elements of type ``T`` that begin at addresses.
    """
    slots = formula.slots
    constants: dict[float, str] = {}

    def number(value: float) -> str:
        return constants.setdefault(value, f"c{len(constants)}")

    once, each = _lines(formula, PYTHON, number, lambda i, expression: f"t{i} = {expression}")
    used = {a for i in formula.operations() for a in formula.values[i].args} | set(formula.results)
    loads = [
        f"x_{name} = load(a{k}, i, zero, {k}, {slots})"
        for k, name in enumerate(formula.arrays)
        if formula.values.index(Value("array", name=name)) in used
    ]
    stores = [
        f"store(a{slot}, i, {_name(formula, result, number)}, {slot}, {slots})"
        for result, slot in zip(formula.results, formula.into, strict=True)
    ]
    given = ["T = numbers.dtype.type", *(f"h_{name} = numbers[{k}]" for k, name in enumerate(formula.scalars))]
    first = ["zero, one = T(0), T(1)", *(f"{name} = T({value!r})" for value, name in constants.items()), *once]
    loop = loads + each + stores
    many = [
        "for k in range(offsets.size - 1):",
        "    begin, end = max(start, offsets[k]) - offsets[k], min(stop, offsets[k + 1]) - offsets[k]",
        f"    {', '.join(f'a{k}' for k in range(slots))}, = {', '.join(f'table[{k}, k]' for k in range(slots))},",
        "    for i in range(begin, end):",
        *(f"        {line}" for line in loop),
    ]
    line_by_line = ["for i in range(start, stop):", *(f"    {line}" for line in loop)]
    one = [
        *(f"a{k} = slot{k}.ctypes.data" for k in range(slots)),
        *line_by_line,
    ]
    parameters = ", ".join(f"slot{k}" for k in range(slots))
    addresses = ", ".join([*(f"a{k}" for k in range(slots)), *(f"h_{name}" for name in formula.scalars)])
    return "\n".join(
        [
            HEADER,
            "",
            f"def {name}_loop({parameters}, numbers, start, stop):",
            *(f"    {line}" for line in given + first + one),
            "",
            "",
            f"def {name}_many(table, offsets, numbers, start, stop):",
            *(f"    {line}" for line in given + first + many),
            "",
            "",
            f"def {name}_at(T, {addresses}, stop):",
            *(f"    {line}" for line in [*first, "start = 0", *line_by_line]),
            "",
        ]
    )


class Loops:
    """The compiled loops of one formula: over one array each, over a table of many, and from addresses on."""

    def __init__(self, name: str, formula: Formula) -> None:
        module = load_module(name, numba_source(name, formula))
        self.one = dispatch.in_order(getattr(module, f"{name}_loop"))
        self.many = dispatch.in_order(getattr(module, f"{name}_many"))
        self.at = dispatch.in_order(getattr(module, f"{name}_at"))


@cache
def _beside() -> str:
    """What else the machine code depends on, beside the versions that Numba looks at itself."""
    return "".join(map(inspect.getsource, (dispatch, exponential, fused, logarithm, roots, special, trigonometry)))


def load_module(name: str, source: str) -> Any:
    """The source as a module in a file whose name says its content, so that Numba finds the machine code again."""
    name = f"kobai_{name}_{disk_cache.sha256(f'{source}{_beside()}'.encode()).hex()[:16]}"
    module = ModuleType(name)
    module.__file__ = disk_cache.source_file(name, source)
    sys.modules[name] = module  # where Numba looks when it reads machine code from disk
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module


# --- CUDA C -----------------------------------------------------------------------------------------------------------


def cuda_lines(formula: Formula) -> tuple[list[str], list[str]]:
    """Lines of CUDA C: what is computed once, and what for each element, from ``x_name`` to ``y0``, ``y1``, … of type A."""

    def number(value: float) -> str:
        return f"A({value!r})"

    def assignment(i: int, expression: str) -> str:
        return f"const {'bool' if formula.is_condition(i) else 'A'} t{i} = {expression};"

    once, each = _lines(formula, CUDA, number, assignment)
    each += [f"const A y{k} = {_name(formula, result, number)};" for k, result in enumerate(formula.results)]
    return once, each
