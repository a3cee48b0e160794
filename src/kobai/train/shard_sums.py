"""Sums of the gradients of shards, by names, in the order of the tree (``ops/_tree_sums.py``)."""

from __future__ import annotations

from kobai.core.tensor import Tensor
from kobai.ops._tree_sums import AT_ONCE, tree_sum


class Sums:
    """The gradients of this process's shards, added up as they come, in the memory of the first of them."""

    def __init__(self) -> None:
        self.names: list[str] | None = None
        self._leaves: list[dict[str, Tensor]] = []  # fewer than wait for each other
        self._sums: list[dict[str, Tensor]] = []  # of more and more leaves, the last of the most recent ones
        self._fours = 0

    def add(self, leaves: dict[str, Tensor]) -> None:
        """One more shard."""
        self._leaves.append(leaves)
        if len(self._leaves) < AT_ONCE:
            return
        self._fours += 1
        levels = (
            self._fours & -self._fours
        ).bit_length() - 1  # as many sums are complete now as it has zeros at its end
        before = [self._sums.pop()] if levels else []
        total = _into_first([*before, *self._leaves])
        for _ in range(levels - 1):
            total = _into_first([self._sums.pop(), total])
        self._sums.append(total)
        self._leaves = []

    def total(self) -> dict[str, Tensor]:
        """The sum of all shards."""
        return _into_first(self._leaves or self._sums)


def _into_first(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sums of equal names, in the memory of the first part; the others' is free afterwards."""
    if len(parts) > 1:
        for name, out in parts[0].items():
            tree_sum([part[name]._array for part in parts], out._array)
    return parts[0]
