"""The session of a thread: the one thing that is active while a step is recorded, or run beside its replay."""

from __future__ import annotations

import os
import threading
import warnings

import pytest

import kobai
from kobai import xp
from kobai.capture import session as module
from kobai.capture.rules import Rules, Uncaptured, apart
from kobai.capture.session import Session
from kobai.core.tensor import Tensor


def plain() -> bool:
    """Whether no session is active anywhere."""
    return not xp.sessions and "_array" not in Tensor.__dict__ and not module._switching.locked()


def test_the_recorder_of_a_thread_is_that_of_its_session():
    session, others = Session(Rules()), []

    def inside():
        thread = threading.Thread(target=lambda: others.append(xp.recorder()))
        thread.start()
        thread.join()
        return xp.recorder()

    assert session.within(inside) is session.recorder
    assert others == [None]
    assert plain()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_session_ends_with_its_function(error):
    x, made = kobai.ones(3), []

    def fails():
        made.append(x * 2)
        raise error

    with pytest.raises(error):
        Session(Uncaptured()).within(fails)
    assert plain()
    assert made[0].tolist() == [2, 2, 2]
    assert "_inside" not in made[0].__dict__


def test_a_session_that_stands_aside_is_no_end_of_sessions():
    """While it does, another thread's session may end, which must not make the tensors plain again."""
    session = Session(Rules())

    def inside():
        with apart():
            assert xp.recorder() is None
            thread = threading.Thread(target=lambda: Session(Rules()).within(lambda: None))
            thread.start()
            thread.join()
        assert "_array" in Tensor.__dict__
        return xp.recorder()

    assert session.within(inside) is session.recorder
    assert plain()


def test_a_thread_has_one_session():
    outer = Session(Rules())

    def inside():
        with pytest.raises(RuntimeError, match="another step is being recorded in this thread"):
            Session(Rules()).within(lambda: None)
        return xp.recorder()

    assert outer.within(inside) is outer.recorder
    assert plain()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_no_sessions_of_other_threads():
    begun, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: Session(Rules()).within(lambda: (begun.set(), done.wait(60))))
    thread.start()
    try:
        assert begun.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork
            child = os.fork()
        if not child:
            os._exit(0 if plain() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not plain()
    finally:
        done.set()
        thread.join()
    assert plain()
