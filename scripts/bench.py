#!/usr/bin/env python3
"""Set everything up, then time training steps: ``python3 scripts/bench.py [arguments of kobai bench]``.

Without arguments: the model that ``scripts/train.py`` trains, with files in ``runs/``.
"""

from _setup import main

if __name__ == "__main__":
    main({"cpu", "plot"}, ["kobai", "bench"])
