"""A formula as kernels in CUDA C: over one array each, and over a table of many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from kobai.engine import dispatch
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.formula.loop_code import cuda_lines
from kobai.formula.parse import Formula
from kobai.xp import Array

THREADS = 256
MOST_BLOCKS = 4096
TABLE_BYTES = 3800
"""Of the 4096 bytes that all parameters of a launch may take together."""

PACKS = """
    constexpr int W = 16 / sizeof(T);
    struct alignas(16) Pack {{ T v[W]; }};
    const long long packs = ({addresses}) % 16 ? 0 : n / W;
    EACH(j, packs) {{
        const long long i = j;
        Pack {packs};
        #pragma unroll
        for (int k = 0; k < W; k++) element({inside});
        {stores}
    }}
    EACH(rest, n - packs * W) {{
        const long long i = packs * W + rest;
        T {results};
        element({single});
        {single_stores}
    }}"""
"""Loads and stores of 16 bytes, if all arrays are aligned so; then the elements that are left."""


def address_table(dtype: Any, slots: Sequence[Sequence[Array]]) -> Array:
    """The arrays of every slot as a struct that a kernel takes by value: their addresses ``at[slot][i]``, and ``size[i]``."""
    table = np.zeros((), dtype)
    count = len(slots[0])
    for k, arrays in enumerate(slots):
        table["at"][k, :count] = [a.data.ptr for a in arrays]
    table["size"][:count] = [a.size for a in slots[0]]
    return table


class CudaCode:
    """The kernels of one formula; they are made when they are first asked for."""

    def __init__(self, name: str, formula: Formula) -> None:
        self.name, self.formula = name, formula
        self.into, self.slots = formula.into, formula.slots
        self.tensors = TABLE_BYTES // (8 * (self.slots + 1))
        """How many sets of arrays one launch takes."""

    def launch(self, slots: tuple[Array, ...], numbers: Any) -> None:
        """Start the kernel on one set of arrays; ``numbers`` is a tuple or an array on the device."""
        n = slots[0].size
        dispatch.launch(self.one, self._blocks(n, slots[0].itemsize), (*slots, *self._given(numbers), n))

    def _given(self, numbers: Any) -> tuple[Any, ...]:
        return (numbers,) if self.formula.scalars else ()

    def _blocks(self, n: int, itemsize: int) -> int:
        return min(-(-n // (THREADS * (16 // itemsize))), MOST_BLOCKS)

    @cached_property
    def one(self) -> CudaKernel:
        """``(*slots, numbers, n)``"""
        pointers = [f"{'T*' if k in self.into else 'const T*'} a{k}" for k in range(self.slots)]
        signature = ", ".join([*pointers, *self._numbers(), "long long n"])
        return CudaKernel(self.name, signature, self._body(), threads=THREADS, dtypes=EVERY_FLOAT)

    def _numbers(self) -> list[str]:
        return [f"A h[{len(self.formula.scalars)}]"] if self.formula.scalars else []

    def _body(self) -> str:
        formula, into = self.formula, self.into
        once, each = cuda_lines(formula)
        read = range(len(formula.arrays))
        results = [f"r{k}" for k in range(len(into))]
        parameters = [f"const T i{k}" for k in read] + [f"T& {r}" for r in results]
        loads = [f"const A x_{name} = i{k};" for k, name in enumerate(formula.arrays)]
        lines = [
            *(f"const A h_{name} = h[{k}];" for k, name in enumerate(formula.scalars)),
            *once,
            f"const auto element = [&]({', '.join(parameters)}) {{",
            *(f"    {line}" for line in [*loads, *each]),
            *(f"    r{k} = (T)y{k};" for k in range(len(into))),
            "};",
        ]
        packs = PACKS.format(
            addresses=" | ".join(f"(unsigned long long)a{k}" for k in range(self.slots)),
            packs=", ".join([f"p{k} = ((const Pack*)a{k})[i]" for k in read] + [f"q{k}" for k in range(len(into))]),
            inside=", ".join([f"p{k}.v[k]" for k in read] + [f"q{k}.v[k]" for k in range(len(into))]),
            stores=" ".join(f"((Pack*)a{slot})[i] = q{k};" for k, slot in enumerate(into)),
            results=", ".join(results),
            single=", ".join([f"a{k}[i]" for k in read] + results),
            single_stores=" ".join(f"a{slot}[i] = r{k};" for k, slot in enumerate(into)),
        )
        return "\n    ".join(["", *lines]) + packs

    @cached_property
    def many(self) -> CudaKernel:
        """``(table, numbers)``: blocks (·, k) work on the k-th set of arrays."""
        prelude = f"struct Table {{ T* at[{self.slots}][{self.tensors}]; long long size[{self.tensors}]; }};"
        pointers = [
            f"{'T*' if k in self.into else 'const T*'} a{k} = table.at[{k}][blockIdx.y];" for k in range(self.slots)
        ]
        head = "\n    ".join(["", *pointers, "const long long n = table.size[blockIdx.y];"])
        return CudaKernel(
            f"{self.name}_many",
            ", ".join(["Table table", *self._numbers()]),
            head + self._body(),
            threads=THREADS,
            prelude=prelude,
            dtypes=EVERY_FLOAT,
            structs={"Table": self._table},
        )

    @cached_property
    def _table(self) -> Any:
        return np.dtype([("at", np.uint64, (self.slots, self.tensors)), ("size", np.int64, (self.tensors,))])

    def launch_many(self, count: int, arrays: tuple[Array, ...], numbers: Any) -> None:
        """Start the kernel on ``count`` sets of arrays: all of the first slot, then all of the second, and so on.

        The table of addresses travels with the launch, by value: nothing is copied to the device beforehand, and a graph
        that captures the launch has it.
        """
        for start in range(0, count, self.tensors):
            stop = min(start + self.tensors, count)
            some = [arrays[k * count + start : k * count + stop] for k in range(self.slots)]
            table, most = address_table(self._table, some), max(a.size for a in some[0])
            grid = self._blocks(most, arrays[0].itemsize), stop - start
            dispatch.launch(self.many.of(arrays[0].dtype), grid, (table, *self._given(numbers)))
