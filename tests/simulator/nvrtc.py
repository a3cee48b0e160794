"""NVIDIA's runtime compiler, which compiles for the host here: with g++ and ``cuda.h``, to a library in place of a cubin."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
HOST = HERE.parent / "cuda"  # host.h, which runs blocks and warps
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-w", "-fmax-errors=10", "-fno-gnu-unique"]

_KERNEL = re.compile(
    r"(template\s*<[^{};]*?>\s*)?(?:extern\s+\"C\"\s+)?(?:static\s+|inline\s+)*__global__\s+(?:static\s+|inline\s+)*void\s+"
    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\("
)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\([^)]*\)\s*)?([\w\s]+?)\s*(\w+)\s*\[\s*\]\s*;")
_PTX = re.compile(r'asm\("([\w.]+) %0, %1;" : "=\w"\((\w+)\) : "\w"\((\w+)\)\)')
_WAITS = re.compile(r"__sync|__shfl|__ballot|__any_sync|__all_sync|_REDUCE|cooperative_groups|#include\s*<cub")


class Program:
    def __init__(self, source: str, name: str, headers: Any, include_names: Any) -> None:
        self.source, self.name = source, name
        self.headers = dict(zip(include_names or (), headers or (), strict=True))
        self.wanted: list[str] = []
        self.log = ""
        self.library = b""


def lowered(expression: str) -> str:
    """The name by which a module gives the kernel of a name expression such as ``scale<float>``."""
    return expression if expression.isidentifier() else "k" + hashlib.sha256(expression.encode()).hexdigest()[:16]


def functions(module: ModuleType, backwards: bool) -> dict[str, Callable[..., Any]]:
    """What ``cupy_backends.cuda.libs.nvrtc`` offers, by name."""
    programs: dict[int, Program] = {}
    numbers = itertools.count(1)

    def getVersion() -> tuple[int, int]:
        return 12, 9

    def getSupportedArchs() -> list[int]:
        return [75, 80, 86, 89, 90]

    def createProgram(source: str, name: str, headers: Any, include_names: Any) -> int:
        number = next(numbers)
        programs[number] = Program(source, name, headers, include_names)
        return number

    def destroyProgram(number: int) -> None:
        programs.pop(number, None)

    def addNameExpression(number: int, expression: str) -> None:
        programs[number].wanted.append(expression)

    def compileProgram(number: int, options: Any) -> None:
        program = programs[number]
        try:
            program.library = compiled(program, tuple(options), backwards)
        except subprocess.CalledProcessError as failed:
            program.log = failed.stderr
            error = module.NVRTCError.__new__(
                module.NVRTCError
            )  # its own __init__ asks the library, which need not be here
            RuntimeError.__init__(error, "NVRTC_ERROR_COMPILATION (6)")
            error.status = 6
            raise error from None

    def getLoweredName(number: int, expression: str) -> str:
        return lowered(expression)

    def getCUBIN(number: int) -> bytes:
        return programs[number].library

    def getProgramLog(number: int) -> str:
        return programs[number].log

    made = locals()
    names = (
        "getVersion getSupportedArchs createProgram destroyProgram addNameExpression compileProgram getLoweredName getCUBIN "
        "getProgramLog"
    )
    return {name: made[name] for name in names.split()} | {"getPTX": getCUBIN}


def compiled(program: Program, options: tuple[str, ...], backwards: bool) -> bytes:
    """The kernels of a program as a library for the host."""
    source = _DYNAMIC.sub(r"\1* const \2 = (\1*)host_shared;", program.source)
    source = _PTX.sub(lambda m: f"{m[2]} = ptx_{m[1].replace('.', '_')}({m[3]})", source)
    kernels = {name: name for template, name in _KERNEL.findall(source) if not template}
    kernels |= {lowered(expression): expression for expression in program.wanted}
    flags = ["-I", str(HERE), "-I", str(HOST), "-I", str(HERE / "include")]
    flags += [o for o in options if o.startswith("-D") or (o.startswith("-I") and "/cupy/" in o)]
    common = "".join(line for line in source.splitlines(True) if line.startswith("#include <cupy/"))
    header = precompiled('#include "cuda.h"\n' + common, flags)
    waits = "true" if _WAITS.search(source) else "false"
    parts = [f'#include "{header}"', f"#define WAITS {waits}", f"#define BACKWARDS {str(backwards).lower()}", source]
    parts += [f"KERNEL({name}, ({expression}))" for name, expression in kernels.items()]
    if not kernels:  # CuPy compiles nothing: kernels are kept for as long as the comments that come out are the same
        files = [HERE / "cuda.h", HOST / "host.h", Path(__file__), *sorted((HERE / "include").iterdir())]
        return b"// " + hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest().encode()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in program.headers.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        text = Path(folder) / "kernel.cpp"
        text.write_text("\n".join(parts))
        command = ["g++", *FLAGS, *flags, "-I", folder, str(text), "-o", folder + "/kernel.so"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return (Path(folder) / "kernel.so").read_bytes()


def precompiled(text: str, flags: list[str]) -> Path:
    """A header that has been read once by the compiler, which most kernels begin with: it halves their time."""
    versions = [path.read_text() for path in (HERE / "cuda.h", HOST / "host.h")]
    name = hashlib.sha256("\0".join([text, *flags, *FLAGS, *versions]).encode()).hexdigest()[:24]
    folder = Path(os.environ["CUPY_CACHE_DIR"]) / "headers"
    header, made = folder / f"{name}.h", folder / f"{name}.h.gch"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        mine = folder / f"{name}-{os.getpid()}.h"
        mine.write_text(text)
        subprocess.run(
            ["g++", *FLAGS, *flags, "-x", "c++-header", str(mine), "-o", str(mine) + ".gch"],
            check=True,
            capture_output=True,
            text=True,
        )
        mine.replace(header)
        Path(str(mine) + ".gch").replace(made)
    return header
