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


def _square_and(w: _Writer, x: int, sign: float, more: float) -> int:
    """± x² + more"""
    square = w("multiply", x, x)
    return w("add", square if sign > 0 else w("negative", square), w.number(more))


def _root(w: _Writer, x: int, sign: float, more: float) -> int:
    return w("sqrt", _square_and(w, x, sign, more))


def _power(w: _Writer, d: int, y: int, args: tuple[int, ...]) -> tuple[int, int]:
    """d b aᵇ⁻¹ and d aᵇ ln a; 0 where a factor is, so that 0⁰ has slopes."""
    a, b = args
    zero = w.number(0)
    slope = w("multiply", b, w("pow", a, w("subtract", b, w.number(1))))
    of_a = w("select", w("equal", b, zero), zero, w("multiply", d, slope))
    return of_a, w("select", w("equal", y, zero), zero, w("multiply", d, w("multiply", y, w("log", a))))


def _angle(w: _Writer, d: int, y: int, args: tuple[int, ...]) -> tuple[int, int]:
    up, right = args
    square = w("add", w("multiply", up, up), w("multiply", right, right))
    return w("multiply", d, w("divide", right, square)), w("negative", w("multiply", d, w("divide", up, square)))


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
    "exp2": lambda w, d, y, args: (w("multiply", w("multiply", w.number(math.log(2)), d), y),),
    "expm1": lambda w, d, y, args: (w("multiply", d, w("add", y, w.number(1))),),
    "log": lambda w, d, y, args: (w("divide", d, args[0]),),
    "log2": lambda w, d, y, args: (w("divide", d, w("multiply", w.number(math.log(2)), args[0])),),
    "log10": lambda w, d, y, args: (w("divide", d, w("multiply", w.number(math.log(10)), args[0])),),
    "log1p": lambda w, d, y, args: (w("divide", d, w("add", w.number(1), args[0])),),
    "sinh": lambda w, d, y, args: (w("multiply", d, w("cosh", args[0])),),
    "cosh": lambda w, d, y, args: (w("multiply", d, w("sinh", args[0])),),
    "asinh": lambda w, d, y, args: (w("divide", d, _root(w, args[0], 1, 1)),),
    "acosh": lambda w, d, y, args: (w("divide", d, _root(w, args[0], 1, -1)),),
    "atanh": lambda w, d, y, args: (w("divide", d, _square_and(w, args[0], -1, 1)),),
    "asin": lambda w, d, y, args: (w("divide", d, _root(w, args[0], -1, 1)),),
    "acos": lambda w, d, y, args: (w("negative", w("divide", d, _root(w, args[0], -1, 1))),),
    "atan": lambda w, d, y, args: (w("divide", d, _square_and(w, args[0], 1, 1)),),
    "pow": _power,
    "atan2": _angle,
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
