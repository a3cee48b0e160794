"""Records: each integer is found by its name, in Python and in compiled loops."""

import numpy as np
import pytest

from kobai.cpu import job
from kobai.engine import dispatch

POINT = job.fields("x y z", each=64)
COPY = job.fields("source to", after=job.JOB)
load, store = job.load, job.store  # by these names Numba is to know them


def test_names_have_offsets_in_order():
    assert POINT == (0, 64, 128)
    assert COPY._fields == ("function", "parts", "work", "source", "to")
    assert (COPY.parts, COPY.to) == (job.JOB.parts, 32)


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="duplicate"):
        job.fields("parts", after=job.JOB)


@pytest.mark.parametrize("layout", [POINT, COPY])
def test_what_is_written_is_read_and_nothing_else(layout):
    record = job.Record(layout)
    assert record.address % 64 == 0
    for i, name in enumerate(layout._fields, 1):
        record.write(**{name: i})
    assert [record.read(name) for name in layout._fields] == list(range(1, len(layout) + 1))
    assert record.memory.sum() == sum(range(1, len(layout) + 1))
    with pytest.raises(ValueError, match="unexpected field names: \\['w'\\]"):
        record.write(w=1)


@dispatch.compiled
def copied(record):
    store(record + COPY.to, load(record + COPY.source))


def test_compiled_loops_read_by_name():
    pytest.importorskip("numba")
    record = job.Record(COPY)
    record.write(source=np.iinfo(np.int64).min)
    copied(record.address)
    assert record.read("to") == np.iinfo(np.int64).min
