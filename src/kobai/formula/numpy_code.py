"""A formula as calls of array functions: straight-line code in which every call writes into memory that is there already.

Why not ``p - lr * g / v`` as NumPy would have it: each operation would make an array, and between two operations a large one
would have left the cache. So the code is written out with ``out=`` for every call, and run block by block: Adam on 8.4M
parameters takes 10 ms instead of 15.

Where a result goes is a question of registers, as in a compiler. The arrays of a kernel are its *slots* ``a0, a1, …``: the
inputs, then those outputs that are no input. Scratch *registers* ``s0, s1, …`` stand beside them, ``m0, …`` for conditions.
The operations are gone through in order, with a list of which value each place holds, and when it is needed for the last
time. A result takes the first of these places that is free by then: the slot where it must end; an operand's own; another
slot that is written to; a register; a new register. For v ← βv + g², p ← p − lr·g / v ::

    slots         p: a0    g: a1    v: a2      (a0 and a2 may be written to)

    βv            multiply(h_beta, a2, a2)     its home is a2, and v is not needed again
    g·g           multiply(a1, a1, s0)         nothing is free: a new register
    v = βv + g²   add(a2, s0, a2)              home; from here on s0 is free
    lr·g          multiply(h_lr, a1, s0)       p is still needed, so s0 again
    lr·g / v      divide(s0, a2, s0)           in place of an operand
    p − …         subtract(a0, s0, a0)         home: p's last use

``Elementwise.code().calls.source`` shows the code of a kernel. It becomes a function by ``exec``, and the memory of its
registers belongs to the thread (``registers``) or to a recorded step (``prepared``).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from threading import local
from typing import Any

import numpy as np

from kobai.engine import special
from kobai.formula.parse import Formula, Value
from kobai.xp import Array, xp_of

BLOCK_BYTES = 1 << 18
"""Bytes per array of one block on NumPy. An update of an optimiser is 4 to 15 calls over the same arrays; in blocks they
stay in the L2 cache between the calls. Measured on Adam: best between 128 and 512 KiB (below, the calls cost more than they
save); 670k parameters 0.69 → 0.57 ms, 8.4M parameters 15.2 → 10.0 ms."""

UFUNCS = {"abs": "absolute", "and": "logical_and", "or": "logical_or", "not": "logical_not"}
"""NumPy's names of operations, where they are others than here."""


