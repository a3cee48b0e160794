#!/usr/bin/env python3
"""Set everything up, then run the test suite on all processors: ``python3 scripts/test.py [arguments of pytest]``.

``--simulate-gpu`` runs the tests for a GPU instead, on a simulated one beneath CuPy (Linux with a C++ compiler).

A file's tests stay together, as they share what is expensive to make. ``-n 0`` runs all in one process, for a debugger.
"""

import os
import shutil
import sys

from _setup import ROOT, live_in, main

EXTRAS = {"cpu", "cuda-proof", "data", "dev", "mpi", "onnx", "plot", "postgres", "tensorboard", "tune"}


def simulated():
    """Extras and pytest's arguments for the simulated GPU; ends the program where there can be none."""
    if not sys.platform.startswith("linux"):
        sys.exit("test.py: the simulated GPU needs CuPy's wheel for Linux.")
    if shutil.which("g++") is None:
        sys.exit(
            "test.py: the simulated GPU compiles kernels with g++, which is not here. On Debian: sudo apt install g++."
        )
    os.environ["KOBAI_SIMULATE_GPU"] = "1"
    live_in(".venv-gpu")  # CuPy is there, and missing in the other, where tests read what is said then
    return {*EXTRAS, "gpu-proof"}, ["--dist=worksteal", "-m", "gpu and not slow and not thorough", "--count-gpu"]


if __name__ == "__main__":
    os.chdir(ROOT)  # where pytest finds its configuration
    extras, how = EXTRAS, ["--dist=loadfile"]
    if "--simulate-gpu" in sys.argv:
        sys.argv.remove("--simulate-gpu")
        extras, how = simulated()
    main(extras, ["pytest", "--numprocesses=auto", *how])
