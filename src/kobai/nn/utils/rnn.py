"""Sequences of unequal lengths in one batch: padded at the end, or packed without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kobai.core.tensor import Tensor
from kobai.ops.create import full
from kobai.ops.gather import index_select
from kobai.ops.joining import cat, stack
from kobai.refusals import guard as _guard
from kobai.xp import device, move, to_host

__all__ = [
    "PackedSequence",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class PackedSequence(NamedTuple):
    """A batch of sequences without padding, made by :func:`pack_padded_sequence`; recurrent layers take and return it.

    ``data`` (total length, *) holds the first elements of all sequences, the longest first, then all second ones, and so on;
    ``batch_sizes`` (L, on the host) says how many there are of each. ``sorted_indices`` (N) are the sequences' places in the
    batch, ``unsorted_indices`` those that they have now; both are None if the batch was sorted by length already.

    >>> import kobai
    >>> packed = kobai.nn.utils.rnn.pack_sequence([kobai.tensor([1, 2, 3]), kobai.tensor([4])])
    >>> isinstance(packed, kobai.nn.utils.rnn.PackedSequence), packed.data
    (True, tensor([1, 4, 2, 3]))
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, where: device | str) -> PackedSequence:
        """The same on another device; ``batch_sizes`` stay on the host."""
        order, back = (None if t is None else t.to(where) for t in (self.sorted_indices, self.unsorted_indices))
        return PackedSequence(self.data.to(where), self.batch_sizes, order, back)

    @property
    def is_cuda(self) -> bool:
        """Whether the data live on a GPU."""
        return self.data.is_cuda


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    """Sequences (Lᵢ, *) as one tensor (L, N, *), or (N, L, *) if ``batch_first``, filled up with ``padding_value``.

    >>> import kobai
    >>> kobai.nn.utils.rnn.pad_sequence([kobai.tensor([1, 2, 3]), kobai.tensor([4])], batch_first=True)
    tensor([[1, 2, 3],
            [4, 0, 0]])
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"pad_sequence: expected padding_side 'right' or 'left', got {padding_side!r}")
    if isinstance(sequences, Tensor) or not sequences or not all(isinstance(s, Tensor) for s in sequences):
        raise TypeError("pad_sequence: expected a list of one or more Tensors")
    if len({tuple(s.shape[1:]) for s in sequences}) > 1 or any(s.ndim == 0 for s in sequences):
        shapes = ", ".join(str(tuple(s.shape)) for s in sequences[:5])
        raise RuntimeError(f"pad_sequence: expected sequences (L, *) that differ in L alone, got {shapes}")
    longest = max(s.shape[0] for s in sequences)

    def filled(s: Tensor) -> Tensor:
        if s.shape[0] == longest:
            return s
        rest = full((longest - s.shape[0], *s.shape[1:]), padding_value, dtype=s.dtype, device=s.device)
        return cat([s, rest] if padding_side == "right" else [rest, s])

    return stack([filled(s) for s in sequences], 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The sequences that :func:`pad_sequence` put together, as views.

    >>> import kobai
    >>> kobai.nn.utils.rnn.unpad_sequence(kobai.ones(3, 2), [3, 1])
    [tensor([1., 1., 1.]), tensor([1.])]
    """
    each = padded_sequences.unbind(0 if batch_first else 1)
    return [s[:n] for s, n in zip(each, _host_lengths("unpad_sequence", lengths), strict=True)]


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Leave out the padding of (L, N, *) – or (N, L, *) if ``batch_first`` –, ``lengths`` (N) a list or integer Tensor.

    ``enforce_sorted=True`` checks that the longest sequence comes first and the shortest last.

    >>> import kobai
    >>> packed = kobai.nn.utils.rnn.pack_padded_sequence(kobai.tensor([[1, 2, 3], [4, 0, 0]]), [3, 1], batch_first=True)
    >>> packed.data, packed.batch_sizes
    (tensor([1, 4, 2, 3]), tensor([2, 1, 1]))
    """
    sizes = np.asarray(_host_lengths("pack_padded_sequence", lengths))
    if batch_first:
        input = input.transpose(0, 1)
    longest, batch = input.shape[:2]
    if len(sizes) != batch or batch == 0 or sizes.min() < 1 or sizes.max() > longest:
        raise ValueError(f"pack_padded_sequence: expected {batch} lengths from 1 to {longest}, got {sizes.tolist()}")
    batch_sizes = Tensor._wrap((np.arange(sizes.max())[:, None] < sizes).sum(axis=1))
    if not enforce_sorted:
        order = np.argsort(-sizes, kind="stable")
        return pack_like(
            PackedSequence(input, batch_sizes, _index(order, input), _index(np.argsort(order), input)), input
        )
    if (np.diff(sizes) > 0).any():
        raise RuntimeError(
            f"pack_padded_sequence: lengths {sizes.tolist()} are not in descending order; pass enforce_sorted=False"
        )
    return pack_like(PackedSequence(input, batch_sizes), input)


def pack_like(packed: PackedSequence, padded: Tensor) -> PackedSequence:
    """The elements of ``padded`` (L, N, *) packed in the order of ``packed``."""
    sizes = to_host(packed.batch_sizes.array)
    batch = padded.shape[1]
    order = np.arange(batch) if packed.sorted_indices is None else to_host(packed.sorted_indices.array)
    places = np.arange(len(sizes))[:, None] * batch + order
    still = np.arange(batch) < sizes[:, None]  # (L, N): sequences that have not ended, which come first
    rows = padded.reshape(padded.shape[0] * batch, *padded.shape[2:])
    return packed._replace(data=index_select(rows, 0, _index(places[still], padded)))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`pack_padded_sequence`: the padded batch, and the lengths (N) on the host.

    ``total_length`` pads to this length, beyond the longest sequence.

    >>> import kobai
    >>> from kobai.nn.utils.rnn import pack_sequence, pad_packed_sequence
    >>> pad_packed_sequence(pack_sequence([kobai.ones(2), kobai.ones(1)]))
    (tensor([[1., 1.],
            [1., 0.]]), tensor([2, 1]))
    """
    data, batch_sizes, _, unsorted = sequence
    sizes = to_host(batch_sizes.array)
    longest, batch = len(sizes), int(sizes[0])
    if total_length is not None and total_length < longest:
        raise ValueError(f"pad_packed_sequence: expected total_length >= {longest}, got {total_length}")
    still = np.arange(batch) < sizes[:, None]
    places = np.full((total_length or longest, batch), data.shape[0])  # the row of padding after the data
    places[:longest][still] = np.arange(data.shape[0])
    lengths = still.sum(axis=0)
    if unsorted is not None:
        back = to_host(unsorted.array)
        places, lengths = places[:, back], lengths[back]
    padding = full((1, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device)
    padded = index_select(cat([data, padding]), 0, _index(places.reshape(-1), data))
    padded = padded.reshape(*places.shape, *data.shape[1:])
    return padded.transpose(0, 1) if batch_first else padded, Tensor._wrap(lengths)


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences (Lᵢ, *) of unequal lengths packed, see :func:`pack_padded_sequence`.

    >>> import kobai
    >>> kobai.nn.utils.rnn.pack_sequence([kobai.tensor([1, 2, 3]), kobai.tensor([4])]).batch_sizes
    tensor([2, 1, 1])
    """
    return pack_padded_sequence(pad_sequence(sequences), [len(s) for s in sequences], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences that :func:`pack_sequence` packed.

    >>> import kobai
    >>> packed = kobai.nn.utils.rnn.pack_sequence([kobai.tensor([1, 2, 3]), kobai.tensor([4])])
    >>> kobai.nn.utils.rnn.unpack_sequence(packed)
    [tensor([1, 2, 3]), tensor([4])]
    """
    padded, lengths = pad_packed_sequence(packed_sequences)
    return unpad_sequence(padded, lengths)


def _host_lengths(who: str, lengths: Any) -> list[int]:
    listed = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if any(isinstance(n, bool) or not hasattr(n, "__index__") for n in listed):
        raise TypeError(f"{who}: expected lengths to be integers, got {listed}")
    return [int(n) for n in listed]


def _index(host: Any, like: Tensor) -> Tensor:
    return Tensor._wrap(move(host.astype(np.int64), like.device))  # type: ignore[no-any-return]


_guard(globals(), classes=True)
