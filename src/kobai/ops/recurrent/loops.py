"""All steps of a recurrent layer on the host in one compiled loop, which threads share by sequences of the batch.

What step t adds to the input's part of its gates is the product of the states before it with W_hhᵀ, a matrix that is the same
in all steps. So it is copied into panels (:mod:`kobai.cpu.product`) once, and in each step the tiles read it where it lies:

    for t in order:    gates[t] += h[t − 1] · W_hhᵀ         tiles (:mod:`kobai.cpu.tiles`)
                       h[t], c[t] = step(gates[t] + b)      a formula (:mod:`kobai.ops.recurrent.formulas`), row by row

and backward, with dh and dc in place,

    for t reversed:    da[t], dh, dc = step_backward(…)
                       dh += da[t] · W_hh

A sequence needs nothing of the others in the batch. So a part of the job is some of the sequences in one direction, from the
first step to the last: threads do not wait for each other between steps. An element of a product depends on its row and column
alone, and so the bits do not depend on the parts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.cpu.job import JOB, Job, fields, load
from kobai.cpu.product import INNER, cut, pack
from kobai.cpu.team import share_job
from kobai.cpu.threads import num_threads
from kobai.cpu.tiles import VECTORS, machine, tile, tile_rows, width
from kobai.engine.dispatch import as_written, compiled, entry
from kobai.formula.elementwise import from_addresses
from kobai.ops._matmul import PART
from kobai.ops.conv.image_loops import copy_row, fill_row
from kobai.ops.recurrent import formulas
from kobai.xp import Array

TANH, RELU, LSTM, GRU = range(4)
"""The networks."""

RECURRENCE = fields(
    "kind backward size steps batch hidden directions blocks columns gates biases bias y cells start start_cell zeros lengths "
    "last last_cell weight weight_row weight_column next_weight packed packed_bytes dy dh dc dz dz_hidden",
    after=JOB,
)
"""What a job says of a layer. ``columns``: of its gates; ``biases``: how many for each direction. ``weight``: W_hhᵀ, or W_hh in
backward, with the bytes from row to row and from column to column, and to the next direction's. The rest are addresses,
0 for what there is not."""

tanh_step, tanh_step_backward = from_addresses(formulas.tanh_step), from_addresses(formulas.tanh_step_backward)
relu_step, relu_step_backward = from_addresses(formulas.relu_step), from_addresses(formulas.relu_step_backward)
lstm_step, lstm_step_backward = from_addresses(formulas.lstm_step), from_addresses(formulas.lstm_step_backward)
gru_step, gru_step_backward = from_addresses(formulas.gru_step), from_addresses(formulas.gru_step_backward)
added = from_addresses(formulas.added)

# --- products with a matrix in panels -------------------------------------------------------------------------------------


@compiled
def panels_bytes(size: int, n: int, k: int) -> Any:
    """Bytes of k rows and n columns in panels."""
    panel = VECTORS * (width() // size)
    return k * -(-n // panel) * VECTORS * width()


@compiled
def pack_whole(size: int, n: int, k: int, b: int, step: int, column: int, to: int) -> None:
    """Copy all of a matrix into panels, for each block of INNER rows those of all columns."""
    for p in range(0, k, INNER):
        inner = min(INNER, k - p)
        pack(size, inner, n, b + p * step, step, column, to)
        to += panels_bytes(size, n, inner)


@as_written
def multiply_add(
    size: int, m: int, n: int, k: int, a: int, a_row: int, panels: int, c: int, c_row: int, add: int
) -> None:
    """C ← A·B, or C ← C + A·B if ``add`` is not 0, where B lies in panels."""
    panel = VECTORS * (width() // size)
    tall = -(-m // -(-m // tile_rows()))
    for p in range(0, k, INNER):
        inner = min(INNER, k - p)
        for j in range(0, n, panel):
            for i in range(0, m, tall):
                left, result = a + i * a_row + p * size, c + i * c_row + j * size
                tile(size, min(tall, m - i), n - j, inner, left, a_row, size, panels, result, c_row, p | add)
            panels += inner * VECTORS * width()


@compiled
def pack_weights(job: int) -> None:
    """Copy W_hhᵀ or W_hh of every direction into panels; those of n in a GRU's forward pass begin a panel of their own."""
    size, hidden, columns = load(job + RECURRENCE.size), load(job + RECURRENCE.hidden), load(job + RECURRENCE.columns)
    row, column = load(job + RECURRENCE.weight_row), load(job + RECURRENCE.weight_column)
    for d in range(load(job + RECURRENCE.directions)):
        weight = load(job + RECURRENCE.weight) if d == 0 else load(job + RECURRENCE.next_weight)
        to = load(job + RECURRENCE.packed) + d * load(job + RECURRENCE.packed_bytes)
        if load(job + RECURRENCE.backward):
            pack_whole(size, hidden, columns, weight, row, column, to)
        elif load(job + RECURRENCE.kind) == GRU:
            pack_whole(size, 2 * hidden, hidden, weight, row, column, to)
            to += panels_bytes(size, 2 * hidden, hidden)
            pack_whole(size, hidden, hidden, weight + 2 * hidden * column, row, column, to)
        else:
            pack_whole(size, columns, hidden, weight, row, column, to)


