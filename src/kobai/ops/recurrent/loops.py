"""All steps of a recurrent layer on the host in one compiled loop, which threads share by sequences of the batch.

What step t adds to the input's part of its gates is the product of the states before it with W_hhᵀ, a matrix that is the same
in all steps. So it is copied into panels (:mod:`kobai.cpu.product`) once, and in each step the tiles read it where it lies:

    for t in order:    gates[t] = x[t] · W_ihᵀ              tiles (:mod:`kobai.cpu.tiles`)
                       gates[t] += h[t − 1] · W_hhᵀ
                       h[t], c[t] = step(gates[t] + b)      a formula (:mod:`kobai.ops.recurrent.formulas`), row by row

and backward, with dh and dc in place,

    for t reversed:    da[t], dh, dc = step_backward(…)
                       dh += da[t] · W_hh

A sequence needs nothing of the others in the batch. So a part of the job is some of the sequences in one direction, from the
first step to the last: threads do not wait for each other between steps. An element of a product depends on its row and column
alone, and so the bits do not depend on the parts.

Where the batch is small a tile has few rows, and x · W_ihᵀ of all steps at once, before the loop, is faster (:data:`MANY`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from kobai.cpu.job import JOB, Job, fields, load, store
from kobai.cpu.product import ADD, INNER, SET, cut, pack, panel_row
from kobai.cpu.team import share_job
from kobai.cpu.threads import num_threads
from kobai.cpu.tiles import VECTORS, tile, tile_rows, width
from kobai.engine.dispatch import as_written, compiled, entry
from kobai.formula.elementwise import from_addresses
from kobai.ops._matmul import PART
from kobai.ops.conv.image_loops import copy_row, fill_row
from kobai.ops.recurrent import formulas
from kobai.xp import Array

MANY = 16
"""Sequences in a batch from which on the inputs are multiplied step by step, while their gates are in the cache."""

TANH, RELU, LSTM, GRU = range(4)
"""The networks."""

RECURRENCE = fields(
    "kind backward size steps batch hidden directions blocks columns gates bias bias_row y cells start start_cell zeros "
    "lengths last last_cell weight next_weight packed packed_bytes x inputs w_ih next_w_ih dy dh dc dz dz_hidden",
    after=JOB,
)
"""What a job says of a layer. ``columns``: of its gates. ``weight``, ``next_weight``: W_hh of each direction; ``packed``: in
panels, then W_ih. Arrays are addresses, 0 for what there is not: without ``x`` the gates hold its part already."""

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
            below = panel_row(size, n - j)
            for i in range(0, m, tall):
                left, result = a + i * a_row + p * size, c + i * c_row + j * size
                tile(size, min(tall, m - i), n - j, inner, left, a_row, size, panels, below, result, c_row, p | add)
            panels += inner * VECTORS * width()


@compiled
def pack_weights(job: int) -> None:
    """Copy W_hhᵀ or W_hh of every direction into panels; those of n in a GRU's forward pass begin a panel of their own."""
    size, hidden, columns = load(job + RECURRENCE.size), load(job + RECURRENCE.hidden), load(job + RECURRENCE.columns)
    row = hidden * size  # of W_hh: a column of W_hhᵀ
    for d in range(load(job + RECURRENCE.directions)):
        weight = load(job + RECURRENCE.weight) if d == 0 else load(job + RECURRENCE.next_weight)
        to = load(job + RECURRENCE.packed) + d * load(job + RECURRENCE.packed_bytes)
        if load(job + RECURRENCE.backward):
            pack_whole(size, hidden, columns, weight, row, size, to)
        elif load(job + RECURRENCE.kind) == GRU:
            pack_whole(size, 2 * hidden, hidden, weight, size, row, to)
            to += panels_bytes(size, 2 * hidden, hidden)
            pack_whole(size, hidden, hidden, weight + 2 * hidden * row, size, row, to)
        else:
            pack_whole(size, columns, hidden, weight, size, row, to)
        if load(job + RECURRENCE.x):
            weight = load(job + RECURRENCE.w_ih) if d == 0 else load(job + RECURRENCE.next_w_ih)
            inputs = load(job + RECURRENCE.inputs)
            pack_whole(size, columns, inputs, weight, size, inputs * size, panels_of_inputs(job, d))


