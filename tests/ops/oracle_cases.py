"""Cases of one line that two libraries run, and the tensors that they are run with."""

from __future__ import annotations

import numpy as np
import pytest

F = {  # float64 inputs, all of which require a gradient
    "a": (4, 3),
    "b": (4, 3),
    "c": (2, 3, 4),
    "v": (5,),
    "s": (),
    "e": (0, 3),
    "o": (2, 1, 3),
}


def cases(text: str) -> list:
    named = [line.split(": ", 1) for line in text.strip().split("\n")]
    return [pytest.param(code, id=name) for name, code in named]


def make(T, array: np.ndarray):
    return T.tensor(array.tolist(), dtype=T.float64).reshape(array.shape).requires_grad_()


def flat(result) -> list:
    return list(result) if isinstance(result, tuple) else [result]


def host(tensor) -> np.ndarray:
    return np.asarray(tensor.detach().numpy())


def dtype_name(tensor) -> str:
    return str(tensor.dtype).rsplit(".")[-1]
