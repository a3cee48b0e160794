"""Bits: what a training computes, as digests that another machine can compare (``kobai verify``, docs/bits.md)."""

from kobai.bits.digest import Digest, on_grid
from kobai.bits.verification import Difference, Report, Verdict, record, verify

__all__ = ["Difference", "Digest", "Report", "Verdict", "on_grid", "record", "verify"]
