"""One computation has the same bits in every process: whoever compiled its loops, and whatever else is loaded."""

import json
from functools import cache
from pathlib import Path

import pytest

import bits
from kobai.bits.verification import HASHES
from kobai.engine import dispatch

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(not dispatch.numba_installed, reason="nothing is compiled")]

LOOPS = "recurrent|conv|norm|softmax|linear|training (cnn|lstm|attention)"


@pytest.mark.rest
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


# --- other processors -----------------------------------------------------------------------------------------------------

KNOWN = Path(__file__).parent / "frozen" / "bits.json"
"""By what stands in for another processor, everything that has other bits there. What is mended comes off it (``--freeze``)."""


@cache
def here():
    return bits.in_process()


@pytest.mark.rest
@pytest.mark.parametrize("which", bits.OTHERS)
def test_only_what_is_known_has_other_bits_on_other_processors(request, which):
    differs = bits.differences(which, here())
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    if request.config.getoption("--freeze"):
        known[which] = sorted(differs)
        KNOWN.write_text(json.dumps({name: known[name] for name in bits.OTHERS if name in known}, indent=1) + "\n")
    # Less may differ on a processor that is nearer to the one stood in for.
    assert set(differs) <= set(known.get(which, ())), "what differs, and is not listed"


STANDING_IN = [name for name, how in bits.OTHERS.items() if "threads" not in how]
PROCESSORS = {"this one": []} | {name: [name] for name in STANDING_IN}
PROCESSORS["Haswell"] = ["OpenBLAS for Haswell", "NumPy without AVX-512", "Numba for Haswell"]
"""Each with what stands in for it."""


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("which", PROCESSORS)
def test_trainings_have_the_shipped_bits_on_any_processor_and_number_of_threads(which, threads):
    parts = PROCESSORS[which]
    shipped = {f"training {name}": net["hash"] for name, net in json.loads(HASHES.read_text()).items()}
    settings = {name: value for part in parts for name, value in bits.OTHERS[part].items()}
    found = bits.in_process("^training", threads, **settings)
    known = json.loads(KNOWN.read_text())
    expected = {name for part in parts for name in known.get(part, ())}
    assert {name for name in shipped if found[name] != shipped[name]} <= expected