class ArrayCode:
    """The code for one formula; it works on NumPy's arrays and on CuPy's.

    ``run(xp, dtype)(*slots, *scratch, *masks, *bounds, *scalars)`` computes everything once.
    """

    def __init__(self, formula: Formula) -> None:
        self.formula, self.into, self.slots = formula, formula.into, formula.slots
        self.scratch = 0
        """Registers of the arrays' shape and dtype."""
        self.masks = 0
        """Registers of bools."""
        self.bounds: list[float] = []
        """Numbers that are handed in as arrays: NumPy vectorises the maximum of two arrays, but not that of one and a number.

        (14 instead of 40 µs for 256×512 float32.)
        """
        self._constants: dict[float, str] = {}
        self.lines = self._write()
        self._compiled: dict[tuple[Any, Any], Callable[..., None]] = {}

    @property
    def source(self) -> str:
        """The code, for the reader."""
        names = [
            *(f"a{i}" for i in range(self.slots)),
            *(f"s{i}" for i in range(self.scratch)),
            *(f"m{i}" for i in range(self.masks)),
            *(f"b{i}" for i in range(len(self.bounds))),
            *(f"h_{name}" for name in self.formula.scalars),
        ]
        return "\n    ".join([f"def run({', '.join(names)}):", *(self.lines or ["pass"])])

    def run(self, xp: Any, dtype: Any) -> Callable[..., None]:
        """The code as a function, for arrays of this library and dtype."""
        found = self._compiled.get((xp, dtype))
        if found is None:
            host = xp is np
            # 0-d arrays: converting a float is a third of a NumPy call on a bias
            names: dict[str, Any] = {
                name: np.array(number, dtype) if host else number for number, name in self._constants.items()
            }
            names |= {"xp": xp, "select": _select_bits if host else _select, "copy": np.copyto if host else _copy}
            names["erf"] = special.erf
            names["__name__"] = __name__  # where overflow is silent, see kobai.xp
            exec(compile(self.source, "<kernel>", "exec"), names)
            found = self._compiled[xp, dtype] = names["run"]
        return found

    # --- writing the code

    def _write(self) -> list[str]:
        """Go through the operations with a list of which value each place holds, until when."""
        formula = self.formula
        order = formula.operations()
        last = {i: at for at, op in enumerate(order) for i in formula.values[op].args}
        last.update(dict.fromkeys(formula.results, len(order)))
        writable = {f"a{slot}" for slot in self.into}
        home: dict[int, str] = {}  # of a result: the slot where it must end
        for result, slot in zip(formula.results, self.into, strict=True):
            home.setdefault(result, f"a{slot}")
        place = {i: f"h_{value.name}" for i, value in enumerate(formula.values) if value.op == "scalar"}  # of values
        arrays = {i: value.name for i, value in enumerate(formula.values) if value.op == "array"}
        place |= {i: f"a{formula.arrays.index(name)}" for i, name in arrays.items()}
        holds = {place[i]: i for i in arrays}  # of places
        lines: list[str] = []

        def first_free(at: int, kind: str, wanted: Iterable[str], taken: Container[str]) -> str:
            """The first place that holds nothing needed after the operation ``at``: a wanted one, or a register."""
            known = (f"{kind}{k}" for k in range(self.masks if kind == "m" else self.scratch))
            for where in (*wanted, *known):
                if where not in taken and (where not in holds or last.get(holds[where], -1) <= at):
                    return where
            return self._register(kind)

        for at, i in enumerate(order):
            op = formula.values[i].op
            args = [place.get(a) or self._constant(formula.values[a].number) for a in formula.values[i].args]
            if formula.is_scalar(i):  # a number computed from numbers
                place[i] = f"t{at}"
                lines.append(f"t{at} = {self._expression(op, args)}")
                continue
            kind = "m" if formula.is_condition(i) else "s"
            wanted = [arg for arg in args if arg[0] == kind or (kind == "s" and arg in writable)]
            if kind == "s":
                wanted = [*([home[i]] if i in home else []), *wanted, *sorted(writable)]
            taken = args[:1] if op == "select" else ()  # its condition, which it reads until its end
            target = first_free(at, kind, wanted, taken)
            lines += self._calls(formula.values[i], args, target, partial(first_free, at, "s", (), (target, *args)))
            place[i] = target
            holds[target] = i
        return lines + self._copies(place)

    def _copies(self, place: dict[int, str]) -> list[str]:
        """Bring results to their slots that are not there: those that lie in the slot of another one first."""
        lines = []
        moves = [(f"a{slot}", result) for slot, result in zip(self.into, self.formula.results, strict=True)]
        values = self.formula.values
        targets = {target for target, _ in moves}
        for target, result in moves:
            source = place.get(result, "")
            if source in targets and source != target and (source, result) not in moves:
                register = self._register("s")
                lines.append(f"copy({register}, {source})")
                place = {**place, result: register}
        for target, result in moves:
            source = self._constant(values[result].number) if values[result].op == "number" else place[result]
            if source != target:
                lines.append(f"copy({target}, {source})")
        return lines

    def _register(self, kind: str) -> str:
        if kind == "m":
            self.masks += 1
            return f"m{self.masks - 1}"
        self.scratch += 1
        return f"s{self.scratch - 1}"

    def _constant(self, number: float) -> str:
        return self._constants.setdefault(number, f"c{len(self._constants)}")

    def _bound(self, number: float) -> str:
        if number not in self.bounds:
            self.bounds.append(number)
        return f"b{self.bounds.index(number)}"

    def _calls(self, value: Value, args: list[str], target: str, spare: Callable[[], str]) -> list[str]:
        """The calls of one operation; ``spare`` finds a register for what stands beside the target."""
        op, operands = value.op, [self.formula.values[a] for a in value.args]
        if op == "select":
            beside = spare()
            if operands[1] == Value("number", number=0.0):
                args = [args[0], "None", args[2]]
            return [f"select({', '.join(args)}, {target}, {beside})"]
        numbers = [arg for arg, a in zip(args, value.args, strict=True) if self.formula.is_scalar(a)]
        if op in ("maximum", "minimum") and numbers:
            given = [operand.number for operand in operands if operand.op == "number"]
            beside = self._bound(given[0]) if given else spare()
            args = [beside if arg == numbers[0] else arg for arg in args]
            copy = [] if given else [f"copy({beside}, {numbers[0]})"]
            return [*copy, f"xp.{op}({', '.join(args)}, out={target})"]
        if op == "sigmoid":  # 1 / (1 + e⁻ˣ); where e⁻ˣ overflows it is 0
            names = [*args, self._constant(-1.0), target, self._constant(1.0)]
            steps = "multiply({0}, {1}, {2}); exp({2}, {2}); add({2}, {3}, {2}); reciprocal({2}, {2})".split("; ")
            return [f"xp.{step}".format(*names) for step in steps]
        if op == "erf":
            return [f"copy({target}, erf({args[0]}))"]
        if op == "negative":  # NumPy 2.4's is wrong for some strides of out
            op, args = "multiply", [*args, self._constant(-1.0)]
        return [f"xp.{UFUNCS.get(op, op)}({', '.join(args)}, out={target})"]

    def _expression(self, op: str, args: list[str]) -> str:
        if op == "select":
            return f"xp.where({', '.join(args)})"
        if op == "sigmoid":
            return f"1 / (1 + xp.exp(-{args[0]}))"
        return f"xp.{UFUNCS.get(op, op)}({', '.join(args)})"


