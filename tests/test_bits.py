"""One computation has the same bits in every process: whoever compiled its loops, and whatever else is loaded."""

import pytest

import bits
from kobai.engine import dispatch

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(not dispatch.numba_installed, reason="nothing is compiled")]

LOOPS = "recurrent|conv|norm|softmax|linear|training (cnn|lstm|attention)"


def test_compiled_loops_have_the_bits_of_loaded_ones(tmp_path):
    """Also where a process finds some on disk and compiles others."""
    where = {"KOBAI_CACHE": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "machine")}
    compiled = bits.in_process(LOOPS, **where)
    kept = sorted(tmp_path.rglob("*.nbi"))
    assert len(kept) > 50
    assert bits.in_process(LOOPS, **where) == compiled
    for path in kept[::3]:
        path.unlink()
    assert bits.in_process(LOOPS, **where) == compiled