# --- the steps of some sequences --------------------------------------------------------------------------------------------


@compiled
def step(
    dtype: Any, kind: int, n: int, bytes: int, a: int, b: int, old: int, cell: int, new: int, new_cell: int
) -> None:
    """The step of one sequence: gates ``a``, biases ``b``, state ``old`` and ``cell``."""
    if kind == LSTM:
        lstm_step(
            dtype, a, a + bytes, a + 2 * bytes, a + 3 * bytes, b, b + bytes, b + 2 * bytes, b + 3 * bytes, cell, new_cell,
            new, n,
        )  # fmt: skip
    elif kind == GRU:
        gru_step(
            dtype, a, a + bytes, a + 2 * bytes, new_cell, b, b + bytes, b + 2 * bytes, b + 3 * bytes, old, new, n
        )  # fmt: skip
    elif kind == TANH:
        tanh_step(dtype, a, b, new, n)
    else:
        relu_step(dtype, a, b, new, n)


@compiled
def step_backward(
    dtype: Any, kind: int, n: int, bytes: int, a: int, old: int, cell: int, new: int, new_cell: int, dh: int, dc: int,
    dy: int, da: int, da_hidden: int,
) -> None:  # fmt: skip
    """The gradient of :func:`step`."""
    if kind == LSTM:
        lstm_step_backward(
            dtype, a, a + bytes, a + 2 * bytes, a + 3 * bytes, cell, new_cell, dh, dc, dy, da, da + bytes, da + 2 * bytes,
            da + 3 * bytes, n,
        )  # fmt: skip
    elif kind == GRU:
        gru_step_backward(
            dtype, a, a + bytes, a + 2 * bytes, new_cell, old, dh, dy, da, da + bytes, da + 2 * bytes, da_hidden,
            da_hidden + bytes, da_hidden + 2 * bytes, n,
        )  # fmt: skip
    elif kind == TANH:
        tanh_step_backward(dtype, new, dh, dy, da, n)
    else:
        relu_step_backward(dtype, new, dh, dy, da, n)


@entry
def recurrence(job: int, part: int, scratch: int) -> None:
    """All steps of some sequences in one direction, forward or backward."""
    if load(job + RECURRENCE.backward):
        backward(job, part)
    else:
        forward(job, part)