def _select(condition: Any, x: Any, y: Any, out: Array, beside: Array) -> None:
    out[...] = xp_of(out).where(condition, 0.0 if x is None else x, y)


def _copy(out: Array, value: Any) -> None:
    out[...] = value


_INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}
_ONE = {size: np.array(1, integer) for size, integer in _INTEGERS.items()}


def _select_bits(condition: Any, x: Any, y: Any, out: Array, beside: Array) -> None:
    """out = x where condition, else y, by their bits: y ^ ((x ^ y) & mask).

    NumPy's where takes 475 µs for 256×512 elements of random sign, for the processor mispredicts every second branch;
    this takes 54, and 31 if x is None, which stands for 0.
    """
    integer: Any = _INTEGERS[out.itemsize]
    mask: Any = beside.view(integer)
    bits: Any = out.view(integer)
    np.copyto(mask, condition)
    if x is None:
        np.subtract(mask, _ONE[out.itemsize], out=mask)
        np.bitwise_and(y.view(integer), mask, out=bits)
        return
    if y is out:  # which is read last
        x, y = y, x
        np.subtract(mask, _ONE[out.itemsize], out=mask)
    else:
        np.negative(mask, out=mask)
    x, y = _bits(x, out.dtype, integer), _bits(y, out.dtype, integer)
    np.bitwise_xor(x, y, out=bits)
    np.bitwise_and(bits, mask, out=bits)
    np.bitwise_xor(bits, y, out=bits)


def _bits(value: Any, dtype: Any, integer: Any) -> Array:
    return np.asarray(value, dtype).view(integer)


# --- running it on NumPy ----------------------------------------------------------------------------------------------

_thread = local()


def registers(code: ArrayCode, shape: tuple[int, ...], dtype: Any) -> tuple[Array, ...]:
    """Scratch, masks and bounds of ``shape`` (at most one block): views, remembered by shape, of memory of this thread."""
    key = (code, shape, dtype)
    try:
        return _thread.views[key]  # type: ignore[no-any-return]
    except (AttributeError, KeyError):
        pass
    if not hasattr(_thread, "views"):
        _thread.views, _thread.memory = {}, []
    if len(_thread.views) >= 512:  # a model has few shapes; a program that makes many models must not leak them
        _thread.views.clear()
    while len(_thread.memory) < code.scratch + code.masks:
        _thread.memory.append(np.empty(BLOCK_BYTES, np.uint8))
    _thread.views[key] = views = _views(code, shape, dtype, _thread.memory)
    return views


