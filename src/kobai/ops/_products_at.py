"""Products of what meets at places named by a tensor of indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.engine.domains import look_range
from kobai.ops._positions import add_at, mesh, product_at
from kobai.ops.reduce import of_others
from kobai.xp import Array, quiet, xp_of


def _places(x: Array, key: tuple[Array, ...]) -> Array:
    """Where the elements x[key] of a contiguous array lie."""
    return xp_of(x).arange(x.size).reshape(x.shape)[key]


@primitive(sample=[lambda rng: _factors(rng, 0, True), lambda rng: _factors(rng, 1, False)])
@quiet
def scatter_product(x: Array, index: Array, src: Array, axis: int, include_self: bool) -> Any:
    xp, dtype = xp_of(x), x.dtype
    part = tuple(slice(n) for n in index.shape)

    def products(own: Array, values: Array) -> Array:
        """Of what meets at each place: of ``own`` and of those ``values`` that go there."""
        key = mesh(index, axis)
        y = own.copy()
        if not include_self:
            y[key] = 1
        return product_at(y, _places(y, key), values)

    y = products(x, src[part])

    def vjp(dy: Array) -> Any:
        # A factor's gradient is the product of the others. Zeros are counted, not multiplied: the other factors of the only
        # zero are those that are not zero; with two zeros all others have a zero among them.
        look_range("scatter_reduce", index, (x.shape or (1,))[axis])
        key = mesh(index, axis)
        factors = products(xp.where(x == 0, 1, x).astype(dtype), xp.where(src == 0, 1, src).astype(dtype)[part])
        zeros = (x == 0).astype(np.int64, order="C")
        if not include_self:
            zeros[key] = 0
        add_at(zeros, _places(zeros, key), (src[part] == 0).astype(np.int64))

        def without(value: Array, product: Array, zeros: Array) -> Array:
            others = xp.where(value == 0, product, product / xp.where(value == 0, 1, value))
            return xp.where(zeros == (value == 0), others, 0).astype(dtype)

        def dx() -> Array:
            g = dy * without(x, factors, zeros)
            if not include_self:
                g[key] = 0
            return g

        def dsrc() -> Array:
            out = xp.zeros(src.shape, dy.dtype)
            out[part] = dy[key] * without(src[part], factors[key], zeros[key])
            return out

        return dx, None, dsrc, None, None

    def on_tape(bind: Any, dy: Array) -> Any:
        if not ((x == 0).any() | (src == 0).any()).item():
            return bind.value(bind.node.vjp)(dy)
        # Without counting zeros: a row for each place, of what is multiplied there; a factor gets the product of the others.
        key = mesh(index, axis)
        places = _places(x, key).reshape(-1)
        order = xp.argsort(places, kind="stable")
        row = places[order]
        column = 1 + xp.arange(row.size) - xp.searchsorted(row, row, side="left")
        here = xp_of(dy)
        own = bind(x).copy()
        if not include_self:
            own[key] = 1
        rows = here.ones((x.size, 1 + int(column.max().item()) if row.size else 1), dtype)
        rows[:, 0] = own.reshape(-1)
        rows[row, column] = bind(src)[part].reshape(-1)[order]
        found = dy.reshape(-1, 1) * of_others(rows, (1,))
        dx = found[:, 0].reshape(x.shape)
        if not include_self:
            dx[key] = 0
        dsrc = here.zeros(src.shape, dtype)
        dsrc[part] = found[row, column][xp.argsort(order, kind="stable")].reshape(index.shape)
        return dx, None, dsrc, None, None

    vjp.on_tape = on_tape  # type: ignore[attr-defined]
    return y, vjp


def _factors(rng: np.random.Generator, zeros: int, include_self: bool) -> Any:
    index = np.array([[0, 1, 1], [0, 2, 1], [3, 2, 1]])
    x, src = rng.uniform(0.5, 2, (4, 3)), rng.uniform(0.5, 2, (4, 3))
    x.flat[: 2 * zeros], src.flat[1 : 1 + 3 * zeros] = 0, 0
    return x, index, src, 0, include_self
