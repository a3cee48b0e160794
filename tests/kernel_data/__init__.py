"""What every CUDA kernel must give: launches with their results, by the name of the kernel.

A check is ``check(rng) -> (grid, args, expected)``: NumPy arrays and numbers for a launch, and what the named arrays must hold
then. Floats are written in float64: ``T*`` and ``A*`` are converted to the dtype at hand, and ``expected`` is compared with a
slack of 64 of its roundings. A table of addresses is a list of arrays. Behind ``expected`` may stand the threads per block
and the bytes of shared memory. ``kernel_checks`` makes launches of them; all are run on the host (``pytest tests/cuda -k
name``) and on a device (``tests/gpu``). A new kernel gets an entry in ``CHECKS`` of one of the modules here: without one a
test fails.
"""

import importlib
import pkgutil
from pathlib import Path

import kobai

_ROOT = Path(kobai.__file__).parent
for _file in sorted(_ROOT.rglob("*.py")):  # kernels stand with their families, wherever that is
    if any(made in _file.read_text() for made in ("CudaKernel(", "@elementwise")):
        importlib.import_module(
            ".".join(("kobai", *_file.relative_to(_ROOT).with_suffix("").parts)).removesuffix(".__init__")
        )

CHECKS = {
    name: checks
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__))
    for name, checks in importlib.import_module(f"{__name__}.{module}").CHECKS.items()
}
