#!/usr/bin/env python3
"""Set everything up, then train: ``python3 scripts/train.py [arguments of kobai train]``.

Without arguments: a multilayer perceptron on the embedded handwritten digits, with files in ``runs/``.

The environment has what every command of the README needs.
"""

from _setup import main

if __name__ == "__main__":
    main({"data", "onnx", "plot", "tune"}, ["kobai", "train"])
