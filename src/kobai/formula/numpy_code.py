"""A formula as calls of array functions: one statement for each operation, run block by block.

Why not ``p - lr * g / v`` as NumPy would have it: between two operations a large array would have left the cache. So the
statements are run on blocks of the arrays, and what an operation makes takes the memory of an operand that nobody needs any
more. For v ← βv + g², p ← p − lr·g / v, where p is slot ``a0``, g ``a1`` and v ``a2`` ::

    t5 = xp.multiply(h_beta, a2)
    t6 = xp.multiply(a1, a1)
    xp.add(t5, t6, out=a2)       # v ends in a2, where the old v is not needed any more
    del t5, t6
    t8 = xp.multiply(h_lr, a1)
    xp.divide(t8, a2, out=t8)    # in place of an operand
    xp.subtract(a0, t8, out=a0)
    del t8

``Elementwise.code().calls.source`` shows the code of a kernel. It becomes a function by ``exec``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from kobai.dtypes import HALVES
from kobai.engine import special
from kobai.formula.parse import Formula, Value
from kobai.xp import Array

BLOCK_BYTES = 1 << 18
"""Bytes per array of one block on NumPy. An update of an optimiser is 4 to 15 calls over the same arrays; in blocks they
stay in the L2 cache between the calls. Measured on Adam: best between 128 and 512 KiB; below, the calls cost more than they
save."""

UFUNCS = {
    "abs": "absolute", "and": "logical_and", "or": "logical_or", "not": "logical_not", "select": "where", "pow": "power",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
    "atan2": "arctan2",
}  # fmt: skip
"""NumPy's names of operations, where they are others than here."""


