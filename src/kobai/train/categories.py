"""Columns of many categories as learnt vectors: the first layer of a net for tables."""

from __future__ import annotations

from collections.abc import Sequence

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.ops import cat, where

WIDEST = 50
"""Numbers in the vector of a category, at most."""


def width_of(rows: int) -> int:
    """Numbers in the vectors of a column of so many categories, min(50, 1.6·rows^0.56), as fastai has it.

    Howard and Gugger, "fastai: a layered API for deep learning", 2020.

    >>> [width_of(rows) for rows in (10, 100, 100_000)]
    [6, 21, 50]
    """
    return int(min(WIDEST, round(1.6 * rows**0.56)))


class Categories(nn.Module):
    """Replaces the last columns of inputs (N, F), which number categories, by a learnt vector for each category.

    Category i of n is the input i / n, so that no input is larger than the others. Gives (N, F − k + Σ widths), the other
    columns first. Category 0 is what training did not see, or only once, and any number that is none of a category; its vector
    begins as zeros, which says nothing. Guo and Berkhahn, "Entity embeddings of categorical variables", 2016.

    Args:
        rows: categories of each of the k columns, 0 included.

    >>> import kobai
    >>> layer = Categories([4])
    >>> layer(kobai.tensor([[0.5, 0.75], [0.5, 0.0]])).shape, layer.width
    (kobai.Size([2, 4]), 3)
    """

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__()
        self.rows = tuple(rows)
        self.tables = nn.ModuleList(nn.Embedding(n, width_of(n)) for n in rows)
        for table in self.tables:
            nn.init.zeros_(table.weight.data[0])

    @property
    def width(self) -> int:
        """Numbers in the vectors of one sample, all together."""
        return sum(table.weight.shape[1] for table in self.tables)

    def forward(self, input: Tensor) -> Tensor:
        plain = input.shape[1] - len(self.rows)
        vectors = []
        for i, (n, table) in enumerate(zip(self.rows, self.tables, strict=True)):
            number = (input[:, plain + i] * n).round()
            vectors.append(table(where((number >= 0) & (number < n), number, 0.0).long()))
        found: Tensor = cat([input[:, :plain], *vectors], 1)
        return found
