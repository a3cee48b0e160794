"""What an audit puts back: every kind of thing in Python that can change, and what Kobai's own objects move on."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from types import CellType, SimpleNamespace

import numpy as np
import pytest

import kobai
from kobai.capture import session
from kobai.capture.kinds import kinds, kinds_of
from kobai.errors import CaptureError

EXAMPLES = {  # a thing, what changes it, what shows its state
    "dict": (lambda: {"a": 1, "b": 2}, lambda d: d.update(b=3, c=4), repr),
    "order of a dict": (lambda: OrderedDict(a=1, b=2), lambda d: d.move_to_end("a"), repr),
    "list": (lambda: [1, 2], lambda held: held.append(3), repr),
    "set": (lambda: {1, 2}, lambda held: held.discard(1), sorted),
    "deque": (lambda: deque([1, 2], 2), lambda held: held.append(3), repr),
    "object": (lambda: SimpleNamespace(a=1), lambda thing: setattr(thing, "b", 2), repr),
    "array": (lambda: np.zeros(3), lambda array: array.fill(7), repr),
    "read-only array": (lambda: np.frombuffer(bytes(8)), repr, repr),
    "Random": (lambda: random.Random(1), lambda drawn: drawn.random(), lambda drawn: drawn.getstate()),
    "random": (lambda: random, lambda drawn: drawn.random(), lambda drawn: drawn.getstate()),
    "RandomState": (
        lambda: np.random.RandomState(1),
        lambda drawn: drawn.normal(),
        lambda drawn: repr(drawn.get_state()),
    ),
    "numpy.random": (lambda: np.random, lambda drawn: drawn.normal(), lambda drawn: repr(drawn.get_state())),
    "Generator": (
        lambda: np.random.default_rng(1),
        lambda drawn: drawn.random(),
        lambda g: repr(g.bit_generator.state),
    ),
    "BitGenerator": (lambda: np.random.MT19937(1), lambda drawn: drawn.random_raw(), lambda drawn: repr(drawn.state)),
    "variable": (lambda: CellType(1), lambda cell: setattr(cell, "cell_contents", 2), lambda cell: cell.cell_contents),
    "kobai's generator": (lambda: kobai.Generator(), lambda g: g.manual_seed(9), lambda g: repr(g.get_state())),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_a_step_changed_is_put_back(monkeypatch, name):
    monkeypatch.setattr(session.Replay, "holds", lambda self: True)  # as if nothing were watched
    make, change, shown = EXAMPLES[name]
    thing, factor, changing = make(), [1.0], []

    def step(x):
        if changing:
            change(thing)
        return x * factor[0]

    call = kobai.capture(step, verify=1)
    for _ in range(4):
        call(kobai.ones(3))
    before = shown(thing)
    changing.append(1)
    factor[0] = 2.0
    with pytest.raises(CaptureError, match="result 0: 1, and 2"):
        call(kobai.ones(3))
    assert shown(thing) == before
    change(thing)
    assert name == "read-only array" or shown(thing) != before


def test_every_kind_that_can_be_put_back_has_an_example():
    found = {kind for make, _, _ in EXAMPLES.values() for kind in kinds_of(make())}
    assert {kind for kind in kinds() if kind.copy is not None} <= found
