"""A second process that compiles the nets' kernels from the last net on, while ``verify`` compiles them from the first on.

Numba compiles one kernel at a time in a process. The two share what they compile through the disk, each kernel compiled by one
of them (``engine/turns.py``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import kobai
from kobai.bits.nets import NETS, training
from kobai.cpu import threads
from kobai.engine import turns

__all__ = ["Ahead"]


class Ahead:
    """Starts that process when :meth:`begin` is first called, and ends it at the end of the block."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.process: subprocess.Popen[bytes] | None = None
        self.useful = turns.possible and len(self.names) > 1 and threads.processors() > 1

    def begin(self) -> None:
        """A kernel has to be compiled, so others will have to be."""
        if self.useful:
            paths = [str(Path(kobai.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
            with suppress(OSError):  # where none can be started, as in an emulator, this process compiles all
                self.process = subprocess.Popen(
                    [sys.executable, "-m", __name__, *reversed(self.names)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                )
            self.useful = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


if __name__ == "__main__":
    parent = os.getppid()
    for name in sys.argv[1:]:
        if os.getppid() == parent:  # nobody waits for what an ended process has begun
            training(NETS[name])
