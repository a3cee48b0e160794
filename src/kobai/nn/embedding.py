"""``Embedding``: a table of vectors, looked up by index; ``EmbeddingBag``: sums and means of them."""

from __future__ import annotations

from typing import Any, Self

from kobai.core.tensor import Tensor
from kobai.nn import functional as F, init
from kobai.nn.linear import _real, _size
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.nn.tree import unusual
from kobai.ops._args import need_flags
from kobai.ops.create import empty

__all__ = ["Embedding", "EmbeddingBag"]


def _sizes(who: str, table: Tensor) -> tuple[int, ...]:
    """(rows, columns) of a table given to ``from_pretrained``."""
    if table.ndim != 2:
        raise ValueError(f"{who}.from_pretrained: expected a 2-D table, got shape {tuple(table.shape)}")
    return tuple(table.shape)


class Embedding(Module):
    """Row ``i`` of a trained table for every index i: (*) of integers → (*, embedding_dim).

    Args:
        num_embeddings, embedding_dim: the table ``weight`` is (num_embeddings, embedding_dim), drawn from N(0, 1).
        padding_idx: this row starts as zeros and gets no gradient.
        max_norm, norm_type: rows that are looked up are first scaled down, in place, to this norm.
        scale_grad_by_freq: divide the gradient of a row by how often the batch names it.
        sparse: gradients are dense all the same; :class:`kobai.optim.SparseAdam` tells rows that were not named by their zeros.

    >>> import kobai
    >>> table = kobai.nn.Embedding(10, 3, padding_idx=0)
    >>> table(kobai.tensor([[1, 2], [0, 0]])).shape
    kobai.Size([2, 2, 3])
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = _size("Embedding", "num_embeddings", num_embeddings)
        self.embedding_dim = _size("Embedding", "embedding_dim", embedding_dim)
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(f"Embedding: expected padding_idx within {num_embeddings} rows, got {padding_idx}")
            padding_idx %= num_embeddings
        need_flags("Embedding", scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        self.padding_idx = padding_idx
        self.max_norm = None if max_norm is None else _real("Embedding", "max_norm", max_norm)
        self.norm_type = norm_type
        if _weight is None:
            weight = empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
            self.weight = Parameter(weight, requires_grad=not _freeze)
            self.reset_parameters()
        elif tuple(_weight.shape) != (num_embeddings, embedding_dim):
            raise ValueError(
                f"Embedding: expected weight ({num_embeddings}, {embedding_dim}), got {tuple(_weight.shape)}"
            )
        else:
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Draw a new table from N(0, 1); the padding row is zero."""
        init.normal_(self.weight)
        self._fill_padding_idx_with_zero()

    def _fill_padding_idx_with_zero(self) -> None:
        """For a ``reset_parameters`` of a subclass too."""
        if self.padding_idx is not None:
            init.zeros_(self.weight.data[self.padding_idx])

    def forward(self, input: Tensor) -> Tensor:
        """(*) of integers → (*, embedding_dim)."""
        how = self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        return F.embedding(input, self.weight, self.padding_idx, *how)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:
        """A layer around a given table (num_embeddings, embedding_dim), which it shares; frozen by default."""
        rows, columns = _sizes("Embedding", embeddings)
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)
        return cls(rows, columns, *options)

    def extra_repr(self) -> str:
        extra = f"{self.num_embeddings}, {self.embedding_dim}"
        switches = {"scale_grad_by_freq": False, "sparse": False}
        return extra + unusual(self, padding_idx=None, max_norm=None, norm_type=2, **switches)


class EmbeddingBag(Embedding):
    """Sum or mean of the rows of a trained table that each bag of indices names, see
    :func:`kobai.nn.functional.embedding_bag`; other arguments as those of :class:`Embedding`.

    >>> import kobai
    >>> bags = kobai.nn.EmbeddingBag(10, 3, mode="sum")
    >>> bags(kobai.tensor([1, 2, 4, 5, 4]), kobai.tensor([0, 3])).shape
    kobai.Size([2, 3])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        options = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, _weight)
        super().__init__(num_embeddings, embedding_dim, *options, device=device, dtype=dtype)
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"EmbeddingBag: expected mode 'sum', 'mean' or 'max', got {mode!r}")
        self.mode = mode
        self.include_last_offset = include_last_offset

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the arguments and their order are PyTorch's
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Self:
        """A layer around a given table (num_embeddings, embedding_dim), which it shares; frozen by default."""
        rows, columns = _sizes("EmbeddingBag", embeddings)
        options = (max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset, padding_idx)
        bags = cls(rows, columns, *options)
        bags.weight.requires_grad_(not freeze)
        return bags

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(bags, n), or (total) with offsets (bags) → (bags, embedding_dim)."""
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )

    def extra_repr(self) -> str:
        extra = f"{self.num_embeddings}, {self.embedding_dim}"
        extra += unusual(self, max_norm=None, norm_type=2, scale_grad_by_freq=False)
        return f"{extra}, mode={self.mode!r}" + unusual(self, padding_idx=None)
