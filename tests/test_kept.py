"""What a vjp keeps is found wherever it lies: changed in place, backward raises. The rule is in core/primitive.py."""

from __future__ import annotations

import contextvars
import functools
import itertools
import operator
import types
from collections import ChainMap, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field

import numpy as np
import pytest

import kobai
from kobai import autograd
from kobai.core.primitive import REGISTRY, primitive
from kobai.core.tape import Node, kept

Pair = namedtuple("Pair", "shape array")


@dataclass
class Record:
    array: object
    parts: list = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slotted:
    array: object


class Attribute:
    def __init__(self, array):
        self.array = array

    def read(self):
        return self.array

    @property
    def later(self):
        return self.array


class Slots:
    __slots__ = ("array",)

    def __init__(self, array):
        self.array = array


class Inherited(Slots):
    """Slots above, a ``__dict__`` below."""


class Items(list):
    pass


class ByIdentity(Attribute):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def waiting(array):
    """A generator that has the array as a local variable."""
    yield None
    while True:
        yield array


def started(array):
    generator = waiting(array)
    next(generator)
    return generator


def in_a_cell(array):
    return lambda: array


def ring(array):
    """A list that holds itself."""
    made = [array]
    made.insert(0, made)
    return made


def beside_an_unset_cell(array):
    if array is None:
        later = None

    def read():
        return array if array is not None else later

    return read


HOLDERS = {
    "function with a variable that is not set": (beside_an_unset_cell, lambda h: h()),
    "itself": (lambda a: a, lambda h: h),
    "tuple": (lambda a: (1, a), lambda h: h[1]),
    "named tuple": (lambda a: Pair(a.shape, a), lambda h: h.array),
    "list": (lambda a: [None, a], lambda h: h[1]),
    "list of a class": (lambda a: Items([a]), lambda h: h[0]),
    "list in itself": (ring, lambda h: h[1]),
    "dict": (lambda a: {"x": a}, lambda h: h["x"]),
    "ordered dict": (lambda a: OrderedDict(x=a), lambda h: h["x"]),
    "default dict": (lambda a: defaultdict(list, x=[a]), lambda h: h["x"][0]),
    "chain of dicts": (lambda a: ChainMap({}, {"x": a}), lambda h: h["x"]),
    "view of a dict": (lambda a: {"x": a}.values(), lambda h: next(iter(h))),
    "read-only dict": (lambda a: types.MappingProxyType({"x": a}), lambda h: h["x"]),
    "key of a dict": (lambda a: {ByIdentity(a): 1}, lambda h: next(iter(h)).array),
    "set": (lambda a: {ByIdentity(a)}, lambda h: next(iter(h)).array),
    "frozen set": (lambda a: frozenset([ByIdentity(a)]), lambda h: next(iter(h)).array),
    "deque": (lambda a: deque([a]), lambda h: h[0]),
    "namespace": (lambda a: types.SimpleNamespace(x=a), lambda h: h.x),
    "object": (Attribute, lambda h: h.array),
    "property of an object": (Attribute, lambda h: h.later),
    "slots": (Slots, lambda h: h.array),
    "inherited slots": (Inherited, lambda h: h.array),
    "dataclass": (Record, lambda h: h.array),
    "list in a dataclass": (lambda a: Record(None, [a]), lambda h: h.parts[0]),
    "frozen dataclass with slots": (Slotted, lambda h: h.array),
    "bound method": (lambda a: Attribute(a).read, lambda h: h()),
    "method of a container": (lambda a: [a].__getitem__, lambda h: h(0)),
    "partial": (lambda a: functools.partial(operator.pos, a), lambda h: h.args[0]),
    "keyword of a partial": (lambda a: functools.partial(dict, x=a), lambda h: h()["x"]),
    "cell of an inner function": (in_a_cell, lambda h: h()),
    "default of an inner function": (lambda a: lambda x=a: x, lambda h: h()),
    "keyword default of an inner function": (lambda a: lambda *, x=a: x, lambda h: h()),
    "wrapped function": (lambda a: functools.wraps(in_a_cell(a))(lambda: None), lambda h: h.__wrapped__()),
    "cached function": (lambda a: functools.lru_cache(in_a_cell(a)), lambda h: h()),
    "generator": (started, next),
    "generator that has not begun": (waiting, lambda h: [next(h), next(h)][1]),
    "generator expression": (lambda a: (x for x in [a] * 9), next),
    "iterator of a list": (lambda a: iter([a] * 9), next),
    "chained iterators": (lambda a: itertools.chain([], itertools.repeat(a)), next),
    "map": (lambda a: map(operator.getitem, itertools.repeat([a]), itertools.repeat(0)), next),
    "context variable": (lambda a: _context(a), lambda h: h[1].run(h[0].get)),
    "array of objects": (lambda a: _objects(a), lambda h: h[1]),
    "Tensor": (lambda a: kobai.core.tensor.Tensor._wrap(a), lambda h: h.array),
    "Tensor in a list": (lambda a: [kobai.core.tensor.Tensor._wrap(a)], lambda h: h[0].array),
    "everything at once": (
        lambda a: [{"x": (Record(deque([Slots({1: [a]})])),)}],
        lambda h: h[0]["x"][0].array[0].array[1][0],
    ),
    "deep": (
        lambda a: functools.reduce(lambda held, _: [held], range(500), a),
        lambda h: functools.reduce(lambda x, _: x[0], range(500), h),
    ),
    "view": (lambda a: a.reshape(-1), lambda h: h.reshape(2, 2)),
    "transposed view in a list": (lambda a: [a.T], lambda h: h[0].T),
    "part": (lambda a: [a[:1], a[1:]], lambda h: kobai.xp.xp_of(h[0]).concatenate(h)),
}


