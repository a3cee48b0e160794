"""Recurrent layers. ONNX has the gates in another order, and one row of weights for each direction.

The order of an LSTM's gates is i, f, g, o here and i, o, f, c there; of a GRU's r, z, n and z, r, h. Parameters keep their
names and are put in order by nodes, so that ``state_dict`` and graph have the same tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.onnx.forms._table import form

_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def _gates(g: Any, op: str, weight: Any, hidden: int) -> Any:
    """The blocks of a weight or bias in ONNX's order."""
    order = _ORDER[op]
    if order == (0,):
        return g.ref(weight)
    rows = np.concatenate([np.arange(i * hidden, (i + 1) * hidden) for i in order])
    return g.node("Gather", weight, rows, axis=0)


def _joined(g: Any, rows: list[str], axis: int = 0) -> Any:
    return rows[0] if len(rows) == 1 else g.node("Concat", *rows, axis=axis)


def _recurrent(g: Any, op: str, x: Any, states: list[Any], lengths: Any, weights: Any, **attributes: Any) -> Any:
    if lengths is not None:  # a sequence that has ended keeps its state here, and is 0 there
        raise g.refuse("a batch of sequences of unequal lengths")
    ways = [weights[i : i + 4] for i in range(0, len(weights), 4)]
    hidden, directions, steps = weights[1].shape[-1], len(ways), len(x.shape) == 3
    if not steps:  # one step of a cell, of one sample or of several
        x_of = g.node("Unsqueeze", x, g.ints([0] if len(x.shape) == 2 else [0, 1]))
        states = [
            s if s is None else g.node("Unsqueeze", s, g.ints([0] if len(x.shape) == 2 else [0, 1])) for s in states
        ]
    else:
        x_of = g.ref(x)
    w, r, b = [], [], []
    for w_ih, w_hh, b_ih, b_hh in ways:
        w.append(g.node("Unsqueeze", _gates(g, op, w_ih, hidden), g.ints([0])))
        r.append(g.node("Unsqueeze", _gates(g, op, w_hh, hidden), g.ints([0])))
        if b_ih is not None:
            both = g.node("Concat", _gates(g, op, b_ih, hidden), _gates(g, op, b_hh, hidden), axis=0)
            b.append(g.node("Unsqueeze", both, g.ints([0])))
    made = g.node(
        op, x_of, _joined(g, w), _joined(g, r), _joined(g, b) if b else None, None, *states,
        outputs=1 + len(states), hidden_size=hidden, direction="bidirectional" if directions == 2 else "forward", **attributes,
    )  # fmt: skip
    flat = [g.reshape(last, [-1]) for last in made[1:]]
    if steps:  # (L, D, N, H) as (L, N, D, H), before the last states
        flat.insert(0, g.reshape(g.node("Transpose", made[0], perm=[0, 2, 1, 3]), [-1]))
    return _joined(g, flat)


@form("ops.recurrent._lstm")
def _lstm(g: Any, x: Any, h0: Any, c0: Any, lengths: Any, *weights: Any) -> Any:
    return _recurrent(g, "LSTM", x, [h0, c0], lengths, weights)


@form("ops.recurrent._gru")
def _gru(g: Any, x: Any, h0: Any, lengths: Any, *weights: Any) -> Any:
    return _recurrent(g, "GRU", x, [h0], lengths, weights, linear_before_reset=1)


@form("ops.recurrent._rnn")
def _rnn(g: Any, x: Any, h0: Any, lengths: Any, *weights: Any, nonlinearity: str) -> Any:
    names = [nonlinearity.capitalize()] * (len(weights) // 4)
    return _recurrent(g, "RNN", x, [h0], lengths, weights, activations=names)
