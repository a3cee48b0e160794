"""CUDA's driver, as far as CuPy calls it: modules of kernels, and launches."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from simulator.device import INVALID_HANDLE, INVALID_VALUE, CudaError, Machine
from simulator.runtime import offered


class Module:
    """A library of kernels that has been loaded."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library


class Function:
    """A kernel: its entry, and the sizes of its arguments."""

    def __init__(self, module: Module, name: str) -> None:
        try:
            self.start = module.library["start_" + name]
            sizes_of = module.library["sizes_" + name]
        except AttributeError:
            raise CudaError(500, f"no kernel {name!r} in this module") from None
        self.module, self.name = module, name
        self.start.restype = ctypes.c_char_p
        sizes = (ctypes.c_size_t * 256)()
        self.sizes = list(sizes[: sizes_of(sizes)])
        self.shared = 49152


def functions(machine: Machine, module: ModuleType) -> dict[str, Callable[..., Any]]:
    """What ``cupy_backends.cuda.api.driver`` offers, by name."""
    table: dict[str, Any] = {}
    function = offered(table, module.CUDADriverError)

    @function
    def get_build_version() -> int:
        return 12090

    @function
    def ctxGetCurrent() -> int:
        return 0x10 + machine.device

    @function
    def ctxSetCurrent(context: int) -> None:
        machine.local.device = context - 0x10

    @function
    def ctxGetDevice() -> int:
        return machine.device

    @function
    def streamGetCtx(number: int) -> int:
        return 0x10 + machine.stream(number).device

    @function
    def moduleLoadData(image: bytes) -> int:
        if not bytes(image).startswith(b"\x7fELF"):
            raise CudaError(200, "expected a library of kernels compiled for the host")
        with tempfile.NamedTemporaryFile(suffix=".so", delete=False) as file:
            file.write(image)
        try:
            return machine.handle(Module(ctypes.CDLL(file.name)))
        finally:
            os.unlink(file.name)

    @function
    def moduleLoad(path: str) -> int:
        return moduleLoadData(Path(path).read_bytes())

    @function
    def moduleUnload(number: int) -> None:
        machine.handles.pop(number, None)

    @function
    def moduleGetFunction(number: int, name: str) -> int:
        return machine.handle(Function(machine.of(number, Module), str(name)))

    @function
    def moduleGetGlobal(number: int, name: str) -> int:
        library = machine.of(number, Module).library
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(library, str(name)))
        except ValueError:
            raise CudaError(500, f"no global {name!r} in this module") from None

    @function
    def funcGetAttribute(attribute: int, number: int) -> int:
        return {0: 1024, 1: 0, 2: 0, 3: 0, 4: 32, 5: 90, 6: 90}.get(attribute, 0)

    @function
    def funcSetAttribute(number: int, attribute: int, value: int) -> None:
        if attribute == 8:
            machine.of(number, Function).shared = value

    @function
    def occupancyMaxActiveBlocksPerMultiprocessor(number: int, threads: int, shared: int) -> int:
        return max(1, 2048 // max(threads, 1))

    @function
    def occupancyMaxPotentialBlockSize(number: int, shared: int, limit: int) -> tuple[int, int]:
        return 8, limit or 1024

    @function
    def launchKernel(
        number: int,
        gx: int,
        gy: int,
        gz: int,
        bx: int,
        by: int,
        bz: int,
        shared: int,
        stream: int,
        params: int,
        extra: int,
    ) -> None:
        kernel, target = machine.of(number, Function), machine.stream(stream)
        machine.report()
        if min(gx, gy, gz, bx, by, bz) < 1 or bx * by * bz > 1024 or bz > 64 or max(gy, gz) > 65535:
            raise CudaError(INVALID_VALUE, f"{kernel.name}: a grid of {gx, gy, gz} blocks of {bx, by, bz} threads")
        if shared > kernel.shared:
            raise CudaError(INVALID_VALUE, f"{kernel.name}: {shared} bytes of shared memory, more than {kernel.shared}")
        if target.device != machine.device:
            raise CudaError(
                INVALID_HANDLE, f"{kernel.name}: a stream of device {target.device} on device {machine.device}"
            )
        given = (ctypes.c_void_p * len(kernel.sizes)).from_address(params) if kernel.sizes else []
        copies = [
            ctypes.create_string_buffer(ctypes.string_at(p, n), n) for p, n in zip(given, kernel.sizes, strict=True)
        ]
        arguments = (ctypes.c_void_p * max(len(copies), 1))(*(ctypes.addressof(copy) for copy in copies))
        shape = (ctypes.c_uint * 6)(gx, gy, gz, bx, by, bz)
        blocks = machine.used(kernel.name, [int.from_bytes(copy.raw[:8], "little") for copy in copies if len(copy) > 7])
        if target.capture is not None:
            target.capture.outside.update(block for block in blocks if block.capture is not target.capture)

        def run(copies: list[Any] = copies) -> None:  # which live as long as this function
            said = kernel.start(arguments, shape, shared, machine.backwards)
            if said:
                raise CudaError(719, f"{kernel.name}: {said.decode()}")
            for block in blocks:
                block.check(kernel.name)

        machine.ask(target, run)

    return table
