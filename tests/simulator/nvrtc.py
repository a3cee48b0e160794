"""NVIDIA's runtime compiler, which compiles for the host here: with g++ and ``cuda.h``, to a library in place of a cubin.

Where the real one is installed too (``nvidia-cuda-nvrtc-cu12``; it needs no device), it has to accept every source as well, for
one generation of devices: each day of the year another, so that a suite that runs every day has seen all of them within a week,
at the price of one. What it makes is thrown away. It is not asked about CuPy's reductions by CUB's blocks, in which nothing is
Kobai's, and which take it three seconds each. Kobai's own kernels are compiled for four generations in ``tests/cuda``, too.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "cuda"))

import nvrtc as real

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""Turing, Ampere twice, Ada, Hopper, Blackwell twice."""

HERE = Path(__file__).parent
HOST = HERE.parent / "cuda"  # host.h, which runs blocks and warps, and the real compiler
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-w", "-fmax-errors=10", "-fno-gnu-unique"]
FLAGS += ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"]

_KERNEL = re.compile(
    r"(template\s*<[^{};]*?>\s*)?(?:extern\s+\"C\"\s+)?(?:static\s+|inline\s+)*__global__\s+(?:static\s+|inline\s+)*void\s+"
    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\("
)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\([^)]*\)\s*)?([\w\s]+?)\s*(\w+)\s*\[\s*\]\s*;")
_CLOCK = re.compile(r'asm volatile\("mov\.u64 %0, %(globaltimer);" : "=l"\((\w+)\)\)')
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


def functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """What ``cupy_backends.cuda.libs.nvrtc`` offers, by name."""
    programs: dict[int, Program] = {}
    numbers = itertools.count(1)

    def getVersion() -> tuple[int, int]:  # part of what CuPy's cache of kernels goes by
        return (12, 9) if real.library() is not None else (12, 6)

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
            if real.library() is not None and program.source and "#include <cub/" not in program.source:
                accepted(program, tuple(options))
            program.library = compiled(program, tuple(options))
        except (subprocess.CalledProcessError, RuntimeError) as failed:
            program.log = failed.stderr if isinstance(failed, subprocess.CalledProcessError) else str(failed)
            error = module.NVRTCError.__new__(
                module.NVRTCError
            )  # its __init__ asks the library, which need not be here
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


def accepted(program: Program, options: tuple[str, ...]) -> None:
    """RuntimeError, with the compiler's words, for a source that the real compiler does not take."""
    options = (*(option for option in options if "-arch" not in option), *_headers())
    for architecture in architectures():
        real.cubin(program.source, architecture, options, program.headers, program.wanted)


def architectures() -> list[str]:
    """For which devices sources are compiled: ``KOBAI_SIMULATOR_ARCHITECTURES`` says so, or the day of the year."""
    today = ARCHITECTURES[datetime.date.today().timetuple().tm_yday % len(ARCHITECTURES)]
    return os.environ.get("KOBAI_SIMULATOR_ARCHITECTURES", today).split(",")


@cache
def _headers() -> tuple[str, ...]:
    """Where CUDA's own headers are, if a wheel brings them: kernels for 16-bit numbers include them."""
    found = []
    for name in ("nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime"):
        try:
            files = metadata.files(name) or ()
        except metadata.PackageNotFoundError:
            continue
        found += [f"-I{Path(str(f.locate())).parent}" for f in files if f.name == "cuda_fp16.h"]
    return tuple(found)


@cache
def version() -> str:
    """What a compiled kernel rests on besides its source."""
    files = [HERE / "nvrtc.py", HERE / "cuda.h", HOST / "host.h", *sorted((HERE / "include").rglob("*.*h"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def compiled(program: Program, options: tuple[str, ...]) -> bytes:
    """The kernels of a program as a library for the host."""
    source = _DYNAMIC.sub(r"\1* const \2 = (\1*)host_shared;", program.source)
    source = _PTX.sub(lambda m: f"{m[2]} = ptx_{m[1].replace('.', '_')}({m[3]})", source)
    source = _CLOCK.sub(r"\2 = ptx_\1()", source)
    kernels = {name: name for template, name in _KERNEL.findall(source) if not template}
    kernels |= {lowered(expression): expression for expression in program.wanted}
    if not kernels:  # CuPy compiles nothing: kernels are kept for as long as the comments that come out are the same
        return b"// " + version().encode()
    flags = ["-I", str(HERE), "-I", str(HOST), "-I", str(HERE / "include")]
    flags += [o for o in options if o.startswith("-D") or (o.startswith("-I") and "/cupy/" in o)]
    common = "".join(line for line in source.splitlines(True) if line.startswith("#include <cupy/"))
    header = precompiled('#include "cuda.h"\n' + common, flags)
    parts = [f'#include "{header}"', f"#define WAITS {'true' if _WAITS.search(source) else 'false'}", source]
    parts += [f"KERNEL({name}, ({expression}))" for name, expression in kernels.items()]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in program.headers.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        source_file, made, library = (f"{folder}/kernel.{ending}" for ending in ("cpp", "o", "so"))
        Path(source_file).write_text("\n".join(parts))
        for command in (
            ["g++", *FLAGS, *flags, "-I", folder, "-c", source_file, "-o", made],
            [
                "ld",
                "-shared",
                made,
                f"-L{_libraries()}",
                "-lstdc++",
                "-lm",
                "-lc",
                "-o",
                library,
            ],  # half the time of g++
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        return Path(library).read_bytes()


@cache
def _libraries() -> str:
    """The folder of the C++ compiler's own library."""
    asked = ["g++", "-print-file-name=libstdc++.so"]
    return str(Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()).parent)


def precompiled(text: str, flags: list[str]) -> Path:
    """A header that has been read once by the compiler, which most kernels begin with: it halves their time."""
    name = hashlib.sha256("\0".join([text, *flags, *FLAGS, version()]).encode()).hexdigest()[:24]
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
