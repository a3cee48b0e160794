"""Everything that takes indices, one row each, and what is done to it: run as a script in a process of its own.

A read or write beyond an array may end the process, or damage it unseen. So the table is run in a process that nobody else
needs, with canaries around the memory that it is given, and it prints what it found, a line of JSON for each case.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import kobai
import kobai.nn.functional as F
from kobai import Tensor
from kobai.core.primitive import REGISTRY
from kobai.engine import dispatch

N = 4
"""How many there are to choose from, in every row."""

FAR = 10**12

COLUMNS, OFFSETS = kobai.tensor([0, 1, 2]), kobai.tensor([0, 2])


class Row(NamedTuple):
    """``call(x, i)``: x (4, 3) of floats, i (3,) of indices."""

    call: Callable[[Tensor, Tensor], Tensor]
    who: str
    """The operation that an error names."""
    negative: bool = False
    """Whether −4 … −1 are indices too."""


def _columns(i: Tensor) -> Tensor:
    return i.unsqueeze(1).expand(3, 3)


def _set(x: Tensor, i: Tensor) -> Tensor:
    y = x * 1
    y[i] = x[:3]
    return y


def _set_plain(x: Tensor, i: Tensor) -> Tensor:
    y = kobai.zeros(N, 3)
    y[i] = 1.0
    return y * x


def _set_two(x: Tensor, i: Tensor) -> Tensor:
    y = x * 1
    y[i, COLUMNS] = x[0]
    return y


def _put(x: Tensor, i: Tensor) -> Tensor:
    y = x[:, 0].clone()
    return y.put_(i, x[:3, 1], accumulate=True)


TABLE: dict[str, Row] = {
    "cross_entropy": Row(lambda x, i: F.cross_entropy(x.T, i), "cross_entropy"),
    "cross_entropy_weighted": Row(lambda x, i: F.cross_entropy(x.T, i, kobai.ones(N)), "cross_entropy"),
    "cross_entropy_smooth": Row(lambda x, i: F.cross_entropy(x.T, i, label_smoothing=0.1), "cross_entropy"),
    "cross_entropy_each": Row(lambda x, i: F.cross_entropy(x.T, i, reduction="none"), "cross_entropy"),
    "cross_entropy_images": Row(lambda x, i: F.cross_entropy(x.T[None].mT, i[None]), "cross_entropy"),
    "nll_loss": Row(lambda x, i: F.nll_loss(x.T, i), "nll_loss"),
    "nll_loss_weighted": Row(lambda x, i: F.nll_loss(x.T, i, kobai.ones(N), reduction="sum"), "nll_loss"),
    "multi_margin_loss": Row(lambda x, i: F.multi_margin_loss(x.T, i, weight=kobai.ones(N)), "multi_margin_loss"),
    "embedding": Row(lambda x, i: kobai.embedding(x, i), "embedding"),
    "embedding_padded": Row(lambda x, i: kobai.embedding(x, i, padding_idx=-1), "embedding"),
    "embedding_max_norm": Row(lambda x, i: F.embedding(i, x * 1, max_norm=1.0), "embedding"),
    "embedding_bag": Row(lambda x, i: F.embedding_bag(i[None], x), "embedding"),
    "embedding_bag_offsets": Row(lambda x, i: F.embedding_bag(i, x, OFFSETS), "embedding"),
    "gather": Row(lambda x, i: x.gather(0, _columns(i)), "gather"),
    "gather_one_each": Row(lambda x, i: x.T.gather(1, i[:, None]), "gather"),
    "take_along_dim": Row(lambda x, i: kobai.take_along_dim(x, i[:, None], 0), "take_along_dim", negative=True),
    "index_select": Row(lambda x, i: x.index_select(0, i), "index_select"),
    "take": Row(lambda x, i: x[:, 0].take(i), "take", negative=True),
    "getitem": Row(lambda x, i: x[i], "index", negative=True),
    "getitem_columns": Row(lambda x, i: x.T[:, i], "index", negative=True),
    "getitem_two": Row(lambda x, i: x[i, COLUMNS], "index", negative=True),
    "setitem": Row(_set, "index", negative=True),
    "setitem_plain": Row(_set_plain, "index", negative=True),
    "setitem_two": Row(_set_two, "index", negative=True),
    "put_": Row(_put, "index", negative=True),
    "index_put": Row(lambda x, i: x.index_put((i,), x[:3]), "index", negative=True),
    "index_put_added": Row(lambda x, i: x.index_put((i,), x[:3], accumulate=True), "index", negative=True),
    "scatter": Row(lambda x, i: x.scatter(0, _columns(i), x[:3]), "scatter"),
    "scatter_number": Row(lambda x, i: x.scatter(0, _columns(i), 2.0), "scatter"),
    "scatter_add": Row(lambda x, i: x.scatter_add(0, _columns(i), x[:3]), "scatter_add"),
    "scatter_add_columns": Row(lambda x, i: x.T.scatter_add(1, i[:, None], x.T[:, :1]), "scatter_add"),
    "scatter_mean": Row(lambda x, i: x.scatter_reduce(0, _columns(i), x[:3], "mean"), "scatter_reduce"),
    "scatter_amax": Row(lambda x, i: x.scatter_reduce(0, _columns(i), x[:3], "amax"), "scatter_reduce"),
    "scatter_prod": Row(lambda x, i: x.scatter_reduce(0, _columns(i), x[:3], "prod"), "scatter_reduce"),
    "ctc_loss": Row(lambda x, i: F.ctc_loss(x.T[:, None], i[None, :1] * 0 + i[None, 1:2], (3,), (1,)), "ctc_loss"),
    "index_add": Row(lambda x, i: x.index_add(0, i, x[:3]), "index_add"),
    "index_copy": Row(lambda x, i: x.index_copy(0, i, x[:3]), "index_copy"),
    "max": Row(lambda x, i: REGISTRY["ops.extreme._attained"].op(x, i, 0, False, "max"), "max"),
    "index_fill": Row(lambda x, i: x.index_fill(0, i, 0.5), "index_fill"),
    "one_hot": Row(lambda x, i: x.T * F.one_hot(i, N), "one_hot"),
    "bincount": Row(lambda x, i: x[:, 0] * kobai.bincount(i, minlength=N)[:N], "bincount"),
}

UNBOUNDED = {"bincount"}
"""Rows without an upper bound of the indices."""

NOT_CAPTURED = {"bincount"}

DTYPES = {"int64": np.int64, "int32": np.int32, "uint8": np.uint8}


def bad_indices(row: str) -> list[int]:
    entry = TABLE[row]
    bad = [-N - 1] + ([] if entry.negative else [-1]) + ([] if row in UNBOUNDED else [N, FAR])
    return bad


# --- one case ---------------------------------------------------------------------------------------------------------


class Data:
    """A parameter with canaries around its memory, and a buffer of indices that belongs to NumPy."""

    def __init__(self, dtype: Any = np.int64, step: int = 1) -> None:
        self.memory = np.full((3, N, 3), 7.0)
        self.memory[1] = np.random.default_rng(0).normal(size=(N, 3))
        self.x = kobai.from_numpy(self.memory[1]).requires_grad_()
        self.wide = np.full(16 * abs(step), FAR if dtype is np.int64 else 99, dtype)
        self.buffer = self.wide[8 * abs(step) :][:: abs(step)][:3] if step > 0 else self.wide[10:7:-1]
        self.buffer[...] = [1, 3, 0]
        self.index = kobai.from_numpy(self.buffer)
        self.before = self.memory.copy()

    def untouched(self) -> bool:
        return bool((self.memory[[0, 2]] == 7).all() and (self.memory == self.before).all())


def gradient(row: Row, data: Data, then: Callable[[], None] = lambda: None) -> np.ndarray:
    y = row.call(data.x, data.index)
    then()
    data.x.grad = None
    (y * y.detach().cos()).sum().backward()
    return data.x.grad.numpy().copy()


def attempt(function: Callable[[], Any]) -> dict[str, Any]:
    try:
        function()
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}
    return {"error": "", "text": ""}


def run_row(name: str) -> Any:
    row = TABLE[name]
    wanted = gradient(row, Data())
    for dtype, kind in DTYPES.items():
        for step in (1, 2, -1):
            data = Data(kind, step)
            found: list[Any] = []
            result = attempt(lambda: found.append(gradient(row, data)))  # noqa: B023
            same = bool(found) and bool((found[0] == wanted).all())
            yield f"{dtype}/{step}", result | {"same": same, "ok": data.untouched()}

    for bad in bad_indices(name):
        data = Data()
        data.buffer[1] = bad
        yield f"eager/{bad}", attempt(lambda: gradient(row, data)) | {"ok": data.untouched()}  # noqa: B023

        data = Data()
        change = lambda: data.buffer.__setitem__(1, bad)  # noqa: B023, E731
        found = []
        result = attempt(lambda: found.append(gradient(row, data, change)))  # noqa: B023
        same = bool(found) and bool((found[0] == wanted).all())
        yield f"changed/{bad}", result | {"ok": data.untouched(), "same": same}

        if name in NOT_CAPTURED:
            continue
        for kind in ("argument", "outside"):
            data = Data()

            def step(i: Tensor) -> Tensor:
                data.x.grad = None  # noqa: B023
                y = row.call(data.x, i if kind == "argument" else data.index)  # noqa: B023
                (y * y.detach().cos()).sum().backward()
                return y.detach() * 1

            captured = kobai.capture(step)
            for _ in range(3):
                captured(data.index)
            assert captured.programs == 1
            data.buffer[1] = bad
            result = attempt(lambda: captured(data.index))  # noqa: B023
            result["ok"] = data.untouched()
            data.buffer[1] = 3
            captured(data.index)
            result["same"] = bool((data.x.grad.numpy() == wanted).all()) and captured.programs == 1
            yield f"replay_{kind}/{bad}", result


def primitives(name: str) -> list[str]:
    """The primitives on the tape of a row."""
    data = Data()
    stack, found = [TABLE[name].call(data.x, data.index)._node], set()
    while stack:
        node = stack.pop()
        if hasattr(node, "name_"):
            found.add(node.name_)
            stack.extend(node.edges)
    return sorted(found)


if __name__ == "__main__":
    faulthandler.enable()
    kobai.set_default_dtype(kobai.float64)
    if "without-numba" in sys.argv:
        dispatch.numba_installed = False
    for name in TABLE:
        print(json.dumps({"row": name, "case": "primitives", "found": primitives(name)}), flush=True)
        for case, result in run_row(name):
            print(json.dumps({"row": name, "case": case, **result}), flush=True)
    print(json.dumps({"row": "", "case": "end"}), flush=True)