@as_written
def forward(job: int, part: int) -> None:
    kind, size, hidden = load(job + RECURRENCE.kind), load(job + RECURRENCE.size), load(job + RECURRENCE.hidden)
    steps, batch, blocks = load(job + RECURRENCE.steps), load(job + RECURRENCE.batch), load(job + RECURRENCE.blocks)
    d, top = part // blocks, cut(batch, part % blocks, blocks, 1)
    rows = cut(batch, part % blocks + 1, blocks, 1) - top
    bytes, columns = hidden * size, load(job + RECURRENCE.columns)
    gate_row, y_row = columns * size, load(job + RECURRENCE.directions) * bytes
    gates = load(job + RECURRENCE.gates) + (d * steps * batch + top) * gate_row
    cells = load(job + RECURRENCE.cells) + (d * steps * batch + top) * bytes
    y = load(job + RECURRENCE.y) + d * bytes + top * y_row
    bias = load(job + RECURRENCE.bias) + d * load(job + RECURRENCE.biases) * bytes
    panels = load(job + RECURRENCE.packed) + d * load(job + RECURRENCE.packed_bytes)
    zeros, lengths = load(job + RECURRENCE.zeros), load(job + RECURRENCE.lengths)
    h, h_row, c, c_row = zeros, 0, zeros, 0
    if load(job + RECURRENCE.start):
        h, h_row = load(job + RECURRENCE.start) + (d * batch + top) * bytes, bytes
    if load(job + RECURRENCE.start_cell):
        c, c_row = load(job + RECURRENCE.start_cell) + (d * batch + top) * bytes, bytes
    for s in range(steps):
        t = steps - 1 - s if d else s
        a, new, new_c = gates + t * batch * gate_row, y + t * batch * y_row, cells + t * batch * bytes
        first = 2 * hidden if kind == GRU else columns
        if h_row:
            multiply_add(size, rows, first, hidden, h, h_row, panels, a, gate_row, 1)
            if kind == GRU:
                rest = panels + panels_bytes(size, first, hidden)
                multiply_add(size, rows, hidden, hidden, h, h_row, rest, new_c, bytes, 0)
        elif kind == GRU:
            fill_row(size, zeros, new_c, rows * hidden)
        for i in range(rows):
            old, cell, result, result_c = h + i * h_row, c + i * c_row, new + i * y_row, new_c + i * bytes
            if lengths and load(lengths + 8 * (top + i)) <= t:
                copy_row(size, old, result, hidden)
                if kind == LSTM:
                    copy_row(size, cell, result_c, hidden)
            elif size == 4:
                step(np.float32, kind, hidden, bytes, a + i * gate_row, bias, old, cell, result, result_c)
            else:
                step(np.float64, kind, hidden, bytes, a + i * gate_row, bias, old, cell, result, result_c)
        h, h_row, c, c_row = new, y_row, new_c, bytes
    if load(job + RECURRENCE.last):
        at = (d * batch + top) * bytes
        for i in range(rows):
            copy_row(size, h + i * h_row, load(job + RECURRENCE.last) + at + i * bytes, hidden)
            if kind == LSTM:
                copy_row(size, c + i * c_row, load(job + RECURRENCE.last_cell) + at + i * bytes, hidden)


@as_written
def backward(job: int, part: int) -> None:
    kind, size, hidden = load(job + RECURRENCE.kind), load(job + RECURRENCE.size), load(job + RECURRENCE.hidden)
    steps, batch, blocks = load(job + RECURRENCE.steps), load(job + RECURRENCE.batch), load(job + RECURRENCE.blocks)
    d, top = part // blocks, cut(batch, part % blocks, blocks, 1)
    rows = cut(batch, part % blocks + 1, blocks, 1) - top
    bytes, columns = hidden * size, load(job + RECURRENCE.columns)
    gate_row, y_row = columns * size, load(job + RECURRENCE.directions) * bytes
    gates = load(job + RECURRENCE.gates) + (d * steps * batch + top) * gate_row
    cells = load(job + RECURRENCE.cells) + (d * steps * batch + top) * bytes
    y = load(job + RECURRENCE.y) + d * bytes + top * y_row
    dy = load(job + RECURRENCE.dy) + d * bytes + top * y_row
    dh = load(job + RECURRENCE.dh) + (d * batch + top) * bytes
    dc = load(job + RECURRENCE.dc) + (d * batch + top) * bytes
    dz = load(job + RECURRENCE.dz) + (d * steps * batch + top) * gate_row
    dz_hidden = load(job + RECURRENCE.dz_hidden) + (d * steps * batch + top) * gate_row
    panels = load(job + RECURRENCE.packed) + d * load(job + RECURRENCE.packed_bytes)
    zeros, lengths = load(job + RECURRENCE.zeros), load(job + RECURRENCE.lengths)
    for s in range(steps - 1, -1, -1):
        t = steps - 1 - s if d else s
        at, before = t * batch, (t + 1 if d else t - 1) * batch
        h, h_row, c, c_row = y + before * y_row, y_row, cells + before * bytes, bytes
        if s == 0:
            h, h_row, c, c_row = zeros, 0, zeros, 0
            if load(job + RECURRENCE.start):
                h, h_row = load(job + RECURRENCE.start) + (d * batch + top) * bytes, bytes
            if load(job + RECURRENCE.start_cell):
                c, c_row = load(job + RECURRENCE.start_cell) + (d * batch + top) * bytes, bytes
        for i in range(rows):
            da, da_hidden = dz + (at + i) * gate_row, dz_hidden + (at + i) * gate_row
            this, this_dh, this_dy = gates + (at + i) * gate_row, dh + i * bytes, dy + (at + i) * y_row
            result, result_c = y + (at + i) * y_row, cells + (at + i) * bytes
            if lengths and load(lengths + 8 * (top + i)) <= t:
                fill_row(size, zeros, da, columns)
                fill_row(size, zeros, da_hidden, columns)
                if size == 4:
                    added(np.float32, this_dh, this_dy, hidden)
                else:
                    added(np.float64, this_dh, this_dy, hidden)
            elif size == 4:
                step_backward(
                    np.float32, kind, hidden, bytes, this, h + i * h_row, c + i * c_row, result, result_c, this_dh,
                    dc + i * bytes, this_dy, da, da_hidden,
                )  # fmt: skip
            else:
                step_backward(
                    np.float64, kind, hidden, bytes, this, h + i * h_row, c + i * c_row, result, result_c, this_dh,
                    dc + i * bytes, this_dy, da, da_hidden,
                )  # fmt: skip
        if h_row:
            multiply_add(size, rows, hidden, columns, dz_hidden + at * gate_row, gate_row, panels, dh, bytes, 1)