def _context(array):
    variable, context = contextvars.ContextVar("x"), contextvars.Context()
    context.run(variable.set, array)
    return variable, context


def _objects(array):
    made = np.empty(2, object)
    made[1] = array
    return made


def closure(x, get):
    return lambda dy: (2 * dy * get(),)


def inner(x, get):
    return lambda dy: (lambda: 2 * dy * get(),)


def default(x, get):
    return lambda dy, get=get: (2 * dy * get(),)


def keyword(x, get):
    return lambda dy, *, get=get: (2 * dy * get(),)


def partial(x, get):
    return functools.partial(lambda get, dy: (2 * dy * get(),), get)


class Callable:
    def __init__(self, get):
        self.get = get

    def __call__(self, dy):
        return (2 * dy * self.get(),)

    def gradient(self, dy):
        return self(dy)


def attribute(x, get):
    def vjp(dy):
        return (2 * dy * me[0].get(),)

    vjp.get = get
    me = [vjp]
    return vjp


VJPS = {
    "closure": closure,
    "inner": inner,
    "default": default,
    "keyword": keyword,
    "partial": partial,
    "object": lambda x, get: Callable(get),
    "method": lambda x, get: Callable(get).gradient,
    "attribute": attribute,
}


@pytest.fixture
def squared():
    """x ↦ x² (or, with ``of_result``, a function of the result), whose vjp keeps its array in a way of its own."""
    names = []

    def declare(holder, vjp=closure, of_result=False):
        make, read = HOLDERS[holder]

        def square(x):
            y = x * x
            held = make(y if of_result else x)
            get = functools.partial(read, held)
            if of_result:
                return y, vjp(None, lambda: read(held) ** 0.5)
            return y, vjp(None, get)

        square.__module__ = f"{__name__}.{len(names)}"
        names.append(f"{square.__module__}.square")
        return primitive(sample=lambda rng: (rng.normal(size=2),))(square)

    yield declare
    for name in names:
        del REGISTRY[name]


def values():
    return kobai.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("of_result", [False, True], ids=["operand", "result"])
def test_a_change_is_found_in_every_container(squared, holder, of_result, backend):
    op, w = squared(holder, of_result=of_result), values()
    y = op(w * 1)
    y.backward(kobai.ones(2, 2))
    assert w.grad.tolist() == [[2, 4], [6, 8]]
    with pytest.raises(RuntimeError, match="was freed by an earlier backward"):
        y.backward(kobai.ones(2, 2))
    x = w * 1
    y = op(x)
    z = y * 1
    (y if of_result else x).detach().add_(1)
    with pytest.raises(RuntimeError, match="a tensor that SquareBackward needs was changed in place"):
        z.backward(kobai.ones(2, 2))


@pytest.mark.parametrize("holder", ["itself", "list", "object", "generator", "part"])
@pytest.mark.parametrize("vjp", VJPS)
def test_a_change_is_found_whatever_a_vjp_is(squared, vjp, holder, backend):
    op, w = squared(holder, VJPS[vjp]), values()
    op(w * 1).backward(kobai.ones(2, 2))
    assert w.grad.tolist() == [[2, 4], [6, 8]]
    x = w * 1
    y = op(x)
    x.detach()[0].zero_()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward(kobai.ones(2, 2))


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_change_is_found_while_a_step_is_recorded(squared, holder, backend):
    op, w = squared(holder), values()

    @kobai.capture
    def step(x, change):
        w.grad = None
        h = w * x
        y = op(h)
        if change:
            h.detach().add_(1)
        y.sum().backward()
        return w.grad

    for factor in (1.0, 2.0, 3.0):
        x = kobai.full((2, 2), factor)
        assert step(x, False).tolist() == (2 * factor**2 * w).tolist()
    with pytest.raises(RuntimeError, match="a tensor that SquareBackward needs was changed in place"):
        step(x, True)


@pytest.mark.parametrize("replays", [1, 3])
def test_a_change_by_a_replay_is_found(squared, replays):
    op, w, b = squared("list"), values(), kobai.ones(2, 2)

    @kobai.capture
    def change(x):
        b.add_(x)
        return b.sum()

    for _ in range(2):
        change(b * 0 + 1)
    y = op(w * 1) + op(b * w)
    z = (b * w).square().sum() + y.sum()
    for _ in range(replays):
        change(kobai.ones(2, 2))
    with pytest.raises(RuntimeError, match="a tensor that MulBackward needs was changed in place"):
        z.backward()


