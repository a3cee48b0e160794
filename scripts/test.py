#!/usr/bin/env python3
"""Set everything up, then run the test suite on all processors: ``python3 scripts/test.py [arguments of pytest]``.

``-n 0`` runs it in one process, as a debugger or a timing needs it.
"""

import os

from _setup import ROOT, main

if __name__ == "__main__":
    os.chdir(ROOT)  # where pytest finds its configuration
    main({"cpu", "cuda-proof", "data", "dev", "plot", "tune"}, ["pytest", "--numprocesses=auto"])