# --- jobs ---------------------------------------------------------------------------------------------------------------


_own = threading.local()


def _room(bytes: int) -> int:
    """The address of this thread's memory for panels, at a multiple of 64."""
    memory = getattr(_own, "memory", None)
    if memory is None or memory.size < bytes + 64:
        memory = _own.memory = np.empty(bytes + 64, np.uint8)
    return -(-memory.ctypes.data // 64) * 64


def _address(array: Array | None) -> int:
    return 0 if array is None else array.ctypes.data


class _Recurrence:
    """Forward or backward for ``launch``; ``bind`` does everything that depends only on the arrays.

    ``kind, gates (D, L, N, columns), bias (D, ·), y (L, N, D·H), cells (D, L, N, H), h0, c0 (D, N, H), lengths, W_hh of each of
    two directions``; in forward ``last, last_cell`` follow, where the last states go, and in backward ``dy, dh, dc, dz,
    dz_hidden``.
    """

    def __init__(self, backward: bool) -> None:
        self.backward = backward

    def bind(
        self, kind: int, gates: Array, bias: Array, y: Array, cells: Array | None, h0: Array | None, c0: Array | None,
        lengths: Array | None, weight: Array, other: Array | None, *rest: Array | None,
    ) -> Callable[[], None]:  # fmt: skip
        directions, steps, batch, columns = gates.shape
        hidden, size = weight.shape[1], gates.itemsize
        weight_row, weight_column = weight.strides if self.backward else weight.strides[::-1]
        panel = VECTORS * (machine()[0] // size)
        if self.backward:
            packed = columns * -(-hidden // panel) * panel * size
        else:  # in a GRU the last columns begin a panel of their own
            packed = hidden * (-(-columns // panel) + 1) * panel * size
        work = directions * steps * batch * columns * hidden
        count = min(num_threads(), work // PART)
        blocks = max(1, min(count // directions, batch))
        job = Job(RECURRENCE)
        job.parts = directions * blocks
        zeros = np.zeros(hidden, gates.dtype)
        named = ("dy", "dh", "dc", "dz", "dz_hidden") if self.backward else ("last", "last_cell")
        job.write(
            function=recurrence.address, parts=job.parts, work=work,
            kind=kind, backward=self.backward, size=size, steps=steps, batch=batch, hidden=hidden, directions=directions,
            blocks=blocks, columns=columns, gates=_address(gates), biases=bias.shape[1] // hidden, bias=_address(bias),
            y=_address(y), cells=_address(cells), start=_address(h0), start_cell=_address(c0), zeros=_address(zeros),
            lengths=_address(lengths), weight=_address(weight), weight_row=weight_row, weight_column=weight_column,
            next_weight=_address(other), packed_bytes=packed, **dict(zip(named, map(_address, rest), strict=True)),
        )  # fmt: skip
        job.keeps = (gates, bias, y, cells, h0, c0, lengths, weight, other, zeros, *rest)
        place = RECURRENCE.packed // 8

        def run() -> None:
            job.memory[place] = _room(directions * packed)
            pack_weights(job.address)
            share_job(job)

        return run

    def __call__(self, *args: Any) -> None:
        self.bind(*args)()


run_forward, run_backward = _Recurrence(False), _Recurrence(True)
