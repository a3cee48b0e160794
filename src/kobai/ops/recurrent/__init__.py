"""Recurrent networks: one primitive for all steps of a layer in both directions, so that a sequence is one node of the tape.

The inputs of all steps are multiplied by W_ih at once, and so are all gradients in backward; only W_hh h, which has to wait
for the step before, is in the loop. On the host with Numba the loop is compiled (:mod:`kobai.ops.recurrent.loops`); the one
here serves devices, and the host without Numba. Both do steps by the same formulas (:mod:`kobai.ops.recurrent.formulas`).

Sequences are (L, N, ·). The result is one vector: the states y (L, N, D·H), D directions side by side; behind them the last
states h (D, N, H), of an LSTM then c (D, N, H). With an input (N, ·) or (·) the same primitives do one step, and the result is
h, of an LSTM then c.

In a batch of sequences of unequal lengths, those that have ended keep their state; ``lengths`` (N) says when each ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from kobai.core.primitive import primitive
from kobai.cpu import blas
from kobai.engine.dispatch import FLOATS, HOST_TYPES, launch
from kobai.ops._args import Samples
from kobai.ops._matmul import matmul
from kobai.ops.linear.columns import column_sums
from kobai.ops.linear.kernel import gemm
from kobai.ops.recurrent import formulas, loops
from kobai.ops.recurrent.loops import GRU, LSTM, RELU, TANH
from kobai.xp import Array, xp_of

__all__: list[str] = []  # used by the layers of kobai.nn


def _case(
    gates: int, states: int, x: tuple[int, ...], hidden: int, bias: bool = True, directions: int = 1, **options: Any
) -> Any:
    def draw(rng: Any) -> tuple[Any, ...]:
        one = (directions, x[1]) if len(x) == 3 else x[:-1]
        start = [rng.normal(size=(*one, hidden)) for _ in range(states)]
        if options.get("start") is False:
            start = [None] * states
        shapes = [(gates * hidden, x[-1]), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
        weights: list[Any] = []
        for _ in range(directions):
            weights += [rng.normal(size=shape) for shape in shapes[: 4 if bias else 2]] + [None] * (0 if bias else 2)
        lengths = rng.permutation(x[0])[: x[1]] + 1 if options.get("lengths") else None
        rest = {k: v for k, v in options.items() if k == "nonlinearity"}
        return rng.normal(size=x), *start, lengths, *weights, rest

    return draw


def _samples(gates: int, states: int = 1, **options: Any) -> Samples:
    return [
        _case(gates, states, (4, 3, 2), 2, **options),
        _case(gates, states, (3, 2, 3), 2, False, directions=2, **options),
        _case(gates, states, (4, 3, 2), 2, lengths=True, **options),
        _case(gates, states, (4, 2, 2), 1, directions=2, lengths=True, start=False, **options),
        _case(gates, states, (1, 2, 2), 3, start=False, **options),
        _case(gates, states, (3, 2), 2, **options),
        _case(gates, states, (3,), 2, False, **options),
        _case(gates, states, (2, 0, 2), 2, **options),
    ]


GATES = {TANH: 1, RELU: 1, LSTM: 4, GRU: 3}
"""How many vectors of H gates a network has."""


class _Weights(NamedTuple):
    """Of one direction."""

    w_ih: Array
    w_hh: Array
    b_ih: Array | None
    b_hh: Array | None


class _Layer(NamedTuple):
    """What the steps of a layer work on: gates (D, L, N, ·), before them the input's part of them, after them what is kept of
    them for backward; biases (D + 1, ·); y (L, N, D·H); an LSTM's c or a GRU's W' h + b' (D, L, N, H); the first
    states (D, N, H); the lengths of the sequences; W_hh of each direction; and whether the compiled loops can take all that."""

    kind: int
    gates: Array
    bias: Array
    y: Array
    cells: Array | None
    h0: Array | None
    c0: Array | None
    lengths: Array | None
    w_hh: Sequence[Array]

    compiled: bool

    def operands(self) -> tuple[Any, ...]:
        """For ``launch``."""
        w_hh = [xp_of(w).ascontiguousarray(w) for w in self.w_hh]
        return *self[:-2], w_hh[0], w_hh[1] if len(w_hh) > 1 else None


def _compiled(arrays: Sequence[Array | None]) -> bool:
    """Whether the compiled loops can take these arrays."""
    dtype = arrays[0].dtype  # type: ignore[union-attr]
    return (
        dtype in FLOATS
        and all(a is None or (type(a) in HOST_TYPES and a.dtype == dtype and a.size) for a in arrays)
        and blas.own()
    )


def _run(
    kind: int,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    lengths: Array | None,
    given: Sequence[Array | None],
) -> tuple[Array, Callable[[Array], Any]]:
    """All steps of a layer."""
    xp = xp_of(x)
    weights = [_Weights(*given[i : i + 4]) for i in range(0, len(given), 4)]
    n = weights[0].w_hh.shape[-1]
    columns = GATES[kind] * n
    _check(weights, columns, n, x.shape[-1])
    inputs = x.reshape(-1, x.shape[-1])
    steps, batch = x.shape[:2] if x.ndim == 3 else (1, inputs.shape[0])
    directions, of_lstm = len(weights), kind == LSTM
    states = (directions, batch, n)
    first, first_c = (s if s is None else xp.ascontiguousarray(s).reshape(states) for s in (h0, c0))

    compiled = _compiled((x, h0, c0, *given))
    gates = xp.empty((directions, steps, batch, columns), dtype=x.dtype)
    within = _within(inputs, weights, compiled and (steps == 1 or batch >= loops.MANY))
    if within[0] is None:
        _of_inputs(inputs, weights, gates.reshape(directions, -1, columns))
    shapes = [states] * (1 + of_lstm)
    if x.ndim == 3:
        shapes.insert(0, (steps, batch, directions * n))
    result = xp.empty(sum(map(prod, shapes)), dtype=x.dtype)
    parts = _parts(result, shapes)
    if x.ndim == 3:
        y, last = parts[0], parts[1:]
    else:
        y, last = parts[0].reshape(1, batch, n), []
    cells = None
    if of_lstm and x.ndim < 3:
        cells = parts[1].reshape(1, 1, batch, n)
    elif kind in (LSTM, GRU):
        cells = xp.empty((directions, steps, batch, n), dtype=x.dtype)
    if lengths is not None:
        lengths = xp.ascontiguousarray(lengths.astype(np.int64))
    layer = _Layer(
        kind,
        gates,
        _biases(kind, weights, gates),
        y,
        cells,
        first,
        first_c,
        lengths,
        [w.w_hh for w in weights],
        compiled,
    )
    if compiled:
        launch(loops.run_forward, *layer.operands(), *within, *last, *[None] * (2 - len(last)))
    else:
        _forward(layer, last)
    return result, _vjp_of(layer, x, (h0, c0)[: 1 + of_lstm], inputs, weights, shapes)


def _vjp_of(
    layer: _Layer,
    x: Array,
    starts: Sequence[Array | None],
    inputs: Array,
    weights: Sequence[_Weights],
    shapes: Sequence[tuple[int, ...]],
) -> Callable[[Array], Any]:
    biased, steps = [w.b_ih is not None for w in weights], x.ndim == 3

    def vjp(dresult: Array) -> Any:
        xp = xp_of(dresult)
        parts = _parts(xp.ascontiguousarray(dresult), shapes)
        dy = parts[0] if steps else xp.zeros(layer.y.shape, dresult.dtype)
        dh, *rest = (d.copy() for d in parts[steps:])
        dc = rest[0] if rest else None
        dz = xp.empty_like(layer.gates)
        dz_hidden = xp.empty_like(layer.gates) if layer.kind == GRU else dz
        if layer.compiled:
            launch(loops.run_backward, *layer.operands(), dy, dh, dc, dz, dz_hidden)
        else:
            _backward(layer, dy, dh, dc, dz, dz_hidden)
        of_weights: list[Any] = []
        for d, has_bias in enumerate(biased):
            of_weights += _of_weights(layer, d, inputs, dz[d], dz_hidden[d], has_bias)
        of_starts = [
            None if s is None else (lambda g=g, s=s: g.reshape(s.shape)) for g, s in zip((dh, dc), starts, strict=False)
        ]
        return (lambda: _of_input(dz, weights, x.shape)), *of_starts, None, *of_weights

    return vjp


def _check(weights: Sequence[_Weights], columns: int, n: int, inputs: int) -> None:
    """RuntimeError if shapes do not fit: compiled loops read where they are told."""
    wanted = (columns, inputs), (columns, n), (columns,), (columns,)
    for w in weights:
        for name, array, shape in zip(_Weights._fields, w, wanted, strict=True):
            if array is not None and array.shape != shape:
                raise RuntimeError(f"recurrent layer: expected {name} of shape {shape}, got {tuple(array.shape)}")


def _parts(vector: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """The arrays of these shapes that lie one behind another in a vector."""
    made, start = [], 0
    for shape in shapes:
        made.append(vector[start : start + prod(shape)].reshape(shape))
        start += prod(shape)
    return made


def _within(inputs: Array, weights: Sequence[_Weights], multiplied: bool) -> tuple[Any, ...]:
    """x and W_ih of both directions for compiled loops, which multiply them step by step, or None for x."""
    if not multiplied:
        return None, weights[0].w_ih, None
    dense = xp_of(inputs).ascontiguousarray
    return dense(inputs), dense(weights[0].w_ih), dense(weights[-1].w_ih)


def _of_inputs(inputs: Array, weights: Sequence[_Weights], gates: Array) -> None:
    """gates (D, L·N, ·) ← W_ih x of all steps in every direction."""
    for d, w in enumerate(weights):
        matmul(inputs, w.w_ih.T, out=gates[d], precision=None)


def _biases(kind: int, weights: Sequence[_Weights], gates: Array) -> Array:
    """b_ih + b_hh of every direction; of a GRU, whose third gate keeps them apart, both of those. Behind them zeros."""
    xp, columns = xp_of(gates), gates.shape[-1]
    n = columns // 3 if kind == GRU else 0
    made = xp.zeros((len(weights) + 1, columns + n), dtype=gates.dtype)
    for d, w in enumerate(weights):
        if w.b_ih is None or w.b_hh is None:
            continue
        if n:
            b, shared = made[d], columns - n
            b[:columns] = w.b_ih
            b[:shared] += w.b_hh[:shared]
            b[columns:] = w.b_hh[shared:]
        else:
            xp.add(w.b_ih, w.b_hh, out=made[d])
    return made


# --- gradients of what is not in the loop -----------------------------------------------------------------------------


def _of_input(dz: Array, weights: Sequence[_Weights], shape: tuple[int, ...]) -> Array:
    total = None
    for d, w in enumerate(weights):
        dx = gemm(dz[d].reshape(-1, dz.shape[-1]), w.w_ih)
        total = dx if total is None else total.__iadd__(dx)
    return total.reshape(shape)  # type: ignore[union-attr]


def _of_weights(layer: _Layer, d: int, inputs: Array, dz: Array, dz_hidden: Array, biased: bool) -> list[Any]:
    """dW_ih, dW_hh, db_ih, db_hh of direction d."""
    every = dz.reshape(-1, dz.shape[-1])
    hidden = every if layer.kind != GRU else dz_hidden.reshape(every.shape)

    def dw_hh() -> Array:
        n = layer.w_hh[d].shape[1]
        states = layer.y[..., d * n : (d + 1) * n]
        later, before, first = (dz_hidden[:-1], states[1:], -1) if d else (dz_hidden[1:], states[:-1], 0)
        if not later.size and layer.h0 is None:
            return xp_of(dz).zeros(layer.w_hh[d].shape, dtype=dz.dtype)
        dw = None
        if later.size:
            dw = gemm(later.reshape(-1, later.shape[-1]).T, before.reshape(-1, n))
        if layer.h0 is not None:
            of_first = gemm(dz_hidden[first].T, layer.h0[d])
            dw = of_first if dw is None else dw.__iadd__(of_first)
        return dw

    @cache
    def sums() -> Array:
        return column_sums(every)

    def db_hh() -> Array:
        return sums().copy() if hidden is every else column_sums(hidden)

    return [
        lambda: gemm(every.T, inputs),
        dw_hh,
        (lambda: sums().copy()) if biased else None,
        db_hh if biased else None,
    ]


# --- the steps, one after another ---------------------------------------------------------------------------------------


def _apart(rows: Array, n: int) -> list[Array]:
    """The gates (N, ·) of a step, each by itself: for formulas, which want dense arrays."""
    blocks = xp_of(rows).ascontiguousarray(rows.reshape(rows.shape[0], rows.shape[1] // n, n).swapaxes(0, 1))
    return [blocks[i] for i in range(blocks.shape[0])]


def _together(blocks: Sequence[Array], rows: Array) -> None:
    """Write gates back."""
    n = blocks[0].shape[1]
    for i, block in enumerate(blocks):
        rows[:, i * n : (i + 1) * n] = block


def _order(layer: _Layer, d: int) -> range:
    order = range(layer.gates.shape[1])
    return order[::-1] if d else order


def _first(layer: _Layer, d: int) -> tuple[Array, Array]:
    """h and c before the first step."""
    _, _, batch, _ = layer.gates.shape
    none = xp_of(layer.gates).zeros((batch, layer.w_hh[d].shape[1]), dtype=layer.gates.dtype)
    return none if layer.h0 is None else layer.h0[d], none if layer.c0 is None else layer.c0[d]


def _ended(layer: _Layer, t: int) -> Array | None:
    """Which sequences (N, 1) have ended before step t."""
    return None if layer.lengths is None else (layer.lengths <= t)[:, None]


def _forward(layer: _Layer, last: Sequence[Array]) -> None:
    xp = xp_of(layer.gates)
    for d, w_hh in enumerate(layer.w_hh):
        n = w_hh.shape[1]
        h, c = _first(layer, d)
        wide = xp.broadcast_to(layer.bias[d], (h.shape[0], layer.bias.shape[1]))
        bias = _apart(wide, n)
        for t in _order(layer, d):
            from_h = gemm(h, w_hh, trans_b=True)
            z = layer.gates[d, t]
            new, new_c = xp.empty_like(h), c
            if layer.kind == GRU:
                z[:, : 2 * n] += from_h[:, : 2 * n]
                a, m = _apart(z, n), xp.ascontiguousarray(from_h[:, 2 * n :])
                formulas.gru_step(*a, m, *bias, h, out=(*a, m, new))
                layer.cells[d, t] = m  # type: ignore[index]
            else:
                z += from_h
                a = _apart(z, n)
                if layer.kind == LSTM:
                    new_c = xp.empty_like(c)
                    formulas.lstm_step(*a, *bias, c, out=(*a, new_c, new))
                else:
                    (formulas.tanh_step if layer.kind == TANH else formulas.relu_step)(*a, *bias, out=new)
            _together(a, z)
            ended = _ended(layer, t)
            if ended is not None:
                new = xp.where(ended, h, new)
                new_c = xp.where(ended, c, new_c)
            layer.y[t, :, d * n : (d + 1) * n] = new
            if layer.kind == LSTM:
                layer.cells[d, t] = new_c  # type: ignore[index]
            h, c = new, new_c
        for place, state in zip(last, (h, c), strict=False):
            place[d] = state


def _backward(layer: _Layer, dy: Array, dh: Array, dc: Array | None, dz: Array, dz_hidden: Array) -> None:
    """Into dz and dz_hidden (D, L, N, ·); dh and dc, the last states' gradients, become those of the first ones."""
    xp = xp_of(layer.gates)
    for d, w_hh in enumerate(layer.w_hh):
        n = w_hh.shape[1]
        mine = slice(d * n, (d + 1) * n)
        order, (h0, c0) = list(_order(layer, d)), _first(layer, d)
        for s in range(len(order) - 1, -1, -1):
            t, before = order[s], order[s - 1]
            h = xp.ascontiguousarray(layer.y[before, :, mine]) if s else h0
            c = layer.cells[d, before] if s and layer.kind == LSTM else c0  # type: ignore[index]
            ended = _ended(layer, t)
            g, this_dy = dh[d].copy(), xp.ascontiguousarray(dy[t, :, mine])
            g_c = None if dc is None else dc[d].copy()
            y = xp.ascontiguousarray(layer.y[t, :, mine])
            da = [xp.empty_like(g) for _ in range(layer.gates.shape[-1] // n)]
            da_hidden = da
            if layer.kind == LSTM:
                a = _apart(layer.gates[d, t], n)
                formulas.lstm_step_backward(*a, c, layer.cells[d, t], g, g_c, this_dy, out=(*da, g, g_c))  # type: ignore[index]
            elif layer.kind == GRU:
                a = _apart(layer.gates[d, t], n)
                da_hidden = [xp.empty_like(g) for _ in range(3)]
                formulas.gru_step_backward(*a, layer.cells[d, t], h, g, this_dy, out=(*da, *da_hidden, g))  # type: ignore[index]
            else:
                step = formulas.tanh_step_backward if layer.kind == TANH else formulas.relu_step_backward
                step(y, g, this_dy, out=(*da, g))
            if ended is not None:
                da, da_hidden = ([xp.where(ended, 0, block) for block in blocks] for blocks in (da, da_hidden))
                g = xp.where(ended, dh[d] + this_dy, g)
                g_c = None if dc is None else xp.where(ended, dc[d], g_c)
            _together(da, dz[d, t])
            if layer.kind == GRU:
                _together(da_hidden, dz_hidden[d, t])
            dh[d] = g + gemm(dz_hidden[d, t], w_hh)
            if dc is not None:
                dc[d] = g_c


# --- the primitives -----------------------------------------------------------------------------------------------------


_BOTH_WAYS: dict[str, Any] = {"directions": 2, "lengths": True}
_RELU = [_case(1, 1, (4, 3, 2), 2, nonlinearity="relu", **more) for more in ({}, _BOTH_WAYS)]


@primitive(sample=[*_samples(1, nonlinearity="tanh"), *_RELU], again=True)
def _rnn(x: Array, h0: Array | None, lengths: Array | None, *weights: Array | None, nonlinearity: str) -> Any:
    """h' = f(W_ih x + b_ih + W_hh h + b_hh). ``weights``: W_ih, W_hh, b_ih, b_hh of each direction."""
    return _run(TANH if nonlinearity == "tanh" else RELU, x, h0, None, lengths, weights)


@primitive(sample=_samples(4, 2), again=True)
def _lstm(x: Array, h0: Array | None, c0: Array | None, lengths: Array | None, *weights: Array | None) -> Any:
    """i, f, o = σ(…), g = tanh(…); c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c')."""
    return _run(LSTM, x, h0, c0, lengths, weights)


@primitive(sample=_samples(3), again=True)
def _gru(x: Array, h0: Array | None, lengths: Array | None, *weights: Array | None) -> Any:
    """r, z = σ(…); n = tanh(W x + b + r ⊙ (W' h + b')); h' = n + z ⊙ (h − n)."""
    return _run(GRU, x, h0, None, lengths, weights)


PRIMITIVES = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}
