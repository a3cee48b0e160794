"""Digests of what every primitive computes, to compare processes by: ``python tests/bits.py --only 'conv|norm' --others BLAS``.

Of each primitive, in float32 and float64, there is one digest of its values and one of its gradients, over all samples of the
registry and over larger ones where vectors are long enough to matter; of each small training, one of the parameters after it.

``--record`` writes the hashes that ``kobai verify`` compares with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.bits import Digest, on_grid, record
from kobai.bits.nets import NETS, Net, Recurrent, digest, training
from kobai.core.primitive import REGISTRY
from kobai.core.tensor import Tensor
from test_registry import is_float, run, sample, tensors

# --- primitives -----------------------------------------------------------------------------------------------------------

LARGER = {1: 1, 2: 18, 3: 35, 4: 67, 5: 71}
"""What the sizes of small samples become where a primitive takes any."""

OF_ANY_SIZE = {
    "ops.softmax._softmax", "ops.softmax._log_softmax", "ops.extreme._logsumexp", "ops.running._logcumsumexp",
    "ops.norm._layer_norm", "ops.norm._normalize", "ops.vector_norm._norm", "ops.linear._matmul", "ops.linear._linear",
    "ops.batch_norm._batch_norm", "ops.batch_norm._batch_norm_eval", "ops.reduce._cumprod", "ops.reduce._cumsum",
    "ops.reduce._mean", "ops.reduce._std", "ops.reduce._sum", "ops.reduce._var", "ops.loss._sum_of", "ops.loss._mse_loss",
    "ops.loss._l1_loss", "ops.loss._huber_loss", "ops.loss._smooth_l1_loss", "ops.loss._kl_div",
    "ops.loss._binary_cross_entropy", "ops.loss._binary_cross_entropy_with_logits", "ops.arithmetic._atan2",
    "ops.arithmetic._fmod", "ops.arithmetic._remainder", "ops.special._xlogy", "ops.rare_special._xlog1py",
}  # fmt: skip


def rounded(arg: Any) -> Any:
    return on_grid(arg) if is_float(arg) else arg


def larger(arg: Any, rng: np.random.Generator) -> Any:
    """An array with more rows and columns, whose elements lie between those of the small one."""
    if not is_float(arg):
        return arg
    shape = tuple(LARGER.get(n, n) for n in arg.shape)
    parts = rng.random(shape)
    flat = arg.ravel()
    one, other = flat[rng.integers(flat.size, size=shape)], flat[rng.integers(flat.size, size=shape)]
    return parts * one + (1 - parts) * other


def samples(name: str) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    primitive = REGISTRY[name]
    for i in range(len(primitive.samples)):
        args, options = sample(name, i)
        yield [rounded(arg) for arg in args], options
        wide = (is_float(arg) and arg.size and arg.ndim for arg in args if isinstance(arg, np.ndarray))
        if (primitive.kind == "elementwise" or name in OF_ANY_SIZE) and all(wide):
            rng = np.random.default_rng(i)
            yield [rounded(larger(arg, rng)) for arg in args], options


def weights(y: Tensor) -> Tensor:
    """What a gradient comes in with, the same numbers everywhere."""
    numbers = rounded(np.random.default_rng(3).uniform(-1, 1, y.shape)).astype(y.dtype)
    return Tensor._wrap(numbers)


def of_primitive(name: str, dtype: type) -> dict[str, str]:
    values, gradients, has_gradient = Digest(), Digest(), False
    for args, options in samples(name):
        made = tensors(tuple(args), dtype)
        y = run(name, made, options)
        values.add(y.detach().numpy())
        if y.requires_grad:
            has_gradient = True
            y.backward(weights(y))
            for a in made:
                if isinstance(a, Tensor) and a.grad is not None:
                    gradients.add(a.grad.numpy())
    key = f"{name} {np.dtype(dtype)}"
    return {f"{key} value": str(values)} | ({f"{key} gradient": str(gradients)} if has_gradient else {})


# --- trainings ------------------------------------------------------------------------------------------------------------


TRAININGS = NETS | {"gru": Net(lambda: Recurrent(nn.GRU), (21, 7, 12))}


def of_training(name: str) -> dict[str, str]:
    return {f"training {name}": digest(training(TRAININGS[name]))}


# --- processes ------------------------------------------------------------------------------------------------------------


def digests(only: str = "") -> dict[str, str]:
    """Of everything whose name the pattern is found in."""
    found: dict[str, str] = {}
    for name in sorted(REGISTRY):
        for dtype in (np.float32, np.float64):
            if re.search(only, name):
                found |= of_primitive(name, dtype)
    for name in TRAININGS:
        if re.search(only, f"training {name}"):
            found |= of_training(name)
    return found


def has_avx512() -> bool:
    from numba.core.registry import cpu_target

    return "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def in_process(only: str = "", threads: int = 1, **environment: str) -> dict[str, str]:
    """:func:`digests` in a process of its own, with these variables and so many threads; OpenBLAS is one and the same."""
    command = [sys.executable, __file__, "--only", only, "--threads", str(threads)]
    paths = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    blas = "SkylakeX" if has_avx512() else "Zen"
    settings = os.environ | {"PYTHONPATH": paths, "OPENBLAS_CORETYPE": blas} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


AVX2 = (
    "+64bit,+avx,+avx2,+bmi,+bmi2,+cmov,+crc32,+cx16,+cx8,+f16c,+fma,+fsgsbase,+fxsr,+invpcid,+lzcnt,+mmx,+movbe,+pclmul,"
    "+popcnt,+rdrnd,+sahf,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+xsave,+xsaveopt"
)
NO_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"

OTHERS: dict[str, dict[str, Any]] = {
    "2 threads": {"threads": 2},
    "3 threads": {"threads": 3},
    "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS for Zen": {"OPENBLAS_CORETYPE": "Zen"},
    "OpenBLAS for Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "NumPy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": NO_AVX512},
    "NumPy without AVX2": {"NPY_DISABLE_CPU_FEATURES": f"{NO_AVX512} X86_V3 AVX2 FMA3 FMA4 AVX F16C"},
    "Numba for Haswell": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2},
    "Numba with vectors of 16 bytes": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": f"{AVX2},+prefer-128-bit"},
}
"""What stands in for other processors. On one without AVX-512 some of them are what it is."""


def differences(which: str, here: dict[str, str], only: str = "") -> dict[str, tuple[str, str]]:
    """What has other bits in one of :data:`OTHERS`: its digest here and there."""
    there = in_process(only, **OTHERS[which])
    assert there.keys() == here.keys()
    return {name: (here[name], there[name]) for name in here if here[name] != there[name]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="a pattern")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--others", default=None, help="compare with those of OTHERS in whose name this pattern is found"
    )
    parser.add_argument("--record", action="store_true", help="write the hashes of kobai verify, and nothing else")
    options = parser.parse_args()
    if options.record:
        return record()
    if options.others is not None:
        here = in_process(options.only)
        for which in OTHERS:
            if re.search(options.others, which):
                print(
                    f"{which}:",
                    *(f"{name}: {a} {b}" for name, (a, b) in differences(which, here, options.only).items()),
                    sep="\n    ",
                )
        return
    kobai.set_num_threads(options.threads)
    with np.errstate(all="ignore"):
        json.dump(digests(options.only), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