def _views(code: ArrayCode, shape: tuple[int, ...], dtype: Any, memory: list[Array]) -> tuple[Array, ...]:
    size = int(np.prod(shape))
    made = []
    for k in range(code.scratch + code.masks):
        kind = dtype if k < code.scratch else np.dtype(bool)
        made.append(memory[k][: size * kind.itemsize].view(kind).reshape(shape))
    return (*made, *(_repeated(bound, dtype)[:size].reshape(shape) for bound in code.bounds))


@lru_cache(maxsize=32)
def _repeated(value: float, dtype: Any) -> Array:
    values = np.full(BLOCK_BYTES // dtype.itemsize, value, dtype)
    values.flags.writeable = False
    return values


def own_registers(code: ArrayCode, shape: tuple[int, ...], dtype: Any, xp: Any = np) -> tuple[Array, ...]:
    """New ones, of any size and library."""
    made = [xp.empty(shape, dtype) for _ in range(code.scratch)] + [xp.empty(shape, bool) for _ in range(code.masks)]
    return (*made, *(np.full(shape, bound, dtype) if xp is np else bound for bound in code.bounds))


def run_on_host(code: ArrayCode, slots: tuple[Array, ...], scalars: Any) -> None:
    """Compute everything, block by block where the arrays are large and their elements stand in a row in memory.

    ``scalars`` is a tuple or a 1-D array.
    """
    first = slots[code.into[0]]
    dtype = first.dtype
    run, numbers = code.run(np, dtype), as_numbers(dtype, scalars)
    if first.nbytes <= BLOCK_BYTES:
        run(*slots, *registers(code, first.shape, dtype), *numbers)
        return
    # A slot that is only read and has odd strides, for which there is no flat view, is copied.
    for parts in _blocks(slots, all(slots[slot].flags.c_contiguous for slot in code.into)):
        shape = parts[0].shape
        scratch = own_registers(code, shape, dtype) if parts is slots else registers(code, shape, dtype)
        run(*parts, *scratch, *numbers)


def prepared(
    code: ArrayCode, sets: Sequence[tuple[Array, ...]], numbers: tuple[Array, ...]
) -> list[tuple[Any, tuple[Array, ...]]]:
    """The same, for each of several sets of slots, as calls ``(function, arguments)`` to be made again and again.

    They share their scratch memory, which nobody else uses.
    """
    dtype = sets[0][code.into[0]].dtype
    run, block = code.run(np, dtype), BLOCK_BYTES // dtype.itemsize
    shared = own_registers(code, (block,), dtype)
    calls: list[tuple[Any, tuple[Array, ...]]] = []
    for slots in sets:
        whole = slots[0].size <= block
        for parts in [slots] if whole else _blocks(slots, all(a.flags.c_contiguous for a in slots)):
            shape, size = parts[0].shape, parts[0].size
            scratch = [r[:size].reshape(shape) for r in shared] if size <= block else own_registers(code, shape, dtype)
            calls.append((run, (*parts, *scratch, *numbers)))
    return calls


def _blocks(slots: tuple[Array, ...], flat: bool) -> Iterator[tuple[Array, ...]]:
    """The slots in blocks if their elements may be taken as one row, else as they are."""
    if not flat:
        yield slots
        return
    rows, block = [a.reshape(-1) for a in slots], BLOCK_BYTES // slots[0].itemsize
    for start in range(0, slots[0].size, block):
        yield tuple([a[start : start + block] for a in rows])


def as_numbers(dtype: Any, scalars: Any) -> tuple[Array, ...]:
    """The scalars as 0-d arrays."""
    if isinstance(scalars, np.ndarray):
        return tuple(scalars[i : i + 1].reshape(()) for i in range(len(scalars)))
    return _constants(dtype, scalars)


@lru_cache(maxsize=256)
def _constants(dtype: Any, scalars: tuple[float, ...]) -> tuple[Array, ...]:
    return tuple(np.array(value, dtype) for value in scalars)
