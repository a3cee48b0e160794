"""The derivative of a formula is a formula: reverse mode over its list of operations, so that kernels have kernels as vjps.

For results r₁ … r_k of arrays a₁ … a_n, and numbers, :func:`vjp` is the formula of arrays a₁ … a_n, dr₁ … dr_k with results ::

    daᵢ = Σⱼ drⱼ ∂rⱼ/∂aᵢ

It can be derived again. At kinks: max(a, b) and min(a, b) pass all to b where both are equal, |a| has slope 0 at 0, and a
choice ``a if c else b`` passes to the branch that was taken; conditions and signs have slope 0.

Reference: A. Griewank, A. Walther, *Evaluating Derivatives*, SIAM, 2008, chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from kobai.formula.parse import CONDITIONS, Formula, Value


class _Writer:
    """Adds operations to a formula, and leaves out those with 0 and 1."""

    def __init__(self, formula: Formula) -> None:
        self.formula = formula

    def number(self, number: float) -> int:
        return self.formula.add(Value("number", number=number))

    def __call__(self, op: str, *args: int) -> int:
        known = [self.formula.values[a] for a in args]
        ones = [value.op == "number" and value.number == 1 for value in known]
        if op == "multiply" and any(ones):
            return args[ones.index(False)] if False in ones else args[0]
        return self.formula.add(Value(op, args))


Rule = Callable[[_Writer, int, int, tuple[int, ...]], tuple[int | None, ...]]
"""Of the writer w, dy, y and the operands: what dy adds to the gradient of each operand, None for nothing."""


def _divide(w: _Writer, d: int, y: int, args: tuple[int, ...]) -> tuple[int, int]:
    share = w("divide", d, args[1])
    return share, w("negative", w("multiply", share, y))


def _bell(w: _Writer, d: int, x: int, factor: float) -> int:
    bell = w("exp", w("negative", w("multiply", x, x)))
    return w("multiply", d, w("multiply", w.number(factor * 2 / math.sqrt(math.pi)), bell))


def _chosen(w: _Writer, d: int, condition: int) -> tuple[int, int]:
    zero = w.number(0)
    return w("select", condition, d, zero), w("select", condition, zero, d)


def _cube(w: _Writer, y: int) -> int:
    return w("multiply", y, w("multiply", y, y))


RULES: dict[str, Rule] = {
    "add": lambda w, d, y, args: (d, d),
    "subtract": lambda w, d, y, args: (d, w("negative", d)),
    "multiply": lambda w, d, y, args: (w("multiply", d, args[1]), w("multiply", d, args[0])),
    "divide": _divide,
    "negative": lambda w, d, y, args: (w("negative", d),),
    "abs": lambda w, d, y, args: (w("multiply", d, w("sign", args[0])),),
    "sign": lambda w, d, y, args: (None,),
    "sqrt": lambda w, d, y, args: (w("divide", w("multiply", w.number(0.5), d), y),),
    "rsqrt": lambda w, d, y, args: (w("multiply", w("multiply", w.number(-0.5), d), _cube(w, y)),),
    "exp": lambda w, d, y, args: (w("multiply", d, y),),
    "log1p": lambda w, d, y, args: (w("divide", d, w("add", w.number(1), args[0])),),
    "tanh": lambda w, d, y, args: (w("multiply", d, w("subtract", w.number(1), w("multiply", y, y))),),
    "sigmoid": lambda w, d, y, args: (w("multiply", d, w("multiply", y, w("subtract", w.number(1), y))),),
    "erf": lambda w, d, y, args: (_bell(w, d, args[0], 1.0),),
    "erfc": lambda w, d, y, args: (_bell(w, d, args[0], -1.0),),
    "maximum": lambda w, d, y, args: _chosen(w, d, w("greater", args[0], args[1])),
    "minimum": lambda w, d, y, args: _chosen(w, d, w("less", args[0], args[1])),
    "select": lambda w, d, y, args: (None, *_chosen(w, d, args[0])),
}


def vjp(formula: Formula) -> Formula:
    """The formula of the gradients of ``formula``, of its arrays and those of its results."""
    given = tuple(f"d_{len(formula.arrays)}_{k}" for k in range(len(formula.results)))  # new names, at each order
    made = Formula((*formula.arrays, *given), formula.scalars, list(formula.values))
    w = _Writer(made)
    gradients: dict[int, int] = {}

    def add(i: int, d: int | None) -> None:
        if d is not None and not formula.is_scalar(i):
            gradients[i] = w("add", gradients[i], d) if i in gradients else d

    for name, result in zip(given, formula.results, strict=True):
        add(result, made.add(Value("array", name=name)))
    for i in reversed(formula.operations()):
        value = formula.values[i]
        if i in gradients and value.op not in CONDITIONS:
            for arg, d in zip(value.args, RULES[value.op](w, gradients[i], i, value.args), strict=True):
                add(arg, d)
    places = {value.name: i for i, value in enumerate(formula.values) if value.op == "array"}
    made.results = tuple(gradients.get(places[name], -1) for name in formula.arrays)
    made.results = tuple(w.number(0) if i < 0 else i for i in made.results)
    made.names = ("",) * len(made.results)
    return made.going(made.usual_slots())


def part(formula: Formula, k: int) -> Formula:
    """The formula of result ``k`` alone."""
    made = replace(formula, results=(formula.results[k],), names=("",))
    return made.going(made.usual_slots())
