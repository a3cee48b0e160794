"""cuBLASLt on the simulated device: products as ``fake_nvmath`` computes them, when the stream comes to them."""

from __future__ import annotations

import ctypes
import sys
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

from simulator.device import Machine

sys.path.append(str(Path(__file__).parents[1] / "cuda"))

import fake_nvmath


class Library(fake_nvmath.Library):
    """The library of a machine: give it to ``sys.modules`` as ``nvmath.bindings.cublasLt``."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def create(self) -> int:
        """A handle belongs to the device that is the current one now."""
        made = super().create()
        self.alive[made].device = self.machine.device
        return made

    def matmul(
        self, handle: int, desc: int, alpha: int, a: int, a_layout: int, b: int, b_layout: int, beta: int, c: int,
        c_layout: int, d: int, d_layout: int, algo: int, workspace: int, workspace_size: int, stream: int,
    ) -> None:  # fmt: skip
        """What the library takes from the host when it is called is copied; what lies on the device is read later."""
        on = self.machine.stream(stream).device
        assert self.alive[handle].device == on, f"a handle of device {self.alive[handle].device} on device {on}"
        then = fake_nvmath.Library()
        then.alive = {
            what: deepcopy(self.alive[what]) for what in (handle, desc, a_layout, b_layout, c_layout, d_layout)
        }
        size = self.alive[desc].scale.itemsize
        factors = [ctypes.create_string_buffer(ctypes.string_at(address, size), size) for address in (alpha, beta)]
        chosen = ctypes.create_string_buffer(ctypes.string_at(algo, 64), 64)

        def do() -> None:
            left, right = map(ctypes.addressof, factors)
            for address, layout in ((a, a_layout), (b, b_layout), (d, d_layout)):
                self._check(address, then.alive[layout])
            then.matmul(
                handle, desc, left, a, a_layout, b, b_layout, right, c, c_layout, d, d_layout,
                ctypes.addressof(chosen), workspace, workspace_size, stream,
            )  # fmt: skip
            self.machine.memory.poison(workspace, workspace_size)

        self.machine.ask(self.machine.stream(stream), do)

    def _check(self, address: int, layout: Any) -> None:
        batch, step = (layout.attributes.get(k, d) for k, d in (("BATCH_COUNT", 1), ("STRIDED_BATCH_OFFSET", 0)))
        elements = (batch - 1) * step + (layout.cols - 1) * layout.ld + layout.rows
        self.machine.memory.need(address, elements * layout.dtype.itemsize, "cublasLt matmul")


def install(machine: Machine) -> None:
    package, bindings, cublas = (
        ModuleType("nvmath"),
        ModuleType("nvmath.bindings"),
        ModuleType("nvmath.bindings.cublas"),
    )
    cublas.ComputeType = fake_nvmath.ComputeType  # type: ignore[attr-defined]
    bindings.cublasLt, bindings.cublas, package.bindings = Library(machine), cublas, bindings  # type: ignore[attr-defined]
    sys.modules |= {"nvmath": package, "nvmath.bindings": bindings, "nvmath.bindings.cublas": cublas}
    sys.modules["nvmath.bindings.cublasLt"] = bindings.cublasLt  # type: ignore[attr-defined, assignment]
