"""One scalar Python function, read once as a formula: a list of operations, each on values that stand before it.

What may stand in it: assignments to names, one ``return`` at the end, ``+ - * /``, powers with a number as exponent,
comparisons, ``and or not``, ``a if c else b``, numbers, ``abs`` and the functions of :mod:`kobai.formula.scalar`, numbers of
its module by name, and calls of other such functions, which are written out in place. Nothing else, so that three engines
can run it.
"""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from kobai.formula import scalar

FUNCTION_NAMES = (
    "sqrt", "rsqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
    "asin", "acos", "atan", "sigmoid", "erf", "erfc", "sign", "maximum", "minimum", "pow", "atan2",
)  # fmt: skip
FUNCTIONS: dict[Any, str] = {getattr(scalar, name): name for name in FUNCTION_NAMES} | {abs: "abs"}
"""Functions that a formula may call, and what the operation is called."""

CONDITIONS = frozenset({"less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "and", "or", "not"})

_BINARY: dict[type, str] = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}
_COMPARE: dict[type, str] = {
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
_FOLD: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negative": lambda a: -a,
    "sqrt": math.sqrt,
}


@dataclass(frozen=True)
class Value:
    """``op`` of the values numbered ``args``; op "array" and "scalar" are the parameter ``name``, op "number" is ``number``."""

    op: str
    args: tuple[int, ...] = ()
    name: str = ""
    number: float = 0.0


@dataclass
class Formula:
    """``values`` in the order of computing; ``results`` are numbers of values, called ``names`` where they are returned.

    A kernel works on *slots*: the arrays of the formula, and behind them the results that go elsewhere. ``into`` says to which
    slot each result goes.
    """

    arrays: tuple[str, ...]
    scalars: tuple[str, ...]
    values: list[Value] = field(default_factory=list)
    results: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    into: tuple[int, ...] = ()

    def going(self, into: tuple[int, ...]) -> Formula:
        """The same formula with its results in other slots."""
        return replace(self, into=into)

    def unless(self, skip: str) -> Formula:
        """The same formula where the number ``skip`` is 0; else every result is the array of its name, as it was."""
        made = replace(self, scalars=(*self.scalars, skip), values=list(self.values))
        skipped = Value("not_equal", (made.add(Value("scalar", name=skip)), made.add(Value("number"))))
        made.results = tuple(
            made.add(Value("select", (made.add(skipped), made.add(Value("array", name=name)), result)))
            for name, result in zip(self.names, self.results, strict=True)
        )
        return made

    @property
    def slots(self) -> int:
        """How many there are."""
        return max((len(self.arrays) - 1, *self.into)) + 1

    def usual_slots(self) -> tuple[int, ...]:
        """Slots for the results: the array whose name a result has, else a new one."""
        further = iter(range(len(self.arrays), len(self.arrays) + len(self.results)))
        return tuple(self.arrays.index(name) if name in self.arrays else next(further) for name in self.names)

    def add(self, value: Value) -> int:
        """Number of this value; one that stands there already is not computed twice."""
        numbers = [self.values[a].number for a in value.args if self.values[a].op == "number"]
        if value.args and len(numbers) == len(value.args) and value.op in _FOLD:
            value = Value("number", number=_FOLD[value.op](*numbers))
        for i, known in enumerate(self.values):
            if known == value and math.copysign(1, known.number) == math.copysign(1, value.number):
                return i
        self.values.append(value)
        return len(self.values) - 1

    def is_scalar(self, i: int) -> bool:
        """Whether the value is the same for all elements."""
        value = self.values[i]
        return value.op in ("scalar", "number") or (value.op != "array" and all(map(self.is_scalar, value.args)))

    def is_condition(self, i: int) -> bool:
        """Whether the value is true or false."""
        return self.values[i].op in CONDITIONS

    def operations(self) -> list[int]:
        """What has to be computed for the results, in order."""
        needed: set[int] = set()
        waiting = list(self.results)
        while waiting:
            i = waiting.pop()
            if i not in needed:
                needed.add(i)
                waiting.extend(self.values[i].args)
        return [i for i in sorted(needed) if self.values[i].op not in ("array", "scalar", "number")]


def parse(function: Callable[..., Any], before: Callable[..., Any] | None = None) -> Formula:
    """The formula of ``function``: its positional parameters are arrays, its keyword-only ones numbers.

    ``before`` is another such function that changes some of the arrays first: those that it returns, by name.
    """
    arrays, scalars = _parameters(function)
    if before is not None:
        more, further = _parameters(before)
        if not set(more) <= set(arrays) or set(further) & set(scalars):
            raise ValueError(f"{before.__name__} and {function.__name__}: parameters do not fit together")
        scalars += further
    formula = Formula(arrays, scalars)
    names = {name: formula.add(Value("array", name=name)) for name in arrays}
    names.update({name: formula.add(Value("scalar", name=name)) for name in scalars})
    if before is not None:
        found, called = _Reader(formula, before, dict(names)).read()
        names.update(zip(called, found, strict=True))
    formula.results, formula.names = _Reader(formula, function, names).read()
    return formula.going(formula.usual_slots())


def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    arrays: list[str] = []
    scalars: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        (scalars if parameter.kind is parameter.KEYWORD_ONLY else arrays).append(name)
    return tuple(arrays), tuple(scalars)


class _Reader:
    """Reads one function, in which names stand for the values ``names``, into a formula."""

    def __init__(self, formula: Formula, function: Callable[..., Any], names: dict[str, int]) -> None:
        self.formula, self.function, self.names = formula, function, names
        self.outside = inspect.getclosurevars(function)

    def read(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The values returned, and their names ("" for what has none)."""
        definition = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body[0]
        assert isinstance(definition, ast.FunctionDef)
        for statement in definition.body:
            match statement:
                case ast.Expr(value=ast.Constant(value=str())):
                    pass
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.names[name] = self.value(value)
                case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                    self.names[name] = self.value(ast.BinOp(ast.Name(name), op, value, lineno=statement.lineno))
                case ast.Return(value=ast.Tuple(elts=parts)):
                    return tuple(map(self.value, parts)), tuple(map(_name, parts))
                case ast.Return(value=ast.expr() as value):
                    return (self.value(value),), (_name(value),)
                case _:
                    self.refuse(statement)
        raise SyntaxError(f"{self.function.__name__}: a formula ends with return")

    def refuse(self, node: ast.AST) -> Any:
        text = ast.unparse(node)
        raise SyntaxError(f"{self.function.__name__}: {text!r} cannot stand in a formula; see kobai.formula.parse")

    def op(self, name: str, *nodes: ast.expr) -> int:
        return self.formula.add(Value(name, tuple(map(self.value, nodes))))

    def value(self, node: ast.expr) -> int:
        """Number of the value of an expression."""
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return self.number(number)
            case ast.Name(id=name):
                return self.names[name] if name in self.names else self.outer(node)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                exponent = self.formula.values[self.value(right)]
                return self.power(self.value(left), exponent.number) if exponent.op == "number" else self.refuse(node)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self.op(_BINARY[type(op)], left, right)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.op("negative", operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.op("not", operand)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                return self.op(_COMPARE[type(op)], left, right)
            case ast.BoolOp(op=op, values=[left, right]):
                return self.op("and" if isinstance(op, ast.And) else "or", left, right)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.op("select", test, body, orelse)
            case ast.Call(func=ast.Name(), args=args, keywords=[]):
                return self.call(node, list(map(self.value, args)))
        return self.refuse(node)  # type: ignore[no-any-return]

    def number(self, number: float) -> int:
        return self.formula.add(Value("number", number=float(number)))

    def power(self, x: int, p: float) -> int:
        """xᵖ as a product of x, x², x⁴, … and √x, or as a quotient by them; 2p is whole."""
        if 2 * p % 1:
            raise SyntaxError(f"{self.function.__name__}: expected a whole exponent or one with a half, got {p}")
        add, root = self.formula.add, x
        factors = []
        for bit in reversed(f"{int(abs(p)):b}"):
            if bit == "1":
                factors.append(x)
            x = add(Value("multiply", (x, x)))
        if p % 1 and p > 0:
            factors.append(add(Value("sqrt", (root,))))
        product = reduce(lambda a, b: add(Value("multiply", (a, b))), factors) if factors else self.number(1)
        if p < 0:
            product = add(Value("divide", (self.number(1), product)))
            if p % 1:
                product = add(Value("multiply", (add(Value("rsqrt", (root,))), product)))
        return product

    def known(self, name: str) -> Any:
        """What a name means outside the function."""
        known = {**self.outside.builtins, **self.outside.globals, **self.outside.nonlocals}
        return known.get(name)

    def outer(self, node: ast.Name) -> int:
        known = self.known(node.id)
        return self.number(known) if isinstance(known, (int, float)) else self.refuse(node)

    def call(self, node: ast.Call, args: list[int]) -> int:
        """The value of a function of ``args``: one of :data:`FUNCTIONS`, or another formula."""
        assert isinstance(node.func, ast.Name)
        called = self.known(node.func.id)
        if called in FUNCTIONS:
            return self.formula.add(Value(FUNCTIONS[called], tuple(args)))
        if not inspect.isfunction(called):
            return self.refuse(node)  # type: ignore[no-any-return]
        names = dict(zip(inspect.signature(called).parameters, args, strict=True))
        results, _ = _Reader(self.formula, called, names).read()
        return results[0] if len(results) == 1 else self.refuse(node)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""
