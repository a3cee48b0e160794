"""Grad modes: nesting, decorators, generators, threads."""

from __future__ import annotations

import threading

import pytest

import kobai
from graphs import leaf


def test_modes_nest_and_come_back():
    seen = []
    with kobai.no_grad():
        seen.append(kobai.is_grad_enabled())
        with kobai.enable_grad():
            seen.append(kobai.is_grad_enabled())
            with kobai.set_grad_enabled(False), kobai.inference_mode():
                seen.append(kobai.is_grad_enabled())
            seen.append(kobai.is_grad_enabled())
        seen.append(kobai.is_grad_enabled())
    seen.append(kobai.is_grad_enabled())
    assert seen == [False, True, False, True, False, True]


@pytest.mark.parametrize("mode", [kobai.no_grad, kobai.inference_mode, lambda: kobai.set_grad_enabled(False)])
def test_modes_come_back_after_an_exception(mode):
    with pytest.raises(KeyError), mode():
        raise KeyError
    assert kobai.is_grad_enabled()


def test_modes_as_decorators():
    @kobai.no_grad()
    def one():
        """Says so."""
        return kobai.is_grad_enabled()

    @kobai.no_grad
    def two():
        return kobai.is_grad_enabled()

    @kobai.inference_mode()
    def three():
        return kobai.is_grad_enabled()

    @kobai.set_grad_enabled(False)
    def four():
        return kobai.is_grad_enabled()

    @kobai.inference_mode(False)
    def five():
        return kobai.is_grad_enabled()

    @kobai.no_grad()
    def recursive(n):
        return [kobai.is_grad_enabled(), *(recursive(n - 1) if n else [])]

    assert [one(), two(), three(), four(), five()] == [False, False, False, False, True]
    assert recursive(3) == [False] * 4
    assert kobai.is_grad_enabled()
    assert (one.__name__, one.__doc__) == ("one", "Says so.")


def test_set_grad_enabled_as_a_call():
    kobai.set_grad_enabled(False)
    assert not kobai.is_grad_enabled()
    kobai.set_grad_enabled(True)
    assert kobai.is_grad_enabled()


def test_a_generator_has_its_mode_only_while_it_computes():
    @kobai.no_grad()
    def squares():
        sent = None
        for i in range(3):
            try:
                sent = yield i, kobai.is_grad_enabled(), sent
            except ValueError:
                sent = "caught"
        return "end"

    generator = squares()
    assert next(generator) == (0, False, None)
    assert kobai.is_grad_enabled()
    assert generator.send("hello") == (1, False, "hello")
    assert generator.throw(ValueError) == (2, False, "caught")
    with pytest.raises(StopIteration, match="end"):
        next(generator)
    unfinished = squares()
    next(unfinished)
    unfinished.close()
    assert kobai.is_grad_enabled()


def test_mode_belongs_to_the_thread():
    seen = {}

    def work():
        seen["inside"] = kobai.is_grad_enabled()
        kobai.set_grad_enabled(False)

    with kobai.no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == {"inside": True}
    assert kobai.is_grad_enabled()


def test_threads_build_and_differentiate_their_own_graphs():
    failures = []

    def work(value):
        x = leaf(float(value))
        for _ in range(30):
            x.grad = None
            y = x
            for _ in range(20):
                y = y * 1.0 + x
            y.sum().backward()
            if x.grad.tolist() != [21.0]:
                failures.append(x.grad.tolist())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_requires_grad_can_be_switched_on_leaves_only():
    x = leaf(1.0)
    assert not x.requires_grad_(False).requires_grad
    x.requires_grad = True
    with pytest.raises(RuntimeError, match=r"only leaf tensors.*detach\(\)"):
        (x * 2).requires_grad_(False)
    y = (x * 2).detach_()
    assert y.is_leaf
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match=r"detach_: this tensor is a view"):
        (x * 2)[:].detach_()
