"""The IDX format of the MNIST family: one array of any rank in a file, plain or gzip.

Layout (Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database", section "File formats"): two zero bytes, a type code, the
number of dimensions (one byte each), each dimension as a big-endian uint32, then the elements in C order, big-endian.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kobai.core.untrusted import read_most, regular
from kobai.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""NumPy dtype of each type code: unsigned byte, signed byte, short, int, float, double."""

GZIP = b"\x1f\x8b"


def read_idx(path: str | Path) -> np.ndarray[Any, Any]:
    """The array in an IDX file, in native byte order; gzip is recognised by its first bytes, not by the file's name.

    It reads, and decompresses, no more than the shape in the header says.

    Raises :class:`~kobai.errors.DataError` for a file that is missing, foreign, truncated or too long.
    """
    path = Path(path)
    try:
        with regular(path).open("rb") as plain:
            zipped = plain.read(2) == GZIP
            plain.seek(0)
            if not zipped:
                return _parse(plain, path)
            with gzip.open(plain) as unzipped:
                return _parse(unzipped, path)  # type: ignore[arg-type]  # a GzipFile reads like any binary file
    except EOFError:
        raise DataError(f"{path}: the gzip stream ends early; the file is truncated") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip stream is damaged ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _parse(file: BinaryIO, path: Path) -> np.ndarray[Any, Any]:
    magic = file.read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: expected an IDX file, found {len(magic)} bytes")
    zeros, code, rank = struct.unpack(">HBB", magic)
    if zeros != 0 or code not in TYPES:
        raise DataError(
            f"{path}: not an IDX file; expected two zero bytes and a type code of {', '.join(f'{c:#04x}' for c in TYPES)}, "
            f"found {magic.hex(' ')}"
        )
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(f"{path}: truncated; expected {rank} dimensions ({4 * rank} bytes), found {len(sizes)} bytes")
    shape = struct.unpack(f">{rank}I", sizes)
    dtype = np.dtype(TYPES[code])
    expected = math.prod(shape) * dtype.itemsize
    data = read_most(file, expected)
    if len(data) < expected:
        raise DataError(f"{path}: truncated; shape {shape} needs {expected} bytes of data, found {len(data)}")
    if file.read(1):  # past the data gzip checks its checksum
        raise DataError(f"{path}: longer than its shape {shape}, which needs {expected} bytes of data")
    try:
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)
    except ValueError as error:  # more dimensions than NumPy knows, or sizes that overflow beside one of 0
        raise DataError(f"{path}: no array has the shape {shape} ({error})") from error
