"""Kobai's own version, and the version of PyTorch whose API it follows, which programs compare with others."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

VERSION = "0.1.0"
"""Of Kobai itself, as the package index has it."""

_STAGES = {"dev": -4, "a": -3, "b": -2, "rc": -1}


def _order(version: Any) -> tuple[Any, ...] | None:
    """A key by which versions follow each other; None for what names no version. What follows "+" counts for equality alone."""
    if isinstance(version, (tuple, list)):
        version = ".".join(map(str, version))
    found = re.match(r"v?(\d+(?:\.\d+)*)[.-]?(?:(dev|a|b|rc)[a-z]*(\d*))?", str(version))
    if found is None:
        return None
    numbers = [int(number) for number in found[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers), _STAGES.get(found[2], 0), int(found[3] or 0)


class TorchVersion(str):
    """The text of a version that compares as versions do: "2.13" comes after "2.9", and after ``(2, 9)``.

    What names no version is compared as text.

    >>> from kobai.compat.versions import TorchVersion
    >>> TorchVersion("2.13.0+kobai.0.1.0") >= "2.9", TorchVersion("2.13.0") >= (2, 13), TorchVersion("2.13.0rc1") < "2.13"
    (True, True, True)
    """

    __slots__ = ()

    def _is(self, relation: Callable[[Any, Any], bool], other: Any) -> bool:
        if not isinstance(other, (str, tuple, list)):
            return NotImplemented  # type: ignore[no-any-return]
        if isinstance(other, str) and "+" in other and relation is operator.eq:
            return str(self) == str(other)
        mine, others = _order(self), _order(other)
        return relation(str(self), str(other)) if mine is None or others is None else relation(mine, others)

    def __eq__(self, other: object) -> bool:
        return self._is(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return self._is(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._is(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._is(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._is(operator.ge, other)

    __hash__ = str.__hash__


torch_version = TorchVersion("2.13.0")
TorchVersion.TorchVersion = TorchVersion  # type: ignore[attr-defined]  # torch.torch_version is a module that has it

__version__ = TorchVersion(f"{torch_version}+kobai.{VERSION}")
