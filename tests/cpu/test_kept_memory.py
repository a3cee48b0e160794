"""Page faults of large temporaries, each in a process of its own: what the C library is told holds for the whole process."""

import os
import subprocess
import sys

import pytest

from kobai.cpu import memory

PROGRAM = """
import resource, sys
import kobai
from kobai.cpu import memory

x = kobai.ones(int(sys.argv[1]), requires_grad=True)

def step():
    x.grad = None
    (x * x * x + x**3).sum().backward()

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(memory.kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)
"""
GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})


def run(elements, **variables):
    names = [name for name in os.environ if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"]
    environment = {name: os.environ[name] for name in names} | variables
    command = [sys.executable, "-c", PROGRAM, str(elements)]
    kept, faults = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    return kept == "True", float(faults)


@pytest.mark.skipif(not GLIBC, reason="no glibc")
@pytest.mark.parametrize("elements", [250_000, 800_000, 6_000_000])
def test_temporaries_of_a_step_cause_no_page_faults(elements):
    kept, faults = run(elements)
    assert kept
    assert faults < 20


@pytest.mark.thorough
@pytest.mark.skipif(not GLIBC, reason="no glibc")
@pytest.mark.parametrize(
    "variables",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_settings_of_the_user_stand(variables):
    kept, faults = run(800_000, **variables)
    assert not kept
    assert faults > 500


def test_tunables_that_have_nothing_to_do_with_memory_turn_nothing_off(monkeypatch):
    for name in memory.settings():
        monkeypatch.delenv(name)
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=1024")
    assert memory.settings() == []


@pytest.mark.parametrize("error", [AttributeError, ValueError])
def test_other_c_libraries_are_left_alone(error, monkeypatch):
    def confstr(name):
        raise error(name)

    monkeypatch.setattr(memory.os, "confstr", confstr, raising=False)
    assert memory.keep_freed() is False
