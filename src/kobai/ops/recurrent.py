"""Recurrent networks: one primitive for all steps of a layer, so that a sequence is one node of the tape.

The inputs of all steps are multiplied by W_ih at once, and so are all gradients in backward; only W_hh h, which has to wait
for the step before, is in the loop. Sequences are (L, N, ·); with an input (N, ·) or (·) the same primitives do one step.

In a batch of sequences of unequal lengths, those that have ended keep their state; ``lengths`` (N) says when each ends.
"""

from __future__ import annotations

from typing import Any

from kobai.core.primitive import primitive
from kobai.ops._args import Samples
from kobai.ops._formulas import sigmoid
from kobai.ops.linear.columns import column_sums
from kobai.ops.linear.kernel import gemm
from kobai.xp import Array, xp_of

__all__: list[str] = []  # used by the layers of kobai.nn


def _case(gates: int, states: int, x: tuple[int, ...], hidden: int, bias: bool = True, **options: Any) -> Any:
    def draw(rng: Any) -> tuple[Any, ...]:
        start = [rng.normal(size=(*x[-2:-1], hidden)) for _ in range(states)]
        shapes = [(gates * hidden, x[-1]), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
        weights = [rng.normal(size=shape) for shape in shapes[: 4 if bias else 2]]
        lengths = rng.permutation(x[0])[: x[1]] + 1 if options.get("lengths") else None
        rest = {k: v for k, v in options.items() if k != "lengths"}
        return rng.normal(size=x), *start, lengths, *weights, *[None] * (0 if bias else 2), rest

    return draw


def _samples(gates: int, states: int = 1, **options: Any) -> Samples:
    return [
        _case(gates, states, (4, 3, 2), 2, **options),
        _case(gates, states, (3, 2, 3), 2, False, backwards=True, **options),
        _case(gates, states, (4, 3, 2), 2, lengths=True, **options),
        _case(gates, states, (4, 2, 2), 1, lengths=True, backwards=True, **options),
        _case(gates, states, (3, 2), 2, **options),
        _case(gates, states, (3,), 2, False, **options),
        _case(gates, states, (2, 0, 2), 2, **options),
    ]


class _Loop:
    """What the primitives share: layouts, the order of the steps, and the gradients of everything but the loop itself."""

    def __init__(self, x: Array, h0: Array, lengths: Array | None, backwards: bool) -> None:
        self.x = x if x.ndim == 3 else x.reshape(1, x.shape[0] if x.ndim == 2 else 1, x.shape[-1])
        self.length, self.batch = self.x.shape[:2]
        self.hidden = h0.shape[-1]
        self.shape = (*x.shape[:-1], self.hidden)
        order = range(self.length)
        self.order = order[::-1] if backwards else order
        self.backwards = backwards
        self.running = None
        if lengths is not None:
            self.running = xp_of(x).arange(self.length)[:, None, None] < lengths[:, None]

    def products(self, weight: Array, bias: Array | None, other: Array | None = None) -> Array:
        """W_ih x + b_ih + b_hh of all steps: (L, N, rows)."""
        z = gemm(self.x.reshape(-1, self.x.shape[-1]), weight, trans_b=True)
        for b in (bias, other):
            if b is not None:
                z += b
        return z.reshape(self.length, self.batch, weight.shape[0])

    def before(self, states: Array, start: Array) -> Array:
        """The states (L, N, H) before each step, as a copy."""
        shifted = xp_of(states).empty_like(states)
        start = start.reshape(self.batch, self.hidden)
        if self.backwards:
            shifted[:-1], shifted[-1] = states[1:], start
        else:
            shifted[1:], shifted[0] = states[:-1], start
        return shifted

    def hold(self, t: int, new: Array, old: Array) -> None:
        """Sequences that have ended keep their state."""
        if self.running is not None:
            new[...] = xp_of(new).where(self.running[t], new, old)

    def split(self, t: int, d: Array) -> tuple[Array, Array | None]:
        """The gradient of a state: the part that goes through step t, and the part that goes past it."""
        if self.running is None:
            return d, None
        mine = d * self.running[t]
        return mine, d - mine

    def gradients(
        self, dz: Array, dz_hidden: Array, h_before: Array, w_ih: Array, x_shape: tuple[int, ...], bias: bool
    ) -> tuple[Any, ...]:
        """dx, then dW_ih, dW_hh, db_ih, db_hh; ``dz`` and ``dz_hidden`` are those of W_ih x + b_ih and W_hh h + b_hh."""
        own, hidden = (d.reshape(-1, d.shape[-1]) for d in (dz, dz_hidden))
        inputs, states = self.x.reshape(-1, self.x.shape[-1]), h_before.reshape(-1, self.hidden)
        return (
            lambda: gemm(own, w_ih).reshape(x_shape),
            lambda: gemm(own, inputs, trans_a=True),
            lambda: gemm(hidden, states, trans_a=True),
            (lambda: column_sums(own)) if bias else None,
            (lambda: column_sums(hidden)) if bias else None,
        )


@primitive(sample=[*_samples(1, nonlinearity="tanh"), _case(1, 1, (4, 3, 2), 2, nonlinearity="relu")])
def _rnn(
    x: Array,
    h0: Array,
    lengths: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    *,
    nonlinearity: str,
    backwards: bool = False,
) -> Any:
    """h' = f(W_ih x + b_ih + W_hh h + b_hh); returns all h."""
    xp = xp_of(x)
    loop = _Loop(x, h0, lengths, backwards)
    y = loop.products(w_ih, b_ih, b_hh)
    h = h0.reshape(loop.batch, loop.hidden)
    for t in loop.order:
        step = y[t]
        step += gemm(h, w_hh, trans_b=True)
        if nonlinearity == "tanh":
            xp.tanh(step, out=step)
        else:
            xp.maximum(step, 0, out=step)
        loop.hold(t, step, h)
        h = step
    y = y.reshape(loop.shape)
    has_bias = b_ih is not None

    def vjp(dy: Array) -> Any:
        states = y.reshape(loop.length, loop.batch, loop.hidden)
        dys = dy.reshape(states.shape)
        dz = 1 - states * states if nonlinearity == "tanh" else (states > 0).astype(dy.dtype)
        dh = xp.zeros_like(states[0])
        for t in loop.order[::-1]:
            dh, past = loop.split(t, dh + dys[t])
            dz[t] *= dh
            dh = gemm(dz[t], w_hh)
            if past is not None:
                dh += past
        dx, *weights = loop.gradients(dz, dz, loop.before(states, h0), w_ih, x.shape, has_bias)
        return dx, dh.reshape(h0.shape), None, *weights

    return y, vjp


@primitive(sample=_samples(4, 2))
def _lstm(
    x: Array,
    h0: Array,
    c0: Array,
    lengths: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    *,
    backwards: bool = False,
) -> Any:
    """i, f, o = σ(…), g = tanh(…); c' = f ⊙ c + i ⊙ g; h' = o ⊙ tanh(c'); returns all h and all c: (2, L, N, H)."""
    xp = xp_of(x)
    loop = _Loop(x, h0, lengths, backwards)
    n = loop.hidden
    i, f, g, o = (slice(k * n, (k + 1) * n) for k in range(4))
    gates = loop.products(w_ih, b_ih, b_hh)
    y = xp.empty((2, loop.length, loop.batch, n), dtype=x.dtype)
    h, c = h0.reshape(loop.batch, n), c0.reshape(loop.batch, n)
    for t in loop.order:
        a = gates[t]
        a += gemm(h, w_hh, trans_b=True)
        part = a[:, : 2 * n]
        sigmoid(part, out=part)
        xp.tanh(a[:, g], out=a[:, g])
        part = a[:, o]
        sigmoid(part, out=part)
        h_new, c_new = y[0, t], y[1, t]
        xp.multiply(a[:, f], c, out=c_new)
        c_new += a[:, i] * a[:, g]
        xp.multiply(a[:, o], xp.tanh(c_new), out=h_new)
        loop.hold(t, h_new, h)
        loop.hold(t, c_new, c)
        h, c = h_new, c_new
    y = y.reshape(2, *loop.shape)
    has_bias = b_ih is not None

    def vjp(dy: Array) -> Any:
        states, d = (array.reshape(2, loop.length, loop.batch, n) for array in (y, dy))
        c_before = loop.before(states[1], c0)
        tanh_c = xp.tanh(states[1])
        dz = gates * (1 - gates)  # the derivatives of σ; that of tanh is 1 − g²
        dz[..., g] = 1 - gates[..., g] * gates[..., g]
        dh, dc = xp.zeros_like(states[0, 0]), xp.zeros_like(states[1, 0])
        for t in loop.order[::-1]:
            a, da = gates[t], dz[t]
            dh, past_h = loop.split(t, dh + d[0, t])
            dc, past_c = loop.split(t, dc + d[1, t])
            da[:, o] *= dh * tanh_c[t]
            dc = dc + dh * a[:, o] * (1 - tanh_c[t] * tanh_c[t])
            da[:, i] *= dc * a[:, g]
            da[:, f] *= dc * c_before[t]
            da[:, g] *= dc * a[:, i]
            dh = gemm(da, w_hh)
            dc = dc * a[:, f]
            if past_h is not None:
                dh += past_h
                dc += past_c
        dx, *weights = loop.gradients(dz, dz, loop.before(states[0], h0), w_ih, x.shape, has_bias)
        return dx, dh.reshape(h0.shape), dc.reshape(c0.shape), None, *weights

    return y, vjp


@primitive(sample=_samples(3))
def _gru(
    x: Array,
    h0: Array,
    lengths: Array | None,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None,
    b_hh: Array | None,
    *,
    backwards: bool = False,
) -> Any:
    """r, z = σ(…); n = tanh(W x + b + r ⊙ (W' h + b')); h' = n + z ⊙ (h − n); returns all h."""
    xp = xp_of(x)
    loop = _Loop(x, h0, lengths, backwards)
    n = loop.hidden
    r, z, m = (slice(k * n, (k + 1) * n) for k in range(3))
    gates = loop.products(w_ih, b_ih)
    y = xp.empty((loop.length, loop.batch, n), dtype=x.dtype)
    memory = xp.empty_like(y)  # W' h + b' of the new state, which r lets through
    h = h0.reshape(loop.batch, n)
    for t in loop.order:
        a, new = gates[t], y[t]
        from_h = gemm(h, w_hh, trans_b=True)
        if b_hh is not None:
            from_h += b_hh
        a[:, : 2 * n] += from_h[:, : 2 * n]
        part = a[:, : 2 * n]
        sigmoid(part, out=part)
        memory[t] = from_h[:, m]
        a[:, m] += a[:, r] * memory[t]
        xp.tanh(a[:, m], out=a[:, m])
        xp.subtract(h, a[:, m], out=new)
        new *= a[:, z]
        new += a[:, m]
        loop.hold(t, new, h)
        h = new
    y = y.reshape(loop.shape)
    has_bias = b_ih is not None

    def vjp(dy: Array) -> Any:
        states = y.reshape(loop.length, loop.batch, n)
        dys = dy.reshape(states.shape)
        h_before = loop.before(states, h0)
        dz = gates * (1 - gates)
        dz[..., m] = 1 - gates[..., m] * gates[..., m]
        dz_hidden = xp.empty_like(dz)
        dh = xp.zeros_like(states[0])
        for t in loop.order[::-1]:
            a, da, dah = gates[t], dz[t], dz_hidden[t]
            dh, past = loop.split(t, dh + dys[t])
            da[:, m] *= dh * (1 - a[:, z])
            da[:, z] *= dh * (h_before[t] - a[:, m])
            da[:, r] *= da[:, m] * memory[t]
            dah[...] = da
            dah[:, m] *= a[:, r]
            dh = dh * a[:, z] + gemm(dah, w_hh)
            if past is not None:
                dh += past
        dx, *weights = loop.gradients(dz, dz_hidden, h_before, w_ih, x.shape, has_bias)
        return dx, dh.reshape(h0.shape), None, *weights

    return y, vjp


PRIMITIVES = {"RNN": _rnn, "LSTM": _lstm, "GRU": _gru}