@compiled
def panels_of_inputs(job: int, d: int) -> Any:
    """Where W_ihᵀ of direction d lies in panels."""
    each = panels_bytes(load(job + RECURRENCE.size), load(job + RECURRENCE.columns), load(job + RECURRENCE.inputs))
    return (
        load(job + RECURRENCE.packed)
        + load(job + RECURRENCE.directions) * load(job + RECURRENCE.packed_bytes)
        + d * each
    )


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
    bias = load(job + RECURRENCE.bias) + d * load(job + RECURRENCE.bias_row)
    panels = load(job + RECURRENCE.packed) + d * load(job + RECURRENCE.packed_bytes)
    zeros, lengths = load(job + RECURRENCE.zeros), load(job + RECURRENCE.lengths)
    x, inputs, panels_x = load(job + RECURRENCE.x), load(job + RECURRENCE.inputs), panels_of_inputs(job, d)
    h, h_row, c, c_row = zeros, 0, zeros, 0
    if load(job + RECURRENCE.start):
        h, h_row = load(job + RECURRENCE.start) + (d * batch + top) * bytes, bytes
    if load(job + RECURRENCE.start_cell):
        c, c_row = load(job + RECURRENCE.start_cell) + (d * batch + top) * bytes, bytes
    for s in range(steps):
        t = steps - 1 - s if d else s
        a, new, new_c = gates + t * batch * gate_row, y + t * batch * y_row, cells + t * batch * bytes
        first = 2 * hidden if kind == GRU else columns
        if x:
            x_row = inputs * size
            multiply_add(size, rows, columns, inputs, x + (t * batch + top) * x_row, x_row, panels_x, a, gate_row, SET)
        if h_row:
            multiply_add(size, rows, first, hidden, h, h_row, panels, a, gate_row, ADD)
            if kind == GRU:
                rest = panels + panels_bytes(size, first, hidden)
                multiply_add(size, rows, hidden, hidden, h, h_row, rest, new_c, bytes, SET)
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
            multiply_add(size, rows, hidden, columns, dz_hidden + at * gate_row, gate_row, panels, dh, bytes, ADD)


# --- jobs ---------------------------------------------------------------------------------------------------------------