class ArrayCode:
    """The code for one formula; it works on NumPy's arrays and on CuPy's, of one dimension at least.

    ``run(xp, dtype)(*slots, *scalars)`` computes everything once.
    """

    def __init__(self, formula: Formula) -> None:
        self.formula = formula
        self._constants: dict[float, str] = {}
        self.lines = self._write()
        self._compiled: dict[tuple[Any, Any], Callable[..., None]] = {}

    @property
    def source(self) -> str:
        """The code, for the reader."""
        names = [*(f"a{i}" for i in range(self.formula.slots)), *(f"h_{name}" for name in self.formula.scalars)]
        return "\n    ".join([f"def run({', '.join(names)}):", *(self.lines or ["pass"])])

    def run(self, xp: Any, dtype: Any) -> Callable[..., None]:
        """The code as a function, for arrays of this library and dtype."""
        found = self._compiled.get((xp, dtype))
        if found is None and dtype in HALVES:
            found = self._compiled[xp, dtype] = partial(self._widened, self.run(xp, np.dtype(np.float32)))
        if found is None:
            host = xp is np
            # 0-d arrays: converting a float is a third of a NumPy call on a bias
            numbers = {name: np.array(number, dtype) for number, name in self._constants.items()}
            names: dict[str, Any] = {name: number if host else number.item() for name, number in numbers.items()}
            names |= {"select": _select_bits if host else partial(_select, xp), "sigmoid": partial(_sigmoid, xp)}
            names |= {
                "xp": xp,
                "erf": partial(_filled, special.erf),
                "erfc": partial(_filled, special.erfc),
                "rsqrt": partial(_rsqrt, xp),
                "copy": np.copyto if host else _copy,
                "spread": _spread if host else _number,
            }
            names["__name__"] = __name__  # where overflow is silent, see kobai.xp
            exec(compile(self.source, f"{__file__}:kernel", "exec"), names)  # Kobai's own code, to capture's watch
            found = self._compiled[xp, dtype] = names["run"]
        return found

    def _widened(self, run: Callable[..., None], *slots_and_scalars: Any) -> None:
        """Floats of 16 bits computed in float32, and every result rounded once, as a kernel on a device does it."""
        count = self.formula.slots
        slots = slots_and_scalars[:count]
        wide = [slot.astype(np.float32) for slot in slots]
        run(*wide, *slots_and_scalars[count:])
        for k in set(self.formula.into):
            slots[k][...] = wide[k]

    # --- writing the code

    def _write(self) -> list[str]:
        """A statement for each operation.

        It writes into the slot where its result must end, if the array there is not read any more; else into an operand of
        the same kind that is not read any more; else its result is a new array.
        """
        formula, values = self.formula, self.formula.values
        order = formula.operations()
        last = {a: at for at, i in enumerate(order) for a in values[i].args}  # where a value is read for the last time
        last.update(dict.fromkeys(formula.results, len(order)))
        place: dict[int, str] = {}  # of values
        read_until = {}  # arrays in slots
        for i, value in enumerate(values):
            if value.op == "array":
                place[i] = f"a{formula.arrays.index(value.name)}"
                read_until[place[i]] = last.get(i, -1)
            elif value.op == "scalar":
                place[i] = f"h_{value.name}"
            elif value.op == "number" and i in last:
                place[i] = self._constant(value.number)
        home: dict[int, str] = {}  # of a result: the slot where it must end
        for result, slot in zip(formula.results, formula.into, strict=True):
            home.setdefault(result, f"a{slot}")
        lines: list[str] = []
        for at, i in enumerate(order):
            done = [a for a in dict.fromkeys(values[i].args) if place[a][0] == "t" and last[a] == at]
            out = home.get(i, "")
            if formula.is_scalar(i):
                out = ""
            elif not out or read_until.get(out, -1) > at:
                alike = [
                    a for a in done if not formula.is_scalar(a) and formula.is_condition(a) is formula.is_condition(i)
                ]
                out = place[alike[0]] if alike else ""
            call = self._call(i, [place[a] for a in values[i].args], out)
            lines.append(call if out else f"t{i} = {call}")
            place[i] = out or f"t{i}"
            if gone := [place[a] for a in done if place[a] != out]:
                lines.append(f"del {', '.join(gone)}")
        return lines + self._copies(place)

    def _copies(self, place: dict[int, str]) -> list[str]:
        """Bring results to their slots that are not there: those that lie in the slot of another one first."""
        moves = [
            (f"a{slot}", place[result]) for slot, result in zip(self.formula.into, self.formula.results, strict=True)
        ]
        targets = {target for target, _ in moves}
        between = {source for target, source in moves if source in targets and source != target}
        lines = [f"t_{source} = {source}.copy()" for source in sorted(between)]
        return lines + [
            f"copy({target}, {f't_{source}' if source in between else source})"
            for target, source in moves
            if source != target
        ]

    def _constant(self, number: float) -> str:
        return self._constants.setdefault(number, f"c{len(self._constants)}")

    def _call(self, i: int, args: list[str], out: str) -> str:
        """The call of one operation; its result goes to ``out``, if that is not empty, else it is new."""
        value = self.formula.values[i]
        op, operands = value.op, [self.formula.values[a] for a in value.args]
        if not self.formula.is_scalar(i):
            if op == "select":
                args = [args[0], "None" if operands[1] == Value("number", number=0.0) else args[1], args[2]]
            elif op in ("maximum", "minimum"):  # of two arrays, see _spread
                array = next(arg for arg, a in zip(args, value.args, strict=True) if not self.formula.is_scalar(a))
                for k, a in enumerate(value.args):
                    if operands[k].op == "number":
                        args[k] = f"spread({args[k]}, {array})"
                    elif self.formula.is_scalar(a):
                        args[k] = f"xp.full_like({array}, {args[k]})"
        if op == "negative":  # NumPy 2.4's is wrong for some strides of out
            op, args = "multiply", [*args, self._constant(-1.0)]
        own = op in ("sigmoid", "erf", "erfc", "rsqrt") or (op == "select" and not self.formula.is_scalar(i))
        name = op if own else f"xp.{UFUNCS.get(op, op)}"
        return f"{name}({', '.join([*args, *([f'out={out}'] if out else [])])})"


def _copy(out: Array, value: Any) -> None:
    out[...] = value


def _filled(function: Callable[[Array], Array], x: Array, out: Array | None = None) -> Array:
    y = function(x)
    if out is None:
        return y
    out[...] = y
    return out


def _rsqrt(xp: Any, x: Any, out: Array | None = None) -> Any:
    return xp.reciprocal(xp.sqrt(x, out=out), out=out)


def _sigmoid(xp: Any, x: Any, out: Array | None = None) -> Any:
    """1 / (1 + e⁻ˣ); where e⁻ˣ overflows it is 0."""
    return xp.reciprocal(xp.add(xp.exp(xp.multiply(x, -1.0, out=out), out=out), 1.0, out=out), out=out)


