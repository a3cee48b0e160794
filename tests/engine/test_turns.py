"""Processes that need the same kernel: one compiles it, and the others read it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kobai.engine import dispatch, turns

pytestmark = [
    pytest.mark.skipif(not dispatch.numba_installed, reason="nothing is compiled"),
    pytest.mark.skipif(not turns.possible, reason="there are no locks"),
]

MODULE = """
from kobai.engine import notices
from kobai.engine.dispatch import compiled
import numpy as np

@compiled
def double(x):
    for i in range(x.size):
        x[i] *= 2

@compiled
def wrong(x):
    x.nothing_of_that_name()
"""

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import kobai_turns_program as program
import numba.core.compiler as compiler

count, original = [0], compiler.CompilerBase.compile_extra
def counted(self, function):
    count[0] += function.__name__ == "double"
    return original(self, function)
compiler.CompilerBase.compile_extra = counted
try:
    program.wrong(program.np.ones(3))
except Exception as error:
    assert "nothing_of_that_name" in str(error), error
else:
    raise AssertionError("it compiled")
print("ready", flush=True)
sys.stdin.readline()
x = program.np.ones(3)
program.double(x)
assert (x == 2).all()
print("compiled", count[0], flush=True)
sys.stdin.readline()
"""


@pytest.mark.thorough
def test_a_kernel_is_compiled_by_one_of_several_processes(tmp_path, monkeypatch):
    """Also where an earlier kernel could not be compiled, and while all processes go on."""
    (tmp_path / "kobai_turns_program.py").write_text(MODULE)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "machine"))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        assert [process.stdout.readline() for process in running] == ["ready\n"] * 3
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        assert sorted(process.stdout.readline() for process in running) == ["compiled 0\n"] * 2 + ["compiled 1\n"]
    finally:
        for process in running:
            process.kill()
            process.communicate()