@compiled
def describe(
    job: int, function: int, threads: int, kind: int, backward: int, gates: Any, bias: Any, y: Any, cells: Any, h0: Any,
    c0: Any, lengths: Any, weight: Any, other: Any,
) -> Any:  # fmt: skip
    """Write what forward and backward have in common, for so many threads; returns the number of parts and panels' bytes."""
    directions, steps, batch, columns = gates.shape
    hidden, size = weight.shape[1], gates.itemsize
    work = directions * steps * batch * columns * hidden
    blocks = max(1, min(min(threads, work // PART) // directions, batch))
    if backward:
        packed = panels_bytes(size, hidden, columns)
    elif kind == GRU:
        packed = panels_bytes(size, 2 * hidden, hidden) + panels_bytes(size, hidden, hidden)
    else:
        packed = panels_bytes(size, columns, hidden)
    store(job + JOB.function, function)
    store(job + JOB.parts, directions * blocks)
    store(job + JOB.work, work)
    store(job + RECURRENCE.kind, kind)
    store(job + RECURRENCE.backward, backward)
    store(job + RECURRENCE.size, size)
    store(job + RECURRENCE.steps, steps)
    store(job + RECURRENCE.batch, batch)
    store(job + RECURRENCE.hidden, hidden)
    store(job + RECURRENCE.directions, directions)
    store(job + RECURRENCE.blocks, blocks)
    store(job + RECURRENCE.columns, columns)
    store(job + RECURRENCE.gates, gates.ctypes.data)
    store(job + RECURRENCE.bias, bias.ctypes.data)
    store(job + RECURRENCE.bias_row, bias.shape[1] * size)
    store(job + RECURRENCE.zeros, bias.ctypes.data + directions * bias.shape[1] * size)
    store(job + RECURRENCE.y, y.ctypes.data)
    store(job + RECURRENCE.cells, cells.ctypes.data)
    store(job + RECURRENCE.start, h0.ctypes.data if h0.size else 0)
    store(job + RECURRENCE.start_cell, c0.ctypes.data if c0.size else 0)
    store(job + RECURRENCE.lengths, lengths.ctypes.data if lengths.size else 0)
    store(job + RECURRENCE.weight, weight.ctypes.data)
    store(job + RECURRENCE.next_weight, other.ctypes.data)
    store(job + RECURRENCE.packed_bytes, packed)
    return directions * blocks, directions * packed


@compiled
def describe_forward(job: int, x: Any, w_ih: Any, other: Any, last: Any, last_cell: Any) -> Any:
    """Returns how many bytes W_ih takes in panels."""
    store(job + RECURRENCE.x, x.ctypes.data if x.size else 0)
    store(job + RECURRENCE.inputs, w_ih.shape[1])
    store(job + RECURRENCE.w_ih, w_ih.ctypes.data)
    store(job + RECURRENCE.next_w_ih, other.ctypes.data)
    store(job + RECURRENCE.last, last.ctypes.data if last.size else 0)
    store(job + RECURRENCE.last_cell, last_cell.ctypes.data)
    each = panels_bytes(load(job + RECURRENCE.size), w_ih.shape[0], w_ih.shape[1])
    return load(job + RECURRENCE.directions) * each if x.size else 0


@compiled
def describe_backward(job: int, dy: Any, dh: Any, dc: Any, dz: Any, dz_hidden: Any) -> Any:
    """Returns 0."""
    store(job + RECURRENCE.dy, dy.ctypes.data)
    store(job + RECURRENCE.dh, dh.ctypes.data)
    store(job + RECURRENCE.dc, dc.ctypes.data)
    store(job + RECURRENCE.dz, dz.ctypes.data)
    store(job + RECURRENCE.dz_hidden, dz_hidden.ctypes.data)
    store(job + RECURRENCE.x, 0)
    return 0


_own = threading.local()


def _room(bytes: int) -> int:
    """The address of this thread's memory for panels, at a multiple of 64."""
    memory = getattr(_own, "memory", None)
    if memory is None or memory.size < bytes + 64:
        memory = _own.memory = np.empty(bytes + 64, np.uint8)
        _own.address = -(-memory.ctypes.data // 64) * 64
    return _own.address  # type: ignore[no-any-return]


@cache
def _none(dtype: Any, dims: int) -> Array:
    """What compiled code is given for None: an array of the kind that might be there."""
    return np.empty((0,) * dims, dtype)


_PANELS = RECURRENCE.packed // 8

_spare: list[Job] = []
"""Unused jobs: making one takes longer than describing a short sequence."""


class _Recurrence:
    """Forward or backward for ``launch``; ``bind`` does everything that depends only on the arrays.

    ``kind, gates (D, L, N, ·), bias (D + 1, ·), the last row zeros, y (L, N, D·H), cells (D, L, N, H), h0, c0 (D, N, H),
    lengths, W_hh of each of two directions``. In forward ``x (L·N, ·)``, None if the gates hold its part, ``W_ih`` of each
    direction, and ``last, last_cell`` (D, N, H), where the last states go, follow; in backward ``dy, dh, dc, dz, dz_hidden``.
    """

    def __init__(self, backward: bool) -> None:
        self.backward = backward

    def describe(
        self, job: Job, kind: int, gates: Array, bias: Array, y: Array, cells: Array | None, h0: Array | None,
        c0: Array | None, lengths: Array | None, weight: Array, other: Array | None, *rest: Array | None,
    ) -> int:  # fmt: skip
        """Write the job; returns how many bytes its panels take."""
        dtype = gates.dtype
        none = _none(dtype, 3)
        bytes: int
        job.parts, bytes = describe(
            job.address, recurrence.address, num_threads(), kind, self.backward, gates, bias, y,
            _none(dtype, 4) if cells is None else cells, none if h0 is None else h0, none if c0 is None else c0,
            _none(np.int64, 1) if lengths is None else lengths, weight, weight if other is None else other,
        )  # fmt: skip
        if self.backward:
            dy, dh, dc, dz, dz_hidden = rest
            describe_backward(job.address, dy, dh, none if dc is None else dc, dz, dz_hidden)
            return bytes
        x, w_ih, other, last, last_cell = rest
        more: int = describe_forward(
            job.address, _none(dtype, 2) if x is None else x, w_ih, w_ih if other is None else other,
            none if last is None else last, none if last_cell is None else last_cell,
        )  # fmt: skip
        return bytes + more

    def bind(self, *args: Any) -> Callable[[], None]:
        job = Job(RECURRENCE)
        bytes = self.describe(job, *args)
        job.keeps = args
        return lambda: _do(job, bytes)

    def __call__(self, *args: Any) -> None:
        try:
            job = _spare.pop()
        except IndexError:
            job = Job(RECURRENCE)
        _do(job, self.describe(job, *args))
        _spare.append(job)


def _do(job: Job, bytes: int) -> None:
    job.memory[_PANELS] = _room(bytes)
    pack_weights(job.address)
    share_job(job)


run_forward, run_backward = _Recurrence(False), _Recurrence(True)
