"""Subclasses of Tensor, as programs write them, against PyTorch's."""

import copy
import importlib

import pytest

import kobai
from kobai import nn, overrides


def classes(t):
    """In framework ``t``: a class that logs, one made by ``__new__`` and ``__init__``, two by ``__new__``, and the log."""
    log = []

    class Logging(t.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func.__name__ not in ("__get__", "data"):
                log.append((func.__name__, [kind.__name__ for kind in types]))
            return super().__torch_function__(func, types, args, kwargs)

    class Made(t.Tensor):
        @staticmethod
        def __new__(cls, x, extra=None):
            return super().__new__(cls, x)

        def __init__(self, x, extra=None):
            self.extra = extra

    class Other(t.Tensor):
        def __new__(cls, x, extra=None):
            made = t.as_tensor(x).as_subclass(cls)
            made.extra = extra
            return made

    class Weight(t.nn.Parameter):
        def __new__(cls, data, manifold=None, requires_grad=True):
            made = t.Tensor._make_subclass(cls, data, requires_grad)
            made.manifold = manifold
            return made

    return Logging, Made, Other, Weight, log


CALLS = {
    "operators": lambda t, x: [
        x + 1,
        1 + x,
        x * x,
        x / 2,
        -x,
        x @ x,
        x - 1,
        x == x,
        x > 0,
        x + t.ones(2),
        t.ones(2) + x,
    ],
    "methods": lambda t, x: [
        x.add(1),
        x.mean(),
        x.detach(),
        x.clone(),
        x.double(),
        x.to(t.float64),
        x.view(1, 2),
        x.add_(1),
    ],
    "indexing": lambda t, x: [x[0], x[:1], x[x > 5], x[None]],
    "functions": lambda t, x: [t.add(x, 1), t.sum(x), t.cat([x, t.ones(1)]), t.where(x > 0, t.ones(2), t.zeros(2))],
    "several": lambda t, x: [*t.split(x, 1), *x.unbind(), t.max(x[None], 1).values, t.topk(x, 1)[0]],
    "modules": lambda t, x: [t.nn.functional.relu(x), t.nn.Linear(2, 3)(x), t.linalg.vector_norm(x)],
    "properties": lambda t, x: [x.data, x[None].T, x[None].mT],
}


def kinds(results):
    return [type(r).__name__ for r in results]


def told(t, name):
    logging, *_, log = classes(t)
    results = CALLS[name](t, t.ones(2).as_subclass(logging))
    return kinds(results), [entry for entry in log if not entry[0].startswith("_")]


@pytest.mark.oracle
@pytest.mark.parametrize("name", CALLS)
def test_operations_give_the_subclass_and_tell_it_as_in_pytorch(name):
    torch = importlib.import_module("torch")
    ours, theirs = told(kobai, name), told(torch, name)
    assert ours[0] == theirs[0]
    if name != "modules":  # which operations a layer is made of differs
        assert ours[1] == theirs[1]


def test_operations_give_the_subclass():
    for name in CALLS:
        assert set(told(kobai, name)[0]) == {"Logging"}


def made(t):
    logging, made_by_both, other, weight, _ = classes(t)
    a, b, w = made_by_both([1.0, 2.0], extra=3), other([1.0, 2.0], extra=4), weight(t.ones(2), manifold="m")
    x = t.ones(2, requires_grad=True)
    y = x.as_subclass(logging)
    (y * y).sum().backward()
    data = t.zeros(2)
    leaf = t.Tensor._make_subclass(logging, data, True)
    data += 1
    net = t.nn.Module()
    net.weight = w
    return [
        (kinds([a, b, w, a * 2, w * 2, leaf]), a.extra, b.extra, w.manifold, w.requires_grad, leaf.requires_grad),
        (a.tolist(), b.tolist(), leaf.tolist(), hasattr(a * 2, "extra"), x.grad.tolist(), type(x.grad) is t.Tensor),
        (isinstance(y, t.Tensor), t.is_tensor(y), isinstance(x, logging), dict(net.named_parameters())["weight"] is w),
    ]


@pytest.mark.oracle
def test_subclasses_are_made_as_in_pytorch():
    assert made(kobai) == made(importlib.import_module("torch"))


def test_subclasses_are_made_by_new_and_init():
    assert made(kobai)[0][0] == ["Made", "Other", "Weight", "Made", "Tensor", "Logging"]
    _, made_by_both, *_ = classes(kobai)
    copied = copy.deepcopy(made_by_both([1.0], extra=3))
    assert (type(copied), copied.extra) == (made_by_both, 3)


class Scaled:
    """No tensor, and yet taken by functions."""

    def __init__(self, value):
        self.value = value

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is kobai.mul:
            return NotImplemented
        plain = [a.value if isinstance(a, Scaled) else a for a in args]
        return Scaled(func(*plain, **(kwargs or {})))


def test_classes_that_are_no_tensors_are_asked():
    kobai.ones(1).as_subclass(classes(kobai)[0])
    assert kobai.add(Scaled(kobai.ones(1)), 1).value.item() == 2
    with pytest.raises(TypeError, match="mul: no __torch_function__ of Scaled takes it"):
        kobai.mul(Scaled(kobai.ones(1)), 1)


def test_functions_of_programs_ask_too():
    @overrides.wrap_torch_function(lambda x: (x,))
    def twice(x):
        return 2 * x

    def thrice(x):
        if overrides.has_torch_function_unary(x):
            return overrides.handle_torch_function(thrice, (x,), x)
        return 3 * x

    assert twice(kobai.ones(1)).item() == 2
    assert twice(Scaled(3)).value == 6
    assert thrice(Scaled(3)).value == 9
    assert overrides.is_tensor_like(Scaled(1))
    assert not overrides.has_torch_function_variadic(kobai.ones(1), nn.Parameter(kobai.ones(1)), 3)
    assert overrides.resolve_name(kobai.Tensor.add) == "kobai.Tensor.add"
    assert overrides.resolve_name(kobai.cat) == "kobai.cat"


def test_functions_stay_keys_of_tables():
    classes(kobai)
    assert {kobai.mean.__wrapped__: 1}[kobai.mean] == 1


def test_in_a_block_nobody_is_asked():
    logging, *_, log = classes(kobai)
    x = kobai.ones(2).as_subclass(logging)
    log.clear()
    with kobai._C.DisableTorchFunctionSubclass():
        assert type(x + 1) is kobai.Tensor
    assert not log


def test_what_is_no_subclass_is_refused():
    with pytest.raises(TypeError, match="as_subclass: expected a subclass of Tensor, got <class 'int'>"):
        kobai.ones(1).as_subclass(int)


def attributes(t):
    """What of ``__dict__`` a program sees, and copies from one tensor to another, in framework ``t``."""
    _, made, *_ = classes(t)
    a, b, c = made([1.0, 2.0], extra=3), made([5.0]), made([7.0])
    b.__dict__.update(a.__dict__)
    b.__dict__["more"] = 4
    c.__dict__ = b.__dict__.copy()
    c.__dict__.pop("extra")
    c.own = 1
    moved = a.double()
    moved.__dict__ = a.__dict__
    return [
        [(x.tolist(), sorted(x.__dict__.items()), hasattr(x, "more")) for x in (a, b, c, moved)],
        [(x.__dict__ == vars(x), "own" in vars(x)) for x in (a, b, c)],
        (copy.copy(a).tolist(), copy.copy(a).extra),
    ]


@pytest.mark.oracle
def test_attributes_are_copied_as_in_pytorch():
    assert attributes(kobai) == attributes(importlib.import_module("torch"))


def test_attributes_are_what_a_program_has_set():
    (a, b, c, moved), *_ = attributes(kobai)
    assert b == ([5.0], [("extra", 3), ("more", 4)], True)
    assert c == ([7.0], [("more", 4), ("own", 1)], True)
    assert moved == a
    x, y = classes(kobai)[1]([1.0], extra=2), kobai.zeros(3)
    kobai.utils.swap_tensors(x, y)
    assert (x.tolist(), y.tolist(), y.extra) == ([0, 0, 0], [1], 2)
    optimizer = kobai.optim.SGD([y.requires_grad_()], lr=0.5)
    (y * 2).sum().backward()
    optimizer.step()
    assert y.tolist() == [0]
