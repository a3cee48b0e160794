#!/usr/bin/env python3
"""Set everything up, then run the test suite on all processors: ``python3 scripts/test.py [arguments of pytest]``.

A file's tests stay together, as they share what is expensive to make. ``-n 0`` runs all in one process, for a debugger.
"""

import os

from _setup import ROOT, main

if __name__ == "__main__":
    os.chdir(ROOT)  # where pytest finds its configuration
    main({"cpu", "cuda-proof", "data", "dev", "plot", "tune"}, ["pytest", "--numprocesses=auto", "--dist=loadfile"])