def test_what_is_not_kept_may_change(squared):
    """A copy is not the array; nor is what a vjp does not reach, though it has the same counter or an operand beside it."""
    w = values()
    x, b = w * 1, kobai.ones(2, 2)
    y = x + b
    x.add_(1)
    b.add_(1)
    y.sum().backward()
    assert w.grad.tolist() == [[1, 1], [1, 1]]
    HOLDERS["copy"] = (lambda a: [a.copy()], lambda h: h[0])
    try:
        op = squared("copy")
    finally:
        del HOLDERS["copy"]
    w = values()
    x = w * 1
    y = op(x)
    x.add_(1)
    y.sum().backward()
    assert w.grad.tolist() == [[2, 4], [6, 8]]


def test_other_memory_is_no_change(squared):
    """What ``.data =`` puts in the place of an array changes nothing that was kept; a change of that array still counts."""
    op = squared("list")
    w = kobai.ones(2, 2)
    x = values()
    y = op(x * w)
    w.data = kobai.zeros(2, 2)
    w.add_(5)
    y.sum().backward()
    assert x.grad.tolist() == [[2, 4], [6, 8]]
    y = x * w
    w.add_(1)
    w.data = kobai.zeros(2, 2)
    w.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_the_search_does_not_leave_what_the_vjp_keeps():
    """Not through modules, classes and globals, nor on into the graph."""
    x = values()
    y = (x * 2).exp() * 3
    near = np.ones(3)

    def vjp(dy):
        return np.exp(near), y, Attribute, x

    found = list(kept(vjp))
    assert len(found) == 3
    assert {id(a) for a in found} == {id(near), id(y.array), id(x.array)}


class ByAttribute(autograd.Function):
    """Keeps its input as an attribute, which as in PyTorch is the author's own affair, and not as a saved tensor."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x * x

    @staticmethod
    def backward(ctx, dy):
        return dy * 2 * ctx.x


class Saved(ByAttribute):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, dy):
        return dy * 2 * ctx.saved_tensors[0]


def test_a_function_finds_changes_of_what_it_saved_and_not_of_attributes(backend):
    for kind in (ByAttribute, Saved):
        w = values()
        x = w * 1
        y = kind.apply(x)
        x.detach().add_(1)
        if kind is Saved:
            with pytest.raises(RuntimeError, match="saved for backward was changed in place"):
                y.sum().backward()
        else:
            y.sum().backward()
            assert w.grad.tolist() == [[4, 6], [8, 10]]


@pytest.mark.oracle
def test_pytorch_does_not_watch_attributes_either():
    torch = pytest.importorskip("torch")

    class Attribute(torch.autograd.Function):
        forward, backward = ByAttribute.forward, ByAttribute.backward

    w = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    x = w * 1
    y = Attribute.apply(x)
    x.detach().add_(1)
    y.sum().backward()
    assert w.grad.tolist() == [[4, 6], [8, 10]]


def test_an_array_at_the_place_of_one_that_is_gone_was_not_changed():
    """The memory that a tensor had before ``.data`` was set has an id, which an array that a vjp keeps may get later."""
    layer = kobai.nn.BatchNorm1d(3)
    for _ in range(200):
        layer.running_mean.data = layer.running_mean * 1.0
        layer(kobai.randn(4, 3)).sum().backward()
    assert len(layer.running_mean._version) == 2  # the count, and the memory of now


@pytest.mark.parametrize("running", [True, False])
def test_what_an_operation_itself_writes_into_is_no_change_afterwards(running, monkeypatch):
    """Backward through batch normalisation searches no vjp, which took a tenth of a step, until its buffers move on."""
    layer = kobai.nn.BatchNorm1d(3, track_running_stats=running)
    searched = []
    monkeypatch.setattr(Node, "check_unchanged", lambda node: searched.append(node.name()))
    y = layer(kobai.randn(4, 3, requires_grad=True)).sum()
    y.backward(retain_graph=True)
    assert searched == []
    layer(kobai.randn(4, 3))
    monkeypatch.undo()
    y.backward()


def test_what_an_operation_writes_into_and_keeps_must_not_change_afterwards():
    def count_up(counter, x):
        counter += 1
        return x * counter, lambda dy: (None, dy * counter)

    count_up.__module__ = __name__
    op = primitive(sample=lambda rng: (rng.normal(size=2),) * 2, updates=(0,))(count_up)
    try:
        counter, x = kobai.ones(2), kobai.ones(2, requires_grad=True)
        op(counter, x).sum().backward()
        assert x.grad.tolist() == [2, 2]
        assert counter._version[0] == 1
        y = op(counter, x)
        op(counter, x)
        with pytest.raises(RuntimeError, match="CountUpBackward needs was changed in place"):
            y.sum().backward()
    finally:
        del REGISTRY[f"{__name__}.count_up"]
