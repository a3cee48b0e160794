"""One training script, by Kobai and by PyTorch, on one thread and on two, on this processor and on one with AVX2 alone.

    python scripts/bits_beside_pytorch.py

Each line is a library, each hash that of all parameters after 20 steps, in a process of its own. PyTorch runs with
``use_deterministic_algorithms(True)``. What stands in for the other processor are the switches that NumPy, OpenBLAS, Numba,
PyTorch, MKL and oneDNN have for it; on a processor without AVX-512 they change nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import numpy as np

AVX2 = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4",
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+64bit,+avx,+avx2,+bmi,+bmi2,+cmov,+cx16,+cx8,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,"
    "+rdrnd,+sahf,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+xsave,+xsaveopt",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
CASES: dict[str, tuple[int, dict[str, str]]] = {
    "1 thread": (1, {}),
    "2 threads": (2, {}),
    "AVX2, 1 thread": (1, AVX2),
    "AVX2, 2 threads": (2, AVX2),
}


def train(library: str, threads: int) -> str:
    """The script. The two libraries begin with the same parameters, which NumPy draws."""
    torch: Any = import_module(library)
    nn = import_module(f"{library}.nn")
    torch.set_num_threads(threads)
    if library == "torch":
        torch.use_deterministic_algorithms(True)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16 * 14 * 14, 100), nn.Tanh(), nn.Linear(100, 10),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in model.parameters():
            bound = 1 / np.sqrt(p[0].numel() if p.ndim > 1 else 100)
            p.copy_(torch.tensor(rng.uniform(-bound, bound, tuple(p.shape)).astype(np.float32)))
    x = torch.tensor(rng.uniform(0, 1, (200, 1, 28, 28)).astype(np.float32))
    y = torch.tensor(rng.integers(10, size=200))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    content = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(content).hexdigest()[:12]


def main() -> None:
    """A table of hashes."""
    print(" " * 9, *(f"{name:<16}" for name in CASES))
    for library in ("kobai", "torch"):
        hashes = []
        for threads, settings in CASES.values():
            counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
            command = [sys.executable, __file__, library, str(threads)]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **counts, **settings})
            reason = done.stderr.strip().rpartition("\n")[2]
            hashes.append(done.stdout.strip() if done.returncode == 0 else reason)
        print(f"{'PyTorch' if library == 'torch' else 'Kobai':<9}", *(f"{found:<16}" for found in hashes), flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(train(sys.argv[1], int(sys.argv[2])))
    else:
        main()