def _spread(number: Array, like: Array) -> Array:
    """A number as an array: NumPy vectorises the maximum of two arrays, but not that of one and a number.

    (14 instead of 40 µs for 256×512 float32.)
    """
    if like.nbytes > BLOCK_BYTES:
        return np.full_like(like, number)
    return _repeated(float(number), like.dtype)[: like.size].reshape(like.shape)


@lru_cache(maxsize=32)
def _repeated(value: float, dtype: Any) -> Array:
    values = np.full(BLOCK_BYTES // dtype.itemsize, value, dtype)
    values.flags.writeable = False
    return values


def _number(number: float, like: Array) -> float:
    return number


def _select(xp: Any, condition: Any, x: Any, y: Any, out: Array | None = None) -> Array:
    chosen = xp.where(condition, 0.0 if x is None else x, y)
    if out is None:
        return chosen
    out[...] = chosen
    return out


_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}


def _select_bits(condition: Any, x: Any, y: Any, out: Array | None = None) -> Array:
    """x where condition, else y, by their bits: y ^ ((x ^ y) & mask).

    NumPy's where takes 475 µs for 256×512 elements of random sign, for the processor mispredicts every second branch;
    this takes 54, and 31 if x is None, which stands for 0.
    """
    integer: Any = _INTEGERS[y.itemsize]
    mask, bits = np.asarray(condition).astype(integer), y.view(integer)
    place = None if out is None else out.view(integer)
    if x is None:
        mask -= 1
        chosen = np.bitwise_and(bits, mask, out=place)
    else:
        np.negative(mask, out=mask)
        chosen = np.bitwise_xor(np.bitwise_xor(x.view(integer), bits) & mask, bits, out=place)
    return chosen.view(y.dtype) if out is None else out


# --- running it on NumPy ----------------------------------------------------------------------------------------------


def run_on_host(code: ArrayCode, slots: tuple[Array, ...], scalars: Any) -> None:
    """Compute everything, block by block where the arrays are large and their elements stand in a row in memory.

    ``scalars`` is a tuple or a 1-D array.
    """
    first = slots[code.formula.into[0]]
    run, numbers = code.run(np, first.dtype), as_numbers(first.dtype, scalars)
    if first.ndim and first.nbytes <= BLOCK_BYTES:
        run(*slots, *numbers)
        return
    # A slot that is only read and has odd strides, for which there is no flat view, is copied.
    for parts in blocks(slots, all(slots[slot].flags.c_contiguous for slot in code.formula.into)):
        run(*parts, *numbers)


def prepared(
    code: ArrayCode, sets: Sequence[tuple[Array, ...]], numbers: tuple[Array, ...]
) -> list[tuple[Any, tuple[Array, ...]]]:
    """The same, for each of several sets of slots, as calls ``(function, arguments)`` to be made again and again."""
    run = code.run(np, sets[0][code.formula.into[0]].dtype)
    return [
        (run, (*parts, *numbers)) for slots in sets for parts in blocks(slots, all(a.flags.c_contiguous for a in slots))
    ]


def blocks(slots: tuple[Array, ...], flat: bool) -> Iterator[tuple[Array, ...]]:
    """The slots in blocks if their elements may be taken as one row; arrays without dimensions as arrays of one."""
    first = slots[0]
    if first.ndim and (not flat or first.nbytes <= BLOCK_BYTES):
        yield slots
        return
    rows, block = [a.reshape(-1) for a in slots], BLOCK_BYTES // first.itemsize
    for start in range(0, first.size, block):
        yield tuple([a[start : start + block] for a in rows])


def as_numbers(dtype: Any, scalars: Any) -> tuple[Array, ...]:
    """The scalars as 0-d arrays of the dtype in which they are computed with."""
    dtype = np.dtype(np.float32) if dtype in HALVES else dtype
    if isinstance(scalars, np.ndarray):
        return tuple(scalars[i : i + 1].reshape(()) for i in range(len(scalars)))
    return _constants(dtype, scalars)


@lru_cache(maxsize=256)
def _constants(dtype: Any, scalars: tuple[float, ...]) -> tuple[Array, ...]:
    return tuple(np.array(value, dtype) for value in scalars)
